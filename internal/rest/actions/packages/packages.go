// Package packages serves the built-in package repository: pushing, listing,
// fetching and deleting, and what build servers tell about packages.
package packages

import (
	"net/http"
	"net/url"
	"reflect"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// Permissions of the built-in repository.
const (
	view       = "FeedView"
	push       = "BuiltInFeedPush"
	administer = "BuiltInFeedAdminister"
	download   = "BuiltInFeedDownload"
)

// api serves the routes.
type api struct {
	db    *db.DB
	store *docstore.Store
	repo  *feed.Repository
	// others are the external feeds.
	others *external.Feeds
}

// Routes are the operations on packages.
func Routes(d *db.DB, store *docstore.Store, repo *feed.Repository, others *external.Feeds) []rest.Route {
	a := &api{d, store, repo, others}
	one, page := reflect.TypeFor[octopus.Package](), reflect.TypeFor[octopus.Page[octopus.Package]]()
	paged := []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}
	listed := append(paged[:2:2],
		rest.Param{Name: "nuGetPackageId", Type: rest.Text, About: "all versions of this package; else the newest of each"},
		rest.Param{Name: "filter", Type: rest.Text, About: "only those with this in their id"},
		rest.Param{Name: "latest", Type: rest.Boolean, About: "only the newest version, where versions of one package are asked for"},
		rest.Param{Name: "ids", Type: rest.List, About: "only these"})
	overwrite := []rest.Param{
		{Name: "overwriteMode", Type: rest.Text, About: "FailIfExists, OverwriteExisting or IgnoreIfExists"}, {Name: "replace", Type: rest.Boolean, About: "true is OverwriteExisting, for older clients"},
	}
	return append(append(a.buildRoutes(paged), a.nugetRoutes(overwrite)...), []rest.Route{
		{Method: http.MethodPost, Pattern: "/packages/raw", Permission: push, Handler: a.push, Upload: true, Response: one, Query: overwrite, Summary: "Pushes a package as multipart/form-data; its file name tells id and version."},
		{
			Method: http.MethodGet, Pattern: "/packages/{packageId}/{version}/delta-signature", Permission: push, Handler: a.signature, Response: reflect.TypeFor[octopus.DeltaSignature](),
			Summary: "Finds the version that a new one is best sent as a difference to, with its Octodiff signature; 404 when there is none.",
		},
		{
			Method: http.MethodPost, Pattern: "/packages/{packageId}/{baseVersion}/delta", Permission: push, Handler: a.pushDelta, Upload: true, Response: one, Query: overwrite,
			Summary: "Pushes a package as the difference to a stored version: an Octodiff delta in multipart/form-data, under the file name of the new package.",
		},
		{Method: http.MethodGet, Pattern: "/packages", Permission: view, Handler: a.list, Response: page, Query: listed, Summary: "Lists packages: the newest version of each, or all versions of one."},
		{Method: http.MethodGet, Pattern: "/packages/all", Permission: view, Handler: a.all, Response: reflect.SliceOf(one), Summary: "Lists the newest version of every package as a bare array."},
		{Method: http.MethodGet, Pattern: "/packages/retention", Permission: view, Handler: a.retention, Response: reflect.TypeFor[octopus.Page[verdict]](), Query: paged, Summary: "Tells which packages retention would delete now, and why; it changes nothing."},
		{Method: http.MethodGet, Pattern: "/packages/bulk", Permission: view, Handler: a.bulk, Response: reflect.SliceOf(one), Query: listed[5:], Summary: "Reads several packages by id."},
		{Method: http.MethodDelete, Pattern: "/packages/bulk", Permission: administer, Handler: a.deleteBulk, Query: listed[5:], Body: reflect.TypeFor[idsCommand](), Summary: "Deletes several packages by id, from the query or the body."},
		{Method: http.MethodDelete, Pattern: "/packages/bulk/v1", Permission: administer, Handler: a.deleteBulk, Query: listed[5:], Body: reflect.TypeFor[idsCommand](), Summary: "Deletes several packages by id, from the query or the body."},
		{
			Method: http.MethodGet, Pattern: "/packages/notes", Permission: view, Handler: a.notes, Response: reflect.TypeFor[octopus.PackageNotes](), Summary: "Reads the release notes of several packages.",
			Query: []rest.Param{{Name: "packageIds", Type: rest.List, About: "each as feed:package:version"}},
		},
		{
			Method: http.MethodGet, Pattern: "/feeds/{feedId}/packages/notes", Permission: view, Handler: a.feedNotes, Response: reflect.TypeFor[string](), Summary: "Reads the release notes of a version of a package.",
			Query: []rest.Param{{Name: "packageId", Type: rest.Text, About: "the package"}, {Name: "version", Type: rest.Text, About: "its version"}},
		},
		{Method: http.MethodPut, Pattern: "/packages/{id}", Permission: administer, Handler: a.put, Body: one, Response: one, Summary: "Accepts a package as it is; nothing of it can be edited."},
		{Method: http.MethodGet, Pattern: "/packages/{id}", Permission: view, Handler: a.get, Response: one, Summary: "Reads a package by id."},
		{Method: http.MethodDelete, Pattern: "/packages/{id}", Permission: administer, Handler: a.delete, Summary: "Deletes a package."},
		{Method: http.MethodGet, Pattern: "/packages/{id}/raw", Permission: download, Handler: a.raw, ContentType: "application/octet-stream", Summary: "Fetches the file of a package."},
		{
			Method: http.MethodGet, Pattern: "/feeds/{feedId}/packages/versions", Permission: view, Handler: a.versions, Response: reflect.TypeFor[octopus.Page[octopus.PackageVersion]](), Summary: "Lists the versions of a package, newest first.",
			Query: append(paged[:2:2], rest.Param{Name: "packageId", Type: rest.Text, About: "the package"}, rest.Param{Name: "filter", Type: rest.Text, About: "only versions with this in them"},
				rest.Param{Name: "includePreRelease", Type: rest.Boolean, About: "with pre-releases; true unless said"},
				rest.Param{Name: "versionRange", Type: rest.Text, About: "only versions in this range, such as [1.0,2.0)"},
				rest.Param{Name: "preReleaseTag", Type: rest.Text, About: "only versions whose pre-release part matches this regular expression"}),
		},
		{
			Method: http.MethodGet, Pattern: "/feeds/{feedId}/packages/search", Permission: view, Handler: a.search, Response: reflect.TypeFor[octopus.Page[octopus.PackageDescription]](), Summary: "Finds packages by a part of their id.",
			Query: append(paged[:2:2], rest.Param{Name: "term", Type: rest.Text, About: "a part of the id"}),
		},
	}...)
}

