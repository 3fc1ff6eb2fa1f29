// Package directory finds the machines of a database for those who reach them, and
// says which polling agents are trusted.
package directory

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/octopus"
)

// Directory of a database. It is safe for concurrent use.
type Directory struct {
	db    *db.DB
	store *docstore.Store
	known enabled
}

var (
	_ targets.Directory = (*Directory)(nil)
	_ targets.Proxies   = (*Directory)(nil)
)

// New makes a directory.
func New(d *db.DB, store *docstore.Store) *Directory { return &Directory{db: d, store: store} }

// Account finds an account of a space, with its secrets in clear.
func (d *Directory) Account(ctx context.Context, space, id string) (a octopus.Account, err error) {
	err = d.db.Read(ctx, func(tx *db.Tx) error {
		a = octopus.Account{}
		err := d.store.Reveal(ctx, tx, "accounts", id, &a)
		if err == nil && a.SpaceID != space {
			err = fault.Missing("account", id)
		}
		return err
	})
	if err != nil {
		return octopus.Account{}, fmt.Errorf("find account %s: %w", id, err)
	}
	return a, nil
}

const workerPrefix = "Workers-"

// Machine is targets.Directory.
func (d *Directory) Machine(ctx context.Context, id string) (m targets.Machine, err error) {
	err = d.db.Read(ctx, func(tx *db.Tx) error {
		m, err = d.load(ctx, tx, id)
		if fault.Is(err, fault.NotFound) {
			m, err = former(ctx, tx, id)
		}
		return err
	})
	if err != nil {
		return targets.Machine{}, fmt.Errorf("find machine %s: %w", id, err)
	}
	return m, nil
}

func (d *Directory) load(ctx context.Context, tx *db.Tx, id string) (targets.Machine, error) {
	if strings.HasPrefix(id, workerPrefix) {
		var v octopus.Worker
		if err := d.store.Load(ctx, tx, "workers", id, &v); err != nil {
			return targets.Machine{}, err
		}
		return d.found(ctx, tx, v.ID, v.SpaceID, &v.MachineBase)
	}
	var v octopus.Machine
	if err := d.store.Load(ctx, tx, "machines", id, &v); err != nil {
		return targets.Machine{}, err
	}
	return d.found(ctx, tx, v.ID, v.SpaceID, &v.MachineBase)
}

func (d *Directory) found(ctx context.Context, tx *db.Tx, id, space string, b *octopus.MachineBase) (targets.Machine, error) {
	var policy octopus.MachinePolicy
	if err := d.store.Load(ctx, tx, "machinepolicies", b.MachinePolicyID, &policy); err != nil && !fault.Is(err, fault.NotFound) {
		return targets.Machine{}, err
	}
	return machine(id, space, b, policy), nil
}

func machine(id, space string, b *octopus.MachineBase, policy octopus.MachinePolicy) targets.Machine {
	resources.CompleteMachinePolicy(&policy)
	return targets.Machine{ID: id, Name: b.Name, SpaceID: space, Disabled: b.IsDisabled, Health: b.HealthStatus, Endpoint: b.Endpoint, Policy: policy}
}

// Pool is targets.Directory.
func (d *Directory) Pool(ctx context.Context, space, pool string) (out targets.Pool, err error) {
	err = d.db.Read(ctx, func(tx *db.Tx) error {
		out, err = d.pool(ctx, tx, ident.SpaceID(space), pool)
		return err
	})
	if err != nil {
		return targets.Pool{}, fmt.Errorf("find the workers of a pool: %w", err)
	}
	return out, nil
}

