package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// Times of the engine.
const (
	// CancelBound is how long a canceled task may take to end, whatever its
	// agents and its owner do.
	CancelBound = 10 * time.Second
	// heartbeatEvery and ownerTTL are PostgreSQL's: a node silent for longer
	// than the TTL, by the database's clock, has lost its tasks.
	heartbeatEvery = 5 * time.Second
	ownerTTL       = 15 * time.Second
	// lookEvery is how often a node looks for work that nobody told it of:
	// tasks that have become due, dead owners, overdue cancellations.
	lookEvery = time.Second
	// maxResumes without a new fact parks a task that kills its engine.
	maxResumes = 3
)

// DefaultCapacity is how many tasks a node runs at the same time unless set otherwise.
const DefaultCapacity = 5

// Runner runs the tasks of one name.
type Runner interface {
	// Run brings the task forward until it has ended (Lease.Finish), waits
	// for a person (Lease.Wait), or ctx ends, which means that another process
	// will go on with it. It is also called to go on with a task that another
	// process began.
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
	dbInc       string
	owner       *os.File // the lock that says we live

	poke  chan struct{}
	tails tails

	mu     sync.Mutex
	leases map[string]*Lease

	lastBeat beat
	coder    *coder
}

// Open registers this process as an owner of tasks. It claims nothing before Run.
func Open(ctx context.Context, cfg Config) (*Service, error) {
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
	lock, err := lockFile(s.ownerPath(s.incarnation))
	if err != nil {
		return nil, fmt.Errorf("take the owner's lock: %w", err)
	}
	s.owner = lock
	if err := s.register(ctx); err != nil {
		_ = lock.Close() // the error that counts is the first
		return nil, err
	}
	return s, nil
}

// register writes this process's node row, and its name's settings if it is new.
func (s *Service) register(ctx context.Context) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		clock, err := s.clock(ctx, tx)
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT m.incarnation FROM tako_meta m`).Scan(&s.dbInc); err != nil {
			return fmt.Errorf("read the database's incarnation: %w", err)
		}
		_, err = tx.Exec(ctx, `INSERT INTO node (incarnation, name, version, started, heartbeat) VALUES (?, ?, ?, ?, ?)`,
			s.incarnation, s.cfg.Node, s.cfg.Version, clock, clock)
		if err != nil {
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
}

// Close says that this process owns nothing any more. Run must have returned.
func (s *Service) Close() error {
	path := s.ownerPath(s.incarnation)
	err := os.Remove(path)
	return errors.Join(err, s.owner.Close())
}

func (s *Service) ownerPath(incarnation string) string {
	return filepath.Join(s.cfg.RunDir, "owner-"+incarnation+".lock")
}

// Incarnation names this process as an owner.
func (s *Service) Incarnation() string { return s.incarnation }

// Run claims and runs tasks until ctx ends and everything it ran has stopped.
// What was running then is released, and goes on elsewhere or at the next start.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.beatLoop(ctx) })
	g.Go(func() error { return s.claimLoop(ctx, g) })
	g.Go(func() error { return s.sealLoop(ctx) })
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// wake tells this node's claim loop that there may be work.
func (s *Service) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

func (s *Service) claimLoop(ctx context.Context, g *errgroup.Group) error {
	changes := s.cfg.DB.Subscribe()
	defer changes.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		claimed, err := s.look(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("look for tasks", "err", err)
		}
		for _, l := range claimed {
			g.Go(func() error { s.run(ctx, l); return nil })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.poke:
		case <-changes.C:
		case <-tick.C:
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
		if err := l.Finish(ctx, octopus.TaskFailed, fmt.Sprintf("This server cannot run tasks of type %s.", l.Name), Batch{}); err != nil {
			log.Error("end task", "err", err)
		}
		return
	}
	err := runner.Run(l.ctx, l)
	switch {
	case l.over() || errors.Is(err, ErrLost):
		return
	case err != nil && ctx.Err() == nil:
		log.Error("run task", "err", err)
	}
	if err := l.release(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, ErrLost) {
		log.Error("release task", "err", err)
	}
}

func (s *Service) remember(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases[l.ID] = l
}

func (s *Service) forget(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[l.ID] == l {
		delete(s.leases, l.ID)
	}
	l.stop()
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
