package schedule_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// schedule changes the settings of scheduled backups, which exist or not.
func (w *world) schedule(exists bool, c octopus.BackupConfiguration) {
	w.t.Helper()
	w.write(func(tx *db.Tx) error {
		if exists {
			return w.store.In(tx).Replace(w.ctx, resources.BackupConfigurationKind, resources.BackupConfigurationID, &c)
		}
		_, err := w.store.In(tx).Create(w.ctx, resources.BackupConfigurationKind, ident.SpaceID(""), resources.BackupConfigurationID, &c)
		return err
	})
}

func (w *world) backups() int {
	w.t.Helper()
	return len(w.texts(`SELECT t.id FROM task t WHERE t.name = 'Backup'`))
}

func (w *world) backupEvents() []string {
	w.t.Helper()
	return w.texts(`SELECT e.message FROM events e WHERE e.category LIKE 'Backup%' ORDER BY e.id`)
}

// TestBackupsAreDue: a scheduled backup is queued once, however many servers look, by
// the clock of its time zone; what is missed or still runs is told of.
func TestBackupsAreDue(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		c := octopus.BackupConfiguration{IsEnabled: true, CronExpression: "0 0 4 * * *", Timezone: "Europe/Berlin", WarnAfterHours: 8000}
		w.schedule(false, c)
		for _, at := range []string{"02:59:59", "03:00:00", "03:00:01", "04:00:00"} {
			w.at(day(1, at))
			w.look()
		}
		if got := w.texts(`SELECT t.description FROM task t WHERE t.name = 'Backup'`); !cmp.Equal(got, []string{"Take the scheduled backup"}) {
			t.Fatalf("the tasks are %q", got)
		}
		w.at(day(2, "03:00:00"))
		w.look()
		if got, want := w.backupEvents(), []string{"The scheduled backup was skipped. Skipped: what it queued the last time is not done yet"}; w.backups() != 1 || !cmp.Equal(got, want) {
			t.Fatalf("%d tasks while the first is queued; %q", w.backups(), got)
		}
		w.write(func(tx *db.Tx) error {
			_, err := tx.Exec(w.ctx, `UPDATE task SET state = 'Success', runnable = 0`)
			return err
		})
		w.at(day(3, "05:00:00"))
		w.look()
		if got := w.backupEvents(); w.backups() != 1 || len(got) != 2 || got[1] != "The scheduled backup was skipped. Skipped: nobody was there when it was due, at 2026-01-03T03:00:00Z" {
			t.Errorf("two hours too late: %d tasks; %q", w.backups(), got)
		}
		w.at(day(4, "03:00:00"))
		w.look()
		if got := w.backups(); got != 2 {
			t.Errorf("%d tasks", got)
		}
		c.IsEnabled = false
		w.schedule(true, c)
		if got := w.texts(`SELECT u.id FROM due u WHERE u.kind LIKE 'backup%'`); len(got) != 0 {
			t.Errorf("switched off, %q are due", got)
		}
		w.at(day(5, "03:00:00"))
		w.look()
		if got := w.backups(); got != 2 {
			t.Errorf("switched off, there are %d tasks", got)
		}
	})
}

// TestOldBackupIsWarnedOf: once when the last proven backup becomes too old, and again
// when as much time has passed.
func TestOldBackupIsWarnedOf(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.schedule(false, octopus.BackupConfiguration{IsEnabled: true, CronExpression: "0 0 0 1 12 *", WarnAfterHours: 24})
		const none = "There is no backup that was proven"
		old := "The last backup that was proven is of 2026-01-03T00:00:00Z, more than 24 hours ago"
		for _, step := range []struct {
			at   time.Time
			want []string
		}{
			{day(1, "12:30:00"), nil},
			{day(2, "00:30:00"), []string{none}},
			{day(2, "23:30:00"), []string{none}},
			{day(3, "00:30:00"), []string{none, none}},
			{day(3, "01:30:00"), []string{none, none}}, // proven from here on
			{day(3, "23:30:00"), []string{none, none}},
			{day(4, "00:30:00"), []string{none, none, old}},
			{day(4, "01:30:00"), []string{none, none, old}},
		} {
			if step.at.Equal(day(3, "01:30:00")) {
				w.proven.micros.Store(day(3, "00:00:00").UnixMicro())
			}
			w.at(step.at)
			w.look()
			if diff := cmp.Diff(step.want, w.backupEvents()); diff != "" {
				t.Fatalf("at %s (-want +got):\n%s", step.at, diff)
			}
		}
	})
}
