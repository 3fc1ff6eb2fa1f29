package steps

import (
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// Health is a check of the deployment's targets, an action of type
// Octopus.HealthCheck.
type Health struct {
	// Full runs the script of each target's policy; else it is only asked whether
	// the target answers.
	Full bool
	// Skip takes targets that are not well out of the deployment; else the step
	// fails.
	Skip bool
	// Include takes in targets that are well and that the deployment does not have.
	Include bool
}

// health is an action of type Octopus.HealthCheck.
func health(in Input) (*Work, error) {
	h := &Health{Full: true}
	for _, choice := range []struct {
		key     string
		no, yes string
		to      *bool // as it is where nothing is said
	}{
		{octopus.PropHealthType, octopus.HealthCheckConnection, octopus.HealthCheckFull, &h.Full},
		{octopus.PropHealthErrors, octopus.HealthErrorsFail, octopus.HealthErrorsSkip, &h.Skip},
		{octopus.PropHealthInclude, octopus.HealthMachinesStay, octopus.HealthMachinesJoin, &h.Include},
	} {
		text, err := in.property(choice.key)
		if err != nil {
			return nil, err
		}
		switch text = strings.TrimSpace(text); {
		case text == "":
		case strings.EqualFold(text, choice.yes), strings.EqualFold(text, choice.no):
			*choice.to = strings.EqualFold(text, choice.yes)
		default:
			return nil, failf("The property %s is '%.40s'; use %s or %s.", choice.key, text, choice.no, choice.yes)
		}
	}
	return &Work{Health: h}, nil
}
