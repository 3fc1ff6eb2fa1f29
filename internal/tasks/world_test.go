package tasks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

// brisk are times at which nothing is waited for longer than needed.
var brisk = tasks.Timing{Look: 20 * time.Millisecond, Seal: 20 * time.Millisecond, Retry: 5 * time.Millisecond}

// world is a database with what belongs to it.
type world struct {
	t     testing.TB
	d     *db.DB
	blobs *blob.Dir
	dir   string

	mu    sync.Mutex
	ended []string // "ServerTasks-1 Success", in order
}

func newWorld(t testing.TB, d *db.DB) *world {
	t.Helper()
	w := &world{t: t, d: d, dir: t.TempDir()}
	var err error
	if w.blobs, err = blob.OpenDir(filepath.Join(w.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	return w
}

// each runs a test on both databases.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(t, newWorld(t, d)) })
}

// runner runs tasks by a function and tells the world of their ends.
type runner struct {
	w   *world
	run func(ctx context.Context, l *tasks.Lease) error
}

func (r runner) Run(ctx context.Context, l *tasks.Lease) error { return r.run(ctx, l) }

func (r runner) Ended(_ context.Context, tx *db.Tx, t *tasks.Task, state octopus.TaskState) error {
	tx.AfterCommit(func() {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		r.w.ended = append(r.w.ended, t.ID+" "+string(state))
	})
	return nil
}

func (w *world) ends() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ended)
}

// node is a service that runs.
type node struct {
	*tasks.Service
	stop func() // ends it in good order
}

// open opens a service that does not run yet.
func (w *world) open(name string, run func(ctx context.Context, l *tasks.Lease) error, change ...func(*tasks.Config)) *tasks.Service {
	w.t.Helper()
	cfg := tasks.Config{
		DB: w.d, Blobs: w.blobs, Log: dbtest.Log(w.t), RunDir: filepath.Join(w.dir, "run"), Node: name, Version: "test", Timing: brisk,
		Runners: map[octopus.TaskName]tasks.Runner{octopus.TaskDeploy: runner{w, run}},
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := tasks.Open(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// node starts a service, which ends with the test if it was not stopped before.
func (w *world) node(name string, run func(ctx context.Context, l *tasks.Lease) error, change ...func(*tasks.Config)) *node {
	w.t.Helper()
	s := w.open(name, run, change...)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	n := &node{Service: s}
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(n.stop)
	return n
}

// write runs a transaction of the engine that must succeed.
func (w *world) write(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	if err := w.d.WriteEngine(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}

func (w *world) read(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	if err := w.d.Read(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }); err != nil {
		w.t.Fatal(err)
	}
}

// count asks for one number.
func (w *world) count(query string, args ...any) (n int64) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) error { return tx.QueryRow(ctx, query, args...).Scan(&n) })
	return n
}

// create queues a task.
func (w *world) create(s *tasks.Service, n tasks.New) *tasks.Task {
	w.t.Helper()
	if n.Name == "" {
		n.Name = octopus.TaskDeploy
	}
	if n.Space == "" {
		n.Space = "Spaces-1"
	}
	var t *tasks.Task
	w.write(func(ctx context.Context, tx *db.Tx) (err error) {
		t, err = s.Create(ctx, tx, n)
		return err
	})
	return t
}

func (w *world) get(id string) *tasks.Task {
	w.t.Helper()
	var t *tasks.Task
	w.read(func(ctx context.Context, tx *db.Tx) (err error) {
		t, err = tasks.Get(ctx, tx, id)
		return err
	})
	return t
}

func (w *world) cancel(s *tasks.Service, id string) *tasks.Task {
	w.t.Helper()
	var t *tasks.Task
	w.write(func(ctx context.Context, tx *db.Tx) (err error) {
		t, err = s.Cancel(ctx, tx, id)
		return err
	})
	return t
}

// journal is the facts of a task, as texts.
func (w *world) journal(id string) []string {
	w.t.Helper()
	var all []string
	w.read(func(ctx context.Context, tx *db.Tx) error {
		facts, err := tasks.Journal(ctx, tx, id)
		all = nil
		for i, f := range facts {
			if f.Seq != int64(i)+1 {
				w.t.Errorf("fact %d of %s has number %d", i+1, id, f.Seq)
			}
			var text string
			if json.Unmarshal(f.Body, &text) != nil {
				text = string(f.Body)
			}
			all = append(all, text)
		}
		return err
	})
	return all
}

// log reads the texts of a task's lines from a number on.
func (w *world) log(s *tasks.Service, id string, from int64) []string {
	w.t.Helper()
	var all []string
	next := max(from, 1)
	err := s.ReadLog(context.WithoutCancel(w.t.Context()), id, from, func(l tasks.Line) bool {
		if l.Number != next {
			w.t.Errorf("line %d of %s came when %d was due", l.Number, id, next)
		}
		next++
		all = append(all, l.Text)
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// await waits for what other goroutines and processes do.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (w *world) awaitState(id string, state octopus.TaskState) *tasks.Task {
	w.t.Helper()
	await(w.t, fmt.Sprintf("%s is %s", id, state), func() bool { return w.get(id).State == state })
	return w.get(id)
}

// finish ends a task at once.
func finish(ctx context.Context, l *tasks.Lease) error {
	return l.Finish(ctx, octopus.TaskSuccess, "", tasks.Batch{})
}

// leases is a runner that hands its leases to the test and waits until they end.
type leases chan *tasks.Lease

func (c leases) run(ctx context.Context, l *tasks.Lease) error {
	if _, err := l.Facts(ctx); err != nil {
		return err
	}
	c <- l
	<-ctx.Done()
	return ctx.Err()
}

// next waits for a lease.
func (c leases) next(t testing.TB) *tasks.Lease {
	t.Helper()
	select {
	case l := <-c:
		return l
	case <-time.After(2 * time.Minute):
		t.Fatal("no task was claimed")
		return nil
	}
}

// none checks that no other task was claimed so far.
func (c leases) none(t testing.TB) {
	t.Helper()
	select {
	case l := <-c:
		t.Errorf("%s was claimed", l.ID)
	default:
	}
}

// over reports whether a lease takes no commit any more.
func over(ctx context.Context, l *tasks.Lease) bool {
	return errors.Is(l.Commit(ctx, tasks.Batch{}), tasks.ErrLost)
}
