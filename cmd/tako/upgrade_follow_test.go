package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// TestWordsOf: only what was wanted is a success.
func TestWordsOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state, until upgrade.State
		code         int
		says         string
	}{
		{upgrade.Committed, upgrade.Committed, 0, "Version 2 serves. Going back loses nothing until"},
		{upgrade.Committed, upgrade.Committed, -1, "Version 2 serves. Only a restore leads back"},
		{upgrade.RolledBack, upgrade.RolledBack, -1, "Version 1 serves again, and the upgrade has ended."},
		{upgrade.Finalized, upgrade.Committed, 0, "Version 2 is final."},
		{upgrade.Finalized, upgrade.Finalized, 0, "Version 2 is final."},
		{upgrade.Finalized, upgrade.RolledBack, 1, "version 2 was being finalized"},
		{upgrade.RolledBack, upgrade.RolledBack, 0, "Version 1 serves again; nothing was lost."},
		{upgrade.RolledBack, upgrade.Committed, 30, "version 1 serves again: no luck"},
		{upgrade.RolledBack, upgrade.Finalized, 30, "version 1 serves again: no luck"},
		{upgrade.Aborted, upgrade.Committed, 20, "given up before the switch"},
		{upgrade.NeedsOperator, upgrade.RolledBack, 40, "tako upgrade resume --forward"},
	} {
		plan := upgrade.Plan{From: "1", To: "2", Restore: c.code < 0}
		c.code = max(c.code, 0)
		said, err := wordsOf(&upgrade.Txn{State: c.state, Plan: plan, Error: "no luck"}, c.until)
		code := 0
		var o *outcome
		switch {
		case errors.As(err, &o):
			code, said = o.ExitCode(), err.Error()
		case err != nil:
			code, said = 1, err.Error()
		}
		if code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%s when it was to be %s: %d %q", c.state, c.until, code, said)
		}
	}
}

// TestWayOut: who looks at an upgrade that needs an operator is told what they can do, also
// when it was being finalized and there is no way back.
func TestWayOut(t *testing.T) {
	t.Parallel()
	upTo := func(entries ...any) *upgrade.Txn {
		t.Helper()
		var all []journal.Entry
		kind := upgrade.KindPlan
		for _, e := range append([]any{upgrade.Plan{From: "1", To: "2", Hold: time.Hour}}, entries...) {
			if text, ok := e.(string); ok {
				kind = text
				continue
			}
			raw, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, journal.Entry{Txn: "t", Kind: kind, At: time.Now(), Data: raw})
		}
		last, err := upgrade.Last(all)
		if err != nil {
			t.Fatal(err)
		}
		return last
	}
	mark := func(s upgrade.State, reason string) upgrade.Mark { return upgrade.Mark{State: s, Error: reason} }
	committed := []any{upgrade.KindDone, mark(upgrade.Committed, "")}
	failed := append(committed, upgrade.KindIntent, mark(upgrade.Finalized, ""), upgrade.KindFailed, mark(upgrade.Finalized, "no luck"), upgrade.KindDone, mark(upgrade.NeedsOperator, "it could not be finalized: no luck"))
	again := append(failed, upgrade.KindAsk, upgrade.Ask{Wish: upgrade.WishResume})
	back := append(committed, upgrade.KindDone, mark(upgrade.NeedsOperator, "it could not go back"))
	for _, c := range []struct {
		txn  *upgrade.Txn
		says string
	}{
		{upTo(committed...), "It is finalized at "},
		{upTo(failed...), "There is no way back from version 2 any more. When the cause is removed, try once more to finalize it: tako upgrade resume"},
		{upTo(again...), "It is being finalized, as soon as version 2 serves and is well"},
		{upTo(back...), "to keep version 2 as it is: tako upgrade resume --forward"},
		{upTo(), ""},
	} {
		if said := prospect(c.txn); !strings.Contains(said, c.says) || (said == "") != (c.says == "") {
			t.Errorf("of one that is %s it is said: %q, not %q", c.txn.State, said, c.says)
		}
	}
	if _, err := wordsOf(upTo(failed...), upgrade.Finalized); err == nil || !strings.Contains(err.Error(), "it could not be finalized: no luck. There is no way back") {
		t.Errorf("who waits for it is told %v", err)
	}
}

// TestTroubles: that a server does not stay alive is said, also when no upgrade is under way.
func TestTroubles(t *testing.T) {
	t.Parallel()
	runs := &control.Status{PID: 7, Version: "2", Stage: control.Serving}
	for _, c := range []struct {
		report supervisor.Report
		err    error
		says   string
	}{
		{supervisor.Report{Current: "2", Server: runs}, nil, ""},
		{supervisor.Report{Current: "2", Server: runs, Crashes: 5, Trouble: "version 2 has ended by itself: exit status 4", NeedsOperator: true}, nil, "NEEDS_OPERATOR: version 2 does not stay alive (5 times in a row: version 2 has ended by itself: exit status 4)"},
		{supervisor.Report{Current: "2", Server: runs, Crashes: 1, Trouble: "it has ended"}, nil, "has been started again within the last minute: it has ended"},
		{supervisor.Report{Current: "2", Crashes: 1, Trouble: "it has ended"}, nil, "No server runs, and version 2 is started again and again: it has ended"},
		{supervisor.Report{Current: "2"}, nil, "No server runs; version 2 is being started."},
		{supervisor.Report{}, errors.New("no supervisor runs in /x"), "The supervisor tells nothing of the server: no supervisor runs in /x"},
	} {
		if said := troubles(c.report, c.err); !strings.Contains(said, c.says) || (said == "") != (c.says == "") {
			t.Errorf("%+v, %v: it is said %q, not %q", c.report, c.err, said, c.says)
		}
	}
}
