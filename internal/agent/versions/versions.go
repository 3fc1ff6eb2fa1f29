// Package versions keeps the programs that servers have brought to an agent beside the
// one that is installed, and says which of them runs.
//
// A program is a directory under its hash, and a file says which one counts, which one
// is on trial and why the last one did not stay. That file is replaced whole, by one
// process at a time: by the program that serves while it lives, by its parent when none
// does. So whatever is killed whenever, the next start finds one program that counts.
// The installed program is never touched, and stands in for any that cannot run.
package versions

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
)

const (
	dirName     = "Versions" // below an agent's home
	stateName   = "state.json"
	programName = "tako-agent"
	newPrefix   = ".new-" // of a directory that is not whole yet
)

// Bounds of a trial: how long a new program may be given to be confirmed.
const (
	LeastTrial = time.Second
	MostTrial  = 30 * time.Minute
)

// testFor is how long a program may take to test itself.
const testFor = 30 * time.Second

// A program that has ended so often within so long, and was not asked to, yields to the
// installed one.
const (
	quickEnds   = 3
	quickWithin = time.Minute
)

// margin is how much of the disk a program that is brought leaves free, in bytes: what
// comes next has to be written too.
const margin = 16 << 20

// Program is one that was brought.
type Program struct {
	SHA256  string // of its file, lower-case hex
	Version string
}

// Trial is a program that runs until it is confirmed or its time is up.
type Trial struct {
	Program
	// Attempt is by what whoever brought it knows this trial from others.
	Attempt string
	Within  time.Duration
	// Over is the SHA-256 of the installed program that it takes the place of.
	Over string
}

// Current is the program that runs instead of the installed one of the hash Over. Once
// another is installed, by hand or by a package, that one runs.
type Current struct {
	Program
	Over string
	// Ends are the last times when it has ended by itself.
	Ends []time.Time `json:",omitempty"`
}

// Failure is a program that does not run: refused before its trial, gone in it, or one
// that was confirmed and did not stay all the same.
type Failure struct {
	Program
	Attempt string // "" for one that was confirmed
	Reason  string // a sentence
	At      time.Time
}

// State is what is known of an agent's programs.
type State struct {
	Current *Current `json:",omitempty"`
	Trial   *Trial   `json:",omitempty"`
	Failed  *Failure `json:",omitempty"`
}

// Store keeps the programs of one agent. It is safe for concurrent use within the one
// process that may change it.
type Store struct {
	dir string
	// running is the brought program that this process runs; the zero one is the
	// installed program.
	running Program
	test    Test

	mu sync.Mutex

	kept    sync.Mutex
	unsaved *unsaved // nil for none
}

// unsaved is a state that could not be written: it counts for as long as the file is
// what it was then.
type unsaved struct {
	file  []byte
	state State
}

// Test has the program at a path test itself, and returns the version that it says it
// has.
type Test func(ctx context.Context, path string) (version string, err error)

// Open makes the store of the agent in a home. Running is the brought program that the
// calling process runs, the zero one when it is the installed one; nil for test runs
// nothing.
func Open(home string, running Program, test Test) (*Store, error) {
	s := &Store{dir: filepath.Join(home, dirName), running: running, test: test}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the agent's programs: %w", err)
	}
	return s, nil
}

// Dir is where the programs are.
func (s *Store) Dir() string { return s.dir }

// Path is where the file of a program is.
func (s *Store) Path(p Program) string { return filepath.Join(s.dir, p.SHA256, programName) }

// Running is the brought program that this process runs, the zero one for the
// installed one.
func (s *Store) Running() Program { return s.running }

// Load reads the state. A file that cannot be understood is as none: the installed
// program runs.
func (s *Store) Load() (State, error) {
	b, err := s.read()
	if err != nil {
		return State{}, err
	}
	s.kept.Lock()
	defer s.kept.Unlock()
	if s.unsaved != nil && bytes.Equal(s.unsaved.file, b) {
		return s.unsaved.state, nil
	}
	s.unsaved = nil // somebody has written since
	return parse(b), nil
}

// read reads the file, nil where there is none.
func (s *Store) read() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the agent's programs: %w", err)
	}
	return b, nil
}

func parse(b []byte) (st State) {
	if json.Unmarshal(b, &st) != nil || st.Current != nil && checkHash(st.Current.SHA256) != nil || st.Trial != nil && checkHash(st.Trial.SHA256) != nil {
		return State{}
	}
	return st
}

