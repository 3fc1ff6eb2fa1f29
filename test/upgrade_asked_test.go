package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade"
)

// TestUpgradeIsAsked has people interfere: two who upgrade at once, one who gives it up in
// the middle, one who is needed because the way back is blocked, and one who does nothing
// until it is final.
func TestUpgradeIsAsked(t *testing.T) {
	t.Parallel()
	program := nextProgram(t)
	u := newUpgraded(t, db.SQLite)
	u.site.publish(t, next, program)

	once := t.TempDir()
	const edge = "upgrade-done-backed_up"
	first := exec.CommandContext(t.Context(), apptest.Binary(t), u.args("--yes")...)
	first.Env = append(os.Environ(), "TAKO_FAILPOINT="+edge+":stall=1h", "TAKO_FAILPOINT_ONCE="+once)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stands still", func() bool { _, err := os.Stat(filepath.Join(once, edge)); return err == nil })
	owner := upgrade.Attended(u.Root)
	if owner == 0 {
		t.Fatal("nobody carries it out")
	}
	u.do(75, fmt.Sprintf("%s is under way, carried out by process %d", u.last().ID, owner), "--yes")
	u.do(1, "is BACKED_UP; only one that is COMMITTED", "finalize")
	u.do(1, "use `tako upgrade abort`", "rollback")
	gave := exec.CommandContext(t.Context(), apptest.Binary(t), u.args("abort")...)
	var said strings.Builder
	gave.Stdout, gave.Stderr = &said, &said
	if err := gave.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is asked for", func() bool { return u.last().Abort })
	if err := syscall.Kill(owner, syscall.SIGKILL); err != nil { // what stands still hears nothing
		t.Fatal(err)
	}
	if err := gave.Wait(); err != nil || !strings.Contains(said.String(), "The upgrade was given up.") {
		t.Errorf("%v: %s", err, said.String())
	}
	if err := first.Wait(); err == nil || first.ProcessState.ExitCode() != 20 {
		t.Errorf("the first command ended with %v", err)
	}
	u.serves(u.old)
	u.bad(false) // it was not its fault
	u.backup(false)

	// The feed goes on meanwhile; the version is there already.
	u.site.publish(t, "2026.1.1", program)
	u.do(0, u.old+" -> "+next, "check")
	// The way back is blocked: the new version goes on serving until somebody helps.
	u.do(0, "Version "+next+" serves", "--yes", "--probation", "1s")
	u.backup(true)
	old := filepath.Join(u.Root, "versions", u.old, "tako")
	if err := os.Rename(old, old+".away"); err != nil {
		t.Fatal(err)
	}
	u.do(40, "tako upgrade resume", "rollback")
	u.serves(next)
	u.do(75, "has not ended", "--yes")
	// Somebody may keep it as it is, and go back later.
	u.do(0, "Version "+next+" serves", "resume", "--forward")
	u.do(1, "only of one that is NEEDS_OPERATOR", "resume", "--forward")
	u.do(0, string(upgrade.Committed), "status")
	u.do(40, "resume --forward", "rollback")
	u.serves(next)
	if err := os.Rename(old+".away", old); err != nil {
		t.Fatal(err)
	}
	u.do(30, "serves again", "resume")
	u.serves(u.old)

	u.do(0, "Version "+next+" serves", "--yes", "--probation", "1s", "--hold", "1s")
	eventually(t, "it is final by itself", func() bool { return u.last().State == upgrade.Finalized })
	u.serves(next)
}
