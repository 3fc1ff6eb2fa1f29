package verify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/verify"
	"github.com/takodeploy/tako/octopus"
)

// Secrets of the world, which no document may tell.
const (
	hush     = "pw1"
	answered = "tell nobody of this"
)

// world is a running server with something of everything that is compared.
type world struct {
	*apptest.Server
	t       *testing.T
	cfg     config.Config
	db      *db.DB
	key     []byte
	machine octopus.Machine
	robot   string
	account string
	logs    []string // tasks that have ended
}

func newWorld(t *testing.T, dialect db.Dialect) *world {
	t.Helper()
	w := &world{t: t, Server: apptest.StartWith(t, dialect, apptest.Options{NoWorker: true}), key: bytes.Repeat([]byte{7}, verify.MinKey)}
	w.cfg = config.Defaults()
	w.cfg.Data, w.cfg.Database, w.cfg.Backups = w.Data, w.Database, filepath.Join(w.Data, "backups")
	w.db = dbtest.OpenURL(t, w.Database)
	dev := apptest.Post(t, w.Client, "/api/environments", octopus.Environment{Name: "Dev"})
	w.machine = apptest.Post(t, w.Client, "/api/machines", octopus.Machine{
		EnvironmentIDs: octopus.List[string]{dev.ID}, Roles: octopus.List[string]{"web"},
		MachineBase: octopus.MachineBase{Name: "web-1", Endpoint: octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: "https://127.0.0.1:1/", Thumbprint: "0123456789ABCDEF0123456789ABCDEF01234567"}},
	})
	w.account = w.post("/api/accounts", `{"Name":"Cloud","AccountType":"UsernamePassword","Username":"u","Password":{"HasValue":true,"NewValue":"`+answered+`"}}`)
	p := apptest.Post(t, w.Client, "/api/projects", octopus.Project{Name: "Web", ProjectGroupID: "ProjectGroups-1", LifecycleID: "Lifecycles-1"})
	process := apptest.Get[octopus.DeploymentProcess](t, w.Client, "/api/deploymentprocesses/"+p.DeploymentProcessID)
	process.Steps = octopus.List[octopus.Step]{{
		Name: "Say", Properties: octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")},
		Actions: octopus.List[octopus.Action]{{Name: "Say", ActionType: octopus.ActionScript, Properties: octopus.Properties{
			octopus.PropScriptSource: octopus.Plain("Inline"), octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropScriptBody: octopus.Plain("echo to #{Octopus.Environment.Name}"),
		}}},
	}}
	apptest.Put(t, w.Client, "/api/deploymentprocesses/"+p.DeploymentProcessID, process)
	set := apptest.Get[map[string]any](t, w.Client, "/api/variables/"+p.VariableSetID)
	set["Variables"] = []any{
		map[string]any{"Name": "Password", "Type": "Sensitive", "IsSensitive": true, "Value": hush},
		map[string]any{"Name": "Cloud", "Type": "UsernamePasswordAccount", "Value": w.account},
		map[string]any{"Name": "Colour", "Type": "String", "Value": "blue", "Scope": map[string]any{"Environment": []string{dev.ID}}},
	}
	w.Must(t, http.MethodPut, "/api/variables/"+p.VariableSetID, set, nil)
	r := apptest.Post(t, w.Client, "/api/releases", octopus.Release{ProjectID: p.ID, Version: "1.0"})
	for range 4 { // of which the last three count
		w.Must(t, http.MethodPost, "/api/deployments", map[string]any{"ReleaseId": r.ID, "EnvironmentId": dev.ID}, nil)
	}
	w.robot = w.post("/api/users", `{"Username":"robot","DisplayName":"Robot","IsActive":true,"IsService":true}`)
	for range 2 {
		id := w.post("/api/tasks", `{"Name":"SystemIntegrityCheck","Arguments":{}}`)
		w.logs = append(w.logs, id)
		w.ended(id)
	}
	w.artifact(w.logs[0], "report.txt", "kept\n")
	return w
}

func (w *world) post(path, body string) string {
	w.t.Helper()
	var doc struct{ ID string }
	w.Must(w.t, http.MethodPost, path, body, &doc)
	return doc.ID
}

// ended waits until a task has ended, and its log is where it stays.
func (w *world) ended(id string) {
	w.t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if apptest.Get[octopus.Task](w.t, w.Client, "/api/tasks/"+id).IsCompleted && w.number(`SELECT count(*) FROM task_log l WHERE l.task = ?`, id) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%s has not ended, or its log is not sealed", id)
		}
	}
}

