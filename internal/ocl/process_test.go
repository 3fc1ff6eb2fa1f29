package ocl

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// find looks up the few things that exist, by their place in a row.
func find(kind Ref, key string, from, to int) (string, bool) {
	for _, n := range [][3]string{
		{string(RefEnvironment), "Environments-1", "production"},
		{string(RefEnvironment), "Environments-2", "test"},
		{string(RefChannel), "Channels-1", "default"},
		{string(RefFeed), "feeds-builtin", "octopus-server-built-in"},
		{string(RefFeed), "Feeds-7", "docker-hub"},
		{string(RefWorkerPool), "WorkerPools-1", "linux"},
		{string(RefAccount), "Accounts-3", "azure-prod"},
		{string(RefMachine), "Machines-4", "web-01"},
		{string(RefTeam), "teams-everyone", "global/everyone"},
		{string(RefTeam), "Teams-2", "ops"},
		{string(RefProject), "Projects-9", "billing"},
		{string(RefAction), "a-1", "deploy-web"},
		{string(RefActionName), "Deploy Web", "deploy-web"},
		{string(RefProcess), "Projects-1", "deployment-process"},
		{string(RefProcess), "Runbooks-1", "runbook/restart"},
		{string(RefCertificate), "Certificates-1", "tls"},
		{string(RefTenant), "Tenants-1", "acme"},
	} {
		if n[0] == string(kind) && n[from] == key {
			return n[to], true
		}
	}
	return "", false
}

func toSlug(kind Ref, id string) (string, bool) { return find(kind, id, 1, 2) }

func toID(kind Ref, slug string) (string, bool) { return find(kind, slug, 2, 1) }

func mustParse(t interface {
	Helper()
	Fatal(...any)
}, text string,
) Body {
	t.Helper()
	body, err := Parse(text)
	if err != nil {
		t.Fatal(err, text)
	}
	return body
}

func lines(s ...string) string { return strings.Join(s, "\n") }

func processText() string {
	return lines(
		`step "deploy-web" {`,
		`    name = "Deploy Web"`,
		`    package_requirement = "AfterPackageAcquisition"`,
		`    properties = {`,
		`        Octopus.Action.MaxParallelism = "2"`,
		`        Octopus.Action.TargetRoles = "web"`,
		`    }`,
		`    start_trigger = "StartWithPrevious"`,
		``,
		`    action {`,
		`        action_type = "Octopus.TentaclePackage"`,
		`        channels = ["default"]`,
		`        environments = ["production", "test"]`,
		`        is_required = true`,
		`        notes = <<-EOT`,
		`                two`,
		`                lines`,
		`                EOT`,
		`        properties = {`,
		`            "A key" = "1"`,
		`            Octopus.Action.Package.FeedId = "octopus-server-built-in"`,
		`            Octopus.Action.Package.PackageId = "Web"`,
		`        }`,
		`        tenant_tags = ["Ring/Alpha"]`,
		`        worker_pool = "linux"`,
		``,
		`        container {`,
		`            feed = "docker-hub"`,
		`            image = "tools:1"`,
		`        }`,
		``,
		`        git_dependencies "config" {`,
		`            default_branch = "main"`,
		`            file_path_filters = ["a/*"]`,
		`            git_credential_type = "Anonymous"`,
		`            repository_uri = "https://example.com/c.git"`,
		`        }`,
		``,
		`        packages {`,
		`            acquisition_location = "Server"`,
		`            feed = "octopus-server-built-in"`,
		`            package_id = "Web"`,
		`            properties = {`,
		`                SelectionMode = "immediate"`,
		`            }`,
		`        }`,
		``,
		`        packages "Tool" {`,
		`            acquisition_location = "ExecutionTarget"`,
		`            feed = "#{Feed}"`,
		`            package_id = "Tool"`,
		`            version = "1.2"`,
		`        }`,
		`    }`,
		`}`,
		``,
		`step "rolling" {`,
		`    condition = "Variable"`,
		`    name = "Rolling"`,
		`    properties = {`,
		`        Octopus.Step.ConditionVariableExpression = "#{Go}"`,
		`    }`,
		``,
		`    action "stop" {`,
		`        action_type = "Octopus.Script"`,
		`        excluded_environments = ["test"]`,
		`        is_disabled = true`,
		`        name = "Stop"`,
		`        worker_pool_variable = "Pool"`,
		`    }`,
		``,
		`    action "approve" {`,
		`        action_type = "Octopus.Manual"`,
		`        condition = "Variable"`,
		`        name = "Approve"`,
		`        properties = {`,
		`            Octopus.Action.Manual.ResponsibleTeamIds = "global/everyone,ops"`,
		`        }`,
		`    }`,
		`}`,
		``,
		`step "billing" {`,
		`    name = "Billing"`,
		``,
		`    action {`,
		`        action_type = "Octopus.DeployRelease"`,
		`        name = "Deploy billing"`,
		`        properties = {`,
		`            Octopus.Action.DeployRelease.ProjectId = "billing"`,
		`        }`,
		``,
		`        packages {`,
		`            acquisition_location = "NotAcquired"`,
		`            package_id = "billing"`,
		`        }`,
		`    }`,
		`}`,
	)
}