// document is a package as clients see it.
func document(r *rest.Request, p *feed.Package) octopus.Package {
	published := octopus.NewTime(p.Published)
	doc := octopus.Package{
		SpaceID: string(p.Space), PackageID: p.PackageID, Version: p.Version, FeedID: resources.BuiltinFeed(p.Space),
		NuGetPackageID: p.PackageID, NuGetFeedID: resources.BuiltinFeed(p.Space), Title: p.PackageID, Published: &published,
		FileExtension: p.Extension, PackageSizeBytes: p.Size, Hash: p.SHA1,
	}
	doc.ID = p.ID
	self := r.SpaceHref("/packages/" + url.PathEscape(p.ID))
	doc.Links = octopus.Links{
		"Self":        self,
		"Raw":         self + "/raw",
		"AllVersions": r.SpaceHref("/packages?nuGetPackageId=" + url.QueryEscape(p.PackageID)),
		"Feed":        r.SpaceHref("/feeds/" + doc.FeedID),
	}
	return doc
}

func (a *api) query(r *rest.Request) (feed.Query, error) {
	page, err := r.Page()
	if err != nil {
		return feed.Query{}, err
	}
	q := feed.Query{Space: r.Space, PackageID: r.Query("nuGetPackageId"), Filter: r.Query("filter"), Page: page}
	if q.Latest, err = r.QueryBool("latest", false); err != nil {
		return q, err
	}
	if r.HasQuery("ids") {
		q.IDs, err = r.QueryList("ids")
	}
	return q, err
}

func (a *api) find(r *rest.Request, q feed.Query) (docs []octopus.Package, total int64, err error) {
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		var found []*feed.Package
		if found, total, err = a.repo.List(r.Context(), tx, q); err != nil {
			return err
		}
		docs = make([]octopus.Package, len(found))
		for i, p := range found {
			docs[i] = document(r, p)
		}
		return nil
	})
	return docs, total, err
}

func (a *api) list(r *rest.Request) (any, error) {
	q, err := a.query(r)
	if err != nil {
		return nil, err
	}
	docs, total, err := a.find(r, q)
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "Package", q.Page, total, docs), nil
}

// all is a stream: there may be any number of packages.
func (a *api) all(r *rest.Request) (any, error) {
	after := ""
	return rest.Walk(func() (docs []octopus.Package, more bool, err error) {
		err = a.db.Read(r.Context(), func(tx *db.Tx) error {
			found, err := a.repo.Newest(r.Context(), tx, r.Space, after, rest.Piece)
			docs = make([]octopus.Package, len(found))
			for i, p := range found {
				docs[i], after = document(r, p), p.PackageID
			}
			return err
		})
		return docs, len(docs) == rest.Piece, err
	}), nil
}

func (a *api) bulk(r *rest.Request) (any, error) {
	ids, err := r.QueryList("ids")
	if err != nil {
		return nil, err
	}
	docs, _, err := a.find(r, feed.Query{Space: r.Space, IDs: append([]string{}, ids...), Page: ident.Page{Take: ident.MaxTake}})
	return octopus.List[octopus.Package](docs), err
}

func (a *api) read(r *rest.Request) (p *feed.Package, err error) {
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		p, err = a.repo.ByID(r.Context(), tx, r.Space, r.PathValue("id"))
		return err
	})
	return p, err
}

