//go:build linux

package orchestrator_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

// One name has many values; which of them counts is decided for each target within a step,
// by how closely its scope fits.
func TestPoint02SpecificityPerTarget(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		value := func(name, text string, scope octopus.Scope) {
			w.sc.Vars = append(w.sc.Vars, plainVariable{Name: name, Value: text, Scope: scope})
		}
		list := func(ids ...string) octopus.List[string] { return ids }
		value("X", "everywhere", octopus.Scope{})
		value("x", "environment", octopus.Scope{Environment: list("Environments-1")})
		value("X", "elsewhere", octopus.Scope{Environment: list("Environments-2"), Machine: list("Machines-b")})
		value("X", "tag", octopus.Scope{Role: list("web")})
		value("X", "machine", octopus.Scope{Machine: list("Machines-b", "Machines-c")})
		value("X", "machine in the environment", octopus.Scope{Machine: list("Machines-c"), Environment: list("Environments-1")})
		value("X", "step", octopus.Scope{Action: list("a-Second")})
		value("X", "step on c", octopus.Scope{Action: list("a-Second"), Machine: list("Machines-c")})
		value("Composed", "<#{X}>", octopus.Scope{})
		w.serve("a")
		tell := func(name string) string {
			return `echo "` + name + ` on $(get_octopusvariable Octopus.Machine.Name): $(get_octopusvariable Composed)"`
		}
		rolling := step("First", tell("first"), onTargets)
		rolling.Actions = append(rolling.Actions, step("Second", tell("second")).Actions[0])
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{rolling, step("Alone", tell("alone"))}, Machines: machines("a", "b", "c")})
		w.ends(id, octopus.TaskSuccess)
		got := w.said(id, ": <")
		slices.Sort(got)
		want := []string{
			"Info alone on : <environment>",
			"Info first on a: <tag>", "Info first on b: <machine>", "Info first on c: <machine in the environment>",
			"Info second on a: <step>", "Info second on b: <step>", "Info second on c: <step on c>",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A secret is in clear for the script alone: not in the log, be it of several lines, not in
// outputs and the names of artifacts, and not in what tells why something failed.
func TestPoint12SecretsAreMasked(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Vars = []plainVariable{
			{Name: "Password", Value: "hunter22", Sensitive: true},
			{Name: "Key", Value: "-----BEGIN-----\nMIIEpAIBAAKC\nAQEAt3st5ecr\n-----END-----", Sensitive: true},
			{Name: "Url", Value: "https://me:#{Password}@example.com"},
		}
		w.serve("a")
		id := w.queue(true,
			step("One", `echo "key: $(get_octopusvariable Key)"
echo "url: $(get_octopusvariable Url)" >&2
printf 'half: hunt'; sleep 0.05; echo er22
set_octopusvariable Plain "it is hunter22"
set_octopusvariable Derived "derived-5ecret" -sensitive
touch "hunter22.txt"; new_octopusartifact "hunter22.txt" "of hunter22.txt"
echo "a derived-5ecret"`),
			step("Two", `fail_step "hunter22 was refused, and $(get_octopusvariable "Octopus.Action[One].Output.Derived")"`),
		)
		question := w.asked(id)
		if q := w.question(question); q.Message != "******** was refused, and ********" {
			t.Errorf("the question is %q", q.Message)
		}
		if err := w.answer(question, deploy.Fail); err != nil {
			t.Fatal(err)
		}
		w.ends(id, octopus.TaskFailed)
		raw := w.raw(id)
		for _, secret := range []string{"hunter22", "MIIEpAIBAAKC", "AQEAt3st5ecr", "derived-5ecret"} {
			if strings.Contains(raw, secret) {
				t.Errorf("%q is in the database:\n%s", secret, strings.Join(w.said(id, secret), "\n"))
			}
		}
		for _, want := range []string{"Error url: https://me:********@example.com", "Info half: ********", "Info a ********"} {
			if !slices.Contains(w.log(id), want) {
				t.Errorf("nothing says %q:\n%s", want, strings.Join(w.log(id), "\n"))
			}
		}
		if diff := cmp.Diff(map[string]string{"of ********.txt": ""}, w.artifacts(id)); diff != "" {
			t.Error(diff)
		}
	})
}
