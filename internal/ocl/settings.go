package ocl

import (
	"slices"

	"github.com/takodeploy/tako/octopus"
)

// WriteSettings writes the deployment settings of a project.
func WriteSettings(s octopus.DeploymentSettings, lookup Lookup) (Body, error) {
	return write("the deployment settings", lookup, func(c *codec) { describeSettings(c, &s) })
}

// ReadSettings reads the deployment settings of a project; ids and the like are
// for the caller to fill in. A donor package names its action by what lookup
// makes of the slug as [RefActionName].
func ReadSettings(body Body, lookup Lookup) (octopus.DeploymentSettings, error) {
	var s octopus.DeploymentSettings
	err := read("the deployment settings", body, lookup, func(c *codec) { describeSettings(c, &s) })
	if err != nil {
		return octopus.DeploymentSettings{}, err
	}
	return s, nil
}

func describeSettings(c *codec, s *octopus.DeploymentSettings) {
	flag(c, "cancel_queued_tasks", &s.CancelQueuedTasks)
	flag(c, "cancel_running_tasks", &s.CancelRunningTasks)
	guidedFailure(c, &s.DefaultGuidedFailureMode, false)
	flag(c, "default_to_skip_if_already_installed", &s.DefaultToSkipIfAlreadyInstalled)
	text(c, "deployment_changes_template", &s.DeploymentChangesTemplate, "")
	flag(c, "fail_target_discovery", &s.FailTargetDiscovery)
	flag(c, "force_package_download", &s.ForcePackageDownload)
	text(c, "release_notes_template", &s.ReleaseNotesTemplate, "")
	var policy octopus.ConnectivityPolicy
	switch {
	case s.ProjectConnectivityPolicy != nil:
		policy = *s.ProjectConnectivityPolicy
	case s.ConnectivityPolicy != nil:
		policy = *s.ConnectivityPolicy
	}
	describeConnectivity(c, &policy)
	if c.reading {
		again := policy
		again.TargetRoles = slices.Clone(policy.TargetRoles)
		s.ConnectivityPolicy, s.ProjectConnectivityPolicy = &policy, &again
	}
	block(c, "versioning_strategy", true, func(c *codec) { describeVersioning(c, &s.VersioningStrategy) })
}

func guidedFailure(c *codec, p *octopus.GuidedFailureMode, written bool) {
	if written && !c.reading && (*p == "" || *p == octopus.GuidedFailureEnvironment) {
		c.put("default_guided_failure_mode", Text(string(octopus.GuidedFailureEnvironment)))
		return
	}
	choice(c, "default_guided_failure_mode", p, octopus.GuidedFailureEnvironment, octopus.GuidedFailureOff, octopus.GuidedFailureOn)
}

func describeConnectivity(c *codec, p *octopus.ConnectivityPolicy) {
	if c.reading {
		*p = octopus.ConnectivityPolicy{SkipMachineBehavior: octopus.SkipNone}
	}
	block(c, "connectivity_policy", true, func(c *codec) {
		flag(c, SnakeCase("AllowDeploymentsToNoTargets"), &p.AllowDeploymentsToNoTargets)
		flag(c, SnakeCase("ExcludeUnhealthyTargets"), &p.ExcludeUnhealthyTargets)
		choice(c, SnakeCase("SkipMachineBehavior"), &p.SkipMachineBehavior, octopus.SkipNone, octopus.SkipUnavailable)
		references(c, SnakeCase("TargetRoles"), &p.TargetRoles, refNone)
	})
}

func describeVersioning(c *codec, v *octopus.VersioningStrategy) {
	text(c, "template", &v.Template, "")
	var donor octopus.DeploymentActionPackage
	if v.DonorPackage != nil {
		donor = *v.DonorPackage
	}
	found := block(c, "donor_package", v.DonorPackage != nil, func(c *codec) {
		text(c, "package", &donor.PackageReference, "")
		reference(c, "step", &donor.DeploymentAction, RefActionName)
	})
	if c.reading && found {
		v.DonorPackage = &donor
	}
}

