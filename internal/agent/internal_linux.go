package agent

import (
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// File descriptors that our processes inherit.
const (
	lockFD   = 3 // the workspace's lock, held
	aliveFD  = 4 // write end of "alive"
	lifeFD   = 3 // agent only: write end of a pipe whose end tells Spawn that it died
	reportFD = 5 // stub only: write end of the pipe to its runner; end of file says execve is done
)

// selfExe is the image of the calling process, also when its file was replaced by
// an upgrade: a child resolves it before it becomes another program.
const selfExe = "/proc/self/exe"

// Internal runs the process that args (os.Args) ask for, if they ask for one of
// the agent's own: handled says so, code is the exit code. Call it first thing in
// main, before anything reads flags or the environment.
func Internal(args []string) (handled bool, code int) {
	if len(args) < 3 || args[1] != internalArg {
		return false, 0
	}
	switch args[2] {
	case "launch":
		return true, launchMain(args[3:])
	case "connect":
		return true, connectMain(args[3:])
	case "verify":
		return true, verifyMain(args[3:])
	case "prune":
		return true, pruneMain()
	case "exec":
		return true, execMain(args[3:])
	}
	// Whatever else the agent's parents let it inherit (listeners, locks) is no
	// business of runners and scripts.
	first := uint(reportFD)
	if args[2] == "stub" {
		first++
	}
	sealDescriptors(first)
	switch args[2] {
	case "spawn":
		return true, spawnMain(args[3:])
	case "detach":
		return true, detachMain(args[3:])
	case "runner":
		return true, RunnerMain(args[3:])
	case "stub":
		return true, StubMain(args[3:])
	}
	return true, 2
}

// sealDescriptors closes the descriptors from first on at the next execve.
func sealDescriptors(first uint) {
	if unix.CloseRange(first, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	fds, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= int(first) {
			unix.CloseOnExec(fd)
		}
	}
}

// detachMain stands between agent and runner: it starts the runner and goes, so
// that the runner is nobody's child.
func detachMain(args []string) int {
	argv := append([]string{"tako-runner", internalArg, "runner"}, args...)
	_, err := syscall.ForkExec(selfExe, argv, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, lockFD, aliveFD},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "start runner:", err)
		return 1
	}
	return 0
}

// startRunner starts the runner of a workspace from the program exe. It inherits lock, which the caller
// then closes without unlocking, and alive.
func startRunner(exe string, w workspace, lock *os.File, alive int) error {
	stderr, err := os.OpenFile(w.path(runnerErrName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer stderr.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(exe, []string{"tako-runner", internalArg, "detach", string(w)}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), stderr.Fd(), stderr.Fd(), lock.Fd(), uintptr(alive)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start runner: %w", err)
	}
	var status syscall.WaitStatus
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR { //nolint:errorlint // a system call's own value
			break
		}
	}
	if err != nil {
		return fmt.Errorf("wait for the runner's start: %w", err)
	}
	if status.ExitStatus() != 0 {
		return fmt.Errorf("start runner: ended with %d, see %s", status.ExitStatus(), w.path(runnerErrName))
	}
	return nil
}

// standFast makes the calling process deaf to the signals that end sessions and
// services. Unlike SIG_IGN this is not inherited through execve.
func standFast() {
	// Nobody reads the channel: what is sent to a full one is dropped.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGPIPE, unix.SIGQUIT)
}

// lowerOOM makes the kernel's memory killer look elsewhere first, if we may, and
// returns the value before.
func lowerOOM() string {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return ""
	}
	before := strings.TrimSpace(string(b))
	if n, err := strconv.Atoi(before); err == nil && n > -900 {
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0)
	}
	return before
}
