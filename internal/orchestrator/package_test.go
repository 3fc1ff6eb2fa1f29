//go:build linux

package orchestrator_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent/install"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// packageStep is a step that deploys Acme.Web.
func packageStep(name string, kind octopus.ActionType, change ...func(*octopus.Step)) octopus.Step {
	return step(name, "", append([]func(*octopus.Step){func(s *octopus.Step) {
		s.Actions[0].ActionType = kind
		s.Actions[0].Properties = octopus.Properties{octopus.PropRunOnServer: {Value: "True"}}
		s.Actions[0].Packages = []octopus.PackageReference{{PackageID: "Acme.Web", FeedID: "feeds-builtin", Version: "1.2.0"}}
	}}, change...)...)
}

// push stores a package, as a release could have selected it.
func (w *world) push(name string, files map[string]string) {
	w.t.Helper()
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	for file, content := range files {
		f, err := z.CreateHeader(&zip.FileHeader{Name: file, Method: zip.Store})
		if err == nil {
			_, err = f.Write([]byte(content))
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		w.t.Fatal(err)
	}
	blobs, err := blob.OpenDir(filepath.Join(w.dir, "blobs"))
	if err != nil {
		w.t.Fatal(err)
	}
	stored, err := blobs.Put(w.t.Context(), &archive, 64<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.sc.Packages == nil {
		w.sc.Packages = map[string]string{}
	}
	w.sc.Packages[name] = fmt.Sprintf("%s %d", stored.Hash, stored.Size)
}

// TestDeployPackage: a package is installed for each target, with its scripts, and
// later steps know where; it is skipped where it is already, and transferred as it is.
func TestDeployPackage(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.push("Acme.Web 1.2.0", map[string]string{
			"conf.txt": "#{Octopus.Machine.Name}: #{Greeting}, #{Secret}", "PreDeploy.sh": `set_octopusvariable Greeting "hello #{x} $(get_octopusvariable Who)"; set_octopusvariable Token "t0p""secret" -sensitive`,
			"PostDeploy.sh": `echo "installed $(cat conf.txt)"; echo "token $(get_octopusvariable Token)"`,
		})
		w.sc.Vars = []plainVariable{{Name: "Who", Value: "world"}, {Name: "Secret", Value: "hunter22", Sensitive: true}, {Name: "Octopus.Environment.Name", Value: "Test"}}
		w.sc.Near = []string{"Machines-a", "Machines-b"} // the test's agent is on both
		w.serve("a")
		transferred := filepath.Join(w.dir, "transferred")
		process := []octopus.Step{
			packageStep("Web", octopus.ActionPackage, onTargets, func(s *octopus.Step) { delete(s.Actions[0].Properties, octopus.PropRunOnServer) },
				property(octopus.PropEnabledFeatures, "Octopus.Features.SubstituteInFiles,Octopus.Features.CustomScripts"), property("Octopus.Action.SubstituteInFiles.TargetFiles", "*.txt"),
				property("Octopus.Action.CustomScripts.PostDeploy.sh", `new_octopusartifact "$PWD/conf.txt" "conf of #{Octopus.Machine.Name}.txt"; echo "here $(basename "$PWD")"`),
				property("Octopus.Action.Package.SkipIfAlreadyInstalled", "True")),
			packageStep("Copy", octopus.ActionTransferPackage, property("Octopus.Action.Package.TransferPath", transferred+"/#{Octopus.Environment.Name}")),
			step("After", `for m in a b; do basename "$(get_octopusvariable "Octopus.Action[Web].Output[$m].Package.InstallationDirectoryPath")"; done | sort
echo "file $(get_octopusvariable "Octopus.Action[Copy].Output.Package.FilePath")"; echo "greeting $(get_octopusvariable "Octopus.Action[Web].Output[a].Greeting")"`),
		}
		in := deploy.Input{Plan: deploy.Plan{ProjectID: "Projects-1"}, Process: process, Machines: machines("a", "b")}
		id := w.queuePlan(in)
		w.ends(id, octopus.TaskSuccess)
		log := w.log(id)
		for _, want := range []string{
			"Info installed a: hello #{x} world, ********", "Info installed b: hello #{x} world, ********", "Info token ********",
			"Info 1.2.0", "Info 1.2.0_1", "Info file " + transferred + "/Test/Acme.Web.1.2.0.zip", "Info greeting hello #{x} world",
		} {
			if !slices.Contains(log, want) {
				t.Errorf("%q is not in\n%s", want, strings.Join(log, "\n"))
			}
		}
		want := map[string]string{"conf of a.txt": "a: hello #{x} world, hunter22", "conf of b.txt": "b: hello #{x} world, hunter22"}
		if diff := cmp.Diff(want, w.artifacts(id)); diff != "" {
			t.Errorf("artifacts (-want +got):\n%s", diff)
		}
		if info, err := os.Stat(filepath.Join(transferred, "Test", "Acme.Web.1.2.0.zip")); err != nil || info.Size() == 0 {
			t.Error(info, err)
		}
		if raw := w.raw(id); strings.Contains(raw, "t0psecret") || strings.Contains(raw, "hunter22") {
			t.Error("a secret is in the database")
		}
		// What is left on the machine: the installations, with the secret where the user wants
		// it and nowhere else.
		await(t, "the agent has forgotten the scripts", func() bool {
			left, err := filepath.Glob(filepath.Join(w.dir, "worker", "Work", ".trash", "*"))
			return err == nil && len(left) == 0 && w.count(`SELECT count(*) FROM ticket`) == 0
		})
		w.holding("t0psecret")
		w.holding("hunter22", "worker/Applications/Test/Acme.Web/1.2.0/conf.txt", "worker/Applications/Test/Acme.Web/1.2.0_1/conf.txt")

		again := w.queuePlan(in)
		w.ends(again, octopus.TaskSuccess)
		if len(w.said(again, "is installed already")) != 2 || len(w.said(again, "Info installed")) != 0 || !slices.Contains(w.log(again), "Info 1.2.0_1") {
			t.Errorf("%s", strings.Join(w.log(again), "\n"))
		}
		in.Plan.Redeploy = true
		forced := w.queuePlan(in)
		w.ends(forced, octopus.TaskSuccess)
		if len(w.said(forced, "Info installed")) != 2 {
			t.Errorf("%s", strings.Join(w.log(forced), "\n"))
		}

		bad := w.queue(false, packageStep("IIS", octopus.ActionPackage, property(octopus.PropEnabledFeatures, "Octopus.Features.IISWebSite")),
			packageStep("None", octopus.ActionPackage, func(s *octopus.Step) { s.Actions[0].Packages = nil }, when(octopus.StepConditionAlways)))
		w.ends(bad, octopus.TaskFailed)
		if len(w.said(bad, "Error The step sets up an IIS web site")) != 1 || len(w.said(bad, "Error The step selects no package")) != 1 {
			t.Errorf("%s", strings.Join(w.log(bad), "\n"))
		}
	})
}

