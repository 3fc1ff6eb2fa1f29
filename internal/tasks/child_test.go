package tasks_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// A task that waits for another one has no slot; the end of that one wakes it, once and
// with what it is told, whether it waits already or not yet. An attempt starts no
// second task.
func TestChild(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"the wait", "the end"} {
		t.Run(first+" comes first", func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, w *world) {
				claimed := make(leases, 10)
				n := w.node("a", claimed.run)
				parent := w.create(n.Service, tasks.New{})
				l := claimed.next(t)
				child := w.create(n.Service, tasks.New{})
				started := claimed.next(t)
				if l.ID != parent.ID || started.ID != child.ID {
					t.Fatalf("%s and %s run", l.ID, started.ID)
				}
				add := func(unit, child string) error {
					return l.Commit(t.Context(), tasks.Batch{Facts: []any{"start"}, Also: func(ctx context.Context, tx *db.Tx) error { return l.AddChild(ctx, tx, unit, child) }})
				}
				if err := add("0.0#1", child.ID); err != nil {
					t.Fatal(err)
				}
				if err := add("0.0#1", "ServerTasks-99"); !errors.Is(err, db.ErrUnique) {
					t.Errorf("a second one of the attempt: %v", err)
				}
				wait := func() {
					if err := l.Wait(t.Context(), false, tasks.Batch{}); err != nil {
						t.Fatal(err)
					}
				}
				end := func() {
					err := started.Finish(t.Context(), octopus.TaskSuccess, "", tasks.Batch{Also: func(ctx context.Context, tx *db.Tx) error {
						return tasks.WakeParent(ctx, tx, child.ID, func(unit string) (any, error) { return "ended " + unit, nil })
					}})
					if err != nil {
						t.Fatal(err)
					}
				}
				if first == "the wait" {
					wait()
					w.read(func(ctx context.Context, tx *db.Tx) error {
						now, err := tasks.Get(ctx, tx, parent.ID)
						if err != nil {
							return err
						}
						_, ahead, err := n.WaitReason(ctx, tx, now, []tasks.Visible{{Space: "Spaces-1"}})
						if !now.Waiting || !slices.Equal(ahead, []string{child.ID}) {
							t.Errorf("waiting %t for %v", now.Waiting, ahead)
						}
						return err
					})
					end()
				} else {
					end()
					wait()
				}
				again := claimed.next(t)
				if again.ID != parent.ID {
					t.Fatalf("%s runs", again.ID)
				}
				facts, _, err := again.Answers(t.Context())
				if err != nil || len(facts) != 1 || string(facts[0]) != `"ended 0.0#1"` {
					t.Errorf("it is told %s, %v", facts, err)
				}
			})
		})
	}
}
