package octopus

// DeploymentFreeze is a time during which some projects are not deployed.
type DeploymentFreeze struct {
	Resource
	Name  string `json:"Name"`
	Start Time   `json:"Start"`
	End   Time   `json:"End"`
	// ProjectEnvironmentScope has environments by project.
	ProjectEnvironmentScope       Map[string, List[string]]      `json:"ProjectEnvironmentScope"`
	TenantProjectEnvironmentScope List[TenantProjectEnvironment] `json:"TenantProjectEnvironmentScope"`
	// RecurringSchedule is null for a freeze that happens once.
	RecurringSchedule *RecurringSchedule `json:"RecurringSchedule"`
	// OwnerID is the project that has the freeze to itself, if any.
	OwnerID NullString `json:"OwnerId"`
}

// DeploymentFreezePage is a page of freezes; this collection has a shape of its own.
type DeploymentFreezePage struct {
	DeploymentFreezes List[DeploymentFreeze] `json:"DeploymentFreezes"`
	// Count is of all freezes that match, not of the page's.
	Count int64 `json:"Count"`
}

// TenantProjectEnvironment is a project in an environment for a tenant.
type TenantProjectEnvironment struct {
	TenantID      string `json:"TenantId"`
	ProjectID     string `json:"ProjectId"`
	EnvironmentID string `json:"EnvironmentId"`
}

// RecurringType is the unit in which a freeze comes again.
type RecurringType string

// Units in which a freeze comes again.
const (
	RecursDaily    RecurringType = "Daily"
	RecursWeekly   RecurringType = "Weekly"
	RecursMonthly  RecurringType = "Monthly"
	RecursAnnually RecurringType = "Annually"
)

// RecurringEnd is when a freeze comes no more.
type RecurringEnd string

// When a freeze comes no more.
const (
	RecursForever  RecurringEnd = "Never"
	RecursUntil    RecurringEnd = "OnDate"
	RecursSomeTime RecurringEnd = "AfterOccurrences"
)

// RecurringSchedule is how a freeze comes again.
type RecurringSchedule struct {
	Type RecurringType `json:"Type"`
	// Unit is the number of days, weeks, months or years between two freezes.
	Unit                   int          `json:"Unit"`
	EndType                RecurringEnd `json:"EndType"`
	EndOnDate              *Time        `json:"EndOnDate"`
	EndAfterOccurrences    int          `json:"EndAfterOccurrences"`
	UserUTCOffsetInMinutes int          `json:"UserUtcOffsetInMinutes"`
	// DaysOfWeek are a weekly schedule's, the rest a monthly one's.
	DaysOfWeek          Weekdays            `json:"DaysOfWeek"`
	MonthlyScheduleType MonthlyScheduleType `json:"MonthlyScheduleType,omitempty"`
	DateOfMonth         NullString          `json:"DateOfMonth"`
	DayNumberOfMonth    NullString          `json:"DayNumberOfMonth"`
	DayOfWeek           NullString          `json:"DayOfWeek"`
}
