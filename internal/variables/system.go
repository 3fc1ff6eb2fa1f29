package variables

import (
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/octopus"
)

// DateLayout is the form of the dates that people read, such as
// "Friday, 13 March 2020 6:23:38 AM"; they are in UTC.
const DateLayout = "Monday, 02 January 2006 3:04:05 PM"

// dateUTCLayout is the form of the variables whose name ends in "Utc".
const dateUTCLayout = "1/2/2006 3:04:05 PM -07:00"

// NamedID is a thing with its id and its name.
type NamedID struct{ ID, Name string }

// ReleaseNumber is a release with its id and its version.
type ReleaseNumber struct{ ID, Number string }

// GitSource is the commit that a process was read from; empty for one that is
// kept in the database.
type GitSource struct{ Ref, Branch, Tag, Commit string }

// User is the person who asked for a deployment.
type User struct{ ID, Username, DisplayName, Email string }

// ReleaseInput is the release that is deployed, and its neighbours.
type ReleaseInput struct {
	ID, Number, Notes string
	Created           time.Time
	Channel           NamedID
	// Previous is the project's release before this one; PreviousForEnvironment
	// the one deployed to the environment before; CurrentForEnvironment the one
	// of its last successful deployment.
	Previous, PreviousForEnvironment, CurrentForEnvironment ReleaseNumber
	Git                                                     GitSource
	CustomFields                                            map[string]string
}

// DeploymentInput is the deployment.
type DeploymentInput struct {
	ID, Name, Comments   string
	Created              time.Time
	CreatedBy            User
	ForcePackageDownload bool
	// Machines are ids, as are those that people chose or left out.
	Machines, SpecificMachines, ExcludedMachines []string
	PreviousSuccessfulID                         string
	Trigger                                      NamedID
	// Targets are the distinct targets of all steps.
	Targets []NamedID
	// Changes, WorkItems and PackageBuildInformation are JSON arrays, and
	// ChangesMarkdown text; "" is none.
	Changes, WorkItems, PackageBuildInformation, ChangesMarkdown string
}

// RunbookInput is the run of a runbook.
type RunbookInput struct {
	Runbook  NamedID
	Snapshot NamedID
	// SnapshotNotes describe the snapshot.
	SnapshotNotes string
	Git           GitSource
	// Run has what a run has in common with a deployment.
	Run DeploymentInput
}

// EnvironmentInput is the environment, with the machines that take part by
// target tag, as ids.
type EnvironmentInput struct {
	ID, Name       string
	SortOrder      int
	MachinesInRole map[string][]string
}

// TenantInput is the tenant; its tags are canonical names, "Set/Tag".
type TenantInput struct {
	ID, Name string
	Tags     []string
}

// TaskInput is the task that runs it all.
type TaskInput struct {
	ID, Name string
	// QueueTime and QueueTimeExpiry are zero for a task that starts at once.
	QueueTime, QueueTimeExpiry time.Time
	Arguments                  map[string]string
}

// WebInput has the server's address, and links relative to it; "" is none.
type WebInput struct {
	ServerURI, BaseURL           string
	Project, Release, Deployment string
	RunbookSnapshot, RunbookRun  string
}

// SystemInput is everything that the system variables of a run are made from.
type SystemInput struct {
	Space, Project, ProjectGroup NamedID
	Environment                  EnvironmentInput
	Task                         TaskInput
	Web                          WebInput
	// Release and Deployment are nil for the run of a runbook, Runbook is nil
	// for a deployment.
	Release    *ReleaseInput
	Deployment *DeploymentInput
	Runbook    *RunbookInput
	// Tenant is nil for an untenanted run. Its variables are then absent, so
	// that a template can test for them.
	Tenant *TenantInput
}

// list collects system variables.
type list []Variable

// add defines a variable, even if it is empty.
func (l *list) add(name, value string) {
	*l = append(*l, Variable{Name: name, Value: value, Type: octopus.VariableString, Source: Source{Kind: KindSystem}})
}

// opt defines a variable unless it is empty: absent is how "there is none" is told.
func (l *list) opt(name, value string) {
	if value != "" {
		l.add(name, value)
	}
}

func (l *list) date(name string, at time.Time) {
	if !at.IsZero() {
		l.add(name, at.UTC().Format(DateLayout))
	}
}

func (l *list) named(prefix string, n NamedID) {
	l.opt(prefix+".Id", n.ID)
	l.opt(prefix+".Name", n.Name)
}

func (l *list) release(prefix string, r ReleaseNumber) {
	l.opt(prefix+".Id", r.ID)
	l.opt(prefix+".Number", r.Number)
}

