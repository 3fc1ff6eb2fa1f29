package test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/proctest"
)

// demoRun is a run of the demo.
type demoRun struct {
	cmd   *exec.Cmd
	out   proctest.Output
	ended chan error
}

func startDemo(t *testing.T, data string, env ...string) *demoRun {
	t.Helper()
	d := &demoRun{ended: make(chan error, 1)}
	d.cmd = exec.Command(apptest.Binary(t), "demo", "--data", data, "--listen", "127.0.0.1:0")
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	return d
}

// says waits until the demo has written something.
func (d *demoRun) says(t *testing.T, text string) {
	t.Helper()
	until(t, "the demo says "+text, func() bool {
		said := d.out.String()
		if strings.Contains(said, text) {
			return true
		}
		select {
		case err := <-d.ended:
			t.Fatalf("the demo ended before it said %q: %v\n%s", text, err, said)
		default:
		}
		return false
	})
}

// TestDemo kills the demo in the middle of its deployment and runs it again: it ends what
// was left, deploys the next release to both agents, one after the other, and Ctrl-C ends
// all that it has started.
func TestDemo(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the example's service needs node: %v", err)
		}
		t.Skipf("the example's service needs node: %v", err)
	}
	data := filepath.Join(apptest.ShortDir(t), "data")
	t.Cleanup(func() { proctest.End(t, data) })

	// The service of the first run never answers, so that its deployment cannot end.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "node"), []byte("#!/bin/sh\nwhile :; do sleep 0.1; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	killed := startDemo(t, data, "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	killed.says(t, "Started the service as process ")
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-killed.ended
	if left := proctest.Of(data); len(left) < 3 {
		t.Fatalf("the processes %v have outlived the demo, want its agents and the service", left)
	}

	d := startDemo(t, data)
	d.says(t, "Press Ctrl-C")
	said := d.out.String()
	for _, want := range []string{
		"that a demo before this one has left", "had not ended, and is Canceled now", "web-1 listens at 127.0.0.1:", "web-2 polls the server at 127.0.0.1:",
		"Created release 0.0.2 of Hello web", "release 0.0.2 runs in Dev",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	steps := regexp.MustCompile(`(Started) the service as process|Release 0\.0\.2 (answers) at`).FindAllStringSubmatch(said, -1)
	var order []string
	for _, s := range steps {
		order = append(order, s[1]+s[2])
	}
	if !slices.Equal(order, []string{"Started", "answers", "Started", "answers"}) {
		t.Errorf("the targets had their turns as %v, want one after the other", order)
	}
	services := regexp.MustCompile(`Service on (web-\d): +(http://\S+/)`).FindAllStringSubmatch(said, -1)
	if len(services) != 2 {
		t.Errorf("the demo names the services %v, want 2", services)
	}
	for _, s := range services {
		resp, err := http.Get(s[2] + "health")
		if err != nil {
			t.Error(err)
			continue
		}
		var health struct{ Status, Version, Environment, Target string }
		if err := json.NewDecoder(resp.Body).Decode(&health); err != nil || health.Status != "ok" || health.Version != "0.0.2" || health.Environment != "Dev" || health.Target != s[1] {
			t.Errorf("the service on %s says %+v, %v", s[1], health, err)
		}
		resp.Body.Close()
	}
	if out, code := run(t, "", "demo", "--data", data, "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(out, "already") {
		t.Errorf("a second demo beside it: exit code %d\n%s", code, out)
	}

	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-d.ended; err != nil || !strings.Contains(d.out.String(), "The demo has ended") {
		t.Errorf("Ctrl-C: %v", err)
	}
	if left := proctest.Of(data); len(left) > 0 {
		t.Errorf("the processes %v are left", left)
	}
	if t.Failed() {
		t.Logf("the demo said\n%s", d.out.String())
	}
}
