package variables_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

type (
	ids   = octopus.List[string]
	scope = octopus.Scope
)

// here is a tenanted deployment step on a machine that has two tags, one of
// which the step goes to.
func here() variables.Context {
	return variables.Context{
		Environment: "Environments-1", Machine: "Machines-1",
		MachineRoles: []string{"web", "db"}, StepRoles: []string{"web", "cache"},
		Action: "action-1", Channel: "Channels-1", Tenant: "Tenants-1",
		TenantTags: []string{"Ring/Alpha", "Ring/Beta", "Region/EU"}, ProcessOwner: "Projects-1",
	}
}

func project(id, value string, s scope) variables.Variable {
	return variables.Variable{ID: id, Name: "X", Value: value, Scope: s, Source: variables.Source{Kind: variables.KindProject, OwnerID: "Projects-1"}}
}

func library(id, value string, order int64, s scope) variables.Variable {
	return variables.Variable{ID: id, Name: "X", Value: value, Scope: s, Source: variables.Source{Kind: variables.KindLibrary, OwnerID: fmt.Sprint("LibraryVariableSets-", order), Order: order}}
}

func TestScopeMatching(t *testing.T) {
	t.Parallel()
	with := func(change func(*variables.Context)) variables.Context {
		c := here()
		change(&c)
		return c
	}
	tests := map[string]struct {
		scope scope
		ctx   variables.Context
		want  bool
	}{
		"no scope applies everywhere":                    {scope{}, variables.Context{}, true},
		"any entry of a dimension":                       {scope{Environment: ids{"Environments-9", "Environments-1"}}, here(), true},
		"no entry of a dimension":                        {scope{Environment: ids{"Environments-9"}}, here(), false},
		"all dimensions":                                 {scope{Environment: ids{"Environments-1"}, Role: ids{"web"}}, here(), true},
		"one dimension of two":                           {scope{Environment: ids{"Environments-1"}, Role: ids{"mail"}}, here(), false},
		"case of ids and tags does not matter":           {scope{Environment: ids{"environments-1"}, Role: ids{"WEB"}, TenantTag: ids{"ring/ALPHA"}}, here(), true},
		"target tag that the step does not go to":        {scope{Role: ids{"db"}}, here(), true},
		"tag of the step that the target does not have":  {scope{Role: ids{"cache"}}, here(), false},
		"no machine, scoped to a target":                 {scope{Machine: ids{"Machines-1"}}, with(func(c *variables.Context) { c.Machine = "" }), false},
		"no machine, scoped to a target tag of the step": {scope{Role: ids{"web"}}, with(func(c *variables.Context) { c.Machine, c.MachineRoles = "", nil }), false},
		"tenant":                               {scope{Tenant: ids{"Tenants-1"}}, here(), true},
		"untenanted, scoped to a tenant":       {scope{Tenant: ids{"Tenants-1"}}, with(func(c *variables.Context) { c.Tenant = "" }), false},
		"untenanted, scoped to a tenant tag":   {scope{TenantTag: ids{"Ring/Alpha"}}, with(func(c *variables.Context) { c.TenantTags = nil }), false},
		"any tag of a tag set":                 {scope{TenantTag: ids{"Ring/Stable", "Ring/Alpha"}}, here(), true},
		"every tag set":                        {scope{TenantTag: ids{"Ring/Alpha", "Region/EU"}}, here(), true},
		"one tag set of two":                   {scope{TenantTag: ids{"Ring/Alpha", "Region/US"}}, here(), false},
		"channel in a runbook":                 {scope{Channel: ids{"Channels-1"}}, with(func(c *variables.Context) { c.Channel, c.ProcessOwner = "", "Runbooks-1" }), false},
		"runbook":                              {scope{ProcessOwner: ids{"Runbooks-1"}}, with(func(c *variables.Context) { c.ProcessOwner = "Runbooks-1" }), true},
		"deployment process in a runbook":      {scope{ProcessOwner: ids{"Projects-1"}}, with(func(c *variables.Context) { c.ProcessOwner = "Runbooks-1" }), false},
		"another step and this process":        {scope{Action: ids{"action-2"}, ProcessOwner: ids{"Projects-1"}}, here(), false},
		"an empty entry does not match":        {scope{Environment: ids{""}}, here(), false},
		"an empty entry does not match nobody": {scope{Tenant: ids{" "}}, variables.Context{}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, got := variables.Matches(tt.scope, tt.ctx); got != tt.want {
				t.Errorf("Matches = %v, want %v", got, tt.want)
			}
			_, got := variables.New(project("a", "1", tt.scope)).Resolve(tt.ctx).Get("X")
			if got != tt.want {
				t.Errorf("Resolve found it: %v, want %v", got, tt.want)
			}
		})
	}
}

