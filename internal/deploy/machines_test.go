package deploy_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

// TestMachinesChange: what a health check takes in joins the steps that nobody has
// decided about; what it takes out is in no later step.
func TestMachinesChange(t *testing.T) {
	t.Parallel()
	onWeb := func(id string, kind octopus.ActionType) octopus.Step {
		return octopus.Step{
			ID: id, Name: id, Properties: octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")},
			Actions: []octopus.Action{{ID: id, Name: id, ActionType: kind}},
		}
	}
	plan, err := deploy.Build(deploy.Input{
		Process:  []octopus.Step{onWeb("check", octopus.ActionHealthCheck), onWeb("web", octopus.ActionScript)},
		Machines: []deploy.Machine{{ID: "m1", Name: "one", Roles: []string{"Web"}}, {ID: "m2", Name: "two", Roles: []string{"web"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]string{{""}, {"m1", "m2"}}, [][]string{plan.Steps[0].Lanes, plan.Steps[1].Lanes}); diff != "" {
		t.Errorf("lanes:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"m1", "m2"}, plan.Reached(&plan.Steps[0])); diff != "" {
		t.Errorf("checked:\n%s", diff)
	}
	unit, at := deploy.Unit{}, time.Now()
	before := []deploy.Fact{
		{Kind: deploy.FactStep, At: at, Step: 0, Run: true, Window: 1},
		{Kind: deploy.FactIntent, At: at, Unit: &unit, Attempt: 1, Intent: &deploy.Intent{Contract: deploy.ContractNone}},
	}
	change := func(c *deploy.Machines) deploy.Fact {
		return deploy.Fact{Kind: deploy.FactMachines, At: at, Unit: &unit, Attempt: 1, Machines: c}
	}
	for what, fact := range map[string]deploy.Fact{
		"nothing":                  change(nil),
		"a target that is there":   change(&deploy.Machines{Join: []deploy.Machine{{ID: "m1"}}}),
		"a target without id":      change(&deploy.Machines{Join: []deploy.Machine{{Name: "x"}}}),
		"an attempt that is not":   {Kind: deploy.FactMachines, Unit: &unit, Attempt: 2, Machines: &deploy.Machines{}},
		"a fact about no unit":     {Kind: deploy.FactMachines, Attempt: 1, Machines: &deploy.Machines{}},
		"a unit that is not there": {Kind: deploy.FactMachines, Unit: &deploy.Unit{Step: 7}, Attempt: 1, Machines: &deploy.Machines{}},
	} {
		if _, err := deploy.Fold(plan, append(before[:len(before):len(before)], fact)); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	s, err := deploy.Fold(plan, append(before,
		change(&deploy.Machines{Join: []deploy.Machine{{ID: "m3", Name: "three", Roles: []string{"WEB"}}, {ID: "m4", Name: "four", Roles: []string{"db"}}}, Leave: []string{"m1"}}),
		deploy.Fact{Kind: deploy.FactResult, At: at, Unit: &unit, Attempt: 1, Result: &deploy.Result{Outcome: deploy.Succeeded}},
	))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"m1", "m2", "m3"}, s.Lanes(1)); diff != "" {
		t.Errorf("lanes then:\n%s", diff)
	}
	if s.MachineName("m3") != "three" || s.MachineName("m9") != "m9" || s.Machine("m4") == nil {
		t.Error("the targets that joined are not found")
	}
	var checked []string
	for _, m := range s.Checked(0, "") {
		checked = append(checked, m.ID)
	}
	if diff := cmp.Diff([]string{"m2", "m3"}, checked); diff != "" {
		t.Errorf("checked then:\n%s", diff)
	}
	if err := s.Apply(deploy.Fact{Kind: deploy.FactStep, At: at, Step: 1, Run: true, Window: 10}); err != nil {
		t.Fatal(err)
	}
	var lanes []string
	for _, m := range s.Next() {
		lanes = append(lanes, m.Unit.Lane)
	}
	if diff := cmp.Diff([]string{"m2", "m3"}, lanes); diff != "" {
		t.Errorf("starts:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"m1", "m2"}, plan.Steps[1].Lanes); diff != "" {
		t.Errorf("the plan itself was changed:\n%s", diff)
	}
}

// TestBeside: of the steps that start together no more run at a time than was decided.
func TestBeside(t *testing.T) {
	t.Parallel()
	var process []octopus.Step
	for _, name := range []string{"a", "b", "c"} {
		process = append(process, octopus.Step{ID: name, Name: name, StartTrigger: octopus.StartWithPrevious, Actions: octopus.List[octopus.Action]{{ID: "x" + name, Name: name}}})
	}
	plan, err := deploy.Build(deploy.Input{Process: process})
	if err != nil {
		t.Fatal(err)
	}
	for beside, want := range map[int]int{0: 3, 1: 1, 2: 2, 7: 3} {
		s := deploy.NewState(plan)
		for i := range plan.Steps {
			if err := s.Apply(deploy.Fact{Kind: deploy.FactStep, Step: i, Run: true, Beside: beside}); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(s.Next()); got != want {
			t.Errorf("of %d at a time %d start", beside, got)
		}
	}
}

// TestMachinesLeaveAsItBegins: only before anything else may targets leave without an
// attempt that has found so.
func TestMachinesLeaveAsItBegins(t *testing.T) {
	t.Parallel()
	web := octopus.Step{ID: "web", Name: "web", Properties: octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")}, Actions: []octopus.Action{{ID: "web", Name: "web"}}}
	plan, err := deploy.Build(deploy.Input{
		Process:  []octopus.Step{web},
		Machines: []deploy.Machine{{ID: "m1", Name: "one", Roles: []string{"web"}}, {ID: "m2", Name: "two", Roles: []string{"web"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	leave := func(ids ...string) deploy.Fact {
		return deploy.Fact{Kind: deploy.FactMachines, Machines: &deploy.Machines{Leave: ids}}
	}
	s, err := deploy.Fold(plan, []deploy.Fact{leave("m1"), {Kind: deploy.FactStep, Run: true, Window: 10}})
	if err != nil {
		t.Fatal(err)
	}
	if next := s.Next(); len(next) != 1 || next[0].Unit.Lane != "m2" {
		t.Errorf("starts: %+v", next)
	}
	if !s.AnyLeft(nil) || s.AnyLeft(map[string]bool{"m2": true}) {
		t.Error("of two targets one is left")
	}
	if err := s.Apply(leave("m2")); err == nil {
		t.Error("targets leave later without a unit")
	}
	if err := deploy.NewState(plan).Apply(deploy.Fact{Kind: deploy.FactMachines}); err == nil {
		t.Error("a change of nothing is taken")
	}
	if s, err = deploy.Fold(plan, []deploy.Fact{leave("m1", "m2")}); err != nil {
		t.Fatal(err)
	}
	if next := s.Next(); len(next) != 1 || next[0].Run || next[0].Reason != "no deployment targets match the step" {
		t.Errorf("with no target left: %+v", next)
	}
}

// TestMaySkip: who may be missing.
func TestMaySkip(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		targets deploy.Targets
		machine deploy.Machine
		want    bool
	}{
		{deploy.Targets{}, deploy.Machine{Roles: []string{"web"}}, false},
		{deploy.Targets{}, deploy.Machine{MayBeOffline: true}, true},
		{deploy.Targets{SkipRoles: []string{"web"}}, deploy.Machine{Roles: []string{"web"}}, false},
		{deploy.Targets{Skip: true}, deploy.Machine{}, true},
		{deploy.Targets{Skip: true, SkipRoles: []string{"db", "Web"}}, deploy.Machine{Roles: []string{"web"}}, true},
		{deploy.Targets{Skip: true, SkipRoles: []string{"db"}}, deploy.Machine{Roles: []string{"web"}}, false},
		{deploy.Targets{Skip: true, SkipRoles: []string{"db"}}, deploy.Machine{Roles: []string{"web"}, MayBeOffline: true}, true},
	} {
		if got := (&deploy.Plan{Targets: c.targets}).MaySkip(&c.machine); got != c.want {
			t.Errorf("%+v, %+v: %t", c.targets, c.machine, got)
		}
	}
}
