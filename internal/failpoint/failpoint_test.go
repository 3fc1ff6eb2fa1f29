package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The test binary is its own victim: with this variable it hits the edge and ends.
const victim = "FAILPOINT_TEST_VICTIM"

func TestMain(m *testing.M) {
	if edge := os.Getenv(victim); edge != "" {
		if Hit(edge) != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func run(t *testing.T, edge string, env ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, victim+"="+edge)...)
	return cmd.Run()
}

func code(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("run: %v", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return -int(ws.Signal())
	}
	return exit.ExitCode()
}

func TestHit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, spec, edge string
		want             int
	}{
		{"unset", "", "a", 0},
		{"another edge", "b:kill", "a", 0},
		{"kill", "b:err,a:kill", "a", -9},
		{"err", "a:err", "a", 3},
		{"stall", "a:stall=1ms", "a", 0},
		{"nonsense", "a:explode", "z", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := code(t, run(t, c.edge, Env+"="+c.spec)); got != c.want {
				t.Errorf("TAKO_FAILPOINT=%s, hit %s: ended with %d, want %d", c.spec, c.edge, got, c.want)
			}
		})
	}
}

func TestOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{Env + "=a:kill", EnvOnce + "=" + dir}
	if got := code(t, run(t, "a", env...)); got != -9 {
		t.Errorf("first hit ended with %d, want -9", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); err != nil {
		t.Errorf("the hit left no mark: %v", err)
	}
	if got := code(t, run(t, "a", env...)); got != 0 {
		t.Errorf("second hit ended with %d, want 0", got)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse("a:kill, b:stall,c:stall=2s,d:err")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]action{"a": {mode: kill}, "b": {mode: stall, stall: time.Minute}, "c": {mode: stall, stall: 2 * time.Second}, "d": {mode: fail}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(action{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"a", ":kill", "a:", "a:stall=-1s", "a:stall=x", "a:kill=3", "../a:kill", "a:kill,,"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("parse(%q) succeeded", bad)
		}
	}
}

func BenchmarkHitUnset(b *testing.B) {
	for b.Loop() {
		if err := Hit("a"); err != nil {
			b.Fatal(err)
		}
	}
}
