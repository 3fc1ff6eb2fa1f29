package packages

import (
	"cmp"
	"net/http"
	"reflect"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// Permissions for build information; it is seen by who sees feeds.
const (
	buildPush       = "BuildInformationPush"
	buildAdminister = "BuildInformationAdminister"
)

// legacyCommand is the body of build information as tools sent it before it had
// its name; everything else of it is the same.
type legacyCommand struct {
	octopus.BuildInformationCommand
	OctopusPackageMetadata *octopus.BuildDetails `json:"OctopusPackageMetadata,omitempty"`
}

// buildRoutes are the operations on build information, and under their older
// name those that tools still use.
func (a *api) buildRoutes(paged []rest.Param) []rest.Route {
	one := reflect.TypeFor[octopus.BuildInformation]()
	page, all := reflect.TypeFor[octopus.Page[octopus.BuildInformation]](), reflect.SliceOf(one)
	ids := []rest.Param{{Name: "ids", Type: rest.List, About: "only these"}}
	listed := append(paged[:2:2],
		rest.Param{Name: "packageId", Type: rest.Text, About: "only of this package"},
		rest.Param{Name: "filter", Type: rest.Text, About: "only versions with this in them"},
		rest.Param{Name: "latest", Type: rest.Boolean, About: "only the newest version of each package"}, ids[0])
	overwrite := []rest.Param{
		{Name: "overwriteMode", Type: rest.Text, About: "FailIfExists, OverwriteExisting or IgnoreIfExists; it may be in the body too"},
		{Name: "replace", Type: rest.Boolean, About: "true is OverwriteExisting, for older clients"},
	}
	get := func(pattern string, h rest.Handler, response reflect.Type, summary string, query []rest.Param) rest.Route {
		return rest.Route{Method: http.MethodGet, Pattern: pattern, Permission: view, Handler: h, Response: response, Summary: summary, Query: query}
	}
	return []rest.Route{
		{Method: http.MethodPost, Pattern: "/build-information", Permission: buildPush, Handler: a.pushBuild, Body: reflect.TypeFor[octopus.BuildInformationCommand](), Response: one, Query: overwrite, Summary: "Stores what a build server tells about a version of a package."},
		get("/build-information", a.builds, page, "Lists build information by package, the newest version first.", listed),
		get("/build-information/all", a.allBuilds, all, "Lists all build information as a bare array.", nil),
		get("/build-information/bulk", a.bulkBuilds, all, "Reads build information of several ids.", ids),
		{Method: http.MethodDelete, Pattern: "/build-information/bulk", Permission: buildAdminister, Handler: a.deleteBuilds, Query: ids, Summary: "Deletes build information of several ids."},
		get("/build-information/{id}", a.build, one, "Reads build information by id.", nil),
		{Method: http.MethodDelete, Pattern: "/build-information/{id}", Permission: buildAdminister, Handler: a.deleteBuild, Summary: "Deletes build information."},
		{Method: http.MethodPost, Pattern: "/package-metadata", Permission: buildPush, Handler: a.pushBuild, Body: reflect.TypeFor[legacyCommand](), Response: one, Query: overwrite, Summary: "Stores build information, as older tools send it."},
		get("/package-metadata", a.builds, page, "Lists build information, for older tools.", listed),
		get("/package-metadata/{id}", a.build, one, "Reads build information by id, for older tools.", nil),
	}
}

// linkedBuild gives build information its links.
func linkedBuild(r *rest.Request, b *octopus.BuildInformation) *octopus.BuildInformation {
	b.Links = octopus.Links{"Self": r.SpaceHref("/build-information/" + b.ID)}
	return b
}

func (a *api) pushBuild(r *rest.Request) (any, error) {
	var in legacyCommand
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.OctopusPackageMetadata != nil {
		in.OctopusBuildInformation = *in.OctopusPackageMetadata
	}
	mode, err := overwriteAs(r, cmp.Or(r.Query("overwriteMode"), string(in.OverwriteMode)), buildAdminister)
	if err != nil {
		return nil, err
	}
	b, created, err := a.repo.PushBuild(r.Context(), r.Space, &in.BuildInformationCommand, mode)
	if err != nil {
		return nil, err
	}
	linkedBuild(r, b)
	if created {
		return rest.Created{Body: b, Location: b.Links["Self"]}, nil
	}
	return b, nil
}

// findBuilds reads a page of build information.
func (a *api) findBuilds(r *rest.Request, q feed.BuildQuery) (docs []octopus.BuildInformation, total int64, err error) {
	q.Space = r.Space
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		docs, total, err = a.repo.Builds(r.Context(), tx, q)
		return err
	})
	for i := range docs {
		linkedBuild(r, &docs[i])
	}
	return docs, total, err
}

func (a *api) builds(r *rest.Request) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	q := feed.BuildQuery{PackageID: r.Query("packageId"), Filter: r.Query("filter"), Page: page}
	if q.Latest, err = r.QueryBool("latest", false); err != nil {
		return nil, err
	}
	if r.HasQuery("ids") {
		if q.IDs, err = r.QueryList("ids"); err != nil {
			return nil, err
		}
	}
	docs, total, err := a.findBuilds(r, q)
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "BuildInformation", page, total, docs), nil
}

// allBuilds is a stream: there may be any number of builds, and each may be large.
func (a *api) allBuilds(r *rest.Request) (any, error) {
	var after feed.BuildPlace
	return rest.Walk(func() (docs []octopus.BuildInformation, more bool, err error) {
		err = a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
			docs, after, more, err = a.repo.BuildsAfter(r.Context(), tx, r.Space, after, rest.Piece)
			return err
		})
		for i := range docs {
			linkedBuild(r, &docs[i])
		}
		return docs, more, err
	}), nil
}

func (a *api) bulkBuilds(r *rest.Request) (any, error) {
	ids, err := r.QueryList("ids")
	if err != nil {
		return nil, err
	}
	docs, _, err := a.findBuilds(r, feed.BuildQuery{IDs: append([]string{}, ids...), Page: ident.Page{Take: ident.MaxTake}})
	return octopus.List[octopus.BuildInformation](docs), err
}

func (a *api) build(r *rest.Request) (any, error) {
	var b *octopus.BuildInformation
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		b, err = a.repo.Build(r.Context(), tx, r.Space, r.PathValue("id"))
		return err
	})
	if err != nil {
		return nil, err
	}
	return linkedBuild(r, b), nil
}

func (a *api) deleteBuild(r *rest.Request) (any, error) {
	return nil, a.db.Write(r.Context(), func(tx *db.Tx) error {
		b, err := a.repo.Build(r.Context(), tx, r.Space, r.PathValue("id"))
		if err != nil {
			return err
		}
		return a.repo.DeleteBuilds(r.Context(), tx, r.Space, []string{b.ID})
	})
}

func (a *api) deleteBuilds(r *rest.Request) (any, error) {
	ids, err := r.QueryList("ids")
	if err != nil {
		return nil, err
	}
	return nil, a.db.Write(r.Context(), func(tx *db.Tx) error { return a.repo.DeleteBuilds(r.Context(), tx, r.Space, ids) })
}
