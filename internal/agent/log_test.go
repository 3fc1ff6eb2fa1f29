package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func writeLog(t testing.TB, dir string, from, to int) {
	t.Helper()
	w, err := openLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i <= to; i++ {
		w.add(Stdout, time.UnixMicro(int64(i)), fmt.Appendf(nil, "line %d", i))
	}
	if err := w.sync(); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

func TestLogRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeLog(t, dir, 1, 2500)
	writeLog(t, dir, 2501, 5000)
	for _, after := range []int64{0, 1, 999, 1000, 1001, 2000, 2499, 3000, 4999, 5000, 6000} {
		part, err := readLog(dir, after, MaxAnswer)
		if err != nil {
			t.Fatal(err)
		}
		want := max(5000-after, 0)
		if int64(len(part.entries)) != want || part.more || part.ended || part.next != max(after, 5000) {
			t.Fatalf("after %d: %d entries, next %d, more %v, ended %v", after, len(part.entries), part.next, part.more, part.ended)
		}
		for i, e := range part.entries {
			if seq := after + int64(i) + 1; e.Seq != seq || e.Text != fmt.Sprintf("line %d", seq) || e.Time.UnixMicro() != seq {
				t.Fatalf("entry %d is %+v", seq, e)
			}
		}
	}
}

func TestLogAnswerIsCapped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeLog(t, dir, 1, 5000)
	after, answers := int64(0), 0
	for more := true; more; answers++ {
		part, err := readLog(dir, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(part.entries) == 0 || part.entries[0].Seq != after+1 {
			t.Fatalf("after %d: %v", after, part.entries)
		}
		after, more = part.next, part.more
	}
	if after != 5000 || answers < 100 {
		t.Errorf("%d answers up to %d", answers, after)
	}
}

// A log that is cut or spoilt anywhere gives the frames before that, and is
// continued from there with the next number.
func TestLogTorn(t *testing.T) {
	t.Parallel()
	whole := t.TempDir()
	writeLog(t, whole, 1, 2100)
	log, err := os.ReadFile(filepath.Join(whole, logName))
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(whole, indexName))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(whole, "torn") //nolint:usetesting // below another one
		if err != nil {
			rt.Fatal(err)
		}
		cut := rapid.IntRange(0, len(log)).Draw(rt, "cut")
		b := bytes.Clone(log[:cut])
		if cut > 0 && rapid.Bool().Draw(rt, "spoil") {
			cut = rapid.IntRange(0, cut-1).Draw(rt, "at")
			b[cut] ^= 0x40
		}
		// What is behind the damage does not count, though the index knows it.
		idx := bytes.Clone(index[:rapid.IntRange(0, len(index)).Draw(rt, "index")])
		if len(idx) > 0 && rapid.Bool().Draw(rt, "spoil index") {
			idx[rapid.IntRange(0, len(idx)-1).Draw(rt, "index at")] ^= 1
		}
		if err := os.WriteFile(filepath.Join(dir, logName), b, 0o600); err != nil {
			rt.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, indexName), idx, 0o600); err != nil {
			rt.Fatal(err)
		}
		sound, off := int64(0), 0
		for {
			n, seq, _, err := frameAt(log[off:])
			if err != nil || off+n > cut {
				break
			}
			sound, off = seq, off+n
		}
		w, err := openLog(dir)
		if err != nil {
			rt.Fatal(err)
		}
		if w.seq != sound || w.off != int64(off) {
			rt.Fatalf("recovered to %d at %d, want %d at %d", w.seq, w.off, sound, off)
		}
		for i := sound + 1; i <= 4200; i++ {
			w.add(Stdout, time.UnixMicro(i), fmt.Appendf(nil, "line %d", i))
		}
		w.end()
		if err := w.sync(); err != nil {
			rt.Fatal(err)
		}
		if err := w.close(); err != nil {
			rt.Fatal(err)
		}
		after := rapid.Int64Range(0, 4200).Draw(rt, "after")
		part, err := readLog(dir, after, MaxAnswer)
		if err != nil || !part.ended || part.next != 4200 || int64(len(part.entries)) != 4200-after {
			rt.Fatalf("after %d: %d entries up to %d, ended %v, %v", after, len(part.entries), part.next, part.ended, err)
		}
	})
}

