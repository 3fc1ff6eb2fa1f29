package deploy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

// act is an action of a process, as most tests need it.
func act(name string, change ...func(*octopus.Action)) octopus.Action {
	a := octopus.Action{ID: "id-" + name, Name: name, ActionType: octopus.ActionScript, Properties: octopus.Properties{}}
	for _, f := range change {
		f(&a)
	}
	return a
}

func step(name string, roles string, actions ...octopus.Action) octopus.Step {
	s := octopus.Step{ID: "step-" + name, Name: name, Properties: octopus.Properties{}, Actions: actions}
	if roles != "" {
		s.Properties[octopus.PropTargetRoles] = octopus.PropertyValue{Value: roles}
	}
	return s
}

func with(s octopus.Step) octopus.Step {
	s.StartTrigger = octopus.StartWithPrevious
	return s
}

func prop(key, value string) func(*octopus.Action) {
	return func(a *octopus.Action) { a.Properties[key] = octopus.PropertyValue{Value: value} }
}

var machines = []deploy.Machine{
	{ID: "Machines-3", Name: "web-b", Roles: []string{"Web"}},
	{ID: "Machines-1", Name: "Web-A", Roles: []string{"web", "db"}},
	{ID: "Machines-2", Name: "db-a", Roles: []string{"db"}},
}

// shape writes a plan in a line per action, for comparing.
func shape(p *deploy.Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		join := ""
		if s.WithPrevious {
			join = " with"
		}
		if s.Rolling {
			join += " rolling"
		}
		for _, a := range s.Actions {
			flags := ""
			if a.Skip {
				flags += " skip"
			}
			if a.Required {
				flags += " required"
			}
			if a.Variable {
				flags += " variable"
			}
			fmt.Fprintf(&b, "%s %s %s%s%s %q\n", a.Number, a.Name, a.Place, flags, join, s.Lanes)
		}
	}
	return b.String()
}

func TestBuild(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		process []octopus.Step
		change  func(*deploy.Input)
		want    string
	}{
		{"nothing", nil, nil, ""},
		{"places", []octopus.Step{
			step("a", "", act("worker")),
			step("b", "", act("server", prop(octopus.PropRunOnServer, "True"))),
			step("c", "web", act("target")),
			step("d", "web", act("behalf", prop(octopus.PropRunOnServer, "true"))),
			step("e", "", act("ask", func(a *octopus.Action) { a.ActionType = octopus.ActionManual })),
			step("f", "web", act("mail", func(a *octopus.Action) { a.ActionType = octopus.ActionEmail })),
		}, nil, `1 worker worker [""]
2 server worker [""]
3 target target ["Machines-1" "Machines-3"]
4 behalf worker ["Machines-1" "Machines-3"]
5 ask server [""]
6 mail server ["Machines-1" "Machines-3"]
`},
		{
			"tags are a list, without case, any of them",
			[]octopus.Step{step("a", " DB , nothing,", act("x"))},
			nil,
			"1 x target [\"Machines-2\" \"Machines-1\"]\n",
		},
		{
			"tags on a plain step's action, as older clients send them",
			[]octopus.Step{step("a", "", act("x", prop(octopus.PropTargetRoles, "db")))},
			nil,
			"1 x target [\"Machines-2\" \"Machines-1\"]\n",
		},
		{
			"tags of one child are not the step's",
			[]octopus.Step{step("a", "", act("x"), act("y", prop(octopus.PropTargetRoles, "db")))},
			nil,
			"1.1 x worker rolling [\"\"]\n1.2 y worker rolling [\"\"]\n",
		},
		{"no target has the tag", []octopus.Step{step("a", "gone", act("x"))}, nil, "1 x target []\n"},
		{"rolling and children", []octopus.Step{
			step("a", "db", act("x"), act("y", func(a *octopus.Action) { a.Condition = octopus.ActionConditionVariable })),
			func() octopus.Step {
				s := step("b", "db", act("z"))
				s.Properties[octopus.PropMaxParallelism] = octopus.PropertyValue{Value: "2"}
				return s
			}(),
		}, nil, `1.1 x target rolling ["Machines-2" "Machines-1"]
1.2 y target variable rolling ["Machines-2" "Machines-1"]
2 z target rolling ["Machines-2" "Machines-1"]
`},
		{"scopes", []octopus.Step{
			step("a", "", act("disabled", func(a *octopus.Action) { a.IsDisabled = true })),
			step("b", "", act("elsewhere", func(a *octopus.Action) { a.Environments = []string{"Environments-2"} })),
			step("c", "", act("here", func(a *octopus.Action) { a.Environments = []string{"Environments-2", "environments-1"} })),
			step("d", "", act("not here", func(a *octopus.Action) { a.ExcludedEnvironments = []string{"Environments-1"} })),
			step("e", "", act("other channel", func(a *octopus.Action) { a.Channels = []string{"Channels-2"} })),
			step("f", "", act("channel", func(a *octopus.Action) { a.Channels = []string{"Channels-1"} })),
			step("g", "", act("other tenants", func(a *octopus.Action) { a.TenantTags = []string{"Ring/Late", "Ring/Last"} })),
			step("h", "", act("tenants", func(a *octopus.Action) { a.TenantTags = []string{"ring/EARLY", "Ring/Last"} })),
			step("i", "", act("both sets", func(a *octopus.Action) { a.TenantTags = []string{"Ring/Early", "Size/Big"} })),
			step("j", "", act("gone", func(a *octopus.Action) { a.IsDisabled = true }), act("child")),
		}, nil, `3 here worker [""]
6 channel worker [""]
8 tenants worker [""]
10.2 child worker rolling [""]
`},
		{
			"a runbook has no channel",
			[]octopus.Step{step("a", "", act("x", func(a *octopus.Action) { a.Channels = []string{"Channels-2"} }))},
			func(in *deploy.Input) { in.Plan.ChannelID = "" }, "1 x worker [\"\"]\n",
		},
		{"left out by a person", []octopus.Step{
			step("a", "", act("x")), step("b", "", act("y", func(a *octopus.Action) { a.IsRequired = true })),
		}, func(in *deploy.Input) { in.SkipActions = []string{"ID-X", "id-y"} }, "1 x worker skip [\"\"]\n2 y worker required [\"\"]\n"},
		{
			"only some machines",
			[]octopus.Step{step("a", "web,db", act("x"))},
			func(in *deploy.Input) {
				in.SpecificMachines, in.ExcludedMachines = []string{"machines-1", "Machines-2"}, []string{"MACHINES-2"}
			}, "1 x target [\"Machines-1\"]\n",
		},
		{
			"a machine that is listed twice",
			[]octopus.Step{step("a", "db", act("x"))},
			func(in *deploy.Input) { in.Machines = append(in.Machines, machines[2]) }, "1 x target [\"Machines-2\" \"Machines-1\"]\n",
		},
		{
			"groups",
			[]octopus.Step{with(step("a", "", act("first"))), with(step("b", "", act("second"))), step("c", "", act("third"))},
			nil,
			"1 first worker [\"\"]\n2 second worker with [\"\"]\n3 third worker [\"\"]\n",
		},
		{"a group whose first step is left out does not join the one before", []octopus.Step{
			step("a", "", act("one")),
			step("b", "", act("two", func(a *octopus.Action) { a.IsDisabled = true })),
			with(step("c", "", act("three"))),
			with(step("d", "", act("four"))),
		}, nil, "1 one worker [\"\"]\n3 three worker [\"\"]\n4 four worker with [\"\"]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := deploy.Input{
				Plan:    deploy.Plan{EnvironmentID: "Environments-1", ChannelID: "Channels-1", TenantID: "Tenants-1", TenantTags: []string{"Ring/Early", "Size/Small"}},
				Process: c.process, Machines: append([]deploy.Machine(nil), machines...),
			}
			if c.change != nil {
				c.change(&in)
			}
			p, err := deploy.Build(in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, shape(p)); diff != "" {
				t.Error(diff)
			}
			used := map[string]bool{}
			for _, s := range p.Steps {
				for _, l := range s.Lanes {
					used[l] = true
				}
			}
			delete(used, "")
			if len(p.Machines) != len(used) {
				t.Errorf("machines %v, lanes use %v", p.Machines, used)
			}
			body, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			var back deploy.Plan
			if err := json.Unmarshal(body, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p, &back); diff != "" {
				t.Errorf("after a round trip: %s", diff)
			}
		})
	}
}

