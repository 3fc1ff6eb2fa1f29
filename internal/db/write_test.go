package db_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
)

// write runs fn in a Write that must succeed.
func write(t *testing.T, d *db.DB, fn func(*db.Tx) error) {
	t.Helper()
	if err := d.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// number reads one number.
func number(t *testing.T, d *db.DB, query string, args ...any) (n int64) {
	t.Helper()
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(t.Context(), query, args...).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWriteCommitsAllOrNothing(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		all := func(tx *db.Tx) error {
			tx.Event(db.Event{Category: "Created", Message: "made", Related: []string{"Bench-1", "Bench-1", "Spaces-1"}})
			tx.Changed("Bench")
			return insertDocument(ctx, tx, 1, "x")
		}
		state := func() [4]int64 {
			return [4]int64{
				number(t, d, `SELECT COUNT(*) FROM documents`), number(t, d, `SELECT COUNT(*) FROM events`),
				number(t, d, `SELECT COUNT(*) FROM event_related`), number(t, d, `SELECT COALESCE(MAX(counter), 0) FROM changes`),
			}
		}
		ran := false
		broken := errors.New("broken")
		err := d.Write(ctx, func(tx *db.Tx) error {
			tx.AfterCommit(func() { ran = true })
			return errors.Join(all(tx), broken)
		})
		if !errors.Is(err, broken) || ran || state() != [4]int64{} {
			t.Fatalf("after an error: %v, after-commit ran: %v, rows %v", err, ran, state())
		}
		func() {
			defer func() { _ = recover() }()
			_ = d.Write(ctx, func(tx *db.Tx) error {
				if err := all(tx); err != nil {
					return err
				}
				panic("broken") //nolint:forbidigo // that is the test
			})
		}()
		if state() != [4]int64{} {
			t.Fatalf("a panic leaves rows %v", state())
		}
		ctxEnded, cancel := context.WithCancel(ctx)
		err = d.Write(ctxEnded, func(tx *db.Tx) error {
			cancel()
			_, err := tx.Exec(ctxEnded, `DELETE FROM documents`)
			return errors.Join(all(tx), err)
		})
		if !errors.Is(err, context.Canceled) || state() != [4]int64{} {
			t.Fatalf("after its context ended: %v, rows %v", err, state())
		}
		ctx = db.WithActor(t.Context(), db.Actor{UserID: "Users-1", Username: "ada", Identity: "ApiKey"})
		if err := d.Write(ctx, func(tx *db.Tx) error {
			tx.AfterCommit(func() { ran = true })
			return all(tx)
		}); err != nil || !ran || state() != [4]int64{1, 1, 2, 1} {
			t.Fatalf("after success: %v, after-commit ran: %v, rows %v", err, ran, state())
		}
		if n := number(t, d, `SELECT COUNT(*) FROM events WHERE username = 'ada' AND identity = 'ApiKey' AND user_id = 'Users-1' AND refs = 'null'`); n != 1 {
			t.Errorf("%d events name who did it", n)
		}
	})
}

func TestReadOnlyReads(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		err := d.Read(t.Context(), func(tx *db.Tx) error {
			_, err := tx.Exec(t.Context(), `DELETE FROM documents`)
			return err
		})
		if err == nil {
			t.Error("Exec in Read gives no error")
		}
	})
	d := dbtest.Open(t, db.SQLite)
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		var n int
		return tx.QueryRow(t.Context(), `INSERT INTO counter (kind, next) VALUES ('x', 1) RETURNING next`).Scan(&n)
	})
	if err == nil {
		t.Error("an INSERT in Read gives no error on SQLite")
	}
}

