package db_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/fault"
)

// furnish writes rows with what the databases store in different ways.
func furnish(t *testing.T, d *db.DB, rows int) {
	t.Helper()
	blob := make([]byte, 3000)
	for i := range blob {
		blob[i] = byte(i)
	}
	for from := 0; from < rows; from += 1000 {
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			for i := from; i < min(from+1000, rows); i++ {
				name := fmt.Sprintf("ä\u2028%d '\"\\\n", i)
				if _, err := tx.Exec(t.Context(), `INSERT INTO manifest (id, owner, body) VALUES (?, ?, ?)`, name, "", strings.Repeat(name, 3)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		if _, err := tx.NextSeq(t.Context(), "Projects"); err != nil {
			return err
		}
		tx.Changed("projects")
		for i := range 3 {
			tx.Event(db.Event{Category: "Created", Message: fmt.Sprint("made ", i), Related: []string{"Projects-1"}})
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO task_log (task, line_from, lines, epoch, codec, data) VALUES ('t', 1, 9223372036854775807, -1, 0, ?), ('t', 2, 0, 0, 0, ?)`, blob, []byte{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// transfer is db.Transfer for tests.
func transfer(t *testing.T, from, to *db.DB, accept func(context.Context) error) (db.Transferred, error) {
	t.Helper()
	return db.Transfer(t.Context(), from, to, db.TransferOptions{By: "test", Accept: accept})
}

func TestTransferThereAndBack(t *testing.T) {
	t.Parallel()
	first := dbtest.Open(t, db.SQLite)
	furnish(t, first, 5000)
	err := first.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), `DELETE FROM events WHERE id = 3`) // whose number must not come again
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	was, err := first.Meta(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := dbtest.OpenURL(t, dbtest.EmptyURL(t, db.Postgres))
	there, err := transfer(t, first, second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if there.Rows["manifest"] != 5000 || there.Rows["events"] != 2 || there.Rows["task_log"] != 2 || there.Rows["counter"] != 1 {
		t.Errorf("copied %v", there.Rows)
	}
	third := dbtest.OpenURL(t, dbtest.EmptyURL(t, db.SQLite))
	back, err := transfer(t, second, third, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(there, back); diff != "" {
		t.Errorf("there and back differ (-there +back):\n%s", diff)
	}
	for _, d := range []*db.DB{second, third} {
		if err := db.CheckStart(t.Context(), d, db.BinaryLevels()); err != nil {
			t.Errorf("%s cannot be used: %v", d.Dialect(), err)
		}
		m, err := d.Meta(t.Context())
		if err != nil || m.InstallationID != was.InstallationID || m.Incarnation != was.Incarnation {
			t.Errorf("%s says of itself %+v, %v; the source %+v", d.Dialect(), m, err, was)
		}
		in, err := db.Inspect(t.Context(), d)
		if err != nil || len(in.Deviations) > 0 || in.Recorded || in.Fingerprint != m.Fingerprint {
			t.Errorf("%s: schema %+v, %v", d.Dialect(), in, err)
		}
		var seq, event int64
		err = d.Write(t.Context(), func(tx *db.Tx) error {
			if seq, err = tx.NextSeq(t.Context(), "Projects"); err != nil {
				return err
			}
			tx.Event(db.Event{Category: "Created", Message: "made after"})
			return nil
		})
		if err == nil {
			err = d.Read(t.Context(), func(tx *db.Tx) error { return tx.QueryRow(t.Context(), `SELECT max(id) FROM events`).Scan(&event) })
		}
		if err != nil || seq <= 32 || event != 4 {
			t.Errorf("%s gives out %d and %d next, %v", d.Dialect(), seq, event, err)
		}
	}
}

// TestOrderOfEvents: who followed events in the order in which PostgreSQL's transactions
// ended misses none of them when they are followed in the order of their numbers.
func TestOrderOfEvents(t *testing.T) {
	t.Parallel()
	migration, err := os.ReadFile("migrations/0070_event_order.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*db.DB{dbtest.Open(t, db.SQLite), dbtest.Open(t, db.Postgres)} {
		furnish(t, d, 0)
		at := map[string]int64{}
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			// Event 2 was committed after event 3, which was sent.
			for id, xact := range map[int]int{1: 10, 2: 30, 3: 20} {
				if _, err := tx.Exec(t.Context(), `UPDATE events SET xact = ? WHERE id = ?`, xact, id); err != nil {
					return err
				}
			}
			_, err := tx.Exec(t.Context(), `INSERT INTO subscription_sender (subscription, channel, owner, xact, event, floor, moved, due, lease, token, attempts, progress)
				VALUES ('late', 'webhook', '', 20, 3, 0, 0, 0, 0, '', 0, ''), ('done', 'webhook', '', 30, 2, 0, 0, 0, 0, '', 0, '{}')`)
			if err != nil {
				return err
			}
			for _, statement := range strings.SplitAfter(string(migration), ";\n") {
				if strings.TrimSpace(statement) == "" {
					continue
				}
				if _, err := tx.Exec(t.Context(), statement); err != nil {
					return err
				}
			}
			for _, name := range []string{"late", "done"} {
				var event int64
				if err := tx.QueryRow(t.Context(), `SELECT event FROM subscription_sender WHERE subscription = ? AND xact = 0 AND floor = 0 AND progress = ''`, name).Scan(&event); err != nil {
					return err
				}
				at[name] = event
			}
			return nil
		})
		if diff := cmp.Diff(map[string]int64{"late": 1, "done": 3}, at); err != nil || diff != "" {
			t.Errorf("%s: senders go on after (-want +got):\n%s%v", d.Dialect(), diff, err)
		}
	}
}

func TestTransferIsRefused(t *testing.T) {
	t.Parallel()
	from := dbtest.Open(t, db.SQLite)
	furnish(t, from, 10)
	exec := func(statement string, args ...any) {
		t.Helper()
		err := from.Write(t.Context(), func(tx *db.Tx) error {
			_, err := tx.Exec(t.Context(), statement, args...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(err error, want string) {
		t.Helper()
		if fault.KindOf(err) == fault.Internal || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want a refusal that says %q", err, want)
		}
	}
	_, err := transfer(t, from, dbtest.Open(t, db.Postgres), nil)
	refused(err, "has a server's data already")

	to := dbtest.OpenURL(t, dbtest.EmptyURL(t, db.Postgres))
	halves := 0
	half := func() {
		t.Helper()
		halves++
		refused(db.CheckStart(t.Context(), to, db.BinaryLevels()), "was cut short")
		refused(func() error {
			_, err := transfer(t, to, dbtest.OpenURL(t, dbtest.EmptyURL(t, db.SQLite)), nil)
			return err
		}(), "was cut short")
	}
	exec(`CREATE TABLE mine (a TEXT)`)
	_, err = transfer(t, from, to, nil)
	refused(err, "has a table mine that does not belong")
	half()
	exec(`DROP TABLE mine`)
	exec(`INSERT INTO manifest (id, owner, body) VALUES ('zero', '', ?)`, "a\x00b")
	_, err = transfer(t, from, to, nil)
	refused(err, `row of manifest has a text`)
	half()
	exec(`DELETE FROM manifest WHERE id = 'zero'`)
	_, err = transfer(t, from, to, func(context.Context) error {
		return from.Write(t.Context(), func(tx *db.Tx) error { _, err := tx.NextSeq(t.Context(), "OctopusServerNodes"); return err })
	})
	refused(err, "A server has run on")
	half()
	nope := errors.New("not accepted")
	if _, err := transfer(t, from, to, func(context.Context) error { return nope }); !errors.Is(err, nope) {
		t.Errorf("a copy that is not accepted: %v", err)
	}
	half()
	_, err = transfer(t, from, to, func(ctx context.Context) error {
		// Somebody changes the copy before it is used: it was compared before, so what
		// matters is that it is marked until then.
		refused(db.CheckStart(ctx, to, db.BinaryLevels()), "was cut short")
		return nil
	})
	if err != nil || halves != 4 {
		t.Errorf("after %d failures: %v", halves, err)
	}
	if err := db.CheckStart(t.Context(), to, db.BinaryLevels()); err != nil {
		t.Error(err)
	}
}

// TestTransferThatDiffers changes what was copied, by as little as there is, before it is
// compared: the copy is refused, and stays so.
func TestTransferThatDiffers(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"a text":   `UPDATE events SET message = message || ' ' WHERE id = 2`,
		"a number": `UPDATE events SET occurred = occurred + 1 WHERE id = 2`,
		"a row":    `DELETE FROM events WHERE id = 2`,
	} {
		for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
			t.Run(name+" "+dialect.String(), func(t *testing.T) {
				t.Parallel()
				from := dbtest.Open(t, db.SQLite)
				furnish(t, from, 3)
				url := dbtest.EmptyURL(t, dialect)
				to, other := dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)
				done := false
				_, err := db.Transfer(t.Context(), from, to, db.TransferOptions{By: "1", Progress: func(stage string, n, total int64) {
					if stage != "copying" || n < total || done {
						return
					}
					done = true
					if err := other.Write(t.Context(), func(tx *db.Tx) error {
						n, err := tx.Exec(t.Context(), change)
						if err == nil && n != 1 {
							err = fmt.Errorf("%d rows changed", n)
						}
						return err
					}); err != nil {
						t.Error(err)
					}
				}})
				var differs *db.DifferenceError
				if !errors.As(err, &differs) || len(differs.Tables) != 1 || differs.Tables[0] != "events" {
					t.Errorf("%v, want that events differ", err)
				}
				if err := db.CheckStart(t.Context(), to, db.BinaryLevels()); fault.KindOf(err) != fault.Conflict {
					t.Errorf("the copy may be used: %v", err)
				}
			})
		}
	}
}

// TestTransferOverALostConnection cuts the connection to the target in the middle of
// commits, in every way: no row is doubled or lost.
func TestTransferOverALostConnection(t *testing.T) {
	t.Parallel()
	from := dbtest.Open(t, db.SQLite)
	furnish(t, from, 5000)
	var commits atomic.Int64
	url := dbtest.Proxy(t, dbtest.EmptyURL(t, db.Postgres), func() dbtest.Cut {
		switch n := commits.Add(1); n % 8 {
		case 3:
			return dbtest.CutBefore
		case 5:
			return dbtest.CutDuring
		case 7:
			return dbtest.CutAfter
		default:
			return dbtest.NoCut
		}
	})
	to := dbtest.OpenURL(t, url)
	done, err := transfer(t, from, to, nil)
	for repeat := 0; err != nil && repeat < 5; repeat++ {
		t.Logf("cut short: %v", err)
		done, err = transfer(t, from, to, nil)
	}
	if err != nil || done.Rows["manifest"] != 5000 || commits.Load() < 8 {
		t.Errorf("%d rows after %d commits, %v", done.Rows["manifest"], commits.Load(), err)
	}
}

func TestTransferToAFullDisk(t *testing.T) {
	t.Parallel()
	disk := disktest.New(t, "size=6m")
	from := dbtest.Open(t, db.SQLite)
	furnish(t, from, 6000)
	err := from.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE manifest SET body = body || hex(randomblob(400))`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	to := dbtest.OpenURL(t, "sqlite:"+filepath.Join(disk, "tako.db"))
	if _, err := transfer(t, from, to, nil); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "full") {
		t.Errorf("to a full disk: %v", err)
	}
	if err := db.CheckStart(t.Context(), to, db.BinaryLevels()); !fault.Is(err, fault.Conflict) {
		t.Errorf("what is left can be used: %v", err)
	}
	if err := disktest.Resize(disk, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if done, err := transfer(t, from, to, nil); err != nil || done.Rows["manifest"] != 6000 {
		t.Errorf("with room again: %v, %v", done.Rows, err)
	}
}
