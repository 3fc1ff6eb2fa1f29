package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

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
	s.run(func() {
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
