package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

// away is a server whose agents are not there.
type away struct {
	*apptest.Server
	*model
	thumbprint string
}

// deploys runs a step on the targets with a tag, and returns the task and its release.
func (w *away) deploys(t *testing.T, body string) (task string) {
	t.Helper()
	w.process(t, onTargets("Deploy", "web", body))
	_, version := w.release(t, nil)
	return w.deploy(t, version, w.Dev)
}

func (w *away) raw(t *testing.T, task string) string {
	t.Helper()
	return string(w.Server.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)
}

// only makes a target the only one.
func (w *away) only(t *testing.T, m octopus.Machine) octopus.Machine {
	t.Helper()
	for _, old := range apptest.Get[octopus.Page[octopus.Machine]](t, w.Server.Client, space+"/machines").Items {
		w.Server.Must(t, http.MethodDelete, space+"/machines/"+old.ID, nil, nil)
	}
	m.Roles, m.EnvironmentIDs = octopus.List[string]{"web"}, octopus.List[string]{w.Dev.ID}
	return apptest.Post(t, w.Server.Client, space+"/machines", m)
}

// cancel asks for the end of a task and waits for it.
func (w *away) cancel(t *testing.T, task string) {
	t.Helper()
	w.Server.Must(t, http.MethodPost, "/api/tasks/"+task+"/cancel", nil, nil)
	asked := time.Now()
	if done := wait(t, w.Server.Client, task, 2*time.Minute); done.State != octopus.TaskCanceled {
		t.Errorf("%s: %s\n%s", done.State, done.ErrorMessage, w.raw(t, task))
	}
	// Ten seconds, and what a busy machine needs; the agents are tried for minutes.
	if took := time.Since(asked); took > time.Minute {
		t.Errorf("the end of the task took %s", took)
	}
}

// TestAwayAgents deploys to agents that are not there, or are others than they should
// be: the deployment fails with the reason after the time that the machine's policy
// gives, and can be canceled at once; what runs on an agent that went away is ended when
// it comes back, also if its machine was deleted meanwhile.
func TestAwayAgents(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.Start(t, dialect)
			w := &away{Server: s, model: newModel(t, s.Client), thumbprint: serverThumbprint(t, s.Client)}
			second := octopus.TimeSpan(time.Second)
			hasty := apptest.Post(t, s.Client, space+"/machinepolicies", octopus.MachinePolicy{
				Name: "Hasty", ConnectionRetryTimeLimit: second, ConnectionRetryCountLimit: 1, ConnectionConnectTimeout: 10 * second, PollingRequestQueueTimeout: second,
			})
			nobody := octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: "https://127.0.0.1:1/", Thumbprint: w.thumbprint}
			absent := octopus.Endpoint{CommunicationStyle: octopus.StylePolling, URI: string(halibut.NewSubscription()), Thumbprint: w.thumbprint}
			other := newRemoteAgent(t, w.thumbprint).listens(t)
			other.Thumbprint = w.thumbprint // whose certificate it has not
			for what, tc := range map[string]struct {
				e    octopus.Endpoint
				want string
			}{
				"nobody listens": {nobody, "The deployment target box could not be reached for 1s: dial tcp 127.0.0.1:1: connect: connection refused."},
				"nobody polls":   {absent, "The deployment target box could not be reached for 1s: the agent did not ask for work in time."},
				"somebody else":  {other, "The agent shows a certificate with the thumbprint "},
			} {
				w.only(t, octopus.Machine{MachineBase: octopus.MachineBase{Name: "box", Endpoint: tc.e, MachinePolicyID: hasty.ID}})
				done := wait(t, s.Client, w.deploys(t, "echo never"), 4*time.Minute)
				if raw := w.raw(t, done.ID); done.State != octopus.TaskFailed || !strings.Contains(raw, tc.want) {
					t.Errorf("%s: %s, without %q:\n%s", what, done.State, tc.want, raw)
				}
			}

			// The default policy tries for minutes.
			w.only(t, octopus.Machine{MachineBase: octopus.MachineBase{Name: "box", Endpoint: absent}})
			task := w.deploys(t, "echo never")
			until(t, "it runs", func() bool {
				return apptest.Get[octopus.Task](t, s.Client, "/api/tasks/"+task).State == octopus.TaskExecuting
			})
			w.cancel(t, task)

			a := newRemoteAgent(t, w.thumbprint)
			e := octopus.Endpoint{CommunicationStyle: octopus.StylePolling, URI: string(halibut.NewSubscription()), Thumbprint: string(a.id.Thumbprint)}
			stop := a.polling(t, s.App.AgentAddr().String(), w.thumbprint, e)
			box := w.only(t, octopus.Machine{MachineBase: octopus.MachineBase{Name: "box", Endpoint: e}})
			started := filepath.Join(a.home, "started")
			task = w.deploys(t, fmt.Sprintf("echo $$ > %[1]q.new; mv %[1]q.new %[1]q; sleep 1000", started))
			until(t, "the script runs", func() bool { return len(lines(t, started)) == 1 })
			pid, err := strconv.Atoi(lines(t, started)[0])
			if err != nil {
				t.Fatal(err)
			}
			workspaces := func() int {
				all, err := filepath.Glob(filepath.Join(a.home, "Work", "servertasks-*"))
				if err != nil {
					t.Fatal(err)
				}
				return len(all)
			}
			if n := workspaces(); n != 1 {
				t.Errorf("the agent has %d workspaces", n)
			}
			stop()
			w.cancel(t, task)
			if err := syscall.Kill(pid, 0); err != nil {
				t.Errorf("the script has ended without its agent: %v", err)
			}
			s.Must(t, http.MethodDelete, space+"/machines/"+box.ID, nil, nil)
			a.polling(t, s.App.AgentAddr().String(), w.thumbprint, e)
			until(t, "the script is ended", func() bool { return syscall.Kill(pid, 0) != nil })
			until(t, "the agent has forgotten it", func() bool { return workspaces() == 0 })
		})
	}
}

