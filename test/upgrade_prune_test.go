package test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestPruneKilledAtEachEdge: whenever `tako upgrade prune` is killed, each version is there
// whole or not at all, and the next one removes what is left.
func TestPruneKilledAtEachEdge(t *testing.T) {
	t.Parallel()
	old := []string{"2026.1.0", "2026.2.0"}
	for _, edge := range []string{"version-discarded", "journal-written", "version-emptied"} {
		t.Run(edge, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(t.TempDir(), "root")
			versions := filepath.Join(root, "versions")
			at := time.Now().Add(-time.Hour)
			for _, v := range append([]string{"2026.3.0"}, old...) {
				for _, name := range []string{"tako", "manifest.json"} {
					path := filepath.Join(versions, v, name)
					if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, at, at)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.Symlink("versions/2026.3.0", filepath.Join(root, "current")); err != nil {
				t.Fatal(err)
			}
			// there fails if a version is there in part, and tells which ones are there.
			there := func() (names []string) {
				t.Helper()
				entries, err := os.ReadDir(versions)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					if strings.HasPrefix(e.Name(), ".") {
						continue
					}
					names = append(names, e.Name())
					for _, name := range []string{"tako", "manifest.json"} {
						if _, err := os.Stat(filepath.Join(versions, e.Name(), name)); err != nil {
							t.Errorf("version %s is there in part: %v", e.Name(), err)
						}
					}
				}
				return names
			}
			if out, code := runWith(t, []string{"TAKO_FAILPOINT=" + edge + ":kill"}, "", "upgrade", "prune", "--root", root); code != -1 {
				t.Fatalf("it was not killed: %d %s", code, out)
			}
			if left := len(there()); left > 2 {
				t.Errorf("%d versions are left: it was killed too early to show anything", left)
			}
			out, code := run(t, "", "upgrade", "prune", "--root", root)
			if code != 0 || !strings.Contains(out, "it is the current version") {
				t.Fatalf("the next one: %d %s", code, out)
			}
			if diff := cmp.Diff([]string{"2026.3.0"}, there()); diff != "" {
				t.Errorf("on disk is (-want +got)\n%s", diff)
			}
			if left, err := filepath.Glob(filepath.Join(versions, ".gone-*")); err != nil || len(left) > 0 {
				t.Errorf("it has left %q, %v", left, err)
			}
		})
	}
}

// versionsOf asks which versions a prune of a server's would remove, and why.
func (u *upgraded) versionsOf() map[string]string {
	u.t.Helper()
	out, code := run(u.t, "", u.args("prune", "--dry-run", "--output", "json")...)
	var p struct {
		Versions []struct {
			Name, Why string
			Removed   bool
		}
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != 0 {
		u.t.Fatalf("%d %v %s", code, err, out)
	}
	all := map[string]string{}
	for _, v := range p.Versions {
		if v.Removed {
			v.Why = "goes: " + v.Why
		}
		all[v.Name] = v.Why
	}
	return all
}

// onDisk asserts that a version is on disk, or is not.
func (u *upgraded) onDisk(version string, want bool) {
	u.t.Helper()
	_, err := os.Stat(filepath.Join(u.Root, "versions", version))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || (err == nil) != want {
		u.t.Errorf("version %s is on disk: %v; %v was to be", version, err, want)
	}
}
