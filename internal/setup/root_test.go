package setup_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/setup"
	"github.com/takodeploy/tako/internal/upgrade/feedtest"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// nobody is the user that stands for the service's.
const (
	nobody    = "nobody"
	nobodysID = 65534
)

// TestMain lets the test's own program do what root sends it for.
func TestMain(m *testing.M) {
	if handled, code := setup.Internal(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func onlyRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("a test machine must run tests as root")
	}
	t.Skip("only root may become somebody else")
}

// machine is a request to install for another user, below a directory that he may enter.
func machine(t *testing.T) *setup.Request {
	t.Helper()
	dir, err := os.MkdirTemp("", "tako-setup") //nolint:usetesting // others may not enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // as said
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	layout, err := setup.Usual(dir)
	if err != nil {
		t.Fatal(err)
	}
	layout.User = nobody
	return &setup.Request{Layout: layout, Version: "2026.4.0", Program: exe, Listen: "127.0.0.1:1", Admin: "root"}
}

// owners looks that all below a directory belongs to one user.
func owners(t *testing.T, dir string, want int) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || int(st.Uid) != want {
			t.Errorf("%s belongs to %d, %v; want %d", path, st.Uid, err, want)
		}
		n++
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%d in %s, %v", n, dir, err)
	}
}

// planted makes the root directory as the service's user may have left it: with links to
// a directory of root's where an installation is about to write.
func planted(t *testing.T, r *setup.Request, link string) (treasure string) {
	t.Helper()
	treasure = filepath.Join(r.Prefix, "treasure")
	path := filepath.Join(r.Root, link)
	if err := os.Mkdir(treasure, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(path); len(dir) >= len(r.Root); dir = filepath.Dir(dir) {
		if err := os.Chown(dir, nobodysID, nobodysID); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(treasure, path); err != nil {
		t.Fatal(err)
	}
	return treasure
}

func untouched(t *testing.T, treasure string) {
	t.Helper()
	entries, err := os.ReadDir(treasure)
	if err != nil || len(entries) != 0 {
		t.Errorf("root has written %v, %v", entries, err)
	}
	if info, err := os.Stat(treasure); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("root has changed the mode of it: %v %v", info, err)
	}
	owners(t, treasure, 0)
}

// TestRootInstalls: what the service's user owns, that user has made; the rest is root's.
func TestRootInstalls(t *testing.T) {
	t.Parallel()
	onlyRoot(t)
	r := machine(t)
	if done := install(t, r); done.Version != "2026.4.0" {
		t.Errorf("%+v", done)
	}
	owners(t, r.Root, nobodysID)
	for _, dir := range []string{r.Lib, r.Bin, r.Units, r.Etc} {
		owners(t, dir, 0)
	}
	modes(t, map[string]fs.FileMode{
		r.Root: fs.ModeDir | 0o755, filepath.Join(r.Root, "data"): fs.ModeDir | 0o700, filepath.Join(r.Root, "versions/2026.4.0/tako"): 0o755,
		r.Supervisor(): 0o755, r.Settings(): 0o640,
	})
	if left, err := filepath.Glob(filepath.Join(r.Lib, ".*")); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if done := install(t, r); len(done.Changed) != 0 {
		t.Errorf("done again it changes %v", done.Changed)
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-n", r.Command()).CombinedOutput(); err != nil {
		t.Errorf("%s %v", out, err)
	}
	if err := os.Chown(r.Root, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if _, err := setup.Install(t.Context(), r); err == nil || !strings.Contains(err.Error(), "chown -R nobody: "+r.Root) {
		t.Errorf("in a directory of somebody else's: %v", err)
	}
}

// TestRootIsNotLed: links of the service's user lead root nowhere.
func TestRootIsNotLed(t *testing.T) {
	t.Parallel()
	onlyRoot(t)
	for _, link := range []string{"versions", "data", "run"} {
		r := machine(t)
		treasure := planted(t, r, link)
		if _, err := setup.Install(t.Context(), r); err != nil && !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %v", link, err)
		}
		untouched(t, treasure)
	}
}

// TestRootInstallsRelease: a release is checked where only root can change it.
func TestRootInstallsRelease(t *testing.T) {
	t.Parallel()
	onlyRoot(t)
	site := feedtest.New(t)
	content := fmt.Appendf(nil, "#!/bin/sh\nid -u >&2\necho '{\"Version\":\"2026.5.0\",\"Platform\":%q}'\n", stage.Platform())
	if err := os.WriteFile(filepath.Join(site.Dir, "tako-2026.5.0"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	release, sum := feedtest.Release("2026.5.0"), sha256.Sum256(content)
	release.Artifacts = map[string]releasefeed.Artifact{stage.Platform(): {URL: "tako-2026.5.0", Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}}
	site.Publish(t, time.Hour, release)
	root, err := os.ReadFile(site.Root)
	if err != nil {
		t.Fatal(err)
	}
	r := machine(t)
	r.Release, r.TrustedRoot, r.Channel = stage.Source{Feed: site.URL}, root, "stable"
	treasure := planted(t, r, "versions/2026.5.0.partial")
	if done := install(t, r); done.Version != "2026.5.0" {
		t.Errorf("%+v", done)
	}
	untouched(t, treasure)
	owners(t, r.Root, nobodysID)
	owners(t, r.Lib, 0)
	// The command runs it as the service's user.
	if out, err := exec.CommandContext(t.Context(), r.Command(), "x").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), strconv.Itoa(nobodysID)+"\n") {
		t.Errorf("%s %v", out, err)
	}
	store := stage.Open(r.Root, nil)
	if m, err := store.Manifest("2026.5.0"); err != nil || m.Release.Version != "2026.5.0" {
		t.Errorf("%+v %v", m, err)
	}
	if trust, err := store.Trust(); err != nil || trust.Feed != site.URL || len(trust.Root) == 0 || trust.Seen["stable"].Number != 1 {
		t.Errorf("%+v %v", trust, err)
	}
}

// sitting is somebody at a terminal.
type sitting struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	mu     sync.Mutex
	out    bytes.Buffer
}

