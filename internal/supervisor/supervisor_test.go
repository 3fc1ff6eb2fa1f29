package supervisor_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// TestSwitch goes to a new version and back under load, refuses bad ones, and fails no
// request.
func TestSwitch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	for _, wrong := range []string{"dies", "hangs", "unready", "refuses"} {
		w.install("2.0.0-"+wrong, wrong)
	}
	w.supervise()
	stop := w.load()
	first := w.serves("1.0.0")
	if r, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil || r.Current != "1.1.0" || r.Previous != "1.0.0" || r.Server.Version != "1.1.0" {
		t.Fatalf("%+v %v", r, err)
	}
	w.serves("1.1.0")
	w.links("1.1.0", "1.0.0")
	for wrong, says := range map[string]string{"dies": "exit status 3", "hangs": "deadline", "unready": "master key", "refuses": "it will not"} {
		r, err := w.order(supervisor.Order{Do: "switch", Version: "2.0.0-" + wrong})
		if err == nil || !strings.Contains(err.Error(), says) || r.Blameless {
			t.Errorf("%s: %v, blameless: %t", wrong, err, r.Blameless)
		}
		if r.Server == nil || r.Server.Stage != control.Serving || r.Server.Version != "1.1.0" {
			t.Errorf("%s: %+v", wrong, r.Server)
		}
		w.serves("1.1.0")
	}
	w.links("1.1.0", "1.0.0")
	if r, err := w.order(supervisor.Order{Do: "switch", Version: "1.0.0"}); err != nil || r.Previous != "" {
		t.Errorf("back: %+v %v", r, err)
	}
	w.links("1.0.0", "")
	if back := w.serves("1.0.0"); back == first {
		t.Error("a former server was revived")
	}
	for _, bad := range []string{"", "9.9.9", "../versions/1.1.0", ".."} {
		if _, err := w.order(supervisor.Order{Do: "switch", Version: bad}); err == nil {
			t.Errorf("switched to %q", bad)
		}
	}
	if _, err := w.order(supervisor.Order{Do: "dance"}); err == nil {
		t.Error("it dances")
	}
	done, failed := stop()
	if failed > 0 {
		t.Errorf("%d of %d requests failed", failed, done)
	}
	t.Logf("%d requests", done)
	w.await("the former servers have ended", func() bool {
		r, err := w.order(supervisor.Order{Do: "status"})
		return err == nil && len(r.Ducks) == 0
	})
}

// TestOldKeepsItsTasks: a server that does not give its tasks back goes on, and the version
// to switch to is not to blame.
func TestOldKeepsItsTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	if err := os.WriteFile(filepath.Join(w.root, "versions/1.0.0/keeps"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.supervise()
	before := w.serves("1.0.0")
	if r, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err == nil || !strings.Contains(err.Error(), "a task does not end") || !r.Blameless {
		t.Errorf("%v, blameless: %t", err, r.Blameless)
	}
	if w.serves("1.0.0") != before {
		t.Error("it was started anew")
	}
	w.links("1.0.0", "")
}

// TestSupervisorKilled: servers outlive their supervisor; the next one takes over what
// the first has left, also in the middle of a switch.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.supervise()
	before := w.serves("1.0.0")
	w.killSupervisor()
	if w.serves("1.0.0") != before {
		t.Error("the server did not go on")
	}
	stop := w.load()
	w.supervise()
	if w.serves("1.0.0") != before {
		t.Error("the server was started anew")
	}
	done, failed := stop()
	if failed > 0 {
		t.Errorf("%d of %d requests failed", failed, done)
	}
	if r, err := w.order(supervisor.Order{Do: "status"}); err != nil || r.Server == nil || r.PID != w.cmd.Process.Pid {
		t.Errorf("%+v %v", r, err)
	}
}

