package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// eventually waits until done, at most two minutes.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(2 * time.Minute); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after two minutes: not yet %s", what)
		}
	}
}

// another is a project beside that of a model.
func (m *model) another(t *testing.T, name string, steps ...octopus.Step) *model {
	t.Helper()
	other := *m
	other.Project = apptest.Post(t, m.Client, space+"/projects", octopus.Project{Name: name, ProjectGroupID: "ProjectGroups-1", LifecycleID: m.Lifecycle.ID})
	other.process(t, steps...)
	return &other
}

// witness is a file that scripts of any server write lines to.
type witness struct {
	t          *testing.T
	file, gate string
}

func newWitness(t *testing.T) *witness {
	dir := t.TempDir()
	return &witness{t, filepath.Join(dir, "lines"), filepath.Join(dir, "gate")}
}

// steps are one that stands still until the gate opens, and one after it.
func (w *witness) steps(name string) []octopus.Step {
	return []octopus.Step{
		script("One", fmt.Sprintf("echo %s one >> %s\nwhile [ ! -e %s ]; do sleep 0.1; done", name, w.file, w.gate)),
		script("Two", fmt.Sprintf("echo %s two >> %s", name, w.file)),
	}
}

func (w *witness) open() {
	if err := os.WriteFile(w.gate, nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// lines are what has run, sorted.
func (w *witness) lines() []string {
	text, err := os.ReadFile(w.file)
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	lines := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
	slices.Sort(lines)
	return lines
}

func (w *witness) has(t *testing.T, want ...string) {
	t.Helper()
	if got := w.lines(); !slices.Equal(got, want) {
		t.Errorf("the scripts that ran are %q, want %q", got, want)
	}
}

// TestRestoredTasksWait restores a backup that was taken while deployments ran and
// others waited, and sees that nothing of them goes on by itself.
func TestRestoredTasksWait(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.NewProcess(t, dialect)
			s.Start()
			kit := kitFile(t, s)
			w := newWitness(t)
			web := newModel(t, s.Client)
			web.process(t, w.steps("web")...)
			shop := web.another(t, "Shop", w.steps("shop")...)
			asks := script("Asks", "")
			asks.Actions[0].ActionType = octopus.ActionManual
			asks.Actions[0].Properties = octopus.Properties{octopus.PropManualInstructions: octopus.Plain("Look at it.")}
			manual := web.another(t, "Manual", asks, script("After", fmt.Sprintf("echo manual after >> %s", w.file)))
			quick := web.another(t, "Quick", script("Quick", "echo quick"))
			start := func(m *model) string {
				_, version := m.release(t, nil)
				return m.deploy(t, version, m.Dev)
			}
			runs, queued, fails, waits := start(web), start(web), start(shop), start(manual)
			eventually(t, "both scripts run", func() bool { return len(w.lines()) == 2 })
			if doc := wait(t, s.Client, waits, 2*time.Minute); !doc.HasPendingInterruptions {
				t.Fatalf("the manual intervention is %s", doc.State)
			}
			_, path := createBackup(t, s)
			s.Kill()
			apptest.StopWorker(t, s.Data) // and the scripts, which nobody is to mistake for the copy's
			w.open()

			c := apptest.NewProcess(t, dialect)
			out := mustOnServer(t, c, "", "backup", "restore", path, "--recovery-key-file", kit)
			if !strings.Contains(out, "1 queued tasks, and 3 that were under way, wait") {
				t.Errorf("restore says %q", out)
			}
			retentionDue(t, c, 1)
			c.Start()
			api := c.Client
			task := func(id string) octopus.Task { return apptest.Get[octopus.Task](t, api, "/api/tasks/"+id) }
			for _, id := range []string{runs, fails, waits} {
				doc := wait(t, api, id, 2*time.Minute)
				eventually(t, "told in the log of "+id, func() bool {
					return strings.Contains(string(c.Must(t, http.MethodGet, "/api/tasks/"+id+"/raw", nil, nil).Body), "Restored from backup "+filepath.Base(path))
				})
				if doc.State != octopus.TaskExecuting || !doc.HasPendingInterruptions || !slices.Contains(doc.PendingPreconditionTypes, octopus.PreconditionRestored) {
					t.Errorf("%s is %s, asks %v, waits for %v", id, doc.State, doc.PendingInterruptionTypes, doc.PendingPreconditionTypes)
				}
			}
			// What is asked for now runs; by then the queue was looked at.
			quick.Client, web.Client = api, api
			if doc := wait(t, api, start(quick), 2*time.Minute); !doc.FinishedSuccessfully {
				t.Fatalf("a new deployment is %s: %s", doc.State, doc.ErrorMessage)
			}
			if doc := task(queued); doc.State != octopus.TaskQueued || !slices.Contains(doc.PendingPreconditionTypes, octopus.PreconditionRestored) {
				t.Errorf("the queued task is %s and waits for %v", doc.State, doc.PendingPreconditionTypes)
			}
			w.has(t, "shop one", "web one")
			held := apptest.Get[octopus.Restored](t, api, "/api/system/restored")
			if !held.IsHeld || held.QueuedTasks != 1 || held.ExecutingTasks != 3 || string(held.BackupID) != filepath.Base(path) {
				t.Errorf("what waits is %+v", held)
			}
			if due := retentionDue(t, c, 0); due != 1 {
				t.Errorf("retention is due at %d, so it has had its effect", due)
			}

			// The queued one alone.
			c.Must(t, http.MethodPost, "/api/system/restored/release", octopus.RestoredRelease{TaskIDs: octopus.List[string]{queued}}, nil)
			if doc := wait(t, api, queued, 2*time.Minute); !doc.FinishedSuccessfully {
				t.Errorf("the released task is %s: %s", doc.State, doc.ErrorMessage)
			}
			w.has(t, "shop one", "web one", "web one", "web two")
			c.Refused(t, http.StatusConflict, http.MethodPost, "/api/system/restored/release", octopus.RestoredRelease{TaskIDs: octopus.List[string]{queued}})

			// A person knows how the scripts ended.
			decide(t, api, runs, "MarkSucceeded")
			decide(t, api, fails, "MarkFailed")
			decide(t, api, waits, "Proceed")
			for id, want := range map[string]octopus.TaskState{runs: octopus.TaskSuccess, fails: octopus.TaskFailed, waits: octopus.TaskSuccess} {
				if doc := ended(t, api, id); doc.State != want {
					t.Errorf("%s is %s, want %s: %s", id, doc.State, want, doc.ErrorMessage)
				}
			}
			w.has(t, "manual after", "shop one", "web one", "web one", "web two", "web two")

			if out := mustOnServer(t, c, "", "backup", "release"); !strings.Contains(out, "0 tasks released") {
				t.Errorf("release says %q", out)
			}
			eventually(t, "retention's turn", func() bool { return retentionDue(t, c, 0) != 1 })
			if held := apptest.Get[octopus.Restored](t, api, "/api/system/restored"); held.IsHeld || held.ExecutingTasks != 0 {
				t.Errorf("after the release there waits %+v", held)
			}
		})
	}
}

