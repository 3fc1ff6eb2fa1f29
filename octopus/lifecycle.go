package octopus

import "encoding/json"

// Lifecycle says in which order a release may move through environments, and
// how long what it leaves behind is kept.
type Lifecycle struct {
	Resource
	SpaceID     string `json:"SpaceId"`
	Name        string `json:"Name"`
	Slug        string `json:"Slug"`
	Description string `json:"Description"`
	// ReleaseRetentionPolicy says how long releases are kept on the server.
	ReleaseRetentionPolicy *RetentionPeriod `json:"ReleaseRetentionPolicy"`
	// TentacleRetentionPolicy says how long packages and files are kept on targets.
	TentacleRetentionPolicy *RetentionPeriod `json:"TentacleRetentionPolicy"`
	// Phases in order. None means one phase per environment, in their order.
	Phases List[Phase] `json:"Phases"`
}

// Phase is a stage of a lifecycle. A phase that names no environment stands for
// all that no earlier phase names.
type Phase struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
	// AutomaticDeploymentTargets are the environments that a release is
	// deployed to as soon as it reaches the phase.
	AutomaticDeploymentTargets List[string] `json:"AutomaticDeploymentTargets"`
	// OptionalDeploymentTargets are the environments that people deploy to.
	OptionalDeploymentTargets List[string] `json:"OptionalDeploymentTargets"`
	// MinimumEnvironmentsBeforePromotion is how many of the phase's
	// environments must have the release before it moves on; 0 means all.
	MinimumEnvironmentsBeforePromotion int `json:"MinimumEnvironmentsBeforePromotion"`
	// IsOptionalPhase lets a release skip the phase.
	IsOptionalPhase bool `json:"IsOptionalPhase"`
	// IsPriorityPhase lets the phase's deployments go before others in the queue.
	IsPriorityPhase bool `json:"IsPriorityPhase"`
	// The policies are null where the phase inherits one: from the nearest
	// earlier phase that has one, else from the lifecycle.
	ReleaseRetentionPolicy  *RetentionPeriod `json:"ReleaseRetentionPolicy"`
	TentacleRetentionPolicy *RetentionPeriod `json:"TentacleRetentionPolicy"`
}

// RetentionStrategy is how a retention policy decides.
type RetentionStrategy string

// The retention strategies.
const (
	// RetentionDefault follows the policy of the space.
	RetentionDefault RetentionStrategy = "Default"
	// RetentionForever keeps everything.
	RetentionForever RetentionStrategy = "Forever"
	// RetentionCount keeps a number of items, or what is some days old.
	RetentionCount RetentionStrategy = "Count"
)

// RetentionUnit is what QuantityToKeep counts.
type RetentionUnit string

// The units of retention.
const (
	RetentionDays  RetentionUnit = "Days"
	RetentionItems RetentionUnit = "Items"
)

// RetentionPeriod is how much is kept.
type RetentionPeriod struct {
	Strategy RetentionStrategy `json:"Strategy"`
	Unit     RetentionUnit     `json:"Unit"`
	// QuantityToKeep is in Unit; 0 keeps everything.
	QuantityToKeep int `json:"QuantityToKeep"`
	// ShouldKeepForever repeats for older clients that the strategy is not Count.
	ShouldKeepForever bool `json:"ShouldKeepForever"`
}

// KeepForever is the policy that keeps everything.
func KeepForever() *RetentionPeriod {
	return &RetentionPeriod{Strategy: RetentionForever, Unit: RetentionItems, ShouldKeepForever: true}
}

// KeepDefault is the policy that follows the space's.
func KeepDefault() *RetentionPeriod {
	return &RetentionPeriod{Strategy: RetentionDefault, Unit: RetentionItems, ShouldKeepForever: true}
}

// KeepCount is the policy that keeps quantity units; 0 keeps everything.
func KeepCount(quantity int, unit RetentionUnit) *RetentionPeriod {
	if quantity <= 0 {
		return KeepForever()
	}
	return &RetentionPeriod{Strategy: RetentionCount, Unit: unit, QuantityToKeep: quantity}
}

