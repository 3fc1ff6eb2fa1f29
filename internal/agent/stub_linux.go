package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"golang.org/x/sys/unix"
)

// stubOrder is what a runner tells its stub, as one argument.
type stubOrder struct {
	Workspace workspace
	Name      string // the name of the process until its execve
	OOM       string // oom_score_adj of the script
	Cgroup    string
	Argv      []string // Argv[0] is the interpreter's path
}

// stubReport is what a stub that does not become the script tells its runner.
type stubReport struct {
	AlreadyStarted bool // "started" was there: this is another runner's script
	exitFile
}

// StubMain is the process that becomes the script: having created "started" it
// executes the interpreter. It returns only when it must not, or cannot.
func StubMain(args []string) int {
	for _, fd := range []int{lockFD, aliveFD, reportFD} {
		unix.CloseOnExec(fd) // the script holds neither the lock nor the runner's pipe
	}
	var o stubOrder
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &o) != nil || len(o.Argv) == 0 {
		return 2
	}
	_ = os.WriteFile("/proc/self/comm", []byte(o.Name), 0)
	standFast() // caught signals, unlike ignored ones, have their default again after execve
	if o.OOM != "" {
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte(o.OOM), 0)
	}
	report := o.run()
	b, err := json.Marshal(report)
	if err == nil {
		_, err = unix.Write(reportFD, b)
	}
	if err != nil {
		return 2
	}
	return 0
}

// run becomes the script, or says why not.
func (o stubOrder) run() stubReport {
	w := o.Workspace
	// All that can fail without the script's having a right to run is done before
	// the right is taken.
	self, err := thisProcess()
	if err != nil {
		return stubReport{exitFile: exitFile{Code: ExitNoShell, Message: err.Error()}}
	}
	content, err := json.Marshal(startedFile{process: self, Cgroup: o.Cgroup})
	if err != nil {
		return stubReport{exitFile: exitFile{Code: ExitNoShell, Message: err.Error()}}
	}
	if err := os.Chdir(w.path(filesName)); err != nil {
		return stubReport{exitFile: exitFile{Code: ExitNoShell, Message: err.Error()}}
	}
	if err := failpoint.Hit("before-started"); err != nil {
		return stubReport{exitFile: exitFile{Code: ExitNoShell, Message: err.Error()}}
	}
	err = create(w.path(startedName), content, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return stubReport{AlreadyStarted: true}
	}
	if err == nil {
		err = durable.SyncDir(string(w))
	}
	if err == nil {
		err = failpoint.Hit("started-written")
	}
	if err != nil {
		return o.fail(exitFile{Code: ExitNoShell, Message: fmt.Sprintf("record the start: %v", err)})
	}
	// The agent writes "cancel" before it looks for "started"; we look the other
	// way round, so one of us sees the other.
	if w.has(cancelName) || w.has(exitName) {
		return o.fail(exitFile{Code: ExitCanceled, Message: "cancelled before the script began"})
	}
	if err := failpoint.Hit("before-execve"); err != nil {
		return o.fail(exitFile{Code: ExitNoShell, Message: err.Error()})
	}
	err = syscall.Exec(o.Argv[0], o.Argv, withoutFailpoints(os.Environ()))
	return o.fail(exitFile{Code: ExitNoShell, Message: fmt.Sprintf("execute %s: %v", o.Argv[0], err)})
}

// fail records that the script is known not to have run, for a runner or an agent
// that finds "started".
func (o stubOrder) fail(e exitFile) stubReport {
	e.Time = time.Now().UTC()
	if b, err := json.Marshal(e); err == nil {
		if err := create(o.Workspace.path(execFailedName), b, 0o600); err == nil {
			_ = durable.SyncDir(string(o.Workspace))
		}
	}
	return stubReport{exitFile: e}
}

// scriptEnv is the runner's environment without what is meant for us alone
// (Tako's own settings, which may be secret, and the service manager's), and with
// extra, whose values win.
func scriptEnv(own, extra []string) []string {
	at := make(map[string]int, len(own)+len(extra))
	out := make([]string, 0, len(own)+len(extra))
	add := func(kv string) {
		key, _, _ := strings.Cut(kv, "=")
		if i, ok := at[key]; ok {
			out[i] = kv
			return
		}
		at[key] = len(out)
		out = append(out, kv)
	}
	for _, kv := range own {
		if key, _, _ := strings.Cut(kv, "="); !ourEnv(key) {
			add(kv)
		}
	}
	for _, kv := range extra {
		add(kv)
	}
	return out
}

// withoutFailpoints is what the stub hands to the script.
func withoutFailpoints(env []string) []string {
	return slices.DeleteFunc(env, func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return key == failpoint.Env || key == failpoint.EnvOnce
	})
}

func ourEnv(key string) bool {
	switch key {
	case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE", "WATCHDOG_PID", "WATCHDOG_USEC",
		"CREDENTIALS_DIRECTORY", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "SYSTEMD_EXEC_PID":
		return true
	}
	return strings.HasPrefix(key, "TAKO_")
}

// findInterpreter returns the path of a program, looked for in PATH and then where
// it is on all systems.
func findInterpreter(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range append([]string{"/bin", "/usr/bin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.IsAbs(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is in neither /bin nor PATH", name)
}
