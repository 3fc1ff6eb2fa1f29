package agent

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// item is an entry of a test's archive.
type item struct {
	name string
	body string
	mode fs.FileMode // type and permissions
	link string      // of a hard link
}

func tarOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, it := range items {
		h := &tar.Header{Name: it.name, Mode: int64(it.mode.Perm()), Size: int64(len(it.body)), Typeflag: tar.TypeReg}
		switch {
		case it.link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, it.link, 0
		case it.mode.Type() == fs.ModeSymlink:
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, it.body, 0
		case it.mode.IsDir():
			h.Typeflag = tar.TypeDir
		case it.mode.Type() == fs.ModeNamedPipe:
			h.Typeflag = tar.TypeFifo
		}
		err := w.WriteHeader(h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = io.WriteString(w, it.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, it := range items {
		h := &zip.FileHeader{Name: it.name, Method: zip.Deflate, Modified: time.Unix(1e9, 0)}
		h.SetMode(it.mode)
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(f, it.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpackInto unpacks b as a file of that name into dir, which is below base.
func unpackInto(ctx context.Context, t testing.TB, base, name string, b []byte, change func(*unpacker)) (*unpacker, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "package")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := os.OpenRoot(base)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	u := &unpacker{root: root, dir: ".", limits: archiveLimits{entries: 1000, bytes: 10 << 20, ratio: 100}}
	if change != nil {
		change(u)
	}
	return u, u.unpack(ctx, f, name)
}

// tree lists what is below dir: content, "-> target" or "dir", with permissions.
func treeOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			out[rel] = "dir"
		case fs.ModeSymlink:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			out[rel] = "-> " + to
		default:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			out[rel] = info.Mode().Perm().String() + " " + string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	items := []item{
		{name: "bin/", mode: fs.ModeDir | 0o755},
		{name: "bin/run.sh", body: "#!/bin/sh\n", mode: 0o755},
		{name: "./conf/app.json", body: "{}", mode: 0o640},
		{name: "current", body: "bin", mode: fs.ModeSymlink | 0o777},
		{name: "conf/up", body: "../bin/run.sh", mode: fs.ModeSymlink | 0o777},
		{name: `win\dir\a.txt`, body: "a", mode: 0o644},
	}
	want := map[string]string{
		"bin": "dir", "bin/run.sh": "-rwxr-xr-x #!/bin/sh\n", "conf": "dir", "conf/app.json": "-rw-r----- {}",
		"current": "-> bin", "conf/up": "-> ../bin/run.sh", "win": "dir", "win/dir": "dir", "win/dir/a.txt": "-rw-r--r-- a",
	}
	for name, b := range map[string][]byte{
		"a.zip": zipOf(t, items...), "A.JAR": zipOf(t, items...), "a.tar": tarOf(t, items...),
		"a.tar.gz": gz(t, tarOf(t, items...)), "a.tgz": gz(t, tarOf(t, items...)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			for try := range 2 { // the second time over what is there
				if _, err := unpackInto(t.Context(), t, base, name, b, nil); err != nil {
					t.Fatalf("try %d: %v", try, err)
				}
				if diff := cmp.Diff(want, treeOf(t, base)); diff != "" {
					t.Fatalf("try %d: %s", try, diff)
				}
			}
		})
	}
}

func TestUnpackNupkg(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	b := zipOf(t, item{name: "_rels/.rels", mode: 0o644}, item{name: "[Content_Types].xml", mode: 0o644},
		item{name: "package/services/metadata/core-properties/1.psmdcp", mode: 0o644},
		item{name: "lib/with%20space%2Bplus.txt", body: "x", mode: 0o644}, item{name: "Acme.nuspec", body: "n", mode: 0o644})
	_, err := unpackInto(t.Context(), t, base, "Acme.1.0.0.nupkg", b, func(u *unpacker) { u.dir = "pkg" })
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"pkg": "dir", "pkg/Acme.nuspec": "-rw-r--r-- n", "pkg/lib": "dir", "pkg/lib/with space+plus.txt": "-rw-r--r-- x"}
	if diff := cmp.Diff(want, treeOf(t, base)); diff != "" {
		t.Error(diff)
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	link := func(name, to string) item { return item{name: name, body: to, mode: fs.ModeSymlink | 0o777} }
	file := func(name string) item { return item{name: name, body: "x", mode: 0o644} }
	for _, c := range []struct {
		name  string
		items []item
		want  error
	}{
		{"parent", []item{file("../evil")}, errOutside},
		{"parent within", []item{file("a/../../evil")}, errOutside},
		{"backslashes", []item{file(`..\evil`)}, errOutside},
		{"absolute", []item{file("/etc/evil")}, errOutside},
		{"absolute link", []item{link("l", "/etc")}, errOutside},
		{"link to parent", []item{link("l", "..")}, errOutside},
		{"link out of a directory", []item{link("a/l", "../../x")}, errOutside},
		{"link that goes up after a name", []item{link("a/b/l", "../.."), link("m", "a/b/l/../x")}, errOutside},
		{"entry through a link", []item{file("a/x"), link("l", "a"), file("l/evil")}, errThroughLink},
		{"directory through a link", []item{file("a/x"), link("l", "a"), {name: "l/", mode: fs.ModeDir | 0o755}}, errThroughLink},
		{"hard link outside", []item{{name: "h", link: "../../etc/passwd", mode: 0o644}}, errOutside},
		{"hard link through a link", []item{file("a/x"), link("l", "a"), {name: "h", link: "l/x", mode: 0o644}}, errThroughLink},
		{"hard link to a link", []item{link("l", "a"), {name: "h", link: "l", mode: 0o644}}, errKind},
		{"pipe", []item{{name: "p", mode: fs.ModeNamedPipe | 0o644}}, errKind},
		{"file over a directory", []item{file("a/x"), file("a")}, errKind},
		{"directory over a file", []item{file("a"), file("a/x")}, errKind},
		{"bomb", []item{{name: "b", body: strings.Repeat("0", 9<<20), mode: 0o644}}, errBomb},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			outer := t.TempDir()
			base := filepath.Join(outer, "base")
			if err := os.Mkdir(base, 0o700); err != nil {
				t.Fatal(err)
			}
			_, err := unpackInto(t.Context(), t, base, "x.tgz", gz(t, tarOf(t, c.items...)), nil)
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if got := slices.Sorted(maps.Keys(treeOf(t, outer))); slices.ContainsFunc(got, func(s string) bool { return s != "base" && !strings.HasPrefix(s, "base/") }) {
				t.Errorf("something landed outside: %v", got)
			}
		})
	}
	for name, limits := range map[string]archiveLimits{
		errTooMany.Error():  {entries: 1, bytes: 1 << 20, ratio: 1000},
		errTooLarge.Error(): {entries: 10, bytes: 1, ratio: 1000},
	} {
		_, err := unpackInto(t.Context(), t, t.TempDir(), "x.zip", zipOf(t, file("a"), file("b")), func(u *unpacker) { u.limits = limits })
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %s", err, name)
		}
	}
	if _, err := unpackInto(t.Context(), t, t.TempDir(), "x.rar", nil, nil); !errors.Is(err, errNotArchive) {
		t.Errorf("error %v", err)
	}
	canceled, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	if _, err := unpackInto(canceled, t, t.TempDir(), "x.zip", zipOf(t, file("a")), nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

// A package does not replace what the server sent for the script.
func TestUnpackLeavesTaken(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	if err := os.WriteFile(filepath.Join(base, bodyName), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := zipOf(t, item{name: "./" + bodyName, body: "evil", mode: 0o755}, item{name: "other", body: "o", mode: 0o644})
	u, err := unpackInto(t.Context(), t, base, "x.zip", b, func(u *unpacker) { u.taken = map[string]bool{bodyName: true} })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{bodyName: "-rw------- mine", "other": "-rw-r--r-- o"}, treeOf(t, base)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{bodyName}, u.skipped); diff != "" {
		t.Error(diff)
	}
}

// Whatever an archive holds: nothing lands outside, no link leads outside, the
// limits hold, and nothing panics.
func FuzzUnpack(f *testing.F) {
	items := []item{
		{name: "d/", mode: fs.ModeDir | 0o755},
		{name: "d/f", body: "text", mode: 0o644},
		{name: "l", body: "d", mode: fs.ModeSymlink | 0o777},
		{name: "../up", body: "x", mode: 0o644},
		{name: "d/l2", body: "../..", mode: fs.ModeSymlink | 0o777},
	}
	for n := range items {
		f.Add(uint8(0), zipOf(f, items[:n+1]...))
		f.Add(uint8(1), tarOf(f, items[:n+1]...))
		f.Add(uint8(2), gz(f, tarOf(f, items[:n+1]...)))
		f.Add(uint8(3), zipOf(f, items[:n+1]...))
	}
	names := []string{"a.zip", "a.tar", "a.tgz", "a.nupkg"}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		outer := t.TempDir()
		base := filepath.Join(outer, "base")
		if err := os.Mkdir(base, 0o700); err != nil {
			t.Fatal(err)
		}
		u, err := unpackInto(t.Context(), t, base, names[int(kind)%len(names)], b, func(u *unpacker) { u.limits = archiveLimits{entries: 50, bytes: 1 << 20, ratio: 100} })
		if err == nil && (u.entries > 50 || u.bytes > 1<<20) {
			t.Errorf("%d entries, %d bytes", u.entries, u.bytes)
		}
		entries, err := os.ReadDir(outer)
		if err != nil || len(entries) != 1 {
			t.Fatalf("outside: %v, %v", entries, err)
		}
		_ = filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Type() == fs.ModeSymlink {
				if real, err := filepath.EvalSymlinks(p); err == nil && real != base && !strings.HasPrefix(real, base+"/") {
					to, _ := os.Readlink(p)
					t.Errorf("%s -> %s leads to %s", p, to, real)
				}
			}
			return nil
		})
	})
}
