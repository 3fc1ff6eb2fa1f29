package steps

import (
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// Question is what an action of type Octopus.Manual asks a person.
type Question struct {
	// Instructions are Markdown.
	Instructions string
	// Teams are ids of the teams whose members may answer; none means whoever may deploy.
	Teams []string
}

// manual is an action of type Octopus.Manual.
func manual(in Input) (*Work, error) {
	q := &Question{}
	var err error
	if q.Instructions, err = in.property(octopus.PropManualInstructions); err != nil {
		return nil, err
	}
	if strings.TrimSpace(q.Instructions) == "" {
		return nil, failf("The step has no instructions; write in %s what is to be decided.", octopus.PropManualInstructions)
	}
	teams, err := in.property(octopus.PropManualTeams)
	if err != nil {
		return nil, err
	}
	q.Teams = list(teams)
	return &Work{Question: q}, nil
}

// list reads a property that is a list, separated by commas, semicolons or line ends.
func list(text string) []string {
	var out []string
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ';' || r == '\n' || r == '\r' }) {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
