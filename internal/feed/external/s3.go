package external

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// s3 is a store that speaks S3. A package is called bucket/folder/id, and its versions
// are the objects called bucket/folder/id.version.extension.
type s3 struct {
	*client
	store *minio.Client
}

func (f *Feeds) s3(doc *octopus.Feed) (source, error) {
	copied := *doc
	if copied.FeedURI == "" {
		if doc.Region == "" || strings.ContainsAny(doc.Region, "./:@") {
			return nil, fault.InvalidField("Region", "The feed '%s' has the Region '%.40s' and no FeedUri; set Region to one of Amazon's, such as eu-west-1, or FeedUri to the address of another store.", doc.Name, doc.Region)
		}
		copied.FeedURI = "https://s3." + doc.Region + ".amazonaws.com"
	}
	if doc.UseMachineCredentials != nil && *doc.UseMachineCredentials {
		return nil, fault.New(fault.Unsupported, "The feed '%s' wants the credentials of the machine, which this server does not read; give it an AccessKey and a SecretKey.", doc.Name)
	}
	c, err := f.client(&copied, "a store that speaks S3")
	if err != nil {
		return nil, err
	}
	region := doc.Region
	def(&region, "us-east-1") // what stores that have no regions take
	store, err := minio.New(c.base.Host, &minio.Options{
		Creds: credentials.NewStaticV4(doc.AccessKey, clear(doc.SecretKey), ""), Secure: c.base.Scheme == "https", Region: region,
		Transport: &answering{f.transport, f.cfg.MaxAnswer}, MaxRetries: 1,
	})
	if err != nil {
		return nil, fault.InvalidField("FeedUri", "The FeedUri of the feed '%s' is not the address of a store that speaks S3, without a path.", doc.Name)
	}
	return &s3{c, store}, nil
}

// answering bounds the listings of a store; objects are bounded where they are kept.
type answering struct {
	by  http.RoundTripper
	max int64
}

// RoundTrip is http.RoundTripper.
func (a *answering) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := a.by.RoundTrip(req)
	if err == nil && req.URL.Query().Has("list-type") {
		resp.Body = struct {
			*bounded
			closer
		}{&bounded{from: resp.Body, left: a.max}, resp.Body}
	}
	return resp, err
}

type closer interface{ Close() error }

// fault is the fault of what a store answered.
func (s *s3) fault(ctx context.Context, err error) error {
	var answer minio.ErrorResponse
	switch {
	case !errors.As(err, &answer):
		return s.down(ctx, s.base, err)
	case answer.StatusCode == http.StatusNotFound:
		return fault.New(fault.NotFound, "The feed '%s' does not have it.", s.feed)
	case answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized:
		return fault.New(fault.Unavailable, "The feed '%s' refuses its credentials (%d); check the AccessKey, SecretKey and Region of the feed, and what they may read.", s.feed, answer.StatusCode)
	}
	return fault.New(fault.Unavailable, "The feed '%s' answered with status %d; check that its FeedUri is the address of %s, or try again later.", s.feed, answer.StatusCode, s.what)
}

// object is a version of a package.
type object struct {
	bucket, key, id string
	Version
}

// objects lists the packages whose keys start with a text, until each returns false.
func (s *s3) objects(ctx context.Context, bucket, prefix string, each func(object) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 4*s.answer)
	defer cancel() // ends the listing, too
	seen := 0
	for o := range s.store.ListObjectsIter(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return s.fault(ctx, o.Err)
		}
		if seen++; seen > maxPages*1000 {
			return nil
		}
		name, text, _, err := version.FromFileName(path.Base(o.Key))
		if err != nil {
			continue
		}
		id := bucket + "/" + strings.TrimSuffix(o.Key, path.Base(o.Key)) + name
		if !each(object{bucket, o.Key, id, Version{Version: text, Published: o.LastModified.UTC().Truncate(time.Microsecond), Size: o.Size}}) {
			return nil
		}
	}
	return nil
}

// of lists the versions of a package.
func (s *s3) of(ctx context.Context, packageID string) (all []object, err error) {
	bucket, prefix, ok := strings.Cut(packageID, "/")
	if !ok {
		return nil, fault.InvalidField("packageId", "packageId is '%.100s'; a package of the feed '%s' is called bucket/folder/id.", packageID, s.feed)
	}
	err = s.objects(ctx, bucket, prefix+".", func(o object) bool {
		if o.id == packageID {
			all = append(all, o)
		}
		return len(all) < maxVersions
	})
	return all, absent(err, nil)
}

// search looks through the bucket that a term begins with: bucket/part-of-a-key.
func (s *s3) search(ctx context.Context, term string, limit int) ([]Description, error) {
	bucket, part, ok := strings.Cut(term, "/")
	if !ok {
		return nil, nil
	}
	found := map[string]bool{}
	err := s.objects(ctx, bucket, "", func(o object) bool {
		if strings.Contains(ident.Fold(o.id[len(bucket)+1:]), ident.Fold(part)) {
			found[o.id] = true
		}
		return len(found) < limit
	})
	var out []Description
	for id := range found {
		out = append(out, Description{ID: id})
	}
	slices.SortFunc(out, func(a, b Description) int { return strings.Compare(a.ID, b.ID) })
	return out, absent(err, nil)
}

func (s *s3) versions(ctx context.Context, packageID string) ([]Version, error) {
	all, err := s.of(ctx, packageID)
	var out []Version
	for _, o := range all {
		out = append(out, o.Version)
	}
	return out, err
}

func (s *s3) open(ctx context.Context, packageID, text string) (*download, error) {
	all, err := s.of(ctx, packageID)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(o object) bool { return o.Version.Version == text })
	if i < 0 {
		return nil, notThere(s.feed, packageID, text)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(s.stall, func() { cancel(errStalled) })
	body, err := s.store.GetObject(ctx, all[i].bucket, all[i].key, minio.GetObjectOptions{})
	if err != nil {
		timer.Stop()
		cancel(nil)
		return nil, s.fault(ctx, err)
	}
	at := url.URL{Host: s.base.Host}
	return &download{name: path.Base(all[i].key), body: &moving{c: s.client, ctx: ctx, at: &at, body: body, timer: timer, cancel: cancel}}, nil
}
