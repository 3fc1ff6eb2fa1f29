package test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/octopus"
)

// elsewhere is an address that no test reaches (TEST-NET-2).
const elsewhere = "198.51.100.9"

// busy is a server with everything in it that speaks to somebody by itself.
type busy struct {
	*apptest.Process
	*model
	w             *witness
	feed, robot   string
	trigger, hook string
}

// newBusy starts one, and a deployment that stands still on it, with another one behind.
func newBusy(t *testing.T, dialect db.Dialect) (b *busy, runs, queued string) {
	t.Helper()
	s := apptest.NewProcess(t, dialect)
	s.Start()
	b = &busy{Process: s, model: newModel(t, s.Client), w: newWitness(t)}
	b.process(t, b.w.steps("web")...)
	_, version := b.release(t, nil)
	runs, queued = b.deploy(t, version, b.Dev), b.deploy(t, version, b.Dev)
	eventually(t, "the script runs", func() bool { return len(b.w.lines()) == 1 })
	make := func(path, body string) (id string) {
		t.Helper()
		var doc struct{ ID string }
		s.Must(t, http.MethodPost, path, strings.NewReplacer("{at}", elsewhere, "{project}", b.Project.ID, "{dev}", b.Dev.ID).Replace(body), &doc)
		return doc.ID
	}
	apptest.Post(t, s.Client, "/api/accounts", account("cloud", "hush"))
	b.feed = make(space+"/feeds", `{"Name":"Feed","FeedType":"NuGet","FeedUri":"http://who:hush@{at}/v3/index.json","Username":"u","Password":{"NewValue":"hush"}}`)
	make(space+"/machines", `{"Name":"Target","EnvironmentIds":["{dev}"],"Roles":["web"],"Endpoint":{"CommunicationStyle":"TentaclePassive","Uri":"https://{at}:10933/","Thumbprint":"0123456789ABCDEF0123456789ABCDEF01234567"}}`)
	pool := make(space+"/workerpools", `{"Name":"Pool"}`) // the default one is for scripts that are to run
	make(space+"/workers", `{"Name":"Worker","WorkerPoolIds":["`+pool+`"],"Endpoint":{"CommunicationStyle":"TentaclePassive","Uri":"https://{at}:10933/","Thumbprint":"0123456789ABCDEF0123456789ABCDEF01234567"}}`)
	b.trigger = make(space+"/projecttriggers", `{"Name":"Nightly","ProjectId":"{project}","Filter":{"FilterType":"CronExpressionSchedule","CronExpression":"0 0 3 * * *","Timezone":"UTC"},"Action":{"ActionType":"DeployNewRelease","EnvironmentId":"{dev}"}}`)
	b.hook = make(space+"/subscriptions", `{"Name":"Hook","EventNotificationSubscription":{"WebhookURI":"http://{at}/hook","WebhookHeaderKey":"X-Key","WebhookHeaderValue":{"HasValue":true,"NewValue":"hush"}}}`)
	b.robot = make("/api/users", `{"Username":"robot","IsService":true}`)
	make("/api/serviceaccounts/"+b.robot+"/oidcidentities/create/v1", `{"Name":"CI","Issuer":"https://{at}","Subject":"repo:acme/*"}`)
	smtp := apptest.Get[map[string]any](t, s.Client, "/api/smtpconfiguration")
	smtp["SmtpHost"], smtp["SendEmailFrom"] = elsewhere, "tako@example.com"
	s.Must(t, http.MethodPut, "/api/smtpconfiguration", smtp, nil)
	l := apptest.Get[octopus.Lifecycle](t, s.Client, space+"/lifecycles/"+b.Lifecycle.ID)
	l.Phases[0].AutomaticDeploymentTargets, l.Phases[0].OptionalDeploymentTargets = l.Phases[0].OptionalDeploymentTargets, nil
	apptest.Put(t, s.Client, space+"/lifecycles/"+l.ID, l)
	return b, runs, queued
}