func (w *world) number(query string, args ...any) (n int64) {
	w.t.Helper()
	if err := w.db.Read(w.t.Context(), func(tx *db.Tx) error { return tx.QueryRow(w.t.Context(), query, args...).Scan(&n) }); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	var n int64
	err := w.db.WriteEngine(w.t.Context(), func(tx *db.Tx) (err error) {
		n, err = tx.Exec(w.t.Context(), statement, args...)
		return err
	})
	if err != nil || n == 0 {
		w.t.Fatalf("%s: %d rows, %v", statement, n, err)
	}
}

func (w *world) artifact(task, file, content string) {
	w.t.Helper()
	blobs, err := blob.OpenDir(filepath.Join(w.Data, "blobs"))
	if err != nil {
		w.t.Fatal(err)
	}
	info, err := blobs.Put(w.t.Context(), strings.NewReader(content), 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	w.exec(`INSERT INTO artifact (id, seq, task, space_id, filename, source, correlation, created, size, sha256) VALUES ('Artifacts-1', 1, ?, 'Spaces-1', ?, '', '', 1, ?, ?)`,
		task, file, info.Size, string(info.Hash))
}

func (w *world) request() app.FactsRequest { return app.FactsRequest{Seed: 11, Key: w.key} }

// facts takes a backup and computes the facts of it.
func (w *world) facts() *verify.Document {
	w.t.Helper()
	b, err := app.OpenBackups(w.cfg, app.Options{Log: dbtest.Log(w.t), Version: "1"})
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := b.Create(w.t.Context(), nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	doc, err := b.Facts(w.t.Context(), m.ID, nil, w.request(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return doc
}

func text(t *testing.T, d *verify.Document) string {
	t.Helper()
	var b bytes.Buffer
	if err := d.Write(&b); err != nil {
		t.Fatal(err)
	}
	back, err := verify.Read(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, back); diff != "" {
		t.Errorf("a document that was written and read: %s", diff)
	}
	return b.String()
}

// TestFacts computes the facts of a server's backup, twice of one test instance, and of a
// backup after one thing of each part was changed. It wants each change to be found, by its
// name, and nothing else.
func TestFacts(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, dialect)
			live := w.readOnly()
			w.exec(`INSERT INTO node_setting (name, seq, capacity, draining) VALUES ('gone', 99, 5, 0)`)
			before := w.facts()
			complete(t, before, w.logs)
			// Of this node one of the copies has heard a moment ago, which tells nothing of the data.
			w.exec(`INSERT INTO node (incarnation, name, version, started, heartbeat) VALUES ('gone-1', 'gone', '1', 1, ?)`, db.Micros(time.Now().Add(time.Hour)))
			if dialect == db.SQLite {
				w.twice()
			}

			w.machine.Roles = append(w.machine.Roles, "api")
			apptest.Put(t, w.Client, "/api/machines/"+w.machine.ID, w.machine)
			w.exec(`UPDATE documents SET body = REPLACE(body, 'echo to', 'echo for') WHERE kind = 'processsnapshots'`)
			account := apptest.Get[map[string]any](t, w.Client, "/api/accounts/"+w.account)
			account["Password"] = map[string]any{"HasValue": true, "NewValue": hush + "!"}
			w.Must(t, http.MethodPut, "/api/accounts/"+w.account, account, nil)
			w.post("/api/teams", `{"Name":"Testers","SpaceId":"Spaces-1","MemberUserIds":["`+w.robot+`"]}`)
			team := w.post("/api/teams", `{"Name":"Managers","MemberUserIds":["`+w.robot+`"]}`)
			w.post("/api/scopeduserroles", `{"TeamId":"`+team+`","UserRoleId":"userroles-projectviewer","SpaceId":"Spaces-1"}`)
			for _, move := range [][2]string{{w.logs[0], "aside"}, {w.logs[1], w.logs[0]}, {"aside", w.logs[1]}} {
				w.exec(`UPDATE task_log_segment SET task = ? WHERE task = ?`, move[1], move[0])
			}
			w.exec(`UPDATE artifact SET sha256 = (SELECT max(s.sha256) FROM task_log_segment s) WHERE id = 'Artifacts-1'`)

			after := w.facts()
			c, err := verify.Diff(before, after)
			if err != nil {
				t.Fatal(err)
			}
			said := &bytes.Buffer{}
			if err := c.WriteText(said); err != nil || c.Same() {
				t.Fatalf("%v, same %t:\n%s", err, c.Same(), said)
			}
			for _, want := range []string{
				"targets: web-1\n    old: tags web;", "Say / Say: script\n", "Cloud.Password",
				"robot (active true): ProjectView in Spaces-1\n    old: (nothing)\n    new: without limit",
				"logs: " + w.logs[0] + "\n", "logs: " + w.logs[1] + "\n", "read: GET /api/tasks/" + w.logs[0] + "/raw", "artifacts: Artifacts-1 report.txt",
			} {
				if !strings.Contains(said.String(), want) {
					t.Errorf("the report does not name %q:\n%s", want, said)
				}
			}
			if strings.Contains(said.String(), "LastSeen") {
				t.Errorf("when a node was seen counts as a difference:\n%s", said)
			}
			parts := map[string]int{}
			for _, d := range c.Differences {
				if parts[d.Part]++; d.Part == verify.PartPlans && !strings.Contains(d.What, "Projects-1 to Environments-1") {
					t.Errorf("which plan is it? %+v", d)
				}
			}
			// Three deployments, of each the target, the script, and the account's password.
			if parts[verify.PartPlans] != 9 {
				t.Errorf("%d differences of plans:\n%s", parts[verify.PartPlans], said)
			}
			for _, part := range []string{verify.PartSignIn, verify.PartPush, verify.PartPermissions} {
				if parts[part] != 0 {
					t.Errorf("%d differences of %s:\n%s", parts[part], part, said)
				}
			}
			for _, secret := range []string{hush, answered} {
				if strings.Contains(text(t, before)+text(t, after)+text(t, live)+said.String(), `"`+secret) {
					t.Errorf("a document tells %q", secret)
				}
			}
		})
	}
}

