package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/octopus"
)

// exec is the command by which an engine starts a program in a container that runs.
func (c *container) exec(im *image, args ...string) *exec.Cmd {
	c.t.Helper()
	uid, gid, _ := strings.Cut(im.user, ":")
	args = append([]string{"--target", strconv.Itoa(c.init()), "--pid", "--mount", "--net", "--uts", "--ipc", "--root", "--wd", "--setuid", uid, "--setgid", gid, "--", "/tako"}, args...)
	cmd := exec.CommandContext(c.t.Context(), "nsenter", args...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, im.env...)
	return cmd
}

// do runs a program in a container, which is to end with a code and to say something.
func (c *container) do(im *image, in string, code int, want string, args ...string) string {
	c.t.Helper()
	cmd := c.exec(im, args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		c.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
		c.t.Fatalf("%v: exit code %d, not %d; %q is missing\n%s\n%s", args, got, code, want, out, c.said())
	}
	return string(out)
}

// kill ends the processes of a container whose command line has a word, and tells how many.
func (c *container) kill(word string) (n int) {
	c.t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.init()))
	if err != nil {
		c.t.Fatal(err)
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, path := range all {
		ns, err := os.Readlink(filepath.Join(filepath.Dir(path), "ns", "pid"))
		if err != nil || ns != own {
			continue // or it has just ended
		}
		line, err := os.ReadFile(path)
		pid, bad := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && bad == nil && slices.Contains(strings.Split(string(line), "\x00"), word) && syscall.Kill(pid, syscall.SIGKILL) == nil {
			n++
		}
	}
	return n
}

// listen has a site answer within a container, and tells the address of its feed there.
func (f *feedSite) listen(t *testing.T, c *container) string {
	t.Helper()
	var ln net.Listener
	err := within(c.cmd.Process.Pid, func() (err error) {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.FileServer(http.Dir(f.dir)), ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close(); <-ended })
	return "http://" + ln.Addr().String() + "/feed.json"
}

// client is one of a container's server.
func (c *container) client() *apptest.Client {
	return &apptest.Client{URL: "http://127.0.0.1:8065", Key: apptest.AdminKey, HTTP: c.http}
}

// lastUpgrade is the newest one of a volume.
func lastUpgrade(t *testing.T, volume string) *upgrade.Txn {
	t.Helper()
	j, err := journal.Open(upgrade.Dir(volume))
	if err != nil {
		t.Fatal(err)
	}
	last, err := upgrade.Last(j.Entries())
	if err != nil || last == nil {
		t.Fatal(last, err)
	}
	return last
}

// comesTo waits until the newest upgrade of a volume has reached a state.
func (c *container) comesTo(volume string, s upgrade.State) {
	c.t.Helper()
	for late := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // between two looks
		last := lastUpgrade(c.t, volume)
		if last.State == s {
			return
		}
		if last.State.Ended() || time.Now().After(late) {
			raw, _ := os.ReadFile(upgrade.WorkerLog(volume)) // for the reader
			c.t.Fatalf("the upgrade is %s, not %s: %s\n%s\n%s", last.State, s, last.Error, raw, c.said())
		}
	}
}

// ask asks a container's server all the time, until stop: no request may fail.
func (c *container) ask() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	n, failed := 0, 0
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond): // nor does it take all of the machine
			}
			n++
			r, err := c.http.Get("http://127.0.0.1:8065/readyz")
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
			}
			if err != nil || r.StatusCode != http.StatusOK {
				failed++
				c.t.Errorf("a request failed: %v", err)
			}
		}
	}()
	return func() {
		close(end)
		<-ended
		c.t.Logf("%d requests, %d failed", n, failed)
		if n == 0 || failed > 0 {
			c.t.Errorf("%d of %d requests failed", failed, n)
		}
	}
}

