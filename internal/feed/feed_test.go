package feed_test

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
)

const home, other ident.SpaceID = "Spaces-1", "Spaces-2"

type world struct {
	*feed.Repository
	t   testing.TB
	d   *db.DB
	dir string
	as  context.Context
}

func run(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		dir := t.TempDir()
		blobs, err := blob.OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		fn(t, &world{feed.New(d, blobs), t, d, dir, db.WithActor(t.Context(), db.Actor{UserID: "Users-1", Username: "ada"})})
	})
}

func (w *world) push(space ident.SpaceID, file, content string, mode feed.Overwrite) (*feed.Package, bool, error) {
	return w.Push(w.as, space, file, strings.NewReader(content), mode)
}

func (w *world) pushed(file, content string) *feed.Package {
	w.t.Helper()
	p, created, err := w.push(home, file, content, feed.FailIfExists)
	if err != nil || !created {
		w.t.Fatalf("push %s: created %v, %v", file, created, err)
	}
	return p
}

func (w *world) read(fn func(tx *db.Tx) error) {
	w.t.Helper()
	if err := w.d.Read(w.as, fn); err != nil {
		w.t.Fatal(err)
	}
}

// list returns ids with their versions.
func (w *world) list(q feed.Query) (found []string, total int64) {
	w.t.Helper()
	q.Space = home
	w.read(func(tx *db.Tx) error {
		all, n, err := w.List(w.as, tx, q)
		for _, p := range all {
			found = append(found, p.PackageID+" "+p.Version)
		}
		total = n
		return err
	})
	return found, total
}

// files are the names of all blobs, finished or not.
func (w *world) files() (names []string) {
	w.t.Helper()
	err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "lock" {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

func refused(t testing.TB, err error, kind fault.Kind, says ...string) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Fatalf("got %v, want a fault of kind %v", err, kind)
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestPushAndFetch(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		const content = "a package"
		p := w.pushed(`C:\builds\out\Acme.Web.1.2.0-beta.3+build.7.tar.gz`, content)
		sum1, sum256 := sha1.Sum([]byte(content)), sha256.Sum256([]byte(content))
		want := &feed.Package{
			ID: "packages-Acme.Web.1.2.0-beta.3+build.7", Space: home, PackageID: "Acme.Web", Version: "1.2.0-beta.3+build.7", Extension: ".tar.gz",
			SHA256: hex.EncodeToString(sum256[:]), SHA1: hex.EncodeToString(sum1[:]), Size: int64(len(content)), Published: p.Published, PublishedBy: "ada",
		}
		if diff := cmp.Diff(want, p); diff != "" || p.Published.IsZero() || p.FileName() != "Acme.Web.1.2.0-beta.3+build.7.tar.gz" {
			t.Errorf("pushed (-want +got):\n%s", diff)
		}
		w.read(func(tx *db.Tx) error {
			for _, id := range []string{p.ID, strings.ToLower(p.ID), strings.ToUpper(p.ID)} {
				got, err := w.ByID(w.as, tx, home, id)
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("%s: %v\n%s", id, err, diff)
				}
			}
			for _, id := range []string{"", "packages-", "Acme.Web.1.2.0-beta.3+build.7", "packages-Acme.Web.1.2.0", "packages-x", "packages-%", strings.Repeat("x", 5000)} {
				_, err := w.ByID(w.as, tx, home, id)
				refused(t, err, fault.NotFound)
			}
			_, err := w.ByID(w.as, tx, other, p.ID)
			refused(t, err, fault.NotFound)
			got, err := w.Find(w.as, tx, home, "acme.web", "1.2.0-BETA.3+build.7")
			if err != nil || got.ID != p.ID {
				t.Errorf("found %v, %v", got, err)
			}
			_, err = w.Find(w.as, tx, home, "acme.web", "1.2.0")
			refused(t, err, fault.NotFound, "push it first")
			return nil
		})
		r, size, err := w.Open(w.as, p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || string(got) != content || size != int64(len(content)) {
			t.Errorf("fetched %q of %d, %v", got, size, err)
		}
	})
}

