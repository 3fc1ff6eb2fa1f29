package schedule_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	_ "time/tzdata" // the same zones on every host

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/schedule"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

const space ident.SpaceID = "Spaces-1"

// clock is what a server takes for the time.
type clock struct{ micros atomic.Int64 }

func (c *clock) now() time.Time        { return time.UnixMicro(c.micros.Load()) }
func (c *clock) set(t time.Time)       { c.micros.Store(t.UnixMicro()) }
func (c *clock) move(by time.Duration) { c.micros.Add(by.Microseconds()) }
func day(date int, at string) (t time.Time) {
	t, err := time.Parse("2006-01-02 15:04:05", fmt.Sprintf("2026-01-%02d %s", date, at))
	if err != nil {
		panic(err) //nolint:forbidigo // a test's own constant
	}
	return t
}

// server is one of the servers on a database.
type server struct {
	clock *clock
	db    *db.DB
	feed  *feed.Repository
	rel   *releases.Service
	sched *schedule.Scheduler
}

// proven is the instant of a backup that was proven; no file has it.
type proven struct{ micros atomic.Int64 }

func (p *proven) at(context.Context) (time.Time, error) {
	if n := p.micros.Load(); n != 0 {
		return time.UnixMicro(n), nil
	}
	return time.Time{}, nil
}

// world is a project in a space, and one server or two.
type world struct {
	t         testing.TB
	ctx       context.Context
	store     *docstore.Store
	servers   []*server
	project   octopus.Project
	dev, test string
	proven    proven
}

type packages struct {
	db   *db.DB
	feed *feed.Repository
}

func (p packages) Find(ctx context.Context, space ident.SpaceID, _, id, version string) (found releases.Package, err error) {
	err = p.db.Read(ctx, func(tx *db.Tx) error {
		one, err := p.feed.Find(ctx, tx, space, id, version)
		if err == nil {
			found = releases.Package{FileName: one.FileName(), SHA256: one.SHA256, Size: one.Size}
		}
		return err
	})
	return found, err
}

func (p packages) Has(ctx context.Context, space ident.SpaceID, feedID, id, version string) error {
	_, err := p.Find(ctx, space, feedID, id, version)
	return err
}

func (p packages) Versions(ctx context.Context, space ident.SpaceID, _, id string, fn func(string) bool) error {
	return p.db.Read(ctx, func(tx *db.Tx) error {
		return p.feed.Versions(ctx, tx, space, id, func(one *feed.Package) bool { return fn(one.Version) })
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onBoth runs a test with one server on SQLite and with two on PostgreSQL.
func onBoth(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			n := 1
			if dialect == db.Postgres {
				n = 2
			}
			fn(t, newWorld(t, dbtest.URL(t, dialect), n))
		})
	}
}

func newWorld(t testing.TB, url string, n int) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context()}
	set, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	check(t, err)
	keys := t.TempDir()
	blobs, err := blob.OpenDir(t.TempDir())
	check(t, err)
	for i := range n {
		s := &server{clock: &clock{}}
		s.clock.set(day(1, "00:00:00"))
		s.db, err = db.Open(w.ctx, url, db.Options{Log: dbtest.Log(t), Now: s.clock.now})
		check(t, err)
		t.Cleanup(func() { check(t, s.db.Close()) })
		box, err := secret.Open(w.ctx, s.db, secret.Source{Dir: keys})
		check(t, err)
		store := docstore.New(set, box)
		if i == 0 {
			w.store = store
		}
		s.feed = feed.New(s.db, blobs)
		s.feed.Notify(func(ctx context.Context, tx *db.Tx, p *feed.Package) error {
			return schedule.Pushed(ctx, tx, p.Space, p.PackageID, p.Version)
		})
		queue, err := tasks.Open(w.ctx, tasks.Config{DB: s.db, Blobs: blobs, RunDir: t.TempDir(), Node: fmt.Sprint("node", i), Version: "1"})
		check(t, err)
		t.Cleanup(func() { check(t, queue.Close()) })
		s.rel = releases.New(releases.Config{DB: s.db, Store: store, Queue: queue, Packages: packages{s.db, s.feed}, Sealer: box, Log: dbtest.Log(t)})
		s.sched = schedule.New(schedule.Config{DB: s.db, Store: store, Releases: s.rel, Queue: queue, Proven: w.proven.at, Log: dbtest.Log(t)})
		w.servers = append(w.servers, s)
	}
	people, err := auth.Open(w.servers[0].db, w.store, auth.Options{})
	check(t, err)
	check(t, people.EnsureBuiltins(w.ctx))
	w.create("spaces", &octopus.Space{Name: "Default", IsDefault: true})
	w.dev, w.test = w.create("environments", &octopus.Environment{Name: "Dev"}), w.create("environments", &octopus.Environment{Name: "Test"})
	id := w.create("projects", &octopus.Project{Name: "Web Shop", ProjectGroupID: "ProjectGroups-1", LifecycleID: "Lifecycles-1"})
	w.load("projects", id, &w.project)
	var p octopus.DeploymentProcess
	w.load("deploymentprocesses", w.project.DeploymentProcessID, &p)
	p.Steps = octopus.List[octopus.Step]{{Name: "Hello", Actions: octopus.List[octopus.Action]{{
		Name: "Hello", ActionType: octopus.ActionScript,
		Packages: octopus.List[octopus.PackageReference]{{PackageID: "Acme.Web", FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireOnServer}},
		Properties: octopus.Properties{
			octopus.PropScriptBody: octopus.Plain("echo"), octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropRunOnServer: octopus.Plain("true"),
		},
	}}}}
	w.replace("deploymentprocesses", p.ID, &p)
	w.push("Acme.Web.1.0.0.zip")
	w.look()
	return w
}

