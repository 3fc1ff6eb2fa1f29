package variables_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

func prompted(id, name, value, label string, required bool, s scope) variables.Variable {
	return variables.Variable{
		ID: id, Name: name, Value: value, Scope: s, Source: variables.Source{Kind: variables.KindProject},
		Prompt: &octopus.VariablePrompt{Label: octopus.NullString(label), Required: required},
	}
}

func TestPrompts(t *testing.T) {
	t.Parallel()
	values := []variables.Variable{
		prompted("1", "Zeta", "", "a label", false, scope{}),
		prompted("2", "beta", "", "", false, scope{}),
		prompted("3", "Alpha", "", "B label", false, scope{Environment: ids{"Environments-1"}}),
		prompted("4", "Alpha", "", "b label", false, scope{Environment: ids{"Environments-2"}}),
		prompted("5", "Alpha", "", "c", false, scope{Machine: ids{"Machines-9"}, Role: ids{"web"}, Action: ids{"a"}}),
		prompted("6", "Alpha", "", "c", false, scope{ProcessOwner: ids{"Runbooks-1"}}),
		project("7", "", scope{}),
	}
	ctx := variables.Context{Environment: "Environments-1", ProcessOwner: "Projects-1"}
	var got []string
	for _, v := range variables.Prompts(values, ctx) {
		got = append(got, v.ID)
	}
	if diff := cmp.Diff([]string{"1", "3", "2", "5"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	ctx := variables.Context{Environment: "Environments-1"}
	env := func(e string) scope { return scope{Environment: ids{e}} }
	tests := map[string]struct {
		values  []variables.Variable
		answers variables.Answers
		want    []string // values in order
		unused  []string
		fault   bool
	}{
		"not answered keeps the default": {
			[]variables.Variable{prompted("1", "A", "default", "", true, scope{})},
			variables.Answers{},
			[]string{"default"},
			nil, false,
		},
		"by id for that value alone": {
			[]variables.Variable{prompted("1", "A", "x", "", false, scope{}), prompted("2", "A", "y", "", false, env("Environments-1"))},
			variables.Answers{ByID: map[string]string{"2": "new"}},
			[]string{"x", "new"},
			nil, false,
		},
		"by name for each value that can apply": {
			[]variables.Variable{prompted("1", "A", "x", "", false, scope{}), prompted("2", "a", "y", "", false, env("Environments-1")), prompted("3", "A", "z", "", false, env("Environments-2"))},
			variables.Answers{ByName: map[string]string{"A": "new"}},
			[]string{"new", "new", "z"},
			nil, false,
		},
		"by id goes before by name": {
			[]variables.Variable{prompted("1", "A", "x", "", false, scope{}), prompted("2", "A", "y", "", false, scope{})},
			variables.Answers{ByID: map[string]string{"1": "id"}, ByName: map[string]string{"a": "name"}},
			[]string{"id", "name"},
			nil, false,
		},
		"not for values without a prompt": {
			[]variables.Variable{{ID: "1", Name: "A", Value: "x"}},
			variables.Answers{ByID: map[string]string{"1": "new"}, ByName: map[string]string{"A": "new", "B": "new"}},
			[]string{"x"},
			[]string{"1", "A", "B"},
			false,
		},
		"required and blank": {
			[]variables.Variable{prompted("1", "A", "x", "", true, scope{})},
			variables.Answers{ByID: map[string]string{"1": " \t"}},
			[]string{" \t"},
			nil, true,
		},
		"required and without default": {
			[]variables.Variable{prompted("1", "A", "", "", true, scope{})}, variables.Answers{}, []string{""}, nil, true,
		},
		"required elsewhere": {
			[]variables.Variable{prompted("1", "A", "", "", true, env("Environments-2"))}, variables.Answers{}, []string{""}, nil, false,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := append([]variables.Variable(nil), tt.values...)
			answered, unused, err := variables.Answer(tt.values, tt.answers, ctx)
			if got := err != nil; got != tt.fault || got && !fault.Is(err, fault.Invalid) {
				t.Errorf("err = %v", err)
			}
			var got []string
			for i, v := range answered {
				got = append(got, v.Value)
				if v.Prompted != (v.Value != before[i].Value) {
					t.Errorf("%v: Prompted = %v", v, v.Prompted)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.unused, unused); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, tt.values, cmp.Comparer(func(a, b variables.Variable) bool { return a.Value == b.Value })); diff != "" {
				t.Errorf("the input was changed: %s", diff)
			}
		})
	}
}

// TestAnswerKeepsScope: an answer by id counts only where its value applies.
func TestAnswerKeepsScope(t *testing.T) {
	t.Parallel()
	values, _, err := variables.Answer([]variables.Variable{
		prompted("1", "A", "everywhere", "", false, scope{}),
		prompted("2", "A", "", "", false, scope{Machine: ids{"Machines-1"}}),
	}, variables.Answers{ByID: map[string]string{"2": "there"}}, variables.Context{})
	if err != nil {
		t.Fatal(err)
	}
	set := variables.New(values...)
	for machine, want := range map[string]string{"Machines-1": "there", "Machines-2": "everywhere"} {
		if got := set.Resolve(variables.Context{Machine: machine}).Value("A"); got != want {
			t.Errorf("on %s: %q, want %q", machine, got, want)
		}
	}
}

func TestTenant(t *testing.T) {
	t.Parallel()
	fallback, blank := "default #{X}", " "
	templates := []variables.Template{
		{ID: "t1", Name: "PerEnv", OwnerID: "Projects-1", PerEnvironment: true},
		{ID: "t2", Name: "PerEnvDefault", OwnerID: "Projects-1", PerEnvironment: true, Default: &fallback},
		{ID: "t3", Name: "Common", OwnerID: "LibraryVariableSets-1", Type: octopus.VariableSensitive},
		{ID: "t4", Name: "CommonSome", OwnerID: "LibraryVariableSets-1", Default: &fallback},
		{ID: "t5", Name: "Missing", OwnerID: "Projects-1", PerEnvironment: true, Default: &blank},
		{ID: "t6", Name: "Emptied", OwnerID: "LibraryVariableSets-1", Default: &fallback},
	}
	values := []variables.TenantValue{
		{TemplateID: "T1", Environments: []string{"environments-1"}, Value: "one"},
		{TemplateID: "t1", Environments: []string{"Environments-2"}, Value: "two"},
		{TemplateID: "t2", Environments: []string{"Environments-2"}, Value: "elsewhere"},
		{TemplateID: "t3", Value: "s3cret"},
		{TemplateID: "t4", Environments: []string{"Environments-2", "Environments-1"}, Value: "some"},
		{TemplateID: "t4", Value: "all"},
		{TemplateID: "t6", Value: ""},
	}
	got, missing := variables.Tenant("Tenants-1", "Environments-1", templates, values)
	if diff := cmp.Diff([]variables.Missing{{TemplateID: "t5", Name: "Missing", OwnerID: "Projects-1", Environment: "Environments-1"}}, missing); diff != "" {
		t.Error(diff)
	}
	r := variables.New(got...).Resolve(here())
	for name, want := range map[string]string{"PerEnv": "one", "PerEnvDefault": fallback, "Common": "s3cret", "CommonSome": "some", "Emptied": ""} {
		if v, ok := r.Get(name); !ok || v.Value != want {
			t.Errorf("%s = %v, %v; want another value", name, v, ok)
		}
	}
	if v, _ := r.Get("Common"); !v.Sensitive {
		t.Error("a sensitive template gave a plain value")
	}
	// Before the project's value for the environment, not before one for a target tag.
	base := []variables.Variable{
		{ID: "p1", Name: "PerEnv", Value: "env", Scope: scope{Environment: ids{"Environments-1"}}, Source: variables.Source{Kind: variables.KindProject}},
		{ID: "p2", Name: "Common", Value: "role", Scope: scope{Role: ids{"db"}}, Source: variables.Source{Kind: variables.KindProject}},
	}
	r = variables.New(append(base, got...)...).Resolve(here())
	if a, b := r.Value("PerEnv"), r.Value("Common"); a != "one" || b != "role" {
		t.Errorf("PerEnv = %q, Common = %q; want one, role", a, b)
	}
}

func TestOutputs(t *testing.T) {
	t.Parallel()
	set := variables.New(variables.Variable{Name: "TestResult", Value: "#{Octopus.Action[A].Output.X}", Source: variables.Source{Kind: variables.KindProject}})
	out := func(id, name, value string, order int64) variables.Output {
		return variables.Output{Action: "A", MachineID: id, Machine: name, Name: "X", Value: value, Order: order}
	}
	set = set.With(out("Machines-1", "web01", "one", 1).Variables()...)
	set = set.With(out("Machines-2", "web02", "two", 3).Variables()...)
	set = set.With(out("Machines-1", "web01", "one again", 2).Variables()...)
	server := variables.Output{Action: "S", Name: "Key", Value: "s3cret", Sensitive: true, Order: 4}
	set = set.With(server.Variables()...)
	tests := []struct{ machine, name, want string }{
		{"Machines-1", "Octopus.Action[A].Output[web01].X", "one again"},
		{"Machines-2", "Octopus.Action[A].Output[web01].X", "one again"},
		{"", "octopus.action[a].output[WEB02].x", "two"},
		{"Machines-1", "Octopus.Action[A].Output.X", "one again"},
		{"Machines-2", "Octopus.Action[A].Output.X", "two"},
		{"Machines-3", "Octopus.Action[A].Output.X", "two"}, // the last writer
		{"", "Octopus.Action[A].Output.X", "two"},
		{"Machines-1", "Octopus.Action[S].Output.Key", "s3cret"},
	}
	for _, tt := range tests {
		r := set.Resolve(variables.Context{Machine: tt.machine})
		if got := r.Value(tt.name); got != tt.want {
			t.Errorf("on %q, %s = %q, want %q", tt.machine, tt.name, got, tt.want)
		}
		if ties := r.Ties(); ties != nil {
			t.Errorf("outputs of several machines are reported as ties: %v", ties)
		}
	}
	if v, _ := set.Resolve(variables.Context{}).Get("Octopus.Action[S].Output.Key"); !v.Sensitive {
		t.Error("the sensitive output is plain")
	}
	if n := len(server.Variables()); n != 1 {
		t.Errorf("an output without a machine has %d forms, want 1", n)
	}
	if got, want := variables.OutputNameOn("A", "web01", "X"), "Octopus.Action[A].Output[web01].X"; got != want {
		t.Errorf("OutputNameOn = %s", got)
	}
}

func TestPassed(t *testing.T) {
	t.Parallel()
	got := variables.Passed(map[string]string{"B": "2", "A": "1"}, "Deployments-1")
	if len(got) != 2 || got[0].Name != "A" || got[1].Name != "B" || got[0].Source.OwnerID != "Deployments-1" {
		t.Errorf("Passed = %v", got)
	}
}
