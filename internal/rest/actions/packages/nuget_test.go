package packages_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

const nuspecText = `<?xml version="1.0"?><package xmlns="http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd"><metadata><id>%s</id><version>%s</version><releaseNotes>Notes of %[2]s</releaseNotes>` +
	`<dependencies><group targetFramework="net8.0"><dependency id="Lib" version="[1.0,2.0)"/><dependency id="Any"/></group></dependencies></metadata></package>`

// archive is a ZIP file; files are names and contents.
func archive(t testing.TB, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func nupkg(t testing.TB, id, version string) []byte {
	t.Helper()
	return archive(t, "lib/other.nuspec", "not this", id+".nuspec", fmt.Sprintf(nuspecText, id, version), "lib/a.dll", "content")
}

// nuget pushes as a NuGet client does: with its header, and every file as package.nupkg.
func (w *world) nuget(method, path, key string, content []byte) actiontest.Answer {
	w.T.Helper()
	body, contentType := form(w.T, "package.nupkg", content)
	return w.Do(method, path, "", body.String(), "Content-Type", contentType, "X-NuGet-ApiKey", key, "X-NuGet-Protocol-Version", "4.1.0")
}

func TestNuGetPush(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		space := w.Create("/api/spaces", `{"Name":"Second","SpaceManagersTeams":["teams-administrators"]}`)
		for i, path := range []string{"/nuget/packages", "/Spaces-1/nuget/packages/", "/api/Spaces-1/nuget/packages", "/api/nuget/packages", "/" + space + "/nuget/packages"} {
			version := fmt.Sprintf("1.%d.0-beta", i)
			content := nupkg(t, "Acme.Core", version)
			method := http.MethodPut
			if i%2 == 1 {
				method = http.MethodPost
			}
			a := w.nuget(method, path, actiontest.Admin, content)
			if a.Status != http.StatusCreated || a.Header.Get("Location") == "" {
				t.Fatalf("%s: %d %s", path, a.Status, a.Body)
			}
			if got := w.Get(a.Header.Get("Location") + "/raw").Body; !bytes.Equal(got, content) || !strings.HasSuffix(a.Header.Get("Location"), "packages-Acme.Core."+version) {
				t.Errorf("%s: %d bytes at %s", path, len(got), a.Header.Get("Location"))
			}
			if strings.Contains(a.Header.Get("Location"), space) != (i == 4) {
				t.Errorf("%s put it at %s", path, a.Header.Get("Location"))
			}
		}
		again := nupkg(t, "acme.core", "1.0.0-BETA")
		if a := w.nuget(http.MethodPut, "/nuget/packages", actiontest.Admin, again); a.Status != http.StatusConflict {
			t.Errorf("again: %d %s", a.Status, a.Body)
		}
		if a := w.nuget(http.MethodPut, "/nuget/packages?replace=true", actiontest.Admin, again); a.Status != http.StatusOK {
			t.Errorf("replaced: %d %s", a.Status, a.Body)
		}
		// A file whose name tells what it is needs no .nuspec.
		body, contentType := form(t, "Acme.Zip.3.0.0.zip", []byte("no archive"))
		if a := w.Do(http.MethodPut, "/nuget/packages", "", body.String(), "Content-Type", contentType, "X-NuGet-ApiKey", actiontest.Admin); a.Status != http.StatusCreated {
			t.Errorf("a .zip: %d %s", a.Status, a.Body)
		}

		pusher := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"BuiltInFeedPush"}})
		for name, tt := range map[string]struct {
			key, query string
			status     int
		}{
			"a pusher":           {pusher, "", http.StatusCreated},
			"a pusher replaces":  {pusher, "?replace=true", http.StatusForbidden},
			"somebody":           {w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"FeedView"}}), "", http.StatusForbidden},
			"a key that is none": {"API-NOSUCHKEYNOSUCHKEY", "", http.StatusUnauthorized},
		} {
			if a := w.nuget(http.MethodPut, "/nuget/packages"+tt.query, tt.key, nupkg(t, "Acme.Pushed", "1.0.0")); a.Status != tt.status {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
		}

		huge := archive(t, "a.nuspec", fmt.Sprintf(nuspecText, "A", "1.0.0")+strings.Repeat(" ", 2<<20))
		many := nupkg(t, "A", "1.0.0")
		copy(many[len(many)-12:], "\xff\xff")
		for says, content := range map[string][]byte{
			"cannot be read as a ZIP":    []byte("something else"),
			"no .nuspec at its root":     archive(t, "lib/a.nuspec", "deep"),
			"is no XML":                  archive(t, "a.nuspec", "<package"),
			"more than 1048576 bytes":    huge,
			"too many files":             many,
			"does not name a package":    nupkg(t, "", "1.0.0"),
			"a part that is a number":    nupkg(t, "Acme.2", "1.0.0"),
			"no version follows its id.": nupkg(t, "Acme", "beta"),
		} {
			if a := w.nuget(http.MethodPut, "/nuget/packages", actiontest.Admin, content); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), says) {
				t.Errorf("%d %s, want %s", a.Status, a.Body, says)
			}
		}
		if ids := w.Get("/api/Spaces-1/packages?filter=Acme.2").IDs(); len(ids) != 0 {
			t.Errorf("refused pushes left %v", ids)
		}
	})
}

