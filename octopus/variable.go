package octopus

// VariableType is the kind of a variable's value.
type VariableType string

// Kinds of variables. The value of an account, certificate or pool is its id.
const (
	VariableString        VariableType = "String"
	VariableSensitive     VariableType = "Sensitive"
	VariableCertificate   VariableType = "Certificate"
	VariableAWSAccount    VariableType = "AmazonWebServicesAccount"
	VariableAzureAccount  VariableType = "AzureAccount"
	VariableGoogleAccount VariableType = "GoogleCloudAccount"
	VariableUserAccount   VariableType = "UsernamePasswordAccount"
	VariableOIDCAccount   VariableType = "GenericOidcAccount"
	VariableWorkerPool    VariableType = "WorkerPool"
)

// VariableSet has the variables of a project or of a library set. Its id is
// "variableset-" and the owner's. A snapshot is a copy that a release or a
// runbook snapshot has taken.
type VariableSet struct {
	Resource
	SpaceID string `json:"SpaceId"`
	OwnerID string `json:"OwnerId"`
	// Version counts the changes. A PUT carries the version it was made from
	// and is refused when someone else has changed the set since.
	Version   int            `json:"Version"`
	Variables List[Variable] `json:"Variables"`
	// ScopeValues are what the variables can be scoped to: clients resolve
	// names by it. It is computed and ignored in a PUT.
	ScopeValues ScopeValues `json:"ScopeValues"`
}

// Variable is one value of a named variable. Several values may have one name,
// with different scopes.
type Variable struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
	// Value is null for a sensitive variable; a write with null or "" then
	// keeps the secret that is stored under the same ID.
	Value       *string      `json:"Value"`
	Description NullString   `json:"Description"`
	Type        VariableType `json:"Type"`
	// IsSensitive follows from Type. Clients send Type "Sensitive" with a
	// false here, or a true with Type "String"; either makes the value secret.
	IsSensitive bool            `json:"IsSensitive"`
	IsEditable  bool            `json:"IsEditable"`
	Scope       Scope           `json:"Scope"`
	Prompt      *VariablePrompt `json:"Prompt"`
}

// Text returns the value, "" for null.
func (v Variable) Text() string {
	if v.Value == nil {
		return ""
	}
	return *v.Value
}

// Secret reports whether the value must be kept secret, whichever of the two
// members says so.
func (v Variable) Secret() bool { return v.IsSensitive || v.Type == VariableSensitive }

// VariablePrompt asks for a value when a deployment is made.
type VariablePrompt struct {
	Label           NullString          `json:"Label"`
	Description     NullString          `json:"Description"`
	Required        bool                `json:"Required"`
	DisplaySettings Map[string, string] `json:"DisplaySettings"`
}

// Scope is where a value applies: any of the entries of one member, and all of
// the members that have entries. A scope without entries is {} on the wire and
// applies everywhere.
type Scope struct {
	Environment List[string] `json:"Environment,omitempty"`
	Machine     List[string] `json:"Machine,omitempty"`
	// Role has target tags, by name.
	Role List[string] `json:"Role,omitempty"`
	// Action has ids of actions.
	Action  List[string] `json:"Action,omitempty"`
	Channel List[string] `json:"Channel,omitempty"`
	Tenant  List[string] `json:"Tenant,omitempty"`
	// TenantTag has canonical tag names, "Set/Tag".
	TenantTag List[string] `json:"TenantTag,omitempty"`
	// ProcessOwner has the project's id for its deployment process, and ids
	// of runbooks.
	ProcessOwner List[string] `json:"ProcessOwner,omitempty"`
}

// IsEmpty reports whether the scope applies everywhere.
func (s Scope) IsEmpty() bool {
	return len(s.Environment) == 0 && len(s.Machine) == 0 && len(s.Role) == 0 && len(s.Action) == 0 &&
		len(s.Channel) == 0 && len(s.Tenant) == 0 && len(s.TenantTag) == 0 && len(s.ProcessOwner) == 0
}

