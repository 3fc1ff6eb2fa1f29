//go:build linux

package orchestrator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// manual is a step that asks a person.
func manual(name, instructions string, change ...func(*octopus.Step)) octopus.Step {
	s := step(name, "", change...)
	s.Actions[0].ActionType = octopus.ActionManual
	s.Actions[0].Properties[octopus.PropManualInstructions] = octopus.PropertyValue{Value: instructions}
	return s
}

// queueBeside queues another deployment of the same concurrency tag beside the one that
// the scenario is of.
func (w *world) queueBeside(process ...octopus.Step) string {
	w.t.Helper()
	w.sc.Steps = append(w.sc.Steps, process...)
	w.save()
	plan, err := deploy.Build(deploy.Input{Plan: deploy.Plan{Owner: deploy.OwnerDeployment, OwnerID: "Deployments-2", EnvironmentID: "Environments-1"}, Process: process})
	if err != nil {
		w.t.Fatal(err)
	}
	var id string
	w.write(func(ctx context.Context, tx *db.Tx) error {
		t, err := w.desk.tasks.Create(ctx, tx, tasks.New{Space: "Spaces-1", Name: octopus.TaskDeploy, Description: "Deploy", Plan: plan, Tag: "tag"})
		if err == nil {
			id = t.ID
		}
		return err
	})
	return id
}

// question reads the body of an interruption.
func (w *world) question(id string) (q orchestrator.Question) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) error {
		i, err := tasks.GetInterruption(ctx, tx, id)
		if err != nil {
			return err
		}
		if i.Kind != octopus.InterruptionManual && i.Kind != octopus.InterruptionGuidedFailure {
			return fmt.Errorf("its type is %s", i.Kind)
		}
		return json.Unmarshal(i.Body, &q)
	})
	return q
}

// answerAs answers with notes, as a person with all that is known of one.
func (w *world) answerAs(question string, choice deploy.Choice, notes string) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx) error {
		return orchestrator.Answer(ctx, w.desk.tasks, tx, deploy.Answer{
			ID: question, Choice: choice, Notes: notes, User: "ann", UserID: "Users-7", DisplayName: "Ann O'Nym", Email: "ann@example.com",
		})
	})
}

func (w *world) waits(id string) {
	w.t.Helper()
	await(w.t, id+" waits without a slot", func() bool {
		return w.task(id).Waiting && w.count(`SELECT count(*) FROM slot WHERE task = ?`, id) == 0
	})
}

const printOutputs = `for name in Notes Approved ResponsibleUser.Id ResponsibleUser.Username ResponsibleUser.DisplayName ResponsibleUser.EmailAddress; do
echo "$name: $(get_octopusvariable "Octopus.Action[Ask].Output.Manual.$name")"
done`

func TestManualIntervention(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		w.sc.Vars = []plainVariable{{Name: "Who", Value: "the *team*"}, {Name: "Teams", Value: "Teams-5"}, {Name: "Password", Value: "hunter22", Sensitive: true}}
		id := w.queue(true,
			manual("Ask", "Is #{Who} ready? Its password is #{Password}.", property(octopus.PropManualTeams, "#{Teams}, Teams-6"), property(octopus.PropRetryCount, "3")),
			step("After", w.run("after", printOutputs)))
		question := w.asked(id)
		want := orchestrator.Question{
			Kind: deploy.AskManual, Attempt: 1, Message: "Is the *team* ready? Its password is ********.", Required: true, Teams: []string{"Teams-5", "Teams-6"},
		}
		if diff := cmp.Diff(want, w.question(question)); diff != "" {
			t.Error(diff)
		}
		w.waits(id)
		if err := w.answer(question, deploy.Retry); err == nil || !strings.Contains(err.Error(), "Proceed, Abort") {
			t.Errorf("another answer: %v", err)
		}
		// Others go on meanwhile: nothing else is blocked.
		w.ends(w.queueBeside(step("Other", w.run("other", ""))), octopus.TaskSuccess)
		w.answerAs(question, deploy.Proceed, "Looks good.\nhunter22")
		w.ends(id, octopus.TaskSuccess)
		log := w.log(id)
		for _, line := range []string{
			"Wait Waiting for somebody to answer the manual intervention " + question + ".", "Info Answered with Proceed by ann: Looks good. ********",
			"Info Notes: Looks good.", "Info Approved: True", "Info ResponsibleUser.Id: Users-7", "Info ResponsibleUser.Username: ann",
			"Info ResponsibleUser.DisplayName: Ann O'Nym", "Info ResponsibleUser.EmailAddress: ann@example.com",
		} {
			if !slices.Contains(log, line) {
				t.Errorf("%q is not in\n%s", line, strings.Join(log, "\n"))
			}
		}
		if n := w.count(`SELECT count(*) FROM events WHERE category = ?`, string(octopus.EventManualRaised)); n != 1 {
			t.Errorf("it was told %d times", n)
		}
	})
}

