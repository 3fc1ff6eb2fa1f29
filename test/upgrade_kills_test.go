package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade"
)

// killing is one round: at an edge whoever carries the upgrade out is killed, together
// with the command that asked for it, and somebody else besides.
type killing struct{ edge, also string }

// killings are all rounds but those of the end, after which a server cannot go back.
func killings() (all []killing) {
	for _, also := range []string{"", "supervisor", "servers"} {
		for _, state := range []upgrade.State{upgrade.Staged, upgrade.Preflight, upgrade.BackedUp, upgrade.Rehearsed, upgrade.Expanded, upgrade.Switched, upgrade.Probation, upgrade.Committed, upgrade.RolledBack} {
			for _, when := range []string{"begun", "worked", "done"} {
				all = append(all, killing{"upgrade-" + when + "-" + strings.ToLower(string(state)), also})
			}
		}
	}
	for _, at := range []string{"spawned", "ready", "released", "accepting", "ducked", "flipped"} {
		all = append(all, killing{"handover-" + at, "supervisor"})
	}
	return all
}

// finals are the rounds of the end.
func finals() (all []killing) {
	for _, also := range []string{"", "supervisor", "servers"} {
		for _, when := range []string{"begun", "worked", "done"} {
			all = append(all, killing{"upgrade-" + when + "-finalized", also})
		}
	}
	return all
}

// expected are the states that an upgrade may end in. Whoever carries it out and the
// supervisor change nothing; a server that dies before it was looked at, or while it is
// looked at, may speak against the upgrade.
func (k killing) expected() []upgrade.State {
	switch {
	case strings.HasSuffix(k.edge, "-rolled_back"):
		return []upgrade.State{upgrade.RolledBack}
	case strings.HasSuffix(k.edge, "-finalized"):
		return []upgrade.State{upgrade.Finalized}
	case k.also == "servers":
		return []upgrade.State{upgrade.Committed, upgrade.Aborted, upgrade.RolledBack}
	}
	return []upgrade.State{upgrade.Committed}
}

const row = "%-8v  %-26s  %-13s  %-29s  %-11v  %v"

// TestKilledUpgrades kills whoever takes part in an upgrade, at each edge: it comes to one
// end by itself, and the version that is current answers.
func TestKilledUpgrades(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			program := nextProgram(t)
			rounds, ends := killings(), finals()
			rand.Shuffle(len(rounds), func(i, j int) { rounds[i], rounds[j] = rounds[j], rounds[i] })
			if !soaking() {
				rounds, ends = rounds[:2], nil
				if dialect == db.Postgres {
					rounds = rounds[:1]
				}
			}
			t.Logf(row, "DATABASE", "KILLED AT", "TOGETHER WITH", "EXPECTED", "SEEN", "AFTER")
			note := func(k killing, seen upgrade.State, took time.Duration) {
				t.Logf(row, dialect, k.edge, k.also, strings.Trim(fmt.Sprint(k.expected()), "[]"), seen, took.Round(100*time.Millisecond))
			}
			u := newUpgraded(t, dialect)
			u.site.publish(t, next, program)
			for _, k := range rounds {
				seen, took := u.killed(k)
				note(k, seen, took)
				if seen == upgrade.Committed {
					u.do(0, "serves again", "rollback")
				}
			}
			for _, k := range ends {
				u := newUpgraded(t, dialect)
				u.site.publish(t, next, program)
				seen, took := u.killed(k)
				note(k, seen, took)
				u.Kill()
			}
		})
	}
}

// killed is one round. It tells how the upgrade ended, and how long after the kill.
func (u *upgraded) killed(k killing) (upgrade.State, time.Duration) {
	t := u.t
	t.Helper()
	once := t.TempDir()
	fail := []string{"TAKO_FAILPOINT=" + k.edge + ":kill", "TAKO_FAILPOINT_ONCE=" + once}
	ofSupervisor := strings.HasPrefix(k.edge, "handover-")
	if ofSupervisor {
		env := u.Env
		u.Kill()
		u.Env = append(slices.Clip(env), fail...)
		u.Start()
		u.Env, fail = env, nil
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), apptest.Binary(t), u.args(args...)...)
		cmd.Env = append(os.Environ(), fail...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	// The process that the first command starts carries the upgrade out to its end.
	cmd := command("--yes", "--to", next, "--probation", "1s")
	for suffix, verb := range map[string]string{"-rolled_back": "rollback", "-finalized": "finalize"} {
		if strings.HasSuffix(k.edge, suffix) {
			if err := cmd.Wait(); err != nil {
				t.Fatalf("%+v: %v: %+v", k, err, u.last())
			}
			cmd = command(verb)
		}
	}
	eventually(t, fmt.Sprintf("%+v", k), func() bool { _, err := os.Stat(filepath.Join(once, k.edge)); return err == nil })
	_ = cmd.Process.Kill() // the terminal is closed
	_ = cmd.Wait()
	began := time.Now()
	switch k.also {
	case "supervisor":
		u.Kill()
		u.Start()
	case "servers":
		for _, pid := range u.Servers() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	var seen upgrade.State
	eventually(t, fmt.Sprintf("the end after %+v", k), func() bool {
		last := u.last()
		seen = last.State
		return seen == upgrade.Committed && !strings.HasSuffix(k.edge, "-rolled_back") && !strings.HasSuffix(k.edge, "-finalized") || seen.Ended()
	})
	took := time.Since(began)
	if !slices.Contains(k.expected(), seen) {
		t.Errorf("%+v ended as %s (%s), not as one of %s", k, seen, u.last().Error, k.expected())
	}
	want := next
	if seen == upgrade.Aborted || seen == upgrade.RolledBack {
		want = u.old
	}
	eventually(t, want+" answers", func() bool {
		r, err := u.Do(t.Context(), "GET", "/api", nil)
		return err == nil && strings.Contains(string(r.Body), `"`+want+`"`)
	})
	// The version that is current can work on what is there.
	current, err := os.Readlink(filepath.Join(u.Root, "current"))
	if err != nil || filepath.Base(current) != want {
		t.Errorf("%+v: the current version is %s, %v", k, current, err)
	}
	check := exec.CommandContext(t.Context(), filepath.Join(u.Root, current, "tako"), append([]string{"database", "check", "--data", u.Data}, database(u.Process)...)...) //nolint:gosec // it is ours
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%+v: version %s cannot work on the data: %v\n%s", k, want, err, out)
	}
	return seen, took
}
