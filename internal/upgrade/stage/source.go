package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/upgrade/bundle"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// Source is where releases come from: the address of a feed, or a bundle. A mirror is as
// good as the project's own address.
type Source struct {
	// Feed is the URL of the feed; what it names, and the roots that follow, are relative
	// to it.
	Feed string
	// Bundle is the path of a bundle; it goes before Feed.
	Bundle string
	// Stall is how long nothing may come before a transfer is given up, 0 for a minute.
	Stall time.Duration
}

// errAbsent says that a file is not there, errForbidden that nobody may know whether it is.
var (
	errAbsent    = errors.New("it is not there")
	errForbidden = errors.New("the answer is 403 Forbidden")
)

func (o *Source) stall() time.Duration {
	if o.Stall <= 0 {
		return time.Minute
	}
	return o.Stall
}

// base is the feed's address, which is checked.
func (o *Source) base() (*url.URL, error) {
	u, err := url.Parse(o.Feed)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("the address of the feed is %.200q; use one such as https://host/path/feed.json, or a bundle", o.Feed)
	}
	return u, nil
}

// document gets a signed document, by a name relative to the feed's ("" is the feed).
func (o *Source) document(ctx context.Context, name string) ([]byte, error) {
	base, err := o.base()
	if err != nil {
		return nil, err
	}
	in, err := o.get(ctx, base, name, 0)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	raw, err := io.ReadAll(io.LimitReader(in, releasefeed.MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read the feed of releases: %w", err)
	}
	return raw, nil
}

// get opens what is at a relative address, from an offset on.
func (o *Source) get(ctx context.Context, base *url.URL, name string, offset int64) (io.ReadCloser, error) {
	at := base
	if name != "" {
		ref, err := url.Parse(name)
		if err != nil || ref.IsAbs() || ref.Host != "" {
			return nil, fmt.Errorf("the feed names the address %.200q, which is not relative to its own", name)
		}
		at = base.ResolveReference(ref)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(o.stall(), func() { cancel(fmt.Errorf("nothing came for %s", o.stall())) })
	fail := func(err error) (io.ReadCloser, error) {
		watch.Stop()
		cancel(nil)
		return nil, fmt.Errorf("fetch %s: %w", at.Redacted(), err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return fail(err)
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	client := egress.Client()
	resp, err := client.Do(req) //nolint:bodyclose // watched closes it
	if err != nil {
		client.CloseIdleConnections()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fail(err)
	}
	body := &watched{resp.Body, ctx, watch, o.stall(), func() { cancel(nil); client.CloseIdleConnections() }}
	switch {
	case offset > 0 && resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(offset, 10)+"-"):
		return body, nil
	case offset > 0 && resp.StatusCode == http.StatusOK:
		_ = body.Close()
		return nil, errNoRange
	case offset == 0 && resp.StatusCode == http.StatusOK:
		return body, nil
	}
	_ = body.Close()
	if offset > 0 && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return nil, refuse(Truncated, "The program at %s has only %d bytes.", at.Redacted(), offset)
	}
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("fetch %s: %w (%s)", at.Redacted(), errAbsent, resp.Status)
	case http.StatusForbidden:
		return nil, fmt.Errorf("fetch %s: %w", at.Redacted(), errForbidden)
	}
	return nil, fmt.Errorf("fetch %s: the answer is %s", at.Redacted(), resp.Status)
}

// errNoRange says that a server gives whole files only.
var errNoRange = errors.New("the server gives whole files only")

// watched is a body that is given up when nothing comes.
type watched struct {
	io.ReadCloser
	ctx   context.Context //nolint:containedctx // why a read failed
	timer *time.Timer
	limit time.Duration
	done  func()
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(w.limit)
	n, err := w.ReadCloser.Read(p)
	if cause := context.Cause(w.ctx); err != nil && !errors.Is(err, io.EOF) && cause != nil {
		err = cause
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.done()
	return err
}

// opened is a source that is being read.
type opened struct {
	*Source
	bundle *bundle.Bundle
}

func (o *Source) open() (*opened, error) {
	if o.Bundle == "" {
		if _, err := o.base(); err != nil {
			return nil, err
		}
		return &opened{Source: o}, nil
	}
	b, err := bundle.Open(o.Bundle)
	if errors.Is(err, bundle.ErrMalformed) {
		return nil, refuse(Truncated, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return &opened{o, b}, nil
}

func (o *opened) close() {
	if o.bundle != nil {
		_ = o.bundle.Close() // only read
	}
}

// program opens the program of an artifact, from an offset on.
func (o *opened) program(ctx context.Context, platform string, a releasefeed.Artifact, offset int64) (io.ReadCloser, error) {
	if o.bundle == nil {
		base, err := o.base()
		if err != nil {
			return nil, err
		}
		return o.get(ctx, base, a.URL, offset)
	}
	in, _, ok := o.bundle.Program(platform)
	if !ok {
		return nil, refuse(OtherPlatform, "The bundle has no program for %s, which this server is; it has those for %s.", platform, strings.Join(o.bundle.Platforms(), ", "))
	}
	if offset > 0 {
		if _, err := io.CopyN(io.Discard, in, offset); err != nil {
			return nil, errNoRange
		}
	}
	return io.NopCloser(in), nil
}
