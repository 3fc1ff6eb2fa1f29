package octopus

import "encoding/json"

// ActionTemplate is a step template: an action with parameters. A step that is
// made from it is a copy that remembers the template's id and version.
type ActionTemplate struct {
	Resource
	SpaceID     string     `json:"SpaceId"`
	Name        string     `json:"Name"`
	Description NullString `json:"Description"`
	ActionType  ActionType `json:"ActionType"`
	// Version counts the changes.
	Version int `json:"Version"`
	// CommunityActionTemplateID is what the template was installed from.
	CommunityActionTemplateID NullString              `json:"CommunityActionTemplateId"`
	Properties                Properties              `json:"Properties"`
	Packages                  List[PackageReference]  `json:"Packages"`
	GitDependencies           List[GitDependency]     `json:"GitDependencies"`
	Parameters                List[TemplateParameter] `json:"Parameters"`
	StepPackageID             string                  `json:"StepPackageId,omitempty"`
	StepPackageVersion        string                  `json:"StepPackageVersion,omitempty"`
	Inputs                    json.RawMessage         `json:"Inputs,omitempty"`
}

// ActionTemplateCategory is a group in which step types are shown.
type ActionTemplateCategory struct {
	ID           string `json:"Id"`
	Name         string `json:"Name"`
	DisplayOrder int    `json:"DisplayOrder"`
	Links        Links  `json:"Links"`
}

// ActionTemplateSearch is a step type or template that a process can use.
type ActionTemplateSearch struct {
	ID          string       `json:"Id"`
	Name        string       `json:"Name"`
	Description NullString   `json:"Description"`
	Type        ActionType   `json:"Type"`
	Keywords    NullString   `json:"Keywords"`
	Author      NullString   `json:"Author"`
	Website     NullString   `json:"Website"`
	Categories  List[string] `json:"Categories"`
	// Category is the first of Categories.
	Category    NullString `json:"Category"`
	IsInstalled bool       `json:"IsInstalled"`
	IsBuiltIn   bool       `json:"IsBuiltIn"`
	HasUpdate   bool       `json:"HasUpdate"`
	// CommunityActionTemplateID is set for templates of the community's library.
	CommunityActionTemplateID NullString `json:"CommunityActionTemplateId"`
	Version                   NullString `json:"Version"`
	Links                     Links      `json:"Links"`
}

// ActionTemplateUsage is a step that was made from a template.
type ActionTemplateUsage struct {
	Resource
	ActionTemplateID    string     `json:"ActionTemplateId"`
	DeploymentProcessID NullString `json:"DeploymentProcessId"`
	ProcessID           string     `json:"ProcessId"`
	// ProcessType tells a deployment process from a runbook's.
	ProcessType ProcessType `json:"ProcessType"`
	ActionID    string      `json:"ActionId"`
	ActionName  string      `json:"ActionName"`
	StepID      string      `json:"StepId"`
	StepName    string      `json:"StepName"`
	ProjectID   string      `json:"ProjectId"`
	ProjectName string      `json:"ProjectName"`
	ProjectSlug string      `json:"ProjectSlug"`
	RunbookID   NullString  `json:"RunbookId"`
	RunbookName NullString  `json:"RunbookName"`
	// Version is the template's version that the step was made from.
	Version string `json:"Version"`
}

// CommunityActionTemplate is a template of the public library.
type CommunityActionTemplate struct {
	Resource
	Name        string     `json:"Name"`
	Type        ActionType `json:"Type"`
	Author      NullString `json:"Author"`
	Description NullString `json:"Description"`
	Category    NullString `json:"Category"`
	Website     NullString `json:"Website"`
	HistoryURL  NullString `json:"HistoryUrl"`
	// ExternalID is a UUID.
	ExternalID NullString              `json:"ExternalId"`
	Version    int                     `json:"Version"`
	Properties Properties              `json:"Properties"`
	Packages   List[PackageReference]  `json:"Packages"`
	Parameters List[TemplateParameter] `json:"Parameters"`
}
