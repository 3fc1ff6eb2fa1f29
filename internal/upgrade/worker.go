package upgrade

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// WorkerLog is where the process that carries upgrades out writes what it does.
func WorkerLog(root string) string { return filepath.Join(Dir(root), "worker.log") }

// Start starts the process that carries the newest upgrade of a root out, unless one
// does. It outlives this process: it is in a session of its own.
func (w Worker) Start(root string) error {
	if Attended(root) != 0 {
		return nil
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
	if args := bytes.Split(line, []byte{0}); err != nil || len(args) < 2 || string(args[1]) != WorkerCommand {
		return 0
	}
	return pid
}

// WorkerCommand is the command of the program that carries upgrades out.
const WorkerCommand = "upgrade-worker"