func sit(t *testing.T) *sitting {
	t.Helper()
	s := &sitting{t: t}
	var err error
	if s.master, s.slave, err = setup.OpenTerminal(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.master.Close(); _ = s.slave.Close() })
	go func() { _, _ = io.Copy(s, s.master) }()
	return s
}

func (s *sitting) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *sitting) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// reads waits until something is shown.
func (s *sitting) reads(want string) {
	s.t.Helper()
	late, tick := time.After(2*time.Minute), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(s.said(), want) {
		select {
		case <-tick.C:
		case <-late:
			s.t.Fatalf("%q was not shown: %q", want, s.said())
		}
	}
}

// asNobody is a command that root's wrapper runs, in a session of its own; terminal is
// the number of the descriptor that is its terminal, -1 for none.
func asNobody(t *testing.T, terminal int, script string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "install-as-user", nobody, "/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: terminal >= 0, Ctty: max(terminal, 0)}
	return cmd
}

// TestAsUserWithoutTerminal: the process becomes the program.
func TestAsUserWithoutTerminal(t *testing.T) {
	t.Parallel()
	onlyRoot(t)
	cmd := asNobody(t, -1, `echo "$(id -u) $(id -G) $$"; exit 7`)
	out, err := cmd.Output()
	if want := fmt.Sprintf("%d %d %d\n", nobodysID, nobodysID, cmd.Process.Pid); string(out) != want || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%q %v, want %q", out, err, want)
	}
	if out, err := asNobody(t, -1, "/no/such").CombinedOutput(); err == nil {
		t.Errorf("%s", out)
	}
}

// TestAsUserAtTerminal: the program has a terminal of its own, keys and sizes get there.
func TestAsUserAtTerminal(t *testing.T) {
	t.Parallel()
	onlyRoot(t)
	s := sit(t)
	if err := unix.IoctlSetWinsize(int(s.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	cmd := asNobody(t, 0, `echo "$(id -u) has $(stty size)"; tty; read -r x; echo "got $x"; while [ "$x" != go ]; do read -r x; done; echo gone; exec sleep 1000`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.slave, s.slave, s.slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.reads(strconv.Itoa(nobodysID) + " has 33 77")
	for _, keys := range []string{"hello\n", "go\n"} {
		if _, err := s.master.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	s.reads("got hello")
	s.reads("gone")
	if name := s.slave.Name(); !strings.Contains(s.said(), "/dev/pts/") || strings.Contains(s.said(), name+"\r") {
		t.Errorf("it has root's terminal %s: %q", name, s.said())
	}
	if _, err := s.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its exit code says it
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGINT) {
		t.Errorf("after Ctrl-C: %d %q", code, s.said())
	}
}

// TestAsUserBesideTerminal: a program that nobody types to has no terminal at all, gets
// signals, and is heard.
func TestAsUserBesideTerminal(t *testing.T) {
	t.Parallel()
	onlyRoot(t)
	s := sit(t)
	cmd := asNobody(t, 1, `cat; [ -t 1 ] || echo through a pipe; (exec 3<>/dev/tty) 2>/dev/null || echo without a terminal; echo ready; exec sleep 1000`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("what was piped\n"), s.slave, s.slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"what was piped", "through a pipe", "without a terminal", "ready"} {
		s.reads(want)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its exit code says it
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("after SIGTERM: %d %q", code, s.said())
	}
}
