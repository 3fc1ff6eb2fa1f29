package octopus

// RegistrationToken lets agents register themselves, in one space and as it says,
// without the key of a person. Of the members that say how, a target has
// EnvironmentIDs to TenantTags, a worker WorkerPoolIDs.
type RegistrationToken struct {
	Resource
	SpaceID string `json:"SpaceId"`
	RegistrationScope
	// Hint is the beginning of the token, to recognise it by.
	Hint string `json:"Hint"`
	// Uses is how many agents it registers in all, Used how many it has.
	Uses    int  `json:"Uses"`
	Used    int  `json:"Used"`
	Created Time `json:"Created"`
	Expires Time `json:"Expires"`
	// UserID is who made it: agents register with that user's permissions.
	UserID string `json:"UserId"`
}

// RegistrationScope is what a machine becomes that registers with a token.
type RegistrationScope struct {
	EnvironmentIDs List[string] `json:"EnvironmentIds"`
	// Roles are the target's tags.
	Roles                           List[string]           `json:"Roles"`
	TenantedDeploymentParticipation TenantedDeploymentMode `json:"TenantedDeploymentParticipation"`
	TenantIDs                       List[string]           `json:"TenantIds"`
	TenantTags                      List[string]           `json:"TenantTags"`
	WorkerPoolIDs                   List[string]           `json:"WorkerPoolIds"`
	// MachinePolicyID is the default policy's where it is empty.
	MachinePolicyID string `json:"MachinePolicyId"`
}

// RegistrationTokenCommand asks for a token.
type RegistrationTokenCommand struct {
	RegistrationScope
	// Uses is how many agents it is to register: 1 unless set.
	Uses int `json:"Uses"`
	// Minutes is how long it is to be good: an hour unless set, a day at most.
	Minutes int `json:"Minutes"`
}

// RegistrationTokenCreated is a token with its secret, which is shown this once.
type RegistrationTokenCreated struct {
	RegistrationToken
	Token PlainSecret `json:"Token"`
	// Commands are ready to be run on the machine that is to be registered.
	Commands List[RegistrationCommandLine] `json:"Commands"`
}

// RegistrationCommandLine registers the machine that it is run on.
type RegistrationCommandLine struct {
	// Platform is "Linux".
	Platform           string             `json:"Platform"`
	CommunicationStyle CommunicationStyle `json:"CommunicationStyle"`
	// Command has the token in it.
	Command PlainSecret `json:"Command"`
}

// RegistrationCommand is sent by an agent that registers itself.
type RegistrationCommand struct {
	Token PlainSecret `json:"Token"`
	// Name is what the machine is to be called.
	Name string `json:"Name"`
	// Endpoint is how the agent is reached: its style, address and thumbprint.
	Endpoint Endpoint `json:"Endpoint"`
}

// Registration is what became of a [RegistrationCommand].
type Registration struct {
	SpaceID string `json:"SpaceId"`
	// MachineID is a target's or a worker's.
	MachineID string `json:"MachineId"`
	Name      string `json:"Name"`
	// Thumbprint is of the certificate by which the agent knows the server.
	Thumbprint string `json:"Thumbprint"`
}
