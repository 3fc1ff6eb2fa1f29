package releases_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

const space ident.SpaceID = "Spaces-1"

// world is a space with a project, three environments and a target in each.
type world struct {
	t     testing.TB
	db    *db.DB
	store *docstore.Store
	feed  *feed.Repository
	queue *tasks.Service
	rel   *releases.Service

	project         octopus.Project
	dev, test, prod string
	devTarget       string
}

// packages are those of the built-in feed.
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

func newWorld(t testing.TB, d *db.DB) *world {
	t.Helper()
	kinds := append(resources.All(), releases.Kinds()...)
	if !slices.ContainsFunc(kinds, func(k *resource.Kind) bool { return k.Name == "tenants" }) {
		kinds = append(kinds, resource.Declare(resource.Declaration[octopus.Tenant]{
			Name: "tenants", ItemType: "Tenant", Prefix: "Tenants", Slugged: true,
			References: []resource.Reference{{Path: "ProjectEnvironments.*key", To: "projects", OnDelete: resource.Clear}},
		}))
	}
	set, err := resource.NewSet(kinds...)
	check(t, err)
	box, err := secret.Open(t.Context(), d, secret.Source{Dir: t.TempDir()})
	check(t, err)
	blobs, err := blob.OpenDir(t.TempDir())
	check(t, err)
	w := &world{t: t, db: d, store: docstore.New(set, box), feed: feed.New(d, blobs)}
	w.queue, err = tasks.Open(t.Context(), tasks.Config{DB: d, Blobs: blobs, RunDir: t.TempDir(), Node: "node", Version: "1"})
	check(t, err)
	t.Cleanup(func() { check(t, w.queue.Close()) })
	w.rel = releases.New(releases.Config{
		DB: d, Store: w.store, Queue: w.queue, Packages: packages{d, w.feed}, Sealer: box,
		Log: dbtest.Log(t), ServerURI: "https://tako.example.com/",
	})
	people, err := auth.Open(d, w.store, auth.Options{})
	check(t, err)
	check(t, people.EnsureBuiltins(t.Context()))
	w.create("spaces", "", &octopus.Space{Name: "Default", IsDefault: true})
	w.dev = w.create("environments", "", &octopus.Environment{Name: "Dev"})
	w.test = w.create("environments", "", &octopus.Environment{Name: "Test"})
	w.prod = w.create("environments", "", &octopus.Environment{Name: "Prod", UseGuidedFailure: true})
	for _, env := range []string{w.dev, w.test, w.prod} {
		id := w.machine("web-"+env, env, "web")
		if env == w.dev {
			w.devTarget = id
		}
	}
	id := w.create("projects", "", &octopus.Project{Name: "Web Shop", ProjectGroupID: "ProjectGroups-1", LifecycleID: "Lifecycles-1"})
	w.load("projects", id, &w.project)
	return w
}

// onBoth runs a test in a world on each database.
func onBoth(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(t, newWorld(t, d)) })
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) write(fn func(tx *db.Tx) error) {
	w.t.Helper()
	check(w.t, w.db.Write(w.t.Context(), fn))
}

func (w *world) read(fn func(tx *db.Tx) error) {
	w.t.Helper()
	check(w.t, w.db.Read(w.t.Context(), fn))
}

func (w *world) create(kind, id string, v any) string {
	w.t.Helper()
	w.write(func(tx *db.Tx) (err error) {
		id, err = w.store.In(tx).Create(w.t.Context(), kind, space, id, v)
		return err
	})
	return id
}

func (w *world) replace(kind, id string, v any) {
	w.t.Helper()
	w.write(func(tx *db.Tx) error { return w.store.In(tx).Replace(w.t.Context(), kind, id, v) })
}

func (w *world) load(kind, id string, v any) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error { return w.store.Load(w.t.Context(), tx, kind, id, v) })
}

// changeProject changes the project as somebody would.
func (w *world) changeProject(change func(p *octopus.Project)) {
	w.t.Helper()
	change(&w.project)
	w.replace("projects", w.project.ID, &w.project)
}

func (w *world) machine(name, environment string, roles ...string) string {
	w.t.Helper()
	m := &octopus.Machine{EnvironmentIDs: octopus.List[string]{environment}, Roles: roles}
	m.Name, m.Endpoint = name, octopus.Endpoint{CommunicationStyle: octopus.StyleNone}
	return w.create("machines", "", m)
}

// steps gives the project a process.
func (w *world) steps(steps ...octopus.Step) {
	w.t.Helper()
	var p octopus.DeploymentProcess
	w.load("deploymentprocesses", w.project.DeploymentProcessID, &p)
	p.Steps = steps
	w.replace("deploymentprocesses", p.ID, &p)
}