// TestContainerUpgrade prepares an upgrade in a container whose server goes on meanwhile:
// what asked for it, and what carries it out, is killed. Then the image of the next version
// is started on the volume, that of the old one again, and once more the next for good.
func TestContainerUpgrade(t *testing.T) {
	t.Parallel()
	contained(t)
	program := nextProgram(t)
	im := minimal(t)
	newer := minimal(t)
	if err := os.WriteFile(filepath.Join(newer.root, "tako"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	volume := volumeOf(t, im)
	admin := []string{"TAKO_ADMIN_USERNAME=admin", "TAKO_ADMIN_API_KEY=" + apptest.AdminKey}
	start := func(im *image) *container {
		t.Helper()
		c := im.start(t, volume, admin...)
		c.get("/readyz", http.StatusOK)
		noted(t, volume)
		return c
	}
	backups := func(c *container, im *image) []pinned {
		t.Helper()
		return decode[[]pinned](t, []byte(c.do(im, "", 0, "[", "backup", "list", "--output", "json")))
	}

	c := start(im)
	old := current(t, volume)
	kit := c.do(im, "", 0, "AGE-SECRET-KEY-1", "key", "recovery-kit")
	key := regexp.MustCompile(`AGE-SECRET-KEY-1\w+`).FindString(kit)
	c.do(im, key[len(key)-4:]+"\n", 0, "", "key", "recovery-kit", "--confirm")
	site := newFeedSite(t)
	site.publish(t, next, program)
	raw, err := os.ReadFile(site.root)
	if err == nil {
		err = os.WriteFile(filepath.Join(volume, "root.json"), raw, 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(volume, "next.bundle"), site.bundle(t), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.do(im, "", 0, "Root 1 is trusted", "upgrade", "trust", "/data/root.json", "--feed", site.listen(t, c))
	before := apptest.Post(t, c.client(), "/api/Spaces-1/environments", octopus.Environment{Name: "before"})
	c.do(im, "", 0, "Nothing speaks against it", "upgrade", "--dry-run")
	if said := c.client().Refused(t, http.StatusConflict, http.MethodPost, "/api/system/upgrade/start", map[string]string{"Version": next}); !strings.Contains(said, "tako upgrade --to "+next) {
		t.Errorf("the API: %s", said)
	}

	// The one who asked for it goes away, and what carries it out is killed.
	stop := c.ask()
	asked := c.exec(im, "upgrade", "--yes", "--hold", "100h")
	asked.Env = append(asked.Env, failpoint.Env+"=upgrade-begun-rehearsed:stall=1h")
	if err := asked.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rehearsal has begun", func() bool {
		raw, err := os.ReadFile(filepath.Join(volume, "upgrade", "journal.jsonl"))
		return err == nil && bytes.Contains(raw, []byte(upgrade.Rehearsed))
	})
	_ = asked.Process.Kill()
	_ = asked.Wait()
	c.kill("upgrade")
	if n := c.kill(upgrade.WorkerCommand); n != 1 {
		t.Errorf("%d processes carried it out", n)
	}
	c.comesTo(volume, upgrade.Expanded)
	stop()
	const remedy = "start the container with the image of version "
	c.do(im, "", 0, remedy+next, "upgrade", "status")
	c.do(im, "", 0, remedy+next, "upgrade", "resume")
	c.do(im, "", 0, string(upgrade.Expanded), "upgrade", "history")
	c.do(im, "", 1, remedy+next+" on the same volume first", "upgrade", "finalize")
	c.do(im, "", 75, "has not ended", "upgrade", "--yes")
	// Its own image is as good as before.
	c.stop()
	c = start(im)
	c.do(im, "", 0, remedy+next, "upgrade", "status")
	c.stop()

	c = start(newer)
	c.comesTo(volume, upgrade.Committed)
	if got := apptest.Get[octopus.Environment](t, c.client(), "/api/Spaces-1/environments/"+before.ID); got.Name != "before" {
		t.Errorf("the environment is %+v", got)
	}
	if all := backups(c, newer); len(all) != 1 || all[0].Pin == nil || all[0].Pin.Upgrade != lastUpgrade(t, volume).ID || !all[0].Pin.Until.IsZero() {
		t.Errorf("the backups are %+v", all)
	}
	if _, err := os.Stat(filepath.Join(volume, "versions", next)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the program that was tried is still on the volume: %v", err)
	}
	during := apptest.Post(t, c.client(), "/api/Spaces-1/environments", octopus.Environment{Name: "during"})
	c.do(newer, "", 0, remedy+old, "upgrade", "rollback")
	c.do(newer, "", 0, remedy+old, "upgrade", "status")
	c.stop()

	c = start(im)
	c.comesTo(volume, upgrade.RolledBack)
	for _, e := range []octopus.Environment{before, during} {
		if got := apptest.Get[octopus.Environment](t, c.client(), "/api/Spaces-1/environments/"+e.ID); got.Name != e.Name {
			t.Errorf("%s is %+v after the way back", e.Name, got)
		}
	}
	if all := backups(c, im); len(all) != 1 || all[0].Pin == nil || all[0].Pin.Until.IsZero() {
		t.Errorf("the backups are %+v", all)
	}

	// The container is killed in the middle.
	asked = c.exec(im, "upgrade", "--yes", "--bundle", "/data/next.bundle")
	asked.Env = append(asked.Env, failpoint.Env+"=upgrade-begun-backed_up:stall=1h")
	if err := asked.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the backup has begun", func() bool { return lastUpgrade(t, volume).Doing == upgrade.BackedUp })
	if err := syscall.Kill(c.init(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.wait()
	_ = asked.Wait() // it was killed with its container
	c = start(im)
	c.comesTo(volume, upgrade.Expanded)
	c.do(im, "", 0, remedy+next, "upgrade", "resume")
	c.stop()

	// The journal could not be written when the new image was started before, as on a full
	// disk: what serves tells it.
	note(t, volume, next)
	c = start(newer)
	c.comesTo(volume, upgrade.Committed)
	c.do(newer, "", 0, "is final", "upgrade", "finalize")
	if all := backups(c, newer); len(all) != 2 || slices.ContainsFunc(all, func(b pinned) bool { return b.Pin == nil || b.Pin.Until.IsZero() }) {
		t.Errorf("the backups are %+v", all)
	}
	c.do(newer, "", 1, "with the image of version "+old, "upgrade", "rollback")
	c.stop()
	c = im.start(t, volume, admin...)
	if code := c.wait(); code != 78 {
		t.Errorf("the old image afterwards: %d\n%s", code, c.said())
	}
}
