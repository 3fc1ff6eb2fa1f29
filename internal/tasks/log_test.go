package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// quiet is a service that does not run: its log is sealed when the test says so.
func quiet(w *world) (*tasks.Service, *tasks.Lease) {
	w.t.Helper()
	n, l := w.claim(func(c *tasks.Config) { c.Timing.Seal = time.Hour })
	return n.Service, l
}

func say(t testing.TB, l *tasks.Lease, lines ...tasks.Line) {
	t.Helper()
	if err := l.Commit(t.Context(), tasks.Batch{Lines: lines}); err != nil {
		t.Fatal(err)
	}
}

// Every member of a line comes back as it was, before and after sealing.
func TestLogKeepsLines(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		s, l := quiet(w)
		at := time.Date(2026, 11, 24, 8, 0, 0, 123456000, time.UTC)
		want := []tasks.Line{
			{Activity: "ServerTasks-1_0.0", Category: octopus.LogInfo, At: at, Text: "hello"},
			{Activity: "", Category: "", At: time.UnixMicro(0).UTC(), Text: ""},
			{Activity: "ServerTasks-1", Category: octopus.LogError, At: at.Add(-time.Hour), Text: "äöü \x00 \n two lines", Detail: "detail"},
			{Activity: "x", Category: octopus.LogHighlight, At: at, Text: strings.Repeat("long ", 10000)},
		}
		say(t, l, want[:2]...)
		say(t, l, want[2:]...)
		for i := range want {
			want[i].Number = int64(i) + 1
		}
		check := func(when string) {
			t.Helper()
			var got []tasks.Line
			if err := s.ReadLog(t.Context(), l.ID, 0, func(l tasks.Line) bool {
				got = append(got, l)
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
		}
		check("in rows")
		if w.count(`SELECT count(*) FROM task_log WHERE codec = 0`) != 1 || w.count(`SELECT count(*) FROM task_log WHERE codec = 1`) != 1 {
			t.Error("not both codecs are used")
		}
		if err := finish(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if err := tasks.Seal(s, t.Context()); err != nil {
			t.Fatal(err)
		}
		if rows, segments := w.count(`SELECT count(*) FROM task_log`), w.count(`SELECT count(*) FROM task_log_segment`); rows != 0 || segments != 1 {
			t.Errorf("%d rows, %d segments", rows, segments)
		}
		check("in a blob")
		got := w.get(l.ID)
		if got.LogLines != 4 || got.LogBytes != w.count(`SELECT sum(bytes) FROM task_log_segment`) {
			t.Errorf("%d lines, %d bytes", got.LogLines, got.LogBytes)
		}
		w.write(func(ctx context.Context, tx *db.Tx) error { return tasks.Delete(ctx, tx, l.ID) })
		check2 := w.log(s, l.ID, 1)
		if len(check2) != 0 {
			t.Errorf("a deleted task has lines %q", check2)
		}
	})
}

func TestLogPositions(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		s, l := quiet(w)
		// Noise, which does not compress: some 9 MiB, two segments and a rest.
		noise := rand.NewChaCha8([32]byte{1})
		const total = 9000
		var all []string
		for len(all) < total {
			var lines []tasks.Line
			for range 450 {
				buf := make([]byte, 512)
				_, _ = noise.Read(buf) // it never fails
				text := fmt.Sprintf("%d %x", len(all)+1, buf)
				all = append(all, text)
				lines = append(lines, tasks.Line{Text: text})
			}
			say(t, l, lines...)
		}
		if n := w.count(`SELECT max(length(data)) FROM task_log`); n > tasks.MaxChunk+2000 {
			t.Errorf("a row has %d bytes", n)
		}
		check := func(when string) {
			t.Helper()
			for _, from := range []int64{-5, 0, 1, 2, 450, 451, 4000, total - 1, total, total + 1, total + 1000} {
				got := w.log(s, l.ID, from)
				want := all[min(max(from, 1)-1, total):]
				if !slices.Equal(got, want) {
					t.Errorf("%s, from %d: %d lines, want %d", when, from, len(got), len(want))
				}
			}
			n := 0
			err := s.ReadLog(t.Context(), l.ID, tasks.TailStart(total, 5), func(line tasks.Line) bool {
				n++
				return line.Number < total-2
			})
			if err != nil || n != 3 {
				t.Errorf("%s: a reader that stops got %d lines, %v", when, n, err)
			}
		}
		check("in rows")
		if err := tasks.Seal(s, t.Context()); err != nil {
			t.Fatal(err)
		}
		if rows, segments := w.count(`SELECT count(*) FROM task_log`), w.count(`SELECT count(*) FROM task_log_segment`); rows == 0 || segments != 2 {
			t.Errorf("a running task has %d rows, %d segments", rows, segments)
		}
		if n := w.count(`SELECT max(bytes) FROM task_log_segment`); n < tasks.Segment || n > tasks.Segment+tasks.MaxChunk+2000 {
			t.Errorf("a segment has %d bytes", n)
		}
		check("half sealed")
		if err := tasks.Seal(s, t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := w.count(`SELECT count(*) FROM task_log_segment`); n != 2 {
			t.Errorf("sealing again makes %d segments", n)
		}
		if err := finish(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if err := tasks.Seal(s, t.Context()); err != nil {
			t.Fatal(err)
		}
		check("sealed")
		for _, c := range []struct{ total, n, want int64 }{{10, 3, 8}, {10, 10, 1}, {10, 50, 1}, {0, 5, 1}} {
			if got := tasks.TailStart(c.total, c.n); got != c.want {
				t.Errorf("the last %d of %d start at %d", c.n, c.total, got)
			}
		}
	})
}

// Readers see a whole log, in order, while it grows and is sealed by two nodes.
func TestReadWhileSealing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		total := 30_000
		if testing.Short() {
			total = 3000
		}
		claimed := make(leases, 1)
		fast := func(c *tasks.Config) { c.Timing.Seal = time.Millisecond }
		a := w.node("a", claimed.run, fast)
		task := w.create(a.Service, tasks.New{})
		l := claimed.next(t)
		b := w.node("b", nil, fast)
		written := make(chan error, 1)
		go func() {
			noise := rand.NewChaCha8([32]byte{2})
			buf := make([]byte, 300)
			for from := 0; from < total; {
				var lines []tasks.Line
				for range min(500, total-from) {
					from++
					_, _ = noise.Read(buf) // it never fails
					lines = append(lines, tasks.Line{Text: fmt.Sprintf("%d %x", from, buf)})
				}
				if err := l.Commit(t.Context(), tasks.Batch{Lines: lines}); err != nil {
					written <- err
					return
				}
			}
			written <- finish(t.Context(), l)
		}()
		woken, stop := a.Follow(task.ID)
		defer stop()
		next := int64(1)
		for ended := false; !ended || next <= int64(total); {
			select {
			case <-woken:
			case err := <-written:
				if err != nil {
					t.Fatal(err)
				}
				ended = true
			}
			for _, s := range []*tasks.Service{a.Service, b.Service} {
				from := next
				if s == b.Service {
					from = max(1, next-700) // some of it again
				}
				for _, text := range w.log(s, task.ID, from) {
					if !strings.HasPrefix(text, fmt.Sprint(from, " ")) {
						t.Fatalf("line %d begins with %.20q", from, text)
					}
					from++
				}
				next = max(next, from)
			}
		}
		await(t, "the whole log is sealed", func() bool { return w.count(`SELECT count(*) FROM task_log`) == 0 })
		if got := w.log(b.Service, task.ID, 1); len(got) != total {
			t.Errorf("%d lines", len(got))
		}
	})
}