// complete wants everything in a document that was there to be looked at, and done.
func complete(t *testing.T, d *verify.Document, logs []string) {
	t.Helper()
	facts := func(part string) (all []string) {
		for name, value := range d.Facts[part] {
			if strings.Contains(value, "cannot be made") {
				t.Errorf("%s: %s: %s", part, name, value)
			}
			if !strings.HasSuffix(name, ": shape") {
				all = append(all, fmt.Sprintf("%s = %s", name, value))
			}
		}
		slices.Sort(all)
		return all
	}
	want := []string{
		"1 make a user = 201", "2 sign in = 200", "3 ask who that is = 200", "3 ask who that is: the user = the one who signed in: true",
		"4 sign in with a wrong password = 400: There was a problem with your request. Invalid username or password.", "5 delete the user = 200",
	}
	if diff := cmp.Diff(want, facts(verify.PartSignIn)); diff != "" {
		t.Errorf("signing in: %s", diff)
	}
	if push := facts(verify.PartPush); len(push) != 13 || slices.ContainsFunc(push, func(f string) bool { return !strings.Contains(f, " = 20") }) {
		t.Errorf("pushing: %q", push)
	}
	if routes := facts(verify.PartRoutes); len(routes) < 30 || slices.ContainsFunc(routes, func(f string) bool { return !strings.HasSuffix(f, " = 200") }) {
		t.Errorf("routes: %q", routes)
	}
	if got := d.Facts[verify.PartPlans]["how many"]; got != "3 of the 3 that are the last 3 of their place" {
		t.Errorf("planned %s", got)
	}
	for _, id := range logs {
		if !strings.Contains(d.Facts[verify.PartLogs][id], " lines ~") {
			t.Errorf("the log of %s: %q", id, facts(verify.PartLogs))
		}
	}
	if got := facts(verify.PartArtifacts); len(got) != 1 || !strings.HasPrefix(got[0], "Artifacts-1 report.txt = 5 bytes ~") {
		t.Errorf("artifacts: %q", got)
	}
	if users := facts(verify.PartUsers); len(users) != 2 || strings.Contains(strings.Join(users, " "), verify.Probe) {
		t.Errorf("users: %q", users)
	}
}

