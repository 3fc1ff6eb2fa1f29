package test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/supervisor"
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

// TestUnknownFate has a commit of a supervised server end so that nobody can tell what became
// of it: the server ends, another one begins from what is stored, and the version is not
// blamed for it.
func TestUnknownFate(t *testing.T) {
	t.Parallel()
	const edge = "commit-ambiguous"
	once := t.TempDir()
	if err := os.WriteFile(filepath.Join(once, edge), nil, 0o600); err != nil { // not before it serves
		t.Fatal(err)
	}
	p := apptest.NewProcess(t, db.SQLite)
	p.Supervised()
	p.Env = append(p.Env, "TAKO_FAILPOINT="+edge+":err", "TAKO_FAILPOINT_ONCE="+once)
	p.Start()
	ask := func() (supervisor.Report, error) {
		return supervisor.Ask(t.Context(), p.Root, supervisor.Order{Do: "status"})
	}
	before, err := ask()
	if err != nil || before.Server == nil {
		t.Fatalf("%+v %v", before, err)
	}
	if err := os.Remove(filepath.Join(once, edge)); err != nil {
		t.Fatal(err)
	}
	var after supervisor.Report
	eventually(t, "another server serves", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/api/Spaces-1/environments", strings.NewReader(`{"Name":"any"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Octopus-ApiKey", p.Key)
		if answer, err := http.DefaultClient.Do(r); err == nil { // it may be lost
			_ = answer.Body.Close()
		}
		after, err = ask()
		return err == nil && after.Server != nil && after.Server.PID != before.Server.PID
	})
	if after.Crashes != 0 || after.Outages != 1 || !strings.Contains(after.Trouble, "exit status 69") {
		t.Errorf("%+v\n%s", after, p.Output())
	}
}
