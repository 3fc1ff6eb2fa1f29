//go:build linux

package renewal_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/octopus"
)

// TestUpgrade: one task with agents that go well, in both modes, with one whose new
// program dies at once, with machines that have nothing to be upgraded, and with one
// that somebody else uses. A script runs across its agent's upgrade.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d, 0)
		listens := w.install("listens", octopus.StyleListening, "")
		polls := w.install("polls", octopus.StylePolling, "")
		dies := w.install("dies", octopus.StyleListening, "trial-serving:kill")
		used := w.install("used", octopus.StylePolling, "")
		none := &installed{w: w, name: "none"}
		m := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.env}, Roles: octopus.List[string]{"web"}}
		m.Name, m.Endpoint = none.name, octopus.Endpoint{CommunicationStyle: octopus.StyleNone}
		none.id = w.create("machines", space, m)

		gates := map[string]string{}
		for _, a := range []*installed{listens, polls} {
			if h := a.hello(); h.Version != older || !h.Program.Upgrades || h.Program.SHA256 != "" {
				t.Fatalf("%s says %+v", a.name, h)
			}
			gates[a.name] = filepath.Join(w.dir, a.name+".go")
			a.begin("across", fmt.Sprintf("for i in $(seq 300); do echo before $i; done; echo began >> %[1]s.began; while [ ! -e %[1]s ]; do sleep 0.05; done; for i in $(seq 300); do echo after $i; done; exit 7", gates[a.name]))
			until(t, "the script on "+a.name+" waits", func() bool { return exists(gates[a.name] + ".began") })
		}
		dies.hello()
		used.hello()
		w.write(func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO machine_lock (machine, task, unit, shared) VALUES (?, 'ServerTasks-4711', 'other', 0)`, used.id)
			return err
		})
		task := w.upgrade(used, listens, polls, dies, none)
		until(t, "the others are done", func() bool {
			n := w.nodes(task)
			return n["listens"] == octopus.ActivitySuccess && n["polls"] == octopus.ActivitySuccess && n["dies"] == octopus.ActivityFailed
		})
		if n := w.nodes(task)["used"]; n != octopus.ActivityRunning {
			t.Errorf("the machine that is used is %s", n)
		}
		until(t, "it says who has the lock", func() bool {
			return strings.Contains(w.log(task, used.id), "Waiting for used, which is held by ServerTasks-4711.")
		})
		if v := used.hello().Version; v != older {
			t.Errorf("the machine that is used runs version %s", v)
		}
		w.write(func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, `DELETE FROM machine_lock WHERE task = 'ServerTasks-4711'`)
			return err
		})
		end := w.ends(task, octopus.TaskFailed)
		if end.Error != "1 of 5 agents were not upgraded: dies." {
			t.Errorf("it failed with %q", end.Error)
		}
		want := map[string]octopus.ActivityStatus{
			"listens": octopus.ActivitySuccess, "polls": octopus.ActivitySuccess, "used": octopus.ActivitySuccess, "dies": octopus.ActivityFailed, "none": octopus.ActivitySkipped,
		}
		if diff := cmp.Diff(want, w.nodes(task)); diff != "" {
			t.Error(diff)
		}
		for _, a := range []*installed{listens, polls, used} {
			h := a.hello()
			if h.Version != newer || h.Program.Trial || h.Program.SHA256 == "" {
				t.Errorf("%s says %+v", a.name, h)
			}
			if doc := a.document(); !doc.HasLatestCalamari || doc.Endpoint.TentacleVersionDetails == nil || doc.Endpoint.TentacleVersionDetails.Version != newer || doc.Endpoint.TentacleVersionDetails.UpgradeSuggested {
				t.Errorf("%s is shown as %+v", a.name, doc.Endpoint.TentacleVersionDetails)
			}
		}
		if says := w.log(task, dies.id); !strings.Contains(says, "runs version "+older+" as before: The new program ended by itself: signal: killed") {
			t.Errorf("of the one that dies it says:\n%s", says)
		}
		if h := dies.hello(); h.Version != older || h.Program.Failed == nil || h.Program.Failed.Version != newer {
			t.Errorf("the one that dies says %+v", h)
		}
		for _, a := range []*installed{listens, polls} {
			check(t, os.WriteFile(gates[a.name], nil, 0o600))
			var script strings.Builder
			for _, when := range []string{"before", "after"} {
				for i := range 300 {
					fmt.Fprintf(&script, "%s %d\n", when, i+1)
				}
			}
			exit, log := a.finish("across")
			if diff := cmp.Diff(script.String(), log); exit != 7 || diff != "" {
				t.Errorf("the script on %s ended with %d:\n%s", a.name, exit, diff)
			}
			if began, err := os.ReadFile(gates[a.name] + ".began"); err != nil || string(began) != "began\n" {
				t.Errorf("the script on %s began: %q, %v", a.name, began, err)
			}
		}
		// What is done is not done again; what failed may be tried again.
		again := w.upgrade(listens, dies)
		w.ends(again, octopus.TaskSuccess)
		if says := w.log(again, listens.id); !strings.Contains(says, "there is nothing to upgrade") {
			t.Errorf("again: %s", says)
		}
		if v := dies.hello().Version; v != newer {
			t.Errorf("tried again, it runs version %s", v)
		}
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// begin starts a script on the agent.
func (a *installed) begin(ticket agent.Ticket, body string) {
	a.w.t.Helper()
	_, err := a.api().StartScript(a.w.t.Context(), agent.StartRequest{Ticket: ticket, Body: body})
	check(a.w.t, err)
}

// finish reads a script to its end.
func (a *installed) finish(ticket agent.Ticket) (exit int, log string) {
	a.w.t.Helper()
	api, after, out := a.api(), int64(0), strings.Builder{}
	until(a.w.t, "the script on "+a.name+" ends", func() bool {
		st, err := api.GetStatus(a.w.t.Context(), agent.StatusRequest{Ticket: ticket, After: after, Wait: time.Second})
		check(a.w.t, err)
		for _, e := range st.Entries {
			out.WriteString(e.Text + "\n")
		}
		after, exit = st.Next, st.ExitCode
		return st.State == agent.Complete
	})
	return exit, out.String()
}

// TestUpgradeKilled: the agent's process is killed at each edge of an upgrade. One of
// the two programs answers afterwards, and the next task brings the new one.
func TestUpgradeKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), 0)
	var all []*installed
	outcome := map[string][]octopus.ActivityStatus{
		"program-staged":    {octopus.ActivitySuccess}, // told again
		"trial-written":     {octopus.ActivitySuccess, octopus.ActivityFailed},
		"trial-started":     {octopus.ActivityFailed},
		"program-confirmed": {octopus.ActivitySuccess},
	}
	for edge := range outcome {
		a := w.install(edge, octopus.StyleListening, edge+":kill")
		a.hello()
		all = append(all, a)
	}
	task := w.upgrade(all...)
	until(t, task+" ends", func() bool { return w.task(task).State.Completed() })
	nodes := w.nodes(task)
	for _, a := range all {
		if !exists(filepath.Join(w.dir, a.name+".once", a.name)) {
			t.Errorf("%s was not killed there", a.name)
		}
		ok := false
		for _, s := range outcome[a.name] {
			ok = ok || nodes[a.name] == s
		}
		if !ok {
			t.Errorf("%s: %s\n%s", a.name, nodes[a.name], w.log(task, a.id))
		}
		want := newer
		if nodes[a.name] == octopus.ActivityFailed {
			want = older
		}
		if h := a.hello(); h.Version != want || h.Program.Trial {
			t.Errorf("%s is %s, and says %+v", a.name, nodes[a.name], h)
		}
	}
	w.ends(w.upgrade(all...), octopus.TaskSuccess)
	for _, a := range all {
		if v := a.hello().Version; v != newer {
			t.Errorf("%s runs version %s in the end", a.name, v)
		}
	}
}

// TestUpgradeIsNotReached: new programs that never come up, or that no server reaches,
// are ended, and the old ones answer.
func TestUpgradeIsNotReached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), time.Second)
	hangs := w.install("hangs", octopus.StylePolling, "trial-serving:stall=1h")
	lonely := w.install("lonely", octopus.StylePolling, "")
	hangs.hello()
	// What is connected stays so; what connects now is sent away.
	lonely.hello()
	w.sent.Store(lonely.sub, true)
	task := w.upgrade(hangs, lonely)
	until(t, "the lonely one has gone back", func() bool {
		st, err := os.ReadFile(filepath.Join(w.dir, lonely.name, "homes", lonely.name, "Versions", "state.json"))
		return err == nil && strings.Contains(string(st), `"Failed"`)
	})
	w.sent.Delete(lonely.sub)
	w.ends(task, octopus.TaskFailed)
	for a, reason := range map[*installed]string{hangs: "The new program did not come up within 1s.", lonely: "The new program came up, and no server reached it within 1s."} {
		if says := w.log(task, a.id); !strings.Contains(says, "runs version "+older+" as before: "+reason) {
			t.Errorf("of %s it says:\n%s", a.name, says)
		}
		if h := a.hello(); h.Version != older || h.Program.Trial || h.Program.SHA256 != "" {
			t.Errorf("%s says %+v", a.name, h)
		}
	}
}

// TestProgramsThatAreRefused: what arrives damaged or is not what was announced changes
// nothing.
func TestProgramsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), 0)
	a := w.install("refuses", octopus.StyleListening, "")
	home := a.hello().Home
	api := a.api()
	up := api.API.(agent.Upgrades)
	content, err := os.ReadFile(w.programs[newer])
	check(t, err)
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	hash, size := sum(content), int64(len(content))
	refused := func(what, says string, err error) {
		t.Helper()
		if len(fault.Faults(err)) == 0 || !strings.Contains(strings.Join(fault.Messages(err), " "), says) {
			t.Errorf("%s: %v", what, err)
		}
		if h := a.hello(); h.Version != older || h.Program.SHA256 != "" || h.Program.Trial {
			t.Errorf("%s: it says %+v", what, h)
		}
	}
	request := func(hash, version string) agent.UpgradeRequest {
		return agent.UpgradeRequest{SHA256: hash, Version: version, Attempt: "test", Within: time.Minute}
	}
	put := func(hash string, b []byte, size int64) error {
		return api.PutPackage(t.Context(), hash, size, strings.NewReader(string(b)))
	}
	refused("nothing sent", "is not in the agent's cache", up.UpgradeProgram(t.Context(), request(hash, newer)))
	wrong := append([]byte(nil), content...)
	wrong[len(wrong)/2] ^= 1
	refused("another content", "were announced", put(hash, wrong, size))
	if err := put(hash, content[:size/2], size); err == nil {
		t.Error("half of it is taken")
	}
	refused("half of it", "is not in the agent's cache", up.UpgradeProgram(t.Context(), request(hash, newer)))
	check(t, put(hash, content, size))
	refused("another version", "says that it is version "+newer, up.UpgradeProgram(t.Context(), request(hash, "3.0.0")))
	check(t, put(sum(content[:size/2]), content[:size/2], size/2))
	if h := a.hello(); targets.Upgradable(deploy.ContractTako, h, "3.0.0") || !targets.Upgradable(deploy.ContractTako, h, newer) {
		t.Errorf("a policy would have it upgraded again: %+v", h.Program)
	}
	refused("a program cut off", "does not run on this machine", up.UpgradeProgram(t.Context(), request(sum(content[:size/2]), newer)))
	check(t, os.WriteFile(filepath.Join(home, "Packages", hash), wrong, 0o600))
	refused("damaged on the disk", "send it again", up.UpgradeProgram(t.Context(), request(hash, newer)))
	refused("a confirmation of nothing", "does not run the program", up.ConfirmProgram(t.Context(), hash))
	// All that notwithstanding:
	w.ends(w.upgrade(a), octopus.TaskSuccess)
	if v := a.hello().Version; v != newer {
		t.Errorf("it runs version %s", v)
	}
	// The next one is no failure of the one from before, whose time has just begun.
	content = append(content, 0)
	hash = sum(content)
	api = a.api()
	up = api.API.(agent.Upgrades)
	check(t, put(hash, content, size+1))
	check(t, up.UpgradeProgram(t.Context(), request(hash, newer)))
	until(t, "the next one is on trial", func() bool {
		h := a.hello()
		return h.Program.Trial && h.Program.SHA256 == hash
	})
	check(t, up.ConfirmProgram(t.Context(), hash))
	if h := a.hello(); h.Program.Trial || h.Program.SHA256 != hash || h.Program.Failed != nil {
		t.Errorf("after the next one it says %+v", h)
	}
}

// TestPolicyUpgrades: a health check shows that an agent is outdated, and has it upgraded
// where the policy of its machine says so.
func TestPolicyUpgrades(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d, 0)
		policy := func(name string, update octopus.AgentUpdateBehavior) func(*octopus.Machine) {
			p := &octopus.MachinePolicy{Name: name}
			p.MachineUpdatePolicy.TentacleUpdateBehavior = update
			id := w.create("machinepolicies", space, p)
			return func(m *octopus.Machine) { m.MachinePolicyID = id }
		}
		yes := w.install("yes", octopus.StyleListening, "", policy("Updates", octopus.AgentUpdate))
		no := w.install("no", octopus.StyleListening, "", policy("Leaves", octopus.AgentNeverUpdate))
		yes.hello()
		no.hello()
		check1 := ""
		w.write(func(ctx context.Context, tx *db.Tx) error {
			t, err := w.queue.Create(ctx, tx, health.NewTask(space, health.Job{Machines: []health.Machine{{Kind: resources.TargetKind, ID: yes.id, Name: yes.name}, {Kind: resources.TargetKind, ID: no.id, Name: no.name}}}, ""))
			if err == nil {
				check1 = t.ID
			}
			return err
		})
		w.ends(check1, octopus.TaskSuccess)
		if says := w.log(check1, no.id); !strings.Contains(says, "Its agent has version 1.0.0; the server has version 2.0.0 for it.") {
			t.Errorf("the check says:\n%s", says)
		}
		if doc := no.document(); doc.HasLatestCalamari || !doc.Endpoint.TentacleVersionDetails.UpgradeSuggested {
			t.Errorf("the machine is shown as %+v", doc.Endpoint.TentacleVersionDetails)
		}
		var upgrades []string
		w.read(func(ctx context.Context, tx *db.Tx) error {
			upgrades = nil
			rows, err := tx.Query(ctx, `SELECT t.id FROM task t WHERE t.name = 'Upgrade'`)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var id string
				if err := rows.Scan(&id); err != nil {
					return err
				}
				upgrades = append(upgrades, id)
			}
			return rows.Err()
		})
		if len(upgrades) != 1 {
			t.Fatalf("the tasks %v upgrade agents", upgrades)
		}
		w.ends(upgrades[0], octopus.TaskSuccess)
		if got := []string{yes.hello().Version, no.hello().Version}; !cmp.Equal(got, []string{newer, older}) {
			t.Errorf("they run the versions %v", got)
		}
		if doc := yes.document(); !doc.HasLatestCalamari || doc.Endpoint.TentacleVersionDetails.UpgradeSuggested {
			t.Errorf("the machine is shown as %+v", doc.Endpoint.TentacleVersionDetails)
		}
	})
}

// TestInstalledProgramWins: what somebody installs runs instead of what was brought, and
// what was brought is not started when its file is damaged.
func TestInstalledProgramWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), 0)
	a, b := w.install("reinstalled", octopus.StyleListening, ""), w.install("damaged", octopus.StylePolling, "")
	a.hello()
	b.hello()
	w.ends(w.upgrade(a, b), octopus.TaskSuccess)
	if got := []string{a.hello().Version, b.hello().Version}; !cmp.Equal(got, []string{newer, newer}) {
		t.Fatalf("they run the versions %v", got)
	}
	program, err := os.ReadFile(a.exe)
	check(t, err)
	check(t, os.WriteFile(a.exe+".new", append(program, 0), 0o700)) // another file of the same version
	check(t, os.Rename(a.exe+".new", a.exe))
	h := b.hello()
	check(t, os.WriteFile(filepath.Join(h.Home, "Versions", h.Program.SHA256, "tako-agent.new"), []byte("#!/bin/sh\nexit 0\n"), 0o700))
	brought := filepath.Join(h.Home, "Versions", h.Program.SHA256, "tako-agent")
	check(t, os.Rename(brought+".new", brought))
	// One that crashes again and again yields to the installed one, and is not brought again.
	c := w.install("crashes", octopus.StylePolling, "")
	w.ends(w.upgrade(c), octopus.TaskSuccess)
	until(t, "the program that crashes yields", func() bool {
		h := c.hello()
		if h.Version == older {
			return true
		}
		if p, err := os.FindProcess(h.PID); err == nil {
			_ = p.Kill() // it may be gone already
		}
		return false
	})
	if h := c.hello(); h.Program.SHA256 != "" || h.Program.Failed == nil || !strings.Contains(h.Program.Failed.Reason, "has ended 3 times within 1m0s") ||
		targets.Upgradable(deploy.ContractTako, h, newer) || !targets.Upgradable(deploy.ContractTako, h, "3.0.0") {
		t.Errorf("after it has crashed it says %+v", h)
	}
	for _, one := range []*installed{a, b} {
		p, err := os.FindProcess(one.hello().PID)
		check(t, err)
		check(t, p.Kill())
		until(t, one.name+" runs the installed program", func() bool {
			h := one.hello()
			return h.Version == older && h.Program.SHA256 == ""
		})
	}
}

// TestAnotherNodeGoesOn: the server is stopped as soon as the agent has begun to change
// programs. Another one brings the upgrade to its end, once.
func TestAnotherNodeGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), 0)
	a := w.install("changes", octopus.StyleListening, "")
	state := filepath.Join(a.hello().Home, "Versions", "state.json")
	task := w.upgrade(a)
	until(t, "the trial is ordered", func() bool { return exists(state) })
	w.stop()
	w.serve("two")
	w.ends(task, octopus.TaskSuccess)
	if h := a.hello(); h.Version != newer || h.Program.Trial {
		t.Errorf("it says %+v", h)
	}
	if n := strings.Count(a.out.String(), "agent goes on by another program"); n != 1 {
		t.Errorf("it has changed programs %d times", n)
	}
}
