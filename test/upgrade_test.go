package test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/bundle"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/publish"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/octopus"
)

// feedSite is a site with releases, and the root by which its feed is believed.
type feedSite struct {
	url, root string
	key       ed25519.PrivateKey
	dir       string
	releases  []releasefeed.Release
	number    int64
	// valid is for how long from now feeds are good; negative for one that has expired.
	valid time.Duration
}

func newFeedSite(t *testing.T) *feedSite {
	t.Helper()
	f := &feedSite{dir: t.TempDir(), valid: time.Hour, key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
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
	f.publishFrom(t, dist(t, version, program), program)
}

// publishFrom puts what was built on the site.
func (f *feedSite) publishFrom(t *testing.T, from string, program []byte) {
	t.Helper()
	r, err := publish.ReadRelease(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Artifacts {
		if err := os.WriteFile(filepath.Join(f.dir, a.URL), program, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.releases = append(f.releases, r)
	f.number++
	f.sign(t)
}

// sign puts the feed of all releases on the site.
func (f *feedSite) sign(t *testing.T) {
	t.Helper()
	now := time.Now()
	feed, err := releasefeed.NewFeed(releasefeed.Feed{Channel: "stable", Number: f.number, Issued: now.Add(2 * min(f.valid, 0)), Expires: now.Add(f.valid), Releases: f.releases})
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

// bundle is the newest release with the feed, in one file.
func (f *feedSite) bundle(t *testing.T) []byte {
	t.Helper()
	feed, err := os.ReadFile(filepath.Join(f.dir, "feed.json"))
	if err != nil {
		t.Fatal(err)
	}
	r := f.releases[len(f.releases)-1]
	var programs []bundle.Program
	for platform, a := range r.Artifacts {
		programs = append(programs, bundle.Program{Platform: platform, Path: filepath.Join(f.dir, a.URL), Size: a.Size})
	}
	var out bytes.Buffer
	if err := bundle.Write(&out, feed, r.Version, programs); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// upgraded is a supervised server, and a site that has releases for it.
type upgraded struct {
	*apptest.Process
	t    *testing.T
	site *feedSite
	old  string // version
	// fault is the file that says how the next version misbehaves.
	fault string
}

// newUpgraded starts one; change may change it before.
func newUpgraded(t *testing.T, dialect db.Dialect, change ...func(*apptest.Process)) *upgraded {
	t.Helper()
	u := &upgraded{Process: apptest.NewProcess(t, dialect), t: t, site: newFeedSite(t), fault: filepath.Join(t.TempDir(), "fault")}
	u.Supervised()
	t.Cleanup(func() {
		if pid := upgrade.Attended(u.Root); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	u.Env = []string{"TAKO_TEST_FAULT=" + u.fault}
	// A connection that stays open stays with the former server.
	u.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, fn := range change {
		fn(u.Process)
	}
	u.Start()
	u.old = u.version()
	confirmKit(t, u.Process)
	u.do(0, "Root 1 is trusted", "trust", u.site.root, "--feed", u.site.url)
	return u
}

// args is the command line of a command about upgrades.
func (u *upgraded) args(args ...string) []string {
	args = append([]string{"upgrade"}, args...)
	args = append(args, "--root", u.Root)
	if u.Database != "" {
		args = append(args, "--database", u.Database)
	}
	return args
}

// do runs a command about upgrades, which is to end with a code and to say something. It has
// the environment of the server.
func (u *upgraded) do(code int, want string, args ...string) {
	u.t.Helper()
	out, got := runProgram(u.t, u.Executable(u.t), u.Env, "", u.args(args...)...)
	if got != code || !strings.Contains(out, want) {
		raw, _ := os.ReadFile(filepath.Join(u.Root, "upgrade", "worker.log")) // for the reader
		u.t.Fatalf("%v: exit code %d, not %d\n%s\n%s\n%s", args, got, code, out, raw, u.Output())
	}
}

// unharmed is do while the server is asked all the time, and answers each time. The
// requests end with it: a connection that is left idle keeps the former server alive.
func (u *upgraded) unharmed(code int, want string, args ...string) {
	u.t.Helper()
	stop := requests(u.t, u.Client)
	u.do(code, want, args...)
	if n, failed := stop(); failed > 0 || n == 0 {
		u.t.Errorf("%v: %d of %d requests failed", args, failed, n)
	}
}

// version is the one that answers.
func (u *upgraded) version() string {
	u.t.Helper()
	return apptest.Get[struct{ Version string }](u.t, u.Client, "/api").Version
}

// serves asserts which version answers.
func (u *upgraded) serves(want string) {
	u.t.Helper()
	if got := u.version(); got != want {
		u.t.Errorf("version %s serves, not %s", got, want)
	}
}

// last is the newest upgrade.
func (u *upgraded) last() *upgrade.Txn {
	u.t.Helper()
	last, err := upgrade.Last(u.entries())
	if err != nil {
		u.t.Fatal(err)
	}
	return last
}

// pinned is a backup, as the program lists it.
type pinned struct {
	ID  string
	Pin *struct {
		Upgrade string
		Until   time.Time
	}
}

func (u *upgraded) backups() (all []pinned) {
	u.t.Helper()
	out, code := run(u.t, "", append([]string{"backup", "list", "--output", "json", "--data", u.Data}, database(u.Process)...)...)
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 {
		u.t.Fatalf("the list of backups: %d %v %s", code, err, out)
	}
	return all
}

// entries are those of the journal.
func (u *upgraded) entries() []journal.Entry {
	u.t.Helper()
	j, err := journal.Open(upgrade.Dir(u.Root))
	if err != nil {
		u.t.Fatal(err)
	}
	return j.Entries()
}

// backup asserts that the last upgrade's is kept until it is final, or else that it is let go
// two weeks from now.
func (u *upgraded) backup(keep bool) {
	u.t.Helper()
	all := u.backups()
	id, n := u.last().ID, 0
	for _, b := range all {
		if b.Pin == nil || b.Pin.Upgrade != id {
			continue
		}
		n++
		if left := time.Until(b.Pin.Until); keep != b.Pin.Until.IsZero() || !keep && (left > 14*24*time.Hour || left < 13*24*time.Hour) {
			u.t.Errorf("backup %s of upgrade %s is kept until %s", b.ID, id, b.Pin.Until)
		}
	}
	if n != 1 {
		u.t.Errorf("%d backups are kept for upgrade %s: %+v", n, id, all)
	}
}

// environment makes one, for whoever looks whether something is lost.
func (u *upgraded) environment(name string) octopus.Environment {
	u.t.Helper()
	return apptest.Post(u.t, u.Client, "/api/Spaces-1/environments", octopus.Environment{Name: name})
}

// TestUpgrade takes a server that is in use to another version by one command, back by
// one, and there again for good. No request fails, and nothing is lost.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			program := nextProgram(t)
			u := newUpgraded(t, dialect)
			u.site.publish(t, next, program)
			u.do(0, u.old+" -> "+next, "check")
			u.do(0, "Nothing speaks against it", "--dry-run")
			if _, err := os.Stat(filepath.Join(u.Root, "versions", next)); err == nil {
				t.Error("a dry run has installed the version")
			}
			u.do(2, "--yes is missing")
			before := u.environment("before")
			u.unharmed(0, "Version "+next+" serves", "--yes", "--probation", "1s")
			u.serves(next)
			during := u.environment("during")
			u.do(75, "is under way", "--yes", "--to", next)
			u.do(0, string(upgrade.Committed), "status")
			u.do(0, "It is finalized at", "hold", "--for", "200h")
			restarted(t, u.Process)
			u.unharmed(0, "Version "+u.old+" serves again", "rollback")
			u.serves(u.old)
			for _, e := range []octopus.Environment{before, during} {
				if got := apptest.Get[octopus.Environment](t, u.Client, "/api/Spaces-1/environments/"+e.ID); got.Name != e.Name {
					t.Errorf("%s is %+v after the way back", e.Name, got)
				}
			}
			u.do(1, "nothing to go back from", "rollback")
			for _, old := range []string{"2026.1.0", "2026.2.0"} {
				if err := supervisor.Install(u.Root, old, u.Executable(t)); err != nil {
					t.Fatal(err)
				}
			}
			u.do(0, "stays until it is unpinned", "pin", "2026.1.0", "--reason", "the audit")
			// Its publisher has found out meanwhile that only a restore leads back.
			u.site.releases[0].Rollback = releasefeed.RollbackRestore
			u.site.number++
			u.site.sign(t)
			for _, command := range [][]string{{"check"}, {"--dry-run"}} {
				u.do(0, "The only way back from it is to restore the backup", command...)
			}
			u.dropIndex()
			u.unharmed(0, "Only a restore leads back", "--yes", "--probation", "1s", "--hold", "100h")
			u.indexIsBack()
			u.wayBack("Close the upgrade afterwards: tako upgrade rollback")
			u.serves(next)
			u.do(0, "1 versions removed", "prune")
			u.onDisk("2026.2.0", false)
			if err := supervisor.Install(u.Root, "2026.2.0", u.Executable(t)); err != nil {
				t.Fatal(err)
			}
			if all := u.versionsOf(); !strings.HasSuffix(all[u.old], "has not come to its end") || all[next] != "it is the current version" || all["2026.1.0"] != "it is pinned: the audit" {
				t.Errorf("of the versions %v is said", all)
			}
			u.environment("after the backup")
			u.unharmed(0, "is final", "finalize")
			for v, want := range map[string]bool{"2026.1.0": true, "2026.2.0": false, u.old: true, next: true} {
				u.onDisk(v, want)
			}
			commands := u.wayBack("was finalized")
			u.do(10, "nothing newer", "check")
			// The version before refuses what it can no longer work on.
			if out, code := run(t, "", append([]string{"database", "check", "--data", u.Data}, database(u.Process)...)...); code != 78 {
				t.Errorf("the version before: exit code %d, %s", code, out)
			}
			// One that does not work is given up before it has done any harm.
			u.site.publish(t, "2026.7.0", fmt.Appendf(nil, `#!/bin/sh
[ "$1" = version ] && echo '{"Version":"2026.7.0","Platform":"%s/%s"}' && exit
echo 'tako: it cannot' >&2
exit 1
`, runtime.GOOS, runtime.GOARCH))
			u.unharmed(20, "it cannot", "--yes")
			u.serves(next)
			out, _ := run(t, "", u.args("history", "--output", "json")...)
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
			u.goBack(commands)
			if got := u.all(); slices.Contains(got, "after the backup") || !slices.Contains(got, "before") {
				t.Errorf("after the restore there are %q", got)
			}
		})
	}
}

// database is the flag for a server's database, if it needs one.
func database(p *apptest.Process) []string {
	if p.Database == "" {
		return nil
	}
	return []string{"--database", p.Database}
}

// restarted kills whoever carries the upgrade out, and the supervisor: the next one has
// the upgrade gone on with.
func restarted(t *testing.T, p *apptest.Process) {
	t.Helper()
	pid := upgrade.Attended(p.Root)
	if pid == 0 {
		t.Fatal("nobody carries the upgrade out")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { return upgrade.Attended(p.Root) != pid })
	p.Kill()
	p.Start()
	eventually(t, "another carries it out", func() bool { return upgrade.Attended(p.Root) != 0 })
}
