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
	skipped            []string          // ids
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
	for i := range machines {
		if m := &machines[i]; serves(m, p.tenant) && !(policy.ExcludeUnhealthyTargets && (m.HealthStatus == octopus.Unhealthy || m.HealthStatus == octopus.Unavailable)) {
			out.machines = append(out.machines, *m)
		}
	}
	if out.specific, err = chosenMachines("SpecificMachineIds", o.Machines, out.machines, p.environment); err != nil {
		return nil, err
	}
	// Whoever leaves a target out does not mind if it is not there at all.
	for _, m := range out.machines {
		if slices.ContainsFunc(o.ExcludedMachines, func(ref string) bool { return matches(ref, m.ID, m.Slug, m.Name) }) {
			out.excluded = append(out.excluded, m.ID)
		}
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
	in := deploy.Input{
		Plan: ids, Process: sc.resolved(p, tx.Now()), SkipActions: out.skipped,
		SpecificMachines: out.specific, ExcludedMachines: out.excluded, Versions: versionsOf(sc.release),
		Done: o.before.lanes(),
	}
	for i := range out.machines {
		in.Machines = append(in.Machines, Planned(&out.machines[i]))
	}
	out.Plan, err = deploy.Build(in)
	return out, err
}

// Planned is a target as plans know it.
func Planned(m *octopus.Machine) deploy.Machine {
	out := deploy.Machine{ID: m.ID, Name: m.Name, Roles: m.Roles}
	switch m.Endpoint.CommunicationStyle {
	case octopus.StyleNone, octopus.StyleKubernetes, octopus.StyleAzureWebApp, octopus.StyleServiceFabric, octopus.StyleCloudService, octopus.StyleECS, octopus.StyleStepPackage:
		out.OnWorker, out.WorkerPoolID = true, m.Endpoint.DefaultWorkerPoolID
	case octopus.StyleListening, octopus.StylePolling, octopus.StyleSSH, octopus.StyleOfflineDrop, octopus.StyleKubernetesAgent:
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
