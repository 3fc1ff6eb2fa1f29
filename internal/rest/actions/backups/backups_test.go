package backups_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/octopus"
)

// until waits for what a task is to become.
func until(t *testing.T, s *apptest.Client, id string, is func(octopus.Task) bool) octopus.Task {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // between two looks
		task := apptest.Get[octopus.Task](t, s, "/api/tasks/"+id)
		if is(task) {
			return task
		}
		if task.IsCompleted || time.Now().After(deadline) {
			t.Fatalf("%s is %s: %s\n%s", id, task.State, task.ErrorMessage, raw(t, s, id))
		}
	}
}

func raw(t *testing.T, s *apptest.Client, id string) string {
	t.Helper()
	return string(s.Must(t, http.MethodGet, "/api/tasks/"+id+"/raw", nil, nil).Body)
}

func start(t *testing.T, s *apptest.Server, path, body string) (task octopus.Task) {
	t.Helper()
	s.Must(t, http.MethodPost, path, body, &task)
	return task
}

func ended(state octopus.TaskState) func(octopus.Task) bool {
	return func(task octopus.Task) bool { return task.State == state }
}

// TestBackups takes, lists and proves backups through the API; damage is found, two
// tasks run one after the other, and one that waits can be canceled.
func TestBackups(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.StartWith(t, dialect, apptest.Options{NoWorker: true})
			const path = "/api/system/backups"
			if page := apptest.Get[octopus.Page[octopus.Backup]](t, s.Client, path); page.TotalResults != 0 {
				t.Fatalf("before: %+v", page)
			}
			s.Upload(t, "/api/packages/raw", "Acme.Web.1.0.0.zip", []byte("content"))
			task := start(t, s, path, "")
			if task.Name != octopus.TaskBackup || task.SpaceID != "" {
				t.Errorf("the task is %+v", task)
			}
			until(t, s.Client, task.ID, ended(octopus.TaskSuccess))
			page := apptest.Get[octopus.Page[octopus.Backup]](t, s.Client, path)
			if page.TotalResults != 1 || len(page.Items) != 1 {
				t.Fatalf("there are %+v", page)
			}
			b := page.Items[0]
			if b.VerifiedLevel != 2 || b.VerifiedAt == nil || b.Created == nil || b.Database != dialect.String() || b.DatabaseSize == 0 || b.BlobCount != 1 || b.BlobSize != 7 || b.Problem != "" {
				t.Errorf("the backup is %+v", b)
			}
			if log := raw(t, s.Client, task.ID); !strings.Contains(log, "Backup "+b.ID+": database ") || !strings.Contains(log, "Backup "+b.ID+" is good: proven at level 2") || !strings.Contains(log, "copying the database") {
				t.Errorf("the log:\n%s", log)
			}
			if rest := apptest.Get[octopus.Page[octopus.Backup]](t, s.Client, path+"?skip=1"); len(rest.Items) != 0 || rest.TotalResults != 1 {
				t.Errorf("the second page is %+v", rest)
			}
			if b.IsPinned || b.PinReason != "" || b.PinnedUntil != nil {
				t.Errorf("a backup that nobody has pinned is %+v", b)
			}
			store, err := backup.Open(filepath.Join(s.Data, "backups"))
			if err != nil {
				t.Fatal(err)
			}
			if err := store.Pin(b.ID, backup.Pin{Reason: "audit", Upgrade: "u-1", Until: time.Now().Add(time.Hour)}); err != nil {
				t.Fatal(err)
			}
			if now := apptest.Get[octopus.Backup](t, s.Client, path+"/"+b.ID); !now.IsPinned || now.PinReason != "audit" || now.PinnedForUpgrade != "u-1" || now.PinnedUntil == nil {
				t.Errorf("a pinned backup is %+v", now)
			}
			s.Refused(t, http.StatusBadRequest, http.MethodPost, path, `{"Level":4}`)
			s.Refused(t, http.StatusNotFound, http.MethodGet, path+"/20200101T000000Z-aaaa", nil)
			s.Refused(t, http.StatusNotFound, http.MethodPost, path+"/latest/verify", nil)

			// While somebody else works on the backups, a task waits, and can be canceled;
			// another waits for it.
			lock, err := os.OpenFile(filepath.Join(s.Data, "backups", ".lock"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			first, second := start(t, s, path, ""), start(t, s, path+"/"+b.ID+"/verify", `{"Level":1}`)
			until(t, s.Client, first.ID, func(octopus.Task) bool { return strings.Contains(raw(t, s.Client, first.ID), "Another process") })
			if now := apptest.Get[octopus.Task](t, s.Client, "/api/tasks/"+second.ID); now.State != octopus.TaskQueued {
				t.Errorf("the second task is %s beside the first", now.State)
			}
			s.Must(t, http.MethodPost, "/api/tasks/"+first.ID+"/cancel", nil, nil)
			until(t, s.Client, first.ID, ended(octopus.TaskCanceled))
			if err := lock.Close(); err != nil {
				t.Fatal(err)
			}
			until(t, s.Client, second.ID, ended(octopus.TaskSuccess))

			// A changed bit.
			file := filepath.Join(s.Data, "backups", b.ID, "database.age")
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			content[len(content)/2] ^= 1
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			task = start(t, s, path+"/"+b.ID+"/verify", `{"Level":1}`)
			task = until(t, s.Client, task.ID, ended(octopus.TaskFailed))
			if !strings.Contains(task.ErrorMessage, "is damaged") {
				t.Errorf("a damaged backup fails with %q", task.ErrorMessage)
			}
			if now := apptest.Get[octopus.Backup](t, s.Client, path+"/"+b.ID); now.VerifiedLevel != 0 {
				t.Errorf("a damaged backup is still %+v", now)
			}
			if n := apptest.Get[octopus.Page[octopus.Event]](t, s.Client, "/api/events?eventCategories=TaskQueued&documentTypes=ServerTasks").TotalResults; n != 4 {
				t.Errorf("%d of 4 tasks are in the audit trail", n)
			}
			if done := apptest.Get[octopus.Page[octopus.Event]](t, s.Client, "/api/events?eventCategories=BackupSucceeded"); done.TotalResults != 2 {
				t.Errorf("the audit trail has %+v", done.Items)
			}
		})
	}
}

