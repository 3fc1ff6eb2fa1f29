package schedule_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// checks are the names of the machines of each task that checks some.
func (w *world) checks() (out [][]string) {
	w.t.Helper()
	for _, id := range w.texts(`SELECT t.id FROM task t WHERE t.name = 'Health' ORDER BY t.seq`) {
		var job struct {
			Machines []struct{ Name string }
		}
		var plan json.RawMessage
		check(w.t, w.servers[0].db.Read(w.ctx, func(tx *db.Tx) error { return tasks.Plan(w.ctx, tx, id, &plan) }))
		check(w.t, json.Unmarshal(plan, &job))
		names := []string{}
		for _, m := range job.Machines {
			names = append(names, m.Name)
		}
		out = append(out, names)
	}
	// Each server numbers its tasks by itself.
	slices.SortFunc(out, slices.Compare)
	return out
}

// endChecks ends the tasks that check machines.
func (w *world) endChecks() {
	w.t.Helper()
	w.write(func(tx *db.Tx) error {
		_, err := tx.Exec(w.ctx, `UPDATE task SET state = 'Success', runnable = 0 WHERE name = 'Health'`)
		return err
	})
}

// TestFirstChecks: a machine that is new, enabled or reached in another way is checked
// at once, those that come together by one task.
func TestFirstChecks(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		listening := func(m *octopus.Machine) {
			m.Endpoint = octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: "https://a:10933/", Thumbprint: "AB"}
		}
		a := w.target("a", listening)
		w.target("skipped", func(m *octopus.Machine) { m.SkipInitialHealthCheck = true })
		w.target("drop", func(m *octopus.Machine) { m.Endpoint.CommunicationStyle = octopus.StyleOfflineDrop })
		off := w.target("off", func(m *octopus.Machine) { m.IsDisabled = true })
		v := &octopus.Worker{WorkerPoolIDs: octopus.List[string]{"WorkerPools-1"}}
		v.Name, v.Endpoint = "worker", octopus.Endpoint{CommunicationStyle: octopus.StylePolling, URI: "poll://b/"}
		worker := w.create("workers", v)
		gone := w.target("gone", listening)
		w.write(func(tx *db.Tx) error { return w.store.In(tx).Delete(w.ctx, "machines", gone) })
		w.look()
		w.look()
		checked := func() []string { return slices.Sorted(slices.Values(slices.Concat(w.checks()...))) }
		if diff := cmp.Diff([]string{"a", "worker"}, checked()); diff != "" {
			t.Fatalf("new ones (-want +got):\n%s", diff)
		}
		if n := len(w.checks()); n > len(w.servers) {
			t.Errorf("%d tasks of %d servers", n, len(w.servers))
		}
		change := func(id string, fn func(m *octopus.Machine)) {
			t.Helper()
			var m octopus.Machine
			w.load("machines", id, &m)
			fn(&m)
			w.replace("machines", id, &m)
			w.look()
		}
		change(a, func(m *octopus.Machine) { m.Name, m.Roles = "renamed", octopus.List[string]{"db"} })
		if n := len(checked()); n != 2 {
			t.Fatalf("a new name and tag is checked: %v", w.checks())
		}
		change(a, func(m *octopus.Machine) { m.Endpoint.URI = "https://b:10933/" })
		change(off, func(m *octopus.Machine) { m.IsDisabled = false })
		w.load("workers", worker, v)
		v.Endpoint.Thumbprint = "CD"
		w.replace("workers", worker, v)
		w.look()
		if diff := cmp.Diff([]string{"a", "off", "renamed", "worker", "worker"}, checked()); diff != "" {
			t.Errorf("changed ones (-want +got):\n%s", diff)
		}
		// What a check keeps is no change.
		w.write(func(tx *db.Tx) error {
			return resources.KeepCheck(w.ctx, w.store.In(tx), resources.MachineCheck{Kind: resources.TargetKind, ID: a, Status: octopus.Healthy, Version: "1.2.3", System: "Plan 9"})
		})
		w.look()
		if n := len(checked()); n != 5 {
			t.Errorf("a check is followed by another: %v", w.checks())
		}
	})
}

