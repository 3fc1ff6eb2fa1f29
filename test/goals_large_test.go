package test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
)

// widenings are the ways in which a migration may expand a table that is there, after
// what nextProgram adds.
func widenings() []struct {
	what string
	addition
} {
	return []struct {
		what string
		addition
	}{
		{"a table beside, empty", addition{"9101_beside", "tx", `CREATE TABLE goal_beside (event_id BIGINT NOT NULL PRIMARY KEY, username TEXT NOT NULL);`}},
		{"a column", addition{"9102_column", "tx", `ALTER TABLE events ADD COLUMN goal TEXT NOT NULL DEFAULT '';`}},
		{"a table beside with an index, empty", addition{"9103_side", "tx", `CREATE TABLE goal_filled (event_id BIGINT NOT NULL PRIMARY KEY, user_id TEXT NOT NULL, username TEXT NOT NULL);
CREATE INDEX goal_filled_by_user ON goal_filled (user_id, event_id);`}},
		{"that table filled from all its rows", addition{"9104_filled", "fill", `INSERT INTO goal_filled (event_id, user_id, username) SELECT e.id, e.user_id, e.username FROM events e;`}},
	}
}

// yearsOfUse is a server that has stopped, with a large database.
func yearsOfUse(t *testing.T) *apptest.Process {
	t.Helper()
	p := apptest.NewProcess(t, db.SQLite)
	p.Start()
	m := newModel(t, p.Client)
	m.process(t, script("Left out", "true"))
	_, version := m.release(t, nil)
	body := m.deployment(version, m.Dev)
	body["skipStepNames"] = []string{"Left out"}
	var started struct {
		DeploymentServerTasks []struct{ ServerTaskID string }
	}
	m.Must(t, http.MethodPost, space+"/deployments/create/untenanted/v1", body, &started)
	if done := wait(t, p.Client, started.DeploymentServerTasks[0].ServerTaskID, 2*time.Minute); !done.FinishedSuccessfully {
		t.Fatalf("the deployment ended as %s: %s", done.State, done.ErrorMessage)
	}
	p.Stop()
	p.Fill(int64(apptest.Size(t, "TAKO_TEST_BENCH_DATABASE_MB", 1024))<<20, int64(apptest.Size(t, "TAKO_TEST_GOALS_ROWS", 1_000_000)))
	return p
}

// large upgrades a server with a large database, and back.
func (g *goals) large(t *testing.T) {
	var more []addition
	for _, w := range widenings() {
		more = append(more, w.addition)
	}
	program, err := buildNextWith(more...)
	if err != nil {
		t.Fatal(err)
	}
	from := yearsOfUse(t)
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			u := newUpgraded(t, dialect, func(p *apptest.Process) {
				if err := os.MkdirAll(p.Data, 0o700); err != nil {
					t.Fatal(err)
				}
				to := cmp.Or(p.Database, "sqlite:"+filepath.Join(p.Data, "tako.db"))
				if out, code := run(t, "", "database", "copy", "--data", from.Data, "--to", to, "--to-data", p.Data); code != 0 {
					t.Fatalf("copy: %d %s", code, out)
				}
				serving(t, p)
			})
			u.site.publish(t, next, program)
			g.thereAndBack(t, u)
		})
	}
}

// serving has a supervisor find this version as the one that used the data last.
func serving(t *testing.T, p *apptest.Process) {
	t.Helper()
	out, code := run(t, "", "version", "--output", "json")
	var own struct{ Version string }
	if err := json.Unmarshal([]byte(out), &own); err != nil || code != 0 {
		t.Fatalf("its version: %d %v %s", code, err, out)
	}
	p.Install(own.Version)
	if err := supervisor.Begin(p.Root, own.Version); err != nil {
		t.Fatal(err)
	}
}

