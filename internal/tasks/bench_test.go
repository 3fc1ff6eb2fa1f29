package tasks_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// fill queues n tasks; the columns of set are SQL over i, the number of the task.
func (w *world) fill(s *tasks.Service, n int, set map[string]string) {
	w.t.Helper()
	first := w.create(s, tasks.New{})
	columns := []string{
		"space_id", "name", "description", "arguments", "state", "runnable", "waiting", "priority", "queue_time", "expiry", "start_time", "completed_time", "updated_time", "error",
		"has_warnings", "tag", "project_id", "environment_id", "tenant_id", "runbook_id", "user_id", "node", "owner", "db_incarnation", "epoch", "resumes", "cancel_at", "plan", "log_lines", "log_bytes",
	}
	into, from := "id, seq", "'ServerTasks-' || CAST(1000000 + n.i AS TEXT), 1000000 + n.i"
	for _, c := range columns {
		into += ", " + c
		if value := set[c]; value != "" {
			from += ", " + value
		} else {
			from += ", t." + c
		}
	}
	w.exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO task (`+into+`) SELECT `+from+` FROM task t, n WHERE t.id = ?`, n, first.ID)
	w.exec(`DELETE FROM task WHERE id = ?`, first.ID)
	if w.d.Dialect() == db.Postgres {
		w.exec(`ANALYZE task`) // as its own housekeeping does soon
	}
}

// BenchmarkQueue is what a long queue costs: a look of a node that may run nothing
// (for want of a slot, or since each task waits for its time, for a tag, or for its
// space), a look that takes the next, the first page of the list of tasks, and tasks
// per second that a node ends.
func BenchmarkQueue(b *testing.B) {
	tomorrow := fmt.Sprint(db.Micros(time.Now().Add(24 * time.Hour)))
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		for _, n := range []int{1000, 10_000} {
			for _, one := range []struct {
				name string
				set  map[string]string
				then string // a statement
				take int    // tasks that a look takes
			}{
				{name: "no-slot", then: `UPDATE node_setting SET draining = 1`},
				{name: "scheduled", set: map[string]string{"queue_time": tomorrow}},
				{name: "tag-held", set: map[string]string{"tag": "'one'"}, then: `INSERT INTO tag_holder (tag, task) VALUES ('one', 'ServerTasks-0')`},
				{name: "space-stopped", then: `INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('spaces', 'TaskQueueStopped', '', 'true', 'Spaces-1')`},
				{name: "expiring", set: map[string]string{"expiry": tomorrow}, then: `UPDATE node_setting SET draining = 1`},
				{name: "next", then: `UPDATE node_setting SET capacity = 1`, take: 1},
				{name: "next-of-tags", set: map[string]string{"tag": "'tag-' || CAST(n.i % 100 AS TEXT)"}, then: `UPDATE node_setting SET capacity = 1`, take: 1},
			} {
				b.Run(fmt.Sprintf("%s/%s/queued=%d", dialect, one.name, n), func(b *testing.B) {
					w := newWorld(b, dbtest.Open(b, dialect))
					s := w.open("a", finish)
					w.fill(s, n, one.set)
					if one.then != "" {
						w.exec(one.then)
					}
					for b.Loop() {
						taken, err := s.Look(b.Context())
						if err != nil || taken != one.take {
							b.Fatalf("%d tasks were taken, %v", taken, err)
						}
						if taken > 0 {
							b.StopTimer()
							w.exec(`UPDATE task SET state = 'Success', owner = '' WHERE state = 'Executing'`)
							w.exec(`DELETE FROM slot`)
							w.exec(`DELETE FROM tag_holder`)
							b.StartTimer()
						}
					}
					if err := s.Close(); err != nil {
						b.Error(err)
					}
				})
			}
			b.Run(fmt.Sprintf("%s/listed/queued=%d", dialect, n), func(b *testing.B) {
				w := newWorld(b, dbtest.Open(b, dialect))
				s := w.open("a", finish)
				w.fill(s, n, nil)
				for b.Loop() {
					w.read(func(ctx context.Context, tx *db.Tx) error {
						page, total, _, err := tasks.List(ctx, tx, tasks.Query{Visible: []tasks.Visible{{Space: "Spaces-1"}}, Page: ident.Page{Take: 30}})
						if err == nil && (len(page) != 30 || total != int64(n)) {
							err = fmt.Errorf("%d of %d tasks", len(page), total)
						}
						return err
					})
				}
				if err := s.Close(); err != nil {
					b.Error(err)
				}
			})
			b.Run(fmt.Sprintf("%s/ended/queued=%d", dialect, n), func(b *testing.B) {
				w := newWorld(b, dbtest.Open(b, dialect))
				s := w.open("b", finish)
				w.fill(s, n, map[string]string{"tag": "'tag-' || CAST(n.i % 100 AS TEXT)"})
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				var ended atomic.Int64
				start := time.Now()
				node := w.node("a", func(ctx context.Context, l *tasks.Lease) error {
					defer ended.Add(1)
					return l.Finish(ctx, octopus.TaskSuccess, "", tasks.Batch{})
				})
				const some = 500
				await(b, "tasks end", func() bool { return ended.Load() >= some })
				b.ReportMetric(float64(ended.Load())/time.Since(start).Seconds(), "tasks/s")
				b.ReportMetric(0, "ns/op")
				node.stop()
			})
		}
	}
}