// TestScheduledBackups: the settings are checked, a scheduled backup is taken, proven and
// followed by retention, and one that fails is warned of.
func TestScheduledBackups(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.StartWith(t, dialect, apptest.Options{NoWorker: true})
			const path = "/api/backupconfiguration"
			c := apptest.Get[octopus.BackupConfiguration](t, s.Client, path)
			if c.IsEnabled || c.CronExpression != "0 0 2 * * *" || c.Timezone != "UTC" || c.VerifyLevel != 2 || *c.KeepDaily != 7 || *c.KeepWeekly != 4 || c.WarnAfterHours != 50 {
				t.Errorf("the defaults are %+v", c)
			}
			for body, says := range map[string]string{
				`{"CronExpression":"soon"}`:                          "CronExpression is 'soon'",
				`{"IsEnabled":true,"CronExpression":"0 0 2 30 2 *"}`: "never comes",
				`{"Timezone":"Mars/Olympus"}`:                        "Timezone is 'Mars/Olympus'",
				`{"VerifyLevel":4}`:                                  "VerifyLevel is 4",
				`{"KeepDaily":-1}`:                                   "KeepDaily is -1",
				`{"KeepWeekly":4000}`:                                "KeepWeekly is 4000",
				`{"WarnAfterHours":-1}`:                              "WarnAfterHours is -1",
			} {
				if got := s.Refused(t, http.StatusBadRequest, http.MethodPut, path, body); !strings.Contains(got, says) {
					t.Errorf("%s: %s", body, got)
				}
			}
			put := func(body string) { s.Must(t, http.MethodPut, path, body, nil) }
			// event waits for one of a category that says something.
			event := func(category, says string) {
				t.Helper()
				for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // between two looks
					if page := apptest.Get[octopus.Page[octopus.Event]](t, s.Client, "/api/events?eventCategories="+category); slices.ContainsFunc(page.Items, func(e octopus.Event) bool { return strings.Contains(e.Message, says) }) {
						return
					}
				}
				t.Fatalf("no event %s says %q", category, says)
			}
			put(`{"IsEnabled":true,"CronExpression":"* * * * * *","VerifyLevel":1,"KeepDaily":0,"KeepWeekly":0}`)
			event("BackupSucceeded", "was taken, and proven at level 1")
			put(`{"IsEnabled":false}`)
			all := apptest.Get[octopus.TaskPage](t, s.Client, "/api/tasks?name=Backup")
			if len(all.Items) == 0 {
				t.Fatal("there is no task")
			}
			for _, task := range all.Items {
				until(t, s.Client, task.ID, ended(octopus.TaskSuccess))
			}
			if log := raw(t, s.Client, all.Items[0].ID); !strings.Contains(log, "Removed ") {
				t.Errorf("no retention:\n%s", log)
			}
			if page := apptest.Get[octopus.Page[octopus.Backup]](t, s.Client, "/api/system/backups"); page.TotalResults != 1 || page.Items[0].VerifiedLevel != 1 {
				t.Errorf("retention left %+v", page.Items)
			}

			dir := filepath.Join(s.Data, "backups")
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			put(`{"IsEnabled":true,"CronExpression":"* * * * * *"}`)
			event("BackupFailed", "The scheduled backup failed: ")
			put(`{"IsEnabled":false}`)
		})
	}
}

