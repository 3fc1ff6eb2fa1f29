package tasks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// sql changes the database behind the server's back.
func (w *world) sql(statement string, args ...any) {
	w.T.Helper()
	ctx := w.T.Context()
	check(w.T, w.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	}))
}

// count is a number in the database.
func (w *world) count(query string, args ...any) (n int) {
	w.T.Helper()
	ctx := w.T.Context()
	check(w.T, w.DB.Read(ctx, func(tx *db.Tx) error { return tx.QueryRow(ctx, query, args...).Scan(&n) }))
	return n
}

// child is the task that a step of a deployment waits for.
func (w *world) child(parent string) (id string) {
	w.T.Helper()
	ctx := w.T.Context()
	await(w.T, parent+" has a child", func() bool { return w.count(`SELECT count(*) FROM task_child WHERE parent = ?`, parent) > 0 })
	check(w.T, w.DB.Read(ctx, func(tx *db.Tx) error {
		return tx.QueryRow(ctx, `SELECT child FROM task_child WHERE parent = ? ORDER BY unit DESC LIMIT 1`, parent).Scan(&id)
	}))
	return id
}

// deploysRelease is a step that deploys a release of another project.
func deploysRelease(project, more string, properties ...string) string {
	return step("Deploy Child", octopus.ActionDeployRelease, more, append([]string{octopus.PropDeployReleaseTarget, project}, properties...)...)
}

const childSaid = "#{Octopus.Action[Deploy Child].Output.Deployment[Gate].Manual.Notes}"

// A deployment that waits for another one gives its slot back: with one slot in all,
// both come to their end. Variables go there, and outputs come back.
func TestPoint21DeployRelease(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.sql(`UPDATE node_setting SET capacity = 1`)
		child := w.project("Child")
		w.Must(http.StatusOK, http.MethodPut, "/api/variables/variableset-"+child, `{"Version":1,"Variables":[{"Name":"Greeting","Type":"String","Value":"its own"}]}`)
		w.Must(http.StatusOK, http.MethodPut, "/api/deploymentprocesses/deploymentprocess-"+child, `{"Version":2,"Steps":[`+
			step("Gate", octopus.ActionManual, "", octopus.PropManualInstructions, "#{Greeting}", octopus.PropManualBlock, "True")+`]}`)
		w.release("Child", "3.0.0")
		w.project("Parent", deploysRelease(child, "", octopus.PropDeployReleaseVariables, `{"Greeting":"from #{Octopus.Project.Name}"}`), step("After", octopus.ActionManual, "", octopus.PropManualInstructions, childSaid))
		parent := w.deploy("Parent", "1.0.0", "Dev")
		task := w.child(parent)
		question := w.asked(task)
		if text := question.Form.Elements[0].Control.Text; text != "from Parent" {
			t.Errorf("the child asks %q", text)
		}
		if p := w.task(parent); p.State != octopus.TaskExecuting || p.HasPendingInterruptions {
			t.Errorf("the parent is %+v", p)
		}
		await(t, "nobody holds a slot", func() bool { return w.count(`SELECT count(*) FROM slot`) == 0 })
		var behind octopus.Page[octopus.Task]
		w.Get(space + "/tasks/" + parent + "/queued-behind").Into(&behind)
		if len(behind.Items) != 1 || behind.Items[0].ID != task {
			t.Errorf("it waits for %+v", behind.Items)
		}
		w.stop() // and somebody else goes on
		w.run(t)
		w.answer(w.may("InterruptionView", "InterruptionSubmit"), question.ID, `{"Result":"Proceed","Notes":"fine"}`)
		w.ends(task, octopus.TaskSuccess)
		question = w.asked(parent)
		if text := question.Form.Elements[0].Control.Text; text != "fine" {
			t.Errorf("the parent learns %q", text)
		}
		w.answer(w.may("InterruptionView", "InterruptionSubmit"), question.ID, `{"Result":"Proceed"}`)
		w.ends(parent, octopus.TaskSuccess)
		if n := w.count(`SELECT count(*) FROM deployment WHERE project_id = ?`, child); n != 1 {
			t.Errorf("the child was deployed %d times", n)
		}
		if by := w.Get(space + "/deployments?projects=" + child); !strings.Contains(string(by.Body), `"DeployedBy":"ada"`) {
			t.Errorf("%s", by.Body)
		}
	})
}