// UnmarshalJSON fills in what clients leave out. Those that know no strategies
// send a quantity, or ShouldKeepForever.
func (p *RetentionPeriod) UnmarshalJSON(data []byte) error {
	type plain RetentionPeriod
	var q plain
	if err := json.Unmarshal(data, &q); err != nil {
		return err
	}
	if q.Strategy == "" {
		q.Strategy = RetentionCount
		if q.ShouldKeepForever || q.QuantityToKeep == 0 {
			q.Strategy = RetentionForever
		}
	}
	if q.Unit == "" {
		q.Unit = RetentionDays
	}
	q.ShouldKeepForever = q.Strategy != RetentionCount || q.QuantityToKeep == 0
	*p = RetentionPeriod(q)
	return nil
}

// RetentionType names what a space-wide retention policy is for.
type RetentionType string

// What the retention policies of a space are for.
const (
	RetentionLifecycleRelease  RetentionType = "LifecycleRelease"
	RetentionLifecycleTentacle RetentionType = "LifecycleTentacle"
	RetentionRunbook           RetentionType = "RunbookRetention"
)

// RetentionPolicy is the policy of a space that lifecycles and runbooks with
// the strategy Default follow.
type RetentionPolicy struct {
	Resource
	SpaceID        string            `json:"SpaceId"`
	Name           string            `json:"Name"`
	RetentionType  RetentionType     `json:"RetentionType"`
	Strategy       RetentionStrategy `json:"Strategy"`
	Unit           RetentionUnit     `json:"Unit"`
	QuantityToKeep int               `json:"QuantityToKeep"`
}

// PhaseProgress is how far a release has come in a phase.
type PhaseProgress string

// How far a release has come in a phase.
const (
	// PhasePending is a phase that the release has not reached.
	PhasePending PhaseProgress = "Pending"
	// PhaseCurrent is a phase that the release has reached and not completed.
	PhaseCurrent PhaseProgress = "Current"
	// PhaseComplete is a phase with as many deployments as it asks for.
	PhaseComplete PhaseProgress = "Complete"
)

// LifecycleProgression is how far a release has come in its lifecycle.
type LifecycleProgression struct {
	Phases List[PhaseProgression] `json:"Phases"`
	// NextDeployments are the environments that the release is to be deployed
	// to next.
	NextDeployments List[string] `json:"NextDeployments"`
	// NextDeploymentsMinimumRequired is how many of these must succeed before
	// the release moves on.
	NextDeploymentsMinimumRequired int   `json:"NextDeploymentsMinimumRequired"`
	Links                          Links `json:"Links"`
}

// PhaseProgression is how far a release has come in one phase.
type PhaseProgression struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
	// Blocked tells that the release may not be deployed to the phase's
	// environments now.
	Blocked                            bool                  `json:"Blocked"`
	Progress                           PhaseProgress         `json:"Progress"`
	Deployments                        List[PhaseDeployment] `json:"Deployments"`
	AutomaticDeploymentTargets         List[string]          `json:"AutomaticDeploymentTargets"`
	OptionalDeploymentTargets          List[string]          `json:"OptionalDeploymentTargets"`
	MinimumEnvironmentsBeforePromotion int                   `json:"MinimumEnvironmentsBeforePromotion"`
	IsOptionalPhase                    bool                  `json:"IsOptionalPhase"`
	IsPriorityPhase                    bool                  `json:"IsPriorityPhase"`
	// The policies are null where the phase inherits one.
	ReleaseRetentionPolicy  *RetentionPeriod `json:"ReleaseRetentionPolicy"`
	TentacleRetentionPolicy *RetentionPeriod `json:"TentacleRetentionPolicy"`
}

// PhaseDeployment is a deployment of a release in a phase.
type PhaseDeployment struct {
	Task       *Task       `json:"Task"`
	Deployment *Deployment `json:"Deployment"`
}
