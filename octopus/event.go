package octopus

import "encoding/json"

// EventCategory is what kind of thing an event tells of.
type EventCategory string

// Categories of events.
const (
	EventCreated                EventCategory = "Created"
	EventModified               EventCategory = "Modified"
	EventDeleted                EventCategory = "Deleted"
	EventCloned                 EventCategory = "Cloned"
	EventDeploymentQueued       EventCategory = "DeploymentQueued"
	EventDeploymentStarted      EventCategory = "DeploymentStarted"
	EventDeploymentResumed      EventCategory = "DeploymentResumed"
	EventDeploymentSucceeded    EventCategory = "DeploymentSucceeded"
	EventDeploymentFailed       EventCategory = "DeploymentFailed"
	EventRunbookRunQueued       EventCategory = "RunbookRunQueued"
	EventRunbookRunStarted      EventCategory = "RunbookRunStarted"
	EventRunbookRunSucceeded    EventCategory = "RunbookRunSucceeded"
	EventRunbookRunFailed       EventCategory = "RunbookRunFailed"
	EventGuidedFailureRaised    EventCategory = "GuidedFailureInterruptionRaised"
	EventManualRaised           EventCategory = "ManualInterventionInterruptionRaised"
	EventInterruptionSubmitted  EventCategory = "InterruptionSubmitted"
	EventTaskQueued             EventCategory = "TaskQueued"
	EventTaskStarted            EventCategory = "TaskStarted"
	EventTaskCanceled           EventCategory = "TaskCanceled"
	EventTaskCompleted          EventCategory = "TaskCompleted"
	EventMachineAdded           EventCategory = "MachineAdded"
	EventMachineHealthy         EventCategory = "MachineHealthy"
	EventMachineUnhealthy       EventCategory = "MachineUnhealthy"
	EventMachineUnavailable     EventCategory = "MachineUnavailable"
	EventMachineHasWarnings     EventCategory = "MachineHasWarnings"
	EventMachineEnabled         EventCategory = "MachineEnabled"
	EventMachineDisabled        EventCategory = "MachineDisabled"
	EventMachineRoleChanged     EventCategory = "MachineRoleChanged"
	EventMachineDeploymentState EventCategory = "MachineDeploymentRelatedPropertyWasUpdated"
	// EventMachineDeleted tells of a machine that its policy has removed, and
	// EventMachineCleanupFailed of one that it could not remove.
	EventMachineDeleted       EventCategory = "MachineDeleted"
	EventMachineCleanupFailed EventCategory = "MachineCleanupFailed"
	// EventCertificateExpires20Days and EventCertificateExpires10Days warn of a
	// certificate that is about to expire.
	EventCertificateExpires20Days EventCategory = "CertificateExpires20Days"
	EventCertificateExpires10Days EventCategory = "CertificateExpires10Days"
	EventCertificateExpired       EventCategory = "CertificateExpired"
	EventLoginSucceeded           EventCategory = "LoginSucceeded"
	EventLoginFailed              EventCategory = "LoginFailed"
	EventPackagePushed            EventCategory = "PackagePushed"
	// EventTriggerFired, EventTriggerSkipped and EventTriggerFailed say what became
	// of a trigger that was set off.
	EventTriggerFired   EventCategory = "TriggerFired"
	EventTriggerSkipped EventCategory = "TriggerSkipped"
	EventTriggerFailed  EventCategory = "TriggerFailed"
	// EventRetentionApplied says what retention has deleted.
	EventRetentionApplied EventCategory = "RetentionPolicyApplied"
	// EventUpgradeStarted tells that somebody has started an upgrade of the server,
	// EventUpgradeRequested that they want something of one (to go back, say), and
	// EventUpgradeChecked that they had it looked what there is, or what speaks against it.
	EventUpgradeStarted   EventCategory = "UpgradeStarted"
	EventUpgradeRequested EventCategory = "UpgradeRequested"
	EventUpgradeChecked   EventCategory = "UpgradeChecked"
	// EventUpgradeBundleUploaded tells that somebody has sent a bundle with a release.
	EventUpgradeBundleUploaded EventCategory = "UpgradeBundleUploaded"
	// EventBackupSucceeded tells of a backup that was taken or proven,
	// EventBackupFailed of a scheduled one that failed or was skipped, and
	// EventBackupOverdue that the last one that was proven is too old.
	EventBackupSucceeded EventCategory = "BackupSucceeded"
	EventBackupFailed    EventCategory = "BackupFailed"
	EventBackupOverdue   EventCategory = "BackupOverdue"
	// EventDiskFull warns that a server goes on with what was kept in reserve.
	EventDiskFull EventCategory = "DiskFull"
)