// thereAndBack measures an upgrade and the way back while clients write.
func (g *goals) thereAndBack(t *testing.T, u *upgraded) {
	const writesASecond = 200
	d := openDatabase(t, u.Process)
	bytes, err := d.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var rows, last, missing int64
	if err := d.Read(t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT count(*), max(e.id) FROM events e`).Scan(&rows, &last)
	}); err != nil {
		t.Fatal(err)
	}
	l := newTraffic(t, u.Client, writesASecond, 1)
	begun := u.migrations()
	u.do(0, "Version "+next+" serves", "--yes", "--probation", "1s")
	migrations := begun()
	txn, switched, expanded := u.last(), u.step(upgrade.Switched), u.step(upgrade.Expanded)
	took, when := map[upgrade.State]time.Duration{}, map[upgrade.State]span{}
	for _, s := range upgrade.Steps(u.entries(), txn) {
		took[s.State], when[s.State] = s.Took(), span{s.Begun, s.Ended}
	}
	u.do(0, "Version "+u.old+" serves again", "rollback")
	home := u.step(upgrade.RolledBack)
	l.end(t)
	if err := d.Read(t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT count(*) FROM events e WHERE e.id <= ? AND NOT EXISTS (SELECT 1 FROM goal_filled f WHERE f.event_id = e.id)`, last).Scan(&missing)
	}); err != nil || missing > 0 {
		t.Errorf("of %d rows %d were not filled in (%v)", rows, missing, err)
	}

	f, on := l.figures(anyRequest), fmt.Sprintf("%s, %d MiB", d.Dialect(), bytes>>20)
	if f.failed+f.again+f.lost > 0 {
		t.Errorf("%d of %d requests failed, %d were sent twice, %d stored numbers were not there", f.failed, f.n, f.again, f.lost)
	}
	perGB := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()*1e9/float64(bytes)) }
	g.seen(t, "whole upgrade, for 1 GB, "+on, "at most 90 s", "%s: backup and its proof %s, rehearsal %s, expansion %s, the rest %s",
		perGB(switched.Ended.Sub(txn.Begun)), perGB(took[upgrade.BackedUp]), perGB(took[upgrade.Rehearsed]), perGB(took[upgrade.Expanded]),
		perGB(switched.Ended.Sub(txn.Begun)-took[upgrade.BackedUp]-took[upgrade.Rehearsed]-took[upgrade.Expanded]))
	g.seen(t, "switch, "+on, "at most 3 s", "%s", switched.Took().Round(time.Millisecond))
	g.seen(t, "rollback, "+on, "at most 5 s", "%s", home.Took().Round(time.Millisecond))
	g.seen(t, "writes that failed meanwhile, "+on, "0", "%d of %d; %d lost", f.failed, f.n, f.lost)

	all := widenings()
	for i, w := range all {
		s := span{migrations[w.id], expanded.Ended}
		if i+1 < len(all) {
			s.to = migrations[all[i+1].id]
		}
		if s.from.Before(expanded.Begun) || s.to.Before(s.from) {
			t.Fatalf("migration %s ran from %s to %s, the expansion from %s to %s", w.id, s.from, s.to, expanded.Begun, expanded.Ended)
		}
		g.seen(t, fmt.Sprintf("writes while a table of %d rows gets %s, %s", rows, w.what, on), "p99.9 at most 250 ms, longest 1 s", "%s; it took %s",
			l.figures(func(one sample) bool { return one.met([]span{s}) }), s)
	}
	parts := []struct {
		what string
		span span
	}{
		{"the backup and its proof", when[upgrade.BackedUp]},
		{"the rehearsal", when[upgrade.Rehearsed]},
		{"the switch, and a second more", around(switched)},
		{"the way back, and a second more", around(home)},
	}
	for _, p := range parts {
		g.seen(t, "writes during "+p.what+", "+on, "", "%s", l.figures(func(s sample) bool { return s.met([]span{p.span}) }))
	}
}

// migrations notes when each migration begins that the log of the upgrade names from now on,
// by its id.
func (u *upgraded) migrations() (stop func() map[string]time.Time) {
	begun := map[string]time.Time{}
	ctx, cancel := context.WithCancel(u.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			raw, _ := os.ReadFile(upgrade.WorkerLog(u.Root)) // there is none yet
			now := time.Now()
			for line := range strings.Lines(string(raw)) {
				if id, ok := strings.CutPrefix(strings.TrimSpace(line), "migration "); ok && begun[id].IsZero() {
					begun[id] = now
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() map[string]time.Time { cancel(); wg.Wait(); return begun }
}
