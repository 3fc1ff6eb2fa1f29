package releases_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// TestHealth: the targets of a deployment as they are now, how they are checked, and
// what is kept of that.
func TestHealth(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		check1 := script("Check", func(a *octopus.Action) { a.ActionType = octopus.ActionHealthCheck })
		w.steps(check1, script("Deploy web"))
		left, gone := w.machine("left out", w.dev, "web"), w.machine("disabled", w.dev, "web")
		r := w.release("1.0.0")
		d := w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.ExcludedMachines = []string{left} }))
		plan := w.plan(d)
		if diff := cmp.Diff([]string{""}, plan.Steps[0].Lanes); diff != "" {
			t.Errorf("the check goes through lanes:\n%s", diff)
		}
		var preview *octopus.DeploymentPreview
		w.read(func(tx *db.Tx) (err error) {
			preview, err = w.rel.Preview(t.Context(), tx, &r, w.dev, "", false, "", nil)
			return err
		})
		if step := preview.StepsToExecute[0]; len(step.MachineNames) != 3 || step.HasNoApplicableMachines {
			t.Errorf("the preview has %s", encode(t, step))
		}

		var m octopus.Machine
		w.load("machines", gone, &m)
		m.IsDisabled = true
		w.replace("machines", gone, &m)
		fresh := w.machine("fresh", w.dev, "web")
		inline := &octopus.MachinePolicy{Name: "Ours"}
		inline.MachineHealthCheckPolicy.BashHealthCheckPolicy = octopus.MachineScriptPolicy{RunType: octopus.HealthScriptInline, ScriptBody: "exit 0"}
		connect := &octopus.MachinePolicy{Name: "Connect"}
		connect.MachineHealthCheckPolicy.HealthCheckType = octopus.HealthOnlyConnectivity
		for id, policy := range map[string]string{w.devTarget: w.create("machinepolicies", "", inline), fresh: w.create("machinepolicies", "", connect)} {
			w.load("machines", id, &m)
			m.MachinePolicyID = policy
			w.replace("machines", id, &m)
		}
		found, err := w.rel.Targets(t.Context(), plan)
		check(t, err)
		type how struct {
			ID, Script  string
			OnlyConnect bool
		}
		var got []how
		for _, one := range found {
			got = append(got, how{one.ID, one.Policy.Script, one.Policy.OnlyConnect})
		}
		if diff := cmp.Diff([]how{{fresh, "", true}, {w.devTarget, "exit 0", false}}, got); diff != "" {
			t.Errorf("targets (-want +got):\n%s", diff)
		}

		told := func() int64 {
			return count(t, w, `SELECT count(*) FROM events WHERE category = 'MachineUnavailable' AND message = 'Deployment target fresh is not available' AND environment_id = ?`, w.dev)
		}
		for range 2 { // twice is told once
			check(t, w.rel.Checked(t.Context(), []resources.MachineCheck{
				{Kind: resources.TargetKind, ID: fresh, Status: octopus.Unavailable, Summary: "It sleeps."}, {Kind: resources.TargetKind, ID: "Machines-999", Status: octopus.Healthy},
			}))
			w.load("machines", fresh, &m)
			if m.HealthStatus != octopus.Unavailable || m.StatusSummary != "It sleeps." || m.Status != octopus.MachineOffline || told() != 1 {
				t.Errorf("it is %s (%s): %s, told %d times", m.HealthStatus, m.Status, m.StatusSummary, told())
			}
		}
		check(t, w.rel.Checked(t.Context(), []resources.MachineCheck{{Kind: resources.TargetKind, ID: fresh, Status: octopus.Healthy, Summary: "Well."}}))
		if w.load("machines", fresh, &m); m.HealthStatus != octopus.Healthy || m.Status != octopus.MachineOnline {
			t.Errorf("then it is %s (%s)", m.HealthStatus, m.Status)
		}
	})
}
