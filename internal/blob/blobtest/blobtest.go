// Package blobtest holds every form of blob storage to the same behaviour.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/fault"
)

// Store is what the suite tests: what all users of blobs together need.
type Store interface {
	// Put MUST store the content once, whole and for good before it returns,
	// and MUST leave nothing when it fails. It MUST mark content that is there
	// already as used now.
	Put(ctx context.Context, r io.Reader, limit int64) (blob.Info, error)
	// Open and Stat MUST give a fault NotFound for what is not there, and for
	// what is no hash.
	Open(ctx context.Context, h blob.Hash) (io.ReadSeekCloser, int64, error)
	Stat(ctx context.Context, h blob.Hash) (blob.Info, error)
	// Delete MUST leave what was used at unusedSince or later, and MUST NOT
	// disturb those who have the blob open.
	Delete(ctx context.Context, h blob.Hash, unusedSince time.Time) (bool, error)
	// List MUST give everything that is there all the while, once, in order.
	List(ctx context.Context) iter.Seq2[blob.Info, error]
}

const limit = 32 << 20

// Run runs the suite; open makes a new, empty store.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Store){
		"PutAndOpen": putAndOpen, "PutTwice": putTwice, "Limit": atLimit, "ReaderFails": readerFails,
		"Cancelled": cancelled, "Missing": missing, "Delete": deletes, "List": lists, "Together": together,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func put(t *testing.T, s Store, content []byte) blob.Info {
	t.Helper()
	info, err := s.Put(t.Context(), bytes.NewReader(content), limit)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	if want := hex.EncodeToString(sum[:]); string(info.Hash) != want || info.Size != int64(len(content)) {
		t.Fatalf("Put gives %s of %d bytes, want %s of %d", info.Hash, info.Size, want, len(content))
	}
	return info
}

func mustHave(t *testing.T, s Store, h blob.Hash, content []byte) {
	t.Helper()
	f, size, err := s.Open(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if size != int64(len(content)) || !bytes.Equal(got, content) {
		t.Fatalf("blob %s has %d bytes, %d are announced, want %d", h, len(got), size, len(content))
	}
}

// all lists the store and fails if an entry comes twice or out of order.
func all(t *testing.T, s Store) []blob.Info {
	t.Helper()
	var out []blob.Info
	for info, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > 0 && out[len(out)-1].Hash >= info.Hash {
			t.Fatalf("%s is listed after %s", info.Hash, out[len(out)-1].Hash)
		}
		out = append(out, info)
	}
	return out
}

func putAndOpen(t *testing.T, s Store) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	for _, content := range [][]byte{{}, []byte("x"), big} {
		info := put(t, s, content)
		mustHave(t, s, info.Hash, content)
		got, err := s.Stat(t.Context(), info.Hash)
		if err != nil || got.Hash != info.Hash || got.Size != info.Size {
			t.Errorf("Stat gives %+v, %v, want %+v", got, err, info)
		}
		if age := time.Since(got.Used); age < -time.Minute || age > time.Minute || got.Used.Location() != time.UTC {
			t.Errorf("a new blob was used at %v", got.Used)
		}
	}
	h := put(t, s, []byte("seek me")).Hash
	f, _, err := s.Open(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil || string(rest) != "me" {
		t.Errorf("after Seek(5) there is %q, %v", rest, err)
	}
}

func putTwice(t *testing.T, s Store) {
	first := put(t, s, []byte("same"))
	before := time.Now()
	put(t, s, []byte("same"))
	if n := len(all(t, s)); n != 1 {
		t.Fatalf("the same content twice makes %d blobs", n)
	}
	// What was put again before the given time is older than it, and goes; what
	// was put again after it stays.
	if deleted, err := s.Delete(t.Context(), first.Hash, before); err != nil || deleted {
		t.Fatalf("Delete of what was put again: %v, %v", deleted, err)
	}
	mustHave(t, s, first.Hash, []byte("same"))
}

