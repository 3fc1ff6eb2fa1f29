package resources

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf16"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Kinds of machines: deployment targets, and workers.
const (
	TargetKind = "machines"
	WorkerKind = "workers"
)

// HealthPolicy is how a machine policy has its machines checked.
type HealthPolicy struct {
	// OnlyConnect asks only whether a machine answers; else Script is run there, ""
	// for the one that comes with the server.
	OnlyConnect bool
	Script      string
	// MayBeAway says that it is no failure when a machine is not available.
	MayBeAway bool
	// Deletes removes machines that have not been available for DeleteAfter.
	Deletes     bool
	DeleteAfter time.Duration
	// Upgrades has agents of ours that are older than the server upgraded.
	Upgrades bool
	// RetryHealthy is for how long a machine that was well is tried again when it
	// does not answer, RetryOther for others.
	RetryHealthy, RetryOther time.Duration
}

// HealthPolicyOf is how the policy of an id, one of a space's, has its machines
// checked. Where it says nothing of its own about the script, and where there is none
// of that id, the space's default policy counts.
func HealthPolicyOf(policies []octopus.MachinePolicy, id string) HealthPolicy {
	usual := slices.IndexFunc(policies, func(p octopus.MachinePolicy) bool { return p.IsDefault })
	own := slices.IndexFunc(policies, func(p octopus.MachinePolicy) bool { return p.ID == id })
	if own < 0 {
		own = usual
	}
	var h HealthPolicy
	if own < 0 {
		return h
	}
	p := &policies[own]
	h.MayBeAway = p.MachineConnectivityPolicy.MachineConnectivityBehavior == octopus.MayBeOffline
	h.Deletes = p.MachineCleanupPolicy.DeleteMachinesBehavior == octopus.DeleteUnavailableMachines
	h.DeleteAfter = time.Duration(p.MachineCleanupPolicy.DeleteMachinesElapsedTimeSpan)
	h.Upgrades = p.MachineUpdatePolicy.TentacleUpdateBehavior == octopus.AgentUpdate
	if r := &p.MachineRPCCallRetryPolicy; r.Enabled {
		h.RetryHealthy, h.RetryOther = time.Duration(r.HealthyMachineHealthCheckRetryDuration), time.Duration(r.UnhealthyMachineHealthCheckRetryDuration)
	}
	for _, i := range []int{own, usual} {
		if i < 0 {
			continue
		}
		check := &policies[i].MachineHealthCheckPolicy
		bash := &check.BashHealthCheckPolicy
		switch {
		case check.HealthCheckType == octopus.HealthOnlyConnectivity || bash.RunType == octopus.HealthScriptNone:
			h.OnlyConnect = true
			return h
		case bash.RunType == octopus.HealthScriptInline:
			h.Script = string(bash.ScriptBody)
			return h
		}
	}
	return h
}

// Retry is for how long a machine that does not answer is tried again, by its health at
// the last check: one that did not answer then either is not.
func (h HealthPolicy) Retry(was octopus.HealthStatus) time.Duration {
	switch was {
	case octopus.Healthy, octopus.HealthyWarnings:
		return h.RetryHealthy
	case octopus.Unavailable:
		return 0
	case octopus.Unhealthy, octopus.HealthUnknown:
	}
	return h.RetryOther
}

// MachineCheck is what a check has found of a machine.
type MachineCheck struct {
	Kind string // TargetKind or WorkerKind
	ID   string
	Task string // that has checked it
	// Status and Summary, a sentence, are what is shown.
	Status  octopus.HealthStatus
	Summary string
	Log     []string
	// Version is that of the machine's agent, "" where it is not known; Outdated says
	// that the server has a newer one for it.
	Version  string
	Outdated bool
	// The rest is what the machine tells about itself; "" leaves what was known.
	System, Shell, ShellVersion, Architecture string
}

// KeepCheck keeps with a machine what a check has found, and tells of a health that
// has changed: in the audit trail, and to the triggers that wait for it. A machine that
// is gone is passed over.
func KeepCheck(ctx context.Context, w resource.Writer, c MachineCheck) error {
	if c.Kind == WorkerKind {
		return keepCheck(ctx, w, c, func(v *octopus.Worker) *octopus.MachineBase { return &v.MachineBase }, func(v *octopus.Worker) db.Event {
			return workerEvent(healthCategory(v.HealthStatus), v.SpaceID, v.ID, v)
		})
	}
	return keepCheck(ctx, w, c, func(v *octopus.Machine) *octopus.MachineBase { return &v.MachineBase }, func(v *octopus.Machine) db.Event {
		return machineEvent(healthCategory(v.HealthStatus), v.SpaceID, v.ID, v)
	})
}

