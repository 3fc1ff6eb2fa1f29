package packages_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

func (w *world) versionsOf(feed, query string) (out []string) {
	w.T.Helper()
	var page octopus.Page[octopus.PackageVersion]
	w.Get("/api/Spaces-1/feeds/" + feed + "/packages/versions?" + query).Into(&page)
	for _, v := range page.Items {
		out = append(out, v.Version)
	}
	return out
}

// TestExternalNuGet has the server read its own packages as an external feed.
func TestExternalNuGet(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		const count = 70 // more than a page of a registration has
		for i := range count {
			w.nuget(http.MethodPut, "/nuget/packages", actiontest.Admin, nupkg(t, "Acme.Core", fmt.Sprintf("1.%d.0", i)))
		}
		beta := nupkg(t, "Acme.Core", "2.0.0-beta.1")
		w.nuget(http.MethodPut, "/nuget/packages", actiontest.Admin, beta)
		at := w.URL + "/nuget/v3/index.json"
		id := w.Create("/api/Spaces-1/feeds", `{"Name":"Itself","FeedType":"NuGet","FeedUri":"`+at+`","Username":"any","Password":{"HasValue":true,"NewValue":"`+actiontest.Admin+`"}}`)

		if diff := cmp.Diff([]string{"2.0.0-beta.1", "1.69.0", "1.68.0"}, w.versionsOf(id, "packageId=acme.core&take=3")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"1.2.0", "1.1.0"}, w.versionsOf(id, "packageId=Acme.Core&includePreRelease=false&versionRange="+url.QueryEscape("[1.1,1.3)"))); diff != "" {
			t.Error(diff)
		}
		if got := w.versionsOf("itself", "packageId=Nothing"); got != nil {
			t.Errorf("versions of what is not there: %v", got)
		}
		var found octopus.Page[octopus.PackageDescription]
		w.Get("/api/Spaces-1/feeds/" + id + "/packages/search?term=core").Into(&found)
		if len(found.Items) != 1 || found.Items[0].ID != "Acme.Core" || found.Items[0].LatestVersion != "2.0.0-beta.1" {
			t.Errorf("%+v", found.Items)
		}
		if a := w.Get("/api/Spaces-1/feeds/" + id + "/packages/notes?packageId=Acme.Core&version=1.3.0"); !strings.Contains(string(a.Body), "Notes of 1.3.0") {
			t.Errorf("%s", a.Body)
		}
		var notes octopus.PackageNotes
		w.Get("/api/Spaces-1/packages/notes?packageIds=" + url.QueryEscape(id+":Acme.Core:1.4.0,"+id+":Acme.Core:9.0.0")).Into(&notes)
		if n := notes.Packages[0].Notes; !n.Succeeded || n.Notes != "Notes of 1.4.0" || n.Published == nil {
			t.Errorf("%+v", n)
		}
		if n := notes.Packages[1].Notes; n.Succeeded || !strings.Contains(string(n.FailureReason), "not found in the feed 'Itself'") {
			t.Errorf("%+v", n)
		}

		blobs, err := blob.OpenDir(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		feeds := external.New(external.Config{DB: w.DB, Store: w.Store, Blobs: blobs})
		const space ident.SpaceID = "Spaces-1"
		file, err := feeds.Fetch(t.Context(), space, id, "Acme.Core", "2.0.0-beta.1")
		if err != nil || file.Name != "Acme.Core.2.0.0-beta.1.nupkg" || file.Size != int64(len(beta)) {
			t.Fatalf("%+v, %v", file, err)
		}
		w.Must(http.StatusOK, http.MethodDelete, "/nuget/packages/Acme.Core/2.0.0-beta.1", "")
		again, err := feeds.Fetch(t.Context(), space, id, "Acme.Core", "2.0.0-beta.1")
		if err != nil || again != file {
			t.Errorf("from the cache: %+v, %v", again, err)
		}
		if _, err := feeds.Fetch(t.Context(), space, id, "Acme.Core", "7.0.0"); !fault.Is(err, fault.NotFound) {
			t.Errorf("a version that is not there: %v", err)
		}

		// Everything is refused that the caller may not see, and what is wrong with a
		// feed is told without its password.
		stranger := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"ProjectView"}})
		w.MustAs(stranger, http.StatusForbidden, http.MethodGet, "/api/Spaces-1/feeds/"+id+"/packages/search", "")
		w.Must(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/feeds/Feeds-999/packages/search", "")
		gone := httptest.NewServer(http.NotFoundHandler())
		gone.Close()
		for name, tt := range map[string]struct{ uri, says string }{
			"refused": {at, "refuses its credentials (401)"},
			"down":    {gone.URL + "/index.json", "cannot be reached"},
			"other":   {w.URL + "/api/index.json", "check that its FeedUri"},
			"old":     {w.URL + "/nuget", "ends in index.json"},
			"none":    {"ftp://u:API-PASS@host/index.json", "no address with http or https"},
		} {
			bad := w.Create("/api/Spaces-1/feeds", `{"Name":"`+name+`","FeedType":"NuGet","FeedUri":"`+tt.uri+`","Username":"any","Password":{"HasValue":true,"NewValue":"API-PASS"}}`)
			a := w.Do(http.MethodGet, "/api/Spaces-1/feeds/"+bad+"/packages/versions?packageId=Acme.Core", actiontest.Admin, "")
			if text := string(a.Body); a.Status < 400 || a.Status == http.StatusInternalServerError || !strings.Contains(text, tt.says) || !strings.Contains(text, "'"+name+"'") || strings.Contains(text, "API-PASS") {
				t.Errorf("%s: %d %s", name, a.Status, text)
			}
		}
	})
}
