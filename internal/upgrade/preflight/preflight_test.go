package preflight_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/upgrade/preflight"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
	"github.com/takodeploy/tako/octopus"
)

const (
	from = "2026.4.0"
	to   = "2026.5.0"
)

// world is what a server has left that was set up and stopped, and a good input for it.
type world struct {
	t     *testing.T
	db    *db.DB
	store *docstore.Store
	in    preflight.Input
}

func newWorld(t *testing.T, dialect db.Dialect) *world {
	t.Helper()
	root := apptest.ShortDir(t)
	cfg := config.Defaults()
	cfg.Data = filepath.Join(root, "data")
	cfg.Listen, cfg.AgentListen, cfg.BuiltinWorker = "127.0.0.1:0", "", false
	cfg.AdminUsername, cfg.AdminAPIKey = "admin", secret.Text(apptest.AdminKey)
	cfg.Database = "sqlite:" + filepath.Join(cfg.Data, "tako.db")
	if dialect == db.Postgres {
		cfg.Database = dbtest.EmptyURL(t, dialect)
	}
	a, err := app.New(t.Context(), cfg, app.Options{Log: dbtest.Log(t), Version: from, Exe: os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(a.Handler())
	c := &apptest.Client{URL: server.URL, Key: apptest.AdminKey}
	env := apptest.Post(t, c, "/api/environments", octopus.Environment{Name: "Dev"})
	for i, name := range []string{"tako-old", "tako-new", "tentacle", "unknown"} {
		apptest.Post(t, c, "/api/machines", octopus.Machine{
			EnvironmentIDs: octopus.List[string]{env.ID}, Roles: octopus.List[string]{"web"},
			MachineBase: octopus.MachineBase{Name: name, Endpoint: octopus.Endpoint{
				CommunicationStyle: octopus.StyleListening, URI: fmt.Sprintf("https://127.0.0.1:%d/", i+1), Thumbprint: fmt.Sprintf("%040d", i+1),
			}},
		})
	}
	server.Close()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, db: dbtest.OpenURL(t, cfg.Database), store: docstore.New(kinds, nil)}
	w.write(func(tx *db.Tx) error {
		_, err := w.store.Amend(t.Context(), tx, "machines", func(tree resource.Tree) bool {
			v := map[string]string{"tako-old": "2026.1.0", "tako-new": from, "tentacle": "6.3.1"}[resource.Text(tree, "Name")]
			endpoint, _ := tree["Endpoint"].(resource.Tree)
			endpoint["TentacleVersionDetails"] = map[string]any{"Version": v}
			return true
		})
		return err
	})
	w.in = w.input(root, &cfg)
	return w
}

// input is one with which no check fails.
func (w *world) input(root string, cfg *config.Config) preflight.Input {
	w.t.Helper()
	for _, dir := range []string{"versions/" + from, "versions/" + to, "upgrade"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join("versions", from), filepath.Join(root, "current")); err != nil {
		w.t.Fatal(err)
	}
	return preflight.Input{
		From: from, To: to, Platform: stage.Platform(), Feed: w.feed(),
		Program: w.program(filepath.Join(root, "versions", to, "tako"), to),
		DB:      w.db, Store: w.store,
		Keys: func(ctx context.Context) (*secret.Box, error) {
			return secret.Open(ctx, w.db, secret.Source{Dir: cfg.Data})
		},
		Data: cfg.Data, Backups: filepath.Join(cfg.Data, "backups"), Root: root, Proven: time.Now(),
		Supervisor: &preflight.Supervisor{Format: 1, Current: from}, Format: 1, Log: dbtest.Log(w.t),
	}
}

// program writes one that says which version it is.
func (w *world) program(path, version string) string {
	w.t.Helper()
	said, err := json.Marshal(map[string]string{"Version": version, "Platform": stage.Platform()})
	if err == nil {
		err = os.WriteFile(path, []byte("#!/bin/sh\necho '"+string(said)+"'\n"), 0o755) //nolint:gosec // a program
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

// feed signs one and verifies it, as a server does.
func (w *world) feed(change ...func(*releasefeed.Feed)) *releasefeed.Verified {
	w.t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	public, _ := key.Public().(ed25519.PublicKey)
	root, err := releasefeed.NewRoot(1, 1, public)
	if err != nil {
		w.t.Fatal(err)
	}
	release := func(version string) releasefeed.Release {
		return releasefeed.Release{
			Version: version, Date: time.Now(), Level: db.BinaryLevels().Level, MinReaderLevel: 1, UpgradeFromMin: "2026.1.0", Rollback: releasefeed.RollbackFree,
			Artifacts: map[string]releasefeed.Artifact{stage.Platform(): {URL: "tako", Size: 1 << 20, SHA256: strings.Repeat("ab", 32)}},
			Database:  releasefeed.Database{SQLite: "3.40", PostgreSQL: "13"},
		}
	}
	f := releasefeed.Feed{
		Channel: "stable", Number: 1, Issued: time.Now().Add(-time.Hour).UTC(), Expires: time.Now().Add(time.Hour).UTC(),
		Releases: []releasefeed.Release{release(to), release("2026.4.5"), release(from)},
	}
	for _, c := range change {
		c(&f)
	}
	if f, err = releasefeed.NewFeed(f); err != nil {
		w.t.Fatal(err)
	}
	signed, err := releasefeed.Sign(f, key)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := releasefeed.Verify(signed, root, "stable", releasefeed.Seen{}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) write(fn func(tx *db.Tx) error) {
	w.t.Helper()
	if err := w.db.WriteEngine(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	w.write(func(tx *db.Tx) error {
		_, err := tx.Exec(w.t.Context(), statement, args...)
		return err
	})
}

func (w *world) task(id string, seq int, name octopus.TaskName) {
	w.t.Helper()
	w.exec(`INSERT INTO task (id, seq, space_id, name, description, arguments, state, runnable, waiting, priority, queue_time, expiry, start_time, completed_time, updated_time,
		error, has_warnings, tag, project_id, environment_id, tenant_id, runbook_id, user_id, node, owner, db_incarnation, epoch, resumes, cancel_at, plan, log_lines, log_bytes)
		VALUES (?, ?, '', ?, '', '{}', 'Executing', 0, 0, 0, 1, 0, 1, 0, 1, '', 0, '', '', '', '', '', '', '', '', '', 1, 0, 0, 'null', 0, 0)`, id, seq, string(name))
}

// run makes a check, or all of them if in says so, and wants the one with the name to come
// to a status, having seen something, and every failing or warning one to say what to do.
func (w *world) run(in preflight.Input, name string, want preflight.Status, seen string) *preflight.Report {
	w.t.Helper()
	if in.Only == nil {
		in.Only = []string{name}
	}
	r, err := preflight.Run(w.t.Context(), in)
	if err != nil {
		w.t.Fatal(err)
	}
	found, status := "", preflight.OK
	for _, c := range r.Checks {
		if c.Seen == "" || (c.Remedy == "") != (c.Status == preflight.OK) {
			w.t.Errorf("not seen, or no remedy: %+v", c)
		}
		if c.Name == name {
			found += c.Seen + "\n"
			if c.Status == preflight.Fail || c.Status == preflight.Warn && status == preflight.OK {
				status = c.Status
			}
		}
	}
	if status != want || !strings.Contains(found, seen) {
		w.t.Errorf("%s is %s and should be %s, with %q: %s", name, status, want, seen, found)
	}
	if r.Passed() != (r.Err() == nil) || r.Err() != nil && !fault.Is(r.Err(), fault.Conflict) {
		w.t.Errorf("passed %t, and %v", r.Passed(), r.Err())
	}
	return r
}

// TestChecks has each check pass and fail, on real databases, files and disks.
func TestChecks(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, dialect)
			w.run(w.in, "recovery-kit", preflight.Fail, "Nobody has confirmed")
			w.confirm()
			all := w.in
			all.Only = []string{}
			r := w.run(all, "recovery-kit", preflight.OK, "was confirmed")
			if n := len(r.Of(preflight.OK)); n != len(r.Checks) || n < 18 {
				t.Fatalf("of a server that is well: %+v", r.Checks)
			}
			w.releases()
			w.host()
			w.server()
			w.database()
			if r := w.run(all, "schema", preflight.OK, "as its migrations have left it"); !r.Passed() {
				t.Errorf("when all was undone: %v", r.Err())
			}
			ctx, stop := context.WithCancel(t.Context())
			stop()
			if _, err := preflight.Run(ctx, w.in); !errors.Is(err, context.Canceled) {
				t.Errorf("told to stop: %v", err)
			}
		})
	}
}

func (w *world) confirm() {
	w.t.Helper()
	box, err := w.in.Keys(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := box.RevealRecovery(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	text := key.Reveal()
	if err := box.ConfirmRecovery(w.t.Context(), text[len(text)-secret.ConfirmLength:]); err != nil {
		w.t.Fatal(err)
	}
}

// releases tries what the feed, the program and the supervisor can say.
func (w *world) releases() {
	w.t.Helper()
	of := func(version string, change func(*releasefeed.Release)) func(*releasefeed.Feed) {
		return func(f *releasefeed.Feed) {
			for i := range f.Releases {
				if f.Releases[i].Version == version {
					change(&f.Releases[i])
				}
			}
		}
	}
	for _, c := range []struct {
		name   string
		want   preflight.Status
		seen   string
		change func(in *preflight.Input)
	}{
		{"feed", preflight.Fail, "wrong signature", func(in *preflight.Input) { in.Feed, in.FeedError = nil, errors.New("wrong signature") }},
		{"path", preflight.Fail, "Without a feed", func(in *preflight.Input) { in.Feed = nil }},
		{"feed", preflight.Warn, "has passed", func(in *preflight.Input) { in.Feed.Expired = true }},
		{"path", preflight.Fail, "no version", func(in *preflight.Input) { in.To = "2027.1.0" }},
		{"path", preflight.Fail, "from version 2026.4.5 on", func(in *preflight.Input) {
			in.Feed = w.feed(of(to, func(r *releasefeed.Release) { r.UpgradeFromMin = "2026.4.5" }))
		}},
		{"path", preflight.Fail, "Version 2026.4.5 must be visited", func(in *preflight.Input) {
			in.Feed = w.feed(of("2026.4.5", func(r *releasefeed.Release) { r.RequiredStop = true }))
		}},
		{"path", preflight.Fail, "revoked: loses data", func(in *preflight.Input) {
			in.Feed = w.feed(of(to, func(r *releasefeed.Release) { r.Revoked = "loses data" }))
		}},
		{"path", preflight.Fail, "knows schema level 0, and the data of this database needs level", func(in *preflight.Input) {
			in.Feed = w.feed()
			in.Feed.Releases[0].Level = 0 // no feed says so, nor is there a level before the first
		}},
		// Of a newer version that was left again before it was finalized.
		{"path", preflight.OK, "going back loses nothing", func(*preflight.Input) { w.exec(`UPDATE tako_meta SET schema_level = schema_level + 3`) }},
		{"path", preflight.Warn, "restore the backup", func(in *preflight.Input) {
			in.Feed = w.feed(of(to, func(r *releasefeed.Release) { r.Rollback = releasefeed.RollbackRestore }))
		}},
		{"path", preflight.Warn, "was tried here and failed", func(in *preflight.Input) { in.Bad = []string{to} }},
		{"program", preflight.Fail, "says that it is version", func(in *preflight.Input) {
			in.Program = w.program(filepath.Join(w.t.TempDir(), "tako"), "2026.9.9")
		}},
		{"program", preflight.Fail, "does not run here", func(in *preflight.Input) { in.Program = filepath.Join(w.t.TempDir(), "none") }},
		{"program", preflight.OK, "not fetched yet", func(in *preflight.Input) { in.Program = "" }},
		{"program", preflight.Fail, "not there for plan9/mips", func(in *preflight.Input) { in.Program, in.Platform = "", "plan9/mips" }},
		{"supervisor", preflight.OK, "There is none", func(in *preflight.Input) { in.Supervisor = nil }},
		{"supervisor", preflight.Fail, "no socket", func(in *preflight.Input) { in.Supervisor.Error = errors.New("no socket") }},
		{"supervisor", preflight.Fail, "version 2 is needed (its program is version 2026.1.0)", func(in *preflight.Input) { in.Format, in.Supervisor.Version = 2, "2026.1.0" }},
		{"supervisor", preflight.Fail, "Version 2026.3.9 serves", func(in *preflight.Input) { in.Supervisor.Current = "2026.3.9" }},
		{"supervisor", preflight.Warn, "1 former servers", func(in *preflight.Input) { in.Supervisor.Ducks = 1 }},
		{"database-version", preflight.Fail, "works with 99 or later", func(in *preflight.Input) {
			in.Feed = w.feed(of(to, func(r *releasefeed.Release) { r.Database = releasefeed.Database{SQLite: "99", PostgreSQL: "99"} }))
		}},
		{"database-version", preflight.OK, "works with any", func(in *preflight.Input) {
			in.Feed = w.feed(of(to, func(r *releasefeed.Release) { r.Database = releasefeed.Database{} }))
		}},
	} {
		in := w.in
		feed, super := *in.Feed, *in.Supervisor
		in.Feed, in.Supervisor = &feed, &super
		c.change(&in)
		w.run(in, c.name, c.want, c.seen)
		w.exec(`UPDATE tako_meta SET schema_level = ?, active_level = ?`, db.BinaryLevels().Level, db.BinaryLevels().Level)
	}
}

// host tries disks, files and permissions.
func (w *world) host() {
	w.t.Helper()
	in := w.in
	in.Data = disktest.New(w.t, "size=64k")
	w.run(in, "disk", preflight.Fail, in.Data+" has 64.0 KiB free")
	w.run(in, "files", preflight.OK, "")
	in = w.in
	in.Program, in.Root = "", disktest.New(w.t, "size=512k") // the program has 1 MiB
	w.run(in, "disk", preflight.Fail, "for the program")
	in = w.in
	in.Backups = filepath.Join(disktest.New(w.t, "size=64k"), "not", "yet")
	w.run(in, "disk", preflight.Fail, "for the backup")
	in = w.in
	in.Data = disktest.New(w.t, "size=300m,nr_inodes=100")
	w.run(in, "files", preflight.Fail, "files only")
	w.run(in, "disk", preflight.Fail, "for a copy to try it on, the reserve for a full disk")
	if err := disktest.Resize(in.Data, "size=380m"); err != nil {
		w.t.Fatal(err)
	}
	w.run(in, "disk", preflight.OK, in.Data+" has 380.0 MiB free")
	f, err := os.OpenFile(reserve.Path(in.Data), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, reserve.Size), f.Close())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.run(in, "disk", preflight.OK, in.Data+" has 316.0 MiB free")
	shard := filepath.Join(in.Data, "blobs", "ab")
	if err := os.MkdirAll(shard, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shard, "package"), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(shard, "package"), 1<<30); err != nil { // which takes no space
		w.t.Fatal(err)
	}
	w.run(in, "disk", preflight.Fail, "and 1.3 GiB are needed for a copy to try it on")
	in = w.in
	in.Data = w.t.TempDir()
	disktest.Mount(w.t, in.Data, unix.MS_RDONLY, "size=256m")
	w.run(in, "writable", preflight.Fail, in.Data+" cannot be written to")

	current := filepath.Join(w.in.Root, "current")
	link := func(target string) {
		w.t.Helper()
		err := os.Remove(current)
		if err == nil && target != "" {
			err = os.Symlink(target, current)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	link(filepath.Join("versions", to))
	w.run(w.in, "writable", preflight.Fail, "names versions/"+to)
	link("")
	w.run(w.in, "writable", preflight.Fail, "is no link to a version")
	if err := os.Symlink(filepath.Join(w.in.Root, "versions", from), current); err != nil {
		w.t.Fatal(err)
	}
	w.run(w.in, "writable", preflight.OK, w.in.Root)
}

// server tries clocks, keys, backups, tasks and agents.
func (w *world) server() {
	w.t.Helper()
	in := w.in
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		in.Now = func() time.Time { return time.Now().Add(off) }
		w.run(in, "clock", preflight.Warn, "and of the database differ by 1h0m")
	}
	w.run(in, "clock", preflight.Warn, "The last event is")
	in = w.in
	in.Feed = w.feed(func(f *releasefeed.Feed) { f.Issued = time.Now().Add(30 * time.Minute).UTC() })
	w.run(in, "clock", preflight.Warn, "The feed was signed 30m0s in the future")

	in = w.in
	in.Keys = func(ctx context.Context) (*secret.Box, error) {
		return secret.Open(ctx, w.db, secret.Source{Text: secret.Text(secret.NewMasterKey().Reveal())})
	}
	w.run(in, "master-key", preflight.Fail, "master key")
	w.run(in, "recovery-kit", preflight.Fail, "Without the master key")

	in = w.in
	in.Proven = time.Time{}
	w.run(in, "backup", preflight.Warn, "No backup was ever proven")
	in.Proven = time.Now().Add(-8 * 24 * time.Hour)
	w.run(in, "backup", preflight.Warn, "8 days old")

	w.task("ServerTasks-901", 901, octopus.TaskDeploy)
	w.run(w.in, "tasks", preflight.OK, "1 tasks run, and the new version goes on with all of them")
	w.task("ServerTasks-902", 902, octopus.TaskBackup)
	r := w.run(w.in, "tasks", preflight.Warn, "2 tasks run, and 1 of them would begin anew in the new version: ServerTasks-902 (Backup)")
	if !r.Passed() {
		w.t.Errorf("tasks that begin anew keep the upgrade from beginning: %v", r.Err())
	}
	w.exec(`DELETE FROM task WHERE seq > 901`)
	for i, contract := range []string{"v1", "v1", "v2"} { // of which the second one has answered
		w.exec(`INSERT INTO ticket (ticket, task, unit, agent, state, not_before, place, contract, answered) VALUES (?, 'ServerTasks-901', ?, '', 'open', 0, 'old-1', ?, ?)`, fmt.Sprint(i), fmt.Sprint(i), contract, i%2)
	}
	w.run(w.in, "tasks", preflight.Warn, "1 scripts are being started by agents that remember nothing: ServerTasks-901 on old-1")
	w.exec(`DELETE FROM ticket`)
	w.exec(`DELETE FROM task WHERE seq > 900`)

	in = w.in
	in.MinAgent = "2026.3.0"
	w.run(in, "agents", preflight.Warn, "1 agents are older than what version 2026.5.0 deploys to (Tako's 2026.3.0 or later, Tentacles of any version): tako-old (2026.1.0)")
	in.MinTentacle = "7.0.0"
	w.run(in, "agents", preflight.Warn, "2 agents are older")
	in.MinAgent, in.MinTentacle = "2026.1.0", "6.3.1"
	w.run(in, "agents", preflight.OK, "3 agents are new enough")
	in.MinAgent = "new ones"
	w.run(in, "agents", preflight.Fail, "The check could not be made")
}

// database drifts the schema in every way, and puts it back.
func (w *world) database() {
	w.t.Helper()
	ago := db.BinaryLevels().Level - 1
	w.exec(`UPDATE tako_meta SET active_level = ?`, ago)
	w.run(w.in, "finalized", preflight.Fail, "is not finalized")
	w.exec(`UPDATE tako_meta SET active_level = schema_level, schema_level = schema_level + 1`)
	w.run(w.in, "finalized", preflight.OK, "has made level")
	w.exec(`UPDATE tako_meta SET schema_level = active_level`)

	w.exec(`UPDATE tako_migration SET state = 'started' WHERE id = '0022_dashboard'`)
	w.run(w.in, "migrations", preflight.Fail, "1 migrations have begun and not ended: 0022_dashboard")
	w.exec(`UPDATE tako_migration SET state = 'done' WHERE id = '0022_dashboard'`)
	w.beyond()

	for _, c := range []struct {
		do, undo string
		want     preflight.Status
		seen     string
	}{
		{`DROP INDEX release_by_channel`, `CREATE INDEX release_by_channel ON release (channel_id, created, seq)`, preflight.Warn, "index release_by_channel: It is missing"},
		{`ALTER TABLE answer ADD COLUMN ours TEXT`, `ALTER TABLE answer DROP COLUMN ours`, preflight.Warn, "column answer.ours: It does not belong"},
		{`CREATE INDEX stray_index ON answer (created)`, `DROP INDEX stray_index`, preflight.Warn, "index stray_index: It does not belong"},
		{`CREATE UNIQUE INDEX stray_index ON answer (created)`, `DROP INDEX stray_index`, preflight.Fail, "index stray_index: It does not belong"},
		{`ALTER TABLE ticket DROP COLUMN answered`, `ALTER TABLE ticket ADD COLUMN answered BIGINT NOT NULL DEFAULT 0`, preflight.Fail, "column ticket.answered: It is missing"},
		{`CREATE TABLE stray (id TEXT)`, `DROP TABLE stray`, preflight.OK, "as its migrations have left it"},
		{`ALTER TABLE answer RENAME COLUMN fact TO fakt`, `ALTER TABLE answer RENAME COLUMN fakt TO fact`, preflight.Fail, "column answer.fact: It is missing"},
	} {
		w.exec(c.do)
		w.run(w.in, "schema", c.want, c.seen)
		if mends := w.mendable(); mends != strings.HasPrefix(c.do, "DROP INDEX") {
			w.t.Errorf("%s: the upgrade sets it right: %t", c.do, mends)
		}
		w.exec(c.undo)
	}
	if w.db.Dialect() == db.Postgres {
		w.exec(`ALTER TABLE answer ALTER COLUMN fact TYPE VARCHAR(4000)`)
		w.run(w.in, "schema", preflight.Fail, "column answer.fact: It is character varying(4000)")
		w.exec(`ALTER TABLE answer ALTER COLUMN fact TYPE TEXT COLLATE "C"`)
	}
	w.documents()
	if w.db.Dialect() == db.SQLite {
		w.damage()
	}
}

// documents spoils one as no version writes it, and the rows by which another is found.
func (w *world) documents() {
	w.t.Helper()
	w.run(w.in, "documents", preflight.OK, "can be read, and are found by what is in them")
	w.exec(`UPDATE documents SET body = '{"Name":' || body WHERE kind = 'environments'`)
	w.run(w.in, "documents", preflight.Fail, "environments Environments-1: The document cannot be read")
	w.exec(`UPDATE documents SET body = substr(body, 9) WHERE kind = 'environments'`)
	w.exec(`DELETE FROM document_unique WHERE kind = 'machines' AND id = 'Machines-1'`)
	w.run(w.in, "documents", preflight.Warn, "machines Machines-1: The rows by which it is found")
	w.exec(`DELETE FROM documents WHERE id = 'Machines-1'`)
}

// mendable reports whether an upgrade would set right what is wrong with the schema.
func (w *world) mendable() bool {
	w.t.Helper()
	in := w.in
	in.Only = []string{"schema"}
	r, err := preflight.Run(w.t.Context(), in)
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.ContainsFunc(r.Checks, func(c preflight.Check) bool { return c.Mendable })
}

// beyond leaves what the expansion of a newer version leaves that was cut short: columns,
// an index that keeps others out, and a migration that has begun.
func (w *world) beyond() {
	w.t.Helper()
	w.exec(`ALTER TABLE answer ADD COLUMN newer TEXT NOT NULL DEFAULT ''`)
	w.exec(`CREATE UNIQUE INDEX release_newer ON release (id, seq)`)
	w.run(w.in, "schema", preflight.Fail, "column answer.newer: It does not belong")
	w.exec(`INSERT INTO tako_migration (id, level, kind, state, sha256, applied_at) VALUES ('9999_half', 2, 'notx', 'started', '', 1)`)
	w.run(w.in, "schema", preflight.Warn, "column answer.newer: It does not belong")
	w.run(w.in, "schema", preflight.Warn, "index release_newer: It does not belong")
	w.run(w.in, "migrations", preflight.OK, "1 are of another version: 9999_half")
	w.exec(`ALTER TABLE answer DROP COLUMN newer`)
	w.exec(`DROP INDEX release_newer`)
	w.exec(`DELETE FROM tako_migration WHERE id = '9999_half'`)
}

// damage has a copy of the database looked at of which a page was overwritten.
func (w *world) damage() {
	w.t.Helper()
	if err := w.db.Checkpoint(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(w.in.Data, "tako.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	var page int // of an index that nothing needs to be opened
	if err := w.db.Read(w.t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(w.t.Context(), `SELECT s.rootpage FROM sqlite_schema s WHERE s.name = 'release_by_channel'`).Scan(&page)
	}); err != nil {
		w.t.Fatal(err)
	}
	size := int(content[16])<<8 | int(content[17])
	copy(content[(page-1)*size:], bytes.Repeat([]byte{0xEE}, size/2))
	path := filepath.Join(w.t.TempDir(), "tako.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	in := w.in
	in.DB = dbtest.OpenURL(w.t, "sqlite:"+path)
	w.run(in, "integrity", preflight.Fail, "The database is damaged")
}
