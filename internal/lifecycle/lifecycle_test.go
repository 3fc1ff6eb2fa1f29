package lifecycle_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/octopus"
)

// environments are named by their ids and sorted as they come.
func environments(ids ...string) []octopus.Environment {
	all := make([]octopus.Environment, len(ids))
	for i, id := range ids {
		all[i] = octopus.Environment{Resource: octopus.Resource{ID: id}, Name: id, SortOrder: i}
	}
	return all
}

// phase reads "name: env env! ?2 *": env! is an automatic target, ? makes the
// phase optional, a number is the minimum, * makes it a priority phase.
func phase(text string) octopus.Phase {
	name, rest, _ := strings.Cut(text, ":")
	p := octopus.Phase{ID: "Phases-" + name, Name: name}
	for word := range strings.FieldsSeq(rest) {
		switch id, automatic := strings.CutSuffix(word, "!"); {
		case automatic:
			p.AutomaticDeploymentTargets = append(p.AutomaticDeploymentTargets, id)
		case word == "?":
			p.IsOptionalPhase = true
		case word == "*":
			p.IsPriorityPhase = true
		case len(word) == 1 && word[0] >= '0' && word[0] <= '9':
			p.MinimumEnvironmentsBeforePromotion = int(word[0] - '0')
		default:
			p.OptionalDeploymentTargets = append(p.OptionalDeploymentTargets, word)
		}
	}
	return p
}

func phases(texts ...string) octopus.Lifecycle {
	l := octopus.Lifecycle{Name: "Default Lifecycle"}
	for _, text := range texts {
		l.Phases = append(l.Phases, phase(text))
	}
	return l
}

// successes reads "env" and "tenant/env".
func successes(texts ...string) []lifecycle.Success {
	var all []lifecycle.Success
	for _, text := range texts {
		tenant, id, ok := strings.Cut(text, "/")
		if !ok {
			tenant, id = "", text
		}
		all = append(all, lifecycle.Success{EnvironmentID: id, TenantID: tenant})
	}
	return all
}

// show writes the phases as "name=Progress", with a ! where one is blocked.
func show(r lifecycle.Result) string {
	var b strings.Builder
	for i, p := range r.Phases {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.Name + "=" + string(p.Progress))
		if p.Blocked {
			b.WriteByte('!')
		}
	}
	return b.String()
}