// TestNuGetClient walks the way of a NuGet client: from the index to search,
// versions, description and file, by the addresses that it is given.
func TestNuGetClient(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		contents := map[string][]byte{}
		for _, v := range []string{"1.0", "1.2.0", "1.10.0", "2.0.0-RC.1"} {
			contents[v] = nupkg(t, "Acme.Core", v)
			w.push(http.StatusCreated, raw, "Acme.Core."+v+".nupkg", string(contents[v]))
		}
		w.push(http.StatusCreated, raw, "Acme.Core.3.0.0.zip", "no NuGet package")
		w.push(http.StatusCreated, raw, "Other.1.0.0-beta.nupkg", string(nupkg(t, "Other", "1.0.0-beta")))

		reader := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"FeedView", "BuiltInFeedDownload"}})
		viewer := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"FeedView"}})
		get := func(address, key string) (*http.Response, []byte) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
			if err != nil {
				t.Fatal(err)
			}
			if key != "" {
				req.SetBasicAuth("anybody", key)
			}
			resp, err := w.Client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp, body
		}
		read := func(address string, v any) {
			t.Helper()
			resp, body := get(address, reader)
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %s", address, resp.StatusCode, body)
			}
			if err := json.Unmarshal(body, v); err != nil {
				t.Fatal(err)
			}
		}
		// Without a key the client is asked for one, in words that it understands.
		source := w.URL + "/nuget/v3/index.json"
		if resp, _ := get(source, ""); resp.StatusCode != http.StatusUnauthorized || !strings.Contains(strings.Join(resp.Header.Values("WWW-Authenticate"), ","), "Basic realm=") {
			t.Errorf("without a key: %d %v", resp.StatusCode, resp.Header)
		}
		if resp, _ := get(source, actiontest.AdminPassword); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("with a password: %d", resp.StatusCode)
		}

		var index struct {
			Version   string
			Resources []struct {
				ID   string `json:"@id"`
				Type string `json:"@type"`
			}
		}
		for _, path := range []string{"/nuget/v3/index.json", "/Spaces-1/nuget/v3/index.json", "/api/Spaces-1/nuget/v3/index.json"} {
			index.Resources = nil
			read(w.URL+path, &index)
		}
		at := map[string]string{}
		for _, r := range index.Resources {
			at[r.Type] = r.ID
		}
		if index.Version != "3.0.0" || at["PackagePublish/2.0.0"] != w.URL+"/Spaces-1/nuget/packages" {
			t.Errorf("index %+v", index)
		}

		type hits struct {
			TotalHits int
			Data      []struct{ ID, Version, Registration string }
		}
		for query, want := range map[string]string{
			"?q=acme&prerelease=true&semVerLevel=2.0.0": "Acme.Core 2.0.0-rc.1", "?q=acme": "Acme.Core 1.10.0", "?q=": "Acme.Core 1.10.0",
			"?prerelease=true": "Acme.Core 2.0.0-rc.1,Other 1.0.0-beta", "?q=other": "", "?prerelease=true&skip=1&take=1": "Other 1.0.0-beta",
		} {
			var got hits
			read(at["SearchQueryService/3.5.0"]+query, &got)
			var names []string
			for _, d := range got.Data {
				names = append(names, d.ID+" "+d.Version)
			}
			if strings.Join(names, ",") != want {
				t.Errorf("%s finds %v, want %s", query, names, want)
			}
		}

		var versions struct{ Versions []string }
		read(at["PackageBaseAddress/3.0.0"]+"acme.core/index.json", &versions)
		if diff := cmp.Diff([]string{"1.0.0", "1.2.0", "1.10.0", "2.0.0-rc.1"}, versions.Versions); diff != "" {
			t.Error(diff)
		}
		var registration struct {
			Items []struct {
				Lower, Upper string
				Items        []struct {
					ID             string `json:"@id"`
					PackageContent string
					CatalogEntry   struct {
						ID, Version      string
						DependencyGroups []struct {
							TargetFramework string
							Dependencies    []struct{ ID, Range string }
						}
					}
				}
			}
		}
		read(at["RegistrationsBaseUrl/3.6.0"]+"acme.core/index.json", &registration)
		page := registration.Items[0]
		if page.Lower != "1.0.0" || page.Upper != "2.0.0-rc.1" || len(page.Items) != 4 || page.Items[2].CatalogEntry.Version != "1.10.0" {
			t.Errorf("registration %+v", page)
		}
		if g := page.Items[0].CatalogEntry.DependencyGroups; len(g) != 1 || g[0].TargetFramework != "net8.0" || fmt.Sprint(g[0].Dependencies) != "[{Lib [1.0,2.0)} {Any (, )}]" {
			t.Errorf("it depends on %+v", g)
		}
		for i, v := range []string{"1.0", "1.2.0", "1.10.0", "2.0.0-RC.1"} {
			item := page.Items[i]
			resp, body := get(item.PackageContent, reader)
			if resp.StatusCode != http.StatusOK || !bytes.Equal(body, contents[v]) {
				t.Errorf("%s: %d, %d bytes", item.PackageContent, resp.StatusCode, len(body))
			}
			if resp, _ := get(item.PackageContent, viewer); resp.StatusCode != http.StatusForbidden {
				t.Errorf("who may not download gets %d", resp.StatusCode)
			}
			var leaf struct{ PackageContent string }
			if read(item.ID, &leaf); leaf.PackageContent != item.PackageContent {
				t.Errorf("%s: %+v", item.ID, leaf)
			}
		}
		flat := at["PackageBaseAddress/3.0.0"] + "acme.core/"
		if resp, body := get(flat+"2.0.0-rc.1/acme.core.nuspec", reader); resp.StatusCode != http.StatusOK || string(body) != fmt.Sprintf(nuspecText, "Acme.Core", "2.0.0-RC.1") {
			t.Errorf(".nuspec: %d %s", resp.StatusCode, body)
		}
		for _, path := range []string{"9.9.9/acme.core.9.9.9.nupkg", "3.0.0/acme.core.3.0.0.nupkg", "1.2.0/other.nupkg", "nonsense/x"} {
			if resp, _ := get(flat+path, reader); resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %d", path, resp.StatusCode)
			}
		}
		if resp, _ := get(at["PackageBaseAddress/3.0.0"]+"none/index.json", reader); resp.StatusCode != http.StatusNotFound {
			t.Errorf("a package that is not there: %d", resp.StatusCode)
		}
		w.MustAs(viewer, http.StatusForbidden, http.MethodDelete, "/nuget/packages/Acme.Core/1.0.0", "")
		w.Must(http.StatusOK, http.MethodDelete, "/nuget/packages/Acme.Core/1.0.0", "")
		w.Must(http.StatusNotFound, http.MethodDelete, "/nuget/packages/Acme.Core/1.0.0", "")
	})
}

