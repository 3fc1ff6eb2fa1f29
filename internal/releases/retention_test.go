package releases_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/octopus"
)

// TestRetentionOfAProject decides over real deployments, and changes nothing.
func TestRetentionOfAProject(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Hello"))
		l := octopus.Lifecycle{Name: "Two", ReleaseRetentionPolicy: octopus.KeepCount(1, octopus.RetentionItems), Phases: octopus.List[octopus.Phase]{
			{Name: "Dev", OptionalDeploymentTargets: octopus.List[string]{w.dev}}, {Name: "Test", OptionalDeploymentTargets: octopus.List[string]{w.test}},
		}}
		id := w.create("lifecycles", "", &l)
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = id })
		for n := 1; n <= 5; n++ {
			r := w.release(fmt.Sprintf("1.0.%d", n))
			w.end(w.deploy(r.ID, w.dev), octopus.TaskSuccess)
			if n == 1 {
				w.end(w.deploy(r.ID, w.test), octopus.TaskSuccess)
			}
		}
		running := w.release("1.1.0")
		w.deploy(running.ID, w.dev)
		w.release("1.2.0")
		w.release("1.3.0")
		var got []string
		w.read(func(tx *db.Tx) error {
			verdicts, err := w.rel.Retention(t.Context(), tx, &w.project)
			got = nil
			for _, v := range verdicts {
				keep := "-"
				if v.Keep {
					keep = "+"
				}
				got = append(got, keep+v.Version+" "+v.Reason)
			}
			return err
		})
		want := []string{
			"+1.3.0 never deployed, kept so far = 0 of 1",
			"-1.2.0 never deployed, but 1 of 1 have been kept",
			"+1.1.0 a deployment of it has not ended",
			"+1.0.5 it is on the dashboard",
			"+1.0.4 it was there before one on the dashboard, and can be gone back to",
			"+1.0.3 deployed to Dev, kept so far = 0 of 1",
			"-1.0.2 deployed to Dev, but 1 of 1 have been kept",
			"+1.0.1 it is on the dashboard",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if n := count(t, w, `SELECT count(*) FROM release`); n != 8 {
			t.Errorf("%d releases are left of 8", n)
		}
	})
}

// TestRetentionTask runs the task on a server, from the dry run to the log.
func TestRetentionTask(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.StartWith(t, dialect, apptest.Options{NoWorker: true})
			l := apptest.Post(t, s.Client, "/api/lifecycles", octopus.Lifecycle{Name: "Few", ReleaseRetentionPolicy: octopus.KeepCount(3, octopus.RetentionItems)})
			p := apptest.Post(t, s.Client, "/api/projects", octopus.Project{Name: "Web", ProjectGroupID: "ProjectGroups-1", LifecycleID: l.ID})
			const made = 50
			for n := range made {
				apptest.Post(t, s.Client, "/api/releases", octopus.Release{ProjectID: p.ID, Version: fmt.Sprintf("1.0.%d", n)})
			}
			dry := apptest.Get[octopus.Page[struct {
				Version, Reason string
				Keep            bool
			}]](t, s.Client, "/api/projects/"+p.ID+"/retention?take=100")
			kept := slices.DeleteFunc(slices.Clone(dry.Items), func(v struct {
				Version, Reason string
				Keep            bool
			},
			) bool {
				return !v.Keep
			})
			if len(dry.Items) != made || len(kept) != 3 || kept[0].Version != "1.0.49" {
				t.Fatalf("%d of %d: %v", len(kept), len(dry.Items), kept)
			}
			// Its time comes.
			d := dbtest.OpenURL(t, s.Database)
			if err := d.WriteEngine(t.Context(), func(tx *db.Tx) error {
				n, err := tx.Exec(t.Context(), `UPDATE due SET at = ? WHERE id = 'retention'`, db.Micros(tx.Now()))
				if err == nil && n != 1 {
					err = errors.New("retention is not scheduled")
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			var task octopus.Task
			for !task.IsCompleted {
				found := apptest.Get[octopus.Page[octopus.Task]](t, s.Client, "/api/tasks?name=Retention")
				if len(found.Items) > 0 {
					task = found.Items[0]
				}
			}
			if task.State != octopus.TaskSuccess {
				t.Fatalf("%s: %s", task.State, task.ErrorMessage)
			}
			left := apptest.Get[octopus.Page[octopus.Release]](t, s.Client, "/api/projects/"+p.ID+"/releases")
			if left.TotalResults != 3 {
				t.Errorf("%d releases are left", left.TotalResults)
			}
			log := string(s.Must(t, http.MethodGet, "/api/tasks/"+task.ID+"/raw", nil, nil).Body)
			for _, want := range []string{
				"Web: release 1.0.49 is kept: never deployed, kept so far = 0 of 3.", "Web: release 1.0.46 is deleted: never deployed, but 3 of 3 have been kept.", "Deleted 47 releases of 1 projects.",
			} {
				if !strings.Contains(log, want) {
					t.Errorf("the log has no %q", want)
				}
			}
			events := apptest.Get[octopus.Page[octopus.Event]](t, s.Client, "/api/events?eventCategories=RetentionPolicyApplied")
			if events.TotalResults != 3 || !strings.HasPrefix(events.Items[0].Message, "Retention deleted 7 releases of project Web: ") {
				t.Errorf("%d events, the last %q", events.TotalResults, events.Items[0].Message)
			}
		})
	}
}
