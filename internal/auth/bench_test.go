package auth_test

import (
	"testing"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/octopus"
)

// BenchmarkByAPIKey is what finding out who sends a request costs while nothing
// changes, with the question whether they may do it.
func BenchmarkByAPIKey(b *testing.B) {
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		b.Run(dialect.String(), func(b *testing.B) {
			s := administered(b, dbtest.Open(b, dialect))
			b.ReportAllocs()
			for b.Loop() {
				p, err := s.ByAPIKey(b.Context(), adminKey)
				if err != nil || !p.Can(octopus.PermProjectView, "Spaces-1", auth.Target{}) && !p.Can(octopus.PermUserView, "", auth.Target{}) {
					b.Fatal(err)
				}
			}
		})
	}
}
