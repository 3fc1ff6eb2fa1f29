package packages_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/takodeploy/tako/octopus"
)

func TestNotes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.push(http.StatusCreated, raw, "Acme.1.0.0.nupkg", string(nupkg(t, "Acme", "1.0.0")))
		w.push(http.StatusCreated, raw, "Zip.1.0.0.zip", "x")
		w.push(http.StatusCreated, raw, "Broken.1.0.0.nupkg", "x")
		const one = "/api/Spaces-1/feeds/feeds-builtin/packages/notes"
		for query, want := range map[string]string{
			"?packageId=acme&version=1.0.0": `"Notes of 1.0.0"`, "?packageId=Zip&version=1.0.0": `""`, "?packageId=Broken&version=1.0.0": `""`,
		} {
			if got := strings.TrimSpace(string(w.Get(one + query).Body)); got != want {
				t.Errorf("%s: %s, want %s", query, got, want)
			}
		}
		w.Must(http.StatusNotFound, http.MethodGet, one+"?packageId=Acme&version=2.0.0", "")
		w.Must(http.StatusBadRequest, http.MethodGet, one+"?packageId=Acme", "")

		// The parts are encoded, and then the whole.
		names := url.QueryEscape("feeds-builtin:" + url.PathEscape("Acme") + ":1.0.0,feeds-builtin:Zip:1.0.0,feeds-builtin:None:2.0.0%2B1,Feeds-7:com.acme:web:1.0")
		var got octopus.PackageNotes
		w.Get("/api/Spaces-1/packages/notes?packageIds=" + names).Into(&got)
		if len(got.Packages) != 4 {
			t.Fatalf("%+v", got)
		}
		if n := got.Packages[0]; !n.Notes.Succeeded || n.Notes.Notes != "Notes of 1.0.0" || n.Notes.Published == nil || n.PackageID != "Acme" || n.FeedID != "feeds-builtin" {
			t.Errorf("%+v", n)
		}
		if n := got.Packages[1]; !n.Notes.Succeeded || n.Notes.Notes != "" {
			t.Errorf("%+v", n)
		}
		if n := got.Packages[2]; n.Notes.Succeeded || n.Version != "2.0.0+1" || !strings.Contains(string(n.Notes.FailureReason), "not found") {
			t.Errorf("%+v", n)
		}
		if n := got.Packages[3]; n.Notes.Succeeded || n.PackageID != "com.acme:web" || !strings.Contains(string(n.Notes.FailureReason), "was not found") {
			t.Errorf("%+v", n)
		}
		w.Get("/api/packages/notes").Into(&got)
		for query, says := range map[string]string{"packages-Acme.1.0.0": "write feed:package:version", strings.Repeat("a:b:1,", 101): "at most 100"} {
			if a := w.Must(http.StatusBadRequest, http.MethodGet, "/api/packages/notes?packageIds="+query, ""); !strings.Contains(string(a.Body), says) {
				t.Errorf("%s", a.Body)
			}
		}
	})
}

// TestBulkDeleteByBody: newer clients send the ids in the body.
func TestBulkDeleteByBody(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for _, v := range []string{"1.0", "2.0", "3.0", "4.0"} {
			w.push(http.StatusCreated, raw, "A."+v+".zip", "x")
		}
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/packages/bulk", `{"SpaceId":"Spaces-1","Ids":["packages-A.1.0"]}`)
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/packages/bulk/v1", `{"Ids":["packages-A.2.0","packages-A.9.0"]}`)
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/packages/bulk?ids=packages-A.3.0", "")
		if ids := w.Get("/api/packages?nuGetPackageId=A").IDs(); len(ids) != 1 || ids[0] != "packages-A.4.0" {
			t.Errorf("left are %v", ids)
		}
		w.Must(http.StatusBadRequest, http.MethodDelete, "/api/Spaces-1/packages/bulk", `[]`)
	})
}

// TestPuttingAPackage: nothing of a package can be edited, and a client that sends
// back what it read is not told off.
func TestPuttingAPackage(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		p := w.push(http.StatusCreated, raw, "Acme.1.0.0.zip", "x")
		same := string(w.Get(p.Links["Self"]).Body)
		if got := w.Must(http.StatusOK, http.MethodPut, p.Links["Self"], same); string(got.Body) != same {
			t.Errorf("%s", got.Body)
		}
		a := w.Must(http.StatusBadRequest, http.MethodPut, p.Links["Self"], `{"PackageId":"Acme","Version":"2.0.0"}`)
		if !strings.Contains(string(a.Body), "push") {
			t.Errorf("%s", a.Body)
		}
		w.Must(http.StatusNotFound, http.MethodPut, "/api/packages/packages-Acme.2.0.0", same)
	})
}