func TestPoint01Progress(t *testing.T) {
	t.Parallel()
	three := phases("Dev: dev", "Test: test", "Prod: prod")
	space := environments("dev", "test", "prod")
	uat := phases("Dev: dev", "UAT: uat1 uat2 uat3 2", "Prod: prod")
	uats := environments("dev", "uat1", "uat2", "uat3", "prod")
	optional := phases("Dev: dev", "QA: qa ?", "Prod: prod")
	optionals := environments("dev", "qa", "prod")
	acme := func(ids ...string) *lifecycle.Tenant {
		return &lifecycle.Tenant{ID: "acme", EnvironmentIDs: ids}
	}
	for _, tc := range []struct {
		name       string
		in         lifecycle.Input
		phases     string
		deployable string
		next       string
		minimum    int
		automatic  string
	}{
		{
			name:       "a new release may go to the first phase",
			in:         lifecycle.Input{Lifecycle: three, Environments: space},
			phases:     "Dev=Current Test=Pending! Prod=Pending!",
			deployable: "dev", next: "dev", minimum: 1,
		},
		{
			name:       "a complete phase opens the next, and stays open",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, Successes: successes("dev")},
			phases:     "Dev=Complete Test=Current Prod=Pending!",
			deployable: "dev test", next: "test", minimum: 1,
		},
		{
			name:       "at the end everything is open and nothing is next",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, Successes: successes("dev", "test", "prod", "prod")},
			phases:     "Dev=Complete Test=Complete Prod=Complete",
			deployable: "dev test prod",
		},
		{
			name:       "a success in a later phase opens none before it is reached, but may be repeated",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, Successes: successes("prod")},
			phases:     "Dev=Current Test=Pending! Prod=Complete!",
			deployable: "dev prod", next: "dev", minimum: 1,
		},
		{
			name:       "no phases: one per environment, in their order",
			in:         lifecycle.Input{Environments: space, Successes: successes("dev")},
			phases:     "dev=Complete test=Current prod=Pending!",
			deployable: "dev test", next: "test", minimum: 1,
		},
		{
			name: "no phases: the sort order decides, then the name, then the id",
			in: lifecycle.Input{Environments: []octopus.Environment{
				{Resource: octopus.Resource{ID: "4"}, Name: "b", SortOrder: 2},
				{Resource: octopus.Resource{ID: "3"}, Name: "B", SortOrder: 2},
				{Resource: octopus.Resource{ID: "2"}, Name: "a", SortOrder: 2},
				{Resource: octopus.Resource{ID: "1"}, Name: "z", SortOrder: 1},
			}, Successes: successes("1", "2", "3")},
			phases:     "z=Complete a=Complete B=Complete b=Current",
			deployable: "1 2 3 4", next: "4", minimum: 1,
		},
		{name: "no phases and no environments", in: lifecycle.Input{}},
		{
			name:       "an empty phase has what no phase before it names",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev", "Rest:", "Prod: prod"), Environments: environments("new", "dev", "test", "prod"), Successes: successes("dev")},
			phases:     "Dev=Complete Rest=Current Prod=Pending!",
			deployable: "dev new test prod", next: "new test prod", minimum: 3,
		},
		{
			name:       "an empty phase with a minimum",
			in:         lifecycle.Input{Lifecycle: phases("Any: 1", "Prod: prod"), Environments: space, Successes: successes("test")},
			phases:     "Any=Complete Prod=Current",
			deployable: "dev test prod", next: "prod", minimum: 1,
		},
		{
			name:       "an empty phase with nothing left holds up nothing",
			in:         lifecycle.Input{Lifecycle: phases("All: dev test prod 1", "Rest:", "Last: prod"), Environments: space, Successes: successes("dev")},
			phases:     "All=Complete Rest=Complete Last=Current",
			deployable: "dev test prod", next: "prod", minimum: 1,
		},
		{
			name:       "zero as the minimum is all",
			in:         lifecycle.Input{Lifecycle: phases("Test: test dev 0", "Prod: prod"), Environments: space, Successes: successes("dev")},
			phases:     "Test=Current Prod=Pending!",
			deployable: "test dev", next: "test", minimum: 1,
		},
		{
			name:       "one of two: any, and the rest is no longer next",
			in:         lifecycle.Input{Lifecycle: uat, Environments: uats, Successes: successes("dev", "uat3")},
			phases:     "Dev=Complete UAT=Current Prod=Pending!",
			deployable: "dev uat1 uat2 uat3", next: "uat1 uat2", minimum: 1,
		},
		{
			name:       "two of two",
			in:         lifecycle.Input{Lifecycle: uat, Environments: uats, Successes: successes("dev", "uat3", "uat1", "uat1")},
			phases:     "Dev=Complete UAT=Complete Prod=Current",
			deployable: "dev uat1 uat2 uat3 prod", next: "prod", minimum: 1,
		},
		{
			name:       "a minimum that cannot be met is all there are",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev 9", "Prod: prod"), Environments: space, Successes: successes("dev")},
			phases:     "Dev=Complete Prod=Current",
			deployable: "dev prod", next: "prod", minimum: 1,
		},
		{
			name:       "environments that are gone hold up nothing",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev gone", "Gone: lost!", "Prod: prod"), Environments: space, Successes: successes("dev", "gone")},
			phases:     "Dev=Complete Gone=Complete Prod=Current",
			deployable: "dev prod", next: "prod", minimum: 1,
		},
		{
			name:       "an optional phase is closed until it is reached",
			in:         lifecycle.Input{Lifecycle: optional, Environments: optionals},
			phases:     "Dev=Current QA=Pending! Prod=Pending!",
			deployable: "dev", next: "dev", minimum: 1,
		},
		{
			name:       "an optional phase may be skipped",
			in:         lifecycle.Input{Lifecycle: optional, Environments: optionals, Successes: successes("dev")},
			phases:     "Dev=Complete QA=Current Prod=Pending",
			deployable: "dev qa prod", next: "qa prod", minimum: 1,
		},
		{
			name:       "an optional phase that was skipped is not current, but open",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev", "QA: qa ?", "Prod: prod dr"), Environments: environments("dev", "qa", "prod", "dr"), Successes: successes("dev", "prod")},
			phases:     "Dev=Complete QA=Pending Prod=Current",
			deployable: "dev qa prod dr", next: "dr", minimum: 1,
		},
		{
			name:       "a skipped phase behind everything",
			in:         lifecycle.Input{Lifecycle: optional, Environments: optionals, Successes: successes("dev", "prod")},
			phases:     "Dev=Complete QA=Pending Prod=Complete",
			deployable: "dev qa prod",
		},
		{
			name:       "a last optional phase is next but asks for nothing",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev", "QA: qa ?"), Environments: optionals, Successes: successes("dev")},
			phases:     "Dev=Complete QA=Current",
			deployable: "dev qa", next: "qa",
		},
		{
			name:       "several optional phases at the start",
			in:         lifecycle.Input{Lifecycle: phases("A: dev ?", "B: qa ?", "C: prod"), Environments: optionals},
			phases:     "A=Current B=Pending C=Pending",
			deployable: "dev qa prod", next: "dev qa prod", minimum: 1,
		},
		{
			name:       "automatic targets of the first phase",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev! qa", "Prod: prod!"), Environments: optionals},
			phases:     "Dev=Current Prod=Pending!",
			deployable: "dev qa", next: "dev qa", minimum: 2, automatic: "dev",
		},
		{
			name:       "automatic targets of a phase reached",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev! qa", "Prod: prod!"), Environments: optionals, Successes: successes("dev", "qa")},
			phases:     "Dev=Complete Prod=Current",
			deployable: "dev qa prod", next: "prod", minimum: 1, automatic: "prod",
		},
		{
			name:       "an optional phase has no automatic targets, the one behind it does",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev", "QA: qa! ?", "Prod: prod!"), Environments: optionals, Successes: successes("dev")},
			phases:     "Dev=Complete QA=Current Prod=Pending",
			deployable: "dev qa prod", next: "qa prod", minimum: 1, automatic: "prod",
		},
		{
			name:       "an environment that is both automatic and manual counts once",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev! dev", "Prod: prod"), Environments: optionals, Successes: successes("dev")},
			phases:     "Dev=Complete Prod=Current",
			deployable: "dev prod", next: "prod", minimum: 1,
		},
		{
			name:       "successes for tenants do not count without one",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, Successes: successes("acme/dev")},
			phases:     "Dev=Current Test=Pending! Prod=Pending!",
			deployable: "dev", next: "dev", minimum: 1,
		},
		{
			name:       "a tenant goes its own way",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, Tenant: acme("dev", "test", "prod"), Successes: successes("dev", "other/dev", "other/test", "acme/dev")},
			phases:     "Dev=Complete Test=Current Prod=Pending!",
			deployable: "dev test", next: "test", minimum: 1,
		},
		{
			name:       "a tenant is not held up by phases it has no environment of",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, Tenant: acme("prod")},
			phases:     "Dev=Complete Test=Complete Prod=Current",
			deployable: "prod", next: "prod", minimum: 1,
		},
		{
			name:       "a phase that a tenant passes by is pending until it is reached",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, Tenant: acme("dev", "prod")},
			phases:     "Dev=Current Test=Pending! Prod=Pending!",
			deployable: "dev", next: "dev", minimum: 1,
		},
		{
			name:       "of a phase a tenant needs what it is connected to",
			in:         lifecycle.Input{Lifecycle: phases("UAT: uat1 uat2 uat3 2", "Prod: prod!"), Environments: uats, Tenant: acme("uat2", "prod"), Successes: successes("acme/uat2")},
			phases:     "UAT=Complete Prod=Current",
			deployable: "uat2 prod", next: "prod", minimum: 1, automatic: "prod",
		},
		{
			name:   "a tenant that is connected to nothing",
			in:     lifecycle.Input{Lifecycle: three, Environments: space, Tenant: acme()},
			phases: "Dev=Complete Test=Complete Prod=Complete",
		},
		{
			name:       "an overview counts all tenants",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, AnyTenant: true, Successes: successes("acme/dev", "other/test")},
			phases:     "Dev=Complete Test=Complete Prod=Current",
			deployable: "dev test prod", next: "prod", minimum: 1,
		},
		{
			name:       "a defect closes the phases without a success",
			in:         lifecycle.Input{Lifecycle: uat, Environments: uats, HasDefect: true, Successes: successes("dev")},
			phases:     "Dev=Complete UAT=Current! Prod=Pending!",
			deployable: "dev",
		},
		{
			name:       "a defect leaves all of a phase with a success open",
			in:         lifecycle.Input{Lifecycle: uat, Environments: uats, HasDefect: true, Successes: successes("dev", "uat1")},
			phases:     "Dev=Complete UAT=Current Prod=Pending!",
			deployable: "dev uat1 uat2 uat3", next: "uat2 uat3", minimum: 1,
		},
		{
			name:       "a defect leaves the first phase open",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev!", "Prod: prod!"), Environments: space, HasDefect: true},
			phases:     "Dev=Current Prod=Pending!",
			deployable: "dev", next: "dev", minimum: 1, automatic: "dev",
		},
		{
			name:       "a defect closes optional phases like others",
			in:         lifecycle.Input{Lifecycle: optional, Environments: optionals, HasDefect: true, Successes: successes("dev")},
			phases:     "Dev=Complete QA=Current! Prod=Pending!",
			deployable: "dev",
		},
		{
			name:       "a tenant's first phase is the first with an environment of its own",
			in:         lifecycle.Input{Lifecycle: three, Environments: space, HasDefect: true, Tenant: acme("test", "prod"), Successes: successes("dev")},
			phases:     "Dev=Complete! Test=Current Prod=Pending!",
			deployable: "test", next: "test", minimum: 1,
		},
		{
			name:       "an environment of two phases is open when either is",
			in:         lifecycle.Input{Lifecycle: phases("Dev: dev", "Both: dev prod", "Prod: prod"), Environments: space},
			phases:     "Dev=Current Both=Pending! Prod=Pending!",
			deployable: "dev", next: "dev", minimum: 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := lifecycle.Progress(tc.in)
			if got := show(r); got != tc.phases {
				t.Errorf("phases\n got  %s\n want %s", got, tc.phases)
			}
			for what, pair := range map[string][2]string{
				"deployable": {strings.Join(r.Deployable, " "), tc.deployable},
				"next":       {strings.Join(r.NextDeployments, " "), tc.next},
				"automatic":  {strings.Join(r.Automatic, " "), tc.automatic},
			} {
				if pair[0] != pair[1] {
					t.Errorf("%s = %q, want %q", what, pair[0], pair[1])
				}
			}
			if r.NextDeploymentsMinimumRequired != tc.minimum {
				t.Errorf("minimum = %d, want %d", r.NextDeploymentsMinimumRequired, tc.minimum)
			}
		})
	}
}

