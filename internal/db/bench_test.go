package db_test

import (
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

// BenchmarkDB measures what everything else is made of: small reads and small
// writes, alone and side by side, and the questions of caches.
func BenchmarkDB(b *testing.B) {
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		b.Run(dialect.String(), func(b *testing.B) {
			d := dbtest.Open(b, dialect)
			fill(b, d, 1000)
			read := func(b *testing.B) error {
				var body string
				return d.Read(b.Context(), func(t *db.Tx) error {
					return t.QueryRow(b.Context(), `SELECT body FROM documents WHERE kind = ? AND id = ?`, "Bench", "Bench-500").Scan(&body)
				})
			}
			write := func(b *testing.B) error {
				return d.Write(b.Context(), func(t *db.Tx) error {
					seq, err := t.NextSeq(b.Context(), "Bench")
					if err != nil {
						return err
					}
					t.Event(db.Event{Category: "Created", Related: []string{"Bench-1"}})
					t.Changed("Bench")
					return insertDocument(b.Context(), t, seq, "small")
				})
			}
			engine := func(b *testing.B) error {
				return d.WriteEngine(b.Context(), func(t *db.Tx) error {
					_, err := t.Exec(b.Context(), `UPDATE documents SET version = version + 1 WHERE kind = ? AND id = ?`, "Bench", "Bench-7")
					return err
				})
			}
			for _, c := range []struct {
				name string
				run  func(*testing.B) error
			}{{"Read", read}, {"Write", write}, {"WriteEngine", engine}} {
				b.Run(c.name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := c.run(b); err != nil {
							b.Fatal(err)
						}
					}
				})
				b.Run(c.name+"Parallel", func(b *testing.B) {
					b.SetParallelism(4)
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := c.run(b); err != nil {
								b.Error(err)
							}
						}
					})
				})
			}
			b.Run("Changes", func(b *testing.B) {
				for b.Loop() {
					if _, err := d.Changes(b.Context(), "Bench"); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
