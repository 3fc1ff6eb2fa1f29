package external_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/egress/proxytest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

const (
	user, password = "reader", "pass-of-the-feed"
)

type world struct {
	*external.Feeds
	t     testing.TB
	db    *db.DB
	store *docstore.Store
	blobs *blob.Dir
	space ident.SpaceID
}

func newWorld(t testing.TB, d *db.DB, cfg external.Config) *world {
	t.Helper()
	keys, err := secret.Open(t.Context(), d, secret.Source{Dir: t.TempDir()})
	check(t, err)
	kinds, err := resource.NewSet(resources.All()...)
	check(t, err)
	w := &world{t: t, db: d, store: docstore.New(kinds, keys)}
	w.blobs, err = blob.OpenDir(t.TempDir())
	check(t, err)
	check(t, d.Write(t.Context(), func(tx *db.Tx) error {
		id, err := w.store.In(tx).Create(t.Context(), "spaces", "", "", &octopus.Space{Name: "Default", IsDefault: true})
		w.space = ident.SpaceID(id)
		return err
	}))
	cfg.DB, cfg.Store, cfg.Blobs = d, w.store, w.blobs
	w.Feeds = external.New(cfg)
	return w
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) feed(kind octopus.FeedType, uri string) (id string) {
	w.t.Helper()
	secret := octopus.NewSensitive(password)
	check(w.t, w.db.Write(w.t.Context(), func(tx *db.Tx) (err error) {
		id, err = w.store.In(tx).Create(w.t.Context(), "feeds", w.space, "", &octopus.Feed{Name: "Far " + string(kind), FeedType: kind, FeedURI: uri, Username: user, Password: &secret})
		return err
	}))
	return id
}

func (w *world) list(feed string, q external.Query) (out []string) {
	w.t.Helper()
	all, err := w.Versions(w.t.Context(), w.space, feed, q)
	check(w.t, err)
	for _, v := range all {
		out = append(out, v.Version)
	}
	return out
}

