package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// The root directory belongs to the service's user, who may have put links, pipes and
// programs of his own wherever root is about to write or to look. So root touches nothing
// below it: it sends this program there, as that user, with an errand.

// The errands.
const (
	errandPlace   = "place"   // make what is missing, and a version the current one
	errandServes  = "serves"  // wait until the server does
	errandStatus  = "status"  // ask the supervisor how it is
	errandRestart = "restart" // kill the supervisor alone, and wait for the next one
	errandHeld    = "held"    // look whether a supervisor runs
)

// errand is what is to be done below a root directory.
type errand struct {
	Do   string `json:"do"`
	Root string `json:"root"`
	// Version is what this program is, and Program where: it is what is placed, unless
	// Staged is a release. That one was checked by who sends this, in a directory of his own.
	Version string        `json:"version,omitempty"`
	Program string        `json:"program,omitempty"`
	Staged  *stage.Staged `json:"staged,omitempty"`
	// TrustedRoot and Feed are remembered for upgrades.
	TrustedRoot []byte `json:"trusted_root,omitempty"`
	Feed        string `json:"feed,omitempty"`
}

// told is what comes back.
type told struct {
	Version string   `json:"version,omitempty"` // the current one
	Changed []string `json:"changed,omitempty"` // below the root
	// PID is the supervisor's, Server that of the server; 0 for none.
	PID    int    `json:"pid,omitempty"`
	Server int    `json:"server,omitempty"`
	Held   bool   `json:"held,omitempty"`
	Error  string `json:"error,omitempty"`
}

// verbBelow is the word by which this program is sent on an errand.
const verbBelow = "install-below"

// Limits of an errand and of its answer, in bytes.
const (
	maxErrand = 16 << 20
	maxTold   = 256 << 10
)

// send does an errand as the user to whom the root directory belongs: here, if that is
// who we are, and else by program, which that user must be able to read and unable to
// change.
func (l *Layout) send(ctx context.Context, program string, e *errand) (told, error) {
	e.Root = l.Root
	info, err := os.Stat(l.Root)
	if err != nil {
		return told{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if l.User == "" || !ok || int(st.Uid) == os.Geteuid() {
		return e.run(ctx)
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return told{}, err
	}
	out, errOut := &bounded{limit: maxTold}, &bounded{limit: 4096}
	err = runFresh(func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, program, verbBelow)
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(raw), out, errOut
		cmd.WaitDelay = 5 * time.Second
		// In a session of its own it has no terminal.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: st.Uid, Gid: groupOf(st)}}
		return cmd
	})
	if err != nil {
		return told{}, fmt.Errorf("work in %s as user %d: %w %s", l.Root, st.Uid, err, printable(string(errOut.text)))
	}
	var t told
	if err := json.Unmarshal(out.text, &t); err != nil {
		return told{}, fmt.Errorf("work in %s as user %d: its answer cannot be read: %w", l.Root, st.Uid, err)
	}
	t.clean()
	if t.Error != "" {
		return t, errors.New(t.Error)
	}
	return t, nil
}

// groupOf is the primary group of the user to whom a file belongs; never root's.
func groupOf(st *syscall.Stat_t) uint32 {
	if u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10)); err == nil {
		if gid, err := strconv.ParseUint(u.Gid, 10, 32); err == nil {
			return uint32(gid)
		}
	}
	if st.Gid != 0 {
		return st.Gid
	}
	return st.Uid
}

// clean makes an answer fit for root's terminal.
func (t *told) clean() {
	t.Version, t.Error = printable(t.Version), printable(t.Error)
	for i := range t.Changed {
		t.Changed[i] = printable(t.Changed[i])
	}
}

// printable is a text without characters that steer a terminal.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s))
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	text  []byte
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.text = append(b.text, p[:min(max(b.limit-len(b.text), 0), len(p))]...)
	return len(p), nil
}

// below does the errand that in has, and tells out what came of it.
func below(in io.Reader, out, errOut io.Writer) (code int) {
	syscall.Umask(0o022)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var e errand
	if err := json.NewDecoder(io.LimitReader(in, maxErrand)).Decode(&e); err != nil {
		fmt.Fprintln(errOut, "read what is to be done:", err)
		return 2
	}
	t, err := e.run(ctx)
	if err != nil {
		t.Error = err.Error()
	}
	if err := json.NewEncoder(out).Encode(t); err != nil {
		fmt.Fprintln(errOut, "tell what was done:", err)
		return 1
	}
	return 0
}