// Event is a record of something that happened; it is never changed.
type Event struct {
	Resource
	// SpaceID is null for events of the system.
	SpaceID  NullString    `json:"SpaceId"`
	Category EventCategory `json:"Category"`
	UserID   string        `json:"UserId"`
	Username string        `json:"Username"`
	// IsService tells that the user is a service account.
	IsService bool `json:"IsService"`
	// IdentityEstablishedWith is how the user signed in: "Session cookie",
	// "API key"...
	IdentityEstablishedWith NullString `json:"IdentityEstablishedWith"`
	UserAgent               NullString `json:"UserAgent"`
	IPAddress               NullString `json:"IpAddress"`
	Occurred                Time       `json:"Occurred"`
	Message                 string     `json:"Message"`
	// MessageHTML is Message with links.
	MessageHTML string `json:"MessageHtml"`
	// MessageReferences are the places in Message that name documents.
	MessageReferences List[EventReference] `json:"MessageReferences"`
	// RelatedDocumentIDs are what the event is about; they may be gone.
	RelatedDocumentIDs List[string] `json:"RelatedDocumentIds"`
	Comments           NullString   `json:"Comments"`
	// Details is a difference as HTML, for older clients.
	Details       NullString     `json:"Details"`
	ChangeDetails *ChangeDetails `json:"ChangeDetails"`
}

// EventReference is a place in a message that names a document, in UTF-16 units.
type EventReference struct {
	ReferencedDocumentID string `json:"ReferencedDocumentId"`
	StartIndex           int    `json:"StartIndex"`
	Length               int    `json:"Length"`
}

// ChangeDetails is how a document was changed.
type ChangeDetails struct {
	// DocumentContext is the document as it was before; null for a new one.
	DocumentContext json.RawMessage `json:"DocumentContext"`
	// Differences are a JSON patch (RFC 6902). A secret's value never shows.
	Differences json.RawMessage `json:"Differences"`
}

// EventGroup is several categories under one name.
type EventGroup struct {
	ID              string              `json:"Id"`
	Name            string              `json:"Name"`
	EventCategories List[EventCategory] `json:"EventCategories"`
	Links           Links               `json:"Links"`
}

// EventCategoryInfo is a category with its name for people.
type EventCategoryInfo struct {
	ID    EventCategory `json:"Id"`
	Name  string        `json:"Name"`
	Links Links         `json:"Links"`
}

// EventDocumentType is a kind of documents that events tell of.
type EventDocumentType struct {
	// ID is the prefix of the kind's ids.
	ID    string `json:"Id"`
	Name  string `json:"Name"`
	Links Links  `json:"Links"`
}

// EventAgent is a kind of clients by which things are done.
type EventAgent struct {
	ID    string `json:"Id"`
	Name  string `json:"Name"`
	Links Links  `json:"Links"`
}

// Subscription sends events out, by mail or to a webhook.
type Subscription struct {
	Resource
	// SpaceID is null for a subscription to the events of all spaces.
	SpaceID                       NullString                    `json:"SpaceId"`
	Name                          string                        `json:"Name"`
	Type                          SubscriptionType              `json:"Type"`
	IsDisabled                    bool                          `json:"IsDisabled"`
	EventNotificationSubscription EventNotificationSubscription `json:"EventNotificationSubscription"`
}

// SubscriptionType is what a subscription sends.
type SubscriptionType string

// SubscriptionEvents sends events; there is no other type.
const SubscriptionEvents SubscriptionType = "Event"

// EmailPriority is how urgent a mail says it is.
type EmailPriority string

// How urgent a mail says it is.
const (
	EmailLow    EmailPriority = "Low"
	EmailNormal EmailPriority = "Normal"
	EmailHigh   EmailPriority = "High"
)

