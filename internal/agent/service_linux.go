package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"golang.org/x/sys/unix"
)

// keepDone is how long a tombstone, and a workspace whose end nobody fetched, is
// kept.
const keepDone = 30 * 24 * time.Hour

// maxAttempts is how many runners a ticket gets that die before its script starts.
const maxAttempts = 5

// Service is the agent: the one process that works in its home directory. Its
// knowledge is derived from files at every call; what it keeps in memory is who
// waits for whom.
type Service struct {
	cfg      Config
	home     string
	work     string
	incoming string
	trash    string
	done     string
	log      *slog.Logger
	lock     *os.File
	cache    *packageCache
	iso      *mutexes

	ctx  context.Context //nolint:containedctx // the service's own life
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	closing bool // no more goroutines
	tickets map[string]*ticket
	arrival int64

	failed   atomic.Pointer[error]
	failedCh chan struct{}

	switching chan struct{} // closed when another program is to go on
}

// Open takes the home directory, derives every ticket's state from its files,
// takes back the mutexes of living scripts, and is then ready for calls. ctx bounds
// only Open itself.
func Open(ctx context.Context, cfg Config) (_ *Service, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.PackageLimit == 0 {
		cfg.PackageLimit = DefaultPackageLimit
	}
	if cfg.Instance == "" {
		cfg.Instance = "Tako"
	}
	home, err := filepath.Abs(cfg.Home)
	if err != nil || cfg.Home == "" {
		return nil, errors.Join(errors.New("the agent needs a home directory"), err)
	}
	if cfg.Applications == "" {
		cfg.Applications = filepath.Join(home, "Applications")
	}
	s := &Service{
		cfg: cfg, home: home, log: cfg.Log,
		work:     filepath.Join(home, "Work"),
		incoming: filepath.Join(home, "Work", ".incoming"),
		trash:    filepath.Join(home, "Work", ".trash"),
		done:     filepath.Join(home, "Work", "Done"),
		cache:    &packageCache{dir: filepath.Join(home, "Packages"), limit: cfg.PackageLimit},
		iso:      newMutexes(),
		tickets:  make(map[string]*ticket),
		failedCh: make(chan struct{}), switching: make(chan struct{}),
	}
	for _, dir := range []string{home, s.work, s.incoming, s.trash, s.done, s.cache.dir, cfg.Applications} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open agent: %w", err)
		}
	}
	if s.lock, err = lockHome(ctx, home, cfg.LockWait); err != nil {
		return nil, fmt.Errorf("open agent in %s: %w", home, err)
	}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open agent in %s: %w", home, err), s.Close())
	}
	s.sweepDaily()
	return s, nil
}