func keepCheck[T any](ctx context.Context, w resource.Writer, c MachineCheck, base func(*T) *octopus.MachineBase, event func(*T) db.Event) error {
	v := new(T)
	err := w.Load(ctx, c.Kind, c.ID, v)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	m := base(v)
	was, before := m.HealthStatus, measures(m)
	m.HealthStatus, m.StatusSummary, m.Status = c.Status, c.Summary, octopus.MachineOnline
	if c.Status == octopus.Unavailable {
		m.Status = octopus.MachineOffline
	} else {
		m.HasLatestCalamari = !c.Outdated
	}
	for _, one := range []struct {
		to    *string
		found string
	}{{&m.OperatingSystem, c.System}, {&m.ShellName, c.Shell}, {&m.ShellVersion, c.ShellVersion}, {&m.Architecture, c.Architecture}} {
		if one.found != "" {
			*one.to = one.found
		}
	}
	if c.Version != "" && (m.Endpoint.CommunicationStyle == octopus.StyleListening || m.Endpoint.CommunicationStyle == octopus.StylePolling) {
		d := octopus.TentacleDetails{}
		if old := m.Endpoint.TentacleVersionDetails; old != nil {
			d = *old
		}
		d.Version, d.UpgradeSuggested, d.UpgradeAvailable = octopus.NullString(c.Version), c.Outdated, c.Outdated
		m.Endpoint.TentacleVersionDetails = &d
	}
	if measures(m) != before {
		if err := w.Replace(ctx, c.Kind, c.ID, v); err != nil {
			return fmt.Errorf("keep the health of %s: %w", c.ID, err)
		}
	}
	tx := w.Tx()
	space, err := keepHealthRow(ctx, tx, c)
	if err != nil || was == c.Status {
		return err
	}
	tx.Event(event(v))
	if c.Kind != TargetKind || m.IsDisabled {
		return nil
	}
	return noteChanges(ctx, tx, space, c.ID, []octopus.EventCategory{healthCategory(c.Status)})
}

// KeepVersion keeps with a machine that its agent has been upgraded to a version, the
// server's own. A machine that is gone is passed over.
func KeepVersion(ctx context.Context, w resource.Writer, kind, id, version string) error {
	if kind == WorkerKind {
		return keepVersion(ctx, w, kind, id, version, func(v *octopus.Worker) *octopus.MachineBase { return &v.MachineBase })
	}
	return keepVersion(ctx, w, kind, id, version, func(v *octopus.Machine) *octopus.MachineBase { return &v.MachineBase })
}

func keepVersion[T any](ctx context.Context, w resource.Writer, kind, id, version string, base func(*T) *octopus.MachineBase) error {
	v := new(T)
	err := w.Load(ctx, kind, id, v)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	m := base(v)
	before := measures(m)
	m.HasLatestCalamari = true
	d := octopus.TentacleDetails{}
	if old := m.Endpoint.TentacleVersionDetails; old != nil {
		d = *old
	}
	d.Version, d.UpgradeSuggested, d.UpgradeAvailable = octopus.NullString(version), false, false
	m.Endpoint.TentacleVersionDetails = &d
	if measures(m) != before {
		if err := w.Replace(ctx, kind, id, v); err != nil {
			return fmt.Errorf("keep the version of %s: %w", id, err)
		}
	}
	if _, err := w.Tx().Exec(ctx, `UPDATE machine_health SET version = ? WHERE machine = ?`, version, id); err != nil {
		return fmt.Errorf("keep the version of %s: %w", id, err)
	}
	return nil
}

// measured is what checks change of a machine's document.
type measured struct {
	health                                octopus.HealthStatus
	status                                octopus.MachineStatus
	latest                                bool
	summary, system, shell, version, arch string
	agent                                 octopus.TentacleDetails
}

func measures(m *octopus.MachineBase) measured {
	out := measured{m.HealthStatus, m.Status, m.HasLatestCalamari, m.StatusSummary, m.OperatingSystem, m.ShellName, m.ShellVersion, m.Architecture, octopus.TentacleDetails{}}
	if d := m.Endpoint.TentacleVersionDetails; d != nil {
		out.agent = *d
	}
	return out
}

// keepHealthRow writes what has no place in the document, and returns its space.
func keepHealthRow(ctx context.Context, tx *db.Tx, c MachineCheck) (space ident.SpaceID, err error) {
	if err := tx.QueryRow(ctx, `SELECT d.space_id FROM documents d WHERE d.kind = ? AND d.id = ?`, c.Kind, c.ID).Scan(&space); err != nil {
		return "", fmt.Errorf("look up the space of %s: %w", c.ID, err)
	}
	log, err := json.Marshal(slices.Concat([]string{}, c.Log)) // never null
	if err != nil {
		return "", err
	}
	now, away := db.Micros(tx.Now()), int64(0)
	if c.Status == octopus.Unavailable {
		away = now
	}
	_, err = tx.Exec(ctx, `INSERT INTO machine_health (machine, kind, space_id, task, checked, away, version, log) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (machine) DO UPDATE SET task = excluded.task, checked = excluded.checked, log = excluded.log,
			away = CASE WHEN excluded.away > 0 AND machine_health.away > 0 THEN machine_health.away ELSE excluded.away END,
			version = CASE WHEN excluded.version = '' THEN machine_health.version ELSE excluded.version END`,
		c.ID, c.Kind, string(space), c.Task, now, away, c.Version, string(log))
	if err != nil {
		return "", fmt.Errorf("keep the health of %s: %w", c.ID, err)
	}
	return space, nil
}

