package variables_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/variables"
)

func table(values []variables.Variable) map[string]string {
	out := map[string]string{}
	for _, v := range values {
		out[v.Name] = v.Value
	}
	return out
}

func fullInput() variables.SystemInput {
	at := time.Date(2020, 3, 13, 6, 23, 38, 0, time.UTC)
	git := variables.GitSource{Ref: "refs/heads/main", Branch: "main", Commit: "0c708fd"}
	return variables.SystemInput{
		Space: variables.NamedID{ID: "Spaces-1", Name: "Default"}, Project: variables.NamedID{ID: "Projects-1", Name: "Shop"},
		ProjectGroup: variables.NamedID{ID: "ProjectGroups-1", Name: "Public"},
		Environment:  variables.EnvironmentInput{ID: "Environments-1", Name: "Production", SortOrder: 3, MachinesInRole: map[string][]string{"web": {"Machines-1", "Machines-2"}, "db": {"Machines-3"}}},
		Task:         variables.TaskInput{ID: "ServerTasks-1", Name: "Deploy", QueueTime: at, QueueTimeExpiry: at.Add(time.Hour), Arguments: map[string]string{"DeploymentId": "Deployments-1"}},
		Web:          variables.WebInput{ServerURI: "https://tako", BaseURL: "https://tako", Project: "/app#/p", Release: "/app#/r", Deployment: "/app#/d"},
		Release: &variables.ReleaseInput{
			ID: "Releases-3", Number: "1.2.3", Notes: "Fixes", Created: at, Channel: variables.NamedID{ID: "Channels-1", Name: "Default"},
			Previous: variables.ReleaseNumber{ID: "Releases-2", Number: "1.2.2"}, PreviousForEnvironment: variables.ReleaseNumber{ID: "Releases-2", Number: "1.2.2"},
			CurrentForEnvironment: variables.ReleaseNumber{ID: "Releases-1", Number: "1.2.1"}, Git: git, CustomFields: map[string]string{"Ticket": "T-1"},
		},
		Deployment: &variables.DeploymentInput{
			ID: "Deployments-1", Name: "Deploy to Production", Comments: "go", Created: at, ForcePackageDownload: true,
			CreatedBy: variables.User{ID: "Users-1", Username: "alice", DisplayName: "Alice", Email: "alice@example.com"},
			Machines:  []string{"Machines-1", "Machines-2"}, SpecificMachines: []string{"Machines-1"}, ExcludedMachines: []string{"Machines-9"},
			PreviousSuccessfulID: "Deployments-0", Trigger: variables.NamedID{ID: "ProjectTriggers-1", Name: "Nightly"},
			Targets: []variables.NamedID{{ID: "Machines-1", Name: "web01"}},
			Changes: "[]", WorkItems: "[]", PackageBuildInformation: "[]", ChangesMarkdown: "none",
		},
		Tenant: &variables.TenantInput{ID: "Tenants-1", Name: "Acme", Tags: []string{"Ring/Alpha", "Region/EU"}},
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"Octopus.Space.Id": "Spaces-1", "Octopus.Space.Name": "Default",
		"Octopus.Project.Id": "Projects-1", "Octopus.Project.Name": "Shop",
		"Octopus.ProjectGroup.Id": "ProjectGroups-1", "Octopus.ProjectGroup.Name": "Public",
		"Octopus.Environment.Id": "Environments-1", "Octopus.Environment.Name": "Production", "Octopus.Environment.SortOrder": "3",
		"Octopus.Environment.MachinesInRole[web]": "Machines-1,Machines-2", "Octopus.Environment.MachinesInRole[db]": "Machines-3",
		"Octopus.Release.Id": "Releases-3", "Octopus.Release.Number": "1.2.3", "Octopus.Release.Notes": "Fixes",
		"Octopus.Release.Created":    "Friday, 13 March 2020 6:23:38 AM",
		"Octopus.Release.Channel.Id": "Channels-1", "Octopus.Release.Channel.Name": "Default",
		"Octopus.Release.Previous.Id": "Releases-2", "Octopus.Release.Previous.Number": "1.2.2",
		"Octopus.Release.PreviousForEnvironment.Id": "Releases-2", "Octopus.Release.PreviousForEnvironment.Number": "1.2.2",
		"Octopus.Release.CurrentForEnvironment.Id": "Releases-1", "Octopus.Release.CurrentForEnvironment.Number": "1.2.1",
		"Octopus.Release.Git.BranchName": "main", "Octopus.Release.Git.CommitHash": "0c708fd", "Octopus.Release.Git.Ref": "refs/heads/main",
		"Octopus.Release.CustomFields[Ticket]": "T-1",
		"Octopus.Deployment.Id":                "Deployments-1", "Octopus.Deployment.Name": "Deploy to Production", "Octopus.Deployment.Comments": "go",
		"Octopus.Deployment.Created":      "Friday, 13 March 2020 6:23:38 AM",
		"Octopus.Deployment.CreatedBy.Id": "Users-1", "Octopus.Deployment.CreatedBy.Username": "alice",
		"Octopus.Deployment.CreatedBy.DisplayName": "Alice", "Octopus.Deployment.CreatedBy.EmailAddress": "alice@example.com",
		"Octopus.Deployment.ForcePackageDownload": "True",
		"Octopus.Deployment.Machines":             "Machines-1,Machines-2", "Octopus.Deployment.SpecificMachines": "Machines-1", "Octopus.Deployment.ExcludedMachines": "Machines-9",
		"Octopus.Deployment.PreviousSuccessful.Id": "Deployments-0",
		"Octopus.Deployment.Trigger.Id":            "ProjectTriggers-1", "Octopus.Deployment.Trigger.Name": "Nightly",
		"Octopus.Deployment.Targets[Machines-1].Id": "Machines-1", "Octopus.Deployment.Targets[Machines-1].Name": "web01",
		"Octopus.Deployment.Changes": "[]", "Octopus.Deployment.WorkItems": "[]", "Octopus.Deployment.PackageBuildInformation": "[]", "Octopus.Deployment.ChangesMarkdown": "none",
		"Octopus.Deployment.Tenant.Id": "Tenants-1", "Octopus.Deployment.Tenant.Name": "Acme", "Octopus.Deployment.Tenant.Tags": "Ring/Alpha,Region/EU",
		"Octopus.Task.Id": "ServerTasks-1", "Octopus.Task.Name": "Deploy",
		"Octopus.Task.QueueTime": "Friday, 13 March 2020 6:23:38 AM", "Octopus.Task.QueueTimeExpiry": "Friday, 13 March 2020 7:23:38 AM",
		"Octopus.Task.Argument[DeploymentId]": "Deployments-1",
		"Octopus.Web.ServerUri":               "https://tako", "Octopus.Web.BaseUrl": "https://tako",
		"Octopus.Web.ProjectLink": "/app#/p", "Octopus.Web.ReleaseLink": "/app#/r", "Octopus.Web.DeploymentLink": "/app#/d",
	}
	if diff := cmp.Diff(want, table(variables.System(fullInput()))); diff != "" {
		t.Error(diff)
	}
}

