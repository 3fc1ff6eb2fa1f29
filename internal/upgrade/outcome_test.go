package upgrade

import (
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/supervisor"
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
