package test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
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
			u.do(20, "verify of version", "--yes", "--to", next, "--probation", "1s")
			if got := u.last(); got.Failed != upgrade.Rehearsed {
				t.Errorf("it failed at %s: %s", got.Failed, got.Error)
			}
			u.serves(u.old)
			if out, code := run(t, "", append([]string{"database", "check", "--data", u.Data}, database(u.Process)...)...); code != 0 || !strings.Contains(out, `"SchemaLevel":1`) {
				t.Errorf("the schema after a rehearsal that failed: %d %s", code, out)
			}
			for _, e := range []string{one.ID, two.ID} {
				u.Must(t, http.MethodDelete, "/api/Spaces-1/environments/"+e, nil, nil)
			}

			stop := u.ask()
			faults := []struct{ fault, says string }{
				{"exit", "cannot take over: it has ended"},
				{"errors", "of its"},
				{"die", ""}, // whoever looks first: crashed, went back, or not well
			}
			switch {
			case soaking():
				faults = append(faults, struct{ fault, says string }{"hang", "did not answer within 30s"})
			case dialect == db.Postgres:
				faults = faults[1:2] // the database makes no difference to the others
			}
			for _, f := range faults {
				u.misbehave(f.fault)
				u.do(30, f.says, "--yes", "--to", next, "--probation", "1h")
				u.serves(u.old)
				u.bad(true)
				u.do(10, "nothing newer", "--yes")
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
