//go:build linux

package orchestrator_test

import (
	"context"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// TestTicketsOfOtherMakes: a task that is ended from outside leaves the scripts of other
// makes alone whose start may still be arriving, and those are not forgotten soon after
// they were ended, either; all others are ended and forgotten at once.
func TestTicketsOfOtherMakes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		id := w.queue(false, step("Never", "true"))
		tickets := []struct {
			name, contract string
			answered       int
			waits          bool
		}{
			{"t-tako", string(deploy.ContractTako), 0, false},
			{"t-before", "", 0, false},
			{"t-v2", string(deploy.ContractV2), 0, true},
			{"t-v1", string(deploy.ContractV1), 0, true},
			{"t-answered", string(deploy.ContractV2), 1, false},
		}
		w.write(func(ctx context.Context, tx *db.Tx) error {
			for _, k := range tickets {
				if _, err := tx.Exec(ctx, `INSERT INTO ticket (ticket, task, unit, agent, state, not_before, contract, answered) VALUES (?, ?, ?, 'builtin', 'open', 0, ?, ?)`, k.name, id, "unit-"+k.name, k.contract, k.answered); err != nil {
					return err
				}
			}
			return nil
		})
		w.cancel(id) // nobody runs it: it ends at once
		w.ends(id, octopus.TaskCanceled)
		for _, k := range tickets {
			state, in := w.due(k.name)
			if state != "cancel" || k.waits != (in > tasks.StartSettles-time.Minute) || !k.waits && in != 0 {
				t.Errorf("%s: %s in %s", k.name, state, in)
			}
		}
		// Their time has come.
		w.dueSince(id, 0)
		stop := w.serve("a")
		await(t, "those that answered are forgotten, and the others told once", func() bool {
			again := w.count(`SELECT count(*) FROM ticket WHERE not_before > ?`, db.Micros(time.Now()))
			return again == 2 && w.count(`SELECT count(*) FROM ticket`) == 2
		})
		for _, k := range tickets {
			if !k.waits {
				continue
			}
			if state, in := w.due(k.name); state != "cancel" || in > time.Minute {
				t.Errorf("%s: %s in %s", k.name, state, in)
			}
		}
		stop()
		// A quarter of an hour after they were due first they are forgotten.
		w.dueSince(id, 16*time.Minute)
		w.serve("b")
		await(t, "all are forgotten", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
	})
}