func (d *Directory) pool(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string) (targets.Pool, error) {
	q := docstore.Query{Space: space}
	if id != "" {
		q.IDs = []string{id}
	}
	pools, err := docstore.All[octopus.WorkerPool](ctx, d.store, tx, "workerpools", q)
	if err != nil {
		return targets.Pool{}, err
	}
	at := slices.IndexFunc(pools, func(p octopus.WorkerPool) bool { return id != "" || p.IsDefault })
	switch {
	case at < 0 && id == "":
		return targets.Pool{}, fault.New(fault.Unsupported, "The space has no default worker pool; make one of its pools the default.")
	case at < 0:
		return targets.Pool{}, fault.New(fault.Unsupported, "There is no worker pool '%.40s' in this space; choose another one for the step.", id)
	}
	p := targets.Pool{ID: pools[at].ID, Name: pools[at].Name, Default: pools[at].IsDefault, Dynamic: pools[at].WorkerPoolType == octopus.PoolDynamic}
	workers, err := docstore.All[octopus.Worker](ctx, d.store, tx, "workers", docstore.Query{Space: space, Where: []docstore.Match{{Path: "WorkerPoolIds", Any: []string{p.ID}}}})
	if err != nil || len(workers) == 0 {
		return p, err
	}
	all, err := docstore.All[octopus.MachinePolicy](ctx, d.store, tx, "machinepolicies", docstore.Query{Space: space})
	if err != nil {
		return p, err
	}
	policies := make(map[string]octopus.MachinePolicy, len(all))
	for _, policy := range all {
		policies[policy.ID] = policy
	}
	busy, err := scripts(ctx, tx)
	if err != nil {
		return p, err
	}
	for i := range workers {
		w := &workers[i]
		m := machine(w.ID, w.SpaceID, &w.MachineBase, policies[w.MachinePolicyID])
		m.Busy = busy[w.ID]
		p.Workers = append(p.Workers, m)
	}
	return p, nil
}

// scripts counts what is under way on each agent.
func scripts(ctx context.Context, tx *db.Tx) (map[string]int, error) {
	rows, err := tx.Query(ctx, `SELECT k.agent, count(*) FROM ticket k WHERE k.state = 'open' GROUP BY k.agent`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]int{}
	for rows.Next() {
		var agent string
		var n int
		if err := rows.Scan(&agent, &n); err != nil {
			return nil, err
		}
		out[agent] = n
	}
	return out, rows.Err()
}

// former finds a machine that was deleted.
func former(ctx context.Context, tx *db.Tx, id string) (targets.Machine, error) {
	m := targets.Machine{ID: id, Gone: true, Health: octopus.HealthUnknown}
	var endpoint string
	err := tx.QueryRow(ctx, `SELECT f.space_id, f.name, f.endpoint FROM former_machine f WHERE f.id = ? AND f.deleted >= ?`,
		id, db.Micros(tx.Now().Add(-resources.FormerMachineFor))).Scan(&m.SpaceID, &m.Name, &endpoint)
	if errors.Is(err, sql.ErrNoRows) {
		return m, fault.New(fault.NotFound, "There is no machine '%.40s'.", id)
	}
	if err != nil {
		return m, err
	}
	resources.CompleteMachinePolicy(&m.Policy)
	return m, json.Unmarshal([]byte(endpoint), &m.Endpoint)
}

// trusted are the machines with a thumbprint, and whether scripts are under way there.
const trusted = `SELECT 0, d.body, CASE WHEN EXISTS (SELECT 1 FROM ticket t WHERE t.agent = d.id) THEN 1 ELSE 0 END
		FROM document_index i JOIN documents d ON d.kind = i.kind AND d.id = i.id
		WHERE i.kind IN ('machines', 'workers') AND i.field = 'Thumbprint' AND i.value = ? AND d.deleted = 0
	UNION ALL SELECT 1, f.endpoint, CASE WHEN EXISTS (SELECT 1 FROM ticket t WHERE t.agent = f.id) THEN 1 ELSE 0 END
		FROM former_machine f WHERE f.thumbprint = ? AND f.deleted >= ?`

