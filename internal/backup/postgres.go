package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/tasks"
)

var versionPattern = regexp.MustCompile(`\) (\d+)`)

// programs finds the folder with PostgreSQL's own programs of a major version;
// those of another one may write what the server does not understand.
func programs(ctx context.Context, major int) (string, error) {
	candidates := []string{}
	if dir := os.Getenv("TAKO_TEST_PG_BIN"); dir != "" {
		candidates = append(candidates, dir)
	}
	candidates = append(candidates, fmt.Sprintf("/usr/lib/postgresql/%d/bin", major), fmt.Sprintf("/usr/pgsql-%d/bin", major))
	if path, err := exec.LookPath("pg_dump"); err == nil {
		candidates = append(candidates, filepath.Dir(path))
	}
	found := "none"
	for _, dir := range candidates {
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "pg_dump"), "--version").Output()
		if err != nil {
			continue
		}
		if match := versionPattern.FindSubmatch(out); match != nil {
			if string(match[1]) == strconv.Itoa(major) {
				return dir, nil
			}
			found = string(match[1])
		}
	}
	return "", fault.New(fault.Unavailable, "The database is PostgreSQL %d, and pg_dump, pg_restore and psql of that version are not here (found: %s); install the package postgresql-client-%d.", major, found, major)
}

// maxComplaint bounds what is kept of a program's error output.
const maxComplaint = 4096

// complaint keeps the beginning of what a program complains about.
type complaint struct{ bytes.Buffer }

func (c *complaint) Write(p []byte) (int, error) {
	if room := maxComplaint - c.Len(); room > 0 {
		_, _ = c.Buffer.Write(p[:min(room, len(p))]) // a buffer does not fail
	}
	return len(p), nil
}

// program prepares one of PostgreSQL's programs. It ends with ctx.
func program(ctx context.Context, bin, name string, server db.Server, args ...string) (*exec.Cmd, *complaint) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LC_ALL=C"}, server.Env...)
	said := &complaint{}
	cmd.Stderr = said
	return cmd, said
}

func failed(name string, err error, said *complaint) error {
	if err == nil {
		return nil
	}
	// Not wrapped: the program's exit code is not ours.
	err = fmt.Errorf("%s: %v: %s", name, err, strings.TrimSpace(said.String())) //nolint:errorlint // see above
	// What they know of a full disk, their own or the server's, is in words alone.
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT} {
		if strings.Contains(strings.ToLower(said.String()), full.Error()) {
			return fmt.Errorf("%w (%w)", err, full)
		}
	}
	return err
}

// dump writes a PostgreSQL database as it is at one moment, by pg_dump of its own
// version, and describes the same moment.
func dump(ctx context.Context, src Source, m *Manifest, path, hashes string) error {
	server, err := src.DB.Server(ctx)
	if err != nil {
		return err
	}
	m.Postgres, m.Schema = server.Major, server.Schema
	bin, err := programs(ctx, server.Major)
	if err != nil {
		return err
	}
	return src.DB.Export(ctx, func(t *db.Tx, snapshot string) error {
		if err := describe(ctx, t, m, hashes); err != nil {
			return err
		}
		cmd, said := program(ctx, bin, "pg_dump", server, "--format=custom", "--compress=1", "--no-owner", "--no-privileges",
			"--schema="+server.Schema, "--snapshot="+snapshot, "--file="+path)
		return failed("pg_dump", cmd.Run(), said)
	})
}

// load restores a dump into a database in one transaction: all of it is there
// afterwards, or nothing has changed. What stands in the schema is kept under
// another name, which is returned; "" when there was nothing. begun is the new life that
// the database begins with it.
func load(ctx context.Context, d *db.DB, m *Manifest, path string, begun *life) (kept string, err error) {
	_, err = d.Meta(ctx)
	if err != nil && !errors.Is(err, db.ErrNoSchema) {
		return "", err
	}
	begin := fmt.Sprintf("SELECT pg_advisory_xact_lock(%d);\n", begun.lock)
	if err == nil {
		kept = "before_restore_" + strings.ToLower(time.Now().UTC().Format("20060102T150405")+"_"+rand.Text()[:4])
		begin += fmt.Sprintf("ALTER SCHEMA %s RENAME TO %s;\nCREATE SCHEMA %s;\n", quoted(m.Schema), quoted(kept), quoted(m.Schema))
	}
	end := strings.Join(tasks.HoldSQL(quoted(m.Schema), m.ID, m.Created, time.Now()), ";\n") + ";\n" + db.ReincarnateSQL(quoted(m.Schema), begun.incarnation)
	for _, table := range livingTables() {
		end = fmt.Sprintf("DELETE FROM %s.%s;\n", quoted(m.Schema), table) + end
	}
	return kept, loadScript(ctx, d, m, path, begin, "", end)
}

