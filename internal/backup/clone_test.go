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
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
)

// cloneOptions are those of a copy in a directory.
func (w *world) cloneOptions(into, database string) backup.CloneOptions {
	w.t.Helper()
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := backup.ServerKeys(w.t.Context(), w.box, w.src, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return backup.CloneOptions{Data: into, Database: database, Keys: keys, Places: secret.Places, Documents: docstore.New(kinds, nil), Log: dbtest.Log(w.t)}
}

// TestTwoClonesAtOnce makes a copy where another one is being made: the same directory, and
// on PostgreSQL the same database. The first is not disturbed.
func TestTwoClonesAtOnce(t *testing.T) {
	t.Parallel()
	dbtestRun(t, func(t *testing.T, w *world) {
		m := w.mustCreate()
		into := filepath.Join(w.dir, "copy")
		database := ""
		others := []backup.CloneOptions{w.cloneOptions(into, "")}
		if w.db.Dialect() == db.Postgres {
			database = dbtest.EmptyURL(t, db.Postgres)
			others = []backup.CloneOptions{w.cloneOptions(into, dbtest.EmptyURL(t, db.Postgres)), w.cloneOptions(into+"-2", database)}
		}
		opt := w.cloneOptions(into, database)
		tried := false
		opt.Progress = func(p backup.Progress) {
			if p.Stage != "disarming the copy" || tried {
				return
			}
			tried = true
			for _, other := range others {
				if _, err := w.store.Clone(t.Context(), m.ID, other); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "just now") {
					t.Errorf("a second copy in %s: %v", other.Data, err)
				}
			}
		}
		c, err := w.store.Clone(t.Context(), m.ID, opt)
		if err != nil || !tried {
			t.Fatalf("the first copy: %v, and a second one was tried: %v", err, tried)
		}
		if got, err := instance.Read(into); err != nil || got.Unfinished || got.ID != c.Instance.ID {
			t.Errorf("the first copy's marker is %+v, %v", got, err)
		}
		if _, err := os.Stat(into + "-2"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the second copy left its directory: %v", err)
		}
	})
}

// TestInsideThroughLinks finds the server's own directory behind links.
func TestInsideThroughLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	own := filepath.Join(dir, "own")
	link, ownLink, dangling := filepath.Join(dir, "link"), filepath.Join(dir, "own-link"), filepath.Join(dir, "dangling")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{link: own, ownLink: own, dangling: filepath.Join(own, "new")} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		own: ownLink, filepath.Join(own, "new"): ownLink, filepath.Join(link, "new", "below"): ownLink, link: ownLink,
		filepath.Join(dir, "new"): "", own + "-too": "", filepath.Join(dir, "..", "x"): "",
	} {
		if got, err := backup.InsideReal(path, []string{ownLink}); got != want || err != nil {
			t.Errorf("%s is inside %q, %v, want %q", path, got, err, want)
		}
	}
	if got, err := backup.InsideReal(filepath.Join(dangling, "x"), []string{own}); err == nil {
		t.Errorf("a link to what is not there is inside %q, want an error", got)
	}
}

// cloneOnFullDisk lets the disk run full at each stage of a clone that writes to it.
func (w *world) cloneOnFullDisk(id, disk string, full func(stage string) func(backup.Progress)) {
	w.t.Helper()
	into := filepath.Join(disk, "copy")
	opt := w.cloneOptions(into, "sqlite:"+filepath.Join(into, "tako.db"))
	stages := []string{"decrypting the database", "restoring packages, artifacts and logs"}
	if w.db.Dialect() == db.Postgres {
		opt.Database = dbtest.EmptyURL(w.t, db.Postgres) // on another disk
	} else {
		stages = append(stages, "disarming the copy", "taking out the secrets")
	}
	for _, stage := range stages {
		opt.Progress = full(stage)
		_, err := w.store.Clone(w.t.Context(), id, opt)
		if err == nil {
			w.t.Errorf("%s: a copy on a full disk", stage)
		} else if !strings.Contains(err.Error(), "full") {
			w.t.Errorf("%s: the error does not say that the disk is full: %v", stage, err)
		}
		if err := disktest.Remove(filepath.Join(disk, "filler")); err != nil {
			w.t.Fatal(err)
		}
		if _, err := os.Stat(into); !errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("%s: left %v, %v", stage, tree(w.t, into), err)
		}
	}
	opt.Progress = nil
	c, err := w.store.Clone(w.t.Context(), id, opt)
	if err != nil {
		w.t.Fatalf("clone with room again: %v", err)
	}
	if m, err := instance.Read(into); err != nil || !m.Quarantined() || m.Unfinished || m.ID != c.Instance.ID || m.Parent != c.Manifest.Installation {
		w.t.Errorf("the copy's marker is %+v, %v", m, err)
	}
	if err := os.RemoveAll(into); err != nil {
		w.t.Fatal(err)
	}
}
