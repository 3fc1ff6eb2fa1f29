package upgrade

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// Txn is one upgrade, as its entries tell it.
type Txn struct {
	ID   string `json:"id"`
	Plan Plan   `json:"plan"`
	// State is the last that was reached, at At.
	State State     `json:"state"`
	At    time.Time `json:"at"`
	Begun time.Time `json:"begun"`
	// Doing is the state whose step has begun and not ended, "" for none; Tries is how
	// often it has begun.
	Doing      State     `json:"doing,omitempty"`
	DoingSince time.Time `json:"doing_since,omitzero"`
	Tries      int       `json:"tries,omitempty"`
	// Failed is the state whose step did not succeed, for the reason Error; Blameless tells
	// that this is nothing of the new version.
	Failed    State  `json:"failed,omitempty"`
	Error     string `json:"error,omitempty"`
	Blameless bool   `json:"blameless,omitempty"`
	// WentBack tells that the supervisor went back to the old version by itself: the new
	// one could not stay alive.
	WentBack bool `json:"went_back,omitempty"`
	// Taken tells that the container runs with the new version's image (Plan.Image); WentBack
	// that it runs with the old one's again.
	Taken bool `json:"taken,omitempty"`
	// Abort, Rollback and Finalize are wishes that are open; Hold is the time that
	// somebody wants to have waited for, zero for that of the plan.
	Abort    bool      `json:"abort,omitempty"`
	Rollback bool      `json:"rollback,omitempty"`
	Finalize bool      `json:"finalize,omitempty"`
	Hold     time.Time `json:"hold,omitzero"`
	// Results are what the steps found out.
	Results map[State]json.RawMessage `json:"results,omitempty"`

	// noReturn tells that the step to FINALIZED has begun at some time.
	noReturn bool
}

