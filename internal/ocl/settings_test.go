package ocl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

func settingsText() string {
	return lines(
		`default_guided_failure_mode = "On"`,
		`deployment_changes_template = <<-EOT`,
		`        #{each release in Octopus.Deployment.Changes}`,
		`        #{release.Version}`,
		`        #{/each}`,
		`        EOT`,
		`release_notes_template = "Notes"`,
		``,
		`connectivity_policy {`,
		`    allow_deployments_to_no_targets = true`,
		`    exclude_unhealthy_targets = true`,
		`    skip_machine_behavior = "SkipUnavailableMachines"`,
		`    target_roles = ["web"]`,
		`}`,
		``,
		`versioning_strategy {`,
		`    donor_package {`,
		`        package = "Web"`,
		`        step = "deploy-web"`,
		`    }`,
		`}`,
	)
}

func TestSettings(t *testing.T) {
	t.Parallel()
	got, err := ReadSettings(mustParse(t, settingsText()), toID)
	if err != nil {
		t.Fatal(err)
	}
	policy := &octopus.ConnectivityPolicy{SkipMachineBehavior: octopus.SkipUnavailable, TargetRoles: octopus.List[string]{"web"}, AllowDeploymentsToNoTargets: true, ExcludeUnhealthyTargets: true}
	want := octopus.DeploymentSettings{
		ConnectivityPolicy: policy, ProjectConnectivityPolicy: policy, DefaultGuidedFailureMode: octopus.GuidedFailureOn,
		VersioningStrategy:        octopus.VersioningStrategy{DonorPackage: &octopus.DeploymentActionPackage{DeploymentAction: "Deploy Web", PackageReference: "Web"}},
		ReleaseNotesTemplate:      "Notes",
		DeploymentChangesTemplate: "#{each release in Octopus.Deployment.Changes}\n#{release.Version}\n#{/each}",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	body, err := WriteSettings(got, toSlug)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(settingsText(), Print(body)); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultSettings(t *testing.T) {
	t.Parallel()
	const text = "connectivity_policy {}\n\nversioning_strategy {\n    template = \"1.0.i\"\n}"
	body, err := WriteSettings(octopus.DeploymentSettings{
		DefaultGuidedFailureMode: octopus.GuidedFailureEnvironment, VersioningStrategy: octopus.VersioningStrategy{Template: "1.0.i"},
		ConnectivityPolicy: &octopus.ConnectivityPolicy{SkipMachineBehavior: octopus.SkipNone},
	}, nil)
	if err != nil || Print(body) != text {
		t.Errorf("%v\n%s", err, Print(body))
	}
	for _, text := range []string{text, ""} {
		got, err := ReadSettings(mustParse(t, text), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got.DefaultGuidedFailureMode != octopus.GuidedFailureEnvironment || got.ConnectivityPolicy.SkipMachineBehavior != octopus.SkipNone {
			t.Errorf("defaults are missing: %+v", got)
		}
	}
	if got := Print(WriteSchema()); got != "version = 10" {
		t.Errorf("schema: %s", got)
	}
}

func runbookText() string {
	return lines(
		`name = "Restart"`,
		`default_guided_failure_mode = "EnvironmentDefault"`,
		`description = ""`,
		`environment_scope = "Specified"`,
		`environments = ["test"]`,
		`multi_tenancy_mode = "TenantedOrUntenanted"`,
		`tags = ["Kind/Care"]`,
		``,
		`connectivity_policy {`,
		`    allow_deployments_to_no_targets = true`,
		`}`,
		``,
		`run_retention_policy {`,
		`    type = "Count"`,
		`    quantity_to_keep = 30`,
		`    unit = "Days"`,
		`}`,
		``,
		`process {`,
		`    step "restart" {`,
		`        name = "Restart"`,
		``,
		`        action {`,
		`            action_type = "Octopus.Script"`,
		`            properties = {`,
		`                Octopus.Action.Script.ScriptBody = <<-EOT`,
		`                    one`,
		`                    two`,
		`                    EOT`,
		`            }`,
		`        }`,
		`    }`,
		`}`,
	)
}

func TestRunbook(t *testing.T) {
	t.Parallel()
	got, steps, err := ReadRunbook("restart", mustParse(t, runbookText()), toID)
	if err != nil {
		t.Fatal(err)
	}
	want := octopus.Runbook{
		Name: "Restart", Slug: "restart", MultiTenancyMode: octopus.TenantedOrUntenanted,
		ConnectivityPolicy: octopus.ConnectivityPolicy{SkipMachineBehavior: octopus.SkipNone, AllowDeploymentsToNoTargets: true},
		EnvironmentScope:   octopus.RunbookSpecified, Environments: octopus.List[string]{"Environments-2"},
		DefaultGuidedFailureMode: octopus.GuidedFailureEnvironment, RunbookTags: octopus.List[string]{"Kind/Care"},
		RunRetentionPolicy: &octopus.RunbookRetention{Strategy: octopus.RetentionCount, Unit: octopus.RetentionDays, QuantityToKeep: 30},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(steps) != 1 || steps[0].Actions[0].Properties.Get(octopus.PropScriptBody) != "one\ntwo" {
		t.Errorf("steps: %+v", steps)
	}
	body, err := WriteRunbook(got, steps, toSlug)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(runbookText(), Print(body)); diff != "" {
		t.Error(diff)
	}
}

func TestRunbookRetention(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want octopus.RunbookRetention
		back string
	}{
		"default":         {`    type = "Default"`, octopus.RunbookRetention{Strategy: octopus.RetentionDefault, Unit: octopus.RetentionItems, QuantityToKeep: 100}, `    type = "Default"`},
		"forever":         {`    type = "Forever"`, octopus.RunbookRetention{Strategy: octopus.RetentionForever, Unit: octopus.RetentionItems, ShouldKeepForever: true}, `    type = "Forever"`},
		"of old":          {`    quantity_to_keep = 5`, octopus.RunbookRetention{Strategy: octopus.RetentionCount, Unit: octopus.RetentionItems, QuantityToKeep: 5}, "    type = \"Count\"\n    quantity_to_keep = 5"},
		"of old, forever": {`    should_keep_forever = true`, octopus.RunbookRetention{Strategy: octopus.RetentionForever, Unit: octopus.RetentionItems, ShouldKeepForever: true}, `    type = "Forever"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _, err := ReadRunbook("x", mustParse(t, lines(`name = "X"`, `run_retention_policy {`, tt.text, `}`)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.want, r.RunRetentionPolicy); diff != "" {
				t.Error(diff)
			}
			body, err := WriteRunbook(r, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := Print(body); !strings.Contains(got, "run_retention_policy {\n"+tt.back+"\n}") {
				t.Errorf("written:\n%s", got)
			}
		})
	}
	for _, text := range []string{"name = \"X\"\nrun_retention_policy {\n    type = \"Sometimes\"\n}", "description = \"\"", "name = \"X\"\nrun_retention_policy {\n    quantity_to_keep = 99999999999\n}"} {
		if _, _, err := ReadRunbook("x", mustParse(t, text), nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
