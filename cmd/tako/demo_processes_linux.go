package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// terminate asks a process to end.
const terminate = syscall.SIGTERM

// apart keeps the terminal's Ctrl-C from an agent: it is ended last, by the demo.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// marked finds the processes with a variable in the environment that they were started
// with, but for this one. Each is held by a handle, not by its number.
func marked(mark string) (found []*os.Process) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is right
	for _, name := range all {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil || pid == os.Getpid() || !hasMark(name, mark) {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		if hasMark(name, mark) { // the number was no other's before there was a handle
			found = append(found, p)
		} else {
			_ = p.Release()
		}
	}
	return found
}

// hasMark reads a process's environment: that of another user's process cannot be read,
// and one that has ended has none.
func hasMark(environ, mark string) bool {
	text, err := os.ReadFile(environ)
	return err == nil && bytes.Contains(append([]byte{0}, text...), []byte("\x00"+mark+"\x00"))
}
