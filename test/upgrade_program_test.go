package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/takodeploy/tako/internal/db"
)

// next is the version that nextProgram is of.
const next = "2026.6.0"

// nextProgram builds this program once more as a next version would be: it adds to the
// schema in five migrations, of which the third one fails on data that a test can make,
// older versions cannot work on its data once it is finalized, and it misbehaves as the
// file says that the environment names (testdata/next). Nothing of that is in what is
// shipped: the files are laid over the sources for this build alone.
func nextProgram(t *testing.T) []byte {
	t.Helper()
	raw, err := buildNext()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

var buildNext = sync.OnceValues(func() ([]byte, error) { return buildNextWith() }) // built once for all tests

// addition is a migration that only a build for tests has.
type addition struct{ id, kind, sql string }

// buildNextWith builds nextProgram with more migrations, which follow its own.
func buildNextWith(more ...addition) ([]byte, error) {
	dir, err := os.MkdirTemp("", "tako-next")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	root, err := filepath.Abs("..")
	if err != nil {
		return nil, err
	}
	own := filepath.Join(root, "test", "testdata", "next")
	over := map[string]string{
		filepath.Join(root, "cmd/tako/misbehave_start.go"): filepath.Join(own, "start.go"),
		filepath.Join(root, "internal/rest/misbehave.go"):  filepath.Join(own, "answer.go"),
	}
	level := db.BinaryLevels().Level + 1
	paths, err := filepath.Glob(filepath.Join(own, "*.sql"))
	if err != nil || len(paths) == 0 {
		return nil, &os.PathError{Op: "find migrations", Path: own, Err: os.ErrNotExist}
	}
	var migrations []addition
	for _, path := range paths {
		sql, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		migrations = append(migrations, addition{strings.TrimSuffix(filepath.Base(path), ".sql"), "tx", string(sql)})
	}
	for _, a := range append(migrations, more...) {
		path := filepath.Join(dir, a.id+".sql")
		if err := os.WriteFile(path, fmt.Appendf(nil, "-- tako: level %d, %s\n%s", level, a.kind, a.sql), 0o600); err != nil {
			return nil, err
		}
		over[filepath.Join(root, "internal/db/migrations", a.id+".sql")] = path
	}
	for path, change := range map[string][2]string{
		"internal/rest/server.go":  {"defer s.recover(out, hr, id)\n", "defer s.recover(out, hr, id)\n\tmisanswer(hr)\n"},
		"internal/db/migration.go": {"minReader = 1\n", fmt.Sprintf("minReader = %d\n", level)},
	} {
		raw, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return nil, err
		}
		if strings.Count(string(raw), change[0]) != 1 {
			return nil, &os.PathError{Op: "find once " + change[0], Path: path, Err: os.ErrNotExist}
		}
		changed := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(changed, []byte(strings.Replace(string(raw), change[0], change[1], 1)), 0o600); err != nil {
			return nil, err
		}
		over[filepath.Join(root, path)] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": over})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "tako")
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags", "-s -w -X main.version="+next, "-o", out, "./cmd/tako") // without a context: it is for all tests, not for one
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, &exec.Error{Name: "go build: " + string(said), Err: err}
	}
	return os.ReadFile(out)
}