// One that is set to block keeps its concurrency tag, though not its slot.
func TestManualInterventionBlocks(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(false, manual("Ask", "Go on?", property(octopus.PropManualBlock, "True")))
		question := w.asked(id)
		w.waits(id)
		other := w.queueBeside(step("Other", w.run("other", "")))
		untagged := w.queueBeside(step("Untagged", w.run("untagged", "")))
		w.write(func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE task SET tag = 'another' WHERE id = ?`, untagged)
			return err
		})
		w.ends(untagged, octopus.TaskSuccess)
		w.read(func(ctx context.Context, tx *db.Tx) error {
			reason, ahead, err := w.desk.tasks.WaitReason(ctx, tx, w.task(other), []tasks.Visible{{Space: "Spaces-1"}})
			if !slices.Equal(ahead, []string{id}) || !strings.Contains(reason, id) {
				t.Errorf("it waits for %q: %s", ahead, reason)
			}
			return err
		})
		if w.task(other).State != octopus.TaskQueued {
			t.Fatal("another one of the tag has begun")
		}
		w.answerAs(question, deploy.Proceed, "")
		w.ends(id, octopus.TaskSuccess)
		w.ends(other, octopus.TaskSuccess)
	})
}

func TestManualInterventionAborts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(true, manual("Ask", "Go on?"), step("Success", w.run("success", "")),
			step("Failure", w.run("failure", `echo "error: $(get_octopusvariable Octopus.Deployment.ErrorDetail)"; `+printOutputs), when(octopus.StepConditionFailure)),
			step("Always", w.run("always", ""), when(octopus.StepConditionAlways)))
		w.answerAs(w.asked(id), deploy.Abort, "not today")
		w.ends(id, octopus.TaskFailed)
		if w.ran("success") != 0 || w.ran("failure") != 1 || w.ran("always") != 1 {
			t.Errorf("%q", w.log(id))
		}
		for _, want := range []string{"error: The intervention was answered with Abort by ann.", "Approved: False", "Notes: not today"} {
			if len(w.said(id, want)) == 0 {
				t.Errorf("%q is not in %q", want, w.log(id))
			}
		}
		// One without instructions asks nobody anything.
		id = w.queue(false, manual("Ask", " "))
		w.ends(id, octopus.TaskFailed)
		if len(w.said(id, "The step has no instructions")) != 1 {
			t.Errorf("%q", w.log(id))
		}
	})
}

func TestManualInterventionIsCanceled(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(false, manual("Ask", "Go on?"), step("Always", w.run("always", ""), when(octopus.StepConditionAlways)))
		question := w.asked(id)
		w.waits(id)
		w.cancel(id)
		w.ends(id, octopus.TaskCanceled)
		if err := w.answer(question, deploy.Proceed); err == nil {
			t.Error("it can be answered after the end")
		}
		if n := w.count(`SELECT count(*) FROM interruption WHERE pending = 1`); n != 0 || w.ran("always") != 0 {
			t.Errorf("%d questions are left, %d steps ran", n, w.ran("always"))
		}
	})
}

// The server is killed while a person thinks, and another one goes on: with the same
// question, and after the answer.
func TestManualInterventionSurvives(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		id := w.queue(false, step("Before", w.run("before", "")), manual("Ask", "Go on?"), step("Beside", w.run("beside", w.hold("beside")), beside), step("After", w.run("after", printOutputs)))
		first := w.child()
		question := w.asked(id)
		await(t, "the step beside runs", func() bool { return w.ran("beside") == 1 })
		kill(t, first) // nothing waits yet: it still had a script to follow
		second := w.child()
		w.letGo("beside")
		w.waits(id)
		kill(t, second)
		w.answerAs(question, deploy.Proceed, "later")
		w.serve("a")
		w.ends(id, octopus.TaskSuccess)
		if n := w.count(`SELECT count(*) FROM interruption`); n != 1 || w.ran("before") != 1 || w.ran("beside") != 1 || w.ran("after") != 1 {
			t.Errorf("%d questions; %q", n, w.log(id))
		}
		if len(w.said(id, "Notes: later")) != 1 {
			t.Errorf("%q", w.log(id))
		}
	})
}

func kill(t *testing.T, server *exec.Cmd) {
	t.Helper()
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait() // it was killed
}