// TestSpecificity has the documented order, pair by pair, and its combinations.
func TestSpecificity(t *testing.T) {
	t.Parallel()
	var (
		action   = scope{Action: ids{"action-1"}}
		machine  = scope{Machine: ids{"Machines-1"}}
		stepRole = scope{Role: ids{"web"}}
		role     = scope{Role: ids{"db"}}
		tenant   = scope{Tenant: ids{"Tenants-1"}}
		tag      = scope{TenantTag: ids{"Ring/Alpha"}}
		env      = scope{Environment: ids{"Environments-1"}}
		channel  = scope{Channel: ids{"Channels-1"}}
		process  = scope{ProcessOwner: ids{"Projects-1"}}
	)
	ladder := []struct {
		name  string
		scope scope
	}{
		{"action", action},
		{"machine", machine},
		{"role of the step", stepRole},
		{"role", role},
		{"tenant", tenant},
		{"tenant tag", tag},
		{"environment", env},
		{"channel", channel},
		{"process", process},
		{"unscoped", scope{}},
	}
	wins := func(t *testing.T, winner, loser variables.Variable) {
		t.Helper()
		winner.Value, loser.Value = "winner", "loser"
		for _, order := range [][]variables.Variable{{winner, loser}, {loser, winner}} {
			r := variables.New(order...).Resolve(here())
			if got := r.Value("X"); got != "winner" {
				t.Errorf("got the %s", got)
			}
			if ties := r.Ties(); len(ties) > 0 {
				t.Errorf("a tie: %v", ties)
			}
		}
	}
	for i, hi := range ladder {
		for _, lo := range ladder[i+1:] {
			t.Run(hi.name+" over "+lo.name, func(t *testing.T) {
				t.Parallel()
				// Against the alphabet of ids, so that it is not they who decide.
				wins(t, project("b", "", hi.scope), project("a", "", lo.scope))
			})
		}
	}
	both := func(a, b scope) scope {
		out := a
		for _, d := range []struct{ to, from *ids }{
			{&out.Action, &b.Action},
			{&out.Machine, &b.Machine},
			{&out.Role, &b.Role},
			{&out.Tenant, &b.Tenant},
			{&out.TenantTag, &b.TenantTag},
			{&out.Environment, &b.Environment},
			{&out.Channel, &b.Channel},
			{&out.ProcessOwner, &b.ProcessOwner},
		} {
			*d.to = append(slices.Clone(*d.to), *d.from...)
		}
		return out
	}
	pairs := map[string][2]variables.Variable{
		"environment and role over role":                      {project("b", "", both(env, role)), project("a", "", role)},
		"environment and role over environment":               {project("b", "", both(env, role)), project("a", "", env)},
		"action over all else together":                       {project("b", "", action), project("a", "", both(both(machine, stepRole), both(tenant, env)))},
		"one tag of the step among others counts as that":     {project("b", "", both(role, stepRole)), project("a", "", both(role, env))},
		"project over library set":                            {project("b", "", env), library("a", "", 0, env)},
		"unscoped project over unscoped library set":          {project("b", "", scope{}), library("a", "", 0, scope{})},
		"more specific library set over project":              {library("b", "", 0, env), project("a", "", scope{})},
		"tenant's value over environment":                     {tenantValue("b", both(tenant, env)), project("a", "", env)},
		"role over tenant's value":                            {project("b", "", role), tenantValue("a", both(tenant, env))},
		"project's over system":                               {project("b", "", scope{}), system("a")},
		"passed over the most specific":                       {passed("b"), project("a", "", both(both(action, machine), stepRole))},
		"library set that is included first, equal otherwise": {library("b", "", 1, env), library("a", "", 2, scope{})},
	}
	for name, p := range pairs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wins(t, p[0], p[1])
		})
	}
}

func tenantValue(id string, s scope) variables.Variable {
	v := project(id, "", s)
	v.Source = variables.Source{Kind: variables.KindTenant, OwnerID: "Projects-1"}
	return v
}

func system(id string) variables.Variable {
	v := project(id, "", scope{})
	v.Source = variables.Source{Kind: variables.KindSystem}
	return v
}

func passed(id string) variables.Variable {
	v := project(id, "", scope{})
	v.Source = variables.Source{Kind: variables.KindPassed}
	return v
}

