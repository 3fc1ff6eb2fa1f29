package test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// logged collects what a server logs, at every level.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}

// vault gives out secrets and looks for them.
type vault struct {
	t     testing.TB
	clear map[string]string // by what they are
}

// secret makes a value that stands nowhere else, and notes what it is.
func (v *vault) secret(what string) string {
	v.clear[what] = fmt.Sprintf("Hush-%02d-%x-Hush", len(v.clear), what)
	return v.clear[what]
}

// search looks for every secret in a text: as it is, and as it may be escaped.
func (v *vault) search(where string, text []byte) {
	v.t.Helper()
	for what, clear := range v.clear {
		lines := strings.Split(clear, "\n")
		for _, form := range []string{
			lines[0], lines[len(lines)-1], url.QueryEscape(clear), base64.StdEncoding.EncodeToString([]byte(clear)), base64.RawURLEncoding.EncodeToString([]byte(clear)), hex.EncodeToString([]byte(clear)),
		} {
			if i := bytes.Index(text, []byte(form)); i >= 0 {
				v.t.Errorf("%s has the %s: %q", where, what, text[max(0, i-100):min(len(text), i+len(form)+60)])
				break
			}
		}
	}
}

// TestSecretsStayInside stores a secret everywhere where one can be, runs
// deployments that use them and try to show them, and then looks for them in
// everything that the server keeps, says and logs.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			log := &logged{}
			s := apptest.StartWith(t, dialect, apptest.Options{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			f := furnish(t, s)
			v := &vault{t, map[string]string{"administrator's API key": apptest.AdminKey}}
			f.storeSecrets(v)
			f.people(v)
			tasks := f.deploySecrets(v)

			for _, op := range f.ops {
				if op.Method != http.MethodGet || strings.HasSuffix(op.Path, "/log") {
					continue
				}
				for i, task := range append([]string{f.of["task"]}, tasks...) {
					if i > 0 && !strings.Contains(op.Path, "/tasks/") {
						break
					}
					path := strings.Replace(f.path(op, nil), f.of["task"], task, 1) + needed(op, f)
					resp, err := f.Do(t.Context(), http.MethodGet, path, nil)
					if err != nil {
						t.Fatal(err)
					}
					v.search("GET "+path, resp.Body)
				}
			}
			for _, path := range []string{"/api/events?take=1000", "/api/events?asCsv=true", "/api/artifacts?take=100", "/api/accounts/all", "/api/feeds/all", "/api/variables/all"} {
				resp, err := f.Do(t.Context(), http.MethodGet, path, nil)
				if err != nil {
					t.Fatal(err)
				}
				v.search("GET "+path, resp.Body)
			}
			v.search("the server's log", log.bytes())
			v.searchDatabase(f)
			v.searchFiles(s.Data)
		})
	}
}

// storeSecrets makes documents with all kinds of secrets, and changes them once.
func (f *furnished) storeSecrets(v *vault) {
	t := f.t
	sensitive := func(what string) map[string]any { return map[string]any{"HasValue": true, "NewValue": v.secret(what)} }
	for _, one := range []struct {
		path string
		doc  map[string]any
	}{
		{"accounts", map[string]any{"Name": "User", "AccountType": "UsernamePassword", "Username": "u", "Password": sensitive("password of an account")}},
		{"accounts", map[string]any{"Name": "Ssh", "AccountType": "SshKeyPair", "PrivateKeyFile": sensitive("private key"), "PrivateKeyPassphrase": sensitive("passphrase")}},
		{"accounts", map[string]any{"Name": "Tok", "AccountType": "Token", "Token": v.secret("token that came as a plain text")}},
		{"accounts", map[string]any{"Name": "Aws", "AccountType": "AmazonWebServicesAccount", "AccessKey": "AK", "SecretKey": sensitive("secret key")}},
		{"accounts", map[string]any{"Name": "New", "AccountType": "FutureCloud", "Vault": map[string]any{"Keys": []any{map[string]any{"Key": sensitive("secret of an unknown kind")}}}}},
		{"feeds", map[string]any{"Name": "Nu", "FeedType": "NuGet", "FeedUri": "https://example.com", "Username": "u", "Password": sensitive("password of a feed")}},
		{"feeds", map[string]any{"Name": "S3", "FeedType": "S3", "SecretKey": sensitive("secret key of a feed")}},
		{"proxies", map[string]any{"Name": "Prox", "Host": "h", "Port": 1, "Password": sensitive("password of a proxy")}},
		{"machines", map[string]any{"Name": "Drop", "EnvironmentIds": []string{f.of["dev"]}, "Roles": []string{"drop"}, "Endpoint": map[string]any{
			"CommunicationStyle": "OfflineDrop", "SensitiveVariablesEncryptionPassword": sensitive("password of an endpoint"), "Odd": sensitive("secret of an unknown member of an endpoint"),
		}}},
		{"environments", map[string]any{"Name": "Odd", "Unknown": sensitive("secret of an unknown member")}},
	} {
		var made map[string]any
		v.search("POST "+one.path, f.Must(t, http.MethodPost, "/api/"+one.path, one.doc, &made).Body)
		at := "/api/" + one.path + "/" + made["Id"].(string)
		made["Name"] = made["Name"].(string) + " renamed"
		v.search("PUT "+at, f.Must(t, http.MethodPut, at, made, nil).Body)
		v.search("GET "+at, f.Must(t, http.MethodGet, at, nil, nil).Body)
	}
	library := apptest.Get[octopus.LibraryVariableSet](t, f.Client, "/api/libraryvariablesets/"+f.of["library"])
	f.putVariables(v, library.VariableSetID, octopus.Variable{Name: "Shared", Value: ptr(v.secret("variable of a library set")), Type: octopus.VariableSensitive})
	project := apptest.Get[octopus.Project](t, f.Client, "/api/projects/"+f.of["project"])
	project.IncludedLibraryVariableSetIDs = octopus.List[string]{library.ID}
	apptest.Put(t, f.Client, "/api/projects/"+project.ID, project)
	v.clear["second line of a variable"] = "Hush-second-line-Hush"
	f.putVariables(
		v, f.of["variables"],
		octopus.Variable{Name: "Own", Value: ptr(v.secret("variable")), Type: octopus.VariableSensitive},
		octopus.Variable{Name: "Lines", Value: ptr(v.secret("first line of a variable") + "\n" + v.clear["second line of a variable"]), IsSensitive: true},
		octopus.Variable{Name: "Asked", Value: ptr(""), Type: octopus.VariableSensitive, Prompt: &octopus.VariablePrompt{Label: "Asked"}},
		text("Greeting", "Hello", octopus.Scope{}),
	)
}

