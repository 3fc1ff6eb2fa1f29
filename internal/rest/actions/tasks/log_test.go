package tasks_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// noise is a runner that writes lines, each as long as a line may be.
type noise struct{ lines int }

func (n noise) Run(ctx context.Context, l *tasks.Lease) error {
	if _, err := l.Facts(ctx); err != nil {
		return err
	}
	text := strings.Repeat("x", 256*1024-10)
	var b tasks.Batch
	for i := 1; i <= n.lines; i++ {
		b.Lines = append(b.Lines, tasks.Line{Activity: l.ID, Category: octopus.LogInfo, At: time.Now().UTC(), Text: fmt.Sprint(i, " ", text)})
	}
	return l.Finish(ctx, octopus.TaskSuccess, "", b)
}

func (noise) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }

// TestDetailsAreBounded: of a log of very long lines the details have the last ones,
// and say how many they leave out.
func TestDetailsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const lines, fit = 36, 32 // of 256 KiB, in 8 MiB
		w.cfg.Runners["Noise"] = noise{lines}
		var task *tasks.Task
		check(t, w.DB.WriteEngine(t.Context(), func(tx *db.Tx) (err error) {
			task, err = w.queue.Create(t.Context(), tx, tasks.New{Space: "Spaces-1", Name: "Noise", Description: "Noise"})
			return err
		}))
		w.ends(task.ID, octopus.TaskSuccess)
		read := func(query string) octopus.Activity {
			var d octopus.TaskDetails
			w.Must(http.StatusOK, http.MethodGet, "/api/tasks/"+task.ID+"/details"+query, "").Into(&d)
			return d.ActivityLogs[0]
		}
		all := read("").LogElements
		if len(all) != fit+1 || all[0].Category != octopus.LogGap || !strings.HasPrefix(all[0].MessageText, fmt.Sprint(lines-fit, " earlier lines are left out")) {
			t.Fatalf("%d lines, the first %.50q", len(all), all[0].MessageText)
		}
		for i, one := range all[1:] {
			if !strings.HasPrefix(one.MessageText, fmt.Sprint(lines-fit+i+1, " ")) {
				t.Errorf("line %d is %.20q", i, one.MessageText)
			}
		}
		if few := read("?tail=3").LogElements; len(few) != 4 || !strings.HasPrefix(few[3].MessageText, fmt.Sprint(lines, " ")) {
			t.Errorf("of three there are %d", len(few))
		}
	})
}

// writer writes many lines, every tenth of which is verbose, and waits to be let go.
type writer struct {
	lines   int
	written chan struct{} // closed when all are
	end     chan struct{} // ends the task
}

func (w *writer) Run(ctx context.Context, l *tasks.Lease) error {
	if _, err := l.Facts(ctx); err != nil {
		return err
	}
	const at = 1000 // lines of a commit
	for from := 1; from <= w.lines; from += at {
		var b tasks.Batch
		for n := from; n < from+at && n <= w.lines; n++ {
			category := octopus.LogInfo
			if n%10 == 0 {
				category = octopus.LogVerbose
			}
			b.Lines = append(b.Lines, tasks.Line{Activity: l.ID, Category: category, At: time.Now().UTC(), Text: fmt.Sprintf("line %d.", n)})
		}
		if err := l.Commit(ctx, b); err != nil {
			return err
		}
	}
	close(w.written)
	select {
	case <-w.end:
		return l.Finish(ctx, octopus.TaskSuccess, "", tasks.Batch{})
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (*writer) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }

// TestPoint27RawLogCompleteTailPartial: the tree of a log has its last lines, and says
// how many it leaves out; the raw log has all of them in their order, while the task
// runs and when its log has been put away.
func TestPoint27RawLogCompleteTailPartial(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const lines = 20500 // more than a tree holds
		long := &writer{lines: lines, written: make(chan struct{}), end: make(chan struct{})}
		w.cfg.Runners[octopus.TaskHealth] = long
		id := w.queued(octopus.TaskHealth)
		select {
		case <-long.written:
		case <-time.After(2 * time.Minute):
			t.Fatal("the task has not written its log")
		}
		check := func(when string) {
			t.Helper()
			for query, want := range map[string]struct{ first, last, shown int }{
				"":                       {lines - 20000 + 1, lines, 20000},
				"?tail=30":               {lines - 29, lines, 30},
				"?tail=30&verbose=false": {lines - 29, lines - 1, 27},
			} {
				var d octopus.TaskDetails
				w.Get("/api/tasks/" + id + "/details" + query).Into(&d)
				shown := d.ActivityLogs[0].LogElements
				if len(shown) != want.shown+1 || shown[0].Category != octopus.LogGap || !strings.Contains(shown[0].MessageText, fmt.Sprint(want.first-1, " earlier lines")) {
					t.Fatalf("%s, details%s have %d lines, and the first is %+v", when, query, len(shown)-1, shown[0])
				}
				first, last := shown[1], shown[len(shown)-1]
				if first.MessageText != fmt.Sprintf("line %d.", want.first) || last.MessageText != fmt.Sprintf("line %d.", want.last) || last.Number != int64(want.last) {
					t.Errorf("%s, details%s go from %q to %q", when, query, first.MessageText, last.MessageText)
				}
				if d.PhysicalLogSize == 0 {
					t.Errorf("%s, the log has no size", when)
				}
			}
			raw := w.Must(http.StatusOK, http.MethodGet, "/api/tasks/"+id+"/raw", "")
			_, body, _ := strings.Cut(string(raw.Body), "\n\n") // behind the heading
			n := 0
			for line := range strings.Lines(body) {
				if !strings.Contains(line, " |   line ") {
					continue // the name of the part that they are of
				}
				n++
				if !strings.HasSuffix(line, fmt.Sprintf("line %d.\n", n)) {
					t.Fatalf("%s, line %d of the raw log is %q", when, n, line)
				}
			}
			if n != lines {
				t.Errorf("%s, the raw log has %d lines of %d", when, n, lines)
			}
		}
		check("while it runs")
		close(long.end)
		w.ends(id, octopus.TaskSuccess)
		await(t, "the log is put away", func() bool { return w.count(`SELECT count(*) FROM task_log WHERE task = ?`, id) == 0 })
		check("put away")
	})
}