// get reads one package, with what is known of its build.
func (a *api) get(r *rest.Request) (any, error) {
	var doc octopus.Package
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		p, err := a.repo.ByID(r.Context(), tx, r.Space, r.PathValue("id"))
		if err != nil {
			return err
		}
		doc = document(r, p)
		doc.PackageVersionBuildInformation, err = feed.BuildOf(r.Context(), tx, r.Space, p.PackageID, p.Version)
		return err
	})
	if err != nil {
		return nil, err
	}
	if b := doc.PackageVersionBuildInformation; b != nil {
		linkedBuild(r, b)
	}
	return doc, nil
}

// put answers a client that writes back what it read. A package is what was
// pushed, so that there is nothing to change.
func (a *api) put(r *rest.Request) (any, error) {
	var in octopus.Package
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	p, err := a.read(r)
	if err != nil {
		return nil, err
	}
	if ident.Fold(in.PackageID) != ident.Fold(p.PackageID) || ident.Fold(in.Version) != ident.Fold(p.Version) {
		return nil, fault.InvalidField("Version", "The body is of the package '%.100s' version '%.100s', and '%s' cannot be changed; push a package with the version that you want.", in.PackageID, in.Version, p.ID)
	}
	return a.get(r)
}

func (a *api) raw(r *rest.Request) (any, error) {
	p, err := a.read(r)
	if err != nil {
		return nil, err
	}
	return a.content(r, p)
}

// content is the file of a package.
func (a *api) content(r *rest.Request, p *feed.Package) (any, error) {
	content, size, err := a.repo.Open(r.Context(), p)
	if err != nil {
		return nil, err
	}
	return rest.Raw{Content: content, Size: size, Name: p.FileName(), ETag: p.SHA256, Modified: p.Published}, nil
}

func (a *api) delete(r *rest.Request) (any, error) {
	return nil, a.db.Write(r.Context(), func(tx *db.Tx) error {
		p, err := a.repo.ByID(r.Context(), tx, r.Space, r.PathValue("id"))
		if err != nil {
			return err
		}
		return a.repo.Delete(r.Context(), tx, r.Space, []string{p.ID})
	})
}

// idsCommand names several packages.
type idsCommand struct {
	IDs octopus.List[string] `json:"Ids"`
}

func (a *api) deleteBulk(r *rest.Request) (any, error) {
	ids, err := r.QueryList("ids")
	if err != nil {
		return nil, err
	}
	var in idsCommand
	if err := r.DecodeOptional(&in); err != nil {
		return nil, err
	}
	ids = append(ids, in.IDs...)
	return nil, a.db.Write(r.Context(), func(tx *db.Tx) error { return a.repo.Delete(r.Context(), tx, r.Space, ids) })
}

func (a *api) versions(r *rest.Request) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	id := r.Query("packageId")
	if id == "" {
		return nil, fault.InvalidField("packageId", "packageId is empty; name the package whose versions you want.")
	}
	if other, err := a.external(r); err != nil {
		return nil, err
	} else if other != "" {
		return a.externalVersions(r, other, id, page)
	}
	q := feed.Query{Space: r.Space, PackageID: id, VersionFilter: r.Query("filter"), Page: page}
	if err := restrict(r, &q); err != nil {
		return nil, err
	}
	docs, total, err := a.find(r, q)
	if err != nil {
		return nil, err
	}
	rows := make([]octopus.PackageVersion, len(docs))
	for i, d := range docs {
		rows[i] = octopus.PackageVersion{FeedID: d.FeedID, PackageID: d.PackageID, Version: d.Version, Published: d.Published, SizeBytes: d.PackageSizeBytes}
		rows[i].ID, rows[i].Links = d.ID, d.Links
	}
	return rest.PageOf(r, "PackageVersion", page, total, rows), nil
}

// restrict reads which versions a caller wants, as the rules of channels do.
func restrict(r *rest.Request, q *feed.Query) error {
	with, err := r.QueryBool("includePreRelease", true)
	if err != nil {
		return err
	}
	q.NoPrerelease = !with
	bounds, tag := r.Query("versionRange"), r.Query("preReleaseTag")
	if bounds == "" && tag == "" {
		return nil
	}
	rule, err := version.NewRule(version.Octopus, bounds, tag, "")
	if err != nil {
		return err
	}
	q.Accept = rule.AcceptsText
	return nil
}

func (a *api) search(r *rest.Request) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	if other, err := a.external(r); err != nil {
		return nil, err
	} else if other != "" {
		return a.externalSearch(r, other, page)
	}
	docs, total, err := a.find(r, feed.Query{Space: r.Space, Filter: r.Query("term"), Page: page})
	if err != nil {
		return nil, err
	}
	rows := make([]octopus.PackageDescription, len(docs))
	for i, d := range docs {
		rows[i] = octopus.PackageDescription{Name: d.PackageID, LatestVersion: octopus.NullString(d.Version)}
		rows[i].ID, rows[i].Links = d.PackageID, d.Links
	}
	return rest.PageOf(r, "PackageDescription", page, total, rows), nil
}
