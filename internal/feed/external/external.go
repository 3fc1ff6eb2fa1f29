// Package external reads packages from feeds that are other servers: it searches
// them, lists versions, reads release notes, and fetches packages to the blob store.
//
// Each kind of feed is a source, in a file of its own. What they have in common is
// here and in client.go: bounds on the time and the size of every answer,
// credentials that go to the feed's own address alone, errors that name the feed
// and a remedy and never a secret, and a cache of what was fetched.
//
// Everything here asks other servers, so nothing of it may be called inside of a
// transaction.
package external

import (
	"context"
	"errors"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

const (
	kind = "feeds"
	// maxVersions is of how many versions of a package is known at most; a feed
	// that has more is read no further.
	maxVersions = 10_000
	// maxPages is how many pages of one listing are asked for.
	maxPages = 200
	// MaxSearch is how many packages a search finds at most.
	MaxSearch = 200
	// maxName bounds the id of a package and a version, in bytes.
	maxName = 512
)

// Blobs keeps what is fetched.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, limit int64) (blob.Info, error)
}

// Config of Feeds. What is not set has its default.
type Config struct {
	DB    *db.DB
	Store *docstore.Store
	Blobs Blobs
	// Proxy tells through which proxy a request goes; HTTP_PROXY, HTTPS_PROXY and
	// NO_PROXY of the environment unless set.
	Proxy func(*http.Request) (*url.URL, error)
	// Answer is how long a feed has for an answer other than a package, 30 seconds;
	// Stall how long a download may stand still, a minute.
	Answer, Stall time.Duration
	// MaxPackage bounds a package, 16 GiB; MaxAnswer any other answer, 32 MiB.
	MaxPackage, MaxAnswer int64
	// CacheBytes and CacheAge are what Prune leaves: 20 GiB, and what was used
	// within 30 days.
	CacheBytes int64
	CacheAge   time.Duration
}

// Feeds are the external feeds of all spaces. It is safe for concurrent use.
type Feeds struct {
	cfg       Config
	transport *http.Transport

	mu       sync.Mutex
	fetching map[string]chan struct{} // closed when the fetch by that name has ended
}

// New makes the feeds.
func New(cfg Config) *Feeds {
	def(&cfg.Answer, 30*time.Second)
	def(&cfg.Stall, time.Minute)
	def(&cfg.MaxPackage, 16<<30)
	def(&cfg.MaxAnswer, 32<<20)
	def(&cfg.CacheBytes, 20<<30)
	def(&cfg.CacheAge, 30*24*time.Hour)
	if cfg.Proxy == nil {
		cfg.Proxy = egress.Proxy
	}
	return &Feeds{cfg: cfg, fetching: map[string]chan struct{}{}, transport: &http.Transport{
		Proxy: cfg.Proxy, DialContext: egress.Dialer(net.Dialer{Timeout: cfg.Answer}), ForceAttemptHTTP2: true, TLSHandshakeTimeout: cfg.Answer, ResponseHeaderTimeout: cfg.Answer,
		MaxIdleConnsPerHost: 4, IdleConnTimeout: 10 * time.Second, MaxResponseHeaderBytes: 1 << 20,
	}}
}

func def[T comparable](v *T, or T) {
	if *v == *new(T) {
		*v = or
	}
}

// Description is a package that a search found.
type Description struct {
	ID, Description string
	Latest          string // version, "" where the feed does not tell
}

// Version is a version of a package.
type Version struct {
	Version   string
	Title     string
	Published time.Time // zero where the feed does not tell
	Size      int64     // bytes, 0 where the feed does not tell
}

// Query says which versions of a package are wanted.
type Query struct {
	PackageID string
	// Range and Tag are what a channel's rule has; Filter is a part of a version.
	Range, Tag, Filter string
	NoPrerelease       bool
}

// File is a package that was fetched: its content is the blob with that hash.
type File struct {
	Name   string
	SHA256 string
	Size   int64 // bytes
}

// source is a feed of some kind. A package that the feed does not have has no
// versions, and is a fault NotFound to open.
type source interface {
	// search finds packages by a part of their id, at most limit.
	search(ctx context.Context, term string, limit int) ([]Description, error)
	// versions lists the versions of a package, in any order.
	versions(ctx context.Context, packageID string) ([]Version, error)
	// open begins to fetch a package.
	open(ctx context.Context, packageID, text string) (*download, error)
}

// noter is a source that has release notes.
type noter interface {
	// notes reads the release notes of a version, "" when it has none.
	notes(ctx context.Context, packageID, text string) (string, error)
}

// download is a package on its way.
type download struct {
	name string // of the file
	body io.ReadCloser
	// sum is the hash that content must have in hexadecimal, by the function hash;
	// nil where the feed tells none.
	hash hash.Hash
	sum  string
	// moving tells that the version may have other content tomorrow.
	moving bool
}

// opened is a feed that is about to be asked.
type opened struct {
	source
	doc    octopus.Feed
	scheme version.Scheme
}

func (f *Feeds) open(ctx context.Context, space ident.SpaceID, id string) (*opened, error) {
	o := &opened{}
	err := f.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		k, err := f.cfg.Store.Kind(kind)
		if err != nil {
			return err
		}
		doc, err := f.cfg.Store.Get(ctx, tx, k, space, id)
		if err != nil {
			return err
		}
		o.doc = octopus.Feed{}
		return f.cfg.Store.Reveal(ctx, tx, kind, doc.ID, &o.doc)
	})
	if err != nil {
		return nil, err
	}
	o.scheme = version.SchemeOfFeed(string(o.doc.FeedType))
	o.source, err = f.source(&o.doc)
	return o, err
}

