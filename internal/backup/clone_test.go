package backup_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
)

// cloneOnFullDisk lets the disk run full at each stage of a clone that writes to it.
func (w *world) cloneOnFullDisk(id, disk string, full func(stage string) func(backup.Progress)) {
	w.t.Helper()
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := backup.ServerKeys(w.t.Context(), w.box, w.src, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	into := filepath.Join(disk, "copy")
	opt := backup.CloneOptions{Data: into, Database: "sqlite:" + filepath.Join(into, "tako.db"), Keys: keys, Places: secret.Places, Documents: docstore.New(kinds, nil), Log: dbtest.Log(w.t)}
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
		if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
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
