package releasefeed

import (
	"encoding/hex"
	"encoding/json"
	"regexp"
	"slices"
	"time"

	"github.com/takodeploy/tako/internal/version"
)

// Feed is all releases of a channel.
type Feed struct {
	Type    string `json:"type"` // "feed"
	Channel string `json:"channel"`
	// Number grows with every feed of the channel that is signed.
	Number  int64     `json:"feed_version"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	// Releases in no particular order.
	Releases []Release `json:"releases"`
}

const typeFeed = "feed"

// Rollback says what going back from a release costs.
type Rollback string

// The costs of going back.
const (
	RollbackFree    Rollback = "free"    // until it is finalized nothing is lost
	RollbackRestore Rollback = "restore" // only with the backup
)

// Release is one version of Tako.
type Release struct {
	Version string    `json:"version"`
	Commit  string    `json:"commit,omitempty"`
	Date    time.Time `json:"date"`
	// Level is that of its schema, MinReaderLevel the lowest level of a program that
	// may use a database which it has finalized.
	Level          int `json:"level"`
	MinReaderLevel int `json:"min_reader_level"`
	// UpgradeFromMin is the oldest version that it can be upgraded to from.
	UpgradeFromMin string `json:"upgrade_from_min"`
	// RequiredStop must not be jumped over: older versions go here first.
	RequiredStop bool     `json:"required_stop,omitempty"`
	Rollback     Rollback `json:"rollback"`
	// Security tells that it closes a hole in those before it.
	Security bool `json:"security,omitempty"`
	// Revoked says why nobody should install it, "" for a good one.
	Revoked   string              `json:"revoked,omitempty"`
	Artifacts map[string]Artifact `json:"artifacts"` // by platform: "linux/amd64"
	Database  Database            `json:"db"`
	Notes     string              `json:"notes,omitempty"`
}

// Artifact is the program for a platform.
type Artifact struct {
	// URL is relative to the feed's own, so that a mirror needs no other feed.
	URL    string `json:"url"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // lower-case hex
}

// Database is the oldest version of each database that a release works with, "" for any.
type Database struct {
	SQLite     string `json:"sqlite_min,omitempty"`
	PostgreSQL string `json:"pg_min,omitempty"`
}

// MaxArtifact is the size of the largest program that is fetched.
const MaxArtifact = 1 << 30

// Parsed is the release's version, to be compared; the zero Version if it is none.
func (r *Release) Parsed() version.Version { return parse(r.Version) }

func parse(text string) version.Version {
	v, err := version.Parse(version.SemVer, text)
	if err != nil {
		return version.Version{}
	}
	return v
}

// Seen is what a server remembers of the feeds it has believed.
type Seen struct {
	// Number is the highest of the channel.
	Number int64 `json:"feed_version"`
	// Issued is the latest time that a feed has told. No clock of ours can be behind it.
	Issued time.Time `json:"issued"`
}

// Verified is a feed that is believed.
type Verified struct {
	Feed
	// Expired tells that its time is over: a newer one may have been kept back. Then
	// only a version that a person names is taken from it.
	Expired bool
	// Seen is what to remember from now on.
	Seen Seen
}

// Verify reads a signed feed of the channel. It is believed if the root's keys have
// signed it and no newer one was seen. An error is an *Error.
func Verify(signed []byte, root Root, channel string, seen Seen, now time.Time) (*Verified, error) {
	e, err := open(signed)
	if err != nil {
		return nil, err
	}
	document, err := e.verified(root.Keys, root.Threshold)
	if err != nil {
		return nil, err
	}
	if t := kind(document); t != typeFeed {
		return nil, refuse(Foreign, "The document is signed, but it is no feed of releases (type %.20q).", t)
	}
	v := &Verified{}
	if err := json.Unmarshal(document, &v.Feed); err != nil {
		return nil, refuse(Malformed, "The feed is signed, but cannot be read: %v.", err)
	}
	switch {
	case v.Channel != channel:
		return nil, refuse(Foreign, "The feed is of the channel %.40q; %.40q was asked for.", v.Channel, channel)
	case v.Number < seen.Number:
		return nil, refuse(Older, "The feed has the number %d, but one with number %d was seen before: somebody offers an old one.", v.Number, seen.Number)
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	v.Seen = Seen{Number: v.Number, Issued: latest(seen.Issued, v.Issued)}
	v.Expired = latest(now, v.Seen.Issued).After(v.Expires)
	return v, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// NewFeed completes a feed that is to be signed, or says what is wrong with it.
func NewFeed(f Feed) (Feed, error) {
	f.Type = typeFeed
	f.Releases = slices.Clone(f.Releases)
	slices.SortFunc(f.Releases, func(a, b Release) int { return version.Compare(b.Parsed(), a.Parsed()) })
	return f, f.check()
}

var platformForm = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+$`)

func (f *Feed) check() error {
	if f.Channel == "" || f.Number < 1 || f.Issued.IsZero() || !f.Expires.After(f.Issued) {
		return refuse(Malformed, "The feed lacks a channel, a number, or a time from which and until which it is valid.")
	}
	if len(f.Releases) > maxReleases {
		return refuse(Malformed, "The feed has %d releases; the limit is %d.", len(f.Releases), maxReleases)
	}
	seen := map[string]bool{}
	for i := range f.Releases {
		r := &f.Releases[i]
		v := r.Parsed()
		if v.IsZero() || v.Normalized() != r.Version || seen[r.Version] {
			return refuse(Malformed, "The feed has a release %.40q, which is no version or is there twice.", r.Version)
		}
		seen[r.Version] = true
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Release) check() error {
	switch {
	case parse(r.UpgradeFromMin).IsZero():
		return refuse(Malformed, "Release %s does not say from which version it can be upgraded to.", r.Version)
	case r.Level < 1 || r.MinReaderLevel < 0 || r.MinReaderLevel > r.Level:
		return refuse(Malformed, "Release %s has the schema level %d, to be read from level %d: they do not fit together.", r.Version, r.Level, r.MinReaderLevel)
	case r.Rollback != RollbackFree && r.Rollback != RollbackRestore:
		return refuse(Malformed, "Release %s does not say what going back costs.", r.Version)
	}
	for platform, a := range r.Artifacts {
		sum, err := hex.DecodeString(a.SHA256)
		if !platformForm.MatchString(platform) || a.URL == "" || a.Size < 1 || a.Size > MaxArtifact || err != nil || len(sum) != 32 || hex.EncodeToString(sum) != a.SHA256 {
			return refuse(Malformed, "Release %s has a program for %.40q without an address, a size up to %d bytes, or a SHA-256.", r.Version, platform, MaxArtifact)
		}
	}
	return nil
}
