// Package feedtest is a site with a signed feed of releases on loopback, for tests.
package feedtest

import (
	"crypto/ed25519"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// Site is the site. Its feed is of the channel "stable".
type Site struct {
	// URL is that of the feed, Root the file with the root that believes it, and Dir where
	// the site's files are.
	URL, Root, Dir string

	key      ed25519.PrivateKey
	number   int64
	mu       sync.Mutex
	requests []*http.Request
}

// New starts a site without a feed; it ends with the test.
func New(t testing.TB) *Site {
	t.Helper()
	s := &Site{Dir: t.TempDir(), key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	files := http.FileServer(http.Dir(s.Dir))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r)
		s.mu.Unlock()
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	s.URL = web.URL + "/feed.json"
	public, _ := s.key.Public().(ed25519.PublicKey)
	root, err := releasefeed.NewRoot(1, 1, public)
	check(t, err)
	signed, err := releasefeed.Sign(root, s.key)
	check(t, err)
	s.Root = filepath.Join(t.TempDir(), "root.json")
	check(t, os.WriteFile(s.Root, signed, 0o600))
	return s
}

// Publish signs a feed with these releases, good for a time.
func (s *Site) Publish(t testing.TB, good time.Duration, releases ...releasefeed.Release) {
	t.Helper()
	s.number++
	feed, err := releasefeed.NewFeed(releasefeed.Feed{Channel: "stable", Number: s.number, Issued: time.Now().Add(-time.Hour), Expires: time.Now().Add(good), Releases: releases})
	check(t, err)
	signed, err := releasefeed.Sign(feed, s.key)
	check(t, err)
	check(t, durable.WriteFile(filepath.Join(s.Dir, "feed.json"), signed, 0o600))
}

// Release is a version whose program is described and is not there.
func Release(version string) releasefeed.Release {
	return releasefeed.Release{
		Version: version, Date: time.Unix(1000, 0).UTC(), Level: 1, MinReaderLevel: 1, UpgradeFromMin: "2026.1.0", Rollback: releasefeed.RollbackFree,
		Artifacts: map[string]releasefeed.Artifact{stage.Platform(): {URL: "tako-" + version, Size: 5, SHA256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}},
	}
}

// Requests are those that came so far.
func (s *Site) Requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