// script is a step that runs a script on targets.
func script(name string, change ...func(a *octopus.Action)) octopus.Step {
	a := octopus.Action{Name: name, ActionType: octopus.ActionScript, Properties: octopus.Properties{
		octopus.PropScriptBody: octopus.Plain("echo hello"), octopus.PropScriptSyntax: octopus.Plain("Bash"),
	}}
	for _, c := range change {
		c(&a)
	}
	return octopus.Step{Name: name, Properties: octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")}, Actions: octopus.List[octopus.Action]{a}}
}

// onWorker is a step that needs no target.
func onWorker(name string, change ...func(a *octopus.Action)) octopus.Step {
	s := script(name, append(change, func(a *octopus.Action) { a.Properties[octopus.PropRunOnServer] = octopus.Plain("true") })...)
	s.Properties = nil
	return s
}

// uses adds a package to an action.
func uses(name, id string) func(a *octopus.Action) {
	return func(a *octopus.Action) {
		a.Packages = append(a.Packages, octopus.PackageReference{Name: name, PackageID: id, FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireOnServer})
	}
}

func (w *world) push(files ...string) {
	w.t.Helper()
	for _, f := range files {
		_, _, err := w.feed.Push(w.t.Context(), space, f, strings.NewReader(f), feed.FailIfExists)
		check(w.t, err)
	}
}

// variables gives the project variables.
func (w *world) variables(vars ...octopus.Variable) { w.variablesOf(w.project.VariableSetID, vars...) }

func (w *world) variablesOf(set string, vars ...octopus.Variable) {
	w.t.Helper()
	var v resources.VariableSet
	w.load("variables", set, &v)
	v.Variables = nil
	for _, one := range vars {
		v.Variables = append(v.Variables, resources.Variable{Variable: one})
	}
	w.replace("variables", set, &v)
}

func value(name, text string) octopus.Variable { return octopus.Variable{Name: name, Value: &text} }

func sensitive(name, text string) octopus.Variable {
	v := value(name, text)
	v.Type = octopus.VariableSensitive
	return v
}

// release makes a release and returns it.
func (w *world) release(version string, change ...func(in *releases.NewRelease)) octopus.Release {
	w.t.Helper()
	made, err := w.tryRelease(version, change...)
	check(w.t, err)
	return made.Release
}

func (w *world) tryRelease(version string, change ...func(in *releases.NewRelease)) (*releases.CreatedRelease, error) {
	in := releases.NewRelease{Space: space, Project: w.project.ID, Version: version}
	for _, c := range change {
		c(&in)
	}
	return w.rel.CreateRelease(w.t.Context(), in, nil)
}

// deploy makes a deployment of a release and returns it.
func (w *world) deploy(release, environment string, change ...func(in *releases.NewDeployments)) octopus.Deployment {
	w.t.Helper()
	made, err := w.tryDeploy(release, environment, change...)
	check(w.t, err)
	return made[0]
}

func (w *world) tryDeploy(release, environment string, change ...func(in *releases.NewDeployments)) ([]octopus.Deployment, error) {
	in := releases.NewDeployments{Space: space, ReleaseID: release, Environments: []string{environment}}
	for _, c := range change {
		c(&in)
	}
	return w.rel.Deploy(w.t.Context(), in, nil)
}

// end ends a deployment's task as the engine does.
func (w *world) end(d octopus.Deployment, state octopus.TaskState) {
	w.t.Helper()
	check(w.t, w.tryEnd(d, state))
}

func (w *world) tryEnd(d octopus.Deployment, state octopus.TaskState) error {
	return w.db.WriteEngine(w.t.Context(), func(tx *db.Tx) error {
		task, err := tasks.Get(w.t.Context(), tx, d.TaskID)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(w.t.Context(), `UPDATE task SET state = ?, runnable = 0 WHERE id = ?`, string(state), d.TaskID); err != nil {
			return err
		}
		return w.rel.Ended(w.t.Context(), tx, task, state)
	})
}

// plan reads what a deployment's task will do.
func (w *world) plan(d octopus.Deployment) *deploy.Plan {
	w.t.Helper()
	var p deploy.Plan
	w.read(func(tx *db.Tx) error { return tasks.Plan(w.t.Context(), tx, d.TaskID, &p) })
	return &p
}

// task reads a deployment's task.
func (w *world) task(d octopus.Deployment) (t *tasks.Task) {
	w.t.Helper()
	w.read(func(tx *db.Tx) (err error) {
		t, err = tasks.Get(w.t.Context(), tx, d.TaskID)
		return err
	})
	return t
}

// refused wants a fault whose messages contain every part.
func refused(t testing.TB, err error, kind fault.Kind, parts ...string) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Fatalf("error is %v, want kind %s", err, kind)
	}
	text := strings.Join(fault.Messages(err), " ")
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("message is %q, want %q in it", text, part)
		}
	}
}

func encode(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	check(t, err)
	return string(b)
}

func count(t testing.TB, w *world, query string, args ...any) (n int64) {
	t.Helper()
	w.read(func(tx *db.Tx) error { return tx.QueryRow(t.Context(), query, args...).Scan(&n) })
	return n
}

// deployments are those of a release, the oldest first.
func (w *world) deployments(release string) (out []octopus.Deployment) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error {
		out = nil
		rows, err := tx.Query(w.t.Context(), `SELECT d.body FROM deployment d WHERE d.release_id = ? ORDER BY d.created, d.seq`, release)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var body string
			if err := rows.Scan(&body); err != nil {
				return err
			}
			var d octopus.Deployment
			if err := json.Unmarshal([]byte(body), &d); err != nil {
				return err
			}
			out = append(out, d)
		}
		return rows.Err()
	})
	return out
}
