package external

import (
	"context"
	"crypto/sha1" //nolint:gosec // what Maven's repositories tell of their files
	"crypto/sha256"
	"hash"
	"net/url"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// maven is a repository of Maven's layout on any web server.
type maven struct{ *client }

func (f *Feeds) maven(doc *octopus.Feed) (source, error) {
	c, err := f.client(doc, "a Maven repository")
	return &maven{c}, err
}

// mavenMetadata is a maven-metadata.xml, of an artifact or of a snapshot.
type mavenMetadata struct {
	Versions []string `xml:"versioning>versions>version"`
	Snapshot struct {
		Timestamp string `xml:"timestamp"`
		Build     string `xml:"buildNumber"`
	} `xml:"versioning>snapshot"`
	Files []struct {
		Classifier string `xml:"classifier"`
		Extension  string `xml:"extension"`
		Value      string `xml:"value"`
	} `xml:"versioning>snapshotVersions>snapshotVersion"`
}

// coordinate reads the id of a package, group:artifact and what may follow.
func (m *maven) coordinate(packageID string) (version.Coordinate, error) {
	c, ok := version.ParsePackageID(packageID)
	for _, part := range []string{c.Group, c.Artifact, c.Packaging, c.Classifier} {
		ok = ok && (part == "" || checkName("", part) == nil)
	}
	if !ok || strings.Contains(packageID, "/") {
		return c, fault.InvalidField("packageId", "packageId is '%.100s'; a package of the feed '%s' is called group:artifact, such as com.acme:web, and may have :packaging and :classifier behind.", packageID, m.feed)
	}
	return c, nil
}

// under is the address of a file of an artifact.
func (m *maven) under(c version.Coordinate, segments ...string) *url.URL {
	return m.at(slices.Concat(strings.Split(c.Group, "."), []string{c.Artifact}, segments)...)
}

func (m *maven) metadata(ctx context.Context, at *url.URL) (*mavenMetadata, error) {
	var data mavenMetadata
	if err := m.xml(ctx, at, &data); err != nil {
		return &mavenMetadata{}, absent(err, nil)
	}
	return &data, nil
}

// search finds the artifact that is called exactly so: repositories have no search.
func (m *maven) search(ctx context.Context, term string, _ int) ([]Description, error) {
	if _, ok := version.ParsePackageID(term); !ok || checkName("term", term) != nil {
		return nil, nil
	}
	all, err := m.versions(ctx, term)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return []Description{{ID: term, Latest: all[len(all)-1].Version}}, nil
}

func (m *maven) versions(ctx context.Context, packageID string) ([]Version, error) {
	c, err := m.coordinate(packageID)
	if err != nil {
		return nil, err
	}
	data, err := m.metadata(ctx, m.under(c, "maven-metadata.xml"))
	if err != nil {
		return nil, err
	}
	var out []Version
	// The last ones are those published last.
	for _, text := range data.Versions[max(0, len(data.Versions)-maxVersions):] {
		out = append(out, Version{Version: strings.TrimSpace(text)})
	}
	return out, nil
}

// packagings are the extensions by which an artifact is looked for whose id does not
// tell its packaging: the one of its POM, then those of packages that are deployed.
func (m *maven) packagings(ctx context.Context, c version.Coordinate, pom *url.URL) ([]string, error) {
	if c.Packaging != "" {
		return []string{c.Packaging}, nil
	}
	var project struct {
		Packaging string `xml:"packaging"`
	}
	if err := m.xml(ctx, pom, &project); absent(err, nil) != nil {
		return nil, err
	}
	all := []string{"zip", "jar", "war", "ear", "rar", "tar.gz", "nupkg"}
	if slices.Contains(all, project.Packaging) {
		all = slices.Concat([]string{project.Packaging}, all)
	}
	return all, nil
}

func (m *maven) open(ctx context.Context, packageID, text string) (*download, error) {
	c, err := m.coordinate(packageID)
	if err != nil {
		return nil, err
	}
	snapshot := strings.HasSuffix(strings.ToUpper(text), "-SNAPSHOT")
	data := &mavenMetadata{}
	if snapshot {
		if data, err = m.metadata(ctx, m.under(c, text, "maven-metadata.xml")); err != nil {
			return nil, err
		}
	}
	file := func(extension, classifier string) (name string, at *url.URL) {
		if classifier != "" {
			classifier = "-" + classifier
		}
		return c.Artifact + "-" + text + classifier + "." + extension,
			m.under(c, text, c.Artifact+"-"+data.value(text, extension, strings.TrimPrefix(classifier, "-"))+classifier+"."+extension)
	}
	_, pom := file("pom", "")
	extensions, err := m.packagings(ctx, c, pom)
	if err != nil {
		return nil, err
	}
	for _, extension := range extensions {
		name, at := file(extension, c.Classifier)
		d, err := m.download(ctx, at, nil, name)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		d.moving = snapshot
		if err := m.expect(ctx, at, d); err != nil {
			_ = d.body.Close() // the other error tells
			return nil, err
		}
		return d, nil
	}
	return nil, notThere(m.feed, packageID, text)
}

// value is the version in the name of a file of a snapshot.
func (d *mavenMetadata) value(text, extension, classifier string) string {
	for _, f := range d.Files {
		if f.Extension == extension && f.Classifier == classifier && checkName("", f.Value) == nil {
			return f.Value
		}
	}
	if s := d.Snapshot; s.Timestamp != "" && s.Build != "" {
		return text[:len(text)-len("SNAPSHOT")] + s.Timestamp + "-" + s.Build
	}
	return text
}

// expect finds the hash that a file should have, which is in a file beside it.
func (m *maven) expect(ctx context.Context, at *url.URL, d *download) error {
	for _, one := range []struct {
		extension string
		hash      hash.Hash
	}{{".sha256", sha256.New()}, {".sha1", sha1.New()}} { //nolint:gosec // see the import
		beside := *at
		beside.Path, beside.RawPath = at.Path+one.extension, ""
		text, err := m.text(ctx, &beside)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		// Some tools write the name of the file behind it.
		if words := strings.Fields(text); len(words) > 0 && len(words[0]) == 2*one.hash.Size() {
			d.hash, d.sum = one.hash, words[0]
			return nil
		}
	}
	return nil
}
