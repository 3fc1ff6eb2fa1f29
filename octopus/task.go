package octopus

import "encoding/json"

// TaskState is where a task is in its life.
type TaskState string

// States of tasks.
const (
	TaskQueued     TaskState = "Queued"
	TaskExecuting  TaskState = "Executing"
	TaskCancelling TaskState = "Cancelling"
	TaskCanceled   TaskState = "Canceled"
	TaskFailed     TaskState = "Failed"
	// TaskTimedOut is a task that expired before it was started.
	TaskTimedOut TaskState = "TimedOut"
	TaskSuccess  TaskState = "Success"
)

// Completed reports whether a task of this state has ended for good.
func (s TaskState) Completed() bool {
	switch s {
	case TaskCanceled, TaskFailed, TaskTimedOut, TaskSuccess:
		return true
	case TaskQueued, TaskExecuting, TaskCancelling:
		return false
	}
	return false
}

// TaskName is what a task does.
type TaskName string

// Names of tasks.
const (
	TaskDeploy                TaskName = "Deploy"
	TaskRunbookRun            TaskName = "RunbookRun"
	TaskAutoDeploy            TaskName = "AutoDeploy"
	TaskHealth                TaskName = "Health"
	TaskRetention             TaskName = "Retention"
	TaskBackup                TaskName = "Backup"
	TaskClone                 TaskName = "Clone"
	TaskUpgrade               TaskName = "Upgrade"
	TaskUpdateCalamari        TaskName = "UpdateCalamari"
	TaskTestEmail             TaskName = "TestEmail"
	TaskTestAzureAccount      TaskName = "TestAzureAccount"
	TaskAdHocScript           TaskName = "AdHocScript"
	TaskDelete                TaskName = "Delete"
	TaskSystemIntegrityCheck  TaskName = "SystemIntegrityCheck"
	TaskSyncCommunityTemplate TaskName = "SyncCommunityActionTemplates"
	TaskFeedTriggers          TaskName = "ProcessExternalFeedTriggers"
	TaskExportProjects        TaskName = "ExportProjects"
	TaskImportProjects        TaskName = "ImportProjects"
)

// Task is a piece of work that the server does in the background.
type Task struct {
	Resource
	// SpaceID is null for tasks of the system.
	SpaceID     NullString `json:"SpaceId"`
	Name        TaskName   `json:"Name"`
	Description string     `json:"Description"`
	// Arguments depend on Name: DeploymentId, RunbookRunId, EnvironmentId...
	Arguments Map[string, json.RawMessage] `json:"Arguments"`
	State     TaskState                    `json:"State"`
	// Completed is a text for people: "Queued...", "Executing...", or when the
	// task ended.
	Completed string `json:"Completed"`
	// QueueTime is when the task may start, at the earliest.
	QueueTime Time `json:"QueueTime"`
	// QueueTimeExpiry is when a task that has not started is given up.
	QueueTimeExpiry *Time `json:"QueueTimeExpiry"`
	StartTime       *Time `json:"StartTime"`
	LastUpdatedTime *Time `json:"LastUpdatedTime"`
	CompletedTime   *Time `json:"CompletedTime"`
	// ServerNode is the id of the node that runs the task.
	ServerNode NullString `json:"ServerNode"`
	// Duration is a text for people: "2 minutes".
	Duration                   string `json:"Duration"`
	ErrorMessage               string `json:"ErrorMessage"`
	HasBeenPickedUpByProcessor bool   `json:"HasBeenPickedUpByProcessor"`
	// IsCompleted and FinishedSuccessfully follow from State.
	IsCompleted          bool `json:"IsCompleted"`
	FinishedSuccessfully bool `json:"FinishedSuccessfully"`
	// HasPendingInterruptions tells that the task, though Executing, waits for
	// a person.
	HasPendingInterruptions  bool                   `json:"HasPendingInterruptions"`
	PendingInterruptionTypes List[InterruptionType] `json:"PendingInterruptionTypes"`
	PendingPreconditionTypes List[string]           `json:"PendingPreconditionTypes"`
	// CanRerun tells that a new task of the same effect can be made.
	CanRerun            bool       `json:"CanRerun"`
	HasWarningsOrErrors bool       `json:"HasWarningsOrErrors"`
	ProjectID           NullString `json:"ProjectId"`
	// EstimatedRemainingQueueDurationSeconds is 0 when it is not known.
	EstimatedRemainingQueueDurationSeconds int `json:"EstimatedRemainingQueueDurationSeconds"`
}

// TaskPage is a page of tasks; besides the items it counts all that match, by state.
type TaskPage struct {
	Page[Task]
	TotalCounts TaskCounts `json:"TotalCounts"`
}

// TaskCounts counts tasks by their state.
type TaskCounts struct {
	Canceled    int64 `json:"Canceled"`
	Cancelling  int64 `json:"Cancelling"`
	Executing   int64 `json:"Executing"`
	Failed      int64 `json:"Failed"`
	Queued      int64 `json:"Queued"`
	Success     int64 `json:"Success"`
	TimedOut    int64 `json:"TimedOut"`
	Interrupted int64 `json:"Interrupted"`
}

// TaskDetails is a task with its log, as a tree of activities.
type TaskDetails struct {
	Resource
	Task         Task           `json:"Task"`
	ActivityLogs List[Activity] `json:"ActivityLogs"`
	Progress     TaskProgress   `json:"Progress"`
	// PhysicalLogSize is in bytes, of the whole log.
	PhysicalLogSize int64 `json:"PhysicalLogSize"`
}

