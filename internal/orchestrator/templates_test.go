//go:build linux

package orchestrator_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

// TestPropertiesAreVariables: a script sees the settings of its own action, such as
// the values of its template's parameters, under their names.
func TestPropertiesAreVariables(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Vars = []plainVariable{{Name: "Planet", Value: "world"}, {Name: "Who", Value: "the project's"}}
		w.serve("a")
		id := w.queue(false,
			step("Tell", `echo "hello $(get_octopusvariable Who)"
test "$(get_octopusvariable Key)" = "t0psecret of world" && echo "the key is $(get_octopusvariable Key)"
echo "template $(get_octopusvariable Octopus.Action.Template.Id) $(get_octopusvariable Octopus.Action.Template.Version)"
echo "body <$(get_octopusvariable Octopus.Action.Script.ScriptBody)>"
exit 3`, property("Who", "#{Planet}"), property(octopus.PropTemplateID, "ActionTemplates-7"), property(octopus.PropTemplateVersion, "2"),
				func(s *octopus.Step) { s.Actions[0].Properties["Key"] = octopus.Secret("t0psecret of #{Planet}") }),
			step("Other", `echo "other <$(get_octopusvariable Who)> <$(get_octopusvariable Key)>"
echo "it is $(get_octopusvariable "Octopus.Action[Tell].Number"): $(get_octopusvariable "Octopus.Step[tell].Status.Code") $(get_octopusvariable "Octopus.Step[Tell].Status.ErrorDetail")"`, when(octopus.StepConditionAlways)),
		)
		w.ends(id, octopus.TaskFailed)
		for _, want := range []string{
			"Info hello world", "Info the key is ********", "Info template ActionTemplates-7 2", "Info body <>", "Info other <the project's> <>",
			"Info it is 1: Failed The script exited with code 3.",
		} {
			if !slices.Contains(w.log(id), want) {
				t.Errorf("nothing says %q:\n%s", want, strings.Join(w.log(id), "\n"))
			}
		}
		if strings.Contains(w.raw(id), "t0psecret") {
			t.Error("a secret is in the database")
		}
	})
}

// TestScriptModules: modules of included library sets are there for scripts of their
// language.
func TestScriptModules(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Vars = []plainVariable{
			{Name: "Planet", Value: "world"},
			{Name: "Octopus.Script.Module[My greetings_1]", Value: "greet() { echo \"hello #{Planet}\"; }\r\n"},
			{Name: "Octopus.Script.Module.Language[My greetings_1]", Value: "Bash"},
			{Name: "Octopus.Script.Module[my_tools]", Value: "def add(a, b):\n    return a + b"},
			{Name: "Octopus.Script.Module.Language[my_tools]", Value: "Python"},
			{Name: "Octopus.Script.Module[Shell]", Value: "function Get-It { 'it' }"},
		}
		w.serve("a")
		id := w.queue(false,
			step("Bash", "source ./Mygreetings1.sh\ngreet\nsource Mygreetings_1.sh\nls | tr '\\n' ' '"),
			step("Python", "import my_tools, mytools\nprint(my_tools.add(40, 2), mytools.add(1, 1))", property(octopus.PropScriptSyntax, "Python")),
		)
		w.ends(id, octopus.TaskSuccess)
		got := w.log(id)
		if diff := cmp.Diff([]string{"Info hello world", "Info Bootstrap.sh Mygreetings1.sh Mygreetings_1.sh ", "Info 42 2", "Info The deployment completed successfully."}, got); diff != "" {
			t.Error(diff)
		}
	})
}
