// Package deploy decides what a deployment does, without doing any of it.
//
// Build turns a frozen process and the circumstances of one deployment into a
// Plan: ordered steps, their actions, and the machines each runs on. While the
// deployment runs, everything that happens to it is a Fact appended to its
// journal; Fold reads the facts to a State, and Next says what may start now.
// All three are pure, so that any process that reads the journal comes to the
// same conclusion: that is what lets a deployment survive its server.
//
// A plan holds no variable values and no secrets: it names the process snapshot
// and the variable manifest from which each unit is resolved when it starts.
package deploy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Format is the version of plans and facts that this code writes. It reads this
// one and older ones.
const Format = 1

// Limits of a plan.
const (
	MaxSteps    = 1000
	MaxMachines = 10000
	// MaxParallel is how many targets of a step, and how many steps of a
	// group, run at the same time unless a variable says otherwise.
	MaxParallel = 10
)

// OwnerKind says whose process a plan runs.
type OwnerKind string

// The owners of processes.
const (
	OwnerDeployment OwnerKind = "Deployment"
	OwnerRunbookRun OwnerKind = "RunbookRun"
	// OwnerScript is a task that runs a script by itself.
	OwnerScript OwnerKind = "AdHocScript"
)

// Plan is what one deployment will do. It is immutable once its task exists.
type Plan struct {
	Format int       `json:"format"`
	Owner  OwnerKind `json:"owner"`
	// OwnerID is the deployment ("Deployments-3") or runbook run.
	OwnerID       string `json:"ownerId"`
	SpaceID       string `json:"spaceId"`
	ProjectID     string `json:"projectId"`
	ReleaseID     string `json:"releaseId,omitempty"`
	ChannelID     string `json:"channelId,omitempty"`
	EnvironmentID string `json:"environmentId"`
	TenantID      string `json:"tenantId,omitempty"`
	// TenantTags are the tenant's tags, canonical ("Set/Tag").
	TenantTags []string `json:"tenantTags,omitempty"`
	// ProcessID is the snapshot of the process: properties are read from there.
	ProcessID string `json:"processId"`
	// ManifestID is the frozen set of variables.
	ManifestID string `json:"manifestId"`
	// Earlier is the failed deployment that this one goes on from, "" for none.
	Earlier       string `json:"earlier,omitempty"`
	GuidedFailure bool   `json:"guidedFailure,omitempty"`
	// Keep is how much of what was deployed before stays on targets, nil for all.
	Keep *Keep `json:"keep,omitempty"`
	// Redeploy installs packages though they are installed already.
	Redeploy bool      `json:"redeploy,omitempty"`
	Targets  Targets   `json:"targets,omitzero"`
	Machines []Machine `json:"machines,omitempty"`
	Steps    []Step    `json:"steps"`
}

// Keep is a retention policy of targets: what is of the last Days days stays, or the
// last Items installations. One of them is positive.
type Keep struct {
	Days  int `json:"days,omitempty"`
	Items int `json:"items,omitempty"`
}

// Targets is what becomes of targets that are not there, or not well.
type Targets struct {
	// Skip lets the deployment go on without a target that is not available, with
	// SkipRoles only without those that have one of these tags.
	Skip      bool     `json:"skip,omitempty"`
	SkipRoles []string `json:"skipRoles,omitempty"`
	// ExcludeUnhealthy leaves out targets that are not healthy as it begins.
	ExcludeUnhealthy bool `json:"excludeUnhealthy,omitempty"`
	// AllowNone lets it go on though all of its targets are left out.
	AllowNone bool `json:"allowNone,omitempty"`
}

// MaySkip reports whether the deployment may go on without a target that is not
// available: since the project says so of it, or its machine policy.
func (p *Plan) MaySkip(m *Machine) bool {
	t := &p.Targets
	return m.MayBeOffline || t.Skip && (len(t.SkipRoles) == 0 || hasAny(m.Roles, t.SkipRoles))
}

// Machine is a deployment target that takes part, as it was when the plan was made.
type Machine struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
	// OnWorker tells that nothing can run on it: a worker does, on its behalf, in the
	// pool WorkerPoolID where the action names none.
	OnWorker     bool   `json:"onWorker,omitempty"`
	WorkerPoolID string `json:"workerPoolId,omitempty"`
	// MayBeOffline tells that nobody minds when it is not available.
	MayBeOffline bool `json:"mayBeOffline,omitempty"`
	// Offline tells that it is an offline drop: what would run on it goes into a bundle.
	Offline bool `json:"offline,omitempty"`
}

