package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/octopus"
)

// onServer runs a command of the program on a server's own files, and returns its
// standard output, its error output and its exit code; -1 is a signal.
func onServer(t *testing.T, s *apptest.Process, env []string, in string, args ...string) (out, errOut string, code int) {
	t.Helper()
	args = append(args, "--data", s.Data)
	if s.Database != "" {
		args = append(args, "--database", s.Database)
	}
	cmd := exec.CommandContext(t.Context(), s.Executable(t), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(in)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), code
}

func mustOnServer(t *testing.T, s *apptest.Process, in string, args ...string) string {
	t.Helper()
	out, errOut, code := onServer(t, s, nil, in, args...)
	if code != 0 {
		t.Fatalf("tako %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// recoveryKit is a server's kit, and the key in it.
func recoveryKit(t *testing.T, s *apptest.Process) (kit, key string) {
	t.Helper()
	kit = mustOnServer(t, s, "", "key", "recovery-kit")
	return kit, regexp.MustCompile(`AGE-SECRET-KEY-1\w+`).FindString(kit)
}

// confirmKit confirms that the kit is kept, without which nobody upgrades.
func confirmKit(t *testing.T, s *apptest.Process) {
	t.Helper()
	_, key := recoveryKit(t, s)
	mustOnServer(t, s, key[len(key)-4:]+"\n", "key", "recovery-kit", "--confirm")
}

// account is one with a secret in it.
func account(name, password string) map[string]any {
	return map[string]any{"Name": name, "AccountType": "UsernamePassword", "Username": "u", "Password": map[string]any{"HasValue": true, "NewValue": password}}
}

// openDatabase opens a server's database beside it.
func openDatabase(t *testing.T, s *apptest.Process) *db.DB {
	t.Helper()
	url := s.Database
	if url == "" {
		url = "sqlite:" + filepath.Join(s.Data, "tako.db")
	}
	return dbtest.OpenURL(t, url)
}

// envelopes are the ids of the data keys under which anything stands in any text
// of any table.
func envelopes(t *testing.T, d *db.DB) map[string]int {
	t.Helper()
	columns := `SELECT m.name, c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.type = 'TEXT' ORDER BY 1, 2`
	if d.Dialect() == db.Postgres {
		columns = `SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = current_schema() AND data_type = 'text' ORDER BY 1, 2`
	}
	found := map[string]int{}
	mark := regexp.MustCompile(`tako1:([0-9a-f]{12}):`)
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		clear(found)
		texts := func(query string, fn func(a, b string)) error {
			rows, err := tx.Query(t.Context(), query)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var a, b string
				if err := rows.Scan(&a, &b); err != nil {
					return err
				}
				fn(a, b)
			}
			return rows.Err()
		}
		var all [][2]string
		if err := texts(columns, func(table, column string) { all = append(all, [2]string{table, column}) }); err != nil {
			return err
		}
		for _, c := range all {
			query := fmt.Sprintf(`SELECT '', %[2]s FROM %[1]s WHERE %[2]s LIKE '%%tako1:%%'`, c[0], c[1])
			err := texts(query, func(_, text string) {
				for _, m := range mark.FindAllStringSubmatch(text, -1) {
					found[m[1]]++
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRotationUnderLoad changes all keys while 20 clients read and write secrets
// and make releases, which copies secrets.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.NewProcess(t, dialect)
			s.Start()
			project := newSecretProject(t, s.Client)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var clients sync.WaitGroup
			var mu sync.Mutex
			rounds := make([]int, 20)
			var failures []string
			for i := range rounds {
				clients.Go(func() {
					fail := func(err error) bool {
						if err == nil || ctx.Err() != nil {
							return err != nil
						}
						mu.Lock()
						defer mu.Unlock()
						failures = append(failures, err.Error())
						return true
					}
					for n := 0; ctx.Err() == nil; n++ {
						if fail(project.round(ctx, s.Client, i, n)) {
							return
						}
						mu.Lock()
						rounds[i]++
						mu.Unlock()
					}
				})
			}
			for begun := false; !begun; <-time.After(10 * time.Millisecond) {
				mu.Lock()
				begun = len(failures) > 0 || !slices.Contains(rounds, 0)
				mu.Unlock()
			}
			d := openDatabase(t, s)
			former := envelopes(t, d)
			if len(former) != 1 {
				t.Fatalf("before the rotation there are secrets under %v", former)
			}
			out := mustOnServer(t, s, "", "key", "rotate")
			stop()
			clients.Wait()
			total := 0
			for _, n := range rounds {
				total += n
			}
			t.Logf("%d rounds of 20 clients; %s", total, strings.TrimSpace(out))
			if len(failures) > 0 {
				t.Errorf("%d requests failed: %v", len(failures), failures)
			}
			now := envelopes(t, d)
			for id, n := range now {
				if former[id] > 0 {
					t.Errorf("%d secrets are still under the former data key", n)
				}
			}
			if len(now) != 1 {
				t.Errorf("after the rotation there are secrets under %v", now)
			}
			checkKeys(t, s)
			if strings.Contains(s.Output()+out, masterKey(t, s)) {
				t.Error("the master key stands in an output")
			}
			s.Stop()
			s.Start()
			if err := project.round(t.Context(), s.Client, 0, 1_000_000); err != nil {
				t.Errorf("after a start with the new key: %v", err)
			}
		})
	}
}

// checkKeys has every secret opened, and fails for one that does not open.
func checkKeys(t *testing.T, s *apptest.Process) {
	t.Helper()
	out, errOut, code := onServer(t, s, nil, "", "key", "check")
	if !regexp.MustCompile(`Secrets: +[1-9]\d*, of which 0 do not open; 0 are`).MatchString(out) {
		t.Errorf("tako key check: %d\n%s%s", code, out, errOut)
	}
}

func masterKey(t *testing.T, s *apptest.Process) string {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(s.Data, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(key))
}

// secretProject is a project whose releases copy secrets.
type secretProject struct {
	*model
	release string // that was deployed, with an answer and an output that are secrets
	task    string
}

func newSecretProject(t *testing.T, c *apptest.Client) *secretProject {
	t.Helper()
	p := &secretProject{model: newModel(t, c)}
	token := "s3cret"
	asked := text("Asked", "", octopus.Scope{})
	asked.Prompt = &octopus.VariablePrompt{Label: "Asked", DisplaySettings: map[string]string{}}
	p.variables(t, octopus.Variable{Name: "Token", Value: &token, Type: octopus.VariableSensitive}, asked)
	p.process(t, script("Show", `set_octopusvariable Session "$(get_octopusvariable Asked)-$(get_octopusvariable Token)" -sensitive`))
	var version string
	p.release, version = p.model.release(t, nil)
	command := p.deployment(version, p.Dev)
	command["variables"] = map[string]string{"Asked": "answer"}
	var started struct {
		DeploymentServerTasks []struct{ ServerTaskID string }
	}
	p.Must(t, http.MethodPost, space+"/deployments/create/untenanted/v1", command, &started)
	p.task = started.DeploymentServerTasks[0].ServerTaskID
	if done := wait(t, c, p.task, 2*time.Minute); !done.FinishedSuccessfully {
		t.Fatalf("the deployment ended as %s: %s", done.State, done.ErrorMessage)
	}
	return p
}

// call sends a request and fails unless the answer is a good one.
func call(ctx context.Context, c *apptest.Client, method, path string, body, out any) error {
	resp, err := c.Do(ctx, method, path, body)
	if err != nil {
		return err
	}
	if resp.Status/100 != 2 {
		return fmt.Errorf("%s %s: %d %s", method, path, resp.Status, resp.Body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(resp.Body, out)
}

// round is what a client does over and over: it makes an account, reads it,
// changes its password, and every fourth client makes a release.
func (p *secretProject) round(ctx context.Context, c *apptest.Client, client, n int) error {
	var made struct{ ID string }
	if err := call(ctx, c, http.MethodPost, "/api/accounts", account(fmt.Sprintf("c%d-%d", client, n), "one"), &made); err != nil {
		return err
	}
	if err := call(ctx, c, http.MethodGet, "/api/accounts/"+made.ID, nil, nil); err != nil {
		return err
	}
	if err := call(ctx, c, http.MethodPut, "/api/accounts/"+made.ID, account(fmt.Sprintf("c%d-%d", client, n), "two"), nil); err != nil {
		return err
	}
	if client%4 != 0 {
		return nil
	}
	return call(ctx, c, http.MethodPost, space+"/releases/create/v1", map[string]any{
		"spaceId": "Spaces-1", "spaceIdOrName": "Spaces-1", "projectName": p.Project.Name, "releaseVersion": fmt.Sprintf("1.%d.%d", client, n),
	}, nil)
}

// TestRotationKilledAtEachEdge kills the command at each of its steps, beside a
// server that goes on, and has the next call bring it to its end. A backup that is taken in
// between is good, for the server and for who has nothing but the kit.
func TestRotationKilledAtEachEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.NewProcess(t, dialect)
			s.Start()
			n := 0
			secretIn := func() {
				t.Helper()
				n++
				apptest.Post(t, s.Client, "/api/accounts", account(fmt.Sprint("a", n), "secret"))
			}
			secretIn()
			kit := kitFile(t, s)
			for _, edge := range []string{"rotate-prepared", "rotate-switched", "rotate-named", "rotate-known", "rotate-batch", "rotate-ended"} {
				before := masterKey(t, s)
				if out, errOut, code := onServer(t, s, []string{"TAKO_FAILPOINT=" + edge + ":kill"}, "", "key", "rotate"); code != -1 {
					t.Fatalf("%s: the command ended with %d:\n%s%s", edge, code, out, errOut)
				}
				secretIn() // the server goes on
				id, _ := createBackup(t, s)
				if dialect == db.SQLite {
					other := apptest.NewProcess(t, dialect)
					mustOnServer(t, other, "", "backup", "verify", id, "--backups", filepath.Join(s.Data, "backups"), "--recovery-key-file", kit)
				}
				if edge == "rotate-batch" {
					s.Kill() // and one that starts finds the key that it needs
					s.Start()
				}
				out := mustOnServer(t, s, "", "key", "rotate")
				if resumed := strings.Contains(out, "now finished"); resumed != (edge != "rotate-prepared" && edge != "rotate-ended") {
					t.Errorf("%s: the next call says %q", edge, out)
				}
				if masterKey(t, s) == before {
					t.Errorf("%s: the master key is the former one", edge)
				}
				secretIn()
				checkKeys(t, s)
			}
			if left, err := filepath.Glob(filepath.Join(s.Data, "master.key.*")); err != nil || len(left) > 0 {
				t.Errorf("the rotations left %v, %v", left, err)
			}
		})
	}
}

// TestMasterKeyLostAndFound loses the key, gets it back from the kit, and loses
// both.
func TestMasterKeyLostAndFound(t *testing.T) {
	t.Parallel()
	s := apptest.NewProcess(t, db.SQLite)
	s.Start()
	made := apptest.Post(t, s.Client, "/api/accounts", account("deploy", "secret"))
	newSecretProject(t, s.Client)
	kit, key := recoveryKit(t, s)
	if _, errOut, code := onServer(t, s, nil, "", "key", "check"); code != 1 || !strings.Contains(errOut, "kit was never confirmed") {
		t.Errorf("check before the kit is confirmed: %d %s", code, errOut)
	}
	mustOnServer(t, s, key[len(key)-4:]+"\n", "key", "recovery-kit", "--confirm")
	mustOnServer(t, s, "", "key", "check")
	if out, errOut, code := onServer(t, s, nil, "", "key", "recovery-kit"); code != 1 || !strings.Contains(errOut, "--new") || strings.Contains(out, "SECRET") {
		t.Errorf("the confirmed kit again: %d %s%s", code, out, errOut)
	}
	mustOnServer(t, s, "", "key", "rotate")
	s.Stop()
	path := filepath.Join(s.Data, "master.key")
	was := masterKey(t, s)
	type keys struct {
		MasterKeyID  string
		RecoveryKeys []struct{ Confirmed *time.Time }
		Secrets      int
		Dead         []string
		Problems     []string
	}
	shown := decode[keys](t, []byte(mustOnServer(t, s, "", "key", "show", "--output", "json")))
	checked := decode[keys](t, []byte(mustOnServer(t, s, "", "key", "check", "--output", "json")))
	if shown.MasterKeyID == "" || len(shown.RecoveryKeys) != 1 || shown.RecoveryKeys[0].Confirmed == nil || checked.MasterKeyID != shown.MasterKeyID || checked.Secrets == 0 || checked.Dead == nil || len(checked.Problems) != 0 {
		t.Errorf("key show tells %+v, key check %+v", shown, checked)
	}
	if _, errOut, code := onServer(t, s, nil, "", "key", "show", "--reveal", "--output", "json"); code != 2 {
		t.Errorf("--reveal as JSON: %d %s", code, errOut)
	}
	if out := mustOnServer(t, s, "", "key", "show"); strings.Contains(out, was) {
		t.Error("show prints the key itself")
	}
	if out := mustOnServer(t, s, "", "key", "show", "--reveal"); strings.TrimSpace(out) != was {
		t.Errorf("show --reveal prints %q", out)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := onServer(t, s, nil, "", "server", "--listen", "127.0.0.1:0", "--agent-listen", "off"); code != 78 || !strings.Contains(errOut, "there is no master key here") {
		t.Errorf("a start without the key: %d %s", code, errOut)
	}
	mustOnServer(t, s, kit, "key", "recover")
	if masterKey(t, s) != was {
		t.Error("the kit gave another key back")
	}
	if _, errOut, code := onServer(t, s, nil, "", "key", "lost", "--yes"); code != 1 || !strings.Contains(errOut, "nothing is lost") {
		t.Errorf("lost with the key in place: %d %s", code, errOut)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("0", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := onServer(t, s, nil, "", "server", "--listen", "127.0.0.1:0", "--agent-listen", "off"); code != 78 || strings.Contains(errOut, strings.Repeat("0", 64)) {
		t.Errorf("a start with another key: %d %s", code, errOut)
	}
	if _, _, code := onServer(t, s, nil, "", "key", "lost"); code != 2 {
		t.Errorf("lost without --yes: %d", code)
	}
	if _, _, code := onServer(t, s, []string{"TAKO_FAILPOINT=lost-switched:kill"}, "", "key", "lost", "--yes"); code != -1 {
		t.Fatalf("the command ended with %d", code)
	}
	out := mustOnServer(t, s, "", "key", "lost", "--yes")
	for _, want := range []string{"(deploy): Password", "Token", "4 secrets are to be entered again; 2 in records"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
	s.Start()
	var now struct{ Password struct{ HasValue bool } }
	s.Must(t, http.MethodGet, "/api/accounts/"+fmt.Sprint(made["Id"]), nil, &now)
	if now.Password.HasValue {
		t.Error("the account has its lost password still")
	}
	s.Must(t, http.MethodPut, "/api/accounts/"+fmt.Sprint(made["Id"]), account("deploy", "again"), nil)
}
