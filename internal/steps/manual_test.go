package steps_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/octopus"
)

func TestManual(t *testing.T) {
	t.Parallel()
	in := input(map[string]string{
		octopus.PropManualInstructions: "Speak #{Lang}?", octopus.PropManualTeams: " Teams-1 ,,Teams-#{N}",
	})
	in.Action.ActionType = octopus.ActionManual
	work, err := steps.Prepare(in)
	if err != nil {
		t.Fatal(err)
	}
	want := &steps.Work{Question: &steps.Question{Instructions: "Speak Bash?", Teams: []string{"Teams-1", "Teams-2"}}}
	if diff := cmp.Diff(want, work); diff != "" {
		t.Error(diff)
	}
}
