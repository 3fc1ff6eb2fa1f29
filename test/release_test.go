package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade/publish"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// dist makes a directory as `make release` does, with a program for this platform. It is
// said to have the schema of nextProgram.
func dist(t *testing.T, version string, program []byte) string {
	t.Helper()
	next := db.BinaryLevels().Level + 1
	return distOf(t, releasefeed.Release{Version: version, Level: next, MinReaderLevel: next}, program)
}

// distOf is dist of a release whose levels are not those of a next version.
func distOf(t *testing.T, r releasefeed.Release, program []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, publish.Program(r.Version, runtime.GOOS+"/"+runtime.GOARCH)), program, 0o600); err != nil {
		t.Fatal(err)
	}
	r.Date, r.UpgradeFromMin, r.Rollback = time.Unix(1000, 0).UTC(), "2026.1.0", releasefeed.RollbackFree
	r, err := publish.Describe(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, publish.ReleaseFile), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPublishing makes keys, roots, feeds and bundles as the project does.
func TestPublishing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	do := func(want string, args ...string) {
		t.Helper()
		out, code := run(t, "", append([]string{"release"}, args...)...)
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("%v: %d %s", args, code, out)
		}
	}
	refused := func(code int, want string, args ...string) {
		t.Helper()
		if out, got := run(t, "", append([]string{"release"}, args...)...); got != code || !strings.Contains(out, want) {
			t.Errorf("%v: %d %s", args, got, out)
		}
	}
	for _, k := range []string{"a", "b", "c"} {
		do("Key ", "keygen", at(k))
	}
	do("2 of 2 keys must sign", "root", "--key", at("a.pub"), "--key", at("b.pub"), "--threshold", "2", "--sign", at("a"), "--out", at("root.1.json"))
	refused(1, "1 of the keys", "verify", at("root.1.json"), "--root", at("root.1.json"))
	do("Signed by key", "sign", at("root.1.json"), "--key", at("b"))
	first := dist(t, "2026.5.0", []byte("the first"))
	do("Feed 1 of the channel stable: 1 releases, 1 signatures", "feed", "--dist", first, "--sign", at("a"), "--out", at("feed.json"), "--issued", "2026-11-01T00:00:00Z", "--days", "3000")
	refused(1, "1 of the keys", "verify", at("feed.json"), "--root", at("root.1.json"))
	do("Signed by key", "sign", at("feed.json"), "--key", at("b"))
	do("2026.5.0", "verify", at("feed.json"), "--root", at("root.1.json"))
	second := dist(t, "2026.6.0", []byte("the second"))
	next := []string{
		"feed", "--dist", second, "--previous", at("feed.json"), "--root", at("root.1.json"), "--revoke", "2026.5.0=it loses logs",
		"--sign", at("a"), "--sign", at("b"), "--issued", "2026-11-02T00:00:00Z", "--days", "3000", "--out",
	}
	do("Feed 2 of the channel stable: 2 releases, 2 signatures", append(next, at("feed2.json"))...)
	do("Feed 2", append(next, at("again.json"))...)
	one, err := os.ReadFile(at("feed2.json"))
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.ReadFile(at("again.json")); err != nil || string(one) != string(two) {
		t.Errorf("the same feed has other bytes (%v)", err)
	}
	do("revoked: it loses logs", "verify", at("feed2.json"), "--root", at("root.1.json"))
	do("Bundle of version 2026.6.0", "bundle", "--feed", at("feed2.json"), "--root", at("root.1.json"), "--dist", second, "--version", "2026.6.0", "--out", at("bundle"))
	do("2026.6.0", "verify", at("bundle"), "--root", at("root.1.json"))
	raw, err := os.ReadFile(at("bundle"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("changed"), []byte(strings.Replace(string(raw), "the second", "the seconD", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(1, "cut short or changed", "verify", at("changed"), "--root", at("root.1.json"))
	do("1 of 1 keys must sign", "root", "--previous", at("root.1.json"), "--key", at("c.pub"), "--sign", at("a"), "--sign", at("b"), "--sign", at("c"), "--out", at("root.2.json"))
	refused(1, "none of the keys", "verify", at("feed.json"), "--root", at("root.2.json"))
	refused(1, "other programs", "feed", "--dist", dist(t, "2026.5.0", []byte("another first")), "--previous", at("feed.json"), "--root", at("root.1.json"), "--out", at("x"))
	refused(1, "file exists", "keygen", at("a"))
	refused(2, "--out is missing", "feed", "--dist", first)
}
