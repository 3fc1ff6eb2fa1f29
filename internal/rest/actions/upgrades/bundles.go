package upgrades

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
	"github.com/takodeploy/tako/octopus"
)

// receive takes a bundle, if it can be installed here: then plan and start can name it. It
// takes the place of those that were sent before, but for one that an upgrade needs.
func (a *api) receive(r *rest.Request) (any, error) {
	if err := a.supervised(); err != nil {
		return nil, err
	}
	asking, stop := context.WithTimeout(r.Context(), patience)
	report, err := supervisor.Ask(asking, a.Root, supervisor.Order{Do: "status"})
	stop()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "%s", sentence(err.Error()))
	}
	in, size, err := sent(r)
	if err != nil {
		return nil, err
	}
	request := stage.Request{Channel: a.Lookout.Channel(), Version: report.Current, Now: a.Now()}
	u, _, err := a.Store.Receive(r.Context(), request, line{in}, size, func(u *stage.Upload) error {
		// The event first: the bundle is there, whatever becomes of the others.
		err := a.audited(r.Context(), octopus.EventUpgradeBundleUploaded, fmt.Sprintf("The bundle %s with version %s was sent to node %s", u.ID, u.Version, a.Node))
		if err == nil {
			err = a.forgetOthers(u.ID)
		}
		return err
	})
	if err != nil {
		return nil, refused(err)
	}
	return rest.Created{Body: bundled(u), Location: r.Href("/api/system/upgrade/bundles")}, nil
}

// sent is the bundle that a request has: its body, or the one file of a form, whose size
// nobody knows before its end.
func sent(r *rest.Request) (io.Reader, int64, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		return r.Body, r.ContentLength, nil
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, 0, fault.InvalidField("Content-Type", "The request is no multipart/form-data; send the bundle as one file part, or as the body itself.")
	}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, 0, fault.InvalidField("file", "The request has no file; send the bundle as one part with a file name, or as the body itself.")
		}
		if err != nil {
			return nil, 0, cutOff()
		}
		if part.FileName() != "" {
			return part, -1, nil
		}
	}
}

// line is what a client sends. Whatever goes wrong with it but its end, be it a form that
// is none or a client that falls silent, is the client's: the bundle ended early.
type line struct{ io.Reader }

func (l line) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	return n, err
}

func cutOff() error {
	return fault.New(fault.Invalid, "The bundle ended early; send it again.")
}

// refused makes a fault of why a bundle is not taken.
func refused(err error) error {
	var no *releasefeed.NoChoice
	var unbelieved *releasefeed.Error
	var unfit *stage.Error
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return cutOff()
	case errors.Is(err, stage.ErrTooLarge):
		return fault.New(fault.TooLarge, "%s", sentence(err.Error()))
	case errors.Is(err, stage.ErrNoRoom):
		return fault.New(fault.Unavailable, "%s Make room on it, and send the bundle again.", sentence(err.Error()))
	case errors.Is(err, stage.ErrReceiving), errors.Is(err, stage.ErrNoRoot), errors.As(err, &no):
		return fault.New(fault.Conflict, "%s", sentence(err.Error()))
	case errors.As(err, &unbelieved), errors.As(err, &unfit):
		return fault.New(fault.Invalid, "%s", sentence(err.Error()))
	}
	return err
}

// forgetOthers removes the bundles that were sent before, but for that of an upgrade that
// has not come to its end.
func (a *api) forgetOthers(id string) error {
	j, err := a.journal()
	if err != nil {
		return err
	}
	t, err := upgrade.Last(j.Entries())
	if err != nil {
		return err
	}
	_, err = a.Store.ForgetUploads(func(u *stage.Upload) bool {
		return u.ID != id && (t == nil || t.Plan.Bundle != u.Path || t.State.Ended() && t.State != upgrade.NeedsOperator)
	})
	return err
}

// bundle is the path of a bundle that was sent, and that has a version.
func (a *api) bundle(id, version string) (string, error) {
	u, err := a.Store.Uploaded(id)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fault.InvalidField("BundleId", "There is no bundle '%.100s'; send it to POST /api/system/upgrade/bundles, and name the id that the answer has.", id)
	}
	if err != nil {
		return "", unreachable(err)
	}
	if u.Version != version {
		return "", fault.InvalidField("BundleId", "The bundle %s has version %.40s, and Version is %.40s; name the one that it has.", id, u.Version, version)
	}
	return u.Path, nil
}

func bundled(u *stage.Upload) octopus.UpgradeBundle {
	return octopus.UpgradeBundle{Resource: octopus.Resource{ID: u.ID}, Version: u.Version, Platforms: u.Platforms, Size: u.Size, Uploaded: octopus.NewTime(u.At)}
}

func (a *api) bundles(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	all, err := a.Store.Uploads()
	if err != nil {
		return nil, err
	}
	total := int64(len(all))
	from := min(p.Skip, total)
	docs := []octopus.UpgradeBundle{}
	for i := from; i < min(from+p.Take, total); i++ {
		docs = append(docs, bundled(&all[i]))
	}
	return rest.PageOf(r, "UpgradeBundle", p, total, docs), nil
}
