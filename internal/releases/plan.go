package releases

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// plan is a deployment that has been thought through and not made.
type plan struct {
	*deploy.Plan
	machines           []octopus.Machine // enabled targets of the environment that serve the tenant
	specific, excluded []string          // ids
	specificTags       []string
	excludedTags       []string
	skipped            []string // ids
	answered           []variables.Variable
	guided             bool
}

// think makes the plan for a place: what a preview shows and what then runs.
func (sc *scene) think(ctx context.Context, tx *db.Tx, p place, o *Options, ids deploy.Plan) (*plan, error) {
	machines, err := sc.targets(ctx, tx, p.environment.ID)
	if err != nil {
		return nil, err
	}
	out := &plan{}
	policy := &sc.project.ProjectConnectivityPolicy
	later := o.QueueTime.After(tx.Now()) // how they are then is looked at then
	for i := range machines {
		if m := &machines[i]; serves(m, p.tenant) && !(policy.ExcludeUnhealthyTargets && !later && unwell(m)) {
			out.machines = append(out.machines, *m)
		}
	}
	if err := out.choose(o, p.environment); err != nil {
		return nil, err
	}
	if out.skipped, err = skipped(sc.frozen.process.Steps, o.SkipActions); err != nil {
		return nil, err
	}
	out.guided = sc.guidedFailure(p.environment)
	if o.UseGuidedFailure != nil {
		out.guided = *o.UseGuidedFailure
	}
	ids.SpaceID, ids.ProjectID, ids.ReleaseID, ids.ChannelID = string(sc.space), sc.project.ID, sc.release.ID, sc.channel.ID
	ids.EnvironmentID, ids.TenantID, ids.GuidedFailure = p.environment.ID, p.tenantID(), out.guided
	ids.ProcessID, ids.Owner = sc.release.ProjectDeploymentProcessSnapshotID, deploy.OwnerDeployment
	if p.tenant != nil {
		ids.TenantTags = p.tenant.TenantTags
	}
	ids.Earlier = o.before.id()
	ids.Targets = deploy.Targets{
		Skip: policy.SkipMachineBehavior == octopus.SkipUnavailable, SkipRoles: policy.TargetRoles,
		ExcludeUnhealthy: policy.ExcludeUnhealthyTargets, AllowNone: policy.AllowDeploymentsToNoTargets,
	}
	in := deploy.Input{
		Plan: ids, Process: sc.resolved(p, tx.Now()), SkipActions: out.skipped,
		Versions: versionsOf(sc.release), Done: o.before.lanes(),
	}
	policies, err := sc.machinePolicies(ctx, tx, len(out.machines))
	if err != nil {
		return nil, err
	}
	for i := range out.machines {
		if m := &out.machines[i]; out.takesPart(m) {
			in.Machines = append(in.Machines, planned(m, mayBeOffline(policies, m)))
		}
	}
	out.Plan, err = deploy.Build(in)
	return out, err
}

// unwell reports whether a target is not one to deploy to where that is asked for.
func unwell(m *octopus.Machine) bool {
	return m.HealthStatus == octopus.Unhealthy || m.HealthStatus == octopus.Unavailable
}

// choose looks up the targets that a deployment is limited to, and those it leaves out.
func (pl *plan) choose(o *Options, environment *octopus.Environment) (err error) {
	if pl.specific, err = chosenMachines("SpecificMachineIds", o.Machines, pl.machines, environment); err != nil {
		return err
	}
	if pl.specificTags, err = chosenTags("SpecificTargetTagIds", o.TargetTags, pl.machines, environment); err != nil {
		return err
	}
	// Whoever leaves a target out does not mind if it is not there at all.
	for _, m := range pl.machines {
		if slices.ContainsFunc(o.ExcludedMachines, func(ref string) bool { return matches(ref, m.ID, m.Slug, m.Name) }) {
			pl.excluded = append(pl.excluded, m.ID)
		}
	}
	pl.excludedTags = o.ExcludedTargetTags
	return nil
}

// takesPart reports whether a target is among those that were chosen.
func (pl *plan) takesPart(m *octopus.Machine) bool {
	return chosen(m, pl.specific, pl.excluded, pl.specificTags, pl.excludedTags)
}

// chosen reports whether a target is in a choice: one of those that are named, or with
// one of the tags that are, all where nothing is; and none of those left out so.
func chosen(m *octopus.Machine, specific, excluded, specificTags, excludedTags []string) bool {
	if len(specific)+len(specificTags) > 0 && !slices.Contains(specific, m.ID) && !tagged(m, specificTags) {
		return false
	}
	return !slices.Contains(excluded, m.ID) && !tagged(m, excludedTags)
}

// tagged reports whether a target has one of these tags.
func tagged(m *octopus.Machine, tags []string) bool {
	return slices.ContainsFunc(tags, func(tag string) bool {
		return slices.ContainsFunc(m.Roles, func(has string) bool { return strings.EqualFold(has, tag) })
	})
}

