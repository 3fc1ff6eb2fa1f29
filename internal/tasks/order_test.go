package tasks_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// waiting is a task of a random queue.
type waiting struct {
	id              string
	space           ident.SpaceID
	state           octopus.TaskState
	priority        bool
	queued, expires time.Time
	tag             string
	holds           bool // its tag
}

// taken is what one look takes of a queue: by the rules, and by a look at everything.
func taken(all []waiting, held map[string]bool, slots int, now time.Time) (ids []string) {
	all = slices.Clone(all)
	rank := func(w waiting) int {
		switch {
		case w.state == octopus.TaskCancelling:
			return 0
		case w.priority:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b waiting) int { // they come in the order of their numbers
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.queued.Compare(b.queued))
	})
	heads := map[string]bool{}
	for _, w := range all {
		if w.state == octopus.TaskCancelling {
			ids = append(ids, w.id)
			continue
		}
		late := w.state == octopus.TaskQueued && !w.expires.IsZero() && !w.expires.After(now)
		stopped := w.state == octopus.TaskQueued && w.space == "Spaces-2"
		blocked := w.tag != "" && (held[w.tag] && !w.holds || heads[w.tag])
		if w.queued.After(now) || late || stopped || blocked || slots == 0 {
			continue
		}
		if w.tag != "" {
			heads[w.tag] = true
		}
		slots--
		ids = append(ids, w.id)
	}
	slices.Sort(ids)
	return ids
}

// TestLooksTakeWhatIsNext looks at random queues, and compares what is taken with a
// look at everything: who is to end goes first, then priority, then time; a tag has
// one task at a time, and goes on with the one that holds it; what has expired, is
// scheduled, or is in a space whose queue is stopped is passed over.
func TestLooksTakeWhatIsNext(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		w.exec(`INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('spaces', 'TaskQueueStopped', '', 'true', 'Spaces-2')`)
		for range 12 {
			// However long the rest takes, it lives.
			s := w.open("a", finish, func(c *tasks.Config) { c.Timing.Heartbeat, c.Timing.TTL = time.Hour, 3*time.Hour })
			slots, held := random.IntN(6), map[string]bool{}
			w.exec(`UPDATE node_setting SET capacity = ?`, slots)
			now := time.Now().UTC().Truncate(time.Microsecond)
			var queue []waiting
			for range 25 {
				n := tasks.New{
					Space: ident.SpaceID(fmt.Sprintf("Spaces-%d", 1+random.IntN(2))), Priority: random.IntN(3) == 0,
					QueueTime: now.Add(-time.Duration(random.IntN(5)) * time.Minute), Tag: []string{"", "", "a", "b", "c"}[random.IntN(5)],
				}
				switch random.IntN(6) {
				case 0:
					n.QueueTime = now.Add(time.Hour)
				case 1:
					n.Expiry = now.Add(-time.Minute)
				case 2:
					n.Expiry = now.Add(time.Hour)
				}
				one := waiting{"", n.Space, octopus.TaskQueued, n.Priority, n.QueueTime, n.Expiry, n.Tag, false}
				one.id = w.create(s, n).ID
				switch random.IntN(8) {
				case 0: // somebody has answered it
					one.state = octopus.TaskExecuting
					if one.tag != "" && !held[one.tag] {
						one.holds, held[one.tag] = true, true
						w.exec(`INSERT INTO tag_holder (tag, task) VALUES (?, ?)`, one.tag, one.id)
					}
				case 1:
					one.state = octopus.TaskCancelling
				}
				w.exec(`UPDATE task SET state = ?, cancel_at = ? WHERE id = ?`, string(one.state), db.Micros(now), one.id)
				queue = append(queue, one)
			}
			if random.IntN(2) == 0 && !held["c"] {
				held["c"] = true
				w.exec(`INSERT INTO tag_holder (tag, task) VALUES ('c', 'ServerTasks-0')`)
			}
			if _, err := s.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			w.read(func(ctx context.Context, tx *db.Tx) error {
				got = nil
				for _, one := range queue {
					var n int64
					if err := tx.QueryRow(ctx, `SELECT count(*) FROM task t WHERE t.id = ? AND t.owner = ?`, one.id, s.Incarnation()).Scan(&n); err != nil {
						return err
					}
					if n > 0 {
						got = append(got, one.id)
					}
				}
				return nil
			})
			slices.Sort(got)
			if diff := gocmp.Diff(taken(queue, held, slots, now), got); diff != "" {
				t.Errorf("%d slots, held %v, of %+v (-rules +taken):\n%s", slots, held, queue, diff)
			}
			for _, one := range queue {
				late := one.state == octopus.TaskQueued && !one.expires.IsZero() && one.expires.Before(now)
				if state := w.get(one.id).State; (state == octopus.TaskTimedOut) != late {
					t.Errorf("%s, which expires at %v, is %s", one.id, one.expires, state)
				}
			}
			for _, table := range []string{"task", "slot", "tag_holder"} {
				w.exec(`DELETE FROM ` + table)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
