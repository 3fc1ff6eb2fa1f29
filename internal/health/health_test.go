//go:build linux

package health_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// TestChecks: every way in which a machine can be, what is kept of it and what is told.
func TestChecks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		offline := w.policy("May be away", "", func(p *octopus.MachinePolicy) {
			p.MachineConnectivityPolicy.MachineConnectivityBehavior = octopus.MayBeOffline
		})
		well := w.target("well", w.policy("Well", "echo all is well"))
		warns := w.target("warns", w.policy("Warns", "write_warning 'the disk is nearly full'"))
		ill := w.target("ill", w.policy("Ill", "fail_healthcheck 'the disk is gone'"))
		connect := w.target("connect", w.policy("Connect", "exit 1", func(p *octopus.MachinePolicy) {
			p.MachineHealthCheckPolicy.HealthCheckType = octopus.HealthOnlyConnectivity
		}))
		far, laptop := w.target("far", ""), w.target("laptop", offline)
		w.isAway(far, true)
		w.isAway(laptop, true)
		region := w.target("region", "", func(m *octopus.Machine) { m.Endpoint = octopus.Endpoint{CommunicationStyle: octopus.StyleNone} })
		off := w.target("off", "", func(m *octopus.Machine) { m.IsDisabled = true })
		drop := w.target("drop", "", func(m *octopus.Machine) { m.Endpoint = octopus.Endpoint{CommunicationStyle: octopus.StyleOfflineDrop} })
		worker := &octopus.Worker{WorkerPoolIDs: octopus.List[string]{"WorkerPools-1"}}
		worker.Name, worker.Endpoint = "worker", octopus.Endpoint{CommunicationStyle: octopus.StylePolling, URI: "poll://abc/"}
		busy := w.create("workers", space, worker)
		before := len(w.texts(`SELECT e.category FROM events e`))

		all := []string{well, warns, ill, connect, far, laptop, region, off, drop, busy}
		id := w.queue(health.Job{}, all...)
		task := w.ends(id, octopus.TaskFailed)
		if want := "1 of 8 machines are expected to be online and are not available: far."; task.Error != want || !task.HasWarnings {
			t.Errorf("the task says %q", task.Error)
		}
		found := map[string]string{}
		for _, one := range all[:9] {
			m := w.machine(one)
			found[m.Name] = fmt.Sprintf("%s, %s: %s", m.HealthStatus, m.Status, m.StatusSummary)
		}
		if diff := cmp.Diff(map[string]string{
			"well": "Healthy, Online: The health check succeeded.", "warns": "HasWarnings, Online: the disk is nearly full", "ill": "Unhealthy, Online: the disk is gone",
			"connect": "Healthy, Online: The machine answers.", "far": "Unavailable, Offline: The machine does not answer.", "laptop": "Unavailable, Offline: The machine does not answer.",
			"region": "Healthy, Online: The target has no agent that could be asked.",
			"off":    "Unknown, Unknown: This machine has not been checked yet.", "drop": "Unknown, Unknown: This machine has not been checked yet.",
		}, found); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]octopus.ActivityStatus{
			"task": octopus.ActivityFailed, "well": octopus.ActivitySuccess, "warns": octopus.ActivitySuccessWithWarning, "ill": octopus.ActivityFailed, "connect": octopus.ActivitySuccess,
			"far": octopus.ActivityFailed, "laptop": octopus.ActivitySuccessWithWarning, "region": octopus.ActivitySuccess, "off": octopus.ActivitySkipped, "drop": octopus.ActivitySkipped,
			"worker": octopus.ActivitySuccess,
		}, w.tree(id)); diff != "" {
			t.Errorf("the log tree (-want +got):\n%s", diff)
		}
		m := w.machine(well)
		if m.OperatingSystem == "" || m.ShellName != "Bash" || !strings.Contains(m.ShellVersion, ".") || m.Architecture == "" || !m.HasLatestCalamari || m.LastModifiedBy != "system" {
			t.Errorf("it tells of itself: %+v", m.MachineBase)
		}
		if d := m.Endpoint.TentacleVersionDetails; d == nil || d.Version != version || d.UpgradeSuggested {
			t.Errorf("its agent is %+v", d)
		}
		for _, line := range []string{"_" + well + ": Verbose all is well", "_" + ill + ": Error ill is not healthy: the disk is gone", "_" + off + ": Info off is disabled, and was not checked.", "_" + laptop + ": Warning laptop is not available: The machine does not answer."} {
			if !slices.Contains(w.log(id), line) {
				t.Errorf("nothing says %q:\n%s", line, strings.Join(w.log(id), "\n"))
			}
		}
		events := w.texts(`SELECT e.message FROM events e ORDER BY e.id`)[before:]
		slices.Sort(events)
		if diff := cmp.Diff([]string{
			"Deployment target connect is healthy", "Deployment target far is not available", "Deployment target ill is not healthy", "Deployment target laptop is not available",
			"Deployment target region is healthy", "Deployment target warns is healthy, with warnings", "Deployment target well is healthy", "Worker worker is healthy",
		}, events); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}

		// What is as it was is told nobody.
		w.ends(w.queue(health.Job{}, all...), octopus.TaskFailed)
		if more := w.texts(`SELECT e.message FROM events e ORDER BY e.id`)[before+len(events):]; len(more) != 0 {
			t.Errorf("told again: %q", more)
		}
		w.isAway(far, false)
		w.ends(w.queue(health.Job{OnlyConnect: true}, far, ill), octopus.TaskSuccess)
		if more := w.texts(`SELECT e.message FROM events e ORDER BY e.id`)[before+len(events):]; len(more) != 2 || w.machine(far).HealthStatus != octopus.Healthy {
			t.Errorf("told then: %q", more)
		}
		if n := len(w.texts(`SELECT k.ticket FROM ticket k WHERE k.state <> 'complete'`)); n != 0 {
			t.Errorf("%d scripts are not over", n)
		}
		var last resources.LastCheck
		w.read(func(ctx context.Context, tx *db.Tx) (err error) {
			last, err = resources.LastCheckOf(ctx, tx, well)
			return err
		})
		if last.At.IsZero() || !last.Away.IsZero() || last.Version != version || !cmp.Equal(last.Log, []string{"all is well"}) {
			t.Errorf("kept of the last check: %+v", last)
		}
	})
}

