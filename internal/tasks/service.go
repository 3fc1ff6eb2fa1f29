package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/octopus"
)

// CancelBound is how long a canceled task may take to end, whatever its agents
// and its owner do.
const CancelBound = 10 * time.Second

// maxResumes without any progress parks a task that kills its engine.
const maxResumes = 3

// Timing are the engine's times; those that are zero have their usual value.
type Timing struct {
	// Heartbeat and TTL are PostgreSQL's: a node silent for longer than TTL, by
	// the database's clock, has lost its tasks. 5 s and 15 s.
	Heartbeat, TTL time.Duration
	// Look is how often a node looks for work that nobody told it of: tasks that
	// have become due, dead owners, overdue cancellations. 1 s.
	Look time.Duration
	// Seal is how often it looks for logs to move out of the database. 2 s.
	Seal time.Duration
	// Cancel is when a canceled task is ended by any node: CancelBound, less
	// what a look may come late.
	Cancel time.Duration
	// Steady is how long an owner must have held a task for its own end to be no
	// fault of the task. 1 min.
	Steady time.Duration
	// Retry is the first pause after a run that ended with an error; it doubles
	// up to retryMost. 200 ms.
	Retry time.Duration
}

// retryMost is the longest pause between two runs that ended with an error.
const retryMost = 30 * time.Second

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, usual time.Duration) {
		if *d <= 0 {
			*d = usual
		}
	}
	set(&t.Heartbeat, 5*time.Second)
	set(&t.TTL, 15*time.Second)
	set(&t.Look, time.Second)
	set(&t.Seal, 2*time.Second)
	set(&t.Cancel, max(CancelBound-t.Look, CancelBound/2))
	set(&t.Steady, time.Minute)
	set(&t.Retry, 200*time.Millisecond)
	return t
}

// DefaultCapacity is how many tasks a node runs at the same time unless set otherwise.
const DefaultCapacity = 5

// Runner runs the tasks of one name.
type Runner interface {
	// Run brings the task forward until it has ended (Lease.Finish), waits
	// for a person (Lease.Wait), or ctx ends, which means that another process
	// will go on with it. It is also called to go on with a task that another
	// process began.
	//
	// An error means that it could not go on for now: it is called again after a
	// pause, with the lease as it is.
	Run(ctx context.Context, l *Lease) error
	// Ended is called in the transaction in which a task ends, whoever ends it.
	Ended(ctx context.Context, tx *db.Tx, t *Task, state octopus.TaskState) error
}

// Config of a Service.
type Config struct {
	DB    *db.DB
	Blobs Blobs
	Log   *slog.Logger
	// RunDir holds the lock by which other processes on this host see that an
	// owner is dead. It must be on a local disk.
	RunDir  string
	Node    string // this node's name
	Version string
	Runners map[octopus.TaskName]Runner
	Timing  Timing
}

// Blobs keeps sealed logs.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, limit int64) (blob.Info, error)
	Open(ctx context.Context, h blob.Hash) (io.ReadSeekCloser, int64, error)
}

// Service is this node's part of the queue.
type Service struct {
	cfg         Config
	log         *slog.Logger
	incarnation string
	started     int64 // by the database's clock
	dbInc       string
	owner       *durable.Lock // the lock that says we live

	poke  chan struct{}
	tails tails

	mu     sync.Mutex
	leases map[string]*Lease

	lastBeat beat
	coder    *coder
}

// Open registers this process as an owner of tasks. It claims nothing before Run.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	cfg.Timing = cfg.Timing.withDefaults()
	s := &Service{
		cfg: cfg, log: cfg.Log, incarnation: newIncarnation(),
		poke: make(chan struct{}, 1), leases: map[string]*Lease{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", cfg.RunDir, err)
	}
	coder, err := newCoder()
	if err != nil {
		return nil, fmt.Errorf("set up log compression: %w", err)
	}
	s.coder = coder
	lock, err := durable.TryLock(s.ownerPath(s.incarnation))
	if err != nil {
		return nil, fmt.Errorf("take the owner's lock: %w", err)
	}
	s.owner = lock
	if err := s.register(ctx); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	if err := s.forgetDead(ctx); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

// register writes this process's node row, and its name's settings if it is new.
func (s *Service) register(ctx context.Context) error {
	at := time.Now()
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		clock, err := s.clock(ctx, tx)
		if err != nil {
			return err
		}
		s.started = clock
		if err := tx.QueryRow(ctx, `SELECT m.incarnation FROM tako_meta m`).Scan(&s.dbInc); err != nil {
			return fmt.Errorf("read the database's incarnation: %w", err)
		}
		if err := s.heartbeat(ctx, tx); err != nil {
			return fmt.Errorf("register node: %w", err)
		}
		seq, err := tx.NextSeq(ctx, "OctopusServerNodes")
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO node_setting (name, seq, capacity, draining) VALUES (?, ?, ?, 0) ON CONFLICT (name) DO NOTHING`,
			s.cfg.Node, seq, DefaultCapacity)
		return err
	})
	if err == nil {
		s.lastBeat.started.Store(&at)
	}
	return err
}

// Close says that this process owns nothing any more. Run must have returned.
func (s *Service) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), commitLimit)
	defer cancel()
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM node WHERE incarnation = ?`, s.incarnation)
		return err
	})
	return errors.Join(err, s.unlock())
}

