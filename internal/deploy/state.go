package deploy

import (
	"fmt"
	"slices"
	"time"

	"github.com/takodeploy/tako/octopus"
)

// State is what the facts of a journal amount to.
type State struct {
	Plan  *Plan
	Steps []StepState // as Plan.Steps
	Units map[Unit]*UnitState
	// Error is set from the first failure that nobody ignored.
	Error bool
	// ErrorDetail is the message of that failure.
	ErrorDetail string
	// Warnings tells that something is worth a look, failures included.
	Warnings  bool
	Cancelled bool
	// Excluded are the machines that were taken out of the deployment, by a person, a
	// health check, or since they are not available.
	Excluded map[string]bool
	// Outputs are all output variables, in the order of the journal: of several
	// values of one name the last one counts.
	Outputs []UnitOutput
	// Facts counts the facts that were folded.
	Facts int64
	// Joined are the machines that a health check added to those of the plan.
	Joined []Machine

	lanes [][]string        // by step: what Plan.Steps has, and those that joined
	done  []map[string]bool // by step: lanes that an earlier deployment has settled

	over int // steps before this one are over for ever; what Next need not look at
}

// StepState is the state of a step.
type StepState struct {
	Decided, Run bool
	Reason       string
	Window       int
	Beside       int       // how many steps of the group run at a time, 0 for MaxParallel
	At           time.Time // of the decision
}

// UnitState is the state of a unit.
type UnitState struct {
	Decided, Run bool
	Reason       string
	Attempt      int // of the latest intent; 0 before the first
	// Open tells that an attempt has an intent and no result yet.
	Open   bool
	Acked  bool
	Intent *Intent
	Result *Result // of the latest ended attempt
	// Asked is the interruption that is waiting for an answer.
	Asked *Ask
	// Final tells that nothing more happens to the unit; Outcome says how it ended.
	Final   bool
	Outcome Outcome
	// LaneOut tells that nothing of the unit's lane runs, since the step's condition is
	// false there.
	LaneOut bool
	// Ignored tells that a person let a failure pass.
	Ignored bool
	Started time.Time // of the first attempt
	Ended   time.Time
}

// UnitOutput is an output variable and the unit that has set it.
type UnitOutput struct {
	Unit   Unit
	Output Output
}

// NewState is the state before any fact.
func NewState(p *Plan) *State {
	s := &State{Plan: p, Steps: make([]StepState, len(p.Steps)), Units: map[Unit]*UnitState{}, Excluded: map[string]bool{}, lanes: make([][]string, len(p.Steps)), done: make([]map[string]bool, len(p.Steps))}
	for i := range p.Steps {
		s.lanes[i] = p.Steps[i].Lanes
		if n := len(p.Steps[i].Done); n > 0 {
			s.done[i] = make(map[string]bool, n)
		}
		for _, lane := range p.Steps[i].Done {
			s.done[i][lane] = true
		}
	}
	return s
}

// Fold reads the facts of a journal from the beginning.
func Fold(p *Plan, facts []Fact) (*State, error) {
	s := NewState(p)
	for i, f := range facts {
		if err := s.Apply(f); err != nil {
			return nil, fmt.Errorf("journal fact %d: %w", i+1, err)
		}
	}
	return s, nil
}

// Unit returns the state of u, which is empty before its first fact.
func (s *State) Unit(u Unit) UnitState {
	if st := s.Units[u]; st != nil {
		return *st
	}
	return UnitState{}
}

func (s *State) unit(u Unit) *UnitState {
	st := s.Units[u]
	if st == nil {
		st = &UnitState{}
		s.Units[u] = st
	}
	return st
}

// Apply folds one more fact. It fails on one that does not fit the plan or that
// contradicts what is known, which means that a journal is damaged.
func (s *State) Apply(f Fact) error {
	if err := s.check(f); err != nil {
		return err
	}
	s.Facts++
	switch f.Kind {
	case FactStep:
		s.Steps[f.Step] = StepState{Decided: true, Run: f.Run, Reason: f.Reason, Window: max(f.Window, 1), Beside: f.Beside, At: f.At}
	case FactUnit:
		u := s.unit(*f.Unit)
		u.Decided, u.Run, u.Reason, u.LaneOut = true, f.Run, f.Reason, f.Lane
		if !f.Run {
			u.Final, u.Outcome, u.Started, u.Ended = true, Skipped, f.At, f.At
		}
	case FactIntent:
		u := s.unit(*f.Unit)
		u.Attempt, u.Open, u.Acked, u.Intent, u.Asked = f.Attempt, true, false, f.Intent, nil
		if u.Started.IsZero() {
			u.Started = f.At
		}
	case FactAck:
		s.unit(*f.Unit).Acked = true
	case FactResult:
		s.result(s.unit(*f.Unit), f)
	case FactAsk:
		s.unit(*f.Unit).Asked = f.Ask
	case FactAnswer:
		s.answer(*f.Unit, f)
	case FactCancel:
		s.Cancelled = true
	case FactOutput:
		s.Outputs = append(s.Outputs, UnitOutput{*f.Unit, *f.Output})
	case FactMachines:
		s.change(f.Machines)
	}
	return nil
}

