package test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/doctor"
)

// examined runs `tako doctor` on a server, and returns its report and exit code.
func examined(t *testing.T, s *apptest.Process, args ...string) (doctor.Report, int) {
	t.Helper()
	out, errOut, code := onServer(t, s, nil, "", append([]string{"doctor", "--output", "json"}, args...)...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("tako doctor: %d %s%s", code, out, errOut)
	}
	return r, code
}

// healthy wants a server's data to be in order, whatever it has been through.
func healthy(t *testing.T, s *apptest.Process) {
	t.Helper()
	if r, _ := examined(t, s, "--full"); !r.Clean() {
		t.Errorf("the doctor finds %v", r.Findings)
	}
}

// TestDoctor examines a server that runs, one that was killed, and one that is harmed.
func TestDoctor(t *testing.T) {
	t.Parallel()
	s := apptest.NewProcess(t, db.SQLite)
	s.Start()
	m := newModel(t, s.Client)
	m.process(t, script("Say", "echo hello; echo kept > kept.txt; new_octopusartifact kept.txt"))
	_, version := m.release(t, nil)
	wait(t, s.Client, m.deploy(t, version, m.Dev), 2*time.Minute)
	if r, code := examined(t, s, "--full"); code != 0 || !r.Clean() {
		t.Errorf("while it runs: %d %v", code, r.Findings)
	}
	s.Kill()
	if r, code := examined(t, s, "--full"); code != 0 || !r.Clean() {
		t.Errorf("after a kill: %d %v", code, r.Findings)
	}
	path := filepath.Join(s.Data, "tako.db")
	d := dbtest.OpenURL(t, "sqlite:"+path)
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), `DROP INDEX documents_by_slug`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if r, code := examined(t, s); code != 3 || len(r.Findings) == 0 || r.Findings[0].Code != "index-missing" || r.Findings[0].Fixed != "" {
		t.Errorf("with damage: %d %v", code, r.Findings)
	}
	out, errOut, code := onServer(t, s, nil, "", "doctor", "--fix")
	if code != 0 || !strings.Contains(out, "Repaired: made it again") || !strings.Contains(errOut, "tako backup create") {
		t.Errorf("repair: %d %s%s", code, out, errOut)
	}
	if r, code := examined(t, s); code != 0 || !r.Clean() {
		t.Errorf("after the repair: %d %v", code, r.Findings)
	}
	if _, _, code := onServer(t, &apptest.Process{Data: filepath.Join(s.Data, "none")}, nil, "", "doctor"); code != 1 {
		t.Errorf("where there is no server: exit code %d", code)
	}

	// Pages of the database that are none, in a copy of its file.
	broken := filepath.Join(apptest.ShortDir(t), "broken")
	if err := d.CopyTo(t.Context(), mkdir(t, broken)+"/tako.db"); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(broken, "tako.db"))
	if err != nil {
		t.Fatal(err)
	}
	copy(file[len(file)/2:], bytes.Repeat([]byte{0xa5}, 5*4096))
	if err := os.WriteFile(filepath.Join(broken, "tako.db"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	r, code := examined(t, &apptest.Process{Data: broken})
	found := false
	for _, f := range r.Findings {
		found = found || f.Code == "database-damaged"
	}
	if code != 3 || !found {
		t.Errorf("damaged pages: %d %v", code, r.Findings)
	}
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMoveToPostgresAndBack moves a server to PostgreSQL and to SQLite in another data
// directory, is killed at every step, and compares what the servers answer.
func TestMoveToPostgresAndBack(t *testing.T) {
	t.Parallel()
	first := apptest.NewProcess(t, db.SQLite)
	first.Start()
	m := newModel(t, first.Client)
	m.process(t, script("Say", "echo hello; echo kept > kept.txt; new_octopusartifact kept.txt"))
	_, version := m.release(t, nil)
	wait(t, first.Client, m.deploy(t, version, m.Dev), 2*time.Minute)
	apptest.Post(t, first.Client, "/api/accounts", account("first", "secret"))
	first.Upload(t, "/api/packages/raw", "Acme.Web.1.0.0.zip", archive(t, map[string]string{"a": "b"}))
	if _, errOut, code := onServer(t, first, nil, "", "database", "copy", "--to", "sqlite:"+filepath.Join(t.TempDir(), "tako.db")); code != 1 || !strings.Contains(errOut, "stop them first") {
		t.Errorf("a copy beside a running server: %d %s", code, errOut)
	}
	was := answers(t, first.Client)
	first.Stop()
	before, err := os.ReadFile(filepath.Join(first.Data, "tako.db"))
	if err != nil {
		t.Fatal(err)
	}

	second := apptest.NewProcess(t, db.Postgres)
	second.Data = first.Data
	third := apptest.NewProcess(t, db.SQLite)
	cut := func(from, to *apptest.Process, url string, edges []string, args ...string) {
		t.Helper()
		args = append([]string{"database", "copy"}, args...)
		for _, edge := range edges {
			if out, errOut, code := onServer(t, from, []string{"TAKO_COPY_TO=" + url, "TAKO_FAILPOINT=" + edge + ":kill"}, "", args...); code != -1 {
				t.Fatalf("%s: the command ended with %d: %s%s", edge, code, out, errOut)
			}
			if _, errOut, code := onServer(t, to, nil, "", "server", "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(errOut, "was cut short") {
				t.Errorf("%s: a server on the half of a copy: %d %s", edge, code, errOut)
			}
		}
		out, errOut, code := onServer(t, from, []string{"TAKO_COPY_TO=" + url}, "", args...)
		if code != 0 || !strings.Contains(out, "equal to the source") {
			t.Fatalf("copy: %d %s%s", code, out, errOut)
		}
	}
	cut(first, second, second.Database, []string{"copy-marked", "copy-batch", "copy-table", "copy-copied", "copy-accepted"})
	after, err := os.ReadFile(filepath.Join(first.Data, "tako.db"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the source was changed: %d bytes, then %d, %v", len(before), len(after), err)
	}
	second.Start()
	compareAnswers(t, was, answers(t, second.Client))
	second.Stop()

	cut(second, third, "sqlite:"+filepath.Join(third.Data, "tako.db"), []string{"copy-blob"}, "--to-data", third.Data)
	third.Start()
	compareAnswers(t, was, answers(t, third.Client))
	moved := *m
	moved.Client = third.Client
	if done := wait(t, third.Client, moved.deploy(t, version, m.Dev), 2*time.Minute); !done.FinishedSuccessfully {
		t.Errorf("a deployment on the moved server: %s %s", done.State, done.ErrorMessage)
	}
	if r, code := examined(t, third, "--full"); code != 0 {
		t.Errorf("the moved server: %v", r.Findings)
	}
	checkKeys(t, third)
}

// answers are what a server says of what it has.
func answers(t *testing.T, c *apptest.Client) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, path := range []string{
		"/api/projects/all", "/api/environments/all", "/api/accounts/all", "/api/releases", "/api/deployments", "/api/artifacts", "/api/tasks/ServerTasks-1/raw",
		"/api/feeds/feeds-builtin/packages/versions?packageId=Acme.Web", "/api/packages/packages-Acme.Web.1.0.0/raw", "/api/artifacts/Artifacts-1/content", "/api/users/me",
	} {
		out[path] = c.Must(t, http.MethodGet, path, nil, nil).Body
	}
	return out
}

func compareAnswers(t *testing.T, want, got map[string][]byte) {
	t.Helper()
	for path, body := range want {
		if !bytes.Equal(body, got[path]) {
			t.Errorf("GET %s: %.300s, want %.300s", path, got[path], body)
		}
	}
}
