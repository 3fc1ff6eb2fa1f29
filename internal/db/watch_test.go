package db_test

import (
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

// patience bounds waiting for what must come; nothing is measured by it.
const patience = 2 * time.Minute

func generation(t *testing.T, d *db.DB) uint64 {
	t.Helper()
	g, err := d.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func changes(t *testing.T, d *db.DB, kind string) uint64 {
	t.Helper()
	n, err := d.Changes(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually polls until ok, for what another process must learn.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); {
		if time.Since(start) > patience {
			t.Fatalf("never: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func bump(t *testing.T, d *db.DB, kind string) {
	t.Helper()
	write(t, d, func(tx *db.Tx) error {
		tx.Changed(kind)
		return nil
	})
}

// TestOwnWritesAreSeenAtOnce is what a cache relies on: after Write has returned
// its question has another answer.
func TestOwnWritesAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		for i := range uint64(100) {
			if n := changes(t, d, "Projects"); n != i {
				t.Fatalf("%d changes after %d", n, i)
			}
			before := generation(t, d)
			bump(t, d, "Projects")
			if generation(t, d) == before {
				t.Fatal("the generation stays after a commit")
			}
		}
		if n := changes(t, d, "Others"); n != 0 {
			t.Errorf("a kind that nobody changed has %d changes", n)
		}
	})
}

func TestOthersWritesAreSeen(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		here, there := dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)
		for i := range uint64(5) {
			changes(t, here, "Projects")
			bump(t, there, "Projects")
			start := time.Now()
			eventually(t, "the change of another process is counted", func() bool { return changes(t, here, "Projects") == i+1 })
			t.Logf("seen after %v", time.Since(start))
		}
	})
}

// TestSubscribersWake has commits of both processes, of documents and of the
// engine, wake a subscriber in each.
func TestSubscribersWake(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		here, there := dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)
		for name, commit := range map[string]func(*db.DB) error{
			"engine": func(d *db.DB) error {
				return d.WriteEngine(t.Context(), func(tx *db.Tx) error {
					_, err := tx.Exec(t.Context(), `INSERT INTO counter (kind, next) VALUES ('x', 1) ON CONFLICT (kind) DO UPDATE SET next = counter.next + 1`)
					return err
				})
			},
			"documents": func(d *db.DB) error {
				return d.Write(t.Context(), func(tx *db.Tx) error { tx.Changed("x"); return nil })
			},
		} {
			for _, from := range []*db.DB{here, there} {
				a, b := here.Subscribe(), there.Subscribe()
				settle(a)
				settle(b)
				if err := commit(from); err != nil {
					t.Fatal(err)
				}
				for i, s := range []*db.Subscription{a, b} {
					select {
					case <-s.C:
					case <-time.After(patience):
						t.Fatalf("%s: subscriber %d sleeps", name, i)
					}
					s.Close()
				}
			}
		}
		// Closing one leaves the others awake; a closed one hears nothing.
		a, b := here.Subscribe(), here.Subscribe()
		settle(a)
		settle(b)
		a.Close()
		here.Notify()
		<-b.C
		select {
		case <-a.C:
			t.Error("a closed subscription wakes")
		default:
		}
		b.Close()
	})
}

// settle waits until nothing has woken s for a while: the echo of what was
// before, and on PostgreSQL the beginning of listening.
func settle(s *db.Subscription) {
	for {
		select {
		case <-s.C:
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

func TestCloseEndsSubscriptions(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d, err := db.Open(t.Context(), url, db.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := d.Subscribe()
		generation(t, d)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
		if _, err := d.Generation(t.Context()); err == nil {
			t.Error("a closed database has a generation")
		}
		if err := d.Read(t.Context(), func(*db.Tx) error { return nil }); err == nil {
			t.Error("a closed database is read")
		}
	})
}
