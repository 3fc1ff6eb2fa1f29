// Package proctest keeps what the processes of a test say, and ends what they leave behind: agents, runners
// and scripts that live on when their server dies would otherwise outlive the test
// and write into its directory while that is removed.
package proctest

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Of lists the living processes that have dir in their command line, their
// environment or as their working directory, but for the caller. It knows Linux's
// /proc only, and is empty elsewhere.
func Of(dir string) (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil || pid == os.Getpid() {
			continue
		}
		// One that ends meanwhile can be read no more. A zombie has neither.
		line, _ := os.ReadFile(filepath.Join(name, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(name, "environ"))
		cwd, _ := os.Readlink(filepath.Join(name, "cwd"))
		if slices.ContainsFunc([]string{string(line), string(env), cwd}, func(s string) bool { return strings.Contains(s, dir) }) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// End kills the processes of dir, and those that they have just begun, until there
// are none.
func End(t testing.TB, dir string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for pids := Of(dir); len(pids) > 0; pids = Of(dir) {
		if time.Now().After(deadline) {
			t.Errorf("processes %v of %s cannot be ended", pids, dir)
			return
		}
		for _, pid := range pids {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill() // it may have ended by itself
			}
		}
		<-time.After(2 * time.Millisecond)
	}
}