// MachineIDs are the ids of the targets that take part.
func (p *Plan) MachineIDs() []string {
	ids := make([]string, len(p.Machines))
	for i := range p.Machines {
		ids[i] = p.Machines[i].ID
	}
	return ids
}

// Step is a step of a plan.
type Step struct {
	ID        string                `json:"id"`
	Name      string                `json:"name"`
	Number    string                `json:"number"` // "1", as people see it
	Condition octopus.StepCondition `json:"condition"`
	// WithPrevious joins the group of the step before.
	WithPrevious bool     `json:"withPrevious,omitempty"`
	Roles        []string `json:"roles,omitempty"`
	// Rolling limits how many lanes run at a time by the step's window, and
	// stops opening lanes after a failure.
	Rolling bool     `json:"rolling,omitempty"`
	Actions []Action `json:"actions"`
	// Lanes are the ids of the machines that the step goes through, each
	// running all actions in order. A step that is bound to no target, or that
	// looks at all of them itself, has the one lane "".
	Lanes []string `json:"lanes"`
	// Done are the lanes that Plan.Earlier has settled: nothing runs in them.
	Done []string `json:"done,omitempty"`
}

// Place is where an action runs.
type Place string

// The places.
const (
	OnTarget Place = "target" // on the lane's machine
	OnWorker Place = "worker" // on a worker; on behalf of the lane's machine if it has one
	OnServer Place = "server" // by the server itself: e-mail, manual intervention
)

// Action is an action of a plan.
type Action struct {
	ID     string             `json:"id"`
	Name   string             `json:"name"`
	Number string             `json:"number"` // "1", or "2.1" for a child
	Type   octopus.ActionType `json:"type"`
	Place  Place              `json:"place"`
	// Skip says that a person left the action out.
	Skip     bool `json:"skip,omitempty"`
	Required bool `json:"required,omitempty"`
	// Variable tells that the action has a run condition of its own.
	Variable bool `json:"variable,omitempty"`
	// WorkerPoolID and WorkerPoolVariable choose the worker; both empty is the default pool.
	WorkerPoolID       string    `json:"workerPoolId,omitempty"`
	WorkerPoolVariable string    `json:"workerPoolVariable,omitempty"`
	Packages           []Package `json:"packages,omitempty"`
}

// Package is a package reference with the version that the release selected.
type Package struct {
	Name      string `json:"name"` // "" for the primary one
	PackageID string `json:"packageId"`
	FeedID    string `json:"feedId"`
	Version   string `json:"version"`
	Location  string `json:"location"` // octopus.AcquisitionLocation
	Extract   bool   `json:"extract,omitempty"`
}

// Input is everything that Build looks at.
type Input struct {
	Plan    Plan // the ids, GuidedFailure and Targets; the rest is filled in
	Process []octopus.Step
	// Machines are the enabled targets of the environment that match the tenant.
	Machines []Machine
	// SkipActions are ids of actions that a person left out.
	SkipActions []string
	// SpecificMachines limits the targets; empty is no limit.
	SpecificMachines, ExcludedMachines []string
	// Done are the lanes that Plan.Earlier has settled, by the id of the step.
	Done map[string][]string
	// Versions are the selected packages' versions by action name and reference
	// name, both in lower case.
	Versions map[PackageKey]string
}

// PackageKey names a package reference of an action.
type PackageKey struct{ Action, Reference string }

