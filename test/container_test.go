package test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/supervisor"
)

// image is what the last part of a Dockerfile makes: a root file system, and how a
// container of it is started.
type image struct {
	root    string
	env     []string
	user    string
	volume  string
	command []string
}

// stages reads the stages of a Dockerfile, by name, each with its instructions.
func stages(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	all, at := map[string][]string{}, ""
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "", "#":
		case "FROM":
			_, at, _ = strings.Cut(rest, " AS ")
		default:
			all[at] = append(all[at], word+" "+rest)
		}
	}
	return all
}

// minimal puts the files of the image "minimal" together as its Dockerfile says. The
// stage that it copies from is this machine, and the program the one under test.
func minimal(t *testing.T) *image {
	t.Helper()
	im := &image{root: t.TempDir()}
	list := func(text string) (out []string) {
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return out
	}
	for _, line := range stages(t)["minimal"] {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "COPY":
			args := slices.DeleteFunc(strings.Fields(rest), func(a string) bool { return strings.HasPrefix(a, "--") })
			to := filepath.Join(im.root, args[1])
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			from := map[string]string{"/src/bin/tako": apptest.Binary(t), "/volume": "", "/etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt"}
			path, known := from[args[0]]
			switch {
			case !known:
				t.Fatalf("the test does not know where %s comes from", args[0])
			case path == "":
				if err := os.Mkdir(to, 0o755); err != nil {
					t.Fatal(err)
				}
			default:
				raw, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(to, raw, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		case "ENV":
			im.env = append(im.env, strings.Fields(rest)...)
		case "USER":
			im.user = rest
		case "VOLUME":
			im.volume = rest
		case "ENTRYPOINT", "CMD":
			im.command = append(im.command, list(rest)...)
		case "EXPOSE", "STOPSIGNAL":
		default:
			t.Fatalf("the test does not know the instruction %s", line)
		}
	}
	if im.user == "" || im.volume == "" || len(im.command) == 0 {
		t.Fatalf("%+v", im)
	}
	// What every engine puts into a container.
	for _, dir := range []string{"proc", "dev"} {
		if err := os.Mkdir(filepath.Join(im.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"dev/null", "dev/urandom"} {
		if err := os.WriteFile(filepath.Join(im.root, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return im
}

// contain is the part of an engine that matters here: namespaces of its own, a root file
// system that nobody can write to, a volume, a user without rights.
const contain = `set -e
root=$1 volume=$2 at=$3 user=$4 group=$5; shift 5
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
for f in null urandom; do mount --bind /dev/$f "$root/dev/$f"; done
mount --bind "$volume" "$root$at"
mount -o remount,bind,ro "$root"
ip link set lo up
exec chroot --userspec="$user:$group" --groups= "$root" "$@"`

// container is one that runs, or has ended.
type container struct {
	t     *testing.T
	cmd   *exec.Cmd
	http  *http.Client
	ended chan struct{}
	mu    sync.Mutex
	out   bytes.Buffer
}

func (c *container) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *container) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

// start starts a container.
func (im *image) start(t *testing.T, volume string, env ...string) *container {
	t.Helper()
	c := &container{t: t, ended: make(chan struct{})}
	uid, gid, _ := strings.Cut(im.user, ":")
	args := append([]string{"--pid", "--mount", "--net", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-c", contain, "sh", im.root, volume, im.volume, uid, gid}, im.command...)
	c.cmd = exec.Command("unshare", args...)
	c.cmd.Env = slices.Concat([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, im.env, env)
	c.cmd.Stdout, c.cmd.Stderr = c, c
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // its exit code is asked for by whoever wants it
		close(c.ended)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.ended
	})
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialWithin(ctx, c.cmd.Process.Pid, network, addr)
	}}
	c.http = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return c
}

// get asks for a path until it is answered with a status.
func (c *container) get(path string, status int) {
	c.t.Helper()
	eventually(c.t, "GET "+path, func() bool {
		select {
		case <-c.ended:
			c.t.Fatalf("the container has ended with %d:\n%s", c.cmd.ProcessState.ExitCode(), c.said())
		default:
		}
		req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "http://127.0.0.1:8065"+path, http.NoBody)
		if err != nil {
			c.t.Fatal(err)
		}
		req.Header.Set("X-Octopus-ApiKey", apptest.AdminKey)
		r, err := c.http.Do(req)
		if err != nil {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
		return r.StatusCode == status
	})
}

// init is the process of the container that is the first within it.
func (c *container) init() int {
	c.t.Helper()
	pid := c.cmd.Process.Pid
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		c.t.Fatal(err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		c.t.Fatalf("children of %d: %q", pid, raw)
	}
	return first
}

// stop does what engines do, and tells the exit code.
func (c *container) stop() int {
	c.t.Helper()
	if err := syscall.Kill(c.init(), syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	return c.wait()
}

func (c *container) wait() int {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("the container does not end:\n%s", c.said())
	}
	return c.cmd.ProcessState.ExitCode()
}

// contained skips where a test machine does not allow namespaces.
func contained(t *testing.T) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "unshare", "--pid", "--mount", "--net", "--fork", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("a test machine must allow namespaces: %v %s", err, out)
		}
		t.Skipf("only root may make namespaces: %v %s", err, out)
	}
}

func volumeOf(t *testing.T, im *image) string {
	t.Helper()
	volume := apptest.ShortDir(t)
	uid, gid, _ := strings.Cut(im.user, ":")
	u, errU := strconv.Atoi(uid)
	g, errG := strconv.Atoi(gid)
	if err := errors.Join(errU, errG, os.Chown(volume, u, g)); err != nil {
		t.Fatal(err)
	}
	return volume
}

// TestContainer runs the entrypoint on the root file system of the image: it starts as a
// user without rights, stops when it is told to, comes back with another version, and
// refuses data that is not its version's any more.
func TestContainer(t *testing.T) {
	t.Parallel()
	contained(t)
	im := minimal(t)
	volume := volumeOf(t, im)
	links := func(current, previous string) {
		t.Helper()
		for name, want := range map[string]string{"current": current, "previous": previous} {
			link, err := os.Readlink(filepath.Join(volume, name))
			if want == "" && errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil || filepath.Base(link) != want {
				t.Errorf("%s is %q, %v; want %q", name, link, err, want)
			}
		}
	}
	admin := []string{"TAKO_ADMIN_USERNAME=admin", "TAKO_ADMIN_API_KEY=" + apptest.AdminKey}
	c := im.start(t, volume, admin...)
	c.get("/livez", http.StatusOK)
	c.get("/readyz", http.StatusOK)
	c.get("/api/users/me", http.StatusOK)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.init()))
	if err != nil || !strings.Contains(string(status), "\nUid:\t10065\t10065\t10065\t10065\n") || !strings.Contains(string(status), "\nCapEff:\t0000000000000000\n") {
		t.Errorf("it has rights: %v %s", err, status)
	}
	if got, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.init())); !strings.Contains(string(got), "NSpid:\t"+strconv.Itoa(c.init())+"\t1\n") {
		t.Errorf("it is not the first process of its container: %s", got)
	}
	noted(t, volume)
	version := current(t, volume)
	links(version, "")
	if _, err := supervisor.Ask(t.Context(), volume, supervisor.Order{Do: "deep"}); err != nil {
		t.Error(err)
	}
	if _, err := supervisor.Ask(t.Context(), volume, supervisor.Order{Do: "switch", Version: "2027.1.0"}); err == nil || !strings.Contains(err.Error(), "with that version's image") {
		t.Errorf("a switch within a container: %v", err)
	}

	// Out of service until the next one serves.
	down := time.Now()
	if code := c.stop(); code != 0 || !strings.Contains(c.said(), "Tako has stopped.") {
		t.Errorf("it has ended with %d:\n%s", code, c.said())
	}
	stopped := time.Since(down)
	c = im.start(t, volume, admin...)
	c.get("/readyz", http.StatusOK)
	away := time.Since(down)
	t.Logf("stopped in %s, unreachable for %s", stopped, away)
	if limit := 5 * time.Second; soaking() && away > limit {
		t.Errorf("unreachable for %s; the goal is %s", away, limit)
	}
	links(version, "")

	// A second one on the same volume waits, and gives up.
	hasty := *im
	hasty.command = append(slices.Clone(im.command), "--wait", "100ms")
	second := hasty.start(t, volume)
	if code := second.wait(); code != 1 || !strings.Contains(second.said(), "another container") {
		t.Errorf("a second one: %d\n%s", code, second.said())
	}
	c.get("/livez", http.StatusOK)
	c.stop()

	// The image of another version was here before, and left its note.
	note(t, volume, "2026.3.9")
	c = im.start(t, volume, admin...)
	c.get("/api/users/me", http.StatusOK)
	noted(t, volume)
	links(version, "2026.3.9")
	c.stop()

	// A newer version's formats are switched on: this image cannot read them, and the
	// note of what can is not touched.
	raise(t, filepath.Join(volume, "data", "tako.db"))
	note(t, volume, "2027.1.0")
	c = im.start(t, volume, admin...)
	if code := c.wait(); code != 78 || !strings.Contains(c.said(), "needs at least level") || !strings.Contains(c.said(), "run the newer version") {
		t.Errorf("an older image: %d\n%s", code, c.said())
	}
	links("2027.1.0", "2026.3.9")
}