// A big log in big and small pieces, with a look at its tail.
func TestLargeLog(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		const total = 200_000
		s, l := quiet(w)
		for from := 0; from < total; {
			var lines []tasks.Line
			for range min(4000, total-from) {
				from++
				lines = append(lines, tasks.Line{Activity: l.ID + "_0.0", Category: octopus.LogInfo, Text: fmt.Sprint("this is line ", from, " of a log")})
			}
			say(t, l, lines...)
		}
		if err := tasks.Seal(s, t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := finish(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if err := tasks.Seal(s, t.Context()); err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		if err := s.ReadLog(t.Context(), l.ID, 1, func(l tasks.Line) bool {
			n++
			if l.Number != n || l.Text != fmt.Sprint("this is line ", n, " of a log") {
				t.Errorf("line %d is %+v", n, l)
				return false
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if n != total || w.get(l.ID).LogLines != total {
			t.Errorf("%d lines", n)
		}
		got := w.log(s, l.ID, tasks.TailStart(total, 3))
		if diff := cmp.Diff([]string{"this is line 199998 of a log", "this is line 199999 of a log", "this is line 200000 of a log"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLongLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite))
	s, l := quiet(w)
	say(t, l, tasks.Line{Text: strings.Repeat("é", tasks.MaxText), Detail: strings.Repeat("x", tasks.MaxText)}, tasks.Line{Text: "next"})
	got := w.log(s, l.ID, 1)
	if len(got) != 2 || got[1] != "next" || len(got[0]) > tasks.MaxText+3 || !utf8.ValidString(got[0]) || !strings.HasSuffix(got[0], "é…") {
		t.Errorf("%d lines, %d bytes, ending in %q", len(got), len(got[0]), got[0][len(got[0])-10:])
	}
}

// brokenBlobs fails for a while.
type brokenBlobs struct {
	*blob.Dir
	broken atomic.Bool
}

func (b *brokenBlobs) Put(ctx context.Context, r io.Reader, limit int64) (blob.Info, error) {
	if b.broken.Load() {
		return blob.Info{}, errors.New("the store is away")
	}
	return b.Dir.Put(ctx, r, limit)
}

// A log that could not be sealed is sealed later, though nothing else happens.
func TestSealFails(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		blobs := &brokenBlobs{Dir: w.blobs}
		blobs.broken.Store(true)
		n, l := w.claim(func(c *tasks.Config) { c.Blobs, c.Log = blobs, nil })
		say(t, l, tasks.Line{Text: "kept"})
		if err := finish(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if err := tasks.Seal(n.Service, t.Context()); err == nil {
			t.Error("a broken store is no error")
		}
		if got := w.log(n.Service, l.ID, 1); len(got) != 1 {
			t.Errorf("lines %q", got)
		}
		<-time.After(5 * brisk.Seal) // its own loop fails too
		blobs.broken.Store(false)
		await(t, "it is sealed", func() bool { return w.count(`SELECT count(*) FROM task_log_segment`) == 1 })
		if diff := cmp.Diff([]string{"kept"}, w.log(n.Service, l.ID, 1)); diff != "" {
			t.Error(diff)
		}
	})
}

// A chunk that lacks lines is damaged, and is not passed over in silence.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite))
	s, l := quiet(w)
	say(t, l, tasks.Line{Text: "one"}, tasks.Line{Text: "two"})
	for name, damage := range map[string]string{
		"too few lines": `UPDATE task_log SET lines = 3`, "too many lines": `UPDATE task_log SET lines = 1`,
		"cut off":               `UPDATE task_log SET lines = 2, data = substr(data, 1, length(data) - 1)`,
		"a codec of the future": `UPDATE task_log SET codec = 9`, "no such compression": `UPDATE task_log SET codec = 1`,
	} {
		w.exec(damage)
		if err := s.ReadLog(t.Context(), l.ID, 1, func(tasks.Line) bool { return true }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecodeLines(f *testing.F) {
	lines := []tasks.Line{{Activity: "a", Category: "Info", At: time.UnixMicro(5), Text: "hello"}, {Text: "x", Detail: "y"}}
	f.Add(tasks.EncodeLines(lines), int64(2))
	f.Add([]byte{0, 1}, int64(1))
	f.Add([]byte{}, int64(0))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, int64(-1))
	f.Fuzz(func(t *testing.T, raw []byte, count int64) {
		var got []tasks.Line
		err := tasks.DecodeLines(raw, 1, count, func(l tasks.Line) bool {
			got = append(got, l)
			return true
		})
		if err != nil {
			return
		}
		if int64(len(got)) != count {
			t.Errorf("%d lines of %d", len(got), count)
		}
		var again []tasks.Line
		if err := tasks.DecodeLines(tasks.EncodeLines(got), 1, count, func(l tasks.Line) bool {
			again = append(again, l)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if len(got) > 0 && len(got[0].Text) < tasks.MaxText && cmp.Diff(got, again) != "" {
			t.Error(cmp.Diff(got, again))
		}
	})
}
