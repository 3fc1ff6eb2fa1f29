package packages

import (
	"bytes"
	"cmp"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// nugetRoutes serve the packages of the built-in repository to NuGet clients: the
// address to push to, which other servers of the kind have too, and the parts of
// version 3 of NuGet's protocol by which packages are found and fetched. Each is
// there for the default space, and with a space in front.
func (a *api) nugetRoutes(overwrite []rest.Param) []rest.Route {
	prerelease := rest.Param{Name: "prerelease", Type: rest.Boolean, About: "with pre-releases; false unless said"}
	search := []rest.Param{
		{Name: "q", Type: rest.Text, About: "a part of the id"},
		{Name: "skip", Type: rest.Number, About: "how many to leave out"},
		{Name: "take", Type: rest.Number, About: "how many to give"},
		prerelease,
	}
	const pushes = "Pushes a package as NuGet clients do: under its file's name, or that of its .nuspec."
	routes := []rest.Route{
		{Method: http.MethodPut, Pattern: "/nuget/packages", Permission: push, Handler: a.pushNuGet, Upload: true, Response: reflect.TypeFor[octopus.Package](), Query: overwrite, Summary: pushes},
		{Method: http.MethodPost, Pattern: "/nuget/packages", Permission: push, Handler: a.pushNuGet, Upload: true, Response: reflect.TypeFor[octopus.Package](), Query: overwrite, Summary: pushes},
		{Method: http.MethodDelete, Pattern: "/nuget/packages/{id}/{version}", Permission: administer, Handler: a.deleteNuGet, Summary: "Deletes a version of a package, as NuGet clients do."},
		{Method: http.MethodGet, Pattern: "/nuget/v3/index.json", Permission: view, Handler: a.nugetIndex, Summary: "Tells NuGet clients what there is: the address to give them as a source."},
		{Method: http.MethodGet, Pattern: "/nuget/v3/search", Permission: view, Handler: a.nugetSearch, Query: search, Summary: "Finds NuGet packages by a part of their id."},
		{Method: http.MethodGet, Pattern: "/nuget/v3/registration/{id}/index.json", Permission: view, Handler: a.nugetRegistration, Summary: "Describes the versions of a NuGet package."},
		{Method: http.MethodGet, Pattern: "/nuget/v3/registration/{id}/page/{page}", Permission: view, Handler: a.nugetRegistrationPage, Summary: "Describes a part of the versions of a NuGet package that has many."},
		{Method: http.MethodGet, Pattern: "/nuget/v3/registration/{id}/{version}", Permission: view, Handler: a.nugetLeaf, Summary: "Describes a version of a NuGet package."},
		{Method: http.MethodGet, Pattern: "/nuget/v3/flat/{id}/index.json", Permission: view, Handler: a.nugetVersions, Summary: "Lists the versions of a NuGet package, the oldest first."},
		{Method: http.MethodGet, Pattern: "/nuget/v3/flat/{id}/{version}/{file}", Permission: download, Handler: a.nugetFile, ContentType: "application/octet-stream", Summary: "Fetches a NuGet package, or its .nuspec."},
	}
	var all []rest.Route
	for _, route := range routes {
		route.Group = "nuget"
		inSpace, atRoot, named := route, route, route
		atRoot.Mount, named.Mount, named.Pattern = rest.AtRootInSpace, rest.AtRootInSpace, "/{space}"+route.Pattern
		all = append(all, inSpace, atRoot, named)
	}
	return all
}

// object is a JSON object of NuGet's protocol, whose members have names that no
// other part of the API has.
type object map[string]any

// nugetBase is where the space's parts of the protocol are, as an address that
// clients can follow.
func nugetBase(r *rest.Request) string {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	return scheme + "://" + r.Host + r.Href("/"+string(r.Space)+"/nuget")
}

func (a *api) nugetIndex(r *rest.Request) (any, error) {
	base := nugetBase(r)
	var resources []object
	for _, one := range []struct{ at, kinds string }{
		{"/v3/flat/", "PackageBaseAddress/3.0.0"},
		{"/v3/registration/", "RegistrationsBaseUrl RegistrationsBaseUrl/3.0.0-beta RegistrationsBaseUrl/3.6.0"},
		{"/v3/search", "SearchQueryService SearchQueryService/3.0.0-beta SearchQueryService/3.5.0"},
		{"/packages", "PackagePublish/2.0.0"},
	} {
		for kind := range strings.FieldsSeq(one.kinds) {
			resources = append(resources, object{"@id": base + one.at, "@type": kind})
		}
	}
	return object{"version": "3.0.0", "resources": resources}, nil
}

// versionsOf are the NuGet packages of an id, the newest first; never none.
func (a *api) versionsOf(r *rest.Request) (all []*feed.Package, err error) {
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		all, err = a.repo.NuGetVersions(r.Context(), tx, r.Space, r.PathValue("id"))
		return err
	})
	if err == nil && len(all) == 0 {
		return nil, fault.Missing("NuGet package", r.PathValue("id"))
	}
	return all, err
}

