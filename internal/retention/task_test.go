package retention_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/octopus"
)

// retain starts the task by hand and waits for its end.
func retain(t *testing.T, s *apptest.Server) octopus.Task {
	t.Helper()
	task := apptest.Post(t, s.Client, "/api/tasks", octopus.Task{Name: octopus.TaskRetention})
	for deadline := time.Now().Add(2 * time.Minute); !task.IsCompleted; task = apptest.Get[octopus.Task](t, s.Client, "/api/tasks/"+task.ID) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s", task.ID, task.State)
		}
	}
	if task.State != octopus.TaskSuccess {
		t.Fatalf("%s: %s", task.State, task.ErrorMessage)
	}
	return task
}

// TestPoint15PackageRetention: old packages go when somebody runs retention, but never
// one that a release selects, whose deployment works afterwards.
func TestPoint15PackageRetention(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.StartWith(t, dialect, apptest.Options{NoWorker: true})
			for _, version := range []string{"1.0.0", "1.1.0", "1.2.0"} {
				s.Upload(t, "/api/packages/raw", "Acme.Web."+version+".zip", []byte(version))
			}
			p := apptest.Post(t, s.Client, "/api/projects", octopus.Project{Name: "Web", ProjectGroupID: "ProjectGroups-1", LifecycleID: "Lifecycles-1"})
			process := apptest.Get[octopus.DeploymentProcess](t, s.Client, "/api/projects/"+p.ID+"/deploymentprocesses")
			process.Steps = octopus.List[octopus.Step]{{Name: "Web", Actions: octopus.List[octopus.Action]{{
				Name: "Web", ActionType: octopus.ActionScript,
				Properties: octopus.Properties{octopus.PropScriptBody: octopus.Plain("echo"), octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropRunOnServer: octopus.Plain("true")},
				Packages:   octopus.List[octopus.PackageReference]{{PackageID: "Acme.Web", FeedID: octopus.BuiltInFeedID, AcquisitionLocation: octopus.AcquireOnServer}},
			}}}}
			apptest.Put(t, s.Client, "/api/projects/"+p.ID+"/deploymentprocesses", process)
			r := apptest.Post(t, s.Client, "/api/releases", octopus.Release{ProjectID: p.ID, Version: "1.0", SelectedPackages: octopus.List[octopus.SelectedPackage]{{ActionName: "Web", Version: "1.0.0"}}})
			feed := apptest.Get[octopus.Feed](t, s.Client, "/api/feeds/"+octopus.BuiltInFeedID)
			days := 30
			feed.DeleteUnreleasedPackagesAfterDays = &days
			apptest.Put(t, s.Client, "/api/feeds/"+feed.ID, feed)
			d := dbtest.OpenURL(t, s.Database)
			if err := d.Write(t.Context(), func(tx *db.Tx) error {
				_, err := tx.Exec(t.Context(), `UPDATE package SET published = published - ?`, (30 * 24 * time.Hour).Microseconds())
				return err
			}); err != nil {
				t.Fatal(err)
			}
			dry := apptest.Get[octopus.Page[struct {
				Version, Reason string
				Keep            bool
			}]](t, s.Client, "/api/packages/retention")
			if len(dry.Items) != 3 || !dry.Items[0].Keep || dry.Items[1].Keep || !dry.Items[2].Keep || dry.Items[2].Reason != "Kept: the release "+r.ID+" uses it." {
				t.Errorf("beforehand: %+v", dry.Items)
			}
			task := retain(t, s)
			log := string(s.Must(t, http.MethodGet, "/api/tasks/"+task.ID+"/raw", nil, nil).Body)
			for _, want := range []string{
				"Default: package Acme.Web 1.2.0: Kept: it is the newest version of Acme.Web.",
				"Default: package Acme.Web 1.1.0: Deleted: it was published 30 days ago, packages are kept for 30 days, and no release uses it.",
				"Default: package Acme.Web 1.0.0: Kept: the release Web 1.0 uses it.",
				"Deleted 1 packages, and build information for 0 versions without one.",
				"Deleted 0 files of 0 bytes that nothing has named for 48 hours.",
			} {
				if !strings.Contains(log, want) {
					t.Errorf("the log has no %q:\n%s", want, log)
				}
			}
			missing := apptest.Get[struct{ Packages []any }](t, s.Client, "/api/releases/"+r.ID+"/missingPackages")
			if len(missing.Packages) != 0 {
				t.Errorf("the release misses %v", missing.Packages)
			}
			if got, err := s.Do(t.Context(), http.MethodGet, "/api/packages/packages-Acme.Web.1.1.0", nil); err != nil || got.Status != http.StatusNotFound {
				t.Errorf("a package that retention deleted: %v, %v", got, err)
			}
			s.Refused(t, http.StatusBadRequest, http.MethodPost, "/api/tasks", octopus.Task{Name: "Deploy"})
			events := apptest.Get[octopus.Page[octopus.Event]](t, s.Client, "/api/events?eventCategories=RetentionPolicyApplied")
			if events.TotalResults != 1 || events.Items[0].Message != "Retention deleted 1 packages: Acme.Web 1.1.0" {
				t.Errorf("%d events: %v", events.TotalResults, events.Items)
			}
		})
	}
}