// TestBackupGoesOn kills the server once the backup of a task is there: the next one
// proves it, and takes no other.
func TestBackupGoesOn(t *testing.T) {
	t.Parallel()
	p := apptest.NewProcess(t, db.SQLite)
	p.Env = append(p.Env, "TAKO_FAILPOINT=backup-noted:kill")
	p.Start()
	var task octopus.Task
	p.Must(t, http.MethodPost, "/api/system/backups", nil, &task)
	for deadline := time.Now().Add(2 * time.Minute); !p.Exited(); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // between two looks
		if time.Now().After(deadline) {
			t.Fatal("the server has not come to the failpoint")
		}
	}
	p.Env = p.Env[:len(p.Env)-1]
	p.Start()
	until(t, p.Client, task.ID, ended(octopus.TaskSuccess))
	page := apptest.Get[octopus.Page[octopus.Backup]](t, p.Client, "/api/system/backups")
	if page.TotalResults != 1 || page.Items[0].VerifiedLevel != 2 {
		t.Errorf("there are %+v", page.Items)
	}
	if log := raw(t, p.Client, task.ID); !strings.Contains(log, " is there already.") {
		t.Errorf("the log:\n%s", log)
	}
}

// TestClones makes test instances through the API: of the server as it is, and of a
// backup. What cannot be done is named, before or in the log.
func TestClones(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.StartWith(t, dialect, apptest.Options{NoWorker: true})
			const path = "/api/system/clones"
			s.Must(t, http.MethodPost, "/api/accounts", `{"AccountType":"Token","Name":"cloud","Token":{"HasValue":true,"NewValue":"hush"}}`, nil)
			database := func() string {
				if dialect == db.SQLite {
					return ""
				}
				return dbtest.EmptyURL(t, dialect)
			}
			body := func(from, dir, database string) string {
				text, err := json.Marshal(octopus.CloneRequest{BackupID: from, Directory: dir, Database: database})
				if err != nil {
					t.Fatal(err)
				}
				return string(text)
			}
			into := filepath.Join(t.TempDir(), "copy")
			first := start(t, s, path, body("", into, database()))
			if first.Name != octopus.TaskClone || first.SpaceID != "" || first.Description != "Make a test instance in "+into {
				t.Errorf("the task is %+v", first)
			}
			until(t, s.Client, first.ID, ended(octopus.TaskSuccess))
			m, err := instance.Read(into)
			if err != nil || !m.Quarantined() || m.Unfinished {
				t.Fatalf("the marker is %+v, %v", m, err)
			}
			log := raw(t, s.Client, first.ID)
			for _, want := range []string{"copying the database", "Test instance " + m.ID + " is in " + into, "disarming the copy", "secrets: 1, taken out"} {
				if !strings.Contains(log, want) {
					t.Errorf("the log has no %q:\n%s", want, log)
				}
			}
			if strings.Contains(log, "hush") {
				t.Errorf("the log has a secret:\n%s", log)
			}
			if told := apptest.Get[octopus.Page[octopus.Event]](t, s.Client, "/api/events?eventCategories=Cloned,TaskQueued&documentTypes=ServerTasks"); told.TotalResults != 2 ||
				!strings.Contains(told.Items[0].Message, "Test instance "+m.ID+" was made in "+into+" from backup "+m.Backup) || !strings.Contains(told.Items[1].Message, into) || told.Items[1].UserID == "" {
				t.Errorf("the audit trail has %+v", told.Items)
			}

			// Of a backup, into a directory that is not empty, and into one that is.
			second := start(t, s, path, body(m.Backup, into, database()))
			if failed := until(t, s.Client, second.ID, ended(octopus.TaskFailed)); !strings.Contains(failed.ErrorMessage, into+" is not empty") {
				t.Errorf("a directory that is there: %q", failed.ErrorMessage)
			}
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			below := start(t, s, path, body("latest", filepath.Join(file, "copy"), database()))
			if failed := until(t, s.Client, below.ID, ended(octopus.TaskFailed)); !strings.Contains(failed.ErrorMessage, "cannot be the directory of a copy") {
				t.Errorf("a directory below a file: %q", failed.ErrorMessage)
			}
			if dialect == db.Postgres {
				nowhere := start(t, s, path, body("latest", into+"-3", strings.Replace(database(), "/test_", "/nowhere_", 1)))
				if failed := until(t, s.Client, nowhere.ID, ended(octopus.TaskFailed)); !strings.Contains(failed.ErrorMessage, "nowhere_") {
					t.Errorf("a database that is not there: %q", failed.ErrorMessage)
				}
			}
			third := start(t, s, path, body("latest", into+"-2", database()))
			until(t, s.Client, third.ID, ended(octopus.TaskSuccess))
			if other, err := instance.Read(into + "-2"); err != nil || other.Backup != m.Backup || other.ID == m.ID {
				t.Errorf("the second copy is %+v, %v", other, err)
			}

			good := map[bool]string{true: "", false: "postgres://h/d"}[dialect == db.SQLite]
			for bad, says := range map[string]string{
				body("20200101T000000Z-aaaa", "/new", good):             "BackupId is '20200101T000000Z-aaaa'",
				body("", "", good):                                      "Directory is empty",
				body("", "new", good):                                   "Directory is 'new'; give the absolute path",
				body("", s.Data, good):                                  "which is within",
				body("", filepath.Join(s.Data, "x", "..", "y"), good):   "which is within",
				body("", filepath.Join(s.Data, "backups", "new"), good): "which is within",
			} {
				if got := s.Refused(t, http.StatusBadRequest, http.MethodPost, path, bad); !strings.Contains(got, says) {
					t.Errorf("%s: %s", bad, got)
				}
			}
			databases := map[string]string{"postgres://h/d": "Database is given"}
			if dialect == db.Postgres {
				databases = map[string]string{
					"": "Database is empty", "mysql://h/d": "Database is no URL of a PostgreSQL database", "postgres://u:hunter2@h/d": "has a password in it", "postgres://u@h/d?password=hunter2": "has a password in it",
					"postgres://u@h/d?sslpassword=hunter2": "has a password in it", "postgres://u@h/d?service=x": "it may have the parameters",
					"postgres://u@elsewhere/d": "Database is on elsewhere:5432", strings.Replace(s.Database, "?", "?port=1&", 1): "clone_database_hosts",
				}
			}
			for bad, says := range databases {
				got := s.Refused(t, http.StatusBadRequest, http.MethodPost, path, body("", "/new", bad))
				if !strings.Contains(got, says) || strings.Contains(got, "hunter2") {
					t.Errorf("%s: %s", bad, got)
				}
			}
		})
	}
}

