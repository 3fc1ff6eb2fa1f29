package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Worker is how the process that carries upgrades out is started.
type Worker struct {
	// Program is the one that runs, which has the command upgrade-worker.
	Program string
	// Settings are flags for it (such as --config), Environ its environment: both tell it
	// what the server was told.
	Settings, Environ []string
}

// WorkerLog is where the process that carries upgrades out writes what it does. One that
// has become long is beside it, with the suffix ".1".
func WorkerLog(root string) string { return filepath.Join(Dir(root), "worker.log") }

// Start starts the process that carries the newest upgrade of a root out, unless one
// does. It outlives this process: it is in a session of its own.
func (w Worker) Start(root string) error {
	if Attended(root) != 0 {
		return nil
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	if err := rotate(WorkerLog(root)); err != nil {
		return err
	}
	log, err := os.OpenFile(WorkerLog(root), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(w.Program, append([]string{WorkerCommand, "--root", root}, w.Settings...)...) //nolint:noctx // it outlives us
	cmd.Env = w.Environ
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the process that carries the upgrade out: %w", err)
	}
	go func() { _ = cmd.Wait() }() // if it ends before us it is not to stay as a zombie
	return nil
}

// maxLog is from which size on a log is put aside, in bytes.
const maxLog = 10 << 20

// rotate puts a log aside that is long, in the place of the one that was put aside before.
func rotate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() < maxLog {
		return nil
	}
	if err != nil {
		return err
	}
	if err = os.Rename(path, path+".1"); errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else has just done it
	}
	return err
}

// Attended is the process that carries the upgrades of a root out, 0 if none does. It takes
// no lock, not even for an instant, so that to look often hinders nobody who is just about
// to begin; whoever has begun in this instant may not be seen yet.
func Attended(root string) int {
	raw, err := os.ReadFile(lockPath(root))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid < 1 {
		return 0
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !carriesOut(strings.Split(string(line), "\x00"), root) {
		return 0
	}
	return pid
}

// carriesOut reports whether a command line is of a process that carries out the upgrades
// of a root: the number of one that has ended may be another's by now, also of one that
// does it for another root.
func carriesOut(args []string, root string) bool {
	if len(args) < 2 || args[1] != WorkerCommand {
		return false
	}
	i := slices.Index(args, "--root")
	if i < 0 || i+1 == len(args) {
		return false
	}
	if filepath.Clean(args[i+1]) == filepath.Clean(root) {
		return true
	}
	its, err := os.Stat(args[i+1])
	ours, bad := os.Stat(root)
	return err == nil && bad == nil && os.SameFile(its, ours)
}

// WorkerCommand is the command of the program that carries upgrades out.
const WorkerCommand = "upgrade-worker"