func ptr(s string) *string { return &s }

func (f *furnished) putVariables(v *vault, id string, all ...octopus.Variable) {
	f.t.Helper()
	set := apptest.Get[octopus.VariableSet](f.t, f.Client, "/api/variables/"+id)
	set.Variables = all
	v.search("PUT of variables", f.Must(f.t, http.MethodPut, "/api/variables/"+id, set, nil).Body)
	// Read, and put back as it was read.
	set = apptest.Get[octopus.VariableSet](f.t, f.Client, "/api/variables/"+id)
	v.search("PUT of variables", f.Must(f.t, http.MethodPut, "/api/variables/"+id, set, nil).Body)
}

// people have passwords, keys and sessions.
func (f *furnished) people(v *vault) {
	t := f.t
	f.make("users", `{"Username":"ada","Password":"`+v.secret("password of a user")+`"}`)
	var key struct{ APIKey string }
	f.Must(t, http.MethodPost, "/api/users/"+f.of["user"]+"/apikeys", map[string]string{"Purpose": "test"}, &key)
	v.clear["API key"] = key.APIKey
	wrong := v.secret("wrong password that somebody tried")
	for _, password := range []string{wrong, v.clear["password of a user"]} {
		resp, err := f.As("").Do(t.Context(), http.MethodPost, "/api/users/login", map[string]string{"Username": "ada", "Password": password})
		if err != nil {
			t.Fatal(err)
		}
		if (resp.Status == http.StatusOK) != (password != wrong) {
			t.Fatalf("sign in: %d %s", resp.Status, resp.Body)
		}
		v.search("POST /api/users/login", resp.Body)
		for _, cookie := range (&http.Response{Header: resp.Header}).Cookies() {
			if value, err := url.QueryUnescape(cookie.Value); err == nil && len(value) > 16 && cookie.HttpOnly {
				v.clear["session "+cookie.Name] = value
			}
		}
	}
	// A key in the query is a way in, and must not end up in links or logs.
	v.search("GET with a key in the query", f.As("").Must(t, http.MethodGet, "/api/users?take=1&apikey="+key.APIKey, nil, nil).Body)
}