func (s *Store) save(st State) error {
	b, err := json.MarshalIndent(st, "", "  ")
	if err == nil {
		err = durable.WriteFile(filepath.Join(s.dir, stateName), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the agent's programs: %w", err)
	}
	s.kept.Lock()
	s.unsaved = nil
	s.kept.Unlock()
	return nil
}

// keep is save where the state counts even if the disk does not take it, as a full one
// does not: an agent that could not go back would be gone with it. What the state does
// not name any more is removed first then, which makes room. An error says that this
// process alone knows the state.
func (s *Store) keep(st State) error {
	err := s.save(st)
	if err == nil {
		return s.prune(st)
	}
	if pruned := s.prune(st); s.save(st) == nil {
		return pruned
	}
	b, readErr := s.read()
	s.kept.Lock()
	s.unsaved = &unsaved{b, st}
	s.kept.Unlock()
	return errors.Join(err, readErr)
}

func checkHash(hash string) error {
	if b, err := hex.DecodeString(hash); err != nil || len(b) != sha256.Size || strings.ToLower(hash) != hash {
		return fault.InvalidField("SHA256", "The hash %.100q must be the SHA-256 of the program: 64 lower-case hexadecimal digits.", hash)
	}
	return nil
}

// Hash is the SHA-256 of a file, in lower-case hex.
func Hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Intact reports whether a program's file is what it was when it was brought.
func (s *Store) Intact(p Program) bool {
	got, err := Hash(s.Path(p))
	return err == nil && got == p.SHA256
}

// Begin stores a program whose file is read from content, has it test itself, and puts
// it on trial: whoever runs programs starts it next. The same attempt may be begun
// again; begun tells that this call began it. An error that is a fault says what is
// wrong with the program; nothing has changed then, but that one which does not run here
// is the last Failure.
func (s *Store) Begin(ctx context.Context, t Trial, content io.Reader) (begun bool, err error) {
	if err := checkHash(t.SHA256); err != nil {
		return false, err
	}
	switch {
	case t.Version == "" || t.Attempt == "" || len(t.Version) > 200 || len(t.Attempt) > 200:
		return false, fault.InvalidField("Version", "A program to be upgraded to needs a Version and an Attempt, of at most 200 bytes.")
	case t.Within < LeastTrial || t.Within > MostTrial:
		return false, fault.InvalidField("Within", "Within is %s; use %s to %s.", t.Within, LeastTrial, MostTrial)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.Load()
	if err != nil {
		return false, err
	}
	switch {
	case st.Trial != nil && st.Trial.SHA256 == t.SHA256, s.running.SHA256 == t.SHA256:
		return false, nil
	case st.Trial != nil:
		return false, fault.New(fault.Conflict, "The agent is being upgraded to version %s by another server or task; try again later.", st.Trial.Version)
	}
	if err := s.roomFor(content); err != nil {
		return false, err
	}
	if err := s.stage(ctx, t.Program, content); err != nil {
		if fault.Is(err, fault.Unsupported) && ctx.Err() == nil {
			st.Failed = &Failure{t.Program, t.Attempt, strings.Join(fault.Messages(err), " "), time.Now().UTC()}
			err = errors.Join(err, s.save(st)) // so that nobody tries just that again and again
		}
		return false, err
	}
	if err := failpoint.Hit("program-staged"); err != nil {
		return false, err
	}
	st.Trial, st.Failed = &t, nil
	if err := s.save(st); err != nil {
		return false, err
	}
	return true, failpoint.Hit("trial-written")
}

// roomFor refuses content that would fill the disk, where both sizes are known.
func (s *Store) roomFor(content io.Reader) error {
	f, ok := content.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("store a program: %w", err)
	}
	free, known := freeSpace(s.dir)
	if need := uint64(info.Size()) + margin; known && free < need { //nolint:gosec // no size is negative
		return fault.New(fault.Unavailable, "The disk of %s has %d MiB free, and the new program needs %d; make room there.", s.dir, free>>20, need>>20)
	}
	return nil
}

// stage brings a program to its place, whole and tested.
func (s *Store) stage(ctx context.Context, p Program, content io.Reader) (err error) {
	temp, err := os.MkdirTemp(s.dir, newPrefix)
	if err != nil {
		return fmt.Errorf("store a program: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	path := filepath.Join(temp, programName)
	if err := write(ctx, path, p.SHA256, content); err != nil {
		return err
	}
	version, err := s.selfTest(ctx, path)
	if err != nil {
		return fault.New(fault.Unsupported, "The program of version %s does not run on this machine: %s", p.Version, cut(err.Error()))
	}
	if version != p.Version {
		return fault.New(fault.Unsupported, "The program says that it is version %.100s, and %s was announced; put the file of the same version beside the server's program.", version, p.Version)
	}
	// One that is there already may be damaged. Nobody runs it: it would have been found.
	to := filepath.Join(s.dir, p.SHA256)
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("store a program: %w", err)
	}
	if err := durable.SyncDir(temp); err != nil {
		return fmt.Errorf("store a program: %w", err)
	}
	return durable.Rename(temp, to)
}

func write(ctx context.Context, path, hash string, content io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return fmt.Errorf("store a program: %w", err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), content)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("store a program: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hash {
		return fault.InvalidField("SHA256", "The program's file has the SHA-256 %s, and %s was announced; send it again.", got, hash)
	}
	return nil
}

// selfTest runs the test of a program that was just written. While another thread
// starts a process, that one may have the file open for a moment.
func (s *Store) selfTest(ctx context.Context, path string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, testFor)
	defer stop()
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		version, err := s.test(ctx, path)
		if !isBusy(err) || pause > time.Second {
			return version, err
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(pause):
		}
	}
}

