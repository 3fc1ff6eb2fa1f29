package octopus

// Tenant is a customer or a site that projects are deployed for.
type Tenant struct {
	Resource
	SpaceID     string `json:"SpaceId"`
	Name        string `json:"Name"`
	Slug        string `json:"Slug"`
	Description string `json:"Description"`
	IsDisabled  bool   `json:"IsDisabled"`
	// TenantTags are canonical tag names, "Set/Tag".
	TenantTags List[string] `json:"TenantTags"`
	// ProjectEnvironments has, by project, the environments the tenant is
	// deployed in. Clients write into it as it comes, so it is never null.
	ProjectEnvironments Map[string, List[string]] `json:"ProjectEnvironments"`
	ClonedFromTenantID  NullString                `json:"ClonedFromTenantId"`
	Icon                *Icon                     `json:"Icon"`
}

// TagSetType is how many tags of a set one thing may have.
type TagSetType string

// How many tags of a set one thing may have.
const (
	TagMultiSelect  TagSetType = "MultiSelect"
	TagSingleSelect TagSetType = "SingleSelect"
	// TagFreeText allows tags that the set does not list.
	TagFreeText TagSetType = "FreeText"
)

// TagSetScope is what a tag set is for.
type TagSetScope string

// What a tag set is for.
const (
	TagScopeTenant      TagSetScope = "Tenant"
	TagScopeEnvironment TagSetScope = "Environment"
	TagScopeProject     TagSetScope = "Project"
	TagScopeRunbook     TagSetScope = "Runbook"
	TagScopeTarget      TagSetScope = "Target"
)

// TagSet is a dimension by which things are sorted, such as a region.
type TagSet struct {
	Resource
	SpaceID     string            `json:"SpaceId"`
	Name        string            `json:"Name"`
	Description string            `json:"Description"`
	SortOrder   int               `json:"SortOrder"`
	Scopes      List[TagSetScope] `json:"Scopes"`
	Type        TagSetType        `json:"Type"`
	IsSystem    bool              `json:"IsSystem"`
	Tags        List[Tag]         `json:"Tags"`
}

// Tag is a value of a tag set.
type Tag struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
	// CanonicalTagName is "Set/Tag".
	CanonicalTagName string `json:"CanonicalTagName"`
	// Color is "#RRGGBB".
	Color       string `json:"Color"`
	Description string `json:"Description"`
	SortOrder   int    `json:"SortOrder"`
}

// TenantVariables are all values of a tenant, in the document that older
// clients read and write.
type TenantVariables struct {
	Resource
	SpaceID    string `json:"SpaceId"`
	TenantID   string `json:"TenantId"`
	TenantName string `json:"TenantName"`
	// ProjectVariables are by project id, LibraryVariables by the library
	// set's. Neither is ever null: clients write into them as they come.
	ProjectVariables Map[string, TenantProjectValues] `json:"ProjectVariables"`
	LibraryVariables Map[string, TenantLibraryValues] `json:"LibraryVariables"`
	// ConcurrencyToken changes with every write.
	ConcurrencyToken NullString `json:"ConcurrencyToken"`
}

// TenantProjectValues are a tenant's values of a project's templates.
type TenantProjectValues struct {
	ProjectID   string                  `json:"ProjectId"`
	ProjectName string                  `json:"ProjectName"`
	Templates   List[TemplateParameter] `json:"Templates"`
	// Variables are by environment id, then by template id.
	Variables Map[string, Properties] `json:"Variables"`
	Links     Links                   `json:"Links"`
}

// TenantLibraryValues are a tenant's values of a library set's templates.
type TenantLibraryValues struct {
	LibraryVariableSetID   string                  `json:"LibraryVariableSetId"`
	LibraryVariableSetName string                  `json:"LibraryVariableSetName"`
	Templates              List[TemplateParameter] `json:"Templates"`
	// Variables are by template id.
	Variables Properties `json:"Variables"`
	Links     Links      `json:"Links"`
}

// TenantVariableScope limits a tenant's value to environments; empty means all
// that the tenant is connected to.
type TenantVariableScope struct {
	EnvironmentIDs List[string] `json:"EnvironmentIds"`
}

