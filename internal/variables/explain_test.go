package variables_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/variables"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	labels := func(d variables.Dimension, id string) string {
		return map[string]string{"Environments-1": "Production", "Environments-2": "Test", "action-1": "Deploy", "Machines-1": "web01"}[id]
	}
	env := func(e ...string) scope { return scope{Environment: e} }
	late := project("late", "new", scope{})
	late.Source = variables.Source{Kind: variables.KindOutput, Order: 2}
	early := project("early", "old", scope{})
	early.Source = variables.Source{Kind: variables.KindOutput, Order: 1}
	given := passed("given")
	given.Value = "given"
	tests := map[string]struct {
		values []variables.Variable
		reason string
		others []string // reasons of those not chosen, in order
	}{
		"unknown":  {nil, `There is no variable "x".`, nil},
		"only one": {[]variables.Variable{project("a", "1", scope{})}, "Chosen because it is the only value and applies here: it has no scope.", nil},
		"only one, elsewhere": {
			[]variables.Variable{project("a", "1", env("Environments-2"))},
			`The only value of "x" does not apply here.`,
			[]string{"Does not apply: it is scoped to environment Test, and here it is Production."},
		},
		"all elsewhere": {
			[]variables.Variable{project("a", "1", env("Environments-2")), project("b", "1", scope{Channel: ids{"Channels-7"}})},
			`None of the 2 values of "x" applies here.`,
			[]string{"Does not apply: it is scoped to environment Test, and here it is Production.", "Does not apply: it is scoped to channel Channels-7, and here it is Channels-1."},
		},
		"only one applies": {
			[]variables.Variable{project("a", "1", env("Environments-2")), project("b", "2", env("Environments-1"))},
			"Chosen because it is the only value that applies here: it is scoped to environment Production.",
			[]string{"Does not apply: it is scoped to environment Test, and here it is Production."},
		},
		"most specific": {
			[]variables.Variable{project("a", "1", scope{}), project("b", "2", env("Environments-1", "Environments-2")), project("c", "3", scope{Action: ids{"action-1"}, Machine: ids{"Machines-1"}})},
			"Chosen because it is the most specific of the 3 values that apply here: it is scoped to step Deploy and target web01.",
			[]string{"Applies, but the chosen value is scoped by step, which is more specific.", "Applies, but the chosen value is scoped by step, which is more specific."},
		},
		"tag of the step": {
			[]variables.Variable{project("a", "1", scope{Role: ids{"db"}}), project("b", "2", scope{Role: ids{"web"}})},
			"Chosen because it is the most specific of the 2 values that apply here: it is scoped to target tag web.",
			[]string{"Applies, but the chosen value is scoped to a target tag that the step goes to."},
		},
		"library": {
			[]variables.Variable{project("a", "1", scope{}), library("b", "2", 0, scope{})},
			"Chosen because it is the most specific of the 2 values that apply here: it has no scope.",
			[]string{"Applies and is as specific, but a project value goes before a library value."},
		},
		"tie": {
			[]variables.Variable{project("a", "1", scope{}), project("b", "2", scope{}), project("c", "1", scope{})},
			"Chosen from several values that have the same right to it (it has no scope); which one is taken is stable but arbitrary. Scope them apart, or remove all but one.",
			[]string{"Applies and is as specific as the chosen value: a tie.", "Applies, and has the same value as the chosen one."},
		},
		"outputs": {
			[]variables.Variable{early, late},
			"Chosen because it is the most specific of the 2 values that apply here: it has no scope.",
			[]string{"Applies, but a later value has replaced it."},
		},
		"passed": {
			[]variables.Variable{project("a", "1", scope{Action: ids{"action-1"}}), given},
			"Chosen because it was passed to this deployment, which goes before every other value.",
			[]string{"Applies, but another value was passed to this deployment."},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := variables.New(tt.values...).Explain("x", here(), labels)
			if e.Reason != tt.reason {
				t.Errorf("reason: %s\nwant:   %s", e.Reason, tt.reason)
			}
			var others []string
			for _, c := range e.Candidates {
				if !c.Chosen {
					others = append(others, c.Reason)
				}
			}
			if diff := cmp.Diff(tt.others, others); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExplainUntenanted(t *testing.T) {
	t.Parallel()
	e := variables.New(project("a", "1", scope{Tenant: ids{"Tenants-1"}})).Explain("X", variables.Context{}, nil)
	if want := "Does not apply: it is scoped to tenant Tenants-1, and there is no tenant here."; e.Candidates[0].Reason != want {
		t.Errorf("reason: %s", e.Candidates[0].Reason)
	}
}

func TestExplainHidesSecrets(t *testing.T) {
	t.Parallel()
	v := project("a", "hunter22", scope{})
	v.Sensitive = true
	w := project("b", "hunter22 too", scope{Environment: ids{"Environments-9"}})
	w.Sensitive = true
	data, err := json.Marshal(variables.New(v, w).Explain("X", here(), nil))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "hunter22") {
		t.Errorf("the explanation has the secret: %s", data)
	}
	if !strings.Contains(string(data), `"Dimension":"Environment"`) {
		t.Errorf("dimensions have no names: %s", data)
	}
}
