package upgrade

import (
	"errors"
	"fmt"
)

// Allowed says why somebody cannot have a wish about an upgrade as it is now, nil if
// they can.
func Allowed(t *Txn, w Wish) error {
	switch w {
	case WishAbort:
		if t.State.Ended() || t.Serves() {
			return fmt.Errorf("the upgrade to %s is %s; it cannot be given up any more. To go back, use `tako upgrade rollback`", t.Plan.To, t.State)
		}
	case WishRollback:
		switch {
		case t.NoReturn():
			return fmt.Errorf("the upgrade to %s was finalized: version %s cannot use the data any more. To go back, restore the backup of the upgrade, which loses everything since: tako backup list", t.Plan.To, t.Plan.From)
		case t.State.Ended():
			return fmt.Errorf("the last upgrade (to %s) has ended as %s; there is nothing to go back from", t.Plan.To, t.State)
		case !t.Serves():
			return errors.New("the new version does not serve yet; to give the upgrade up, use `tako upgrade abort`")
		}
	case WishFinalize, WishHold:
		if t.State != Committed || t.NoReturn() {
			return fmt.Errorf("the upgrade to %s is %s; only one that is %s can be finalized or held", t.Plan.To, t.State, Committed)
		}
	case WishResume:
		if t.State.Ended() && t.State != NeedsOperator {
			return fmt.Errorf("the last upgrade (to %s) has ended as %s; there is nothing to go on with", t.Plan.To, t.State)
		}
	case WishForward:
		if t.State != NeedsOperator {
			return fmt.Errorf("the upgrade to %s is %s; only of one that is %s the new version can be kept", t.Plan.To, t.State, NeedsOperator)
		}
	}
	return nil
}
