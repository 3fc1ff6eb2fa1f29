package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// FileOf is a copy of a listener's socket, for the caller to close. Unlike the
// listener's own File method it leaves the socket non-blocking: a blocking one, which
// all copies share, would keep other processes' Close waiting for a connection.
func FileOf(ln net.Listener) (*os.File, error) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a listener of type %T has no socket", ln)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(s uintptr) { fd, failed = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 3) })
	if err := errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("copy a socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

// fdOf is the descriptor of a file, which stays as it is.
func fdOf(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(s uintptr) { fd = int(s) })
	return fd, err
}

// Spawn starts a program with the listening sockets, in a session of its own so that a
// signal for the supervisor's terminal is none for it. The process outlives its parent.
func Spawn(exe string, args, environ []string, launch Launch, sockets map[string]*os.File, stdout, stderr *os.File) (*os.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []*os.File{null, stdout, stderr}
	launch.Listeners = map[string]int{}
	for name, f := range sockets {
		launch.Listeners[name] = len(files)
		files = append(files, f)
	}
	variable, err := launch.Variable()
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{Env: append(environ, variable), Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, f := range files {
		fd, err := fdOf(f)
		if err != nil {
			return nil, err
		}
		attr.Files = append(attr.Files, uintptr(fd))
	}
	// Not os.StartProcess, whose files become blocking.
	pid, err := syscall.ForkExec(exe, append([]string{exe}, args...), attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", exe, err)
	}
	return os.FindProcess(pid)
}