func TestSystemUntenantedFirstRelease(t *testing.T) {
	t.Parallel()
	in := fullInput()
	in.Tenant = nil
	in.Release.Previous, in.Release.PreviousForEnvironment, in.Release.CurrentForEnvironment = variables.ReleaseNumber{}, variables.ReleaseNumber{}, variables.ReleaseNumber{}
	in.Release.Git, in.Deployment.Trigger = variables.GitSource{}, variables.NamedID{}
	for _, v := range variables.System(in) {
		for _, absent := range []string{"Tenant", "Previous.", "ForEnvironment", "Git", "Trigger", "Error"} {
			if strings.Contains(v.Name, absent) {
				t.Errorf("%s is there, as %q", v.Name, v.Value)
			}
		}
		if v.Source.Kind != variables.KindSystem || v.Sensitive {
			t.Errorf("%s: source %s, sensitive %v", v.Name, v.Source.Kind, v.Sensitive)
		}
	}
}

func TestSystemOfRunbook(t *testing.T) {
	t.Parallel()
	in := fullInput()
	run := *in.Deployment
	run.ID, run.Name = "RunbookRuns-1", "Run on Production"
	in.Runbook = &variables.RunbookInput{
		Runbook: variables.NamedID{ID: "Runbooks-1", Name: "Restore"}, Snapshot: variables.NamedID{ID: "RunbookSnapshots-1", Name: "S1"},
		SnapshotNotes: "notes", Git: variables.GitSource{Ref: "refs/tags/v1", Tag: "v1", Commit: "abc"}, Run: run,
	}
	in.Release, in.Deployment = nil, nil
	in.Web = variables.WebInput{RunbookSnapshot: "/s", RunbookRun: "/r"}
	got := table(variables.System(in))
	for name, want := range map[string]string{
		"Octopus.Runbook.Id": "Runbooks-1", "Octopus.Runbook.Name": "Restore",
		"Octopus.RunbookRun.Id": "RunbookRuns-1", "Octopus.RunbookRun.Name": "Run on Production",
		"Octopus.RunbookRun.Created": "Friday, 13 March 2020 6:23:38 AM", "Octopus.RunbookRun.CreatedUtc": "3/13/2020 6:23:38 AM +00:00",
		"Octopus.RunbookRun.Git.Ref": "refs/tags/v1", "Octopus.RunbookRun.Git.TagName": "v1", "Octopus.RunbookRun.Git.CommitHash": "abc",
		"Octopus.RunbookSnapshot.Id": "RunbookSnapshots-1", "Octopus.RunbookSnapshot.Name": "S1", "Octopus.RunbookSnapshot.Notes": "notes",
		"Octopus.Web.RunbookSnapshotLink": "/s", "Octopus.Web.RunbookRunLink": "/r",
		"Octopus.Deployment.CreatedBy.Username": "alice", "Octopus.Deployment.Tenant.Id": "Tenants-1",
	} {
		if got[name] != want {
			t.Errorf("%s = %q, want %q", name, got[name], want)
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "Octopus.Release.") || name == "Octopus.Deployment.Id" {
			t.Errorf("a runbook's run has %s", name)
		}
	}
}

