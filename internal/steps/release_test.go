package steps_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/octopus"
)

func TestDeployRelease(t *testing.T) {
	t.Parallel()
	selected := steps.Package{PackageID: "Projects-2", Version: "1.2.0"}
	prepare := func(properties map[string]string, packages ...steps.Package) (*steps.Work, error) {
		in := input(properties, packages...)
		in.Action.ActionType = octopus.ActionDeployRelease
		return steps.Prepare(in)
	}
	work, err := prepare(map[string]string{
		octopus.PropDeployReleaseCondition: "#{if Lang}IfNewer#{/if}", octopus.PropDeployReleaseVariables: `{"Said":"in \"#{Lang}\"","Plain":""}`,
	}, selected)
	if err != nil {
		t.Fatal(err)
	}
	want := &steps.Work{Release: &steps.Release{
		Project: "Projects-2", Version: "1.2.0", Condition: octopus.DeployReleaseIfNewer, Variables: map[string]string{"Said": `in "Bash"`, "Plain": ""},
	}}
	if diff := cmp.Diff(want, work); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		name       string
		properties map[string]string
		packages   []steps.Package
		want       string
	}{
		{"nothing selected", nil, nil, "was not selected"},
		{"another condition", map[string]string{octopus.PropDeployReleaseCondition: "Sometimes"}, []steps.Package{selected}, "use Always, IfNotCurrentVersion or IfNewer"},
		{"no object", map[string]string{octopus.PropDeployReleaseVariables: `["a"]`}, []steps.Package{selected}, "no object of names and texts"},
		{"a value without an end", map[string]string{octopus.PropDeployReleaseVariables: `{"a":"#{Loop}"}`}, []steps.Package{selected}, "The variable a, which is passed on"},
	} {
		_, err := prepare(c.properties, c.packages...)
		var public *steps.Error
		if !errors.As(err, &public) || !strings.Contains(public.Message, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
