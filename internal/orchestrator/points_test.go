//go:build linux

package orchestrator_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// queuePlan queues a deployment whose plan is made of in.
func (w *world) queuePlan(in deploy.Input) string {
	w.t.Helper()
	w.sc.Steps = in.Process
	return w.queueTagged("tag", in)
}

// queueTagged is queuePlan with a concurrency tag of its own, of steps that the scenario
// has already.
func (w *world) queueTagged(tag string, in deploy.Input) string {
	w.t.Helper()
	w.save()
	in.Plan.Owner, in.Plan.OwnerID, in.Plan.EnvironmentID = deploy.OwnerDeployment, "Deployments-1", "Environments-1"
	plan, err := deploy.Build(in)
	if err != nil {
		w.t.Fatal(err)
	}
	var id string
	w.write(func(ctx context.Context, tx *db.Tx) error {
		t, err := w.desk.tasks.Create(ctx, tx, tasks.New{Space: "Spaces-1", Name: octopus.TaskDeploy, Description: "Deploy", Plan: plan, Tag: tag})
		if err == nil {
			id = t.ID
		}
		return err
	})
	return id
}

// machines are targets with the tag "web".
func machines(names ...string) []deploy.Machine {
	var out []deploy.Machine
	for _, name := range names {
		out = append(out, deploy.Machine{ID: "Machines-" + name, Name: name, Roles: []string{"web"}})
	}
	return out
}

// onTargets has a step run once for each target, by the worker on its behalf.
func onTargets(s *octopus.Step) {
	s.Properties[octopus.PropTargetRoles] = octopus.PropertyValue{Value: "web"}
}

// What does not run is one of four things: outside of its scope it is no part of the
// deployment; left out it is skipped and says so; with a condition that is false, too,
// with another reason; and what is required runs, whatever somebody wants to leave out.
func TestPoint08FourKindsOfNotRunning(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		change := func(fn func(*octopus.Action)) func(*octopus.Step) {
			return func(s *octopus.Step) { fn(&s.Actions[0]) }
		}
		process := []octopus.Step{
			step("Disabled", w.run("never", ""), change(func(a *octopus.Action) { a.IsDisabled = true })),
			step("Elsewhere", w.run("never", ""), change(func(a *octopus.Action) { a.Environments = []string{"Environments-2"} })),
			step("Left out", w.run("never", "")),
			step("Required", w.run("required", ""), change(func(a *octopus.Action) { a.IsRequired = true })),
			manual("Asks a team", "Go on?", property(octopus.PropManualTeams, "Teams-1")),
			step("False", w.run("never", ""), when(octopus.StepConditionVariable), func(s *octopus.Step) {
				s.Properties[octopus.PropConditionExpression] = octopus.PropertyValue{Value: "#{Nothing}"}
			}),
			step("No failure", w.run("never", ""), when(octopus.StepConditionFailure)),
		}
		id := w.queuePlan(deploy.Input{Process: process, SkipActions: []string{"a-Left out", "a-Required", "a-Asks a team"}})
		w.answerAs(w.asked(id), deploy.Proceed, "")
		w.ends(id, octopus.TaskSuccess)
		tree := w.state(id).Tree(id, "Deploy", octopus.TaskSuccess, time.Now(), time.Now())
		got := map[string]octopus.ActivityStatus{}
		for _, child := range tree.Children {
			got[child.Name] = child.Status
		}
		want := map[string]octopus.ActivityStatus{
			"Step 3: Left out": octopus.ActivitySkipped, "Step 4: Required": octopus.ActivitySuccess, "Step 5: Asks a team": octopus.ActivitySuccess,
			"Step 6: False": octopus.ActivitySkipped, "Step 7: No failure": octopus.ActivitySkipped,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		for _, reason := range []string{"Skipped: it was left out of this deployment.", `"False" skipped: its run condition is false.`, `"No failure" skipped: no previous step has failed.`} {
			if len(w.said(id, reason)) != 1 {
				t.Errorf("%q is not in %q", reason, w.log(id))
			}
		}
		if w.ran("never") != 0 || w.ran("required") != 1 {
			t.Errorf("%q", w.log(id))
		}
	})
}

