//go:build linux

package orchestrator_test

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

func TestDeployment(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		w.sc.Vars = []plainVariable{{Name: "Greeting", Value: "hello #{Who}"}, {Name: "Who", Value: "world"}, {Name: "Password", Value: "hunter22", Sensitive: true}, {Name: "Composed", Value: "<#{Password}>"}}
		id := w.queue(false,
			step("One", `echo "$(get_octopusvariable greeting)"
echo "the password is $(get_octopusvariable Password)" >&2
set_octopusvariable Plain "from one"
set_octopusvariable Token "t0psecret" -sensitive
set_octopusvariable Leak "it is hunter22"
echo "t0psecret and hunter22" > "kept for hunter22.txt"
new_octopusartifact "kept for hunter22.txt"
rm "kept for hunter22.txt"
write_warning "look out"
write_highlight "see"
mask_octopusvalue "on the fly"
echo "it was on the fly"
printf 'no line end'`),
			step("Two", `echo "plain: $(get_octopusvariable "Octopus.Action[One].Output.Plain")"
echo "token: $(get_octopusvariable "Octopus.Action[One].Output.Token")"
test "$(get_octopusvariable "Octopus.Action[One].Output.Token")" = t0psecret && echo "it is right"
test "$(get_octopusvariable "Octopus.Action[One].Output.Leak")" = "it is hunter22" && echo "so is this"
test "$(get_octopusvariable Composed)" = "<hunter22>" && echo "and that"
echo "step one $(get_octopusvariable "Octopus.Step[One].Status.Code"), I am $(get_octopusvariable Octopus.Step.Number) $(get_octopusvariable Octopus.Action.Name)"
echo "still on the fly"`),
			step("Three", `print("python", get_octopusvariable("Octopus.Action[One].Output.Plain"))`, property(octopus.PropScriptSyntax, "Python")),
		)
		task := w.ends(id, octopus.TaskSuccess)
		if !task.HasWarnings {
			t.Error("the warning is not told")
		}
		want := []string{
			"Info hello world", "Error the password is ********", "Warning look out", "Highlight see", "Info it was ********", "Info no line end",
			"Info plain: from one", "Info token: ********", "Info it is right", "Info so is this", "Info and that",
			"Info step one Succeeded, I am 2 Two", "Info still ********", "Info python from one", "Info The deployment completed successfully.",
		}
		got := w.log(id)
		slices.Sort(want) // of one script the two streams may meet in any order
		sorted := slices.Clone(got)
		slices.Sort(sorted)
		if diff := cmp.Diff(want, sorted); diff != "" {
			t.Errorf("%s\n%s", diff, strings.Join(got, "\n"))
		}
		raw := w.raw(id)
		for _, secret := range []string{"hunter22", "t0psecret", "on the fly"} {
			if strings.Contains(raw, secret) {
				t.Errorf("%q is in the database", secret)
			}
		}
		if diff := cmp.Diff(map[string]string{"kept for ********.txt": "t0psecret and hunter22\n"}, w.artifacts(id)); diff != "" {
			t.Error(diff)
		}
		await(t, "the agent has forgotten the scripts", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
		if left, _ := os.ReadDir(filepath.Join(w.dir, "worker", "Work")); len(slices.DeleteFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") || e.Name() == "Done" })) > 0 {
			t.Errorf("workspaces are left: %v", left)
		}
		if n := w.count(`SELECT (SELECT count(*) FROM slot) + (SELECT count(*) FROM tag_holder) + (SELECT count(*) FROM unit_cursor)`); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

func TestPackages(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		var archive bytes.Buffer
		z := zip.NewWriter(&archive)
		for name, content := range map[string]string{"web/index.html": "hello #{Who}", "deploy.sh": `echo "from the package: $(cat web/index.html), $1"`} {
			f, err := z.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		blobs, err := blob.OpenDir(filepath.Join(w.dir, "blobs"))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := blobs.Put(t.Context(), &archive, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		w.sc.Packages = map[string]string{"Acme.Web 1.2.0": fmt.Sprintf("%s %d", stored.Hash, stored.Size)}
		w.sc.Vars = []plainVariable{{Name: "Who", Value: "world"}}
		w.serve("a")
		uses := func(version string) func(*octopus.Step) {
			return func(s *octopus.Step) {
				s.Actions[0].Packages = []octopus.PackageReference{
					{PackageID: "Acme.Web", FeedID: "feeds-builtin", Version: octopus.NullString(version)},
					{Name: "whole", PackageID: "Acme.Web", FeedID: "feeds-builtin", Version: octopus.NullString(version), Properties: octopus.Map[string, octopus.PropertyText]{octopus.PackagePropExtract: "False"}},
				}
			}
		}
		id := w.queue(false,
			step("Packaged", "", uses("1.2.0"), property(octopus.PropScriptSource, "Package"), property(octopus.PropScriptFileName, "deploy.sh"), property(octopus.PropScriptParameters, "'one word'"),
				property(octopus.PropEnabledFeatures, "Octopus.Features.SubstituteInFiles"), property("Octopus.Action.SubstituteInFiles.TargetFiles", "web/*.html")),
			step("Paths", `test -f "$(get_octopusvariable "Octopus.Action.Package[].ExtractedPath")/deploy.sh" && echo extracted
test -f "$(get_octopusvariable "Octopus.Action.Package[whole].PackageFilePath")" && echo "whole $(get_octopusvariable "Octopus.Action.Package[whole].PackageFileName")"`, uses("1.2.0")))
		w.ends(id, octopus.TaskSuccess)
		for _, want := range []string{"Info from the package: hello world, one word", "Info extracted", "Info whole Acme.Web.1.2.0.zip"} {
			if !slices.Contains(w.log(id), want) {
				t.Errorf("%q is not in %q", want, w.log(id))
			}
		}
		id = w.queue(false, step("Missing", "echo never", uses("9.9.9")))
		w.ends(id, octopus.TaskFailed)
		if len(w.said(id, "There is no package Acme.Web 9.9.9.")) != 1 {
			t.Errorf("%q", w.log(id))
		}
	})
}

// Failures, conditions, retries and what a script says of its own failure.
func TestFailures(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(false,
			step("Flaky", w.run("flaky", `test "$(grep -c flaky '`+filepath.Join(w.dir, "ran")+`')" -ge 3 || { set_octopusvariable Try no; exit 9; }; set_octopusvariable Try yes`),
				property(octopus.PropRetryCount, "5"), property(octopus.PropRetryBackoff, "0")),
			step("Fails", w.run("fails", `fail_step "because of that"`), property(octopus.PropRetryCount, "1"), property(octopus.PropRetryBackoff, "1")),
			step("Not after that", w.run("never", "")),
			step("On failure", w.run("failure", `echo "error: $(get_octopusvariable Octopus.Deployment.ErrorDetail)"`), when(octopus.StepConditionFailure)),
			step("Always", w.run("always", `echo "try $(get_octopusvariable "Octopus.Action[Flaky].Output.Try")"; echo bad >&2`), when(octopus.StepConditionAlways), property(octopus.PropFailOnErrorOutput, "True")),
			step("If not true", w.run("never", ""), when(octopus.StepConditionVariable), func(s *octopus.Step) {
				s.Properties[octopus.PropConditionExpression] = octopus.PropertyValue{Value: "#{Missing}"}
			}),
			step("If true", w.run("true", ""), when(octopus.StepConditionVariable), func(s *octopus.Step) {
				s.Properties[octopus.PropConditionExpression] = octopus.PropertyValue{Value: "#{if Octopus.Deployment.Error}yes#{/if}"}
			}),
			step("Too long", w.run("long", "sleep 60"), when(octopus.StepConditionAlways), property(octopus.PropExecutionTimeout, "0.04")),
			step("Unknown", "", when(octopus.StepConditionAlways), func(s *octopus.Step) { s.Actions[0].ActionType = "Octopus.Juggle" }),
		)
		begin := time.Now()
		w.ends(id, octopus.TaskFailed)
		for word, want := range map[string]int{"flaky": 3, "fails": 2, "never": 0, "failure": 1, "always": 1, "true": 1, "long": 1} {
			if n := w.ran(word); n != want {
				t.Errorf("%s ran %d times, want %d", word, n, want)
			}
		}
		if time.Since(begin) < time.Second {
			t.Error("the retry did not wait")
		}
		log := strings.Join(w.log(id), "\n")
		for _, want := range []string{
			"Error The script exited with code 9.", "Warning Trying again (attempt 3).", "Error because of that", "Info error: because of that", "Info try yes",
			"Error The script wrote to its error output, and the step is set to fail then.", `Info Step "If not true" skipped: its run condition is false.`,
			`Info Step "Not after that" skipped: a previous step has failed.`, "Error The script ran longer than its time limit and was ended.",
			"Error This server cannot run steps of type Octopus.Juggle.",
		} {
			if !strings.Contains(log, want) {
				t.Errorf("%q is not in\n%s", want, log)
			}
		}
	})
}

