package deploy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

// ignoreNotes leaves out what Next notes for itself.
var ignoreNotes = cmpopts.IgnoreUnexported(deploy.State{})

func drawPlan(t *rapid.T) *deploy.Plan {
	p := &deploy.Plan{Format: deploy.Format}
	lanes := []string{"a", "b", "c", "d"}[:rapid.IntRange(1, 4).Draw(t, "machines")]
	for i := range rapid.IntRange(0, 5).Draw(t, "steps") {
		s := deploy.Step{
			Name: fmt.Sprint(i), WithPrevious: rapid.Bool().Draw(t, "with"), Rolling: rapid.Bool().Draw(t, "rolling"), Lanes: []string{""},
			Condition: rapid.SampledFrom([]octopus.StepCondition{
				octopus.StepConditionSuccess, octopus.StepConditionSuccess, octopus.StepConditionFailure, octopus.StepConditionAlways, octopus.StepConditionVariable,
			}).Draw(t, "condition"),
		}
		if rapid.Bool().Draw(t, "on targets") {
			s.Lanes = lanes[rapid.IntRange(0, len(lanes)).Draw(t, "from"):]
		}
		for range rapid.IntRange(1, 3).Draw(t, "actions") {
			s.Actions = append(s.Actions, deploy.Action{Required: rapid.IntRange(0, 5).Draw(t, "required") == 0, Skip: rapid.IntRange(0, 9).Draw(t, "skip") == 0, Variable: rapid.IntRange(0, 4).Draw(t, "variable") == 0})
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

// watcher is the independent model: it looks at the facts one by one and knows the
// rules by which a deployment goes, but nothing of how Next works.
type watcher struct {
	plan     *deploy.Plan
	window   []int
	decided  []bool
	run      []bool
	attempts map[deploy.Unit]int
	open     map[deploy.Unit]bool
	ready    map[deploy.Unit]bool // another attempt was allowed
	asked    map[deploy.Unit]deploy.AskKind
	good     map[deploy.Unit]bool // the lane may go on behind it
	bad      map[deploy.Unit]bool // the lane ends with it
	excluded map[string]bool
	error    bool
	canceled bool
}

func newWatcher(p *deploy.Plan) *watcher {
	n := len(p.Steps)
	return &watcher{
		plan: p, window: make([]int, n), decided: make([]bool, n), run: make([]bool, n), attempts: map[deploy.Unit]int{}, open: map[deploy.Unit]bool{},
		ready: map[deploy.Unit]bool{}, asked: map[deploy.Unit]deploy.AskKind{}, good: map[deploy.Unit]bool{}, bad: map[deploy.Unit]bool{}, excluded: map[string]bool{},
	}
}

// group is the first step of the group that a step is in.
func (w *watcher) group(i int) int {
	for i > 0 && w.plan.Steps[i].WithPrevious {
		i--
	}
	return i
}

// lane is how far a lane has come: whether it has begun, is over, and has failed.
func (w *watcher) lane(i int, name string) (begun, over, failed bool) {
	over = true
	for a := range w.plan.Steps[i].Actions {
		u := deploy.Unit{Step: i, Action: a, Lane: name}
		begun = begun || w.attempts[u] > 0 || w.ready[u] || w.good[u] || w.bad[u]
		failed = failed || w.bad[u]
		over = over && w.good[u]
	}
	if failed {
		over = true
	}
	if w.excluded[name] {
		over = true
		for a := range w.plan.Steps[i].Actions {
			if w.open[deploy.Unit{Step: i, Action: a, Lane: name}] {
				over = false
			}
		}
	}
	return begun, over, failed
}

// stepOver reports whether nothing is left to do in a step.
func (w *watcher) stepOver(i int) bool {
	if !w.decided[i] {
		return false
	}
	if !w.run[i] {
		return true
	}
	failed := false
	for _, name := range w.plan.Steps[i].Lanes {
		_, _, f := w.lane(i, name)
		failed = failed || f
	}
	for _, name := range w.plan.Steps[i].Lanes {
		begun, over, _ := w.lane(i, name)
		if !over && (begun || !failed || !w.plan.Steps[i].Rolling) {
			return false
		}
	}
	return true
}

// mayStart says why a unit must not start now, or "".
func (w *watcher) mayStart(u deploy.Unit, attempt int) string {
	step := &w.plan.Steps[u.Step]
	switch {
	case w.canceled:
		return "the deployment is canceled"
	case !w.decided[u.Step] || !w.run[u.Step]:
		return "its step does not run"
	case w.open[u]:
		return "it runs already"
	case w.good[u] || w.bad[u]:
		return "it is over"
	case attempt != w.attempts[u]+1:
		return fmt.Sprintf("attempt %d follows attempt %d", attempt, w.attempts[u])
	case attempt > 1 && !w.ready[u]:
		return "nobody allowed another attempt"
	case w.excluded[u.Lane]:
		return "its machine was taken out"
	case attempt == 1 && step.Actions[u.Action].Skip:
		return "it was left out"
	case attempt == 1 && step.Actions[u.Action].Variable && !w.ready[u]:
		return "its condition was not asked for"
	}
	for a := range u.Action {
		if !w.good[deploy.Unit{Step: u.Step, Action: a, Lane: u.Lane}] {
			return "the action before is not over"
		}
	}
	for i := range w.group(u.Step) {
		if !w.stepOver(i) {
			return "an earlier group is not over"
		}
	}
	begun, _, _ := w.lane(u.Step, u.Lane)
	if begun {
		return ""
	}
	lanes, failed := 0, false
	for _, name := range step.Lanes {
		b, o, f := w.lane(u.Step, name)
		if b && !o {
			lanes++
		}
		failed = failed || f
	}
	if lanes >= w.window[u.Step] {
		return "the window is full"
	}
	if failed && step.Rolling {
		return "a rolling step opens no lane after a failure"
	}
	return ""
}

// see takes a fact, and says what is wrong with it.
func (w *watcher) see(f deploy.Fact) string {
	switch f.Kind {
	case deploy.FactStep:
		for i := range w.group(f.Step) {
			if !w.stepOver(i) {
				return "decided before an earlier group is over"
			}
		}
		c := w.plan.Steps[f.Step].Condition
		if f.Run && (c == octopus.StepConditionSuccess && w.error || c == octopus.StepConditionFailure && !w.error) {
			return "its condition does not hold"
		}
		live := slices.ContainsFunc(w.plan.Steps[f.Step].Lanes, func(l string) bool { return !w.excluded[l] })
		if f.Run && !live {
			return "it has no target"
		}
		if !f.Run && live && (c == octopus.StepConditionAlways || c == octopus.StepConditionSuccess && !w.error || c == octopus.StepConditionFailure && w.error) {
			return "it should run"
		}
		w.decided[f.Step], w.run[f.Step], w.window[f.Step] = true, f.Run, f.Window
	case deploy.FactUnit:
		if f.Run {
			w.ready[*f.Unit] = true
		} else {
			w.good[*f.Unit] = true
		}
	case deploy.FactIntent:
		if why := w.mayStart(*f.Unit, f.Attempt); why != "" {
			return why
		}
		w.attempts[*f.Unit], w.open[*f.Unit], w.ready[*f.Unit] = f.Attempt, true, false
	case deploy.FactResult:
		w.open[*f.Unit] = false
		switch {
		case f.Ask != nil:
			w.asked[*f.Unit] = f.Ask.Kind
		case f.Result.RetryAt != nil:
			w.ready[*f.Unit] = true
		default:
			w.final(*f.Unit, f.Result.Outcome == deploy.Failed || f.Result.Outcome == deploy.Unknown)
		}
		w.canceled = w.canceled || f.Result.Outcome == deploy.Canceled
	case deploy.FactAsk:
		w.asked[*f.Unit] = f.Ask.Kind
	case deploy.FactAnswer:
		delete(w.asked, *f.Unit)
		w.open[*f.Unit] = f.Answer.Choice == deploy.ChildEnded
		switch f.Answer.Choice {
		case deploy.ChildEnded:
		case deploy.Retry, deploy.RunAgain:
			w.ready[*f.Unit] = true
		case deploy.Proceed, deploy.Ignore, deploy.MarkSucceeded:
			w.good[*f.Unit] = true
		case deploy.Exclude:
			w.good[*f.Unit] = true
			w.excluded[f.Unit.Lane] = f.Unit.Lane != ""
		case deploy.Fail, deploy.Abort, deploy.MarkFailed:
			w.final(*f.Unit, true)
		}
	case deploy.FactCancel:
		w.canceled = true
	case deploy.FactMachines:
		for _, id := range f.Machines.Leave {
			w.excluded[id] = true
		}
	case deploy.FactAck, deploy.FactOutput:
	}
	return ""
}

func (w *watcher) final(u deploy.Unit, failed bool) {
	if failed {
		w.bad[u], w.error = true, true
	} else {
		w.good[u] = true
	}
}

// running are the units that run, those that wait for a person apart.
func (w *watcher) running() []deploy.Unit {
	var all []deploy.Unit
	for u, open := range w.open {
		if open && w.asked[u] == "" {
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(a, b deploy.Unit) int { return strings.Compare(a.Key(), b.Key()) })
	return all
}

func (w *watcher) outcome() deploy.Outcome {
	switch {
	case w.canceled:
		return deploy.Canceled
	case w.error:
		return deploy.Failed
	default:
		return deploy.Succeeded
	}
}

// simulation plays a random deployment.
type simulation struct {
	t     *rapid.T
	s     *deploy.State
	w     *watcher
	facts []deploy.Fact
	ids   int
}

func (m *simulation) add(f deploy.Fact) {
	f.At = t0.Add(time.Duration(len(m.facts)) * time.Second)
	if err := m.s.Apply(f); err != nil {
		m.t.Fatalf("fact %d: %v", len(m.facts)+1, err)
	}
	m.facts = append(m.facts, f)
	if why := m.w.see(f); why != "" {
		m.t.Fatalf("fact %d, %s of step %d, unit %v: %s", len(m.facts), f.Kind, f.Step, f.Unit, why)
	}
}

// begin leaves out targets as the deployment begins.
func (m *simulation) begin() {
	if rapid.IntRange(0, 3).Draw(m.t, "left out") > 0 {
		return
	}
	leave := []string{"a", "b", "c", "d"}[rapid.IntRange(0, 3).Draw(m.t, "from which"):]
	m.add(deploy.Fact{Kind: deploy.FactMachines, Machines: &deploy.Machines{Leave: leave}})
}

// step does one thing of those that may happen, and reports whether it is the end.
func (m *simulation) step() (over bool) {
	moves := m.s.Next()
	asked := slices.Collect(maps.Keys(m.w.asked))
	slices.SortFunc(asked, func(a, b deploy.Unit) int { return strings.Compare(a.Key(), b.Key()) })
	running := m.w.running()
	if waits := len(asked) > 0 && len(running) == 0 && len(moves) == 0 && !m.w.canceled; m.s.Waiting() != waits {
		m.t.Fatalf("Waiting is %t; running %v, asked %v, moves %v", m.s.Waiting(), running, asked, moves)
	}
	if len(moves) > 0 && moves[0].Kind == deploy.MoveFinish {
		if len(moves) > 1 || len(running) > 0 {
			m.t.Fatalf("it ends with %v while %v runs", moves, running)
		}
		for i := range m.w.plan.Steps {
			if !m.w.canceled && !m.w.stepOver(i) {
				m.t.Fatalf("it ends though step %d is not over", i)
			}
		}
		if moves[0].Outcome != m.w.outcome() {
			m.t.Fatalf("it ends as %s; the model says %s", moves[0].Outcome, m.w.outcome())
		}
		return true
	}
	if len(moves)+len(running)+len(asked) == 0 {
		m.t.Fatal("it is stuck: nothing runs, nothing may start, nobody is asked")
	}
	kinds := []string{}
	if len(moves) > 0 {
		kinds = append(kinds, "move", "move")
	}
	if len(running) > 0 {
		kinds = append(kinds, "run")
	}
	if len(asked) > 0 {
		kinds = append(kinds, "answer")
	}
	if !m.w.canceled && rapid.IntRange(0, 60).Draw(m.t, "cancel") == 0 {
		m.add(deploy.Fact{Kind: deploy.FactCancel})
		return false
	}
	switch rapid.SampledFrom(kinds).Draw(m.t, "what") {
	case "move":
		m.move(rapid.SampledFrom(moves).Draw(m.t, "move"))
	case "run":
		m.progress(rapid.SampledFrom(running).Draw(m.t, "unit"))
	case "answer":
		u := rapid.SampledFrom(asked).Draw(m.t, "unit")
		choice := rapid.SampledFrom(m.choices(u)).Draw(m.t, "choice")
		m.add(deploy.Fact{Kind: deploy.FactAnswer, Unit: &u, Answer: &deploy.Answer{ID: m.s.Unit(u).Asked.ID, Choice: choice}})
	}
	return false
}

// choices are what a person may answer: a required step cannot be passed over, and
// nothing is excluded that runs on no machine.
func (m *simulation) choices(u deploy.Unit) []deploy.Choice {
	all := slices.Clone(m.w.asked[u].Choices())
	required := m.w.plan.Steps[u.Step].Actions[u.Action].Required
	return slices.DeleteFunc(all, func(c deploy.Choice) bool {
		return required && (c == deploy.Ignore || c == deploy.Exclude) || c == deploy.Exclude && u.Lane == ""
	})
}

// takeOver has another process go on, which knows the journal and nothing else.
func (m *simulation) takeOver() {
	body, err := json.Marshal(m.facts)
	if err != nil {
		m.t.Fatal(err)
	}
	var read []deploy.Fact
	if err := json.Unmarshal(body, &read); err != nil {
		m.t.Fatal(err)
	}
	fresh, err := deploy.Fold(m.w.plan, read)
	if err != nil {
		m.t.Fatalf("after fact %d: %v", len(m.facts), err)
	}
	if diff := cmp.Diff(m.s, fresh, ignoreNotes); diff != "" {
		m.t.Fatalf("after fact %d another process knows something else: %s", len(m.facts), diff)
	}
	m.s = fresh
}

func (m *simulation) move(v deploy.Move) {
	run := v.Run
	if v.Evaluate {
		run = rapid.Bool().Draw(m.t, "condition")
	}
	switch v.Kind {
	case deploy.MoveDecideStep:
		m.add(deploy.Fact{Kind: deploy.FactStep, Step: v.Step, Run: run, Reason: v.Reason, Window: rapid.IntRange(1, 3).Draw(m.t, "window")})
	case deploy.MoveDecideUnit:
		m.add(deploy.Fact{Kind: deploy.FactUnit, Unit: &v.Unit, Run: run, Reason: v.Reason})
	case deploy.MoveStart:
		m.add(deploy.Fact{Kind: deploy.FactIntent, Unit: &v.Unit, Attempt: v.Attempt, Intent: &deploy.Intent{Contract: deploy.ContractTako, Ticket: fmt.Sprint(len(m.facts))}})
	case deploy.MoveFinish:
	}
}

// progress does something to a unit that runs.
func (m *simulation) progress(u deploy.Unit) {
	f := deploy.Fact{Unit: &u, Attempt: m.w.attempts[u]}
	ask := func(kind deploy.AskKind) *deploy.Ask {
		m.ids++
		return &deploy.Ask{ID: fmt.Sprint("Interruptions-", m.ids), Kind: kind}
	}
	f.Kind = deploy.FactResult
	switch rapid.IntRange(0, 10).Draw(m.t, "event") {
	case 0:
		f.Kind = deploy.FactAck
	case 1:
		f.Kind, f.Output = deploy.FactOutput, &deploy.Output{Name: "x", Value: fmt.Sprint(len(m.facts))}
	case 2:
		f.Result = &deploy.Result{Outcome: deploy.Failed, Message: "no"}
		at := t0
		if f.Attempt < 3 && !m.w.canceled {
			f.Result.RetryAt = &at
		}
	case 3:
		f.Result = &deploy.Result{Outcome: deploy.Failed}
	case 4:
		f.Result, f.Ask = &deploy.Result{Outcome: deploy.Failed}, ask(deploy.AskGuided)
	case 5:
		f.Result, f.Ask = &deploy.Result{Outcome: deploy.Unknown}, ask(deploy.AskUnknown)
	case 6:
		f.Kind, f.Ask = deploy.FactAsk, ask(rapid.SampledFrom([]deploy.AskKind{deploy.AskManual, deploy.AskChild}).Draw(m.t, "kind"))
	case 7: // its target is not available, and nothing of it has started
		if u.Lane != "" && !m.w.canceled {
			m.add(deploy.Fact{Kind: deploy.FactMachines, Unit: &u, Attempt: f.Attempt, Machines: &deploy.Machines{Leave: []string{u.Lane}}})
			f.Result = &deploy.Result{Outcome: deploy.Skipped, Warnings: true}
			break
		}
		fallthrough
	default:
		f.Result = &deploy.Result{Outcome: deploy.Succeeded}
		if m.w.canceled {
			f.Result.Outcome = deploy.Canceled
		}
	}
	m.add(f)
}

// maxFacts is more than any simulation needs; one that comes to it goes in circles.
const maxFacts = 3000

// TestStateMachine walks through random deployments with random failures, answers,
// cancellations and kills, each step of which the model watches: a million steps with
// TAKO_TEST_SOAK set, else as many as take about a minute.
func TestStateMachine(t *testing.T) {
	t.Parallel()
	want, steps := 600_000, 0
	switch {
	case os.Getenv("TAKO_TEST_SOAK") != "":
		want = 1_000_000
	case testing.Short():
		want = 2_000
	}
	for steps < want && !t.Failed() {
		rapid.Check(t, func(t *rapid.T) {
			p := drawPlan(t)
			m := &simulation{t: t, s: deploy.NewState(p), w: newWatcher(p)}
			m.begin()
			for !m.step() {
				steps++
				if len(m.facts) > maxFacts {
					t.Fatal("it does not end")
				}
				if rapid.IntRange(0, 24).Draw(t, "kill") == 0 {
					m.takeOver()
				}
			}
			m.takeOver()
		})
	}
	t.Logf("%d steps", steps)
}

func TestSimulations(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		m := &simulation{t: t, s: deploy.NewState(p), w: newWatcher(p)}
		m.begin()
		for !m.step() {
			if len(m.facts) > maxFacts {
				t.Fatal("it does not end")
			}
		}
		checkJournal(t, p, m.s, m.facts)
	})
}

// checkJournal holds a whole journal to what is true of all: it survives JSON,
// the state follows from it alone, and whoever takes over after any prefix starts
// nothing that was started.
func checkJournal(t *rapid.T, p *deploy.Plan, live *deploy.State, facts []deploy.Fact) {
	body, err := json.Marshal(facts)
	if err != nil {
		t.Fatal(err)
	}
	var read []deploy.Fact
	if err := json.Unmarshal(body, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(facts, read); diff != "" {
		t.Fatalf("after a round trip: %s", diff)
	}
	folded, err := deploy.Fold(p, read)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(live, folded, ignoreNotes); diff != "" {
		t.Fatalf("folded it is another state: %s", diff)
	}
	type attempt struct {
		unit deploy.Unit
		n    int
	}
	began := map[attempt]bool{}
	s := deploy.NewState(p)
	for i := 0; ; i++ {
		// What is asked now and then must not change the answer.
		if fresh, err := deploy.Fold(p, facts[:i]); err != nil {
			t.Fatal(err)
		} else if diff := cmp.Diff(fresh.Next(), s.Next()); diff != "" {
			t.Fatalf("after fact %d: %s", i, diff)
		}
		for _, v := range s.Next() {
			if v.Kind != deploy.MoveStart {
				continue
			}
			if began[attempt{v.Unit, v.Attempt}] || s.Unit(v.Unit).Open {
				t.Fatalf("after fact %d, attempt %d of %v starts again", i, v.Attempt, v.Unit)
			}
		}
		if i == len(facts) {
			return
		}
		if f := facts[i]; f.Kind == deploy.FactIntent {
			if began[attempt{*f.Unit, f.Attempt}] {
				t.Fatalf("fact %d starts attempt %d of %v a second time", i+1, f.Attempt, *f.Unit)
			}
			began[attempt{*f.Unit, f.Attempt}] = true
		}
		if err := s.Apply(facts[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzJournal reads journals that something has damaged: they are refused, never
// panicked over, and a fact that is refused changes nothing.
func FuzzJournal(f *testing.F) {
	plan := &deploy.Plan{Format: deploy.Format, Steps: []deploy.Step{
		{Name: "a", Rolling: true, Actions: make([]deploy.Action, 2), Lanes: []string{"x", "y"}},
		{Name: "b", WithPrevious: true, Condition: octopus.StepConditionVariable, Actions: []deploy.Action{{Variable: true}}, Lanes: []string{""}},
		{Name: "c", Condition: octopus.StepConditionAlways, Actions: make([]deploy.Action, 1)},
	}}
	f.Add(`{"k":"step","step":0,"run":true,"window":1} {"k":"step","step":1,"run":true} {"k":"intent","u":{"s":0,"a":0,"l":"x"},"n":1,"intent":{"contract":"tako"}}
{"k":"ack","u":{"s":0,"a":0,"l":"x"},"n":1} {"k":"output","u":{"s":0,"a":0,"l":"x"},"n":1,"output":{"name":"v","value":"1"}}
{"k":"result","u":{"s":0,"a":0,"l":"x"},"n":1,"result":{"outcome":"failed"},"ask":{"id":"Interruptions-1","kind":"guided"}}
{"k":"answer","u":{"s":0,"a":0,"l":"x"},"answer":{"id":"Interruptions-1","choice":"Exclude"}} {"k":"unit","u":{"s":1,"a":0},"run":false}`)
	f.Add(`{"k":"machines","machines":{"leave":["x"]}} {"k":"step","step":0,"run":true} {"k":"machines","machines":{"leave":["y"]}}`)
	f.Add(`{"k":"cancel"} {"k":"answer"} {"k":"result","u":{"s":-1,"a":9}} {"k":"step","step":-5} {"k":"intent","u":{"s":2,"a":0}}`)
	f.Fuzz(func(t *testing.T, text string) {
		s := deploy.NewState(plan)
		in := json.NewDecoder(strings.NewReader(text))
		for range 100 {
			var fact deploy.Fact
			if in.Decode(&fact) != nil {
				return
			}
			before, err := json.Marshal(fact)
			if err != nil {
				return
			}
			count, units := s.Facts, len(s.Units)
			err = s.Apply(fact)
			if err != nil && (s.Facts != count || len(s.Units) != units) {
				t.Errorf("%s is refused and changes the state", before)
			}
			for _, v := range s.Next() {
				if v.Kind == deploy.MoveStart && (s.Unit(v.Unit).Open || v.Attempt != s.Unit(v.Unit).Attempt+1) {
					t.Errorf("after %s, %+v", before, v)
				}
			}
			s.Waiting()
			s.Tree("ServerTasks-1", "x", octopus.TaskExecuting, t0, time.Time{})
			s.Tree("ServerTasks-1", "x", octopus.TaskFailed, t0, t0)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	p := &deploy.Plan{}
	for range 10 {
		s := deploy.Step{Actions: make([]deploy.Action, 1)}
		for i := range 1000 {
			s.Lanes = append(s.Lanes, fmt.Sprint("Machines-", i))
		}
		p.Steps = append(p.Steps, s)
	}
	s := deploy.NewState(p)
	for b.Loop() {
		moves := s.Next()
		v := moves[0]
		var err error
		switch v.Kind {
		case deploy.MoveDecideStep:
			err = s.Apply(deploy.Fact{Kind: deploy.FactStep, Step: v.Step, Run: true, Window: 10})
		case deploy.MoveStart:
			err = s.Apply(deploy.Fact{Kind: deploy.FactIntent, Unit: &v.Unit, Attempt: 1, Intent: &deploy.Intent{}})
			if err == nil {
				err = s.Apply(deploy.Fact{Kind: deploy.FactResult, Unit: &v.Unit, Attempt: 1, Result: &deploy.Result{Outcome: deploy.Succeeded}})
			}
		case deploy.MoveFinish:
			s = deploy.NewState(p)
		case deploy.MoveDecideUnit:
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
