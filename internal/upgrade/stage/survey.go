package stage

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/version"
)

// Survey is what a feed has that is newer than the version that runs.
type Survey struct {
	Channel string    `json:"channel"`
	Number  int64     `json:"feed_version"`
	Expires time.Time `json:"expires"`
	// Expired tells that the feed's time is over: a newer one may have been kept back.
	Expired bool `json:"expired,omitempty"`
	// Newest is the version that is offered by itself, "" for none; then Message is why.
	Newest  string `json:"newest,omitempty"`
	Message string `json:"message,omitempty"`
	// Options are the newer releases, the newest first, maxOptions at the most.
	Options []Option `json:"options,omitempty"`
}

// Option is a release of a survey.
type Option struct {
	Release releasefeed.Release `json:"release"`
	// Size is that of the program for this platform in bytes, 0 if there is none.
	Size int64 `json:"size,omitempty"`
	// Refused says why it cannot be installed now, "" if it can. Via is then the version
	// to install first, where that is the reason.
	Refused string `json:"refused,omitempty"`
	Via     string `json:"via,omitempty"`
	// Bad is why it failed when it was tried here, "" if it was not.
	Bad string `json:"bad,omitempty"`
}

// maxOptions bounds a survey.
const maxOptions = 50

// Survey finds out what a source has that is newer, as Check does. It downloads nothing
// but the feed.
func (s *Store) Survey(ctx context.Context, r Request) (*Survey, error) {
	src, err := r.Source.open()
	if err != nil {
		return nil, err
	}
	defer src.close()
	v, t, _, err := s.believed(ctx, src, &r)
	if err != nil {
		return nil, err
	}
	out := &Survey{Channel: v.Channel, Number: v.Number, Expires: v.Expires, Expired: v.Expired}
	in := releasefeed.Installed{Version: r.Version, Platform: Platform(), Bad: t.bad()}
	c, err := v.Choose(in, "")
	switch {
	case err != nil:
		out.Message = err.Error()
	default:
		out.Newest = c.Release.Version
	}
	for _, release := range newer(v, r.Version) {
		out.Options = append(out.Options, option(v, in, release, t.Bad[release.Version]))
	}
	return out, nil
}

// newer are the releases after a version, the newest first.
func newer(v *releasefeed.Verified, than string) []releasefeed.Release {
	current, err := version.Parse(version.SemVer, than)
	if err != nil {
		return nil
	}
	var all []releasefeed.Release
	for _, r := range v.Releases {
		if version.Compare(r.Parsed(), current) > 0 {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b releasefeed.Release) int { return version.Compare(b.Parsed(), a.Parsed()) })
	return all[:min(len(all), maxOptions)]
}

func option(v *releasefeed.Verified, in releasefeed.Installed, r releasefeed.Release, bad string) Option {
	o := Option{Release: r, Size: r.Artifacts[in.Platform].Size, Bad: bad}
	o.Release.Artifacts = nil // addresses and hashes are the store's business
	c, err := v.Choose(in, r.Version)
	var no *releasefeed.NoChoice
	switch {
	case errors.As(err, &no):
		o.Refused = no.Error()
	case err != nil:
		o.Refused = err.Error()
	case c.Stop:
		o.Via = c.Release.Version
		o.Refused = "Version " + o.Via + " must be installed first."
	default:
		o.Release.Rollback = c.Rollback
	}
	return o
}