func (w *world) fetched(feed, id, text, name, content string) {
	w.t.Helper()
	file, err := w.Fetch(w.t.Context(), w.space, feed, id, text)
	check(w.t, err)
	r, _, err := w.blobs.Open(w.t.Context(), blob.Hash(file.SHA256))
	check(w.t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	check(w.t, err)
	if file.Name != name || string(got) != content || file.Size != int64(len(content)) {
		w.t.Errorf("%s %s: %+v with %q, want %s with %q", id, text, file, got, name, content)
	}
}

// absent asks for what is not there.
func (w *world) absent(feed, id, text string) {
	w.t.Helper()
	if _, err := w.Fetch(w.t.Context(), w.space, feed, id, text); !fault.Is(err, fault.NotFound) {
		w.t.Errorf("fetch %s %s: %v, want a fault NotFound", id, text, err)
	}
	if _, err := w.Version(w.t.Context(), w.space, feed, id, text); !fault.Is(err, fault.NotFound) {
		w.t.Errorf("find %s %s: %v, want a fault NotFound", id, text, err)
	}
}

func same(t testing.TB, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// guarded serves to those with the feed's credentials alone.
func guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// files serves a directory with these files to those who may.
func files(t testing.TB, content map[string]string) (dir, uri string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range content {
		put(t, dir, name, text)
	}
	return dir, serve(t, guarded(http.FileServer(http.Dir(dir))))
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
	check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestMaven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), external.Config{})
	sum := sha1.Sum([]byte("zip of 1.10"))
	dir, uri := files(t, map[string]string{
		"m2/com/acme/web/maven-metadata.xml":     `<metadata><versioning><versions><version>1.9</version><version>1.10</version><version>1.10-rc-1</version><version>2.0-SNAPSHOT</version></versions></versioning></metadata>`,
		"m2/com/acme/web/1.10/web-1.10.zip":      "zip of 1.10",
		"m2/com/acme/web/1.10/web-1.10.zip.sha1": hex.EncodeToString(sum[:]) + "  web-1.10.zip",
		"m2/com/acme/web/1.10/web-1.10-doc.jar":  "documents",
		"m2/com/acme/web/1.9/web-1.9.pom":        `<project xmlns="http://maven.apache.org/POM/4.0.0"><packaging>war</packaging></project>`,
		"m2/com/acme/web/1.9/web-1.9.war":        "war of 1.9",
		"m2/com/acme/web/1.9/web-1.9.jar":        "classes of 1.9",
		"m2/com/acme/web/1.9/web-1.9.war.sha256": strings.Repeat("0", 64),
		"m2/com/acme/web/2.0-SNAPSHOT/maven-metadata.xml": `<metadata><versioning><snapshot><timestamp>20260102.030405</timestamp><buildNumber>7</buildNumber></snapshot>` +
			`<snapshotVersions><snapshotVersion><extension>jar</extension><value>2.0-20260102.030405-7</value></snapshotVersion></snapshotVersions></versioning></metadata>`,
		"m2/com/acme/web/2.0-SNAPSHOT/web-2.0-20260102.030405-7.jar": "snapshot 7",
	})
	id := w.feed(octopus.FeedMaven, uri+"/m2/")
	same(t, "all", []string{"2.0-SNAPSHOT", "1.10", "1.10-rc-1", "1.9"}, w.list(id, external.Query{PackageID: "com.acme:web"}))
	same(t, "in a range", []string{"1.10"}, w.list(id, external.Query{PackageID: "com.acme:web", Range: "[1.9.1,1.99]", NoPrerelease: true}))
	same(t, "of nothing", []string(nil), w.list(id, external.Query{PackageID: "com.acme:none"}))
	w.fetched(id, "com.acme:web", "1.10", "web-1.10.zip", "zip of 1.10")
	w.fetched(id, "com.acme:web:jar:doc", "1.10", "web-1.10-doc.jar", "documents")
	w.fetched(id, "com.acme:web:jar", "1.9", "web-1.9.jar", "classes of 1.9")
	w.absent(id, "com.acme:web", "3.0")
	if _, err := w.Fetch(t.Context(), w.space, id, "com.acme:web", "1.9"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "with the hash") {
		t.Errorf("content with another hash than beside it: %v", err)
	}
	// A snapshot is asked for each time.
	w.fetched(id, "com.acme:web", "2.0-SNAPSHOT", "web-2.0-SNAPSHOT.jar", "snapshot 7")
	put(t, dir, "m2/com/acme/web/2.0-SNAPSHOT/web-2.0-20260102.030405-7.jar", "snapshot 7 again")
	w.fetched(id, "com.acme:web", "2.0-SNAPSHOT", "web-2.0-SNAPSHOT.jar", "snapshot 7 again")
	found, err := w.Search(t.Context(), w.space, id, "com.acme:web")
	if err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	for _, bad := range []string{"web", "com.acme:..", "../x", "a:b/../c"} {
		if _, err := w.Versions(t.Context(), w.space, id, external.Query{PackageID: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want a fault Invalid", bad, err)
		}
	}
}

func TestHelm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), external.Config{})
	_, uri := files(t, map[string]string{
		"charts/index.yaml": "apiVersion: v1\nentries:\n  web:\n  - {version: 1.10.0, created: 2026-01-02T03:04:05Z, urls: [web-1.10.0.tgz], digest: " + sha("chart 10") +
			", annotations: {artifacthub.io/changes: Faster}}\n  - {version: 1.9.0, urls: [web-1.9.0.tgz], digest: " + sha("other") + "}\n  - {version: 1.8.0, urls: ['oci://host/web:1.8.0']}\n  webhook:\n  - {version: 0.1.0, description: Hooks}\n",
		"charts/web-1.10.0.tgz": "chart 10",
		"charts/web-1.9.0.tgz":  "chart 9",
	})
	id := w.feed(octopus.FeedHelm, uri+"/charts")
	same(t, "all", []string{"1.10.0", "1.9.0", "1.8.0"}, w.list(id, external.Query{PackageID: "web"}))
	found, err := w.Search(t.Context(), w.space, id, "HOOK")
	check(t, err)
	same(t, "search", []external.Description{{ID: "webhook", Description: "Hooks", Latest: "0.1.0"}}, found)
	notes, v, err := w.Notes(t.Context(), w.space, id, "web", "1.10.0")
	if err != nil || notes != "Faster" || v.Published.Year() != 2026 {
		t.Errorf("%q, %+v, %v", notes, v, err)
	}
	w.fetched(id, "web", "1.10.0", "web-1.10.0.tgz", "chart 10")
	w.absent(id, "web", "3.0.0")
	if _, err := w.Fetch(t.Context(), w.space, id, "web", "1.9.0"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "with the hash") {
		t.Errorf("content with another digest: %v", err)
	}
	if _, err := w.Fetch(t.Context(), w.space, id, "web", "1.8.0"); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a chart in a registry: %v", err)
	}
}

// elsewhere is another host, to which files are moved: it refuses credentials, which
// are none of its business.
func elsewhere(t testing.TB, content string) string {
	t.Helper()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			t.Errorf("credentials came to another host: %v", r.Header)
		}
		_, _ = io.WriteString(w, content)
	}))
}