// ScopeValues are what the variables of a set can be scoped to.
type ScopeValues struct {
	Environments List[Named] `json:"Environments"`
	Machines     List[Named] `json:"Machines"`
	Actions      List[Named] `json:"Actions"`
	// Roles have their name for an id.
	Roles    List[Named] `json:"Roles"`
	Channels List[Named] `json:"Channels"`
	// TenantTags have their canonical name for an id.
	TenantTags List[Named]        `json:"TenantTags"`
	Processes  List[NamedProcess] `json:"Processes"`
}

// ProcessType tells a project's deployment process from a runbook.
type ProcessType string

// Types of processes.
const (
	ProcessDeployment ProcessType = "Deployment"
	ProcessRunbook    ProcessType = "Runbook"
)

// NamedProcess is a process that variables can be scoped to.
type NamedProcess struct {
	// ID is the project's for its deployment process, else a runbook's.
	ID          string      `json:"Id"`
	Name        string      `json:"Name"`
	ProcessType ProcessType `json:"ProcessType"`
}

// VariableContentType is what a library set is for.
type VariableContentType string

// What a library set is for.
const (
	ContentVariables    VariableContentType = "Variables"
	ContentScriptModule VariableContentType = "ScriptModule"
)

// LibraryVariableSet is a set of variables that projects include, or a script
// module, whose code is a variable of the set.
type LibraryVariableSet struct {
	Resource
	SpaceID       string              `json:"SpaceId"`
	Name          string              `json:"Name"`
	Description   string              `json:"Description"`
	VariableSetID string              `json:"VariableSetId"`
	ContentType   VariableContentType `json:"ContentType"`
	// Templates are the variables whose values each tenant has its own of.
	Templates List[TemplateParameter] `json:"Templates"`
	// Version counts the changes of a script module's code.
	Version int `json:"Version"`
}

// Script modules are variables of library sets: the text of a module stands under its
// name in brackets behind the first prefix, its [ScriptSyntax] behind the second.
const (
	ScriptModulePrefix         = "Octopus.Script.Module["
	ScriptModuleLanguagePrefix = "Octopus.Script.Module.Language["
)

// TemplateParameter is a parameter of a step template, or a variable whose
// value each tenant has its own of.
type TemplateParameter struct {
	ID           string        `json:"Id"`
	Name         string        `json:"Name"`
	Label        string        `json:"Label"`
	HelpText     string        `json:"HelpText"`
	DefaultValue PropertyValue `json:"DefaultValue"`
	// DisplaySettings has the key DisplayControlType, and for a list of
	// choices DisplaySelectOptions.
	DisplaySettings Map[string, string] `json:"DisplaySettings"`
	AllowClear      bool                `json:"AllowClear"`
}

// Keys of display settings.
const (
	DisplayControlType   = "Octopus.ControlType"
	DisplaySelectOptions = "Octopus.SelectOptions" // lines of "value|label"
)

// ControlType is the control by which a value is entered.
type ControlType string

// Controls.
const (
	ControlSingleLine    ControlType = "SingleLineText"
	ControlMultiLine     ControlType = "MultiLineText"
	ControlSelect        ControlType = "Select"
	ControlCheckbox      ControlType = "Checkbox"
	ControlSensitive     ControlType = "Sensitive"
	ControlStepName      ControlType = "StepName"
	ControlPackage       ControlType = "Package"
	ControlAzureAccount  ControlType = "AzureAccount"
	ControlAWSAccount    ControlType = "AmazonWebServicesAccount"
	ControlGoogleAccount ControlType = "GoogleCloudAccount"
	ControlUserAccount   ControlType = "UsernamePasswordAccount"
	ControlCertificate   ControlType = "Certificate"
	ControlWorkerPool    ControlType = "WorkerPool"
	ControlProject       ControlType = "Project"
	ControlEnvironment   ControlType = "Environment"
	ControlChannel       ControlType = "Channel"
	ControlTenant        ControlType = "Tenant"
)
