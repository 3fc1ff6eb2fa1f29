package bench

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// Sizes of the task benchmarks.
const (
	loneTasks  = 30
	manyTasks  = 400
	callers    = 8   // who ask for them at the same time
	manyPlaces = 50  // environments they go to; those to one of them run one after another
	logLines   = 1e6 // of the long log
)

// BenchmarkTask is a deployment of one step that is skipped: what the engine
// itself takes. "lone" is the time from the request for it to its CompletedTime,
// with nothing else to do; "many" is how many are asked for and done in a second.
func BenchmarkTask(b *testing.B) {
	for _, dialect := range apptest.Dialects() {
		b.Run(dialect.String(), func(b *testing.B) {
			p := started(b, dialect)
			w := newWork(b, p.Client, manyPlaces, "true")
			w.ended(b, w.deploy(b, 0, false), fast) // the worker is up
			b.Run("lone", func(b *testing.B) { reportLone(b, w, true) })
			b.Run("lone-with-script", func(b *testing.B) { reportLone(b, w, false) })
			b.Run("many", func(b *testing.B) { reportMany(b, w) })
		})
	}
}

func reportLone(b *testing.B, w *work, skip bool) {
	b.Helper()
	var took, request []time.Duration
	for i := range loneTasks {
		start := time.Now()
		task := w.deploy(b, i, skip)
		request = append(request, time.Since(start))
		<-time.After(300 * time.Millisecond) // nobody asks while it runs
		took = append(took, w.ended(b, task, fast).CompletedTime.Sub(start))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(request)), "ms-request")
	b.ReportMetric(ms(median(took)), "ms-p50")
	b.ReportMetric(ms(apptest.Quantile(took, 1)), "ms-worst")
}

func reportMany(b *testing.B, w *work) {
	b.Helper()
	start := time.Now()
	tasks := make([]string, manyTasks)
	group, ctx := errgroup.WithContext(b.Context())
	for caller := range callers {
		group.Go(func() error {
			for i := caller; i < manyTasks; i += callers {
				task, err := w.ask(ctx, i, true)
				if err != nil {
					return err
				}
				tasks[i] = task
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	asked := time.Since(start)
	last := start
	for _, task := range tasks {
		last = later(last, w.ended(b, task, slow).CompletedTime.Time)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(math.Round(manyTasks/asked.Seconds()), "requests/s")
	b.ReportMetric(math.Round(manyTasks/last.Sub(start).Seconds()), "tasks/s")
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// BenchmarkLog is a task whose script writes a million lines as fast as it can.
func BenchmarkLog(b *testing.B) {
	dialects(b, func(b *testing.B, dialect db.Dialect) {
		p := started(b, dialect)
		const text = "of a log that is long, as those of builds and database upgrades are"
		w := newWork(b, p.Client, 1, fmt.Sprintf("seq -f 'Line %%.0f %s' %d", text, int(logLines)))
		pids := processes(b, p)
		forgetPeaks(b, pids...)

		start := time.Now()
		task := w.deploy(b, 0, false)
		took := w.ended(b, task, slow).CompletedTime.Sub(start)
		b.ReportMetric(took.Seconds(), "s-until-success")

		// All of it is there at once, in order and whole.
		start = time.Now()
		raw := p.Must(b, http.MethodGet, space+"/tasks/"+task+"/raw", nil, nil)
		b.ReportMetric(math.Round(time.Since(start).Seconds()*100)/100, "s-whole")
		lines := 0
		for line := range strings.Lines(string(raw.Body)) {
			if _, said, ok := strings.Cut(line, "|   Line "); ok {
				if lines++; said != fmt.Sprintf("%d %s\n", lines, text) {
					b.Fatalf("line %d of the log is %q", lines, line)
				}
			}
		}
		if lines != logLines {
			b.Fatalf("the log of a task that succeeded has %d lines", lines)
		}
		start = time.Now()
		tail := apptest.Get[octopus.TaskDetails](b, p.Client, space+"/tasks/"+task+"/details?tail=100")
		b.ReportMetric(ms(time.Since(start)), "ms-last-100")
		if n := len(elements(tail.ActivityLogs)); n < 100 || n > 101 { // one says that others are left out
			b.Fatalf("the last 100 lines are %d", n)
		}
		b.ReportMetric(peak(b, pids[0]), "MiB-peak-server")
		b.ReportMetric(peak(b, pids[1]), "MiB-peak-worker")
	})
}

func elements(tree []octopus.Activity) []octopus.LogElement {
	var all []octopus.LogElement
	for _, node := range tree {
		all = append(append(all, node.LogElements...), elements(node.Children)...)
	}
	return all
}