// Steps of a group run side by side: each waits for the other.
func TestParallel(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		meet := func(me, other string) string {
			return w.run(me, fmt.Sprintf(`until grep -q %s '%s'; do sleep 0.02; done; set_octopusvariable Me %s; echo "met %s"`, other, filepath.Join(w.dir, "ran"), me, other))
		}
		id := w.queue(false, step("A", meet("a", "b")), step("B", meet("b", "a"), beside),
			step("After", `echo "$(get_octopusvariable "Octopus.Action[A].Output.Me")$(get_octopusvariable "Octopus.Action[B].Output.Me")"`))
		w.ends(id, octopus.TaskSuccess)
		if len(w.said(id, "Info ab")) != 1 || w.ran("a") != 1 || w.ran("b") != 1 {
			t.Errorf("%q", w.log(id))
		}
	})
}

func TestCancelScript(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(false, step("Long", w.run("long", "sleep 1000 & echo before; wait")), step("Beside", w.run("long", "sleep 1000"), beside), step("Always", w.run("always", ""), when(octopus.StepConditionAlways)))
		await(t, "both run", func() bool { return w.ran("long") == 2 })
		begin := time.Now()
		w.cancel(id)
		w.ends(id, octopus.TaskCanceled)
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		if w.ran("always") != 0 {
			t.Error("a step ran after the cancellation")
		}
		if n := len(w.said(id, "The script was canceled.")); n != 2 {
			t.Errorf("%q", w.log(id))
		}
		await(t, "the agent has forgotten the scripts", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
	})
}