// readOnly computes what can be told of the server that runs, and wants it as it was.
func (w *world) readOnly() *verify.Document {
	w.t.Helper()
	opt := app.Options{Log: dbtest.Log(w.t), Version: "1"}
	if _, err := app.Facts(w.t.Context(), w.cfg, opt, w.request()); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "no test instance in quarantine") {
		w.t.Errorf("a server that people use: %v", err)
	}
	counts := func() (n [4]int64) {
		for i, table := range []string{"events", "documents", "node", "api_key"} {
			n[i] = w.number(`SELECT count(*) FROM ` + table)
		}
		return n
	}
	req, before := w.request(), counts()
	req.ReadOnly = true
	doc, err := app.Facts(w.t.Context(), w.cfg, opt, req)
	if err != nil {
		w.t.Fatal(err)
	}
	if after := counts(); after != before {
		w.t.Errorf("looked at the server and left %v of %v", after, before)
	}
	if doc.Facts[verify.PartPush] != nil || doc.Facts[verify.PartRoutes] != nil || len(doc.Facts[verify.PartPlans]) < 4 || len(doc.Facts[verify.PartLogs]) < 2 {
		w.t.Errorf("read-only: %d facts in %d parts", doc.Count(), len(doc.Facts))
	}
	return doc
}

// twice has two programs work on one test instance, the second one on what the first one
// has left.
func (w *world) twice() {
	w.t.Helper()
	t, opt := w.t, app.Options{Log: dbtest.Log(w.t), Version: "1"}
	b, err := app.OpenBackups(w.cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	copied := config.Defaults()
	copied.Data = filepath.Join(apptest.ShortDir(t), "copy")
	copied.Database, copied.Backups = "sqlite:"+filepath.Join(copied.Data, "tako.db"), filepath.Join(copied.Data, "backups")
	if w.db.Dialect() == db.Postgres {
		copied.Database = dbtest.EmptyURL(t, db.Postgres)
	}
	if _, err := b.Clone(t.Context(), app.CloneRequest{Backup: "latest", Data: copied.Data, Database: copied.Database, KeepSecrets: true}); err != nil {
		t.Fatal(err)
	}
	first, err := app.Facts(t.Context(), copied, opt, w.request())
	if err != nil {
		t.Fatal(err)
	}
	second, err := app.Facts(t.Context(), copied, opt, w.request())
	if err != nil {
		t.Fatal(err)
	}
	c, err := verify.Diff(first, second)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Differences) > 0 || c.Facts < 60 {
		t.Errorf("of %d facts these differ: %+v", c.Facts, c.Differences)
	}
	req := w.request()
	req.Key = req.Key[1:]
	if _, err := app.Facts(t.Context(), copied, opt, req); !fault.Is(err, fault.Invalid) {
		t.Errorf("a short key: %v", err)
	}
}

// document makes one of facts and tables as JSON.
func document(t *testing.T, facts, tables string) *verify.Document {
	t.Helper()
	d := &verify.Document{Format: verify.Format, Key: "k", Version: "1"}
	if err := json.Unmarshal([]byte(facts), &d.Facts); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(tables), &d.Tables); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDifferences compares small documents.
