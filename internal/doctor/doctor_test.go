package doctor_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

// patient is what a server has left that was stopped.
type patient struct {
	t     *testing.T
	cfg   config.Config
	db    *db.DB
	blobs *blob.Dir
	pkg   string // the hash of the package
}

// examine runs the doctor.
func (p *patient) examine(what app.DoctorOptions) *doctor.Report {
	p.t.Helper()
	r, err := app.Doctor(p.t.Context(), p.cfg, app.Options{Log: dbtest.Log(p.t), Version: "1"}, what)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *patient) exec(statement string, args ...any) {
	p.t.Helper()
	if err := p.db.WriteEngine(p.t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(p.t.Context(), statement, args...)
		return err
	}); err != nil {
		p.t.Fatalf("%s: %v", statement, err)
	}
}

func (p *patient) text(query string, args ...any) (text string) {
	p.t.Helper()
	if err := p.db.Read(p.t.Context(), func(tx *db.Tx) error { return tx.QueryRow(p.t.Context(), query, args...).Scan(&text) }); err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
	return text
}

func (p *patient) task(id string, seq int, completed int64) {
	p.exec(`INSERT INTO task (id, seq, space_id, name, description, arguments, state, runnable, waiting, priority, queue_time, expiry, start_time, completed_time, updated_time,
		error, has_warnings, tag, project_id, environment_id, tenant_id, runbook_id, user_id, node, owner, db_incarnation, epoch, resumes, cancel_at, plan, log_lines, log_bytes)
		VALUES (?, ?, '', 'Backup', '', '{}', 'Executing', 0, 0, 0, 1, 0, 1, ?, 1, '', 0, '', '', '', '', '', '', '', '', '', 1, 0, 0, 'null', 0, 0)`, id, seq, completed)
}

func (p *patient) blobPath(hash string) string {
	return filepath.Join(p.cfg.Data, "blobs", hash[:2], hash)
}

// write changes a file.
func (p *patient) write(path string, content []byte) {
	p.t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *patient) read(path string) []byte {
	p.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return content
}

