package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/octopus"
)

// machine is a machine with instances of the agent.
type machine struct {
	t   *testing.T
	dir string
	// program is what leads to the agent's commands.
	program []string
}

func newMachine(t *testing.T, program ...string) *machine {
	t.Helper()
	m := &machine{t, apptest.ShortDir(t), program}
	t.Cleanup(func() { proctest.End(t, m.dir) })
	return m
}

func (m *machine) command(args ...string) *exec.Cmd {
	all := append(append([]string{}, m.program...), args...)
	// The test's context ends before an instance is stopped.
	cmd := exec.CommandContext(context.WithoutCancel(m.t.Context()), all[0], all[1:]...)
	cmd.Env = append(os.Environ(), "TAKO_AGENT_CONFIG="+filepath.Join(m.dir, "agents"))
	return cmd
}

// run runs a command that must succeed, and returns what it printed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	return m.with(nil, 0, args...)
}

// with is run with more in the environment, for a command that must end so.
func (m *machine) with(env []string, code int, args ...string) string {
	m.t.Helper()
	cmd := m.command(args...)
	cmd.Env = append(cmd.Env, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		m.t.Fatalf("%s: exit code %d, want %d:\n%s", strings.Join(args, " "), got, code, out.String())
	}
	return out.String()
}

// instance is the process of an instance.
type instance struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	out   proctest.Output
	ended chan struct{} // closed when err says how
	err   error
	once  sync.Once
}

// launch runs an instance until it is stopped or killed.
func (m *machine) launch(name string) *instance {
	m.t.Helper()
	i := &instance{t: m.t, name: name, cmd: m.command("run", "--instance", name), ended: make(chan struct{})}
	i.cmd.Stdout, i.cmd.Stderr = &i.out, &i.out
	if err := i.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() {
		i.err = i.cmd.Wait()
		close(i.ended)
	}()
	m.t.Cleanup(i.stop)
	until(m.t, name+" is ready", func() bool {
		select {
		case <-i.ended:
			m.t.Fatalf("%s ended: %v\n%s", name, i.err, i.out.String())
		default:
		}
		return strings.Contains(i.out.String(), "agent is ready")
	})
	return i
}

// stop asks the process to end, and waits until it has.
func (i *instance) stop() {
	i.once.Do(func() {
		if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			i.t.Errorf("stop %s: %v", i.name, err)
		}
		if <-i.ended; i.err != nil {
			i.t.Errorf("%s ended: %v\n%s", i.name, i.err, i.out.String())
		}
	})
}

// kill ends the process as a crash would, and waits until it is gone.
func (i *instance) kill() {
	i.once.Do(func() {
		if err := i.cmd.Process.Kill(); err != nil {
			i.t.Errorf("kill %s: %v", i.name, err)
		}
		<-i.ended
	})
}

// start runs an instance until the function that it returns is called.
func (m *machine) start(name string) (stop func()) {
	m.t.Helper()
	return m.launch(name).stop
}

// installCommand is the command that a server gives out with a token, for agents of a
// style, with what a test's machine needs besides.
func installCommand(t *testing.T, token octopus.RegistrationTokenCreated, style octopus.CommunicationStyle, name string, more ...string) []string {
	t.Helper()
	for _, c := range token.Commands {
		if c.CommunicationStyle == style {
			words := strings.Fields(string(c.Command))
			return append(append(words[1:], "--no-service", "--name", name, "--instance", name), more...)
		}
	}
	t.Fatalf("there is no command for %s: %v", style, token.Commands)
	return nil
}

// small is the agent's own program.
func small(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tako-agent")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/takodeploy/tako/cmd/tako-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build tako-agent: %v\n%s", err, out)
	}
	return path
}

