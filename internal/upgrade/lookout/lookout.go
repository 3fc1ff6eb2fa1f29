// Package lookout looks from time to time whether the feed of releases has a newer
// version, and keeps what it has found. It fetches the feed and nothing else, and tells
// nothing of the server: the feed's address is asked for as a file is.
package lookout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// Config of a Lookout.
type Config struct {
	// Store has what is trusted, and where the feed is unless somebody says.
	Store *stage.Store
	// File is where the last finding is kept, over restarts.
	File string
	// Usual is the feed that is asked when nobody has named one, "" for none. It is asked
	// only when a person wants to know, never by itself.
	Usual string
	// Channel is the feed's, Version the one that runs.
	Channel, Version string
	// Interval is how often it is looked; 0 is never by itself.
	Interval time.Duration
	// Allowed tells whether it may be looked now; nil is always.
	Allowed func(context.Context) (bool, error)
	Log     *slog.Logger
}

// Finding is what was found when it was last looked.
type Finding struct {
	// At is when, for which version and where (without a password).
	At      time.Time `json:"at"`
	Version string    `json:"version"`
	Feed    string    `json:"feed"`
	// Error is why nothing was learned, "" if all went well. Survey is then what was found
	// before, at Found.
	Error  string        `json:"error,omitempty"`
	Survey *stage.Survey `json:"survey,omitempty"`
	Found  time.Time     `json:"found,omitzero"`
}

// ErrNoFeed says that nobody has said where the feed is.
var ErrNoFeed = errors.New("nobody has said where the feed of releases is; set upgrade_feed where the server is started, or use `tako upgrade trust --feed URL`")

// Lookout looks for newer versions. It is safe for concurrent use.
type Lookout struct {
	cfg Config

	looking sync.Mutex // held while the feed is asked
	mu      sync.Mutex
	last    *Finding
	said    string // the version that the log tells of
	warned  bool   // of an expired feed
}

// New makes a Lookout.
func New(cfg Config) *Lookout {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Lookout{cfg: cfg}
}

// Feed is the address that is asked, "" for none; ofOwn tells that somebody has named it.
func (l *Lookout) Feed() (address string, ofOwn bool, err error) {
	t, err := l.cfg.Store.Trust()
	if err != nil {
		return "", false, err
	}
	if t.Feed != "" {
		return t.Feed, true, nil
	}
	return l.cfg.Usual, false, nil
}

// Channel is the channel that is looked at.
func (l *Lookout) Channel() string { return l.cfg.Channel }

// ByItself reports whether it is looked without somebody asking, as far as it is for the
// lookout to say.
func (l *Lookout) ByItself() (bool, error) {
	_, own, err := l.Feed()
	return own && l.cfg.Interval > 0, err
}

// Last is what was found last, nil for nothing yet. What was found for another version
// than the one that runs counts for nothing.
func (l *Lookout) Last() (*Finding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != nil {
		return l.last, nil
	}
	raw, err := os.ReadFile(l.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read what was found in the feed of releases: %w", err)
	}
	var f Finding
	if err := json.Unmarshal(raw, &f); err != nil || f.Version != l.cfg.Version {
		return nil, nil //nolint:nilnil,nilerr // it is looked again
	}
	l.last = &f
	return l.last, nil
}

// Newest is the version that is offered, and whether it closes a security hole; "" for
// none. One that has failed here since it was found is not offered.
func (l *Lookout) Newest() (version string, security bool) {
	f, err := l.Last()
	if err != nil || f == nil || f.Survey == nil || f.Survey.Newest == "" {
		return "", false
	}
	if t, err := l.cfg.Store.Trust(); err != nil || t.Bad[f.Survey.Newest] != "" {
		return "", false
	}
	for _, o := range f.Survey.Options {
		if o.Release.Version == f.Survey.Newest {
			return o.Release.Version, o.Release.Security
		}
	}
	return f.Survey.Newest, false
}

