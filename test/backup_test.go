package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
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
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// loaded is a server that a crowd works on.
type loaded struct {
	*apptest.Process
	*model
	stop  context.CancelFunc
	crowd sync.WaitGroup

	mu       sync.Mutex
	done     map[string]int // how many writes of a client were answered
	failures []string
}

// load has writers make accounts, uploaders push packages, and somebody deploy, until
// stopped.
func load(t *testing.T, s *apptest.Process) *loaded {
	t.Helper()
	l := &loaded{Process: s, model: newModel(t, s.Client), done: map[string]int{}}
	l.process(t, script("Say", "for i in 1 2 3 4 5; do echo line $i; done; echo kept > kept.txt; new_octopusartifact kept.txt"))
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	t.Cleanup(func() { stop(); l.crowd.Wait() })
	client := func(name string, one func(n int) error) {
		l.crowd.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				err := one(n)
				l.mu.Lock()
				if err == nil {
					l.done[name] = n + 1
				} else if ctx.Err() == nil {
					l.failures = append(l.failures, name+": "+err.Error())
				}
				l.mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	for i := range 4 {
		name := fmt.Sprintf("writer%d", i)
		client(name, func(n int) error {
			return call(ctx, s.Client, http.MethodPost, "/api/accounts", account(fmt.Sprintf("%s-%d", name, n), "secret"), nil)
		})
	}
	client("uploader", func(n int) error {
		content := archive(t, map[string]string{"a.txt": strings.Repeat(fmt.Sprint(n), 10_000)})
		return upload(ctx, s.Client, fmt.Sprintf("Acme.Load.1.0.%d.zip", n), content)
	})
	client("deployer", func(n int) error {
		version := fmt.Sprintf("1.0.%d", n)
		if err := call(ctx, s.Client, http.MethodPost, space+"/releases/create/v1", map[string]any{
			"spaceId": "Spaces-1", "spaceIdOrName": "Spaces-1", "projectName": l.Project.Name, "releaseVersion": version,
		}, nil); err != nil {
			return err
		}
		return call(ctx, s.Client, http.MethodPost, space+"/deployments/create/untenanted/v1", l.deployment(version, l.Dev), nil)
	})
	return l
}

func upload(ctx context.Context, c *apptest.Client, name string, content []byte) error {
	body, contentType, err := apptest.Form(name, content)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/api/packages/raw", body)
	if err != nil {
		return err
	}
	req.Header.Set("X-Octopus-ApiKey", c.Key)
	req.Header.Set("Content-Type", contentType)
	resp, err := c.Send(req)
	if err == nil && resp.Status != http.StatusCreated {
		err = fmt.Errorf("push %s: %d %s", name, resp.Status, resp.Body)
	}
	return err
}

// progress is how much each client has done.
func (l *loaded) progress() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for name, n := range l.done {
		out[name] = n
	}
	return out
}

// await waits until every client has done n more than before, and a deployment has ended.
func (l *loaded) await(t *testing.T, before map[string]int, n int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; <-time.After(20 * time.Millisecond) {
		now, ready := l.progress(), true
		for _, name := range []string{"writer0", "writer1", "writer2", "writer3", "uploader", "deployer"} {
			ready = ready && now[name] >= before[name]+n
		}
		ended := apptest.Get[octopus.Page[octopus.Task]](t, l.Process.Client, "/api/tasks?states=Success&take=3")
		if ready && len(ended.Items) == 3 {
			return
		}
		if time.Now().After(deadline) || len(l.failures) > 0 {
			t.Fatalf("after two minutes the clients have done %v; failures: %v", now, l.failures)
		}
	}
}

var backupID = regexp.MustCompile(`Backup (\S+): database`)

func createBackup(t *testing.T, s *apptest.Process, args ...string) (id, path string) {
	t.Helper()
	out := mustOnServer(t, s, "", append([]string{"backup", "create"}, args...)...)
	found := backupID.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("backup create says %q", out)
	}
	return found[1], filepath.Join(s.Data, "backups", found[1])
}

// kitFile has a server's recovery kit.
func kitFile(t *testing.T, s *apptest.Process) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kit.txt")
	mustOnServer(t, s, "", "key", "recovery-kit", "--out", path)
	return path
}

