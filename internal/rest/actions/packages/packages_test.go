package packages_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/packages"
	"github.com/takodeploy/tako/octopus"
)

const raw = "/api/Spaces-1/packages/raw"

type world struct {
	*actiontest.World
	dir string
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	dirs := map[*actiontest.World]string{}
	routes := func(w *actiontest.World) []rest.Route {
		dir := t.TempDir()
		blobs, err := blob.OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		dirs[w] = dir
		return packages.Routes(w.DB, w.Store, feed.New(w.DB, blobs), external.New(external.Config{DB: w.DB, Store: w.Store, Blobs: blobs}))
	}
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) { fn(t, &world{w, dirs[w]}) })
}

// form is a multipart body with one file.
func form(t testing.TB, fileName string, content []byte) (body *bytes.Buffer, contentType string) {
	t.Helper()
	body = &bytes.Buffer{}
	m := multipart.NewWriter(body)
	if err := m.WriteField("note", "no file"); err != nil {
		t.Fatal(err)
	}
	// By hand, since the package escapes what old browsers do not.
	part, err := m.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="fileToUpload"; filename="` + fileName + `"`}, "Content-Type": {"application/octet-stream"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return body, m.FormDataContentType()
}

// send posts a body as a stream without a length, as clients do.
func (w *world) send(key, path, contentType string, body io.Reader) actiontest.Answer {
	w.T.Helper()
	req, err := http.NewRequestWithContext(w.T.Context(), http.MethodPost, w.URL+path, io.MultiReader(body))
	if err != nil {
		w.T.Fatal(err)
	}
	req.ContentLength = -1
	req.Header.Set("X-Octopus-ApiKey", key)
	req.Header.Set("Content-Type", contentType)
	resp, err := w.Client.Do(req)
	if err != nil {
		w.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.T.Fatal(err)
	}
	return actiontest.Answer{Status: resp.StatusCode, Header: resp.Header, Body: text}
}

func (w *world) push(status int, path, fileName, content string) octopus.Package {
	w.T.Helper()
	return w.pushAs(actiontest.Admin, status, path, fileName, content)
}

func (w *world) pushAs(key string, status int, path, fileName, content string) (p octopus.Package) {
	w.T.Helper()
	body, contentType := form(w.T, fileName, []byte(content))
	a := w.send(key, path, contentType, body)
	if a.Status != status {
		w.T.Fatalf("push %s to %s: %d %s, want %d", fileName, path, a.Status, a.Body, status)
	}
	if err := json.Unmarshal(a.Body, &p); err != nil {
		w.T.Fatal(err)
	}
	if status == http.StatusCreated && a.Header.Get("Location") != p.Links["Self"] {
		w.T.Errorf("Location is %q, Self %q", a.Header.Get("Location"), p.Links["Self"])
	}
	return p
}

func TestPushing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for name, id := range map[string]string{
			"Acme.Web.1.0.0.zip":                  "packages-Acme.Web.1.0.0",
			`C:\builds\out\Acme.Ie.1.0.0.nupkg`:   "packages-Acme.Ie.1.0.0",
			"/home/ci/Acme.Unix.1.0.0-a+b.tar.gz": "packages-Acme.Unix.1.0.0-a+b",
			"Ünïcode.2.0.zip":                     "packages-Ünïcode.2.0",
		} {
			p := w.push(http.StatusCreated, raw+"?overwriteMode=FailIfExists", name, "content of "+name)
			if p.ID != id {
				t.Errorf("%s became %s", name, p.ID)
			}
			if got := w.Get(p.Links["Self"]).Text("Id"); got != id {
				t.Errorf("Self of %s is %s", id, got)
			}
			if body := w.Get(p.Links["Raw"]).Body; string(body) != "content of "+name {
				t.Errorf("Raw of %s is %q", id, body)
			}
			if ids := w.Get(p.Links["AllVersions"]).IDs(); !slices.Equal(ids, []string{id}) {
				t.Errorf("AllVersions of %s are %v", id, ids)
			}
			w.Get(p.Links["Feed"])
		}
		p := w.push(http.StatusOK, raw+"?overwriteMode=IgnoreIfExists", "Acme.Web.1.0.0.zip", "other")
		if p.PackageSizeBytes != int64(len("content of Acme.Web.1.0.0.zip")) {
			t.Errorf("kept %+v", p)
		}
		body, contentType := form(t, "Acme.Web.1.0.0.zip", []byte("other"))
		if a := w.send(actiontest.Admin, raw, contentType, body); a.Status != http.StatusConflict || !strings.Contains(string(a.Body), "already exists") || strings.Contains(string(a.Body), `"Errors":[`) {
			t.Errorf("a second one: %d %s", a.Status, a.Body)
		}
		for i, query := range []string{"?overwriteMode=overwriteexisting", "?replace=true", "?replace=true&overwriteMode=FailIfExists"} {
			content := fmt.Sprint("new ", i)
			if p := w.push(http.StatusOK, raw+query, "Acme.Web.1.0.0.zip", content); p.Version != "1.0.0" || string(w.Get(p.Links["Raw"]).Body) != content {
				t.Errorf("%s: %+v", query, p)
			}
		}
	})
}

func TestPushingNeedsPermission(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		pusher := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"BuiltInFeedPush"}})
		reader := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"FeedView"}})
		w.pushAs(pusher, http.StatusCreated, raw, "Acme.1.0.zip", "x")
		w.pushAs(pusher, http.StatusForbidden, raw+"?overwriteMode=OverwriteExisting", "Acme.1.0.zip", "x")
		w.pushAs(pusher, http.StatusForbidden, raw+"?replace=true", "Acme.2.0.zip", "x")
		w.pushAs(reader, http.StatusForbidden, raw, "Acme.2.0.zip", "x")
		w.MustAs(reader, http.StatusOK, http.MethodGet, "/api/packages/packages-Acme.1.0", "")
		w.MustAs(reader, http.StatusForbidden, http.MethodGet, "/api/packages/packages-Acme.1.0/raw", "")
		w.MustAs(reader, http.StatusForbidden, http.MethodDelete, "/api/packages/packages-Acme.1.0", "")
		w.MustAs(reader, http.StatusForbidden, http.MethodDelete, "/api/packages/bulk?ids=packages-Acme.1.0", "")
		w.MustAs(pusher, http.StatusForbidden, http.MethodGet, "/api/packages", "")
	})
}

func TestBadUploads(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		good, contentType := form(t, "Acme.1.0.zip", []byte("x"))
		whole := good.Bytes()
		bad, badType := form(t, "readme.txt", []byte("x"))
		var empty bytes.Buffer
		m := multipart.NewWriter(&empty)
		if err := m.WriteField("file", "a field, no file"); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			query, contentType string
			body               []byte
			says               string
		}{
			"no form":     {"", "application/zip", []byte("PK"), "multipart/form-data"},
			"no boundary": {"", "multipart/form-data", whole, "multipart/form-data"},
			"bad name":    {"", badType, bad.Bytes(), "Acme.Web.1.2.0.zip"},
			"no file":     {"", m.FormDataContentType(), empty.Bytes(), "no file"},
			"nothing":     {"", contentType, nil, "send"},
			"cut off":     {"", contentType, whole[:len(whole)-8], "send the package again"},
			"cut earlier": {"", contentType, whole[:len(whole)/2], "send the package again"},
			"bad mode":    {"?overwriteMode=Perhaps", contentType, whole, "overwriteMode is 'Perhaps'"},
			"bad replace": {"?replace=perhaps", contentType, whole, "replace is 'perhaps'"},
		} {
			a := w.send(actiontest.Admin, raw+tt.query, tt.contentType, bytes.NewReader(tt.body))
			if a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), tt.says) {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
		}
		if ids := w.Get("/api/packages").IDs(); len(ids) != 0 {
			t.Errorf("refused uploads left %v", ids)
		}
		w.nothingLeft(t)
	})
}

// nothingLeft wants no blob, finished or not.
func (w *world) nothingLeft(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "lock" {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUploadsThatBreakOff: the connection goes in the middle of a chunk.
func TestUploadsThatBreakOff(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		body, contentType := form(t, "Acme.1.0.zip", bytes.Repeat([]byte("x"), 100_000))
		dialer := net.Dialer{}
		conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(w.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Octopus-ApiKey: %s\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", raw, actiontest.Admin, contentType, body.Len())
		if _, err := conn.Write(body.Bytes()[:50_000]); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "send") {
			t.Errorf("%d %s, %v", resp.StatusCode, text, err)
		}
		if ids := w.Get("/api/packages").IDs(); len(ids) != 0 {
			t.Errorf("it left %v", ids)
		}
		w.nothingLeft(t)
	})
}

// TestALargeUploadHearsItsRefusal, although the server knows it from the first line.
func TestALargeUploadHearsItsRefusal(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.push(http.StatusCreated, raw, "Acme.1.0.zip", "x")
		body, contentType := form(t, "Acme.1.0.zip", bytes.Repeat([]byte("x"), 20<<20))
		if a := w.send(actiontest.Admin, raw, contentType, body); a.Status != http.StatusConflict {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	})
}

func TestListing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for _, v := range []string{"1.0.0", "1.2.0", "1.10.0", "2.0.0-rc.1", "2.0.0", "1.9.0-beta"} {
			w.push(http.StatusCreated, raw, "Acme.Web."+v+".zip", "x")
		}
		w.push(http.StatusCreated, raw, "Other.3.0.tar.gz", "xyz")
		versions := func(query string) (found []string, total int64) {
			t.Helper()
			var page octopus.Page[octopus.PackageVersion]
			w.Get("/api/Spaces-1/feeds/feeds-builtin/packages/versions" + query).Into(&page)
			for _, v := range page.Items {
				if v.FeedID != "feeds-builtin" || v.SizeBytes != 1 || v.Published == nil {
					t.Errorf("version %+v", v)
				}
				found = append(found, v.Version)
			}
			return found, page.TotalResults
		}
		for _, tt := range []struct {
			query string
			want  []string
			total int64
		}{
			{"?packageId=acme.web", []string{"2.0.0", "2.0.0-rc.1", "1.10.0", "1.9.0-beta", "1.2.0", "1.0.0"}, 6},
			{"?packageId=Acme.Web&take=2&skip=1", []string{"2.0.0-rc.1", "1.10.0"}, 6},
			{"?packageId=Acme.Web&take=2147483647&includePreRelease=false", []string{"2.0.0", "1.10.0", "1.2.0", "1.0.0"}, 4},
			// The filter comes before the page.
			{"?packageId=Acme.Web&filter=1.&take=1", []string{"1.10.0"}, 4},
			{"?packageId=Acme.Web&filter=1.&take=1&skip=3", []string{"1.0.0"}, 4},
			{"?packageId=Acme.Web&filter=RC", []string{"2.0.0-rc.1"}, 1},
			{"?packageId=Acme.Web&versionRange=%5B1.2,2.0)&preReleaseTag=%5E$", []string{"1.10.0", "1.2.0"}, 2},
			{"?packageId=Acme.Web&preReleaseTag=beta", []string{"1.9.0-beta"}, 1},
			{"?packageId=None", nil, 0},
		} {
			got, total := versions(tt.query)
			if diff := cmp.Diff(tt.want, got); diff != "" || total != tt.total {
				t.Errorf("%s: %d, want %d (-want +got):\n%s", tt.query, total, tt.total, diff)
			}
		}
		for query, says := range map[string]string{"": "packageId is empty", "?packageId=x&versionRange=oops(": "VersionRange", "?packageId=x&preReleaseTag=(": "regular expression", "?packageId=x&includePreRelease=maybe": "includePreRelease", "?packageId=x&take=-1": "take"} {
			a := w.Must(http.StatusBadRequest, http.MethodGet, "/api/feeds/feeds-builtin/packages/versions"+query, "")
			if !strings.Contains(string(a.Body), says) {
				t.Errorf("%s: %s", query, a.Body)
			}
		}
		list := func(path string) []string { t.Helper(); return w.Get(path).IDs() }
		newest := []string{"packages-Acme.Web.2.0.0", "packages-Other.3.0"}
		for path, want := range map[string][]string{
			"/api/packages":                                          newest,
			"/api/Spaces-1/packages?take=2147483647":                 newest,
			"/api/Spaces-1/packages?filter=OTH":                      newest[1:],
			"/api/packages/all":                                      newest,
			"/api/packages?nuGetPackageId=acme.web&take=1":           {"packages-Acme.Web.2.0.0"},
			"/api/packages?ids=packages-Other.3.0,packages-None.1.0": newest[1:],
			"/api/packages/bulk?ids=packages-Acme.Web.1.2.0":         {"packages-Acme.Web.1.2.0"},
			"/api/packages/bulk":                                     {},
			"/api/feeds/feeds-builtin/packages/search?term=web":      {"Acme.Web"},
			"/api/feeds/FEEDS-BUILTIN/packages/search":               {"Acme.Web", "Other"},
			"/api/feeds/feeds-builtin/packages/search?take=1&skip=1": {"Other"},
		} {
			if diff := cmp.Diff(want, list(path)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
		external := w.Create("/api/feeds", `{"Name":"NuGet","FeedType":"NuGet"}`)
		for _, kind := range []string{"search?term=x", "versions?packageId=x"} {
			a := w.Must(http.StatusBadRequest, http.MethodGet, "/api/feeds/"+external+"/packages/"+kind, "")
			if !strings.Contains(string(a.Body), "has no FeedUri") {
				t.Errorf("an external feed: %s", a.Body)
			}
			w.Must(http.StatusNotFound, http.MethodGet, "/api/feeds/Feeds-99/packages/"+kind, "")
		}
	})
}

func TestFetchingParts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		p := w.push(http.StatusCreated, raw, "Acme.1.0.0.tar.gz", "0123456789")
		at := p.Links["Raw"]
		whole := w.Get(at)
		tag := whole.Header.Get("ETag")
		if string(whole.Body) != "0123456789" || tag == "" || whole.Header.Get("Content-Length") != "10" || whole.Header.Get("Accept-Ranges") != "bytes" ||
			whole.Header.Get("Content-Disposition") != `attachment; filename=Acme.1.0.0.tar.gz` {
			t.Errorf("%q %v", whole.Body, whole.Header)
		}
		for header, want := range map[string]string{"bytes=2-4": "234", "bytes=-3": "789", "bytes=7-": "789"} {
			a := w.Must(http.StatusPartialContent, http.MethodGet, at, "", "Range", header, "If-Range", tag)
			if string(a.Body) != want {
				t.Errorf("%s: %q", header, a.Body)
			}
		}
		w.Must(http.StatusOK, http.MethodGet, at, "", "Range", "bytes=2-4", "If-Range", `"another"`)
		w.Must(http.StatusRequestedRangeNotSatisfiable, http.MethodGet, at, "", "Range", "bytes=10-")
		w.Must(http.StatusNotModified, http.MethodGet, at, "", "If-None-Match", tag)
		w.Must(http.StatusNotFound, http.MethodGet, "/api/packages/packages-Acme.9.0/raw", "")
	})
}

func TestDeleting(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for _, name := range []string{"A.1.0", "A.2.0", "B.1.0", "C.1.0"} {
			w.push(http.StatusCreated, raw, name+".zip", name)
		}
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/packages/packages-A.2.0", "")
		w.Must(http.StatusNotFound, http.MethodDelete, "/api/Spaces-1/packages/packages-A.2.0", "")
		w.Must(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/packages/packages-A.2.0", "")
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/packages/bulk?ids=packages-b.1.0,packages-C.1.0,packages-none.1.0", "")
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/packages/bulk", "")
		if ids := w.Get("/api/packages").IDs(); !slices.Equal(ids, []string{"packages-A.1.0"}) {
			t.Errorf("left are %v", ids)
		}
		// What is in another space is not touched.
		space := w.Create("/api/spaces", `{"Name":"Second","SpaceManagersTeams":["teams-administrators"]}`)
		w.push(http.StatusCreated, "/api/"+space+"/packages/raw", "A.1.0.zip", "far")
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/packages/packages-A.1.0", "")
		if body := w.Get("/api/" + space + "/packages/packages-A.1.0/raw").Body; string(body) != "far" {
			t.Errorf("in the other space is %q", body)
		}
	})
}
