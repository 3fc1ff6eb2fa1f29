package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/localsocket"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// TestWithoutJournal: a journal that cannot be written keeps nobody from ending a switch
// that was cut short, nor from going back.
func TestWithoutJournal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	if err := os.WriteFile(filepath.Join(w.root, "upgrade"), []byte("in the way of a directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.supervise("TAKO_FAILPOINT=handover-accepting:kill")
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err == nil {
		t.Fatal("the supervisor lives")
	}
	_ = w.cmd.Wait()
	w.supervise()
	w.serves("1.1.0")
	w.links("1.1.0", "1.0.0")
	w.crash("1.1.0", 3)
	w.await("the previous version serves", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.0.0 ") })
	w.links("1.0.0", "")
}

// TestSilentServer: a server that only does not answer is not taken for one that is gone.
// It is ended before another one serves in its place.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.supervise()
	before := w.serves("1.0.0")
	r, err := w.order(supervisor.Order{Do: "status"})
	if err != nil {
		t.Fatal(err)
	}
	w.killSupervisor()
	if err := syscall.Kill(r.Server.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(r.Server.PID, syscall.SIGKILL) })
	w.await("it is stopped", func() bool { return stopped(t, r.Server.PID) })
	w.supervise("TEST_ADOPT=300ms")
	if w.serves("1.0.0") == before {
		t.Error("the server that was stopped serves")
	}
	if n := w.processes(); n != 1 {
		t.Errorf("%d servers run", n)
	}
}

// stopped reports whether all threads of a process are. One of them takes the signal, and
// the others may go on meanwhile, and answer.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("process %d has the threads %v: %v", pid, threads, err)
	}
	for _, thread := range threads {
		raw, err := os.ReadFile(thread)
		if err != nil {
			return false // it has just ended
		}
		_, state, _ := strings.Cut(string(raw), ") ")
		if !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// TestLateAnswer: the answer of a server that was waited for in vain is not taken for that
// to what it is told next.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.supervise("TEST_DEEP=20ms")
	is := func(what string) string { return filepath.Join(w.root, "versions/1.0.0", what) }
	if err := os.WriteFile(is("stuck"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.order(supervisor.Order{Do: "deep"}); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("it is stuck, and answers: %v", err)
	}
	if err := os.Remove(is("stuck")); err != nil {
		t.Fatal(err)
	}
	inTime := func() (err error) {
		w.await("it answers in time", func() bool {
			_, err = w.order(supervisor.Order{Do: "deep"})
			return err == nil || !strings.Contains(err.Error(), "timeout")
		})
		return err
	}
	if err := inTime(); err != nil {
		t.Errorf("it is well again: %v", err)
	}
	if err := os.WriteFile(is("unwell"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := inTime(); err == nil || !strings.Contains(err.Error(), "it does nothing") {
		t.Errorf("it is unwell, and its answer is: %v", err)
	}
}

// TestOutageIsNoCrash: a server that cannot begin while its database is away is started
// until it can, and no other version is put in its place.
func TestOutageIsNoCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	w.supervise("TEST_READY=" + patience.String())
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(w.root, "versions/1.1.0/waits")
	if err := os.WriteFile(away, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = w.get("die")
	w.await("it was started often enough to go back", func() bool {
		log, err := os.ReadFile(filepath.Join(w.root, "log"))
		return err == nil && strings.Count(string(log), "start the server") > 3
	})
	w.links("1.1.0", "1.0.0")
	if err := os.Remove(away); err != nil {
		t.Fatal(err)
	}
	w.await("it serves again", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.1.0 ") })
	w.links("1.1.0", "1.0.0")
}

// TestLostDatabaseIsNoCrash: a server that ends since it cannot know what became of a commit
// is begun anew as often as that happens, and no other version is put in its place.
func TestLostDatabaseIsNoCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	w.supervise("TEST_READY=" + patience.String())
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil {
		t.Fatal(err)
	}
	who := w.serves("1.1.0")
	for range 4 {
		_, _ = w.get("lose")
		w.await("another server serves", func() bool {
			now, err := w.get()
			other := err == nil && now != who && strings.HasPrefix(now, "1.1.0 ")
			if other {
				who = now
			}
			return other
		})
	}
	w.links("1.1.0", "1.0.0")
	if r, err := w.order(supervisor.Order{Do: "status"}); err != nil || r.Crashes != 0 || r.Outages != 4 || r.NeedsOperator || !strings.Contains(r.Trouble, "exit status 69") {
		t.Errorf("%+v %v", r, err)
	}
}

// TestServerBeforeItsSocket: a server whose supervisor was killed before it could be reached
// is not left beside the next one.
func TestServerBeforeItsSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.begin("TEST_NEVER_READY=1")
	w.await("a server is being started", func() bool {
		all := w.pids()
		if len(all) != 1 {
			return false
		}
		// Of a program that has just been put into its process, the kernel does not know it yet.
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", all[0]))
		return err == nil && strings.Contains(string(environ), control.Env+"=")
	})
	w.killSupervisor()
	w.supervise()
	w.serves("1.0.0")
	if n := w.processes(); n != 1 {
		t.Errorf("%d servers run", n)
	}
}

// TestForeignSocket: what is no version of the supervisor's is not killed, however silent
// it is, and nothing is started beside it.
func TestForeignSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	path := filepath.Join(w.root, "run", "server-foreign.sock")
	ln, err := localsocket.Listen(t.Context(), path) // in this process
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	ctx, stop := context.WithTimeout(t.Context(), patience) // one that starts all the same
	defer stop()
	err = supervisor.Run(ctx, supervisor.Config{Root: w.root, Limits: supervisor.Limits{Adopt: 50 * time.Millisecond}})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "runs none of the versions") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("its socket: %v", err)
	}
	if err := ln.Close(); err != nil { // clean looks who is there
		t.Error(err)
	}
}