// EventNotificationSubscription is what events are sent, where and when. The
// members LastProcessed are kept by the server.
type EventNotificationSubscription struct {
	Filter SubscriptionFilter `json:"Filter"`

	EmailTeams                          List[string]  `json:"EmailTeams"`
	EmailFrequencyPeriod                TimeSpan      `json:"EmailFrequencyPeriod"`
	EmailPriority                       EmailPriority `json:"EmailPriority"`
	EmailShowDatesInTimeZoneID          NullString    `json:"EmailShowDatesInTimeZoneId"`
	EmailDigestLastProcessed            *Time         `json:"EmailDigestLastProcessed"`
	EmailDigestLastProcessedEventAutoID *int64        `json:"EmailDigestLastProcessedEventAutoId"`

	WebhookURI         NullString    `json:"WebhookURI"`
	WebhookTeams       List[string]  `json:"WebhookTeams"`
	WebhookTimeout     TimeSpan      `json:"WebhookTimeout"`
	WebhookHeaderKey   NullString    `json:"WebhookHeaderKey"`
	WebhookHeaderValue PropertyValue `json:"WebhookHeaderValue"`
	// WebhookSecret signs what is posted, if there is one.
	WebhookSecret                   Sensitive `json:"WebhookSecret"`
	WebhookLastProcessed            *Time     `json:"WebhookLastProcessed"`
	WebhookLastProcessedEventAutoID *int64    `json:"WebhookLastProcessedEventAutoId"`

	SlackChannelIDs                     List[string]       `json:"SlackChannelIds"`
	SlackChannelNames                   List[string]       `json:"SlackChannelNames"`
	SlackFrequencyPeriod                TimeSpan           `json:"SlackFrequencyPeriod"`
	SlackDigestFormat                   NullString         `json:"SlackDigestFormat"`
	TeamsChannels                       List[TeamsChannel] `json:"TeamsChannels"`
	TeamsFrequencyPeriod                TimeSpan           `json:"TeamsFrequencyPeriod"`
	TeamsDigestLastProcessed            *Time              `json:"TeamsDigestLastProcessed"`
	TeamsDigestLastProcessedEventAutoID *int64             `json:"TeamsDigestLastProcessedEventAutoId"`
}

// TeamsChannel is a channel of Microsoft Teams.
type TeamsChannel struct {
	ID         string        `json:"Id"`
	Type       NullString    `json:"Type"`
	Name       string        `json:"Name"`
	WebhookURL PropertyValue `json:"WebhookUrl"`
}

// SubscriptionFilter is which events a subscription sends. An event must match
// every member; an empty member matches all.
type SubscriptionFilter struct {
	Users           List[string]        `json:"Users"`
	Projects        List[string]        `json:"Projects"`
	ProjectGroups   List[string]        `json:"ProjectGroups"`
	Environments    List[string]        `json:"Environments"`
	EventGroups     List[string]        `json:"EventGroups"`
	EventCategories List[EventCategory] `json:"EventCategories"`
	EventAgents     List[string]        `json:"EventAgents"`
	Tenants         List[string]        `json:"Tenants"`
	Tags            List[string]        `json:"Tags"`
	DocumentTypes   List[string]        `json:"DocumentTypes"`
}

// WebhookPayload is what is posted to a subscription's webhook.
type WebhookPayload struct {
	Timestamp Time             `json:"Timestamp"`
	EventType string           `json:"EventType"` // "SubscriptionPayload"
	Payload   WebhookEventBody `json:"Payload"`
}

// WebhookEventBody is an event and the subscription that sends it.
type WebhookEventBody struct {
	// ServerURI and ServerAuditURI are null when nobody has said where people reach
	// the server.
	ServerURI      NullString   `json:"ServerUri"`
	ServerAuditURI NullString   `json:"ServerAuditUri"`
	Subscription   Subscription `json:"Subscription"`
	Event          Event        `json:"Event"`
	// Events are looked for in batches; these say which one the event is of.
	BatchProcessingDate Time   `json:"BatchProcessingDate"`
	BatchID             string `json:"BatchId"`
	TotalEventsInBatch  int    `json:"TotalEventsInBatch"`
	EventNumberInBatch  int    `json:"EventNumberInBatch"`
}

// SubscriptionDelivery is an attempt to send something to a subscriber.
type SubscriptionDelivery struct {
	ID             string `json:"Id"`
	SubscriptionID string `json:"SubscriptionId"`
	// Channel is Webhook or Email.
	Channel string `json:"Channel"`
	// DeliveryID is the same for all attempts to send the same.
	DeliveryID   string   `json:"DeliveryId"`
	FirstEventID string   `json:"FirstEventId"`
	LastEventID  string   `json:"LastEventId"`
	Occurred     Time     `json:"Occurred"`
	Duration     TimeSpan `json:"Duration"`
	Attempt      int64    `json:"Attempt"`
	// Outcome is Delivered, Failed (it is tried again) or GivenUp.
	Outcome string `json:"Outcome"`
	// Status is that of a webhook's answer, 0 if there was none.
	Status int64 `json:"Status"`
	// Recipient is the user that an e-mail was for.
	Recipient NullString `json:"Recipient"`
	Message   string     `json:"Message"`
	Links     Links      `json:"Links"`
}
