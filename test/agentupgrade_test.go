package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/octopus"
)

// oldVersion is that of the agents before they are upgraded.
const oldVersion = "0.0.1"

// oldAgent is the agent's program of that version.
func oldAgent(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tako-agent")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w -X main.version="+oldVersion, "-o", path, "github.com/takodeploy/tako/cmd/tako-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build tako-agent: %v\n%s", err, out)
	}
	return path
}

// kept is an instance that is started again whenever it has ended, as by a service
// manager.
type kept struct {
	out proctest.Output
	mu  sync.Mutex
	cmd *exec.Cmd // that runs now
}

// keep keeps an instance running until the test ends. Edges are those at which it
// fails, each once.
func (m *machine) keep(name string, edges ...string) *kept {
	m.t.Helper()
	k := &kept{}
	once := filepath.Join(m.dir, name+".once")
	if err := os.Mkdir(once, 0o700); err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(m.t.Context()))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for ctx.Err() == nil {
			cmd := m.command("run", "--instance", name)
			cmd.Env = append(cmd.Env, failpoint.Env+"="+strings.Join(edges, ","), failpoint.EnvOnce+"="+once)
			cmd.Stdout, cmd.Stderr = &k.out, &k.out
			k.mu.Lock()
			err := cmd.Start()
			k.cmd = cmd
			k.mu.Unlock()
			if err != nil {
				m.t.Errorf("start %s: %v", name, err)
				return
			}
			asked := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
			err = cmd.Wait()
			asked()
			_, _ = fmt.Fprintf(&k.out, "%s ended: %v\n", name, err)
			pause := time.NewTimer(10 * time.Millisecond)
			<-pause.C
		}
	}()
	m.t.Cleanup(func() {
		stop()
		<-gone
		if m.t.Failed() {
			m.t.Logf("%s:\n%s", name, k.out.String())
		}
	})
	until(m.t, name+" is ready", func() bool { return strings.Contains(k.out.String(), "agent is ready") })
	return k
}

// kill ends the process that was started, as a crash would.
func (k *kept) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.cmd.Process.Kill() // it may have ended by itself
}

// outdated are a server and agents of an older version.
type outdated struct {
	*apptest.Process
	*model
	host    *machine
	agents  map[string]*kept
	dir     string
	version string // of the server
}

// upgradeEdges are where the server is killed. They are three because a task that had
// four servers die is given to a person.
var upgradeEdges = []string{"program-sent", "upgrade-sent", "upgrade-answered"}

// raw is the log of a task.
func (w *outdated) raw(t *testing.T, task string) string {
	t.Helper()
	return string(w.Process.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)
}

// upgrade starts the task that upgrades agents, and says its id.
func (w *outdated) upgrade(t *testing.T) string {
	t.Helper()
	return apptest.Post(t, w.Process.Client, "/api/tasks", map[string]any{
		"Name": "Upgrade", "SpaceId": "Spaces-1", "Arguments": map[string]any{"EnvironmentId": w.Dev.ID},
	})["Id"].(string)
}

// tells has a machine tell the version of its agent, behind a gate unless that is "".
func tells(name, gate string) octopus.Step {
	wait := ""
	if gate != "" {
		wait = fmt.Sprintf("touch %[1]q.began\nfor i in $(seq 50); do echo \"before $i\"; done\nuntil [ -e %[1]q ]; do sleep 0.05; done\nfor i in $(seq 50); do echo \"after $i\"; done\n", gate)
	}
	return onTargets("Tell", name, wait+`echo "$(get_octopusvariable Octopus.Machine.Name) runs $TentacleVersion"`)
}

// TestAgentUpgrade upgrades agents of an older version by a task, while a deployment
// holds one of their machines and another one waits for it, and while server and agents
// are killed at every edge: each agent ends with the new program or with the old one,
// and the deployments with all of their lines.
func TestAgentUpgrade(t *testing.T) {
	t.Parallel()
	program := oldAgent(t)
	for _, dialect := range soakDialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			dir := apptest.ShortDir(t)
			w := &outdated{Process: apptest.NewProcess(t, dialect), host: newMachine(t, program), agents: map[string]*kept{}, dir: dir}
			w.AgentListen = apptest.FixedAddress(t)
			w.Env = []string{failpoint.Env + "=" + strings.Join(upgradeEdges, ":kill,") + ":kill", failpoint.EnvOnce + "=" + dir}
			w.Start()
			w.model = newModel(t, w.Process.Client)
			said, code := run(t, "", "version", "--output", "json")
			var program struct{ Version string }
			if err := json.Unmarshal([]byte(said), &program); err != nil || code != 0 {
				t.Fatal(said, err)
			}
			w.version = program.Version
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the server:\n%s", w.Output())
				}
			})
			w.install(t)
			w.upgraded(t)
			w.again(t)
			healthy(t, w.Process)
		})
	}
}

// install installs the agents, each a target with its name as a tag.
func (w *outdated) install(t *testing.T) {
	t.Helper()
	for name, edges := range map[string][]string{
		"listens": nil, "polls": nil, "busy": nil,
		"dies":   {"trial-serving:kill"},
		"killed": {"program-staged:kill", "trial-written:kill", "trial-started:kill", "program-confirmed:kill"},
	} {
		style, more := octopus.StyleListening, []string{"--listen-address", "127.0.0.1", "--public-host-name", "127.0.0.1", "--port", port(t)}
		if name == "polls" {
			style, more = octopus.StylePolling, []string{"--connections", "2"}
		}
		var token octopus.RegistrationTokenCreated
		w.Process.Must(t, http.MethodPost, space+"/machines/registration-tokens", octopus.RegistrationTokenCommand{
			RegistrationScope: octopus.RegistrationScope{EnvironmentIDs: octopus.List[string]{w.Dev.ID}, Roles: octopus.List[string]{"all", name}}, Uses: 1,
		}, &token)
		w.host.run(installCommand(t, token, style, name, more...)...)
		w.agents[name] = w.host.keep(name, edges...)
	}
}