func lockHome(ctx context.Context, home string, wait time.Duration) (*os.File, error) {
	deadline := time.Now().Add(wait)
	for {
		lock, err := tryLock(filepath.Join(home, "agent.lock"))
		if !errors.Is(err, errBusy) {
			return lock, err
		}
		if time.Now().After(deadline) {
			return nil, ErrHomeBusy
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop has calls that wait for something answered at once, and refuses new ones; Close
// does the rest. Runners and scripts go on.
func (s *Service) Stop() { s.stop() }

// Close lets go of the home directory. Runners and scripts go on; tickets that wait
// for a mutex wait for the next agent and a fresh call.
func (s *Service) Close() error {
	s.stop()
	s.mu.Lock()
	s.closing = true
	all := make([]*ticket, 0, len(s.tickets))
	for _, t := range s.tickets {
		all = append(all, t)
	}
	s.mu.Unlock()
	for _, t := range all {
		t.mu.Lock()
		if t.phase == queued {
			s.leaveQueue(t)
			s.setPhase(t, idle)
		}
		t.mu.Unlock()
	}
	s.wg.Wait()
	unlock(s.lock)
	return nil
}

// run starts a goroutine that Close waits for. After Close has begun there is no
// more to do.
func (s *Service) run(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.wg.Go(f)
	}
}

// Failed is closed when the disk has refused to make something durable: the
// process must end, and its successor look at what is really there.
func (s *Service) Failed() <-chan struct{} { return s.failedCh }

// poison notes a failed fsync: what it should have written may or may not be
// there, and a second fsync would only say it is.
func (s *Service) poison(err error) error {
	if err != nil && s.failed.CompareAndSwap(nil, &err) {
		s.log.Error("the disk refused an fsync; this agent stops working", "err", err)
		close(s.failedCh)
	}
	return err
}

func (s *Service) usable() error {
	if s.ctx.Err() != nil {
		return fault.New(fault.Unavailable, "The agent is stopping.")
	}
	if err := s.failed.Load(); err != nil {
		return &fault.Error{Kind: fault.Unavailable, Message: "The agent's disk failed; it must be restarted.", Cause: *err}
	}
	return nil
}

// recover brings the home directory in order after whatever happened to it.
func (s *Service) recover() error {
	if err := s.cache.clean(); err != nil {
		return err
	}
	for _, dir := range []string{s.incoming, s.trash} {
		left, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range left {
			s.removeLater(filepath.Join(dir, e.Name()))
		}
	}
	if own := ownCgroup(); own != "" {
		groups, _ := filepath.Glob(filepath.Join(own, cgroupPrefix+"*"))
		for _, dir := range groups {
			_ = os.Remove(dir) // only empty ones go
		}
	}
	dirs, err := os.ReadDir(s.work)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if !d.IsDir() || Ticket(d.Name()).Check() != nil || d.Name() == filepath.Base(s.done) {
			continue
		}
		t := s.enter(d.Name())
		_, err := s.settle(t)
		if err == nil && t.req != nil {
			s.arrival = max(s.arrival, t.req.Arrival)
		}
		s.leave(t)
		if err != nil {
			// One broken workspace must not keep the agent from serving the others.
			s.log.Error("a workspace cannot be read", "ticket", d.Name(), "err", err)
		}
	}
	return nil
}

// removeLater deletes a directory tree nobody uses any more.
func (s *Service) removeLater(dir string) {
	s.run(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.log.Warn("a workspace cannot be deleted", "dir", dir, "err", err)
		}
	})
}

// enter returns the ticket's memory, locked. leave gives it back.
func (s *Service) enter(name string) *ticket {
	s.mu.Lock()
	t := s.tickets[name]
	if t == nil {
		t = &ticket{name: name, ws: workspace(filepath.Join(s.work, name)), changed: make(chan struct{})}
		s.tickets[name] = t
	}
	t.refs++
	s.mu.Unlock()
	t.mu.Lock()
	return t
}

func (s *Service) leave(t *ticket) {
	s.mu.Lock()
	t.refs--
	if t.refs == 0 && t.phase == idle && t.attempts == 0 {
		delete(s.tickets, t.name)
	}
	s.mu.Unlock()
	t.mu.Unlock()
}

// StartScript implements Scripts.
func (s *Service) StartScript(ctx context.Context, req StartRequest) (Status, error) {
	if err := errors.Join(s.usable(), req.check()); err != nil {
		return Status{}, err
	}
	hash, err := req.hash()
	if err != nil {
		return Status{}, err
	}
	t := s.enter(strings.ToLower(string(req.Ticket)))
	defer s.leave(t)
	st, err := s.settle(t)
	if err != nil {
		return Status{}, err
	}
	switch {
	case st == unknown:
		if err := s.commit(t, req, hash); err != nil {
			return Status{}, err
		}
		st = pending
	case st != done && t.req.Hash != hash:
		s.log.Warn("a known ticket came with another request, which is ignored", "ticket", t.name, "known", t.req.Hash, "came", hash)
	}
	if err := s.requeue(t, st); err != nil {
		return Status{}, err
	}
	return s.answer(ctx, t, StatusRequest{Ticket: req.Ticket, Wait: req.Wait}, false)
}

// GetStatus implements Scripts.
func (s *Service) GetStatus(ctx context.Context, req StatusRequest) (Status, error) {
	if err := errors.Join(s.usable(), req.Ticket.Check()); err != nil {
		return Status{}, err
	}
	t := s.enter(strings.ToLower(string(req.Ticket)))
	defer s.leave(t)
	st, err := s.settle(t)
	if err != nil {
		return Status{}, err
	}
	if err := s.requeue(t, st); err != nil {
		return Status{}, err
	}
	return s.answer(ctx, t, req, true)
}