// copyOf prepares a process for a copy; cloneArgs are where it goes.
func copyOf(t *testing.T, dialect db.Dialect) (c *apptest.Process, cloneArgs []string) {
	t.Helper()
	c = apptest.NewProcess(t, dialect)
	cloneArgs = []string{"--into", c.Data}
	if c.Database != "" {
		cloneArgs = append(cloneArgs, "--into-database", c.Database)
	}
	return c, cloneArgs
}

// TestCloneIsDisarmed makes a test instance of a server in the middle of work, looks at
// what it does not do any more, and lets it out.
func TestCloneIsDisarmed(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			b, runs, queued := newBusy(t, dialect)
			c, into := copyOf(t, dialect)
			out := mustOnServer(t, b.Process, "", append([]string{"instance", "clone"}, into...)...)
			for _, want := range []string{"triggers", "subscriptions", "deployment targets", "workers", "lifecycles", "identities", "tasks under way", "secrets", "cloud"} {
				if !strings.Contains(out, want) {
					t.Errorf("clone does not tell of %s:\n%s", want, out)
				}
			}
			if strings.Contains(out, "hush") {
				t.Errorf("clone tells a secret:\n%s", out)
			}
			if masterKey(t, c) == masterKey(t, b.Process) {
				t.Error("the copy has the master key of its parent")
			}
			parent := apptest.Get[struct{ InstallationID string }](t, b.Process.Client, "/api").InstallationID

			// Neither the database nor the directory starts without the other.
			stray := apptest.NewProcess(t, db.SQLite)
			if dialect == db.Postgres {
				stray.Database = c.Database
			} else if err := os.MkdirAll(stray.Data, 0o700); err != nil {
				t.Fatal(err)
			} else {
				copyFile(t, filepath.Join(c.Data, "tako.db"), filepath.Join(stray.Data, "tako.db"))
			}
			copyFile(t, filepath.Join(c.Data, "master.key"), filepath.Join(stray.Data, "master.key"))
			if _, errOut, code := onServer(t, stray, nil, "", "server", "--listen", "127.0.0.1:0", "--agent-listen", "off"); code != 1 || !strings.Contains(errOut, "test instance in quarantine") {
				t.Errorf("a server without the marker: %d %s", code, errOut)
			}

			c.Start()
			root := apptest.Get[struct {
				InstallationID string
				TestInstance   bool
			}](t, c.Client, "/api")
			if root.InstallationID == parent || !root.TestInstance {
				t.Errorf("the copy says %+v of itself", root)
			}
			if own := thumbprint(t, c.Client); own == "" || own == thumbprint(t, b.Process.Client) {
				t.Errorf("the copy shows agents the certificate %q of its parent", own)
			}
			status := apptest.Get[octopus.ServerStatus](t, c.Client, "/api/serverstatus")
			if ti := status.TestInstance; ti == nil || !ti.IsInQuarantine || ti.ParentInstallationID != parent {
				t.Errorf("the status of the copy is %+v", ti)
			}
			for id, want := range map[string]octopus.TaskState{runs: octopus.TaskCanceled, queued: octopus.TaskCanceled} {
				if doc := apptest.Get[octopus.Task](t, c.Client, "/api/tasks/"+id); doc.State != want {
					t.Errorf("%s is %s in the copy", id, doc.State)
				}
			}
			for path, want := range map[string]string{
				"/projecttriggers/" + b.trigger: `"IsDisabled":true`, "/subscriptions/" + b.hook: `"IsDisabled":true`,
				"/machines": `"IsDisabled":true`, "/workers": `"IsDisabled":true`, "/feeds/" + b.feed: `"FeedUri":"http://` + elsewhere + `/v3/index.json"`,
				"/lifecycles/" + b.Lifecycle.ID: `"AutomaticDeploymentTargets":[]`, "/accounts": `"HasValue":false`, "/smtpconfiguration": `"SmtpHost":""`,
			} {
				if path != "/smtpconfiguration" {
					path = "/Spaces-1" + path
				}
				if body := string(c.Must(t, http.MethodGet, "/api"+path, nil, nil).Body); !strings.Contains(body, want) || strings.Contains(body, `"HasValue":true`) {
					t.Errorf("%s of the copy is %s, want %s", path, body, want)
				}
			}
			if ids := apptest.Get[struct{ OidcIdentities []json.RawMessage }](t, c.Client, "/api/serviceaccounts/"+b.robot+"/oidcidentities/v1?skip=0&take=9"); len(ids.OidcIdentities) != 0 {
				t.Errorf("the copy trusts issuers: %s", ids.OidcIdentities)
			}
			if out, _, _ := onServer(t, c, nil, "", "key", "check"); !strings.Contains(out, "of which 0 do not open") {
				t.Errorf("key check of the copy says %s", out)
			}
			b.w.has(t, "web one")

			// The server itself has noticed nothing.
			if doc := apptest.Get[octopus.Task](t, b.Process.Client, "/api/tasks/"+runs); doc.State != octopus.TaskExecuting {
				t.Errorf("the deployment of the server is %s", doc.State)
			}
			b.w.open()
			if doc := ended(t, b.Process.Client, runs); !doc.FinishedSuccessfully {
				t.Errorf("the deployment of the server ended as %s: %s", doc.State, doc.ErrorMessage)
			}

			// Let out, it is an ordinary server in which everything is still disabled.
			if _, errOut, code := onServer(t, c, nil, root.InstallationID+"\n", "instance", "arm"); code != 1 || !strings.Contains(errOut, "Nothing was changed") {
				t.Errorf("arm with another id: %d %s", code, errOut)
			}
			c.Stop()
			if out := mustOnServer(t, c, parent+"\n", "instance", "arm"); !strings.Contains(out, "Still disabled") {
				t.Errorf("arm says %q", out)
			}
			c.Start()
			if ti := apptest.Get[octopus.ServerStatus](t, c.Client, "/api/serverstatus").TestInstance; ti == nil || ti.IsInQuarantine {
				t.Errorf("the status of the armed copy is %+v", ti)
			}
			other := *b.model
			other.Client = c.Client
			quick := other.another(t, "Quick", script("Quick", "echo quick"))
			_, version := quick.release(t, nil)
			if doc := ended(t, c.Client, quick.deploy(t, version, quick.Dev)); !doc.FinishedSuccessfully {
				t.Errorf("a deployment of the armed copy is %s: %s", doc.State, doc.ErrorMessage)
			}
			if body := string(c.Must(t, http.MethodGet, space+"/machines", nil, nil).Body); !strings.Contains(body, `"IsDisabled":true`) {
				t.Errorf("the targets of the armed copy are %s", body)
			}
		})
	}
}

