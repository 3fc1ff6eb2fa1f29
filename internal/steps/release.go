package steps

import (
	"encoding/json"
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// Release is the deployment of another project's release, an action of type
// Octopus.DeployRelease.
type Release struct {
	Project   string // an id, slug or name
	Version   string // of the release, as it was selected
	Condition octopus.DeployReleaseCondition
	// Variables go before the values of that project.
	Variables map[string]string
}

// release is an action of type Octopus.DeployRelease; the release was selected like a
// package.
func release(in Input) (*Work, error) {
	r := &Release{}
	for _, p := range in.Packages {
		if p.Name == "" {
			r.Project, r.Version = p.PackageID, p.Version
		}
	}
	if r.Project == "" || r.Version == "" {
		return nil, failf("The release to deploy was not selected; name its project in %s and make a new release.", octopus.PropDeployReleaseTarget)
	}
	condition, err := in.property(octopus.PropDeployReleaseCondition)
	if err != nil {
		return nil, err
	}
	switch r.Condition = octopus.DeployReleaseCondition(strings.TrimSpace(condition)); r.Condition {
	case "":
		r.Condition = octopus.DeployReleaseAlways
	case octopus.DeployReleaseAlways, octopus.DeployReleaseIfNotCurrent, octopus.DeployReleaseIfNewer:
	default:
		return nil, failf("The property %s is '%.40s'; use Always, IfNotCurrentVersion or IfNewer.", octopus.PropDeployReleaseCondition, condition)
	}
	raw, _ := in.Action.Properties.Lookup(octopus.PropDeployReleaseVariables)
	if strings.TrimSpace(raw.Value) == "" {
		return &Work{Release: r}, nil
	}
	if err := json.Unmarshal([]byte(raw.Value), &r.Variables); err != nil {
		return nil, failf("The property %s is no object of names and texts in JSON.", octopus.PropDeployReleaseVariables)
	}
	for name, text := range r.Variables {
		value := in.Vars.Evaluate(text)
		if value.Err != nil {
			return nil, failf("The variable %s, which is passed on, cannot be evaluated: %s", name, value.Err)
		}
		r.Variables[name] = value.Text
	}
	return &Work{Release: r}, nil
}
