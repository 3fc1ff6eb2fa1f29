package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/takodeploy/tako/internal/agent/daemon"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
)

// Removal is what is to be taken away.
type Removal struct {
	Layout
	// Purge also removes the data, the settings and the user.
	Purge   bool
	Systemd daemon.Manager
}

// Removed is what a removal has come to.
type Removed struct {
	// Gone are the paths that were removed, Kept those that are left.
	Gone, Kept []string
	// Scripts are processes of deployments that still run on this machine.
	Scripts []int
}

// stopWithin is how long the built-in worker may take to end.
const stopWithin = 20 * time.Second

// Uninstall stops the service and the built-in worker and removes the programs; data and
// settings stay unless they are to be purged. It refuses while a supervisor runs that
// systemd has not started.
func Uninstall(ctx context.Context, r *Removal) (out Removed, err error) {
	if r.User != "" && os.Getuid() != 0 {
		return out, errors.New("a service is removed by root: use sudo")
	}
	if err := r.known(); err != nil {
		return out, err
	}
	if r.Prefix == "" && r.Systemd.Check() == nil {
		if _, err := os.Stat(r.Unit()); err == nil {
			out.Gone = append(out.Gone, r.Unit())
		}
		if err := r.Systemd.Uninstall(ctx, Service); err != nil {
			return out, err
		}
	}
	held, err := r.held(ctx)
	if err != nil {
		return out, err
	}
	if held {
		return out, fmt.Errorf("a supervisor runs in %s; end it first", r.Root)
	}
	if out.Scripts, err = r.endWorker(ctx); err != nil {
		return out, err
	}
	gone := []string{r.Unit(), r.Unit() + ".d", r.Command(), r.Lib}
	if r.Purge {
		gone = append(gone, r.Root, r.Etc)
	} else {
		out.Kept = []string{r.Root, r.Etc}
	}
	for _, path := range gone {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return out, err
		}
		out.Gone = append(out.Gone, path)
	}
	if !r.Purge || r.User == "" {
		return out, nil
	}
	if _, err := user.Lookup(r.User); err != nil {
		return out, nil //nolint:nilerr // there is none
	}
	program := "userdel"
	if _, err := exec.LookPath(program); err != nil {
		program = "deluser" // BusyBox
	}
	//nolint:gosec // the arguments are our own
	if text, err := exec.CommandContext(ctx, program, r.User).CombinedOutput(); err != nil {
		return out, fmt.Errorf("remove the user %s: %w: %s", r.User, err, strings.TrimSpace(string(text)))
	}
	out.Gone = append(out.Gone, "the user "+r.User)
	return out, nil
}

// held reports whether a supervisor runs.
func (r *Removal) held(ctx context.Context) (bool, error) {
	if _, err := os.Stat(r.Root); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	program := r.Supervisor()
	if _, err := os.Stat(program); err != nil {
		program = "/proc/self/exe"
	}
	t, err := r.send(ctx, program, &errand{Do: errandHeld})
	return t.Held, err
}

// known refuses to remove what is not Tako's.
func (r *Removal) known() error {
	for _, path := range []string{filepath.Join(r.Root, "versions"), r.Supervisor()} {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	return fmt.Errorf("nothing of Tako is installed in %s and %s", r.Root, r.Lib)
}

// endWorker ends the built-in worker and whoever carries an upgrade out, which outlive the
// service, and tells which scripts go on: those are nobody's to end but a person's. An
// upgrade goes on from its journal if there is a service again.
func (r *Removal) endWorker(ctx context.Context) (scripts []int, err error) {
	until := time.Now().Add(stopWithin)
	for {
		workers, others, err := r.processes()
		if err != nil || len(workers) == 0 {
			return others, err
		}
		for _, pid := range workers {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return nil, fmt.Errorf("end process %d, which outlives the service: %w", pid, err)
			}
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("process %d, the built-in worker or that of an upgrade, does not end", workers[0])
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// processes are those whose program is a version of the root: workers, built-in and of
// upgrades, and others.
func (r *Removal) processes() (workers, others []int, err error) {
	all, err := supervisor.Processes(r.Root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil // it was removed before
	}
	for _, p := range all {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err != nil {
			continue
		}
		if strings.Contains(string(args), "\x00agent\x00run\x00--builtin\x00") || strings.Contains(string(args), "\x00"+upgrade.WorkerCommand+"\x00") {
			workers = append(workers, p.PID)
		} else {
			others = append(others, p.PID)
		}
	}
	return workers, others, err
}