func (a *api) nugetVersions(r *rest.Request) (any, error) {
	all, err := a.versionsOf(r)
	if err != nil {
		return nil, err
	}
	versions := make([]string, len(all))
	for i, p := range all {
		versions[len(all)-1-i] = feed.NuGetVersion(p.Version)
	}
	return object{"versions": versions}, nil
}

// nugetPlaces are the addresses of a version: what describes it, and its file.
func nugetPlaces(r *rest.Request, p *feed.Package) (leaf, content string) {
	id, text := url.PathEscape(ident.Fold(p.PackageID)), url.PathEscape(feed.NuGetVersion(p.Version))
	base := nugetBase(r)
	return base + "/v3/registration/" + id + "/" + text + ".json", base + "/v3/flat/" + id + "/" + text + "/" + id + "." + text + ".nupkg"
}

func registrationOf(r *rest.Request, p *feed.Package) string {
	return nugetBase(r) + "/v3/registration/" + url.PathEscape(ident.Fold(p.PackageID)) + "/index.json"
}

// described is a version as registrations have it. What it depends on stands in
// its .nuspec, as some clients do not look there themselves.
func (a *api) described(r *rest.Request, p *feed.Package) (object, error) {
	groups := []object{}
	switch spec, err := a.repo.Nuspec(r.Context(), p); {
	case err == nil:
		if len(spec.Dependencies) > 0 {
			spec.Groups = append(spec.Groups, feed.NuspecGroup{Dependencies: spec.Dependencies})
		}
		for _, g := range spec.Groups {
			needs := []object{}
			for _, d := range g.Dependencies {
				needs = append(needs, object{"id": d.ID, "range": cmp.Or(d.Version, "(, )")})
			}
			group := object{"dependencies": needs}
			if g.TargetFramework != "" {
				group["targetFramework"] = g.TargetFramework
			}
			groups = append(groups, group)
		}
	case !fault.Is(err, fault.Invalid): // one that is only called a .nupkg depends on nothing
		return nil, err
	}
	leaf, content := nugetPlaces(r, p)
	return object{
		"@id": leaf, "@type": "Package", "packageContent": content, "registration": registrationOf(r, p), "listed": true, "published": p.Published,
		"catalogEntry": object{
			"@id": leaf, "@type": "PackageDetails", "id": p.PackageID, "version": feed.NuGetVersion(p.Version), "title": p.PackageID,
			"packageContent": content, "listed": true, "published": p.Published, "dependencyGroups": groups,
		},
	}, nil
}

// registrationPage is of how many versions a page of a registration tells, since
// each means to look into a package.
const registrationPage = 64

// pages are the versions of a package from the oldest on, in pages.
func pages(newestFirst []*feed.Package) [][]*feed.Package {
	slices.Reverse(newestFirst)
	return slices.Collect(slices.Chunk(newestFirst, registrationPage))
}

