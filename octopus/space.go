package octopus

// Space is a part of the server with its own projects, environments and
// machines. Nothing in one refers to another.
type Space struct {
	Resource
	Name        string `json:"Name"`
	Slug        string `json:"Slug"`
	Description string `json:"Description"`
	IsDefault   bool   `json:"IsDefault"`
	IsPrivate   bool   `json:"IsPrivate"`
	// TaskQueueStopped keeps new tasks from being started. A space must be
	// stopped before it can be deleted.
	TaskQueueStopped         bool                    `json:"TaskQueueStopped"`
	SpaceManagersTeams       List[string]            `json:"SpaceManagersTeams"`
	SpaceManagersTeamMembers List[string]            `json:"SpaceManagersTeamMembers"`
	PrivateSpaceOwner        NullString              `json:"PrivateSpaceOwner"`
	Icon                     *Icon                   `json:"Icon"`
	ExtensionSettings        List[ExtensionSettings] `json:"ExtensionSettings"`
}
