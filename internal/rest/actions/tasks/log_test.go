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