// TestConflictingWriters lets writers read and add one to the same row. Each
// sees the others' results, or is run again; none is lost.
func TestConflictingWriters(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		write(t, d, func(tx *db.Tx) error { return insertDocument(ctx, tx, 1, "") })
		const writers, rounds = 4, 15
		var wg sync.WaitGroup
		var mu sync.Mutex
		attempts := 0
		for range writers {
			wg.Go(func() {
				for range rounds {
					err := d.Write(ctx, func(tx *db.Tx) error {
						mu.Lock()
						attempts++
						mu.Unlock()
						var v int64
						if err := tx.QueryRow(ctx, `SELECT version FROM documents WHERE kind = ? AND id = ?`, "Bench", "Bench-1").Scan(&v); err != nil {
							return err
						}
						_, err := tx.Exec(ctx, `UPDATE documents SET version = ? WHERE kind = ? AND id = ?`, v+1, "Bench", "Bench-1")
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if v := number(t, d, `SELECT version FROM documents WHERE id = 'Bench-1'`); v != 1+writers*rounds {
			t.Errorf("the version is %d after %d additions", v, writers*rounds)
		}
		if d.Dialect() == db.SQLite && attempts != writers*rounds {
			t.Errorf("%d attempts for %d writes in one process; writers should wait in line", attempts, writers*rounds)
		}
	})
}

// TestCrowdedWriters has many writers that all read what all of them write. Each
// comes through, at the second attempt at the latest: then it has the process to
// itself.
func TestCrowdedWriters(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		const writers, rounds = 12, 8
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range rounds {
					attempts := 0
					err := d.Write(ctx, func(tx *db.Tx) error {
						attempts++
						var n int64
						if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM documents`).Scan(&n); err != nil {
							return err
						}
						return insertDocument(ctx, tx, int64(w*rounds+i), "")
					})
					if err != nil || attempts > 2 {
						t.Errorf("%d attempts, %v", attempts, err)
					}
				}
			})
		}
		wg.Wait()
		if n := number(t, d, `SELECT COUNT(*) FROM documents`); n != writers*rounds {
			t.Errorf("%d documents after %d writes", n, writers*rounds)
		}
	})
}

// TestWriteSkew has two writers each of which would break a rule by what the
// other does: "at least one document stays". Only a serializable database keeps it.
func TestWriteSkew(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		for range 5 {
			write(t, d, func(tx *db.Tx) error {
				if _, err := tx.Exec(ctx, `DELETE FROM documents`); err != nil {
					return err
				}
				return errors.Join(insertDocument(ctx, tx, 1, ""), insertDocument(ctx, tx, 2, ""))
			})
			var wg sync.WaitGroup
			for _, id := range []string{"Bench-1", "Bench-2"} {
				wg.Go(func() {
					err := d.Write(ctx, func(tx *db.Tx) error {
						var n int64
						if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM documents WHERE kind = ?`, "Bench").Scan(&n); err != nil || n < 2 {
							return err
						}
						_, err := tx.Exec(ctx, `DELETE FROM documents WHERE kind = ? AND id = ?`, "Bench", id)
						return err
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := number(t, d, `SELECT COUNT(*) FROM documents`); n != 1 {
				t.Fatalf("%d documents are left, want 1", n)
			}
		}
	})
}

// TestChangesDoNotConflict holds many writers of one kind against each other:
// what they write differs, so being made known must not make them fail.
func TestChangesDoNotConflict(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.Postgres)
	ctx := t.Context()
	var wg sync.WaitGroup
	var mu sync.Mutex
	attempts := 0
	const writers, rounds = 4, 25
	fill(t, d, 200) // so that the writers are not all on one page of an index
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				err := d.Write(ctx, func(tx *db.Tx) error {
					mu.Lock()
					attempts++
					mu.Unlock()
					tx.Changed("Bench")
					_, err := tx.Exec(ctx, `UPDATE documents SET version = version + 1 WHERE kind = ? AND id = ?`, "Bench", fmt.Sprintf("Bench-%d", 1+w*50+i))
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := d.Changes(ctx, "Bench"); err != nil || n != writers*rounds {
		t.Errorf("%d changes, %v, want %d", n, err, writers*rounds)
	}
	if attempts > 2*writers*rounds {
		t.Errorf("%d attempts for %d writes", attempts, writers*rounds)
	}
}

func TestConstraintsAreToldByCode(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		write(t, d, func(tx *db.Tx) error { return insertDocument(ctx, tx, 1, "") })
		for name, fn := range map[string]func(*db.Tx) error{
			"Exec": func(tx *db.Tx) error { return insertDocument(ctx, tx, 1, "") },
			"QueryRow": func(tx *db.Tx) error {
				var id string
				return tx.QueryRow(ctx, `INSERT INTO document_unique (kind, field, scope, value, id) VALUES ('a', 'b', 'c', 'd', 'e'), ('a', 'b', 'c', 'd', 'e') RETURNING id`).Scan(&id)
			},
		} {
			err := d.Write(ctx, func(tx *db.Tx) error {
				if err := fn(tx); err != nil {
					return fmt.Errorf("insert: %w", err)
				}
				return nil
			})
			var e *db.Error
			if !errors.Is(err, db.ErrUnique) || !errors.As(err, &e) || e.Code == "" {
				t.Errorf("%s of a key that is there: %v, want ErrUnique", name, err)
			}
			if d.Dialect() == db.Postgres && name == "Exec" && e != nil && (e.Constraint != "documents_pkey" || e.Table != "documents") {
				t.Errorf("%s: constraint %q of table %q", name, e.Constraint, e.Table)
			}
		}
		err := d.Write(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, `SELEKT`)
			return err
		})
		if err == nil || errors.Is(err, db.ErrUnique) || fault.KindOf(err) != fault.Internal {
			t.Errorf("a mistake in SQL: %v, want an internal error", err)
		}
	})
}

