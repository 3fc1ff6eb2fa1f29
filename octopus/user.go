package octopus

// User is a person or a service account.
type User struct {
	Resource
	Username     string `json:"Username"`
	DisplayName  string `json:"DisplayName"`
	EmailAddress string `json:"EmailAddress"`
	// IsActive is false for a user who can no longer sign in.
	IsActive bool `json:"IsActive"`
	// IsService tells a service account, which has keys but no password.
	IsService           bool `json:"IsService"`
	CanPasswordBeEdited bool `json:"CanPasswordBeEdited"`
	// IsRequestor tells that the user is the one who asked.
	IsRequestor bool `json:"IsRequestor"`
	// Password is written and never read back; unlike other secrets it is a
	// plain text, and absent from answers.
	Password   *PlainSecret   `json:"Password,omitempty"`
	Identities List[Identity] `json:"Identities"`
	Created    *Time          `json:"Created"`
}

// Identity is a user as an external provider knows it.
type Identity struct {
	IdentityProviderName string                     `json:"IdentityProviderName"`
	Claims               Map[string, IdentityClaim] `json:"Claims"`
}

// IdentityClaim is what a provider says about a user.
type IdentityClaim struct {
	Value string `json:"Value"`
	// IsIdentifyingClaim tells that the claim is the user's id at the provider.
	IsIdentifyingClaim bool `json:"IsIdentifyingClaim"`
	// IsServerSideOnly tells that the claim is not shown.
	IsServerSideOnly bool `json:"IsServerSideOnly"`
}

// LoginCommand signs a person in.
type LoginCommand struct {
	Username   string      `json:"Username"`
	Password   PlainSecret `json:"Password"`
	RememberMe bool        `json:"RememberMe"`
	State      LoginState  `json:"State"`
}

// LoginState is what a client knows about its connection.
type LoginState struct {
	RedirectAfterLoginTo  string `json:"RedirectAfterLoginTo,omitempty"`
	UsingSecureConnection bool   `json:"UsingSecureConnection"`
}

// RegisterCommand makes a user from an invitation.
type RegisterCommand struct {
	Username       string      `json:"Username"`
	DisplayName    string      `json:"DisplayName"`
	EmailAddress   string      `json:"EmailAddress"`
	Password       PlainSecret `json:"Password"`
	InvitationCode PlainSecret `json:"InvitationCode"`
}

// APIKeyBase is what both forms of an API key have in common.
type APIKeyBase struct {
	Resource
	Purpose string `json:"Purpose"`
	UserID  string `json:"UserId"`
	Created Time   `json:"Created"`
	// Expires is null for a key that does not.
	Expires *Time `json:"Expires"`
}

// APIKey is a key as it is read: without its secret.
type APIKey struct {
	APIKeyBase
	// APIKey has the first characters of the key for a hint.
	APIKey Sensitive `json:"ApiKey"`
}

// APIKeyCreated is a key as the request that makes it is answered: the only
// time that its secret shows, as a plain text.
type APIKeyCreated struct {
	APIKeyBase
	APIKey PlainSecret `json:"ApiKey"`
}

// APIKeyCommand asks for a new key.
type APIKeyCommand struct {
	Purpose string `json:"Purpose"`
	Expires *Time  `json:"Expires"`
}

// Ids of the teams that every server has.
const (
	TeamEveryone       = "teams-everyone"
	TeamAdministrators = "teams-administrators"
	TeamManagers       = "teams-managers"
)

// Team is a group of users, to whom roles are given.
type Team struct {
	Resource
	// SpaceID is null for a team of the system.
	SpaceID                NullString   `json:"SpaceId"`
	Name                   string       `json:"Name"`
	Slug                   string       `json:"Slug"`
	Description            string       `json:"Description"`
	MemberUserIDs          List[string] `json:"MemberUserIds"`
	ExternalSecurityGroups List[Named]  `json:"ExternalSecurityGroups"`
	CanBeDeleted           bool         `json:"CanBeDeleted"`
	CanBeRenamed           bool         `json:"CanBeRenamed"`
	CanChangeRoles         bool         `json:"CanChangeRoles"`
	CanChangeMembers       bool         `json:"CanChangeMembers"`
}

// UserRole is a set of permissions under a name.
type UserRole struct {
	Resource
	Name                     string           `json:"Name"`
	Description              string           `json:"Description"`
	GrantedSpacePermissions  List[Permission] `json:"GrantedSpacePermissions"`
	GrantedSystemPermissions List[Permission] `json:"GrantedSystemPermissions"`
	// SupportedRestrictions are the dimensions by which the role can be
	// scoped: "Projects", "Environments", "Tenants", "ProjectGroups".
	SupportedRestrictions        List[string] `json:"SupportedRestrictions"`
	SpacePermissionDescriptions  List[string] `json:"SpacePermissionDescriptions"`
	SystemPermissionDescriptions List[string] `json:"SystemPermissionDescriptions"`
	CanBeDeleted                 bool         `json:"CanBeDeleted"`
}

