package dbtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// superuser is who the tests connect as; the cluster trusts everyone who can
// reach its socket, which is in a folder of one user.
const superuser = "tako"

// startLimit bounds making and starting a cluster, on a machine busy with other tests.
const startLimit = 2 * time.Minute

// errNone says that no PostgreSQL is installed.
var errNone = errors.New("no PostgreSQL is installed: its initdb and postgres were looked for in TAKO_TEST_PG_BIN, PATH and /usr/lib/postgresql/*/bin")

// cluster is a running PostgreSQL server.
type cluster struct {
	dir   string // of the socket
	hold  io.Closer
	count atomic.Int64 // databases made
}

// shared is the cluster of this test binary.
var shared = sync.OnceValues(startCluster) //nolint:gochecknoglobals // once per test binary is the point

func postgres(t testing.TB) *cluster {
	t.Helper()
	c, err := shared()
	switch {
	case errors.Is(err, errNone) && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return c
}

// keeper makes the cluster, and ends and removes it once its input ends: that
// is when the test binary has ended, however it did.
const keeper = `
trap '' HUP INT TERM
dir=$1 bin=$2
"$bin/initdb" -D "$dir/data" -U ` + superuser + ` --auth=trust -E UTF8 --locale=C --locale-provider=icu --icu-locale=en-US --no-sync >"$dir/log" 2>&1 ||
"$bin/initdb" -D "$dir/data" -U ` + superuser + ` --auth=trust -E UTF8 --locale=C --no-sync >>"$dir/log" 2>&1 || exit 1
"$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c max_connections=300 -c shared_buffers=64MB \
  -c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=256MB -c autovacuum=off -c log_min_messages=fatal \
  -c log_min_error_statement=panic >>"$dir/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -INT $server
wait $server
rm -rf "$dir"
`

func startCluster() (*cluster, error) {
	bin, err := findBinaries()
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(memory(), "tako-pg-")
	if err != nil {
		return nil, err
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("/bin/sh", "-c", keeper, "tako-pg-keeper", dir, bin) //nolint:noctx // it outlives every test's context and ends with this process
	cmd.Dir = dir
	// A session of its own, so that an interrupt from the keyboard does not
	// end the server before the tests.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setsid: true}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	c := &cluster{dir: dir, hold: hold}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := c.await(ctx, ended); err != nil {
		return nil, err
	}
	if err := c.admin(ctx, "CREATE DATABASE template_tako"); err != nil {
		return nil, err
	}
	return c, migrate(ctx, c.url("template_tako"))
}

// await returns once the server answers.
func (c *cluster) await(ctx context.Context, ended <-chan error) error {
	for {
		err := c.admin(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case died := <-ended:
			log, _ := os.ReadFile(filepath.Join(c.dir, "log")) // without it there is less to say
			return fmt.Errorf("start PostgreSQL: %w\n%s", died, log)
		case <-ctx.Done():
			return fmt.Errorf("start PostgreSQL: it does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// findBinaries returns the folder of initdb and postgres.
func findBinaries() (string, error) {
	dirs := []string{os.Getenv("TAKO_TEST_PG_BIN")}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(initdb); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.Reverse(installed) // the newest first, as long as versions have two digits
	for _, dir := range append(dirs, installed...) {
		if dir == "" {
			continue
		}
		_, err1 := os.Stat(filepath.Join(dir, "initdb"))
		_, err2 := os.Stat(filepath.Join(dir, "postgres"))
		if err1 == nil && err2 == nil {
			return dir, nil
		}
	}
	return "", errNone
}

// unprivileged returns whom to run the server as when we are root, which it
// refuses; nil when we are not.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

// memory is a folder in memory where there is one with room: the server keeps
// fsync on, as Tako demands, and there it costs nothing.
func memory() string {
	const shm, room = "/dev/shm", 1 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shm, &fs); err != nil || uint64(fs.Bavail)*uint64(fs.Bsize) < room {
		return "" // the system's temporary folder
	}
	probe, err := os.MkdirTemp(shm, "tako-probe-")
	if err != nil {
		return ""
	}
	if os.Remove(probe) != nil {
		return ""
	}
	return shm
}

func (c *cluster) url(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: url.Values{"host": {c.dir}}.Encode()}
	return u.String()
}

// admin runs statements outside of any test's database.
func (c *cluster) admin(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, c.url("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

// database makes a database for one test.
func (c *cluster) database(t testing.TB, migrated bool) string {
	t.Helper()
	name := "test_" + strconv.FormatInt(c.count.Add(1), 10)
	template := "template1"
	if migrated {
		template = "template_tako"
	}
	if err := c.admin(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		if err := c.admin(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return c.url(name)
}
