package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is one whose program is a version of a root.
type Process struct {
	PID     int
	Version string
}

// Processes lists the processes of this machine that run a version of a root, servers and
// others, also where the version has been removed since.
func Processes(root string) ([]Process, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, fmt.Errorf("find the processes that run: %w", err)
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if v := versionOf(root, programOf(dir)); v != "" {
			out = append(out, Process{pid, v})
		}
	}
	return out, nil
}

// programOf is the program of the process with a directory below /proc, "" if that cannot be
// known: it has ended.
func programOf(dir string) string {
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		return exe
	}
	// Of another user's process only the command line can be read.
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return ""
	}
	first, _, _ := bytes.Cut(line, []byte{0})
	return filepath.Clean(string(first))
}

// versionOf is the version of a root, without symbolic links, that a program is, "" for none.
func versionOf(root, program string) string {
	dir := filepath.Dir(program)
	if filepath.Dir(dir) != filepath.Join(root, "versions") || strings.Contains(filepath.Base(dir), "..") {
		return ""
	}
	return filepath.Base(dir)
}