// admit runs a server, has it make things, looks at it while it runs, and stops it.
func admit(t *testing.T, dialect db.Dialect) *patient {
	t.Helper()
	cfg := config.Defaults()
	cfg.Data = filepath.Join(apptest.ShortDir(t), "data")
	cfg.Backups = filepath.Join(cfg.Data, "backups")
	cfg.Listen, cfg.Node, cfg.BuiltinWorker = "127.0.0.1:0", "test", false
	cfg.AdminUsername, cfg.AdminAPIKey = "admin", secret.Text(apptest.AdminKey)
	cfg.Database = "sqlite:" + filepath.Join(cfg.Data, "tako.db")
	if dialect == db.Postgres {
		cfg.Database = dbtest.EmptyURL(t, dialect)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	a, err := app.New(ctx, cfg, app.Options{Log: dbtest.Log(t), Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	c := &apptest.Client{URL: a.URL(), Key: apptest.AdminKey}
	apptest.Post(t, c, "/api/accounts", map[string]any{
		"Name": "Web", "AccountType": "UsernamePassword", "Username": "u", "Password": map[string]any{"HasValue": true, "NewValue": "tell nobody"},
	})
	apptest.Post(t, c, "/api/projects", octopus.Project{Name: "Web", ProjectGroupID: "ProjectGroups-1", LifecycleID: "Lifecycles-1"})
	apptest.Post(t, c, "/api/releases", octopus.Release{ProjectID: "Projects-1", Version: "1.0"})
	if r := c.Upload(t, "/api/packages/raw", "Acme.Web.1.0.0.zip", bytes.Repeat([]byte("content"), 1000)); r.Status != http.StatusCreated {
		t.Fatalf("push: %d %s", r.Status, r.Body)
	}
	p := &patient{t: t, cfg: cfg, db: dbtest.OpenURL(t, cfg.Database)}
	p.clean("while the server runs")
	asTask(t, c, p)
	stop()
	if err := errors.Join(<-ended, a.Close()); err != nil {
		t.Fatal(err)
	}
	if p.blobs, err = blob.OpenDir(filepath.Join(cfg.Data, "blobs")); err != nil {
		t.Fatal(err)
	}
	p.pkg = p.text(`SELECT sha256 FROM package`)
	p.clean("stopped")
	return p
}

// clean wants nothing but notices, of a full examination.
func (p *patient) clean(when string) {
	p.t.Helper()
	if r := p.examine(app.DoctorOptions{Full: true}); !r.Clean() {
		p.t.Fatalf("%s: %+v", when, r.Findings)
	}
}

// asTask has the server examine itself.
func asTask(t *testing.T, c *apptest.Client, p *patient) {
	t.Helper()
	run := func() octopus.Task {
		task := apptest.Post(t, c, "/api/tasks", octopus.Task{Name: octopus.TaskSystemIntegrityCheck})
		for deadline := time.Now().Add(2 * time.Minute); !task.IsCompleted; task = apptest.Get[octopus.Task](t, c, "/api/tasks/"+task.ID) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is %s", task.ID, task.State)
			}
		}
		return task
	}
	if task := run(); task.State != octopus.TaskSuccess || task.HasWarningsOrErrors {
		t.Errorf("the task ended as %s: %s", task.State, task.ErrorMessage)
	}
	p.exec(`UPDATE documents SET name = 'other' WHERE kind = 'projects'`)
	task := run()
	log := string(c.Must(t, http.MethodGet, "/api/tasks/"+task.ID+"/raw", nil, nil).Body)
	if task.State != octopus.TaskFailed || !strings.Contains(log, "document-index projects Projects-1") {
		t.Errorf("with damage the task ended as %s:\n%s", task.State, log)
	}
	p.exec(`UPDATE documents SET name = 'web' WHERE kind = 'projects'`)
}

// damage is one way to harm a patient.
type damage struct {
	name string
	// round has the damages together that are not in each other's way.
	round       int
	do          func()
	code, where string
	// undo heals what the doctor cannot; nil wants the doctor to.
	undo func()
}

// stays is the undo of a damage that nothing follows.
func stays() {}

func damages(p *patient, dialect db.Dialect) []damage {
	exec := func(statement string, args ...any) func() { return func() { p.exec(statement, args...) } }
	both := func(all ...func()) func() {
		return func() {
			for _, one := range all {
				one()
			}
		}
	}
	key := filepath.Join(p.cfg.Data, "master.key")
	content, master := p.read(p.blobPath(p.pkg)), p.read(key)
	account := p.text(`SELECT body FROM documents WHERE kind = 'accounts'`)
	flipped := bytes.Clone(content)
	flipped[len(flipped)/2] ^= 1
	all := []damage{
		{"a dropped index", 0, exec(`DROP INDEX documents_by_slug`), "index-missing", "index documents_by_slug", nil},
		{"an index of somebody's own", 0, exec(`CREATE INDEX mine ON task (node)`), "index-extra", "index mine", exec(`DROP INDEX mine`)},
		{"a table of somebody's own", 0, exec(`CREATE TABLE mine_too (a TEXT)`), "table-extra", "table mine_too", exec(`DROP TABLE mine_too`)},
		{"a column of somebody's own", 0, exec(`ALTER TABLE task ADD COLUMN mine TEXT`), "column-extra", "column task.mine", exec(`ALTER TABLE task DROP COLUMN mine`)},
		{"a lowered counter", 0, exec(`UPDATE counter SET next = 1 WHERE kind = 'Projects'`), "counter-behind", "counter Projects", nil},
		{"no counter", 0, exec(`DELETE FROM counter WHERE kind = 'Releases'`), "counter-behind", "counter Releases", nil},
		{"a lost row of the index", 0, exec(`DELETE FROM document_index WHERE kind = 'projects'`), "document-index", "projects Projects-1", nil},
		{"a lost claim of a name", 0, exec(`DELETE FROM document_unique WHERE kind = 'accounts'`), "document-index", "accounts Accounts-1", nil},
		{"a lost reference", 1, exec(`DELETE FROM document_refs WHERE from_kind = 'projects'`), "document-index", "projects Projects-1", nil},
		{"a row too many", 2, exec(`INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('projects', 'LifecycleId', 'Spaces-1', 'lifecycles-9', 'Projects-1')`), "document-index", "projects Projects-1", nil},
		{"another name", 3, exec(`UPDATE documents SET name = 'other', slug = 'other' WHERE kind = 'projects'`), "document-index", "projects Projects-1", nil},
		{"a row of nobody", 0, exec(`INSERT INTO document_unique (kind, field, scope, value, id) VALUES ('projects', 'Name', 'Spaces-1', 'gone', 'Projects-9')`), "document-stray", "document_unique", nil},
		{"a body that is none", 1, exec(`UPDATE documents SET body = '{' WHERE kind = 'accounts'`), "document-unreadable", "accounts Accounts-1", exec(`UPDATE documents SET body = ? WHERE kind = 'accounts'`, account)},
		{"a body that does not fit", 3, exec(`UPDATE documents SET body = '{"Name":["x"]}' WHERE kind = 'accounts'`), "document-unreadable", "accounts Accounts-1", exec(`UPDATE documents SET body = ? WHERE kind = 'accounts'`, account)},
		{"a reference to what is gone", 4, exec(`UPDATE documents SET id = 'x' WHERE kind = 'projectgroups'`), "reference-dangling", "projects Projects-1", stays},
		{"a lost release", 0, exec(`UPDATE release SET project_id = 'Projects-9'`), "row-dangling", "release Releases-1", exec(`UPDATE release SET project_id = 'Projects-1'`)},
		{"a key of nobody", 0, exec(`UPDATE api_key SET user_id = 'Users-9'`), "row-dangling", "api_key apikeys-1", exec(`UPDATE api_key SET user_id = 'Users-1'`)},
		{
			"a place whose deployment is gone", 0, exec(`INSERT INTO latest_deployment (project_id, environment_id, tenant_id, deployment_id, created, seq) VALUES ('Projects-1', 'E', '', 'Deployments-9', 1, 9)`),
			"row-dangling", "latest_deployment Projects-1 E", nil,
		},
		{
			"a gap in a journal", 0,
			both(func() { p.task("ServerTasks-20", 20, 1) }, exec(`INSERT INTO journal (task, seq, epoch, fact) VALUES ('ServerTasks-20', 1, 1, '{}'), ('ServerTasks-20', 3, 1, '{}')`)),
			"journal-gap", "ServerTasks-20", both(exec(`DELETE FROM journal WHERE task = 'ServerTasks-20'`), exec(`DELETE FROM task WHERE id = 'ServerTasks-20'`)),
		},
		{"a journal of no task", 0, exec(`INSERT INTO journal (task, seq, epoch, fact) VALUES ('ServerTasks-30', 1, 1, '{}')`), "row-dangling", "journal ServerTasks-30", exec(`DELETE FROM journal WHERE task = 'ServerTasks-30'`)},
		{"a leaked slot", 0, exec(`INSERT INTO slot (task, node) VALUES ('ServerTasks-1', 'test')`), "slot-leaked", "slot ServerTasks-1", nil},
		{"a leaked tag", 0, exec(`INSERT INTO tag_holder (tag, task) VALUES ('t', 'ServerTasks-1')`), "tag-leaked", "tag_holder ServerTasks-1", nil},
		{"a leaked lock", 0, exec(`INSERT INTO machine_lock (machine, task, unit, shared) VALUES ('Machines-1', 'ServerTasks-1', 'u', 0)`), "lock-leaked", "machine_lock ServerTasks-1 Machines-1", nil},
		{
			"a dead owner", 0, both(func() { p.task("ServerTasks-21", 21, 0) }, exec(`UPDATE task SET owner = 'nobody' WHERE id = 'ServerTasks-21'`)),
			"lease-dead", "task ServerTasks-21", exec(`DELETE FROM task WHERE id = 'ServerTasks-21'`),
		},
		{"lost lines", 0, exec(`UPDATE task SET log_lines = log_lines + 5 WHERE id = 'ServerTasks-1'`), "log-gap", "log of ServerTasks-1", exec(`UPDATE task SET log_lines = log_lines - 5 WHERE id = 'ServerTasks-1'`)},
		{"a lost blob", 0, func() { _ = os.Remove(p.blobPath(p.pkg)) }, "blob-missing", "package packages-Acme.Web.1.0.0", func() { p.write(p.blobPath(p.pkg), content) }},
		{"a blob cut short", 1, func() { p.write(p.blobPath(p.pkg), content[:10]) }, "blob-size", "package packages-Acme.Web.1.0.0", func() { p.write(p.blobPath(p.pkg), content) }},
		{"a flipped bit of a blob", 2, func() { p.write(p.blobPath(p.pkg), flipped) }, "blob-damaged", p.pkg, func() { p.write(p.blobPath(p.pkg), content) }},
		{"a blob that should be gone", 0, p.orphan, "blob-orphan", "blobs", nil},
		{
			"a changed sealed value", 0, exec(`UPDATE documents SET body = ? WHERE kind = 'accounts'`, spoil(p.t, account)), "secret-closed", "account Accounts-1 (Web)",
			exec(`UPDATE documents SET body = ? WHERE kind = 'accounts'`, account),
		},
		{"another master key", 1, func() { p.write(key, []byte(secret.NewMasterKey().Reveal())) }, "master-key", "master key", func() { p.write(key, master) }},
		{"no master key", 2, func() { _ = os.Remove(key) }, "master-key", "master key", func() { p.write(key, master) }},
		{"a key that all may read", 3, func() { _ = os.Chmod(key, 0o644) }, "permissions", "master.key", nil},
		{"an open directory", 0, func() { _ = os.Chmod(p.cfg.Data, 0o755) }, "permissions", p.cfg.Data, nil},
		{"half a restore", 0, func() {
			p.write(filepath.Join(p.cfg.Data, "restore.pending"), []byte(`{"Backup":"20261127T141502Z-k3f9"}`))
		}, "restore-open", p.cfg.Data, func() { _ = os.Remove(filepath.Join(p.cfg.Data, "restore.pending")) }},
		{"a clock that was set back", 0, exec(`UPDATE events SET occurred = ? WHERE id = 1`, db.Micros(time.Now().Add(time.Hour))), "clock-behind", "events", exec(`UPDATE events SET occurred = 1 WHERE id = 1`)},
		{"another fingerprint", 1, exec(`UPDATE tako_meta SET fingerprint = 'x'`), "fingerprint", "tako_meta", nil},
		{"a migration from another file", 2, exec(`UPDATE tako_migration SET sha256 = 'x' || sha256 WHERE id = '0001_core'`), "migration-changed", "0001_core", exec(`UPDATE tako_migration SET sha256 = substr(sha256, 2) WHERE id = '0001_core'`)},
		{"a newer schema", 3, exec(`UPDATE tako_meta SET schema_level = schema_level + 1`), "schema-ahead", "schema", exec(`UPDATE tako_meta SET schema_level = schema_level - 1`)},
	}
	if dialect == db.SQLite {
		return append(all,
			damage{"a lowered number", 0, exec(`UPDATE sqlite_sequence SET seq = 0 WHERE name = 'events'`), "counter-behind", "events.id", nil},
			damage{"a trigger", 0, exec(`CREATE TRIGGER mine BEFORE DELETE ON package BEGIN SELECT RAISE(ABORT, 'no'); END`), "trigger-extra", "trigger package.mine", exec(`DROP TRIGGER mine`)},
			damage{"a changed column", 4, both(exec(`ALTER TABLE package DROP COLUMN sha1`), exec(`ALTER TABLE package ADD COLUMN sha1 TEXT NOT NULL DEFAULT ''`)), "column-changed", "column package.sha1", stays},
			damage{"a lost column", 4, exec(`ALTER TABLE package DROP COLUMN published_by`), "column-missing", "column package.published_by", stays},
		)
	}
	return append(all,
		damage{"a lowered number", 0, func() { p.text(`SELECT CAST(setval('events_id_seq', 1) AS TEXT)`) }, "counter-behind", "events.id", nil},
		damage{"an index left half-built", 0, exec(`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'documents_by_name'::regclass`), "index-invalid", "index documents_by_name", nil},
		damage{"a dropped key", 0, exec(`ALTER TABLE user_search DROP CONSTRAINT user_search_pkey`), "constraint-missing", "constraint user_search.user_search_pkey", exec(`ALTER TABLE user_search ADD PRIMARY KEY (user_id)`)},
		damage{"a table that a crash empties", 0, exec(`ALTER TABLE user_search SET UNLOGGED`), "table-changed", "table user_search", exec(`ALTER TABLE user_search SET LOGGED`)},
		damage{"another type", 0, exec(`ALTER TABLE package ALTER COLUMN sha1 TYPE varchar(40)`), "column-changed", "column package.sha1", exec(`ALTER TABLE package ALTER COLUMN sha1 TYPE text COLLATE "C"`)},
		damage{"a lost table", 0, exec(`ALTER TABLE dashboard_configuration RENAME TO x`), "table-missing", "table dashboard_configuration", exec(`ALTER TABLE x RENAME TO dashboard_configuration`)},
	)
}

// orphan puts a blob that nobody names, and that was noted long ago.
func (p *patient) orphan() {
	info, err := p.blobs.Put(p.t.Context(), strings.NewReader("nobody's"), 100)
	if err != nil {
		p.t.Fatal(err)
	}
	old := time.Now().Add(-30 * 24 * time.Hour)
	if err := os.Chtimes(p.blobPath(string(info.Hash)), old, old); err != nil {
		p.t.Fatal(err)
	}
	p.exec(`INSERT INTO blob_orphan (sha256, since) VALUES (?, ?)`, string(info.Hash), db.Micros(old))
}

// spoil changes the ciphertext of an account's password.
func spoil(t *testing.T, body string) string {
	t.Helper()
	_, rest, _ := strings.Cut(body, `"NewValue":"`)
	sealed, _, ok := strings.Cut(rest, `"`)
	if !ok || sealed == "" {
		t.Fatalf("no sealed value in %s", body)
	}
	n := len(sealed) - 10
	other := sealed[:n] + string('A'+(sealed[n]-'A'+1)%20) + sealed[n+1:]
	return strings.Replace(body, sealed, other, 1)
}

// TestDamage harms what a server left in every way that the doctor knows, in a few
// rounds: each is found under its name, and repaired where that can be.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := admit(t, dialect)
			for round := range 5 {
				var now []damage
				for _, d := range damages(p, dialect) {
					if d.round == round {
						now = append(now, d)
						d.do()
					}
				}
				r := p.examine(app.DoctorOptions{Full: true})
				for _, d := range now {
					switch f := found(r, d); {
					case f == nil:
						t.Errorf("%s: no finding %s of %s in %v", d.name, d.code, d.where, r.Findings)
					case f.What == "" || f.Remedy == "" || f.Fixable != (d.undo == nil):
						t.Errorf("%s: %+v", d.name, f)
					}
				}
				if round == 4 {
					continue // that stays
				}
				r = p.examine(app.DoctorOptions{Full: true, Fix: true})
				for _, d := range now {
					if f := found(r, d); d.undo == nil && (f == nil || f.Fixed == "") {
						t.Errorf("%s: the repair gives %+v", d.name, f)
					} else if d.undo != nil {
						if f == nil || f.Fixed != "" {
							t.Errorf("%s: a repair of what cannot be repaired: %+v", d.name, f)
						}
						d.undo()
					}
				}
				if r := p.examine(app.DoctorOptions{Full: true}); !r.Clean() {
					t.Fatalf("after round %d: %+v", round, r.Findings)
				}
			}
		})
	}
}

func found(r *doctor.Report, d damage) *doctor.Finding {
	for i, f := range r.Findings {
		if f.Code == d.code && strings.Contains(f.Where, d.where) {
			return &r.Findings[i]
		}
	}
	return nil
}