// TestDisabledMidway disables a target while its script runs: that one ends, and the step
// that comes after leaves the target out.
func TestDisabledMidway(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t, db.SQLite)
	w := &away{Server: s, model: newModel(t, s.Client), thumbprint: serverThumbprint(t, s.Client)}
	w.target(t, "stays", newRemoteAgent(t, w.thumbprint).listens(t))
	out := w.target(t, "goes", newRemoteAgent(t, w.thumbprint).listens(t))
	ran, gate := filepath.Join(t.TempDir(), "ran"), filepath.Join(t.TempDir(), "gate")
	note := fmt.Sprintf("echo \"$(get_octopusvariable Octopus.Step.Name) on $(get_octopusvariable Octopus.Machine.Name)\" >> %q\n", ran)
	w.process(t, onTargets("First", "web", note+fmt.Sprintf("until [ -e %q ]; do sleep 0.05; done", gate)), onTargets("Second", "web", note))
	_, version := w.release(t, nil)
	task := w.deploy(t, version, w.Dev)
	until(t, "both run the first step", func() bool { return len(lines(t, ran)) == 2 })
	out.IsDisabled = true
	apptest.Put(t, s.Client, space+"/machines/"+out.ID, out)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := wait(t, s.Client, task, 2*time.Minute)
	raw := w.raw(t, task)
	if done.State != octopus.TaskSuccess || !done.HasWarningsOrErrors || strings.Count(raw, "goes is left out of the rest of the deployment.") != 1 {
		t.Errorf("%s: %s\n%s", done.State, done.ErrorMessage, raw)
	}
	got := lines(t, ran)
	slices.Sort(got)
	if diff := cmp.Diff([]string{"First on goes", "First on stays", "Second on stays"}, got); diff != "" {
		t.Error(diff)
	}
}
