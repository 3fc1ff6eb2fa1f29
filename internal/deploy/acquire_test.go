package deploy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

// TestAcquisition: packages are acquired before the first step that uses one, or where the
// steps say; the words are steps, * uses a package, & starts with the one before, < wants
// to come before and > after, - is left out.
func TestAcquisition(t *testing.T) {
	t.Parallel()
	for process, want := range map[string]string{
		"a b c":     "a b c",
		"a b* c*":   "a acquire b c",
		"a* b":      "acquire a b",
		"a b& c*&":  "acquire a b c",
		"a b c*& d": "a acquire b c d",
		"a*< b c*":  "a b acquire c",
		"a*< b":     "a b",
		"a b> c*":   "a acquire b c",
		"a> b":      "a b",
		"a*- b*":    "a acquire b",
		"a*- b":     "a b",
		"a b*< c>":  "a b acquire c",
	} {
		in := deploy.Input{}
		for word := range strings.FieldsSeq(process) {
			name := word[:1]
			s := octopus.Step{ID: name, Name: name, Actions: octopus.List[octopus.Action]{{ID: name, Name: name, ActionType: octopus.ActionScript}}}
			for _, mark := range word[1:] {
				switch mark {
				case '*':
					s.Actions[0].Packages = octopus.List[octopus.PackageReference]{{PackageID: "P", AcquisitionLocation: octopus.AcquireOnServer}}
				case '&':
					s.StartTrigger = octopus.StartWithPrevious
				case '<':
					s.PackageRequirement = octopus.PackageRequirementBefore
				case '>':
					s.PackageRequirement = octopus.PackageRequirementAfter
				case '-':
					in.SkipActions = append(in.SkipActions, name)
				}
			}
			in.Process = append(in.Process, s)
		}
		plan, err := deploy.Build(in)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range plan.Steps {
			if plan.Steps[i].Acquires() {
				got = append(got, "acquire")
			} else {
				got = append(got, plan.Steps[i].Name)
			}
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%q (-want +got):\n%s", process, diff)
		}
	}
	never := octopus.Step{ID: "n", Name: "n", Actions: octopus.List[octopus.Action]{{ID: "n", Name: "n", Packages: octopus.List[octopus.PackageReference]{{PackageID: "P", AcquisitionLocation: octopus.AcquireNever}}}}}
	if plan, err := deploy.Build(deploy.Input{Process: []octopus.Step{never}}); err != nil || len(plan.Steps) != 1 {
		t.Errorf("a package that nobody fetches is acquired: %+v, %v", plan, err)
	}
}
