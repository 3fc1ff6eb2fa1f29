package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
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
			probe(t, p.Agents)
			thumbprint := serverThumbprint(t, p.Client)
			m := newModel(t, p.Client)
			passive, active, worker := newRemoteAgent(t, thumbprint), newRemoteAgent(t, thumbprint), newRemoteAgent(t, thumbprint)
			m.target(t, "listens", passive.listens(t))
			polls := m.target(t, "polls", active.polls(t, p.Agents, thumbprint))
			pool := apptest.Post(t, p.Client, space+"/workerpools", octopus.WorkerPool{Name: "Build"})
			made := apptest.Post(t, p.Client, space+"/workers", octopus.Worker{
				MachineBase: octopus.MachineBase{Name: "builds", Endpoint: worker.polls(t, p.Agents, thumbprint)}, WorkerPoolIDs: octopus.List[string]{pool.ID},
			})
			dir := apptest.ShortDir(t)
			ran, gate := filepath.Join(dir, "ran"), filepath.Join(dir, "gate")
			held := fmt.Sprintf(`
echo "$(get_octopusvariable "Octopus.Machine.Name") $TentacleHome" >> %[1]q
for i in $(seq 1 20); do echo "before $i"; done
set_octopusvariable From "$TentacleHome"
while [ ! -e %[2]q ]; do sleep 0.05; done
for i in $(seq 1 20); do echo "after $i"; done
`, ran, gate)
			build := beside(script("Build", held))
			build.Actions[0].WorkerPoolID = octopus.NullString(pool.ID)
			again := script("Build more", fmt.Sprintf(`echo "more $TentacleHome" >> %q`, ran))
			again.Actions[0].WorkerPoolID = octopus.NullString(pool.ID)
			m.process(t, onTargets("Deploy", "web", held), build, again,
				onTargets("Tell", "web", `echo "deployed to $(get_octopusvariable "Octopus.Action[Deploy].Output.From")"`))
			_, version := m.release(t, nil)
			task := m.deploy(t, version, m.Dev)
			until(t, "all three scripts run", func() bool { return len(lines(t, ran)) == 3 })
			p.Kill()
			p.Start()
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			done := wait(t, p.Client, task, 4*time.Minute)
			raw := string(p.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)
			if done.State != octopus.TaskSuccess {
				t.Fatalf("%s: %s\n%s", done.State, done.ErrorMessage, raw)
			}
			want := map[string]int{"listens " + passive.home: 1, "polls " + active.home: 1, " " + worker.home: 1, "more " + worker.home: 1}
			got := map[string]int{}
			for _, line := range lines(t, ran) {
				got[line]++
			}
			for line, n := range want {
				if got[line] != n {
					t.Errorf("%q ran %d times, want %d: %v", line, got[line], n, got)
				}
			}
			for i := 1; i <= 20; i++ {
				for _, when := range []string{"before", "after"} {
					if n := strings.Count(raw, fmt.Sprintf("%s %d\n", when, i)); n != 3 {
						t.Errorf("the log has %d times %s %d, want 3", n, when, i)
					}
				}
			}
			for _, home := range []string{passive.home, active.home} {
				if n := strings.Count(raw, "deployed to "+home); n != 1 {
					t.Errorf("%d times deployed to %s", n, home)
				}
			}
			if t.Failed() {
				t.Logf("the log:\n%s", raw)
			}
			// A target that is disabled is none of the next deployment, and its agent is
			// sent away; a worker that is disabled does not build.
			polls.IsDisabled, made.IsDisabled = true, true
			apptest.Put(t, p.Client, space+"/machines/"+polls.ID, polls)
			apptest.Put(t, p.Client, space+"/workers/"+made.ID, made)
			failed := wait(t, p.Client, m.deploy(t, version, m.Dev), 4*time.Minute)
			raw = string(p.Must(t, http.MethodGet, "/api/tasks/"+failed.ID+"/raw", nil, nil).Body)
			if failed.State != octopus.TaskFailed || !strings.Contains(raw, "No worker of the pool Build is enabled and healthy: builds is disabled.") {
				t.Errorf("%s\n%s", failed.State, raw)
			}
			if n := len(lines(t, ran)); n != 5 {
				t.Errorf("%d scripts ran, want one more on the target that is enabled: %v", n, lines(t, ran))
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
