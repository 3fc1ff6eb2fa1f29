// Package steps turns an action of a process into the work that a unit does: a
// script for an agent, a question to a person, or something the server does by
// itself. One file per type of action; what no file knows is kept in the process,
// shown, and fails when it is run.
package steps

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/octopus"
)

// Input is an action with everything it may look at.
type Input struct {
	Step   octopus.Step
	Action octopus.Action // its sensitive properties are in clear
	// Vars are the variables of this unit, its own packages and machine included.
	Vars *octostache.Variables
	// Packages are the references of the action that were acquired.
	Packages []Package
	// Workspace is the absolute path of the script's directory on its agent.
	Workspace string
	// Place is what the unit belongs to.
	Place Place
}

// Package is an acquired package reference.
type Package struct {
	Name      string // of the reference, "" for the primary one
	PackageID string
	Version   string
	FileName  string
	SHA256    string
	Extract   bool
	// Into is the directory of the workspace that it goes to; "" is Dir's own choice.
	Into string
}

// Work is what a unit does. Exactly one member is set.
type Work struct {
	Script   *Script
	Question *Question
	Mail     *Mail
	Release  *Release
	Health   *Health
}

// Script is a request to an agent, but for what the engine adds: the ticket,
// isolation and time-outs.
type Script struct {
	Body      string
	Files     []agent.File
	Arguments []string
	Prepare   agent.Prepare
	// FailOnErrorOutput makes the step fail when it writes to stderr.
	FailOnErrorOutput bool
	Timeout           time.Duration
}

// Error is a failure to prepare an action, told to people.
type Error struct{ Message string }

// Error returns the sentence for people.
func (e *Error) Error() string { return e.Message }

func failf(format string, args ...any) error { return &Error{Message: fmt.Sprintf(format, args...)} }

// Prepare turns an action into work.
func Prepare(in Input) (*Work, error) {
	switch in.Action.ActionType {
	case octopus.ActionScript:
		return script(in)
	case octopus.ActionPackage, octopus.ActionTransferPackage:
		return installPackage(in)
	case octopus.ActionManual:
		return manual(in)
	case octopus.ActionEmail:
		return email(in)
	case octopus.ActionDeployRelease:
		return release(in)
	case octopus.ActionHealthCheck:
		return health(in)
	default:
		return nil, Supported(in.Action.ActionType)
	}
}

// Supported is nil for the types of actions that can be run, else what people are told.
func Supported(kind octopus.ActionType) error {
	switch kind {
	case octopus.ActionScript, octopus.ActionPackage, octopus.ActionTransferPackage, octopus.ActionManual, octopus.ActionEmail, octopus.ActionDeployRelease, octopus.ActionHealthCheck:
		return nil
	default:
		return failf("This server cannot run steps of type %s.", kind)
	}
}

// property evaluates a property of the action, else of its step.
func (in Input) property(key string) (string, error) {
	v, ok := in.Action.Properties.Lookup(key)
	if !ok {
		v, ok = in.Step.Properties.Lookup(key)
	}
	if !ok {
		return "", nil
	}
	r := in.Vars.Evaluate(clearText(v))
	if r.Err != nil {
		return "", failf("The property %s cannot be evaluated: %s", key, r.Err)
	}
	return r.Text, nil
}

// clearText is a property as it was written, though it is a secret.
func clearText(v octopus.PropertyValue) string {
	if v.Sensitive != nil && v.Sensitive.NewValue != nil {
		return *v.Sensitive.NewValue
	}
	return v.Value
}

// flag reads a property that is True or False; anything else is missing.
func (in Input) flag(key string, missing bool) (bool, error) {
	text, err := in.property(key)
	switch {
	case err != nil:
		return missing, err
	case strings.EqualFold(strings.TrimSpace(text), "true"):
		return true, nil
	case strings.EqualFold(strings.TrimSpace(text), "false"):
		return false, nil
	default:
		return missing, nil
	}
}

// feature reports whether the action has a feature switched on.
func (in Input) feature(name string) bool {
	for f := range strings.SplitSeq(in.Action.Properties.Get(octopus.PropEnabledFeatures), ",") {
		if strings.EqualFold(strings.TrimSpace(f), name) {
			return true
		}
	}
	return false
}

// minutes reads a property that is a number of minutes; none or 0 is no limit.
func (in Input) minutes(key string) (time.Duration, error) {
	text, err := in.property(key)
	if text = strings.TrimSpace(text); err != nil || text == "" {
		return 0, err
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n <= 7*24*60) { // not a number is neither
		return 0, failf("The property %s is '%.40s'; it must be a number of minutes between 0 and %d.", key, text, 7*24*60)
	}
	return time.Duration(n * float64(time.Minute)), nil
}
