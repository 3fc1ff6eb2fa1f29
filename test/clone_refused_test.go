package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// TestCloneIsRefused takes away everything that shuts a copy in, and lets it try: it
// reaches all that its parent reaches, at the very address where agents poll the parent,
// and everything is enabled. Nobody listens to it: not the agents, for its certificate is
// another one, and neither SSH host nor feed, for it has nothing to sign in with.
func TestCloneIsRefused(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.AgentListen = apptest.FixedAddress(t)
			p.Start()
			m := newModel(t, p.Client)
			host := newMachine(t, apptest.Binary(t), "agent")
			var token octopus.RegistrationTokenCreated
			p.Must(t, http.MethodPost, space+"/machines/registration-tokens", octopus.RegistrationTokenCommand{
				RegistrationScope: octopus.RegistrationScope{EnvironmentIDs: octopus.List[string]{m.Dev.ID}, Roles: octopus.List[string]{"web"}}, Uses: 2,
			}, &token)
			passive, active := string(octopus.StyleListening), string(octopus.StylePolling)
			host.run(installCommand(t, token, octopus.StyleListening, passive, "--listen-address", "127.0.0.1", "--public-host-name", "127.0.0.1", "--port", port(t))...)
			host.run(installCommand(t, token, octopus.StylePolling, active)...)
			listens, polls := host.launch(passive), host.launch(active)
			_, endpoint := sshHost(t, p.Client)
			m.target(t, "by ssh", endpoint)

			var let, turned atomic.Int64
			repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, password, _ := r.BasicAuth(); password != "hush-feed" {
					turned.Add(1)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				let.Add(1)
				_, _ = w.Write([]byte("<metadata><versioning><versions><version>1.0</version></versions></versioning></metadata>"))
			}))
			t.Cleanup(repository.Close)
			password := octopus.NewSensitive("hush-feed")
			feed := apptest.Post(t, p.Client, space+"/feeds", octopus.Feed{Name: "Artifacts", FeedType: octopus.FeedMaven, FeedURI: repository.URL, Username: "reader", Password: &password})
			apptest.Post(t, p.Client, "/api/accounts", account("cloud", "hush-cloud"))
			versions := space + "/feeds/" + feed.ID + "/packages/versions?packageId=com.acme:web"

			// The parent is let in everywhere.
			ran := filepath.Join(apptest.ShortDir(t), "ran")
			all := apptest.Get[[]octopus.Machine](t, p.Client, space+"/machines/all")
			var ids []string
			for _, one := range all {
				ids = append(ids, fmt.Sprintf("%q", one.ID))
			}
			run := func(c *apptest.Client, body string) string {
				t.Helper()
				var task octopus.Task
				c.Must(t, http.MethodPost, space+"/tasks", body, &task)
				return task.ID
			}
			script := fmt.Sprintf(`{"Name":"AdHocScript","Arguments":{"MachineIds":[%s],"Syntax":"Bash","ScriptBody":%q}}`,
				strings.Join(ids, ","), fmt.Sprintf(`echo "$(get_octopusvariable Octopus.Machine.Name)" >> %s`, ran))
			if task := run(p.Client, script); wait(t, p.Client, task, 4*time.Minute).State != octopus.TaskSuccess {
				t.Fatalf("the parent's script:\n%s", p.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)
			}
			everywhere := []string{passive, active, "by ssh"}
			slices.Sort(everywhere)
			was := lines(t, ran)
			slices.Sort(was)
			if diff := cmp.Diff(everywhere, was); diff != "" {
				t.Fatalf("the parent's script ran on (-want +got):\n%s", diff)
			}
			p.Must(t, http.MethodGet, versions, nil, nil)
			if let.Load() == 0 {
				t.Fatal("the feed was not asked")
			}
			parent := apptest.Get[struct{ InstallationID string }](t, p.Client, "/api").InstallationID

			c, into := copyOf(t, dialect)
			mustOnServer(t, p, "", append([]string{"instance", "clone"}, into...)...)
			p.Stop()
			c.AgentListen = p.AgentListen
			mustOnServer(t, c, parent+"\n", "instance", "arm") // which opens what shuts it in
			refusals := strings.Count(polls.out.String(), "is trusted")
			calls, asked := strings.Count(listens.out.String(), "a caller was refused"), let.Load()
			c.Start()
			if body := string(c.Must(t, http.MethodGet, space+"/accounts", nil, nil).Body); strings.Contains(body, `"HasValue":true`) {
				t.Errorf("the accounts of the copy are %s", body)
			}
			for _, one := range all {
				doc := apptest.Get[map[string]any](t, c.Client, space+"/machines/"+one.ID)
				doc["IsDisabled"] = false
				c.Must(t, http.MethodPut, space+"/machines/"+one.ID, doc, nil)
			}
			task := run(c.Client, script)
			raw := func() string { return string(c.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body) }
			until(t, "the listening agent refuses the copy", func() bool { return strings.Count(listens.out.String(), "a caller was refused") > calls })
			until(t, "the polling agent refuses the copy", func() bool { return strings.Count(polls.out.String(), "is trusted") > refusals })
			until(t, "the copy has nothing to sign in to the host with", func() bool { return strings.Contains(raw(), "has no private key") })
			c.Must(t, http.MethodPost, "/api/tasks/"+task+"/cancel", nil, nil)
			if now := lines(t, ran); len(now) != len(was) {
				t.Errorf("a script of the copy ran: %v", now)
			}
			inVain(t, c, http.MethodGet, versions, nil)
			if turned.Load() == 0 || let.Load() != asked {
				t.Errorf("the feed has refused %d requests of the copy, and answered %d", turned.Load(), let.Load()-asked)
			}
			if t.Failed() {
				t.Logf("listening agent:\n%s\npolling agent:\n%s\ncopy:\n%s", listens.out.String(), polls.out.String(), c.Output())
			}
		})
	}
}