// Build makes the plan. It fails with faults that name the step.
func Build(in Input) (*Plan, error) {
	p := in.Plan
	p.Format = Format
	p.Machines, p.Steps = nil, nil
	if len(in.Process) > MaxSteps {
		return nil, fault.New(fault.Invalid, "The process has %d steps; the limit is %d.", len(in.Process), MaxSteps)
	}
	machines := chosen(in)
	if len(machines) > MaxMachines {
		return nil, fault.New(fault.Invalid, "The deployment has %d targets; the limit is %d.", len(machines), MaxMachines)
	}
	used := map[string]bool{}
	joinable := false // a step of the group that is being read takes part
	for i, s := range in.Process {
		if s.StartTrigger != octopus.StartWithPrevious {
			joinable = false
		}
		step := Step{
			ID: s.ID, Name: s.Name, Number: fmt.Sprint(i + 1),
			Condition: s.Condition,
			// Where the step that begins a group is left out, the next one
			// begins it: it must not join the group before.
			WithPrevious: joinable,
			Roles:        roles(s),
		}
		if step.Condition == "" {
			step.Condition = octopus.StepConditionSuccess
		}
		step.Rolling = len(s.Actions) > 1 || s.Properties.Get(octopus.PropMaxParallelism) != ""
		for j, a := range s.Actions {
			if !takesPart(a, in) {
				continue
			}
			number := step.Number
			if len(s.Actions) > 1 {
				number = fmt.Sprintf("%d.%d", i+1, j+1)
			}
			step.Actions = append(step.Actions, action(a, number, len(step.Roles) > 0, in))
		}
		if len(step.Actions) == 0 {
			continue // scoped out: no part of this deployment
		}
		joinable = true
		step.Lanes = []string{}
		for _, m := range machines {
			if hasAny(m.Roles, step.Roles) {
				step.Lanes = append(step.Lanes, m.ID)
				used[m.ID] = true
			}
		}
		if len(step.Roles) == 0 || checksHealth(&step) {
			step.Lanes = []string{""}
		}
		done := folded(in.Done[s.ID])
		for i := range machines {
			if machines[i].Offline { // what failed before has made no bundle, and this one is to be whole
				delete(done, strings.ToLower(machines[i].ID))
			}
		}
		for _, lane := range step.Lanes {
			if done[strings.ToLower(lane)] {
				step.Done = append(step.Done, lane)
			}
		}
		p.Steps = append(p.Steps, step)
	}
	for _, m := range machines {
		if used[m.ID] {
			p.Machines = append(p.Machines, m)
		}
	}
	p.Steps = withAcquisition(p.Steps, in.Process)
	return &p, nil
}

// AcquirePackages is what the step does that plans have of their own: it makes sure that
// all packages are there, before the first of them is used.
const AcquirePackages octopus.ActionType = "Tako.AcquirePackages"

// Acquires reports whether the step is no step of the process but the acquisition of
// packages.
func (s *Step) Acquires() bool { return len(s.Actions) == 1 && s.Actions[0].Type == AcquirePackages }

// withAcquisition adds the acquisition of packages before the group of the first step
// that uses one, or that is to come after it. Steps that are to come before it get
// their packages by themselves.
func withAcquisition(steps []Step, process []octopus.Step) []Step {
	wants := map[string]octopus.PackageRequirement{}
	for i := range process {
		wants[process[i].ID] = process[i].PackageRequirement
	}
	needed, at := false, -1
	for i := range steps {
		uses := slices.ContainsFunc(steps[i].Actions, func(a Action) bool { return !a.Skip && len(a.Acquired()) > 0 })
		needed = needed || uses
		want := wants[steps[i].ID]
		if at < 0 && (uses && want != octopus.PackageRequirementBefore || want == octopus.PackageRequirementAfter) {
			at = i
		}
	}
	if !needed || at < 0 {
		return steps
	}
	for at > 0 && steps[at].WithPrevious {
		at--
	}
	const name = "Acquire packages"
	return slices.Insert(steps, at, Step{
		ID: string(AcquirePackages), Name: name, Condition: octopus.StepConditionSuccess, Lanes: []string{""},
		Actions: []Action{{ID: string(AcquirePackages), Name: name, Type: AcquirePackages, Place: OnServer, Required: true}},
	})
}

// Acquired are the packages of an action that must be fetched.
func (a *Action) Acquired() []Package {
	return slices.DeleteFunc(slices.Clone(a.Packages), func(p Package) bool { return strings.EqualFold(p.Location, string(octopus.AcquireNever)) })
}

// PerLane reports whether the step's condition is looked at for each target by itself.
func (s *Step) PerLane() bool { return s.Condition == octopus.StepConditionVariable && !s.once() }

// AllDone reports whether nothing of the step is left to do, since an earlier
// deployment has done it.
func (s *Step) AllDone() bool { return len(s.Lanes) > 0 && len(s.Done) == len(s.Lanes) }

// checksHealth reports whether a step is a health check of all its targets at once:
// so it can find those that are new.
func checksHealth(s *Step) bool {
	return len(s.Actions) == 1 && s.Actions[0].Type == octopus.ActionHealthCheck
}