// TenantCommonVariables are a tenant's values of library sets' templates.
type TenantCommonVariables struct {
	Resource
	TenantID  string                     `json:"TenantId"`
	Variables List[TenantCommonVariable] `json:"Variables"`
	// MissingVariables are listed only when asked for.
	MissingVariables List[TenantCommonVariable] `json:"MissingVariables"`
}

// TenantCommonVariable is a tenant's value of a library set's template.
type TenantCommonVariable struct {
	Resource
	LibraryVariableSetID   string              `json:"LibraryVariableSetId"`
	LibraryVariableSetName string              `json:"LibraryVariableSetName"`
	TemplateID             string              `json:"TemplateId"`
	Template               TemplateParameter   `json:"Template"`
	Value                  PropertyValue       `json:"Value"`
	Scope                  TenantVariableScope `json:"Scope"`
}

// TenantProjectVariables are a tenant's values of projects' templates.
type TenantProjectVariables struct {
	Resource
	TenantID  string                      `json:"TenantId"`
	Variables List[TenantProjectVariable] `json:"Variables"`
	// MissingVariables are listed only when asked for.
	MissingVariables List[TenantProjectVariable] `json:"MissingVariables"`
	// ProjectVariables and MissingProjectVariables repeat them under the names
	// that some clients read.
	ProjectVariables        List[TenantProjectVariable] `json:"ProjectVariables"`
	MissingProjectVariables List[TenantProjectVariable] `json:"MissingProjectVariables"`
}

// TenantProjectVariable is a tenant's value of a project's template.
type TenantProjectVariable struct {
	Resource
	ProjectID   string              `json:"ProjectId"`
	ProjectName string              `json:"ProjectName"`
	TemplateID  string              `json:"TemplateId"`
	Template    TemplateParameter   `json:"Template"`
	Value       PropertyValue       `json:"Value"`
	Scope       TenantVariableScope `json:"Scope"`
}

// TenantCommonVariablesCommand replaces a tenant's values of library sets' templates.
type TenantCommonVariablesCommand struct {
	Variables List[TenantCommonValue] `json:"Variables"`
}

// TenantCommonValue is one of the values to set; ID is "" for a new one.
type TenantCommonValue struct {
	ID                   string              `json:"Id"`
	LibraryVariableSetID string              `json:"LibraryVariableSetId"`
	TemplateID           string              `json:"TemplateId"`
	Value                PropertyValue       `json:"Value"`
	Scope                TenantVariableScope `json:"Scope"`
}

// TenantProjectVariablesCommand replaces a tenant's values of projects' templates.
type TenantProjectVariablesCommand struct {
	Variables List[TenantProjectValue] `json:"Variables"`
}

// TenantProjectValue is one of the values to set; ID is "" for a new one.
type TenantProjectValue struct {
	ID         string              `json:"Id"`
	ProjectID  string              `json:"ProjectId"`
	TemplateID string              `json:"TemplateId"`
	Value      PropertyValue       `json:"Value"`
	Scope      TenantVariableScope `json:"Scope"`
}

// TenantMissingVariables are the values that a tenant lacks.
type TenantMissingVariables struct {
	TenantID         string                `json:"TenantId"`
	MissingVariables List[MissingVariable] `json:"MissingVariables"`
	Links            Links                 `json:"Links"`
}

// MissingVariable is a value that a tenant lacks.
type MissingVariable struct {
	ProjectID            NullString `json:"ProjectId"`
	EnvironmentID        NullString `json:"EnvironmentId"`
	LibraryVariableSetID NullString `json:"LibraryVariableSetId"`
	VariableTemplateID   string     `json:"VariableTemplateId"`
	VariableTemplateName string     `json:"VariableTemplateName"`
	Links                Links      `json:"Links"`
}

// TagTest tells of a tenant whether given tags match it.
type TagTest struct {
	IsMatched   bool         `json:"IsMatched"`
	Reason      NullString   `json:"Reason"`
	MissingTags List[string] `json:"MissingTags"`
}
