package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/octopus"
)

// retentionEdges are where a push or retention has done a part of its work.
var retentionEdges = []string{"package-stored", "releases-retained", "packages-retained", "orphans-due", "orphan-deleted"}

// keeper is a server with packages, whose processes are killed at edges.
type keeper struct {
	*apptest.Process
	t    *testing.T
	once string
	d    *db.DB
}

// revive starts the server again if it has died.
func (k *keeper) revive() {
	if k.Exited() {
		k.Kill() // collects what is left of it
		k.Start()
	}
}

// push sends a package until a server takes it.
func (k *keeper) push(name, content string) {
	k.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; k.revive() {
		if time.Now().After(deadline) {
			k.t.Fatalf("nobody takes %s:\n%s", name, k.Output())
		}
		form := multipartOf(k.t, name, content)
		req, err := http.NewRequestWithContext(k.t.Context(), http.MethodPost, k.URL+"/api/packages/raw", strings.NewReader(form.body))
		if err != nil {
			k.t.Fatal(err)
		}
		req.Header.Set("X-Octopus-ApiKey", k.Key)
		req.Header.Set("Content-Type", form.contentType)
		if resp, err := k.Send(req); err == nil {
			if resp.Status != http.StatusCreated {
				k.t.Fatalf("push %s: %d %s", name, resp.Status, resp.Body)
			}
			return
		}
	}
}

type form struct{ body, contentType string }

func multipartOf(t *testing.T, name, content string) form {
	t.Helper()
	const boundary = "x-boundary-x"
	return form{
		"--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name + "\"\r\n\r\n" + content + "\r\n--" + boundary + "--\r\n",
		"multipart/form-data; boundary=" + boundary,
	}
}

// blobs are the files of the store.
func (k *keeper) blobs() (paths []string) {
	k.t.Helper()
	paths, err := filepath.Glob(filepath.Join(k.Data, "blobs", "??", "*"))
	if err != nil {
		k.t.Fatal(err)
	}
	return paths
}

// age lets three days pass for everything that is stored.
func (k *keeper) age() {
	k.t.Helper()
	const by = 3 * 24 * time.Hour
	for _, path := range k.blobs() {
		old := time.Now().Add(-by)
		if err := os.Chtimes(path, old, old); err != nil {
			k.t.Fatal(err)
		}
	}
	err := k.d.Write(k.t.Context(), func(tx *db.Tx) error {
		for _, statement := range []string{`UPDATE blob_orphan SET since = since - ?`, `UPDATE package SET published = published - ?`} {
			if _, err := tx.Exec(k.t.Context(), statement, by.Microseconds()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		k.t.Fatal(err)
	}
}

// retain runs the task to its end, past every death of the server.
func (k *keeper) retain() {
	k.t.Helper()
	task := apptest.Post(k.t, k.Client, "/api/tasks", octopus.Task{Name: octopus.TaskRetention})
	for deadline := time.Now().Add(2 * time.Minute); !task.IsCompleted; k.revive() {
		if time.Now().After(deadline) {
			k.t.Fatalf("%s is %s:\n%s", task.ID, task.State, k.Output())
		}
		if now := poll(k.t, k.Client, task.ID); now.ID != "" {
			task = now
		}
	}
	if task.State != octopus.TaskSuccess {
		k.t.Fatalf("%s is %s: %s", task.ID, task.State, task.ErrorMessage)
	}
}

// TestKillWhileRetaining kills the server at every edge of pushing and of retention,
// once: what is named stays, and what nobody wants is gone in the end.
func TestKillWhileRetaining(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			k := &keeper{Process: apptest.NewProcess(t, dialect), t: t, once: apptest.ShortDir(t)}
			k.Env = append(k.Env, "TAKO_FAILPOINT="+strings.Join(retentionEdges, ":kill,")+":kill", "TAKO_FAILPOINT_ONCE="+k.once)
			k.Start()
			url := k.Database
			if url == "" {
				url = "sqlite:" + filepath.Join(k.Data, "tako.db")
			}
			k.d = dbtest.OpenURL(t, url)
			l := apptest.Post(t, k.Client, "/api/lifecycles", octopus.Lifecycle{Name: "Few", ReleaseRetentionPolicy: octopus.KeepCount(1, octopus.RetentionItems)})
			p := apptest.Post(t, k.Client, "/api/projects", octopus.Project{Name: "Web", ProjectGroupID: "ProjectGroups-1", LifecycleID: l.ID})
			for n := range 3 {
				apptest.Post(t, k.Client, "/api/releases", octopus.Release{ProjectID: p.ID, Version: fmt.Sprint("1.0.", n)})
			}
			feed := apptest.Get[octopus.Feed](t, k.Client, "/api/feeds/"+octopus.BuiltInFeedID)
			days := 1
			feed.DeleteUnreleasedPackagesAfterDays = &days
			apptest.Put(t, k.Client, "/api/feeds/"+feed.ID, feed)
			const packages = 4
			for n := range packages {
				k.push(fmt.Sprintf("Acme.1.%d.zip", n), fmt.Sprint("content ", n))
			}
			for round := 0; ; round++ {
				if round == 8 {
					t.Fatalf("the blobs %v are left:\n%s", k.blobs(), k.Output())
				}
				k.age()
				k.retain()
				left := apptest.Get[octopus.Page[octopus.Package]](t, k.Client, "/api/packages?nuGetPackageId=Acme")
				if left.TotalResults != 1 || left.Items[0].Version != "1.3" {
					t.Fatalf("left: %+v", left.Items)
				}
				if body := string(k.Must(t, http.MethodGet, "/api/packages/"+left.Items[0].ID+"/raw", nil, nil).Body); body != "content 3" {
					t.Fatalf("the package that is left has %q in it", body)
				}
				if gone := k.gone(packages - 1); gone {
					break
				}
			}
			if n := apptest.Get[octopus.Page[octopus.Release]](t, k.Client, "/api/projects/"+p.ID+"/releases").TotalResults; n != 1 {
				t.Errorf("%d releases are left", n)
			}
			for _, edge := range retentionEdges {
				if _, err := os.Stat(filepath.Join(k.once, edge)); err != nil {
					t.Errorf("nothing passed %s", edge)
				}
			}
			healthy(t, k.Process)
		})
	}
}

// gone reports whether no file has the content of the first n packages.
func (k *keeper) gone(n int) bool {
	k.t.Helper()
	for _, path := range k.blobs() {
		body, err := os.ReadFile(path)
		if err != nil {
			k.t.Fatal(err)
		}
		for i := range n {
			if string(body) == fmt.Sprint("content ", i) {
				return false
			}
		}
	}
	return true
}
