package db_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

// kinds lists the counters of changes, which are a table to try things in.
func kinds(t *testing.T, d *db.DB) (all []string) {
	t.Helper()
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		all = nil
		rows, err := tx.Query(t.Context(), `SELECT kind FROM changes WHERE slot >= 1000 ORDER BY slot`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var kind string
			if err := rows.Scan(&kind); err != nil {
				return err
			}
			all = append(all, kind)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const putKind = `INSERT INTO changes (kind, slot, counter) VALUES (?, ?, 1)`

// TestQueue has queued statements done in their order: before every other statement,
// which sees them, and before the commit.
func TestQueue(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		args := []any{"a", 1000}
		write(t, d, func(tx *db.Tx) error {
			if err := tx.Queue(ctx, putKind, args...); err != nil {
				return err
			}
			args[0] = "somebody else's now"
			var n int64
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM changes WHERE kind = 'a'`).Scan(&n); err != nil || n != 1 {
				return fmt.Errorf("%d rows after the first, %w", n, err)
			}
			args[0] = "a"
			err := errors.Join(
				tx.Queue(ctx, putKind, "b", 1001),
				tx.Queue(ctx, `UPDATE changes SET kind = 'c' WHERE kind = 'b'`),
				tx.Queue(ctx, putKind, "b", 1002),
			)
			// The count is that of the last one alone.
			n, execErr := tx.Exec(ctx, `UPDATE changes SET kind = 'd' WHERE kind IN ('a', 'c')`)
			if err := errors.Join(err, execErr); err != nil || n != 2 {
				return fmt.Errorf("%d rows changed, %w", n, err)
			}
			for i := range 200 { // more than are kept
				if err := tx.Queue(ctx, putKind, fmt.Sprint(i), 2000+i); err != nil {
					return err
				}
			}
			return tx.Queue(ctx, putKind, "last", 3000)
		})
		want := []string{"d", "d", "b"}
		for i := range 200 {
			want = append(want, fmt.Sprint(i))
		}
		if diff := cmp.Diff(append(want, "last"), kinds(t, d)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestQueuedError has nothing committed after the error of a queued statement, whatever
// is done with it, and Write say what it was.
func TestQueuedError(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		write(t, d, func(tx *db.Tx) error { return tx.Queue(ctx, putKind, "taken", 1000) })
		for name, then := range map[string]func(tx *db.Tx) error{
			"commit": func(*db.Tx) error { return nil },
			"exec": func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, putKind, "b", 1001)
				return err
			},
			"row": func(tx *db.Tx) error {
				var n int64
				_ = tx.QueryRow(ctx, `SELECT count(*) FROM changes`).Scan(&n)
				return nil
			},
			"rows": func(tx *db.Tx) error {
				if rows, err := tx.Query(ctx, `SELECT count(*) FROM changes`); err == nil {
					return errors.Join(rows.Err(), rows.Close())
				}
				return nil
			},
			"another error": func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, putKind, "b", 1001)
				return fmt.Errorf("no reason to try again: %v", err) //nolint:errorlint // that is the point
			},
			"queue": func(tx *db.Tx) error {
				_, _ = tx.Exec(ctx, putKind, "b", 1001)
				_ = tx.Queue(ctx, putKind, "c", 1002)
				return nil
			},
		} {
			err := d.WriteEngine(ctx, func(tx *db.Tx) error {
				if err := tx.Queue(ctx, putKind, "before", 1003); err != nil {
					return err
				}
				err := tx.Queue(ctx, putKind, "taken", 1000)
				if d.Dialect() == db.SQLite {
					return err
				}
				return errors.Join(err, then(tx))
			})
			if !errors.Is(err, db.ErrUnique) {
				t.Errorf("%s: %v, want that the key is taken", name, err)
			}
		}
		// One that is not queued is told to who sent it, and what was queued is undone.
		err := d.WriteEngine(ctx, func(tx *db.Tx) error {
			if err := tx.Queue(ctx, putKind, "before", 1003); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, putKind, "taken", 1000)
			if !errors.Is(err, db.ErrUnique) {
				t.Errorf("%v, want that the key is taken", err)
			}
			return errors.New("given up")
		})
		if err == nil || !strings.Contains(err.Error(), "given up") {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"taken"}, kinds(t, d)); diff != "" {
			t.Error(diff)
		}
		if err := d.Read(ctx, func(tx *db.Tx) error { return tx.Queue(ctx, putKind, "r", 1) }); err == nil {
			t.Error("a read transaction has written")
		}
	})
}
