package test

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/octopus"
)

// exec changes the database by hand.
func (c *chaos) exec(statement string) {
	c.t.Helper()
	if err := c.db.WriteEngine(c.t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(c.t.Context(), statement)
		return err
	}); err != nil {
		c.t.Fatalf("%s: %v", statement, err)
	}
}

// texts reads a column.
func (c *chaos) texts(query string) (all []string) {
	c.t.Helper()
	err := c.db.Read(c.t.Context(), func(tx *db.Tx) error {
		all = nil
		rows, err := tx.Query(c.t.Context(), query)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var one string
			if err := rows.Scan(&one); err != nil {
				return err
			}
			all = append(all, one)
		}
		return rows.Err()
	})
	if err != nil {
		c.t.Fatalf("%s: %v", query, err)
	}
	return all
}

// taken are the new version's migrations that the database has, and when it got them.
func (c *chaos) taken() []string {
	c.t.Helper()
	return c.texts(`SELECT m.id || ' ' || m.applied_at FROM tako_migration m WHERE m.id LIKE '9%' ORDER BY m.id`)
}

// forget undoes by hand what the new version has added, for the rows that want to see it
// added.
func (c *chaos) forget() {
	c.t.Helper()
	taken := c.taken()
	if len(taken) == 0 {
		return
	}
	for _, s := range []string{
		`DROP TABLE IF EXISTS next_version`, `DROP TABLE IF EXISTS next_spoiled`, `DROP TABLE IF EXISTS next_table`, `DROP TABLE IF EXISTS next_end`,
		`DELETE FROM tako_migration WHERE id LIKE '9%'`, fmt.Sprintf(`UPDATE tako_meta SET schema_level = %d`, db.BinaryLevels().Level),
	} {
		c.exec(s)
	}
	if len(taken) > 1 {
		c.exec(`ALTER TABLE documents DROP COLUMN next_note`)
	}
	if err := db.Migrate(c.t.Context(), c.db, db.MigrateOptions{By: c.old}); err != nil { // which notes what is there
		c.t.Fatal(err)
	}
}

// thirdFails makes data after the rehearsal on which the third migration fails.
func (c *chaos) thirdFails() string {
	c.t.Helper()
	c.forget()
	var spoiled []octopus.Environment
	code, _ := c.during(upgrade.Rehearsed, func() {
		spoiled = []octopus.Environment{c.environment("Spoiled 1"), c.environment("Spoiled 2")}
	})
	seen := c.gaveUp(code, upgrade.Expanded, "migration 9002_next_spoiled")
	c.bad(false) // it worked on the data that it was tried with
	half := c.taken()
	if len(half) != 2 || !strings.HasPrefix(half[1], "9001_next_column ") {
		c.t.Errorf("the migrations that stay are %v", half)
	}
	if has, err := c.hasTable("next_spoiled"); err != nil || has {
		c.t.Errorf("the third migration has left its table: %t, %v", has, err)
	}
	c.environment("after the third")
	for _, e := range spoiled {
		c.Must(c.t, http.MethodDelete, "/api/Spaces-1/environments/"+e.ID, nil, nil)
	}
	c.do(0, "Version "+next+" serves", "--yes", "--to", next, "--probation", "1s")
	if all := c.taken(); len(all) != 5 || !slices.Equal(all[:2], half) {
		c.t.Errorf("after the next try there are %v, and the first two were %v", all, half)
	}
	if kept := c.kept(); len(kept) > 0 {
		c.t.Errorf("the backups %v of former upgrades are kept without an end", kept)
	}
	c.do(0, "serves again", "rollback")
	return seen + "; the next try: committed"
}

func (c *chaos) hasTable(name string) (has bool, err error) {
	err = c.db.Read(c.t.Context(), func(tx *db.Tx) error {
		has, err = tx.HasTable(c.t.Context(), name)
		return err
	})
	return has, err
}

// asks is a step that asks a person.
func asks(name string) octopus.Action {
	return octopus.Action{Name: name, ActionType: octopus.ActionManual, Properties: octopus.Properties{octopus.PropManualInstructions: octopus.Plain("Look at it.")}}
}