// TestEndOfSeveral: one limit holds for all servers that do not end by themselves.
func TestEndOfSeveral(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0", "deaf")
	if err := os.WriteFile(filepath.Join(w.root, "versions/1.0.0/deaf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- supervisor.Run(ctx, supervisor.Config{
			Root: w.root, Addresses: map[string]string{"http": w.addr}, Args: []string{"server"}, Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr,
			Limits: supervisor.Limits{Stop: 100 * time.Millisecond},
		})
	}()
	w.await("it takes orders", func() bool { r, err := w.order(supervisor.Order{Do: "status"}); return err == nil && r.Server != nil })
	client := &http.Client{Transport: &http.Transport{}} // keeps its connection, and so the former server alive
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + w.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	if r, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil || len(r.Ducks) != 1 {
		t.Fatalf("%+v %v", r, err)
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if n := w.processes(); n != 0 {
		t.Errorf("%d servers are left", n)
	}
}

// TestLostLink: a server that runs says which version is current; without one, no version
// puts itself in the place of a link that is lost.
func TestLostLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.supervise()
	before := w.serves("1.0.0")
	w.killSupervisor()
	if err := os.Remove(filepath.Join(w.root, "current")); err != nil {
		t.Fatal(err)
	}
	w.supervise()
	w.links("1.0.0", "")
	if w.serves("1.0.0") != before {
		t.Error("it was started anew")
	}
	empty := t.TempDir()
	lost := errors.New("nobody knows what is to run")
	if err := supervisor.Run(t.Context(), supervisor.Config{Root: empty, First: func() error { return lost }}); !errors.Is(err, lost) {
		t.Errorf("it runs: %v", err)
	}
}

func TestUnused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		there []string
		says  []string // nothing: it is unused
	}{
		"nothing":            {nil, nil},
		"its own remains":    {[]string{"versions/2026.4.0/tako", "versions/2026.3.0.partial/tako", "versions/.gone-2026.2.0/tako", "versions/.lock"}, nil},
		"others":             {[]string{"versions/2026.4.0/tako", "versions/2026.5.0/tako", "versions/2026.3.0/tako"}, []string{"versions has 2026.3.0, 2026.5.0", "if it was 2026.5.0: ln -s versions/2026.5.0 "}},
		"a database":         {[]string{"data/tako.db"}, []string{"data/tako.db", "install -D tako ", "versions/2026.4.0/tako && ln -s versions/2026.4.0 "}},
		"a server elsewhere": {[]string{"versions/2026.4.0/tako", "data/master.key"}, []string{"data/master.key"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for _, path := range c.there {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := supervisor.Unused(root, "2026.4.0")
			if (err == nil) != (len(c.says) == 0) {
				t.Fatal(err)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}
