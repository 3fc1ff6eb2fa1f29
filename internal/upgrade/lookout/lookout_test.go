package lookout_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/upgrade/feedtest"
	"github.com/takodeploy/tako/internal/upgrade/lookout"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// world is a server's directory that looks at a site.
type world struct {
	t    *testing.T
	site *feedtest.Site
	cfg  lookout.Config
	*lookout.Lookout
}

func newWorld(t *testing.T) *world {
	t.Helper()
	root := t.TempDir()
	w := &world{t: t, site: feedtest.New(t), cfg: lookout.Config{Store: stage.Open(root, nil), File: filepath.Join(root, "upgrade", "found.json"), Channel: "stable", Version: "2026.4.0"}}
	if err := errors.Join(lookout.Pin(w.cfg.Store, w.site.Root), w.cfg.Store.UseFeed(w.site.URL)); err != nil {
		t.Fatal(err)
	}
	w.again()
	return w
}

// again starts anew with what is on disk.
func (w *world) again() { w.Lookout = lookout.New(w.cfg) }

func (w *world) look() *lookout.Finding {
	w.t.Helper()
	f, err := w.Look(w.t.Context(), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// TestLook: what a feed has is found and kept, what is wrong with it is told, and nothing
// but the feed is asked for.
func TestLook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if f, err := w.Last(); f != nil || err != nil {
		t.Errorf("before: %+v, %v", f, err)
	}
	old, stop, secure, wrong := feedtest.Release("2026.3.0"), feedtest.Release("2026.5.0"), feedtest.Release("2026.6.0"), feedtest.Release("2026.7.0")
	stop.RequiredStop, stop.Notes = true, "On the way."
	secure.Security, secure.Rollback = true, "restore"
	wrong.Revoked = "It forgets."
	w.site.Publish(t, time.Hour, old, stop, secure, wrong)
	f := w.look()
	if f.Survey.Newest != "2026.5.0" || f.Survey.Expired || f.Error != "" {
		t.Errorf("found %+v", f)
	}
	var got []string
	for _, o := range f.Survey.Options {
		got = append(got, strings.Join([]string{o.Release.Version, o.Via, o.Refused}, "|"))
	}
	if diff := cmp.Diff([]string{
		"2026.7.0||Version 2026.7.0 was revoked: It forgets.",
		"2026.6.0|2026.5.0|Version 2026.5.0 must be installed first.",
		"2026.5.0||",
	}, got); diff != "" {
		t.Errorf("the options (-want +got)\n%s", diff)
	}
	if v, security := w.Newest(); v != "2026.5.0" || security {
		t.Errorf("newest is %s, %t", v, security)
	}
	for _, r := range w.site.Requests() {
		names := slices.Sorted(maps.Keys(r.Header))
		if r.Method != "GET" || r.URL.RawQuery != "" || r.ContentLength != 0 || !cmp.Equal(names, []string{"Accept-Encoding", "User-Agent"}) || strings.Contains(r.UserAgent(), "2026") || !strings.HasSuffix(r.URL.Path, ".json") {
			t.Errorf("it was asked %s %s with %v", r.Method, r.URL, r.Header)
		}
	}

	// It is kept, for the version that has found it.
	w.again()
	if v, _ := w.Newest(); v != "2026.5.0" {
		t.Errorf("after a restart newest is %q", v)
	}
	w.cfg.Version = "2026.5.0"
	w.again()
	if last, err := w.Last(); last != nil || err != nil {
		t.Errorf("another version found %+v, %v", last, err)
	}
	if f := w.look(); f.Survey.Newest != "2026.6.0" {
		t.Errorf("from 2026.5.0 on: %+v", f.Survey)
	}
	if v, security := w.Newest(); v != "2026.6.0" || !security {
		t.Errorf("newest is %s, %t", v, security)
	}
	// What failed here is not offered again.
	if err := w.cfg.Store.MarkBad("2026.6.0", "it fell over"); err != nil {
		t.Fatal(err)
	}
	if v, _ := w.Newest(); v != "" {
		t.Errorf("a bad version is offered: %s", v)
	}
	if f := w.look(); f.Survey.Newest != "" || f.Survey.Options[1].Bad != "it fell over" || f.Survey.Options[1].Refused != "" {
		t.Errorf("with a bad one: %+v", f.Survey)
	}
	// An expired feed offers nothing by itself, and says why.
	w.site.Publish(t, -time.Minute, old, stop, secure)
	if f := w.look(); !f.Survey.Expired || f.Survey.Newest != "" || !strings.Contains(f.Survey.Message, "has expired") || len(f.Survey.Options) != 1 {
		t.Errorf("expired: %+v", f.Survey)
	}
	// A feed that cannot be had leaves what was found before.
	if err := os.Remove(filepath.Join(w.site.Dir, "feed.json")); err != nil {
		t.Fatal(err)
	}
	broken, err := w.Look(t.Context(), time.Now())
	if err == nil || broken.Error == "" || broken.Survey == nil || !broken.Found.Before(broken.At) {
		t.Errorf("without a feed: %+v, %v", broken, err)
	}
}

// TestNoFeed: nobody has named one, or no keys.
func TestNoFeed(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	site := feedtest.New(t)
	cfg := lookout.Config{Store: stage.Open(root, nil), File: filepath.Join(root, "found.json"), Channel: "stable", Version: "2026.4.0", Interval: time.Hour}
	if _, err := lookout.New(cfg).Look(t.Context(), time.Now()); !errors.Is(err, lookout.ErrNoFeed) {
		t.Errorf("without a feed: %v", err)
	}
	cfg.Usual = site.URL
	l := lookout.New(cfg)
	if on, err := l.ByItself(); on || err != nil {
		t.Errorf("a feed that nobody has named is looked at: %t, %v", on, err)
	}
	site.Publish(t, time.Hour, feedtest.Release("2026.5.0"))
	if _, err := l.Look(t.Context(), time.Now()); !errors.Is(err, stage.ErrNoRoot) {
		t.Errorf("without keys: %v", err)
	}
	if err := cfg.Store.UseFeed(site.URL); err != nil {
		t.Fatal(err)
	}
	if on, err := l.ByItself(); !on || err != nil {
		t.Errorf("a feed that somebody has named is not looked at: %t, %v", on, err)
	}
	if got := lookout.Redacted("https://me:hush@host/feed.json"); got != "https://me:xxxxx@host/feed.json" {
		t.Errorf("redacted: %s", got)
	}
}

// TestRun: it is looked again and again, unless that is forbidden.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.site.Publish(t, time.Hour, feedtest.Release("2026.5.0"))
	var asked atomic.Int64
	var allow atomic.Bool
	w.cfg.Interval = 10 * time.Millisecond
	w.cfg.Allowed = func(context.Context) (bool, error) { asked.Add(1); return allow.Load(), nil }
	w.again()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	eventually(t, "it was asked whether it is allowed", func() bool { return asked.Load() > 3 })
	if n := len(w.site.Requests()); n != 0 {
		t.Errorf("%d requests though it is forbidden", n)
	}
	allow.Store(true)
	eventually(t, "the feed was asked", func() bool { return len(w.site.Requests()) > 4 })
	if v, _ := w.Newest(); v != "2026.5.0" {
		t.Errorf("newest is %q", v)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(2 * time.Minute); !is(); time.Sleep(time.Millisecond) { //nolint:forbidigo // between two looks
		if time.Now().After(late) {
			t.Fatal("not so: " + what)
		}
	}
}