// holding checks which files of the agent have a text.
func (w *world) holding(text string, want ...string) {
	w.t.Helper()
	var found []string
	err := filepath.WalkDir(filepath.Join(w.dir, "worker"), func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(name)
		if bytes.Contains(body, []byte(text)) {
			rel, _ := filepath.Rel(w.dir, name)
			found = append(found, rel)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(want)
	slices.Sort(found)
	if !slices.Equal(want, found) {
		w.t.Errorf("%q is in %q; want %q", text, found, want)
	}
}

// TestPackageRunnerIsKilled kills runners, with what they run, at random moments of a
// deployment: whoever is asked runs it again, and no installation of the journal is broken.
func TestPackageRunnerIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite)
	files := map[string]string{"conf.txt": "#{Level}", "Deploy.sh": "cp conf.txt deployed", "PostDeploy.sh": "echo done > last"}
	for i := range 100 {
		files[fmt.Sprintf("data/%d", i)] = strings.Repeat("x", 5000)
	}
	w.push("Acme.Web 1.2.0", files)
	w.sc.Vars = []plainVariable{{Name: "Level", Value: "new"}}
	rounds := 4
	if soaking() {
		rounds = 100
	}
	w.serve("a")
	unit, killed := deploy.Unit{Step: 1}, 0
	journal := func() (installations []install.Entry) {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(w.dir, "worker", "Deployments", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			var j install.Journal
			body, err := os.ReadFile(name)
			if err == nil {
				err = json.Unmarshal(body, &j)
			}
			if err != nil {
				t.Fatal(err)
			}
			installations = append(installations, j.Installations...)
		}
		for _, e := range installations {
			for name, want := range map[string]string{"conf.txt": "new", "deployed": "new", "last": "done\n", "data/99": files["data/99"]} {
				got, err := os.ReadFile(filepath.Join(w.dir, "worker", "Applications", e.Directory, name))
				if err != nil || string(got) != want {
					t.Errorf("the installation %s is broken: %s is %.20q, %v", e.Directory, name, got, err)
				}
			}
		}
		return installations
	}
	for range rounds {
		id, last := w.queue(true, packageStep("Web", octopus.ActionPackage, property(octopus.PropEnabledFeatures, "Octopus.Features.SubstituteInFiles"), property("Octopus.Action.SubstituteInFiles.TargetFiles", "*.txt"))), ""
		for !w.task(id).State.Completed() {
			var u deploy.UnitState
			await(t, "it is sent", func() bool {
				u = w.state(id).Unit(unit)
				return u.Intent != nil && u.Intent.Ticket != last || w.task(id).State.Completed()
			})
			if w.task(id).State.Completed() {
				break
			}
			last = u.Intent.Ticket
			<-time.After(rand.N(400 * time.Millisecond))
			if w.killIn(last, "lock") {
				killed++
			}
			w.killIn(last, "started")
			var question string
			await(t, "it is over, or somebody is asked", func() bool {
				question = w.pending(id)
				return question != "" || w.task(id).State.Completed()
			})
			if question == "" {
				break
			}
			journal()
			if w.answer(question, deploy.RunAgain) != nil {
				if err := w.answer(question, deploy.Retry); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.ends(id, octopus.TaskSuccess)
	}
	if n := len(journal()); n < rounds {
		t.Errorf("%d deployments made %d installations", rounds, n)
	}
	t.Logf("killed %d runners in %d deployments", killed, rounds)
}

// pending is a question that is open, "" for none.
func (w *world) pending(id string) (found string) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) error {
		page, _, err := tasks.Interruptions(ctx, tx, tasks.InterruptionQuery{Visible: []tasks.Visible{{Space: "Spaces-1"}}, Regarding: id, PendingOnly: true})
		if err == nil && len(page) > 0 {
			found = page[0].ID
		}
		return err
	})
	return found
}

