package test

import (
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/egress/proxytest"
	"github.com/takodeploy/tako/octopus"
)

// TestMachinesBehindProxy deploys to an agent that listens behind a proxy which wants a
// password. Without the password, and while the proxy refuses, the target cannot be
// reached, and the log says why.
func TestMachinesBehindProxy(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.Start()
			m := newModel(t, p.Client)
			gate := proxytest.Start(t, "tako", "pr0xy")
			host, port, err := net.SplitHostPort(gate.Addr)
			if err != nil {
				t.Fatal(err)
			}
			number, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			password := "pr0xy"
			proxy := apptest.Post(t, p.Client, space+"/proxies", octopus.Proxy{Name: "Gate", Host: host, Port: number, Username: "tako", Password: octopus.Sensitive{HasValue: true, NewValue: &password}})
			policy := apptest.Get[octopus.MachinePolicy](t, p.Client, space+"/machinepolicies/MachinePolicies-1")
			policy.ConnectionRetryTimeLimit, policy.ConnectionRetryCountLimit = octopus.TimeSpan(time.Second), 1
			apptest.Put(t, p.Client, space+"/machinepolicies/"+policy.ID, policy)
			agent := newRemoteAgent(t, serverThumbprint(t, p.Client))
			e := agent.listens(t)
			e.ProxyID = proxy.ID
			m.target(t, "behind", e)
			ran := filepath.Join(t.TempDir(), "ran")
			m.process(t, onTargets("Deploy", "web", "echo ran >> '"+ran+"'"))
			_, version := m.release(t, nil)
			deploy := func(want octopus.TaskState) string {
				t.Helper()
				done := wait(t, p.Client, m.deploy(t, version, m.Dev), 4*time.Minute)
				raw := string(p.Must(t, http.MethodGet, "/api/tasks/"+done.ID+"/raw", nil, nil).Body)
				if done.State != want {
					t.Fatalf("%s: %s\n%s", done.State, done.ErrorMessage, raw)
				}
				return raw
			}
			deploy(octopus.TaskSuccess)
			if diff := cmp.Diff([]string{"ran"}, lines(t, ran)); diff != "" {
				t.Errorf("ran (-want +got):\n%s", diff)
			}
			to := strings.Trim(strings.TrimPrefix(e.URI, "https:"), "/")
			for _, tunnel := range gate.Tunnels() {
				if tunnel != to {
					t.Errorf("a tunnel to %s", tunnel)
				}
			}
			if len(gate.Tunnels()) == 0 {
				t.Error("nobody asked the proxy")
			}
			wrong := "another one"
			proxy.Password = octopus.Sensitive{HasValue: true, NewValue: &wrong}
			apptest.Put(t, p.Client, space+"/proxies/"+proxy.ID, proxy)
			if raw := deploy(octopus.TaskFailed); !strings.Contains(raw, "the proxy Gate ("+gate.Addr+") does not connect to "+to+": it does not take the user name and the password.") || strings.Contains(raw, wrong) {
				t.Error(raw)
			}
			if n := len(lines(t, ran)); n != 1 {
				t.Errorf("the script ran %d times", n)
			}
		})
	}
}
