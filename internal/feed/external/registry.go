package external

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// registry is a container registry: packages are repositories, versions are tags.
type registry struct {
	*client
	path  []string // of the repositories
	token string   // for what is asked now, "" before there is one
}

func (f *Feeds) registry(doc *octopus.Feed) (source, error) {
	c, err := f.client(doc, "a container registry of version 2")
	if err != nil {
		return nil, err
	}
	c.base.Path = strings.TrimSuffix(c.base.Path, "/v2")
	r := &registry{client: c}
	if p := strings.Trim(doc.RegistryPath, "/"); p != "" {
		r.path = strings.Split(p, "/")
	}
	return r, nil
}

// repository is the address of something of a repository.
func (r *registry) repository(packageID string, segments ...string) *url.URL {
	parts := slices.Concat(r.path, strings.Split(packageID, "/"))
	if host := r.base.Hostname(); len(parts) == 1 && (host == "docker.io" || strings.HasSuffix(host, ".docker.io")) {
		parts = []string{"library", parts[0]}
	}
	return r.at(slices.Concat([]string{"v2"}, parts, segments)...)
}

// ask sends a request, and again with a token when the registry wants one.
func (r *registry) ask(ctx context.Context, u *url.URL, accept []string) (*http.Response, error) {
	for again := range 2 {
		headers := http.Header{}
		if accept != nil {
			headers["Accept"] = accept
		}
		if r.token != "" && sameOrigin(u, r.base) {
			headers.Set("Authorization", "Bearer "+r.token)
		}
		resp, err := r.send(ctx, u, headers)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusUnauthorized && again == 0 && sameOrigin(resp.Request.URL, r.base) {
			scheme, challenge := parseChallenge(resp.Header.Get("Www-Authenticate"))
			if strings.EqualFold(scheme, "bearer") {
				drop(resp)
				if err := r.login(ctx, challenge); err != nil {
					return nil, err
				}
				continue
			}
		}
		if err := r.refusal(resp); err != nil {
			drop(resp)
			return nil, err
		}
		return resp, nil
	}
	return nil, r.nonsense("401")
}

// login gets a token from where the registry says. The credentials go there too, as
// the protocol has it: to an address with encryption, or to the registry's own host.
func (r *registry) login(ctx context.Context, challenge map[string]string) error {
	u, err := r.resolve(r.base, challenge["realm"])
	if err != nil {
		return err
	}
	if u.Scheme != "https" && u.Hostname() != r.base.Hostname() {
		return r.nonsense("an address for its tokens that is without encryption")
	}
	q := u.Query()
	for _, name := range []string{"service", "scope"} {
		if v := challenge[name]; v != "" {
			q.Set(name, v)
		}
	}
	u.RawQuery = q.Encode()
	headers := http.Header{}
	if r.user != "" || r.password != "" {
		basic := http.Request{Header: headers}
		basic.SetBasicAuth(r.user, string(r.password))
	}
	var token struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if _, err := r.json(ctx, u, headers, &token); err != nil {
		return absent(err, r.nonsense("an address for its tokens that is not there"))
	}
	if r.token = token.Token; r.token == "" {
		r.token = token.AccessToken
	}
	if r.token == "" {
		return r.nonsense("no token")
	}
	return nil
}

// parseChallenge reads a header WWW-Authenticate with one challenge.
func parseChallenge(text string) (scheme string, params map[string]string) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	params = map[string]string{}
	for rest != "" {
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		var value string
		if quoted, isQuoted := strings.CutPrefix(strings.TrimSpace(after), `"`); isQuoted {
			value, rest, _ = strings.Cut(quoted, `"`)
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			value, rest, _ = strings.Cut(after, ",")
		}
		params[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return scheme, params
}

// pages reads a listing page by page, until each returns false.
func (r *registry) pages(ctx context.Context, u *url.URL, each func(body []byte) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 4*r.answer)
	defer cancel()
	u.RawQuery = "n=1000"
	for range maxPages {
		resp, err := r.ask(ctx, u, nil)
		if err != nil {
			return err
		}
		var more bool
		err = r.take(ctx, u, resp, func(body io.Reader) error {
			all, err := io.ReadAll(body)
			if err == nil {
				more, err = each(all)
			}
			return err
		})
		if err != nil || !more {
			return err
		}
		if u, err = r.next(u, resp.Header); err != nil || u == nil {
			return err
		}
	}
	return nil
}