// source makes the source of a feed, whose secrets are in clear.
func (f *Feeds) source(doc *octopus.Feed) (source, error) {
	switch doc.FeedType {
	case octopus.FeedNuGet:
		return f.nuget(doc)
	case octopus.FeedMaven:
		return f.maven(doc)
	case octopus.FeedHelm:
		return f.helm(doc)
	case octopus.FeedGitHub:
		return f.github(doc)
	case octopus.FeedS3:
		return f.s3(doc)
	case octopus.FeedDocker, octopus.FeedOCI, octopus.FeedACR, octopus.FeedGCR:
		return f.registry(doc)
	default:
		return nil, fault.New(fault.Unsupported, "The feed '%s' is of the type %s, which this server cannot read; use a feed of another type, or push the packages to the built-in feed.", doc.Name, doc.FeedType)
	}
}

func clear(s *octopus.Sensitive) string {
	if s == nil || s.NewValue == nil {
		return ""
	}
	return *s.NewValue
}

// checkName refuses what cannot be the id of a package or a version, above all what
// would lead out of the feed's own paths.
func checkName(field, text string) error {
	bad := text == "" || len(text) > maxName || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f })
	for part := range strings.SplitSeq(text, "/") {
		bad = bad || part == "" || part == "." || part == ".."
	}
	if bad {
		return fault.InvalidField(field, "%s is '%.100s', which no package can have; give it as the feed spells it.", field, text)
	}
	return nil
}

// Search finds packages of a feed by a part of their id, at most MaxSearch.
func (f *Feeds) Search(ctx context.Context, space ident.SpaceID, feedID, term string) ([]Description, error) {
	if len(term) > maxName {
		return nil, fault.InvalidField("term", "term has %d bytes; use at most %d.", len(term), maxName)
	}
	o, err := f.open(ctx, space, feedID)
	if err != nil {
		return nil, err
	}
	found, err := o.search(ctx, term, MaxSearch)
	return found[:min(len(found), MaxSearch)], err
}

// Versions lists the versions of a package that a query wants, the newest first by
// the order of the feed's kind. A package that the feed does not have has none.
// Versions that are none by the rules of the kind are left out.
func (f *Feeds) Versions(ctx context.Context, space ident.SpaceID, feedID string, q Query) ([]Version, error) {
	if err := checkName("packageId", q.PackageID); err != nil {
		return nil, err
	}
	o, err := f.open(ctx, space, feedID)
	if err != nil {
		return nil, err
	}
	rule, err := version.NewRule(o.scheme, q.Range, q.Tag, "")
	if err != nil {
		return nil, err
	}
	all, err := o.versions(ctx, q.PackageID)
	if err != nil {
		return nil, err
	}
	type parsed struct {
		Version
		is version.Version
	}
	kept := make([]parsed, 0, len(all))
	for _, one := range all {
		v, err := version.Parse(o.scheme, one.Version)
		if err != nil || q.NoPrerelease && v.Prerelease != "" || !strings.Contains(ident.Fold(one.Version), ident.Fold(q.Filter)) {
			continue
		}
		if ok, err := rule.Accepts(v); err != nil {
			return nil, err
		} else if ok {
			kept = append(kept, parsed{one, v})
		}
	}
	slices.SortStableFunc(kept, func(a, b parsed) int { return version.Compare(b.is, a.is) })
	out := make([]Version, len(kept))
	for i, p := range kept {
		out[i] = p.Version
	}
	return out, nil
}

// Version finds one version of a package; fault.NotFound when the feed does not
// have it.
func (f *Feeds) Version(ctx context.Context, space ident.SpaceID, feedID, packageID, text string) (Version, error) {
	if err := errors.Join(checkName("packageId", packageID), checkName("version", text)); err != nil {
		return Version{}, err
	}
	o, err := f.open(ctx, space, feedID)
	if err != nil {
		return Version{}, err
	}
	return o.version(ctx, packageID, text)
}

func (o *opened) version(ctx context.Context, packageID, text string) (Version, error) {
	all, err := o.versions(ctx, packageID)
	if err != nil {
		return Version{}, err
	}
	want, errWant := version.Parse(o.scheme, text)
	var equal *Version
	for i := range all {
		if all[i].Version == text {
			return all[i], nil
		}
		if v, err := version.Parse(o.scheme, all[i].Version); err == nil && errWant == nil && version.Equal(v, want) {
			equal = &all[i]
		}
	}
	// Tags and Maven's versions are names: 1.0 and 1.0.0 are two of them.
	if equal != nil && o.scheme == version.SemVer {
		return *equal, nil
	}
	return Version{}, o.missing(packageID, text)
}

func (o *opened) missing(packageID, text string) error {
	return notThere(o.doc.Name, packageID, text)
}

func notThere(feed, packageID, text string) error {
	return fault.New(fault.NotFound, "The package %.200s version %.200s was not found in the feed '%s'; check its id and version, or push it there.", packageID, text, feed)
}

// Notes reads the release notes of a version, "" when there are none; fault.NotFound
// when the feed does not have the version.
func (f *Feeds) Notes(ctx context.Context, space ident.SpaceID, feedID, packageID, text string) (notes string, v Version, err error) {
	if err := errors.Join(checkName("packageId", packageID), checkName("version", text)); err != nil {
		return "", v, err
	}
	o, err := f.open(ctx, space, feedID)
	if err != nil {
		return "", v, err
	}
	if v, err = o.version(ctx, packageID, text); err != nil {
		return "", v, err
	}
	if n, ok := o.source.(noter); ok {
		notes, err = n.notes(ctx, packageID, v.Version)
	}
	return strings.TrimSpace(notes), v, err
}
