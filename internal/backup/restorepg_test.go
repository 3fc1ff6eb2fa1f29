package backup_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
)

// TestTheKeyFollowsTheDatabase looks at the master key after a restore on PostgreSQL of
// which nobody knows whether it was committed.
func TestTheKeyFollowsTheDatabase(t *testing.T) {
	t.Parallel()
	former, restored := secret.NewMasterKey(), secret.NewMasterKey()
	// A data directory as a restore leaves it: the backup's key, and the one before.
	data := func() string {
		dir := t.TempDir()
		if err := secret.PutMasterKey(dir, former); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, secret.FileName)
		if err := os.Rename(path, path+".before-restore"); err != nil {
			t.Fatal(err)
		}
		if err := secret.PutMasterKey(dir, restored); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	key := func(path string) string {
		k, err := secret.Source{File: path}.Load()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return k.ID()
	}
	untouched := dbtest.URL(t, db.Postgres)
	for name, c := range map[string]struct {
		database, kept, former string
		want, beside           string
	}{
		"no answer":           {database: "postgres://tako@127.0.0.1:1/tako", kept: "yes", want: restored.ID(), beside: former.ID()},
		"not committed":       {database: untouched, kept: "yes", want: former.ID()},
		"not by an earlier":   {database: untouched, former: former.ID(), want: former.ID()},
		"nothing to put back": {database: untouched, former: restored.ID(), want: restored.ID(), beside: former.ID()},
	} {
		dir := data()
		path := filepath.Join(dir, secret.FileName)
		r := &backup.Restored{}
		if c.kept != "" {
			r.KeptKey = path + ".before-restore"
		}
		err := backup.Unheard(t.Context(), backup.RestoreOptions{Data: dir, Database: c.database, ManagedKey: true, Log: dbtest.Log(t)}, r, c.former)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if unknown := c.database != untouched; unknown != (fault.Is(err, fault.Unavailable) && strings.Contains(err.Error(), "Both master keys are kept")) {
			t.Errorf("%s: %v", name, err)
		}
		if got, beside := key(path), key(path+".before-restore"); got != c.want || beside != c.beside {
			t.Errorf("%s: the master key is %q, and %q beside, want %q and %q", name, got, beside, c.want, c.beside)
		}
	}
}