// Trusts reports whether a polling agent with that subscription and certificate may
// connect: it must be an enabled target or worker of some space, or one that was
// disabled or deleted while scripts were under way there. An error says that it cannot
// be told. Until a machine changes, an enabled one is looked up once: agents that have
// nothing to do are asked about again and again.
func (d *Directory) Trusts(ctx context.Context, sub halibut.Subscription, thumb halibut.Thumbprint) (ok bool, err error) {
	at, err := d.changes(ctx)
	if err != nil {
		return false, fmt.Errorf("look up polling agent %s: %w", sub, err)
	}
	if d.known.has(at, sub, thumb) {
		return true, nil
	}
	lasts := false
	err = d.db.Read(ctx, func(tx *db.Tx) error {
		ok, lasts, err = trusts(ctx, tx, sub, thumb)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look up polling agent %s: %w", sub, err)
	}
	if lasts {
		d.known.add(at, sub, thumb)
	}
	return ok, nil
}

// changes moves whenever a target or a worker changes.
func (d *Directory) changes(ctx context.Context) (at moment, err error) {
	if ctx.Err() != nil {
		return at, ctx.Err()
	}
	for i, kind := range []string{resources.TargetKind, resources.WorkerKind} {
		if at[i], err = d.db.Changes(ctx, kind); err != nil {
			return at, err
		}
	}
	return at, nil
}

// trusts looks an agent up; lasts tells that it is trusted until a machine changes.
func trusts(ctx context.Context, tx *db.Tx, sub halibut.Subscription, thumb halibut.Thumbprint) (ok, lasts bool, err error) {
	folded := ident.Fold(string(thumb))
	rows, err := tx.Query(ctx, trusted, folded, folded, db.Micros(tx.Now().Add(-resources.FormerMachineFor)))
	if err != nil {
		return false, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var gone, busy int64
		var body string
		if err := rows.Scan(&gone, &body, &busy); err != nil {
			return false, false, err
		}
		var m struct {
			IsDisabled bool
			Endpoint   octopus.Endpoint
		}
		into := any(&m)
		if gone != 0 {
			into = &m.Endpoint
		}
		if err := json.Unmarshal([]byte(body), into); err != nil {
			return false, false, fmt.Errorf("read a machine with the thumbprint %s: %w", thumb, err)
		}
		out := gone != 0 || m.IsDisabled
		if out && busy == 0 || m.Endpoint.CommunicationStyle != octopus.StylePolling {
			continue
		}
		if is, err := halibut.ParseSubscription(m.Endpoint.URI); err == nil && is == sub {
			ok, lasts = true, lasts || !out
		}
	}
	return ok, lasts, rows.Err()
}

// moment is how often targets and workers have changed.
type moment [2]uint64

// enabled are polling agents of enabled machines, as they were at a moment.
type enabled struct {
	mu     sync.Mutex
	at     moment
	agents map[pollingAgent]bool
}

type pollingAgent struct {
	sub   halibut.Subscription
	thumb halibut.Thumbprint
}

func (e *enabled) has(at moment, sub halibut.Subscription, thumb halibut.Thumbprint) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at == at && e.agents[pollingAgent{sub, thumb}]
}

// add adds one that was looked up after a moment was known.
func (e *enabled) add(at moment, sub halibut.Subscription, thumb halibut.Thumbprint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.agents == nil || at != e.at && at[0] >= e.at[0] && at[1] >= e.at[1]:
		e.at, e.agents = at, map[pollingAgent]bool{}
	case at != e.at:
		return // somebody was quicker
	}
	e.agents[pollingAgent{sub, thumb}] = true
}

// Endpoint is how a deployment target is reached, with its secrets in clear.
func (d *Directory) Endpoint(ctx context.Context, machine string) (octopus.Endpoint, error) {
	var m octopus.Machine
	err := d.db.Read(ctx, func(tx *db.Tx) error {
		m = octopus.Machine{}
		return d.store.Reveal(ctx, tx, "machines", machine, &m)
	})
	if err != nil {
		return octopus.Endpoint{}, fmt.Errorf("find machine %s: %w", machine, err)
	}
	return m.Endpoint, nil
}

// Proxy finds a proxy of a space, with its password in clear.
func (d *Directory) Proxy(ctx context.Context, space, id string) (egress.HTTPProxy, error) {
	var p octopus.Proxy
	err := d.db.Read(ctx, func(tx *db.Tx) error {
		p = octopus.Proxy{}
		err := d.store.Reveal(ctx, tx, "proxies", id, &p)
		if err == nil && p.SpaceID != space {
			err = fault.Missing("proxy", id)
		}
		return err
	})
	if err != nil {
		return egress.HTTPProxy{}, fmt.Errorf("find proxy %s: %w", id, err)
	}
	out := egress.HTTPProxy{Name: p.Name, Addr: net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), Username: p.Username}
	if p.Password.NewValue != nil {
		out.Password = *p.Password.NewValue
	}
	return out, nil
}