// port is a free one that an agent can come back to.
func port(t *testing.T) string {
	t.Helper()
	_, at, err := net.SplitHostPort(apptest.FixedAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestAgentsAsInstalled installs an agent that listens and one that polls by the
// commands that the server gives out, deploys to both, has one restarted in the middle
// of a script, and takes both away again.
func TestAgentsAsInstalled(t *testing.T) {
	t.Parallel()
	p := apptest.NewProcess(t, db.SQLite)
	p.Start()
	m := newModel(t, p.Client)
	host := newMachine(t, small(t))
	key := []string{"TAKO_API_KEY=" + apptest.AdminKey}

	var token octopus.RegistrationTokenCreated
	p.Must(t, http.MethodPost, space+"/machines/registration-tokens", octopus.RegistrationTokenCommand{
		RegistrationScope: octopus.RegistrationScope{EnvironmentIDs: octopus.List[string]{m.Dev.ID}, Roles: octopus.List[string]{"web"}}, Uses: 2,
	}, &token)
	passive, active := string(octopus.StyleListening), string(octopus.StylePolling)
	for range 2 { // it can be run again
		host.run(installCommand(t, token, octopus.StyleListening, passive, "--listen-address", "127.0.0.1", "--public-host-name", "127.0.0.1", "--port", port(t))...)
	}
	host.run(installCommand(t, token, octopus.StylePolling, active)...)
	stop := host.start(passive)
	host.start(active)

	held := filepath.Join(host.dir, "go")
	step := script("Install", fmt.Sprintf(`echo "runs in $TentacleInstanceName"
touch '%s'/began-"$TentacleInstanceName"
while [ ! -e '%s' ]; do sleep 0.02; done
echo "done in $TentacleInstanceName"`, host.dir, held))
	delete(step.Actions[0].Properties, octopus.PropRunOnServer)
	step.Properties = octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")}
	m.process(t, step)
	_, version := m.release(t, nil)
	task := m.deploy(t, version, m.Dev)
	for _, name := range []string{passive, active} {
		until(t, "the script on "+name, func() bool {
			_, err := os.Stat(filepath.Join(host.dir, "began-"+name))
			return err == nil
		})
	}
	stop()
	host.start(passive)
	if err := os.WriteFile(held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := wait(t, p.Client, task, 2*time.Minute)
	log := string(p.Must(t, http.MethodGet, space+"/tasks/"+task+"/raw", nil, nil).Body)
	if done.State != octopus.TaskSuccess {
		t.Fatalf("it ended as %s:\n%s", done.State, log)
	}
	for _, want := range []string{"runs in " + passive, "done in " + passive, "runs in " + active, "done in " + active} {
		if strings.Count(log, want) != 1 {
			t.Errorf("the log has %q %d times:\n%s", want, strings.Count(log, want), log)
		}
	}

	var instances []struct {
		Name       string
		Thumbprint string
		Listen     bool
		Servers    []struct{ Style, Thumbprint string }
	}
	if err := json.Unmarshal([]byte(host.run("list-instances", "--output", "json")), &instances); err != nil {
		t.Fatal(err)
	}
	if len(instances) != 2 || instances[0].Name != active || instances[0].Listen || !instances[1].Listen || instances[0].Servers[0].Style != active || instances[0].Servers[0].Thumbprint != instances[1].Servers[0].Thumbprint {
		t.Errorf("%+v", instances)
	}
	for _, one := range instances {
		if got := strings.TrimSpace(host.run("show-thumbprint", "--instance", one.Name)); got != one.Thumbprint {
			t.Errorf("%s is %s, and listed as %s", one.Name, got, one.Thumbprint)
		}
		if out := host.with(key, 0, "deregister", "--instance", one.Name, "--server", p.URL); !strings.Contains(out, "The machine "+one.Name+" is deleted") {
			t.Error(out)
		}
	}
	if page := apptest.Get[octopus.Page[octopus.Machine]](t, p.Client, space+"/machines"); page.TotalResults != 0 {
		t.Errorf("%d machines are left", page.TotalResults)
	}
	if out := host.run("list-instances", "--output", "json"); strings.Contains(out, instances[0].Servers[0].Thumbprint) {
		t.Errorf("the server is still trusted: %s", out)
	}
}

// TestRegisterByCommand registers agents as other agents' commands do: with an API key,
// a name and a password, by force, as a worker; and what such commands get wrong.
func TestRegisterByCommand(t *testing.T) {
	t.Parallel()
	p := apptest.NewProcess(t, db.SQLite)
	p.Env = []string{"TAKO_ADMIN_PASSWORD=correct horse battery"}
	p.Start()
	m := newModel(t, p.Client)
	apptest.Post(t, p.Client, space+"/tagsets", octopus.TagSet{Name: "Size", Tags: octopus.List[octopus.Tag]{{Name: "Large", Color: "#000000"}}})
	apptest.Post(t, p.Client, space+"/tenants", octopus.Tenant{Name: "Acme"})
	host := newMachine(t, apptest.Binary(t), "agent")
	key := []string{"TAKO_API_KEY=" + apptest.AdminKey}
	_, comms, err := net.SplitHostPort(p.Agents)
	if err != nil {
		t.Fatal(p.Agents, err)
	}
	host.run("configure", "--port", "10999", "--connections", "2")

	// In the spelling that other agents' users know.
	target := []string{
		"register-with", "--server", p.URL, "--name", "Web 1", "--env", "dev", "--environment", m.Production.ID, "--role", "web", "--role", "db",
		"--publicHostName", "web1.example.com", "--tenant", "acme", "--tenanttag", "size/large", "--policy", "Default Machine Policy", "--tenanted-deployment-participation", "TenantedOrUntenanted",
	}
	host.with(key, 0, target...)
	machines := func(kind string) []octopus.Machine {
		return apptest.Get[[]octopus.Machine](t, p.Client, space+"/"+kind+"/all")
	}
	all := machines("machines")
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	one := all[0]
	self := strings.TrimSpace(host.run("show-thumbprint"))
	got := []any{one.Name, one.EnvironmentIDs, one.Roles, one.Endpoint.CommunicationStyle, one.Endpoint.URI, one.Endpoint.Thumbprint, one.TenantTags, len(one.TenantIDs), one.TenantedDeploymentParticipation}
	want := []any{
		"Web 1",
		octopus.List[string]{m.Dev.ID, m.Production.ID},
		octopus.List[string]{"web", "db"},
		octopus.StyleListening, "https://web1.example.com:10999/", self,
		octopus.List[string]{"Size/Large"},
		1, octopus.TenantedOrUntenanted,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	if out := host.with(key, 1, target...); !strings.Contains(out, `--name "Web 1"`) || !strings.Contains(out, "--force") {
		t.Error(out)
	}
	// By force, and from a user's name and password: another way to be reached.
	host.with([]string{"TAKO_PASSWORD=correct horse battery"}, 0, "register-with", "--server", p.URL, "--username", "admin", "--name", "web 1", "--environment", "Dev", "--role", "web",
		"--comms-style", "TentacleActive", "--server-comms-port", comms, "--force")
	forced := machines("machines")
	if len(forced) != 1 || forced[0].ID != one.ID || forced[0].Endpoint.CommunicationStyle != octopus.StylePolling || !strings.HasPrefix(forced[0].Endpoint.URI, "poll://") || len(forced[0].EnvironmentIDs) != 1 {
		t.Errorf("%+v", forced)
	}
	host.with(key, 0, "register-worker", "--server", p.URL, "--name", "builder", "--workerpool", "Default Worker Pool", "--comms-style", "TentacleActive", "--server-comms-port", comms)
	if all := machines("workers"); len(all) != 1 || all[0].Endpoint.URI != forced[0].Endpoint.URI || all[0].Endpoint.Thumbprint != self {
		t.Errorf("an agent has one subscription at a server: %+v", all)
	}
	node := host.with(key, 0, "poll-server", "--server", p.URL, "--server-comms-address", "localhost", "--server-comms-port", comms)
	if !strings.Contains(node, "polls https://localhost:"+comms+"/ too") {
		t.Error(node)
	}

	server := []string{"--server", p.URL}
	for _, c := range []struct {
		says string
		code int
		args []string
	}{
		{`--environment "Moon": the space has none with this name, slug or id, or you may not see it; there are Dev, Production`, 1, append(target[:len(target):len(target)], "--force", "--environment", "Moon")},
		{`--policy "None"`, 1, append(target[:len(target):len(target)], "--force", "--policy", "None")},
		{`--tenant-tag "Size/Small"`, 1, append(target[:len(target):len(target)], "--force", "--tenant-tag", "Size/Small")},
		{`--space "Far": this user sees no such space; there are Default`, 1, append(target[:len(target):len(target)], "--space", "Far")},
		{"--server is missing", 2, []string{"register-with"}},
		{`--server "ftp://x": give the server's URL`, 2, []string{"register-with", "--server", "ftp://x"}},
		{"--environment is missing", 2, append([]string{"register-with"}, server...)},
		{"--role is missing", 2, append([]string{"register-with", "--environment", "Dev"}, server...)},
		{"--worker-pool is missing", 2, append([]string{"register-worker"}, server...)},
		{`--comms-style "Ssh": give TentaclePassive`, 2, append([]string{"register-worker", "--worker-pool", "x", "--comms-style", "Ssh"}, server...)},
		{"unknown flag: --colour", 2, []string{"register-with", "--colour"}},
		{`takes no argument "now"`, 2, []string{"configure", "now"}},
		{`there is no command "fly"`, 2, []string{"fly"}},
		{`--port "70000": give a port from 1 to 65535`, 2, []string{"configure", "--port", "70000"}},
		{`--output "xml": give table or json`, 2, []string{"list-instances", "--output", "xml"}},
		{`There is no instance "web"`, 1, []string{"show-thumbprint", "--instance", "web"}},
		{`The instance name "a/b"`, 2, []string{"run", "--instance", "a/b"}},
	} {
		if out := host.with(key, c.code, c.args...); !strings.Contains(out, c.says) {
			t.Errorf("%s: no %q in %s", strings.Join(c.args, " "), c.says, out)
		}
	}
	if out := host.with([]string{"TAKO_API_KEY=API-WRONG"}, 1, target...); !strings.Contains(out, "401") || !strings.Contains(out, "check the API key") {
		t.Error(out)
	}
	if out := host.with(nil, 2, target...); !strings.Contains(out, "TAKO_API_KEY") {
		t.Error(out)
	}
	host.with(key, 0, "deregister", "--server", p.URL)
	if left := append(machines("machines"), machines("workers")...); len(left) != 0 {
		t.Errorf("%+v", left)
	}
	if out := host.run("delete-instance", "--instance", "default"); !strings.Contains(out, "is forgotten") {
		t.Error(out)
	}
}