func TestCanDeploy(t *testing.T) {
	t.Parallel()
	space := []octopus.Environment{
		{Resource: octopus.Resource{ID: "Environments-1"}, Name: "Development"},
		{Resource: octopus.Resource{ID: "Environments-2"}, Name: "UAT 1", SortOrder: 1},
		{Resource: octopus.Resource{ID: "Environments-3"}, Name: "UAT 2", SortOrder: 2},
		{Resource: octopus.Resource{ID: "Environments-4"}, Name: "Production", SortOrder: 3},
		{Resource: octopus.Resource{ID: "Environments-5"}, Name: "Spare", SortOrder: 4},
	}
	test := func(words string) octopus.Lifecycle {
		return phases("Dev: Environments-1", "Test: Environments-2 Environments-3 "+words, "Live: Environments-4")
	}
	for _, tc := range []struct {
		name, environment, want string
		in                      lifecycle.Input
	}{
		{name: "open", environment: "Environments-1", in: lifecycle.Input{Lifecycle: test("")}},
		{
			name: "one missing", environment: "Environments-2", in: lifecycle.Input{Lifecycle: test("")},
			want: `The release cannot be deployed to "UAT 1" yet. The phase "Dev" must be completed first: deploy it to "Development".`,
		},
		{
			name: "all missing", environment: "Environments-4", in: lifecycle.Input{Lifecycle: test(""), Successes: successes("Environments-1")},
			want: `The release cannot be deployed to "Production" yet. The phase "Test" must be completed first: deploy it to "UAT 1" and "UAT 2".`,
		},
		{
			name: "any missing", environment: "Environments-4", in: lifecycle.Input{Lifecycle: test("1"), Successes: successes("Environments-1")},
			want: `The release cannot be deployed to "Production" yet. The phase "Test" must be completed first: deploy it to "UAT 1" or "UAT 2".`,
		},
		{
			name: "some missing", environment: "Environments-4",
			in:   lifecycle.Input{Lifecycle: phases("Test: Environments-1 Environments-2 Environments-3 2", "Live: Environments-4")},
			want: `The release cannot be deployed to "Production" yet. The phase "Test" must be completed first: deploy it to 2 of "Development", "UAT 1" and "UAT 2".`,
		},
		{
			name: "not in the lifecycle", environment: "Environments-5", in: lifecycle.Input{Lifecycle: test("")},
			want: `The lifecycle "Default Lifecycle" has no phase with the environment "Spare". Add it to one, or use a channel with another lifecycle.`,
		},
		{
			name: "not an environment", environment: "Environments-9", in: lifecycle.Input{Lifecycle: test("")},
			want: `The lifecycle "Default Lifecycle" has no phase with the environment "Environments-9". Add it to one, or use a channel with another lifecycle.`,
		},
		{
			name: "not connected", environment: "Environments-4",
			in:   lifecycle.Input{Lifecycle: test(""), Tenant: &lifecycle.Tenant{ID: "Tenants-1", EnvironmentIDs: []string{"Environments-1"}}},
			want: `The tenant is not connected to the environment "Production" in this project. Connect it first.`,
		},
		{
			name: "defect", environment: "Environments-2", in: lifecycle.Input{Lifecycle: test(""), Successes: successes("Environments-1"), HasDefect: true},
			want: `The release has an unresolved defect and has not been deployed to the phase "Test" yet. Resolve the defect to deploy it to "UAT 1".`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.in.Environments = space
			ok, reason := lifecycle.CanDeploy(lifecycle.Progress(tc.in), tc.environment)
			if ok != (tc.want == "") || reason != tc.want {
				t.Errorf("CanDeploy = %v, %q\nwant reason %q", ok, reason, tc.want)
			}
		})
	}
}