// noted waits until the entrypoint knows that its server serves: then the version is noted.
func noted(t *testing.T, volume string) {
	t.Helper()
	eventually(t, "the server serves", func() bool {
		r, err := supervisor.Ask(t.Context(), volume, supervisor.Order{Do: "status"})
		return err == nil && r.Server != nil
	})
}

// note makes a version the current one, as its image would.
func note(t *testing.T, root, version string) {
	t.Helper()
	if err := durable.Symlink(filepath.Join("versions", version), filepath.Join(root, "current")); err != nil {
		t.Fatal(err)
	}
}

func current(t *testing.T, root string) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join(root, "current"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(link)
}

// raise does to a database what finalizing a version of the next level does.
func raise(t *testing.T, path string) {
	t.Helper()
	d, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	next := db.BinaryLevels().Level + 1
	_, err = d.ExecContext(t.Context(), `UPDATE tako_meta SET schema_level = ?, active_level = ?, min_reader_level = ?, expanded_by = '2027.1.0'`, next, next, next)
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestContainerCollects: what the built-in worker leaves behind has the first process of
// the container as its parent, which collects it.
func TestContainerCollects(t *testing.T) {
	t.Parallel()
	contained(t)
	dir := apptest.ShortDir(t)
	c := &container{t: t, ended: make(chan struct{})}
	c.cmd = exec.Command("unshare", "--pid", "--mount-proc", "--fork", "--kill-child", apptest.Binary(t), "container", "--root", dir)
	c.cmd.Env = append(os.Environ(), "TAKO_LISTEN=127.0.0.1:0", "TAKO_AGENT_LISTEN=off")
	c.cmd.Stdout, c.cmd.Stderr = c, c
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.cmd.Wait(); close(c.ended) }()
	t.Cleanup(func() { _ = c.cmd.Process.Kill(); <-c.ended })
	children := func() (all []string) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.init(), c.init()))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(raw))
	}
	eventually(t, "the server starts", func() bool { return strings.Contains(c.said(), " is ready at ") })
	worker := 0
	eventually(t, "the worker is the first process's", func() bool {
		for _, pid := range children() {
			if args, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && bytes.Contains(args, []byte("--builtin")) {
				worker, _ = strconv.Atoi(pid)
			}
		}
		return worker != 0
	})
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker is collected", func() bool { return !slices.Contains(children(), strconv.Itoa(worker)) })
	if code := c.stop(); code != 0 {
		t.Errorf("%d\n%s", code, c.said())
	}
}

// TestImagesAgree: both images start the same program in the same way.
func TestImagesAgree(t *testing.T) {
	t.Parallel()
	all := stages(t)
	for _, line := range all["minimal"] {
		line = strings.ReplaceAll(line, " TAKO_BUILTIN_WORKER=false", "")
		if strings.HasSuffix(line, "ca-certificates.crt") {
			continue // a package brings them
		}
		if !slices.Contains(all["server"], line) {
			t.Errorf("the image with a shell lacks %q", line)
		}
	}
}
