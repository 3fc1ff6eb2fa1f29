package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/remote"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/octopus"
)

// remoteAgent is an agent of our own on another machine, as far as its server can tell.
type remoteAgent struct {
	home string
	id   *halibut.Identity
	node *halibut.Node
	ctx  context.Context //nolint:containedctx // the test's, until it ends
	wg   *sync.WaitGroup
}

// newRemoteAgent makes an agent that trusts a server. It neither listens nor polls yet.
func newRemoteAgent(t *testing.T, trusts string) *remoteAgent {
	t.Helper()
	home := filepath.Join(apptest.ShortDir(t), "agent")
	svc, err := agent.Open(t.Context(), agent.Config{Home: home, Version: "test", Exe: apptest.Binary(t)})
	if err != nil {
		t.Fatal(err)
	}
	id, err := halibut.NewIdentity("Tako Agent", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	a := &remoteAgent{home: home, id: id, ctx: ctx, wg: &sync.WaitGroup{}}
	a.node = halibut.New(halibut.Config{
		Identity: id, Services: remote.Services(svc),
		TrustCaller: func(p halibut.Thumbprint) bool { return string(p) == trusts },
		Timing:      halibut.Timing{Again: 50 * time.Millisecond, AgainMax: time.Second, Grace: time.Second},
	})
	t.Cleanup(func() {
		stop()
		a.wg.Wait()
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
		proctest.End(t, home)
	})
	return a
}

// listens has the agent listen, and returns its endpoint.
func (a *remoteAgent) listens(t *testing.T) octopus.Endpoint {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.wg.Go(func() {
		if err := a.node.Serve(a.ctx, ln); err != nil {
			t.Error(err)
		}
	})
	return octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: "https://" + ln.Addr().String() + "/", Thumbprint: string(a.id.Thumbprint)}
}

// polls has the agent poll a server, and returns its endpoint.
func (a *remoteAgent) polls(t *testing.T, server, thumbprint string) octopus.Endpoint {
	t.Helper()
	e := octopus.Endpoint{CommunicationStyle: octopus.StylePolling, URI: string(halibut.NewSubscription()), Thumbprint: string(a.id.Thumbprint)}
	a.polling(t, server, thumbprint, e)
	return e
}

// polling has the agent poll a server as an endpoint says, until stop is called.
func (a *remoteAgent) polling(t *testing.T, server, thumbprint string, e octopus.Endpoint) (stop func()) {
	t.Helper()
	peer, err := halibut.ParseThumbprint(thumbprint)
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(a.ctx)
	ended := make(chan struct{})
	a.wg.Go(func() {
		defer close(ended)
		a.node.Poll(ctx, halibut.Server{Addr: server, Thumbprint: peer, Subscription: halibut.Subscription(e.URI), Connections: 2})
	})
	return func() {
		leave()
		<-ended
	}
}

// serverThumbprint is what agents have to trust, as they read it.
func serverThumbprint(t *testing.T, c *apptest.Client) string {
	t.Helper()
	return apptest.Get[octopus.CertificateConfiguration](t, c, "/api/configuration/certificates/certificate-global").Thumbprint
}

// onTargets is a step of one script on each target with a tag.
func onTargets(name, tag, body string) octopus.Step {
	s := script(name, body)
	s.Properties = octopus.Properties{octopus.PropTargetRoles: octopus.Plain(tag)}
	s.Actions[0].Properties[octopus.PropRunOnServer] = octopus.Plain("False")
	return s
}

func (m *model) target(t *testing.T, name string, e octopus.Endpoint) octopus.Machine {
	t.Helper()
	return apptest.Post(t, m.Client, space+"/machines", octopus.Machine{
		MachineBase: octopus.MachineBase{Name: name, Endpoint: e}, Roles: octopus.List[string]{"web"}, EnvironmentIDs: octopus.List[string]{m.Dev.ID},
	})
}

// lines are those of a file, none while it is not there.
func lines(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		out = append(out, s.Text())
	}
	return out
}

// until waits for something, for as long as a slow machine may need.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after two minutes still not: %s", what)
		}
	}
}

// fleet is an agent that listens, one that polls and a worker that polls, with a deployment
// whose scripts run on all three until the gate is open.
type fleet struct {
	p                       *apptest.Process
	m                       *model
	passive, active, worker *remoteAgent
	polls                   octopus.Machine
	builds                  octopus.Worker
	ran, gate               string // files: who ran, and what the scripts wait for
	version, task           string // of the deployment
}