// Fold reads the upgrades of a journal, the oldest first. It fails only for entries that
// no version before this one has written.
func Fold(entries []journal.Entry) ([]Txn, error) {
	var all []Txn
	for _, e := range entries {
		if e.Kind == KindPlan {
			t := Txn{ID: e.Txn, State: Planned, At: e.At, Begun: e.At, Results: map[State]json.RawMessage{}}
			if err := json.Unmarshal(e.Data, &t.Plan); err != nil {
				return nil, fmt.Errorf("read the plan of upgrade %s: %w", e.Txn, err)
			}
			all = append(all, t)
			continue
		}
		if len(all) == 0 || all[len(all)-1].ID != e.Txn {
			continue // of a time before, or of a supervisor without an upgrade
		}
		if err := all[len(all)-1].take(e); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Last is the newest upgrade of a journal, nil for none.
func Last(entries []journal.Entry) (*Txn, error) {
	all, err := Fold(entries)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[len(all)-1], nil
}

func (t *Txn) take(e journal.Entry) error {
	var m Mark
	var a Ask
	var into any
	switch e.Kind {
	case KindIntent, KindDone, KindFailed:
		into = &m
	case KindAsk:
		into = &a
	case supervisor.NoteSwitched, supervisor.NoteWentBack:
		return t.told(e)
	default:
		return nil // of a newer version
	}
	if err := json.Unmarshal(e.Data, into); err != nil {
		return fmt.Errorf("read entry %d of the journal: %w", e.Seq, err)
	}
	switch e.Kind {
	case KindIntent:
		if t.Doing != m.State {
			t.Tries = 0
		}
		t.Doing, t.DoingSince = m.State, e.At
		t.Tries++
		if m.State == Finalized {
			t.noReturn = true
		}
	case KindDone:
		t.State, t.At = m.State, e.At
		t.Doing, t.Tries, t.DoingSince = "", 0, time.Time{}
		if len(m.Result) > 0 {
			t.Results[m.State] = m.Result
		}
		if m.Error != "" {
			t.Error = m.Error
		}
	case KindFailed:
		t.Failed, t.Error, t.Blameless = m.State, m.Error, m.Blameless
	case KindAsk:
		t.wish(a, e.At)
	}
	return nil
}

func (t *Txn) wish(a Ask, at time.Time) {
	switch a.Wish {
	case WishAbort:
		t.Abort = true
	case WishRollback:
		t.Rollback = true
	case WishFinalize:
		t.Finalize, t.Hold = true, time.Time{}
		t.stay()
	case WishHold:
		t.Finalize, t.Hold = false, a.Until
		t.stay()
	case WishResume, WishForward:
		// What was reached before counts; the step that did not succeed is tried anew.
		if t.State != NeedsOperator {
			return
		}
		t.State = t.before()
		t.Failed, t.Error, t.Blameless, t.Doing, t.Tries = "", "", false, "", 0
		t.Rollback = !t.noReturn
		if a.Wish == WishForward && !t.noReturn {
			t.forward(at)
		}
	}
}

// stay forgets a wish to go back by another image that nobody has started: somebody wants
// the new version after all.
func (t *Txn) stay() {
	if t.Plan.Image && t.Taken {
		t.Abort, t.Rollback = false, false
	}
}

// forward takes the new version as one that has proven itself. The hold begins anew, unless
// somebody wanted a longer one.
func (t *Txn) forward(at time.Time) {
	t.State, t.At = Committed, at
	t.Abort, t.Rollback, t.Finalize, t.WentBack = false, false, false, false
	if t.Hold.Before(at.Add(t.Plan.Hold)) {
		t.Hold = time.Time{}
	}
}

// before is the state that an upgrade had before it needed an operator: it is needed
// only after the switch.
func (t *Txn) before() State {
	if t.noReturn {
		return Committed
	}
	return Switched
}

// told takes in what the supervisor has done.
func (t *Txn) told(e journal.Entry) error {
	var way struct{ From, To string }
	if err := json.Unmarshal(e.Data, &way); err != nil {
		return fmt.Errorf("read entry %d of the journal: %w", e.Seq, err)
	}
	switch {
	case t.Plan.Image && e.Kind == supervisor.NoteSwitched && way.To == t.Plan.To:
		t.Taken, t.WentBack = true, false
		if t.Doing == RolledBack { // it went back, and forth before that was written
			t.Doing, t.Tries = "", 0
		}
	case t.Plan.Image && e.Kind == supervisor.NoteSwitched && way.To == t.Plan.From && t.Taken:
		t.Taken, t.WentBack, t.Abort, t.Rollback = false, true, false, false
		if t.noReturn && t.State != Finalized { // it has served, so there was a return still
			t.noReturn = false
			if t.Failed == Finalized {
				t.Failed, t.Error = "", ""
			}
			if t.Doing == Finalized {
				t.Doing, t.Tries = "", 0
			}
		}
	case e.Kind == supervisor.NoteWentBack && way.From == t.Plan.To && way.To == t.Plan.From:
		t.WentBack = true
	case e.Kind == supervisor.NoteSwitched && way.To == t.Plan.To:
		t.WentBack = false
	}
	return nil
}

// Do is what comes next.
type Do struct {
	// State is the one to bring about, "" for nothing to do.
	State State
	// Until is how long there is nothing to do, zero for as long as nobody asks.
	Until time.Time
	// Because is why, where that is not the usual course.
	Because string
}

// idle reports whether there is nothing to do until somebody asks, or acts.
func (d Do) idle() bool { return d.State == "" && d.Until.IsZero() }

// MaxTries is how often a step is begun before it counts as one that cannot succeed:
// each time whoever did it was killed in the middle of it. That to PROBATION is begun as
// often as it takes.
const MaxTries = 3

// Next is what comes next at a time. It depends on nothing but the journal.
func (t *Txn) Next(now time.Time) Do {
	switch {
	case t.State.Ended():
		return Do{}
	case t.Doing == Aborted, t.Doing == NeedsOperator: // it was decided
		return Do{State: t.Doing, Because: t.Error}
	case t.noReturn:
		// The data of the new version may be there: forward is the only way.
		if t.Failed == Finalized || t.Doing == Finalized && t.Tries >= MaxTries {
			return Do{State: NeedsOperator, Because: t.reason("it could not be finalized")}
		}
		return Do{State: Finalized}
	case t.Failed == RolledBack || t.Doing == RolledBack && t.Tries >= MaxTries:
		return Do{State: NeedsOperator, Because: t.reason("it could not go back")}
	case t.Doing == RolledBack:
		return Do{State: RolledBack, Because: t.Error}
	case t.Plan.Image && (t.Taken || t.WentBack):
		return t.otherImage(now)
	case !t.State.reached(Switched) && t.Doing != Switched:
		return t.beforeSwitch()
	}
	// From the order to switch on, the new version may serve.
	switch {
	case t.WentBack:
		return Do{State: RolledBack, Because: "the new version could not stay alive, and the supervisor went back"}
	case t.Failed != "":
		return Do{State: RolledBack, Because: t.Error}
	case t.Rollback || t.Abort:
		return Do{State: RolledBack, Because: "somebody asked for it"}
	case t.exhausted():
		return Do{State: RolledBack, Because: t.reason("a step was cut short again and again")}
	case t.State != Committed:
		return Do{State: after(t.State)}
	}
	return t.held(now)
}

// held is what comes next of a committed upgrade.
func (t *Txn) held(now time.Time) Do {
	if due := t.Due(); !t.Finalize && due.After(now) {
		return Do{Until: due}
	}
	return Do{State: Finalized}
}

// otherImage is what comes next once the container has run with the new version's image.
// Nothing goes back by itself there: that takes the old image, which somebody has to start.
// Whatever was being done before does not count any more.
func (t *Txn) otherImage(now time.Time) Do {
	switch {
	case t.WentBack:
		return Do{State: RolledBack, Because: "the container runs with the image of version " + t.Plan.From + " again"}
	case t.Rollback || t.Abort:
		return Do{}
	case !t.State.reached(Switched):
		return Do{State: Switched}
	case t.State != Committed:
		return Do{State: Committed}
	}
	return t.held(now)
}

// Waits tells that an upgrade waits for somebody who starts the container with another image:
// that of the new version, or that of the old one if it is to go back (Serves).
func (t *Txn) Waits() bool { return t.Plan.Image && !t.State.Ended() && t.Next(t.At).idle() }

func (t *Txn) beforeSwitch() Do {
	switch {
	case t.Failed != "":
		return Do{State: Aborted, Because: t.Error}
	case t.Abort || t.Rollback:
		return Do{State: Aborted, Because: "somebody asked for it"}
	case t.exhausted():
		return Do{State: Aborted, Because: t.reason("a step was cut short again and again")}
	case t.Plan.Image && t.State == Expanded:
		return Do{}
	}
	return Do{State: after(t.State)}
}

// exhausted reports whether a step was begun too often. To watch changes nothing, so that it
// may be: whoever comes next goes on watching, and what is wrong with the version shows.
func (t *Txn) exhausted() bool { return t.Doing != "" && t.Doing != Probation && t.Tries >= MaxTries }

func (t *Txn) reason(usual string) string {
	if t.Error != "" {
		return usual + ": " + t.Error
	}
	if t.Doing != "" {
		return fmt.Sprintf("%s (%s, %d times)", usual, t.Doing, t.Tries)
	}
	return usual
}

// Due is when a committed upgrade is finalized by itself.
func (t *Txn) Due() time.Time {
	if !t.Hold.IsZero() {
		return t.Hold
	}
	return t.At.Add(t.Plan.Hold)
}

// NoReturn tells that the old version may not be able to use the data any more.
func (t *Txn) NoReturn() bool { return t.noReturn }

// Serves tells that the new version may be the one that serves.
func (t *Txn) Serves() bool { return t.State.reached(Switched) || t.Doing == Switched || t.Taken }

// Settled tells that the version which serves stays: the switch is not begun, there is no
// way back from it any more, or there was one and it was gone.
func (t *Txn) Settled() bool {
	switch t.State {
	case Finalized, Aborted, RolledBack:
		return true
	case NeedsOperator:
		return false
	case Planned, Staged, Preflight, BackedUp, Rehearsed, Expanded, Switched, Probation, Committed:
	}
	return !t.Serves()
}
