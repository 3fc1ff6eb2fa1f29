package external

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// github is the API of GitHub, whose releases are versions of the package owner/repository.
type github struct{ *client }

func (f *Feeds) github(doc *octopus.Feed) (source, error) {
	c, err := f.client(doc, "GitHub's API, such as https://api.github.com")
	if err != nil {
		return nil, err
	}
	c.bearer = true
	return &github{c}, nil
}

type githubRelease struct {
	Tag       string        `json:"tag_name"`
	Name      string        `json:"name"`
	Body      string        `json:"body"`
	Draft     bool          `json:"draft"`
	Published time.Time     `json:"published_at"`
	Zip       string        `json:"zipball_url"`
	Assets    []githubAsset `json:"assets"`
}

type githubAsset struct {
	Name   string `json:"name"`
	URL    string `json:"url"`
	Digest string `json:"digest"`
}

func (g *github) headers(accept string) http.Header {
	return http.Header{"Accept": {accept}, "X-Github-Api-Version": {"2022-11-28"}}
}

const githubJSON = "application/vnd.github+json"

// repository is the address of a package's repository.
func (g *github) repository(packageID string, segments ...string) (*url.URL, error) {
	owner, name, ok := strings.Cut(packageID, "/")
	if !ok || strings.Contains(name, "/") {
		return nil, fault.InvalidField("packageId", "packageId is '%.100s'; a package of the feed '%s' is called owner/repository.", packageID, g.feed)
	}
	return g.at(append([]string{"repos", owner, name}, segments...)...), nil
}

func (g *github) search(ctx context.Context, term string, limit int) ([]Description, error) {
	type repo struct {
		FullName    string `json:"full_name"`
		Description string `json:"description"`
	}
	var found struct{ Items []repo }
	if strings.Contains(term, "/") && checkName("term", term) == nil {
		u, err := g.repository(term)
		if err != nil {
			return nil, nil //nolint:nilerr // a text that is no name finds nothing
		}
		var one repo
		if _, err := g.json(ctx, u, g.headers(githubJSON), &one); err != nil {
			return nil, absent(err, nil)
		}
		found.Items = []repo{one}
	} else if term != "" {
		u := g.at("search", "repositories")
		u.RawQuery = url.Values{"q": {term}, "per_page": {strconv.Itoa(min(limit, 100))}}.Encode()
		if _, err := g.json(ctx, u, g.headers(githubJSON), &found); err != nil {
			return nil, err
		}
	}
	var out []Description
	for _, r := range found.Items {
		out = append(out, Description{ID: r.FullName, Description: r.Description})
	}
	return out, nil
}

func (g *github) versions(ctx context.Context, packageID string) ([]Version, error) {
	u, err := g.repository(packageID, "releases")
	if err != nil {
		return nil, err
	}
	u.RawQuery = "per_page=100"
	var out []Version
	for pages := 0; u != nil && pages < maxPages && len(out) < maxVersions; pages++ {
		var releases []githubRelease
		header, err := g.json(ctx, u, g.headers(githubJSON), &releases)
		if err != nil {
			return nil, absent(err, nil)
		}
		for _, r := range releases {
			if !r.Draft {
				out = append(out, Version{Version: r.Tag, Title: r.Name, Published: r.Published})
			}
		}
		if u, err = g.next(u, header); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// next is the address of the next page, nil at the last.
func (c *client) next(from *url.URL, header http.Header) (*url.URL, error) {
	for _, line := range header.Values("Link") {
		for link := range strings.SplitSeq(line, ",") {
			address, rel, _ := strings.Cut(strings.TrimSpace(link), ">")
			if strings.HasPrefix(address, "<") && strings.Contains(strings.ReplaceAll(rel, `"`, ""), "rel=next") {
				return c.resolve(from, address[1:])
			}
		}
	}
	return nil, nil //nolint:nilnil // no page is an answer
}

func (g *github) release(ctx context.Context, packageID, text string) (*githubRelease, error) {
	u, err := g.repository(packageID, "releases", "tags", text)
	if err != nil {
		return nil, err
	}
	var r githubRelease
	if _, err := g.json(ctx, u, g.headers(githubJSON), &r); err != nil {
		return nil, absent(err, notThere(g.feed, packageID, text))
	}
	return &r, nil
}

func (g *github) notes(ctx context.Context, packageID, text string) (string, error) {
	r, err := g.release(ctx, packageID, text)
	if err != nil {
		return "", err
	}
	return r.Body, nil
}

// open fetches the one asset of a release that is a package or, when there is none or
// more than one, the source.
func (g *github) open(ctx context.Context, packageID, text string) (*download, error) {
	r, err := g.release(ctx, packageID, text)
	if err != nil {
		return nil, err
	}
	name := strings.ReplaceAll(packageID, "/", ".") + "." + strings.ReplaceAll(text, "/", "-")
	var asset *githubAsset
	packages := 0
	for i := range r.Assets {
		if extensionOf(&url.URL{Path: r.Assets[i].Name}, "") != "" {
			asset = &r.Assets[i]
			packages++
		}
	}
	address, headers, extension := r.Zip, g.headers(githubJSON), ".zip"
	if packages == 1 {
		address, headers, extension = asset.URL, g.headers("application/octet-stream"), extensionOf(&url.URL{Path: asset.Name}, "")
	}
	u, err := g.resolve(g.base, address)
	if err != nil {
		return nil, err
	}
	d, err := g.download(ctx, u, headers, name+extension)
	if err != nil {
		return nil, absent(err, notThere(g.feed, packageID, text))
	}
	if sum, ok := strings.CutPrefix(digestOf(asset), "sha256:"); ok && packages == 1 {
		d.hash, d.sum = sha256.New(), sum
	}
	return d, nil
}

func digestOf(a *githubAsset) string {
	if a == nil {
		return ""
	}
	return a.Digest
}
