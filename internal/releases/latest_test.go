package releases_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// placed is a row of the table deployment, with what tells which was later.
type placed struct {
	id, environment, tenant, state string
	created, completed, seq        int64
}

// history reads all deployments of the project.
func (w *world) history() (out []placed) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error {
		out = nil
		rows, err := tx.Query(w.t.Context(), `SELECT d.id, d.environment_id, d.tenant_id, d.state, d.created, d.completed, d.seq FROM deployment d WHERE d.project_id = ?`, w.project.ID)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var p placed
			if err := rows.Scan(&p.id, &p.environment, &p.tenant, &p.state, &p.created, &p.completed, &p.seq); err != nil {
				return err
			}
			out = append(out, p)
		}
		return rows.Err()
	})
	return out
}

// truth is what is latest at each place by a look at everything, and the last
// success of the places where something came after it.
func truth(all []placed) (latest, previous []string) {
	newest, success := map[string]placed{}, map[string]placed{}
	later := func(a, b placed) bool {
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.seq, b.seq)) > 0
	}
	for _, p := range all {
		at := p.environment + " " + p.tenant
		if was, known := newest[at]; !known || later(p, was) {
			newest[at] = p
		}
		if was, known := success[at]; p.state == string(octopus.TaskSuccess) && (!known || cmp.Or(cmp.Compare(p.completed, was.completed), cmp.Compare(p.seq, was.seq)) > 0) {
			success[at] = p
		}
	}
	for at, p := range newest {
		latest = append(latest, at+" "+p.id)
		if s, known := success[at]; known && s.id != p.id {
			previous = append(previous, at+" "+s.id)
		}
	}
	slices.Sort(latest)
	slices.Sort(previous)
	return latest, previous
}

// latest is what Latest says of the project.
func (w *world) latest(previous bool) (out []string) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error {
		found, err := w.rel.Latest(w.t.Context(), tx, releases.LatestQuery{Space: space, Projects: []string{w.project.ID}, Previous: previous})
		out = nil
		for _, l := range found {
			out = append(out, l.EnvironmentID+" "+l.TenantID+" "+l.DeploymentID)
		}
		return err
	})
	slices.Sort(out)
	return out
}

// agree compares what is maintained with the truth.
func (w *world) agree(when string) {
	w.t.Helper()
	latest, previous := truth(w.history())
	if diff := gocmp.Diff(latest, w.latest(false)); diff != "" {
		w.t.Fatalf("%s: latest (-truth +got):\n%s", when, diff)
	}
	if diff := gocmp.Diff(previous, w.latest(true)); diff != "" {
		w.t.Fatalf("%s: previous (-truth +got):\n%s", when, diff)
	}
}

// TestLatestIsTheTruth deploys, ends, restates and deletes at random, and compares
// what is maintained of each place with a look at all deployments after each step.
// Then everything is found out anew as an upgrade does.
func TestLatestIsTheTruth(t *testing.T) {
	steps := 70
	if os.Getenv("TAKO_TEST_SOAK") != "" {
		steps = 3000
	}
	onBoth(t, func(t *testing.T, w *world) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		pick := func(all []octopus.Deployment) octopus.Deployment { return all[random.IntN(len(all))] }
		anywhere := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Anywhere", Phases: octopus.List[octopus.Phase]{{Name: "All", OptionalDeploymentTargets: octopus.List[string]{w.dev, w.test}}}})
		w.changeProject(func(p *octopus.Project) {
			p.TenantedDeploymentMode, p.LifecycleID = octopus.TenantedOrUntenanted, anywhere
		})
		w.steps(onWorker("Tell"))
		tenant := w.create("tenants", "", &octopus.Tenant{Name: "Alpha", ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev, w.test}}})
		var running, ended []octopus.Deployment
		var made []octopus.Release
		forget := func(gone func(d octopus.Deployment) bool) {
			running, ended = slices.DeleteFunc(running, gone), slices.DeleteFunc(ended, gone)
		}
		end := []octopus.TaskState{octopus.TaskSuccess, octopus.TaskSuccess, octopus.TaskFailed, octopus.TaskCanceled}
		for n := range steps {
			did := "nothing"
			switch what := random.IntN(10); {
			case len(made) == 0 || what == 0 && len(made) < 4:
				made = append(made, w.release(fmt.Sprintf("1.0.%d", n)))
				did = "released"
			case what <= 4:
				of := func(in *releases.NewDeployments) {
					if in.Environments[0] == w.dev && random.IntN(2) == 0 {
						in.Tenants = []string{tenant}
					}
				}
				d := w.deploy(made[random.IntN(len(made))].ID, []string{w.dev, w.test}[random.IntN(2)], of)
				running, did = append(running, d), "deployed "+d.ID
			case what <= 7 && len(running) > 0:
				d := pick(running)
				state := end[random.IntN(len(end))]
				w.end(d, state)
				forget(func(o octopus.Deployment) bool { return o.ID == d.ID })
				ended, did = append(ended, d), fmt.Sprint(d.ID, " is ", state)
			case what == 8 && len(ended) > 0:
				d := pick(ended)
				state := end[random.IntN(len(end))]
				w.write(func(tx *db.Tx) error {
					task, err := tasks.Get(t.Context(), tx, d.TaskID)
					if err != nil {
						return err
					}
					task.State = state
					return w.rel.Restated(t.Context(), tx, task)
				})
				did = fmt.Sprint(d.ID, " was made ", state)
			case what == 9 && len(ended) > 0 && random.IntN(4) > 0:
				d := pick(ended)
				w.write(func(tx *db.Tx) error { return w.rel.DeleteDeployment(t.Context(), tx, &d, nil) })
				forget(func(o octopus.Deployment) bool { return o.ID == d.ID })
				did = "deleted " + d.ID
			case what == 9:
				i := random.IntN(len(made))
				r := made[i]
				if slices.ContainsFunc(running, func(d octopus.Deployment) bool { return d.ReleaseID == r.ID }) {
					continue // it is refused
				}
				check(t, w.tryWrite(r.ID, func(tx *db.Tx, r *octopus.Release) error { return w.rel.DeleteRelease(t.Context(), tx, r, nil) }))
				made = slices.Delete(made, i, i+1)
				forget(func(o octopus.Deployment) bool { return o.ReleaseID == r.ID })
				did = "deleted " + r.ID
			}
			w.agree(fmt.Sprintf("step %d, %s", n, did))
		}
		w.deploy(w.release("2.0.0").ID, w.dev) // one there is for certain
		was := w.latest(false)
		w.write(func(tx *db.Tx) error {
			if _, err := tx.Exec(t.Context(), `DELETE FROM latest_deployment`); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), backfill(t))
			return err
		})
		if diff := gocmp.Diff(was, w.latest(false)); diff != "" || len(was) == 0 {
			t.Errorf("(-maintained +found out anew):\n%s", diff)
		}
	})
}

// backfill is the statement by which an upgrade fills the table.
func backfill(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../db/migrations/0034_latest.sql")
	check(t, err)
	_, statement, found := strings.Cut(string(text), "INSERT INTO latest_deployment")
	if !found {
		t.Fatal("the migration fills no table")
	}
	return "INSERT INTO latest_deployment" + strings.TrimSuffix(strings.TrimSpace(statement), ";")
}
