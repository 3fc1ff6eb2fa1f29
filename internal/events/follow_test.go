package events_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/events"
)

// TestFollowMissesNothing: an event whose number is smaller than that of one that could
// be seen before it comes all the same, and nothing comes twice.
func TestFollowMissesNothing(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.Postgres)
	ctx := t.Context()
	var at events.Position
	follow := func() (out []int64) {
		t.Helper()
		err := d.Read(ctx, func(tx *db.Tx) error {
			out = nil
			found, err := events.After(ctx, tx, at, 1)
			for next := at; err == nil && len(found) > 0; found, err = events.After(ctx, tx, next, 1) {
				next = found[0]
				out = append(out, next.Event)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	insert := func(tx *db.Tx, message string) error {
		_, err := tx.Exec(ctx, `INSERT INTO events (xact, occurred, category, space_id, user_id, username, identity, ip_address, user_agent,
			message, refs, details, project_id, project_group_id, environment_id, tenant_id, document_type)
			VALUES (pg_current_xact_id()::text::bigint, 0, 'Created', '', '', '', '', '', '', ?, 'null', '', '', '', '', '', '')`, message)
		return err
	}
	// Each writes what it is told to, and ends when the channel does.
	type writer struct {
		do   chan string
		did  chan error
		over chan error
	}
	begin := func() writer {
		w := writer{make(chan string), make(chan error), make(chan error, 1)}
		go func() {
			w.over <- d.WriteEngine(ctx, func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, `SELECT pg_current_xact_id()`)
				w.did <- err
				for text := range w.do {
					w.did <- insert(tx, text)
				}
				return nil
			})
		}()
		if err := <-w.did; err != nil {
			t.Fatal(err)
		}
		return w
	}
	write := func(w writer, text string) {
		w.do <- text
		if err := <-w.did; err != nil {
			t.Fatal(err)
		}
	}
	end := func(w writer) {
		close(w.do)
		if err := <-w.over; err != nil {
			t.Fatal(err)
		}
	}
	first, second := begin(), begin()
	write(second, "number 1, of the later transaction")
	write(first, "number 2, of the earlier transaction")
	end(first)
	// The earlier transaction is over, so that its event can be seen; the later is not.
	var seen []int64
	await := func(n int) {
		t.Helper()
		for len(seen) < n {
			got := follow()
			if len(got) == 0 {
				continue // others' transactions are open
			}
			seen = append(seen, got...)
			if err := d.Read(ctx, func(tx *db.Tx) error {
				found, err := events.After(ctx, tx, at, len(got))
				if err == nil {
					at = found[len(found)-1]
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(1)
	end(second)
	await(2)
	if diff := cmp.Diff([]int64{2, 1}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// A copy on another cluster, whose transactions have smaller numbers: what is left
	// comes, then what happens there, and nothing again.
	raise := func(statement string) {
		t.Helper()
		if err := d.WriteEngine(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, statement)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	third := begin()
	write(third, "number 3, before the move")
	end(third)
	raise(`UPDATE events SET xact = xact + 1000000000`)
	at.Xact += 1000000000
	await(3)
	fourth := begin()
	write(fourth, "number 4, after it")
	end(fourth)
	await(4)
	if diff := cmp.Diff([]int64{2, 1, 3, 4}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := follow(); len(got) > 0 || !slices.Contains([]int64{3}, at.Floor) {
		t.Errorf("there is %v after %+v", got, at)
	}
}
