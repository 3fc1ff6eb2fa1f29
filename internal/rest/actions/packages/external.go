package packages

import (
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// external is the id of the external feed that the path names, "" for the built-in
// one.
func (a *api) external(r *rest.Request) (id string, err error) {
	id = r.PathValue("feedId")
	if strings.EqualFold(id, resources.BuiltinFeed(r.Space)) || strings.EqualFold(id, "feeds-builtin") {
		return "", nil
	}
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		doc, err := r.Find(r.Context(), tx, "feeds", id)
		if err == nil {
			id = doc.ID
		}
		return err
	})
	return id, err
}

func (a *api) externalVersions(r *rest.Request, feedID, packageID string, page ident.Page) (any, error) {
	with, err := r.QueryBool("includePreRelease", true)
	if err != nil {
		return nil, err
	}
	all, err := a.others.Versions(r.Context(), r.Space, feedID, external.Query{
		PackageID: packageID, Range: r.Query("versionRange"), Tag: r.Query("preReleaseTag"), Filter: r.Query("filter"), NoPrerelease: !with,
	})
	if err != nil {
		return nil, err
	}
	rows := []octopus.PackageVersion{}
	for _, v := range part(all, page) {
		row := octopus.PackageVersion{
			FeedID: feedID, PackageID: packageID, Version: v.Version, Title: octopus.NullString(v.Title), SizeBytes: v.Size, Published: published(v.Published),
		}
		row.ID, row.Links = "packages-"+packageID+"."+v.Version, octopus.Links{"Feed": r.SpaceHref("/feeds/" + feedID)}
		rows = append(rows, row)
	}
	return rest.PageOf(r, "PackageVersion", page, int64(len(all)), rows), nil
}

func (a *api) externalSearch(r *rest.Request, feedID string, page ident.Page) (any, error) {
	all, err := a.others.Search(r.Context(), r.Space, feedID, r.Query("term"))
	if err != nil {
		return nil, err
	}
	rows := []octopus.PackageDescription{}
	for _, d := range part(all, page) {
		row := octopus.PackageDescription{Name: d.ID, Description: octopus.NullString(d.Description), LatestVersion: octopus.NullString(d.Latest)}
		row.ID, row.Links = d.ID, octopus.Links{"Feed": r.SpaceHref("/feeds/" + feedID)}
		rows = append(rows, row)
	}
	return rest.PageOf(r, "PackageDescription", page, int64(len(all)), rows), nil
}

// part is the page of what is listed.
func part[T any](all []T, page ident.Page) []T {
	all = all[min(page.Skip, int64(len(all))):]
	return all[:min(page.Take, int64(len(all)))]
}

func published(t time.Time) *octopus.Time {
	if t.IsZero() {
		return nil
	}
	at := octopus.NewTime(t)
	return &at
}

// externalNotes completes the notes of packages in external feeds, a few at once.
// others are the ids of the feeds, by the number of the note.
func (a *api) externalNotes(r *rest.Request, notes []octopus.PackageNote, others map[int]string) error {
	var g errgroup.Group
	g.SetLimit(4)
	for i, id := range others {
		g.Go(func() error {
			n := &notes[i]
			text, v, err := a.others.Notes(r.Context(), r.Space, id, n.PackageID, n.Version)
			switch {
			case err != nil && fault.KindOf(err) == fault.Internal:
				return err
			case err != nil:
				n.Notes = without(err)
			default:
				n.Notes = octopus.PackageNoteResult{Succeeded: true, Notes: octopus.NullString(text), Published: published(v.Published)}
			}
			return nil
		})
	}
	return g.Wait()
}