// TestCloneGoesOn kills the server when a test instance is made half, and when it is made
// and nobody has noted it: the next one makes it, once.
func TestCloneGoesOn(t *testing.T) {
	t.Parallel()
	p := apptest.NewProcess(t, db.SQLite)
	p.Start()
	var task octopus.Task
	into := filepath.Join(t.TempDir(), "copy")
	for i, edge := range []string{"clone-disarmed", "clone-made", ""} {
		p.Kill()
		env := p.Env
		if edge != "" {
			p.Env = append(slices.Clip(env), "TAKO_FAILPOINT="+edge+":kill")
		}
		p.Start()
		p.Env = env
		if i == 0 {
			p.Must(t, http.MethodPost, "/api/system/clones", octopus.CloneRequest{Directory: into}, &task)
		}
		if edge == "" {
			break
		}
		for deadline := time.Now().Add(2 * time.Minute); !p.Exited(); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // between two looks
			if time.Now().After(deadline) {
				t.Fatalf("the server has not come to %s", edge)
			}
		}
	}
	until(t, p.Client, task.ID, ended(octopus.TaskSuccess))
	if log := raw(t, p.Client, task.ID); !strings.Contains(log, "The test instance ") || !strings.Contains(log, " is there already.") {
		t.Errorf("the log:\n%s", log)
	}
	if m, err := instance.Read(into); err != nil || m.Unfinished {
		t.Errorf("the marker is %+v, %v", m, err)
	}
	if n := apptest.Get[octopus.Page[octopus.Backup]](t, p.Client, "/api/system/backups").TotalResults; n != 1 {
		t.Errorf("there are %d backups", n)
	}
}