// CancelScript implements Scripts.
func (s *Service) CancelScript(ctx context.Context, req StatusRequest) (Status, error) {
	if err := errors.Join(s.usable(), req.Ticket.Check()); err != nil {
		return Status{}, err
	}
	t := s.enter(strings.ToLower(string(req.Ticket)))
	defer s.leave(t)
	st, err := s.settle(t)
	if err != nil {
		return Status{}, err
	}
	switch st {
	case unknown:
		if err := s.writeTombstone(t.name, exitFile{Code: ExitCanceled, Time: time.Now().UTC()}); err != nil {
			return Status{}, err
		}
	case pending, running:
		if err := s.cancel(t); err != nil {
			return Status{}, err
		}
		if t.phase == live && st == pending {
			req.Wait = max(req.Wait, time.Second) // its runner ends it at once
		}
	case exited, done:
	}
	return s.answer(ctx, t, req, true)
}

// CompleteScript implements Scripts.
func (s *Service) CompleteScript(_ context.Context, id Ticket) error {
	if err := errors.Join(s.usable(), id.Check()); err != nil {
		return err
	}
	t := s.enter(strings.ToLower(string(id)))
	defer s.leave(t)
	st, err := s.settle(t)
	if err != nil {
		return err
	}
	switch st {
	case pending, running:
		return s.poison(t.ws.mark(completeName))
	case exited:
		if t.phase == surviving {
			return s.poison(t.ws.mark(completeName))
		}
		e, _ := t.ws.exit()
		return s.entomb(t, e)
	case unknown, done:
	}
	return nil
}

// answer builds the status, holding it back as the request wishes. entries says
// that new log entries are reason enough to answer.
func (s *Service) answer(ctx context.Context, t *ticket, req StatusRequest, entries bool) (Status, error) {
	deadline := time.Now().Add(min(req.Wait, MaxWait))
	size := int64(-1)
	for {
		changed := t.changed
		var st Status
		var err error
		// The log is read again only when it has grown.
		if now := t.ws.logSize(); now != size || !entries {
			size = now
			if st, err = s.status(t, req); err != nil {
				return st, err
			}
			if st.State == Complete || entries && len(st.Entries) > 0 {
				return st, nil
			}
		}
		left := time.Until(deadline)
		if left <= 0 || ctx.Err() != nil || s.ctx.Err() != nil {
			return s.status(t, req)
		}
		if entries {
			left = min(left, 50*time.Millisecond)
		}
		t.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-changed:
			size = -1
		case <-timer.C:
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
		timer.Stop()
		t.mu.Lock()
		now, err := s.settle(t)
		if err == nil && s.ctx.Err() == nil {
			err = s.requeue(t, now) // its runner died before its script started
		}
		if err != nil {
			return Status{}, err
		}
	}
}

// requeue starts a pending ticket that nobody looks after, since somebody asks for
// it. By itself the agent does not: the server may have given it up long ago.
func (s *Service) requeue(t *ticket, st stage) error {
	if st == pending && t.phase == idle {
		return s.queue(t)
	}
	return nil
}

func (w workspace) logSize() int64 {
	info, err := os.Stat(w.path(logName))
	if err != nil {
		return 0
	}
	return info.Size()
}

// status is the answer for the ticket as it is now.
func (s *Service) status(t *ticket, req StatusRequest) (Status, error) {
	out := Status{Ticket: req.Ticket, Next: max(req.After, 0)}
	st, err := s.settle(t)
	if err != nil {
		return Status{}, err
	}
	switch st {
	case unknown:
		out.State, out.ExitCode = Complete, ExitUnknownTicket
		return out, nil
	case done:
		var e exitFile
		if err := readJSON(s.tombstone(t.name), &e); err != nil {
			return Status{}, err
		}
		out.State, out.ExitCode, out.Next = Complete, e.Code, max(out.Next, e.Last)
		return out, nil
	case pending:
		out.State, out.Waiting = Pending, s.waiting(t)
	case running:
		out.State = Running
	case exited:
		e, _ := t.ws.exit()
		out.State, out.ExitCode = Complete, e.Code
		if t.phase == surviving {
			for _, p := range alive(e.Survivors) {
				out.Survivors = append(out.Survivors, p.String())
			}
		}
	}
	part, err := readLog(string(t.ws), out.Next, MaxAnswer)
	if err != nil {
		return Status{}, fmt.Errorf("ticket %s: read log: %w", t.name, err)
	}
	out.Entries, out.Next = part.entries, part.next
	if out.State == Complete && part.more {
		out.State, out.ExitCode = Running, 0 // a client stops reading at Complete
	}
	return out, nil
}

