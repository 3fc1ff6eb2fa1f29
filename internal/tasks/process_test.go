package tasks_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// The test binary is also a server's process that a test may kill: with childEnv
// set to the URL of a database it is a node which claims what it finds, writes a
// fact and a line, says so, and waits.
const (
	childEnv    = "TASKS_TEST_CHILD"
	childRunDir = "TASKS_TEST_CHILD_RUN"
)

func child() int {
	if err := childNode(os.Getenv(childEnv), os.Getenv(childRunDir), os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

func childNode(url, runDir string, out io.Writer) error {
	ctx := context.Background()
	d, err := db.Open(ctx, url, db.Options{})
	if err != nil {
		return err
	}
	blobs, err := blob.OpenDir(filepath.Join(runDir, "blobs"))
	if err != nil {
		return err
	}
	timing := brisk
	timing.Heartbeat = 50 * time.Millisecond
	s, err := tasks.Open(ctx, tasks.Config{DB: d, Blobs: blobs, RunDir: runDir, Node: "child", Timing: timing, Runners: map[octopus.TaskName]tasks.Runner{
		octopus.TaskDeploy: childRunner{out},
	}})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, s.Incarnation()); err != nil {
		return err
	}
	return s.Run(ctx)
}

type childRunner struct{ out io.Writer }

func (c childRunner) Run(ctx context.Context, l *tasks.Lease) error {
	if _, err := l.Facts(ctx); err != nil {
		return err
	}
	if err := l.Commit(ctx, tasks.Batch{Facts: []any{"child"}, Lines: []tasks.Line{{Text: "child"}}}); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c.out, l.ID); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (childRunner) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }

// process is a child that runs.
type process struct {
	cmd         *exec.Cmd
	out         *bufio.Scanner
	incarnation string
}

func startChild(t *testing.T, url, runDir string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(t.Context(), os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEnv+"="+url, childRunDir+"="+runDir)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.incarnation = p.line(t)
	return p
}

// line waits for a line of the child.
func (p *process) line(t *testing.T) string {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the child says nothing: %v", p.out.Err())
	}
	return p.out.Text()
}

// kill kills the child and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // killed, as it says
}

// A killed process's tasks are taken over: at once where the file system tells
// (SQLite, and PostgreSQL on one host), and after its time to live where only
// its silence does. A living one keeps its own.
func TestKilledOwner(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		dialect db.Dialect
		apart   bool // on another host
	}{
		{"sqlite", db.SQLite, false}, {"postgres", db.Postgres, false}, {"postgres, another host", db.Postgres, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := dbtest.URL(t, c.dialect)
			w := newWorld(t, dbtest.OpenURL(t, url))
			runDir := filepath.Join(w.dir, "run")
			childDir := runDir
			if c.apart {
				childDir = filepath.Join(w.dir, "elsewhere")
			}
			p := startChild(t, url, childDir)
			claimed := make(leases, 10)
			n := w.node("a", claimed.run, func(cfg *tasks.Config) {
				cfg.Timing.TTL, cfg.Timing.Heartbeat = 2*time.Second, 100*time.Millisecond
				if !c.apart {
					cfg.Timing.TTL = time.Hour // the lock tells
				}
			})
			w.exec(`UPDATE node_setting SET capacity = 0 WHERE name = 'a'`)
			task := w.create(n.Service, tasks.New{Tag: "tag"})
			if got := p.line(t); got != task.ID {
				t.Fatalf("the child claimed %q", got)
			}
			<-time.After(10 * brisk.Look)
			if got := w.get(task.ID); got.Node != "child" {
				t.Errorf("a living owner lost its task to %s", got.Node)
			}
			p.kill()
			l := claimed.next(t)
			if l.ID != task.ID || l.Epoch() != 2 || w.count(`SELECT resumes FROM task`) != 1 {
				t.Errorf("%s, epoch %d", l.ID, l.Epoch())
			}
			if n := w.count(`SELECT (SELECT count(*) FROM slot WHERE node = 'a') + (SELECT count(*) FROM tag_holder)`); n != 2 {
				t.Errorf("it has %d of slot and tag", n)
			}
			if err := l.Finish(t.Context(), octopus.TaskSuccess, "", tasks.Batch{Facts: []any{"heir"}, Lines: []tasks.Line{{Text: "heir"}}}); err != nil {
				t.Fatal(err)
			}
			want := []string{"child", "heir"}
			if diff := cmp.Diff(want, w.journal(task.ID)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(want, w.log(n.Service, task.ID, 1)); diff != "" {
				t.Error(diff)
			}
			if _, err := os.Stat(tasks.OwnerPath(n.Service, p.incarnation)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the dead owner's lock is still there: %v", err)
			}
			n.stop()
			// The next start sweeps up what the dead one left.
			next := w.open("b", nil, func(cfg *tasks.Config) { cfg.Timing.TTL = time.Millisecond })
			if n := w.count(`SELECT count(*) FROM node`); n != 1 {
				t.Errorf("%d nodes are known", n)
			}
			if err := next.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A canceled task ends in time although its owner is dead and nobody has noticed.
func TestCancelBoundWithDeadOwner(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t, db.Postgres)
	w := newWorld(t, dbtest.OpenURL(t, url))
	p := startChild(t, url, filepath.Join(w.dir, "elsewhere"))
	n := w.node("a", finish, func(cfg *tasks.Config) { cfg.Timing.TTL, cfg.Timing.Cancel = time.Hour, 200*time.Millisecond })
	w.exec(`UPDATE node_setting SET capacity = 0 WHERE name = 'a'`)
	task := w.create(n.Service, tasks.New{})
	p.line(t)
	p.kill()
	w.exec(`INSERT INTO ticket (ticket, task, unit, agent, state, not_before) VALUES ('t', ?, 'u', 'builtin', 'open', 0)`, task.ID)
	w.cancel(n.Service, task.ID)
	if got := w.awaitState(task.ID, octopus.TaskCanceled); !strings.Contains(got.Error, "may still run on builtin") {
		t.Errorf("%q", got.Error)
	}
}

// A node whose heart does not beat starts nothing and claims nothing.
func TestAlive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.Postgres))
	claimed := make(leases, 10)
	s := w.open("a", claimed.run, func(cfg *tasks.Config) {
		cfg.Timing.TTL, cfg.Timing.Heartbeat = 4*time.Second, 50*time.Millisecond
	})
	if !s.Alive() {
		t.Error("a node that has just registered is dead")
	}
	await(t, "its time is over", func() bool { return !s.Alive() })
	// Whoever sweeps takes its row away; its next beat brings it back.
	w.exec(`DELETE FROM node`)
	w.create(s, tasks.New{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	claimed.next(t)
	await(t, "it lives again", func() bool { return s.Alive() && w.count(`SELECT count(*) FROM node`) == 1 })
	cancel()
	if err := errors.Join(<-ended, s.Close()); err != nil {
		t.Error(err)
	}
}