// A window slides: as soon as one of its targets is done the next one begins, however
// long the others take. After a failure no further target begins.
func TestPoint10SlidingWindow(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		body := `name=$(get_octopusvariable Octopus.Machine.Name)
echo "start-$name" >> '` + w.dir + `/ran'
until test -e '` + w.dir + `'/go-$name; do sleep 0.02; done
test "$(get_octopusvariable Octopus.Machine.Name)" != "$(get_octopusvariable Bad)"
`
		rolling := step("Roll", body, onTargets, func(s *octopus.Step) {
			s.Properties[octopus.PropMaxParallelism] = octopus.PropertyValue{Value: "#{Window}"}
			second := s.Actions[0]
			second.ID, second.Name = "a-second", "Second"
			second.Properties = octopus.Properties{
				octopus.PropRunOnServer: {Value: "True"}, octopus.PropScriptSyntax: {Value: "Bash"},
				octopus.PropScriptBody: {Value: `echo "end-$(get_octopusvariable Octopus.Machine.Name)" >> '` + w.dir + `/ran'`},
			}
			s.Actions = append(s.Actions, second)
		})
		w.sc.Vars = []plainVariable{{Name: "Window", Value: "2"}, {Name: "Bad", Value: "c"}}
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{rolling}, Machines: machines("a", "b", "c", "d", "e")})
		begun := func() (all []string) {
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				if w.ran("start-"+name) > 0 {
					all = append(all, name)
				}
			}
			return all
		}
		await(t, "two of them run", func() bool { return len(begun()) == 2 })
		w.letGo("b")
		await(t, "the third begins though the first is not done", func() bool { return slices.Equal(begun(), []string{"a", "b", "c"}) })
		if w.ran("end-b") != 1 || w.ran("end-a") != 0 {
			t.Error("a target's steps do not follow each other")
		}
		w.letGo("c") // which fails
		await(t, "it has failed", func() bool { return len(w.said(id, "exited with code 1")) == 1 })
		w.letGo("a")
		w.letGo("d")
		w.letGo("e")
		w.ends(id, octopus.TaskFailed)
		if !slices.Equal(begun(), []string{"a", "b", "c"}) || w.ran("end-a") != 1 || w.ran("end-c") != 0 {
			t.Errorf("%v began; %q", begun(), w.log(id))
		}
	})
}

// Each target that fails is asked about by itself; the questions are linked, and one
// person holds them all.
func TestPoint11GuidedFailurePerTarget(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		fails := step("Fails", `name=$(get_octopusvariable Octopus.Machine.Name)
echo "try-$name" >> '`+w.dir+`/ran'
test -e '`+w.dir+`'/go-$name`, onTargets)
		after := step("After", `echo "after-$(get_octopusvariable Octopus.Machine.Name)" >> '`+w.dir+`/ran'`, onTargets)
		w.letGo("ok")
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{fails, after}, Machines: machines("ok", "retried", "ignored", "excluded"), Plan: deploy.Plan{GuidedFailure: true}})
		pending := func() map[string]string { // by the target's name
			found := map[string]string{}
			w.read(func(ctx context.Context, tx *db.Tx) error {
				page, _, err := tasks.Interruptions(ctx, tx, tasks.InterruptionQuery{Visible: []tasks.Visible{{Space: "Spaces-1"}}, Regarding: id, PendingOnly: true})
				for _, i := range page {
					found[strings.TrimPrefix(i.Title, "Fails on ")] = i.ID
				}
				return err
			})
			return found
		}
		await(t, "all three are asked about", func() bool { return len(pending()) == 3 })
		w.waits(id)
		asked := pending()
		take := func(question, user string) error {
			ctx := context.WithoutCancel(t.Context())
			return w.d.WriteEngine(ctx, func(tx *db.Tx) error { return tasks.TakeResponsibility(ctx, tx, question, user) })
		}
		w.read(func(ctx context.Context, tx *db.Tx) error {
			linked, err := tasks.Linked(ctx, tx, []string{asked["retried"], asked["ignored"], asked["excluded"]})
			if len(linked) != 3 {
				t.Errorf("linked are %v of %v", linked, asked)
			}
			return err
		})
		if err := take(asked["retried"], "Users-1"); err != nil {
			t.Fatal(err)
		}
		if err := take(asked["ignored"], "Users-2"); fault.KindOf(err) != fault.Conflict {
			t.Errorf("a second holder: %v", err)
		}
		w.letGo("retried")
		for name, choice := range map[string]deploy.Choice{"retried": deploy.Retry, "ignored": deploy.Ignore, "excluded": deploy.Exclude} {
			if err := w.answer(asked[name], choice); err != nil {
				t.Fatal(err)
			}
		}
		w.ends(id, octopus.TaskSuccess)
		got := map[string]int{}
		for _, name := range []string{"ok", "retried", "ignored", "excluded"} {
			got["try-"+name], got["after-"+name] = w.ran("try-"+name), w.ran("after-"+name)
		}
		want := map[string]int{"try-ok": 1, "after-ok": 1, "try-retried": 2, "after-retried": 1, "try-ignored": 1, "after-ignored": 1, "try-excluded": 1, "after-excluded": 0}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%q", diff, w.log(id))
		}
	})
}

