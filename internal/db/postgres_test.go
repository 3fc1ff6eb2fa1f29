package db_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
)

// shoot ends a backend from another connection.
func shoot(t *testing.T, d *db.DB, pid uint32) {
	t.Helper()
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		var done bool
		return tx.QueryRow(t.Context(), `SELECT pg_terminate_backend(?, 5000)`, int64(pid)).Scan(&done)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestBackendDiesBeforeCommit shoots the backend of a transaction whose COMMIT
// is then sent into the void: it was undone, so it is done again, once.
func TestBackendDiesBeforeCommit(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t, db.Postgres)
	d, other := dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)
	attempts := 0
	write(t, d, func(tx *db.Tx) error {
		attempts++
		if err := insertDocument(t.Context(), tx, 1, ""); err != nil {
			return err
		}
		if attempts == 1 {
			_, pid := tx.Identity()
			shoot(t, other, pid)
		}
		return nil
	})
	if n := number(t, d, `SELECT COUNT(*) FROM documents`); n != 1 || attempts != 2 {
		t.Errorf("%d documents after %d attempts, want 1 after 2", n, attempts)
	}
}

// TestBackendDiesWithin shoots the backend before a statement: nobody retries
// that, and the caller hears that it may.
func TestBackendDiesWithin(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t, db.Postgres)
	d, other := dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)
	attempts := 0
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		attempts++
		_, pid := tx.Identity()
		shoot(t, other, pid)
		return insertDocument(t.Context(), tx, 1, "")
	})
	if !fault.Is(err, fault.Unavailable) || attempts != 1 {
		t.Errorf("Write: %v after %d attempts, want a fault Unavailable after 1", err, attempts)
	}
	write(t, d, func(tx *db.Tx) error { return insertDocument(t.Context(), tx, 1, "") })
}

// TestServerDroppedThePool shoots every connection of the pool, as a restart of
// the server does, and wants the next writes to go through.
func TestServerDroppedThePool(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t, db.Postgres)
	d, other := dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)
	var pids []uint32
	var nest func(n int)
	nest = func(n int) { // several connections at once
		write(t, d, func(tx *db.Tx) error {
			_, pid := tx.Identity()
			pids = append(pids, pid)
			if n > 1 {
				nest(n - 1)
			}
			return nil
		})
	}
	nest(5)
	for _, pid := range pids {
		shoot(t, other, pid)
	}
	for i := range 5 {
		write(t, d, func(tx *db.Tx) error { return insertDocument(t.Context(), tx, int64(i+1), "") })
	}
}

// TestResolve asks for the fate of transactions in every state.
func TestResolve(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.Postgres)
	ctx := t.Context()
	lost := errors.New("lost")
	var xid uint64
	var pid uint32
	write(t, d, func(tx *db.Tx) error { xid, pid = tx.Identity(); return nil })
	if err := d.Resolve(ctx, xid, pid, lost); err != nil {
		t.Errorf("a committed transaction: %v", err)
	}
	undo := errors.New("undo")
	if err := d.Write(ctx, func(tx *db.Tx) error { xid, pid = tx.Identity(); return undo }); !errors.Is(err, undo) {
		t.Fatal(err)
	}
	if err := d.Resolve(ctx, xid, pid, lost); err == nil || errors.Is(err, db.ErrFateUnknown) || !errors.Is(err, lost) {
		t.Errorf("an undone transaction: %v", err)
	}
	// One that hangs is ended, so that it has a fate.
	err := d.WriteEngine(ctx, func(tx *db.Tx) error {
		xid, pid = tx.Identity()
		if err := d.Resolve(ctx, xid, pid, lost); err == nil || errors.Is(err, db.ErrFateUnknown) {
			t.Errorf("a transaction in progress: %v", err)
		}
		return undo
	})
	if !errors.Is(err, undo) {
		t.Errorf("the transaction that was ended: %v", err)
	}
	if err := d.Resolve(ctx, 3, 0, lost); !errors.Is(err, db.ErrFateUnknown) && err != nil {
		t.Errorf("a transaction of long ago: %v", err)
	}
}

// TestOpenRefusesUnsafeServers sets what Tako does not work on.
func TestOpenRefusesUnsafeServers(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t, db.Postgres)
	d := dbtest.OpenURL(t, url)
	set := func(s string) {
		t.Helper()
		write(t, d, func(tx *db.Tx) error {
			var name string
			if err := tx.QueryRow(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), "ALTER DATABASE "+name+" "+s)
			return err
		})
	}
	set("SET synchronous_commit = off")
	if other, err := db.Open(t.Context(), url, db.Options{}); err == nil || !strings.Contains(err.Error(), "synchronous_commit") {
		if err == nil {
			_ = other.Close()
		}
		t.Errorf("with synchronous_commit=off: %v", err)
	}
	set("RESET synchronous_commit")
	set("SET default_transaction_read_only = on")
	other := dbtest.OpenURL(t, url)
	err := other.Write(t.Context(), func(tx *db.Tx) error { return insertDocument(t.Context(), tx, 1, "") })
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("on a read-only database: %v, want a fault Unavailable", err)
	}
}

