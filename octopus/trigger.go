package octopus

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Trigger does something for a project when something else happens.
type Trigger struct {
	Resource
	SpaceID     string        `json:"SpaceId"`
	ProjectID   string        `json:"ProjectId"`
	Name        string        `json:"Name"`
	Description string        `json:"Description"`
	IsDisabled  bool          `json:"IsDisabled"`
	Filter      TriggerFilter `json:"Filter"`
	Action      TriggerAction `json:"Action"`
}

// FilterType is what sets a trigger off; it tells what the rest of the filter means.
type FilterType string

// What sets a trigger off.
const (
	FilterMachine         FilterType = "MachineFilter"
	FilterOnceDaily       FilterType = "OnceDailySchedule"
	FilterContinuousDaily FilterType = "ContinuousDailySchedule"
	FilterDaily           FilterType = "DailySchedule"
	FilterDaysPerWeek     FilterType = "DaysPerWeekSchedule"
	FilterDaysPerMonth    FilterType = "DaysPerMonthSchedule"
	FilterCron            FilterType = "CronExpressionSchedule"
	FilterFeed            FilterType = "FeedFilter"
	// FilterArcFeed is a push to the built-in repository.
	FilterArcFeed FilterType = "ArcFeedFilter"
	FilterGit     FilterType = "GitFilter"
	FilterWebhook FilterType = "WebhookFilter"
)

// Weekday is a day of the week, by its English name.
type Weekday string

// Days of the week.
const (
	Monday    Weekday = "Monday"
	Tuesday   Weekday = "Tuesday"
	Wednesday Weekday = "Wednesday"
	Thursday  Weekday = "Thursday"
	Friday    Weekday = "Friday"
	Saturday  Weekday = "Saturday"
	Sunday    Weekday = "Sunday"
)

// Weekdays are several days of the week.
type Weekdays []Weekday

// MarshalJSON writes the names as an array, [] for nil.
func (w Weekdays) MarshalJSON() ([]byte, error) { return List[Weekday](w).MarshalJSON() }

// UnmarshalJSON reads an array of names, or one text with commas between them
// ("Monday, Friday") as some clients send.
func (w *Weekdays) UnmarshalJSON(data []byte) error {
	if firstByte(data) != '"' {
		var days []Weekday
		if err := json.Unmarshal(data, &days); err != nil {
			return fmt.Errorf("days of the week: want an array of names such as [\"Monday\"]")
		}
		*w = days
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	days := Weekdays{}
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			days = append(days, Weekday(name))
		}
	}
	*w = days
	return nil
}

// ScheduleRunType is whether a daily schedule runs once or all day long.
type ScheduleRunType string

// Whether a daily schedule runs once or all day long.
const (
	RunScheduledTime ScheduleRunType = "ScheduledTime"
	RunContinuously  ScheduleRunType = "Continuously"
)

// ScheduleInterval is the unit in which a schedule repeats.
type ScheduleInterval string

// The units in which a schedule repeats.
const (
	IntervalOnceDaily    ScheduleInterval = "OnceDaily"
	IntervalOnceHourly   ScheduleInterval = "OnceHourly"
	IntervalOnceEveryMin ScheduleInterval = "OnceEveryMinute"
)

// MonthlyScheduleType is how a monthly schedule names its day.
type MonthlyScheduleType string

// How a monthly schedule names its day.
const (
	// MonthlyDate is a date of the month, MonthlyDay such a thing as its
	// first Monday.
	MonthlyDate MonthlyScheduleType = "DateOfMonth"
	MonthlyDay  MonthlyScheduleType = "DayOfMonth"
)

// TriggerFilter is what sets a trigger off. Which members have a meaning depends
// on the type; those of types that are not declared here are in Extra.
type TriggerFilter struct {
	FilterType FilterType `json:"FilterType"`

	// The following are a machine filter's; empty is no limit.
	EnvironmentIDs  List[string] `json:"EnvironmentIds,omitempty"`
	Roles           List[string] `json:"Roles,omitempty"`
	EventGroups     List[string] `json:"EventGroups,omitempty"`
	EventCategories List[string] `json:"EventCategories,omitempty"`

	// The following are a schedule's. Of the times only the clock matters, and
	// it is the clock of Timezone, a name of the IANA database or of Windows.
	StartTime      *ClockTime       `json:"StartTime,omitempty"`
	RunAfter       *ClockTime       `json:"RunAfter,omitempty"`
	RunUntil       *ClockTime       `json:"RunUntil,omitempty"`
	RunType        ScheduleRunType  `json:"RunType,omitempty"`
	Interval       ScheduleInterval `json:"Interval,omitempty"`
	HourInterval   *int             `json:"HourInterval,omitempty"`
	MinuteInterval *int             `json:"MinuteInterval,omitempty"`
	DaysOfWeek     Weekdays         `json:"DaysOfWeek,omitempty"`
	Monday         *bool            `json:"Monday,omitempty"`
	Tuesday        *bool            `json:"Tuesday,omitempty"`
	Wednesday      *bool            `json:"Wednesday,omitempty"`
	Thursday       *bool            `json:"Thursday,omitempty"`
	Friday         *bool            `json:"Friday,omitempty"`
	Saturday       *bool            `json:"Saturday,omitempty"`
	Sunday         *bool            `json:"Sunday,omitempty"`
	// MonthlyScheduleType says whether DateOfMonth holds ("1" to "31", "L" for
	// the last) or DayNumberOfMonth ("1" to "4", "L") with DayOfWeek.
	MonthlyScheduleType MonthlyScheduleType `json:"MonthlyScheduleType,omitempty"`
	DateOfMonth         string              `json:"DateOfMonth,omitempty"`
	DayNumberOfMonth    string              `json:"DayNumberOfMonth,omitempty"`
	DayOfWeek           Weekday             `json:"DayOfWeek,omitempty"`
	// CronExpression has six fields, the first of seconds.
	CronExpression string `json:"CronExpression,omitempty"`
	Timezone       string `json:"Timezone,omitempty"`

	// Packages are a feed filter's: a new version of any sets it off.
	Packages List[TriggerPackage] `json:"Packages,omitempty"`
	// Sources are a Git filter's.
	Sources List[GitTriggerSource] `json:"Sources,omitempty"`
	// WebhookID is part of the address that sets a webhook trigger off,
	// together with Password.
	WebhookID string     `json:"WebhookId,omitempty"`
	Password  *Sensitive `json:"Password,omitempty"`

	Extra Extra `json:"-"`
}