func (s *Service) waiting(t *ticket) string {
	switch {
	case t.phase == queued:
		return fmt.Sprintf("waits for the mutex %q, which is held by %s", t.req.Mutex, strings.Join(s.iso.holders(t.req.Mutex), ", "))
	case t.phase == live:
		return "is being prepared"
	}
	return ""
}

// commit makes the workspace, durably and at once.
func (s *Service) commit(t *ticket, req StartRequest, hash string) error {
	saved := savedRequest{
		Format: Format, Ticket: string(req.Ticket), Hash: hash, Arrival: s.nextArrival(),
		Interpreter: "bash", Arguments: req.Arguments, Env: s.scriptEnv(req),
		Isolation: req.Isolation, Mutex: req.MutexName, MutexTimeout: req.MutexTimeout,
		Timeout: req.Timeout, Prepare: req.Prepare, NoCgroup: s.cfg.NoCgroup,
	}
	for _, f := range req.Files {
		saved.Sent = append(saved.Sent, f.Name)
	}
	if saved.Mutex == "" {
		saved.Mutex = DefaultMutex
	}
	tmp := filepath.Join(s.incoming, uuid.NewString())
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fmt.Errorf("ticket %s: %w", t.name, err)
	}
	err := workspace(tmp).build(saved, req, s.cache.link)
	if err == nil {
		err = failpoint.Hit("incoming-fsynced")
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, string(t.ws), unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("ticket %s: %w", t.name, err), os.RemoveAll(tmp))
	}
	t.req = &saved
	if err := failpoint.Hit("renamed"); err != nil {
		return s.poison(err)
	}
	return s.poison(durable.SyncDir(s.work))
}

func (s *Service) nextArrival() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrival = max(s.arrival+1, time.Now().UnixNano())
	return s.arrival
}

// scriptEnv is what scripts find in their environment besides the agent's own: the
// names that Tentacle gives, and the request's.
func (s *Service) scriptEnv(req StartRequest) []string {
	exe := s.cfg.Exe
	if exe == "" {
		if self, err := os.Executable(); err == nil {
			exe = self
		}
	}
	env := []string{
		"TentacleHome=" + s.home,
		"TentacleApplications=" + s.cfg.Applications,
		"TentacleJournal=" + filepath.Join(s.home, "DeploymentJournal.xml"),
		"TentacleInstanceName=" + s.cfg.Instance,
		"TentacleExecutablePath=" + exe,
		"TentacleProgramDirectoryPath=" + filepath.Dir(exe),
		"AgentProgramDirectoryPath=" + filepath.Dir(exe),
		"TentacleVersion=" + s.cfg.Version,
		"CalamariPackageRetentionJournalPath=" + filepath.Join(s.home, "PackageRetentionJournal.json"),
	}
	for k, v := range req.Env {
		env = append(env, k+"="+v)
	}
	slices.Sort(env[9:])
	return env
}

// Hello implements API.
func (s *Service) Hello(context.Context) (Hello, error) {
	program, err := programState(s.cfg.Versions)
	if err != nil {
		return Hello{}, err
	}
	return Hello{Version: s.cfg.Version, PID: os.Getpid(), Format: Format, Home: s.home, Program: program}, nil
}

// UploadFile implements Files.
func (s *Service) UploadFile(ctx context.Context, path string, r io.Reader) (Uploaded, error) {
	if err := s.usable(); err != nil {
		return Uploaded{}, err
	}
	return uploadFile(ctx, s.home, "Work/"+filepath.Base(s.incoming), path, r)
}

// DownloadFile implements Files.
func (s *Service) DownloadFile(_ context.Context, path string) (io.ReadCloser, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	f, err := downloadFile(s.home, path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// HasPackage implements Packages.
func (s *Service) HasPackage(_ context.Context, sha256 string) (bool, error) {
	if err := s.usable(); err != nil {
		return false, err
	}
	return s.cache.has(sha256)
}

// PutPackage implements Packages.
func (s *Service) PutPackage(ctx context.Context, sha256 string, size int64, r io.Reader) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.cache.put(ctx, sha256, size, r)
}

// ApplyDelta implements Deltas.
func (s *Service) ApplyDelta(ctx context.Context, base, target string, size int64, delta io.Reader, _ int64) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.cache.apply(ctx, base, target, size, delta)
}
