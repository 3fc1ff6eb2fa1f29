package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/failpoint"
	"golang.org/x/sys/unix"
)

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
	s.run(func() {
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
		started, ok := t.ws.started()
		tr := orphanTree(t.name, started)
		if !ok { // a runner or a stub that does not get on
			tr.root = runner.PID
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
	s.run(func() {
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