type plainFilter TriggerFilter

// MarshalJSON writes the members that are set, and Extra.
func (f TriggerFilter) MarshalJSON() ([]byte, error) { return marshalExtra(plainFilter(f), f.Extra) }

// UnmarshalJSON keeps the members that it does not know in Extra.
func (f *TriggerFilter) UnmarshalJSON(data []byte) (err error) {
	var p plainFilter
	if p.Extra, err = unmarshalExtra(data, &p); err == nil {
		*f = TriggerFilter(p)
	}
	return err
}

// TriggerPackage is a package whose new versions set a trigger off.
type TriggerPackage struct {
	// DeploymentAction is the action's name, DeploymentActionSlug its slug; a
	// client may send either.
	DeploymentAction     string `json:"DeploymentAction,omitempty"`
	DeploymentActionSlug string `json:"DeploymentActionSlug,omitempty"`
	PackageReference     string `json:"PackageReference"`
}

// GitTriggerSource is a Git dependency whose changes set a trigger off.
type GitTriggerSource struct {
	DeploymentActionSlug string       `json:"DeploymentActionSlug"`
	GitDependencyName    string       `json:"GitDependencyName"`
	IncludeFilePaths     List[string] `json:"IncludeFilePaths"`
	ExcludeFilePaths     List[string] `json:"ExcludeFilePaths"`
}

// TriggerActionType is what a trigger does; it tells what the rest of the
// action means.
type TriggerActionType string

// What a trigger does.
const (
	TriggerAutoDeploy    TriggerActionType = "AutoDeploy"
	TriggerDeployLatest  TriggerActionType = "DeployLatestRelease"
	TriggerDeployNew     TriggerActionType = "DeployNewRelease"
	TriggerRunRunbook    TriggerActionType = "RunRunbook"
	TriggerCreateRelease TriggerActionType = "CreateRelease"
)

// TriggerAction is what a trigger does. Which members have a meaning depends on
// the type; those of types that are not declared here are in Extra.
type TriggerAction struct {
	ActionType TriggerActionType `json:"ActionType"`

	// ShouldRedeployWhenMachineHasBeenDeployedTo is AutoDeploy's.
	ShouldRedeployWhenMachineHasBeenDeployedTo *bool `json:"ShouldRedeployWhenMachineHasBeenDeployedTo,omitempty"`

	// The following limit what is deployed.
	ChannelID  string       `json:"ChannelId,omitempty"`
	TenantIDs  List[string] `json:"TenantIds,omitempty"`
	TenantTags List[string] `json:"TenantTags,omitempty"`
	// Variables is a JSON object with values for prompts, as a text.
	Variables string `json:"Variables,omitempty"`

	// The following are DeployLatestRelease's.
	SourceEnvironmentIDs               List[string] `json:"SourceEnvironmentIds,omitempty"`
	DestinationEnvironmentID           string       `json:"DestinationEnvironmentId,omitempty"`
	ShouldRedeployWhenReleaseIsCurrent *bool        `json:"ShouldRedeployWhenReleaseIsCurrent,omitempty"`

	// EnvironmentID and VersionControlReference are DeployNewRelease's.
	EnvironmentID           string        `json:"EnvironmentId,omitempty"`
	VersionControlReference *GitReference `json:"VersionControlReference,omitempty"`

	// RunbookID and EnvironmentIDs are RunRunbook's.
	RunbookID      string       `json:"RunbookId,omitempty"`
	EnvironmentIDs List[string] `json:"EnvironmentIds,omitempty"`

	Extra Extra `json:"-"`
}

type plainTriggerAction TriggerAction

// MarshalJSON writes the members that are set, and Extra.
func (a TriggerAction) MarshalJSON() ([]byte, error) {
	return marshalExtra(plainTriggerAction(a), a.Extra)
}

// UnmarshalJSON keeps the members that it does not know in Extra.
func (a *TriggerAction) UnmarshalJSON(data []byte) (err error) {
	var p plainTriggerAction
	if p.Extra, err = unmarshalExtra(data, &p); err == nil {
		*a = TriggerAction(p)
	}
	return err
}