// After a failure the steps run that want one, and those that always run.
func TestPoint09StepsAfterAFailure(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		variable := func(expression string) func(*octopus.Step) {
			return func(s *octopus.Step) {
				s.Condition = octopus.StepConditionVariable
				s.Properties[octopus.PropConditionExpression] = octopus.PropertyValue{Value: expression}
			}
		}
		id := w.queue(false,
			step("Early", w.run("early", ""), when(octopus.StepConditionFailure)),
			step("Fails", w.run("fails", "exit 3")),
			step("Success", w.run("success", "")),
			step("Failure", w.run("failure", ""), when(octopus.StepConditionFailure)),
			step("Always", w.run("always", ""), when(octopus.StepConditionAlways)),
			step("Variable", w.run("variable", ""), variable("#{if Octopus.Environment.Id}x#{/if}True")),
			step("Unless", w.run("unless", ""), variable("#{unless Octopus.Deployment.Error}True#{/unless}")))
		w.ends(id, octopus.TaskFailed)
		got := map[string]int{}
		for _, word := range []string{"early", "fails", "success", "failure", "always", "variable", "unless"} {
			got[word] = w.ran(word)
		}
		if diff := cmp.Diff(map[string]int{"early": 0, "fails": 1, "success": 0, "failure": 1, "always": 1, "variable": 1, "unless": 0}, got); diff != "" {
			t.Errorf("%s\n%q", diff, w.log(id))
		}
	})
}

// A cancellation reaches every process that a script has started, in sessions of their own
// too, and takes no longer than it may.
func TestPoint19CancelReachesTheProcessTree(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		file := filepath.Join(w.dir, "pid")
		id := w.queue(false, step("Long", fmt.Sprintf(`trap '' TERM
setsid bash -c 'trap "" TERM HUP; echo $$ > "%[1]s.tmp"; mv "%[1]s.tmp" "%[1]s"; while true; do sleep 0.1; done' &
wait`, file)))
		var pid string
		await(t, "the process runs", func() bool {
			body, err := os.ReadFile(file)
			pid = strings.TrimSpace(string(body))
			return err == nil && pid != ""
		})
		// Who it is, since its number may belong to somebody else later.
		is := func() string {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			fields := strings.Fields(string(stat))
			if err != nil || len(fields) < 22 || fields[2] == "Z" {
				return ""
			}
			return fields[21]
		}
		began := is()
		if began == "" {
			t.Fatalf("there is no process %s", pid)
		}
		w.cancel(id)
		w.ends(id, octopus.TaskCanceled)
		await(t, "the process is gone", func() bool { return is() != began })
		var canceled, ended int64
		w.read(func(ctx context.Context, tx *db.Tx) error {
			return tx.QueryRow(ctx, `SELECT t.cancel_at, t.completed_time FROM task t WHERE t.id = ?`, id).Scan(&canceled, &ended)
		})
		if took := time.Duration(ended-canceled) * time.Microsecond; canceled == 0 || took > 15*time.Second {
			t.Errorf("the task ended %s after it was canceled", took)
		}
	})
}