func TestTies(t *testing.T) {
	t.Parallel()
	env := scope{Environment: ids{"Environments-1"}}
	two := scope{Environment: ids{"Environments-1", "Environments-2"}}
	tests := map[string]struct {
		values []variables.Variable
		want   string
		ties   []variables.Tie
	}{
		"two of the project":      {[]variables.Variable{project("b", "2", env), project("a", "1", two)}, "1", []variables.Tie{{Name: "X", Chosen: "a", Others: []string{"b"}}}},
		"more tags do not matter": {[]variables.Variable{project("b", "2", scope{TenantTag: ids{"Ring/Alpha"}}), project("a", "1", scope{TenantTag: ids{"Ring/Alpha", "Ring/Beta"}})}, "1", []variables.Tie{{Name: "X", Chosen: "a", Others: []string{"b"}}}},
		"library sets in order":   {[]variables.Variable{library("a", "1", 7, env), library("b", "2", 3, env)}, "2", []variables.Tie{{Name: "X", Chosen: "b", Others: []string{"a"}}}},
		"equal values":            {[]variables.Variable{project("b", "1", env), project("a", "1", env)}, "1", nil},
		"project and library set": {[]variables.Variable{project("b", "2", env), library("a", "1", 0, env)}, "2", nil},
		"tenant and project":      {[]variables.Variable{project("a", "1", scope{Tenant: ids{"Tenants-1"}}), tenantValue("b", scope{Tenant: ids{"Tenants-1"}})}, "", []variables.Tie{{Name: "X", Chosen: "b", Others: []string{"a"}}}},
		"not where it applies":    {[]variables.Variable{project("b", "2", scope{}), project("c", "3", scope{Environment: ids{"Environments-2"}}), project("a", "1", env)}, "1", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := variables.New(tt.values...).Resolve(here())
			if got := r.Value("X"); got != tt.want {
				t.Errorf("value = %q, want %q", got, tt.want)
			}
			if diff := cmp.Diff(tt.ties, r.Ties()); diff != "" {
				t.Error(diff)
			}
			if got := variables.New(tt.values...).Explain("x", here(), nil).Tied; got != (tt.ties != nil) {
				t.Errorf("explained as a tie: %v", got)
			}
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	set := variables.New(
		variables.Variable{ID: "1", Name: "Alpha", Value: "a"},
		variables.Variable{ID: "2", Name: "BETA", Value: "b"},
		variables.Variable{ID: "3", Name: "beta", Value: "b", Scope: scope{Environment: ids{"Environments-1"}}},
		variables.Variable{ID: "4", Name: "Über", Value: "ü"},
		variables.Variable{ID: "5", Name: " ", Value: "nobody can ask for it"},
	)
	r := set.Resolve(here())
	for name, want := range map[string]string{"alpha": "1", "ALPHA": "1", "Beta": "3", "über": "4", "ÜBER": "4"} {
		if v, ok := r.Get(name); !ok || v.ID != want {
			t.Errorf("Get(%q) = %v, %v; want id %s", name, v.ID, ok, want)
		}
	}
	if _, ok := r.Get("gamma"); ok {
		t.Error("found a name that is not there")
	}
	var names []string
	for v := range r.All() {
		names = append(names, v.Name)
	}
	if diff := cmp.Diff([]string{"Alpha", "beta", "Über"}, names); diff != "" {
		t.Error(diff)
	}
	if got := len(set.Named("BeTa")); got != 2 {
		t.Errorf("Named lists %d values, want 2", got)
	}
	var zero variables.Resolved
	if _, ok := zero.Get("alpha"); ok {
		t.Error("the zero value knows a name")
	}
	for v := range zero.All() {
		t.Error("the zero value yields", v)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	v := variables.Variable{Name: "Password", Value: "hunter22", Sensitive: true}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, v); got == "" || containsSecret(got) {
			t.Errorf("%s prints %s", verb, got)
		}
		if got := fmt.Sprintf(verb, []variables.Variable{v}); containsSecret(got) {
			t.Errorf("%s of a slice prints %s", verb, got)
		}
	}
	if got := v.LogValue().String(); containsSecret(got) {
		t.Errorf("logs %s", got)
	}
}

func containsSecret(s string) bool { return strings.Contains(s, "hunter22") }

func TestCheckLibrary(t *testing.T) {
	t.Parallel()
	if err := variables.CheckLibrary("Scope", scope{Environment: ids{"e"}, Tenant: ids{"t"}, ProcessOwner: ids{"p"}}); err != nil {
		t.Error(err)
	}
	for _, s := range []scope{{Action: ids{"a"}}, {Channel: ids{"c"}}} {
		if err := variables.CheckLibrary("Scope", s); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v, want it refused", s, err)
		}
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	text := "plain"
	src := variables.Source{Kind: variables.KindProject, OwnerID: "Projects-1"}
	got := variables.From(octopus.Variable{ID: "1", Name: "A", Value: &text, Type: octopus.VariableString}, src, "")
	if got.Value != "plain" || got.Sensitive {
		t.Errorf("plain: %v", got)
	}
	got = variables.From(octopus.Variable{ID: "1", Name: "A", Type: octopus.VariableString, IsSensitive: true}, src, "s3cret")
	if got.Value != "s3cret" || !got.Sensitive {
		t.Errorf("sensitive: value of %d bytes, sensitive %v", len(got.Value), got.Sensitive)
	}
}