// thumbprint is that of the certificate by which agents know a server.
func thumbprint(t *testing.T, c *apptest.Client) string {
	t.Helper()
	return apptest.Get[octopus.CertificateConfiguration](t, c, "/api/configuration/certificates/"+octopus.CertificateGlobalID).Thumbprint
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o700)
	}
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCloneKeepsSecretsWhenTyped keeps the secrets only for who types it.
func TestCloneKeepsSecretsWhenTyped(t *testing.T) {
	t.Parallel()
	s := apptest.NewProcess(t, db.SQLite)
	s.Start()
	apptest.Post(t, s.Client, "/api/accounts", account("cloud", "hush"))
	createBackup(t, s)
	c, into := copyOf(t, db.SQLite)
	args := append([]string{"instance", "clone", "latest", "--secrets", "keep"}, into...)
	if _, errOut, code := onServer(t, s, nil, "yes\n", args...); code != 1 || !strings.Contains(errOut, "nothing was made") {
		t.Errorf("keep without the words: %d %s", code, errOut)
	}
	if _, err := os.Stat(c.Data); !os.IsNotExist(err) {
		t.Errorf("something was made: %v", err)
	}
	mustOnServer(t, s, "keep the secrets\n", args...)
	if masterKey(t, c) != masterKey(t, s) {
		t.Error("the copy has another master key")
	}
	if out := mustOnServer(t, c, "", "instance", "show", "--output", "json"); !strings.Contains(out, `"Mode": "quarantine"`) {
		t.Errorf("show says %s", out)
	}
	if _, errOut, code := onServer(t, s, nil, "", append([]string{"instance", "clone", "latest"}, into...)...); code != 1 || !strings.Contains(errOut, "is not empty") {
		t.Errorf("a clone into a clone: %d %s", code, errOut)
	}
	c.Start()
	if thumbprint(t, c.Client) == thumbprint(t, s.Client) {
		t.Error("the copy that keeps the secrets has the certificate that agents trust")
	}
	if body := string(c.Must(t, http.MethodGet, "/api/accounts", nil, nil).Body); !strings.Contains(body, `"HasValue":true`) {
		t.Errorf("the accounts are %s", body)
	}
}