// planned is a target as plans know it.
func planned(m *octopus.Machine, mayBeOffline bool) deploy.Machine {
	out := deploy.Machine{ID: m.ID, Name: m.Name, Roles: m.Roles, MayBeOffline: mayBeOffline}
	switch m.Endpoint.CommunicationStyle {
	case octopus.StyleNone, octopus.StyleKubernetes, octopus.StyleAzureWebApp, octopus.StyleServiceFabric, octopus.StyleCloudService, octopus.StyleECS, octopus.StyleStepPackage:
		out.OnWorker, out.WorkerPoolID = true, m.Endpoint.DefaultWorkerPoolID
	case octopus.StyleOfflineDrop:
		out.Offline = true
	case octopus.StyleListening, octopus.StylePolling, octopus.StyleSSH, octopus.StyleKubernetesAgent:
	}
	return out
}

// versionsOf are the selected versions as plans look for them.
func versionsOf(r *octopus.Release) map[deploy.PackageKey]string {
	out := map[deploy.PackageKey]string{}
	for k, v := range selected(r) {
		out[deploy.PackageKey{Action: strings.ToLower(k.Action), Reference: strings.ToLower(k.Reference)}] = v
	}
	return out
}

// context is where values are looked for when no step runs yet.
func (sc *scene) context(p place) variables.Context {
	c := variables.Context{Environment: p.environment.ID, Channel: sc.channel.ID, Tenant: p.tenantID(), ProcessOwner: sc.project.ID}
	if p.tenant != nil {
		c.TenantTags = p.tenant.TenantTags
	}
	return c
}

// resolved is the frozen process with the expressions in its package references
// evaluated for a place. It is the process itself where there are none.
func (sc *scene) resolved(p place, now time.Time) []octopus.Step {
	steps := sc.frozen.process.Steps
	if !slices.ContainsFunc(steps, func(s octopus.Step) bool {
		return slices.ContainsFunc(s.Actions, func(a octopus.Action) bool {
			return slices.ContainsFunc(a.Packages, func(r octopus.PackageReference) bool { return bound(r.PackageID) || bound(r.FeedID) })
		})
	}) {
		return steps
	}
	lookup := sc.values.lookup(sc.context(p), now, pairsOf(variables.System(sc.system(p)))...)
	steps = slices.Clone(steps)
	for i := range steps {
		steps[i].Actions = slices.Clone(steps[i].Actions)
		for j := range steps[i].Actions {
			a := &steps[i].Actions[j]
			a.Packages = slices.Clone(a.Packages)
			for k := range a.Packages {
				r := &a.Packages[k]
				r.PackageID, r.FeedID = lookup.Evaluate(r.PackageID).Text, lookup.Evaluate(r.FeedID).Text
			}
		}
	}
	return steps
}

// skipped are the ids of the actions that were named by id or name.
func skipped(steps []octopus.Step, refs []string) ([]string, error) {
	var ids []string
	for _, ref := range refs {
		found := false
		for _, step := range steps {
			for _, a := range step.Actions {
				if !matches(ref, a.ID, "", a.Name) && !matches(ref, step.ID, "", step.Name) {
					continue
				}
				found = true
				if deploy.Required(&a) {
					return nil, invalid("SkipActions", "SkipActions names the step '%s', which is required and cannot be skipped.", a.Name)
				}
				if !slices.Contains(ids, a.ID) {
					ids = append(ids, a.ID)
				}
			}
		}
		if !found {
			return nil, invalid("SkipActions", "SkipActions names '%.100s', which is no step of the release's process.", ref)
		}
	}
	return ids, nil
}

// guidedFailure is whether a failure asks a person, unless the deployment says otherwise.
func (sc *scene) guidedFailure(e *octopus.Environment) bool {
	switch sc.project.DefaultGuidedFailureMode {
	case octopus.GuidedFailureOn:
		return true
	case octopus.GuidedFailureOff:
		return false
	case octopus.GuidedFailureEnvironment:
	}
	return e.UseGuidedFailure
}

// reach refuses a plan that goes to no target although some step wants one.
func (sc *scene) reach(pl *plan, p place) error {
	if sc.project.ProjectConnectivityPolicy.AllowDeploymentsToNoTargets || len(pl.Machines) > 0 {
		return nil
	}
	var tags []string
	for _, step := range pl.Steps {
		skip := !slices.ContainsFunc(step.Actions, func(a deploy.Action) bool { return !a.Skip })
		if len(step.Roles) == 0 || skip {
			continue
		}
		for _, tag := range step.Roles {
			if !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
	}
	if len(tags) == 0 {
		return nil
	}
	return invalid("EnvironmentId", "The environment '%s' has no enabled deployment target for this deployment: its steps want targets with one of the tags %s. Add such a target, or let the project allow deployments to no targets.", p.name(), strings.Join(tags, ", "))
}