// WriteRunbook writes a runbook and its process as one file, which is named by
// the runbook's slug.
func WriteRunbook(r octopus.Runbook, steps []octopus.Step, lookup Lookup) (Body, error) {
	list := octopus.List[octopus.Step](slices.Clone(steps))
	body, err := write("the runbook", lookup, func(c *codec) { describeRunbook(c, &r, &list) })
	if err != nil {
		return nil, err
	}
	// The name comes first; everything else is in order already.
	i := slices.IndexFunc(body, func(item Item) bool { return item.Name == "name" })
	name := body[i]
	return slices.Insert(slices.Delete(body, i, i+1), 0, name), nil
}

// ReadRunbook reads a runbook and its process from the file of that slug; ids
// and the like are for the caller to fill in.
func ReadRunbook(slug string, body Body, lookup Lookup) (octopus.Runbook, []octopus.Step, error) {
	r := octopus.Runbook{Slug: slug}
	var steps octopus.List[octopus.Step]
	err := read("the runbook", body, lookup, func(c *codec) { describeRunbook(c, &r, &steps) })
	if err != nil {
		return octopus.Runbook{}, nil, err
	}
	return r, steps, nil
}

func describeRunbook(c *codec, r *octopus.Runbook, steps *octopus.List[octopus.Step]) {
	always(c, "name", &r.Name)
	if c.reading && r.Name == "" {
		c.fail(c.pos, "The runbook has no name; add name = \"...\".")
	}
	flag(c, "cancel_queued_tasks", &r.CancelQueuedTasks)
	flag(c, "cancel_running_tasks", &r.CancelRunningTasks)
	guidedFailure(c, &r.DefaultGuidedFailureMode, true)
	always(c, "description", &r.Description)
	choice(c, "environment_scope", &r.EnvironmentScope, octopus.RunbookAll, octopus.RunbookSpecified, octopus.RunbookFromLifecycles)
	references(c, "environments", &r.Environments, RefEnvironment)
	flag(c, "fail_target_discovery", &r.FailTargetDiscovery)
	flag(c, "force_package_download", &r.ForcePackageDownload)
	choice(c, "multi_tenancy_mode", &r.MultiTenancyMode, octopus.Untenanted, octopus.Tenanted, octopus.TenantedOrUntenanted)
	references(c, "tags", &r.RunbookTags, refNone)
	describeConnectivity(c, &r.ConnectivityPolicy)
	describeRetention(c, &r.RunRetentionPolicy)
	block(c, "process", true, func(c *codec) { describeSteps(c, steps) })
}

func describeRetention(c *codec, p **octopus.RunbookRetention) {
	var value octopus.RunbookRetention
	if *p != nil {
		value = **p
	}
	found := block(c, "run_retention_policy", *p != nil, func(c *codec) {
		always(c, "type", &value.Strategy)
		if c.reading || value.Strategy == octopus.RetentionCount {
			number(c, "quantity_to_keep", &value.QuantityToKeep)
			choice(c, "unit", &value.Unit, octopus.RetentionItems, octopus.RetentionDays)
		}
		if c.reading {
			// Files of old have no type.
			flag(c, "should_keep_forever", &value.ShouldKeepForever)
			retentionType(c, &value)
		}
	}, "type")
	if c.reading {
		*p = nil
		if found {
			*p = &value
		}
	}
}

func retentionType(c *codec, v *octopus.RunbookRetention) {
	switch {
	case v.Strategy != "":
	case v.ShouldKeepForever || v.QuantityToKeep == 0:
		v.Strategy = octopus.RetentionForever
	default:
		v.Strategy = octopus.RetentionCount
	}
	switch v.Strategy {
	case octopus.RetentionDefault:
		v.QuantityToKeep, v.Unit = octopus.DefaultRunsToKeep, octopus.RetentionItems
	case octopus.RetentionForever:
		v.QuantityToKeep = 0
	case octopus.RetentionCount:
	default:
		c.fail(c.pos, "\"type\" of %s cannot be %q; it is one of Default, Forever, Count.", c.what, string(v.Strategy))
	}
	v.ShouldKeepForever = v.Strategy == octopus.RetentionForever
}