// TestCloneOfAClone makes a copy of a copy that runs in quarantine, and restores a backup
// of the copy elsewhere: each is known for what it is.
func TestCloneOfAClone(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.NewProcess(t, dialect)
			s.Start()
			apptest.Post(t, s.Client, "/api/accounts", account("cloud", "hush"))
			first, into := copyOf(t, dialect)
			mustOnServer(t, s, "", append([]string{"instance", "clone"}, into...)...)
			s.Stop()
			first.Start()
			second, into := copyOf(t, dialect)
			mustOnServer(t, first, "", append([]string{"instance", "clone"}, into...)...)
			second.Start()
			is := func(c *apptest.Process) (id string, parent string) {
				t.Helper()
				ti := apptest.Get[octopus.ServerStatus](t, c.Client, "/api/serverstatus").TestInstance
				if ti == nil || !ti.IsInQuarantine {
					t.Fatalf("the status is %+v", ti)
				}
				return apptest.Get[struct{ InstallationID string }](t, c.Client, "/api").InstallationID, ti.ParentInstallationID
			}
			firstID, root := is(first)
			secondID, parent := is(second)
			if parent != firstID || root == firstID || secondID == firstID || secondID == root {
				t.Errorf("%s is a copy of %s, which is %s, a copy of %s", secondID, parent, firstID, root)
			}
			if names := accountNames(t, second.Client); !slices.Equal(names, []string{"cloud"}) {
				t.Errorf("the second copy has the accounts %v", names)
			}

			// A backup of the copy, restored where nothing says that it is one.
			kit := kitFile(t, first)
			_, path := createBackup(t, first)
			stray := apptest.NewProcess(t, dialect)
			mustOnServer(t, stray, "", "backup", "restore", path, "--recovery-key-file", kit)
			if _, errOut, code := onServer(t, stray, nil, "", "server", "--listen", "127.0.0.1:0", "--agent-listen", "off"); code != 1 || !strings.Contains(errOut, "test instance in quarantine") {
				t.Errorf("a server on the restored copy: %d %s", code, errOut)
			}
		})
	}
}