func TestLogSplitsAndMends(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, err := openLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("é€😀", MaxEntry/4)
	w.add(Stderr, time.Now(), []byte(long))
	w.add(Stdout, time.Now(), []byte("bad \xff\xfe bytes"))
	if err := w.sync(); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	part, err := readLog(dir, 0, MaxAnswer)
	if err != nil {
		t.Fatal(err)
	}
	joined := ""
	for _, e := range part.entries[:len(part.entries)-1] {
		if len(e.Text) > MaxEntry || !utf8.ValidString(e.Text) {
			t.Errorf("an entry of %d bytes, valid %v", len(e.Text), utf8.ValidString(e.Text))
		}
		joined += e.Text
	}
	if joined != long {
		t.Error("the pieces are not the whole")
	}
	if got := part.entries[len(part.entries)-1].Text; got != "bad \uFFFD bytes" {
		t.Errorf("mended to %q", got)
	}
}

func TestStatusRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		want := Status{
			Ticket: Ticket(rapid.String().Draw(rt, "ticket")), State: State(rapid.IntRange(0, 2).Draw(rt, "state")),
			ExitCode: rapid.Int().Draw(rt, "code"), Next: rapid.Int64().Draw(rt, "next"), Waiting: rapid.String().Draw(rt, "waiting"),
		}
		for seq := range rapid.Int64Range(0, 20).Draw(rt, "entries") {
			want.Entries = append(want.Entries, Entry{
				Seq: seq + 1, Source: Source(rapid.IntRange(0, 2).Draw(rt, "source")),
				Time: time.UnixMicro(rapid.Int64Range(0, 1<<50).Draw(rt, "time")).UTC(), Text: rapid.String().Draw(rt, "text"),
			})
		}
		b, err := encodeStatus(want)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := decodeStatus(b)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatal(diff)
		}
	})
}

// Any bytes as a log: reading and recovering agree, end, and stay within bounds.
func FuzzLog(f *testing.F) {
	var b []byte
	for i := range int64(5) {
		b = appendFrame(b, i+1, Stdout, time.UnixMicro(i), []byte("text"))
	}
	b = appendFrame(b, 6, endOfLog, time.UnixMicro(6), nil)
	f.Add(b, []byte{}, int64(0))
	f.Add(b[:len(b)-3], []byte{1, 0, 0, 0, 0, 0, 0, 0}, int64(3))
	f.Add([]byte{}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, int64(5000))
	f.Fuzz(func(t *testing.T, log, index []byte, after int64) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, logName), log, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, indexName), index, 0o600); err != nil {
			t.Fatal(err)
		}
		part, err := readLog(dir, 0, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range part.entries {
			if e.Seq != int64(i)+1 || len(e.Text) > MaxEntry {
				t.Fatalf("entry %d: %+v", i, e)
			}
		}
		if _, err := readLog(dir, after, 100); err != nil {
			t.Fatal(err)
		}
		_, _ = decodeFrames(log)
		w, err := openLog(dir)
		if err != nil {
			t.Fatal(err)
		}
		if w.last() != part.next || w.ended != part.ended {
			t.Fatalf("recovered to %d (ended %v), read to %d (ended %v)", w.last(), w.ended, part.next, part.ended)
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkReadTail(b *testing.B) {
	dir := b.TempDir()
	writeLog(b, dir, 1, 1_000_000)
	for b.Loop() {
		part, err := readLog(dir, 999_500, MaxAnswer)
		if err != nil || len(part.entries) != 500 {
			b.Fatal(len(part.entries), err)
		}
	}
}
