package deploy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

var t0 = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

// drive plays a deployment by hand: it takes every decision that Next asks for,
// starts what may start, and ends attempts as a test says.
type drive struct {
	t       *testing.T
	s       *deploy.State
	facts   []deploy.Fact
	windows map[int]int  // by step, 10 where none is given
	truth   map[int]bool // by step and of actions: what conditions evaluate to
	now     time.Time
	ids     int
}

func newDrive(t *testing.T, p *deploy.Plan) *drive {
	t.Helper()
	return &drive{t: t, s: deploy.NewState(p), windows: map[int]int{}, truth: map[int]bool{}, now: t0}
}

func (d *drive) add(f deploy.Fact) {
	d.t.Helper()
	d.now = d.now.Add(time.Second)
	f.At = d.now
	if err := d.s.Apply(f); err != nil {
		d.t.Fatal(err)
	}
	d.facts = append(d.facts, f)
}

// settle takes decisions until there are none, starts all that may start, and
// returns what was started, in the form "step.action@lane#attempt", or the end.
func (d *drive) settle() string {
	d.t.Helper()
	var started []string
	for {
		decided := false
		moves := d.s.Next()
		for _, m := range moves {
			switch m.Kind {
			case deploy.MoveDecideStep:
				run := m.Run
				if m.Evaluate {
					run = d.truth[m.Step]
				}
				window := d.windows[m.Step]
				if window == 0 {
					window = 10
				}
				d.add(deploy.Fact{Kind: deploy.FactStep, Step: m.Step, Run: run, Reason: m.Reason, Window: window})
				decided = true
			case deploy.MoveDecideUnit:
				run := m.Run
				if m.Evaluate {
					run = d.truth[m.Unit.Step]
				}
				d.add(deploy.Fact{Kind: deploy.FactUnit, Unit: &m.Unit, Run: run, Reason: m.Reason})
				decided = true
			case deploy.MoveFinish:
				return strings.TrimSpace(strings.Join(started, " ") + " " + string(m.Outcome))
			case deploy.MoveStart:
			}
		}
		if decided {
			continue
		}
		if len(moves) == 0 {
			return strings.Join(started, " ")
		}
		for _, m := range moves {
			note := fmt.Sprintf("%s#%d", m.Unit.Key(), m.Attempt)
			if !m.NotBefore.IsZero() {
				note += "+" + m.NotBefore.Sub(t0).String()
			}
			started = append(started, note)
			d.add(deploy.Fact{Kind: deploy.FactIntent, Unit: &m.Unit, Attempt: m.Attempt, Intent: &deploy.Intent{Contract: deploy.ContractTako}})
		}
	}
}

// unit reads "0.1" or "0.1.Machines-1".
func unit(key string) deploy.Unit {
	parts := strings.SplitN(key, ".", 3)
	var u deploy.Unit
	_, _ = fmt.Sscan(parts[0]+" "+parts[1], &u.Step, &u.Action)
	if len(parts) == 3 {
		u.Lane = parts[2]
	}
	return u
}

// end ends the attempt of a unit. With ask, a person is asked.
func (d *drive) end(key string, o deploy.Outcome, change ...func(*deploy.Fact)) {
	d.t.Helper()
	u := unit(key)
	f := deploy.Fact{Kind: deploy.FactResult, Unit: &u, Attempt: d.s.Unit(u).Attempt, Result: &deploy.Result{Outcome: o, Message: "message of " + key}}
	for _, c := range change {
		c(&f)
	}
	d.add(f)
}

func (d *drive) ask(kind deploy.AskKind) func(*deploy.Fact) {
	d.ids++
	return func(f *deploy.Fact) { f.Ask = &deploy.Ask{ID: fmt.Sprint("Interruptions-", d.ids), Kind: kind} }
}

func retryAt(at time.Time) func(*deploy.Fact) {
	return func(f *deploy.Fact) { f.Result.RetryAt = &at }
}

func (d *drive) answer(key string, c deploy.Choice) {
	d.t.Helper()
	u := unit(key)
	d.add(deploy.Fact{Kind: deploy.FactAnswer, Unit: &u, Answer: &deploy.Answer{ID: d.s.Unit(u).Asked.ID, Choice: c, User: "ann"}})
}

// expect settles and compares.
func (d *drive) expect(want string) {
	d.t.Helper()
	if got := d.settle(); got != want {
		d.t.Errorf("started %q, want %q", got, want)
	}
}