func (e *errand) run(ctx context.Context) (told, error) {
	switch e.Do {
	case errandPlace:
		return e.place(ctx)
	case errandServes:
		return told{}, e.serves(ctx, 0)
	case errandStatus:
		return e.status(ctx)
	case errandRestart:
		return e.restart(ctx)
	case errandHeld:
		held, err := durable.Held(filepath.Join(e.Root, "run", "supervisor.lock"))
		return told{Held: held}, err
	}
	return told{}, fmt.Errorf("there is no errand %.40q", e.Do)
}

// place makes what is missing.
func (e *errand) place(ctx context.Context) (t told, err error) {
	for _, d := range []struct { // whose data it is, only they may read
		name string
		mode fs.FileMode
	}{{"versions", 0o755}, {"data", 0o700}, {"backups", 0o700}, {"upgrade", 0o700}, {"run", 0o700}} {
		path := filepath.Join(e.Root, d.name)
		made, err := directory(path, d.mode)
		if err != nil {
			return t, err
		}
		if made {
			t.Changed = append(t.Changed, d.name)
		}
	}
	layout := Layout{Root: e.Root}
	if t.Version, err = layout.Current(); err != nil {
		return t, err
	}
	if t.Version != "" {
		made, err := e.found(t.Version)
		if made != "" {
			t.Changed = append(t.Changed, made)
		}
		return t, err
	}
	if e.Staged != nil {
		t.Version = e.Staged.Version
	} else {
		t.Version = e.Version
	}
	if err := supervisor.Unused(e.Root, t.Version); err != nil {
		return t, err
	}
	if e.Staged == nil {
		err = supervisor.Install(e.Root, e.Version, e.Program)
	} else {
		err = e.take(ctx)
	}
	if err != nil {
		return t, err
	}
	t.Changed = append(t.Changed, filepath.Join("versions", t.Version))
	return t, supervisor.Begin(e.Root, t.Version)
}

// take installs the release, and remembers whom to believe and where to look from now on.
func (e *errand) take(ctx context.Context) error {
	store := stage.Open(e.Root, nil)
	if _, err := store.Pin(e.TrustedRoot, false); err != nil {
		return err
	}
	if err := store.Take(ctx, *e.Staged); err != nil {
		return err
	}
	if e.Feed == "" {
		return nil
	}
	return store.UseFeed(e.Feed)
}

// found completes the version that was there before. In the data of a container there is
// no program: it was in the image.
func (e *errand) found(current string) (made string, err error) {
	dir := filepath.Join("versions", current)
	_, err = os.Stat(filepath.Join(e.Root, dir, Service))
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, fs.ErrNotExist) && e.Version == current:
		return dir, supervisor.Install(e.Root, e.Version, e.Program)
	}
	return "", fmt.Errorf("%s has the data of version %s, whose program is not there: %w; install that version first", e.Root, current, err)
}

// directory makes a directory with that mode, whatever the umask, unless it is there.
func directory(path string, mode fs.FileMode) (made bool, err error) {
	if _, err := os.Stat(path); err == nil {
		return false, nil
	}
	if err := os.Mkdir(path, mode); err != nil {
		return false, err
	}
	return true, os.Chmod(path, mode)
}

// serves waits until the server does, under another supervisor than the one with that
// process.
func (e *errand) serves(ctx context.Context, but int) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for {
		r, err := supervisor.Ask(ctx, e.Root, supervisor.Order{Do: "status"})
		if err == nil && r.PID != but && r.Server != nil && r.Server.Stage == control.Serving {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the service runs, but its server did not begin to serve within a minute; look with: journalctl -u %s", Service), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// status tells which processes the supervisor and its server are; none if no supervisor
// answers.
func (e *errand) status(ctx context.Context) (told, error) {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	r, err := supervisor.Ask(ctx, e.Root, supervisor.Order{Do: "status"})
	if err != nil {
		return told{}, nil //nolint:nilerr // none is an answer
	}
	t := told{PID: r.PID}
	if r.Server != nil {
		t.Server = r.Server.PID
	}
	return t, nil
}

// restart kills the supervisor and nothing else: its servers outlive it, and the one that
// the service manager starts in its place finds them.
func (e *errand) restart(ctx context.Context) (told, error) {
	before, err := e.status(ctx)
	if err != nil || before.PID == 0 {
		return before, errors.Join(err, errors.New("no supervisor answers that could be replaced"))
	}
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return before, fmt.Errorf("end the supervisor (process %d): %w", before.PID, err)
	}
	if err := e.serves(ctx, before.PID); err != nil {
		return before, err
	}
	return e.status(ctx)
}
