package test

import (
	"fmt"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// pauseFor is how long an owner stands still: longer than its ownership lasts on
// PostgreSQL, and a whole minute in the long tests.
func pauseFor() time.Duration {
	if soaking() {
		return time.Minute
	}
	return 20 * time.Second
}

// TestPausedOwner stops the server that owns a deployment and lets a second node on
// the same database take it over; then the first goes on, with everything it was
// about to do. Each script still runs once, and no line is doubled. (Two nodes need
// PostgreSQL; on SQLite one host has one server.)
func TestPausedOwner(t *testing.T) {
	t.Parallel()
	first := apptest.NewProcess(t, db.Postgres)
	w := newWalk(t, first, 4)
	slow := script("Slow", fmt.Sprintf(`echo "5 $$" >> %q; for i in $(seq 1 40); do echo "step 5 line $i"; sleep 0.6; done`, w.counter))
	w.process(t, counted(1, w.counter), beside(slow), script("After", "echo after"))

	_, version := w.release(t, nil)
	task := w.deploy(t, version, w.Dev)
	for doc := (octopus.Task{}); doc.State != octopus.TaskExecuting; {
		doc = poll(t, w.Process.Client, task)
	}
	time.Sleep(500 * time.Millisecond) //nolint:forbidigo // the scripts run
	if err := syscall.Kill(first.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The second node shares the data directory's worker, as one that is started
	// in the place of a hanging one does.
	second := apptest.NewProcess(t, db.SQLite)
	second.Data, second.Database = first.Data, first.Database
	second.Env = []string{"TAKO_NODE=second"}
	second.Start()
	time.Sleep(pauseFor()) //nolint:forbidigo // the ownership expires
	if err := syscall.Kill(first.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	done := wait(t, second.Client, task, 4*time.Minute)
	if done.State != octopus.TaskSuccess {
		raw := second.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil)
		t.Fatalf("%s ended as %s: %s\n%s\nfirst:\n%s\nsecond:\n%s", task, done.State, done.ErrorMessage, raw.Body, first.Output(), second.Output())
	}
	body, err := os.ReadFile(w.counter)
	if err != nil {
		t.Fatal(err)
	}
	if runs := w.runs(t); runs[1] != 1 || runs[5] != 1 {
		t.Errorf("the scripts ran %v times:\n%s", runs, body)
	}
	w.Process.URL = second.URL
	w.check(t, task, [parallelSteps + 1]bool{1: true, 5: true})
}
