package directory_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/octopus"
)

// dialled is a dialer that reaches whom it is not told to be away.
type dialled struct {
	mu   sync.Mutex
	away map[string]error
}

func (d *dialled) dial(_ context.Context, m targets.Machine) (targets.Agent, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !m.Fresh {
		return targets.Agent{}, errors.New("it need not be there")
	}
	return targets.Agent{}, d.away[m.Name]
}

// TestWorkers chooses among the workers of a pool.
func TestWorkers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		pool := w.create("workerpools", w.space, &octopus.WorkerPool{Name: "Build"})
		ids := map[string]string{}
		add := func(name string, in string) {
			b := base(name, octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: "https://" + name + "/", Thumbprint: string(thumb)})
			ids[name] = w.create("workers", w.space, &octopus.Worker{MachineBase: b, WorkerPoolIDs: []string{in}})
		}
		set := func(name string, health octopus.HealthStatus, disabled bool) {
			w.write(func(ctx context.Context, _ *db.Tx, docs resource.Writer) error {
				var v octopus.Worker
				if err := docs.Load(ctx, "workers", ids[name], &v); err != nil {
					return err
				}
				v.HealthStatus, v.IsDisabled = health, disabled
				return docs.Replace(ctx, "workers", ids[name], &v)
			})
		}
		net := &dialled{away: map[string]error{}}
		found := targets.New(targets.Config{
			Disabled: true, Directory: w.dir,
			Dialers: map[octopus.CommunicationStyle]targets.Dialer{octopus.StyleListening: net.dial},
		})
		choose := func(used ...string) string {
			t.Helper()
			need := targets.Need{Space: string(w.space), Pool: pool}
			for _, name := range used {
				need.Used = append(need.Used, ids[name])
			}
			a, err := found.Worker(t.Context(), need)
			if err != nil {
				return err.Error()
			}
			for name, id := range ids {
				if id == a.Name && a.Label == name {
					return name
				}
			}
			return fmt.Sprintf("%+v", a)
		}
		expect := func(what, got, want string) {
			t.Helper()
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		expect("an empty pool", choose(), "pool Build has no workers")
		for _, name := range []string{"a", "b", "c"} {
			add(name, pool)
		}
		add("elsewhere", "WorkerPools-1")
		set("b", octopus.Healthy, false)
		set("c", octopus.HealthyWarnings, false)
		w.exec(`INSERT INTO ticket (ticket, task, unit, agent, state, not_before) VALUES ('t', 'ServerTasks-1', 'u', ?, 'open', 0)`, ids["b"])
		expect("the one with the least to do, of those that were checked", choose(), "c")
		expect("the one that was used", choose("b"), "b")
		expect("the one that was used last", choose("a", "b"), "a")
		expect("one that was used elsewhere", choose("elsewhere"), "c")
		capped := func(limit int, steps map[string]int) string {
			t.Helper()
			need := targets.Need{Space: string(w.space), Pool: pool, Cap: limit, Steps: map[string]int{}, Used: []string{ids["b"], ids["c"]}}
			for name, n := range steps {
				need.Steps[ids[name]] = n
			}
			a, err := found.Worker(t.Context(), need)
			if err != nil {
				return err.Error()
			}
			return a.Label
		}
		expect("the one that was used, below the cap", capped(2, map[string]int{"b": 1, "c": 2}), "b")
		expect("the other one that was used", capped(2, map[string]int{"b": 2, "c": 1}), "c")
		expect("one that was not used yet", capped(2, map[string]int{"b": 2, "c": 2}), "a")
		expect("the one with the fewest", capped(1, map[string]int{"a": 3, "b": 4, "c": 2}), "c")
		net.away["c"] = fmt.Errorf("%w: no route", agent.ErrNotSent)
		expect("one that answers", choose("c"), "b")
		set("b", octopus.Unhealthy, false)
		expect("one that was never checked, since no other answers", choose(), "a")
		set("a", octopus.Healthy, true)
		expect("none that answers", choose(), "reach the machine c: the agent was not reached: no route")
		need := targets.Need{Space: string(w.space), Pool: pool}
		var away *targets.AwayError
		if _, err := found.Worker(t.Context(), need); !errors.As(err, &away) || away.Patience == 0 {
			t.Errorf("it may come back: %v", err)
		}
		set("c", octopus.Unavailable, false)
		_, err := found.Worker(t.Context(), need)
		if !fault.Is(err, fault.Unsupported) {
			t.Error(err)
		}
		for _, want := range []string{"No worker of the pool Build is enabled and healthy", "a is disabled", "b is unhealthy", "c is unavailable"} {
			expect("none that is healthy", fmt.Sprint(err), want)
		}
		// The default pool.
		need = targets.Need{Space: string(w.space)}
		if a, err := found.Worker(t.Context(), need); err != nil || a.Label != "elsewhere" {
			t.Errorf("%+v, %v", a, err)
		}
		w.write(func(ctx context.Context, _ *db.Tx, docs resource.Writer) error {
			return docs.Delete(ctx, "workers", ids["elsewhere"])
		})
		if _, err := found.Worker(t.Context(), need); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "has no workers, and the built-in worker is switched off") {
			t.Error(err)
		}
		for pool, want := range map[string]string{"WorkerPools-404": "There is no worker pool 'WorkerPools-404'"} {
			if _, err := found.Worker(t.Context(), targets.Need{Space: string(w.space), Pool: pool}); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), want) {
				t.Error(err)
			}
		}
	})
}

// TestNewWork is refused where a machine is disabled, deleted or of a kind that nothing
// reaches; what is under way there is not.
func TestNewWork(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		dial := func(context.Context, targets.Machine) (targets.Agent, error) {
			return targets.Agent{Home: "/home"}, nil
		}
		found := targets.New(targets.Config{Directory: w.dir, Dialers: map[octopus.CommunicationStyle]targets.Dialer{octopus.StylePolling: dial}})
		add := func(name string, e octopus.Endpoint, disabled bool) string {
			m := &octopus.Machine{MachineBase: base(name, e), Roles: []string{"web"}, EnvironmentIDs: []string{"Environments-1"}}
			m.IsDisabled = disabled
			return w.create("machines", w.space, m)
		}
		on, off := add("on", polling(string(sub), string(thumb)), false), add("off", polling("poll://b/", string(thumb)), true)
		gone, cloud := add("gone", polling("poll://c/", string(thumb)), false), add("cloud", octopus.Endpoint{CommunicationStyle: octopus.StyleECS}, false)
		w.write(func(ctx context.Context, _ *db.Tx, docs resource.Writer) error {
			return docs.Delete(ctx, "machines", gone)
		})
		for id, want := range map[string]string{on: "", off: "The machine off is disabled", gone: "The machine gone was deleted", cloud: "no scripts on machines of the kind AwsEcsCluster", "Machines-99": "no machine 'Machines-99'"} {
			a, err := found.Target(t.Context(), id)
			if want == "" && (err != nil || a.Name != id || a.Home != "/home" || a.Patience == 0) || want != "" && !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("new work on %s: %+v, %v", id, a, err)
			}
		}
		for _, id := range []string{on, off, gone} {
			if a, err := found.ByName(t.Context(), id); err != nil || a.Name != id {
				t.Errorf("%s: %+v, %v", id, a, err)
			}
		}
	})
}
