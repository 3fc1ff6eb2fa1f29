package schedule

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

// ageCron is when the age of the last proven backup is looked at: every hour.
const ageCron = "0 30 * * * *"

// backupTable reads the timetable of a row about backups; ok is false when backups
// are not scheduled any more.
func (s *Scheduler) backupTable(ctx context.Context, tx *db.Tx, r *row) (table *timetable.Timetable, ok bool, err error) {
	r.backups = &octopus.BackupConfiguration{}
	err = s.cfg.Store.Load(ctx, tx, resources.BackupConfigurationKind, resources.BackupConfigurationID, r.backups)
	if fault.Is(err, fault.NotFound) || err == nil && !r.backups.IsEnabled {
		return nil, false, nil
	}
	switch {
	case err != nil:
	case r.kind == kindBackupAge:
		table, err = timetable.Cron(ageCron, time.UTC)
	default:
		table, err = resources.BackupTimetable(r.backups)
	}
	return table, err == nil, err
}

// backUp queues the task of a scheduled backup.
func (s *Scheduler) backUp(ctx context.Context, r *row) error {
	c := r.backups
	job := backup.Job{Level: c.VerifyLevel, Scheduled: true, Keep: &backup.Retention{Daily: *c.KeepDaily, Weekly: *c.KeepWeekly}}
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		t, err := s.cfg.Queue.Create(ctx, tx, backup.NewTask(job))
		if err != nil {
			return err
		}
		r.tasks = []string{t.ID}
		return s.finishIn(ctx, tx, r, func(context.Context, *db.Tx) error { return nil })
	})
}

// backupAge warns when the newest proven backup is too old: once, and again each
// time that as much time has passed. The row's argument is the last warning, or
// when backups began to be scheduled.
func (s *Scheduler) backupAge(ctx context.Context, r *row) error {
	since, err := strconv.ParseInt(r.argument, 10, 64)
	if err != nil {
		return fmt.Errorf("argument of %s: %w", r.id, err)
	}
	var proven time.Time
	if s.cfg.Proven != nil {
		if proven, err = s.cfg.Proven(ctx); err != nil {
			return err
		}
	}
	most := time.Duration(r.backups.WarnAfterHours) * time.Hour
	return s.finish(ctx, r, func(ctx context.Context, tx *db.Tx) error {
		now := tx.Now()
		if s.cfg.Proven == nil || now.Sub(proven) < most || now.Sub(db.Time(since)) < most {
			return nil
		}
		text := "There is no backup that was proven"
		if !proven.IsZero() {
			text = fmt.Sprintf("The last backup that was proven is of %s, more than %d hours ago", proven.UTC().Format(time.RFC3339), r.backups.WarnAfterHours)
		}
		tx.Event(backup.TaskEvent(octopus.EventBackupOverdue, "", text))
		_, err := tx.Exec(ctx, `UPDATE due SET argument = ? WHERE id = ?`, strconv.FormatInt(db.Micros(now), 10), r.id)
		return err
	})
}