// newFleet returns when all three scripts run. The server's port of agents has to be one
// that it keeps.
func newFleet(t *testing.T, p *apptest.Process) *fleet {
	t.Helper()
	probe(t, p.Agents)
	thumbprint := serverThumbprint(t, p.Client)
	dir := apptest.ShortDir(t)
	f := &fleet{
		p: p, m: newModel(t, p.Client), ran: filepath.Join(dir, "ran"), gate: filepath.Join(dir, "gate"),
		passive: newRemoteAgent(t, thumbprint), active: newRemoteAgent(t, thumbprint), worker: newRemoteAgent(t, thumbprint),
	}
	f.m.target(t, "listens", f.passive.listens(t))
	f.polls = f.m.target(t, "polls", f.active.polls(t, p.Agents, thumbprint))
	pool := apptest.Post(t, p.Client, space+"/workerpools", octopus.WorkerPool{Name: "Build"})
	f.builds = apptest.Post(t, p.Client, space+"/workers", octopus.Worker{
		MachineBase: octopus.MachineBase{Name: "builds", Endpoint: f.worker.polls(t, p.Agents, thumbprint)}, WorkerPoolIDs: octopus.List[string]{pool.ID},
	})
	held := fmt.Sprintf(`
echo "$(get_octopusvariable "Octopus.Machine.Name") $TentacleHome" >> %[1]q
for i in $(seq 1 20); do echo "before $i"; done
set_octopusvariable From "$TentacleHome"
while [ ! -e %[2]q ]; do sleep 0.05; done
for i in $(seq 1 20); do echo "after $i"; done
`, f.ran, f.gate)
	build := beside(script("Build", held))
	build.Actions[0].WorkerPoolID = octopus.NullString(pool.ID)
	again := script("Build more", fmt.Sprintf(`echo "more $TentacleHome" >> %q`, f.ran))
	again.Actions[0].WorkerPoolID = octopus.NullString(pool.ID)
	f.m.process(t, onTargets("Deploy", "web", held), build, again,
		onTargets("Tell", "web", `echo "deployed to $(get_octopusvariable "Octopus.Action[Deploy].Output.From")"`))
	_, f.version = f.m.release(t, nil)
	f.task = f.m.deploy(t, f.version, f.m.Dev)
	until(t, "all three scripts run", func() bool { return len(lines(t, f.ran)) == 3 })
	return f
}

// finish opens the gate: each script goes on where it was, ran once, and the log is whole.
func (f *fleet) finish(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(f.gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := wait(t, f.p.Client, f.task, 4*time.Minute)
	raw := string(f.p.Must(t, http.MethodGet, "/api/tasks/"+f.task+"/raw", nil, nil).Body)
	if done.State != octopus.TaskSuccess {
		t.Fatalf("%s: %s\n%s", done.State, done.ErrorMessage, raw)
	}
	want := map[string]int{"listens " + f.passive.home: 1, "polls " + f.active.home: 1, " " + f.worker.home: 1, "more " + f.worker.home: 1}
	got := map[string]int{}
	for _, line := range lines(t, f.ran) {
		got[line]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("these ran: %v, want %v", got, want)
	}
	for i := 1; i <= 20; i++ {
		for _, when := range []string{"before", "after"} {
			if n := strings.Count(raw, fmt.Sprintf("%s %d\n", when, i)); n != 3 {
				t.Errorf("the log has %d times %s %d, want 3", n, when, i)
			}
		}
	}
	for _, home := range []string{f.passive.home, f.active.home} {
		if n := strings.Count(raw, "deployed to "+home); n != 1 {
			t.Errorf("%d times deployed to %s", n, home)
		}
	}
	if t.Failed() {
		t.Logf("the log:\n%s", raw)
	}
}

// TestRemoteAgents deploys to an agent that listens and to one that polls, and through
// a worker that polls, and kills the server while all of their scripts run: each goes
// on where it was, ran once, and its log is whole.
func TestRemoteAgents(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.AgentListen = apptest.FixedAddress(t)
			p.Start()
			f := newFleet(t, p)
			p.Kill()
			p.Start()
			f.finish(t)
			// A target that is disabled is none of the next deployment, and its agent is
			// sent away; a worker that is disabled does not build.
			f.polls.IsDisabled, f.builds.IsDisabled = true, true
			apptest.Put(t, p.Client, space+"/machines/"+f.polls.ID, f.polls)
			apptest.Put(t, p.Client, space+"/workers/"+f.builds.ID, f.builds)
			failed := wait(t, p.Client, f.m.deploy(t, f.version, f.m.Dev), 4*time.Minute)
			raw := string(p.Must(t, http.MethodGet, "/api/tasks/"+failed.ID+"/raw", nil, nil).Body)
			if failed.State != octopus.TaskFailed || !strings.Contains(raw, "No worker of the pool Build is enabled and healthy: builds is disabled.") {
				t.Errorf("%s\n%s", failed.State, raw)
			}
			if n := len(lines(t, f.ran)); n != 5 {
				t.Errorf("%d scripts ran, want one more on the target that is enabled: %v", n, lines(t, f.ran))
			}
		})
	}
}

// probe looks at the port of agents as registration does: by an HTTPS request without a
// certificate.
func probe(t *testing.T, addr string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+"/handshake", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || len(body) == 0 {
		t.Errorf("the port of agents answers %d %q, %v", resp.StatusCode, body, err)
	}
}