func TestProcess(t *testing.T) {
	t.Parallel()
	steps, err := ReadProcess(mustParse(t, processText()), toID)
	if err != nil {
		t.Fatal(err)
	}
	want := []octopus.Step{
		{
			ID: "deploy-web", Name: "Deploy Web", Slug: "deploy-web",
			Condition: octopus.StepConditionSuccess, StartTrigger: octopus.StartWithPrevious, PackageRequirement: octopus.PackageRequirementAfter,
			Properties: octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web"), octopus.PropMaxParallelism: octopus.Plain("2")},
			Actions: octopus.List[octopus.Action]{{
				ID: "deploy-web", Name: "Deploy Web", Slug: "deploy-web", ActionType: octopus.ActionPackage, Notes: "two\nlines",
				IsRequired: true, CanBeUsedForProjectVersioning: true, WorkerPoolID: "WorkerPools-1",
				Container: &octopus.ActionContainer{Image: "tools:1", FeedID: "Feeds-7"}, Condition: octopus.ActionConditionSuccess,
				Environments: octopus.List[string]{"Environments-1", "Environments-2"}, Channels: octopus.List[string]{"Channels-1"}, TenantTags: octopus.List[string]{"Ring/Alpha"},
				Properties: octopus.Properties{"A key": octopus.Plain("1"), octopus.PropPackageFeedID: octopus.Plain("feeds-builtin"), octopus.PropPackagePackageID: octopus.Plain("Web")},
				Packages: octopus.List[octopus.PackageReference]{
					{ID: stableID("package", "deploy-web", ""), PackageID: "Web", FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireOnServer, Properties: octopus.Map[string, octopus.PropertyText]{"SelectionMode": "immediate"}},
					{ID: stableID("package", "deploy-web", "Tool"), Name: "Tool", PackageID: "Tool", FeedID: "#{Feed}", AcquisitionLocation: octopus.AcquireOnTarget, Version: "1.2"},
				},
				GitDependencies: octopus.List[octopus.GitDependency]{{Name: "config", RepositoryURI: "https://example.com/c.git", DefaultBranch: "main", GitCredentialType: octopus.GitCredentialAnonymous, FilePathFilters: octopus.List[string]{"a/*"}}},
			}},
		},
		{
			ID: "rolling", Name: "Rolling", Slug: "rolling",
			Condition: octopus.StepConditionVariable, StartTrigger: octopus.StartAfterPrevious, PackageRequirement: octopus.PackageRequirementAuto,
			Properties: octopus.Properties{octopus.PropConditionExpression: octopus.Plain("#{Go}")},
			Actions: octopus.List[octopus.Action]{
				{ID: "stop", Name: "Stop", Slug: "stop", ActionType: octopus.ActionScript, IsDisabled: true, Condition: octopus.ActionConditionSuccess, ExcludedEnvironments: octopus.List[string]{"Environments-2"}, WorkerPoolVariable: "Pool"},
				{ID: "approve", Name: "Approve", Slug: "approve", ActionType: octopus.ActionManual, Condition: octopus.ActionConditionVariable, Properties: octopus.Properties{octopus.PropManualTeams: octopus.Plain("teams-everyone,Teams-2")}},
			},
		},
		{
			ID: "billing", Name: "Billing", Slug: "billing",
			Condition: octopus.StepConditionSuccess, StartTrigger: octopus.StartAfterPrevious, PackageRequirement: octopus.PackageRequirementAuto,
			Actions: octopus.List[octopus.Action]{{
				ID: "billing", Name: "Deploy billing", Slug: "billing", ActionType: octopus.ActionDeployRelease, Condition: octopus.ActionConditionSuccess, CanBeUsedForProjectVersioning: true,
				Properties: octopus.Properties{octopus.PropDeployReleaseTarget: octopus.Plain("Projects-9")},
				Packages:   octopus.List[octopus.PackageReference]{{ID: stableID("package", "billing", ""), PackageID: "Projects-9", AcquisitionLocation: octopus.AcquireNever}},
			}},
		},
	}
	if diff := cmp.Diff(want, steps, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	body, err := WriteProcess(steps, toSlug)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(processText(), Print(body)); diff != "" {
		t.Error(diff)
	}
}

// TestProcessOfOld reads the form in which labels are names.
func TestProcessOfOld(t *testing.T) {
	t.Parallel()
	steps, err := ReadProcess(mustParse(t, lines(
		`step "Display the time" {`, ``, `    action {`, `        worker_pool_variable = ""`, `        properties = {`, `            Retries = 3`, `            Wait = true`, `        }`, `    }`, `}`,
		`step "Both" {`, `    action "First One" {`, `        is_disabled = "True"`, `    }`, `    action "Second" {`, `    }`, `}`,
	)), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, s := range steps {
		for _, a := range s.Actions {
			got = append(got, fmt.Sprintf("%s (%s): %s (%s) %v %q %q", s.Name, s.Slug, a.Name, a.Slug, a.IsDisabled, a.Properties.Get("Retries"), a.Properties.Get("Wait")))
		}
	}
	want := []string{
		`Display the time (display-the-time): Display the time (display-the-time) false "3" "True"`,
		`Both (both): First One (first-one) true "" ""`,
		`Both (both): Second (second) false "" ""`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestProcessErrors(t *testing.T) {
	t.Parallel()
	step := func(s ...string) string {
		return lines(append(append([]string{`step "a" {`, `    action {`}, s...), `    }`, `}`)...)
	}
	tests := map[string]struct{ text, says string }{
		"unknown block":           {`process_template "x" {}`, `Line 1, column 1: "process_template" is not known in the process`},
		"unknown attribute":       {step(`        colour = 1`), `Line 3, column 9: "colour" is not known in action`},
		"no label":                {"step {\n    action {}\n}", "A step needs a label"},
		"two labels":              {"step \"a\" \"b\" {\n    action {}\n}", `has one label at most; remove "b"`},
		"no action":               {`step "a" {}`, "has no action"},
		"slug twice":              {"step \"a\" {\n    action {}\n}\nstep \"A\" {\n    action \"b\" {}\n}", "Two steps have the slug"},
		"action twice":            {"step \"a\" {\n    action {}\n    action \"a\" {}\n}", "Two actions have the slug"},
		"attribute twice":         {step(`        notes = "a"`, `        notes = "b"`), `Line 4, column 9: "notes" is there twice`},
		"not a string":            {step(`        notes = 1`), "must be a string in quotes"},
		"not a list":              {step(`        environments = "test"`), "must be a list of strings"},
		"list of numbers":         {step(`        environments = [1]`), "must be a list of strings"},
		"not a flag":              {step(`        is_disabled = 1`), "must be true or false"},
		"not a dictionary":        {step(`        properties = "x"`), "must be a dictionary"},
		"list in a dictionary":    {step(`        properties = {`, `            a = ["x"]`, `        }`), `"a" in "properties"`},
		"unknown condition":       {"step \"a\" {\n    condition = \"Never\"\n    action {}\n}", `cannot be "Never"; it is one of Success, Failure, Always, Variable`},
		"unknown environment":     {step(`        environments = ["moon"]`), `Line 3, column 9: There is no environment "moon"`},
		"unknown feed":            {step(`        properties = {`, `            Octopus.Action.Package.FeedId = "moon"`, `        }`), `There is no feed "moon"`},
		"container twice":         {step(`        container {}`, `        container {}`), `"container" is there twice`},
		"label of a container":    {step(`        container "x" {}`), `has no label; remove "x"`},
		"inputs that are no JSON": {step(`        inputs = "{"`), "a text that is JSON"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ReadProcess(mustParse(t, tt.text), toID)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("err = %v\nwant ... %s", err, tt.says)
			}
			if !fault.Is(err, fault.Invalid) {
				t.Error("it is not the caller's fault")
			}
		})
	}
}

func TestManyErrorsAreCut(t *testing.T) {
	t.Parallel()
	_, err := ReadProcess(mustParse(t, strings.Repeat("x = 1\n", 1000)), nil)
	if n := len(fault.Faults(err)); n != maxErrors {
		t.Errorf("%d faults, want %d", n, maxErrors)
	}
}

func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	steps := []octopus.Step{{Name: "A", Actions: octopus.List[octopus.Action]{{Name: "A", Properties: octopus.Properties{"Key": octopus.Secret("hunter22")}}}}}
	_, err := WriteProcess(steps, nil)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `"Key"`) || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("err = %v", err)
	}
	steps[0].Actions[0].Properties["Key"] = octopus.PropertyValue{Sensitive: &octopus.Sensitive{}}
	if _, err := WriteProcess(steps, nil); err != nil {
		t.Errorf("a secret without a value: %v", err)
	}
	secret := "hunter22"
	body, err := WriteVariables([]octopus.Variable{
		{Name: "Password", Value: &secret, Type: octopus.VariableSensitive},
		{Name: "Token", Value: &secret, Type: octopus.VariableString, IsSensitive: true},
	}, nil)
	if err != nil || len(body) != 0 {
		t.Errorf("wrote %d variables, %v", len(body), err)
	}
}