func (l *list) git(prefix string, g GitSource) {
	l.opt(prefix+".BranchName", g.Branch)
	l.opt(prefix+".CommitHash", g.Commit)
	l.opt(prefix+".Ref", g.Ref)
	l.opt(prefix+".TagName", g.Tag)
}

func (l *list) user(prefix string, u User) {
	l.opt(prefix+".Id", u.ID)
	l.opt(prefix+".Username", u.Username)
	l.opt(prefix+".DisplayName", u.DisplayName)
	l.opt(prefix+".EmailAddress", u.Email)
}

func (l *list) targets(targets []NamedID) {
	for _, t := range targets {
		l.named("Octopus.Deployment.Targets["+t.ID+"]", t)
	}
}

// flag is how system variables write yes and no.
func flag(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// System makes the variables that every step of a run can use, in a fixed
// order. Those of a thing that does not exist are absent.
func System(in SystemInput) []Variable {
	var l list
	l.named("Octopus.Space", in.Space)
	l.named("Octopus.Project", in.Project)
	l.named("Octopus.ProjectGroup", in.ProjectGroup)
	l.named("Octopus.Environment", NamedID{in.Environment.ID, in.Environment.Name})
	if in.Environment.ID != "" {
		l.add("Octopus.Environment.SortOrder", strconv.Itoa(in.Environment.SortOrder))
	}
	for _, role := range sortedKeys(in.Environment.MachinesInRole) {
		l.add("Octopus.Environment.MachinesInRole["+role+"]", strings.Join(in.Environment.MachinesInRole[role], ","))
	}
	if in.Release != nil {
		l.addRelease(in.Release)
	}
	if in.Deployment != nil {
		l.addDeployment(in.Deployment)
	}
	if in.Runbook != nil {
		l.addRunbook(in.Runbook)
	}
	if t := in.Tenant; t != nil {
		l.named("Octopus.Deployment.Tenant", NamedID{t.ID, t.Name})
		l.add("Octopus.Deployment.Tenant.Tags", strings.Join(t.Tags, ","))
	}
	l.named("Octopus.Task", NamedID{in.Task.ID, in.Task.Name})
	l.date("Octopus.Task.QueueTime", in.Task.QueueTime)
	l.date("Octopus.Task.QueueTimeExpiry", in.Task.QueueTimeExpiry)
	for _, name := range sortedKeys(in.Task.Arguments) {
		l.add("Octopus.Task.Argument["+name+"]", in.Task.Arguments[name])
	}
	l.opt("Octopus.Web.ServerUri", in.Web.ServerURI)
	l.opt("Octopus.Web.BaseUrl", in.Web.BaseURL)
	l.opt("Octopus.Web.ProjectLink", in.Web.Project)
	l.opt("Octopus.Web.ReleaseLink", in.Web.Release)
	l.opt("Octopus.Web.DeploymentLink", in.Web.Deployment)
	l.opt("Octopus.Web.RunbookSnapshotLink", in.Web.RunbookSnapshot)
	l.opt("Octopus.Web.RunbookRunLink", in.Web.RunbookRun)
	return l
}

func (l *list) addRelease(r *ReleaseInput) {
	l.opt("Octopus.Release.Id", r.ID)
	l.opt("Octopus.Release.Number", r.Number)
	l.add("Octopus.Release.Notes", r.Notes)
	l.date("Octopus.Release.Created", r.Created)
	l.named("Octopus.Release.Channel", r.Channel)
	l.release("Octopus.Release.Previous", r.Previous)
	l.release("Octopus.Release.PreviousForEnvironment", r.PreviousForEnvironment)
	l.release("Octopus.Release.CurrentForEnvironment", r.CurrentForEnvironment)
	l.git("Octopus.Release.Git", r.Git)
	for _, name := range sortedKeys(r.CustomFields) {
		l.add("Octopus.Release.CustomFields["+name+"]", r.CustomFields[name])
	}
}

func (l *list) addDeployment(d *DeploymentInput) {
	l.opt("Octopus.Deployment.Id", d.ID)
	l.opt("Octopus.Deployment.Name", d.Name)
	l.add("Octopus.Deployment.Comments", d.Comments)
	l.date("Octopus.Deployment.Created", d.Created)
	l.user("Octopus.Deployment.CreatedBy", d.CreatedBy)
	l.add("Octopus.Deployment.ForcePackageDownload", flag(d.ForcePackageDownload))
	l.add("Octopus.Deployment.Machines", strings.Join(d.Machines, ","))
	l.add("Octopus.Deployment.SpecificMachines", strings.Join(d.SpecificMachines, ","))
	l.add("Octopus.Deployment.ExcludedMachines", strings.Join(d.ExcludedMachines, ","))
	l.opt("Octopus.Deployment.PreviousSuccessful.Id", d.PreviousSuccessfulID)
	l.named("Octopus.Deployment.Trigger", d.Trigger)
	l.targets(d.Targets)
	l.opt("Octopus.Deployment.Changes", d.Changes)
	l.opt("Octopus.Deployment.WorkItems", d.WorkItems)
	l.opt("Octopus.Deployment.PackageBuildInformation", d.PackageBuildInformation)
	l.opt("Octopus.Deployment.ChangesMarkdown", d.ChangesMarkdown)
}

// addRunbook defines a run's own variables, and those of a deployment that make
// sense for a run too, because scripts are shared between both.
func (l *list) addRunbook(r *RunbookInput) {
	l.named("Octopus.Runbook", r.Runbook)
	l.named("Octopus.RunbookRun", NamedID{r.Run.ID, r.Run.Name})
	l.date("Octopus.RunbookRun.Created", r.Run.Created)
	if !r.Run.Created.IsZero() {
		l.add("Octopus.RunbookRun.CreatedUtc", r.Run.Created.UTC().Format(dateUTCLayout))
	}
	l.git("Octopus.RunbookRun.Git", r.Git)
	l.named("Octopus.RunbookSnapshot", r.Snapshot)
	l.opt("Octopus.RunbookSnapshot.Notes", r.SnapshotNotes)
	run := r.Run
	run.ID, run.Name = "", "" // a run is no deployment
	l.addDeployment(&run)
}

// Failure makes the variables that exist once something has failed; they are
// what "run even when earlier steps failed" conditions test.
func Failure(message, detail string) []Variable {
	var l list
	l.add("Octopus.Deployment.Error", message)
	l.add("Octopus.Deployment.ErrorDetail", detail)
	return l
}

// MachineInput is the machine that a step runs on or for.
type MachineInput struct {
	ID, Name string
	Roles    []string
	// Hostname is known of listening agents only.
	Hostname string
	// TargetedRoles are those of the machine's tags that the step goes to.
	TargetedRoles []string
	// ApplicationDirectory, Instance and ProgramDirectory are the agent's own;
	// "" is unknown.
	ApplicationDirectory, Instance, ProgramDirectory string
	// WorkerPool is set when the step runs on a worker.
	WorkerPool NamedID
	// Previous is what the last deployment of the package left there.
	Previous Installation
	// PackageFile is where the package that is being deployed lies.
	PackageFile string
}

// Installation is an earlier deployment of a package to a machine.
type Installation struct {
	Version, OriginalPath, CustomDirectory, PackageFile string
}

// ForMachine makes the variables of a machine, for the steps that run on it.
func ForMachine(m MachineInput) []Variable {
	var l list
	if m.ID != "" {
		l.named("Octopus.Machine", NamedID{m.ID, m.Name})
		l.add("Octopus.Machine.Roles", strings.Join(m.Roles, ","))
		l.opt("Octopus.Machine.Hostname", m.Hostname)
		l.add("Octopus.Tentacle.CurrentDeployment.TargetedRoles", strings.Join(m.TargetedRoles, ","))
	}
	l.opt("Octopus.Tentacle.CurrentDeployment.PackageFilePath", m.PackageFile)
	l.opt("Octopus.Tentacle.PreviousInstallation.PackageVersion", m.Previous.Version)
	l.opt("Octopus.Tentacle.PreviousInstallation.OriginalInstalledPath", m.Previous.OriginalPath)
	l.opt("Octopus.Tentacle.PreviousInstallation.CustomInstallationDirectory", m.Previous.CustomDirectory)
	l.opt("Octopus.Tentacle.PreviousInstallation.PackageFilePath", m.Previous.PackageFile)
	l.opt("Octopus.Tentacle.Agent.ApplicationDirectoryPath", m.ApplicationDirectory)
	l.opt("Octopus.Tentacle.Agent.InstanceName", m.Instance)
	l.opt("Octopus.Tentacle.Agent.ProgramDirectoryPath", m.ProgramDirectory)
	l.opt("Octopus.Agent.ProgramDirectoryPath", m.ProgramDirectory)
	l.named("Octopus.WorkerPool", m.WorkerPool)
	return l
}

// StepStatus is how far a step has come.
type StepStatus string

// The codes of a step's status.
const (
	StepPending   StepStatus = "Pending"
	StepSkipped   StepStatus = "Skipped"
	StepAbandoned StepStatus = "Abandoned"
	StepCanceled  StepStatus = "Canceled"
	StepRunning   StepStatus = "Running"
	StepSucceeded StepStatus = "Succeeded"
	StepFailed    StepStatus = "Failed"
)

// StepInput is a step.
type StepInput struct {
	ID, Name, Number   string
	Status             StepStatus
	Error, ErrorDetail string
}

// ForStep makes the variables of the running step.
func ForStep(s StepInput) []Variable { return stepVariables("Octopus.Step", s) }

// OfStep makes the variables by which other steps see a step:
// Octopus.Step[Name].Status.Code and so on.
func OfStep(s StepInput) []Variable { return stepVariables("Octopus.Step["+s.Name+"]", s) }

func stepVariables(prefix string, s StepInput) []Variable {
	var l list
	l.named(prefix, NamedID{s.ID, s.Name})
	l.opt(prefix+".Number", s.Number)
	l.opt(prefix+".Status.Code", string(s.Status))
	l.opt(prefix+".Status.Error", s.Error)
	l.opt(prefix+".Status.ErrorDetail", s.ErrorDetail)
	return l
}

// ActionInput is an action.
type ActionInput struct {
	ID, Name, Number string
	// TargetRoles are the target tags that its step goes to.
	TargetRoles []string
	// Skipped tells that a person left it out.
	Skipped         bool
	TemplateID      string
	TemplateVersion string
	Error           string
	ErrorDetail     string
	Packages        []PackageInput
	// Properties are the action's settings, which scripts read under their own
	// names; a secret one is sensitive.
	Properties []Property
}

// Property is a setting of an action.
type Property struct {
	Name, Value string
	Sensitive   bool
}

// PackageInput is a package reference of an action. Name "" is its primary one.
type PackageInput struct {
	Name, PackageID, FeedID, Version string
	// OriginalPath, ExtractedPath, FilePath and FileName are where it lies; ""
	// is not there (yet).
	OriginalPath, ExtractedPath, FilePath, FileName string
	// Image and Registry are those of a container image.
	Image, Registry string
}

// ForAction makes the variables of the running action.
func ForAction(a ActionInput) []Variable {
	l := actionVariables("Octopus.Action", a)
	for _, p := range a.Properties {
		v := Variable{Name: p.Name, Value: p.Value, Sensitive: p.Sensitive, Type: octopus.VariableString, Source: Source{Kind: KindAction, OwnerID: a.ID}}
		if p.Sensitive {
			v.Type = octopus.VariableSensitive
		}
		l = append(l, v)
	}
	return l
}

// OfAction makes the variables by which other steps see an action:
// Octopus.Action[Name].Package.PackageVersion and so on.
func OfAction(a ActionInput) []Variable {
	return actionVariables("Octopus.Action["+a.Name+"]", a)
}

func actionVariables(prefix string, a ActionInput) []Variable {
	var l list
	l.named(prefix, NamedID{a.ID, a.Name})
	l.opt(prefix+".Number", a.Number)
	l.opt(prefix+".TargetRoles", strings.Join(a.TargetRoles, ","))
	if a.Skipped {
		l.add(prefix+".IsSkipped", flag(true))
	}
	l.opt(prefix+".Template.Id", a.TemplateID)
	l.opt(prefix+".Template.Version", a.TemplateVersion)
	l.opt(prefix+".Status.Error", a.Error)
	l.opt(prefix+".Status.ErrorDetail", a.ErrorDetail)
	for _, p := range a.Packages {
		if p.Name == "" {
			l.packageReference(prefix+".Package", p)
		}
		l.packageReference(prefix+".Package["+p.Name+"]", p)
	}
	return l
}

func (l *list) packageReference(prefix string, p PackageInput) {
	l.opt(prefix+".PackageId", p.PackageID)
	l.opt(prefix+".FeedId", p.FeedID)
	l.opt(prefix+".PackageVersion", p.Version)
	l.opt(prefix+".OriginalPath", p.OriginalPath)
	l.opt(prefix+".ExtractedPath", p.ExtractedPath)
	l.opt(prefix+".PackageFilePath", p.FilePath)
	l.opt(prefix+".PackageFileName", p.FileName)
	l.opt(prefix+".Image", p.Image)
	l.opt(prefix+".Registry", p.Registry)
	if p.Image != "" {
		l.opt(prefix+".Version", p.Version)
	}
}