// Look asks the feed now, and keeps what it has. The finding is there also after an
// error, with that in it.
func (l *Lookout) Look(ctx context.Context, now time.Time) (*Finding, error) {
	l.looking.Lock()
	defer l.looking.Unlock()
	address, _, err := l.Feed()
	if err != nil {
		return nil, err
	}
	if address == "" {
		return nil, ErrNoFeed
	}
	before, err := l.Last()
	if err != nil {
		return nil, err
	}
	f := &Finding{At: now.UTC(), Version: l.cfg.Version, Feed: Redacted(address)}
	survey, failed := l.cfg.Store.Survey(ctx, stage.Request{Source: stage.Source{Feed: address}, Channel: l.cfg.Channel, Version: l.cfg.Version, Now: now})
	switch {
	case failed != nil:
		f.Error = failed.Error()
		if before != nil && before.Feed == f.Feed {
			f.Survey, f.Found = before.Survey, before.Found
		}
	default:
		f.Survey, f.Found = survey, f.At
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return f, err
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(l.cfg.File), 0o700), durable.WriteFile(l.cfg.File, append(raw, '\n'), 0o600)); err != nil {
		return f, fmt.Errorf("keep what was found in the feed of releases: %w", err)
	}
	l.mu.Lock()
	l.last = f
	l.mu.Unlock()
	l.tell(f)
	return f, failed
}

// tell says in the log, once, what is new.
func (l *Lookout) tell(f *Finding) {
	if f.Survey == nil || f.Error != "" {
		return
	}
	newest, security := l.Newest()
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.Survey.Expired && !l.warned {
		l.cfg.Log.Warn("the feed of releases has expired: a newer one may have been kept from this server", "feed", f.Feed, "expired", f.Survey.Expires)
	}
	l.warned = f.Survey.Expired
	if newest != "" && newest != l.said {
		l.cfg.Log.Info("a newer version is there", "version", newest, "security", security)
	}
	l.said = newest
}

// Redacted is an address without a password in it.
func Redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(no address)"
	}
	return u.Redacted()
}

// Run looks from time to time until ctx ends, if a feed is named and it is allowed. When
// is somewhat random, so that not all servers ask at once.
func (l *Lookout) Run(ctx context.Context) error {
	if l.cfg.Interval <= 0 {
		return nil
	}
	failed := ""
	for {
		timer := time.NewTimer(l.pause(time.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		err := l.due(ctx)
		if ctx.Err() != nil {
			return nil
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != failed {
			l.cfg.Log.Warn("look for newer versions", "err", err)
		}
		failed = text
	}
}

// pause is how long nothing is to be done: the rest of the interval, which is up to a
// tenth longer, and never none at all.
func (l *Lookout) pause(now time.Time) time.Duration {
	tenth := time.Duration(rand.Int64N(int64(l.cfg.Interval)/10 + 1)) //nolint:gosec // no secret
	var rest time.Duration
	if f, err := l.Last(); err == nil && f != nil {
		rest = min(f.At.Add(l.cfg.Interval).Sub(now), l.cfg.Interval) // a clock may have been wrong
	}
	return max(rest, shortest(l.cfg.Interval)) + tenth
}

// shortest keeps a lookout that may not look, or cannot keep what it finds, from spinning.
func shortest(interval time.Duration) time.Duration { return min(interval, 5*time.Minute) / 10 }

func (l *Lookout) due(ctx context.Context) error {
	if own, err := l.ByItself(); err != nil || !own {
		return err
	}
	if l.cfg.Allowed != nil {
		if ok, err := l.cfg.Allowed(ctx); err != nil || !ok {
			return err
		}
	}
	_, err := l.Look(ctx, time.Now())
	return err
}

// Pin trusts the keys of a file that the server was started with, if no later ones that
// follow from some are trusted already.
func Pin(s *stage.Store, path string) error {
	raw, err := readFile(path)
	if err != nil {
		return err
	}
	root, err := releasefeed.ParseRoot(raw)
	if err != nil {
		return fmt.Errorf("the keys in %s: %w", path, err)
	}
	now, err := s.Root()
	switch {
	case errors.Is(err, stage.ErrNoRoot):
	case err != nil:
		return err
	case now.Version > root.Version:
		return nil
	}
	_, err = s.Pin(raw, false)
	return err
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys that sign releases: %w", err)
	}
	if info.Size() > releasefeed.MaxDocument {
		return nil, fmt.Errorf("read the keys that sign releases: %s has %d bytes, at most %d are allowed", path, info.Size(), releasefeed.MaxDocument)
	}
	return os.ReadFile(path)
}