// undecidedError is a failure after the COMMIT of a transaction was sent: it may have had
// its effect all the same.
type undecidedError struct{ cause error }

func (e *undecidedError) Error() string { return e.cause.Error() }
func (e *undecidedError) Unwrap() error { return e.cause }

// loadScript restores a dump in one transaction, between the statements of begin and
// end; those of made, if there are any, come when the tables are made and have no rows yet.
// An *undecidedError leaves open whether it was committed.
func loadScript(ctx context.Context, d *db.DB, m *Manifest, path, begin, made, end string) error {
	server, err := d.Server(ctx)
	if err != nil {
		return err
	}
	if server.Schema != m.Schema {
		return fault.New(fault.Invalid, "The backup is of schema %q, and the role's schema in this database is %q; set its search_path.", m.Schema, server.Schema)
	}
	if server.Major < m.Postgres {
		return fault.New(fault.Invalid, "The backup is of PostgreSQL %d, and this server is %d; restore into version %d or later.", m.Postgres, server.Major, m.Postgres)
	}
	bin, err := programs(ctx, server.Major)
	if err != nil {
		return err
	}
	begin, end = "BEGIN;\n"+begin, end+"COMMIT;\n"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	psql, psqlSaid := program(ctx, bin, "psql", server, "--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1", "--file=-")
	in, err := psql.StdinPipe()
	if err != nil {
		return err
	}
	if err := psql.Start(); err != nil {
		return err
	}
	_, sendErr := io.WriteString(in, begin)
	parts := func(which ...string) {
		if err == nil && sendErr == nil {
			sendErr, err = unpack(ctx, bin, server, in, append(which, "--schema="+m.Schema, path)...)
		}
	}
	if made == "" {
		parts()
	} else {
		parts("--section=pre-data")
		if err == nil && sendErr == nil {
			_, sendErr = io.WriteString(in, made)
		}
		parts("--section=data", "--section=post-data")
	}
	if err == nil && sendErr == nil {
		err = failpoint.Hit("restore-loaded")
	}
	// Without its COMMIT the transaction is undone.
	sent := err == nil && sendErr == nil
	if sent {
		_, sendErr = io.WriteString(in, end)
	}
	sendErr = errors.Join(sendErr, in.Close())
	waitErr := failed("psql", psql.Wait(), psqlSaid)
	if sent && sendErr == nil && waitErr == nil {
		err = failpoint.Hit("restore-committed")
	}
	if waitErr != nil {
		sendErr = nil // psql tells why the pipe broke
	}
	err = errors.Join(err, waitErr, sendErr)
	if err != nil && sent {
		return &undecidedError{err}
	}
	return err
}

// unpack has pg_restore write what is in a dump to psql, as statements. An error of its own
// is err, that nobody reads them sendErr.
func unpack(ctx context.Context, bin string, server db.Server, psql io.Writer, args ...string) (sendErr, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	restore, said := program(ctx, bin, "pg_restore", server, append([]string{"--no-owner", "--no-privileges", "--file=-"}, args...)...)
	script, err := restore.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := restore.Start(); err != nil {
		return nil, err
	}
	if _, sendErr = io.Copy(psql, script); sendErr != nil {
		cancel() // psql has ended, and pg_restore would wait for ever for its reader
	}
	return sendErr, failed("pg_restore", restore.Wait(), said)
}

// livingTables have a row for each running process; those of the former life are gone.
func livingTables() []string { return []string{"node", "secret_holder"} }

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
