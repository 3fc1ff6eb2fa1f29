package test

import (
	"sync/atomic"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/octopus"
)

// TestLostCommits cuts the server's connections to PostgreSQL in the middle of
// commits, during deployments: before the database has the COMMIT, while it works on
// it, and after it was done. Each script runs once, no line is missing or doubled,
// and what the API was asked for is there once. (A commit to a SQLite file has no
// connection; see the edge commit-ambiguous.)
func TestLostCommits(t *testing.T) {
	t.Parallel()
	rounds, each := int64(1), int64(4)
	if soaking() {
		rounds = 20
	}
	var armed atomic.Bool
	var commits, cuts atomic.Int64
	kinds := []dbtest.Cut{dbtest.CutBefore, dbtest.CutAfter, dbtest.CutDuring}
	p := apptest.NewProcess(t, db.Postgres)
	p.Database = dbtest.Proxy(t, p.Database, func() dbtest.Cut {
		if !armed.Load() || commits.Add(1)%each != 0 {
			return dbtest.NoCut
		}
		return kinds[cuts.Add(1)%int64(len(kinds))]
	})
	w := newWalk(t, p, 6)
	armed.Store(true)
	// A machine with nothing else to do needs few commits for a round: then there are more.
	made := int64(0)
	for ; made < rounds || cuts.Load() < int64(len(kinds)) && made < rounds+10; made++ {
		done := w.disturb(t, func() {})
		if done.State != octopus.TaskSuccess {
			t.Errorf("round %d: %s ended as %s: %s", made+1, done.ID, done.State, done.ErrorMessage)
		}
		for step, runs := range w.runs(t) {
			if step > 0 && runs != 1 {
				t.Errorf("round %d: the script of step %d ran %d times", made+1, step, runs)
			}
		}
		w.check(t, done.ID, [parallelSteps + 1]bool{true, true, true, true, true, true})
		if t.Failed() {
			t.Fatalf("server output:\n%s", w.Output())
		}
	}
	armed.Store(false)
	releases := apptest.Get[octopus.Page[octopus.Release]](t, w.Process.Client, space+"/releases?take=100")
	deployments := apptest.Get[octopus.Page[octopus.Deployment]](t, w.Process.Client, space+"/deployments?take=100")
	if releases.TotalResults != made || deployments.TotalResults != made {
		t.Errorf("%d rounds made %d releases and %d deployments", made, releases.TotalResults, deployments.TotalResults)
	}
	if cuts.Load() < int64(len(kinds)) {
		t.Errorf("only %d commits were cut", cuts.Load())
	}
	t.Logf("%d of %d commits were cut", cuts.Load(), commits.Load())
}