// Says is a Test: it starts the program with arguments and reads a version from its
// output, after a mark at the beginning of a line.
func Says(env []string, mark string, args ...string) Test {
	return func(ctx context.Context, path string) (string, error) {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env, cmd.Dir, cmd.WaitDelay = env, "/", time.Second
		var errOut strings.Builder
		cmd.Stderr = &errOut
		out, err := cmd.Output()
		if err != nil {
			if ctx.Err() != nil {
				return "", errors.New("its self-test does not come to an end")
			}
			return "", fmt.Errorf("its self-test failed: %w %s", err, cut(strings.TrimSpace(errOut.String())))
		}
		for line := range strings.Lines(string(out)) {
			if version, ok := strings.CutPrefix(line, mark); ok {
				return strings.TrimSpace(version), nil
			}
		}
		return "", fmt.Errorf("its self-test said %q", cut(string(out)))
	}
}

func cut(text string) string {
	const most = 500
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// Confirm makes the program on trial, which must be the one that this process runs, the
// one that counts. What is confirmed already may be confirmed again.
func (s *Store) Confirm(hash string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.Load()
	switch {
	case err != nil:
		return err
	case s.running.SHA256 != hash || hash == "":
		return fault.New(fault.Conflict, "The agent does not run the program %.64s.", hash)
	case st.Trial == nil, st.Trial.SHA256 != hash: // it stays already
		return nil
	}
	st.Current, st.Trial, st.Failed = &Current{Program: st.Trial.Program, Over: st.Trial.Over}, nil, nil
	if err := s.save(st); err != nil {
		return err
	}
	if err := failpoint.Hit("program-confirmed"); err != nil {
		return err
	}
	return s.prune(st)
}

// Start notes that the trial begins, over the installed program of a hash.
func (s *Store) Start(st State, over string) (State, error) {
	t := *st.Trial
	t.Over = over
	st.Trial = &t
	return st, s.save(st)
}

// Fail ends the trial, if there is one: the program from before counts again. It does
// so even when an error says that the disk did not take that, while this process lives.
func (s *Store) Fail(reason string) error {
	st, err := s.Load()
	if err != nil || st.Trial == nil {
		return err
	}
	st.Failed = &Failure{st.Trial.Program, st.Trial.Attempt, reason, time.Now().UTC()}
	st.Trial = nil
	return s.keep(st)
}

// Ended notes that the program that counts has ended and was not asked to. It yields to
// the installed one, as after Forget, when it does that again and again; that is a
// Failure, so that no server brings the same one at once.
func (s *Store) Ended(reason string) (yields bool, err error) {
	st, err := s.Load()
	if err != nil || st.Current == nil {
		return false, err
	}
	now := time.Now().UTC()
	c := *st.Current
	c.Ends = nil
	for _, at := range st.Current.Ends {
		if age := now.Sub(at); age >= 0 && age < quickWithin {
			c.Ends = append(c.Ends, at)
		}
	}
	c.Ends = append(c.Ends, now)
	if len(c.Ends) < quickEnds {
		st.Current = &c
		return false, s.save(st)
	}
	st.Failed = &Failure{c.Program, "", fmt.Sprintf("The program has ended %d times within %s, at last so: %s", len(c.Ends), quickWithin, cut(reason)), now}
	st.Current = nil
	return true, s.keep(st)
}

// Forget has the installed program count. It does so even when an error says that the
// disk did not take that, while this process lives.
func (s *Store) Forget() error {
	st, err := s.Load()
	if err != nil || st.Current == nil {
		return err
	}
	st.Current = nil
	return s.keep(st)
}

// prune removes programs that do not count, and what is left of those that never came.
func (s *Store) prune(st State) error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || st.Current != nil && name == st.Current.SHA256 || st.Trial != nil && name == st.Trial.SHA256 {
			continue
		}
		if checkHash(name) == nil || strings.HasPrefix(name, newPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, name)))
		}
	}
	return err
}
