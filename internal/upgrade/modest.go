package upgrade

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// modest is the niceness of commands that work for long beside a server: where there is not
// enough time for both they get about a tenth of it, and else all that is free.
const modest = 10

// startModestly starts a command that gives way to the server, and so do all processes that
// it starts.
func startModestly(cmd *exec.Cmd) error {
	// Linux may divide its time between sessions first, and by niceness only within each: so
	// the command gets a session of its own, whose niceness is set as well.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	started := make(chan error, 1)
	go func() {
		// A child begins with the niceness of the thread that starts it. Nobody could take that
		// of a thread back: it stays this goroutine's, and ends with it.
		runtime.LockOSThread()
		// The kernel tells 20 less the niceness.
		if now, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil && 20-now < modest {
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, modest) // refused, it competes with the server
		}
		started <- cmd.Start()
	}()
	if err := <-started; err != nil {
		return err
	}
	// Not every system has it, or allows it just now.
	_ = os.WriteFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "autogroup"), []byte(strconv.Itoa(modest)), 0)
	return nil
}
