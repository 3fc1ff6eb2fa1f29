package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/takodeploy/tako/internal/failpoint"
	"golang.org/x/sys/unix"
)

// How long a runner reads on after its script's main process ended, when
// descendants keep the output open. Of a script that was killed none should.
const (
	drainFor     = 2 * time.Second
	drainStopped = 100 * time.Millisecond
)

// stubTries is how many stubs a runner starts when they die before they created
// "started".
const stubTries = 3

// RunnerMain is the process that looks after one script: it prepares the
// workspace, starts the stub, writes the log and records the exit code. It
// inherits the held lock. It uses no network.
func RunnerMain(args []string) int {
	unix.CloseOnExec(lockFD)
	unix.CloseOnExec(aliveFD)
	if len(args) != 1 {
		return 2
	}
	standFast()
	r := &runner{ws: workspace(args[0])}
	if err := r.run(); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s runner %d: %v\n", time.Now().UTC().Format(time.RFC3339), os.Getpid(), err)
		return 1
	}
	return 0
}

type runner struct {
	ws     workspace
	req    savedRequest
	log    *logWriter
	oom    string
	cgroup string // of the script, "" for none
	group  *os.File
}

// cause says why a script is ended before its time: one of the negative exit codes.
type cause int

func (c cause) Error() string { return "ended with " + strconv.Itoa(int(c)) }

func (r *runner) run() error {
	self, err := thisProcess()
	if err != nil {
		return err
	}
	// A hint for whoever has to deal with a stopped runner; the lock is the truth.
	b, err := json.Marshal(startedFile{process: self})
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.ws.path(lockName), b, 0o600); err != nil && !diskFull(err) {
		return err
	}
	if err := failpoint.Hit("runner-locked"); err != nil {
		return err
	}
	if r.ws.has(exitName) || r.ws.has(startedName) || r.ws.has(cancelName) {
		return nil
	}
	if r.log, err = openLog(string(r.ws)); err != nil {
		return err
	}
	r.log.patient = true
	if r.req, err = r.ws.request(); err != nil {
		return r.end(exitFile{Code: ExitFatal, Message: err.Error()})
	}
	r.oom = lowerOOM()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return r.end(exitFile{Code: ExitFatal, Message: fmt.Sprintf("become subreaper: %v", err)})
	}

	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	if err := r.watchCancel(stop); err != nil {
		return r.end(exitFile{Code: ExitFatal, Message: err.Error()})
	}
	if r.req.Timeout > 0 {
		timer := time.AfterFunc(r.req.Timeout, func() { stop(cause(ExitTimeout)) })
		defer timer.Stop()
	}
	if err := r.prepare(ctx); err != nil {
		if c, ok := stopped(ctx); ok {
			return r.end(r.stoppedEnd(c))
		}
		r.log.say(Stderr, "Preparing the script was not possible: "+err.Error())
		return r.end(exitFile{Code: ExitPrepare, Message: err.Error()})
	}
	for try := 1; ; try++ {
		if c, ok := stopped(ctx); ok {
			return r.end(r.stoppedEnd(c))
		}
		again, err := r.script(ctx)
		if err != nil || !again {
			return err
		}
		if try == stubTries {
			return r.end(exitFile{Code: ExitNoShell, Message: fmt.Sprintf("the script's process was killed %d times before it began", try)})
		}
	}
}

// prepare makes the workspace ready. What it says goes to the log at once: it may
// take long.
func (r *runner) prepare(ctx context.Context) error {
	tell := func(source Source, lines ...string) {
		r.log.say(source, lines...)
		if err := r.log.flush(); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "log:", err) // the next flush fails again, and ends the runner
		}
	}
	return prepareFiles(ctx, r.ws.path(filesName), r.ws.path(packagesName), r.req.Sent, r.req.Prepare,
		func(line string) { tell(Debug, line) },
		func(line string) { tell(Stdout, warningLines(line)...) })
}

// stopped returns the cause for which ctx ended, and whether it did.
func stopped(ctx context.Context) (cause, bool) {
	var c cause
	ok := errors.As(context.Cause(ctx), &c)
	return c, ok
}

