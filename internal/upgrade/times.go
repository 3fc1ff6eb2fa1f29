package upgrade

import (
	"encoding/json"
	"time"

	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// Step is a state that an upgrade has reached, is on its way to, or has still to reach.
type Step struct {
	State State
	// Begun is when the step began the last time, Ended when its state was reached; zero
	// if that has not happened.
	Begun, Ended time.Time
	// Usual is how long the step took in the newest earlier upgrade that got through it;
	// probation's is that of the plan. 0 is unknown.
	Usual time.Duration
}

// Took is how long the step took, 0 if it has not ended.
func (s Step) Took() time.Duration {
	if s.Begun.IsZero() || s.Ended.IsZero() {
		return 0
	}
	return s.Ended.Sub(s.Begun)
}

// Steps are the steps of an upgrade in their order, as far as COMMITTED, and those after
// it that have begun.
func Steps(entries []journal.Entry, t *Txn) []Step {
	usual := map[State]time.Duration{}
	begun, ended := map[State]time.Time{}, map[State]time.Time{}
	inside := false
	for _, e := range entries {
		var m Mark
		switch e.Kind {
		case KindPlan:
			if inside {
				return lined(t, begun, ended, usual)
			}
			for state, at := range ended { // of an earlier one
				if from := begun[state]; !from.IsZero() {
					usual[state] = at.Sub(from)
				}
			}
			clear(begun)
			clear(ended)
			ended[Planned] = e.At
			inside = e.Txn == t.ID
		case KindIntent:
			if json.Unmarshal(e.Data, &m) == nil {
				begun[m.State] = e.At
			}
		case KindDone:
			if json.Unmarshal(e.Data, &m) == nil {
				ended[m.State] = e.At
			}
		}
	}
	return lined(t, begun, ended, usual)
}

func lined(t *Txn, begun, ended map[State]time.Time, usual map[State]time.Duration) (out []Step) {
	usual[Probation] = t.Plan.Probation
	for _, s := range steps {
		if (s != Finalized || !begun[s].IsZero()) && (s != Probation || !t.Plan.Image) {
			out = append(out, Step{s, begun[s], ended[s], usual[s]})
		}
	}
	for _, s := range []State{RolledBack, Aborted, NeedsOperator} {
		if !begun[s].IsZero() {
			out = append(out, Step{s, begun[s], ended[s], usual[s]})
		}
	}
	return out
}

// Remaining estimates how long it is until an upgrade is COMMITTED, by how long the
// steps took before. It is false for one that is no longer on the way there, and while
// it is not known of a step how long it takes. In a container it is how long until somebody
// can start the new version's image.
func Remaining(all []Step, t *Txn, now time.Time) (left time.Duration, ok bool) {
	if t.State.Ended() || t.State == Committed || t.Failed != "" || t.Abort || t.Rollback || t.WentBack {
		return 0, false
	}
	for _, s := range all {
		if t.Plan.Image && s.State == Switched {
			return left, !t.Waits() && !t.Serves()
		}
		if !s.Ended.IsZero() || s.State == Committed || s.State == Finalized {
			continue
		}
		if s.Usual == 0 && s.State != Probation {
			return 0, false
		}
		rest := s.Usual
		if s.State == t.Doing {
			rest = max(0, rest-now.Sub(t.DoingSince))
		}
		left += rest
	}
	return left, true
}
