package packages

import (
	"context"
	"net/url"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// maxNotes is of how many packages one request may ask the notes.
const maxNotes = 100

// notesOf reads the release notes that a package has in its .nuspec; packages of
// other kinds have none.
func (a *api) notesOf(ctx context.Context, p *feed.Package) (string, error) {
	if !strings.EqualFold(p.Extension, ".nupkg") {
		return "", nil
	}
	spec, err := a.repo.Nuspec(ctx, p)
	if fault.Is(err, fault.Invalid) {
		return "", nil // it is called a .nupkg, and is none
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(spec.ReleaseNotes), nil
}

// feedNotes answers with the release notes of one version, as a text.
func (a *api) feedNotes(r *rest.Request) (any, error) {
	id, text := r.Query("packageId"), r.Query("version")
	if id == "" || text == "" {
		return nil, fault.InvalidField("packageId", "packageId is '%.100s' and version '%.100s'; name the package and the version whose notes you want.", id, text)
	}
	if other, err := a.external(r); err != nil {
		return nil, err
	} else if other != "" {
		notes, _, err := a.others.Notes(r.Context(), r.Space, other, id, text)
		return notes, err
	}
	var p *feed.Package
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		p, err = a.repo.Find(r.Context(), tx, r.Space, id, text)
		return err
	})
	if err != nil {
		return nil, err
	}
	return a.notesOf(r.Context(), p)
}

// notes answers with the release notes of several packages, each named as
// feed:package:version, and with a reason for those that have none.
func (a *api) notes(r *rest.Request) (any, error) {
	names, err := r.QueryList("packageIds")
	if err != nil {
		return nil, err
	}
	if len(names) > maxNotes {
		return nil, fault.InvalidField("packageIds", "packageIds names %d packages; ask for at most %d at once.", len(names), maxNotes)
	}
	out := octopus.PackageNotes{Packages: octopus.List[octopus.PackageNote]{}}
	found := make([]*feed.Package, len(names))
	others := map[int]string{}
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		out.Packages = out.Packages[:0]
		for i, name := range names {
			one, p, other, err := a.named(r, tx, name)
			if err != nil {
				return err
			}
			if other != "" {
				others[i] = other
			}
			found[i] = p
			out.Packages = append(out.Packages, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, p := range found {
		if p == nil {
			continue
		}
		text, err := a.notesOf(r.Context(), p)
		if err != nil {
			return nil, err
		}
		published := octopus.NewTime(p.Published)
		out.Packages[i].Notes = octopus.PackageNoteResult{Succeeded: true, Notes: octopus.NullString(text), Published: &published}
	}
	return out, a.externalNotes(r, out.Packages, others)
}

// named finds the package that "feed:package:version" names, nil when it cannot be
// had; the reason is then in the note. other is the id of the external feed that
// the package is in.
func (a *api) named(r *rest.Request, tx *db.Tx, name string) (note octopus.PackageNote, p *feed.Package, other string, err error) {
	// A Maven artifact's id has a colon of its own.
	first, last := strings.Index(name, ":"), strings.LastIndex(name, ":")
	if first < 0 || first == last {
		return octopus.PackageNote{}, nil, "", fault.InvalidField("packageIds", "packageIds has '%.200s'; write feed:package:version.", name)
	}
	parts := [3]string{name[:first], name[first+1 : last], name[last+1:]}
	for i := range parts {
		// Clients encode each part, and then the whole again.
		if plain, err := url.PathUnescape(parts[i]); err == nil {
			parts[i] = plain
		}
	}
	note = octopus.PackageNote{FeedID: parts[0], PackageID: parts[1], Version: parts[2]}
	if !strings.EqualFold(note.FeedID, resources.BuiltinFeed(r.Space)) && !strings.EqualFold(note.FeedID, "feeds-builtin") {
		doc, err := r.Find(r.Context(), tx, "feeds", note.FeedID)
		if fault.Is(err, fault.NotFound) {
			note.Notes = without(err)
			return note, nil, "", nil
		}
		if err != nil {
			return note, nil, "", err
		}
		return note, nil, doc.ID, nil
	}
	p, err = a.repo.Find(r.Context(), tx, r.Space, note.PackageID, note.Version)
	if fault.Is(err, fault.NotFound) {
		note.Notes = without(err)
		return note, nil, "", nil
	}
	return note, p, "", err
}

// without tells why there are no notes.
func without(err error) octopus.PackageNoteResult {
	why := octopus.NullString(strings.Join(fault.Messages(err), " "))
	return octopus.PackageNoteResult{FailureReason: why, DisplayMessage: why}
}
