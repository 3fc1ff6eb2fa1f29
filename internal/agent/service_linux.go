package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
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
	tickets map[string]*ticket
	arrival int64

	failed   atomic.Pointer[error]
	failedCh chan struct{}
}

// phase is what the agent knows of a ticket beyond its files: who looks after it.
type phase int

const (
	idle      phase = iota // nobody: ended, unknown, or pending without a runner
	queued                 // the agent: it holds the lock and waits for the mutex
	live                   // a runner, or its stub: it holds the lock
	orphan                 // nobody, but the script lives
	surviving              // it has ended, but processes of it cannot be killed
)

// ticket is the memory of one ticket, kept while somebody uses it or it is not idle.
// In every phase but idle and queued it holds its mutex.
type ticket struct {
	name string // lower case
	ws   workspace
	refs int // guarded by Service.mu

	mu         sync.Mutex
	phase      phase
	turn       int           // counts changes of phase: a late watcher finds another number
	changed    chan struct{} // closed when the phase changes
	req        *savedRequest // nil until read
	lock       *os.File      // while queued
	waiter     *waiter       // while queued
	timer      *time.Timer   // of the mutex timeout, while queued
	attempts   int           // runners started without a script started
	cancelling bool          // somebody sees to it that the script ends
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
	s := &Service{
		cfg: cfg, home: home, log: cfg.Log,
		work:     filepath.Join(home, "Work"),
		incoming: filepath.Join(home, "Work", ".incoming"),
		trash:    filepath.Join(home, "Work", ".trash"),
		done:     filepath.Join(home, "Work", "Done"),
		cache:    &packageCache{dir: filepath.Join(home, "Packages"), limit: cfg.PackageLimit},
		iso:      newMutexes(),
		tickets:  make(map[string]*ticket),
		failedCh: make(chan struct{}),
	}
	for _, dir := range []string{home, s.work, s.incoming, s.trash, s.done, s.cache.dir, filepath.Join(home, "Applications")} {
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

// Close lets go of the home directory. Runners and scripts go on; tickets that wait
// for a mutex wait for the next agent and a fresh call.
func (s *Service) Close() error {
	s.stop()
	s.mu.Lock()
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
	s.wg.Go(func() {
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
	forget := t.phase == idle && t.attempts == 0
	t.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	t.refs--
	if t.refs == 0 && forget {
		delete(s.tickets, t.name)
	}
}

// setPhase changes who looks after the ticket, and wakes those who wait for that.
func (s *Service) setPhase(t *ticket, p phase) {
	t.phase = p
	t.turn++
	close(t.changed)
	t.changed = make(chan struct{})
	if p == live || p == orphan || p == surviving {
		s.iso.hold(t.req.Mutex, t.name, t.req.Isolation)
	}
}

// letGo releases the mutex of a ticket that nobody looks after any more. It comes
// after the ticket is settled: between a runner's death and the discovery that its
// script lives, the mutex must not be free.
func (s *Service) letGo(t *ticket) {
	if t.phase == idle && t.req != nil {
		s.iso.release(t.req.Mutex, t.name)
	}
}

// stage is the state of a ticket as its files tell it.
type stage int

const (
	unknown stage = iota // no workspace, no tombstone
	pending              // no start, no end
	running              // started, no end known yet
	exited               // ended, log and exit code to be fetched
	done                 // tombstone
)

// settle derives the ticket's stage from its files, after it has brought them to
// rest: a lost script's end is recorded, a living one's runner is watched, a
// forgotten cancellation is finished.
func (s *Service) settle(t *ticket) (stage, error) {
	st, err := s.derive(t)
	if err == nil {
		s.letGo(t)
	}
	return st, err
}

func (s *Service) derive(t *ticket) (stage, error) {
	if _, err := os.Lstat(s.tombstone(t.name)); err == nil {
		t.attempts = 0
		if t.phase == idle && t.ws.has("") {
			return done, s.discard(t) // the crash came between tombstone and trash
		}
		return done, nil
	}
	if !t.ws.has("") {
		return unknown, nil
	}
	if t.req == nil {
		req, err := t.ws.request()
		if err != nil {
			return unknown, fmt.Errorf("ticket %s: %w", t.name, err)
		}
		t.req = &req
	}
	if t.ws.has(exitName) {
		if t.phase == idle {
			return s.settleExited(t)
		}
		return exited, nil
	}
	if t.phase == idle {
		return s.settleIdle(t)
	}
	if t.ws.has(startedName) {
		return running, nil
	}
	return pending, nil
}

// settleExited looks after what an ended script leaves to do.
func (s *Service) settleExited(t *ticket) (stage, error) {
	e, _ := t.ws.exit()
	t.attempts = 0
	if living := alive(e.Survivors); len(living) > 0 {
		s.setPhase(t, surviving)
		s.watch(t, func(ctx context.Context) { awaitEnd(ctx, living...) })
		return exited, nil
	}
	if t.ws.has(completeName) {
		return done, s.entomb(t, e)
	}
	return exited, nil
}

// settleIdle finds out what became of a ticket that has not ended and that nobody
// is known to look after.
func (s *Service) settleIdle(t *ticket) (stage, error) {
	lock, err := t.ws.tryLock()
	if errors.Is(err, errBusy) {
		return s.adopt(t)
	}
	if err != nil {
		return unknown, fmt.Errorf("ticket %s: %w", t.name, err)
	}
	defer unlock(lock)
	if t.ws.has(exitName) { // it ended while we took the lock
		return s.settleExited(t)
	}
	if saved, err := t.ws.salvage(); err != nil {
		return unknown, s.poison(fmt.Errorf("ticket %s: record the end: %w", t.name, err))
	} else if saved {
		return s.settleExited(t)
	}
	started, ok := t.ws.started()
	canceled := t.ws.has(cancelName)
	if !ok {
		if !canceled {
			return pending, nil
		}
		return s.end(t, exitFile{Code: ExitCanceled, Message: "The script was cancelled before it started."})
	}
	var failed exitFile
	if err := t.ws.readJSON(execFailedName, &failed); err == nil {
		return s.end(t, failed)
	}
	if started.alive() || started.Boot == bootID() && cgroupPopulated(started.Cgroup) {
		s.setPhase(t, orphan)
		s.watch(t, func(ctx context.Context) { awaitOrphan(ctx, started) })
		if canceled {
			s.killOrphan(t, started)
		}
		return running, nil
	}
	e := exitFile{Code: ExitLost, Message: "The script was started, but its result cannot be known: " + lostBecause(started)}
	if canceled {
		e = exitFile{Code: ExitCanceled, Message: "The script was cancelled; how it ended is not known."}
	}
	s.log.Warn("a script's result is lost", "ticket", t.name, "code", e.Code, "runner", t.ws.runnerErr())
	return s.end(t, e)
}

func lostBecause(started startedFile) string {
	if started.Boot != "" && started.Boot != bootID() {
		return "the machine was restarted while it ran."
	}
	return "the process that looked after it was killed."
}

// runnerErr returns what the runner said before it died, if anything.
func (w workspace) runnerErr() string {
	b, err := os.ReadFile(w.path(runnerErrName))
	if err != nil {
		return ""
	}
	return string(b[max(0, len(b)-4096):])
}

// end records the ticket's end; the caller holds its lock.
func (s *Service) end(t *ticket, e exitFile) (stage, error) {
	log, err := openLog(string(t.ws))
	if err != nil {
		return unknown, fmt.Errorf("ticket %s: %w", t.name, err)
	}
	defer log.close() //nolint:errcheck // synced by finish
	if e.Message != "" && !log.ended {
		log.say(Stderr, e.Message)
	}
	for _, p := range e.Survivors {
		if !log.ended {
			log.say(Stderr, fmt.Sprintf("The %v cannot be killed; it may still run.", p))
		}
	}
	if err := t.ws.finish(log, "agent-", e); err != nil {
		err = fmt.Errorf("ticket %s: record the end: %w", t.name, err)
		if !diskFull(err) {
			err = s.poison(err)
		}
		return unknown, err
	}
	if t.phase != idle {
		s.setPhase(t, idle)
	}
	st, err := s.settleExited(t)
	s.letGo(t)
	return st, err
}

// adopt begins to watch a runner (or a stub whose runner is dead) that holds the
// lock.
func (s *Service) adopt(t *ticket) (stage, error) {
	alive, err := openAlive(t.ws)
	if err != nil {
		return unknown, err
	}
	s.setPhase(t, live)
	s.watchRunner(t, alive)
	if t.ws.has(cancelName) {
		s.killRunner(t)
	}
	if t.ws.has(startedName) {
		return running, nil
	}
	return pending, nil
}

func openAlive(w workspace) (*os.File, error) {
	return os.OpenFile(w.path(aliveName), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// watchRunner waits for the end of "alive" on a goroutine that sleeps in the
// poller: it needs neither thread nor timer.
func (s *Service) watchRunner(t *ticket, alive *os.File) {
	s.watch(t, func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { _ = alive.Close() })
		defer stop()
		_, _ = io.Copy(io.Discard, alive)
		_ = alive.Close()
	})
}

// watch runs wait, and then looks at the ticket anew unless its phase has changed.
func (s *Service) watch(t *ticket, wait func(context.Context)) {
	turn := t.turn
	s.wg.Go(func() {
		wait(s.ctx)
		if s.ctx.Err() != nil {
			return
		}
		t := s.enter(t.name)
		defer s.leave(t)
		if t.turn != turn {
			return
		}
		t.cancelling = false
		s.setPhase(t, idle)
		if _, err := s.settle(t); err != nil {
			s.log.Error("a ticket cannot be settled", "ticket", t.name, "err", err)
		}
	})
}

// alive returns those of ps that live.
func alive(ps []process) []process {
	return slices.DeleteFunc(slices.Clone(ps), func(p process) bool { return !p.alive() })
}

// awaitEnd returns when none of ps lives.
func awaitEnd(ctx context.Context, ps ...process) {
	for _, p := range ps {
		fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
		if err != nil {
			pollEnd(ctx, p.alive) // before Linux 5.10, or it has ended
			continue
		}
		f := os.NewFile(uintptr(fd), "pidfd")
		stop := context.AfterFunc(ctx, func() { _ = f.Close() })
		// Checked after the handle is open: it is that process's or it is over.
		if conn, err := f.SyscallConn(); err == nil && p.alive() {
			_ = conn.Read(func(fd uintptr) bool {
				n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
				return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
			})
		}
		stop()
		_ = f.Close()
	}
}

// pollEnd returns when lives is false. It is for what the kernel does not announce.
func pollEnd(ctx context.Context, lives func() bool) {
	for lives() {
		timer := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// awaitOrphan returns when the script and all that is in its cgroup have ended.
func awaitOrphan(ctx context.Context, started startedFile) {
	awaitEnd(ctx, started.process)
	pollEnd(ctx, func() bool { return cgroupPopulated(started.Cgroup) })
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
	if st == pending && t.phase == idle {
		if err := s.queue(t); err != nil {
			return Status{}, err
		}
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
	if st == pending && t.phase == idle {
		if err := s.queue(t); err != nil {
			return Status{}, err
		}
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
		if _, err := s.settle(t); err != nil {
			return Status{}, err
		}
	}
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
	return s.poison(syncDir(s.work))
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
		"TentacleApplications=" + filepath.Join(s.home, "Applications"),
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

// queue gets a pending ticket its mutex and then its runner. The agent holds the
// ticket's lock meanwhile and hands it to the runner, so that from here on there
// is no instant at which a living runner could go unseen.
func (s *Service) queue(t *ticket) error {
	lock, err := t.ws.tryLock()
	if errors.Is(err, errBusy) {
		_, err = s.adopt(t)
	}
	if lock == nil {
		return err
	}
	if t.attempts++; t.attempts > maxAttempts {
		defer unlock(lock)
		_, err := s.end(t, exitFile{Code: ExitFatal, Message: fmt.Sprintf("The script was not started: its runner died %d times before that. %s", maxAttempts, t.ws.runnerErr())})
		return err
	}
	t.lock = lock
	w := &waiter{ticket: t.name, mode: t.req.Isolation, arrival: t.req.Arrival}
	w.granted = func() { s.granted(t.name, w) }
	t.waiter = w
	s.setPhase(t, queued)
	if s.iso.acquire(t.req.Mutex, w) {
		return s.spawn(t)
	}
	s.sayWaiting(t)
	if t.req.MutexTimeout > 0 {
		t.timer = time.AfterFunc(t.req.MutexTimeout, func() { s.mutexTimeout(t.name, w) })
	}
	return nil
}

// sayWaiting tells the log's reader why nothing happens.
func (s *Service) sayWaiting(t *ticket) {
	log, err := openLog(string(t.ws))
	if err == nil {
		log.say(Stdout, "##octopus[stdout-wait]",
			"Cannot start this script yet: it "+s.waiting(t)+". It starts when that has ended.", "##octopus[stdout-default]")
		err = errors.Join(log.flush(), log.close())
	}
	if err != nil {
		s.log.Warn("the log cannot be written", "ticket", t.name, "err", err)
	}
}

// leaveQueue undoes queue.
func (s *Service) leaveQueue(t *ticket) {
	if t.timer != nil {
		t.timer.Stop()
	}
	s.iso.release(t.req.Mutex, t.name)
	unlock(t.lock)
	t.lock, t.waiter, t.timer = nil, nil, nil
}

// granted is called when the mutex became free for w.
func (s *Service) granted(name string, w *waiter) {
	t := s.enter(name)
	defer s.leave(t)
	if t.phase != queued || t.waiter != w || s.ctx.Err() != nil {
		return // whoever ended the waiting has released the mutex
	}
	if err := s.spawn(t); err != nil {
		s.log.Error("a runner cannot be started", "ticket", name, "err", err)
	}
}

func (s *Service) mutexTimeout(name string, w *waiter) {
	t := s.enter(name)
	defer s.leave(t)
	if t.phase != queued || t.waiter != w || s.ctx.Err() != nil {
		return
	}
	msg := fmt.Sprintf("The script was not started: the mutex %q was not free within %v.", t.req.Mutex, t.req.MutexTimeout)
	if err := s.endQueued(t, exitFile{Code: ExitMutexTimeout, Message: msg}); err != nil {
		s.log.Error("a ticket cannot be ended", "ticket", name, "err", err)
	}
}

// endQueued ends a ticket whose lock the agent holds.
func (s *Service) endQueued(t *ticket, e exitFile) error {
	_, err := s.end(t, e)
	if t.lock != nil {
		s.leaveQueue(t)
	}
	if t.phase == queued {
		s.setPhase(t, idle)
	}
	return err
}

// spawn starts the runner of a ticket that has its mutex, and hands it the lock.
func (s *Service) spawn(t *ticket) error {
	fail := func(err error) error {
		s.leaveQueue(t)
		s.setPhase(t, idle)
		return fmt.Errorf("ticket %s: %w", t.name, err)
	}
	// Both ends, so that opening waits for nobody and the end comes only after the
	// runner has had its copy.
	write, err := unix.Open(t.ws.path(aliveName), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(write) //nolint:errcheck // the runner has its own
	alive, err := openAlive(t.ws)
	if err != nil {
		return fail(err)
	}
	exe := s.cfg.Exe
	if exe == "" {
		exe = selfExe
	}
	if err := startRunner(exe, t.ws, t.lock, write); err != nil {
		_ = alive.Close()
		return fail(err)
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	_ = t.lock.Close() // not unlocked: it is the runner's now
	t.lock, t.waiter, t.timer = nil, nil, nil
	s.setPhase(t, live)
	s.watchRunner(t, alive)
	return nil
}

// cancel sees to it that a script that has not ended does.
func (s *Service) cancel(t *ticket) error {
	if err := s.poison(t.ws.mark(cancelName)); err != nil {
		return err
	}
	if err := failpoint.Hit("cancel-written"); err != nil {
		return err
	}
	switch t.phase {
	case queued:
		return s.endQueued(t, exitFile{Code: ExitCanceled, Message: "The script was cancelled before it started."})
	case live:
		s.killRunner(t)
	case orphan:
		if started, ok := t.ws.started(); ok {
			s.killOrphan(t, started)
		}
	case idle: // pending without a runner; settle ends it
	case surviving:
	}
	_, err := s.settle(t)
	return err
}

// killRunner makes the runner end its script. A runner that does not get there,
// because it is stopped itself, is helped.
func (s *Service) killRunner(t *ticket) {
	t.ws.wakeRunner()
	if t.cancelling {
		return
	}
	t.cancelling = true
	turn := t.turn
	s.wg.Go(func() {
		select {
		case <-s.ctx.Done():
			return
		case <-t.changedNow():
			return
		case <-time.After(termFor + killFor/2):
		}
		t := s.enter(t.name)
		defer s.leave(t)
		if t.turn != turn || t.ws.has(exitName) {
			return
		}
		var runner startedFile
		if err := t.ws.readJSON(lockName, &runner); err != nil || !runner.alive() {
			runner = startedFile{}
		}
		tr := tree{root: runner.PID}
		if started, ok := t.ws.started(); ok {
			tr = orphanTree(t.name, started)
		}
		// A runner that waits for room on the disk is not touched: it holds lines.
		if st, err := statProcess(runner.PID); err == nil && (st.state == 'T' || st.state == 't') {
			s.log.Warn("a stopped runner is killed to end its script", "ticket", t.name)
			runner.signal(unix.SIGKILL)
		}
		t.mu.Unlock()
		tr.killHard(s.ctx)
		t.mu.Lock()
	})
}

// changedNow returns the channel that the next change of phase closes.
func (t *ticket) changedNow() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// wakeRunner makes the runner look for "cancel". Without a runner nobody listens.
func (w workspace) wakeRunner() {
	fd, err := unix.Open(w.path(wakeName), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte{1})
	_ = unix.Close(fd)
}

// killOrphan ends a script that has no runner any more.
func (s *Service) killOrphan(t *ticket, started startedFile) {
	if t.cancelling {
		return
	}
	t.cancelling = true
	turn := t.turn
	s.wg.Go(func() {
		left := orphanTree(t.name, started).kill(s.ctx)
		if s.ctx.Err() != nil {
			return
		}
		t := s.enter(t.name)
		defer s.leave(t)
		if t.turn != turn {
			return // its end was seen by the watcher
		}
		lock, err := t.ws.tryLock()
		if err != nil {
			s.log.Error("a cancelled script's lock cannot be taken", "ticket", t.name, "err", err)
			return
		}
		defer unlock(lock)
		t.cancelling = false
		if _, err := s.end(t, exitFile{Code: ExitCanceled, Message: "The script was cancelled.", Survivors: left}); err != nil {
			s.log.Error("a ticket cannot be ended", "ticket", t.name, "err", err)
		}
	})
}

// entomb forgets an ended ticket but for its tombstone.
func (s *Service) entomb(t *ticket, e exitFile) error {
	if err := s.writeTombstone(t.name, e); err != nil {
		return err
	}
	if err := failpoint.Hit("tombstone-written"); err != nil {
		return err
	}
	return s.discard(t)
}

// discard moves the workspace out of sight and deletes it in the background.
func (s *Service) discard(t *ticket) error {
	started, _ := t.ws.started()
	trash := filepath.Join(s.trash, t.name+"."+uuid.NewString())
	if err := os.Rename(string(t.ws), trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ticket %s: %w", t.name, err)
	}
	if err := s.poison(syncDir(s.work)); err != nil {
		return err
	}
	if err := failpoint.Hit("trashed"); err != nil {
		return err
	}
	removeCgroup(started.Cgroup)
	s.removeLater(trash)
	return nil
}

func (s *Service) tombstone(name string) string { return filepath.Join(s.done, name) }

// writeTombstone remembers the ticket's end for keepDone.
func (s *Service) writeTombstone(name string, e exitFile) error {
	e.Message, e.Survivors = "", nil
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	tmp := filepath.Join(s.done, "."+name+"."+uuid.NewString())
	err = create(tmp, b, 0o600)
	if err == nil {
		err = os.Rename(tmp, s.tombstone(name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("ticket %s: write tombstone: %w", name, err), os.RemoveAll(tmp))
	}
	return s.poison(syncDir(s.done))
}

// sweepDaily forgets what is older than keepDone, now and once a day.
func (s *Service) sweepDaily() {
	s.wg.Go(func() {
		for {
			if err := s.sweep(time.Now().Add(-keepDone)); err != nil {
				s.log.Warn("old workspaces cannot be swept", "err", err)
			}
			timer := time.NewTimer(24 * time.Hour)
			select {
			case <-s.ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
		}
	})
}

// sweep forgets tombstones, and workspaces nobody asked about, from before then.
func (s *Service) sweep(then time.Time) error {
	old := func(dir string) ([]string, error) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		var out []string
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.ModTime().Before(then) {
				out = append(out, e.Name())
			}
		}
		return out, nil
	}
	stones, err := old(s.done)
	if err != nil {
		return err
	}
	for _, name := range stones {
		// A tombstone whose workspace is still there is needed to get rid of that.
		if !workspace(filepath.Join(s.work, name)).has("") {
			err = errors.Join(err, os.Remove(s.tombstone(name)))
		}
	}
	spaces, err2 := old(s.work)
	if err2 != nil {
		return errors.Join(err, err2)
	}
	for _, name := range spaces {
		if Ticket(name).Check() != nil || name == filepath.Base(s.done) || s.ctx.Err() != nil {
			continue
		}
		err = errors.Join(err, s.sweepTicket(name, then))
	}
	return err
}

func (s *Service) sweepTicket(name string, then time.Time) error {
	t := s.enter(name)
	defer s.leave(t)
	st, err := s.settle(t)
	if err != nil || t.phase != idle {
		return err
	}
	switch st {
	case exited:
		if e, ok := t.ws.exit(); ok && e.Time.Before(then) {
			return s.entomb(t, e)
		}
	case pending:
		if info, err := os.Stat(t.ws.path(requestName)); err == nil && info.ModTime().Before(then) {
			return s.entomb(t, exitFile{Code: ExitFatal, Time: time.Now().UTC()})
		}
	case unknown, running, done:
	}
	return nil
}

// Hello implements API.
func (s *Service) Hello(context.Context) (Hello, error) {
	return Hello{Version: s.cfg.Version, PID: os.Getpid(), Format: Format, Home: s.home}, nil
}

// UploadFile implements Files.
func (s *Service) UploadFile(ctx context.Context, path string, r io.Reader) (Uploaded, error) {
	if err := s.usable(); err != nil {
		return Uploaded{}, err
	}
	return uploadFile(ctx, s.home, path, r)
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
