// Package upgrade takes a server from one version to another and, if that goes wrong,
// back, without an outage and without a restore.
//
// The order carries it: the schema is expanded first, which the old version does not
// mind; then the new version takes over; only long after that are the new version's
// data formats switched on, which is the one step that cannot be taken back. So at every
// instant, also after a kill or a loss of power, the version that `current` names can
// run on what is on disk.
//
// Every step is idempotent, and stands in a journal beside the database: its intent
// before it begins, its result when it is done. What comes next is a pure function of
// the journal (Fold, Txn.Next), so that whoever comes after a crash goes on as if
// nothing had been.
package upgrade

import (
	"encoding/json"
	"time"
)

// State is how far an upgrade is.
type State string

// The states, in order. An upgrade reaches each of the first ten by a step of its own,
// and ends in one of the last four. A candidate has no entry: to start one, to hear that
// it could take over and to hand over is one order, which the supervisor does whole or
// not at all. In a container (Plan.Image) an upgrade that is EXPANDED waits for whoever
// starts the new version's image; that one serves is SWITCHED then, and there is no PROBATION.
const (
	Planned   State = "PLANNED"   // it was decided what to install
	Staged    State = "STAGED"    // the program is on disk, and was tried
	Preflight State = "PREFLIGHT" // nothing speaks against it
	BackedUp  State = "BACKED_UP" // there is a proven backup
	Rehearsed State = "REHEARSED" // the new version works on a copy
	Expanded  State = "EXPANDED"  // the schema has what the new version needs
	Switched  State = "SWITCHED"  // the new version serves
	Probation State = "PROBATION" // it has done so for long enough
	Committed State = "COMMITTED" // it stays, unless somebody goes back
	Finalized State = "FINALIZED" // its data formats are switched on: no way back

	Aborted       State = "ABORTED"        // given up before the switch; the old version never stopped
	RolledBack    State = "ROLLED_BACK"    // the old version serves again
	NeedsOperator State = "NEEDS_OPERATOR" // it can go neither on nor back by itself
)

// steps are the states that are reached by work, in order.
var steps = []State{Planned, Staged, Preflight, BackedUp, Rehearsed, Expanded, Switched, Probation, Committed, Finalized} //nolint:gochecknoglobals // a constant

// after is the state that follows one, "" for none.
func after(s State) State {
	for i, one := range steps[:len(steps)-1] {
		if one == s {
			return steps[i+1]
		}
	}
	return ""
}

// reached reports whether a state is that one or a later one.
func (s State) reached(at State) bool {
	for _, one := range steps {
		if one == at {
			return true
		}
		if one == s {
			return false
		}
	}
	return false
}

// Ended reports whether nothing comes after a state.
func (s State) Ended() bool {
	switch s {
	case Finalized, Aborted, RolledBack, NeedsOperator:
		return true
	case Planned, Staged, Preflight, BackedUp, Rehearsed, Expanded, Switched, Probation, Committed:
	}
	return false
}

// Kinds of the entries that an upgrade writes. Others, such as the supervisor's, are
// read where they matter and passed over else.
const (
	KindPlan   = "plan"   // the beginning; Data is a Plan
	KindIntent = "intent" // the step to a state begins; Data is a Mark
	KindDone   = "done"   // the state is reached; Data is a Mark
	KindFailed = "failed" // the step to a state did not succeed; Data is a Mark
	KindAsk    = "ask"    // somebody wants something; Data is an Ask
)

// Plan is what an upgrade is to do. It never changes.
type Plan struct {
	// From and To are versions.
	From string `json:"from"`
	To   string `json:"to"`
	// FromLevel and ToLevel are the levels of their schemas, 0 while unknown.
	FromLevel int `json:"from_level,omitempty"`
	ToLevel   int `json:"to_level,omitempty"`
	// Hold is how long after it was committed an upgrade is finalized by itself.
	Hold time.Duration `json:"hold"`
	// Probation is how long the new version is watched before it is committed.
	Probation time.Duration `json:"probation"`
	// Channel, Feed and Bundle are where the release comes from.
	Channel string `json:"channel,omitempty"`
	Feed    string `json:"feed,omitempty"`
	Bundle  string `json:"bundle,omitempty"`
	// Restore tells that going back needs a restore of the upgrade's backup, as soon as To
	// has served: its feed says so.
	Restore bool `json:"restore,omitempty"`
	// Image tells that the server runs in a container: another version comes with another
	// image, so nothing is switched over. Once the schema is expanded the upgrade waits until
	// somebody has started the container with the image of To.
	Image bool `json:"image,omitempty"`
	// AcceptDifferences goes on though the versions would do different things with the data.
	AcceptDifferences bool `json:"accept_differences,omitempty"`
	// By is who asked for it, in words for the history.
	By string `json:"by,omitempty"`
}

// Mark is an entry about a state.
type Mark struct {
	State State `json:"state"`
	// Error is why a step did not succeed, Blameless that this is nothing of the new version.
	Error     string `json:"error,omitempty"`
	Blameless bool   `json:"blameless,omitempty"`
	// Result is what the step found out, in the step's own words.
	Result json.RawMessage `json:"result,omitempty"`
}

// Wish is what somebody can want of an upgrade.
type Wish string

// The wishes.
const (
	WishAbort    Wish = "abort"    // stop before the switch
	WishRollback Wish = "rollback" // go back to the old version
	WishFinalize Wish = "finalize" // do not wait for the end of the hold
	WishHold     Wish = "hold"     // finalize at Until at the earliest
	WishResume   Wish = "resume"   // try again what needed an operator
	WishForward  Wish = "forward"  // keep the new version though it needed an operator
)

// Ask is somebody's wish.
type Ask struct {
	Wish  Wish      `json:"wish"`
	Until time.Time `json:"until,omitzero"`
	By    string    `json:"by,omitempty"`
}
