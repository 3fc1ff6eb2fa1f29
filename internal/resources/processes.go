package resources

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// DeploymentProcesses are the steps of projects. They are made with their
// project and replaced as a whole, with the version that was read.
func DeploymentProcesses() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.DeploymentProcess]{
		Name: "deploymentprocesses", ItemType: "DeploymentProcess", Noun: "deployment process", Prefix: "deploymentprocess",
		Permissions: resource.Permissions{View: "ProcessView", Edit: "ProcessEdit"},
		Dimensions:  resource.Dimensions{Project: "ProjectId"},
		Unnamed:     true, Versioned: true, Order: resource.ByAge,
		Owned:      []string{"ProjectId", "LastSnapshotId"},
		References: append(stepReferences(), resource.Reference{Path: "ProjectId", To: "projects", OnDelete: resource.Cascade, Required: true}),
		Links: map[string]string{
			"Project":  "/api/{space}/projects/{ProjectId}",
			"Template": "/api/{space}/deploymentprocesses/{Id}/template{?channel,releaseId}",
		},
		Prepare: func(v *octopus.DeploymentProcess) { prepareSteps(v.Steps) },
		Check: func(ctx context.Context, r resource.Reader, old, v *octopus.DeploymentProcess) error {
			var had octopus.List[string]
			if old != nil {
				for _, l := range tagsOfSteps(old.Steps) {
					had = append(had, l.tags...)
				}
			}
			return errors.Join(checkSteps(v.Steps), checkTenantTags(ctx, r, v.SpaceID, had, tagsOfSteps(v.Steps)...))
		},
	})
}

// tagsOfSteps are the tags of the tenants that actions are limited to.
func tagsOfSteps(steps []octopus.Step) (lists []tagList) {
	for i := range steps {
		for j := range steps[i].Actions {
			if tags := steps[i].Actions[j].TenantTags; len(tags) > 0 {
				lists = append(lists, tagList{fmt.Sprintf("Steps[%d].Actions[%d].TenantTags", i, j), tags})
			}
		}
	}
	return lists
}

// stepReferences are what steps name. An action that is limited to an environment
// or a channel which is deleted runs nowhere from then on, and not everywhere.
func stepReferences() []resource.Reference {
	const actions = "Steps.*.Actions.*."
	return []resource.Reference{
		{Path: actions + "Environments", To: "environments", OnDelete: resource.Ignore},
		{Path: actions + "ExcludedEnvironments", To: "environments", OnDelete: resource.Ignore},
		{Path: actions + "Channels", To: "channels", OnDelete: resource.Ignore},
		{Path: actions + "WorkerPoolId", To: "workerpools"},
	}
}

// Limits of a process.
const (
	maxSteps   = 1000
	maxActions = 100 // of one step
)

// prepareSteps fills in what clients leave out.
func prepareSteps(steps []octopus.Step) {
	for i := range steps {
		s := &steps[i]
		if s.Condition == "" {
			s.Condition = octopus.StepConditionSuccess
		}
		if s.StartTrigger == "" {
			s.StartTrigger = octopus.StartAfterPrevious
		}
		if s.PackageRequirement == "" {
			s.PackageRequirement = octopus.PackageRequirementAuto
		}
		for j := range s.Actions {
			a := &s.Actions[j]
			if a.Name == "" && len(s.Actions) == 1 {
				a.Name = s.Name // a plain step and its action are one thing to people
			}
			if a.Condition == "" {
				a.Condition = octopus.ActionConditionSuccess
			}
		}
	}
}

// checkSteps gives steps and actions ids and slugs, and refuses what could not run.
func checkSteps(steps []octopus.Step) error {
	if len(steps) > maxSteps {
		return fault.InvalidField("Steps", "Steps has %d entries; use at most %d.", len(steps), maxSteps)
	}
	var faults []error
	stepNames, actionNames := names{}, names{}
	ids := map[string]bool{}
	for i := range steps {
		s := &steps[i]
		field := fmt.Sprintf("Steps[%d]", i)
		faults = append(faults, stepNames.check(field, "step", s.Name), identify(&s.ID, ids, field))
		slug(&s.Slug, s.Name)
		faults = append(faults,
			oneOf(field+".Condition", &s.Condition, octopus.StepConditionSuccess, octopus.StepConditionFailure, octopus.StepConditionAlways, octopus.StepConditionVariable),
			oneOf(field+".StartTrigger", &s.StartTrigger, octopus.StartAfterPrevious, octopus.StartWithPrevious),
			oneOf(field+".PackageRequirement", &s.PackageRequirement, octopus.PackageRequirementAuto, octopus.PackageRequirementBefore, octopus.PackageRequirementAfter))
		if len(s.Actions) == 0 || len(s.Actions) > maxActions {
			faults = append(faults, fault.InvalidField(field+".Actions", "%s.Actions has %d entries; a step needs 1 to %d actions.", field, len(s.Actions), maxActions))
		}
		for j := range s.Actions {
			a := &s.Actions[j]
			field := fmt.Sprintf("%s.Actions[%d]", field, j)
			faults = append(faults, actionNames.check(field, "action", a.Name), identify(&a.ID, ids, field))
			slug(&a.Slug, a.Name)
			if a.ActionType == "" {
				faults = append(faults, fault.InvalidField(field+".ActionType", "%s.ActionType is empty; name what the action does, for example Octopus.Script.", field))
			}
			faults = append(faults, oneOf(field+".Condition", &a.Condition, octopus.ActionConditionSuccess, octopus.ActionConditionVariable), checkPackages(field, a.Packages))
		}
	}
	return errors.Join(faults...)
}

func checkPackages(field string, refs []octopus.PackageReference) error {
	seen := map[string]bool{}
	var faults []error
	for i := range refs {
		if refs[i].ID == "" {
			refs[i].ID = uuid.NewString()
		}
		folded := ident.Fold(refs[i].Name)
		if seen[folded] {
			faults = append(faults, fault.InvalidField(field+".Packages", "%s.Packages has two references named '%s'; give each its own name.", field, refs[i].Name))
		}
		seen[folded] = true
	}
	return errors.Join(faults...)
}

// names finds names that are used twice.
type names map[string]bool

func (n names) check(field, what, name string) error {
	folded := ident.Fold(name)
	if folded == "" {
		return fault.InvalidField(field+".Name", "%s.Name is empty; give the %s a name.", field, what)
	}
	if n[folded] {
		return fault.InvalidField(field+".Name", "%s.Name is '%.100s', which another %s of the process has too; choose another one.", field, name, what)
	}
	n[folded] = true
	return nil
}

// identify gives what is new an id; one that comes twice is a mistake.
func identify(id *string, seen map[string]bool, field string) error {
	if *id == "" {
		*id = uuid.NewString()
	}
	if seen[*id] {
		return fault.InvalidField(field+".Id", "%s.Id is '%.100s', which stands in the process twice; leave it empty for what is new.", field, *id)
	}
	seen[*id] = true
	return nil
}

func slug(s *string, name string) {
	if *s == "" {
		*s = ident.Slug(name)
	}
}
