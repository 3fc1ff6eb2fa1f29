package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/backup"
)

// NeedsRestoreError says that the only way back from an upgrade is to restore its backup.
type NeedsRestoreError struct {
	// From and To are the versions of the upgrade; Final tells that it was finalized, else
	// To is a release from which only a restore leads back.
	From, To string
	Final    bool
	// Backup is the id of the upgrade's backup, "" where that is not known, and At the
	// instant of the data that it has.
	Backup string
	At     time.Time
	// Newer is how many deployments are newer than that; nil while nobody has counted them.
	Newer *int64
}

// Error says what would be restored, and what that would lose.
func (e *NeedsRestoreError) Error() string {
	why := fmt.Sprintf("the upgrade to %s was finalized: version %s cannot use the data any more", e.To, e.From)
	if !e.Final {
		why = fmt.Sprintf("version %s does not hand its data back to version %s", e.To, e.From)
	}
	if e.Backup == "" {
		return why + ". To go back, restore the backup of the upgrade, which loses everything since: tako backup list"
	}
	loss := "what was written"
	if e.Newer != nil {
		loss = fmt.Sprintf("%d deployments, and whatever else was written,", *e.Newer)
	}
	return fmt.Sprintf("%s. To go back, restore its backup %s, which loses %s since %s", why, e.Backup, loss, e.At.UTC().Format(time.RFC3339))
}

// WayBack says what going back from an upgrade costs that is not begun yet.
func (p *Plan) WayBack() string {
	if p.Restore {
		return "The only way back from it is to restore the backup that the upgrade takes, which loses what is written from then on."
	}
	return "Until it is finalized, going back loses nothing."
}

// needsRestore is why nobody can go back from an upgrade without a restore.
func needsRestore(t *Txn) *NeedsRestoreError {
	id, at := t.Backup()
	return &NeedsRestoreError{From: t.Plan.From, To: t.Plan.To, Final: t.NoReturn(), Backup: id, At: at}
}

// Backup is the id of the backup that an upgrade has taken, and the instant of the data
// that it has; "" if it has taken none.
func (t *Txn) Backup() (id string, at time.Time) {
	var b backedUp
	if len(t.Results[BackedUp]) == 0 || json.Unmarshal(t.Results[BackedUp], &b) != nil {
		return "", time.Time{}
	}
	if b.Created.IsZero() { // of a version that did not tell; its name has the second in which it began
		stamp, _, _ := strings.Cut(b.ID, "-")
		var err error
		if b.Created, err = time.Parse(backup.StampLayout, stamp); err != nil {
			return "", time.Time{}
		}
	}
	return b.ID, b.Created
}

// Allowed says why somebody cannot have a wish about an upgrade as it is now, nil if
// they can. It is a *NeedsRestoreError where only a restore leads back.
func Allowed(t *Txn, w Wish) error {
	switch w {
	case WishAbort:
		if t.State.Ended() || t.Serves() {
			return fmt.Errorf("the upgrade to %s is %s; it cannot be given up any more. To go back, use `tako upgrade rollback`", t.Plan.To, t.State)
		}
	case WishRollback:
		switch {
		case t.NoReturn(), t.Plan.Restore && t.Serves() && !t.State.Ended(), t.Plan.Restore && t.State == NeedsOperator:
			return needsRestore(t)
		case t.State.Ended():
			return fmt.Errorf("the last upgrade (to %s) has ended as %s; there is nothing to go back from", t.Plan.To, t.State)
		case !t.Serves():
			return errors.New("the new version does not serve yet; to give the upgrade up, use `tako upgrade abort`")
		}
	case WishFinalize, WishHold:
		if t.Plan.Image && !t.State.Ended() && !t.NoReturn() {
			if !t.Taken {
				return fmt.Errorf("version %[1]s does not serve yet; start the container with the image of version %[1]s on the same volume first", t.Plan.To)
			}
			return nil // it is committed in a moment
		}
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