// search looks through the registry's catalogue, where it has one that may be read;
// else it finds the repository that is called exactly so.
func (r *registry) search(ctx context.Context, term string, limit int) ([]Description, error) {
	prefix := ""
	if len(r.path) > 0 {
		prefix = strings.Join(r.path, "/") + "/"
	}
	var out []Description
	err := r.pages(ctx, r.at("v2", "_catalog"), func(body []byte) (bool, error) {
		var page struct{ Repositories []string }
		if err := json.Unmarshal(body, &page); err != nil {
			return false, err
		}
		for _, name := range page.Repositories {
			if id, ok := strings.CutPrefix(name, prefix); ok && strings.Contains(id, strings.ToLower(term)) && len(out) < limit {
				out = append(out, Description{ID: id})
			}
		}
		return len(out) < limit, nil
	})
	if err == nil || checkName("term", term) != nil {
		return out, err
	}
	r.token = "" // it was for the catalogue
	tags, errTags := r.versions(ctx, term)
	if errTags != nil || len(tags) == 0 {
		return nil, absent(err, nil)
	}
	return []Description{{ID: term}}, nil
}

func (r *registry) versions(ctx context.Context, packageID string) ([]Version, error) {
	var out []Version
	err := r.pages(ctx, r.repository(packageID, "tags", "list"), func(body []byte) (bool, error) {
		var page struct{ Tags []string }
		if err := json.Unmarshal(body, &page); err != nil {
			return false, err
		}
		for _, tag := range page.Tags {
			if len(out) < maxVersions {
				out = append(out, Version{Version: tag})
			}
		}
		return len(out) < maxVersions, nil
	})
	return out, absent(err, nil)
}

// manifest is what a registry says of a tag.
type manifest struct {
	MediaType string `json:"mediaType"`
	Config    struct {
		MediaType string `json:"mediaType"`
	} `json:"config"`
	Layers []struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Annotations map[string]string `json:"annotations"`
	} `json:"layers"`
}

// open fetches an artifact that is one file, such as a chart. An image is no file:
// those who run it pull it.
func (r *registry) open(ctx context.Context, packageID, text string) (*download, error) {
	at := r.repository(packageID, "manifests", text)
	timed, cancel := context.WithTimeout(ctx, r.answer)
	defer cancel()
	resp, err := r.ask(timed, at, []string{"application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"})
	if err != nil {
		return nil, absent(err, notThere(r.feed, packageID, text))
	}
	var m manifest
	if err := r.take(timed, at, resp, func(body io.Reader) error { return json.NewDecoder(body).Decode(&m) }); err != nil {
		return nil, err
	}
	image := m.Config.MediaType == "application/vnd.oci.image.config.v1+json" || m.Config.MediaType == "application/vnd.docker.container.image.v1+json"
	if image || len(m.Layers) == 0 || strings.Contains(m.MediaType, "index") || strings.Contains(m.MediaType, "list") {
		return nil, fault.New(fault.Unsupported, "%s:%s in the feed '%s' is a container image, which is no file that could be fetched; set the package to be not acquired.", packageID, text, r.feed)
	}
	layer := m.Layers[0]
	for _, l := range m.Layers {
		if strings.HasPrefix(l.MediaType, "application/vnd.cncf.helm.chart.content") {
			layer = l
		}
	}
	sum, ok := strings.CutPrefix(layer.Digest, "sha256:")
	if !ok || len(sum) != 2*sha256.Size {
		return nil, r.nonsense("a layer without a SHA-256")
	}
	headers := http.Header{}
	if r.token != "" {
		headers.Set("Authorization", "Bearer "+r.token)
	}
	title := layer.Annotations["org.opencontainers.image.title"]
	name := packageID[strings.LastIndex(packageID, "/")+1:] + "-" + text + extensionOf(&url.URL{Path: title}, ".tgz")
	d, err := r.download(ctx, r.repository(packageID, "blobs", layer.Digest), headers, name)
	if err != nil {
		return nil, absent(err, notThere(r.feed, packageID, text))
	}
	d.hash, d.sum, d.moving = sha256.New(), sum, true // a tag may be moved
	return d, nil
}
