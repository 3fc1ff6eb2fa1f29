package durable

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for _, text := range []string{"one", "two", ""} {
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	// What cannot be put in place leaves nothing behind.
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if err := WriteFile(filepath.Join(dir, "none", "x"), []byte("x"), 0o600); err == nil {
		t.Error("written into a directory that is not there")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v %v", entries, err)
	}
}

func TestSymlinkAndRename(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(dir, "current")
	for _, target := range []string{"versions/1", "versions/2"} {
		if err := Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(link); err != nil || got != target {
			t.Errorf("%q %v", got, err)
		}
	}
	for _, sub := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b", "c")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "b", "c")); err != nil {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("the second: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		l, err := Wait(path)
		if err == nil {
			err = l.Unlock()
		}
		got <- err
	}()
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("after it was given back: %v", err)
	}
	if _, err := TryLock(filepath.Join(path, "none")); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("no such directory: %v", err)
	}
}

// TestLarge writes more than a portion, in pieces that fit into it and in one that does not.
func TestLarge(t *testing.T) {
	t.Parallel()
	for name, writer := range map[string]func(*os.File) io.Writer{
		"paced": func(f *os.File) io.Writer { return &Paced{File: f} },
		"early": func(f *os.File) io.Writer { return &Early{File: f} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			writeLarge(t, writer)
		})
	}
}

func writeLarge(t *testing.T, writer func(*os.File) io.Writer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "large")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	w := writer(f)
	for i, size := range []int{1, Portion - 1, 5, 2*Portion + 3, 0, Portion} {
		piece := bytes.Repeat([]byte{byte('a' + i)}, size)
		if n, err := w.Write(piece); n != size || err != nil {
			t.Errorf("%d of %d bytes were written: %v", n, size, err)
		}
		want = append(want, piece...)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes are in the file, %v; %d were written", len(got), err, len(want))
	}
	if n, err := w.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("a closed file took %d bytes: %v", n, err)
	}
}
