package db_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/failpoint"
)

// The test binary is also the other process of these tests: with roleEnv it
// does one thing to the database of urlEnv instead of testing.
const (
	roleEnv = "DB_TEST_ROLE"
	urlEnv  = "DB_TEST_URL"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := play(context.Background(), role, os.Getenv(urlEnv)); err != nil {
		say("error: %v", err)
		os.Exit(1)
	}
}

// say is how a process speaks to the test.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format+"\n", args...) }

func play(ctx context.Context, role, url string) error {
	opt := db.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if role == "fill" {
		opt.Levels = fillLevels(2)
	}
	d, err := db.Open(ctx, url, opt)
	if err != nil {
		return err
	}
	switch role {
	case "write": // pairs until it is killed, or its input says how many
		limit := 1 << 30
		if n, err := strconv.Atoi(os.Getenv("DB_TEST_COUNT")); err == nil {
			limit = n
		}
		for range limit {
			n, err := writePair(ctx, d, "child")
			if err != nil {
				return err
			}
			say("%d", n)
		}
	case "once":
		_, err := writePair(ctx, d, "child")
		failed := false
		select {
		case <-d.Failed():
			failed = true
		default:
		}
		again := d.Write(ctx, func(*db.Tx) error { return nil })
		say("unknown=%v failed=%v again=%v", errors.Is(err, db.ErrFateUnknown), failed, errors.Is(again, db.ErrFateUnknown))
	case "migrate":
		return errors.Join(db.Migrate(ctx, d, db.MigrateOptions{By: "child", Step: func(id string) { say("%s", id) }}), d.Close())
	case "fill":
		files, err := fillFiles()
		if err != nil {
			return err
		}
		return errors.Join(db.MigrateFS(ctx, d, files, "m", db.MigrateOptions{By: "child"}), d.Close())
	case "hold": // a transaction open until its input ends
		return d.Write(ctx, func(t *db.Tx) error {
			if err := insertDocument(ctx, t, 1_000_000, ""); err != nil {
				return err
			}
			say("holding")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
	}
	return d.Close()
}

// writePair writes two documents, an event and a change, all or nothing.
func writePair(ctx context.Context, d *db.DB, who string) (n int64, err error) {
	err = d.Write(ctx, func(t *db.Tx) error {
		if n, err = t.NextSeq(ctx, "Bench"); err != nil {
			return err
		}
		t.Event(db.Event{Category: who, Related: []string{fmt.Sprint(n)}})
		t.Changed("Bench")
		if err := insertDocument(ctx, t, n, who); err != nil {
			return err
		}
		return insertDocument(ctx, t, -n, who)
	})
	return n, err
}

// process starts another process in a role; it is killed when the test ends.
func process(t *testing.T, role, url string, env ...string) (*exec.Cmd, *bufio.Scanner, io.WriteCloser) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role, urlEnv+"="+url), env...)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out), in
}

// onBoth runs fn on a migrated database of each kind.
func onBoth(t *testing.T, fn func(t *testing.T, url string)) {
	t.Helper()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, dbtest.URL(t, dialect))
		})
	}
}

// mustBeWhole fails if any pair is half, or an event or change is missing or
// too many, or a number that was acknowledged is not there.
func mustBeWhole(t *testing.T, d *db.DB, acknowledged map[int64]bool) {
	t.Helper()
	docs := number(t, d, `SELECT COUNT(*) FROM documents WHERE seq > 0`)
	for what, query := range map[string]string{
		"second halves":  `SELECT COUNT(*) FROM documents WHERE seq < 0`,
		"matching pairs": `SELECT COUNT(*) FROM documents a JOIN documents b ON b.kind = a.kind AND b.seq = -a.seq WHERE a.seq > 0`,
		"events":         `SELECT COUNT(*) FROM events`,
		"related":        `SELECT COUNT(*) FROM event_related`,
		"changes":        `SELECT CAST(COALESCE(SUM(counter), 0) AS BIGINT) FROM changes`,
	} {
		if n := number(t, d, query); n != docs {
			t.Errorf("%d documents and %d %s", docs, n, what)
		}
	}
	for n := range acknowledged {
		if number(t, d, `SELECT COUNT(*) FROM documents WHERE seq = ?`, n) != 1 {
			t.Errorf("number %d was acknowledged and is not there", n)
		}
	}
	if d.Dialect() == db.SQLite {
		var verdict string
		err := d.Read(t.Context(), func(tx *db.Tx) error {
			return tx.QueryRow(t.Context(), `PRAGMA integrity_check`).Scan(&verdict)
		})
		if err != nil || verdict != "ok" {
			t.Errorf("integrity: %s, %v", verdict, err)
		}
	}
}

