package targets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Need is what a step asks of a worker.
type Need struct {
	Space string
	Pool  string // its id; "" is the space's default pool
	// Used are agents that the deployment has used, the latest first. One of them is
	// taken where possible: it has the deployment's packages.
	Used []string
	// Cap ends that for one that has had so many of the deployment's steps, Steps says how
	// many; 0 is no cap. When all have, the one that had the fewest is taken.
	Cap   int
	Steps map[string]int
}

// full reports whether a worker has had its part of the deployment's steps.
func (n *Need) full(id string) bool { return n.Cap > 0 && n.Steps[id] >= n.Cap }

const (
	// tryFor is how long a worker may take to answer while there are others.
	tryFor = 15 * time.Second
	// maxNamed bounds the workers that an error names.
	maxNamed = 10
)

// Worker returns the agent of a worker that the need describes: one that is enabled and
// healthy and answers, the one with the least to do among those that the deployment has
// not used, within the need's cap. A default pool without any worker is the built-in one.
func (t *Targets) Worker(ctx context.Context, need Need) (Agent, error) {
	if t.cfg.Directory == nil {
		return t.own(ctx)
	}
	pool, err := t.cfg.Directory.Pool(ctx, need.Space, need.Pool)
	if err != nil {
		return Agent{}, err
	}
	if len(pool.Workers) == 0 {
		return t.withoutWorkers(ctx, pool)
	}
	candidates, err := pool.candidates(&need)
	if err != nil {
		return Agent{}, err
	}
	var failed error
	for i, m := range candidates {
		m.Fresh = true
		a, err := t.tryWorker(ctx, m, i < len(candidates)-1)
		if err == nil || ctx.Err() != nil {
			return a, err
		}
		t.cfg.Log.Warn("choose a worker", "pool", pool.ID, "worker", m.ID, "err", err)
		var away *AwayError
		if failed == nil || errors.As(err, &away) {
			failed = err // that one may answer later counts more than what one refuses
		}
	}
	return Agent{}, failed
}

func (t *Targets) withoutWorkers(ctx context.Context, pool Pool) (Agent, error) {
	switch {
	case pool.Dynamic:
		return Agent{}, fault.New(fault.Unsupported, "The worker pool %s is dynamic: its workers would be made by a cloud that this server has none of. Choose a static pool.", pool.Name)
	case !pool.Default:
		return Agent{}, fault.New(fault.Unsupported, "The worker pool %s has no workers; add one to it.", pool.Name)
	case t.cfg.Disabled:
		return Agent{}, fault.New(fault.Unsupported, "The worker pool %s has no workers, and the built-in worker is switched off; add a worker to the pool.", pool.Name)
	}
	return t.own(ctx)
}

// tryWorker dials a worker; one of several has less time.
func (t *Targets) tryWorker(ctx context.Context, m Machine, more bool) (Agent, error) {
	if more {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, tryFor)
		defer stop()
	}
	return t.dial(ctx, m)
}

// candidates are the workers to try, in that order: those that the deployment has used
// come first, and those that were never checked come last but for those that have had
// their part.
func (p *Pool) candidates(need *Need) ([]Machine, error) {
	var out []Machine
	var why []string
	for _, m := range p.Workers {
		switch {
		case m.Disabled:
			why = append(why, m.Name+" is disabled")
		case m.Health == octopus.Healthy || m.Health == octopus.HealthyWarnings || m.Health == octopus.HealthUnknown:
			out = append(out, m)
		default:
			why = append(why, m.Name+" is "+strings.ToLower(string(m.Health)))
		}
	}
	if len(out) == 0 {
		if len(why) > maxNamed {
			why = append(why[:maxNamed], fmt.Sprintf("and %d more", len(why)-maxNamed))
		}
		return nil, fault.New(fault.Unsupported, "No worker of the pool %s is enabled and healthy: %s.", p.Name, strings.Join(why, ", "))
	}
	place := func(m Machine) int {
		if need.full(m.ID) {
			return need.Steps[m.ID]
		}
		if i := slices.Index(need.Used, m.ID); i >= 0 {
			return i - len(need.Used)
		}
		return 0
	}
	unchecked := func(m Machine) int {
		if m.Health == octopus.HealthUnknown {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b Machine) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(unchecked(a), unchecked(b)), cmp.Compare(a.Busy, b.Busy))
	})
	return out, nil
}
