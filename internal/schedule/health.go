package schedule

import (
	"context"
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

// mostFirst is how many machines that are new, or changed, one task checks.
const mostFirst = 500

// noteHealth gives machine policies their rows that have none: those of a server that
// did not check by itself yet.
func noteHealth(ctx context.Context, tx *db.Tx) error {
	_, err := tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks)
		SELECT d.id, ?, d.space_id, '', 0, 0, 0, 0, 0, '', '' FROM documents d WHERE d.kind = 'machinepolicies' AND d.deleted = 0
			AND NOT EXISTS (SELECT 1 FROM due u WHERE u.id = d.id) ON CONFLICT (id) DO NOTHING`, kindHealth)
	if err != nil {
		return fmt.Errorf("note when machines are checked: %w", err)
	}
	return nil
}

// healthTable reads the timetable of a machine policy; ok is false when its machines
// are not checked by themselves.
func (s *Scheduler) healthTable(ctx context.Context, tx *db.Tx, r *row) (table *timetable.Timetable, ok bool, err error) {
	r.policy = &octopus.MachinePolicy{}
	err = s.cfg.Store.Load(ctx, tx, "machinepolicies", r.id, r.policy)
	if fault.Is(err, fault.NotFound) {
		return nil, false, nil
	}
	if err == nil {
		table, ok, err = resources.HealthTimetable(r.policy)
	}
	if fault.Is(err, fault.Invalid) {
		s.log.Warn("the schedule of a machine policy that cannot be read is dropped", "due", r.id, "err", err)
		return nil, false, nil
	}
	return table, ok, err
}

// checkHealth queues the task that checks the machines of a policy, if it has any.
func (s *Scheduler) checkHealth(ctx context.Context, r *row) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		machines, err := health.OfPolicy(ctx, s.cfg.Store, tx, r.space, r.id)
		if err != nil {
			return err
		}
		r.tasks = nil
		for some := range slices.Chunk(machines, health.MaxMachines) {
			n := health.NewTask(r.space, health.Job{Machines: some}, fmt.Sprintf("Check the health of %d machines of the policy %s", len(some), r.policy.Name))
			t, err := s.cfg.Queue.Create(ctx, tx, n)
			if err != nil {
				return err
			}
			r.tasks = append(r.tasks, t.ID)
		}
		return s.finishIn(ctx, tx, r, func(context.Context, *db.Tx) error { return nil })
	})
}

// firstChecks queues the task that checks a machine which is new or is reached in
// another way, together with the others of its space that wait for the same.
func (s *Scheduler) firstChecks(ctx context.Context, r *row) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		type one struct{ id, kind string }
		all := []one{{r.id, r.argument}}
		rows, err := tx.Query(ctx, `SELECT u.id, u.argument FROM due u WHERE u.kind = ? AND u.space_id = ? AND u.pending = 0 AND u.at <= ? ORDER BY u.id LIMIT ?`+tx.ForUpdate(),
			kindFirstCheck, string(r.space), db.Micros(tx.Now()), int64(mostFirst-1))
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var o one
			if err := rows.Scan(&o.id, &o.kind); err != nil {
				return err
			}
			all = append(all, o)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if err := rows.Close(); err != nil {
			return err
		}
		var job health.Job
		for _, o := range all {
			m, ok, err := health.ByID(ctx, s.cfg.Store, tx, o.kind, o.id)
			if err != nil {
				return err
			}
			if ok {
				job.Machines = append(job.Machines, m)
			}
			if _, err := tx.Exec(ctx, `DELETE FROM due WHERE id = ? AND pending = 0`, o.id); err != nil {
				return err
			}
		}
		if len(job.Machines) > 0 {
			if _, err := s.cfg.Queue.Create(ctx, tx, health.NewTask(r.space, job, "")); err != nil {
				return err
			}
		}
		return s.finishIn(ctx, tx, r, func(context.Context, *db.Tx) error { return nil })
	})
}
