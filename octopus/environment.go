package octopus

import "encoding/json"

// Environment is a place that releases are deployed to, such as Production.
type Environment struct {
	Resource
	SpaceID     string `json:"SpaceId"`
	Name        string `json:"Name"`
	Slug        string `json:"Slug"`
	Description string `json:"Description"`
	// SortOrder is the environment's place on dashboards, and in a lifecycle
	// that names no phases; smaller comes first.
	SortOrder int `json:"SortOrder"`
	// UseGuidedFailure is the default for deployments of projects that leave
	// guided failure to the environment.
	UseGuidedFailure bool `json:"UseGuidedFailure"`
	// AllowDynamicInfrastructure permits scripts to make targets here.
	AllowDynamicInfrastructure bool `json:"AllowDynamicInfrastructure"`
	// EnvironmentTags are canonical tag names, "Set/Tag".
	EnvironmentTags   List[string]            `json:"EnvironmentTags"`
	ExtensionSettings List[ExtensionSettings] `json:"ExtensionSettings"`
}

// ExtensionSettings are an extension's settings on a document; only the
// extension knows what the values mean.
type ExtensionSettings struct {
	ExtensionID string          `json:"ExtensionId"`
	Values      json.RawMessage `json:"Values"`
}

// EnvironmentType tells the kinds of environments apart.
type EnvironmentType string

// The kinds of environments.
const (
	// EnvironmentStatic is made by people and stays.
	EnvironmentStatic EnvironmentType = "Static"
	// EnvironmentParent groups ephemeral environments and has the rules for them.
	EnvironmentParent EnvironmentType = "Parent"
	// EnvironmentEphemeral lives as long as the branch or pull request it is for.
	EnvironmentEphemeral EnvironmentType = "Ephemeral"
)

// EnvironmentV2 is a row of environments/v2, which lists environments of every type.
type EnvironmentV2 struct {
	Resource
	SpaceID                    string          `json:"SpaceId"`
	Name                       string          `json:"Name"`
	Slug                       string          `json:"Slug"`
	Description                string          `json:"Description"`
	Type                       EnvironmentType `json:"Type"`
	SortOrder                  int             `json:"SortOrder"`
	UseGuidedFailure           bool            `json:"UseGuidedFailure"`
	AllowDynamicInfrastructure bool            `json:"AllowDynamicInfrastructure"`
	EnvironmentTags            List[string]    `json:"EnvironmentTags"`
	// ParentEnvironmentID is set for ephemeral environments only.
	ParentEnvironmentID NullString              `json:"ParentEnvironmentId"`
	ExtensionSettings   List[ExtensionSettings] `json:"ExtensionSettings"`
}

// ParentEnvironment has the rules for the ephemeral environments below it.
type ParentEnvironment struct {
	Resource
	SpaceID          string `json:"SpaceId"`
	Name             string `json:"Name"`
	Slug             string `json:"Slug"`
	Description      string `json:"Description"`
	SortOrder        int    `json:"SortOrder"`
	UseGuidedFailure bool   `json:"UseGuidedFailure"`
	// AutomaticDeprovisioningRule is null where children stay until someone
	// removes them.
	AutomaticDeprovisioningRule *DeprovisioningRule `json:"AutomaticDeprovisioningRule"`
}

// DeprovisioningRule is how long an ephemeral environment lives without a
// deployment: the sum of both members.
type DeprovisioningRule struct {
	ExpiryDays  int `json:"ExpiryDays"`
	ExpiryHours int `json:"ExpiryHours"`
}

// EnvironmentsSummary counts the machines of a space's environments.
type EnvironmentsSummary struct {
	MachineCounts
	// MachineIDsForCalamariUpgrade are targets whose tools are out of date.
	MachineIDsForCalamariUpgrade List[string]             `json:"MachineIdsForCalamariUpgrade"`
	MachineIDsForTentacleUpgrade List[string]             `json:"MachineIdsForTentacleUpgrade"`
	TentacleUpgradesRequired     bool                     `json:"TentacleUpgradesRequired"`
	EnvironmentSummaries         List[EnvironmentSummary] `json:"EnvironmentSummaries"`
	Links                        Links                    `json:"Links"`
}

// EnvironmentSummary counts the machines of one environment.
type EnvironmentSummary struct {
	Environment Environment `json:"Environment"`
	MachineCounts
	MachineIDsForCalamariUpgrade List[string] `json:"MachineIdsForCalamariUpgrade"`
	MachineIDsForTentacleUpgrade List[string] `json:"MachineIdsForTentacleUpgrade"`
	TentacleUpgradesRequired     bool         `json:"TentacleUpgradesRequired"`
	Links                        Links        `json:"Links"`
}

// MachineCounts are how many machines there are, by several properties.
type MachineCounts struct {
	TotalMachines         int `json:"TotalMachines"`
	TotalDisabledMachines int `json:"TotalDisabledMachines"`
	// MachineHealthStatusSummaries counts by [HealthStatus].
	MachineHealthStatusSummaries Map[string, int] `json:"MachineHealthStatusSummaries"`
	// MachineEndpointSummaries counts by [CommunicationStyle].
	MachineEndpointSummaries Map[string, int] `json:"MachineEndpointSummaries"`
	// MachineTenantSummaries counts by tenant id.
	MachineTenantSummaries Map[string, int] `json:"MachineTenantSummaries"`
	// MachineTenantTagSummaries counts by canonical tag name.
	MachineTenantTagSummaries Map[string, int] `json:"MachineTenantTagSummaries"`
}