// retentionDue reads when retention is due, after setting it unless at is 0.
func retentionDue(t *testing.T, s *apptest.Process, at int64) (due int64) {
	t.Helper()
	d := openDatabase(t, s)
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		if at != 0 {
			if _, err := tx.Exec(t.Context(), `UPDATE due SET at = ? WHERE id = 'retention'`, at); err != nil {
				return err
			}
		}
		return tx.QueryRow(t.Context(), `SELECT u.at FROM due u WHERE u.id = 'retention'`).Scan(&due)
	})
	if err != nil {
		t.Fatal(err)
	}
	return due
}

// decide answers the one question about a task.
func decide(t *testing.T, c *apptest.Client, task, result string) {
	t.Helper()
	page := apptest.Get[octopus.Page[octopus.Interruption]](t, c, space+"/interruptions?pendingOnly=true&regarding="+task)
	if len(page.Items) != 1 {
		t.Fatalf("%d questions about %s", len(page.Items), task)
	}
	at, key := space+"/interruptions/"+page.Items[0].ID, "Guidance"
	if page.Items[0].Type == octopus.InterruptionManual {
		key = "Result"
	}
	c.Must(t, http.MethodPut, at+"/responsible", nil, nil)
	c.Must(t, http.MethodPost, at+"/submit", map[string]string{key: result}, nil)
}

// ended waits until a task has ended.
func ended(t *testing.T, c *apptest.Client, task string) (doc octopus.Task) {
	t.Helper()
	eventually(t, task+" has ended", func() bool {
		doc = apptest.Get[octopus.Task](t, c, "/api/tasks/"+task)
		return doc.IsCompleted
	})
	return doc
}
