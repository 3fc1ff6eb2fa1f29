package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/upgrade"
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
		{upgrade.Finalized, upgrade.Committed, 0, "Version 2 is final."},
		{upgrade.Finalized, upgrade.Finalized, 0, "Version 2 is final."},
		{upgrade.Finalized, upgrade.RolledBack, 1, "version 2 was being finalized"},
		{upgrade.RolledBack, upgrade.RolledBack, 0, "Version 1 serves again; nothing was lost."},
		{upgrade.RolledBack, upgrade.Committed, 30, "version 1 serves again: no luck"},
		{upgrade.RolledBack, upgrade.Finalized, 30, "version 1 serves again: no luck"},
		{upgrade.Aborted, upgrade.Committed, 20, "given up before the switch"},
		{upgrade.NeedsOperator, upgrade.RolledBack, 40, "tako upgrade resume --forward"},
	} {
		said, err := wordsOf(&upgrade.Txn{State: c.state, Plan: upgrade.Plan{From: "1", To: "2"}, Error: "no luck"}, c.until)
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
