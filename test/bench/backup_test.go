package bench

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
)

// BenchmarkBackup takes, proves and restores a backup of a server with a large database,
// beside what copying the file takes, and the longest time that a writer waits meanwhile.
// Figures are for 1 GiB.
func BenchmarkBackup(b *testing.B) {
	p, _ := large(b)
	path := filepath.Join(p.Data, "tako.db")
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	perGiB := func(d time.Duration) float64 { return ms(d) / 1000 * float64(1<<30) / float64(info.Size()) }

	start := time.Now()
	copyFile(b, path, filepath.Join(b.TempDir(), "copy.db")) // nobody has the database open
	cp := time.Since(start)
	d, err := db.Open(b.Context(), "sqlite:"+path, db.Options{MustExist: true})
	if err != nil {
		b.Fatal(err)
	}
	start = time.Now()
	if err := d.CopyTo(b.Context(), filepath.Join(b.TempDir(), "backup.db")); err != nil {
		b.Fatal(err)
	}
	lite := time.Since(start)

	p.Start()
	awaitWorker(b, p)
	idle := stall(b, d, func() { <-time.After(3 * time.Second) })
	var create time.Duration
	busy := stall(b, d, func() {
		create = timed(b, "backup", "create", "--verify", "0", "--data", p.Data)
	})
	verify := map[string]time.Duration{}
	for _, level := range []string{"1", "2", "3"} {
		verify[level] = timed(b, "backup", "verify", "latest", "--level", level, "--data", p.Data)
	}
	p.Stop()
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}

	// On another machine the kit opens it.
	kit := filepath.Join(b.TempDir(), "kit.txt")
	timed(b, "key", "recovery-kit", "--data", p.Data, "--out", kit)
	again := apptest.NewProcess(b, db.SQLite)
	start = time.Now()
	restore := timed(b, "backup", "restore", "latest", "--data", p.Data, "--into", again.Data, "--recovery-key-file", kit)
	again.Start()
	again.Must(b, http.MethodGet, "/api/users/me", nil, nil)
	serving := time.Since(start)

	b.ReportMetric(0, "ns/op")
	b.ReportMetric(perGiB(cp), "s-cp")
	b.ReportMetric(perGiB(lite), "s-sqlite-backup")
	b.ReportMetric(perGiB(create), "s-create")
	for level, took := range verify {
		b.ReportMetric(perGiB(took), "s-verify-level-"+level)
	}
	b.ReportMetric(perGiB(restore), "s-restore")
	b.ReportMetric(perGiB(serving), "s-restore-to-serving")
	b.ReportMetric(ms(idle), "ms-longest-write-before")
	b.ReportMetric(ms(busy), "ms-longest-write-during")
}

// BenchmarkDoctor examines the same server's data, and copies it to PostgreSQL.
func BenchmarkDoctor(b *testing.B) {
	p, _ := large(b)
	quick := timed(b, "doctor", "--data", p.Data)
	full := timed(b, "doctor", "--full", "--data", p.Data)
	to := apptest.NewProcess(b, db.Postgres)
	move := timed(b, "database", "copy", "--data", p.Data, "--to", to.Database)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(quick)/1000, "s-doctor")
	b.ReportMetric(ms(full)/1000, "s-doctor-full")
	b.ReportMetric(ms(move)/1000, "s-copy-to-postgres")
}

// timed runs a command of the program to its end. Findings are no failure: what the
// database was filled with need not be in order.
func timed(b *testing.B, args ...string) time.Duration {
	b.Helper()
	start := time.Now()
	out, err := exec.CommandContext(b.Context(), apptest.Binary(b), args...).CombinedOutput()
	took := time.Since(start)
	if err != nil && args[0] != "doctor" {
		b.Fatalf("tako %s: %v\n%s", args[0], err, out)
	}
	return took
}

// copyFile copies a file and waits until it is on disk, as cp and sync would.
func copyFile(b *testing.B, from, to string) {
	b.Helper()
	in, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	// Not by the kernel alone, which may only link the blocks.
	if _, err := io.Copy(struct{ io.Writer }{out}, struct{ io.Reader }{in}); err != nil {
		b.Fatal(err)
	}
	if err := out.Sync(); err != nil {
		b.Fatal(err)
	}
}

// stall is the longest that a small write takes while fn runs, beside a server.
func stall(b *testing.B, d *db.DB, fn func()) (longest time.Duration) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for ctx.Err() == nil {
			start := time.Now()
			err := d.Write(ctx, func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO counter (kind, next) VALUES ('bench', 1) ON CONFLICT (kind) DO UPDATE SET next = counter.next + 1`)
				return err
			})
			if err != nil {
				if ctx.Err() == nil {
					b.Error(err)
				}
				return
			}
			longest = max(longest, time.Since(start))
		}
	})
	fn()
	stop()
	writer.Wait()
	return longest
}