// TestSwallowedErrorCommitsNothing shows what PostgreSQL does with a
// transaction whose error was not returned, and that Write does not call it done.
func TestSwallowedErrorCommitsNothing(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.Postgres)
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		if err := insertDocument(t.Context(), tx, 1, ""); err != nil {
			return err
		}
		_, _ = tx.Exec(t.Context(), `SELEKT`)
		return nil
	})
	if err == nil || number(t, d, `SELECT COUNT(*) FROM documents`) != 0 {
		t.Errorf("Write gives %v", err)
	}
}

// TestOneQueryAtATime holds both databases to what PostgreSQL's protocol can do.
func TestOneQueryAtATime(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		fill(t, d, 3)
		err := d.Read(ctx, func(tx *db.Tx) error {
			rows, err := tx.Query(ctx, `SELECT id FROM documents`)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				var n int
				if err := tx.QueryRow(ctx, `SELECT 1`).Scan(&n); err != nil {
					return err
				}
			}
			return rows.Err()
		})
		if err == nil {
			t.Error("a query within the rows of another gives no error")
		}
		// Rows and a row that were left open do not block the pool for ever.
		for range 50 {
			err := d.Read(ctx, func(tx *db.Tx) error {
				rows, err := tx.Query(ctx, `SELECT id FROM documents`)
				if err != nil {
					return err
				}
				rows.Next()
				return rows.Err()
			})
			if err != nil {
				t.Fatal(err)
			}
			write(t, d, func(tx *db.Tx) error {
				tx.QueryRow(ctx, `SELECT id FROM documents`)
				return nil
			})
		}
	})
}

func TestCounters(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			url := dbtest.URL(t, dialect)
			handles := []*db.DB{dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)}
			var mu sync.Mutex
			seen := map[int64]bool{}
			var wg sync.WaitGroup
			for _, d := range handles {
				for w := range 2 {
					wg.Go(func() {
						for i := range 30 {
							var got []int64
							fail := errors.New("undo")
							err := d.Write(t.Context(), func(tx *db.Tx) error {
								got = nil
								for range 3 {
									n, err := tx.NextSeq(t.Context(), "Projects")
									if err != nil {
										return err
									}
									got = append(got, n)
								}
								if (i+w)%5 == 0 {
									return fail
								}
								return nil
							})
							if errors.Is(err, fail) {
								continue
							}
							if err != nil {
								t.Error(err)
								return
							}
							mu.Lock()
							for _, n := range got {
								if n < 1 || seen[n] {
									t.Errorf("number %d was given twice, or is not positive", n)
								}
								seen[n] = true
							}
							mu.Unlock()
						}
					})
				}
			}
			wg.Wait()
			if len(seen) != 2*2*24*3 {
				t.Errorf("%d numbers were given", len(seen))
			}
		})
	}
}

// TestTextHasOneOrder compares the databases with the order of bytes, which is
// Go's; the tests' PostgreSQL has English as its own order.
func TestTextHasOneOrder(t *testing.T) {
	t.Parallel()
	words := []string{"", "A", "B", "Z", "a", "b", "z", "ab", "a b", "a-b", "aB", "Ä", "ä", "é", "e", "ß", "ss", "10", "9", "Projects-10", "Projects-9", "日本", "🐙", "_", "~", "\n"}
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		write(t, d, func(tx *db.Tx) error {
			for i, w := range words {
				if _, err := tx.Exec(ctx, `INSERT INTO document_refs (from_kind, from_id, field, to_kind, to_id) VALUES (?, ?, ?, ?, ?)`, "k", w, "f", "k", fmt.Sprint(i)); err != nil {
					return err
				}
			}
			return nil
		})
		rapid.Check(t, func(rt *rapid.T) {
			from, to := rapid.SampledFrom(words).Draw(rt, "from"), rapid.SampledFrom(words).Draw(rt, "to")
			var got []string
			err := d.Read(context.Background(), func(tx *db.Tx) error {
				rows, err := tx.Query(context.Background(), `SELECT from_id FROM document_refs WHERE from_id >= ? AND from_id < ? ORDER BY from_id`, from, to)
				if err != nil {
					return err
				}
				defer func() { _ = rows.Close() }()
				for rows.Next() {
					var w string
					if err := rows.Scan(&w); err != nil {
						return err
					}
					got = append(got, w)
				}
				return rows.Err()
			})
			if err != nil {
				rt.Fatal(err)
			}
			var want []string
			for _, w := range words {
				if w >= from && w < to {
					want = append(want, w)
				}
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("from %q to %q (-want +got):\n%s", from, to, diff)
			}
		})
	})
}

