package packages_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

const buildPath = "/api/Spaces-1/build-information"

// build is what a build server sends.
func build(id, version, more string) string {
	return fmt.Sprintf(`{"spaceId":"Spaces-1","PackageId":%q,"Version":%q,"OctopusBuildInformation":{"BuildEnvironment":"Jenkins","BuildNumber":"42","BuildUrl":"https://ci.example.com/42",
		"Branch":"main","VcsType":"Git","VcsRoot":"https://bot:secret@github.com/acme/web.git","VcsCommitNumber":"abc123"%s}}`, id, version, more)
}

func TestBuildInformation(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		sent := build("Acme.Web", "1.0.0", `,"Commits":[{"Id":"abc123","Comment":"Fixes #7, see #8"},{"Id":"def","Comment":"Again #7; no#9 and no issue #x"}]`)
		a := w.Must(http.StatusCreated, http.MethodPost, buildPath+"?overwriteMode=FailIfExists", sent)
		var b octopus.BuildInformation
		a.Into(&b)
		if a.Header.Get("Location") != b.Links["Self"] || b.Links["Self"] != buildPath+"/"+b.ID {
			t.Errorf("Location %q, links %v", a.Header.Get("Location"), b.Links)
		}
		w.Get(b.Links["Self"]).Into(&b)
		want := octopus.BuildInformation{
			SpaceID: "Spaces-1", PackageID: "Acme.Web", Version: "1.0.0", BuildEnvironment: "Jenkins", BuildNumber: "42", BuildURL: "https://ci.example.com/42",
			Branch: "main", VcsType: "Git", VcsRoot: "https://github.com/acme/web.git", VcsCommitNumber: "abc123",
			VcsCommitURL: "https://github.com/acme/web/commit/abc123", IssueTrackerName: "GitHub",
			Commits: octopus.List[octopus.Commit]{
				{ID: "abc123", LinkURL: "https://github.com/acme/web/commit/abc123", Comment: "Fixes #7, see #8"},
				{ID: "def", LinkURL: "https://github.com/acme/web/commit/def", Comment: "Again #7; no#9 and no issue #x"},
			},
			WorkItems: octopus.List[octopus.WorkItem]{
				{ID: "#7", LinkURL: "https://github.com/acme/web/issues/7", Source: "GitHub", Description: "#7"},
				{ID: "#8", LinkURL: "https://github.com/acme/web/issues/8", Source: "GitHub", Description: "#8"},
			},
		}
		if b.LastModifiedBy != actiontest.AdminName || b.Created == nil {
			t.Errorf("made by %q at %v", b.LastModifiedBy, b.Created)
		}
		want.Resource, want.Created = b.Resource, b.Created
		if diff := cmp.Diff(want, b); diff != "" {
			t.Error(diff)
		}
		id := b.ID

		a = w.Must(http.StatusConflict, http.MethodPost, buildPath, sent)
		if !strings.Contains(string(a.Body), "already exists") {
			t.Errorf("%s", a.Body)
		}
		other := build("acme.web", "1.0.0", `,"Commits":null`)
		if kept := w.Must(http.StatusOK, http.MethodPost, buildPath+"?overwriteMode=IgnoreIfExists", other); kept.Text("Id") != id || !strings.Contains(string(kept.Body), "Fixes") {
			t.Errorf("%s", kept.Body)
		}
		// The mode may be in the body, as one client sends it.
		inBody := strings.Replace(other, `{"spaceId"`, `{"OverwriteMode":"OverwriteExisting","spaceId"`, 1)
		if now := w.Must(http.StatusOK, http.MethodPost, buildPath, inBody); now.Text("Id") != id || now.Text("PackageId") != "Acme.Web" || strings.Contains(string(now.Body), "Fixes") {
			t.Errorf("%s", now.Body)
		}

		// A package that is there tells of its build.
		if p := w.push(http.StatusCreated, raw, "Acme.Web.1.0.0.zip", "x"); p.PackageVersionBuildInformation != nil {
			t.Errorf("the push says %v", p.PackageVersionBuildInformation)
		}
		var p octopus.Package
		w.Get("/api/packages/packages-Acme.Web.1.0.0").Into(&p)
		if p.PackageVersionBuildInformation == nil || p.PackageVersionBuildInformation.ID != id {
			t.Errorf("the package says %v", p.PackageVersionBuildInformation)
		}

		for body, says := range map[string]string{
			build("", "1.0", ""): "PackageId is empty", build("A", " ", ""): "Version is empty",
			build("A", "1.0", `,"Branch":"`+strings.Repeat("x", 3000)+`"`): "Branch has 3000 bytes",
		} {
			if a := w.Must(http.StatusBadRequest, http.MethodPost, buildPath, body); !strings.Contains(string(a.Body), says) {
				t.Errorf("%s, want %s", a.Body, says)
			}
		}
		w.Must(http.StatusBadRequest, http.MethodPost, buildPath+"?overwriteMode=Perhaps", sent)
		w.Must(http.StatusNotFound, http.MethodGet, buildPath+"/BuildInformation-999", "")

		// Older tools use another path and name for the same.
		legacy := strings.Replace(build("Old", "3.0", ""), "OctopusBuildInformation", "OctopusPackageMetadata", 1)
		old := w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/package-metadata?replace=false", legacy).Text("Id")
		if got := w.Get("/api/Spaces-1/package-metadata/" + old).Text("BuildNumber"); got != "42" {
			t.Errorf("the older path has build %q", got)
		}
	})
}