// deploySecrets runs a deployment that uses its secrets and tries to show them,
// and one that fails with one in its last words.
func (f *furnished) deploySecrets(v *vault) (tasks []string) {
	t := f.t
	project := apptest.Get[octopus.Project](t, f.Client, "/api/projects/"+f.of["project"])
	m := &model{Client: f.Client, Project: project}
	show := script("Show", `
for name in Own Shared Lines Asked; do
  value="$(get_octopusvariable $name)"
  test -n "$value" || { echo "$name is empty"; exit 3; }
  echo "$name is $value"
  echo "$name is $value" >&2
  write_warning "$name is $value"
  printf 'half of '; printf '%s\n' "$value"
done
set_octopusvariable Session "$(echo "`+reversed(v.secret("value of a sensitive output"))+`" | rev)" -sensitive
set_octopusvariable Plain "holds $(get_octopusvariable Own)"
echo nothing > report.txt
new_octopusartifact report.txt "report of $(get_octopusvariable Own).txt"
update_progress 50 "halfway with $(get_octopusvariable Own)"
`)
	show.Actions[0].Properties["Octopus.Action.Custom.Secret"] = octopus.Secret(v.secret("property of an action"))
	use := script("Use", `
echo "the output is $(get_octopusvariable "Octopus.Action[Show].Output.Session")"
test "$(get_octopusvariable Greeting)" = Bye && fail_step "it failed with $(get_octopusvariable Own)"
exit 0
`)
	m.process(t, show, use)
	dev := apptest.Get[octopus.Environment](t, f.Client, "/api/environments/"+f.of["dev"])
	run := func(success bool) {
		t.Helper()
		_, version := m.release(t, nil)
		command := m.deployment(version, dev)
		command["variables"] = map[string]string{"Asked": v.secret(fmt.Sprint("answer to a prompt ", success))}
		var started struct {
			DeploymentServerTasks []struct{ DeploymentID, ServerTaskID string }
		}
		v.search("creating a deployment", f.Must(t, http.MethodPost, space+"/deployments/create/untenanted/v1", command, &started).Body)
		task := wait(t, f.Client, started.DeploymentServerTasks[0].ServerTaskID, 4*time.Minute)
		raw := f.Must(t, http.MethodGet, "/api/tasks/"+task.ID+"/raw", nil, nil).Body
		if task.FinishedSuccessfully != success {
			t.Fatalf("the deployment ended as %s: %s\n%s", task.State, task.ErrorMessage, raw)
		}
		if !success && !strings.Contains(string(raw), "it failed with ********") || strings.Count(string(raw), "********") < 15 {
			t.Errorf("the log has masked too little:\n%s", raw)
		}
		tasks = append(tasks, task.ID)
	}
	run(true)
	set := apptest.Get[octopus.VariableSet](t, f.Client, "/api/variables/"+f.of["variables"])
	for i := range set.Variables {
		if set.Variables[i].Name == "Greeting" {
			set.Variables[i].Value = ptr("Bye")
		}
	}
	apptest.Put(t, f.Client, "/api/variables/"+f.of["variables"], set)
	run(false)
	return tasks
}

// reversed is a text that does not have s in it, and from which a script gets s.
func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// searchDatabase looks into the files of SQLite, and into every row of PostgreSQL.
func (v *vault) searchDatabase(f *furnished) {
	t := v.t
	if f.d.Dialect() == db.SQLite {
		for _, name := range []string{"tako.db", "tako.db-wal"} {
			// By another process: to open and close the file in this one would drop
			// the locks that SQLite has on it.
			content, err := exec.CommandContext(t.Context(), "cat", filepath.Join(f.Data, name)).Output()
			if err != nil {
				t.Fatal(err)
			}
			v.search(name, content)
		}
		return
	}
	for table := range state(t, f.d) {
		if strings.Contains(table, " ") || table == "versions" {
			continue
		}
		err := f.d.Read(t.Context(), func(tx *db.Tx) error {
			rows, err := tx.Query(t.Context(), `SELECT t::text FROM `+table+` t`)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var row string
				if err := rows.Scan(&row); err != nil {
					return err
				}
				v.search("the table "+table, []byte(row))
				if i := strings.Index(row, `\x`); i >= 0 { // bytes
					if raw, err := hex.DecodeString(strings.TrimRight(row[i+2:], `")`)); err == nil {
						v.search("the table "+table, raw)
					}
				}
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// searchFiles looks into all other files of the data directory: blobs, and what
// the worker keeps once its workspaces are gone.
func (v *vault) searchFiles(dir string) {
	t := v.t
	for deadline := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		left, err := filepath.Glob(filepath.Join(dir, "worker", "Work", "*", "files", ".tako"))
		going, errGoing := filepath.Glob(filepath.Join(dir, "worker", "Work", ".trash", "*"))
		if err := errors.Join(err, errGoing); err != nil {
			t.Fatal(err)
		}
		if left = append(left, going...); len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the workspaces outlive their tasks: %v", left)
		}
	}
	n := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), "tako.db") {
			return nil // gone in the meantime, or looked at above
		}
		content, err := exec.CommandContext(t.Context(), "cat", path).Output()
		if err != nil {
			return nil
		}
		n++
		v.search(strings.TrimPrefix(path, dir), content)
		return nil
	})
	if err != nil || n == 0 {
		t.Fatalf("looked into %d files: %v", n, err)
	}
}
