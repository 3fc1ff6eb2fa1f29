package test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// TestExternalFeedDay releases and deploys a package of a Maven repository by the
// rule of a channel, and deploys it again when the repository is gone.
func TestExternalFeedDay(t *testing.T) {
	t.Parallel()
	apptest.Run(t, func(t *testing.T, s *apptest.Server) {
		c := s.Client
		const password = "pass-of-the-feed"
		dir := t.TempDir()
		put := func(name string, content []byte) {
			t.Helper()
			path := filepath.Join(dir, "com/acme/web", name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put("maven-metadata.xml", []byte("<metadata><versioning><versions><version>1.9</version><version>1.10</version><version>2.0</version></versions></versioning></metadata>"))
		put("1.10/web-1.10.zip", archive(t, map[string]string{"hello.txt": "hello from 1.10"}))
		files := http.FileServer(http.Dir(dir))
		repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, p, _ := r.BasicAuth(); p != password {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			files.ServeHTTP(w, r)
		}))
		t.Cleanup(repository.Close)

		m := newModel(t, c)
		sensitive := octopus.NewSensitive(password)
		feed := apptest.Post(t, c, space+"/feeds", octopus.Feed{Name: "Artifacts", FeedType: octopus.FeedMaven, FeedURI: repository.URL, Username: "reader", Password: &sensitive})
		show := script("Show", "cat web/hello.txt")
		show.Actions[0].Packages = octopus.List[octopus.PackageReference]{{
			Name: "web", PackageID: "com.acme:web", FeedID: feed.ID, AcquisitionLocation: octopus.AcquireOnServer,
			Properties: octopus.Map[string, octopus.PropertyText]{octopus.PackagePropExtract: "True"},
		}}
		m.process(t, show)
		channels := apptest.Get[octopus.Page[octopus.Channel]](t, c, space+"/projects/"+m.Project.ID+"/channels")
		channel := channels.Items[0]
		channel.Rules = octopus.List[octopus.ChannelRule]{{
			VersionRange: "[1.0,2.0)", ActionPackages: octopus.List[octopus.DeploymentActionPackage]{{DeploymentAction: "Show", PackageReference: "web"}},
		}}
		apptest.Put(t, c, space+"/channels/"+channel.ID, channel)

		id, version := m.release(t, nil)
		release := apptest.Get[octopus.Release](t, c, space+"/releases/"+id)
		if len(release.SelectedPackages) != 1 || release.SelectedPackages[0].Version != "1.10" {
			t.Fatalf("the release selects %+v", release.SelectedPackages)
		}
		if said := c.Refused(t, http.StatusBadRequest, http.MethodPost, space+"/releases/create/v1", map[string]any{
			"spaceId": "Spaces-1", "spaceIdOrName": "Spaces-1", "projectName": m.Project.Name, "packageVersion": "2.0",
		}); !strings.Contains(said, "breaks the rules") {
			t.Errorf("a version outside of the rule: %s", said)
		}
		deployed := func(env octopus.Environment) {
			t.Helper()
			task := m.deploy(t, version, env)
			done := wait(t, c, task, 4*time.Minute)
			raw := string(c.Must(t, http.MethodGet, space+"/tasks/"+task+"/raw", nil, nil).Body)
			if done.State != octopus.TaskSuccess || !strings.Contains(raw, "hello from 1.10") || strings.Contains(raw, password) {
				t.Fatalf("the deployment to %s ended as %s:\n%s", env.Name, done.State, raw)
			}
		}
		deployed(m.Dev)
		repository.Close()
		said := c.Refused(t, http.StatusServiceUnavailable, http.MethodGet, space+"/feeds/"+feed.ID+"/packages/versions?packageId=com.acme:web", nil)
		if !strings.Contains(said, "'Artifacts'") || !strings.Contains(said, "check its FeedUri") || strings.Contains(said, password) {
			t.Errorf("a feed that is down: %s", said)
		}
		// A release of what was there the last time would be another one than is asked for.
		if said := c.Refused(t, http.StatusServiceUnavailable, http.MethodPost, space+"/releases/create/v1", map[string]any{
			"spaceId": "Spaces-1", "spaceIdOrName": "Spaces-1", "projectName": m.Project.Name,
		}); !strings.Contains(said, "'Artifacts'") {
			t.Errorf("a release without its feed: %s", said)
		}
		deployed(m.Production)
	})
}