// registry is a container registry whose tokens are for one repository each.
func registry(t testing.TB, tags []string, manifests, blobs map[string]string) string {
	t.Helper()
	var uri string
	far := elsewhere(t, blobs["far"])
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		if u != user || p != password || r.FormValue("service") != "registry, of tests" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		check(t, json.NewEncoder(w).Encode(map[string]string{"access_token": "for " + r.FormValue("scope")}))
	})
	with := func(scope string, h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer for "+scope {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+uri+`/token",service="registry, of tests",scope="`+scope+`"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			h(w, r)
		}
	}
	const pull = "repository:team/web:pull"
	page := func(w http.ResponseWriter, r *http.Request, member string, all []string) {
		from := 0
		for last := r.FormValue("last"); last != "" && from < len(all); from++ {
			if all[from] == last {
				from++
				break
			}
		}
		part := all[from:min(from+2, len(all))]
		if from+2 < len(all) {
			w.Header().Set("Link", fmt.Sprintf(`<%s?n=2&last=%s>; rel="next"`, r.URL.Path, url.QueryEscape(part[1])))
		}
		check(t, json.NewEncoder(w).Encode(map[string]any{member: part}))
	}
	mux.HandleFunc("GET /v2/_catalog", with("registry:catalog:*", func(w http.ResponseWriter, r *http.Request) {
		page(w, r, "repositories", []string{"other/web", "team/api", "team/tool", "team/web"})
	}))
	mux.HandleFunc("GET /v2/team/web/tags/list", with(pull, func(w http.ResponseWriter, r *http.Request) { page(w, r, "tags", tags) }))
	mux.HandleFunc("GET /v2/team/web/manifests/{tag}", with(pull, func(w http.ResponseWriter, r *http.Request) {
		m, ok := manifests[r.PathValue("tag")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, m)
	}))
	mux.HandleFunc("GET /v2/team/web/blobs/{digest}", with(pull, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, far+"/signed?secret=x", http.StatusTemporaryRedirect)
	}))
	uri = serve(t, mux)
	return uri
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), external.Config{})
	artifact := func(content string) string {
		return `{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"},` +
			`"layers":[{"mediaType":"application/vnd.cncf.helm.chart.content.v1.tar+gzip","digest":"sha256:` + sha(content) + `"}]}`
	}
	uri := registry(t, []string{"1.10", "1.9", "2.0-beta", "forged", "latest"}, map[string]string{
		"1.10": artifact("a chart"), "forged": artifact("another"),
		"1.9": `{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"digest":"sha256:` + sha("a chart") + `"}]}`,
	}, map[string]string{"far": "a chart"})
	id := w.feed(octopus.FeedOCI, uri)
	same(t, "tags", []string{"2.0-beta", "1.10", "1.9"}, w.list(id, external.Query{PackageID: "team/web"})[:3])
	same(t, "in a range", []string{"1.10"}, w.list(id, external.Query{PackageID: "team/web", Range: "(1.9,2)", NoPrerelease: true}))
	same(t, "of nothing", []string(nil), w.list(id, external.Query{PackageID: "team/none"}))
	w.fetched(id, "team/web", "1.10", "web-1.10.tgz", "a chart")
	w.absent(id, "team/web", "3.0")
	w.absent(id, "team/web", "1.10.0") // another tag
	if _, err := w.Fetch(t.Context(), w.space, id, "team/web", "forged"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("content with another digest: %v", err)
	}
	if _, err := w.Fetch(t.Context(), w.space, id, "team/web", "1.9"); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "container image") {
		t.Errorf("an image: %v", err)
	}
	docker := w.feed(octopus.FeedDocker, uri+"/v2")
	found, err := w.Search(t.Context(), w.space, docker, "web")
	check(t, err)
	same(t, "search", []external.Description{{ID: "other/web"}, {ID: "team/web"}}, found)
}

func TestGitHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), external.Config{})
	far := elsewhere(t, "an asset")
	var uri string
	mux := http.NewServeMux()
	release := func(tag string, assets ...string) map[string]any {
		list := []map[string]string{}
		for _, a := range assets {
			list = append(list, map[string]string{"name": a, "url": uri + "/assets/" + a, "digest": "sha256:" + sha("an asset")})
		}
		return map[string]any{"tag_name": tag, "name": "Release " + tag, "body": "Notes of " + tag, "published_at": "2026-01-02T03:04:05Z", "zipball_url": uri + "/zip/" + tag, "assets": list}
	}
	mux.HandleFunc("GET /repos/acme/web/releases", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("page") == "" {
			w.Header().Set("Link", `<`+uri+`/repos/acme/web/releases?page=2>; rel="next", <`+uri+`/repos/acme/web/releases?page=2>; rel="last"`)
			check(t, json.NewEncoder(w).Encode([]any{release("v1.9.0"), map[string]any{"tag_name": "v3.0.0", "draft": true}}))
			return
		}
		check(t, json.NewEncoder(w).Encode([]any{release("v1.10.0")}))
	})
	mux.HandleFunc("GET /repos/acme/web/releases/tags/{tag}", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("tag") {
		case "v1.10.0":
			check(t, json.NewEncoder(w).Encode(release("v1.10.0", "web.tar.gz", "web.sig")))
		case "v1.9.0":
			check(t, json.NewEncoder(w).Encode(release("v1.9.0", "linux.zip", "windows.zip")))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	mux.HandleFunc("GET /assets/web.tar.gz", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "application/octet-stream" {
			t.Errorf("the asset was asked for as %q", r.Header.Get("Accept"))
		}
		http.Redirect(w, r, far+"/signed", http.StatusFound)
	})
	mux.HandleFunc("GET /zip/v1.9.0", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the source") })
	mux.HandleFunc("GET /search/repositories", func(w http.ResponseWriter, r *http.Request) {
		check(t, json.NewEncoder(w).Encode(map[string]any{"items": []map[string]string{{"full_name": "acme/" + r.FormValue("q"), "description": "Web"}}}))
	})
	uri = serve(t, guarded(mux))
	id := w.feed(octopus.FeedGitHub, uri)
	same(t, "releases", []string{"v1.10.0", "v1.9.0"}, w.list(id, external.Query{PackageID: "acme/web"}))
	w.fetched(id, "acme/web", "v1.10.0", "acme.web.v1.10.0.tar.gz", "an asset")
	w.fetched(id, "acme/web", "v1.9.0", "acme.web.v1.9.0.zip", "the source")
	w.absent(id, "acme/web", "v3.0.0")
	notes, v, err := w.Notes(t.Context(), w.space, id, "acme/web", "v1.9.0")
	if err != nil || notes != "Notes of v1.9.0" || v.Title != "Release v1.9.0" {
		t.Errorf("%q, %+v, %v", notes, v, err)
	}
	found, err := w.Search(t.Context(), w.space, id, "web")
	check(t, err)
	same(t, "search", []external.Description{{ID: "acme/web", Description: "Web"}}, found)
}

// TestBounds: a feed that does not end, stands still, sends on for ever or sends too
// much fails with a fault that names it, and without its password.
func TestBounds(t *testing.T) {
	t.Parallel()
	var proxied atomic.Int64
	cfg := external.Config{Answer: 300 * time.Millisecond, Stall: 300 * time.Millisecond, MaxAnswer: 1 << 10, MaxPackage: 1 << 10}
	cfg.Proxy = func(r *http.Request) (*url.URL, error) {
		proxied.Add(1)
		return nil, nil
	}
	w := newWorld(t, dbtest.Open(t, db.SQLite), cfg)
	index := "entries: {web: [{version: 1.0.0, urls: [web.tgz]}]}\n"
	still := func(sent string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, sent)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	for name, tt := range map[string]struct {
		index, file http.HandlerFunc
		says        string
	}{
		"silent":     {still(""), nil, "did not answer in time"},
		"halting":    {still("entries: {"), nil, "did not answer in time"},
		"large":      {text(index + strings.Repeat("#", 2<<10)), nil, "too large"},
		"garbage":    {text("%%%"), nil, "cannot be read"},
		"in circles": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, nil, "from one address to the next"},
		"broken":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, nil, "status 502"},
		"busy":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, nil, "slow down"},
		"stalling":   {text(index), still("half"), "stopped sending"},
		"huge":       {text(index), text(strings.Repeat("x", 2<<10)), "more than 1024 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("GET /index.yaml", tt.index)
			if tt.file != nil {
				mux.HandleFunc("GET /web.tgz", tt.file)
			}
			uri := serve(t, mux)
			sensitive := octopus.NewSensitive(password)
			var id string
			check(t, w.db.Write(t.Context(), func(tx *db.Tx) (err error) {
				id, err = w.store.In(tx).Create(t.Context(), "feeds", w.space, "", &octopus.Feed{Name: "Feed " + name, FeedType: octopus.FeedHelm, FeedURI: uri, Username: user, Password: &sensitive})
				return err
			}))
			_, err := w.Fetch(t.Context(), w.space, id, "web", "1.0.0")
			if kind := fault.KindOf(err); kind != fault.Unavailable && kind != fault.TooLarge || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "'Feed "+name+"'") {
				t.Fatalf("%v, want a fault with %q", err, tt.says)
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("the password is in %v", err)
			}
		})
	}
	t.Cleanup(func() {
		if proxied.Load() == 0 {
			t.Error("nobody asked for a proxy")
		}
	})
}

