package backup_test

import (
	"path/filepath"
	"testing"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/proctest"
)

// TestLockIsGivenBack: who looks at backups right after another has worked on them is not
// told that it still does, also while that one forks a child.
func TestLockIsGivenBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := backup.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		unlock, err := s.Alone()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(proctest.Copies(t, filepath.Join(dir, ".lock")))
		unlock()
	}
}
