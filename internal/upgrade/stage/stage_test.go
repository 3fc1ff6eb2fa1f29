package stage

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/upgrade/bundle"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func key(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return ed25519.NewKeyFromSeed(seed)
}

func signedRoot(t *testing.T, version int, of ed25519.PrivateKey, by ...ed25519.PrivateKey) []byte {
	t.Helper()
	public, _ := of.Public().(ed25519.PublicKey)
	r, err := releasefeed.NewRoot(version, 1, public)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := releasefeed.Sign(r, by...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// says is a program that says which version it is, of a length worth breaking off.
func says(version, platform string) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\necho '{\"Version\":%q,\"Platform\":%q}'\nexit 0\n%s\n", version, platform, strings.Repeat("#", 300<<10))
}

func release(version, platform string, content []byte) releasefeed.Release {
	sum := sha256.Sum256(content)
	return releasefeed.Release{
		Version: version, Date: start, Level: 2, MinReaderLevel: 1, UpgradeFromMin: "2026.1.0", Rollback: releasefeed.RollbackFree,
		Artifacts: map[string]releasefeed.Artifact{platform: {URL: "tako-" + version, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}},
	}
}

func signedFeed(t *testing.T, number int64, by ed25519.PrivateKey, releases ...releasefeed.Release) []byte {
	t.Helper()
	f, err := releasefeed.NewFeed(releasefeed.Feed{Channel: "stable", Number: number, Issued: start.Add(time.Duration(number) * time.Hour), Expires: start.AddDate(0, 1, 0), Releases: releases})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := releasefeed.Sign(f, by)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// site serves files, and counts what was asked for.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	asked map[string]int
	// breaks is after how many bytes each answer of a path breaks off; ranges is whether
	// parts are given.
	breaks map[string]int
	ranges bool
	// secretive is whether what is not there is forbidden.
	secretive bool
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{files: map[string][]byte{}, asked: map[string]int{}, breaks: map[string]int{}, ranges: true}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *site) put(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = content
}

func (s *site) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/releases/")
	s.mu.Lock()
	content, ok := s.files[name]
	s.asked[name]++
	limit, breaks := s.breaks[name]
	ranges, secretive := s.ranges, s.secretive
	s.mu.Unlock()
	if !ok && secretive {
		http.Error(w, "AccessDenied", http.StatusForbidden)
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	if !ranges {
		r.Header.Del("Range")
	}
	if breaks {
		w = &breaking{w, limit}
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(content)))
}

// breaking is an answer that breaks off.
type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		panic(http.ErrAbortHandler) //nolint:forbidigo // as net/http wants it
	}
	return b.ResponseWriter.Write(p)
}

// world is a server's directory and a site with a feed, whose key is trusted.
type world struct {
	*site
	root  string
	store *Store
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{site: newSite(t), root: t.TempDir()}
	w.store = Open(w.root, nil)
	if _, err := w.store.Pin(signedRoot(t, 1, key(1), key(1)), false); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) request(change ...func(*Request)) Request {
	r := Request{Source: Source{Feed: w.URL + "/releases/feed.json"}, Channel: "stable", Version: "2026.4.0", Now: start.AddDate(0, 0, 1)}
	for _, c := range change {
		c(&r)
	}
	return r
}

// publish puts a release on the site.
func (w *world) publish(t *testing.T, number int64, version string, content []byte) {
	t.Helper()
	w.put("feed.json", signedFeed(t, number, key(1), release(version, Platform(), content)))
	w.put("tako-"+version, content)
}

// nothing fails if anything that could be run, or begun, is among the versions.
func (w *world) nothing(t *testing.T) {
	t.Helper()
	_ = filepath.WalkDir(filepath.Join(w.root, "versions"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // nothing there is what is wanted
		}
		if info, err := d.Info(); err == nil && info.Mode().Perm()&0o111 != 0 {
			t.Errorf("%s is left, and can be run", path)
		}
		return nil
	})
}