// TestEngineSessionsAreShort looks at the limits that hold in an engine's transaction.
func TestEngineSessionsAreShort(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.Postgres)
	show := func(tx *db.Tx) (out [3]string) {
		for i, name := range []string{"idle_in_transaction_session_timeout", "statement_timeout", "transaction_isolation"} {
			if err := tx.QueryRow(t.Context(), `SELECT current_setting(?)`, name).Scan(&out[i]); err != nil {
				t.Error(err)
			}
		}
		return out
	}
	for _, c := range []struct {
		run  func(context.Context, func(*db.Tx) error) error
		want [3]string
	}{
		{d.WriteEngine, [3]string{"5s", "15s", "read committed"}},
		{d.Write, [3]string{"1min", "2min", "serializable"}},
	} {
		err := c.run(t.Context(), func(tx *db.Tx) error {
			if got := show(tx); got != c.want {
				t.Errorf("settings are %v, want %v", got, c.want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestNamesShowNoPassword(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t, db.Postgres)
	d := dbtest.OpenURL(t, strings.Replace(url, "tako@", "tako:hunter2@", 1))
	if s := d.String(); strings.Contains(s, "hunter2") || strings.Contains(s, "tako@") || !strings.HasPrefix(s, "postgres://") {
		t.Errorf("the database is called %q", s)
	}
}

// TestCopyOfABusyDatabase copies a database of several portions while somebody commits two
// documents at a time, over and over: the copy has both of any two.
func TestCopyOfABusyDatabase(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	const large = 64 << 10
	write(t, d, func(tx *db.Tx) error {
		for i := range int64(500) {
			if err := insertDocument(t.Context(), tx, i, strings.Repeat("x", large)); err != nil {
				return err
			}
		}
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	writes := make(chan int64, 1)
	first := make(chan struct{})
	go func() {
		n := int64(500)
		defer func() { writes <- n }()
		for ctx.Err() == nil {
			err := d.Write(t.Context(), func(tx *db.Tx) error {
				return errors.Join(insertDocument(t.Context(), tx, n, "a"), insertDocument(t.Context(), tx, n+1, "b"))
			})
			if err != nil {
				t.Error(err)
				break
			}
			if n += 2; n == 502 {
				close(first)
			}
		}
	}()
	<-first
	path := filepath.Join(t.TempDir(), "copy.db")
	err := d.CopyTo(t.Context(), path)
	stop()
	all := <-writes
	if err != nil {
		t.Fatal(err)
	}
	c := dbtest.OpenURL(t, "sqlite:"+path)
	if n := number(t, c, `SELECT COUNT(*) FROM documents`); n%2 != 0 || n < 502 || n >= all {
		t.Errorf("the copy has %d documents of %d", n, all)
	}
	if len(drift(t, c)) != 0 {
		t.Errorf("the copy differs: %v", drift(t, c))
	}
}

func TestCopyTo(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		path := filepath.Join(t.TempDir(), "copy.db")
		if d.Dialect() == db.Postgres {
			if err := d.CopyTo(t.Context(), path); !fault.Is(err, fault.Unsupported) {
				t.Errorf("CopyTo: %v, want a fault Unsupported", err)
			}
			return
		}
		fill(t, d, 100)
		// A writer in the middle of a transaction neither stops the copy nor is in it.
		write(t, d, func(tx *db.Tx) error {
			if err := insertDocument(t.Context(), tx, 1000, ""); err != nil {
				return err
			}
			return d.CopyTo(t.Context(), path)
		})
		if err := d.CopyTo(t.Context(), path); err == nil {
			t.Error("CopyTo writes over a file")
		}
		if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 1 {
			t.Errorf("there are %v, %v", left, err)
		}
		c := dbtest.OpenURL(t, "sqlite:"+path)
		if n := number(t, c, `SELECT COUNT(*) FROM documents`); n != 100 {
			t.Errorf("the copy has %d documents, want 100", n)
		}
		if meta(t, c) != meta(t, d) || len(drift(t, c)) != 0 {
			t.Errorf("the copy is %+v, want %+v", meta(t, c), meta(t, d))
		}
		if err := d.Checkpoint(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestFailedRollback: a connection whose transaction could not be ended does not go back into
// the pool, where the next one would be in that transaction.
func TestFailedRollback(t *testing.T) {
	t.Parallel()
	d := dbtest.OpenURL(t, "sqlite:"+filepath.Join(t.TempDir(), "some.db"))
	if open, err := db.UndoNothing(t.Context(), d); err == nil || open != 0 {
		t.Errorf("%d connections are open: %v", open, err)
	}
}
