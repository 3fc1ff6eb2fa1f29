package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/installed"
)

// versionsNoted waits until so many versions have noted that they serve on a server's database, and
// lists them.
func versionsNoted(t *testing.T, p *apptest.Process, n int) (all []installed.Version) {
	t.Helper()
	eventually(t, "the version has noted that it serves", func() bool {
		all = decode[[]installed.Version](t, []byte(mustOnServer(t, p, "", "database", "versions", "--output", "json")))
		return len(all) >= n
	})
	if len(all) != n {
		t.Fatalf("%d versions have served, not %d: %+v", len(all), n, all)
	}
	return all
}

// TestPlainStartOfANextVersion starts the next version where the one before has stopped,
// without a supervisor: there is a proven backup before the schema is expanded.
func TestPlainStartOfANextVersion(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "tako-next")
	if err := os.WriteFile(program, nextProgram(t), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.Start()
			apptest.Post(t, p.Client, "/api/accounts", account("first", "hush"))
			versionsNoted(t, p, 1)
			p.Stop()
			level := func() int {
				t.Helper()
				m, err := openDatabase(t, p).Meta(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return m.SchemaLevel
			}
			was := level()
			backups := func() []backup.Backup {
				t.Helper()
				return decode[[]backup.Backup](t, []byte(mustOnServer(t, p, "", "backup", "list", "--output", "json")))
			}
			with := func(args ...string) ([]byte, int) {
				t.Helper()
				args = append(args, "--data", p.Data)
				if p.Database != "" {
					args = append(args, "--database", p.Database)
				}
				cmd := exec.CommandContext(t.Context(), program, args...)
				out, _ := cmd.CombinedOutput() // the exit code tells
				return out, cmd.ProcessState.ExitCode()
			}
			if out, code := with("server", "--no-expand", "--listen", "127.0.0.1:0", "--agent-listen", "off"); code != 78 || !bytes.Contains(out, []byte("--no-expand, which takes a backup first")) {
				t.Errorf("with --no-expand: exit code %d\n%s", code, out)
			}
			if now := level(); now != was || len(backups()) != 0 {
				t.Errorf("with --no-expand the schema has level %d after %d, and there are backups: %v", now, was, backups())
			}

			p.Program = program
			p.Start()
			if names := accountNames(t, p.Client); len(names) != 1 {
				t.Errorf("the accounts are %v", names)
			}
			versions := versionsNoted(t, p, 2)
			if versions[0].Number != next || versions[0].Level != was+1 || versions[1].Number == next || versions[1].Level != was || versions[0].Node != "test" || versions[1].Began.After(versions[0].Began) {
				t.Errorf("the versions are %+v", versions)
			}
			table := strings.Split(mustOnServer(t, p, "", "database", "versions"), "\n")
			if len(table) != 4 || !slices.Equal(strings.Fields(table[1]), []string{next, versions[0].Began.Format(time.RFC3339), "test", strconv.Itoa(was + 1)}) || !strings.HasPrefix(table[2], versions[1].Number+" ") {
				t.Errorf("as a table the versions are %q", table)
			}
			all := backups()
			if len(all) != 1 || all[0].SchemaLevel != was || all[0].Verified == nil || all[0].Verified.Level != backup.LevelDatabase || !all[0].Pin.Keeps(time.Now().AddDate(1, 0, 0)) {
				t.Errorf("the backups are %+v", all)
			}
			if now := level(); now != was+1 {
				t.Errorf("the schema has level %d after %d", now, was)
			}
			said := p.Output()
			proven, expanded := strings.Index(said, `msg="the backup is proven`), strings.Index(said, `msg="the schema is expanded"`)
			if proven < 0 || expanded < proven {
				t.Errorf("the server said:\n%s", said)
			}

			// Once is enough; two weeks after the end it may go.
			p.Stop()
			p.Start()
			if out, code := with("database", "finalize"); code != 0 {
				t.Errorf("finalize: %s", out)
			}
			p.Stop()
			out, code := with("backup", "list", "--output", "json")
			if code != 0 {
				t.Fatalf("list: %s", out)
			}
			if all := decode[[]backup.Backup](t, out); len(all) != 1 || !all[0].Pin.Keeps(time.Now().AddDate(0, 0, 13)) || all[0].Pin.Keeps(time.Now().AddDate(0, 0, 15)) {
				t.Errorf("after the end: %s", out)
			}
		})
	}
}