// TestNewestOfOne: latest asks for one version where all would be given.
func TestNewestOfOne(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for _, v := range []string{"1.0.0", "1.10.0", "1.9.0"} {
			w.push(http.StatusCreated, raw, "Acme."+v+".zip", "x")
		}
		var page octopus.Page[octopus.Package]
		w.Get("/api/packages?nuGetPackageId=acme&latest=true").Into(&page)
		if len(page.Items) != 1 || page.TotalResults != 1 || page.Items[0].Version != "1.10.0" {
			t.Errorf("%+v", page)
		}
	})
}

// TestManyNuGetVersions: the versions of a package that has many come in pages.
func TestManyNuGetVersions(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for i := range 70 {
			w.push(http.StatusCreated, raw, fmt.Sprintf("Acme.1.%d.0.nupkg", i), "x")
		}
		type page struct {
			ID           string `json:"@id"`
			Lower, Upper string
			Count        int
			Items        []struct{ CatalogEntry struct{ Version string } }
		}
		var index struct {
			Count int
			Items []page
		}
		w.Get("/nuget/v3/registration/acme/index.json").Into(&index)
		if index.Count != 2 || len(index.Items) != 2 || index.Items[0].Items != nil || index.Items[0].Count != 64 || index.Items[1].Lower != "1.64.0" || index.Items[1].Upper != "1.69.0" {
			t.Fatalf("%+v", index)
		}
		var last page
		w.Get(strings.TrimPrefix(index.Items[1].ID, w.URL)).Into(&last)
		if len(last.Items) != 6 || last.Items[5].CatalogEntry.Version != "1.69.0" || last.ID != index.Items[1].ID {
			t.Errorf("%+v", last)
		}
		w.Must(http.StatusNotFound, http.MethodGet, "/nuget/v3/registration/acme/page/2.json", "")
	})
}
