//go:build linux

package health_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// outdated is an agent that says it is older than the server, and can be upgraded.
type outdated struct {
	agent.API
	platform string
}

func (o outdated) Hello(ctx context.Context) (agent.Hello, error) {
	h, err := o.API.Hello(ctx)
	h.Version, h.Program = "2026.1.0", agent.ProgramState{Platform: o.platform, Upgrades: true}
	return h, err
}

// TestPolicyUpgradesWait: policies have agents upgraded when the server itself cannot go
// back any more, and none for whose platform the server has no program.
func TestPolicyUpgradesWait(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		connects := func(p *octopus.MachinePolicy) {
			p.MachineHealthCheckPolicy.HealthCheckType = octopus.HealthOnlyConnectivity
			p.MachineUpdatePolicy.TentacleUpdateBehavior = octopus.AgentUpdate
		}
		policy := w.policy("Updates", "", connects)
		usual, strange := w.target("usual", policy), w.target("strange", policy)
		w.reach = func(a targets.Agent) targets.Agent {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if a.Name == strange {
				platform = "plan9/mips"
			}
			a.API = outdated{a.API, platform}
			return a
		}
		exe := filepath.Join(w.dir, "tako")
		check(t, os.WriteFile(exe, []byte("a program"), 0o600))
		programs := program.NewFinder(exe)
		t.Cleanup(func() { check(t, programs.Close()) })
		var mu sync.Mutex
		var queued []string
		settled := false
		w.config = func(c *health.Config) {
			c.Programs = programs
			c.Settled = func(context.Context) (bool, error) {
				mu.Lock()
				defer mu.Unlock()
				return settled, nil
			}
			c.Upgrade = func(_ context.Context, _ *db.Tx, _ ident.SpaceID, some []health.Machine) error {
				mu.Lock()
				defer mu.Unlock()
				queued = nil
				for _, m := range some {
					queued = append(queued, m.ID)
				}
				return nil
			}
		}
		w.serve("a")
		look := func(stays bool) (upgraded []string, log string) {
			t.Helper()
			mu.Lock()
			settled, queued = stays, nil
			mu.Unlock()
			id := w.queue(health.Job{}, usual, strange)
			w.ends(id, octopus.TaskSuccess)
			mu.Lock()
			defer mu.Unlock()
			return queued, strings.Join(w.log(id), "\n")
		}
		level := func(change int) {
			w.write(func(ctx context.Context, tx *db.Tx) error {
				_, err := tx.Exec(ctx, `UPDATE tako_meta SET active_level = active_level + ? WHERE id = 1`, int64(change))
				return err
			})
		}
		const waits = "The agents of 1 machines are not upgraded yet, as their machine policies want: the upgrade of the server itself is not finalized and may be taken back."
		level(-1)
		if got, log := look(true); got != nil || !strings.Contains(log, waits) {
			t.Errorf("while the data of the version before is written, %q are upgraded:\n%s", got, log)
		}
		level(1)
		if got, log := look(false); got != nil || !strings.Contains(log, waits) {
			t.Errorf("while the server may go back, %q are upgraded:\n%s", got, log)
		}
		got, log := look(true)
		if diff := cmp.Diff([]string{usual}, got); diff != "" || strings.Contains(log, waits) {
			t.Errorf("upgraded (-want +got):\n%s\n%s", diff, log)
		}
		if !strings.Contains(log, "Its agent is not upgraded, as its machine policy wants. This server has no agent program for plan9/mips") {
			t.Errorf("nothing is said of the platform:\n%s", log)
		}
	})
}

// stuck is an agent on which starts of scripts hang.
type stuck struct{ agent.API }

func (stuck) StartScript(ctx context.Context, _ agent.StartRequest) (agent.Status, error) {
	<-ctx.Done()
	return agent.Status{}, fmt.Errorf("%w: %w", agent.ErrUnanswered, ctx.Err())
}

// TestOtherMakeIsLeftAlone: an agent of another make that is dealing with the start of a
// check's script is not told to end it before that is over.
func TestOtherMakeIsLeftAlone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.reach = func(a targets.Agent) targets.Agent {
			a.API, a.Contract = stuck{a.API}, deploy.ContractV2
			return a
		}
		w.serve("a")
		id := w.queue(health.Job{}, w.target("other", w.policy("Any", "")))
		await(t, "its script is sent", func() bool {
			return len(w.texts(`SELECT k.ticket FROM ticket k WHERE k.task = ? AND k.contract = 'v2'`, id)) == 1
		})
		w.write(func(ctx context.Context, tx *db.Tx) error {
			_, err := w.desk.Cancel(ctx, tx, id)
			return err
		})
		w.ends(id, octopus.TaskCanceled)
		soon := db.Micros(time.Now().Add(tasks.StartSettles - time.Minute))
		if got := w.texts(`SELECT k.state FROM ticket k WHERE k.task = ? AND k.not_before > ?`, id, soon); !cmp.Equal(got, []string{"cancel"}) {
			t.Errorf("of its script the agent is told %q", got)
		}
	})
}