// What a child does to its parent, and the other way round.
func TestDeployReleaseEnds(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		child := w.project("Child", ask("Gate", ""))
		w.project("Parent", deploysRelease(child, ""), step("Always", octopus.ActionManual, `,"Condition":"Failure"`, octopus.PropManualInstructions, "#{Octopus.Deployment.ErrorDetail}"))
		judge := w.may("InterruptionView", "InterruptionSubmit")

		// A failure is one of the step, and a person may be asked what to do: then it is
		// another deployment.
		parent := w.deploy("Parent", "1.0.0", "Dev", `,"useGuidedFailure":true`)
		first := w.child(parent)
		w.answer(judge, w.asked(first).ID, `{"Result":"Abort"}`)
		w.ends(first, octopus.TaskFailed)
		question := w.asked(parent)
		if question.Type != octopus.InterruptionGuidedFailure || !strings.Contains(question.Form.Elements[0].Control.Text, first+" has failed") {
			t.Errorf("%+v", question)
		}
		w.answer(judge, question.ID, `{"Guidance":"Retry"}`)
		await(t, "there is another one", func() bool { return w.child(parent) != first })
		second := w.child(parent)
		w.answer(judge, w.asked(second).ID, `{"Result":"Proceed"}`)
		w.ends(second, octopus.TaskSuccess)
		w.ends(parent, octopus.TaskSuccess)

		// Cancelling the child fails the step; cancelling the parent leaves the child alone.
		parent = w.deploy("Parent", "1.0.0", "Dev")
		w.asked(w.child(parent))
		w.Must(http.StatusOK, http.MethodPost, space+"/tasks/"+w.child(parent)+"/cancel", "")
		if text := w.asked(parent).Form.Elements[0].Control.Text; !strings.Contains(text, "was canceled") {
			t.Errorf("the failure is %q", text)
		}
		w.answer(judge, w.asked(parent).ID, `{"Result":"Proceed"}`)
		w.ends(parent, octopus.TaskFailed)
		parent = w.deploy("Parent", "1.0.0", "Dev")
		last := w.child(parent)
		question = w.asked(last)
		w.Must(http.StatusOK, http.MethodPost, space+"/tasks/"+parent+"/cancel", "")
		w.ends(parent, octopus.TaskCanceled)
		if w.task(last).State != octopus.TaskExecuting {
			t.Error("the child was canceled, too")
		}
		w.answer(judge, question.ID, `{"Result":"Proceed"}`)
		w.ends(last, octopus.TaskSuccess)
	})
}

func TestDeployReleaseConditions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.Must(http.StatusOK, http.MethodPut, "/api/lifecycles/Lifecycles-1", fmt.Sprintf(`{"Name":"Default","Phases":[
			{"Name":"Dev","OptionalDeploymentTargets":[%q]},{"Name":"Prod","OptionalDeploymentTargets":[%q]}]}`, w.dev, w.prod))
		child := w.project("Child")
		for _, c := range []struct {
			condition, selected string // Child:selected, after 2.0.0 was deployed
			deployed            bool
		}{
			{"Always", "2.0.0", true},
			{"IfNotCurrentVersion", "2.0.0", false},
			{"IfNotCurrentVersion", "1.0.0", true},
			{"IfNewer", "1.0.0", false},
			{"IfNewer", "2.0.0", false},
			{"IfNewer", "10.0.0", true},
		} {
			name := c.condition + " " + c.selected
			for _, version := range []string{"2.0.0", "10.0.0"} {
				if w.count(`SELECT count(*) FROM release WHERE project_id = ? AND version = ?`, child, version) == 0 {
					w.release("Child", version)
				}
			}
			w.ends(w.deploy("Child", "2.0.0", "Dev"), octopus.TaskSuccess)
			w.project(name, deploysRelease(child, "", octopus.PropDeployReleaseCondition, c.condition))
			w.Must(http.StatusCreated, http.MethodPost, space+"/releases/create/v1",
				fmt.Sprintf(`{"spaceIdOrName":"Spaces-1","projectName":%q,"releaseVersion":"7.0.0","packages":["Deploy Child:%s"]}`, name, c.selected))
			before := w.count(`SELECT count(*) FROM deployment WHERE project_id = ?`, child)
			task := w.deploy(name, "7.0.0", "Dev")
			w.ends(task, octopus.TaskSuccess)
			if n := w.count(`SELECT count(*) FROM deployment WHERE project_id = ?`, child) - before; (n == 1) != c.deployed {
				t.Errorf("%s: deployed %d times\n%s", name, n, w.log(task))
			}
			if !c.deployed && !strings.Contains(w.log(task), "Skipped: Child ") {
				t.Errorf("%s: %s", name, w.log(task))
			}
		}
		// The lifecycle of the child decides about the child.
		w.release("Child", "11.0.0")
		w.project("Last", deploysRelease(child, ""))
		w.ends(w.deploy("Last", "1.0.0", "Dev"), octopus.TaskSuccess)
		w.release("Child", "12.0.0")
		w.Must(http.StatusCreated, http.MethodPost, space+"/releases/create/v1", `{"spaceIdOrName":"Spaces-1","projectName":"Last","releaseVersion":"2.0.0","packages":["Deploy Child:12.0.0"]}`)
		w.ends(w.deploy("Last", "1.0.0", "Prod"), octopus.TaskSuccess)
		w.ends(w.deploy("Last", "2.0.0", "Dev"), octopus.TaskSuccess)
		w.ends(w.deploy("Child", "11.0.0", "Dev"), octopus.TaskSuccess)
		w.sql(`DELETE FROM current_release WHERE project_id = ?`, child)
		w.sql(`UPDATE deployment SET state = 'Failed' WHERE project_id = ?`, child)
		task := w.deploy("Last", "2.0.0", "Prod")
		w.ends(task, octopus.TaskFailed)
		if log := w.log(task); !strings.Contains(log, "cannot be deployed to") {
			t.Error(log)
		}
	})
}