func TestDifferences(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		old, oldTables, new, newTables string
		want                           []verify.Difference
	}{
		"the same": {old: `{"logs":{"a":"1"}}`, new: `{"logs":{"a":"1"}}`},
		"another value, one that is gone, one that is new": {
			old: `{"logs":{"a":"1","b":"2"}}`, new: `{"logs":{"a":"x","c":"3"}}`,
			want: []verify.Difference{{Part: "logs", What: "a", Old: "1", New: "x"}, {Part: "logs", What: "b", Old: "2"}, {Part: "logs", What: "c", New: "3"}},
		},
		"an entry of a table": {
			old: `{"plans":{"p":"@1"}}`, oldTables: `{"1":{"step":"one","last":"same"}}`, new: `{"plans":{"p":"@2"}}`, newTables: `{"2":{"step":"two","last":"same"}}`,
			want: []verify.Difference{{Part: "plans", What: "p: step", Old: "one", New: "two"}},
		},
		"a plan that cannot be made any more": {
			old: `{"plans":{"p":"@1"}}`, oldTables: `{"1":{"step":"one"}}`, new: `{"plans":{"p":"cannot be made: no"}}`,
			want: []verify.Difference{{Part: "plans", What: "p", Old: "@1", New: "cannot be made: no"}},
		},
		"a member that answers did not have, and one that they have lost": {
			old: `{"routes":{"GET /a: shape":"@1"}}`, oldTables: `{"1":{".Old":"text"}}`, new: `{"routes":{"GET /a: shape":"@2"}}`, newTables: `{"2":{".New":"text"}}`,
			want: []verify.Difference{{Part: "routes", What: "GET /a: shape: .New", New: "text", Harmless: true}, {Part: "routes", What: "GET /a: shape: .Old", Old: "text"}},
		},
		"a permission that there was not, and one that there was": {
			old: `{"permissions":{"A":"x"},"users":{"u":"@1"}}`, oldTables: `{"1":{}}`, new: `{"permissions":{"A":"x","B":"y"},"users":{"u":"@2"}}`, newTables: `{"2":{"A in s":"all","B in s":"all"}}`,
			want: []verify.Difference{
				{Part: "permissions", What: "B", New: "y", Harmless: true},
				{Part: "users", What: "u: A in s", New: "all"},
				{Part: "users", What: "u: B in s", New: "all", Harmless: true},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, tables := range []*string{&c.oldTables, &c.newTables} {
				if *tables == "" {
					*tables = `{}`
				}
			}
			got, err := verify.Diff(document(t, c.old, c.oldTables), document(t, c.new, c.newTables))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got.Differences); diff != "" {
				t.Error(diff)
			}
			harmless := 0
			for _, d := range c.want {
				if d.Harmless {
					harmless++
				}
			}
			if got.Same() != (len(c.want) == harmless) {
				t.Errorf("same is %t", got.Same())
			}
		})
	}
	a, b := document(t, `{}`, `{}`), document(t, `{}`, `{}`)
	b.Seed = 2
	if _, err := verify.Diff(a, b); !fault.Is(err, fault.Invalid) {
		t.Errorf("documents of other seeds: %v", err)
	}
	many := map[string]string{}
	for i := range 10_000 {
		many[fmt.Sprint(i)] = "x"
	}
	b = document(t, `{}`, `{}`)
	// What is harmless comes first by its name, and takes nobody's place.
	b.Facts = map[string]map[string]string{verify.PartLogs: many, verify.PartPermissions: many, verify.PartUsers: {"robot": "can do it"}}
	c, err := verify.Diff(a, b)
	if err != nil || c.Count() != 10_001 || c.Harmless() != 10_000 || len(c.Differences) > 1000 {
		t.Errorf("%d differences named, %d counted, %d harmless, %v", len(c.Differences), c.Count(), c.Harmless(), err)
	}
	said := &bytes.Buffer{}
	if err := c.WriteText(said); err != nil || !strings.Contains(said.String(), "20001 differences, 10000 of them harmless.") || strings.Count(said.String(), "more of these") != 2 {
		t.Errorf("%v, the end of the report: %s", err, said.String()[max(0, said.Len()-300):])
	}
	b.Facts = map[string]map[string]string{verify.PartPermissions: many, verify.PartUsers: {"robot": "can do it"}}
	if c, err = verify.Diff(a, b); err != nil || c.Count() != 1 || !slices.ContainsFunc(c.Differences, func(d verify.Difference) bool { return d.What == "robot" }) {
		t.Errorf("behind 10000 harmless ones, of %d others %d are named, %v", c.Count(), len(c.Differences), err)
	}
}

// TestProgramsThatCannot: that nothing can be compared is said of the version that runs
// alone. What the other one cannot do is a failure, and no two tries use the same files.
func TestProgramsThatCannot(t *testing.T) {
	t.Parallel()
	parent := filepath.Join(t.TempDir(), "facts")
	var places []string
	run := func(knows string) verify.Runner {
		return func(_ context.Context, version string, args ...string) ([]byte, error) {
			if version != knows {
				return nil, errors.New("unknown command " + args[0])
			}
			out := args[slices.Index(args, "--out")+1]
			places = append(places, filepath.Dir(out))
			d := &verify.Document{Format: verify.Format, Version: version}
			f, err := os.Create(out)
			if err != nil {
				return nil, err
			}
			return nil, errors.Join(d.Write(f), f.Close())
		}
	}
	if _, err := verify.Programs(t.Context(), run("2"), "1", "2", "b", parent); !fault.Is(err, fault.Unsupported) {
		t.Errorf("the version that runs knows of no facts: %v", err)
	}
	for range 2 {
		if _, err := verify.Programs(t.Context(), run("1"), "1", "2", "b", parent); err == nil || fault.Is(err, fault.Unsupported) {
			t.Errorf("the new version knows of no facts: %v", err)
		}
	}
	if len(places) != 2 || places[0] == places[1] {
		t.Errorf("the tries were in %q", places)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
