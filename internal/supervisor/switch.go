package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// Kinds of the entries that a supervisor writes to the journal of upgrades.
const (
	NoteSwitched = "supervisor-switched"
	NoteWentBack = "supervisor-went-back"
)

// noteWithin is how long a supervisor waits for the journal, which others write to.
const noteWithin = 5 * time.Second

// note has the journal of upgrades say what this supervisor does. It does so all the
// same if that is not possible, for want of space or because the journal is damaged:
// which version serves matters more, and `current` tells that as well.
func (s *Supervisor) note(kind string, data map[string]string) {
	written := make(chan error, 1)
	go func() { written <- write(s.path("upgrade"), kind, data) }()
	var err error
	select {
	case err = <-written:
	case <-time.After(noteWithin):
		err = fmt.Errorf("nobody could write to it for %s", noteWithin)
	}
	if err != nil {
		s.log.Error("tell the journal of upgrades; going on without it", "kind", kind, "from", data["from"], "to", data["to"], "err", err)
	}
}

// write writes an entry, in the name of the upgrade that is under way.
func write(dir, kind string, data map[string]string) error {
	j, err := journal.Open(dir)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, err = j.Append(time.Now(), func(all []journal.Entry) (journal.Entry, error) {
		e := journal.Entry{Kind: kind, Data: raw}
		if len(all) > 0 {
			e.Txn = all[len(all)-1].Txn
		}
		return e, nil
	})
	return err
}

// blameless is why a switch did not succeed, where that is nothing of the version to switch
// to: it may be as good as any.
type blameless struct{ error }

// Unwrap gives the reason.
func (e blameless) Unwrap() error { return e.error }

// handOver makes a version serve in the place of the one that does, without a moment
// in which nobody accepts connections. If it cannot, the old one goes on, and the
// error says what was wrong with the new one.
func (s *Supervisor) handOver(ctx context.Context, version string) error {
	dir, err := s.versionDir(version)
	if err != nil {
		return err
	}
	from, err := os.Readlink(s.path("current"))
	if err != nil {
		return fmt.Errorf("find the current version: %w", err)
	}
	old := s.server
	if old == nil {
		return s.goBackTo(from, dir)
	}
	fresh, err := s.candidate(ctx, dir)
	if err != nil {
		return err
	}
	if err := hit("handover-ready"); err != nil {
		return errors.Join(err, fresh.kill())
	}
	if err := old.tell(ctx, control.Prepare, s.cfg.Limits.Release); err != nil {
		return errors.Join(blameless{fmt.Errorf("the version that runs did not give its tasks back: %w", err)}, s.goOn(ctx, old), fresh.kill())
	}
	if err := hit("handover-released"); err != nil {
		return errors.Join(err, fresh.kill(), s.goOn(ctx, old))
	}
	if err := fresh.tell(ctx, control.Accept, s.cfg.Limits.Accept); err != nil {
		return errors.Join(fmt.Errorf("version %s did not begin to serve: %w", version, err), fresh.kill(), s.goOn(ctx, old))
	}
	// From here on it goes forward: the new version serves.
	fresh.started = time.Now()
	s.server = fresh
	if err := hit("handover-accepting"); err != nil {
		s.log.Error("after the switch", "err", err)
	}
	s.retire(ctx, old)
	if err := hit("handover-ducked"); err != nil {
		s.log.Error("after the switch", "err", err)
	}
	s.afresh()
	notifySystemd("STATUS=version "+fresh.version(), nil)
	s.log.Info("switched", "from", old.version(), "to", fresh.version(), "pid", fresh.pid)
	if from == dir {
		return nil // the same version, begun anew
	}
	if err := s.flip(from, dir); err != nil {
		return fmt.Errorf("version %s serves, but could not be made the current one: %w", version, err)
	}
	return hit("handover-flipped")
}

// goBackTo makes the previous version the current one while no server runs that could
// hand over. It is started next.
func (s *Supervisor) goBackTo(from, dir string) error {
	previous, err := os.Readlink(s.path("previous"))
	if err != nil || previous != dir {
		return blameless{errors.New("no server runs that could hand over; the supervisor is trying to start one")}
	}
	s.afresh()
	return s.flip(from, dir)
}

func hit(edge string) error { return failpoint.Hit(edge) }

// candidate starts a version beside the one that serves, up to where it could take over.
func (s *Supervisor) candidate(ctx context.Context, dir string) (*child, error) {
	c, err := s.spawn(dir, true)
	if err != nil {
		return nil, err
	}
	if err := hit("handover-spawned"); err != nil {
		return nil, errors.Join(err, c.kill())
	}
	if err := c.reach(ctx, s.cfg.Limits.Ready); err != nil {
		return nil, errors.Join(fmt.Errorf("version %s cannot take over: %w", filepath.Base(dir), err), c.kill())
	}
	return c, nil
}

// goOn lets the old version go on after a switch that failed. One that cannot is
// killed: then it is started anew.
func (s *Supervisor) goOn(ctx context.Context, old *child) error {
	if err := old.tell(ctx, control.Resume, s.cfg.Limits.Accept); err != nil {
		s.log.Error("let the server go on", "pid", old.pid, "err", err)
		return errors.Join(fmt.Errorf("the version that ran did not go on and is started anew: %w", err), old.kill())
	}
	return nil
}

// retire makes a server accept nobody any more, and lets it end.
func (s *Supervisor) retire(ctx context.Context, old *child) {
	if err := old.tell(ctx, control.Duck, s.cfg.Limits.Duck); err != nil {
		s.log.Error("retire the former server; killing it", "pid", old.pid, "err", err)
		_ = old.process.Kill() // its tasks go to the other by its lock
	}
	s.watchDuck(old)
}

// watchDuck waits for the end of a former server, and ends it if that is late.
func (s *Supervisor) watchDuck(c *child) {
	s.ducks = append(s.ducks, c)
	go func() {
		select {
		case <-c.gone:
		case <-time.After(s.cfg.Limits.Drain):
			_ = c.process.Kill()
			<-c.gone
		}
		s.ended <- c
	}()
}