// pending has two deployments wait for a person, one of them in the middle of a rolling
// step, and maintenance mode be on, while the server is upgraded and taken back.
func (c *chaos) pending() string {
	c.t.Helper()
	m := newModel(c.t, c.Client)
	for _, name := range []string{"one", "two"} {
		apptest.Post(c.t, c.Client, "/api/Spaces-1/machines", octopus.Machine{
			EnvironmentIDs: octopus.List[string]{m.Dev.ID}, Roles: octopus.List[string]{"web"},
			MachineBase: octopus.MachineBase{Name: "region " + name, Endpoint: octopus.Endpoint{CommunicationStyle: octopus.StyleNone}},
		})
	}
	m.process(c.t, octopus.Step{Name: "Ask", Actions: octopus.List[octopus.Action]{asks("Ask")}}, script("After", "echo after the question"))
	rolling := m.another(c.t, "Rolling", octopus.Step{
		Name: "Roll", Actions: octopus.List[octopus.Action]{asks("Ask each"), script("Each", "echo after each question").Actions[0]},
		Properties: octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web"), octopus.PropMaxParallelism: octopus.Plain("1")},
	})
	var runs []string
	open := func() (ids []string) {
		c.t.Helper()
		for _, task := range runs {
			for _, q := range questions(c.t, c.Client, task) {
				ids = append(ids, task+" "+q.ID)
			}
		}
		return ids
	}
	for _, one := range []*model{m, rolling} {
		_, version := one.release(c.t, nil)
		task := one.deploy(c.t, version, one.Dev)
		if doc := wait(c.t, c.Client, task, 2*time.Minute); !doc.HasPendingInterruptions {
			c.t.Fatalf("%s is %s: %s", task, doc.State, doc.ErrorMessage)
		}
		runs = append(runs, task)
	}
	maintenance := func(on bool) {
		c.t.Helper()
		c.Must(c.t, http.MethodPut, "/api/maintenanceconfiguration", octopus.MaintenanceConfiguration{IsInMaintenanceMode: on}, nil)
	}
	maintenance(true)
	before := open()
	check := func(when string) {
		c.t.Helper()
		if now := open(); !slices.Equal(now, before) {
			c.t.Errorf("%s the questions are %v; before they were %v", when, now, before)
		}
		if !apptest.Get[octopus.MaintenanceConfiguration](c.t, c.Client, "/api/maintenanceconfiguration").IsInMaintenanceMode {
			c.t.Errorf("%s maintenance mode is off", when)
		}
	}
	c.do(0, "Version "+next+" serves", "--yes", "--to", next, "--probation", "1s")
	check("after the upgrade")
	c.do(0, "serves again", "rollback")
	check("after the way back")
	n := 0
	for _, task := range runs {
		for doc := wait(c.t, c.Client, task, 2*time.Minute); !doc.IsCompleted; doc = wait(c.t, c.Client, task, 2*time.Minute) {
			for _, q := range questions(c.t, c.Client, task) {
				c.Must(c.t, http.MethodPut, space+"/interruptions/"+q.ID+"/responsible", nil, nil)
				c.Must(c.t, http.MethodPost, space+"/interruptions/"+q.ID+"/submit", map[string]string{octopus.FieldResult: octopus.ResultProceed, octopus.FieldNotes: "seen"}, nil)
				n++
			}
		}
		if doc := wait(c.t, c.Client, task, 2*time.Minute); doc.State != octopus.TaskSuccess {
			c.t.Errorf("%s ended as %s: %s", task, doc.State, doc.ErrorMessage)
		}
	}
	maintenance(false)
	return fmt.Sprintf("%d questions with the same ids after both, %d answered, all deployments succeeded, maintenance mode was on", len(before), n)
}

// longReader reads a table that a migration changes.
func (c *chaos) longReader() string {
	c.t.Helper()
	c.forget()
	var wg sync.WaitGroup
	release := make(chan struct{})
	pid := make(chan int, 1)
	code, _ := c.during(upgrade.Rehearsed, func() {
		wg.Go(func() {
			err := c.db.Snapshot(c.t.Context(), func(tx *db.Tx) error {
				var n, own int
				if err := tx.QueryRow(c.t.Context(), `SELECT count(*), pg_backend_pid() FROM documents`).Scan(&n, &own); err != nil {
					return err
				}
				pid <- own
				<-release
				return nil
			})
			if err != nil {
				c.t.Error(err)
			}
		})
		eventually(c.t, "it reads", func() bool { return len(pid) == 1 })
	})
	seen := c.gaveUp(code, upgrade.Expanded, fmt.Sprintf("locked by process %d ", <-pid))
	c.environment("beside the reader")
	close(release)
	wg.Wait()
	c.do(0, "Version "+next+" serves", "--yes", "--to", next, "--probation", "1s")
	c.do(0, "serves again", "rollback")
	return seen + "; the next try: committed"
}