func TestBigBodies(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		body := strings.Repeat("größe 🐙 \n\"'", 1<<20) // 16 MiB
		write(t, d, func(tx *db.Tx) error { return insertDocument(ctx, tx, 1, body) })
		var got string
		err := d.Read(ctx, func(tx *db.Tx) error {
			return tx.QueryRow(ctx, `SELECT body FROM documents WHERE id = 'Bench-1'`).Scan(&got)
		})
		if err != nil || got != body {
			t.Errorf("a body of %d bytes comes back with %d, %v", len(body), len(got), err)
		}
		chunk := []byte{0, 1, 255, '\'', 0}
		write(t, d, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO secret_key (id, seq, master_id, wrapped, created) VALUES (?, ?, ?, ?, ?)`, "x", 1, "m", chunk, 0)
			return err
		})
		var back []byte
		err = d.Read(ctx, func(tx *db.Tx) error {
			return tx.QueryRow(ctx, `SELECT wrapped FROM secret_key WHERE id = ?`, "x").Scan(&back)
		})
		if err != nil || string(back) != string(chunk) {
			t.Errorf("bytes %v come back as %v, %v", chunk, back, err)
		}
	})
}

func TestNowIsOneAndWhole(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	d, err := db.Open(t.Context(), dbtest.URL(t, db.SQLite), db.Options{Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	write(t, d, func(tx *db.Tx) error {
		want := time.Date(2026, 11, 24, 11, 0, 0, 123456000, time.UTC)
		if got := tx.Now(); got != want || db.Time(db.Micros(got)) != want {
			t.Errorf("Now is %v, and %v when stored; want %v", got, db.Time(db.Micros(got)), want)
		}
		return nil
	})
	if db.Micros(time.Time{}) != 0 || !db.Time(0).IsZero() {
		t.Error("the zero time is not stored as 0")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"mysql://x":                           `scheme "mysql"`,
		"":                                    `scheme ""`,
		"sqlite:":                             "names no file",
		"sqlite:/nonexistent/folder/x.db":     "/nonexistent/folder/x.db",
		"postgres://u:hunter2@[::1/x":         "cannot be read",
		"postgres://u:hunter2@h/x?sslmode=no": "cannot be read",
		"postgres://u:hunter2@127.0.0.1:1/x?connect_timeout=1": "cannot be reached",
	} {
		d, err := db.Open(t.Context(), url, db.Options{})
		if err == nil {
			_ = d.Close()
			t.Errorf("Open(%q) gives no error", url)
		} else if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q): %v, want a word of %q and no password", url, err, want)
		}
	}
	if _, err := db.Open(t.Context(), "sqlite:"+t.TempDir()+"/none.db", db.Options{MustExist: true}); err == nil {
		t.Error("a file that must exist and does not gives no error")
	}
}

// TestDiskFull lets SQLite find no room: the write fails as a whole, says why,
// and the next one succeeds once there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	pages := func(tx *db.Tx, limit int) error {
		var n int
		return tx.QueryRow(t.Context(), fmt.Sprintf(`PRAGMA max_page_count = %d`, limit)).Scan(&n)
	}
	big := func(limit int) error {
		return d.Write(t.Context(), func(tx *db.Tx) error {
			if err := pages(tx, limit); err != nil {
				return err
			}
			if err := insertDocument(t.Context(), tx, 1, ""); err != nil {
				return err
			}
			return insertDocument(t.Context(), tx, 2, strings.Repeat("x", 1<<20))
		})
	}
	err := big(1)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "full") {
		t.Errorf("Write on a full disk: %v, want a fault Unavailable", err)
	}
	if n := number(t, d, `SELECT COUNT(*) FROM documents`); n != 0 {
		t.Errorf("a full disk leaves %d documents", n)
	}
	if err := big(1 << 30); err != nil {
		t.Errorf("Write once there is room: %v", err)
	}
}

// TestTakenKey: a transaction that somebody was quicker than finds what they made when
// it is run again; a key that is taken for good is told.
func TestTakenKey(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.Postgres)
	attempts := 0
	write(t, d, func(tx *db.Tx) error {
		if attempts++; attempts > 1 {
			var n int
			if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM documents WHERE id = 'Bench-1'`).Scan(&n); err != nil || n == 1 {
				return err
			}
		} else {
			write(t, d, func(tx *db.Tx) error { return insertDocument(t.Context(), tx, 1, "quicker") })
		}
		return insertDocument(t.Context(), tx, 1, "slower")
	})
	if attempts != 2 {
		t.Errorf("it took %d attempts", attempts)
	}
	attempts = 0
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		attempts++
		return insertDocument(t.Context(), tx, 1, "again")
	})
	if !errors.Is(err, db.ErrUnique) || attempts != 3 {
		t.Errorf("after %d attempts: %v", attempts, err)
	}
}