func (w *world) write(fn func(tx *db.Tx) error) {
	w.t.Helper()
	check(w.t, w.servers[0].db.Write(w.ctx, fn))
}

func (w *world) create(kind string, v any) (id string) {
	w.t.Helper()
	w.write(func(tx *db.Tx) (err error) {
		id, err = w.store.In(tx).Create(w.ctx, kind, space, "", v)
		return err
	})
	return id
}

func (w *world) replace(kind, id string, v any) {
	w.t.Helper()
	w.write(func(tx *db.Tx) error { return w.store.In(tx).Replace(w.ctx, kind, id, v) })
}

func (w *world) load(kind, id string, v any) {
	w.t.Helper()
	check(w.t, w.servers[0].db.Read(w.ctx, func(tx *db.Tx) error { return w.store.Load(w.ctx, tx, kind, id, v) }))
}

func (w *world) push(file string) {
	w.t.Helper()
	_, _, err := w.servers[0].feed.Push(w.ctx, space, file, strings.NewReader(file), feed.FailIfExists)
	check(w.t, err)
}

// look has every server look at the same time.
func (w *world) look() {
	w.t.Helper()
	g, ctx := errgroup.WithContext(w.ctx)
	for _, s := range w.servers {
		g.Go(func() error { return s.sched.Look(ctx) })
	}
	check(w.t, g.Wait())
}

// at sets all clocks.
func (w *world) at(t time.Time) {
	for _, s := range w.servers {
		s.clock.set(t)
	}
}

func (w *world) move(by time.Duration) {
	for _, s := range w.servers {
		s.clock.move(by)
	}
}

// end ends all tasks as the engine does.
func (w *world) end(state octopus.TaskState) {
	w.t.Helper()
	s := w.servers[0]
	for _, id := range w.texts(`SELECT t.id FROM task t WHERE t.state = 'Queued' ORDER BY t.seq`) {
		check(w.t, s.db.WriteEngine(w.ctx, func(tx *db.Tx) error {
			task, err := tasks.Get(w.ctx, tx, id)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(w.ctx, `UPDATE task SET state = ?, runnable = 0 WHERE id = ?`, string(state), id); err != nil {
				return err
			}
			return s.rel.Ended(w.ctx, tx, task, state)
		}))
	}
}

func (w *world) texts(query string, args ...any) (out []string) {
	w.t.Helper()
	check(w.t, w.servers[0].db.Read(w.ctx, func(tx *db.Tx) error {
		out = nil
		rows, err := tx.Query(w.ctx, query, args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return err
			}
			out = append(out, text)
		}
		return rows.Err()
	}))
	return out
}

// deployed lists the environments of all deployments, in their order.
func (w *world) deployed() []string {
	w.t.Helper()
	return w.texts(`SELECT d.environment_id FROM deployment d ORDER BY d.created, d.seq`)
}