func TestBuildInformationLists(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ids := map[string]string{}
		names := map[string]string{}
		for _, one := range []string{"A 1.0.0", "A 1.10.0", "A 1.9.0-beta", "B 2.0.0", "docker/image 3"} {
			id, version, _ := strings.Cut(one, " ")
			made := w.Must(http.StatusCreated, http.MethodPost, buildPath, build(id, version, "")).Text("Id")
			ids[one], names[made] = made, one
		}
		for query, want := range map[string]string{
			"":                                "A 1.10.0,A 1.9.0-beta,A 1.0.0,B 2.0.0,docker/image 3",
			"?packageId=a":                    "A 1.10.0,A 1.9.0-beta,A 1.0.0",
			"?packageId=docker%2Fimage":       "docker/image 3",
			"?filter=BETA":                    "A 1.9.0-beta",
			"?latest=true":                    "A 1.10.0,B 2.0.0,docker/image 3",
			"?latest=true&filter=1.9":         "A 1.9.0-beta",
			"?latest=true&packageId=A&take=5": "A 1.10.0",
			"?take=2&skip=1":                  "A 1.9.0-beta,A 1.0.0",
			"?take=2147483647&packageId=B":    "B 2.0.0",
			"?ids=" + ids["B 2.0.0"] + "," + strings.ToLower(ids["A 1.0.0"]): "A 1.0.0,B 2.0.0",
			"?packageId=none": "",
			"/all":            "A 1.10.0,A 1.9.0-beta,A 1.0.0,B 2.0.0,docker/image 3",
			"/bulk?ids=" + ids["B 2.0.0"] + ",BuildInformation-999": "B 2.0.0",
			"/bulk": "",
		} {
			var got []string
			for _, id := range w.Get(buildPath + query).IDs() {
				got = append(got, names[id])
			}
			if strings.Join(got, ",") != want {
				t.Errorf("%s: %v, want %s", query, got, want)
			}
		}
		if total := w.Get(buildPath + "?take=1").JSON()["TotalResults"]; total != 5.0 {
			t.Errorf("there are %v", total)
		}
		w.Must(http.StatusOK, http.MethodDelete, buildPath+"/"+ids["A 1.0.0"], "")
		w.Must(http.StatusNotFound, http.MethodDelete, buildPath+"/"+ids["A 1.0.0"], "")
		w.Must(http.StatusOK, http.MethodDelete, buildPath+"/bulk?ids="+ids["A 1.10.0"]+",BuildInformation-999,"+ids["B 2.0.0"], "")
		if left := w.Get(buildPath).IDs(); !slices.Equal(left, []string{ids["A 1.9.0-beta"], ids["docker/image 3"]}) {
			t.Errorf("left are %v", left)
		}
		space := w.Create("/api/spaces", `{"Name":"Second","SpaceManagersTeams":["teams-administrators"]}`)
		if far := w.Get("/api/" + space + "/build-information").IDs(); len(far) != 0 {
			t.Errorf("another space has %v", far)
		}
	})
}

func TestBuildInformationNeedsPermission(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		as := func(permissions ...string) string {
			return w.Person(actiontest.Role{Space: "Spaces-1", Permissions: permissions})
		}
		pusher, reader, admin := as("BuildInformationPush"), as("FeedView"), as("BuildInformationPush", "BuildInformationAdminister")
		id := w.MustAs(pusher, http.StatusCreated, http.MethodPost, buildPath, build("A", "1.0", "")).Text("Id")
		w.MustAs(pusher, http.StatusForbidden, http.MethodPost, buildPath+"?overwriteMode=OverwriteExisting", build("A", "1.0", ""))
		w.MustAs(pusher, http.StatusForbidden, http.MethodGet, buildPath, "")
		w.MustAs(pusher, http.StatusForbidden, http.MethodDelete, buildPath+"/"+id, "")
		w.MustAs(reader, http.StatusForbidden, http.MethodPost, buildPath, build("A", "2.0", ""))
		w.MustAs(reader, http.StatusForbidden, http.MethodDelete, buildPath+"/bulk?ids="+id, "")
		w.MustAs(reader, http.StatusOK, http.MethodGet, buildPath+"/"+id, "")
		w.MustAs(admin, http.StatusOK, http.MethodPost, buildPath+"?overwriteMode=OverwriteExisting", build("A", "1.0", ""))
		w.MustAs(admin, http.StatusOK, http.MethodDelete, buildPath+"/"+id, "")
	})
}