// TestBackupUnderLoad backs a server up in the middle of work, restores it elsewhere
// with nothing but the kit, and compares what both servers answer.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.NewProcess(t, dialect)
			s.Start()
			kit := kitFile(t, s)
			l := load(t, s)
			l.await(t, nil, 3)
			before := l.progress()
			_, path := createBackup(t, s, "--verify", "3")
			after := l.progress()
			l.await(t, after, 2)
			l.stop()
			l.crowd.Wait()
			if len(l.failures) > 0 {
				t.Errorf("requests failed while the backup was taken: %v", l.failures)
			}

			instant := decode[[]struct{ Created time.Time }](t, []byte(mustOnServer(t, s, "", "backup", "list", "--output", "json")))[0].Created
			c := apptest.NewProcess(t, dialect)
			out := mustOnServer(t, c, "", "backup", "restore", path, "--recovery-key-file", kit)
			t.Logf("%v, then %v; %s", before, after, out)
			c.Start()
			l.compare(t, c, before, after, instant)
			checkKeys(t, c)
		})
	}
}

// compare holds a restored server against the one that the backup was of. before and
// after are what the clients had done when the backup began and when it was taken.
func (l *loaded) compare(t *testing.T, c *apptest.Process, before, after map[string]int, instant time.Time) {
	t.Helper()
	// Each client wrote one thing after the other, so the backup has the first so many.
	accounts := apptest.Get[[]json.RawMessage](t, c.Client, "/api/accounts/all")
	has := map[string][]int{}
	for _, raw := range accounts {
		a := decode[struct{ ID, Name string }](t, raw)
		writer, digits, _ := strings.Cut(a.Name, "-")
		var n int
		if _, err := fmt.Sscan(digits, &n); err != nil {
			t.Fatalf("account %q: %v", a.Name, err)
		}
		has[writer] = append(has[writer], n)
		same(t, "account "+a.Name, raw, l.Process.Must(t, http.MethodGet, "/api/accounts/"+a.ID, nil, nil).Body)
	}
	for i := range 4 {
		writer := fmt.Sprintf("writer%d", i)
		got := has[writer]
		slices.Sort(got)
		for n := range got {
			if got[n] != n {
				t.Fatalf("the backup has %v of %s, which is no beginning", got, writer)
			}
		}
		if len(got) < before[writer] || len(got) > after[writer]+1 {
			t.Errorf("the backup has %d accounts of %s; it had %d when it began and %d when it was taken", len(got), writer, before[writer], after[writer])
		}
	}
	all := apptest.Get[octopus.Page[struct{ ID, Version string }]](t, c.Client, "/api/feeds/feeds-builtin/packages/versions?packageId=Acme.Load&take=1000")
	if n := len(all.Items); n < before["uploader"] || n > after["uploader"]+1 {
		t.Errorf("the backup has %d packages; there were %d when it began and %d when it was taken", n, before["uploader"], after["uploader"])
	}
	for _, p := range all.Items {
		l.sameContent(t, c, "/api/packages/packages-Acme.Load."+p.Version+"/raw")
	}
	// What was under way waits in the copy, so only what had ended is compared.
	ended := map[string]bool{}
	for _, one := range apptest.Get[octopus.Page[octopus.Task]](t, c.Client, "/api/tasks?states=Success&name=Deploy&take=1000").Items {
		if one.CompletedTime != nil && one.CompletedTime.Before(instant) {
			ended[one.ID] = true
			l.sameContent(t, c, "/api/tasks/"+one.ID+"/raw")
		}
	}
	artifacts := 0
	for _, a := range apptest.Get[octopus.Page[struct{ ID, ServerTaskID string }]](t, c.Client, "/api/artifacts?take=1000").Items {
		if ended[a.ServerTaskID] {
			artifacts++
			l.sameContent(t, c, "/api/artifacts/"+a.ID+"/content")
		}
	}
	if len(ended) == 0 || artifacts < len(ended) {
		t.Errorf("the backup has %d deployments that had ended, and %d artifacts of theirs", len(ended), artifacts)
	}
	t.Logf("equal: %d accounts, %d packages, %d logs, %d artifacts", len(accounts), len(all.Items), len(ended), artifacts)
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	var a, b any
	if json.Unmarshal(got, &a) != nil || json.Unmarshal(want, &b) != nil {
		t.Fatalf("%s is no JSON: %s, %s", what, got, want)
	}
	if x, y := mustJSON(t, a), mustJSON(t, b); !bytes.Equal(x, y) {
		t.Errorf("%s is %s, want %s", what, x, y)
	}
}

