package test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/publish"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// feedSite is a site with releases, and the root by which its feed is believed.
type feedSite struct {
	url, root string
	key       ed25519.PrivateKey
	dir       string
	releases  []releasefeed.Release
	number    int64
}

func newFeedSite(t *testing.T) *feedSite {
	t.Helper()
	f := &feedSite{dir: t.TempDir(), key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	s := httptest.NewServer(http.FileServer(http.Dir(f.dir)))
	t.Cleanup(s.Close)
	f.url = s.URL + "/feed.json"
	public, _ := f.key.Public().(ed25519.PublicKey)
	r, err := releasefeed.NewRoot(1, 1, public)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := releasefeed.Sign(r, f.key)
	if err != nil {
		t.Fatal(err)
	}
	f.root = filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(f.root, signed, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// publish puts a version on the site.
func (f *feedSite) publish(t *testing.T, version string, program []byte) {
	t.Helper()
	from := dist(t, version, program)
	r, err := publish.ReadRelease(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Artifacts {
		if err := os.WriteFile(filepath.Join(f.dir, a.URL), program, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.number++
	f.releases = append(f.releases, r)
	feed, err := releasefeed.NewFeed(releasefeed.Feed{Channel: "stable", Number: f.number, Issued: time.Now(), Expires: time.Now().Add(time.Hour), Releases: f.releases})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := releasefeed.Sign(feed, f.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(filepath.Join(f.dir, "feed.json"), signed, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestUpgrade takes a server that is in use to another version by one command, back by
// one, and there again for good. No request fails.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	const next = "2026.5.0"
	program, err := os.ReadFile(apptest.BuildVersion(t, next))
	if err != nil {
		t.Fatal(err)
	}
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.Supervised()
			// A connection that stays open stays with the former server.
			p.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			p.Start()
			site := newFeedSite(t)
			do := func(code int, want string, args ...string) {
				t.Helper()
				args = append([]string{"upgrade"}, args...)
				args = append(args, "--root", p.Root)
				if p.Database != "" {
					args = append(args, "--database", p.Database)
				}
				out, got := run(t, "", args...)
				if got != code || !strings.Contains(out, want) {
					raw, _ := os.ReadFile(filepath.Join(p.Root, "upgrade", "worker.log")) // for the reader
					t.Fatalf("%v: exit code %d, not %d\n%s\n%s\n%s", args, got, code, out, raw, p.Output())
				}
			}
			version := func() string {
				return apptest.Get[struct{ Version string }](t, p.Client, "/api").Version
			}
			old := version()
			do(2, "--feed is missing", "check")
			do(0, "Root 1 is trusted", "trust", site.root, "--feed", site.url)
			site.publish(t, next, program)
			stop := requests(t, p.Client)
			do(0, old+" -> "+next, "check")
			do(0, "Nothing speaks against it", "--dry-run")
			if _, err := os.Stat(filepath.Join(p.Root, "versions", next)); err == nil {
				t.Error("a dry run has installed the version")
			}
			do(2, "--yes is missing")
			do(0, "Version "+next+" serves", "--yes", "--probation", "1s")
			if got := version(); got != next {
				t.Errorf("version %s serves", got)
			}
			do(75, "is under way", "--yes", "--to", next)
			do(0, string(upgrade.Committed), "status")
			do(0, "It is finalized at", "hold", "--for", "200h")
			restarted(t, p)
			do(0, "Version "+old+" serves again", "rollback")
			if got := version(); got != old {
				t.Errorf("version %s serves", got)
			}
			do(1, "nothing to go back from", "rollback")
			do(0, "Version "+next+" serves", "--yes", "--probation", "1s", "--hold", "100h")
			do(0, "is final", "finalize")
			do(1, "finalized", "rollback")
			do(10, "nothing newer", "check")
			// One that does not work is given up before it has done any harm.
			site.publish(t, "2026.6.0", fmt.Appendf(nil, `#!/bin/sh
[ "$1" = version ] && echo '{"Version":"2026.6.0","Platform":"%s/%s"}' && exit
echo 'tako: it cannot' >&2
exit 1
`, runtime.GOOS, runtime.GOARCH))
			do(20, "it cannot", "--yes")
			if n, failed := stop(); failed > 0 || n == 0 {
				t.Errorf("%d of %d requests failed", failed, n)
			}
			if got := version(); got != next {
				t.Errorf("version %s serves", got)
			}
			out, _ := run(t, "", "upgrade", "history", "--output", "json", "--root", p.Root)
			var all []upgrade.Txn
			if err := json.Unmarshal([]byte(out), &all); err != nil {
				t.Fatal(err)
			}
			var states []string
			for i := range all {
				states = append(states, string(all[i].State))
			}
			if got := strings.Join(states, " "); got != "ABORTED FINALIZED ROLLED_BACK" {
				t.Errorf("the history is %s", got)
			}
		})
	}
}

// restarted kills whoever carries the upgrade out, and the supervisor: the next one has
// the upgrade gone on with.
func restarted(t *testing.T, p *apptest.Process) {
	t.Helper()
	pid, err := upgrade.Owner(p.Root)
	if err != nil || pid == 0 {
		t.Fatalf("nobody carries the upgrade out (%v)", err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { now, err := upgrade.Owner(p.Root); return err == nil && now == 0 })
	p.Kill()
	p.Start()
	eventually(t, "another carries it out", func() bool { now, err := upgrade.Owner(p.Root); return err == nil && now > 1 })
}
