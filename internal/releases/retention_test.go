package releases_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
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
		got := w.verdicts()
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

// verdicts are what retention would do, with a sign before each version.
func (w *world) verdicts() (out []string) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error {
		out = nil
		return w.rel.Retention(w.t.Context(), tx, &w.project, func(v releases.RetentionVerdict) error {
			sign := map[bool]string{true: "+", false: "-"}[v.Keep]
			out = append(out, sign+v.Version+" "+v.Reason)
			return nil
		})
	})
	return out
}

// retain applies the policies and returns the versions that are left.
func (w *world) retain() (left []string) {
	w.t.Helper()
	if _, err := w.rel.Retain(w.t.Context(), &w.project, func(releases.RetentionVerdict) error { return nil }); err != nil {
		w.t.Fatal(err)
	}
	for _, v := range w.verdicts() {
		version, _, _ := strings.Cut(v[1:], " ")
		left = append(left, version)
	}
	return left
}

// TestPoint15RetentionOfTenants: each tenant keeps what it has and what it had
// before, and what nobody has goes.
func TestPoint15RetentionOfTenants(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Hello"))
		id := w.create("lifecycles", "", &octopus.Lifecycle{Name: "One", ReleaseRetentionPolicy: octopus.KeepCount(1, octopus.RetentionItems), Phases: octopus.List[octopus.Phase]{
			{Name: "Dev", OptionalDeploymentTargets: octopus.List[string]{w.dev}},
		}})
		w.changeProject(func(p *octopus.Project) { p.TenantedDeploymentMode, p.LifecycleID = octopus.TenantedOrUntenanted, id })
		connected := octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}
		var tenants []string
		for _, name := range []string{"Acme", "Umbrella"} {
			tenants = append(tenants, w.create("tenants", "", &octopus.Tenant{Name: name, ProjectEnvironments: connected}))
		}
		// Acme stays behind; Umbrella and nobody go on.
		for n, who := range [][]string{{""}, {tenants[0], ""}, {tenants[0], tenants[1]}, {tenants[0], tenants[1], ""}, {tenants[1]}, {tenants[1]}, {tenants[1], ""}, {tenants[1]}} {
			r := w.release(fmt.Sprintf("1.0.%d", n+1))
			for _, tenant := range who {
				w.end(w.deploy(r.ID, w.dev, func(in *releases.NewDeployments) {
					if tenant != "" {
						in.Tenants = []string{tenant}
					}
				}), octopus.TaskSuccess)
			}
		}
		const shown, before = "it is on the dashboard", "it was there before one on the dashboard, and can be gone back to"
		want := []string{
			"+1.0.8 " + shown, "+1.0.7 " + shown, "+1.0.6 deployed to Dev, kept so far = 0 of 1", "-1.0.5 deployed to Dev, but 1 of 1 have been kept",
			"+1.0.4 " + shown, "+1.0.3 " + before, "-1.0.2 deployed to Dev, but 1 of 1 have been kept", "-1.0.1 deployed to Dev, but 1 of 1 have been kept",
		}
		if diff := cmp.Diff(want, w.verdicts()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if left := w.retain(); !slices.Equal(left, []string{"1.0.8", "1.0.7", "1.0.6", "1.0.4", "1.0.3"}) {
			t.Errorf("left: %v", left)
		}
	})
}

