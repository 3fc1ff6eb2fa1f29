package resources

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

const (
	// BackupConfigurationKind has one document, the settings of scheduled backups.
	BackupConfigurationKind = "backupconfiguration"
	// BackupConfigurationID is its id.
	BackupConfigurationID = "backup"
	// BackupDue is the kind, and the id, of the due row of the next backup. It is there
	// while backups are scheduled.
	BackupDue = "backup"
	// BackupAgeDue is that of the next look at the age of the last proven backup.
	BackupAgeDue = "backupage"
)

func prepareBackups(v *octopus.BackupConfiguration) {
	v.CronExpression, v.Timezone = strings.TrimSpace(v.CronExpression), strings.TrimSpace(v.Timezone)
	if v.CronExpression == "" {
		v.CronExpression = "0 0 2 * * *"
	}
	if v.Timezone == "" {
		v.Timezone = "UTC"
	}
	if v.VerifyLevel == 0 {
		v.VerifyLevel = 2
	}
	if v.WarnAfterHours == 0 {
		v.WarnAfterHours = 50
	}
	daily, weekly := 7, 4
	if v.KeepDaily == nil {
		v.KeepDaily = &daily
	}
	if v.KeepWeekly == nil {
		v.KeepWeekly = &weekly
	}
}

// BackupTimetable is when backups are taken. Its errors are faults that name the
// member.
func BackupTimetable(v *octopus.BackupConfiguration) (*timetable.Timetable, error) {
	zone, err := timetable.Zone(v.Timezone)
	if err != nil {
		return nil, fault.InvalidField("Timezone", "Timezone is '%.100s'; use a name that GET /api/serverstatus/timezones lists.", v.Timezone)
	}
	table, err := timetable.Cron(v.CronExpression, zone)
	if err != nil {
		return nil, fault.InvalidField("CronExpression", "CronExpression is '%.100s': %s.", v.CronExpression, err)
	}
	return table, nil
}

func checkBackups(_ context.Context, _ resource.Reader, _, v *octopus.BackupConfiguration) error {
	const mostKept, mostHours = 3660, 24 * 366
	if _, err := BackupTimetable(v); err != nil {
		return err
	}
	switch {
	case v.VerifyLevel < 1 || v.VerifyLevel > 3:
		return fault.InvalidField("VerifyLevel", "VerifyLevel is %d; use 1 (files), 2 (database and secrets) or 3 (start the program on the backup).", v.VerifyLevel)
	case *v.KeepDaily < 0 || *v.KeepDaily > mostKept:
		return fault.InvalidField("KeepDaily", "KeepDaily is %d; use 0 to %d days.", *v.KeepDaily, mostKept)
	case *v.KeepWeekly < 0 || *v.KeepWeekly > mostKept:
		return fault.InvalidField("KeepWeekly", "KeepWeekly is %d; use 0 to %d weeks.", *v.KeepWeekly, mostKept)
	case v.WarnAfterHours < 1 || v.WarnAfterHours > mostHours:
		return fault.InvalidField("WarnAfterHours", "WarnAfterHours is %d; use 1 to %d.", v.WarnAfterHours, mostHours)
	}
	return nil
}

// backupsInTx keeps the due rows in step with the settings.
func backupsInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.BackupConfiguration]) error {
	tx := w.Tx()
	if c.New == nil || !c.New.IsEnabled {
		for _, id := range []string{BackupDue, BackupAgeDue} {
			if err := dropDue(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	}
	table, err := BackupTimetable(c.New)
	if err != nil {
		return err
	}
	now := tx.Now()
	// What was done once is not done again, wherever the clock stands.
	var fired int64
	err = tx.QueryRow(ctx, `SELECT u.fired FROM due u WHERE u.id = ?`, BackupDue).Scan(&fired)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read when the last backup was due: %w", err)
	}
	next, ok := table.Next(db.Time(max(fired, db.Micros(now))))
	if !ok {
		return fault.InvalidField("CronExpression", "CronExpression is '%.100s', which never comes again; use one that does.", c.New.CronExpression)
	}
	const store = `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks) VALUES (?, ?, '', ?, ?, 0, 0, 0, 0, '', '')
		ON CONFLICT (id) DO UPDATE SET at = excluded.at`
	if _, err := tx.Exec(ctx, store, BackupDue, BackupDue, "", db.Micros(next)); err != nil {
		return fmt.Errorf("store when the next backup is due: %w", err)
	}
	const age = `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks) VALUES (?, ?, '', ?, ?, 0, 0, 0, 0, '', '')
		ON CONFLICT (id) DO NOTHING`
	if _, err := tx.Exec(ctx, age, BackupAgeDue, BackupAgeDue, strconv.FormatInt(db.Micros(now), 10), db.Micros(now.Add(time.Hour))); err != nil {
		return fmt.Errorf("store when the age of the last backup is due: %w", err)
	}
	return nil
}