// TestChecksOfPolicies: machines are checked when their policy says, one task at a time,
// and what was missed is done once.
func TestChecksOfPolicies(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		interval, cron := octopus.TimeSpan(time.Hour), octopus.NullString("0 30 * * * *")
		quiet := func(id string) func(m *octopus.Machine) {
			return func(m *octopus.Machine) { m.MachinePolicyID, m.SkipInitialHealthCheck = id, true }
		}
		hourly := w.create("machinepolicies", &octopus.MachinePolicy{Name: "Hourly", MachineHealthCheckPolicy: octopus.MachineHealthCheckPolicy{HealthCheckInterval: &interval}})
		half := w.create("machinepolicies", &octopus.MachinePolicy{Name: "Half past", MachineHealthCheckPolicy: octopus.MachineHealthCheckPolicy{HealthCheckCron: cron, HealthCheckCronTimezone: "Europe/Berlin"}})
		never := w.create("machinepolicies", &octopus.MachinePolicy{Name: "Never"})
		w.create("machinepolicies", &octopus.MachinePolicy{Name: "Nobody's", MachineHealthCheckPolicy: octopus.MachineHealthCheckPolicy{HealthCheckInterval: &interval}})
		w.target("a", quiet(hourly))
		w.target("off", quiet(hourly), func(m *octopus.Machine) { m.IsDisabled = true })
		w.target("b", quiet(half))
		w.target("c", quiet(never))
		w.at(day(1, "00:30:00"))
		w.look()
		w.endChecks()
		w.at(day(1, "01:00:00"))
		w.look()
		w.look()
		if diff := cmp.Diff([][]string{{"a"}, {"b"}}, w.checks()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		// While a check is under way the next one is left out.
		w.at(day(1, "02:00:00"))
		w.look()
		if n := len(w.checks()); n != 3 {
			t.Errorf("%v", w.checks()) // only that of half past one
		}
		w.endChecks()
		// A day later each is done once.
		w.at(day(2, "12:10:00"))
		w.look()
		w.look()
		w.endChecks()
		w.look()
		if diff := cmp.Diff([][]string{{"a"}, {"a"}, {"b"}, {"b"}, {"b"}}, w.checks()); diff != "" {
			t.Errorf("after a day (-want +got):\n%s", diff)
		}
		// Another interval counts from now on; another change does not put a check off.
		var p octopus.MachinePolicy
		w.load("machinepolicies", hourly, &p)
		due := func() string { return w.texts(`SELECT u.at FROM due u WHERE u.id = ?`, hourly)[0] }
		before := due()
		w.move(time.Minute)
		p.Description = "Described"
		w.replace("machinepolicies", hourly, &p)
		if due() != before {
			t.Error("a description put the check off")
		}
		longer := octopus.TimeSpan(3 * time.Hour)
		p.MachineHealthCheckPolicy.HealthCheckInterval = &longer
		w.replace("machinepolicies", hourly, &p)
		if due() == before {
			t.Error("another interval did not move the check")
		}
		p.MachineHealthCheckPolicy.HealthCheckInterval = nil
		w.replace("machinepolicies", hourly, &p)
		if got := w.texts(`SELECT u.id FROM due u WHERE u.id = ?`, hourly); len(got) != 0 {
			t.Errorf("checks that nobody wants are due: %q", got)
		}
		// A server that did not check by itself yet begins to.
		w.write(func(tx *db.Tx) error {
			_, err := tx.Exec(w.ctx, `DELETE FROM due WHERE id IN (?, ?)`, half, never)
			return err
		})
		check(t, w.servers[0].sched.Ensure(w.ctx))
		w.look()
		if got := w.checks(); len(got) != 6 || got[5][0] != "b" {
			t.Errorf("at its first start: %v", got)
		}
	})
}
