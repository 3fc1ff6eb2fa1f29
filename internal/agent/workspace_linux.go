package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"golang.org/x/sys/unix"
)

// exitRoom is how much of the disk exit.tmp takes at creation, so that an exit
// code can be recorded on a full disk.
const exitRoom = 4096

// workspace is the directory of one ticket.
type workspace string

func (w workspace) path(name string) string { return filepath.Join(string(w), name) }

func (w workspace) has(name string) bool {
	_, err := os.Lstat(w.path(name))
	return err == nil
}

// savedRequest is the content of "request".
type savedRequest struct {
	Format       int
	Ticket       string // as it was sent
	Hash         string // SHA-256 of the StartRequest
	Arrival      int64  // ascending over the tickets of an agent
	Interpreter  string
	Arguments    []string `json:",omitempty"`
	Env          []string // KEY=value, what the script gets besides the runner's own
	Isolation    Isolation
	Mutex        string
	MutexTimeout time.Duration
	Timeout      time.Duration
	Prepare      Prepare
	Sent         []string `json:",omitempty"` // names of the files that came with the request
	NoCgroup     bool     `json:",omitempty"`
}

// process names a process for as long as the machine runs: pids are used again.
type process struct {
	PID   int
	Start uint64 // field 22 of /proc/<pid>/stat, clock ticks after boot
	Boot  string // /proc/sys/kernel/random/boot_id
}

// String names it for people.
func (p process) String() string { return fmt.Sprintf("process %d", p.PID) }

// alive reports whether it still runs. A zombie does not.
func (p process) alive() bool {
	if p.PID <= 0 || p.Boot != bootID() {
		return false
	}
	st, err := statProcess(p.PID)
	return err == nil && st.start == p.Start && !st.dead()
}

// startedFile is the content of "started" and of "lock".
type startedFile struct {
	process
	Cgroup string `json:",omitempty"` // absolute directory of the script's cgroup
}

// exitFile is the content of "exit", "exec-failed" and of a tombstone.
type exitFile struct {
	Code      int
	Last      int64 // number of the log's last entry
	Time      time.Time
	Message   string    `json:",omitempty"`
	Survivors []process `json:",omitempty"`
}

func (w workspace) readJSON(name string, into any) error { return readJSON(w.path(name), into) }

func readJSON(name string, into any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(bytes.TrimRight(b, "\x00"), into); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(name), err)
	}
	return nil
}

func (w workspace) request() (savedRequest, error) {
	var r savedRequest
	err := w.readJSON(requestName, &r)
	if err == nil && r.Format != Format {
		err = fmt.Errorf("read %s: format %d, this agent knows %d", requestName, r.Format, Format)
	}
	return r, err
}

// started returns the content of "started" and whether it exists. A file that a
// crash left without content is one of a script that cannot be alive: its stub
// died between two instructions.
func (w workspace) started() (startedFile, bool) {
	var s startedFile
	err := w.readJSON(startedName, &s)
	return s, !errors.Is(err, fs.ErrNotExist)
}

func (w workspace) exit() (exitFile, bool) {
	var e exitFile
	err := w.readJSON(exitName, &e)
	if errors.Is(err, fs.ErrNotExist) {
		return e, false
	}
	if err != nil { // fsynced before it was renamed: only a broken disk does this
		e = exitFile{Code: ExitLost, Message: err.Error()}
	}
	return e, true
}