// LastCheck is the last check of a machine, beside what its document says.
type LastCheck struct {
	Task    string
	At      time.Time // zero for never
	Away    time.Time // since when it is not available; zero while it is
	Version string    // of its agent
	Log     []string
}

// LastCheckOf reads the last check of a machine; it is zero when there was none.
func LastCheckOf(ctx context.Context, tx *db.Tx, id string) (c LastCheck, err error) {
	var at, away int64
	var log string
	err = tx.QueryRow(ctx, `SELECT h.task, h.checked, h.away, h.version, h.log FROM machine_health h WHERE h.machine = ?`, id).Scan(&c.Task, &at, &away, &c.Version, &log)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return c, nil
	case err != nil:
		return c, fmt.Errorf("read the last check of %s: %w", id, err)
	}
	c.At, c.Away = db.Time(at), db.Time(away)
	return c, json.Unmarshal([]byte(log), &c.Log)
}

// forgetHealth drops what is kept of a machine that is deleted. What its agent still
// had to be told nobody can tell any more.
func forgetHealth(ctx context.Context, tx *db.Tx, id string) error {
	for _, statement := range []string{`DELETE FROM machine_health WHERE machine = ?`, `DELETE FROM due WHERE id = ?`, `DELETE FROM task_machine WHERE machine = ?`} {
		if _, err := tx.Exec(ctx, statement, id); err != nil {
			return fmt.Errorf("forget the health of %s: %w", id, err)
		}
	}
	return nil
}

func healthCategory(s octopus.HealthStatus) octopus.EventCategory {
	switch s {
	case octopus.HealthyWarnings:
		return octopus.EventMachineHasWarnings
	case octopus.Unhealthy:
		return octopus.EventMachineUnhealthy
	case octopus.Unavailable:
		return octopus.EventMachineUnavailable
	case octopus.Healthy, octopus.HealthUnknown:
	}
	return octopus.EventMachineHealthy
}

// workerEvent is an event about a worker.
func workerEvent(category octopus.EventCategory, space, id string, v *octopus.Worker) db.Event {
	const label = "Worker "
	return db.Event{
		Category: string(category), SpaceID: space, Message: label + v.Name + " " + machineDid(category), Related: []string{id}, DocumentType: "Worker",
		References: []db.EventReference{{ID: id, Start: len(label), Length: len(utf16.Encode([]rune(v.Name)))}},
	}
}

// FirstCheckDue is the kind of due rows of machines that are to be checked at once:
// the id is the machine's, and the argument its kind.
const FirstCheckDue = "first-check"

// firstCheck has a machine checked that is new, or is reached in another way than before.
func firstCheck(ctx context.Context, tx *db.Tx, kind string, space ident.SpaceID, id string, old, v *octopus.MachineBase) error {
	switch {
	case v.IsDisabled, v.Endpoint.CommunicationStyle == octopus.StyleOfflineDrop:
		return nil
	case old == nil && v.SkipInitialHealthCheck:
		return nil
	case old != nil && !old.IsDisabled && sameEndpoint(&old.Endpoint, &v.Endpoint):
		return nil
	case old != nil && old.IsDisabled && v.SkipInitialHealthCheck && sameEndpoint(&old.Endpoint, &v.Endpoint):
		return nil
	}
	_, err := tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks) VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, '', '')
		ON CONFLICT (id) DO UPDATE SET at = excluded.at`, id, FirstCheckDue, string(space), kind, db.Micros(tx.Now()))
	if err != nil {
		return fmt.Errorf("have %s checked: %w", id, err)
	}
	return nil
}

// sameEndpoint reports whether a machine is reached as before.
func sameEndpoint(a, b *octopus.Endpoint) bool {
	reached := func(e *octopus.Endpoint) string {
		one := *e
		one.TentacleVersionDetails = nil
		text, err := json.Marshal(one)
		if err != nil {
			return "" // it was stored as JSON
		}
		return string(text)
	}
	return reached(a) == reached(b)
}

// keepDetails keeps what checks have found of an agent where a client leaves it out.
func keepDetails(old, v *octopus.MachineBase) {
	if old != nil && v.Endpoint.TentacleVersionDetails == nil && v.Endpoint.Thumbprint == old.Endpoint.Thumbprint && v.Endpoint.URI == old.Endpoint.URI {
		v.Endpoint.TentacleVersionDetails = old.Endpoint.TentacleVersionDetails
	}
}
