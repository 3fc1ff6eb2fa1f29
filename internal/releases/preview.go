package releases

import (
	"context"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// Preview says what a deployment of a release to an environment, and for a tenant
// unless it is "", would do: the plan is made as it is for the deployment itself.
// disabled adds the actions that are disabled. continues is the id of a deployment that
// has failed and that this one would go on from, "" for none.
func (s *Service) Preview(ctx context.Context, tx *db.Tx, r *octopus.Release, environment, tenant string, disabled bool, continues string, allow Allow) (*octopus.DeploymentPreview, error) {
	sc, err := s.scene(ctx, tx, ident.SpaceID(r.SpaceID), r)
	if err != nil {
		return nil, err
	}
	p := place{}
	if p.environment, err = sc.environment(environment); err != nil {
		return nil, err
	}
	if tenant != "" {
		if p.tenant, err = sc.tenant(ctx, tx, tenant); err != nil {
			return nil, err
		}
	}
	if err := allow.check(octopus.PermDeploymentCreate, sc.target(p)); err != nil {
		return nil, err
	}
	if err := sc.freeze(ctx, tx, s.newSnapshots()); err != nil {
		return nil, err
	}
	o, err := s.continued(ctx, tx, r, p, continues)
	if err != nil {
		return nil, err
	}
	pl, err := sc.think(ctx, tx, p, o, deploy.Plan{})
	if err != nil {
		return nil, err
	}
	out := &octopus.DeploymentPreview{UseGuidedFailureModeByDefault: pl.guided, Form: sc.form(p)}
	machines, err := sc.targets(ctx, tx, p.environment.ID)
	if err != nil {
		return nil, err
	}
	for i := range pl.Steps {
		step := &pl.Steps[i]
		if step.Acquires() {
			continue // none that people have made
		}
		for _, a := range step.Actions {
			out.StepsToExecute = append(out.StepsToExecute, previewStep(step, &a, pl, machines))
		}
	}
	if disabled {
		out.StepsToExecute = append(out.StepsToExecute, sc.disabledSteps()...)
	}
	if out.Changes, err = sc.changes(ctx, tx, p); err != nil {
		return nil, err
	}
	out.ChangesMarkdown = markdown(out.Changes)
	holding, err := sc.holding(ctx, tx, p, tx.Now())
	for _, h := range holding {
		if h.holds {
			out.DeploymentFreezes = append(out.DeploymentFreezes, octopus.PreviewFreeze{ID: h.freeze.ID, Name: h.freeze.Name, End: octopus.NewTime(h.until)})
		}
	}
	return out, err
}

func previewStep(step *deploy.Step, a *deploy.Action, pl *plan, machines []octopus.Machine) octopus.PreviewStep {
	one := octopus.PreviewStep{
		ActionID: a.ID, ActionName: a.Name, ActionNumber: a.Number, Roles: step.Roles,
		CanBeSkipped: !a.Required,
	}
	one.IsDone = step.AllDone()
	reached := pl.Reached(step)
	one.HasNoApplicableMachines = len(step.Roles) > 0 && len(reached) == 0
	for i := range machines {
		m := &machines[i]
		wanted := slices.ContainsFunc(step.Roles, func(role string) bool {
			return slices.ContainsFunc(m.Roles, func(has string) bool { return strings.EqualFold(has, role) })
		})
		if !wanted {
			continue
		}
		shown := octopus.PreviewMachine{ID: m.ID, Name: m.Name, HealthStatus: m.HealthStatus, HasLatestCalamari: m.HasLatestCalamari}
		switch {
		case slices.Contains(reached, m.ID):
			one.Machines = append(one.Machines, shown)
			one.MachineNames = append(one.MachineNames, m.Name)
			if slices.Contains(step.Done, m.ID) {
				one.DoneMachines = append(one.DoneMachines, shown)
			}
			if m.HealthStatus == octopus.Unavailable {
				one.UnavailableMachines = append(one.UnavailableMachines, shown)
			}
		case slices.ContainsFunc(pl.machines, func(in octopus.Machine) bool { return in.ID == m.ID }):
		default:
			one.ExcludedMachines = append(one.ExcludedMachines, shown)
		}
	}
	return one
}

func (sc *scene) disabledSteps() []octopus.PreviewStep {
	var out []octopus.PreviewStep
	for _, step := range sc.frozen.process.Steps {
		for _, a := range step.Actions {
			if a.IsDisabled {
				out = append(out, octopus.PreviewStep{ActionID: a.ID, ActionName: a.Name, IsDisabled: true})
			}
		}
	}
	return out
}

// form asks for the values of the prompted variables that can apply at a place.
func (sc *scene) form(p place) octopus.Form {
	f := octopus.Form{Values: octopus.Map[string, octopus.PropertyText]{}}
	for _, v := range variables.Prompts(sc.values.all, sc.context(p)) {
		f.Elements = append(f.Elements, octopus.FormElement{
			Name: v.ID, IsValueRequired: v.Prompt.Required,
			Control: octopus.FormControl{
				Type: octopus.FormVariableValue, Name: v.Name, Label: string(v.Prompt.Label), Description: string(v.Prompt.Description),
				Required: v.Prompt.Required, IsSecure: v.Sensitive, DisplaySettings: v.Prompt.DisplaySettings,
			},
		})
		if !v.Sensitive {
			f.Values[v.ID] = octopus.PropertyText(v.Value)
		}
	}
	return f
}

// NewReleaseTemplate is what a new release of a project needs to be told. With a
// release the answer is about that one: which packages it selects.
func (s *Service) NewReleaseTemplate(ctx context.Context, tx *db.Tx, space ident.SpaceID, project, channel string, of *octopus.Release) (*octopus.ReleaseTemplate, error) {
	d := &draft{in: NewRelease{Space: space}}
	var err error
	if d.project, err = get[octopus.Project](ctx, s, tx, space, "projects", project); err != nil {
		return nil, err
	}
	if of != nil {
		channel = of.ChannelID
	}
	if d.channel, err = s.channel(ctx, tx, d.project, channel); err != nil {
		return nil, err
	}
	if err := s.loadSteps(ctx, tx, d); err != nil {
		return nil, err
	}
	out := &octopus.ReleaseTemplate{DeploymentProcessID: octopus.NullString(d.project.DeploymentProcessID)}
	last, err := lastRelease(ctx, tx, d.project.ID)
	if err != nil {
		return nil, err
	}
	if last != nil {
		out.LastReleaseVersion = octopus.NullString(last.Version)
	}
	before := selected(last)
	if of != nil {
		out.DeploymentProcessID = octopus.NullString(of.ProjectDeploymentProcessSnapshotID)
		before = selected(of)
		process, err := get[octopus.DeploymentProcess](ctx, s, tx, space, ProcessSnapshots, of.ProjectDeploymentProcessSnapshotID)
		if err != nil {
			return nil, err
		}
		if d.refs, err = s.references(ctx, tx, space, process.Steps, d.channel); err != nil {
			return nil, err
		}
	}
	if donor := d.project.VersioningStrategy.DonorPackage; donor != nil {
		out.VersioningPackageStepName = octopus.NullString(donor.DeploymentAction)
		out.VersioningPackageReferenceName = octopus.NullString(donor.PackageReference)
	} else if number, err := s.nextVersion(ctx, tx, d); err == nil {
		// A template that cannot be evaluated is told of when it is used.
		out.NextVersionIncrement = octopus.NullString(number)
	} else if harm := !harmless(err); harm {
		return nil, err
	}
	for i := range d.refs {
		out.Packages = append(out.Packages, d.refs[i].template(before[d.refs[i].key]))
	}
	return out, nil
}

func (r *reference) template(last string) octopus.ReleaseTemplatePackage {
	out := octopus.ReleaseTemplatePackage{
		StepName: r.action, ActionName: r.action, PackageReferenceName: r.Name, PackageID: r.PackageID, FeedID: r.FeedID,
		VersionSelectedLastRelease: octopus.NullString(last), IsResolvable: r.resolvable(),
		NuGetFeedID: r.FeedID, NuGetPackageID: r.PackageID,
	}
	if r.feed != nil {
		out.FeedName, out.NuGetFeedName = r.feed.Name, r.feed.Name
	}
	return out
}

// MissingPackages are the selected packages of a release that no feed has. It asks
// feeds, so that it reads outside of the caller's transaction.
func (s *Service) MissingPackages(ctx context.Context, r *octopus.Release) (*octopus.MissingPackages, error) {
	space := ident.SpaceID(r.SpaceID)
	var packages []wanted
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		process, err := get[octopus.DeploymentProcess](ctx, s, tx, space, ProcessSnapshots, r.ProjectDeploymentProcessSnapshotID)
		if err == nil {
			packages = packagesOf(process.Steps, r, nil)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	gone, err := s.missing(ctx, space, packages)
	out := &octopus.MissingPackages{}
	for _, w := range gone {
		out.Packages = append(out.Packages, octopus.MissingPackage{ID: w.id, Version: w.version, FeedID: w.feed})
	}
	return out, err
}
