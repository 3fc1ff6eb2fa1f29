package external

import (
	"context"
	"encoding/xml"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// nuget is a feed that speaks version 3 of NuGet's protocol.
type nuget struct{ *client }

func (f *Feeds) nuget(doc *octopus.Feed) (source, error) {
	c, err := f.client(doc, "a NuGet v3 feed, which ends in index.json")
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(strings.ToLower(c.base.Path), "/index.json") {
		return nil, fault.New(fault.Unsupported, "The FeedUri of the feed '%s' is not that of a NuGet v3 feed; set it to the one of its addresses that ends in index.json.", doc.Name)
	}
	return &nuget{c}, nil
}

// nugetResources are the parts of a feed that are used here.
type nugetResources struct{ flat, registration, search *url.URL }

// resources asks the feed for its parts.
func (n *nuget) resources(ctx context.Context) (r nugetResources, err error) {
	var index struct {
		Resources []struct {
			ID   string `json:"@id"`
			Type string `json:"@type"`
		} `json:"resources"`
	}
	if _, err := n.json(ctx, n.base, nil, &index); err != nil {
		return r, absent(err, n.nonsense("404"))
	}
	best := ""
	for _, one := range index.Resources {
		name, of, _ := strings.Cut(one.Type, "/")
		switch {
		case name == "PackageBaseAddress" && r.flat == nil:
			r.flat, err = n.resolve(n.base, one.ID)
		case name == "SearchQueryService" && r.search == nil:
			r.search, err = n.resolve(n.base, one.ID)
		case name == "RegistrationsBaseUrl" && (r.registration == nil || of > best && of != "Versioned"):
			best = of // a later one has versions of SemVer 2, too
			r.registration, err = n.resolve(n.base, one.ID)
		}
		if err != nil {
			return r, err
		}
	}
	if r.flat == nil {
		return r, n.nonsense("an index without a PackageBaseAddress")
	}
	return r, nil
}

// absent replaces a fault NotFound.
func absent(err, by error) error {
	if fault.Is(err, fault.NotFound) {
		return by
	}
	return err
}

func (n *nuget) search(ctx context.Context, term string, limit int) ([]Description, error) {
	r, err := n.resources(ctx)
	if err != nil {
		return nil, err
	}
	if r.search == nil {
		return nil, fault.New(fault.Unsupported, "The feed '%s' cannot be searched; give the whole id of the package.", n.feed)
	}
	q := r.search.Query()
	q.Set("q", term)
	q.Set("take", strconv.Itoa(limit))
	q.Set("prerelease", "true")
	q.Set("semVerLevel", "2.0.0")
	at := *r.search
	at.RawQuery = q.Encode()
	var found struct {
		Data []struct{ ID, Description, Version string }
	}
	if _, err := n.json(ctx, &at, nil, &found); err != nil {
		return nil, err
	}
	out := make([]Description, 0, len(found.Data))
	for _, d := range found.Data {
		out = append(out, Description{ID: d.ID, Description: d.Description, Latest: d.Version})
	}
	return out, nil
}

// nugetPage is a page of a registration, and the index of pages.
type nugetPage struct {
	ID    string      `json:"@id"`
	Items []nugetItem `json:"items"`
}

type nugetItem struct {
	ID    string      `json:"@id"`
	Items []nugetItem `json:"items"` // of a page
	Entry *struct {
		Version   string    `json:"version"`
		Title     string    `json:"title"`
		Listed    *bool     `json:"listed"`
		Published time.Time `json:"published"`
	} `json:"catalogEntry"`
}

func (n *nuget) versions(ctx context.Context, packageID string) ([]Version, error) {
	r, err := n.resources(ctx)
	if err != nil {
		return nil, err
	}
	id := ident.Fold(packageID)
	if r.registration == nil {
		return n.flatVersions(ctx, r.flat, id)
	}
	at := r.registration.JoinPath(url.PathEscape(id), "index.json")
	var index nugetPage
	if _, err := n.json(ctx, at, nil, &index); err != nil {
		return nil, absent(err, nil)
	}
	var out []Version
	for i, page := range index.Items {
		if len(page.Items) == 0 && i < maxPages {
			u, err := n.resolve(at, page.ID)
			if err != nil {
				return nil, err
			}
			if _, err := n.json(ctx, u, nil, &page); err != nil {
				return nil, err
			}
		}
		for _, item := range page.Items {
			if e := item.Entry; e != nil && (e.Listed == nil || *e.Listed) && len(out) < maxVersions {
				out = append(out, Version{Version: e.Version, Title: e.Title, Published: e.Published})
			}
		}
	}
	return out, nil
}

// flatVersions lists the versions of a feed that does not describe them.
func (n *nuget) flatVersions(ctx context.Context, flat *url.URL, id string) ([]Version, error) {
	var index struct{ Versions []string }
	if _, err := n.json(ctx, flat.JoinPath(url.PathEscape(id), "index.json"), nil, &index); err != nil {
		return nil, absent(err, nil)
	}
	var out []Version
	for _, text := range index.Versions[:min(len(index.Versions), maxVersions)] {
		out = append(out, Version{Version: text})
	}
	return out, nil
}

// file is the address of a file of a package, by its extension.
func (n *nuget) file(ctx context.Context, packageID, text, extension string) (*url.URL, error) {
	r, err := n.resources(ctx)
	if err != nil {
		return nil, err
	}
	id, v := url.PathEscape(ident.Fold(packageID)), url.PathEscape(ident.Fold(feed.NuGetVersion(text)))
	name := id + "." + v + extension
	if extension == ".nuspec" {
		name = id + extension
	}
	return r.flat.JoinPath(id, v, name), nil
}

func (n *nuget) notes(ctx context.Context, packageID, text string) (string, error) {
	u, err := n.file(ctx, packageID, text, ".nuspec")
	if err != nil {
		return "", err
	}
	var spec feed.Nuspec
	_, err = n.read(ctx, u, nil, func(r io.Reader) error { return xml.NewDecoder(r).Decode(&spec) })
	return spec.ReleaseNotes, absent(err, nil)
}

func (n *nuget) open(ctx context.Context, packageID, text string) (*download, error) {
	u, err := n.file(ctx, packageID, text, ".nupkg")
	if err != nil {
		return nil, err
	}
	d, err := n.download(ctx, u, nil, packageID+"."+text+".nupkg")
	return d, absent(err, notThere(n.feed, packageID, text))
}
