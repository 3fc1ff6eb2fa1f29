package stage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// received are the files that are where bundles are received, but for the lock.
func (w *world) received(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.root, "upgrade", "bundles"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		if e.Name() != ".lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestReceive: what is sent is kept under its hash, and can be installed from there like
// from any file.
func TestReceive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	raw, err := os.ReadFile(writeBundle(t, Platform(), says("2026.5.0", Platform())))
	if err != nil {
		t.Fatal(err)
	}
	// Somebody was killed while they received another one.
	if err := os.MkdirAll(filepath.Join(w.root, "upgrade", "bundles"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.root, "upgrade", "bundles", beingSent+"1"), raw[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{-1, int64(len(raw))} { // the second takes the first one's place
		u, offer, err := w.store.Receive(t.Context(), w.request(), bytes.NewReader(raw), size, nil)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(raw)
		if u.ID != hex.EncodeToString(sum[:]) || u.Version != "2026.5.0" || u.Size != int64(len(raw)) || !slices.Equal(u.Platforms, []string{Platform()}) || offer.Release.Version != "2026.5.0" {
			t.Errorf("%+v %+v", u, offer)
		}
		if got := w.received(t); !slices.Equal(got, []string{u.ID + ".bundle"}) {
			t.Errorf("there is %q", got)
		}
	}
	all, err := w.store.Uploads()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	u, err := w.store.Uploaded(all[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(u.Path); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%d bytes are kept, %v", len(got), err)
	}
	if _, err := w.store.Stage(t.Context(), w.request(func(r *Request) { r.Source = Source{Bundle: u.Path} }), nil); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"", "../../trust", strings.Repeat("0", 64), strings.ToUpper(u.ID), u.ID + ".bundle"} {
		if _, err := w.store.Uploaded(id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the id %q: %v", id, err)
		}
	}
	// One that is damaged afterwards is listed, so that it can go.
	if err := os.Truncate(u.Path, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Uploaded(u.ID); !Is(err, Truncated) {
		t.Errorf("a damaged one: %v", err)
	}
	if gone, err := w.store.ForgetUploads(func(one *Upload) bool { return one.ID == u.ID }); err != nil || len(gone) != 1 || len(w.received(t)) != 0 {
		t.Errorf("%+v, %v; there is %q", gone, err, w.received(t))
	}
}

// TestReceiveRefuses: what would be refused as a file is refused when it is sent, and
// nothing of it is left.
func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	content := says("2026.5.0", Platform())
	read := func(path string) []byte {
		t.Helper()
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	good := read(writeBundle(t, Platform(), content))
	broken := errors.New("the line is dead")
	no := func(err error) bool {
		var no *releasefeed.NoChoice
		return errors.As(err, &no)
	}
	reason := func(r Reason) func(error) bool { return func(err error) bool { return Is(err, r) } }
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	for name, c := range map[string]struct {
		in     io.Reader
		size   int64
		change func(*Request)
		want   func(error) bool
	}{
		"nothing":            {bytes.NewReader(nil), 0, nil, reason(Truncated)},
		"something else":     {strings.NewReader("hello"), -1, nil, reason(Truncated)},
		"half of it":         {bytes.NewReader(good[:len(good)/2]), -1, nil, reason(Truncated)},
		"less than was said": {bytes.NewReader(good[:len(good)/2]), int64(len(good)), nil, is(io.ErrUnexpectedEOF)},
		"more than was said": {bytes.NewReader(good), 10, nil, is(io.ErrUnexpectedEOF)},
		"a line that breaks": {io.MultiReader(bytes.NewReader(good[:5000]), iotest.ErrReader(broken)), -1, nil, is(broken)},
		"too large":          {bytes.NewReader(good), MaxUpload + 1, nil, is(ErrTooLarge)},
		"another platform":   {bytes.NewReader(read(writeBundle(t, "plan9/mips", content))), -1, nil, reason(OtherPlatform)},
		"another program":    {bytes.NewReader(read(writeBundle(t, Platform(), append(content[:len(content)-1:len(content)-1], 'x')))), -1, nil, reason(Corrupt)},
		"a longer program":   {bytes.NewReader(read(writeBundle(t, Platform(), append(content[:len(content):len(content)], 'x')))), -1, nil, reason(Corrupt)},
		"a shorter program":  {bytes.NewReader(read(writeBundle(t, Platform(), content[:1000]))), -1, nil, reason(Truncated)},
		"what runs already":  {bytes.NewReader(good), -1, func(r *Request) { r.Version = "2026.5.0" }, no},
		"another channel":    {bytes.NewReader(good), -1, func(r *Request) { r.Channel = "beta" }, func(err error) bool { return releasefeed.Is(err, releasefeed.Foreign) }},
		"keys of nobody":     {bytes.NewReader(good), -1, func(*Request) {}, is(ErrNoRoot)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if name == "keys of nobody" {
				w = &world{site: newSite(t), root: t.TempDir()}
				w.store = Open(w.root, nil)
			}
			r := w.request()
			if c.change != nil {
				c.change(&r)
			}
			if _, _, err := w.store.Receive(t.Context(), r, c.in, c.size, nil); err == nil || !c.want(err) {
				t.Errorf("%v", err)
			}
			if left := w.received(t); len(left) != 0 {
				t.Errorf("it has left %q", left)
			}
			w.nothing(t)
		})
	}
}

// TestReceiveOneAtATime: the second is told to wait, and does no harm to the first.
func TestReceiveOneAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	raw, err := os.ReadFile(writeBundle(t, Platform(), says("2026.5.0", Platform())))
	if err != nil {
		t.Fatal(err)
	}
	in, out := io.Pipe()
	done := make(chan error, 1)
	second := func() error {
		// As that of another server, beside which this one is started.
		_, _, err := Open(w.root, nil).Receive(t.Context(), w.request(), bytes.NewReader(raw), -1, nil)
		return err
	}
	received := func(u *Upload) error {
		if err := second(); !errors.Is(err, ErrReceiving) || !slices.Equal(w.received(t), []string{u.ID + ".bundle"}) {
			t.Errorf("while the first forgets what was there: %v, %q", err, w.received(t))
		}
		return nil
	}
	go func() {
		_, _, err := w.store.Receive(t.Context(), w.request(), in, -1, received)
		done <- err
	}()
	if _, err := out.Write(raw[:1]); err != nil { // when it is read, the first has begun
		t.Fatal(err)
	}
	if err := second(); !errors.Is(err, ErrReceiving) {
		t.Errorf("the second: %v", err)
	}
	if _, err := out.Write(raw[1:]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(out.Close(), <-done); err != nil {
		t.Errorf("the first: %v", err)
	}
	if n := len(w.received(t)); n != 1 {
		t.Errorf("%d files are there", n)
	}
}

// TestReceiveLeavesRoom: a bundle must not fill the disk that the server writes to, and
// one that is full says so.
func TestReceiveLeavesRoom(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(writeBundle(t, Platform(), says("2026.5.0", Platform())))
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]string{
		"too little space": "size=64m",
		"no inode":         "size=1g,nr_inodes=2", // those of the directory and of the lock
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			at := filepath.Join(w.root, "upgrade", "bundles")
			if err := os.MkdirAll(at, 0o700); err != nil {
				t.Fatal(err)
			}
			disktest.Mount(t, at, 0, options)
			if _, _, err := w.store.Receive(t.Context(), w.request(), bytes.NewReader(raw), -1, nil); !errors.Is(err, ErrNoRoom) {
				t.Errorf("%v", err)
			}
			if left := w.received(t); len(left) != 0 {
				t.Errorf("it has left %q", left)
			}
		})
	}
}