// Reached are the ids of the targets that a step of the plan runs on, or that it
// checks.
func (p *Plan) Reached(s *Step) []string {
	if !s.once() {
		return s.Lanes
	}
	var ids []string
	for _, m := range p.Machines {
		if checksHealth(s) && s.Checks(m.Roles) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// roles are the target tags of a step. Older clients put them on a plain step's
// only action.
func roles(s octopus.Step) []string {
	own := tags(s.Properties.Get(octopus.PropTargetRoles))
	if len(own) == 0 && len(s.Actions) == 1 {
		own = tags(s.Actions[0].Properties.Get(octopus.PropTargetRoles))
	}
	return own
}

func chosen(in Input) []Machine {
	var out []Machine
	specific, excluded, seen := folded(in.SpecificMachines), folded(in.ExcludedMachines), map[string]bool{}
	for _, m := range in.Machines {
		id := strings.ToLower(m.ID)
		if len(specific) > 0 && !specific[id] || excluded[id] || seen[id] {
			continue
		}
		seen[id] = true
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b Machine) int {
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return out
}

// folded is a set of ids, which are compared without case.
func folded(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[strings.ToLower(id)] = true
	}
	return set
}

func containsID(ids []string, id string) bool {
	return slices.ContainsFunc(ids, func(s string) bool { return strings.EqualFold(s, id) })
}

// takesPart applies the scopes of an action: what they leave out is no part of
// the plan, as if it were not in the process.
func takesPart(a octopus.Action, in Input) bool {
	switch {
	case a.IsDisabled:
		return false
	case len(a.Environments) > 0 && !containsID(a.Environments, in.Plan.EnvironmentID):
		return false
	case containsID(a.ExcludedEnvironments, in.Plan.EnvironmentID):
		return false
	case len(a.Channels) > 0 && in.Plan.ChannelID != "" && !containsID(a.Channels, in.Plan.ChannelID):
		return false
	default:
		return MatchTags(a.TenantTags, in.Plan.TenantTags)
	}
}

func action(a octopus.Action, number string, hasRoles bool, in Input) Action {
	out := Action{
		ID: a.ID, Name: a.Name, Number: number, Type: a.ActionType,
		Place:              place(a, hasRoles),
		Skip:               containsID(in.SkipActions, a.ID) && !Required(&a),
		Required:           Required(&a),
		Variable:           a.Condition == octopus.ActionConditionVariable,
		WorkerPoolID:       string(a.WorkerPoolID),
		WorkerPoolVariable: string(a.WorkerPoolVariable),
	}
	for _, ref := range a.Packages {
		out.Packages = append(out.Packages, Package{
			Name: ref.Name, PackageID: ref.PackageID, FeedID: ref.FeedID,
			Version:  cmpOr(in.Versions[PackageKey{strings.ToLower(a.Name), strings.ToLower(ref.Name)}], string(ref.Version)),
			Location: string(ref.AcquisitionLocation),
			Extract:  !strings.EqualFold(string(ref.Properties[octopus.PackagePropExtract]), "false"),
		})
	}
	return out
}

// Required reports whether an action can be neither skipped nor ignored: it says so,
// or it asks teams that are responsible for the answer.
func Required(a *octopus.Action) bool {
	return a.IsRequired || a.ActionType == octopus.ActionManual && len(tags(a.Properties.Get(octopus.PropManualTeams))) > 0
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// place decides where an action runs: what has targets runs on them, unless it
// says that a worker runs it on their behalf; what the server itself does runs there.
func place(a octopus.Action, hasRoles bool) Place {
	switch a.ActionType {
	case octopus.ActionManual, octopus.ActionEmail, octopus.ActionDeployRelease, octopus.ActionHealthCheck:
		return OnServer
	default:
	}
	onServer := strings.EqualFold(a.Properties.Get(octopus.PropRunOnServer), "true")
	if hasRoles && !onServer {
		return OnTarget
	}
	return OnWorker
}

// MatchTags reports whether a tenant with the tags has is within want: any tag
// of each set named, all sets. Tags are canonical, "Set/Tag"; no want matches all.
func MatchTags(want, has []string) bool {
	if len(want) == 0 {
		return true
	}
	sets := map[string]bool{}
	for _, tag := range want {
		set, _, _ := strings.Cut(strings.ToLower(tag), "/")
		sets[set] = sets[set] || slices.ContainsFunc(has, func(h string) bool { return strings.EqualFold(h, tag) })
	}
	for _, matched := range sets {
		if !matched {
			return false
		}
	}
	return true
}

func tags(csv string) []string {
	var out []string
	for part := range strings.SplitSeq(csv, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func hasAny(has, want []string) bool {
	return slices.ContainsFunc(want, func(w string) bool {
		return slices.ContainsFunc(has, func(h string) bool { return strings.EqualFold(h, w) })
	})
}
