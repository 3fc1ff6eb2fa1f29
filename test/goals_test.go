package test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade"
)

// goals are what upgrades are to reach, and what they were seen to.
type goals struct {
	mu   sync.Mutex
	rows [][3]string
}

// seen notes a figure. Only what is wrong fails a test, never what is slow.
func (g *goals) seen(t *testing.T, goal, aim, format string, args ...any) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	row := [3]string{goal, aim, fmt.Sprintf(format, args...)}
	g.rows = append(g.rows, row)
	t.Logf("%s: %s (aim: %s)", row[0], row[2], row[1])
}

// print prints all of them as a table.
func (g *goals) print(t *testing.T) {
	var table strings.Builder
	table.WriteString("\n| goal | aim | seen |\n|---|---|---|\n")
	for _, row := range g.rows {
		fmt.Fprintf(&table, "| %s |\n", strings.Join(row[:], " | "))
	}
	t.Log(table.String())
}

// TestUpgradeGoals measures upgrades on each database, and prints what was aimed at beside
// what was seen:
//
//	TAKO_TEST_GOALS_REQUESTS     requests over HTTP, and over HTTPS, at least (100000)
//	TAKO_TEST_GOALS_RATE         of them a second (500)
//	TAKO_TEST_GOALS_DEPLOYMENTS  that run at once (100)
//	TAKO_TEST_GOALS_ROWS         of the table that is expanded (1000000)
//	TAKO_TEST_GOALS_DEATH        seconds that a version serves before it dies (60)
//	TAKO_TEST_BENCH_DATABASE_MB  size of the large database at least (1024)
func TestUpgradeGoals(t *testing.T) {
	if !soaking() {
		t.Skip("make soak-goals measures them")
	}
	// One after another, and nothing beside.
	g := &goals{}
	t.Cleanup(func() { g.print(t) })
	program := nextProgram(t)
	for _, part := range []struct {
		name string
		run  func(t *testing.T, dialect db.Dialect)
	}{
		{"http", func(t *testing.T, dialect db.Dialect) { g.switches(t, dialect, program, "HTTP") }},
		{"tls", func(t *testing.T, dialect db.Dialect) { g.switches(t, dialect, program, "HTTPS", secured) }},
		{"deployments", func(t *testing.T, dialect db.Dialect) { g.deployments(t, dialect, program) }},
		{"bad", func(t *testing.T, dialect db.Dialect) { g.badVersions(t, dialect, program) }},
	} {
		t.Run(part.name, func(t *testing.T) {
			for _, dialect := range apptest.Dialects() {
				t.Run(dialect.String(), func(t *testing.T) { part.run(t, dialect) })
			}
		})
	}
	t.Run("large", g.large)
}

// secured has a server and its client speak TLS.
func secured(t *testing.T, p *apptest.Process) {
	cert, key := certificate(t)
	p.Env = append(p.Env, "TAKO_TLS_CERT="+cert, "TAKO_TLS_KEY="+key)
	p.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // its own certificate
}

// step is how the last upgrade got to a state.
func (u *upgraded) step(s upgrade.State) upgrade.Step {
	u.t.Helper()
	steps := upgrade.Steps(u.entries(), u.last())
	i := slices.IndexFunc(steps, func(one upgrade.Step) bool { return one.State == s })
	if i < 0 {
		u.t.Fatalf("the journal has no step to %s", s)
	}
	return steps[i]
}

// afterwards is how long a switch is still felt.
const afterwards = time.Second

// around is the time in which a step is felt.
func around(s upgrade.Step) span { return span{s.Begun, s.Ended.Add(afterwards)} }

// switches takes a server there and back, again and again, in the middle of requests.
func (g *goals) switches(t *testing.T, dialect db.Dialect, program []byte, protocol string, change ...func(*testing.T, *apptest.Process)) {
	wanted := int64(apptest.Size(t, "TAKO_TEST_GOALS_REQUESTS", 100_000))
	u := newUpgraded(t, dialect, func(p *apptest.Process) {
		for _, fn := range change {
			fn(t, p)
		}
	})
	if !strings.HasPrefix(u.URL, strings.ToLower(protocol)+"://") {
		t.Fatalf("it serves at %s", u.URL)
	}
	u.site.publish(t, next, program)
	const (
		oneIn = 5               // is a write
		quiet = 5 * time.Second // before each upgrade
	)
	l := newTraffic(t, u.Client, apptest.Size(t, "TAKO_TEST_GOALS_RATE", 500), oneIn)
	began := time.Now()
	var switches, upgrades []span
	var there, back []time.Duration
	for l.done.Load() < wanted || len(switches) == 0 {
		<-time.After(quiet)
		from := time.Now()
		u.do(0, "Version "+next+" serves", "--yes", "--probation", "1s")
		forth := u.step(upgrade.Switched)
		u.do(0, "Version "+u.old+" serves again", "rollback")
		home := u.step(upgrade.RolledBack)
		upgrades = append(upgrades, span{from, time.Now()})
		switches = append(switches, around(forth), around(home))
		there, back = append(there, forth.Took()), append(back, home.Took())
	}
	lasted := time.Since(began)
	l.end(t)

	f, on := l.figures(anyRequest), dialect.String()+", "+protocol
	if f.failed+f.again+f.lost > 0 || f.kept == 0 || f.kept == f.n {
		t.Errorf("%d of %d requests failed, %d were sent twice, %d stored numbers were not there; %d over connections that were kept", f.failed, f.n, f.again, f.lost, f.kept)
	}
	g.seen(t, "requests that failed, "+on, fmt.Sprintf("0 of %d", wanted), "%d of %d, %d of them over connections that are kept; %d sent twice, %d numbers lost; %d switches in %s",
		f.failed, f.n, f.kept, f.again, f.lost, len(switches), lasted.Round(time.Second))
	for _, kept := range []bool{true, false} {
		connections := "a connection each"
		if kept {
			connections = "connections kept"
		}
		of := func(met bool, spans []span, but ...span) figures {
			return l.figures(func(s sample) bool { return s.kept == kept && s.met(spans) == met && !s.met(but) })
		}
		g.seen(t, "time of a request, "+on+", "+connections, "longest in a switch at most 250 ms more", "in a switch %s; in the rest of upgrades %s; beside %s",
			of(true, switches), of(true, upgrades, switches...), of(false, append(slices.Clone(switches), upgrades...)))
	}
	g.seen(t, "switch, small database, under these requests, "+on, "at most 3 s", "%s", times(there))
	g.seen(t, "rollback, small database, under these requests, "+on, "at most 5 s", "%s", times(back))
}

// times are the median and the longest of some.
func times(took []time.Duration) string {
	return fmt.Sprintf("median %s, longest %s of %d", apptest.Quantile(took, 0.5).Round(time.Millisecond), apptest.Quantile(took, 1).Round(time.Millisecond), len(took))
}