// told lists the events of triggers, the oldest first.
func (w *world) told() []string {
	w.t.Helper()
	return w.texts(`SELECT e.category FROM events e WHERE e.category LIKE 'Trigger%' ORDER BY e.id`)
}

func (w *world) count(want int, when string) {
	w.t.Helper()
	if got := len(w.deployed()); got != want {
		w.t.Fatalf("%s there are %d deployments, want %d; %v", when, got, want, w.texts(`SELECT e.message FROM events e WHERE e.category LIKE 'Trigger%' ORDER BY e.id`))
	}
}

// every is a trigger that makes and deploys a release.
func (w *world) every(cron string) string {
	w.t.Helper()
	return w.create(resources.TriggerKind, &octopus.Trigger{
		Name: cron, ProjectID: w.project.ID,
		Filter: octopus.TriggerFilter{FilterType: octopus.FilterCron, CronExpression: cron},
		Action: octopus.TriggerAction{ActionType: octopus.TriggerDeployNew, EnvironmentID: w.dev},
	})
}

func TestEachTimeOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.every("0 0 * * * *")
		w.look()
		w.count(0, "before the time")
		for hour := 1; hour <= 4; hour++ {
			w.at(day(1, fmt.Sprintf("%02d:00:00", hour)))
			w.look()
			w.look()
			w.move(time.Minute)
			w.look()
			w.count(hour, fmt.Sprintf("at %d", hour))
			w.end(octopus.TaskSuccess)
		}
		if diff := cmp.Diff(slices.Repeat([]string{"TriggerFired"}, 4), w.told()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestClockThatMoves(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.every("0 0 * * * *")
		w.at(day(1, "03:00:00"))
		w.look()
		w.end(octopus.TaskSuccess)
		w.count(1, "at 3, where 1 and 2 were missed,")
		w.at(day(1, "02:30:00"))
		for range 4 {
			w.look()
			w.move(10 * time.Minute)
		}
		w.count(1, "set back and come to 3 again")
		w.at(day(1, "04:00:00"))
		w.look()
		w.end(octopus.TaskSuccess)
		w.count(2, "at 4")
		// One server's clock is ahead of the other's.
		w.servers[0].clock.set(day(1, "05:00:10"))
		w.look()
		w.end(octopus.TaskSuccess)
		w.at(day(1, "05:00:20"))
		w.look()
		w.count(3, "at 5, by either clock,")
	})
}

func TestDowntimeMakesNoBacklog(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.every("0 */10 * * * *")
		w.every("0 0 2 * * *")
		w.at(day(2, "12:05:00"))
		w.look()
		w.look()
		w.count(1, "after a day and a half")
		if diff := cmp.Diff([]string{"TriggerFired", "TriggerSkipped"}, sorted(w.told())); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		missed := w.texts(`SELECT e.message FROM events e WHERE e.category = 'TriggerSkipped'`)
		if !strings.Contains(missed[0], "nobody was there when it was due, at 2026-01-01T02:00:00Z") {
			t.Errorf("%s", missed[0])
		}
		fired := w.texts(`SELECT u.fired FROM due u WHERE u.kind = 'trigger' ORDER BY u.fired DESC`)[0]
		if want := fmt.Sprint(day(2, "12:00:00").UnixMicro()); fired != want {
			t.Errorf("fired for %s, want %s: the latest", fired, want)
		}
		w.end(octopus.TaskSuccess)
		w.at(day(2, "12:10:00"))
		w.look()
		w.count(2, "at the next time")
	})
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