func TestCanDeployNamesAFew(t *testing.T) {
	t.Parallel()
	many := environments("a", "b", "c", "d", "e", "f", "g", "z")
	in := lifecycle.Input{Lifecycle: phases("Many: a b c d e f g", "Last: z"), Environments: many}
	_, reason := lifecycle.CanDeploy(lifecycle.Progress(in), "z")
	if want := `deploy it to "a", "b", "c", "d", "e" and 2 more.`; !strings.HasSuffix(reason, want) {
		t.Errorf("reason = %s", reason)
	}
}

func TestNewlyAutomatic(t *testing.T) {
	t.Parallel()
	in := lifecycle.Input{Lifecycle: phases("Dev: dev!", "Test: test! qa!", "Prod: prod"), Environments: environments("dev", "test", "qa", "prod")}
	created := lifecycle.Progress(in)
	if diff := cmp.Diff([]string{"dev"}, lifecycle.NewlyAutomatic(lifecycle.Result{}, created)); diff != "" {
		t.Errorf("a new release (-want +got):\n%s", diff)
	}
	in.Successes = successes("dev")
	dev := lifecycle.Progress(in)
	if diff := cmp.Diff([]string{"test", "qa"}, lifecycle.NewlyAutomatic(created, dev)); diff != "" {
		t.Errorf("after dev (-want +got):\n%s", diff)
	}
	in.Successes = successes("dev", "dev")
	if got := lifecycle.NewlyAutomatic(dev, lifecycle.Progress(in)); len(got) != 0 {
		t.Errorf("after dev once more = %v", got)
	}
	in.Successes = successes("dev", "qa")
	if got := lifecycle.NewlyAutomatic(dev, lifecycle.Progress(in)); len(got) != 0 {
		t.Errorf("after qa = %v", got)
	}
	in.HasDefect, in.Successes = true, successes("dev")
	defect := lifecycle.Progress(in)
	if got := lifecycle.NewlyAutomatic(created, defect); len(got) != 0 {
		t.Errorf("after dev, with a defect = %v", got)
	}
	if diff := cmp.Diff([]string{"test", "qa"}, lifecycle.NewlyAutomatic(defect, dev)); diff != "" {
		t.Errorf("after the defect was resolved (-want +got):\n%s", diff)
	}
}