// drift changes the schema by hand, and has it looked at before an upgrade.
func drift(code int, status, says, do, undo string) func(*chaos) string {
	return func(c *chaos) string {
		c.t.Helper()
		c.forget()
		c.exec(do)
		out, got := runProgram(c.t, c.Executable(c.t), c.Env, "", c.args("--dry-run", "--to", next)...)
		c.exec(undo)
		var lines []string
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 2 && f[1] == "schema" {
				lines = append(lines, strings.Join(f, " "))
			}
		}
		i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, status) && strings.Contains(line, says) })
		if got != code || i < 0 {
			c.t.Fatalf("exit code %d, not %d: %q\n%s", got, code, lines, out)
		}
		return fmt.Sprintf("exit code %d: %s", got, lines[i])
	}
}

func (c *chaos) nameClash() string {
	c.t.Helper()
	c.forget()
	c.exec(`CREATE TABLE next_table (mine BIGINT)`)
	out, code := runProgram(c.t, c.Executable(c.t), c.Env, "", c.args("--yes", "--to", next, "--probation", "1s")...)
	seen := c.gaveUp(code, upgrade.Rehearsed, "migration 9003_next_table")
	if taken := c.taken(); len(taken) != 0 {
		c.t.Errorf("%v was taken\n%s", taken, out)
	}
	c.exec(`DROP TABLE next_table`)
	return seen
}

// dirty spoils a document as no version writes it.
func (c *chaos) dirty() string {
	c.t.Helper()
	e := c.environment("dirty")
	kept := c.texts(`SELECT d.body FROM documents d WHERE d.id = '` + e.ID + `'`)
	c.exec(`UPDATE documents SET body = '{"Name":' WHERE id = '` + e.ID + `'`)
	_, code := runProgram(c.t, c.Executable(c.t), c.Env, "", c.args("--yes", "--to", next, "--probation", "1s")...)
	c.exec(`UPDATE documents SET body = '` + strings.ReplaceAll(kept[0], "'", "''") + `' WHERE id = '` + e.ID + `'`)
	return c.gaveUp(code, upgrade.Preflight, "documents: environments "+e.ID+": The document cannot be read")
}

// keyFile is where the master key is.
func (c *chaos) keyFile() string { return filepath.Join(c.Data, "master.key") }

// withKey tries an upgrade while another content is in the place of the master key, or none.
func (c *chaos) withKey(content []byte) string {
	c.t.Helper()
	back := c.swapKey(content)
	out, code := runProgram(c.t, c.Executable(c.t), c.Env, "", c.args("--yes", "--to", next, "--probation", "1s")...)
	back()
	seen := c.gaveUp(code, upgrade.Preflight, "master-key")
	if strings.Contains(out, "BACKED_UP") {
		c.t.Errorf("it went on: %s", out)
	}
	return seen
}