// A cancellation while nothing runs: before a retry, and while a person is asked.
func TestCancelBetween(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(false, step("Fails", w.run("fails", "exit 1"), property(octopus.PropRetryCount, "3"), property(octopus.PropRetryBackoff, "600")))
		await(t, "it waits for its retry", func() bool { return len(w.said(id, "Trying again")) == 1 })
		w.cancel(id)
		w.ends(id, octopus.TaskCanceled)
		id = w.queue(true, step("Fails", w.run("fails", "exit 1")))
		question := w.asked(id)
		w.cancel(id)
		w.ends(id, octopus.TaskCanceled)
		if err := w.answer(question, deploy.Retry); fault.KindOf(err) != fault.Conflict {
			t.Errorf("an answer after the end: %v", err)
		}
		if w.ran("fails") != 2 {
			t.Errorf("it ran %d times", w.ran("fails"))
		}
	})
}

func TestGuidedFailure(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		fails := func(name string, change ...func(*octopus.Step)) octopus.Step {
			return step(name, w.run(name, `test -e '`+filepath.Join(w.dir, "go-"+name)+`'`), change...)
		}
		id := w.queue(true, fails("retry"), fails("ignore"), fails("required", func(s *octopus.Step) { s.Actions[0].IsRequired = true }), step("after", w.run("after", "")))
		question := w.asked(id)
		if err := w.answer(question, "Perhaps"); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "Fail, Retry, Ignore") {
			t.Errorf("another answer: %v", err)
		}
		if err := w.answer(question, deploy.Exclude); fault.KindOf(err) != fault.Invalid {
			t.Errorf("excluding no machine: %v", err)
		}
		await(t, "it holds no slot while it waits", func() bool { return w.count(`SELECT count(*) FROM slot`) == 0 && w.task(id).Waiting })
		w.letGo("retry")
		if err := w.answer(question, deploy.Retry); err != nil {
			t.Fatal(err)
		}
		if err := w.answer(w.asked(id), deploy.Ignore); err != nil {
			t.Fatal(err)
		}
		question = w.asked(id)
		if err := w.answer(question, deploy.Ignore); fault.KindOf(err) != fault.Invalid {
			t.Errorf("ignoring a required step: %v", err)
		}
		if err := w.answer(question, deploy.Fail); err != nil {
			t.Fatal(err)
		}
		w.ends(id, octopus.TaskFailed)
		for word, want := range map[string]int{"retry": 2, "ignore": 1, "required": 1, "after": 0} {
			if n := w.ran(word); n != want {
				t.Errorf("%s ran %d times, want %d", word, n, want)
			}
		}
		if n := len(w.said(id, "by ann.")); n != 3 {
			t.Errorf("%q", w.log(id))
		}
	})
}

// An output that looks like the beginning of a message is waited for without
// running in circles: neither calls of the agent nor transactions.
func TestHeldOutput(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(false, step("Holds", w.run("holds", "echo before; echo '##octopus[setVariable'; "+w.hold("on")+"echo after")))
		await(t, "the first line is there", func() bool { return len(w.log(id)) == 1 })
		<-time.After(100 * time.Millisecond)
		before, err := w.d.Generation(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(500 * time.Millisecond)
		after, err := w.d.Generation(t.Context())
		if err != nil || after-before > 10 {
			t.Errorf("%d commits while nothing happened, %v", after-before, err)
		}
		w.letGo("on")
		w.ends(id, octopus.TaskSuccess)
		if diff := cmp.Diff([]string{"Info before", "Info ##octopus[setVariable", "Info after", "Info The deployment completed successfully."}, w.log(id)); diff != "" {
			t.Error(diff)
		}
	})
}

// A deployment without steps succeeds; one whose journal cannot be read fails, and
// says so.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		empty := w.queue(false)
		damaged := w.queue(false, step("One", w.run("one", "")))
		w.write(func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO journal (task, seq, epoch, fact) VALUES (?, 1, 0, '{"k":"juggle"}')`, damaged)
			return err
		})
		w.serve("a")
		w.ends(empty, octopus.TaskSuccess)
		if task := w.ends(damaged, octopus.TaskFailed); !strings.Contains(task.Error, `kind "juggle" is not known`) || w.ran("one") != 0 {
			t.Errorf("%q", task.Error)
		}
	})
}