func TestIsPriority(t *testing.T) {
	t.Parallel()
	in := lifecycle.Input{Lifecycle: phases("Dev: dev prod", "Hot: prod *"), Environments: environments("dev", "prod")}
	if r := lifecycle.Progress(in); r.IsPriority("prod") || r.IsPriority("nowhere") {
		t.Error("a phase that is not reached has its priority already")
	}
	in.Successes = successes("dev", "prod")
	if r := lifecycle.Progress(in); !r.IsPriority("prod") || r.IsPriority("dev") {
		t.Error("the priority of a phase is wrong")
	}
}

func TestRetentionIsInherited(t *testing.T) {
	t.Parallel()
	l := phases("A: a", "B: b", "C: c", "D: d")
	l.ReleaseRetentionPolicy, l.TentacleRetentionPolicy = octopus.KeepCount(1, octopus.RetentionDays), octopus.KeepForever()
	l.Phases[1].ReleaseRetentionPolicy = octopus.KeepCount(2, octopus.RetentionItems)
	l.Phases[3].TentacleRetentionPolicy = octopus.KeepDefault()
	all := lifecycle.Phases(l, environments("a", "b", "c", "d"))
	for i, want := range []int{1, 2, 2, 2} {
		if got := all[i].ReleaseRetentionPolicy.QuantityToKeep; got != want {
			t.Errorf("phase %s keeps releases %d, want %d", all[i].Name, got, want)
		}
	}
	if all[2].TentacleRetentionPolicy.Strategy != octopus.RetentionForever || all[3].TentacleRetentionPolicy.Strategy != octopus.RetentionDefault {
		t.Errorf("tentacle policies = %v, %v", all[2].TentacleRetentionPolicy, all[3].TentacleRetentionPolicy)
	}
	if l.Phases[2].ReleaseRetentionPolicy != nil {
		t.Error("Phases changed the lifecycle")
	}
	l.Phases = nil
	for _, p := range lifecycle.Phases(l, environments("a")) {
		if p.ReleaseRetentionPolicy != l.ReleaseRetentionPolicy {
			t.Error("an implied phase has no policy")
		}
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	in := lifecycle.Input{Lifecycle: phases("Dev: dev!", "Rest: 1 ? *"), Environments: environments("dev", "test", "prod"), Successes: successes("dev")}
	got := lifecycle.Progress(in).Document()
	want := octopus.LifecycleProgression{
		Phases: octopus.List[octopus.PhaseProgression]{
			{ID: "Phases-Dev", Name: "Dev", Progress: octopus.PhaseComplete, AutomaticDeploymentTargets: octopus.List[string]{"dev"}},
			{
				ID: "Phases-Rest", Name: "Rest", Progress: octopus.PhaseCurrent, OptionalDeploymentTargets: octopus.List[string]{"test", "prod"},
				MinimumEnvironmentsBeforePromotion: 1, IsOptionalPhase: true, IsPriorityPhase: true,
			},
		},
		NextDeployments: octopus.List[string]{"test", "prod"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	data, err := json.Marshal(lifecycle.Progress(lifecycle.Input{}).Document())
	if err != nil || !slices.Equal(data, []byte(`{"Phases":[],"NextDeployments":[],"NextDeploymentsMinimumRequired":0,"Links":{}}`)) {
		t.Errorf("an empty document is %s (%v)", data, err)
	}
}
