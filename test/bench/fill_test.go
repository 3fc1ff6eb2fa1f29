package bench

import (
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
)

// large is a server that has stopped, whose database is one of years of use, of 1 GiB
// (TAKO_TEST_BENCH_DATABASE_MB): many times what it left behind of one deployment.
func large(b *testing.B) (*apptest.Process, *work) {
	b.Helper()
	wanted := int64(apptest.Size(b, "TAKO_TEST_BENCH_DATABASE_MB", 1024)) << 20
	p := started(b, db.SQLite)
	w := newWork(b, p.Client, 3, "true")
	w.ended(b, w.deploy(b, 0, true), fast)
	p.Stop()
	p.Fill(wanted, 0)
	return p, w
}

// BenchmarkLarge is a server with a database of 1 GiB: its start, what it takes
// when idle, and the first pages of its longest lists.
func BenchmarkLarge(b *testing.B) {
	p, w := large(b)
	b.Run("sqlite/start", func(b *testing.B) {
		p.Start()
		reportStarts(b, func() *apptest.Process {
			p.Stop()
			return p
		})
	})
	b.Run("sqlite/idle", func(b *testing.B) { reportIdle(b, p) })
	for _, one := range []struct{ name, path string }{
		{"environment", space + "/environments/Environments-1"},
		{"100-projects", space + "/projects?take=100"},
		{"30-tasks", space + "/tasks?take=30"},
		{"30-events", "/api/events?take=30"},
	} {
		b.Run("sqlite/"+one.name+"/connections=1", func(b *testing.B) { reportLoad(b, p, one.path, 1) })
	}
	b.Run("sqlite/task", func(b *testing.B) { reportLone(b, w, true) })
}