func (r *runner) stoppedEnd(c cause) exitFile {
	e := exitFile{Code: int(c), Message: "The script was cancelled."}
	if c == ExitTimeout {
		e.Message = fmt.Sprintf("The script was ended: it ran longer than %v.", r.req.Timeout)
	}
	r.log.say(Stderr, e.Message)
	return e
}

func (r *runner) end(e exitFile) error { return r.ws.finish(r.log, "", e) }

// watchCancel ends the context when "cancel" is there. The agent writes a byte to
// "wake" after creating it; an agent that dies in between is followed by one that
// does.
func (r *runner) watchCancel(stop context.CancelCauseFunc) error {
	// Both ends, so that it never is at its end.
	wake, err := os.OpenFile(r.ws.path(wakeName), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	check := func() {
		if r.ws.has(cancelName) {
			stop(cause(ExitCanceled))
		}
	}
	check()
	go func() {
		var b [16]byte
		for {
			if _, err := wake.Read(b[:]); err != nil {
				return
			}
			check()
		}
	}()
	return nil
}

// script runs the script to its end and records it. again says that it has not
// begun and may be tried once more.
func (r *runner) script(ctx context.Context) (again bool, err error) {
	shell, err := findInterpreter(r.req.Interpreter)
	if err != nil {
		return false, r.end(exitFile{Code: ExitNoShell, Message: err.Error()})
	}
	if !r.req.NoCgroup && r.group == nil {
		r.group, r.cgroup = makeCgroup(strings.ToLower(r.req.Ticket))
	}
	if r.group != nil {
		defer removeCgroup(r.cgroup)
	}
	child, err := r.startStub(append([]string{shell, r.ws.path(filesName + "/" + bodyName)}, r.req.Arguments...))
	if err != nil {
		r.log.say(Stderr, "The script could not be started: "+err.Error())
		return false, r.end(exitFile{Code: ExitNoShell, Message: err.Error()})
	}
	defer child.out.close()

	ended := make(chan childEnd, 1)
	go func() { ended <- reap(child.pid) }()
	pumped := make(chan error, 1)
	go func() { pumped <- child.out.run(r.log) }()
	report := make(chan stubReport, 1)
	go func() { report <- readReport(child.report) }()

	var end childEnd
	var c cause
	var isStopped bool
	var survivors []process
	select {
	case err := <-pumped:
		if err != nil {
			return false, err // without its log the script's end could not be recorded
		}
		pumped <- nil // it closed its output and goes on
		select {
		case end = <-ended:
		case <-ctx.Done():
			isStopped = true
		}
	case end = <-ended:
	case <-ctx.Done():
		isStopped = true
	}
	if isStopped {
		c, _ = stopped(ctx)
		survivors = runnerTree(r.cgroup).kill(context.Background())
		select {
		case end = <-ended:
		case <-time.After(100 * time.Millisecond): // a survivor, perhaps
		}
	}
	if err := failpoint.Hit("child-exited"); err != nil {
		return false, err
	}
	drain := drainFor
	if isStopped {
		drain = drainStopped
	}
	child.out.drain(drain)
	if err := <-pumped; err != nil {
		return false, err
	}
	var said stubReport
	select {
	case said = <-report:
	case <-time.After(drain): // only a survivor keeps it open
	}
	switch {
	case said.AlreadyStarted:
		return false, nil
	case said.Code != 0:
		r.log.say(Stderr, "The script did not start: "+said.Message)
		return false, r.end(said.exitFile)
	case isStopped:
		e := r.stoppedEnd(c)
		e.Survivors = survivors
		for _, p := range survivors {
			r.log.say(Stderr, fmt.Sprintf("The %v cannot be killed; it may still run.", p))
		}
		return false, r.end(e)
	case end.name == child.name: // it never became the script
		if !r.ws.has(startedName) {
			return true, nil
		}
		e := exitFile{Code: ExitNoShell, Message: "The script's process was killed before the script began."}
		r.log.say(Stderr, e.Message)
		return false, r.end(e)
	}
	return false, r.end(exitFile{Code: end.code})
}

// child is a started stub, which may be the script by now.
type child struct {
	pid    int
	name   string // of the process until its execve
	out    *pump
	report *os.File
}

func (r *runner) startStub(argv []string) (*child, error) {
	var suffix [4]byte
	_, _ = rand.Read(suffix[:])
	c := &child{name: "tako-" + hex.EncodeToString(suffix[:])} // 15 bytes at most
	order, err := json.Marshal(stubOrder{Workspace: r.ws, Name: c.name, OOM: r.oom, Cgroup: r.cgroup, Argv: argv})
	if err != nil {
		return nil, err
	}
	var ends []int // the child's, closed here at the end
	defer func() {
		for _, fd := range ends {
			_ = unix.Close(fd)
		}
	}()
	pipe := func() (int, error) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return 0, err
		}
		ends = append(ends, p[1])
		return p[0], nil
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ends = append(ends, null)
	stdout, err := pipe()
	if err != nil {
		return nil, err
	}
	stderr, err := pipe()
	if err != nil {
		return nil, errors.Join(err, unix.Close(stdout))
	}
	if c.out, err = newPump(stdout, stderr); err != nil {
		return nil, err
	}
	report, err := pipe()
	if err != nil {
		c.out.close()
		return nil, err
	}
	c.report = os.NewFile(uintptr(report), "report")
	attr := &syscall.ProcAttr{
		Env: scriptEnv(os.Environ(), slices.Concat(r.req.Env, failpointEnv(), []string{
			ticketEnv + "=" + strings.ToLower(r.req.Ticket), ProgramEnv + "=/proc/" + strconv.Itoa(os.Getpid()) + "/exe",
		})),
		Files: []uintptr{uintptr(null), uintptr(ends[1]), uintptr(ends[2]), lockFD, aliveFD, uintptr(ends[3])},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	stub := []string{"tako-stub", internalArg, "stub", string(order)}
	if r.group != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(r.group.Fd())
		c.pid, err = syscall.ForkExec(selfExe, stub, attr)
		if err == nil {
			return c, nil
		}
		// Whoever else uses this cgroup has rules that forbid ours.
		removeCgroup(r.cgroup)
		_ = r.group.Close()
		r.group, r.cgroup = nil, ""
		attr.Sys.UseCgroupFD = false
		if order, err = json.Marshal(stubOrder{Workspace: r.ws, Name: c.name, OOM: r.oom, Argv: argv}); err != nil {
			return nil, err
		}
		stub[3] = string(order)
	}
	if c.pid, err = syscall.ForkExec(selfExe, stub, attr); err != nil {
		c.out.close()
		return nil, errors.Join(err, c.report.Close())
	}
	return c, nil
}

