package db_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

// TestConnectionLostInCommit loses the connection in every other COMMIT: before the
// server has it, while it works on it, and after it was done. The caller hears of
// nothing, and what it wrote is there once.
func TestConnectionLostInCommit(t *testing.T) {
	t.Parallel()
	const rounds = 6
	for name, cut := range map[string]dbtest.Cut{"before": dbtest.CutBefore, "during": dbtest.CutDuring, "after": dbtest.CutAfter} {
		for _, engine := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/engine=%t", name, engine), func(t *testing.T) {
				t.Parallel()
				direct := dbtest.URL(t, db.Postgres)
				var commits, cuts atomic.Int64
				d := dbtest.OpenURL(t, dbtest.Proxy(t, direct, func() dbtest.Cut {
					if commits.Add(1)%2 == 0 {
						return dbtest.NoCut
					}
					cuts.Add(1)
					return cut
				}))
				ctx := t.Context()
				run := d.Write
				if engine {
					run = d.WriteEngine
				}
				attempts := 0
				for i := range rounds {
					err := run(ctx, func(tx *db.Tx) error {
						attempts++
						n := int64(i + 1)
						tx.Event(db.Event{Category: "lost", Related: []string{fmt.Sprint(n)}})
						tx.Changed("Bench")
						if err := insertDocument(ctx, tx, n, "lost"); err != nil {
							return err
						}
						return insertDocument(ctx, tx, -n, "lost")
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				// A COMMIT that is cut before is followed by one that is not; one
				// that is cut after is followed by that of the next round.
				switch least, most := rounds, 2*rounds; {
				case cut == dbtest.CutBefore && (attempts != most || cuts.Load() != rounds),
					cut == dbtest.CutAfter && (attempts != least || cuts.Load() != rounds/2),
					attempts < least || attempts > most || cuts.Load() == 0:
					t.Errorf("%d attempts with %d cuts in %d commits", attempts, cuts.Load(), commits.Load())
				}
				other := dbtest.OpenURL(t, direct)
				if n := number(t, other, `SELECT COUNT(*) FROM documents WHERE seq > 0`); n != rounds {
					t.Errorf("%d documents, want %d", n, rounds)
				}
				mustBeWhole(t, other, nil)
			})
		}
	}
}

// inCommit makes the COMMIT of a transaction that writes documents wait for an
// advisory lock, on the server: a trigger that is deferred runs within it.
const inCommit = `
CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait_in_commit AFTER INSERT ON documents DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_in_commit();`

// TestBackendDiesInsideCommit shoots the backend while it is inside of a COMMIT. The
// transaction is undone, and done again, once.
func TestBackendDiesInsideCommit(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t, db.Postgres)
	d, other := dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)
	ctx := t.Context()
	write(t, other, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, inCommit)
		return err
	})
	held, free := make(chan struct{}), make(chan struct{})
	holder := make(chan error, 1)
	go func() {
		holder <- other.Write(ctx, func(tx *db.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(4711)`); err != nil {
				return err
			}
			close(held)
			<-free
			return nil
		})
	}()
	<-held
	attempts := 0
	pids := make(chan uint32, 10)
	written := make(chan error, 1)
	go func() {
		written <- d.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
			attempts++
			_, pid := tx.Identity()
			pids <- pid
			tx.Changed("Bench")
			return insertDocument(ctx, tx, 1, "")
		})
	}()
	pid := <-pids
	for start := time.Now(); number(t, other, `SELECT COUNT(*) FROM pg_stat_activity WHERE pid = ? AND wait_event = 'advisory' AND query LIKE '%COMMIT'`, int64(pid)) == 0; <-time.After(5 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("no backend is inside of its COMMIT")
		}
	}
	shoot(t, other, pid)
	close(free)
	if err := <-holder; err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil || attempts != 2 {
		t.Errorf("Write: %v after %d attempts, want none after 2", err, attempts)
	}
	if n := number(t, other, `SELECT COUNT(*) FROM documents`); n != 1 {
		t.Errorf("%d documents, want 1", n)
	}
}
