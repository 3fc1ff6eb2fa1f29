package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepPackage is how long an uploaded package is kept after its last use, however full
// its directory is.
const keepPackage = 24 * time.Hour

// execMain is ExecArgs.
func execMain(args []string) int {
	if len(args) < 1 {
		return 2
	}
	e := execution{out: os.Stdout, errs: os.Stderr, arguments: args[1:]}
	if err := readJSON(args[0], &e.req); err != nil {
		return e.fail(ExitFatal, "The request of the script cannot be read: "+err.Error())
	}
	return e.run()
}

// execution is a script that is run for an agent of another make.
type execution struct {
	req       ExecRequest
	arguments []string
	out, errs io.Writer
}

// fail ends without the script, or before its time.
func (e *execution) fail(code int, message string) int {
	_, _ = fmt.Fprintln(e.errs, message)
	_, _ = fmt.Fprintf(e.out, "##octopus[resultMessage message='%s']\n", base64.StdEncoding.EncodeToString([]byte(message)))
	return ExecExit(code)
}

func (e *execution) run() int {
	// The script ends with this thread, if this process is killed.
	runtime.LockOSThread()
	exe, err := os.Executable()
	if err != nil {
		return e.fail(ExitFatal, err.Error())
	}
	_ = os.Chtimes(exe, time.Time{}, time.Now()) // its last use
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return e.fail(ExitFatal, fmt.Sprintf("become subreaper: %v", err))
	}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	go func() {
		<-ended
		stop(cause(ExitCanceled))
	}()
	if e.req.Timeout > 0 {
		timer := time.AfterFunc(e.req.Timeout, func() { stop(cause(ExitTimeout)) })
		defer timer.Stop()
	}
	if err := e.prepare(ctx, exe); err != nil {
		if c, ok := stopped(ctx); ok {
			return e.stopped(c)
		}
		return e.fail(ExitPrepare, "Preparing the script was not possible: "+err.Error())
	}
	shell, err := findInterpreter("bash")
	if err != nil {
		return e.fail(ExitNoShell, err.Error())
	}
	if c, ok := stopped(ctx); ok {
		return e.stopped(c)
	}
	extra := []string{ProgramEnv + "=" + exe}
	for k, v := range e.req.Env {
		extra = append(extra, k+"="+v)
	}
	pid, err := syscall.ForkExec(shell, append([]string{shell, e.req.Script}, e.arguments...), &syscall.ProcAttr{
		Env:   scriptEnv(os.Environ(), extra),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return e.fail(ExitNoShell, "The script could not be started: "+err.Error())
	}
	killed := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(killed)
		for _, p := range runnerTree("").kill(context.Background()) {
			_, _ = fmt.Fprintf(e.errs, "The %v cannot be killed; it may still run.\n", p)
		}
	})
	end := reap(pid)
	if unwatch() {
		return end.code
	}
	// Its orphans are ours now: they are reaped while they are ended.
	go reap(-1)
	<-killed
	c, _ := stopped(ctx)
	return e.stopped(c)
}

func (e *execution) stopped(c cause) int {
	if c == ExitTimeout {
		return e.fail(ExitTimeout, fmt.Sprintf("The script was ended: it ran longer than %v.", e.req.Timeout))
	}
	_, _ = fmt.Fprintln(e.errs, "The script was cancelled.")
	return ExecExit(int(c))
}

// prepare makes the script's directory, where this process runs, ready.
func (e *execution) prepare(ctx context.Context, exe string) error {
	if err := e.req.Prepare.check(); err != nil {
		return err
	}
	if len(e.req.Prepare.Packages) == 0 && len(e.req.Prepare.Substitute.Globs) == 0 {
		return nil
	}
	packages, err := os.MkdirTemp("", "tako-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(packages) //nolint:errcheck // names of files that are kept elsewhere
	for _, p := range e.req.Prepare.Packages {
		if err := lendPackage(ctx, packageDir(exe, p.SHA256), p.SHA256, filepath.Join(packages, p.SHA256)); err != nil {
			return fmt.Errorf("package %s (%s): %w", p.Name, p.FileName, err)
		}
	}
	tell := func(lines ...string) { _, _ = fmt.Fprintln(e.out, strings.Join(lines, "\n")) }
	err = prepareFiles(ctx, ".", packages, append(e.req.Sent, e.req.Script), e.req.Prepare,
		func(line string) { tell("##octopus[stdout-verbose]", line, "##octopus[stdout-default]") },
		func(line string) { tell(warningLines(line)...) })
	prunePackages(filepath.Dir(packageDir(exe, "")), DefaultPackageLimit)
	return err
}

// packageDir is where an uploaded package lies.
func packageDir(exe, sha256 string) string {
	return filepath.Join(filepath.Dir(filepath.Dir(exe)), PackagesName, sha256)
}

// lendPackage gives the uploaded package in dir a second name, having looked whether
// it is what it should be. One that is not is uploaded anew the next time.
func lendPackage(ctx context.Context, dir, hash, to string) error {
	ready := filepath.Join(dir, ReadyName)
	name, err := os.ReadFile(ready)
	if err != nil || !localName(string(name)) || len(name) == 0 {
		return errors.New("it is not there any more; run the script again, which sends it")
	}
	now := time.Now()
	_ = os.Chtimes(ready, now, now) // its last use
	from := filepath.Join(dir, string(name))
	f, err := os.Open(from)
	if err != nil {
		_ = os.Remove(ready)
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, &contextReader{ctx, f}); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hash {
		_ = os.Remove(ready)
		return fmt.Errorf("it was damaged on this machine, its SHA-256 is %s and should be %s; run the script again, which sends it again", got, hash)
	}
	return os.Symlink(from, to)
}

// prunePackages removes what was not used for longest while all of them are larger
// than limit, and files that broken uploads left.
func prunePackages(dir string, limit int64) {
	type kept struct {
		dir  string
		used time.Time
		size int64
	}
	var all []kept
	total := int64(0)
	dirs, _ := os.ReadDir(dir)
	for _, d := range dirs {
		if !d.IsDir() || checkSHA256(d.Name()) != nil {
			continue
		}
		k := kept{dir: filepath.Join(dir, d.Name())}
		info, err := os.Stat(filepath.Join(k.dir, ReadyName))
		if err != nil {
			info, err = os.Stat(k.dir)
		}
		if err != nil {
			continue
		}
		k.used = info.ModTime()
		_ = filepath.WalkDir(k.dir, func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				k.size += info.Size()
			}
			return nil
		})
		total += k.size
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.dir, b.dir)) })
	for _, k := range all {
		if total <= limit || time.Since(k.used) < keepPackage {
			return
		}
		if err := os.Remove(filepath.Join(k.dir, ReadyName)); err == nil || errors.Is(err, fs.ErrNotExist) {
			_ = os.RemoveAll(k.dir)
		}
		total -= k.size
	}
}
