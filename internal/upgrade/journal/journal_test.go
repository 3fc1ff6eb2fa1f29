package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/reserve"
)

func add(t testing.TB, j *Journal, kind string) Entry {
	t.Helper()
	e, err := j.Append(time.Unix(1000, 5000), func([]Entry) (Entry, error) {
		return Entry{Txn: "t1", Kind: kind, Data: json.RawMessage(`{"n":1}`)}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func open(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func kinds(j *Journal) string {
	var all []string
	for _, e := range j.Entries() {
		all = append(all, e.Kind)
	}
	return strings.Join(all, " ")
}

func TestAppendAndRead(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "upgrade")
	a := open(t, dir)
	want := []Entry{add(t, a, "planned"), add(t, a, "staged")}
	b := open(t, dir)
	if diff := cmp.Diff(want, b.Entries()); diff != "" {
		t.Error(diff)
	}
	add(t, b, "checked")
	add(t, a, "saved") // has not read what b wrote
	if err := b.Refresh(); err != nil || kinds(b) != "planned staged checked saved" || kinds(a) != kinds(b) {
		t.Errorf("%q %q %v", kinds(a), kinds(b), err)
	}
	refused := errors.New("not now")
	if _, err := a.Append(time.Now(), func(all []Entry) (Entry, error) {
		if len(all) != 4 {
			t.Errorf("%d entries", len(all))
		}
		return Entry{}, refused
	}); !errors.Is(err, refused) {
		t.Error(err)
	}
	if n := len(open(t, dir).Entries()); n != 4 {
		t.Errorf("%d entries after a refusal", n)
	}
}

// TestTornAnywhere cuts the file at every byte: whole lines stay, and a journal that is
// appended to afterwards has them and the new one.
func TestTornAnywhere(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	j := open(t, source)
	for i := range 3 {
		add(t, j, fmt.Sprint("k", i))
	}
	whole, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		left := open(t, dir)
		if n := strings.Count(string(whole[:cut]), "\n"); len(left.Entries()) != n {
			t.Fatalf("cut at %d: %d entries, not %d", cut, len(left.Entries()), n)
		}
		before := kinds(left)
		add(t, left, "new")
		if got := kinds(open(t, dir)); got != strings.TrimSpace(before+" new") {
			t.Fatalf("cut at %d: %q", cut, got)
		}
	}
}

// TestDamage: what was changed before the last line is found and named.
func TestDamage(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	j := open(t, source)
	for i := range 3 {
		add(t, j, fmt.Sprint("k", i))
	}
	raw, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(raw), "\n"), "\n")
	for name, c := range map[string]struct {
		text string
		line int
	}{
		"a flipped bit":      {strings.Replace(string(raw), "k1", "q1", 1), 2},
		"a line is missing":  {lines[0] + lines[2] + "\n" + lines[2] + "\n", 2},
		"lines changed over": {lines[1] + lines[0] + lines[2], 1},
		"something else":     {"hello\n" + string(raw), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir)
			var damaged *DamagedError
			if !errors.As(err, &damaged) || damaged.Line != c.line {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestManyWriters: nobody's entry is lost or written over.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			j, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range each {
				add(t, j, fmt.Sprintf("w%d-%d", w, i))
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, e := range open(t, dir).Entries() {
		seen[e.Kind] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d entries of %d", len(seen), writers*each)
	}
}

// FuzzRead: no file is a crash, and what is read follows.
func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	j := open(f, dir)
	add(f, j, "a")
	add(f, j, "b")
	raw, err := os.ReadFile(j.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:len(raw)-3])
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir)
		if err != nil {
			return
		}
		for i, e := range j.Entries() {
			if e.Seq != int64(i)+1 {
				t.Errorf("entry %d has number %d", i, e.Seq)
			}
		}
	})
}

// TestFullDisk: on a full disk an entry is durable once more with what was kept in reserve,
// and then none is added, nor half of one.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := disktest.New(t, "size=4m")
	dir, data := filepath.Join(disk, "upgrade"), filepath.Join(disk, "data")
	j := open(t, dir)
	first := add(t, j, "first")
	err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(reserve.Path(data), make([]byte, 2<<20), 0o600), os.Symlink(reserve.Path(data), filepath.Join(dir, reserve.Name)))
	if err != nil {
		t.Fatal(err)
	}
	long := func() (Entry, error) {
		return j.Append(time.Unix(1000, 0), func([]Entry) (Entry, error) {
			return Entry{Kind: "long", Data: json.RawMessage(`"` + strings.Repeat("x", 700<<10) + `"`)}, nil
		})
	}
	want := []Entry{first}
	fill := func() {
		t.Helper()
		f, err := os.CreateTemp(data, "filler")
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	e, err := long()
	if err != nil {
		t.Fatalf("with something in reserve: %v", err)
	}
	want = append(want, e)
	if _, err := os.Stat(reserve.Path(data)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reserve is there: %v", err)
	}
	fill()
	if _, err := long(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("with nothing in reserve: %v", err)
	}
	if diff := cmp.Diff(want, open(t, dir).Entries()); diff != "" {
		t.Error(diff)
	}
}