func TestStage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := says("2026.5.0", Platform())
	w.publish(t, 3, "2026.5.0", content)
	offer, err := w.store.Check(t.Context(), w.request())
	if err != nil || offer.Release.Version != "2026.5.0" {
		t.Fatal(offer, err)
	}
	if w.count("tako-2026.5.0") != 0 {
		t.Error("a check has downloaded the program")
	}
	var last int64
	offer, err = w.store.Stage(t.Context(), w.request(), func(done, total int64) {
		if done < last || total != int64(len(content)) {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || last != int64(len(content)) {
		t.Fatal(offer, last, err)
	}
	info, err := os.Stat(w.store.Program("2026.5.0"))
	if err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Fatal(info, err)
	}
	m, err := w.store.Manifest("2026.5.0")
	if err != nil || m.Release.Level != 2 || m.Platform != Platform() {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := w.store.Stage(t.Context(), w.request(), nil); err != nil || w.count("tako-2026.5.0") != 1 {
		t.Errorf("again: %v, fetched %d times", err, w.count("tako-2026.5.0"))
	}
	// What says so is the feed that was believed the last time: older ones are no more.
	w.publish(t, 4, "2026.5.0", content)
	again, err := w.store.Stage(t.Context(), w.request(), nil)
	if err != nil || w.count("tako-2026.5.0") != 1 {
		t.Fatalf("by a newer feed: %v, fetched %d times", err, w.count("tako-2026.5.0"))
	}
	if feed, err := os.ReadFile(filepath.Join(w.root, "versions", "2026.5.0", "feed.json")); err != nil || !bytes.Equal(feed, again.Feed) {
		t.Errorf("beside the version is another feed than the one that was believed (%v)", err)
	}
	trust, err := w.store.Trust()
	if err != nil || trust.Seen["stable"].Number != 4 {
		t.Errorf("%+v %v", trust.Seen, err)
	}
	if err := os.WriteFile(w.store.Program("2026.5.0"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Stage(t.Context(), w.request(), nil); !Is(err, Corrupt) {
		t.Errorf("over an installed one that was changed: %v", err)
	}
}

// TestRefusals: each kind of deceit has an error of its own, and leaves nothing that
// could be run.
func TestRefusals(t *testing.T) {
	t.Parallel()
	good := says("2026.5.0", Platform())
	one := release("2026.5.0", Platform(), good)
	document := func(reason releasefeed.Reason) func(error) bool {
		return func(err error) bool { return releasefeed.Is(err, reason) }
	}
	program := func(reason Reason) func(error) bool { return func(err error) bool { return Is(err, reason) } }
	says2 := func(text string) func(error) bool {
		return func(err error) bool {
			var no *releasefeed.NoChoice
			return errors.As(err, &no) && strings.Contains(no.Error(), text)
		}
	}
	unsigned, err := releasefeed.Sign(releasefeed.Feed{Type: "feed", Channel: "stable", Number: 3, Issued: start, Expires: start.AddDate(0, 1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		feed    []byte
		program []byte
		late    bool
		is      func(error) bool
	}{
		"unsigned":           {unsigned, good, false, document(releasefeed.Unsigned)},
		"another's key":      {signedFeed(t, 3, key(2), one), good, false, document(releasefeed.UnknownKeys)},
		"changed":            {[]byte(strings.Replace(string(signedFeed(t, 3, key(1), one)), "2026.5.0", "2026.5.1", 1)), good, false, document(releasefeed.WrongSignature)},
		"older":              {signedFeed(t, 1, key(1), one), good, false, document(releasefeed.Older)},
		"no JSON":            {[]byte("<html>"), good, false, document(releasefeed.Malformed)},
		"expired":            {signedFeed(t, 3, key(1), one), good, true, says2("expired")},
		"other platform":     {signedFeed(t, 3, key(1), release("2026.5.0", "plan9/mips", good)), good, false, says2("nothing newer")},
		"truncated":          {signedFeed(t, 3, key(1), one), good[:len(good)-7], false, program(Truncated)},
		"longer":             {signedFeed(t, 3, key(1), one), append(good[:len(good):len(good)], 'x'), false, program(Corrupt)},
		"corrupt":            {signedFeed(t, 3, key(1), one), append(good[:len(good)-1:len(good)-1], 'x'), false, program(Corrupt)},
		"not there":          {signedFeed(t, 3, key(1), one), nil, false, func(err error) bool { return errors.Is(err, errAbsent) }},
		"does not run":       {signedFeed(t, 3, key(1), release("2026.5.0", Platform(), []byte("#!/bin/false\n"))), []byte("#!/bin/false\n"), false, program(Unfit)},
		"says another":       {signedFeed(t, 3, key(1), release("2026.5.0", Platform(), says("2026.6.0", Platform()))), says("2026.6.0", Platform()), false, program(Unfit)},
		"says nothing":       {signedFeed(t, 3, key(1), release("2026.5.0", Platform(), []byte("#!/bin/true\n"))), []byte("#!/bin/true\n"), false, program(Unfit)},
		"another processor":  {signedFeed(t, 3, key(1), release("2026.5.0", Platform(), foreign())), foreign(), false, program(OtherPlatform)},
		"an address outside": {signedFeed(t, 3, key(1), outside(one)), good, false, func(err error) bool { return err != nil && strings.Contains(err.Error(), "not relative") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if err := w.store.saw("stable", releasefeed.Seen{Number: 2, Issued: start}); err != nil {
				t.Fatal(err)
			}
			w.put("feed.json", c.feed)
			if c.program != nil {
				w.put("tako-2026.5.0", c.program)
			}
			r := w.request()
			if c.late {
				r.Now = start.AddDate(1, 0, 0)
			}
			if _, err := w.store.Stage(t.Context(), r, nil); !c.is(err) {
				t.Errorf("%v", err)
			}
			w.nothing(t)
			if _, err := os.Stat(w.store.Program("2026.5.0")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is installed: %v", err)
			}
			// What was refused is no obstacle for what is good.
			w.publish(t, 5, "2026.5.0", good)
			if _, err := w.store.Stage(t.Context(), w.request(), nil); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// foreign is the head of a program for a processor that nobody has.
func foreign() []byte {
	head := make([]byte, 64)
	copy(head, "\x7fELF\x02\x01\x01")
	head[16], head[18], head[19], head[20] = 2, 0xef, 0xbe, 1
	return head
}

func outside(r releasefeed.Release) releasefeed.Release {
	a := r.Artifacts[Platform()]
	a.URL = "https://example.com/tako"
	r.Artifacts = map[string]releasefeed.Artifact{Platform(): a}
	return r
}

// TestBrokenTransfer: a transfer that breaks off goes on where it was, also in another
// process's next attempt, from a server that gives parts and from one that does not.
func TestBrokenTransfer(t *testing.T) {
	t.Parallel()
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprint("ranges ", ranges), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			content := says("2026.5.0", Platform())
			w.publish(t, 3, "2026.5.0", content)
			w.mu.Lock()
			w.ranges, w.breaks["tako-2026.5.0"] = ranges, 40<<10
			w.mu.Unlock()
			_, err := w.store.Stage(t.Context(), w.request(), nil)
			if err == nil {
				t.Fatal("a transfer that breaks off five times has succeeded")
			}
			w.nothing(t)
			info, err := os.Stat(filepath.Join(w.root, "versions", "2026.5.0.partial", program))
			if err != nil || info.Size() == 0 {
				t.Fatal("nothing was kept", info, err)
			}
			w.mu.Lock()
			delete(w.breaks, "tako-2026.5.0")
			w.mu.Unlock()
			first := int64(-1)
			if _, err := w.store.Stage(t.Context(), w.request(), func(done, _ int64) {
				if first < 0 {
					first = done
				}
			}); err != nil {
				t.Fatal(err)
			}
			if went := first > info.Size(); went != ranges {
				t.Errorf("went on at %d, after %d", first, info.Size())
			}
		})
	}
}

// TestStaleRemains: what an interrupted transfer of other content has left does not spoil
// the next one.
func TestStaleRemains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, 3, "2026.5.0", says("2026.5.0", Platform()))
	partial := filepath.Join(w.root, "versions", "2026.5.0.partial")
	if err := os.MkdirAll(partial, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(partial, program), []byte("something else"), 0o755); err != nil { //nolint:gosec // as it is while it is tried
		t.Fatal(err)
	}
	if _, err := w.store.Stage(t.Context(), w.request(), nil); err != nil {
		t.Error(err)
	}
}

func TestStalledTransfer(t *testing.T) {
	t.Parallel()
	let := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "feed.json") {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush() //nolint:forcetypeassert // net/http's own
		<-let
	}))
	defer s.Close()
	defer close(let)
	w := newWorld(t)
	r := w.request(func(r *Request) { r.Source = Source{Feed: s.URL + "/feed.json", Stall: 50 * time.Millisecond} })
	if _, err := w.store.Check(t.Context(), r); err == nil || !strings.Contains(err.Error(), "nothing came") {
		t.Error(err)
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := says("2026.5.0", Platform())
	write := func(platform string, content []byte) string { return writeBundle(t, platform, content) }
	from := func(path string) Request {
		return w.request(func(r *Request) { r.Source = Source{Bundle: path} })
	}
	if _, err := w.store.Stage(t.Context(), from(write("plan9/mips", content)), nil); !Is(err, OtherPlatform) {
		t.Errorf("for another platform: %v", err)
	}
	if _, err := w.store.Stage(t.Context(), from(write(Platform(), append(content[:len(content)-1:len(content)-1], 'x'))), nil); !Is(err, Corrupt) {
		t.Errorf("corrupt: %v", err)
	}
	if _, err := w.store.Stage(t.Context(), from(write(Platform(), content[:1000])), nil); !Is(err, Truncated) {
		t.Errorf("truncated: %v", err)
	}
	whole := write(Platform(), content)
	half := filepath.Join(t.TempDir(), "half")
	raw, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(half, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Stage(t.Context(), from(half), nil); !Is(err, Truncated) {
		t.Errorf("half a bundle: %v", err)
	}
	w.nothing(t)
	offer, err := w.store.Stage(t.Context(), from(whole), nil)
	if err != nil || offer.Release.Version != "2026.5.0" {
		t.Fatal(offer, err)
	}
	if _, err := w.store.Manifest("2026.5.0"); err != nil {
		t.Error(err)
	}
}

// writeBundle makes a bundle of version 2026.5.0, whose feed has another content if it is
// not the right one, and a newer version.
func writeBundle(t *testing.T, platform string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := release("2026.5.0", Platform(), says("2026.5.0", Platform()))
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, content, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := release("2026.6.0", Platform(), []byte("not in the bundle"))
	err = bundle.Write(f, signedFeed(t, 4, key(1), r, newer), "2026.5.0", []bundle.Program{{Platform: platform, Path: source, Size: int64(len(content))}})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTrust(t *testing.T) {
	t.Parallel()
	w := &world{site: newSite(t), root: t.TempDir()}
	w.store = Open(w.root, nil)
	w.publish(t, 3, "2026.5.0", says("2026.5.0", Platform()))
	if _, err := w.store.Check(t.Context(), w.request()); !errors.Is(err, ErrNoRoot) {
		t.Errorf("without a root: %v", err)
	}
	if _, err := Open(w.root, signedRoot(t, 1, key(1), key(1))).Check(t.Context(), w.request()); err != nil {
		t.Errorf("by the built-in root: %v", err)
	}
	if _, err := w.store.Pin(signedRoot(t, 1, key(1), key(2)), false); err == nil {
		t.Error("a root that another key has signed was pinned")
	}
	first := signedRoot(t, 1, key(1), key(1))
	for range 2 {
		if _, err := w.store.Pin(first, false); err != nil {
			t.Fatal(err)
		}
	}
	stranger := signedRoot(t, 2, key(2), key(2))
	if _, err := w.store.Pin(stranger, false); !releasefeed.Is(err, releasefeed.UnknownKeys) {
		t.Errorf("a root that does not follow: %v", err)
	}
	if _, err := w.store.Pin(stranger, true); err != nil {
		t.Errorf("in its place: %v", err)
	}
	if _, err := w.store.Pin(first, true); err != nil {
		t.Fatal(err)
	}
	// Roots that follow are taken from where the feed is, however many there are.
	w.put("root.2.json", signedRoot(t, 2, key(2), key(1), key(2)))
	w.put("root.3.json", signedRoot(t, 3, key(3), key(2), key(3)))
	w.put("feed.json", signedFeed(t, 4, key(1), release("2026.5.0", Platform(), []byte("x"))))
	if _, err := w.store.Check(t.Context(), w.request()); !releasefeed.Is(err, releasefeed.UnknownKeys) {
		t.Errorf("a key that is trusted no more: %v", err)
	}
	w.put("feed.json", signedFeed(t, 4, key(3), release("2026.5.0", Platform(), []byte("x"))))
	if _, err := w.store.Check(t.Context(), w.request()); err != nil {
		t.Errorf("by the newest key: %v", err)
	}
	if root, err := w.store.Root(); err != nil || root.Version != 3 {
		t.Errorf("root %d, %v", root.Version, err)
	}
	// A version that failed here is offered no more, but can be asked for.
	if err := w.store.MarkBad("2026.5.0", "it crashed"); err != nil {
		t.Fatal(err)
	}
	var no *releasefeed.NoChoice
	if _, err := w.store.Check(t.Context(), w.request()); !errors.As(err, &no) || !no.Newest {
		t.Errorf("a bad version: %v", err)
	}
	if _, err := w.store.Check(t.Context(), w.request(func(r *Request) { r.Wanted = "2026.5.0" })); err != nil {
		t.Errorf("by name: %v", err)
	}
	if err := w.store.Forgive("2026.5.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Check(t.Context(), w.request()); err != nil {
		t.Errorf("forgiven: %v", err)
	}
	if err := w.store.UseFeed("ftp://host/feed.json"); err == nil {
		t.Error("an address of another kind")
	}
	// A clock that was put back does not make an expired feed valid again.
	if err := w.store.saw("edge", releasefeed.Seen{Number: 1, Issued: start.AddDate(1, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Check(t.Context(), w.request()); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("with a clock that was put back: %v", err)
	}
	// A file that cannot be read is not taken for none.
	if err := os.WriteFile(filepath.Join(w.root, "upgrade", "trust.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Check(t.Context(), w.request()); err == nil || errors.Is(err, ErrNoRoot) {
		t.Errorf("a damaged file: %v", err)
	}
}