// nugetPage describes the versions of a page with their number n, or only which
// they are unless full is set.
func (a *api) nugetPage(r *rest.Request, versions []*feed.Package, n int, full bool) (object, error) {
	index := registrationOf(r, versions[0])
	page := object{
		"@id": strings.TrimSuffix(index, "index.json") + "page/" + strconv.Itoa(n) + ".json", "@type": "catalog:CatalogPage", "parent": index, "count": len(versions),
		"lower": feed.NuGetVersion(versions[0].Version), "upper": feed.NuGetVersion(versions[len(versions)-1].Version),
	}
	if !full {
		return page, nil
	}
	items := make([]object, len(versions))
	for i, p := range versions {
		var err error
		if items[i], err = a.described(r, p); err != nil {
			return nil, err
		}
	}
	page["items"] = items
	return page, nil
}

func (a *api) nugetRegistration(r *rest.Request) (any, error) {
	all, err := a.versionsOf(r)
	if err != nil {
		return nil, err
	}
	parts := pages(all)
	items := make([]object, len(parts))
	for i, part := range parts {
		if items[i], err = a.nugetPage(r, part, i, len(parts) == 1); err != nil {
			return nil, err
		}
	}
	return object{"@id": registrationOf(r, all[0]), "count": len(items), "items": items}, nil
}

func (a *api) nugetRegistrationPage(r *rest.Request) (any, error) {
	all, err := a.versionsOf(r)
	if err != nil {
		return nil, err
	}
	parts := pages(all)
	n, err := strconv.Atoi(strings.TrimSuffix(r.PathValue("page"), ".json"))
	if err != nil || n < 0 || n >= len(parts) {
		return nil, fault.Missing("page", r.PathValue("page"))
	}
	return a.nugetPage(r, parts[n], n, true)
}

// nugetPackage is the version that the path names.
func (a *api) nugetPackage(r *rest.Request, text string) (p *feed.Package, err error) {
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		p, err = a.repo.NuGetPackage(r.Context(), tx, r.Space, r.PathValue("id"), text)
		return err
	})
	return p, err
}

func (a *api) nugetLeaf(r *rest.Request) (any, error) {
	p, err := a.nugetPackage(r, strings.TrimSuffix(r.PathValue("version"), ".json"))
	if err != nil {
		return nil, err
	}
	return a.described(r, p)
}

func (a *api) nugetFile(r *rest.Request) (any, error) {
	p, err := a.nugetPackage(r, r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	id, file := ident.Fold(p.PackageID), ident.Fold(r.PathValue("file"))
	switch file {
	case id + "." + feed.NuGetVersion(p.Version) + ".nupkg", ident.Fold(p.FileName()):
		return a.content(r, p)
	case id + ".nuspec":
		spec, err := a.repo.Nuspec(r.Context(), p)
		if err != nil {
			return nil, err
		}
		return rest.Raw{ContentType: "application/xml", Content: bytes.NewReader(spec.Text), Size: int64(len(spec.Text)), Modified: p.Published}, nil
	}
	return nil, fault.Missing("file", r.PathValue("file"))
}

func (a *api) nugetSearch(r *rest.Request) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	with, err := r.QueryBool("prerelease", false)
	if err != nil {
		return nil, err
	}
	var found []*feed.Package
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		found, total, err = a.repo.List(r.Context(), tx, feed.Query{Space: r.Space, Filter: r.Query("q"), NoPrerelease: !with, NuGet: true, Page: page})
		return err
	})
	if err != nil {
		return nil, err
	}
	data := make([]object, len(found))
	for i, p := range found {
		leaf, _ := nugetPlaces(r, p)
		text := feed.NuGetVersion(p.Version)
		data[i] = object{
			"@id": registrationOf(r, p), "@type": "Package", "registration": registrationOf(r, p), "id": p.PackageID, "version": text, "title": p.PackageID,
			"description": "", "authors": []string{}, "totalDownloads": 0, "verified": false,
			"versions": []object{{"@id": leaf, "version": text, "downloads": 0}},
		}
	}
	return object{"totalHits": total, "data": data}, nil
}

func (a *api) deleteNuGet(r *rest.Request) (any, error) {
	return nil, a.db.Write(r.Context(), func(tx *db.Tx) error {
		p, err := a.repo.NuGetPackage(r.Context(), tx, r.Space, r.PathValue("id"), r.PathValue("version"))
		if err != nil {
			return err
		}
		return a.repo.Delete(r.Context(), tx, r.Space, []string{p.ID})
	})
}