// planOf makes a plan of steps written as "condition[ with][ rolling]: actions on
// lanes", for example "Success: 2 on a b".
func planOf(t *testing.T, steps ...string) *deploy.Plan {
	t.Helper()
	p := &deploy.Plan{Format: deploy.Format}
	for i, text := range steps {
		head, tail, _ := strings.Cut(text, ":")
		words := strings.Fields(head)
		var n int
		count, lanes, _ := strings.Cut(strings.TrimSpace(tail), " on ")
		if _, err := fmt.Sscan(count, &n); err != nil {
			t.Fatal(err)
		}
		s := deploy.Step{
			ID: fmt.Sprint("s", i), Name: fmt.Sprint("Step ", i+1), Number: fmt.Sprint(i + 1), Condition: octopus.StepCondition(words[0]),
			WithPrevious: slices.Contains(words, "with"), Rolling: slices.Contains(words, "rolling"), Lanes: strings.Fields(lanes),
		}
		if lanes == "" {
			s.Lanes = []string{""}
		}
		if lanes == "nothing" {
			s.Lanes = nil
		}
		for a := range n {
			s.Actions = append(s.Actions, deploy.Action{
				ID: fmt.Sprintf("a%d.%d", i, a), Name: fmt.Sprintf("Action %d.%d", i+1, a+1), Place: deploy.OnWorker,
				Variable: slices.Contains(words, "variable"), Skip: slices.Contains(words, "skip"),
			})
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

func TestNoSteps(t *testing.T) {
	t.Parallel()
	newDrive(t, planOf(t)).expect("succeeded")
}

func TestOneAfterAnother(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 2", "Success: 1", "Failure: 1", "Always: 1"))
	d.expect("0.0#1")
	d.expect("")
	d.end("0.0", deploy.Succeeded)
	d.expect("0.1#1")
	d.end("0.1", deploy.Succeeded)
	d.expect("1.0#1")
	d.end("1.0", deploy.Succeeded)
	d.expect("3.0#1") // nothing has failed
	d.end("3.0", deploy.Succeeded)
	d.expect("succeeded")
}

func TestAfterAFailure(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 2", "Success: 1", "Failure: 1", "Variable: 1", "Variable: 1", "Always: 1"))
	d.truth[4] = true
	d.expect("0.0#1")
	d.end("0.0", deploy.Failed)
	d.expect("2.0#1") // the failed lane goes no further, Success steps are passed over
	d.end("2.0", deploy.Failed)
	d.expect("4.0#1") // a Variable step runs after a failure too
	d.end("4.0", deploy.Succeeded)
	d.expect("5.0#1")
	d.end("5.0", deploy.Succeeded)
	d.expect("failed")
	if d.s.ErrorDetail != "message of 0.0" {
		t.Errorf("the first failure is %q", d.s.ErrorDetail)
	}
	if r := d.s.Steps[1].Reason; r != "a previous step has failed" {
		t.Errorf("step 2 was left out since %q", r)
	}
}

func TestSkippedAndConditional(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success skip: 1", "Success variable: 1", "Success variable: 1", "Success: 1 on nothing"))
	d.truth[2] = true
	d.expect("2.0#1")
	if u := d.s.Unit(unit("1.0")); u.Outcome != deploy.Skipped || !u.Final || u.Attempt != 0 {
		t.Errorf("a unit whose condition is false is %+v", u)
	}
	if u := d.s.Unit(unit("0.0")); u.Reason != "it was left out of this deployment" {
		t.Errorf("a unit that was left out is %+v", u)
	}
	d.end("2.0", deploy.Succeeded)
	d.expect("succeeded")
	if r := d.s.Steps[3].Reason; r != "no deployment targets match the step" {
		t.Errorf("the step without targets: %q", r)
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 1", "Success with: 1", "Failure with: 1", "Always with: 1", "Success: 1"))
	d.expect("0.0#1 1.0#1 3.0#1")
	d.end("0.0", deploy.Failed)
	d.expect("") // decided together before any of them began
	d.end("1.0", deploy.Succeeded)
	d.end("3.0", deploy.Succeeded)
	d.expect("failed")
}

// At most MaxParallel steps of a group run at a time.
func TestGroupIsBounded(t *testing.T) {
	t.Parallel()
	steps := []string{"Success: 1"}
	for range 11 {
		steps = append(steps, "Success with: 1")
	}
	d := newDrive(t, planOf(t, steps...))
	if got := strings.Fields(d.settle()); len(got) != deploy.MaxParallel {
		t.Errorf("%d steps started: %v", len(got), got)
	}
	d.end("4.0", deploy.Succeeded)
	d.expect("10.0#1")
	d.end("7.0", deploy.Failed)
	d.expect("11.0#1")
	d.expect("")
}

func TestWindow(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 2 on a b c d", "Success: 1"))
	d.windows[0] = 2
	d.expect("0.0.a#1 0.0.b#1")
	d.end("0.0.b", deploy.Succeeded)
	d.expect("0.1.b#1") // all children on one target before the next one
	d.end("0.1.b", deploy.Succeeded)
	d.expect("0.0.c#1") // it slides: not in batches
	d.end("0.0.a", deploy.Failed)
	d.expect("0.0.d#1") // a step that is no rolling one goes on to the others
	d.end("0.0.c", deploy.Succeeded)
	d.end("0.0.d", deploy.Succeeded)
	d.expect("0.1.c#1 0.1.d#1")
	d.end("0.1.c", deploy.Succeeded)
	d.expect("")
	d.end("0.1.d", deploy.Succeeded)
	d.expect("failed")
}

func TestRollingStopsAfterAFailure(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success rolling: 2 on a b c d", "Always: 1"))
	d.windows[0] = 2
	d.expect("0.0.a#1 0.0.b#1")
	d.end("0.0.a", deploy.Failed)
	d.expect("")
	d.end("0.0.b", deploy.Succeeded)
	d.expect("0.1.b#1") // what began goes to its end
	d.end("0.1.b", deploy.Succeeded)
	d.expect("1.0#1")
	d.end("1.0", deploy.Succeeded)
	d.expect("failed")
	if u := d.s.Unit(unit("0.0.c")); u.Attempt != 0 {
		t.Errorf("a lane was opened after the failure: %+v", u)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success rolling: 1 on a b", "Success: 1"))
	d.windows[0] = 1
	d.expect("0.0.a#1")
	d.end("0.0.a", deploy.Failed, retryAt(t0.Add(time.Minute)))
	d.expect("0.0.a#2+1m0s") // the lane keeps its place in the window
	if d.s.Error {
		t.Error("a failure that is tried again is no error")
	}
	d.end("0.0.a", deploy.Failed, retryAt(t0.Add(2*time.Minute)))
	d.expect("0.0.a#3+2m0s")
	d.end("0.0.a", deploy.Succeeded)
	d.expect("0.0.b#1")
	d.end("0.0.b", deploy.Succeeded)
	d.expect("1.0#1")
	d.end("1.0", deploy.Succeeded)
	d.expect("succeeded")
	if !d.s.Warnings {
		t.Error("failed attempts are worth a warning")
	}
}

func TestGuidedFailure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		choice deploy.Choice
		want   []string // what runs after the answer, and then after that
		error  bool
	}{
		{deploy.Retry, []string{"0.0.a#2", "0.1.a#1", "1.0.a#1 1.0.b#1"}, false},
		{deploy.Ignore, []string{"0.1.a#1", "1.0.a#1 1.0.b#1"}, false},
		{deploy.Exclude, []string{"1.0.b#1"}, false},
		{deploy.Fail, []string{"failed"}, true},
	} {
		t.Run(string(c.choice), func(t *testing.T) {
			t.Parallel()
			d := newDrive(t, planOf(t, "Success: 2 on a b", "Success: 1 on a b"))
			d.expect("0.0.a#1 0.0.b#1")
			d.end("0.0.a", deploy.Failed, d.ask(deploy.AskGuided))
			if d.s.Waiting() {
				t.Error("it waits for a person though b runs")
			}
			d.expect("")
			d.end("0.0.b", deploy.Succeeded)
			if d.s.Waiting() {
				t.Error("it waits for a person though b may go on")
			}
			d.expect("0.1.b#1")
			d.end("0.1.b", deploy.Succeeded)
			d.expect("")
			if !d.s.Waiting() || d.s.Error {
				t.Errorf("waiting %t, error %t", d.s.Waiting(), d.s.Error)
			}
			d.answer("0.0.a", c.choice)
			if d.s.Waiting() {
				t.Error("it still waits")
			}
			for _, want := range c.want {
				d.expect(want)
				for _, started := range strings.Fields(want) {
					if key, _, ok := strings.Cut(started, "#"); ok {
						d.end(key, deploy.Succeeded)
					}
				}
			}
			if d.s.Error != c.error {
				t.Errorf("error is %t", d.s.Error)
			}
			if !c.error {
				d.expect("succeeded")
			}
		})
	}
}

// What an excluded machine has begun elsewhere comes to its end, and no more.
func TestExcludedWhileItRuns(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 2 on a", "Success with: 1 on a b", "Success: 1 on a", "Success: 1 on a b"))
	d.expect("0.0.a#1 1.0.a#1 1.0.b#1")
	d.end("1.0.a", deploy.Failed, d.ask(deploy.AskGuided))
	d.end("1.0.b", deploy.Succeeded)
	d.answer("1.0.a", deploy.Exclude)
	d.expect("") // 0.0 on a still runs
	d.end("0.0.a", deploy.Succeeded)
	d.expect("3.0.b#1") // 0.1 does not start, and step 3 has no target left
	d.end("3.0.b", deploy.Succeeded)
	d.expect("succeeded")
}

// A start that was on its way when its machine was taken out brings its step back.
func TestStartCrossesExclude(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 2 on a", "Success with: 1 on a", "Success: 1"))
	d.expect("0.0.a#1 1.0.a#1")
	d.end("1.0.a", deploy.Failed, d.ask(deploy.AskGuided))
	d.end("0.0.a", deploy.Succeeded)
	late := d.s.Next()
	d.answer("1.0.a", deploy.Exclude)
	d.add(deploy.Fact{Kind: deploy.FactStep, Step: 2, Run: true, Window: 1})
	if next := d.s.Next(); len(next) != 1 || next[0].Unit != unit("2.0") {
		t.Fatalf("behind the excluded machine comes %+v", next)
	}
	d.add(deploy.Fact{Kind: deploy.FactIntent, Unit: &late[0].Unit, Attempt: 1, Intent: &deploy.Intent{}})
	d.expect("")
	d.end("0.1.a", deploy.Succeeded)
	d.expect("2.0#1")
}

func TestUnknownFate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		choice deploy.Choice
		want   string
		final  deploy.Outcome
	}{
		{deploy.MarkSucceeded, "0.1#1", deploy.Succeeded},
		{deploy.MarkFailed, "failed", deploy.Failed},
		{deploy.RunAgain, "0.0#2", ""},
	} {
		t.Run(string(c.choice), func(t *testing.T) {
			t.Parallel()
			d := newDrive(t, planOf(t, "Success: 2"))
			d.expect("0.0#1")
			d.end("0.0", deploy.Unknown, d.ask(deploy.AskUnknown))
			d.expect("")
			if !d.s.Waiting() {
				t.Error("nobody is asked")
			}
			d.answer("0.0", c.choice)
			d.expect(c.want)
			if u := d.s.Unit(unit("0.0")); u.Outcome != c.final {
				t.Errorf("the unit is %+v", u)
			}
		})
	}
}

func TestManual(t *testing.T) {
	t.Parallel()
	for choice, want := range map[deploy.Choice]string{deploy.Proceed: "0.1#1", deploy.Abort: "failed"} {
		d := newDrive(t, planOf(t, "Success: 2"))
		d.expect("0.0#1")
		u := unit("0.0")
		ask := deploy.Fact{Kind: deploy.FactAsk, Unit: &u, Attempt: 1}
		d.ask(deploy.AskManual)(&ask)
		d.add(ask)
		d.expect("")
		if !d.s.Waiting() {
			t.Error("nobody is asked")
		}
		d.answer("0.0", choice)
		d.expect(want)
		if choice == deploy.Abort && d.s.ErrorDetail != "The intervention was answered with Abort by ann." {
			t.Errorf("the failure is %q", d.s.ErrorDetail)
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 2 on a b c", "Always: 1"))
	d.expect("0.0.a#1 0.0.b#1 0.0.c#1")
	d.end("0.0.c", deploy.Failed, retryAt(t0.Add(time.Hour)))
	d.end("0.0.b", deploy.Failed, d.ask(deploy.AskGuided))
	d.add(deploy.Fact{Kind: deploy.FactCancel})
	d.expect("") // a runs
	if d.s.Waiting() {
		t.Error("a canceled deployment waits for nobody")
	}
	d.end("0.0.a", deploy.Canceled)
	d.expect("canceled") // Always does not run, nor the retry
}

// A script is only canceled with its deployment: nothing starts between its end
// and the fact that tells of the cancellation.
func TestCanceledResultComesFirst(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 2", "Always: 1"))
	d.expect("0.0#1")
	d.end("0.0", deploy.Canceled)
	d.expect("canceled")
	d.add(deploy.Fact{Kind: deploy.FactCancel})
	d.expect("canceled")
}

// Facts that contradict what is known are refused, and change nothing.
func TestRefusedFacts(t *testing.T) {
	t.Parallel()
	first, other, stranger, skipped := unit("0.0.a"), unit("0.0.b"), unit("0.0.zz"), unit("1.0")
	past := deploy.Unit{Step: 7}
	negative := deploy.Unit{Step: -1, Action: -1}
	action := deploy.Unit{Action: 1, Lane: "a"}
	intent := &deploy.Intent{Contract: deploy.ContractTako}
	at := t0
	d := newDrive(t, planOf(t, "Success: 1 on a b", "Success: 1"))
	d.windows[0] = 1
	check := func(name string, facts ...deploy.Fact) {
		t.Helper()
		for _, f := range facts {
			before := fmt.Sprintf("%+v", d.s.Unit(first))
			if err := d.s.Apply(f); err == nil {
				t.Errorf("%s: %+v is accepted", name, f)
			}
			if after := fmt.Sprintf("%+v", d.s.Unit(first)); after != before {
				t.Errorf("%s: a refused fact changes %s to %s", name, before, after)
			}
		}
	}
	check("at the start",
		deploy.Fact{}, deploy.Fact{Kind: "new"}, deploy.Fact{Kind: deploy.FactStep, Step: 9}, deploy.Fact{Kind: deploy.FactStep, Step: -1},
		deploy.Fact{Kind: deploy.FactUnit}, deploy.Fact{Kind: deploy.FactUnit, Unit: &past}, deploy.Fact{Kind: deploy.FactUnit, Unit: &negative},
		deploy.Fact{Kind: deploy.FactUnit, Unit: &stranger}, deploy.Fact{Kind: deploy.FactUnit, Unit: &action},
		deploy.Fact{Kind: deploy.FactIntent, Unit: &first, Attempt: 1, Intent: intent}, // its step is not decided
		deploy.Fact{Kind: deploy.FactUnit, Unit: &first, Run: true},
	)
	d.expect("0.0.a#1")
	result := func(o deploy.Outcome, change ...func(*deploy.Fact)) deploy.Fact {
		f := deploy.Fact{Kind: deploy.FactResult, Unit: &first, Attempt: 1, Result: &deploy.Result{Outcome: o}}
		for _, c := range change {
			c(&f)
		}
		return f
	}
	check("while it runs",
		deploy.Fact{Kind: deploy.FactStep, Step: 0, Run: true},
		deploy.Fact{Kind: deploy.FactUnit, Unit: &first, Run: true},
		deploy.Fact{Kind: deploy.FactIntent, Unit: &first, Attempt: 2, Intent: intent},
		deploy.Fact{Kind: deploy.FactIntent, Unit: &skipped, Attempt: 1, Intent: intent},
		deploy.Fact{Kind: deploy.FactIntent, Unit: &other, Attempt: 2, Intent: intent},
		deploy.Fact{Kind: deploy.FactIntent, Unit: &other, Attempt: 1},
		deploy.Fact{Kind: deploy.FactAck, Unit: &first, Attempt: 2},
		deploy.Fact{Kind: deploy.FactAck, Unit: &other, Attempt: 0},
		deploy.Fact{Kind: deploy.FactOutput, Unit: &first, Attempt: 1},
		deploy.Fact{Kind: deploy.FactOutput, Unit: &first, Attempt: 1, Output: &deploy.Output{}},
		deploy.Fact{Kind: deploy.FactOutput, Unit: &other, Output: &deploy.Output{Name: "x"}},
		deploy.Fact{Kind: deploy.FactResult, Unit: &first, Attempt: 1},
		deploy.Fact{Kind: deploy.FactResult, Unit: &first, Attempt: 2, Result: &deploy.Result{Outcome: deploy.Succeeded}},
		result("finished"), result(deploy.Unknown, retryAt(at)), result(deploy.Succeeded, retryAt(at)), result(deploy.Succeeded, d.ask(deploy.AskGuided)),
		result(deploy.Failed, retryAt(at), d.ask(deploy.AskGuided)), result(deploy.Failed, d.ask(deploy.AskUnknown)), result(deploy.Failed, d.ask("why")),
		result(deploy.Failed, func(f *deploy.Fact) { f.Ask = &deploy.Ask{Kind: deploy.AskGuided} }),
		deploy.Fact{Kind: deploy.FactAsk, Unit: &first, Attempt: 1}, deploy.Fact{Kind: deploy.FactAnswer, Unit: &first},
		deploy.Fact{Kind: deploy.FactAnswer, Unit: &first, Answer: &deploy.Answer{Choice: deploy.Proceed}},
	)
	d.end("0.0.a", deploy.Failed, d.ask(deploy.AskGuided))
	id := d.s.Unit(first).Asked.ID
	check("while somebody is asked",
		deploy.Fact{Kind: deploy.FactIntent, Unit: &first, Attempt: 2, Intent: intent}, // nobody allowed it
		deploy.Fact{Kind: deploy.FactResult, Unit: &first, Attempt: 1, Result: &deploy.Result{Outcome: deploy.Succeeded}},
		deploy.Fact{Kind: deploy.FactAnswer, Unit: &first, Answer: &deploy.Answer{ID: "Interruptions-0", Choice: deploy.Retry}},
		deploy.Fact{Kind: deploy.FactAnswer, Unit: &first, Answer: &deploy.Answer{ID: id, Choice: "Perhaps"}},
		deploy.Fact{Kind: deploy.FactAnswer, Unit: &first, Answer: &deploy.Answer{ID: id, Choice: deploy.Proceed}},
	)
	d.answer("0.0.a", deploy.Ignore)
	check("once it is final",
		deploy.Fact{Kind: deploy.FactIntent, Unit: &first, Attempt: 2, Intent: intent},
		deploy.Fact{Kind: deploy.FactAnswer, Unit: &first, Answer: &deploy.Answer{ID: id, Choice: deploy.Retry}},
	)
	if _, err := deploy.Fold(d.s.Plan, append(slices.Clone(d.facts), deploy.Fact{Kind: "new"})); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("fact %d:", len(d.facts)+1)) {
		t.Errorf("a damaged journal: %v", err)
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	p := planOf(t, "Success rolling: 2 on a b c", "Success: 1", "Failure: 1", "Always: 1")
	p.Machines = []deploy.Machine{{ID: "a", Name: "Alpha"}, {ID: "b", Name: "Beta"}, {ID: "c", Name: "Gamma"}}
	d := newDrive(t, p)
	d.windows[0] = 2
	state := octopus.TaskQueued
	write := func() string {
		var b strings.Builder
		root := d.s.Tree("ServerTasks-1", "Deploy", state, t0, time.Time{})
		var walk func(depth int, a *octopus.Activity)
		walk = func(depth int, a *octopus.Activity) {
			fmt.Fprintf(&b, "%s%s %q %s %d%%\n", strings.Repeat("  ", depth), strings.TrimPrefix(a.ID, "ServerTasks-1"), a.Name, a.Status, a.ProgressPercentage)
			for i := range a.Children {
				walk(depth+1, &a.Children[i])
			}
			if a.Ended != nil && a.ProgressPercentage != 100 {
				t.Errorf("%s has ended at %d%%", a.ID, a.ProgressPercentage)
			}
		}
		walk(0, root)
		for i := range p.Steps {
			if got := d.s.StepStatus(i); !state.Completed() && got != root.Children[i].Status {
				t.Errorf("step %d is %s, its node %s", i, got, root.Children[i].Status)
			}
		}
		return b.String()
	}
	expect := func(want string) {
		t.Helper()
		if got := write(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
	expect(` "Deploy" Pending 0%
  _0 "Step 1: Step 1" Pending 0%
  _1 "Step 2: Step 2" Pending 0%
  _2 "Step 3: Step 3" Pending 0%
  _3 "Step 4: Step 4" Pending 0%
`)
	state = octopus.TaskExecuting
	d.expect("0.0.a#1 0.0.b#1")
	d.end("0.0.a", deploy.Succeeded)
	d.expect("0.1.a#1")
	d.end("0.1.a", deploy.Failed, retryAt(t0))
	d.expect("0.1.a#2+0s")
	d.end("0.1.a", deploy.Failed)
	expect(` "Deploy" Running 0%
  _0 "Step 1: Step 1" Running 33%
    _0.0.a "Action 1.1 on Alpha" Success 100%
    _0.1.a "Action 1.2 on Alpha (attempt 2)" Failed 100%
    _0.0.b "Action 1.1 on Beta" Running 0%
    _0.1.b "Action 1.2 on Beta" Pending 0%
    _0.0.c "Action 1.1 on Gamma" Pending 0%
    _0.1.c "Action 1.2 on Gamma" Pending 0%
  _1 "Step 2: Step 2" Pending 0%
  _2 "Step 3: Step 3" Pending 0%
  _3 "Step 4: Step 4" Pending 0%
`)
	d.end("0.0.b", deploy.Failed)
	d.expect("2.0#1")
	// The first step is over, though not everything in it ran.
	expect(` "Deploy" Running 50%
  _0 "Step 1: Step 1" Failed 100%
    _0.0.a "Action 1.1 on Alpha" Success 100%
    _0.1.a "Action 1.2 on Alpha (attempt 2)" Failed 100%
    _0.0.b "Action 1.1 on Beta" Failed 100%
    _0.1.b "Action 1.2 on Beta" Skipped 100%
    _0.0.c "Action 1.1 on Gamma" Skipped 100%
    _0.1.c "Action 1.2 on Gamma" Skipped 100%
  _1 "Step 2: Step 2" Skipped 100%
  _2 "Step 3: Step 3" Running 0%
    _2.0 "Action 3.1 on a Worker" Running 0%
  _3 "Step 4: Step 4" Pending 0%
`)
	d.add(deploy.Fact{Kind: deploy.FactCancel})
	d.end("2.0", deploy.Canceled)
	d.expect("canceled")
	state = octopus.TaskCanceled
	expect(` "Deploy" Canceled 100%
  _0 "Step 1: Step 1" Failed 100%
    _0.0.a "Action 1.1 on Alpha" Success 100%
    _0.1.a "Action 1.2 on Alpha (attempt 2)" Failed 100%
    _0.0.b "Action 1.1 on Beta" Failed 100%
    _0.1.b "Action 1.2 on Beta" Skipped 100%
    _0.0.c "Action 1.1 on Gamma" Skipped 100%
    _0.1.c "Action 1.2 on Gamma" Skipped 100%
  _1 "Step 2: Step 2" Skipped 100%
  _2 "Step 3: Step 3" Canceled 100%
    _2.0 "Action 3.1 on a Worker" Canceled 100%
  _3 "Step 4: Step 4" Skipped 100%
`)
}

func TestTreeStatuses(t *testing.T) {
	t.Parallel()
	d := newDrive(t, planOf(t, "Success: 1", "Success: 1", "Success: 1"))
	d.expect("0.0#1")
	d.end("0.0", deploy.Succeeded, func(f *deploy.Fact) { f.Result.Warnings = true })
	d.expect("1.0#1")
	d.end("1.0", deploy.Failed, d.ask(deploy.AskGuided))
	d.answer("1.0", deploy.Ignore)
	d.expect("2.0#1")
	d.end("2.0", deploy.Succeeded)
	d.expect("succeeded")
	for state, want := range map[octopus.TaskState]octopus.ActivityStatus{
		octopus.TaskQueued: octopus.ActivityPending, octopus.TaskExecuting: octopus.ActivityRunning, octopus.TaskCancelling: octopus.ActivityRunning,
		octopus.TaskSuccess: octopus.ActivitySuccessWithWarning, octopus.TaskFailed: octopus.ActivityFailed,
		octopus.TaskTimedOut: octopus.ActivityFailed, octopus.TaskCanceled: octopus.ActivityCanceled,
	} {
		root := d.s.Tree("T", "", state, t0, t0)
		if root.Status != want {
			t.Errorf("a task that is %s has status %s", state, root.Status)
		}
		for i, want := range []octopus.ActivityStatus{octopus.ActivitySuccessWithWarning, octopus.ActivitySuccessWithWarning, octopus.ActivitySuccess} {
			if got := root.Children[i].Status; got != want {
				t.Errorf("step %d is %s", i, got)
			}
		}
	}
}