func (s *State) check(f Fact) error {
	switch f.Kind {
	case FactCancel:
		return nil
	case FactStep:
		if f.Step < 0 || f.Step >= len(s.Steps) || s.Steps[f.Step].Decided {
			return fmt.Errorf("step %d cannot be decided", f.Step)
		}
		return nil
	case FactMachines:
		if f.Unit == nil { // as the deployment begins
			if s.Facts > 0 || !s.changes(f.Machines) {
				return fmt.Errorf("machines change without a unit after %d facts", s.Facts)
			}
			return nil
		}
	case FactUnit, FactIntent, FactAck, FactResult, FactAsk, FactAnswer, FactOutput:
	default:
		return fmt.Errorf("kind %q is not known", f.Kind)
	}
	if f.Unit == nil || !s.planned(*f.Unit) {
		return fmt.Errorf("%s names no unit of the plan", f.Kind)
	}
	u := s.Unit(*f.Unit)
	same := f.Attempt == u.Attempt && u.Open // about the attempt that is under way
	bad := false
	switch f.Kind {
	case FactUnit:
		bad = !s.Steps[f.Unit.Step].Run || u.Decided || u.Attempt > 0 || f.Lane && (f.Run || f.Unit.Action > 0)
	case FactIntent:
		bad = f.Intent == nil || !s.Steps[f.Unit.Step].Run || f.Attempt != u.Attempt+1 || u.Open || u.Final || u.Asked != nil
	case FactAck:
		bad = !same
	case FactResult:
		bad = !same || u.Asked != nil || !f.Result.fits(f.Ask)
	case FactAsk:
		bad = !same || u.Asked != nil || !f.Ask.fits()
	case FactAnswer:
		bad = f.Answer == nil || u.Asked == nil || u.Asked.ID != f.Answer.ID || !slices.Contains(u.Asked.Kind.Choices(), f.Answer.Choice)
	case FactOutput:
		bad = !same || f.Output == nil || f.Output.Name == ""
	case FactMachines:
		bad = !same || !s.changes(f.Machines)
	case FactStep, FactCancel:
	}
	if bad {
		return fmt.Errorf("%s of unit %+v, attempt %d, contradicts the facts before it", f.Kind, *f.Unit, f.Attempt)
	}
	return nil
}

// planned reports whether the plan has the unit.
func (s *State) planned(u Unit) bool {
	if s.Units[u] != nil {
		return true
	}
	if u.Step < 0 || u.Step >= len(s.Steps) {
		return false
	}
	step := &s.Plan.Steps[u.Step]
	return u.Action >= 0 && u.Action < len(step.Actions) && slices.Contains(s.lanes[u.Step], u.Lane)
}

// changes reports whether machines can be changed so.
func (s *State) changes(c *Machines) bool {
	return c != nil && !slices.ContainsFunc(c.Join, func(m Machine) bool { return m.ID == "" || s.Machine(m.ID) != nil })
}

// AnyLeft reports whether the deployment has a target that was not taken out, and
// that is not in leaving.
func (s *State) AnyLeft(leaving map[string]bool) bool {
	return slices.ContainsFunc(slices.Concat(s.Plan.Machines, s.Joined), func(m Machine) bool { return !s.Excluded[m.ID] && !leaving[m.ID] })
}

// change takes machines out and in. Those that come join the steps that nobody has
// decided about yet and that want one of their tags.
func (s *State) change(c *Machines) {
	for _, id := range c.Leave {
		s.Excluded[id] = true
	}
	s.Joined = append(s.Joined, c.Join...)
	for i := range s.Plan.Steps {
		step := &s.Plan.Steps[i]
		if s.Steps[i].Decided || len(step.Roles) == 0 || step.once() {
			continue
		}
		for _, m := range c.Join {
			if hasAny(m.Roles, step.Roles) {
				s.lanes[i] = append(slices.Clip(s.lanes[i]), m.ID)
			}
		}
	}
}

// once reports whether a step runs once, though it may want targets.
func (s *Step) once() bool { return len(s.Lanes) == 1 && s.Lanes[0] == "" }

// Lanes are the ids of the machines that step i goes through, those that joined
// included; the one lane "" where it is bound to none.
func (s *State) Lanes(i int) []string { return s.lanes[i] }

// Machine finds a target of the deployment, one that joined included, nil if there
// is none.
func (s *State) Machine(id string) *Machine {
	for _, all := range [][]Machine{s.Plan.Machines, s.Joined} {
		for i := range all {
			if all[i].ID == id {
				return &all[i]
			}
		}
	}
	return nil
}

// MachineName is the name of a target of the deployment, its id when it is none.
func (s *State) MachineName(id string) string {
	if m := s.Machine(id); m != nil {
		return m.Name
	}
	return id
}