// TestPoint15SpaceDefault: what a lifecycle or a phase leaves to the space is kept as
// the space's own policy says.
func TestPoint15SpaceDefault(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Hello"))
		phase := octopus.Phase{Name: "Dev", OptionalDeploymentTargets: octopus.List[string]{w.dev}}
		l := octopus.Lifecycle{Name: "Default", ReleaseRetentionPolicy: octopus.KeepDefault(), Phases: octopus.List[octopus.Phase]{phase}}
		id := w.create("lifecycles", "", &l)
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = id })
		for n := 1; n <= 6; n++ {
			w.end(w.deploy(w.release(fmt.Sprintf("1.0.%d", n)).ID, w.dev), octopus.TaskSuccess)
		}
		kept := func() (n int) {
			t.Helper()
			for _, v := range w.verdicts() {
				if v[0] == '+' {
					n++
				}
			}
			return n
		}
		if n := kept(); n != 6 {
			t.Errorf("without a policy of the space %d are kept", n)
		}
		policy := resources.DefaultRetention(space, octopus.RetentionLifecycleRelease)
		policy.Strategy, policy.QuantityToKeep = octopus.RetentionCount, 2
		w.create("retentionpolicies", policy.ID, &policy)
		other := resources.DefaultRetention(space, octopus.RetentionLifecycleTentacle)
		other.Strategy, other.QuantityToKeep = octopus.RetentionCount, 1
		w.create("retentionpolicies", other.ID, &other)
		if n := kept(); n != 4 {
			t.Errorf("by the space's policy, %d are kept besides the two that are needed", n-2)
		}
		l.ReleaseRetentionPolicy = octopus.KeepForever()
		w.replace("lifecycles", id, &l)
		if n := kept(); n != 6 {
			t.Errorf("by the lifecycle's own, %d are kept", n)
		}
		l.Phases[0].ReleaseRetentionPolicy = octopus.KeepDefault()
		w.replace("lifecycles", id, &l)
		if n := kept(); n != 4 {
			t.Errorf("where the phase leaves it to the space, %d are kept besides the two that are needed", n-2)
		}
		policy.QuantityToKeep = 1
		w.replace("retentionpolicies", policy.ID, &policy)
		if left := w.retain(); len(left) != 3 {
			t.Errorf("left: %v", left)
		}
	})
}

// TestPoint16PolicyOfTargets: a deployment's plan has what targets keep, by the phase, the
// lifecycle or the space, and whether packages are installed again.
func TestPoint16PolicyOfTargets(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Hello"))
		l := octopus.Lifecycle{Name: "Kept", TentacleRetentionPolicy: octopus.KeepCount(3, octopus.RetentionItems), Phases: octopus.List[octopus.Phase]{
			{Name: "Dev", OptionalDeploymentTargets: octopus.List[string]{w.dev}, TentacleRetentionPolicy: octopus.KeepCount(7, octopus.RetentionDays)},
		}}
		id := w.create("lifecycles", "", &l)
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = id })
		r := w.release("1.0.0")
		planned := func(change func(*octopus.Phase)) *deploy.Keep {
			t.Helper()
			change(&l.Phases[0])
			w.replace("lifecycles", id, &l)
			d := w.deploy(r.ID, w.dev)
			w.end(d, octopus.TaskSuccess)
			return w.plan(d).Keep
		}
		same := func(*octopus.Phase) {}
		inherited := func(p *octopus.Phase) { p.TentacleRetentionPolicy = nil }
		forever := func(p *octopus.Phase) { p.TentacleRetentionPolicy = octopus.KeepForever() }
		byDefault := func(p *octopus.Phase) { p.TentacleRetentionPolicy = octopus.KeepDefault() }
		for _, c := range []struct {
			what   string
			change func(*octopus.Phase)
			want   *deploy.Keep
		}{
			{"of the phase", same, &deploy.Keep{Days: 7}},
			{"of the lifecycle", inherited, &deploy.Keep{Items: 3}},
			{"for ever", forever, nil},
			{"of the space, which has none", byDefault, nil},
		} {
			if diff := cmp.Diff(c.want, planned(c.change)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.what, diff)
			}
		}
		policy := resources.DefaultRetention(space, octopus.RetentionLifecycleTentacle)
		policy.Strategy, policy.QuantityToKeep, policy.Unit = octopus.RetentionCount, 9, octopus.RetentionItems
		w.create("retentionpolicies", policy.ID, &policy)
		if diff := cmp.Diff(&deploy.Keep{Items: 9}, planned(byDefault)); diff != "" {
			t.Errorf("of the space (-want +got):\n%s", diff)
		}
		d := w.deploy(r.ID, w.dev, func(in *releases.NewDeployments) { in.Options.ForcePackageRedeployment = true })
		if !w.plan(d).Redeploy {
			t.Error("packages are not installed again")
		}
	})
}