// TestCloneKilledAtEachEdge kills clone at each of its steps.
func TestCloneKilledAtEachEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.NewProcess(t, dialect)
			s.Start()
			apptest.Post(t, s.Client, "/api/accounts", account("cloud", "hush"))
			if r := s.Upload(t, "/api/packages/raw", "Acme.Web.1.0.0.zip", archive(t, map[string]string{"a": "b"})); r.Status != http.StatusCreated {
				t.Fatalf("push: %d %s", r.Status, r.Body)
			}
			createBackup(t, s)
			before := fingerprint(t, s)
			c, into := copyOf(t, dialect)
			args := append([]string{"instance", "clone", "latest"}, into...)
			edges := []string{"clone-marked", "restore-staged", "restore-blob", "clone-disarmed", "clone-blanked", "clone-placed"}
			if dialect == db.Postgres {
				edges = slices.Insert(edges, 3, "restore-loaded", "clone-loaded")
			}
			for _, edge := range []string{"clone-marked", "clone-blanked", "clone-placed"} {
				if out, errOut, code := onServer(t, s, []string{"TAKO_FAILPOINT=" + edge + ":err"}, "", args...); code != 1 {
					t.Fatalf("%s: the command ended with %d:\n%s%s", edge, code, out, errOut)
				}
				if left, err := os.ReadDir(c.Data); err == nil && len(left) > 0 {
					t.Errorf("%s: an error left %v", edge, left)
				}
			}
			for _, edge := range edges {
				if out, errOut, code := onServer(t, s, []string{"TAKO_FAILPOINT=" + edge + ":kill"}, "", args...); code != -1 {
					t.Fatalf("%s: the command ended with %d:\n%s%s", edge, code, out, errOut)
				}
				if _, errOut, code := onServer(t, c, nil, "", "server", "--listen", "127.0.0.1:0", "--agent-listen", "off"); code != 1 || !strings.Contains(errOut, "was not made to its end") {
					t.Errorf("%s: a server on what is left: %d %s", edge, code, errOut)
				}
			}
			mustOnServer(t, s, "", args...)
			c.Start()
			if names := accountNames(t, c.Client); !slices.Equal(names, []string{"cloud"}) {
				t.Errorf("the copy has the accounts %v", names)
			}
			c.Must(t, http.MethodGet, "/api/packages/packages-Acme.Web.1.0.0/raw", nil, nil)
			if left, err := filepath.Glob(filepath.Join(c.Data, "*cloning*")); err != nil || len(left) > 0 {
				t.Errorf("the copy has %v in its directory", left)
			}
			if after := fingerprint(t, s); after != before {
				t.Errorf("the server was %s before, and is %s", before, after)
			}
		})
	}
}

// fingerprint tells whether somebody wrote to what a clone must not write to.
func fingerprint(t *testing.T, s *apptest.Process) string {
	t.Helper()
	meta, err := openDatabase(t, s).Meta(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	account := apptest.Get[json.RawMessage](t, s.Client, "/api/accounts")
	events := apptest.Get[octopus.Page[struct{ ID string }]](t, s.Client, "/api/events")
	return fmt.Sprintf("%s %s %s %d %s", meta.InstallationID, meta.Incarnation, masterKey(t, s), events.TotalResults, account)
}

// TestCloneWithoutRoom makes copies on disks that are too small.
func TestCloneWithoutRoom(t *testing.T) {
	t.Parallel()
	s := apptest.NewProcess(t, db.SQLite)
	s.Start()
	content := make([]byte, 3<<20)
	_, _ = rand.Read(content) // what cannot be compressed
	if r := s.Upload(t, "/api/packages/raw", "Acme.Web.1.0.0.zip", archive(t, map[string]string{"a": string(content)})); r.Status != http.StatusCreated {
		t.Fatalf("push: %d %s", r.Status, r.Body)
	}
	createBackup(t, s)
	for _, kib := range []int{64, 1024, 3072} {
		disk := disktest.New(t, fmt.Sprintf("size=%dk", kib))
		into := filepath.Join(disk, "copy")
		_, errOut, code := onServer(t, s, nil, "", "instance", "clone", "latest", "--into", into)
		if code == 0 {
			t.Fatalf("a copy fits into %d KiB; the test is to have one that does not", kib)
		}
		if !strings.Contains(errOut, "free") {
			t.Errorf("%d KiB: %s", kib, errOut)
		}
		if left, err := os.ReadDir(disk); err != nil || len(left) != 0 {
			t.Errorf("%d KiB: there are %v left, %v", kib, left, err)
		}
	}
	mustOnServer(t, s, "", "instance", "clone", "latest", "--into", filepath.Join(t.TempDir(), "copy"))
}