// TestProcessSurvives writes and reads processes of any shape.
func TestProcessSurvives(t *testing.T) {
	t.Parallel()
	word := rapid.StringMatching(`[A-Z][a-z]{0,4}( [a-z]{1,3})?`)
	free := rapid.OneOf(rapid.StringMatching(`[ -~\n\t]{0,20}`), rapid.Just("a\r\nb"), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		var steps []octopus.Step
		for i := range rapid.IntRange(0, 4).Draw(t, "steps") {
			s := octopus.Step{
				Name: word.Draw(t, "step"), Slug: fmt.Sprint("step-", i),
				Condition:          rapid.SampledFrom([]octopus.StepCondition{octopus.StepConditionSuccess, octopus.StepConditionAlways}).Draw(t, "condition"),
				StartTrigger:       rapid.SampledFrom([]octopus.StartTrigger{octopus.StartAfterPrevious, octopus.StartWithPrevious}).Draw(t, "start"),
				PackageRequirement: octopus.PackageRequirementAuto,
			}
			s.ID = s.Slug
			for j := range rapid.IntRange(1, 3).Draw(t, "actions") {
				a := octopus.Action{
					Name: rapid.OneOf(word, rapid.Just(s.Name)).Draw(t, "action"), Slug: rapid.SampledFrom([]string{s.Slug, fmt.Sprint("action-", i, "-", j)}).Draw(t, "slug"),
					ActionType: octopus.ActionScript, Condition: octopus.ActionConditionSuccess, Notes: octopus.NullString(free.Draw(t, "notes")),
					IsDisabled: rapid.Bool().Draw(t, "disabled"), Properties: octopus.Properties{},
				}
				if j > 0 {
					a.Slug = fmt.Sprint("action-", i, "-", j)
				}
				a.ID = a.Slug
				for range rapid.IntRange(0, 3).Draw(t, "properties") {
					a.Properties[free.Draw(t, "key")] = octopus.Plain(free.Draw(t, "value"))
				}
				if rapid.Bool().Draw(t, "inputs") {
					a.Inputs = json.RawMessage(`{"a": 1}`)
				}
				if rapid.Bool().Draw(t, "package") {
					name := word.Draw(t, "package name")
					a.Packages = append(a.Packages, octopus.PackageReference{ID: stableID("package", a.Slug, name), Name: name, PackageID: free.Draw(t, "package id"), FeedID: "Feeds-7"})
					a.CanBeUsedForProjectVersioning = true
				}
				s.Actions = append(s.Actions, a)
			}
			steps = append(steps, s)
		}
		body, err := WriteProcess(steps, toSlug)
		if err != nil {
			t.Fatal(err)
		}
		text := Print(body)
		stable(t, text)
		got, err := ReadProcess(mustParse(t, text), toID)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if diff := cmp.Diff(steps, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s in\n%s", diff, text)
		}
	})
}