// Checked are the targets that a health check in a lane of step i looks at: the
// lane's, else those with the step's tags, all where it names none. Those that were
// taken out are not looked at again.
func (s *State) Checked(i int, lane string) []Machine {
	var out []Machine
	step := &s.Plan.Steps[i]
	for _, m := range slices.Concat(s.Plan.Machines, s.Joined) {
		wanted := m.ID == lane
		if lane == "" {
			wanted = step.Checks(m.Roles)
		}
		if wanted && !s.Excluded[m.ID] {
			out = append(out, m)
		}
	}
	return out
}

// Wants reports whether the step runs on targets with one of these tags.
func (s *Step) Wants(roles []string) bool { return !s.once() && hasAny(roles, s.Roles) }

// Checks reports whether a health check looks at targets with these tags.
func (s *Step) Checks(roles []string) bool { return len(s.Roles) == 0 || hasAny(roles, s.Roles) }

// fits reports whether a result says one thing: that it stands, that another
// attempt follows, or that a person is asked. Only a failure may be tried again
// by itself; an unknown fate never is.
func (r *Result) fits(ask *Ask) bool {
	if r == nil || ask != nil && (!ask.fits() || r.RetryAt != nil) {
		return false
	}
	switch r.Outcome {
	case Failed:
		return ask == nil || ask.Kind == AskGuided
	case Unknown:
		return r.RetryAt == nil && (ask == nil || ask.Kind == AskUnknown)
	case Succeeded, Skipped, Canceled:
		return r.RetryAt == nil && ask == nil
	default:
		return false
	}
}

func (a *Ask) fits() bool { return a != nil && a.ID != "" && a.Kind.Choices() != nil }

func (s *State) result(u *UnitState, f Fact) {
	u.Open, u.Result, u.Ended, u.Asked = false, f.Result, f.At, f.Ask
	s.Warnings = s.Warnings || f.Result.Warnings || f.Result.Outcome == Failed || f.Result.Outcome == Unknown
	if f.Ask != nil || f.Result.RetryAt != nil {
		return
	}
	u.Final, u.Outcome = true, f.Result.Outcome
	// A script is canceled with its deployment only, whichever fact comes first.
	s.Cancelled = s.Cancelled || u.Outcome == Canceled
	if u.Outcome == Failed || u.Outcome == Unknown {
		s.fail(f.Result.Message)
	}
}

func (s *State) fail(message string) {
	if !s.Error {
		s.Error, s.ErrorDetail = true, message
	}
}

func (s *State) answer(unit Unit, f Fact) {
	u := s.unit(unit)
	u.Asked = nil
	message := ""
	if u.Result != nil {
		message = u.Result.Message
	}
	end := func(o Outcome) {
		u.Open, u.Final, u.Outcome, u.Ended = false, true, o, f.At
	}
	switch f.Answer.Choice {
	case Proceed, MarkSucceeded:
		end(Succeeded)
	case ChildEnded: // the attempt goes on
	case Retry, RunAgain:
		u.Open = false // another attempt may follow
	case Ignore:
		end(Failed)
		u.Ignored = true
	case Exclude:
		end(Failed)
		u.Ignored = true
		if unit.Lane != "" {
			s.Excluded[unit.Lane] = true
		}
	case Abort, Fail, MarkFailed:
		end(Failed)
		if f.Answer.Choice == Abort {
			message = "The intervention was answered with Abort"
			if f.Answer.User != "" {
				message += " by " + f.Answer.User
			}
			message += "."
		}
		s.fail(message)
	}
}

// Settled are the lanes, by the id of their step, that need not run again when the
// deployment is made once more: those that have succeeded as a whole, in steps up to
// the first that has failed and those beside it. What ran after that, such as what
// cleans up behind a failure, is not among them, nor is a health check or the acquisition
// of packages: what they found out may have changed.
func (s *State) Settled() map[string][]string {
	out := map[string][]string{}
	failed := false
	for start := 0; start < len(s.Plan.Steps) && !failed; {
		end := s.groupEnd(start)
		for i := start; i < end; i++ {
			id := s.Plan.Steps[i].ID
			for _, lane := range s.lanes[i] {
				settled, bad := s.settled(i, lane)
				if settled {
					out[id] = append(out[id], lane)
				}
				failed = failed || bad
			}
		}
		start = end
	}
	return out
}

// settled reports whether a lane has succeeded as a whole, and whether it has failed.
func (s *State) settled(i int, lane string) (settled, failed bool) {
	if s.done[i][lane] {
		return true, false
	}
	whole := true
	for a := range s.Plan.Steps[i].Actions {
		u := s.Unit(Unit{Step: i, Action: a, Lane: lane})
		bad := u.Outcome == Failed || u.Outcome == Unknown
		switch {
		case u.Final && u.Outcome == Succeeded:
			settled = true
		case u.Final && u.Outcome == Skipped:
		default:
			whole = false
			failed = failed || u.Final && bad && !u.Ignored
		}
		kind := s.Plan.Steps[i].Actions[a].Type
		whole = whole && kind != octopus.ActionHealthCheck && kind != AcquirePackages
	}
	return settled && whole, failed
}