func TestBuildPackages(t *testing.T) {
	t.Parallel()
	p, err := deploy.Build(deploy.Input{
		Process: []octopus.Step{step("a", "", act("Web", func(a *octopus.Action) {
			a.Packages = []octopus.PackageReference{
				{PackageID: "Acme.Web", FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireOnServer, Version: "0.1"},
				{
					Name: "Tools", PackageID: "#{Tool}", FeedID: "Feeds-1", AcquisitionLocation: octopus.AcquireNever, Version: "2.0",
					Properties: octopus.Map[string, octopus.PropertyText]{octopus.PackagePropExtract: "False"},
				},
			}
		}))},
		Versions: map[deploy.PackageKey]string{{Action: "web", Reference: ""}: "1.2.3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []deploy.Package{
		{PackageID: "Acme.Web", FeedID: "feeds-builtin", Version: "1.2.3", Location: "Server", Extract: true},
		{Name: "Tools", PackageID: "#{Tool}", FeedID: "Feeds-1", Version: "2.0", Location: "NotAcquired"},
	}
	if diff := cmp.Diff(want, p.Steps[1].Actions[0].Packages); diff != "" {
		t.Error(diff)
	}
}

func TestBuildLimits(t *testing.T) {
	t.Parallel()
	in := deploy.Input{Process: make([]octopus.Step, deploy.MaxSteps+1)}
	if _, err := deploy.Build(in); err == nil || !strings.Contains(err.Error(), "1001 steps") {
		t.Errorf("too many steps: %v", err)
	}
	in = deploy.Input{Machines: make([]deploy.Machine, deploy.MaxMachines+1)}
	for i := range in.Machines {
		in.Machines[i].ID = fmt.Sprint("Machines-", i)
	}
	if _, err := deploy.Build(in); err == nil || !strings.Contains(err.Error(), "10001 targets") {
		t.Errorf("too many machines: %v", err)
	}
}

func TestMatchTags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want, has string
		match     bool
	}{
		{"", "", true},
		{"", "A/x", true},
		{"A/x", "", false},
		{"A/x,A/y", "a/Y", true},
		{"A/x,B/x", "A/x", false},
		{"A/x,B/x", "A/x,B/x", true},
		{"A/x/y", "A/x", false},
	} {
		split := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) }
		if got := deploy.MatchTags(split(c.want), split(c.has)); got != c.match {
			t.Errorf("MatchTags(%q, %q) = %t", c.want, c.has, got)
		}
	}
}