// TestGoesOn: whoever takes a task over finds the scripts of machines where they run,
// and checks none twice; and a cancellation ends it, and them.
func TestGoesOn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		slow, quick := w.target("slow", w.policy("Slow", w.runs("slow"))), w.target("quick", w.policy("Quick", "echo ran >> "+w.dir+"/quick"))
		stop := w.serve("a")
		id := w.queue(health.Job{}, quick, slow)
		await(t, "one is checked, and the other's script runs", func() bool {
			return w.machine(quick).HealthStatus == octopus.Healthy && w.ran("slow") == 1 && len(w.texts(`SELECT j.fact FROM journal j WHERE j.task = ? AND j.fact LIKE '%"Healthy"%'`, id)) == 1
		})
		stop()
		w.serve("b")
		await(t, "the other node has it", func() bool { return w.task(id).Node == "b" })
		w.letGo("slow")
		w.ends(id, octopus.TaskSuccess)
		if w.ran("slow") != 1 || w.ran("quick") != 1 {
			t.Errorf("the scripts ran %d and %d times", w.ran("slow"), w.ran("quick"))
		}
		held := w.target("held", w.policy("Held", w.runs("held")))
		id = w.queue(health.Job{}, held)
		await(t, "its script runs", func() bool { return w.ran("held") == 1 })
		w.write(func(ctx context.Context, tx *db.Tx) error {
			_, err := w.desk.Cancel(ctx, tx, id)
			return err
		})
		task := w.ends(id, octopus.TaskCanceled)
		if took := task.Completed.Sub(task.CancelAt); took > 30*time.Second {
			t.Errorf("it took %s", took)
		}
		if got := w.texts(`SELECT k.state FROM ticket k WHERE k.task = ?`, id); !cmp.Equal(got, []string{"cancel"}) {
			t.Errorf("of its script the agent is told %q", got)
		}
		if s := w.machine(held).HealthStatus; s != octopus.HealthUnknown || w.tree(id)["held"] != octopus.ActivityCanceled {
			t.Errorf("it is %s, %v", s, w.tree(id))
		}
	})
}