// failpointEnv hands the failpoints, which scripts never see, to the stub.
func failpointEnv() []string {
	var out []string
	for _, key := range []string{failpoint.Env, failpoint.EnvOnce} {
		if v := os.Getenv(key); v != "" {
			out = append(out, key+"="+v)
		}
	}
	return out
}

// readReport reads what the stub says: nothing, when it became the script.
func readReport(f *os.File) stubReport {
	defer f.Close()
	var r stubReport
	if err := json.NewDecoder(f).Decode(&r); err != nil {
		return stubReport{}
	}
	return r
}

// childEnd is how a child ended.
type childEnd struct {
	code int    // 128+n for signal n, as shells count
	name string // of the process at its end
}

// reap waits for the children of this process until pid has ended. Others are
// orphans that came to us as the subreaper.
func reap(pid int) childEnd {
	for {
		// WNOWAIT: a dead child keeps its name until it is waited for. The name tells
		// a stub that was killed from a script that was.
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return childEnd{code: ExitLost}
		}
		got := siginfoPID(&info)
		name := ""
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(got) + "/comm"); err == nil {
			name = strings.TrimSuffix(string(b), "\n")
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(got, &status, 0, nil); err != nil {
			continue
		}
		if got == pid {
			if status.Signaled() {
				return childEnd{code: 128 + int(status.Signal()), name: name}
			}
			return childEnd{code: status.ExitStatus(), name: name}
		}
	}
}

// siginfoPID returns si_pid, which x/sys does not export: the first field of the
// union after three ints, aligned as a pointer.
func siginfoPID(info *unix.Siginfo) int {
	const align = unsafe.Sizeof(uintptr(0))
	const offset = (3*4 + align - 1) / align * align
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), offset)))
}
