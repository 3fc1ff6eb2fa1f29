package publish

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/upgrade/bundle"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a")
	id, err := NewKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	private, err := ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ReadPublicKey(path + PublicSuffix)
	if err != nil || !public.Equal(private.Public()) || releasefeed.KeyID(public) != id {
		t.Errorf("%v, %s", err, id)
	}
	if _, err := NewKey(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a key: %v", err)
	}
	if _, err := ReadKey(path + PublicSuffix); err == nil {
		t.Error("a public key was read as a private one")
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(path); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("a key that others may read: %v", err)
	}
}

// dist makes a directory of a release with a program for each platform.
func dist(t *testing.T, version string, platforms ...string) (string, releasefeed.Release) {
	t.Helper()
	dir := t.TempDir()
	for _, p := range platforms {
		if err := os.WriteFile(filepath.Join(dir, Program(version, p)), []byte(version+" for "+p), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	for _, other := range []string{"SHA256SUMS", "tako-agent-" + version + "-linux-amd64", Program(version+"-rc.1", "linux/amd64")} {
		if err := os.WriteFile(filepath.Join(dir, other), []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Describe(dir, releasefeed.Release{Version: version, Date: time.Unix(1000, 0).UTC(), Level: 3, MinReaderLevel: 2, UpgradeFromMin: "2026.1.0", Rollback: releasefeed.RollbackFree})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ReleaseFile), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, r
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	dir, r := dist(t, "2026.5.0", "linux/amd64", "linux/arm64")
	if len(r.Artifacts) != 2 || r.Artifacts["linux/arm64"].Size != int64(len("2026.5.0 for linux/arm64")) || r.Artifacts["linux/arm64"].URL != "tako-2026.5.0-linux-arm64" {
		t.Errorf("%+v", r.Artifacts)
	}
	got, err := ReadRelease(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(filepath.Join(dir, Program("2026.5.0", "linux/amd64")), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRelease(dir); err == nil {
		t.Error("a program was changed after it was described")
	}
	if _, err := Describe(t.TempDir(), r); err == nil {
		t.Error("described without programs")
	}
	r.Rollback = ""
	if _, err := Describe(dir, r); !releasefeed.Is(err, releasefeed.Malformed) {
		t.Errorf("without what going back costs: %v", err)
	}
}

func TestAddAndRevoke(t *testing.T) {
	t.Parallel()
	_, r := dist(t, "2026.5.0", "linux/amd64")
	f, err := Add(releasefeed.Feed{}, r)
	if err != nil || len(f.Releases) != 1 {
		t.Fatal(f, err)
	}
	noted := r
	noted.Notes = "more to say"
	if f, err = Add(f, noted); err != nil || len(f.Releases) != 1 || f.Releases[0].Notes != "more to say" {
		t.Errorf("said more: %+v %v", f, err)
	}
	_, other := dist(t, "2026.5.0", "linux/arm64")
	if _, err := Add(f, other); err == nil {
		t.Error("a version was published with other programs")
	}
	if f, err = Revoke(f, "2026.5.0", "it loses logs"); err != nil || f.Releases[0].Revoked != "it loses logs" {
		t.Errorf("%+v %v", f, err)
	}
	if _, err := Revoke(f, "2026.6.0", "no reason"); err == nil {
		t.Error("an unknown version was revoked")
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	dir, r := dist(t, "2026.5.0", "linux/amd64", "linux/arm64")
	f := releasefeed.Feed{Channel: "stable", Releases: []releasefeed.Release{r}}
	out := filepath.Join(t.TempDir(), "b")
	if err := WriteBundle(out, []byte("the feed"), f, "2026.5.0", dir, nil); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "b")
	if err := WriteBundle(again, []byte("the feed"), f, "2026.5.0", dir, nil); err != nil {
		t.Fatal(err)
	}
	one, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.ReadFile(again); err != nil || !bytes.Equal(one, two) {
		t.Errorf("the same release, and another bundle (%v)", err)
	}
	b, err := bundle.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if string(b.Feed) != "the feed" || b.Version != "2026.5.0" || CheckBundle(b, f) != nil {
		t.Errorf("%q %q %v", b.Feed, b.Version, CheckBundle(b, f))
	}
	in, size, ok := b.Program("linux/arm64")
	if !ok || size != r.Artifacts["linux/arm64"].Size {
		t.Fatal(size, ok)
	}
	if text, err := io.ReadAll(in); err != nil || string(text) != "2026.5.0 for linux/arm64" {
		t.Errorf("%q %v", text, err)
	}
	if _, _, ok := b.Program("windows/amd64"); ok {
		t.Error("a program for Windows")
	}
	for name, content := range map[string][]byte{
		"empty": nil, "no archive": []byte("hello"), "cut in the feed": one[:1030], "cut in a header": one[:1536], "cut between programs": one[:2048], "without its end": one[:len(one)-1024], "cut in a program": one[:len(one)-2048],
	} {
		path := filepath.Join(t.TempDir(), "cut")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.Open(path); !errors.Is(err, bundle.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	changed := bytes.Replace(one, []byte("for linux/arm64"), []byte("for linux/evil6"), 1)
	path := filepath.Join(t.TempDir(), "changed")
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	evil, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer evil.Close()
	if err := CheckBundle(evil, f); err == nil {
		t.Error("a changed program is not found")
	}
	if err := WriteBundle(filepath.Join(t.TempDir(), "b"), nil, f, "2026.5.0", dir, []string{"windows/amd64"}); err == nil {
		t.Error("a bundle of a program that is not there")
	}
}