// TestDelta sends a package as the difference to one that the agent has, and whole where
// that is switched off, saves nothing, or fails.
func TestDelta(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite)
	w.overNetwork()
	same := make([]byte, 2<<20)
	rand.NewChaCha8([32]byte{1}).Read(same)
	other := make([]byte, 2<<20)
	rand.NewChaCha8([32]byte{2}).Read(other)
	for version, content := range map[string][]byte{"1.0.0": same, "1.1.0": append([]byte("new"), same...), "1.2.0": other, "1.3.0": append([]byte("more"), same...), "1.4.0": append([]byte("most"), same...)} {
		w.push("Acme.Web "+version, map[string]string{"data": string(content), "Deploy.sh": "cksum data | cut -d' ' -f2"})
	}
	w.serve("a")
	deployed := func(version string, change ...func(*octopus.Step)) string {
		t.Helper()
		id := w.queue(false, packageStep("Web", octopus.ActionPackage, append(change, func(s *octopus.Step) { s.Actions[0].Packages[0].Version = octopus.NullString(version) })...))
		w.ends(id, octopus.TaskSuccess)
		return strings.Join(w.said(id, "as its difference"), "\n")
	}
	if said := deployed("1.0.0"); said != "" {
		t.Error(said)
	}
	said := deployed("1.1.0")
	if !strings.Contains(said, "Verbose Sent the package Acme.Web 1.1.0 as its difference to Acme.Web.1.0.0.zip: ") {
		t.Errorf("%q", said)
	}
	var sent, whole int
	if _, err := fmt.Sscanf(said[strings.LastIndex(said, ": ")+2:], "%d of %d bytes.", &sent, &whole); err != nil || sent > whole/10 {
		t.Errorf("%q: %v", said, err)
	}
	if said := deployed("1.2.0"); said != "" {
		t.Errorf("what has nothing in common: %q", said)
	}
	w.sc.Vars = []plainVariable{{Name: "Octopus.Acquire.DeltaCompressionEnabled", Value: "False"}}
	if said := deployed("1.3.0"); said != "" {
		t.Errorf("switched off: %q", said)
	}
	w.sc.Vars = nil
	// What the agent has under the name of a version is not always that version.
	for version := range w.sc.Packages {
		sum, _, _ := strings.Cut(w.sc.Packages[version], " ")
		name := filepath.Join(w.dir, "worker", "Packages", sum)
		if _, err := os.Stat(name); err == nil {
			if err := os.WriteFile(name, []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if said := deployed("1.4.0"); said != "" {
		t.Errorf("of damaged versions: %q", said)
	}
}
