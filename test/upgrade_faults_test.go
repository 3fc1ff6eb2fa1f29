package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// misbehave says how the next version does it, "" for not at all.
func (u *upgraded) misbehave(fault string) {
	u.t.Helper()
	if err := os.WriteFile(u.fault, []byte(fault), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// ask makes requests that may fail, until the test ends or stop is called.
func (u *upgraded) ask() (stop func()) {
	ctx, cancel := context.WithCancel(u.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.URL+"/api/spaces/all", http.NoBody)
			if err != nil {
				return
			}
			req.Header.Set("X-Octopus-ApiKey", u.Key)
			if r, err := u.HTTP.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, r.Body) // it may be cut short
				_ = r.Body.Close()
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	u.t.Cleanup(stop)
	return stop
}

// bad asserts whether a version counts as one that failed here.
func (u *upgraded) bad(want bool) {
	u.t.Helper()
	trust, err := stage.Open(u.Root, nil).Trust()
	if err != nil {
		u.t.Fatal(err)
	}
	if reason, is := trust.Bad[next]; is != want {
		u.t.Errorf("version %s counts as bad: %v, because of %q", next, is, reason)
	}
}

// misdeed is how a next version misbehaves, and what an upgrade to it says then.
type misdeed struct{ kind, says string }

// misdeeds are all, those that take their time last.
func misdeeds() []misdeed {
	return []misdeed{
		{"exit", "cannot take over: it has ended"},
		{"errors", "of its"},
		{"die", ""}, // whoever looks first: crashed, went back, or not well
		{"hang", "did not answer within 30s"},
		{"unwell", "does not serve as it should: deep: the server is not ready (status 500)"},
	}
}

// fails upgrades to a version that misbehaves: the old one serves in the end, and the new
// one is not offered again.
func (u *upgraded) fails(m misdeed) {
	u.t.Helper()
	u.misbehave(m.kind)
	u.do(30, m.says, "--yes", "--to", next, "--probation", "1h")
	u.serves(u.old)
	u.bad(true)
	u.do(10, "nothing newer", "--yes")
}

// TestBadVersions upgrades to versions that do not start, fail requests, die of them,
// cannot work on the data: each time the old one serves in the end, nothing is lost, and
// the new one is not offered again.
func TestBadVersions(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			program := nextProgram(t)
			u := newUpgraded(t, dialect)
			u.site.publish(t, next, program)
			kept := u.environment("kept")
			// Data that a migration fails on shows in the rehearsal.
			one, two := u.environment("Spoiled 1"), u.environment("Spoiled 2")
			u.do(20, "did not work on a copy", "--yes", "--to", next, "--probation", "1s")
			if got := u.last(); got.Failed != upgrade.Rehearsed {
				t.Errorf("it failed at %s: %s", got.Failed, got.Error)
			}
			u.serves(u.old)
			u.bad(true)
			if out, code := run(t, "", append([]string{"database", "check", "--data", u.Data}, database(u.Process)...)...); code != 0 || !strings.Contains(out, fmt.Sprintf(`"SchemaLevel":%d`, db.BinaryLevels().Level)) {
				t.Errorf("the schema after a rehearsal that failed: %d %s", code, out)
			}
			for _, e := range []string{one.ID, two.ID} {
				u.Must(t, http.MethodDelete, "/api/Spaces-1/environments/"+e, nil, nil)
			}

			// So does what it does differently, which somebody may want.
			u.misbehave("differs")
			u.do(20, "things differently with the same data", "--yes", "--to", next, "--probation", "1s")
			if got := u.last(); got.Failed != upgrade.Rehearsed {
				t.Errorf("it failed at %s: %s", got.Failed, got.Error)
			}
			u.do(0, "Version "+next+" serves", "--yes", "--to", next, "--probation", "1s", "--accept-differences")
			u.bad(false)
			u.do(0, "Version "+u.old+" serves again", "rollback")
			u.misbehave("")

			stop := u.ask()
			kinds := misdeeds()
			switch {
			case soaking():
			case dialect == db.Postgres:
				kinds = kinds[1:2] // the database makes no difference to the others
			default:
				kinds = kinds[:3]
			}
			for _, m := range kinds {
				u.fails(m)
			}
			stop()
			u.misbehave("")

			// Once committed, a version that cannot stay alive is left all the same.
			u.do(0, "Version "+next+" serves", "--yes", "--to", next, "--probation", "1s")
			u.bad(false)
			u.misbehave("die")
			stop = u.ask()
			eventually(t, "the supervisor has gone back", func() bool { return u.last().State == upgrade.RolledBack })
			stop()
			u.serves(u.old)
			u.bad(true)
			if got := apptest.Get[struct{ Name string }](t, u.Client, "/api/Spaces-1/environments/"+kept.ID); got.Name != kept.Name {
				t.Errorf("%+v was kept", got)
			}
		})
	}
}

// gate stands before a PostgreSQL server, and can be shut.
type gate struct {
	url string

	mu    sync.Mutex
	shut  bool
	conns []net.Conn
}

func newGate(t *testing.T, database string) *gate {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	g := &gate{url: (&url.URL{Scheme: "postgres", User: u.User, Host: ln.Addr().String(), Path: u.Path, RawQuery: "sslmode=disable"}).String()}
	socket := filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return // the test has ended
			}
			to, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "unix", socket)
			if err != nil || !g.keep(c, to) {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
			go func() { _, _ = io.Copy(c, to); _ = c.Close() }()
		}
	}()
	return g
}

func (g *gate) keep(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, conns...)
	return !g.shut
}

// close shuts the gate, and cuts every connection; open lets new ones through.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

// TestDatabaseIsAwayOnProbation takes the database away while a new version is watched:
// the old one could do nothing either, so nobody goes back.
func TestDatabaseIsAwayOnProbation(t *testing.T) {
	t.Parallel()
	if !slices.Contains(apptest.Dialects(), db.Postgres) {
		t.Skip("PostgreSQL is not under test")
	}
	var g *gate
	u := newUpgraded(t, db.Postgres, func(p *apptest.Process) {
		g = newGate(t, p.Database)
		p.Database = g.url
	})
	u.site.publish(t, next, nextProgram(t))
	cmd := exec.CommandContext(t.Context(), apptest.Binary(t), u.args("--yes", "--probation", "1s")...)
	once := t.TempDir()
	const edge = "upgrade-begun-probation"
	cmd.Env = append(os.Environ(), "TAKO_FAILPOINT="+edge+":stall=1h", "TAKO_FAILPOINT_ONCE="+once)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has switched", func() bool { _, err := os.Stat(filepath.Join(once, edge)); return err == nil })
	g.close()
	owner := upgrade.Attended(u.Root)
	if owner == 0 {
		t.Fatal("nobody carries it out")
	}
	if err := syscall.Kill(owner, syscall.SIGKILL); err != nil { // another one watches
		t.Fatal(err)
	}
	eventually(t, "both versions are known to be unwell", func() bool {
		raw, err := os.ReadFile(filepath.Join(u.Root, "upgrade", "worker.log"))
		return err == nil && strings.Contains(string(raw), "would not be either") || u.last().State != upgrade.Switched
	})
	if got := u.last(); got.State != upgrade.Switched || got.Failed != "" {
		t.Errorf("while the database was away it became %s: %s", got.State, got.Error)
	}
	g.open()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the upgrade ended with %v, as %s: %s", err, u.last().State, u.last().Error)
	}
	u.serves(next)
}
