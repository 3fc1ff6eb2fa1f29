package external

import (
	"context"
	"crypto/sha256"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// helm is a repository of charts with an index.yaml.
type helm struct{ *client }

func (f *Feeds) helm(doc *octopus.Feed) (source, error) {
	c, err := f.client(doc, "a repository of Helm charts, below which is its index.yaml")
	return &helm{c}, err
}

// chart is a version of a chart.
type chart struct {
	Version     string            `yaml:"version"`
	Description string            `yaml:"description"`
	Created     time.Time         `yaml:"created"`
	URLs        []string          `yaml:"urls"`
	Digest      string            `yaml:"digest"`
	Annotations map[string]string `yaml:"annotations"`
}

func (h *helm) index(ctx context.Context) (map[string][]chart, error) {
	var index struct {
		Entries map[string][]chart `yaml:"entries"`
	}
	_, err := h.read(ctx, h.at("index.yaml"), nil, func(r io.Reader) error { return yaml.NewDecoder(r).Decode(&index) })
	if err == nil && index.Entries == nil {
		err = h.nonsense("an index without entries")
	}
	return index.Entries, absent(err, h.nonsense("404"))
}

func (h *helm) search(ctx context.Context, term string, limit int) ([]Description, error) {
	all, err := h.index(ctx)
	var out []Description
	for id, charts := range all {
		if strings.Contains(ident.Fold(id), ident.Fold(term)) && len(charts) > 0 {
			out = append(out, Description{ID: id, Description: charts[0].Description, Latest: charts[0].Version})
		}
	}
	slices.SortFunc(out, func(a, b Description) int { return strings.Compare(a.ID, b.ID) })
	return out[:min(len(out), limit)], err
}

func (h *helm) versions(ctx context.Context, packageID string) ([]Version, error) {
	all, err := h.index(ctx)
	if err != nil {
		return nil, err
	}
	charts := all[packageID]
	var out []Version
	for _, c := range charts[:min(len(charts), maxVersions)] {
		out = append(out, Version{Version: c.Version, Published: c.Created})
	}
	return out, nil
}

func (h *helm) chart(ctx context.Context, packageID, text string) (*chart, error) {
	all, err := h.index(ctx)
	if err != nil {
		return nil, err
	}
	charts := all[packageID]
	i := slices.IndexFunc(charts, func(c chart) bool { return c.Version == text })
	if i < 0 {
		return nil, notThere(h.feed, packageID, text)
	}
	return &charts[i], nil
}

// notes are the changes that a chart tells of, in the annotation that is used for it.
func (h *helm) notes(ctx context.Context, packageID, text string) (string, error) {
	c, err := h.chart(ctx, packageID, text)
	if err != nil {
		return "", err
	}
	return c.Annotations["artifacthub.io/changes"], nil
}

func (h *helm) open(ctx context.Context, packageID, text string) (*download, error) {
	c, err := h.chart(ctx, packageID, text)
	if err != nil {
		return nil, err
	}
	if len(c.URLs) == 0 {
		return nil, h.nonsense("a chart without an address")
	}
	if strings.HasPrefix(c.URLs[0], "oci:") {
		return nil, fault.New(fault.Unsupported, "The chart %s version %s of the feed '%s' is in a container registry; make a feed of the type OciRegistry for it.", packageID, text, h.feed)
	}
	u, err := h.resolve(h.at("index.yaml"), c.URLs[0])
	if err != nil {
		return nil, err
	}
	d, err := h.download(ctx, u, nil, packageID+"-"+text+extensionOf(u, ".tgz"))
	if err != nil {
		return nil, absent(err, notThere(h.feed, packageID, text))
	}
	if c.Digest != "" {
		d.hash, d.sum = sha256.New(), strings.TrimPrefix(c.Digest, "sha256:")
	}
	return d, nil
}

// extensionOf is the extension in an address, or a usual one.
func extensionOf(u *url.URL, usual string) string {
	name := strings.ToLower(path.Base(u.Path))
	for _, e := range []string{".tar.gz", ".tar.bz2", ".tgz", ".zip", ".jar", ".war", ".ear", ".nupkg", ".tar"} {
		if strings.HasSuffix(name, e) {
			return e
		}
	}
	return usual
}
