package tasks_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/tasks"
)

// counted is a database that counts its transactions: each asks for the time once.
func counted(t *testing.T, dialect db.Dialect) (*db.DB, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	d, err := db.Open(t.Context(), dbtest.URL(t, dialect), db.Options{Log: dbtest.Log(t), Now: func() time.Time {
		n.Add(1)
		return time.Now()
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, &n
}

// commits is how many transactions have written something. PostgreSQL counts them
// for the whole cluster, so tests that ask for this do not run beside others.
func (w *world) commits() int64 {
	w.t.Helper()
	if w.d.Dialect() == db.Postgres {
		return w.count(`SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`)
	}
	n, err := w.d.Generation(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return int64(n)
}

// A node with nothing to do only looks, and writes nothing; so does one whose queue
// is blocked by a tag, by its capacity, by a stopped space, or by a person.
func TestIdle(t *testing.T) { //nolint:paralleltest // it counts the transactions of the whole cluster
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			d, transactions := counted(t, dialect)
			w := newWorld(t, d)
			claimed := make(leases, 10)
			n := w.node("a", claimed.run, func(c *tasks.Config) { c.Timing.Heartbeat, c.Timing.TTL = time.Hour, 3*time.Hour })
			w.node("b", claimed.run, func(c *tasks.Config) { c.Timing.Heartbeat, c.Timing.TTL = time.Hour, 3*time.Hour })
			w.exec(`UPDATE node_setting SET capacity = CASE name WHEN 'a' THEN 2 ELSE 0 END`)
			watch := func(name string) {
				t.Helper()
				// Whatever has just happened comes to rest first.
				await(t, "it is quiet", func() bool {
					before := w.commits()
					<-time.After(5 * brisk.Look)
					return w.commits() == before
				})
				commits, begun, since := w.commits(), transactions.Load(), time.Now()
				<-time.After(15 * brisk.Look)
				if n := w.commits() - commits; n > 0 {
					t.Errorf("%s: %d transactions wrote something", name, n)
				}
				// Two nodes, each with a look, a glance at what is sealed and a
				// question for what has changed; the rest is slack.
				if n, looks := transactions.Load()-begun, looksSince(since); n > 2*3*looks+20 {
					t.Errorf("%s: %d transactions in %d looks", name, n, looks)
				}
			}
			watch("nothing to do")
			w.create(n.Service, tasks.New{Tag: "tag"})
			running := claimed.next(t)
			for i := range 50 {
				w.create(n.Service, tasks.New{Tag: "tag", Description: fmt.Sprint(i)})
			}
			watch("blocked by a tag")
			w.exec(`INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('spaces', 'TaskQueueStopped', '', 'true', 'Spaces-2')`)
			w.create(n.Service, tasks.New{Space: "Spaces-2"})
			watch("blocked by its space")
			w.create(n.Service, tasks.New{Tag: "asks"})
			asking := claimed.next(t)
			_, b := ask(t, asking)
			if err := asking.Wait(t.Context(), true, b); err != nil {
				t.Fatal(err)
			}
			watch("waiting for a person")
			w.create(n.Service, tasks.New{})
			claimed.next(t)
			for range 50 {
				w.create(n.Service, tasks.New{})
			}
			watch("blocked by its capacity")

			// A running task that writes its log wakes nobody: a look for each line
			// would be thousands.
			before, since := transactions.Load(), time.Now()
			const lines = 100
			for range lines {
				if err := running.Commit(context.Background(), tasks.Batch{Lines: []tasks.Line{{Text: "x"}}}); err != nil {
					t.Fatal(err)
				}
			}
			if n, looks := transactions.Load()-before, looksSince(since); n > 3*lines+2*3*looks+20 {
				t.Errorf("%d lines of a log took %d transactions in %d looks", lines, n, looks)
			}
			claimed.none(t)
		})
	}
}

// looksSince is how many looks a node has had time for.
func looksSince(begin time.Time) int64 { return int64(time.Since(begin)/brisk.Look) + 1 }