func TestSkippedWhileTheLastOneRuns(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.every("0 0 * * * *")
		for hour := 1; hour <= 3; hour++ {
			w.at(day(1, fmt.Sprintf("%02d:00:00", hour)))
			w.look()
			w.count(1, "while the first is queued")
		}
		w.end(octopus.TaskFailed)
		w.at(day(1, "03:30:00"))
		w.look()
		w.count(1, "between two times")
		w.at(day(1, "04:00:00"))
		w.look()
		w.count(2, "after the first has ended")
		if diff := cmp.Diff([]string{"TriggerFired", "TriggerSkipped", "TriggerSkipped", "TriggerFired"}, w.told()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestDeployLatest(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := w.create(resources.TriggerKind, &octopus.Trigger{
			Name: "Promote", ProjectID: w.project.ID,
			Filter: octopus.TriggerFilter{FilterType: octopus.FilterCron, CronExpression: "0 0 * * * *"},
			Action: octopus.TriggerAction{ActionType: octopus.TriggerDeployLatest, SourceEnvironmentIDs: octopus.List[string]{w.dev}, DestinationEnvironmentID: w.test},
		})
		w.at(day(1, "01:00:00"))
		w.look()
		w.count(0, "when nothing is in Dev")
		release := func(version string) {
			t.Helper()
			made, err := w.servers[0].rel.CreateRelease(w.ctx, releases.NewRelease{Space: space, Project: w.project.ID, Version: version}, nil)
			check(t, err)
			_, err = w.servers[0].rel.Deploy(w.ctx, releases.NewDeployments{Space: space, ReleaseID: made.Release.ID, Environments: []string{w.dev}}, nil)
			check(t, err)
		}
		release("1.0.0")
		w.end(octopus.TaskSuccess)
		release("1.1.0")
		w.end(octopus.TaskFailed) // not a success
		w.at(day(1, "02:00:00"))
		w.look()
		want := []string{"1.0.0 " + w.dev, "1.1.0 " + w.dev, "1.0.0 " + w.test}
		got := w.texts(`SELECT r.version || ' ' || d.environment_id FROM deployment d JOIN release r ON r.id = d.release_id ORDER BY d.created, d.seq`)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		w.end(octopus.TaskSuccess)
		w.at(day(1, "03:00:00"))
		w.look()
		w.count(3, "when the release is there already")
		var trigger octopus.Trigger
		w.load(resources.TriggerKind, id, &trigger)
		again := true
		trigger.Action.ShouldRedeployWhenReleaseIsCurrent = &again
		w.replace(resources.TriggerKind, id, &trigger)
		w.at(day(1, "04:00:00"))
		w.look()
		w.count(4, "when it is to be deployed again")
		w.end(octopus.TaskSuccess)
		trigger.IsDisabled = true
		w.replace(resources.TriggerKind, id, &trigger)
		w.at(day(1, "05:00:00"))
		w.look()
		w.count(4, "when the trigger is disabled")
	})
}

func TestFailuresAreTold(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.every("0 0 1 * * *")
		w.create(resources.TriggerKind, &octopus.Trigger{
			Name: "Backup", ProjectID: w.project.ID,
			Filter: octopus.TriggerFilter{FilterType: octopus.FilterCron, CronExpression: "0 0 2 * * *"},
			Action: octopus.TriggerAction{ActionType: octopus.TriggerRunRunbook, RunbookID: "Runbooks-1"},
		})
		w.project.IsDisabled = true
		w.replace("projects", w.project.ID, &w.project)
		for hour := 1; hour <= 2; hour++ {
			w.at(day(1, fmt.Sprintf("%02d:00:00", hour)))
			w.look()
			w.look()
		}
		got := w.texts(`SELECT e.message FROM events e WHERE e.category = 'TriggerFailed' ORDER BY e.id`)
		want := []string{
			"Trigger 0 0 1 * * * of project Web Shop could not run. The project 'Web Shop' is disabled; enable it to make releases and deployments",
			"Trigger Backup of project Web Shop could not run. This server cannot run runbooks",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		w.count(0, "at the end")
	})
}

func TestPackageMakesReleases(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.create(resources.TriggerKind, &octopus.Trigger{
			Name: "New package", ProjectID: w.project.ID,
			Filter: octopus.TriggerFilter{FilterType: octopus.FilterArcFeed, Packages: octopus.List[octopus.TriggerPackage]{{DeploymentAction: "Hello"}}},
			Action: octopus.TriggerAction{ActionType: octopus.TriggerCreateRelease},
		})
		w.push("Acme.Web.1.1.0.zip")
		w.push("Acme.Other.1.0.0.zip")
		w.look()
		w.look()
		releases := func() []string { return w.texts(`SELECT r.version FROM release r ORDER BY r.created, r.seq`) }
		if got := releases(); len(got) != 1 {
			t.Fatalf("%v", got)
		}
		if left := w.texts(`SELECT u.id FROM due u WHERE u.kind = 'push'`); left != nil {
			t.Errorf("%v is left", left)
		}
		// The older setting of projects does the same.
		w.load("projects", w.project.ID, &w.project)
		w.project.AutoCreateRelease = true
		w.project.ReleaseCreationStrategy = octopus.ReleaseCreationStrategy{ReleaseCreationPackage: &octopus.DeploymentActionPackage{DeploymentAction: "Hello"}}
		w.replace("projects", w.project.ID, &w.project)
		w.push("Acme.Web.1.2.0.zip")
		w.look()
		if got := releases(); len(got) != 3 {
			t.Fatalf("%v: want one of the trigger and one of the project; %v", got, w.texts(`SELECT e.message FROM events e WHERE e.category LIKE 'Trigger%'`))
		}
		for _, body := range w.texts(`SELECT r.body FROM release r ORDER BY r.created DESC, r.seq DESC LIMIT 2`) {
			if !strings.Contains(body, `"Version":"1.2.0"`) {
				t.Errorf("%s", body)
			}
		}
	})
}

