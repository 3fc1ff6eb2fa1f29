package events_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/ident"
)

// stopInCommit has the COMMIT of a transaction that wrote an event "slow" wait for a lock.
const stopInCommit = `
CREATE FUNCTION stop_in_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER stop_in_commit AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.message = 'slow') EXECUTE FUNCTION stop_in_commit();`

// TestFollowingMissesNothing: who follows the trail by number does not see an event while
// one with a smaller number can still appear, whichever of the transactions began first,
// and whatever the numbers of transactions are in the cluster that it was restored to.
func TestFollowingMissesNothing(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		ctx := w.t.Context()
		w.write(ctx, db.Event{Category: "Created", Message: "before"})
		if w.db.Dialect() == db.SQLite {
			w.write(ctx, db.Event{Category: "Created", Message: "slow"}, db.Event{Category: "Created", Message: "quick"})
			w.follow(1, 2, 3)
			return
		}
		exec := func(statement string) {
			w.t.Helper()
			err := w.db.WriteEngine(ctx, func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, statement)
				return err
			})
			if err != nil {
				w.t.Fatal(err)
			}
		}
		exec(stopInCommit)
		// As after a restore: the transactions of the events are far ahead of this cluster's.
		exec(`UPDATE events SET xact = 1000000000`)
		w.follow(1)

		// The transaction that began first takes the later number, and ends first.
		begun, write, first := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			first <- w.db.WriteEngine(ctx, func(tx *db.Tx) error {
				tx.Event(db.Event{Category: "Created", Message: "quick", Related: []string{"Projects-1"}})
				close(begun)
				<-write
				return nil
			})
		}()
		<-begun
		held, free, holder := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			holder <- w.db.WriteEngine(context.WithoutCancel(ctx), func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(4711)`)
				close(held)
				<-free
				return err
			})
		}()
		<-held
		second := make(chan error, 1)
		go func() {
			second <- w.db.Write(ctx, func(tx *db.Tx) error {
				tx.Event(db.Event{Category: "Created", Message: "slow"})
				return nil
			})
		}()
		for start, waits := time.Now(), int64(0); waits == 0; {
			if time.Since(start) > 2*time.Minute {
				w.t.Fatal("the slow transaction does not come to its COMMIT")
			}
			err := w.db.Read(ctx, func(tx *db.Tx) error {
				return tx.QueryRow(ctx, `SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
					WHERE l.locktype = 'advisory' AND l.objid = 4711 AND NOT l.granted`).Scan(&waits)
			})
			if err != nil {
				w.t.Fatal(err)
			}
		}
		close(write)
		if err := <-first; err != nil {
			w.t.Fatal(err)
		}
		if got := w.messages(events.Query{}); got != "quick before" {
			w.t.Errorf("people see %q", got)
		}
		w.follow(1) // and no more while the transaction is open
		close(free)
		if err := <-holder; err != nil {
			w.t.Fatal(err)
		}
		if err := <-second; err != nil {
			w.t.Fatal(err)
		}
		w.follow(1, 2, 3)
	})
}

// follow checks what those see who follow the trail, in pieces and as a list.
func (w *world) follow(want ...int64) {
	w.t.Helper()
	var got []int64
	err := w.db.Read(w.t.Context(), func(tx *db.Tx) error {
		got = nil
		found, err := events.After(w.t.Context(), tx, 0, 1)
		for err == nil && len(found) > 0 {
			got = append(got, found...)
			found, err = events.After(w.t.Context(), tx, found[0], 1)
		}
		return err
	})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		w.t.Errorf("a follower sees (-want +got):\n%s%v", diff, err)
	}
	got = nil
	found, _ := w.list(events.Query{FromID: 1})
	for _, e := range slices.Backward(found) {
		n, _ := ident.Seq(e.ID)
		got = append(got, n)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("the list from a number has (-want +got):\n%s", diff)
	}
}
