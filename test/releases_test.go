package test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// head is what these sources are called where they follow a release.
const head = "2026.5.0"

// recorded is a release as releases.json has it: a tag that nobody can move.
type recorded struct {
	Version string
	Commit  string
	Date    string
	Level   int
}

func readReleases(t *testing.T) []recorded {
	t.Helper()
	all, err := releases()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var releases = sync.OnceValues(func() (all []recorded, err error) {
	raw, err := os.ReadFile("../releases.json")
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err == nil && len(all) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return nil, fmt.Errorf("releases.json: %w", err)
	}
	return all, nil
})

// git asks the project's history.
func git(args ...string) ([]byte, error) {
	var problem bytes.Buffer
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stderr = "..", &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, &exec.Error{Name: "git " + strings.Join(args, " ") + ": " + problem.String() + " (the tests need the history of the project: a clone with --depth lacks it)", Err: err}
	}
	return out, nil
}

// source is the tree of a release, in a directory that the caller removes.
func source(r recorded) (dir string, err error) {
	raw, err := git("archive", "--format=tar", r.Commit)
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "tako-"+r.Version+"-"); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	for archive := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return dir, nil
		}
		if err != nil {
			return "", err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(filepath.Clean(h.Name), 0o755)
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(archive); err == nil {
				err = root.WriteFile(h.Name, content, h.FileInfo().Mode().Perm())
			}
		}
		if err != nil {
			return "", err
		}
	}
}

// buildAs builds the program of a tree under a version.
func buildAs(dir, version, out string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version, "-o", out, "./cmd/tako")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return &exec.Error{Name: "go build of " + version + ": " + string(said), Err: err}
	}
	return nil
}

// builds are the last release and these sources, each once for all tests.
var builds = sync.OnceValues(func() (b struct{ released, head string }, err error) {
	all, err := releases()
	if err != nil {
		return b, err
	}
	dir, err := source(all[len(all)-1])
	if err != nil {
		return b, err
	}
	defer os.RemoveAll(dir)
	b.released, b.head = filepath.Join(built, "released"), filepath.Join(built, "head")
	return b, errors.Join(buildAs(dir, all[len(all)-1].Version, b.released), buildAs("..", head, b.head))
})

// TestReleases holds these sources against the releases that people have: whatever has
// made somebody's schema stays as it was, and what is new has a level of its own, since a
// migration of a level that a database already has is never applied to it.
func TestReleases(t *testing.T) {
	t.Parallel()
	all := readReleases(t)
	var former version.Version
	for i, r := range all {
		number, err := version.Parse(version.SemVer, r.Version)
		if err != nil || i > 0 && version.Compare(former, number) >= 0 {
			t.Errorf("release %s does not follow %s (%v)", r.Version, former, err)
		}
		former = number
		if _, err := git("merge-base", "--is-ancestor", r.Commit, "HEAD"); err != nil {
			t.Errorf("release %s is not of this history: %v", r.Version, err)
			continue
		}
		names, err := git("ls-tree", "-r", "--name-only", r.Commit, "internal/db/migrations")
		if err != nil {
			t.Fatal(err)
		}
		var released []string
		for _, name := range strings.Fields(string(names)) {
			if filepath.Ext(name) != ".sql" {
				continue
			}
			then, err := git("show", r.Commit+":"+name)
			if err != nil {
				t.Fatal(err)
			}
			now, err := os.ReadFile(filepath.Join("..", name))
			if err != nil || !bytes.Equal(then, now) {
				t.Errorf("%s is not what release %s has (%v)", name, r.Version, err)
			}
			released = append(released, filepath.Base(name))
		}
		own, err := filepath.Glob("../internal/db/migrations/*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range own {
			if slices.Contains(released, filepath.Base(path)) {
				continue
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if level := levelOf(string(raw)); level <= r.Level {
				t.Errorf("%s has level %d and comes after release %s, which has level %d already", filepath.Base(path), level, r.Version, r.Level)
			}
		}
	}
	if level := db.BinaryLevels().Level; level < all[len(all)-1].Level {
		t.Errorf("level %d is below that of the last release", level)
	}
}

var levelLine = regexp.MustCompile(`(?m)^-- tako: level (\d+)`)

func levelOf(migration string) (level int) {
	if m := levelLine.FindStringSubmatch(migration); m != nil {
		_ = json.Unmarshal([]byte(m[1]), &level) // digits
	}
	return level
}

// TestFromTheLastRelease takes a server of the last release, whose deployments go on, to
// these sources, back, there again, and for good. It is the release's own program that the
// person at the terminal has, and that supervises.
func TestFromTheLastRelease(t *testing.T) {
	t.Parallel()
	all := readReleases(t)
	last := all[len(all)-1]
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			b, err := builds()
			if err != nil {
				t.Fatal(err)
			}
			u := newUpgraded(t, dialect, func(p *apptest.Process) { p.Program = b.released })
			if u.old != last.Version {
				t.Fatalf("version %s serves, not the release", u.old)
			}
			program, err := os.ReadFile(b.head)
			if err != nil {
				t.Fatal(err)
			}
			levels := db.BinaryLevels()
			u.site.publishFrom(t, distOf(t, releasefeed.Release{Version: head, Level: levels.Level, MinReaderLevel: levels.MinReader}, program), program)
			u.do(0, "Nothing speaks against it", "--dry-run")
			w := walkOn(t, u.Process, rand.Uint64()) //nolint:gosec // any moments will do
			before := u.environment("before")
			move := func(what, want string, args ...string) {
				done := w.disturb(t, func() { u.unharmed(0, want, args...) })
				w.undisturbed(t, what, done)
			}
			move("upgrade", "Version "+head+" serves", "--yes", "--probation", "1s")
			u.serves(head)
			during := u.environment("during")
			served := fmt.Sprintf("%s/%d %s/%d", head, levels.Level, last.Version, last.Level)
			if got := u.versions(); got != served {
				t.Errorf("the versions are %s, not %s", got, served)
			}
			move("rollback", "Version "+last.Version+" serves again", "rollback")
			u.serves(last.Version)
			after := u.environment("after")
			move("second upgrade", "Version "+head+" serves", "--yes", "--probation", "1s", "--hold", "100h")
			u.unharmed(0, "is final", "finalize")
			u.serves(head)
			for _, e := range []octopus.Environment{before, during, after} {
				if got := apptest.Get[octopus.Environment](t, u.Client, "/api/Spaces-1/environments/"+e.ID); got.Name != e.Name {
					t.Errorf("%s is %+v in the end", e.Name, got)
				}
			}
			if got := u.versions(); got != served {
				t.Errorf("the versions are %s in the end, not %s", got, served)
			}
			out, code := runProgram(t, b.head, nil, "", append([]string{"doctor", "--data", u.Data}, database(u.Process)...)...)
			if code != 0 {
				t.Errorf("doctor: exit code %d, %s", code, out)
			}
		})
	}
}