// TestTimes: a script that takes too long is a machine that is not well, and a task
// that takes too long fails.
func TestTimes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		slow := w.target("slow", w.policy("Slow", w.runs("slow")))
		w.ends(w.queue(health.Job{MachineTimeout: 500 * time.Millisecond}, slow), octopus.TaskSuccess)
		if m := w.machine(slow); m.HealthStatus != octopus.Unhealthy || m.StatusSummary != "The health check's script ran longer than 500ms and was ended." {
			t.Errorf("it is %s: %s", m.HealthStatus, m.StatusSummary)
		}
		id := w.queue(health.Job{Timeout: 2 * time.Second}, slow)
		task := w.ends(id, octopus.TaskFailed)
		if task.Error != "The time of 2s was up when 0 of 1 machines were checked. Scripts that it started may still run on slow." {
			t.Errorf("it says %q", task.Error)
		}
		if got := w.texts(`SELECT k.state FROM ticket k WHERE k.task = ?`, id); !cmp.Equal(got, []string{"cancel"}) {
			t.Errorf("of its script the agent is told %q", got)
		}

		// One that is away is tried again for as long as its policy says.
		patient := w.target("patient", w.policy("Patient", "", func(p *octopus.MachinePolicy) {
			p.MachineRPCCallRetryPolicy = octopus.MachineRPCCallRetryPolicy{Enabled: true, RetryDuration: octopus.TimeSpan(time.Minute), UnhealthyMachineHealthCheckRetryDuration: octopus.TimeSpan(time.Minute)}
		}))
		w.isAway(patient, true)
		id = w.queue(health.Job{}, patient)
		await(t, "it is tried again", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.asked[patient] > 1
		})
		w.isAway(patient, false)
		w.ends(id, octopus.TaskSuccess)
	})
}

// TestCleanUp: a machine that stays away is removed as its policy says, and not when
// it is missed for the first time.
func TestCleanUp(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		deletes := func(after time.Duration) string {
			return w.policy(fmt.Sprint("Deletes after ", after), "", func(p *octopus.MachinePolicy) {
				p.MachineConnectivityPolicy.MachineConnectivityBehavior = octopus.MayBeOffline
				p.MachineCleanupPolicy = octopus.MachineCleanupPolicy{DeleteMachinesBehavior: octopus.DeleteUnavailableMachines, DeleteMachinesElapsedTimeSpan: octopus.TimeSpan(after)}
			})
		}
		soon, hours := deletes(0), deletes(time.Hour)
		gone, later, back := w.target("gone", soon), w.target("later", hours), w.target("back", soon)
		all := []string{gone, later, back}
		for _, id := range all {
			w.isAway(id, true)
		}
		w.ends(w.queue(health.Job{}, all...), octopus.TaskSuccess)
		if n := len(w.texts(`SELECT d.id FROM documents d WHERE d.kind = 'machines' AND d.deleted = 0`)); n != 3 {
			t.Fatalf("%d machines are left after the first time", n)
		}
		w.isAway(back, false)
		id := w.queue(health.Job{}, all...)
		w.ends(id, octopus.TaskSuccess)
		if left := w.texts(`SELECT d.id FROM documents d WHERE d.kind = 'machines' AND d.deleted = 0 ORDER BY d.id`); !cmp.Equal(left, []string{later, back}) {
			t.Errorf("left are %q", left)
		}
		if told := w.texts(`SELECT e.message FROM events e WHERE e.category = 'MachineDeleted'`); len(told) != 1 || !strings.HasPrefix(told[0], "Deployment target gone was deleted by its policy: it has not been available since ") {
			t.Errorf("told: %q", told)
		}
		w.write(func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE machine_health SET away = away - ? WHERE machine = ?`, time.Hour.Microseconds(), later)
			return err
		})
		w.ends(w.queue(health.Job{}, later), octopus.TaskSuccess)
		if left := w.texts(`SELECT d.id FROM documents d WHERE d.kind = 'machines' AND d.deleted = 0`); !cmp.Equal(left, []string{back}) {
			t.Errorf("an hour later left are %q", left)
		}
		if n := w.texts(`SELECT h.machine FROM machine_health h UNION SELECT x.machine FROM task_machine x`); !cmp.Equal(n, []string{back}) {
			t.Errorf("something is kept of %q", n)
		}
	})
}