func TestPushModes(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		first := w.pushed("Acme.Web.1.0.0.zip", "one")
		_, _, err := w.push(home, "ACME.web.1.0.0.zip", "two", feed.FailIfExists)
		refused(t, err, fault.Conflict, "Acme.Web version 1.0.0 already exists", "OverwriteExisting")
		p, created, err := w.push(home, "ACME.web.1.0.0.zip", "two", feed.IgnoreIfExists)
		if err != nil || created || p.SHA256 != first.SHA256 || p.ID != first.ID {
			t.Errorf("kept %+v, created %v, %v", p, created, err)
		}
		p, created, err = w.push(home, "ACME.web.1.0.0.tar.gz", "three", feed.Replace)
		if err != nil || created || p.ID != first.ID || p.Size != 5 || p.Extension != ".tar.gz" {
			t.Errorf("replaced by %+v, created %v, %v", p, created, err)
		}
		w.read(func(tx *db.Tx) error {
			got, err := w.ByID(w.as, tx, home, first.ID)
			if diff := cmp.Diff(p, got); diff != "" || err != nil {
				t.Errorf("stored (-answered +stored): %v\n%s", err, diff)
			}
			return nil
		})
		if p, created, err := w.push(home, "Acme.Web.1.0.1.zip", "new", feed.Replace); err != nil || !created || p.Version != "1.0.1" {
			t.Errorf("a new version by Replace: %+v, %v, %v", p, created, err)
		}
		if _, created, err := w.push(other, "Acme.Web.1.0.0.zip", "one", feed.FailIfExists); err != nil || !created {
			t.Errorf("in another space: %v, %v", created, err)
		}
		for text, want := range map[string]feed.Overwrite{"": feed.FailIfExists, "failifexists": feed.FailIfExists, "OVERWRITEEXISTING": feed.Replace, "IgnoreIfExists": feed.IgnoreIfExists} {
			if got, err := feed.ParseOverwrite(text); err != nil || got != want {
				t.Errorf("%q is %v, %v", text, got, err)
			}
		}
		_, err = feed.ParseOverwrite("Maybe")
		refused(t, err, fault.Invalid, "overwriteMode is 'Maybe'", "IgnoreIfExists")
	})
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for name, says := range map[string]string{
			"": "extension", "readme.txt": "extension", "Acme.zip": "no version", ".1.0.0.zip": "letters, digits", "..1.0.0.zip": "letters, digits",
			"Acme..1.0.zip": "letters, digits", "A b.1.0.0.zip": "letters, digits", "../../etc/passwd": "extension", "Acme.1.0.0.exe": "extension",
			`dir\`: "extension", strings.Repeat("a", 2000) + ".1.0.0.zip": "too long",
		} {
			_, _, err := w.push(home, name, "x", feed.FailIfExists)
			refused(t, err, fault.Invalid, says, "Acme.Web.1.2.0.zip")
		}
		if files := w.files(); len(files) != 0 {
			t.Errorf("refused packages left %v", files)
		}
		long := strings.Repeat("a", 500) + ".1.0.0-" + strings.Repeat("1.", 250) + "1"
		if p := w.pushed(long+".zip", "x"); p.ID != "packages-"+long {
			t.Errorf("pushed %s", p.ID)
		}
	})
}

func TestContentThatIsNotWhole(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.SetLimit(1000)
		_, _, err := w.push(home, "Acme.1.0.0.zip", strings.Repeat("x", 1001), feed.FailIfExists)
		refused(t, err, fault.TooLarge, "Acme.1.0.0.zip", "1000 bytes")
		cut := io.MultiReader(strings.NewReader("the beginning"), iotest.ErrReader(io.ErrUnexpectedEOF))
		if _, _, err := w.Push(w.as, home, "Acme.1.0.0.zip", cut, feed.FailIfExists); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut off: %v", err)
		}
		ended, cancel := context.WithCancel(w.as)
		cancel()
		if _, _, err := w.Push(ended, home, "Acme.1.0.0.zip", strings.NewReader("x"), feed.FailIfExists); err == nil {
			t.Error("pushed after the caller had left")
		}
		if list, n := w.list(feed.Query{}); n != 0 || len(w.files()) != 0 {
			t.Errorf("what was not whole left %v and %v", list, w.files())
		}
		w.pushed("Acme.1.0.0.zip", strings.Repeat("x", 1000))
	})
}

// TestOneOfManyPushesWins has many push one version at once.
func TestOneOfManyPushesWins(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		const n = 10
		type result struct {
			p       *feed.Package
			created bool
			err     error
		}
		results := make(chan result, n)
		for i := range n {
			go func() {
				p, created, err := w.push(home, "Acme.1.0.0.zip", fmt.Sprint("content ", i), feed.FailIfExists)
				results <- result{p, created, err}
			}()
		}
		var won *feed.Package
		for range n {
			switch r := <-results; {
			case r.err == nil && r.created && won == nil:
				won = r.p
			case fault.Is(r.err, fault.Conflict):
			default:
				t.Errorf("created %v, %v", r.created, r.err)
			}
		}
		w.read(func(tx *db.Tx) error {
			stored, err := w.ByID(w.as, tx, home, "packages-Acme.1.0.0")
			if diff := cmp.Diff(won, stored); diff != "" || err != nil {
				t.Errorf("stored (-won +stored): %v\n%s", err, diff)
			}
			return nil
		})
	})
}

func TestVersionsAreInOrder(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		// From old to new, pushed in another order.
		ordered := []string{"0.9", "1.0.0-alpha", "1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0-beta", "1.0", "1.0.0+b", "1.0.1", "1.9.0", "1.10.0", "1.10.0.1", "2.0.0-rc.1+build-5", "2.0.0"}
		for i := range ordered {
			w.pushed("Acme."+ordered[(i*5)%len(ordered)]+".zip", "x")
		}
		w.pushed("acme.0.1.nupkg", "x") // another spelling of the package
		w.pushed("Zeta.3.0.zip", "x")
		w.pushed("Beta_x.1.0.zip", "x")
		var want []string
		for _, v := range ordered {
			want = append(want, "Acme "+v)
		}
		slices.Reverse(want)
		want = append(want, "acme 0.1")
		got, n := w.list(feed.Query{PackageID: "ACME", Page: ident.Page{Take: 100}})
		// 1.0 and 1.0.0+b are equal by the rules: the one published later comes first.
		if i := slices.Index(got, "Acme 1.0"); i < len(got)-1 && got[i+1] == "Acme 1.0.0+b" {
			got[i], got[i+1] = got[i+1], got[i]
		}
		if diff := cmp.Diff(want, got); diff != "" || int(n) != len(want) {
			t.Errorf("%d versions (-want +got):\n%s", n, diff)
		}
		var walked []string
		w.read(func(tx *db.Tx) error {
			return w.Versions(w.as, tx, home, "acme", func(p *feed.Package) bool {
				walked = append(walked, p.Version)
				return p.Version != "1.10.0.1"
			})
		})
		if diff := cmp.Diff([]string{"2.0.0", "2.0.0-rc.1+build-5", "1.10.0.1"}, walked); diff != "" {
			t.Errorf("walked (-want +got):\n%s", diff)
		}
		newest := []string{"Acme 2.0.0", "Beta_x 1.0", "Zeta 3.0"}
		rule, err := version.NewRule(version.Octopus, "[1.0,2.0)", "^$", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			q    feed.Query
			want []string
			n    int64
		}{
			{feed.Query{}, newest, 3},
			{feed.Query{Page: ident.Page{Skip: 1, Take: 1}}, newest[1:2], 3},
			{feed.Query{Filter: "ETA"}, newest[1:], 2},
			{feed.Query{Filter: "_"}, newest[1:2], 1},
			{feed.Query{Filter: "%"}, nil, 0},
			{feed.Query{Filter: strings.Repeat("x", 60_000)}, nil, 0},
			{feed.Query{IDs: []string{"packages-Acme.1.9.0", "PACKAGES-zeta.3.0", "packages-none.1.0", "nonsense", "packages-acme.1.9.0"}}, []string{"Acme 1.9.0", "Zeta 3.0"}, 2},
			{feed.Query{IDs: []string{}}, nil, 0},
			{feed.Query{IDs: []string{"nonsense"}}, nil, 0},
			{feed.Query{PackageID: "acme", VersionFilter: "RC"}, []string{"Acme 2.0.0-rc.1+build-5"}, 1},
			{feed.Query{PackageID: "acme", VersionFilter: "alpha", Page: ident.Page{Skip: 1, Take: 1}}, []string{"Acme 1.0.0-alpha.2"}, 3},
			{feed.Query{PackageID: "acme", NoPrerelease: true, VersionFilter: "0.1"}, []string{"Acme 1.10.0.1", "Acme 1.0.1", "acme 0.1"}, 3},
			{feed.Query{PackageID: "acme", VersionFilter: "1.0.1", Accept: rule.AcceptsText}, []string{"Acme 1.0.1"}, 1},
			{feed.Query{PackageID: "acme", Accept: rule.AcceptsText, Page: ident.Page{Skip: 1, Take: 2}}, []string{"Acme 1.10.0", "Acme 1.9.0"}, 5},
			{feed.Query{PackageID: "nobody"}, nil, 0},
		} {
			got, n := w.list(tt.q)
			slices.SortStableFunc(got, func(a, b string) int { // of equal versions, for the comparison
				if a == "Acme 1.0" && b == "Acme 1.0.0+b" {
					return 1
				}
				if b == "Acme 1.0" && a == "Acme 1.0.0+b" {
					return -1
				}
				return 0
			})
			if diff := cmp.Diff(tt.want, got); diff != "" || n != tt.n {
				t.Errorf("%.200v: %d, want %d (-want +got):\n%s", tt.q, n, tt.n, diff)
			}
		}
	})
}

// TestEqualVersionsAreOnePackage: a package is listed once, by what was published last.
func TestEqualVersionsAreOnePackage(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for _, v := range []string{"1.0.0+a", "1.0", "1.0.0.0", "1.0.0+b"} {
			w.pushed("Acme."+v+".zip", "x")
		}
		if got, n := w.list(feed.Query{}); n != 1 || got[0] != "Acme 1.0.0+b" {
			t.Errorf("the newest of each: %v of %d", got, n)
		}
	})
}

func TestDelete(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		p := w.pushed("Acme.1.0.zip", "x")
		w.pushed("Acme.2.0.zip", "x")
		remove := func(space ident.SpaceID, ids ...string) {
			t.Helper()
			if err := w.d.Write(w.as, func(tx *db.Tx) error { return w.Delete(w.as, tx, space, ids) }); err != nil {
				t.Fatal(err)
			}
		}
		remove(other, p.ID)
		remove(home, "nonsense", "packages-Nobody.1.0")
		if _, n := w.list(feed.Query{PackageID: "Acme"}); n != 2 {
			t.Errorf("%d versions are left", n)
		}
		remove(home, strings.ToLower(p.ID), p.ID)
		if got, _ := w.list(feed.Query{}); !slices.Equal(got, []string{"Acme 2.0"}) {
			t.Errorf("left are %v", got)
		}
		var messages []string
		w.read(func(tx *db.Tx) error {
			rows, err := tx.Query(w.as, `SELECT category, message FROM events ORDER BY id`)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var category, message string
				if err := rows.Scan(&category, &message); err != nil {
					return err
				}
				messages = append(messages, category+": "+message)
			}
			return rows.Err()
		})
		want := []string{"Created: Package Acme version 1.0 was pushed", "Created: Package Acme version 2.0 was pushed", "Deleted: Package Acme version 1.0 was deleted"}
		if diff := cmp.Diff(want, messages); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := os.Stat(w.dir); err != nil {
			t.Error(err)
		}
		w.pushed("Acme.1.0.zip", "again")
	})
}

// TestNear: what somebody may have of a package are the versions before, then those
// after, and never the version itself.
func TestNear(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for _, v := range []string{"1.10.0", "1.2.0", "1.1.0", "1.0.0", "2.0.0", "1.3.0-rc.1"} {
			w.pushed("Acme."+v+".zip", "content of "+v)
		}
		w.pushed("Zeta.1.0.0.zip", "another package")
		near := func(version string, n int) (found []string) {
			w.read(func(tx *db.Tx) error {
				found = nil
				all, err := w.Near(w.as, tx, home, "acme", version, n)
				for _, p := range all {
					found = append(found, p.Version)
				}
				return err
			})
			return found
		}
		for _, c := range []struct {
			version string
			n       int
			want    []string
		}{
			{"1.3.0-rc.1", 4, []string{"1.2.0", "1.1.0", "1.0.0", "1.10.0"}},
			{"1.0.0", 2, []string{"1.1.0", "1.2.0"}},
			{"3.0", 5, []string{"2.0.0", "1.10.0", "1.3.0-rc.1", "1.2.0", "1.1.0"}},
			{"2.0.0", 1, []string{"1.10.0"}},
		} {
			if diff := cmp.Diff(c.want, near(c.version, c.n)); diff != "" {
				t.Errorf("near %s (-want +got):\n%s", c.version, diff)
			}
		}
	})
}
