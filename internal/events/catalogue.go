package events

import (
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// Category is what kind of thing an event tells of.
type Category struct{ ID, Name string }

// Group is several categories under one name, for filters.
type Group struct {
	ID, Name   string
	Categories []string
}

// Agent is a kind of program by which things are done.
type Agent struct {
	ID, Name string
	like     string // of its User-Agent, in lower case
}

// DocumentType is a kind of documents that events tell of.
type DocumentType struct {
	// ID is the prefix of the kind's ids.
	ID, Name string
}

// interruptionRaised is the category of questions of any kind.
const interruptionRaised octopus.EventCategory = "InterruptionRaised"

// Groups lists the groups. appliesTo cuts them to those of one kind of thing
// ("Machine"); "" is all.
func Groups(appliesTo string) []Group {
	group := func(id string, categories ...octopus.EventCategory) Group {
		g := Group{ID: id, Name: title(id)}
		for _, c := range categories {
			g.Categories = append(g.Categories, string(c))
		}
		return g
	}
	all := []Group{
		group("Backup", octopus.EventBackupSucceeded, octopus.EventBackupFailed, octopus.EventBackupOverdue),
		group("Certificate", octopus.EventCertificateExpires20Days, octopus.EventCertificateExpires10Days, octopus.EventCertificateExpired),
		group("Deployment", octopus.EventDeploymentQueued, octopus.EventDeploymentStarted, octopus.EventDeploymentResumed, octopus.EventDeploymentSucceeded, octopus.EventDeploymentFailed),
		group("Disk", octopus.EventDiskFull),
		group("Document", octopus.EventCreated, octopus.EventModified, octopus.EventDeleted, octopus.EventCloned),
		group("Interruption", interruptionRaised, octopus.EventGuidedFailureRaised, octopus.EventManualRaised, octopus.EventInterruptionSubmitted),
		group("Login", octopus.EventLoginSucceeded, octopus.EventLoginFailed),
		group("Machine", octopus.EventMachineAdded, octopus.EventMachineEnabled, octopus.EventMachineDisabled, octopus.EventMachineRoleChanged, octopus.EventMachineDeploymentState,
			octopus.EventMachineHealthy, octopus.EventMachineHasWarnings, octopus.EventMachineUnhealthy, octopus.EventMachineUnavailable, octopus.EventMachineDeleted, octopus.EventMachineCleanupFailed),
		group("MachineAvailableForDeployment", octopus.EventMachineAdded, octopus.EventMachineEnabled, octopus.EventMachineHealthy, octopus.EventMachineHasWarnings, octopus.EventMachineDeploymentState),
		group("MachineCritical", octopus.EventMachineUnhealthy, octopus.EventMachineUnavailable),
		group("MachineHealth", octopus.EventMachineHealthy, octopus.EventMachineHasWarnings, octopus.EventMachineUnhealthy, octopus.EventMachineUnavailable),
		group("MachineHealthChanged", octopus.EventMachineHealthy, octopus.EventMachineHasWarnings, octopus.EventMachineUnhealthy, octopus.EventMachineUnavailable),
		group("MachineUnavailableForDeployment", octopus.EventMachineDisabled, octopus.EventMachineUnhealthy, octopus.EventMachineUnavailable),
		group("Package", octopus.EventPackagePushed),
		group("RunbookRun", octopus.EventRunbookRunQueued, octopus.EventRunbookRunStarted, octopus.EventRunbookRunSucceeded, octopus.EventRunbookRunFailed),
		group("Retention", octopus.EventRetentionApplied),
		group("Trigger", octopus.EventTriggerFired, octopus.EventTriggerSkipped, octopus.EventTriggerFailed),
		group("Task", octopus.EventTaskQueued, octopus.EventTaskStarted, octopus.EventTaskCanceled, octopus.EventTaskCompleted),
		group("Upgrade", octopus.EventUpgradeStarted, octopus.EventUpgradeRequested, octopus.EventUpgradeChecked, octopus.EventUpgradeBundleUploaded),
	}
	return slices.DeleteFunc(all, func(g Group) bool { return !hasPrefix(g.ID, appliesTo) })
}

// Categories lists the categories, each of which is in a group. appliesTo cuts
// them to those of one kind of thing ("Machine"); "" is all.
func Categories(appliesTo string) []Category {
	names := map[string]bool{}
	for _, g := range Groups("") {
		for _, c := range g.Categories {
			names[c] = hasPrefix(c, appliesTo)
		}
	}
	var all []Category
	for _, id := range slices.Sorted(maps.Keys(names)) {
		if names[id] {
			all = append(all, Category{ID: id, Name: title(id)})
		}
	}
	return all
}

// Agents lists the programs that can be told apart.
func Agents() []Agent {
	return []Agent{
		{"Browser", "Browsers", "mozilla/%"},
		{"CommandLine", "Command line", "%octopus-cli%"},
		{"GoClient", "Go clients", "go-octopusdeploy/%"},
		{"Server", "The server itself", ""},
		{"Tentacle", "Tentacles", "%tentacle%"},
		{"Terraform", "Terraform", "%terraform%"},
		{"TypeScriptClient", "TypeScript clients", "ts-octopusdeploy%"},
	}
}

// unkinded are documents with tables of their own, by the prefix of their ids.
func unkinded() map[string]string {
	return map[string]string{
		"apikeys": "ApiKey", "Artifacts": "Artifact", "Deployments": "Deployment", "Interruptions": "Interruption",
		"OctopusServerNodes": "OctopusServerNode", "packages": "Package", "RegistrationTokens": "RegistrationToken", "Releases": "Release", "ServerTasks": "ServerTask",
	}
}

// DocumentTypes lists what events can be about, by name.
func (t *Trail) DocumentTypes() []DocumentType {
	types := map[string]string{}
	for prefix, item := range unkinded() {
		types[prefix] = title(item)
	}
	for _, k := range t.kinds {
		if !k.Unaudited {
			types[k.Prefix] = strings.ToUpper(k.Noun[:1]) + k.Noun[1:]
		}
	}
	all := make([]DocumentType, 0, len(types))
	for prefix, name := range types {
		all = append(all, DocumentType{ID: prefix, Name: name})
	}
	slices.SortFunc(all, func(a, b DocumentType) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// itemTypes finds how events name the documents of a type; its id, or that name
// itself, says which.
func (t *Trail) itemTypes(id string) []string {
	var types []string
	add := func(prefix, item string) {
		if (strings.EqualFold(prefix, id) || strings.EqualFold(item, id)) && !slices.Contains(types, item) {
			types = append(types, item)
		}
	}
	for prefix, item := range unkinded() {
		add(prefix, item)
	}
	for _, k := range t.kinds {
		add(k.Prefix, k.ItemType)
	}
	slices.Sort(types)
	return types
}

// Path is where a document is served below its space, "" when nobody knows.
func (t *Trail) Path(id string) string {
	for _, k := range t.kinds {
		if !k.Hidden && len(id) > len(k.Prefix) && id[len(k.Prefix)] == '-' && strings.EqualFold(id[:len(k.Prefix)], k.Prefix) {
			return "/" + k.Name + "/" + id
		}
	}
	for prefix, path := range map[string]string{"Deployments": "deployments", "Releases": "releases", "ServerTasks": "tasks"} {
		if strings.HasPrefix(id, prefix+"-") {
			return "/" + path + "/" + id
		}
	}
	return ""
}

func hasPrefix(id, prefix string) bool {
	return len(id) >= len(prefix) && strings.EqualFold(id[:len(prefix)], prefix)
}

// title makes words of a name: "DeploymentQueued" is "Deployment queued".
func title(id string) string {
	var b strings.Builder
	for i, r := range id {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte(' ')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
