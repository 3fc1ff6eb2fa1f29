package packages_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

// TestPoint23PackageNames pushes files whose names are not easy to read: each is found
// again by the id and the version in it, and has its content.
func TestPoint23PackageNames(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for name, want := range map[string][3]string{
			"Log4Net.2.0.8.zip":                       {"Log4Net", "2.0.8", ".zip"},
			"Acme.2.Web.1.0.0.jar":                    {"Acme.2.Web", "1.0.0", ".jar"},
			"Four.Parts.1.2.3.4.nupkg":                {"Four.Parts", "1.2.3.4", ".nupkg"},
			"Five.Parts.1.2.3.4.5.tgz":                {"Five.Parts.1", "2.3.4.5", ".tgz"},
			"Meta.1.0.0+build.7-x.zip":                {"Meta", "1.0.0+build.7-x", ".zip"},
			"Pre.1.0.0-feature-JIRA-1.2.tar.gz":       {"Pre", "1.0.0-feature-JIRA-1.2", ".tar.gz"},
			"com.acme.site.2024.01.02.0304-x.tar.Z":   {"com.acme.site", "2024.01.02.0304-x", ".tar.Z"},
			"Zeros.01.0.0.tar.bz2":                    {"Zeros", "01.0.0", ".tar.bz2"},
			"dashes-and_underscores.1.0.0-beta.war":   {"dashes-and_underscores", "1.0.0-beta", ".war"},
			"Äpfel.1.0.zip":                           {"Äpfel", "1.0", ".zip"},
			"Both.1.0.0-beta.3+b-7.5.tar.bz":          {"Both", "1.0.0-beta.3+b-7.5", ".tar.bz"},
			"OctoFx.RateService.1.0.0.2147483647.ear": {"OctoFx.RateService", "1.0.0.2147483647", ".ear"},
		} {
			p := w.push(http.StatusCreated, raw, name, "content of "+name)
			if diff := cmp.Diff(want, [3]string{p.PackageID, p.Version, p.FileExtension}); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			var page octopus.Page[octopus.PackageVersion]
			w.Get("/api/feeds/feeds-builtin/packages/versions?packageId=" + url.QueryEscape(strings.ToUpper(want[0]))).Into(&page)
			if len(page.Items) != 1 || page.Items[0].Version != want[1] {
				t.Errorf("%s: its versions are %+v", name, page.Items)
			}
			if got := string(w.Get(p.Links["Raw"]).Body); got != "content of "+name {
				t.Errorf("%s has %q in it", name, got)
			}
		}
		for _, name := range []string{"NoVersion.zip", "1.zip", "Acme.1.0.0", "Acme.1.0.0.exe", "Acme.1.0.0-.zip", "Acme..1.0.0.zip", "Ac me.1.0.0.zip"} {
			body, contentType := form(t, name, []byte("x"))
			a := w.send("API-ADMINADMINADMINADMIN", raw, contentType, body)
			if a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), "version") {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
		}
	})
}

// TestPoint25UnknownFeed: a feed of a type that came after this server is kept with
// all of its members, by a client that writes back what it read, and says in one
// sentence that it cannot be used.
func TestPoint25UnknownFeed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		id := w.Create("/api/feeds", `{"Name":"Next","FeedType":"QuantumRegistry","FeedUri":"https://q.example.com","Entangled":{"With":["a",1,null]},"Spin":0.5}`)
		at := "/api/feeds/" + id
		members := func() (m map[string]any) {
			t.Helper()
			if err := json.Unmarshal(w.Get(at).Body, &m); err != nil {
				t.Fatal(err)
			}
			return m
		}
		before := members()
		if before["FeedType"] != "QuantumRegistry" || before["Spin"] != 0.5 || cmp.Diff(map[string]any{"With": []any{"a", 1.0, nil}}, before["Entangled"]) != "" {
			t.Fatalf("stored as %v", before)
		}
		body := string(w.Get(at).Body)
		w.Must(http.StatusOK, http.MethodPut, at, strings.Replace(body, `"Next"`, `"Renamed"`, 1))
		after := members()
		if after["Name"] != "Renamed" {
			t.Errorf("its name is %v", after["Name"])
		}
		for _, changes := range []string{"Name", "LastModifiedOn", "LastModifiedBy"} {
			delete(before, changes)
			delete(after, changes)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("after a change (-before +after):\n%s", diff)
		}
		a := w.Do(http.MethodGet, at+"/packages/versions?packageId=A", "API-ADMINADMINADMINADMIN", "")
		if a.Status != http.StatusNotImplemented || !strings.Contains(string(a.Body), "QuantumRegistry, which this server cannot read") {
			t.Errorf("its packages: %d %s", a.Status, a.Body)
		}
		w.Must(http.StatusOK, http.MethodDelete, at, "")
		w.Refused(http.StatusConflict, http.MethodDelete, "/api/feeds/feeds-builtin", "", "The built-in feed cannot be deleted")
	})
}
