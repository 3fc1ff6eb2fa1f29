package deploy

import (
	"slices"
	"time"

	"github.com/takodeploy/tako/octopus"
)

// MoveKind is what may be done next.
type MoveKind uint8

// The kinds of moves.
const (
	// MoveDecideStep asks whether a step runs, and how wide: append FactStep.
	MoveDecideStep MoveKind = iota
	// MoveDecideUnit asks whether a unit runs: append FactUnit.
	MoveDecideUnit
	// MoveStart starts an attempt of a unit: append FactIntent, then do it.
	MoveStart
	// MoveFinish ends the deployment.
	MoveFinish
)

// Move is something that may be done now. Moves of one answer are independent
// of each other.
type Move struct {
	Kind MoveKind
	Step int
	Unit Unit
	// Attempt of MoveStart, and the time before which it must not start.
	Attempt   int
	NotBefore time.Time
	// Evaluate tells that a decision takes an expression over variables; else
	// Run and Reason are the decision.
	Evaluate bool
	Run      bool
	Reason   string
	// Outcome of MoveFinish.
	Outcome Outcome
}

// Next lists what may be done now. It depends on the facts alone: a unit that has
// an intent is never started again unless its attempt has ended and another one
// was allowed. An empty answer means that something must end, or somebody answer,
// first; see Waiting. It may note in the state which steps are over, so it is not
// for two goroutines at once.
func (s *State) Next() []Move {
	if s.Cancelled {
		if s.Running() {
			return nil
		}
		return []Move{{Kind: MoveFinish, Outcome: Canceled}}
	}
	for start := s.over; start < len(s.Plan.Steps); {
		end := s.groupEnd(start)
		moves, done := s.group(start, end)
		if !done {
			return moves
		}
		// A machine that was taken out may still end what it had begun in an
		// earlier group; without any, nothing comes back to what is over.
		if start == s.over && len(s.Excluded) == 0 {
			s.over = end
		}
		start = end
	}
	if s.Error {
		return []Move{{Kind: MoveFinish, Outcome: Failed}}
	}
	return []Move{{Kind: MoveFinish, Outcome: Succeeded}}
}

// Waiting reports whether only a person can bring the deployment further: an
// interruption is pending, nothing runs and nothing may start.
func (s *State) Waiting() bool {
	asked := false
	for _, u := range s.Units {
		if u.Open && u.Asked == nil {
			return false
		}
		asked = asked || u.Asked != nil
	}
	return asked && len(s.Next()) == 0
}

// Running reports whether something runs. A unit that only waits for a person does
// not.
func (s *State) Running() bool {
	for _, u := range s.Units {
		if u.Open && u.Asked == nil {
			return true
		}
	}
	return false
}

// groupEnd is the index after the last step that starts together with step start.
func (s *State) groupEnd(start int) int {
	end := start + 1
	for end < len(s.Plan.Steps) && s.Plan.Steps[end].WithPrevious {
		end++
	}
	return end
}

// group lists the moves of steps that run side by side. All of them are decided
// together, before the first one starts, so that their order does not matter.
func (s *State) group(start, end int) (moves []Move, done bool) {
	for i := start; i < end; i++ {
		if !s.Steps[i].Decided {
			moves = append(moves, s.decideStep(i))
		}
	}
	if len(moves) > 0 {
		return moves, false
	}
	done = true
	open, limit := 0, s.Steps[start].Beside
	if limit <= 0 {
		limit = MaxParallel
	}
	for i := start; i < end && open < limit; i++ {
		more, stepDone := s.step(i)
		if !stepDone {
			done = false
			open++
		}
		moves = append(moves, more...)
	}
	return moves, done
}

func (s *State) decideStep(i int) Move {
	step := &s.Plan.Steps[i]
	m := Move{Kind: MoveDecideStep, Step: i, Run: true}
	if step.AllDone() {
		m.Run, m.Reason = false, "it has succeeded in "+s.Plan.Earlier
		return m
	}
	switch step.Condition {
	case octopus.StepConditionFailure:
		if !s.Error {
			m.Run, m.Reason = false, "no previous step has failed"
		}
	case octopus.StepConditionAlways:
	case octopus.StepConditionVariable:
		m.Evaluate = !step.PerLane()
	default:
		if s.Error {
			m.Run, m.Reason = false, "a previous step has failed"
		}
	}
	if (m.Run || m.Evaluate) && !s.anyLane(i) {
		m.Run, m.Evaluate, m.Reason = false, false, "no deployment targets match the step"
	}
	return m
}

// anyLane reports whether a step has a lane that was not taken out.
func (s *State) anyLane(i int) bool {
	return slices.ContainsFunc(s.lanes[i], func(lane string) bool { return !s.Excluded[lane] && !s.done[i][lane] })
}

// lane is how far one machine (or none) has come within a step.
type lane struct {
	started, done, failed bool
	move                  *Move // what the lane's current unit waits for
}

func (s *State) step(i int) (moves []Move, done bool) {
	st, step := s.Steps[i], &s.Plan.Steps[i]
	if !st.Run {
		return nil, true
	}
	lanes := make([]lane, len(s.lanes[i]))
	open, failed := 0, false
	for j, name := range s.lanes[i] {
		lanes[j] = s.lane(i, name)
		if lanes[j].started && !lanes[j].done {
			open++
		}
		failed = failed || lanes[j].failed
	}
	done = open == 0
	for _, l := range lanes {
		switch {
		case l.done:
			continue
		case !l.started:
			if failed && step.Rolling {
				continue // a rolling step opens no further lane after a failure
			}
			if open >= st.Window {
				done = false
				continue
			}
			open++
		}
		done = false
		if l.move != nil {
			moves = append(moves, *l.move)
		}
	}
	return moves, done
}

func (s *State) lane(i int, name string) lane {
	step := &s.Plan.Steps[i]
	var l lane
	if s.done[i][name] {
		return lane{done: true}
	}
	if s.Excluded[name] {
		l.done = true
	}
	for a := range step.Actions {
		unit := Unit{Step: i, Action: a, Lane: name}
		u := s.Unit(unit)
		if u.Decided || u.Attempt > 0 {
			l.started = true
		}
		if u.LaneOut {
			l.done = true
			return l
		}
		if u.Final {
			if u.Outcome == Failed && !u.Ignored || u.Outcome == Unknown {
				l.done, l.failed = true, true
				return l
			}
			continue
		}
		if l.done {
			if u.Open {
				l.done = false // an excluded machine's lane ends with what runs on it
			}
			return l
		}
		l.move = s.unitMove(unit, u, &step.Actions[a])
		return l
	}
	l.done = true
	return l
}

// unitMove is what a lane's current unit needs, nil while it runs or waits.
func (s *State) unitMove(unit Unit, u UnitState, a *Action) *Move {
	switch {
	case u.Open || u.Asked != nil:
		return nil
	case u.Attempt > 0: // an attempt has ended and another one was allowed
		m := &Move{Kind: MoveStart, Unit: unit, Attempt: u.Attempt + 1}
		if u.Result != nil && u.Result.RetryAt != nil {
			m.NotBefore = *u.Result.RetryAt
		}
		return m
	case !u.Decided && a.Skip:
		return &Move{Kind: MoveDecideUnit, Unit: unit, Reason: "it was left out of this deployment"}
	case !u.Decided && (a.Variable || unit.Action == 0 && s.Plan.Steps[unit.Step].PerLane()):
		return &Move{Kind: MoveDecideUnit, Unit: unit, Evaluate: true}
	default:
		return &Move{Kind: MoveStart, Unit: unit, Attempt: 1}
	}
}