func TestMachineStepAction(t *testing.T) {
	t.Parallel()
	got := table(variables.ForMachine(variables.MachineInput{
		ID: "Machines-1", Name: "web01", Roles: []string{"web", "db"}, Hostname: "10.0.0.1", TargetedRoles: []string{"web"},
		ApplicationDirectory: "/apps", Instance: "Tentacle", ProgramDirectory: "/opt", PackageFile: "/p/a.zip",
		WorkerPool: variables.NamedID{ID: "WorkerPools-1", Name: "Default"},
		Previous:   variables.Installation{Version: "1.0", OriginalPath: "/apps/a/1.0", CustomDirectory: "/srv", PackageFile: "/p/a.1.0.zip"},
	}))
	want := map[string]string{
		"Octopus.Machine.Id": "Machines-1", "Octopus.Machine.Name": "web01", "Octopus.Machine.Roles": "web,db", "Octopus.Machine.Hostname": "10.0.0.1",
		"Octopus.Tentacle.CurrentDeployment.TargetedRoles": "web", "Octopus.Tentacle.CurrentDeployment.PackageFilePath": "/p/a.zip",
		"Octopus.Tentacle.PreviousInstallation.PackageVersion": "1.0", "Octopus.Tentacle.PreviousInstallation.OriginalInstalledPath": "/apps/a/1.0",
		"Octopus.Tentacle.PreviousInstallation.CustomInstallationDirectory": "/srv", "Octopus.Tentacle.PreviousInstallation.PackageFilePath": "/p/a.1.0.zip",
		"Octopus.Tentacle.Agent.ApplicationDirectoryPath": "/apps", "Octopus.Tentacle.Agent.InstanceName": "Tentacle",
		"Octopus.Tentacle.Agent.ProgramDirectoryPath": "/opt", "Octopus.Agent.ProgramDirectoryPath": "/opt",
		"Octopus.WorkerPool.Id": "WorkerPools-1", "Octopus.WorkerPool.Name": "Default",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := variables.ForMachine(variables.MachineInput{}); len(got) != 0 {
		t.Errorf("without a machine: %v", got)
	}

	step := variables.StepInput{ID: "s1", Name: "Web", Number: "2", Status: variables.StepFailed, Error: "exit code 1", ErrorDetail: "more"}
	want = map[string]string{
		"Octopus.Step.Id": "s1", "Octopus.Step.Name": "Web", "Octopus.Step.Number": "2",
		"Octopus.Step.Status.Code": "Failed", "Octopus.Step.Status.Error": "exit code 1", "Octopus.Step.Status.ErrorDetail": "more",
	}
	if diff := cmp.Diff(want, table(variables.ForStep(step))); diff != "" {
		t.Error(diff)
	}
	if got := table(variables.OfStep(step))["Octopus.Step[Web].Status.Code"]; got != "Failed" {
		t.Errorf("status from elsewhere: %q", got)
	}

	action := variables.ActionInput{
		ID: "a1", Name: "Web", Number: "2.1", TargetRoles: []string{"web"}, Skipped: true, TemplateID: "ActionTemplates-1", TemplateVersion: "3",
		Packages: []variables.PackageInput{
			{PackageID: "Acme.Web", FeedID: "feeds-builtin", Version: "1.2.3", FilePath: "/w/a.zip", FileName: "a.zip"},
			{Name: "Img", PackageID: "acme/img", FeedID: "Feeds-1", Version: "2", Image: "hub/acme/img:2", Registry: "hub"},
		},
		Properties: []variables.Property{{Name: "Octopus.Action.Script.ScriptBody", Value: "echo"}, {Name: "My.Key", Value: "s3cret", Sensitive: true}},
	}
	got = table(variables.ForAction(action))
	want = map[string]string{
		"Octopus.Action.Id": "a1", "Octopus.Action.Name": "Web", "Octopus.Action.Number": "2.1", "Octopus.Action.TargetRoles": "web", "Octopus.Action.IsSkipped": "True",
		"Octopus.Action.Template.Id": "ActionTemplates-1", "Octopus.Action.Template.Version": "3",
		"Octopus.Action.Package.PackageId": "Acme.Web", "Octopus.Action.Package.FeedId": "feeds-builtin", "Octopus.Action.Package.PackageVersion": "1.2.3",
		"Octopus.Action.Package.PackageFilePath": "/w/a.zip", "Octopus.Action.Package.PackageFileName": "a.zip",
		"Octopus.Action.Package[].PackageId": "Acme.Web", "Octopus.Action.Package[].FeedId": "feeds-builtin", "Octopus.Action.Package[].PackageVersion": "1.2.3",
		"Octopus.Action.Package[].PackageFilePath": "/w/a.zip", "Octopus.Action.Package[].PackageFileName": "a.zip",
		"Octopus.Action.Package[Img].PackageId": "acme/img", "Octopus.Action.Package[Img].FeedId": "Feeds-1", "Octopus.Action.Package[Img].PackageVersion": "2",
		"Octopus.Action.Package[Img].Image": "hub/acme/img:2", "Octopus.Action.Package[Img].Registry": "hub", "Octopus.Action.Package[Img].Version": "2",
		"Octopus.Action.Script.ScriptBody": "echo", "My.Key": "s3cret",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if v, _ := variables.New(variables.ForAction(action)...).Resolve(variables.Context{}).Get("my.key"); !v.Sensitive {
		t.Error("the secret property is plain")
	}
	other := table(variables.OfAction(action))
	if other["Octopus.Action[Web].Package[Img].PackageVersion"] != "2" || other["My.Key"] != "" {
		t.Errorf("from elsewhere: %v", other)
	}

	failure := table(variables.Failure("boom", "stack"))
	if diff := cmp.Diff(map[string]string{"Octopus.Deployment.Error": "boom", "Octopus.Deployment.ErrorDetail": "stack"}, failure); diff != "" {
		t.Error(diff)
	}
}