// versions are those that the server says have served, with their levels.
func (u *upgraded) versions() string {
	u.t.Helper()
	page := apptest.Get[octopus.Page[octopus.InstalledVersion]](u.t, u.Client, "/api/system/versions")
	var all []string
	for _, v := range page.Items {
		all = append(all, fmt.Sprintf("%s/%d", v.Version, v.SchemaLevel))
	}
	return strings.Join(all, " ")
}

// TestTestsOfTheLastRelease runs the last release's tests of the API, of its own sources,
// over the schema that these sources have expanded: that is what the release works on from
// the moment that an upgrade begins, and after every rollback.
func TestTestsOfTheLastRelease(t *testing.T) {
	t.Parallel()
	all := readReleases(t)
	b, err := builds()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := source(all[len(all)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := correct(dir, all[len(all)-1].Version); err != nil {
		t.Fatal(err)
	}
	tests := "^TestEveryKindsLife$"
	if soaking() {
		tests = "^(" + strings.Join(apiTests(t, dir), "|") + ")$"
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-trimpath", "-count=1", "-v", "-vet=off", "-timeout", "40m", "-run", tests, "./test")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TAKO_TEST_BINARY="+b.released, "TAKO_TEST_EXPAND="+b.head, "TAKO_TEST_SOAK=")
	out, err := cmd.CombinedOutput()
	passed := len(regexp.MustCompile(`(?m)^--- PASS: `).FindAll(out, -1))
	if err != nil || passed == 0 || bytes.Contains(out, []byte("--- SKIP")) {
		t.Fatalf("%d tests passed, %v\n%s", passed, err, out)
	}
	t.Logf("%d tests of release %s passed over the schema of %s: %s", passed, all[len(all)-1].Version, head, tests)
}

// correct puts into a release's tests what was found wrong with them, and with nothing but
// them, after it was out: testdata/releases has a patch for such a release.
func correct(dir, version string) error {
	patch, err := filepath.Abs(filepath.Join("testdata", "releases", version+".patch"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(patch); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	cmd := exec.Command("git", "apply", "--include=test/*", patch)
	// git would pass over the files if the directory lay within another work tree.
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if said, err := cmd.CombinedOutput(); err != nil {
		return &exec.Error{Name: "git apply " + patch + ": " + string(said), Err: err}
	}
	return nil
}

// apiTests are the names of a tree's tests of the API.
func apiTests(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "test", "api_*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(raw, -1) {
			names = append(names, string(m[1]))
		}
	}
	if len(names) < 5 {
		t.Fatalf("only %v test the API", names)
	}
	return names
}
