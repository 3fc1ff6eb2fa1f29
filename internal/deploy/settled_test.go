package deploy_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

// TestSettled: what has succeeded up to the first failure, and beside it, need not run
// again; and in a deployment that goes on from there it does not.
func TestSettled(t *testing.T) {
	t.Parallel()
	targets := octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")}
	one := func(name string, change ...func(*octopus.Step)) octopus.Step {
		s := octopus.Step{ID: name, Name: name, Actions: octopus.List[octopus.Action]{{ID: "a-" + name, Name: name, ActionType: octopus.ActionScript}}}
		for _, c := range change {
			c(&s)
		}
		return s
	}
	web := func(s *octopus.Step) { s.Properties = targets }
	beside := func(s *octopus.Step) { s.StartTrigger = octopus.StartWithPrevious }
	process := []octopus.Step{
		one("first"), one("skipped"),
		one("check", web, func(s *octopus.Step) { s.Actions[0].ActionType = octopus.ActionHealthCheck }),
		one("targets", web, func(s *octopus.Step) {
			s.Actions = append(s.Actions, octopus.Action{ID: "a-second", Name: "second", ActionType: octopus.ActionScript})
		}),
		one("beside", beside),
		one("cleanup", func(s *octopus.Step) { s.Condition = octopus.StepConditionAlways }),
		one("last"),
	}
	in := deploy.Input{Process: process, SkipActions: []string{"a-skipped"}, Machines: []deploy.Machine{
		{ID: "m1", Name: "one", Roles: []string{"web"}}, {ID: "m2", Name: "two", Roles: []string{"web"}}, {ID: "m3", Name: "three", Roles: []string{"web"}},
	}}
	// play runs the plan to its end; fails names units that fail. It returns what ran.
	play := func(p *deploy.Plan, fails ...deploy.Unit) (*deploy.State, map[string]int) {
		s, ran := deploy.NewState(p), map[string]int{}
		bad := map[deploy.Unit]bool{}
		for _, u := range fails {
			bad[u] = true
		}
		apply := func(f deploy.Fact) {
			if f.At = time.Unix(1, 0); s.Apply(f) != nil {
				t.Fatalf("%+v: %v", f, s.Apply(f))
			}
		}
		for range 1000 {
			for _, m := range s.Next() {
				switch m.Kind {
				case deploy.MoveFinish:
					return s, ran
				case deploy.MoveDecideStep:
					apply(deploy.Fact{Kind: deploy.FactStep, Step: m.Step, Run: m.Run, Reason: m.Reason, Window: 10})
				case deploy.MoveDecideUnit:
					apply(deploy.Fact{Kind: deploy.FactUnit, Unit: &m.Unit, Run: m.Run, Reason: m.Reason})
				case deploy.MoveStart:
					ran[p.Steps[m.Unit.Step].Actions[m.Unit.Action].Name+" "+m.Unit.Lane]++
					outcome := deploy.Succeeded
					if bad[m.Unit] {
						outcome = deploy.Failed
					}
					apply(deploy.Fact{Kind: deploy.FactIntent, Unit: &m.Unit, Attempt: 1, Intent: &deploy.Intent{Contract: deploy.ContractNone}})
					apply(deploy.Fact{Kind: deploy.FactResult, Unit: &m.Unit, Attempt: 1, Result: &deploy.Result{Outcome: outcome}})
				}
			}
		}
		t.Fatal("it has no end")
		return nil, nil
	}
	build := func(in deploy.Input) *deploy.Plan {
		p, err := deploy.Build(in)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	// On m2 the second action fails; m3 fails at once.
	before, _ := play(build(in), deploy.Unit{Step: 3, Action: 1, Lane: "m2"}, deploy.Unit{Step: 3, Lane: "m3"})
	settled := before.Settled()
	if diff := cmp.Diff(map[string][]string{"first": {""}, "targets": {"m1"}, "beside": {""}}, settled); diff != "" {
		t.Errorf("settled (-want +got):\n%s", diff)
	}
	again := in
	again.Plan.Earlier, again.Done = "Deployments-1", settled
	again.Machines = append(again.Machines[:len(again.Machines):len(again.Machines)], deploy.Machine{ID: "m4", Name: "four", Roles: []string{"web"}})
	plan := build(again)
	after, ran := play(plan, deploy.Unit{Step: 6})
	want := map[string]int{
		"check ": 1, "targets m2": 1, "second m2": 1, "targets m3": 1, "second m3": 1, "targets m4": 1, "second m4": 1, "cleanup ": 1, "last ": 1,
	}
	if diff := cmp.Diff(want, ran); diff != "" {
		t.Errorf("ran (-want +got):\n%s", diff)
	}
	if s := after.Steps[0]; s.Run || s.Reason != "it has succeeded in Deployments-1" {
		t.Errorf("the first step: %+v", s)
	}
	root := after.Tree("T", "Deploy", octopus.TaskFailed, time.Unix(1, 0), time.Unix(2, 0))
	if got := root.Children[3].Children[2]; got.Name != "targets on one" || got.Status != octopus.ActivitySkipped || root.Children[3].Status != octopus.ActivitySuccess {
		t.Errorf("the step on targets: %s, %s of %s", root.Children[3].Status, got.Status, got.Name)
	}
	// What was carried is carried on, until all is done.
	if diff := cmp.Diff(map[string][]string{"first": {""}, "targets": {"m4", "m1", "m3", "m2"}, "beside": {""}, "cleanup": {""}}, after.Settled()); diff != "" {
		t.Errorf("settled then (-want +got):\n%s", diff)
	}
}
