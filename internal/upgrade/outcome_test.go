package upgrade

import (
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// TestFinalizeIsTriedAgain: an upgrade that could not be finalized neither goes back nor is
// given up, and goes on from there when somebody says so.
func TestFinalizeIsTriedAgain(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Committed)
	s := &scripted{answers: map[string][]*supervisor.Report{"status": {serving("2")}, "deep": {serving("2")}, "keep": {serving("2")}}}
	s.listen(t, c.root)
	c.program("2", "echo 'tako: the disk is full' >&2; exit 1", 0o700)
	last, err := c.Run(t.Context())
	if err != nil || last.State != NeedsOperator || !last.NoReturn() || !strings.HasSuffix(last.Error, ": the disk is full") {
		t.Fatalf("it is %+v, %v", last, err)
	}
	for _, w := range []Wish{WishAbort, WishRollback, WishFinalize, WishHold} {
		if Allowed(last, w) == nil {
			t.Errorf("somebody may want to %s it", w)
		}
	}
	c.program("2", "echo '{}'", 0o700)
	c.want(Ask{Wish: WishResume})
	if last, err = c.Run(t.Context()); err != nil || last.State != Finalized || last.Failed != "" {
		t.Errorf("it is %+v, %v", last, err)
	}
}

// TestEndThatIsNoCrash: a server that has ended for want of its database, or that the next
// supervisor has begun anew, has not crashed. The supervisor knows, and is asked.
func TestEndThatIsNoCrash(t *testing.T) {
	t.Parallel()
	report := func(supervised, pid, outages int, trouble string) *supervisor.Report {
		r := &supervisor.Report{Format: control.Format, PID: supervised, Current: "2", Outages: outages, Error: trouble}
		if pid > 0 {
			r.Server = &control.Status{PID: pid, Version: "2", Stage: control.Serving}
		}
		return r
	}
	first, none := report(9, 7, 0, "it is not ready"), report(9, 0, 1, "no server runs")
	for name, c := range map[string]struct {
		looks   []*supervisor.Report
		crashed bool
	}{
		"it did not know what became of a commit":   {[]*supervisor.Report{first, none, none, none, none, report(9, 8, 1, "")}, false},
		"the same, and it serves again at the look": {[]*supervisor.Report{first, report(9, 8, 1, "")}, false},
		"another supervisor":                        {[]*supervisor.Report{first, report(10, 8, 0, "")}, false},
		"no reason at all":                          {[]*supervisor.Report{first, report(9, 8, 0, "")}, true},
		"again, and for no reason":                  {[]*supervisor.Report{first, report(9, 8, 1, "it is not ready"), report(9, 6, 1, "")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crew := newCrew(t, Switched)
			txn := crew.last()
			txn.Plan.Probation, txn.Tries = 0, 1
			s := &scripted{answers: map[string][]*supervisor.Report{"deep": c.looks}}
			s.listen(t, crew.root)
			crew.program("1", "exit 0", 0o700)
			if err := crew.watch(t.Context(), txn); (err != nil) != c.crashed || err != nil && !strings.Contains(err.Error(), "crashed") {
				t.Error(err)
			}
		})
	}
}

// TestOldThatKeepsItsTasks: when the old version does not hand over, it serves on, and the new
// one does not count as bad for it.
func TestOldThatKeepsItsTasks(t *testing.T) {
	t.Parallel()
	for _, blameless := range []bool{true, false} {
		refused := serving("1")
		refused.Error, refused.Blameless = "there was no switch", blameless
		s := &scripted{answers: map[string][]*supervisor.Report{"status": {serving("1")}, "switch": {refused}}}
		c := newCrew(t, Expanded)
		c.program("1", "echo '[]'", 0o700)
		s.listen(t, c.root)
		last, err := c.Run(t.Context())
		if err != nil || last.State != RolledBack || last.Failed != Switched || last.Error != refused.Error {
			t.Errorf("it is %+v, %v", last, err)
		}
		trust, err := c.cfg.Store.Trust()
		if err != nil {
			t.Fatal(err)
		}
		if reason, bad := trust.Bad["2"]; bad == blameless {
			t.Errorf("blameless: %t, and it counts as bad: %t, because of %q", blameless, bad, reason)
		}
	}
}

// TestEndsThatNothingExcuses: a version that ends again and again for want of what the version
// before it has is sent back, and one that ends as often in an outage is not.
func TestEndsThatNothingExcuses(t *testing.T) {
	t.Parallel()
	looks := []*supervisor.Report{}
	for outages := range 3 * excused {
		r := serving("2")
		r.PID, r.Server.PID, r.Outages, r.Error = 9, 10+outages, outages, "it has just begun"
		looks = append(looks, r)
	}
	last := serving("2")
	last.PID, last.Server.PID, last.Outages = 9, 100, 3*excused
	for code, sentBack := range map[string]bool{"0": true, "69": false} {
		c := newCrew(t, Switched)
		txn := c.last()
		txn.Plan.Probation, txn.Tries = 0, 1
		s := &scripted{answers: map[string][]*supervisor.Report{"deep": append(slices.Clone(looks), last)}}
		s.listen(t, c.root)
		c.program("1", "exit "+code, 0o700)
		err := c.watch(t.Context(), txn)
		if (err != nil) != sentBack || err != nil && !strings.Contains(err.Error(), "version 2 has ended 4 times") {
			t.Errorf("when database check ends with %s: %v", code, err)
		}
		if n := s.count("deep"); sentBack && n != excused+2 {
			t.Errorf("it was looked at %d times", n)
		}
	}
}
