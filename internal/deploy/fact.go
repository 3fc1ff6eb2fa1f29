package deploy

import "time"

// Unit is one execution of one action: on the lane of one machine, or once.
type Unit struct {
	Step   int    `json:"s"` // index into Plan.Steps
	Action int    `json:"a"` // index into Step.Actions
	Lane   string `json:"l,omitempty"`
}

// FactKind is what a fact tells.
type FactKind string

// The kinds of facts, in the order in which a unit meets them.
const (
	// FactStep decides a step: whether it runs, and how wide.
	FactStep FactKind = "step"
	// FactUnit decides a unit that will not run, or that may (Run).
	FactUnit FactKind = "unit"
	// FactIntent says that a unit's attempt is about to start. It is committed
	// before anything is started, and never followed by another one of the
	// same attempt.
	FactIntent FactKind = "intent"
	// FactAck says that the agent has answered the start.
	FactAck FactKind = "ack"
	// FactResult ends an attempt. With an Ask, a person decides what it means.
	FactResult FactKind = "result"
	// FactAsk raises an interruption about a unit that has no result yet.
	FactAsk FactKind = "ask"
	// FactAnswer is a person's answer to it.
	FactAnswer FactKind = "answer"
	// FactCancel asks the whole deployment to end.
	FactCancel FactKind = "cancel"
	// FactOutput is an output variable of a unit.
	FactOutput FactKind = "output"
	// FactMachines changes which targets take part in what has not been decided
	// yet: a health check does that, an attempt whose target is not available, and,
	// without a unit, the beginning of the deployment.
	FactMachines FactKind = "machines"
)

// Fact is one entry of a deployment's journal. Only the members of its kind are set.
type Fact struct {
	Kind FactKind  `json:"k"`
	At   time.Time `json:"t"`
	Step int       `json:"step,omitempty"` // FactStep: index into Plan.Steps
	Unit *Unit     `json:"u,omitempty"`
	// Attempt counts the tries of a unit from 1.
	Attempt int `json:"n,omitempty"`

	// FactStep, FactUnit: whether it runs, and for people, why not.
	Run    bool   `json:"run,omitempty"`
	Reason string `json:"why,omitempty"`
	// FactStep: how many lanes at a time, at least 1, and how many of the steps that
	// start together, 0 for MaxParallel.
	Window int `json:"window,omitempty"`
	Beside int `json:"beside,omitempty"`
	// FactUnit: that the whole lane does not run, of which this is the first unit.
	Lane bool `json:"lane,omitempty"`

	Intent *Intent `json:"intent,omitempty"`
	Result *Result `json:"result,omitempty"`
	Ask    *Ask    `json:"ask,omitempty"`
	Answer *Answer `json:"answer,omitempty"`
	Output *Output `json:"output,omitempty"`

	Machines *Machines `json:"machines,omitempty"`
}

// Machines is a change of the targets that take part.
type Machines struct {
	// Join are targets that the plan does not have.
	Join []Machine `json:"join,omitempty"`
	// Leave are ids of targets that are taken out, as if a person had excluded them.
	Leave []string `json:"leave,omitempty"`
}

// Contract is what may be expected of whoever runs a script.
type Contract string

// The contracts.
const (
	// ContractTako remembers a ticket for ever: starting it twice is safe.
	ContractTako Contract = "tako"
	// ContractV2 remembers a ticket until it is completed.
	ContractV2 Contract = "v2"
	// ContractV1 remembers nothing: an unanswered start is unknown.
	ContractV1 Contract = "v1"
	// ContractNone is work of the server itself, without a ticket.
	ContractNone Contract = "none"
)

// Intent is what was decided before a script was sent.
type Intent struct {
	Ticket   string   `json:"ticket,omitempty"`
	Agent    string   `json:"agent,omitempty"` // "builtin", a machine or a worker
	Contract Contract `json:"contract"`
	// PayloadSHA256 is of the request that the ticket stands for.
	PayloadSHA256 string `json:"payload,omitempty"`
	// Mutex is the machine lock that the unit holds, "" for none.
	Mutex string `json:"mutex,omitempty"`
}

// Outcome is how an attempt ended.
type Outcome string

// The outcomes.
const (
	Succeeded Outcome = "succeeded"
	Failed    Outcome = "failed"
	Skipped   Outcome = "skipped"
	Canceled  Outcome = "canceled"
	// Unknown is a script whose fate cannot be known. It is asked about, never
	// repeated on its own.
	Unknown Outcome = "unknown"
)

// Result ends an attempt.
type Result struct {
	Outcome  Outcome `json:"outcome"`
	ExitCode int     `json:"exit,omitempty"`
	Message  string  `json:"message,omitempty"` // masked; for people
	Warnings bool    `json:"warnings,omitempty"`
	// RetryAt says that another attempt follows, not before then.
	RetryAt *time.Time `json:"retryAt,omitempty"`
}

// AskKind is why a person is asked.
type AskKind string

// Why a person is asked.
const (
	AskManual  AskKind = "manual"
	AskGuided  AskKind = "guided"
	AskUnknown AskKind = "unknown"
	// AskChild waits for another deployment, not for a person.
	AskChild AskKind = "child"
)

// Ask raises an interruption.
type Ask struct {
	ID   string  `json:"id"` // "Interruptions-4"; of AskChild, the attempt
	Kind AskKind `json:"kind"`
}

// Choice is an answer.
type Choice string

// The answers: to a manual intervention, to a guided failure, to an unknown fate.
const (
	Proceed       Choice = "Proceed"
	Abort         Choice = "Abort"
	Fail          Choice = "Fail"
	Retry         Choice = "Retry"
	Ignore        Choice = "Ignore"
	Exclude       Choice = "Exclude"
	MarkSucceeded Choice = "MarkSucceeded"
	MarkFailed    Choice = "MarkFailed"
	RunAgain      Choice = "RunAgain"
	// ChildEnded is said by the deployment that was waited for; what it means is
	// looked up there.
	ChildEnded Choice = "ChildEnded"
)

// Choices lists the answers to a question of this kind, nil for one that is not known.
func (k AskKind) Choices() []Choice {
	switch k {
	case AskManual:
		return []Choice{Proceed, Abort}
	case AskGuided:
		return []Choice{Fail, Retry, Ignore, Exclude}
	case AskUnknown:
		return []Choice{MarkSucceeded, MarkFailed, RunAgain}
	case AskChild:
		return []Choice{ChildEnded}
	default:
		return nil
	}
}

// Answer is what a person decided.
type Answer struct {
	ID     string `json:"id"` // of the Ask
	Choice Choice `json:"choice"`
	User   string `json:"user,omitempty"` // the name under which the person signs in
	Notes  string `json:"notes,omitempty"`
	// UserID, DisplayName and Email say more of the person, for output variables.
	UserID      string `json:"userId,omitempty"`
	DisplayName string `json:"displayName,omitempty"`
	Email       string `json:"email,omitempty"`
}

// Output is an output variable. A sensitive value is sealed.
type Output struct {
	Name      string `json:"name"`
	Value     string `json:"value"`
	Sensitive bool   `json:"sensitive,omitempty"`
}