func (l *loaded) sameContent(t *testing.T, c *apptest.Process, path string) {
	t.Helper()
	got := c.Must(t, http.MethodGet, path, nil, nil).Body
	want := l.Process.Must(t, http.MethodGet, path, nil, nil).Body
	if sha256.Sum256(got) != sha256.Sum256(want) || len(got) == 0 {
		t.Errorf("GET %s: %d bytes of the copy differ from %d of the server", path, len(got), len(want))
	}
}

// TestBackupKilledAtEachEdge kills backup and restore at each of their steps.
func TestBackupKilledAtEachEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.NewProcess(t, dialect)
			s.Start()
			apptest.Post(t, s.Client, "/api/accounts", account("first", "secret"))
			for _, name := range []string{"Acme.Web.1.0.0.zip", "Acme.Web.1.1.0.zip"} {
				if r := s.Upload(t, "/api/packages/raw", name, archive(t, map[string]string{"a": name})); r.Status != http.StatusCreated {
					t.Fatalf("push: %d %s", r.Status, r.Body)
				}
			}
			kill := func(edge string, args ...string) {
				t.Helper()
				if out, errOut, code := onServer(t, s, []string{"TAKO_FAILPOINT=" + edge + ":kill"}, "", args...); code != -1 {
					t.Fatalf("%s: the command ended with %d:\n%s%s", edge, code, out, errOut)
				}
			}
			count := func() int {
				return len(decode[[]struct{}](t, []byte(mustOnServer(t, s, "", "backup", "list", "--output", "json"))))
			}
			want := 0
			for _, edge := range []string{"backup-begun", "backup-held", "backup-copied", "backup-sealed", "backup-blob", "backup-listed", "backup-done"} {
				kill(edge, "backup", "create")
				if edge == "backup-done" {
					want++
				}
				if n := count(); n != want {
					t.Errorf("%s: there are %d backups, want %d", edge, n, want)
				}
			}
			createBackup(t, s)
			// Of prune the rest is a backup less, and then what it left.
			for _, edge := range []string{"prune-renamed", "prune-blob"} {
				if edge == "prune-blob" {
					deletePackage(t, s)
					createBackup(t, s) // and none of those before is needed any more
				}
				kill(edge, "backup", "prune", "--keep-daily", "0", "--keep-weekly", "0")
				mustOnServer(t, s, "", "backup", "verify", "latest")
			}
			mustOnServer(t, s, "", "backup", "prune", "--keep-daily", "0", "--keep-weekly", "0")
			if n := count(); n != 1 {
				t.Errorf("prune left %d backups, want the newest", n)
			}
			mustOnServer(t, s, "", "backup", "verify", "latest")
			for _, dir := range []string{filepath.Join(s.Data, "backups"), filepath.Join(s.Data, "tmp")} {
				left, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range left {
					if name := e.Name(); strings.HasPrefix(name, ".partial") || strings.HasPrefix(name, ".trash") || strings.HasPrefix(name, "backup-") || strings.HasPrefix(name, "verify-") {
						t.Errorf("the next backup left %s", name)
					}
				}
			}

			apptest.Post(t, s.Client, "/api/accounts", account("second", "secret"))
			edges := []string{"restore-staged", "restore-blob", "restore-marked", "restore-kept", "restore-unlogged", "restore-swapped"}
			if dialect == db.Postgres {
				edges = []string{"restore-staged", "restore-blob", "restore-marked", "restore-loaded", "restore-swapped"}
			}
			s.Stop()
			for _, edge := range edges {
				kill(edge, "backup", "restore", "latest")
				// Either the old state or the new one, or no start at all.
				out, errOut, code := onServer(t, s, nil, "", "key", "check")
				if half := strings.Contains(errOut, "cut short"); !half && !strings.Contains(out, "of which 0 do not open") {
					t.Errorf("%s: %d %s%s", edge, code, out, errOut)
				}
			}
			mustOnServer(t, s, "", "backup", "restore", "latest")
			s.Start()
			if names := accountNames(t, s.Client); !slices.Equal(names, []string{"first"}) {
				t.Errorf("the restored server has the accounts %v", names)
			}
			s.Must(t, http.MethodGet, "/api/packages/packages-Acme.Web.1.1.0/raw", nil, nil)
		})
	}
}

// deletePackage deletes one of the packages.
func deletePackage(t *testing.T, s *apptest.Process) {
	t.Helper()
	s.Must(t, http.MethodDelete, "/api/packages/packages-Acme.Web.1.0.0", nil, nil)
}

