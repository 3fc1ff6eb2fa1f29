package setup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// verbAsUser is the word by which this program runs another one as a user.
const verbAsUser = "install-as-user"

// Internal does what args (os.Args) ask for, if they are words that are meant for this
// program alone: an errand, or to run a program as the service's user. Then code is what
// the process should end with.
func Internal(args []string) (handled bool, code int) {
	if len(args) < 2 {
		return false, 0
	}
	switch args[1] {
	case verbBelow:
		return true, below(os.Stdin, os.Stdout, os.Stderr)
	case verbAsUser:
		if len(args) < 4 {
			fmt.Fprintln(os.Stderr, "tako: name a user and a program")
			return true, 2
		}
		code, err := asUser(args[2], args[3:])
		if err != nil {
			fmt.Fprintln(os.Stderr, "tako:", err)
			return true, 1
		}
		return true, code
	}
	return false, 0
}

// asUser runs a program as a user who must not get at the terminal of root, who calls this.
// Whoever has a terminal as its own can put characters into it, which root's shell reads
// as if root had typed them, and can read what root types. So the program gets a session
// of its own, and a terminal of its own in the place of root's; where there is no terminal
// at all, this process becomes it.
func asUser(name string, args []string) (code int, err error) {
	cred, home, err := credential(name)
	if err != nil {
		return 1, err
	}
	env := append(slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "HOME=") }), "HOME="+home)
	if !attached() {
		return 1, become(cred, args, env)
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // signals are passed on to it
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setsid: true}
	cmd.WaitDelay = time.Second // what it leaves behind may have its output
	p := &passage{cmd: cmd}
	if isTerminal(os.Stdin) && foreground() {
		err = p.terminal(cred.Uid)
	} else {
		p.pipes()
	}
	if err != nil {
		return 1, err
	}
	return p.run()
}

// credential is that of a user, with its groups.
func credential(name string) (cred *syscall.Credential, home string, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, "", err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, "", err
	}
	numbers := make([]uint32, 0, len(ids)+2)
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, "", fmt.Errorf("the user %s has the id %q: %w", name, id, err)
		}
		numbers = append(numbers, uint32(n))
	}
	return &syscall.Credential{Uid: numbers[0], Gid: numbers[1], Groups: numbers[2:]}, u.HomeDir, nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) } //nolint:gosec // a descriptor is small

// attached reports whether this process has any terminal.
func attached() bool {
	if isTerminal(os.Stdin) || isTerminal(os.Stdout) || isTerminal(os.Stderr) {
		return true
	}
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENOENT)
	}
	_ = unix.Close(fd)
	return true
}

// foreground reports whether this process may read from its terminal.
func foreground() bool {
	group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP) //nolint:gosec // a descriptor is small
	return err != nil || group == unix.Getpgrp()
}

// become makes this process the program, for good.
func become(cred *syscall.Credential, args, env []string) error {
	groups := make([]int, len(cred.Groups))
	for i, g := range cred.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("become user %d: %w", cred.Uid, err)
	}
	if err := errors.Join(syscall.Setgid(int(cred.Gid)), syscall.Setuid(int(cred.Uid))); err != nil {
		return fmt.Errorf("become user %d: %w", cred.Uid, err)
	}
	if err := syscall.Exec(args[0], args, env); err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	return nil
}

// passage runs a program, and carries what goes between it and our terminal.
type passage struct {
	cmd *exec.Cmd
	// master is our end of its terminal, slave its own; nil without one.
	master, slave *os.File
}

// through is a file that a program gets by a pipe, and not as it is.
type through struct{ io.Writer }

// pipes keeps our terminal from a program that nobody types to.
func (p *passage) pipes() {
	if !isTerminal(os.Stdin) {
		p.cmd.Stdin = os.Stdin
	}
	p.cmd.Stdout, p.cmd.Stderr = os.Stdout, os.Stderr
	if isTerminal(os.Stdout) {
		p.cmd.Stdout = through{os.Stdout}
	}
	if isTerminal(os.Stderr) {
		p.cmd.Stderr = through{os.Stderr}
	}
}

// terminal gives a program a terminal of its own where we have one.
func (p *passage) terminal(uid uint32) (err error) {
	if p.master, p.slave, err = openTerminal(); err != nil {
		return fmt.Errorf("make a terminal: %w", err)
	}
	if err := p.slave.Chown(int(uid), -1); err != nil {
		return fmt.Errorf("make a terminal: %w", err)
	}
	p.resize()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, os.Stdout, os.Stderr
	if isTerminal(os.Stdout) {
		p.cmd.Stdout = p.slave
	}
	if isTerminal(os.Stderr) {
		p.cmd.Stderr = p.slave
	}
	p.cmd.SysProcAttr.Setctty, p.cmd.SysProcAttr.Ctty = true, 0
	return nil
}

// openTerminal makes a terminal and opens both ends.
func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	number := 0
	err = ioctl(master, func(fd int) (err error) {
		if number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
			return err
		}
		return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	})
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// ioctl does something with a file's descriptor, which stays as it is.
func ioctl(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	err = raw.Control(func(fd uintptr) { done = do(int(fd)) })
	return errors.Join(err, done)
}

// resize makes its terminal as large as ours.
func (p *passage) resize() {
	if p.master == nil {
		return
	}
	_ = ioctl(p.master, func(fd int) error { // of any size it is a terminal
		size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ) //nolint:gosec // a descriptor is small
		if err != nil {
			return err
		}
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size)
	})
}

// run runs it to its end, and tells how to end like it.
func (p *passage) run() (code int, err error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGWINCH)
	defer signal.Stop(signals)
	drained := make(chan struct{})
	close(drained)
	if p.master != nil {
		in := int(os.Stdin.Fd()) //nolint:gosec // a descriptor is small
		before, err := term.MakeRaw(in)
		if err != nil {
			return 1, fmt.Errorf("pass on what is typed: %w", err)
		}
		defer term.Restore(in, before) //nolint:errcheck // there is nobody to tell
		drained = make(chan struct{})
	}
	if err := p.cmd.Start(); err != nil {
		return 1, err
	}
	if p.master != nil {
		_ = p.slave.Close()                                // its own is open
		go func() { _, _ = io.Copy(p.master, os.Stdin) }() // until we end
		go func() {
			defer close(drained)
			_, _ = io.Copy(through{ours()}, p.master) // an error is its end
		}()
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			p.pass(s)
		case err := <-ended:
			select {
			case <-drained:
			case <-time.After(time.Second): // what it leaves behind has the terminal still
			}
			return exitCode(p.cmd, err)
		}
	}
}

// ours is the terminal on which its terminal is shown.
func ours() *os.File {
	for _, f := range []*os.File{os.Stdout, os.Stderr} {
		if isTerminal(f) {
			return f
		}
	}
	return os.Stdin // open for both, as terminals are
}

// pass passes a signal on: that of a key to all whom the key would reach.
func (p *passage) pass(s os.Signal) {
	n, ok := s.(syscall.Signal)
	if !ok {
		return
	}
	pid := p.cmd.Process.Pid
	switch n {
	case syscall.SIGWINCH:
		p.resize()
		return
	case syscall.SIGINT, syscall.SIGQUIT:
		pid = -pid
	default:
	}
	_ = syscall.Kill(pid, n) // it may have ended
}

// exitCode is a program's own, or 128 and the number of the signal that has ended it.
func exitCode(cmd *exec.Cmd, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return 1, err
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}
