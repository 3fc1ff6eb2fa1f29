package backup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
)

// TestTheProgramsFaultIsNoDamage has the program fail on the copy of a proven backup.
func TestTheProgramsFaultIsNoDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite, t.TempDir())
	m := w.mustCreate()
	if err := w.verify(m.ID, backup.LevelDatabase, nil); err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(w.store.Dir(), m.ID, "VERIFIED")
	proven, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	boot := func(fails error) error {
		return w.verify(m.ID, backup.LevelBoot, func(o *backup.VerifyOptions) {
			o.Boot = func(context.Context, backup.Copy) error { return fails }
		})
	}
	broken := errors.New("migration 0002_two: no such column")
	err = boot(broken)
	var program *backup.BootError
	var damaged *backup.DamagedError
	if !errors.As(err, &program) || errors.As(err, &damaged) || program.ExitCode() != 4 || !errors.Is(err, broken) || !strings.Contains(err.Error(), m.ID) {
		t.Errorf("a program that fails on the copy: %v, want a BootError", err)
	}
	// What this machine lacks is neither's fault.
	err = boot(fault.New(fault.Unavailable, "The disk is full."))
	if errors.As(err, new(*backup.BootError)) || errors.As(err, new(*backup.DamagedError)) || !fault.Is(err, fault.Unavailable) {
		t.Errorf("a full disk: %v, want just that", err)
	}
	if now, err := os.ReadFile(mark); err != nil || string(now) != string(proven) {
		t.Errorf("the proof is now %s, %v, want %s", now, err, proven)
	}
}