func (c *chaos) swapKey(content []byte) (back func()) {
	c.t.Helper()
	kept, err := os.ReadFile(c.keyFile())
	if err == nil {
		err = os.Remove(c.keyFile())
	}
	if err == nil && content != nil {
		err = os.WriteFile(c.keyFile(), content, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(c.keyFile(), kept, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
}

// halfRotated tries an upgrade after a change of all keys that was cut short.
func (c *chaos) halfRotated() string {
	c.t.Helper()
	if out, errOut, code := onServer(c.t, c.Process, []string{"TAKO_FAILPOINT=rotate-known:kill"}, "", "key", "rotate"); code != -1 {
		c.t.Fatalf("the rotation was not cut short: %d %s%s", code, out, errOut)
	}
	_, code := runProgram(c.t, c.Executable(c.t), c.Env, "", c.args("--yes", "--to", next, "--probation", "1s")...)
	mustOnServer(c.t, c.Process, "", "key", "rotate")
	return c.gaveUp(code, upgrade.Preflight, "master-key: A rotation of the master key was cut short")
}

// keyLost takes the key away from a version that has worked on a copy with it.
func (c *chaos) keyLost() string {
	c.t.Helper()
	var back func()
	code, _ := c.during(upgrade.Expanded, func() { back = c.swapKey(nil) })
	back()
	last := c.last()
	if code != 30 || last.State != upgrade.RolledBack || last.Failed != upgrade.Switched {
		c.t.Errorf("exit code %d, %s, failed at %s: %s", code, last.State, last.Failed, last.Error)
	}
	return fmt.Sprintf("exit code %d, %s at %s: %s", code, last.State, last.Failed, last.Error)
}

// rotated has all keys changed while an upgrade is under way.
func (c *chaos) rotated() string {
	c.t.Helper()
	apptest.Post(c.t, c.Client, "/api/accounts", account("rotated", "hush"))
	code, said := c.during(upgrade.Rehearsed, func() { mustOnServer(c.t, c.Process, "", "key", "rotate") })
	if code != 0 {
		c.t.Fatalf("exit code %d: %s", code, said)
	}
	both := func() {
		c.t.Helper()
		for _, version := range []string{c.old, next} {
			c.Program = filepath.Join(c.Root, "versions", version, "tako")
			checkKeys(c.t, c.Process)
		}
		c.Program = ""
	}
	both()
	c.do(0, "serves again", "rollback")
	both()
	return "exit code 0; every secret opens in both versions, before and after the way back"
}

// refused asserts that a version is not installed, for a reason.
func (c *chaos) refused(version, why string) string {
	c.t.Helper()
	out, code := runProgram(c.t, c.Executable(c.t), c.Env, "", c.args("--yes", "--to", version, "--probation", "1s")...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; code == 0 || !strings.Contains(out, why) {
		c.t.Errorf("exit code %d, and not because of %q: %s", code, why, last)
	}
	if left, err := filepath.Glob(filepath.Join(c.Root, "versions", version+"*")); err != nil || len(left) != 0 {
		c.t.Errorf("%v is left, %v", left, err)
	}
	return fmt.Sprintf("exit code %d: %s", code, lines[len(lines)-1])
}

// spoiled puts another version on the site, whose program is not what the feed says.
func (c *chaos) spoiled(why string, spoil func([]byte) []byte) string {
	c.t.Helper()
	const version = "2026.8.0"
	program := fmt.Appendf(nil, "#!/bin/sh\n%s\n", strings.Repeat("#", 1<<16))
	before := c.site.releases
	c.site.publish(c.t, version, program)
	for _, a := range c.site.releases[len(c.site.releases)-1].Artifacts {
		if err := os.WriteFile(filepath.Join(c.site.dir, a.URL), spoil(program), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	seen := c.refused(version, why)
	c.site.releases = before
	c.resign()
	return seen
}

// resign has the site tell a good feed, newer than all before.
func (c *chaos) resign() {
	c.t.Helper()
	c.site.number++
	c.site.sign(c.t)
}

func (c *chaos) corrupt() string {
	return c.spoiled("It was changed on the way", func(program []byte) []byte {
		return append(program[:len(program)-1:len(program)-1], 'x')
	})
}

func (c *chaos) truncated() string {
	return c.spoiled("has only 1000 bytes", func(program []byte) []byte { return program[:1000] })
}

func (c *chaos) wronglySigned() string {
	c.t.Helper()
	key := c.site.key
	c.site.key = ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", ed25519.SeedSize)))
	c.resign()
	seen := c.refused("2026.8.0", "none of the keys that are trusted here")
	c.site.key = key
	c.resign()
	return seen
}

func (c *chaos) older() string {
	c.t.Helper()
	c.resign()
	c.do(0, next, "check")
	number := c.site.number
	c.site.number -= 2
	c.resign()
	seen := c.refused("2026.8.0", "was seen before")
	c.site.number = number
	c.resign()
	return seen
}

func (c *chaos) expired() string {
	c.t.Helper()
	valid := c.site.valid
	c.site.valid = -time.Minute
	c.resign()
	out, code := runProgram(c.t, c.Executable(c.t), c.Env, "", c.args("--yes")...)
	if code == 0 || !strings.Contains(out, "expired") {
		c.t.Errorf("exit code %d: %s", code, out)
	}
	c.site.valid = valid
	c.resign()
	return fmt.Sprintf("exit code %d: %s", code, strings.TrimSpace(out))
}