func TestSupervisorKilledAtEveryEdge(t *testing.T) {
	t.Parallel()
	for edge, want := range map[string]string{
		"handover-spawned": "1.0.0", "handover-ready": "1.0.0", "handover-released": "1.0.0",
		"handover-accepting": "1.1.0", "handover-ducked": "1.1.0", "handover-flipped": "1.1.0",
	} {
		t.Run(edge, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "1.0.0")
			w.install("1.1.0")
			w.supervise("TAKO_FAILPOINT=" + edge + ":kill")
			if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err == nil {
				t.Fatal("the supervisor lives")
			}
			_ = w.cmd.Wait()
			if _, err := w.get(); err != nil {
				t.Errorf("without a supervisor: %v", err)
			}
			w.supervise()
			w.serves(want)
			r, err := w.order(supervisor.Order{Do: "status"})
			if err != nil || r.Current != want || r.Server.Stage != control.Serving {
				t.Errorf("%+v %v", r, err)
			}
			w.await("one server is left", func() bool { return w.processes() == 1 })
			// And it can do it again.
			if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil {
				t.Error(err)
			}
			w.serves("1.1.0")
		})
	}
}

// TestCrashes: a server that dies is started again; one that cannot stay alive gives
// way to the previous version, and that is remembered.
func TestCrashes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	w.supervise()
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil {
		t.Fatal(err)
	}
	w.crash("1.1.0", 3)
	w.await("the previous version serves", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.0.0 ") })
	w.links("1.0.0", "")
	j, err := journal.Open(filepath.Join(w.root, "upgrade"))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(j.Entries()); n == 0 || j.Entries()[n-2].Kind != supervisor.NoteWentBack {
		t.Errorf("%+v", j.Entries())
	}
	// Without a way back it is started again and again.
	for range 4 {
		_, _ = w.get("die")
		w.await("it serves again", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.0.0 ") })
	}
	if r, err := w.order(supervisor.Order{Do: "status"}); err != nil || !r.NeedsOperator || r.Crashes < 3 || !strings.Contains(r.Trouble, "version 1.0.0 has ended by itself: exit status 4") {
		t.Errorf("%+v %v", r, err)
	}
}

// TestKeep: the way back goes when it is told so, of the current version only.
func TestKeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	w.install("b")
	w.supervise()
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "b"}); err != nil {
		t.Fatal(err)
	}
	w.links("b", "a")
	if _, err := w.order(supervisor.Order{Do: "keep", Version: "a"}); err == nil {
		t.Error("a version was kept that is not the current one")
	}
	w.links("b", "a")
	for range 2 {
		if r, err := w.order(supervisor.Order{Do: "keep", Version: "b"}); err != nil || r.Previous != "" {
			t.Errorf("%+v %v", r, err)
		}
		w.links("b", "")
	}
}

// TestDeep: the server is asked whether it does its work.
func TestDeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	w.supervise()
	if r, err := w.order(supervisor.Order{Do: "deep"}); err != nil || r.Server == nil {
		t.Errorf("%+v %v", r, err)
	}
	if err := os.WriteFile(filepath.Join(w.root, "versions", "a", "unwell"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.order(supervisor.Order{Do: "deep"}); err == nil || !strings.Contains(err.Error(), "it does nothing") {
		t.Error(err)
	}
}

// TestOnlyOne: a second supervisor of a root refuses.
func TestOnlyOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.supervise()
	err := supervisor.Run(t.Context(), supervisor.Config{Root: w.root})
	if !errors.Is(err, durable.ErrLocked) {
		t.Errorf("%v", err)
	}
}

// TestEnd: with its supervisor told to end, the servers end.
func TestEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- supervisor.Run(ctx, supervisor.Config{
			Root: w.root, Addresses: map[string]string{"http": w.addr}, Args: []string{"server"}, Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr,
		})
	}()
	w.await("it serves", func() bool { _, err := w.get(); return err == nil })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if who, err := w.get(); err == nil {
		t.Errorf("%s still serves", who)
	}
}
