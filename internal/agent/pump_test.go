//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pumpOf returns a pump and the write ends of its pipes.
func pumpOf(t testing.TB) (*pump, [2]int) {
	t.Helper()
	var reads, writes [2]int
	for i := range 2 {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		reads[i], writes[i] = p[0], p[1]
	}
	p, err := newPump(reads[0], reads[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p, writes
}

// What is in the pipes when the time to drain is over is not lost, though somebody
// keeps them open.
func TestPumpDrain(t *testing.T) {
	t.Parallel()
	p, writes := pumpOf(t)
	const n = 50_000
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	b.WriteString("no end")
	for _, fd := range writes {
		if k, err := unix.Write(fd, b.Bytes()); err != nil || k != b.Len() {
			t.Fatal(k, err)
		}
	}
	p.drain(-time.Second)
	dir := t.TempDir()
	log, err := openLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.run(log); err != nil {
		t.Fatal(err)
	}
	for _, fd := range writes {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	part, err := readLog(dir, 0, MaxAnswer)
	if err != nil || len(part.entries) != 2*n+2 {
		t.Fatalf("%d entries, %v; want %d", len(part.entries), err, 2*n+2)
	}
	next := [2]int{}
	for _, e := range part.entries {
		want := fmt.Sprint(next[e.Source])
		if next[e.Source] == n {
			want = "no end"
		}
		if e.Text != want {
			t.Fatalf("entry %d of %d is %q, want %q", e.Seq, e.Source, e.Text, want)
		}
		next[e.Source]++
	}
}

// Lines come out whole however they were written, without their line ends.
func TestPumpLines(t *testing.T) {
	t.Parallel()
	p, writes := pumpOf(t)
	dir := t.TempDir()
	log, err := openLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("é", MaxEntry)
	go func() {
		for _, piece := range []string{"a", "b\nc\r\n", "\n", "\r", "\n", long[:5], long[5:] + "\nd", "\xff\nend"} {
			_, _ = unix.Write(writes[0], []byte(piece))
		}
		_ = unix.Close(writes[0])
		_ = unix.Close(writes[1])
	}()
	if err := p.run(log); err != nil {
		t.Fatal(err)
	}
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	part, err := readLog(dir, 0, MaxAnswer)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ab", "c", "", "", long[:MaxEntry], long[MaxEntry:], "d\uFFFD", "end"}
	if len(part.entries) != len(want) {
		t.Fatalf("%d entries, want %d", len(part.entries), len(want))
	}
	for i, e := range part.entries {
		if e.Text != want[i] {
			t.Errorf("entry %d has %d bytes: %.20q, want %d: %.20q", i, len(e.Text), e.Text, len(want[i]), want[i])
		}
	}
}
