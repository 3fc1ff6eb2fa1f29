package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// BenchmarkBackup takes, proves and restores a backup of a server with a large database on
// both kinds of it, and the longest time that a writer waits meanwhile. Figures are for
// 1 GiB: of the file on SQLite, of what pg_database_size says on PostgreSQL. On SQLite they
// stand beside what copying the file takes, on PostgreSQL beside pg_dump alone.
func BenchmarkBackup(b *testing.B) {
	p, _ := large(b)
	for _, dialect := range apptest.Dialects() {
		b.Run(dialect.String(), func(b *testing.B) {
			if dialect == db.SQLite {
				reportBackup(b, p, copyAlone(b, p))
				return
			}
			to := apptest.NewProcess(b, dialect)
			timed(b, "database", "copy", "--data", p.Data, "--to", to.Database, "--to-data", to.Data)
			reportBackup(b, to, dumpAlone(b, to))
		})
	}
}

// copyAlone is what it takes to copy a file, and to copy it by SQLite's own means.
func copyAlone(b *testing.B, p *apptest.Process) map[string]time.Duration {
	b.Helper()
	start := time.Now()
	copyFile(b, filepath.Join(p.Data, "tako.db"), filepath.Join(b.TempDir(), "copy.db")) // nobody has the database open
	cp := time.Since(start)
	d := opened(b, p)
	start = time.Now()
	if err := d.CopyTo(b.Context(), filepath.Join(b.TempDir(), "backup.db")); err != nil {
		b.Fatal(err)
	}
	lite := time.Since(start)
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	return map[string]time.Duration{"s-cp": cp, "s-sqlite-backup": lite}
}

// dumpAlone is what pg_dump takes, as somebody would call it.
func dumpAlone(b *testing.B, p *apptest.Process) map[string]time.Duration {
	b.Helper()
	d := opened(b, p)
	server, err := d.Server(b.Context())
	if err := errors.Join(err, d.Close()); err != nil {
		b.Fatal(err)
	}
	program := "pg_dump"
	for _, dir := range []string{os.Getenv("TAKO_TEST_PG_BIN"), fmt.Sprintf("/usr/lib/postgresql/%d/bin", server.Major)} {
		if at := filepath.Join(dir, "pg_dump"); dir != "" {
			if _, err := os.Stat(at); err == nil {
				program = at
				break
			}
		}
	}
	cmd := exec.CommandContext(b.Context(), program, "--format=custom", "--compress=1", "--file="+filepath.Join(b.TempDir(), "dump"))
	cmd.Env = append(os.Environ(), server.Env...)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("pg_dump: %v\n%s", err, out)
	}
	return map[string]time.Duration{"s-pg-dump": time.Since(start)}
}

// opened opens the database of a server beside it.
func opened(b *testing.B, p *apptest.Process) *db.DB {
	b.Helper()
	d, err := db.Open(b.Context(), cmp.Or(p.Database, "sqlite:"+filepath.Join(p.Data, "tako.db")), db.Options{MustExist: true})
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// reportBackup measures the backups of a server that has stopped. beside is reported with it.
func reportBackup(b *testing.B, p *apptest.Process, beside map[string]time.Duration) {
	b.Helper()
	d := opened(b, p)
	bytes, err := d.Size(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	perGiB := func(d time.Duration) float64 { return ms(d) / 1000 * float64(1<<30) / float64(bytes) }
	on := func(p *apptest.Process, args ...string) time.Duration {
		b.Helper()
		args = append(args, "--data", p.Data)
		if p.Database != "" {
			args = append(args, "--database", p.Database)
		}
		return timed(b, args...)
	}

	p.Start()
	awaitWorker(b, p)
	idle := stall(b, d, func() { <-time.After(3 * time.Second) })
	var create time.Duration
	busy := stall(b, d, func() { create = on(p, "backup", "create", "--verify", "0") })
	verify := map[string]time.Duration{}
	for _, level := range []string{"1", "2", "3"} {
		verify[level] = on(p, "backup", "verify", "latest", "--level", level)
	}
	p.Stop()
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}

	// On another machine the kit opens it.
	kit := filepath.Join(b.TempDir(), "kit.txt")
	on(p, "key", "recovery-kit", "--out", kit)
	again := apptest.NewProcess(b, dialectOf(p))
	start := time.Now()
	restore := on(again, "backup", "restore", "latest", "--backups", filepath.Join(p.Data, "backups"), "--recovery-key-file", kit)
	again.Start()
	again.Must(b, http.MethodGet, "/api/users/me", nil, nil)
	serving := time.Since(start)

	b.ReportMetric(0, "ns/op")
	for what, took := range beside {
		b.ReportMetric(perGiB(took), what)
	}
	b.ReportMetric(perGiB(create), "s-create")
	for level, took := range verify {
		b.ReportMetric(perGiB(took), "s-verify-level-"+level)
	}
	b.ReportMetric(perGiB(restore), "s-restore")
	b.ReportMetric(perGiB(serving), "s-restore-to-serving")
	b.ReportMetric(ms(idle), "ms-longest-write-before")
	b.ReportMetric(ms(busy), "ms-longest-write-during")
}

func dialectOf(p *apptest.Process) db.Dialect {
	if p.Database != "" {
		return db.Postgres
	}
	return db.SQLite
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