// TestKilledWriter kills writing processes at arbitrary moments, while this
// process writes too.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		d := dbtest.OpenURL(t, url)
		acknowledged := map[int64]bool{}
		for range 6 {
			cmd, out, _ := process(t, "write", url)
			for range 1 + rand.IntN(20) {
				if !out.Scan() {
					t.Fatalf("the writer ended: %v", out.Err())
				}
				n, err := strconv.ParseInt(out.Text(), 10, 64)
				if err != nil {
					t.Fatalf("the writer says %q", out.Text())
				}
				if acknowledged[n] {
					t.Errorf("number %d was given twice", n)
				}
				acknowledged[n] = true
				mine, err := writePair(t.Context(), d, "parent")
				if err != nil {
					t.Fatal(err)
				}
				if acknowledged[mine] {
					t.Errorf("number %d was given twice", mine)
				}
				acknowledged[mine] = true
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed, as it says
		}
		mustBeWhole(t, d, acknowledged)
		mustBeWhole(t, dbtest.OpenURL(t, url), acknowledged)
	})
}

// TestKilledHolder kills a process in the middle of a transaction: what it did
// is undone, and its locks are free at once.
func TestKilledHolder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		cmd, out, in := process(t, "hold", url)
		if !out.Scan() || out.Text() != "holding" {
			t.Fatalf("the holder says %q, %v", out.Text(), out.Err())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed, as it says
		_ = in.Close()
		d := dbtest.OpenURL(t, url)
		if _, err := writePair(t.Context(), d, "parent"); err != nil {
			t.Fatal(err)
		}
		mustBeWhole(t, d, nil)
	})
}

// TestTwoProcesses has two processes write to one database as fast as they can.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		const each = 60
		d := dbtest.OpenURL(t, url)
		acknowledged := map[int64]bool{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		cmd, out, _ := process(t, "write", url, "DB_TEST_COUNT="+strconv.Itoa(each))
		wg.Go(func() {
			for out.Scan() {
				n, err := strconv.ParseInt(out.Text(), 10, 64)
				if err != nil {
					t.Errorf("the other process says %q", out.Text())
				}
				mu.Lock()
				acknowledged[n] = true
				mu.Unlock()
			}
		})
		var worst time.Duration
		for range each {
			start := time.Now()
			n, err := writePair(t.Context(), d, "parent")
			if err != nil {
				t.Fatal(err)
			}
			worst = max(worst, time.Since(start))
			mu.Lock()
			acknowledged[n] = true
			mu.Unlock()
		}
		wg.Wait()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		t.Logf("the slowest write beside another process took %v", worst)
		if len(acknowledged) != 2*each {
			t.Errorf("%d numbers for %d writes", len(acknowledged), 2*each)
		}
		mustBeWhole(t, d, acknowledged)
	})
}

// TestLostAnswerToCommit loses the answer to a COMMIT that was done. PostgreSQL
// tells what became of it; on SQLite the process must give up, and the next one sees.
func TestLostAnswerToCommit(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		for i, mode := range []string{"err", "kill"} {
			cmd, out, _ := process(t, "once", url, failpoint.Env+"=commit-ambiguous:"+mode, failpoint.EnvOnce+"="+t.TempDir())
			said := out.Scan()
			err := cmd.Wait()
			want := "unknown=false failed=false again=false"
			if strings.HasPrefix(url, "sqlite:") {
				want = "unknown=true failed=true again=true"
			}
			switch {
			case mode == "kill" && (said || err == nil):
				t.Errorf("the process outlived its failpoint: %q", out.Text())
			case mode == "err" && (err != nil || out.Text() != want):
				t.Errorf("the process says %q, %v, want %q", out.Text(), err, want)
			}
			d := dbtest.OpenURL(t, url)
			if n := number(t, d, `SELECT COUNT(*) FROM documents WHERE seq > 0`); n != int64(i+1) {
				t.Errorf("after %s there are %d documents, want %d", mode, n, i+1)
			}
			mustBeWhole(t, d, nil)
		}
	})
}

// TestKilledMigration kills a migrating process at each of its steps, on a new
// database and on one that an earlier version made.
func TestKilledMigration(t *testing.T) {
	t.Parallel()
	first, err := fs.ReadFile(db.Embedded(), "migrations/0001_core.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, begun := range []bool{false, true} {
		both(t, func(t *testing.T, url string) {
			if begun {
				mustMigrate(t, empty(t, url, db.Levels{Level: 1, Min: 1, MinReader: 1}), fstest.MapFS{"m/0001_core.sql": {Data: first}}, "")
			}
			killMigration(t, url)
		})
	}
}

func killMigration(t *testing.T, url string) {
	steps := 0
	for kill := 1; ; kill++ {
		cmd, out, _ := process(t, "migrate", url)
		for steps = 0; steps < kill && out.Scan(); steps++ {
			if strings.HasPrefix(out.Text(), "error") {
				t.Fatal(out.Text())
			}
		}
		if steps < kill {
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			break
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed, or done just before
	}
	d := empty(t, url, db.Levels{})
	if err := db.CheckStart(t.Context(), d, db.BinaryLevels()); err != nil {
		t.Error(err)
	}
	if got := drift(t, d); len(got) != 0 {
		t.Errorf("drift: %+v", got)
	}
	fresh := dbtest.Open(t, d.Dialect())
	if got, want := meta(t, d).Fingerprint, meta(t, fresh).Fingerprint; got != want {
		t.Errorf("fingerprint %s, a new database has %s", got, want)
	}
}
