//go:build linux

package health_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// The test binary is runner and stub, too.
func TestMain(m *testing.M) {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

const space ident.SpaceID = "Spaces-1"

// version is that of server and agent.
const version = "2026.4.0"

// world is a space with machines, all of which are one real agent.
type world struct {
	t     *testing.T
	d     *db.DB
	store *docstore.Store
	dir   string
	desk  *tasks.Service // queues, and runs nothing
	cfg   tasks.Config
	env   string

	// reach and config change what is found, and how the tasks are run; nil leaves that.
	reach  func(targets.Agent) targets.Agent
	config func(*health.Config)

	agent *agent.Service
	mu    sync.Mutex
	away  map[string]bool // ids of machines that do not answer
	asked map[string]int  // how often each was looked for
}

// ByName is targets.Finder.
func (w *world) ByName(_ context.Context, name string) (targets.Agent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[name]++
	if w.away[name] {
		return targets.Agent{}, fmt.Errorf("dial: %w", agent.ErrNotSent)
	}
	a := targets.Agent{API: w.agent, Name: name, Contract: deploy.ContractTako}
	if w.reach != nil {
		a = w.reach(a)
	}
	return a, nil
}

func (w *world) isAway(id string, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[id] = away
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(t, newWorld(t, d)) })
}

func newWorld(t *testing.T, d *db.DB) *world {
	t.Helper()
	w := &world{t: t, d: d, dir: t.TempDir(), away: map[string]bool{}, asked: map[string]int{}}
	set, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	check(t, err)
	box, err := secret.Open(t.Context(), d, secret.Source{Dir: t.TempDir()})
	check(t, err)
	w.store = docstore.New(set, box)
	w.agent, err = agent.Open(t.Context(), agent.Config{Home: filepath.Join(w.dir, "agent"), Version: version, NoCgroup: true})
	check(t, err)
	t.Cleanup(func() {
		check(t, w.agent.Close())
		proctest.End(t, w.dir) // scripts live on without their agent
	})
	blobs, err := blob.OpenDir(filepath.Join(w.dir, "blobs"))
	check(t, err)
	w.cfg = tasks.Config{
		DB: d, Blobs: blobs, RunDir: filepath.Join(w.dir, "run"), Node: "desk", Version: version, Log: dbtest.Log(t),
		Timing: tasks.Timing{Look: 20 * time.Millisecond, Retry: 10 * time.Millisecond},
	}
	w.desk, err = tasks.Open(t.Context(), w.cfg)
	check(t, err)
	t.Cleanup(func() { check(t, w.desk.Close()) })
	w.create("spaces", "", &octopus.Space{Name: "Default", IsDefault: true})
	w.env = w.create("environments", space, &octopus.Environment{Name: "Dev"})
	return w
}

// serve runs the tasks on a node until stop or the end of the test.
func (w *world) serve(node string) (stop func()) {
	w.t.Helper()
	cfg := w.cfg
	cfg.Node = node
	checks := health.Config{DB: w.d, Store: w.store, Agents: w, Log: dbtest.Log(w.t)}
	if w.config != nil {
		w.config(&checks)
	}
	cfg.Runners = map[octopus.TaskName]tasks.Runner{octopus.TaskHealth: health.New(checks)}
	queue, err := tasks.Open(w.t.Context(), cfg)
	check(w.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- queue.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, queue.Close()); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) write(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	check(w.t, w.d.Write(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }))
}

func (w *world) read(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	check(w.t, w.d.Read(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }))
}

func (w *world) create(kind string, space ident.SpaceID, v any) (id string) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx) (err error) {
		id, err = w.store.In(tx).Create(ctx, kind, space, "", v)
		return err
	})
	return id
}

// policy makes a machine policy whose machines run a script, and are not tried again.
func (w *world) policy(name, script string, change ...func(p *octopus.MachinePolicy)) string {
	w.t.Helper()
	p := &octopus.MachinePolicy{Name: name}
	p.MachineHealthCheckPolicy.BashHealthCheckPolicy = octopus.MachineScriptPolicy{RunType: octopus.HealthScriptInline, ScriptBody: octopus.NullString(script)}
	p.MachineRPCCallRetryPolicy = octopus.MachineRPCCallRetryPolicy{RetryDuration: octopus.TimeSpan(time.Second)}
	for _, c := range change {
		c(p)
	}
	return w.create("machinepolicies", space, p)
}