// TestRetentionSeesWhatHappens: a release that is deployed, or whose rules change,
// between the decision and the deletion is kept.
func TestRetentionSeesWhatHappens(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Hello"))
		l := octopus.Lifecycle{Name: "One", ReleaseRetentionPolicy: octopus.KeepCount(1, octopus.RetentionItems)}
		id := w.create("lifecycles", "", &l)
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = id })
		var made []octopus.Release
		for n := 1; n <= 5; n++ {
			made = append(made, w.release(fmt.Sprintf("1.0.%d", n)))
		}
		told := 0
		deleted, err := w.rel.Retain(t.Context(), &w.project, func(releases.RetentionVerdict) error {
			if told++; told == 5 {
				w.deploy(made[1].ID, w.dev)
			}
			return nil
		})
		if err != nil || deleted != 3 {
			t.Fatalf("%d were deleted: %v", deleted, err)
		}
		w.release("1.1.0")
		deleted, err = w.rel.Retain(t.Context(), &w.project, func(v releases.RetentionVerdict) error {
			if v.Version == "1.0.2" { // the last
				l.ReleaseRetentionPolicy = octopus.KeepForever()
				w.replace("lifecycles", id, &l)
			}
			return nil
		})
		if left := w.retain(); err != nil || deleted != 0 || !slices.Equal(left, []string{"1.1.0", "1.0.5", "1.0.2"}) {
			t.Errorf("%d were deleted: %v; left: %v", deleted, err, left)
		}
	})
}

// TestRetentionIsLinear: deleting reads the project's history once, and each release
// once, however many are deleted.
func TestRetentionIsLinear(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			var whole, pages, others atomic.Int64
			d, err := db.Open(t.Context(), dbtest.URL(t, dialect), db.Options{Log: dbtest.Log(t), OnStatement: func(query string) {
				switch {
				case strings.Contains(query, "FROM deployment d WHERE d.project_id = ?"):
					whole.Add(1)
				case strings.Contains(query, "FROM release r WHERE r.project_id = ? AND (r.created"):
					pages.Add(1)
				default:
					others.Add(1)
				}
			}})
			check(t, err)
			t.Cleanup(func() { check(t, d.Close()) })
			w := newWorld(t, d)
			id := w.create("lifecycles", "", &octopus.Lifecycle{Name: "One", ReleaseRetentionPolicy: octopus.KeepCount(1, octopus.RetentionItems)})
			w.changeProject(func(p *octopus.Project) { p.LifecycleID = id })
			first := w.release("0.0.1")
			seq := 0
			cost := func(n int) int64 {
				t.Helper()
				w.write(func(tx *db.Tx) error {
					for range n {
						seq++
						_, err := tx.Exec(t.Context(), `INSERT INTO release (id, seq, space_id, project_id, channel_id, version, version_folded, version_key, created, body)
							SELECT ?, ?, r.space_id, r.project_id, r.channel_id, ?, ?, r.version_key, r.created - ?, r.body FROM release r WHERE r.id = ?`,
							fmt.Sprintf("Releases-%d", 1000+seq), int64(1000+seq), fmt.Sprint("0.0.0-", seq), fmt.Sprint("0.0.0-", seq), int64(seq), first.ID)
						if err != nil {
							return err
						}
					}
					return nil
				})
				whole.Store(0)
				pages.Store(0)
				others.Store(0)
				deleted, err := w.rel.Retain(t.Context(), &w.project, func(releases.RetentionVerdict) error { return nil })
				if err != nil || deleted != n {
					t.Fatalf("%d of %d were deleted: %v", deleted, n, err)
				}
				if whole.Load() != 1 || pages.Load() > int64(n/500+2) {
					t.Errorf("to delete %d releases, all deployments were read %d times, and %d pages of releases", n, whole.Load(), pages.Load())
				}
				return others.Load()
			}
			cost(1) // whatever is done but once
			few, many := cost(60), cost(240)
			t.Logf("60 releases take %d statements, 240 take %d", few, many)
			if many > 4*few+few/2 {
				t.Error("that is more than four times as many")
			}
		})
	}
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