func accountNames(t *testing.T, c *apptest.Client) (names []string) {
	t.Helper()
	for _, a := range apptest.Get[[]struct{ Name string }](t, c, "/api/accounts/all") {
		names = append(names, a.Name)
	}
	slices.Sort(names)
	return names
}

// TestRestoreInPlace goes back to a backup and looks at what was kept.
func TestRestoreInPlace(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.NewProcess(t, dialect)
			s.Start()
			m := newModel(t, s.Client)
			m.process(t, script("Say", "echo hello"))
			_, version := m.release(t, nil)
			deploy := func() {
				t.Helper()
				if done := wait(t, s.Client, m.deploy(t, version, m.Dev), 2*time.Minute); !done.FinishedSuccessfully {
					t.Fatalf("the deployment ended as %s: %s", done.State, done.ErrorMessage)
				}
			}
			deploy()
			id, _ := createBackup(t, s)
			deploy()
			deploy()
			lost := apptest.Get[octopus.Page[octopus.Event]](t, s.Client, "/api/events?take=1").Items[0].ID
			former := masterKey(t, s)
			mustOnServer(t, s, "", "key", "rotate")
			// The server opens what it made under its former key, but the secrets within
			// are under that key still, which only the kit has.
			kit := kitFile(t, s)
			if _, errOut, code := onServer(t, s, nil, "", "backup", "restore", id, "--recovery-key-file", kit); code != 1 || !strings.Contains(errOut, "stop") {
				t.Errorf("restore under a running server: %d %s", code, errOut)
			}
			if dialect == db.SQLite {
				s.Kill() // and leave a write-ahead log
			} else {
				s.Stop() // a killed node counts as running for a minute
			}
			if _, errOut, code := onServer(t, s, nil, "", "backup", "restore", id); code != 1 || !strings.Contains(errOut, "--recovery-key-file") {
				t.Errorf("restore without the kit: %d %s", code, errOut)
			}
			if dialect == db.Postgres {
				// The transaction is undone, so the key must be what it was, too.
				rotated := masterKey(t, s)
				if _, errOut, code := onServer(t, s, []string{"TAKO_FAILPOINT=restore-loaded:err"}, "", "backup", "restore", id, "--recovery-key-file", kit); code != 1 || masterKey(t, s) != rotated {
					t.Errorf("a restore that fails: %d %s; the key is the former one: %v", code, errOut, masterKey(t, s) == rotated)
				}
				checkKeys(t, s)
			}
			// On PostgreSQL nobody hears that it was committed: the database tells.
			out, errOut, code := onServer(t, s, []string{"TAKO_FAILPOINT=restore-committed:err"}, "", "backup", "restore", id, "--recovery-key-file", kit)
			if code != 0 {
				t.Fatalf("restore: exit code %d\n%s%s", code, out, errOut)
			}
			if !strings.Contains(out, "2 deployments of the replaced database are newer") {
				t.Errorf("restore says %q", out)
			}
			if masterKey(t, s) != former {
				t.Error("the master key is not that of the backup")
			}
			d := openDatabase(t, s)
			kept := "SELECT count(*) FROM deployment"
			if dialect == db.Postgres {
				schema := regexp.MustCompile(`before_restore_\w+`).FindString(out)
				kept = `SELECT count(*) FROM "` + schema + `".deployment`
			} else {
				d = dbtest.OpenURL(t, "sqlite:"+filepath.Join(s.Data, "tako.db.before-restore"))
			}
			var n int
			err := d.Read(t.Context(), func(tx *db.Tx) error { return tx.QueryRow(t.Context(), kept).Scan(&n) })
			if err != nil || n != 3 {
				t.Errorf("what was replaced has %d deployments, %v, want 3", n, err)
			}
			s.Start()
			if all := apptest.Get[octopus.Page[octopus.Deployment]](t, s.Client, "/api/deployments"); len(all.Items) != 1 {
				t.Errorf("the restored server has %d deployments, want 1", len(all.Items))
			}
			deploy()
			// Who has followed the trail by number, or told repetitions by it, misses nothing.
			number, _ := ident.Seq(lost)
			if news := apptest.Get[octopus.Page[octopus.Event]](t, s.Client, fmt.Sprintf("/api/events?fromAutoId=%d", number+1)); news.TotalResults < 2 {
				t.Errorf("after %s there are %d events of the restored server", lost, news.TotalResults)
			}
		})
	}
}