// target makes a listening target.
func (w *world) target(name, policy string, change ...func(m *octopus.Machine)) string {
	w.t.Helper()
	m := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.env}, Roles: octopus.List[string]{"web"}}
	m.Name, m.MachinePolicyID, m.Endpoint = name, policy, octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: "https://" + name + ":10933/"}
	for _, c := range change {
		c(m)
	}
	return w.create("machines", space, m)
}

func (w *world) machine(id string) (m octopus.Machine) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) error { return w.store.Load(ctx, tx, "machines", id, &m) })
	return m
}

// queue queues a task for machines, by their ids.
func (w *world) queue(job health.Job, ids ...string) (task string) {
	w.t.Helper()
	for _, id := range ids {
		kind := resources.TargetKind
		if strings.HasPrefix(id, "Workers-") {
			kind = resources.WorkerKind
		}
		var v octopus.MachineBase
		w.read(func(ctx context.Context, tx *db.Tx) error { return w.store.Load(ctx, tx, kind, id, &v) })
		job.Machines = append(job.Machines, health.Machine{Kind: kind, ID: id, Name: v.Name})
	}
	w.write(func(ctx context.Context, tx *db.Tx) error {
		t, err := w.desk.Create(ctx, tx, health.NewTask(space, job, ""))
		if err == nil {
			task = t.ID
		}
		return err
	})
	return task
}

func (w *world) task(id string) (t *tasks.Task) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) (err error) {
		t, err = tasks.Get(ctx, tx, id)
		return err
	})
	return t
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// ends waits for the end of a task, and checks how it ended.
func (w *world) ends(id string, want octopus.TaskState) *tasks.Task {
	w.t.Helper()
	await(w.t, id+" ends", func() bool { return w.task(id).State.Completed() })
	t := w.task(id)
	if t.State != want {
		w.t.Fatalf("%s is %s (%s):\n%s", id, t.State, t.Error, strings.Join(w.log(id), "\n"))
	}
	return t
}

func (w *world) log(id string) (lines []string) {
	w.t.Helper()
	check(w.t, w.desk.ReadLog(context.WithoutCancel(w.t.Context()), id, 1, func(l tasks.Line) bool {
		lines = append(lines, fmt.Sprintf("%s: %s %s", strings.TrimPrefix(l.Activity, id), l.Category, l.Text))
		return true
	}))
	return lines
}

// tree is the status of each machine's node, by name.
func (w *world) tree(id string) map[string]octopus.ActivityStatus {
	w.t.Helper()
	out := map[string]octopus.ActivityStatus{}
	w.read(func(ctx context.Context, tx *db.Tx) error {
		t, err := tasks.Get(ctx, tx, id)
		if err != nil {
			return err
		}
		root, err := health.Tree(ctx, tx, t)
		if err != nil {
			return err
		}
		out["task"] = root.Status
		for _, c := range root.Children {
			out[c.Name] = c.Status
		}
		return nil
	})
	return out
}

// texts is the first column of a query.
func (w *world) texts(query string, args ...any) (out []string) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) error {
		out = nil
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				return err
			}
			out = append(out, s)
		}
		return rows.Err()
	})
	return out
}

// runs is a script that notes that it ran, and waits for the file of a name.
func (w *world) runs(name string) string {
	return fmt.Sprintf("echo ran >> %[1]s/%[2]s\nwhile [ ! -e %[1]s/%[2]s.go ]; do sleep 0.02; done\n", w.dir, name)
}

func (w *world) letGo(name string) {
	w.t.Helper()
	check(w.t, os.WriteFile(filepath.Join(w.dir, name+".go"), nil, 0o600))
}

// ran is how often the script of a name was run.
func (w *world) ran(name string) int {
	body, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return strings.Count(string(body), "ran")
}
