package resources

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

// HealthDue is the kind of due rows of machine policies, whose machines are checked at
// times: the id is the policy's.
const HealthDue = "health"

// leastHealthInterval is the shortest time between two checks of a policy's machines.
const leastHealthInterval = time.Minute

// HealthTimetable is when the machines of a policy are checked: at the times of a cron
// expression, else every so often; ok is false for never. Its errors are faults that
// name the member.
func HealthTimetable(p *octopus.MachinePolicy) (table *timetable.Timetable, ok bool, err error) {
	h := &p.MachineHealthCheckPolicy
	if h.HealthCheckCron != "" {
		zone, err := timetable.Zone(h.HealthCheckCronTimezone)
		if err != nil {
			return nil, false, fault.InvalidField("MachineHealthCheckPolicy.HealthCheckCronTimezone", "MachineHealthCheckPolicy.HealthCheckCronTimezone is '%.100s', which is no known time zone; use one such as Europe/Berlin, or UTC.", h.HealthCheckCronTimezone)
		}
		table, err := timetable.Cron(string(h.HealthCheckCron), zone)
		if err != nil {
			return nil, false, fault.InvalidField("MachineHealthCheckPolicy.HealthCheckCron", "MachineHealthCheckPolicy.HealthCheckCron cannot be read: %s", firstOf(fault.Messages(err), err.Error()))
		}
		return table, true, nil
	}
	if h.HealthCheckInterval == nil || *h.HealthCheckInterval == 0 {
		return nil, false, nil
	}
	every := time.Duration(*h.HealthCheckInterval)
	if every < leastHealthInterval {
		return nil, false, fault.InvalidField("MachineHealthCheckPolicy.HealthCheckInterval", "MachineHealthCheckPolicy.HealthCheckInterval is %s; use at least %s, or leave it out for no checks.", every, leastHealthInterval)
	}
	return timetable.Every(every), true, nil
}

// sameTimes reports whether machines are checked at the same times.
func sameTimes(a, b *octopus.MachineHealthCheckPolicy) bool {
	every := func(h *octopus.MachineHealthCheckPolicy) octopus.TimeSpan {
		if h.HealthCheckInterval == nil {
			return 0
		}
		return *h.HealthCheckInterval
	}
	return a.HealthCheckCron == b.HealthCheckCron && a.HealthCheckCronTimezone == b.HealthCheckCronTimezone && every(a) == every(b)
}

func firstOf(list []string, otherwise string) string {
	if len(list) > 0 {
		return list[0]
	}
	return otherwise
}

// machinePolicyInTx keeps the due row of a policy in step with it.
func machinePolicyInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.MachinePolicy]) error {
	tx := w.Tx()
	if c.Op == resource.Deleted {
		if c.Old.IsDefault {
			return fault.New(fault.Conflict, "The machine policy '%s' cannot be deleted because it is the space's default.", c.Old.Name)
		}
		return dropDue(ctx, tx, c.ID)
	}
	if c.Old != nil && sameTimes(&c.Old.MachineHealthCheckPolicy, &c.New.MachineHealthCheckPolicy) {
		return nil // another change does not put the next check off
	}
	table, ok, err := HealthTimetable(c.New)
	if err != nil {
		return err
	}
	if !ok {
		return dropDue(ctx, tx, c.ID)
	}
	// What was done once is not done again, wherever the clock stands.
	var fired int64
	err = tx.QueryRow(ctx, `SELECT u.fired FROM due u WHERE u.id = ?`, c.ID).Scan(&fired)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read when %s is due: %w", c.ID, err)
	}
	next, ok := table.Next(db.Time(max(fired, db.Micros(tx.Now()))))
	if !ok {
		return fault.InvalidField("MachineHealthCheckPolicy.HealthCheckCron", "MachineHealthCheckPolicy.HealthCheckCron is '%.100s', which never comes again; use one that does.", c.New.MachineHealthCheckPolicy.HealthCheckCron)
	}
	_, err = tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks) VALUES (?, ?, ?, '', ?, 0, 0, 0, 0, '', '')
		ON CONFLICT (id) DO UPDATE SET at = excluded.at`, c.ID, HealthDue, string(c.Space), db.Micros(next))
	if err != nil {
		return fmt.Errorf("store when %s is due: %w", c.ID, err)
	}
	return nil
}