// TaskProgress is how far a task has come.
type TaskProgress struct {
	// ProgressPercentage is 0 to 100.
	ProgressPercentage int `json:"ProgressPercentage"`
	// EstimatedTimeRemaining is a text for people, from the last run that succeeded.
	EstimatedTimeRemaining string `json:"EstimatedTimeRemaining"`
}

// ActivityStatus is how an activity of a task goes.
type ActivityStatus string

// How an activity goes.
const (
	ActivityPending            ActivityStatus = "Pending"
	ActivityRunning            ActivityStatus = "Running"
	ActivitySuccess            ActivityStatus = "Success"
	ActivitySuccessWithWarning ActivityStatus = "SuccessWithWarning"
	ActivityFailed             ActivityStatus = "Failed"
	ActivitySkipped            ActivityStatus = "Skipped"
	ActivityCanceled           ActivityStatus = "Canceled"
)

// Activity is a node of a task's log: the task, a step, an action on a target.
type Activity struct {
	// ID stays the same from one answer to the next.
	ID      string         `json:"Id"`
	Name    string         `json:"Name"`
	Status  ActivityStatus `json:"Status"`
	Started *Time          `json:"Started"`
	Ended   *Time          `json:"Ended"`
	// ProgressPercentage is 0 to 100.
	ProgressPercentage int              `json:"ProgressPercentage"`
	ProgressMessage    string           `json:"ProgressMessage"`
	ShowAtSummaryLevel bool             `json:"ShowAtSummaryLevel"`
	Children           List[Activity]   `json:"Children"`
	LogElements        List[LogElement] `json:"LogElements"`
}

// LogCategory is the kind of a line of a task's log.
type LogCategory string

// Kinds of log lines.
const (
	LogTrace     LogCategory = "Trace"
	LogVerbose   LogCategory = "Verbose"
	LogInfo      LogCategory = "Info"
	LogHighlight LogCategory = "Highlight"
	LogWait      LogCategory = "Wait"
	// LogGap stands for lines that a tail leaves out.
	LogGap       LogCategory = "Gap"
	LogAlert     LogCategory = "Alert"
	LogWarning   LogCategory = "Warning"
	LogError     LogCategory = "Error"
	LogFatal     LogCategory = "Fatal"
	LogPlanned   LogCategory = "Planned"
	LogUpdated   LogCategory = "Updated"
	LogFinished  LogCategory = "Finished"
	LogAbandoned LogCategory = "Abandoned"
)

// LogElement is a line of a task's log.
type LogElement struct {
	Category    LogCategory `json:"Category"`
	OccurredAt  Time        `json:"OccurredAt"`
	MessageText string      `json:"MessageText"`
	// Detail is what a person may unfold, such as a stack trace.
	Detail NullString `json:"Detail"`
	// Number counts the lines of the task from 1.
	Number int64 `json:"Number"`
}

// TaskType is a kind of task that people may filter by.
type TaskType struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
}

// TaskStateCommand asks for the state of a task to be set.
type TaskStateCommand struct {
	State  TaskState  `json:"State"`
	Reason NullString `json:"Reason"`
}

// InterruptionType is why a task waits for a person.
type InterruptionType string

// Why a task waits for a person.
const (
	InterruptionManual        InterruptionType = "ManualIntervention"
	InterruptionGuidedFailure InterruptionType = "GuidedFailure"
)

// Names and values of the fields of an interruption's form.
const (
	// FieldNotes is a free text, in either type of interruption.
	FieldNotes = "Notes"
	// FieldResult answers a manual intervention: ResultProceed or ResultAbort.
	FieldResult   = "Result"
	ResultProceed = "Proceed"
	ResultAbort   = "Abort"
	// FieldGuidance answers a guided failure, with one of the rest.
	FieldGuidance   = "Guidance"
	GuidanceFail    = "Fail"
	GuidanceRetry   = "Retry"
	GuidanceIgnore  = "Ignore"
	GuidanceExclude = "Exclude"
)

// Interruption is a question of a task that a person must answer.
type Interruption struct {
	Resource
	SpaceID   string           `json:"SpaceId"`
	Title     string           `json:"Title"`
	Type      InterruptionType `json:"Type"`
	Created   Time             `json:"Created"`
	IsPending bool             `json:"IsPending"`
	Form      Form             `json:"Form"`
	// RelatedDocumentIDs has the deployment, the project, the environment...
	RelatedDocumentIDs List[string] `json:"RelatedDocumentIds"`
	// ResponsibleTeamIDs are the teams that may answer; empty means everyone
	// who may deploy.
	ResponsibleTeamIDs List[string] `json:"ResponsibleTeamIds"`
	// ResponsibleUserID is who has taken it on; nobody else can answer.
	ResponsibleUserID NullString `json:"ResponsibleUserId"`
	// CanTakeResponsibility and HasResponsibility are about the caller.
	CanTakeResponsibility bool   `json:"CanTakeResponsibility"`
	HasResponsibility     bool   `json:"HasResponsibility"`
	TaskID                string `json:"TaskId"`
	// CorrelationID is the activity of the log that waits. It is shared by the
	// interruptions of one step on several targets.
	CorrelationID               string `json:"CorrelationId"`
	IsLinkedToOtherInterruption bool   `json:"IsLinkedToOtherInterruption"`
}

// Artifact is a file that a task has produced.
type Artifact struct {
	Resource
	SpaceID  string `json:"SpaceId"`
	Filename string `json:"Filename"`
	// Source names the target that the file is from.
	Source           NullString `json:"Source"`
	ServerTaskID     string     `json:"ServerTaskId"`
	LogCorrelationID NullString `json:"LogCorrelationId"`
	Created          Time       `json:"Created"`
	// Size is in bytes.
	Size int64 `json:"Size"`
}