// unlock takes the sign of life away.
func (s *Service) unlock() error {
	err := os.Remove(s.ownerPath(s.incarnation))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.owner.Unlock())
}

func (s *Service) ownerPath(incarnation string) string {
	return ownerLock(s.cfg.RunDir, incarnation)
}

func ownerLock(runDir, incarnation string) string {
	return filepath.Join(runDir, "owner-"+incarnation+".lock")
}

// Version is that of this program.
func (s *Service) Version() string { return s.cfg.Version }

// Incarnation names this process as an owner.
func (s *Service) Incarnation() string { return s.incarnation }

// Run claims and runs tasks until ctx ends and everything it ran has stopped.
// What was running then is released, and goes on elsewhere or at the next start.
func (s *Service) Run(ctx context.Context) error {
	s.beat(ctx) // what is claimed now must not look like a dead owner's
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.beatLoop(ctx); return nil })
	g.Go(func() error { s.claimLoop(ctx, g); return nil })
	g.Go(func() error { s.sealLoop(ctx); return nil })
	return g.Wait()
}

// wake tells this node's claim loop that there may be work.
func (s *Service) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// claimLoop looks for work when it is told of some, when a transaction that
// concerns tasks was committed anywhere, and now and then.
func (s *Service) claimLoop(ctx context.Context, g *errgroup.Group) {
	changes := s.cfg.DB.Subscribe()
	defer changes.Close()
	tick := time.NewTicker(s.cfg.Timing.Look)
	defer tick.Stop()
	var seen uint64
	for {
		// Asked before the look, so that what comes meanwhile is looked at again.
		now, err := s.cfg.DB.Changes(ctx, "tasks")
		if err == nil {
			seen = now
		}
		claimed, err := s.look(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("look for tasks", "err", err)
		}
		for _, l := range claimed {
			g.Go(func() error { s.run(ctx, l); return nil })
		}
		for look := false; !look; {
			select {
			case <-ctx.Done():
				return
			case <-s.poke:
				look = true
			case <-tick.C:
				look = true
			case <-changes.C:
				// Most commits bring lines of logs, which concern nobody here.
				now, err := s.cfg.DB.Changes(ctx, "tasks")
				look = err != nil || now != seen
			}
		}
	}
}

// run runs one claimed task and hands it back whatever happens.
func (s *Service) run(ctx context.Context, l *Lease) {
	defer s.wake()
	defer s.forget(l)
	log := s.log.With("task", l.ID, "epoch", l.epoch)
	runner := s.cfg.Runners[l.Name]
	if runner == nil {
		runner = unknownRunner{}
	}
	canceled := l.Canceled
	pause, told := s.cfg.Timing.Retry, false
	for {
		before := l.progress()
		err := l.forward(runner)
		if l.over() {
			return
		}
		if l.ctx.Err() != nil {
			break
		}
		if err == nil {
			err = errors.New("the runner returned before the task had ended")
		}
		log.Error("run task", "err", err, "again", pause)
		if l.progress() > before {
			pause, told = s.cfg.Timing.Retry, false
		}
		if !told {
			told = true
			l.tell(ctx, "The engine could not go on with this task and tries again; the server's own log has the reason.")
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.ctx.Done():
		case <-canceled:
			canceled = nil // it may end more easily than go on
		}
		timer.Stop()
		pause = min(2*pause, retryMost)
	}
	// A release that fails leaves a task that this process owns and does not
	// run: the next look finds it, or whoever comes after this process.
	if err := l.release(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, ErrLost) {
		log.Error("release task", "err", err)
	}
}

// unknownRunner ends tasks of names that nobody runs.
type unknownRunner struct{}

func (unknownRunner) Run(ctx context.Context, l *Lease) error {
	return l.Finish(ctx, octopus.TaskFailed, fmt.Sprintf("This server cannot run tasks of type %s.", l.Name), Batch{})
}

func (unknownRunner) Ended(context.Context, *db.Tx, *Task, octopus.TaskState) error { return nil }

func (s *Service) remember(l *Lease) {
	s.mu.Lock()
	old := s.leases[l.ID]
	s.leases[l.ID] = l
	s.mu.Unlock()
	if old != nil {
		old.lose() // its run has not noticed yet that it ended
	}
}

func (s *Service) forget(l *Lease) {
	s.mu.Lock()
	if s.leases[l.ID] == l {
		delete(s.leases, l.ID)
	}
	s.mu.Unlock()
	l.stop()
}

// held returns this process's leases by task.
func (s *Service) held() map[string]*Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.leases)
}

// cancelled tells a task's runner, when it runs here, that the task is to end.
func (s *Service) cancelled(id string) {
	s.mu.Lock()
	l := s.leases[id]
	s.mu.Unlock()
	if l != nil {
		l.cancel()
	}
	s.wake()
}