// TestTakenOverHalfWay lets a server die between the release and its deployment.
func TestTakenOverHalfWay(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := w.every("0 0 1 * * *")
		w.at(day(1, "01:00:00"))
		made, err := w.servers[0].rel.CreateRelease(w.ctx, releases.NewRelease{Space: space, Project: w.project.ID}, nil)
		check(t, err)
		// As the one that died has left the row.
		w.write(func(tx *db.Tx) error {
			_, err := tx.Exec(w.ctx, `UPDATE due SET at = ?, pending = ?, lease = ?, attempts = 1, progress = ? WHERE id = ?`,
				day(2, "01:00:00").UnixMicro(), day(1, "01:00:00").UnixMicro(), day(1, "01:02:00").UnixMicro(), fmt.Sprintf(`{"Release":%q}`, made.Release.ID), id)
			return err
		})
		w.look()
		w.count(0, "while the lease holds")
		w.at(day(1, "01:03:00"))
		w.look()
		w.look()
		w.count(1, "after the lease")
		if got := w.texts(`SELECT r.id FROM release r`); len(got) != 1 {
			t.Errorf("%v: the release was made twice", got)
		}
	})
}

func TestRetentionIsDue(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for _, s := range w.servers {
			check(t, s.sched.Ensure(w.ctx))
		}
		for _, at := range []string{"03:59:59", "04:00:00", "04:00:01", "08:00:00"} {
			w.at(day(1, at))
			w.look()
		}
		if got := w.texts(`SELECT t.id FROM task t WHERE t.name = 'Retention'`); len(got) != 1 {
			t.Errorf("%d tasks while the first is queued", len(got))
		}
		w.write(func(tx *db.Tx) error {
			_, err := tx.Exec(w.ctx, `UPDATE task SET state = 'Success', runnable = 0`)
			return err
		})
		w.at(day(1, "12:00:00"))
		w.look()
		if got := w.texts(`SELECT t.id FROM task t WHERE t.name = 'Retention'`); len(got) != 2 {
			t.Errorf("%d tasks", len(got))
		}
	})
}

// TestRandomClocks moves the clocks of two servers about at random, each its own,
// while both look all the time.
func TestRandomClocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.URL(t, db.Postgres), 2)
	w.every("0 */5 * * * *")
	moves := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) [2]time.Duration {
		move := rapid.Int64Range(-int64(20*time.Minute), int64(30*time.Minute))
		return [2]time.Duration{time.Duration(move.Draw(t, "first")), time.Duration(move.Draw(t, "second"))}
	}), 40, 40).Example(1)
	var mu sync.Mutex
	furthest := day(1, "00:00:00")
	for _, m := range moves {
		for i, s := range w.servers {
			s.clock.move(m[i])
			mu.Lock()
			if s.clock.now().After(furthest) {
				furthest = s.clock.now()
			}
			mu.Unlock()
		}
		w.look()
		w.end(octopus.TaskSuccess)
	}
	fired := w.texts(`SELECT e.occurred FROM events e WHERE e.category = 'TriggerFired'`)
	if most := int(furthest.Sub(day(1, "00:00:00")) / (5 * time.Minute)); len(fired) == 0 || len(fired) > most || len(fired) != len(w.deployed()) {
		t.Errorf("fired %d times and deployed %d times in %d times", len(fired), len(w.deployed()), most)
	}
}