// upgraded has all agents upgraded by one task.
func (w *outdated) upgraded(t *testing.T) {
	t.Helper()
	gate := filepath.Join(w.dir, "gate")
	w.process(t, tells("busy", gate))
	_, version := w.release(t, nil)
	before := w.deploy(t, version, w.Dev)
	until(t, "the script on busy runs", func() bool { return fileExists(gate + ".began") })

	task := w.upgrade(t)
	log := ""
	until(t, "all but busy are done", func() bool {
		if w.Exited() { // at an edge
			w.Kill() // collects what is left of it
			w.Start()
		}
		r, err := w.Process.Do(t.Context(), http.MethodGet, "/api/tasks/"+task+"/raw", nil)
		if err != nil || r.Status != http.StatusOK {
			return false
		}
		log = string(r.Body)
		for _, name := range []string{"listens", "polls", "dies", "killed"} {
			if !strings.Contains(log, name+" was upgraded") && !strings.Contains(log, name+" was not upgraded") && !strings.Contains(log, name+" runs version") {
				return false
			}
		}
		for _, edge := range upgradeEdges {
			if !fileExists(filepath.Join(w.dir, edge)) {
				return false
			}
		}
		return true
	})
	for _, name := range []string{"listens", "polls"} {
		if !strings.Contains(log, name+" was upgraded from ") && !strings.Contains(log, name+" runs version "+w.version+" now.") {
			t.Errorf("%s is not upgraded:\n%s", name, log)
		}
	}
	if want := "dies was not upgraded, and runs version " + oldVersion + " as before: The new program ended by itself"; !strings.Contains(log, want) {
		t.Errorf("without %q:\n%s", want, log)
	}
	until(t, "it says what holds busy", func() bool {
		return strings.Contains(w.raw(t, task), "Waiting for busy, which is held by "+before+".")
	})
	// Who comes later waits behind it.
	second := *w.model
	second.Project = apptest.Post(t, w.Process.Client, space+"/projects", octopus.Project{Name: "Second", ProjectGroupID: "ProjectGroups-1", LifecycleID: w.Lifecycle.ID})
	second.process(t, tells("busy", ""))
	_, version = second.release(t, nil)
	after := second.deploy(t, version, w.Dev)
	until(t, "the second deployment waits for busy", func() bool {
		return strings.Contains(w.raw(t, after), "Waiting for busy, which is held by "+before)
	})
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ends := map[string]octopus.TaskState{before: octopus.TaskSuccess, task: octopus.TaskFailed, after: octopus.TaskSuccess}
	for id, want := range ends {
		if done := wait(t, w.Process.Client, id, 4*time.Minute); done.State != want {
			t.Errorf("%s ended as %s: %s\n%s", id, done.State, done.ErrorMessage, w.raw(t, id))
		}
	}
	log = w.raw(t, before)
	for i := 1; i <= 50; i++ {
		for _, when := range []string{"before", "after"} {
			if n := strings.Count(log, fmt.Sprintf("%s %d\n", when, i)); n != 1 {
				t.Errorf("the deployment's log has %d times %s %d", n, when, i)
			}
		}
	}
	for id, want := range map[string]string{before: oldVersion, after: w.version} {
		if log := w.raw(t, id); strings.Count(log, "busy runs "+want+"\n") != 1 {
			t.Errorf("%s is not by version %s:\n%s", id, want, log)
		}
	}
}

// again upgrades what was not, with no more harm but that the processes of all agents
// are killed.
func (w *outdated) again(t *testing.T) {
	t.Helper()
	w.process(t, tells("all", ""))
	versions := func() map[string]string {
		_, version := w.release(t, nil)
		done := wait(t, w.Process.Client, w.deploy(t, version, w.Dev), 4*time.Minute)
		log := w.raw(t, done.ID)
		if done.State != octopus.TaskSuccess {
			t.Fatalf("it ended as %s: %s\n%s", done.State, done.ErrorMessage, log)
		}
		got := map[string]string{}
		for line := range strings.Lines(log) {
			if _, text, ok := strings.Cut(strings.TrimSpace(line), " runs "); ok {
				before, _, _ := strings.Cut(strings.TrimSpace(line), " runs ")
				got[before[strings.LastIndex(before, " ")+1:]] = text
			}
		}
		return got
	}
	for name, v := range versions() {
		if v != w.version && (v != oldVersion || name != "dies" && name != "killed") {
			t.Errorf("%s runs version %s", name, v)
		}
	}
	// One is killed at each of its edges once, so this comes to an end.
	for range 5 {
		if done := wait(t, w.Process.Client, w.upgrade(t), 4*time.Minute); done.State == octopus.TaskSuccess {
			break
		}
	}
	for _, a := range w.agents {
		a.kill()
	}
	got := versions()
	if len(got) != len(w.agents) {
		t.Errorf("they tell the versions %v", got)
	}
	for name, v := range got {
		if v != w.version {
			t.Errorf("%s runs version %s in the end", name, v)
		}
	}
	for _, m := range apptest.Get[octopus.Page[octopus.Machine]](t, w.Process.Client, space+"/machines").Items {
		if d := m.Endpoint.TentacleVersionDetails; !m.HasLatestCalamari || d == nil || string(d.Version) != w.version || d.UpgradeSuggested {
			t.Errorf("%s is shown as %+v", m.Name, d)
		}
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
