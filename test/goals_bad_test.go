package test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
)

// The load while versions misbehave.
const (
	badRate  = 100 // requests a second
	badOneIn = 5   // is a write
)

// aimed is what is aimed at for each kind of misdeed.
func aimed() map[string]struct{ what, aim string } {
	return map[string]struct{ what, aim string }{
		"exit":   {"exits at its start", "at most 1 s"},
		"hang":   {"hangs at its start", "at most 30 s"},
		"errors": {"fails requests", "at most 30 s"},
		"unwell": {"says that it is not well", "at most 30 s"},
		"die":    {"dies of its first request", "at most 10 s"},
	}
}

// badVersions upgrades to versions that misbehave, and measures how long they serve.
func (g *goals) badVersions(t *testing.T, dialect db.Dialect, program []byte) {
	u := newUpgraded(t, dialect)
	u.site.publish(t, next, program)
	for _, m := range misdeeds() {
		l := newTraffic(t, u.Client, badRate, badOneIn)
		stop := u.ask() // what some of them fail at
		u.fails(m)
		stop()
		l.end(t)
		f, last, served, of := l.figures(anyRequest), u.last(), u.tookOver(), aimed()[m.kind]
		goal := "until the old one serves, 0 lost: a version that " + of.what + ", " + dialect.String()
		if f.lost > 0 {
			t.Errorf("%s: %d stored numbers were not there", m.kind, f.lost)
		}
		if !served.IsZero() {
			g.seen(t, goal, of.aim, "%s after it took over; %d of %d other requests failed%s; %d lost",
				last.At.Sub(served).Round(time.Millisecond), f.failed, f.n, f.while(), f.lost)
			continue
		}
		if f.failed+f.again > 0 {
			t.Errorf("%s: it never served, and %d requests failed, %d were sent twice", m.kind, f.failed, f.again)
		}
		g.seen(t, goal, of.aim, "given up %s after its start, and never served; %d of %d requests failed; %d lost",
			last.At.Sub(u.step(upgrade.Switched).Begun).Round(time.Millisecond), f.failed, f.n, f.lost)
	}
	u.misbehave("")
	g.diesLater(t, u, dialect)
}

// tookOver is when the version of the last upgrade began to serve, zero if it never did.
func (u *upgraded) tookOver() time.Time {
	u.t.Helper()
	last := u.last()
	for _, e := range u.entries() {
		var way struct{ To string }
		if e.Txn != last.ID || e.Kind != supervisor.NoteSwitched {
			continue
		}
		if err := json.Unmarshal(e.Data, &way); err != nil {
			u.t.Fatal(err)
		}
		if way.To == last.Plan.To {
			return e.At
		}
	}
	return time.Time{}
}

// while is how long requests failed, for those that did.
func (f figures) while() string {
	if f.failed == 0 {
		return ""
	}
	return " within " + f.outage.String()
}

// diesLater is a version that serves well for a minute, and then dies.
func (g *goals) diesLater(t *testing.T, u *upgraded, dialect db.Dialect) {
	well := time.Duration(apptest.Size(t, "TAKO_TEST_GOALS_DEATH", 60)) * time.Second
	l := newTraffic(t, u.Client, badRate, badOneIn)
	stop := u.ask()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), u.Executable(t), u.args("--yes", "--to", next, "--probation", "1h")...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), u.Env...), &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// The upgrade gives way to all these requests: nobody knows how long it takes.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Minute); u.last().State != upgrade.Switched; {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("the upgrade ended before the switch: %v\n%s", err, &out)
		case <-late:
			_ = cmd.Process.Kill() // it only shows what the upgrade does
			<-ended
			t.Fatalf("after ten minutes the upgrade has come to %s\n%s", u.last().State, &out)
		}
	}
	<-time.After(well)
	u.serves(next)
	u.misbehave("die")
	died := time.Now() // of the next request
	eventually(t, "the old version answers", func() bool {
		r, err := u.Do(t.Context(), http.MethodGet, "/api", nil)
		return err == nil && strings.Contains(string(r.Body), `"`+u.old+`"`)
	})
	took := time.Since(died)
	if err := <-ended; err == nil || cmd.ProcessState.ExitCode() != 30 {
		t.Errorf("the upgrade ended with %v\n%s", err, &out)
	}
	stop()
	l.end(t)
	u.serves(u.old)
	u.bad(true)
	u.misbehave("")
	f := l.figures(anyRequest)
	if f.lost > 0 {
		t.Errorf("%d stored numbers were not there", f.lost)
	}
	g.seen(t, "until the old one serves, 0 lost: a version that dies after "+well.String()+", "+dialect.String(), "at most 10 s",
		"%s after its death; %d of %d requests failed%s; %d lost", took.Round(time.Millisecond), f.failed, f.n, f.while(), f.lost)
}