// TestProxy: a feed is asked by way of the proxy that is configured, if that wants a
// password, too.
func TestProxy(t *testing.T) {
	t.Parallel()
	gate := proxytest.Start(t, "tako", "pr0xy")
	for name, tt := range map[string]struct{ user, says string }{"with the password": {"tako:pr0xy@", ""}, "without": {"", "(407); check HTTP_PROXY"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, err := url.Parse("http://" + tt.user + gate.Addr)
			check(t, err)
			w := newWorld(t, dbtest.Open(t, db.SQLite), external.Config{Proxy: http.ProxyURL(at)})
			mux := http.NewServeMux()
			mux.HandleFunc("GET /index.yaml", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "entries: {web: [{version: 1.0.0, urls: [web.tgz]}]}\n")
			})
			uri := serve(t, mux)
			var id string
			check(t, w.db.Write(t.Context(), func(tx *db.Tx) (err error) {
				id, err = w.store.In(tx).Create(t.Context(), "feeds", w.space, "", &octopus.Feed{Name: "Charts", FeedType: octopus.FeedHelm, FeedURI: uri})
				return err
			}))
			found, err := w.Search(t.Context(), w.space, id, "web")
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v, want %q", err, tt.says)
				}
				return
			}
			check(t, err)
			same(t, "search", []external.Description{{ID: "web", Latest: "1.0.0"}}, found)
			parsed, err := url.Parse(uri)
			check(t, err)
			if !slices.Contains(gate.Tunnels(), parsed.Host) {
				t.Errorf("the proxy was asked for %q only", gate.Tunnels())
			}
		})
	}
}

// TestPrune forgets by size, the package that was used longest ago first, and by age.
func TestPrune(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d, external.Config{CacheBytes: 250})
		_, uri := files(t, map[string]string{
			"index.yaml": "entries: {web: [{version: 1.0.0, urls: [1.tgz]}, {version: 2.0.0, urls: [2.tgz]}, {version: 3.0.0, urls: [3.tgz]}]}\n",
			"1.tgz":      strings.Repeat("1", 100), "2.tgz": strings.Repeat("2", 100), "3.tgz": strings.Repeat("3", 100),
		})
		id := w.feed(octopus.FeedHelm, uri)
		for _, text := range []string{"1.0.0", "2.0.0", "3.0.0"} {
			_, err := w.Fetch(t.Context(), w.space, id, "web", text)
			check(t, err)
		}
		used := func(text string, ago time.Duration) {
			t.Helper()
			check(t, d.Write(t.Context(), func(tx *db.Tx) error {
				_, err := tx.Exec(t.Context(), `UPDATE feed_cache SET used = ? WHERE version = ?`, db.Micros(tx.Now().Add(-ago)), text)
				return err
			}))
		}
		left := func() (out []string) {
			t.Helper()
			check(t, d.Read(t.Context(), func(tx *db.Tx) error {
				out = nil
				rows, err := tx.Query(t.Context(), `SELECT c.version FROM feed_cache c ORDER BY c.version`)
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
					var text string
					if err := rows.Scan(&text); err != nil {
						return err
					}
					out = append(out, text)
				}
				return rows.Err()
			}))
			return out
		}
		prune := func(count int, bytes int64) {
			t.Helper()
			n, size, err := w.Prune(t.Context())
			if err != nil || n != count || size != bytes {
				t.Errorf("pruned %d of %d bytes, %v; want %d of %d", n, size, err, count, bytes)
			}
		}
		used("1.0.0", 3*time.Hour)
		used("2.0.0", 4*time.Hour)
		used("3.0.0", 5*time.Hour)
		_, err := w.Fetch(t.Context(), w.space, id, "web", "3.0.0") // notes that it is used
		check(t, err)
		prune(1, 100)
		same(t, "left by size", []string{"1.0.0", "3.0.0"}, left())
		prune(0, 0)
		used("1.0.0", 31*24*time.Hour)
		prune(1, 100)
		same(t, "left by age", []string{"3.0.0"}, left())
	})
}
