package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
)

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
	if err := s.poison(durable.SyncDir(s.work)); err != nil {
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
	return s.poison(durable.SyncDir(s.done))
}

// sweepDaily forgets what is older than keepDone, now and once a day.
func (s *Service) sweepDaily() {
	s.run(func() {
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