func atLimit(t *testing.T, s Store) {
	if _, err := s.Put(t.Context(), strings.NewReader("1234"), 4); err != nil {
		t.Errorf("Put of just the limit: %v", err)
	}
	for _, r := range []io.Reader{strings.NewReader("12345"), iotest.OneByteReader(strings.NewReader("12345")), endless{}} {
		_, err := s.Put(t.Context(), r, 4)
		if !fault.Is(err, fault.TooLarge) || !strings.Contains(err.Error(), " 4 bytes") {
			t.Errorf("Put beyond the limit: %v, want a fault TooLarge that names it", err)
		}
	}
	if n := len(all(t, s)); n != 1 {
		t.Errorf("there are %d blobs, want the one within the limit", n)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func readerFails(t *testing.T, s Store) {
	broken := errors.New("broken")
	_, err := s.Put(t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), limit)
	if !errors.Is(err, broken) {
		t.Errorf("Put gives %v, want the reader's error", err)
	}
	if left := all(t, s); len(left) != 0 {
		t.Errorf("a failed Put left %v", left)
	}
}

func cancelled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(strings.NewReader("begin"), readerFunc(func(p []byte) (int, error) {
		cancel()
		return copy(p, "more"), nil
	}), endless{})
	if _, err := s.Put(ctx, r, 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("Put gives %v after its context ended", err)
	}
	if left := all(t, s); len(left) != 0 {
		t.Errorf("a cancelled Put left %v", left)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func missing(t *testing.T, s Store) {
	none := blob.Hash(strings.Repeat("0", 64))
	for _, h := range []blob.Hash{none, "", "..", "../../../etc/passwd", none[:63], none + "0", blob.Hash(strings.Repeat("G", 64))} {
		if _, _, err := s.Open(t.Context(), h); !fault.Is(err, fault.NotFound) {
			t.Errorf("Open(%q): %v, want a fault NotFound", h, err)
		}
		if _, err := s.Stat(t.Context(), h); !fault.Is(err, fault.NotFound) {
			t.Errorf("Stat(%q): %v, want a fault NotFound", h, err)
		}
		if deleted, err := s.Delete(t.Context(), h, time.Now().Add(time.Hour)); err != nil || deleted {
			t.Errorf("Delete(%q): %v, %v", h, deleted, err)
		}
	}
}

func deletes(t *testing.T, s Store) {
	content := []byte("to go")
	h := put(t, s, content).Hash
	keep := put(t, s, []byte("to stay")).Hash
	if deleted, err := s.Delete(t.Context(), h, time.Now().Add(-time.Hour)); err != nil || deleted {
		t.Fatalf("Delete of a young blob: %v, %v", deleted, err)
	}
	f, _, err := s.Open(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if deleted, err := s.Delete(t.Context(), h, time.Now().Add(time.Hour)); err != nil || !deleted {
		t.Fatalf("Delete of an old blob: %v, %v", deleted, err)
	}
	got, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil || !bytes.Equal(got, content) {
		t.Errorf("who had it open reads %q, %v", got, err)
	}
	if _, err := s.Stat(t.Context(), h); !fault.Is(err, fault.NotFound) {
		t.Errorf("Stat of what was deleted: %v", err)
	}
	mustHave(t, s, keep, []byte("to stay"))
	mustHave(t, s, put(t, s, content).Hash, content) // and it can come back
}

func lists(t *testing.T, s Store) {
	want := map[blob.Hash]int64{}
	for i := range 300 {
		content := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, i)
		want[put(t, s, content).Hash] = int64(len(content))
	}
	got := all(t, s)
	if len(got) != len(want) {
		t.Errorf("%d blobs are listed, want %d", len(got), len(want))
	}
	for _, info := range got {
		if size, ok := want[info.Hash]; !ok || size != info.Size {
			t.Errorf("%+v is listed, want size %d", info, size)
		}
	}
	for _, err := range s.List(t.Context()) { // who stops early is not called again
		if err != nil {
			t.Error(err)
		}
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for _, err := range s.List(ctx) {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("List gives %v after its context ended", last)
	}
}

// together has many put and delete the same few contents. Whoever put one within
// the time that deleting respects finds it.
func together(t *testing.T, s Store) {
	var wg sync.WaitGroup
	past := time.Now().Add(-time.Minute)
	contents := [][]byte{[]byte("a"), []byte("b"), bytes.Repeat([]byte("c"), 1<<16)}
	for range 4 {
		wg.Go(func() {
			for range 5 {
				for _, c := range contents {
					info, err := s.Put(t.Context(), bytes.NewReader(c), limit)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := s.Delete(t.Context(), info.Hash, past); err != nil {
						t.Error(err)
					}
					f, _, err := s.Open(t.Context(), info.Hash)
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(f)
					if err := errors.Join(err, f.Close()); err != nil || !bytes.Equal(got, c) {
						t.Errorf("read %d bytes, %v, want %d", len(got), err, len(c))
					}
				}
			}
		})
	}
	wg.Wait()
	if got := all(t, s); len(got) != len(contents) || !slices.ContainsFunc(got, func(i blob.Info) bool { return i.Size == 1<<16 }) {
		t.Errorf("left are %v", got)
	}
}