// create writes a file that must not exist, durably but for its directory entry.
func create(name string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// mark creates an empty marker file durably. One that exists is as good.
func (w workspace) mark(name string) error {
	if err := create(w.path(name), nil, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(string(w))
}

// build fills an empty directory with everything a workspace begins with, durably.
// link places the package with that hash at a path.
func (w workspace) build(saved savedRequest, req StartRequest, link func(sha256, to string) error) error {
	if err := os.Mkdir(w.path(filesName), 0o700); err != nil {
		return err
	}
	if err := w.writeFiles(req); err != nil {
		return err
	}
	if len(saved.Prepare.Packages) > 0 {
		if err := os.Mkdir(w.path(packagesName), 0o700); err != nil {
			return err
		}
		for _, p := range saved.Prepare.Packages {
			if err := link(p.SHA256, w.path(packagesName+"/"+p.SHA256)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		if err := durable.SyncDir(w.path(packagesName)); err != nil {
			return err
		}
	}
	for _, name := range []string{aliveName, wakeName} {
		if err := unix.Mkfifo(w.path(name), 0o600); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
	}
	if err := create(w.path(lockName), nil, 0o600); err != nil {
		return err
	}
	if err := create(w.path(exitTempName), make([]byte, exitRoom), 0o600); err != nil {
		return err
	}
	b, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	if err := create(w.path(requestName), b, 0o600); err != nil {
		return err
	}
	return durable.SyncDir(string(w))
}

// writeFiles writes the script and the files sent along. Names go through
// os.Root: nothing lands outside.
func (w workspace) writeFiles(req StartRequest) error {
	root, err := os.OpenRoot(w.path(filesName))
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a directory handle
	dirs := map[string]bool{".": true}
	for _, f := range append(req.Files, File{Name: bodyName, Content: []byte(strings.ReplaceAll(req.Body, "\r\n", "\n"))}) {
		for d := path.Dir(f.Name); d != "."; d = path.Dir(d) {
			dirs[d] = true
		}
		if err := root.MkdirAll(path.Dir(f.Name), 0o700); err != nil {
			return err
		}
		out, err := root.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = out.Write(f.Content)
		if err == nil {
			err = out.Sync()
		}
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
	for d := range dirs {
		if err := durable.SyncDir(filepath.Join(w.path(filesName), d)); err != nil {
			return err
		}
	}
	return nil
}

// tryLock takes the workspace's lock and reports whether it did. The holder of the
// returned file has it, and whoever inherits it.
func (w workspace) tryLock() (*os.File, error) { return tryLock(w.path(lockName)) }

// errBusy says that another process has the lock.
var errBusy = errors.New("the lock is held by another process")

func tryLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = durable.TryFlock(f, durable.Exclusive, patience); err == nil {
		return f, nil
	}
	if errors.Is(err, durable.ErrLocked) {
		err = errBusy
	}
	return nil, errors.Join(err, f.Close())
}

// patience is how long a lock has to stay held to count as busy: there are many of them, and
// what looks as if it were held for a moment is looked at again.
const patience = 4 * time.Millisecond

// unlock gives a lock back, even while a child that is just being forked has a copy.
func unlock(f *os.File) { _ = durable.Release(f) }

// finish records the end of a ticket: end frame, fsync log, exit.tmp, rename. The
// caller holds the lock. Its failpoints carry the prefix, for the agent records
// ends too.
func (w workspace) finish(log *logWriter, prefix string, e exitFile) error {
	log.end()
	if err := log.sync(); err != nil {
		return fmt.Errorf("fsync log: %w", err)
	}
	if err := failpoint.Hit(prefix + "log-fsynced"); err != nil {
		return err
	}
	e.Last, e.Time = log.last(), time.Now().UTC()
	if len(e.Message) > exitRoom/4 {
		e.Message = strings.ToValidUTF8(e.Message[:exitRoom/4], "")
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(b) > exitRoom { // a thousand survivors: their number is known from the log
		e.Survivors = e.Survivors[:min(len(e.Survivors), 8)]
		if b, err = json.Marshal(e); err != nil {
			return err
		}
	}
	// All of the room is written, so that a shorter content leaves no rest of an
	// earlier one behind.
	b = append(b, make([]byte, exitRoom-len(b))...)
	if err := log.patiently(func() error { return rewrite(w.path(exitTempName), b) }); err != nil {
		return fmt.Errorf("write exit: %w", err)
	}
	if err := failpoint.Hit(prefix + "exit-tmp-fsynced"); err != nil {
		return err
	}
	// The directory may need a block for the name.
	if err := log.patiently(func() error { return os.Rename(w.path(exitTempName), w.path(exitName)) }); err != nil {
		return err
	}
	if err := failpoint.Hit(prefix + "exit-renamed"); err != nil {
		return err
	}
	return durable.SyncDir(string(w))
}

// salvage completes the work of a finish that was killed before its rename, and
// reports whether there was any: exit.tmp has content only after the log was
// fsynced. The caller holds the lock.
func (w workspace) salvage() (bool, error) {
	var e exitFile
	if err := w.readJSON(exitTempName, &e); err != nil || e.Time.IsZero() {
		return false, nil //nolint:nilerr // zeros, or a content that a crash cut off
	}
	for _, name := range []string{logName, exitTempName} {
		f, err := os.OpenFile(w.path(name), os.O_RDWR, 0)
		if err != nil {
			return false, err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return false, err
		}
	}
	if err := os.Rename(w.path(exitTempName), w.path(exitName)); err != nil {
		return false, err
	}
	return true, durable.SyncDir(string(w))
}

// rewrite overwrites the beginning of an existing file in place, durably.
func rewrite(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// bootID names this boot of the machine.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// processStat is what /proc/<pid>/stat says.
type processStat struct {
	pid, parent, session int
	start                uint64
	state                byte
	name                 string
}

func (p processStat) dead() bool { return p.state == 'Z' || p.state == 'X' }

func statProcess(pid int) (processStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return processStat{}, err
	}
	// pid (name) state ppid pgrp session ...: the name may hold anything, ')' too.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return processStat{}, fmt.Errorf("process %d: unreadable stat", pid)
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 20 {
		return processStat{}, fmt.Errorf("process %d: short stat", pid)
	}
	p := processStat{pid: pid, state: f[0][0], name: string(b[open+1 : end])}
	p.parent, err = strconv.Atoi(f[1])
	if err == nil {
		p.session, err = strconv.Atoi(f[3])
	}
	if err == nil {
		p.start, err = strconv.ParseUint(f[19], 10, 64)
	}
	return p, err
}

// thisProcess names the calling process.
func thisProcess() (process, error) {
	st, err := statProcess(os.Getpid())
	return process{PID: os.Getpid(), Start: st.start, Boot: bootID()}, err
}
