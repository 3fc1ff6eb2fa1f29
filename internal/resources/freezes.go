package resources

import (
	"context"
	"errors"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

// FreezeKind names the kind of deployment freezes.
const FreezeKind = "deploymentfreezes"

// Where a freeze names projects: by itself, and for tenants. Both are indexed.
const (
	FreezeProjects       = "ProjectEnvironmentScope.*key"
	FreezeTenantProjects = "TenantProjectEnvironmentScope.*.ProjectId"
)

// DeploymentFreezes are times during which projects are not deployed. They belong
// to the system and name projects of any space, so that only those who administer
// them see them.
func DeploymentFreezes() *resource.Kind {
	const administer = string(octopus.PermDeploymentFreezeAdminister)
	return resource.Declare(resource.Declaration[octopus.DeploymentFreeze]{
		Name: FreezeKind, ItemType: "DeploymentFreeze", Noun: "deployment freeze", Prefix: "DeploymentFreezes", Scope: resource.InSystem,
		Permissions: resource.Permissions{View: administer, Create: administer, Edit: administer, Delete: administer},
		Filters: []resource.Filter{
			{Param: "projectIds", Path: FreezeProjects},
			{Param: "environmentIds", Path: "ProjectEnvironmentScope.*"},
			{Param: "tenantIds", Path: "TenantProjectEnvironmentScope.*.TenantId"},
		},
		References: []resource.Reference{
			{Path: FreezeProjects, To: "projects", OnDelete: resource.Clear},
			{Path: "ProjectEnvironmentScope.*", To: "environments", OnDelete: resource.Clear},
			{Path: "TenantProjectEnvironmentScope.*.TenantId", To: "tenants", OnDelete: resource.Ignore},
			{Path: FreezeTenantProjects, To: "projects", OnDelete: resource.Ignore},
			{Path: "TenantProjectEnvironmentScope.*.EnvironmentId", To: "environments", OnDelete: resource.Ignore},
			{Path: "OwnerId", To: "projects", OnDelete: resource.Cascade},
		},
		Check: func(_ context.Context, _ resource.Reader, _, v *octopus.DeploymentFreeze) error {
			return checkFreeze(v)
		},
	})
}

func checkFreeze(v *octopus.DeploymentFreeze) error {
	var faults []error
	switch {
	case v.Start.IsZero():
		faults = append(faults, fault.InvalidField("Start", "Start is empty; give the time at which the freeze begins, such as 2026-12-24T00:00:00Z."))
	case v.End.IsZero():
		faults = append(faults, fault.InvalidField("End", "End is empty; give the time at which the freeze ends, such as 2026-12-27T00:00:00Z."))
	case !v.End.After(v.Start.Time):
		faults = append(faults, fault.InvalidField("End", "End is %s, which is not after Start, %s; give a later time.", v.End, v.Start))
	}
	if s := v.RecurringSchedule; s != nil {
		if s.EndType == "" {
			s.EndType = octopus.RecursForever
		}
		if s.Unit == 0 {
			s.Unit = 1
		}
		faults = append(faults,
			oneOf("RecurringSchedule.Type", &s.Type, octopus.RecursDaily, octopus.RecursWeekly, octopus.RecursMonthly, octopus.RecursAnnually),
			oneOf("RecurringSchedule.EndType", &s.EndType, octopus.RecursForever, octopus.RecursUntil, octopus.RecursSomeTime))
		switch {
		case s.Unit < 1 || s.Unit > 1000:
			faults = append(faults, fault.InvalidField("RecurringSchedule.Unit", "RecurringSchedule.Unit is %d; use a number from 1 to 1000.", s.Unit))
		case s.EndType == octopus.RecursUntil && s.EndOnDate == nil:
			faults = append(faults, fault.InvalidField("RecurringSchedule.EndOnDate", "RecurringSchedule.EndOnDate is empty; give the date after which the freeze comes no more."))
		case s.EndType == octopus.RecursSomeTime && s.EndAfterOccurrences < 1:
			faults = append(faults, fault.InvalidField("RecurringSchedule.EndAfterOccurrences", "RecurringSchedule.EndAfterOccurrences is %d; use a number from 1 on.", s.EndAfterOccurrences))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	_, err := timetable.FreezeOf(v)
	return err
}