// ScopedUserRole gives a role to a team. Each list limits it in one dimension;
// empty is no limit.
type ScopedUserRole struct {
	Resource
	// SpaceID is null for the permissions that a role grants on the system.
	SpaceID         NullString   `json:"SpaceId"`
	TeamID          string       `json:"TeamId"`
	UserRoleID      string       `json:"UserRoleId"`
	ProjectIDs      List[string] `json:"ProjectIds"`
	ProjectGroupIDs List[string] `json:"ProjectGroupIds"`
	EnvironmentIDs  List[string] `json:"EnvironmentIds"`
	TenantIDs       List[string] `json:"TenantIds"`
}

// UserPermissions is what a user may do.
type UserPermissions struct {
	ID string `json:"Id"`
	// SpacePermissions has, by permission, where it holds: any of the entries.
	SpacePermissions  Map[Permission, List[PermissionRestriction]] `json:"SpacePermissions"`
	SystemPermissions List[Permission]                             `json:"SystemPermissions"`
	Teams             List[TeamReference]                          `json:"Teams"`
	// IsTeamsComplete and IsPermissionsComplete are false where the caller
	// may not see all of it.
	IsTeamsComplete       bool  `json:"IsTeamsComplete"`
	IsPermissionsComplete bool  `json:"IsPermissionsComplete"`
	Links                 Links `json:"Links"`
}

// PermissionRestriction is where a permission holds; an empty list is no limit.
type PermissionRestriction struct {
	SpaceID                     string       `json:"SpaceId"`
	RestrictedToProjectIDs      List[string] `json:"RestrictedToProjectIds"`
	RestrictedToEnvironmentIDs  List[string] `json:"RestrictedToEnvironmentIds"`
	RestrictedToTenantIDs       List[string] `json:"RestrictedToTenantIds"`
	RestrictedToProjectGroupIDs List[string] `json:"RestrictedToProjectGroupIds"`
}

// TeamReference names a team of a user.
type TeamReference struct {
	ID      string     `json:"Id"`
	Name    string     `json:"Name"`
	SpaceID NullString `json:"SpaceId"`
	// IsDirectlyAssigned is false for membership by an external group.
	IsDirectlyAssigned bool         `json:"IsDirectlyAssigned"`
	ExternalGroupNames List[string] `json:"ExternalGroupNames"`
}

// OIDCIdentity lets an external token stand for a service account.
type OIDCIdentity struct {
	Resource
	ServiceAccountID string `json:"ServiceAccountId"`
	Name             string `json:"Name"`
	Issuer           string `json:"Issuer"`
	// Subject may have the wildcards * and ?.
	Subject  string     `json:"Subject"`
	Audience NullString `json:"Audience"`
}

// OIDCIdentities are the identities of a service account; this collection has a
// shape of its own.
type OIDCIdentities struct {
	ServerURL      string             `json:"ServerUrl"`
	ExternalID     string             `json:"ExternalId"`
	Count          int64              `json:"Count"`
	OIDCIdentities List[OIDCIdentity] `json:"OidcIdentities"`
	// Items, TotalResults and Links are there for clients that expect a page.
	Items        List[OIDCIdentity] `json:"Items"`
	TotalResults int64              `json:"TotalResults"`
	Links        Links              `json:"Links"`
}

// TokenRequest exchanges an external token for an access token (RFC 8693).
// Contrary to the RFC it is sent as JSON; its members are in snake case.
type TokenRequest struct {
	GrantType        string      `json:"grant_type"`
	Audience         string      `json:"audience"`
	SubjectTokenType string      `json:"subject_token_type"`
	SubjectToken     PlainSecret `json:"subject_token"`
}

// TokenResponse is an access token.
type TokenResponse struct {
	AccessToken     PlainSecret `json:"access_token"`
	IssuedTokenType string      `json:"issued_token_type"`
	TokenType       string      `json:"token_type"`
	// ExpiresIn is in seconds.
	ExpiresIn int `json:"expires_in"`
}

// TokenError is why there is no access token.
type TokenError struct {
	Error            string `json:"error"`
	ErrorDescription string `json:"error_description"`
}

// OpenIDConfiguration is the discovery document.
type OpenIDConfiguration struct {
	Issuer        string `json:"issuer"`
	TokenEndpoint string `json:"token_endpoint"`
}
