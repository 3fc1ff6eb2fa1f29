package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/preflight"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// Config of what carries an upgrade out.
type Config struct {
	// Root is the directory of a supervisor, Store its versions and trust.
	Root  string
	Store *stage.Store
	// Data is the server's data directory. Settings are flags for the commands that are
	// run, Environ is their environment, which has the server's settings.
	Data     string
	Settings []string // such as --config
	Environ  []string
	// Version is that of the program that carries the upgrade out, and Program its path: in a
	// container the version of the image is not among those of the store.
	Version, Program string
	// Log is where commands write what they do.
	Log io.Writer
	// Poll is how often the journal and the server are looked at, 0 for once a second.
	Poll time.Duration
}

// fill fills in what may be left out.
func (cfg Config) fill() Config {
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	cfg.Log = loose{cfg.Log}
	return cfg
}

// Coordinator carries out what the journal says, one at a time for a root.
type Coordinator struct {
	cfg     Config
	journal *journal.Journal
	lock    *durable.Lock
	said    string    // by sayOnce
	opened  time.Time // from when on its clock counts
	vigil   vigil
	image   bool      // the upgrade is one of a container
	absent  time.Time // when no supervisor answered the last time
	// limit is how long a supervisor is waited for, 0 for ever.
	limit time.Duration
	// patience and doubt are usualPatience and usualDoubt, but in tests.
	patience, doubt time.Duration
}

// BusyError says that an upgrade is being carried out already.
type BusyError struct {
	// Txn is that upgrade's id, PID the process that carries it out, 0 for none.
	Txn string
	PID int
}

// Error names the upgrade and its process.
func (e *BusyError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("the upgrade %s has not ended; look at it with `tako upgrade status`", e.Txn)
	}
	return fmt.Sprintf("the upgrade %s is under way, carried out by process %d; look at it with `tako upgrade status`", e.Txn, e.PID)
}

// ExitCode is that of "busy".
func (e *BusyError) ExitCode() int { return fault.ExitBusy }

// Dir is where a root has the journal of upgrades.
func Dir(root string) string { return filepath.Join(root, "upgrade") }

func lockPath(root string) string { return filepath.Join(Dir(root), "lock") }

// Begin writes the plan of a new upgrade, or fails with a *BusyError if another one has
// not ended.
func Begin(root string, p Plan, now time.Time) (id string, err error) {
	j, err := journal.Open(Dir(root))
	if err != nil {
		return "", err
	}
	id = now.UTC().Format("20060102T150405Z") + "-" + p.To
	_, err = j.Append(now, func(all []journal.Entry) (journal.Entry, error) {
		if err := busy(root, all); err != nil {
			return journal.Entry{}, err
		}
		raw, err := json.Marshal(p)
		return journal.Entry{Txn: id, Kind: KindPlan, Data: raw}, err
	})
	return id, err
}

// Busy is a *BusyError while an upgrade has not ended, which another one would have to
// wait for.
func Busy(root string) error {
	j, err := journal.Open(Dir(root))
	if err != nil {
		return err
	}
	return busy(root, j.Entries())
}

func busy(root string, all []journal.Entry) error {
	last, err := Last(all)
	if err != nil || last == nil || last.State.Ended() && last.State != NeedsOperator {
		return err
	}
	return &BusyError{last.ID, Attended(root)}
}

// Unattended reports whether there is an upgrade that has not ended and that nobody
// carries out: whoever did was killed. image tells that it is the first process of a container
// that asks: upgrades in containers are its business, and a supervisor's are all others.
func Unattended(root string, image bool) (bool, error) {
	if _, err := os.Stat(Dir(root)); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	j, err := journal.Open(Dir(root))
	if err != nil {
		return false, err
	}
	last, err := Last(j.Entries())
	if err != nil || last == nil || last.State.Ended() || last.Plan.Image != image {
		return false, err
	}
	if _, unseen := last.unseen(root); last.Waits() && !unseen {
		return false, nil // nobody is needed
	}
	return Attended(root) == 0, nil
}

// Want writes somebody's wish about the newest upgrade. check is asked first, with the
// upgrade as it is while nobody else can write.
func Want(root string, a Ask, now time.Time, check func(*Txn) error) error {
	j, err := journal.Open(Dir(root))
	if err != nil {
		return err
	}
	_, err = j.Append(now, func(all []journal.Entry) (journal.Entry, error) {
		last, err := Last(all)
		if err != nil {
			return journal.Entry{}, err
		}
		if last == nil {
			return journal.Entry{}, errors.New("there has been no upgrade here")
		}
		if err := check(last); err != nil {
			return journal.Entry{}, err
		}
		raw, err := json.Marshal(a)
		return journal.Entry{Txn: last.ID, Kind: KindAsk, Data: raw}, err
	})
	return err
}

// Open takes the place of whoever carries the upgrade out; a *BusyError if somebody does.
func Open(cfg Config) (*Coordinator, error) {
	cfg = cfg.fill()
	j, err := journal.Open(Dir(cfg.Root))
	if err != nil {
		return nil, err
	}
	lock, err := durable.TryLock(lockPath(cfg.Root))
	if errors.Is(err, durable.ErrLocked) {
		busy := &BusyError{}
		if last, err := Last(j.Entries()); err == nil && last != nil {
			busy.Txn = last.ID
		}
		busy.PID = Attended(cfg.Root)
		return nil, busy
	}
	if err != nil {
		return nil, err
	}
	err = lock.File().Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(lock.File(), os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return &Coordinator{cfg: cfg, journal: j, lock: lock, opened: time.Now(), patience: usualPatience, doubt: usualDoubt}, nil
}

// Close gives the place free.
func (c *Coordinator) Close() error { return c.lock.Unlock() }

// Run carries the newest upgrade out until there is nothing to do, waiting where it has
// to; it returns the upgrade as it is then. Cut short anywhere, Run goes on from the
// journal.
func (c *Coordinator) Run(ctx context.Context) (*Txn, error) {
	for {
		if err := c.journal.Refresh(); err != nil {
			return nil, err
		}
		t, err := Last(c.journal.Entries())
		if err != nil || t == nil {
			return t, err
		}
		if c.image = t.Plan.Image; c.image {
			if seen, err := c.witness(ctx, t); err != nil {
				return t, err
			} else if seen {
				continue
			}
		}
		switch do := c.next(t, time.Now()); {
		case do.State == "" && do.Until.IsZero():
			return t, nil
		case do.State == "":
			err = wait(ctx, min(c.cfg.Poll, max(time.Until(do.Until), time.Millisecond)))
		default:
			err = c.step(ctx, t, do)
		}
		if err != nil {
			return t, err
		}
	}
}

// next is what comes next. That a hold is over, the journal and the time of day do not
// tell alone.
func (c *Coordinator) next(t *Txn, now time.Time) Do {
	do := t.Next(now)
	if t.State != Committed || t.noReturn {
		return do
	}
	if over := c.vigil.over(t, now.Round(0), now.Sub(c.opened)); do.State == Finalized && !t.Finalize && !over {
		return Do{Until: now.Add(c.cfg.Poll)}
	}
	return do
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Inspect looks whether anything speaks against an upgrade to what was offered, and
// changes nothing: what speaks against it are the report's failed checks.
func Inspect(ctx context.Context, cfg Config, p Plan, offer *stage.Offer) (_ *preflight.Report, err error) {
	dir, err := os.MkdirTemp("", "tako-offer-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	feed := filepath.Join(dir, "feed.json")
	if err := os.WriteFile(feed, offer.Feed, 0o600); err != nil {
		return nil, err
	}
	c := &Coordinator{cfg: cfg.fill(), limit: time.Minute, image: p.Image}
	return c.inspect(ctx, &Txn{Plan: p}, feed)
}

// sayOnce writes a line to the log, unless it was the last one that was said so.
func (c *Coordinator) sayOnce(line string) {
	if c.said != line {
		c.said = line
		fmt.Fprintln(c.cfg.Log, line)
	}
}

// step brings a state about. A step that does not succeed is written down, and is no
// error here; an error is one of the journal, or the end of ctx.
func (c *Coordinator) step(ctx context.Context, t *Txn, do Do) error {
	if do.State == Finalized && t.Doing != Finalized {
		// The way back goes before the data formats change, and before it is written that
		// they may have.
		if err := c.keep(ctx, t); err != nil {
			c.sayOnce("not finalized yet: " + err.Error())
			return wait(ctx, c.cfg.Poll)
		}
	}
	t, err := c.intend(t, do)
	if errors.Is(err, errOvertaken) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := failpoint.Hit("upgrade-begun-" + strings.ToLower(string(do.State))); err != nil {
		return err
	}
	fmt.Fprintln(c.cfg.Log, do.State)
	heeding, stop := c.heed(ctx, t)
	result, err := c.work(heeding, t, do)
	stop()
	if ctx.Err() != nil {
		return ctx.Err() // cut short, as by a kill
	}
	if err != nil && errors.Is(context.Cause(heeding), errGivenUp) {
		return nil // what comes next follows from the wish
	}
	if err != nil {
		fmt.Fprintf(c.cfg.Log, "%s: %v\n", do.State, err)
		var old blameless
		return c.write(t, KindFailed, Mark{State: do.State, Error: brief(err.Error()), Blameless: errors.As(err, &old)})
	}
	if err := failpoint.Hit("upgrade-worked-" + strings.ToLower(string(do.State))); err != nil {
		return err
	}
	m := Mark{State: do.State}
	if do.State == Aborted || do.State == RolledBack || do.State == NeedsOperator {
		m.Error = brief(do.Because)
	}
	if result != nil {
		if m.Result, err = json.Marshal(result); err != nil {
			return err
		}
	}
	if err := c.write(t, KindDone, m); err != nil {
		return err
	}
	return failpoint.Hit("upgrade-done-" + strings.ToLower(string(do.State)))
}

// errOvertaken says that something else comes next than what was decided a moment ago.
var errOvertaken = errors.New("something else comes next")

// intend writes that the step to a state begins, and tells the upgrade as it is then. If
// somebody has asked for something since it was decided, of which another step follows,
// nothing is written and the error is errOvertaken.
func (c *Coordinator) intend(t *Txn, do Do) (*Txn, error) {
	raw, err := json.Marshal(Mark{State: do.State})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	_, err = c.journal.Append(now, func(all []journal.Entry) (journal.Entry, error) {
		last, err := same(all, t)
		if err == nil && last.Next(now).State != do.State {
			err = errOvertaken
		}
		return journal.Entry{Txn: t.ID, Kind: KindIntent, Data: raw}, err
	})
	if err != nil {
		return nil, err
	}
	return Last(c.journal.Entries())
}

// write writes what has become of a step.
func (c *Coordinator) write(t *Txn, kind string, m Mark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.journal.Append(time.Now(), func(all []journal.Entry) (journal.Entry, error) {
		_, err := same(all, t)
		return journal.Entry{Txn: t.ID, Kind: kind, Data: raw}, err
	})
	return err
}

// same is the newest upgrade, which has to be t still.
func same(all []journal.Entry, t *Txn) (*Txn, error) {
	last, err := Last(all)
	if err == nil && (last == nil || last.ID != t.ID) {
		err = errors.New("another upgrade has begun meanwhile")
	}
	return last, err
}

// wished reports whether somebody has asked to give the upgrade up since the step began.
func (c *Coordinator) wished(t *Txn) (bool, error) {
	if err := c.journal.Refresh(); err != nil {
		return false, err
	}
	now, err := Last(c.journal.Entries())
	return err == nil && now != nil && now.ID == t.ID && (now.Abort || now.Rollback || now.WentBack), err
}

// heed derives the context of the step that t is in. It ends with errGivenUp as soon as
// somebody gives the upgrade up, in steps before the switch: until then nothing that a step
// does is worth being waited for. stop ends it.
func (c *Coordinator) heed(ctx context.Context, t *Txn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if t.Doing.reached(Switched) { // or one of the ends
		return ctx, func() { cancel(nil) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		j, err := journal.Open(Dir(c.cfg.Root)) // one of our own: they are not for two at once
		for err == nil && wait(ctx, c.cfg.Poll) == nil {
			if err = j.Refresh(); err != nil {
				return // the step comes to its end, and then it is told
			}
			if now, err := Last(j.Entries()); err == nil && now != nil && now.ID == t.ID && (now.Abort || now.Rollback) {
				cancel(errGivenUp)
			}
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

// ask tells the supervisor something. While there is none it waits for the next one: a
// service that was stopped says nothing of an upgrade.
func (c *Coordinator) ask(ctx context.Context, o supervisor.Order) (supervisor.Report, error) {
	began := time.Now()
	for {
		r, err := supervisor.Ask(ctx, c.cfg.Root, o)
		if err == nil || r.Format != 0 || ctx.Err() != nil {
			return r, err
		}
		c.absent = time.Now()
		if c.limit > 0 && time.Since(began) > c.limit {
			return r, err
		}
		if _, gone := os.Stat(Dir(c.cfg.Root)); errors.Is(gone, os.ErrNotExist) {
			return r, err // everything was removed
		}
		c.sayOnce("waiting for the supervisor: " + err.Error())
		if err := wait(ctx, c.cfg.Poll); err != nil {
			return r, err
		}
	}
}

// Back says by which wish one goes back from the newest upgrade, and when that is allowed.
// Where only a restore leads back, it is once somebody has made one, and the supervisor says
// that the old version serves: then the wish closes the upgrade. Without an upgrade it is
// WishRollback.
func Back(ctx context.Context, root string) (Wish, func(*Txn) error, error) {
	plain := func(t *Txn) error { return Allowed(t, WishRollback) }
	j, err := journal.Open(Dir(root))
	if err != nil {
		return "", nil, err
	}
	t, err := Last(j.Entries())
	if err != nil {
		return "", nil, err
	}
	var only *NeedsRestoreError
	if t == nil || !errors.As(plain(t), &only) || only.Final {
		return WishRollback, plain, nil
	}
	r, err := supervisor.Ask(ctx, root, supervisor.Order{Do: "status"})
	if err != nil || !serves(r, t.Plan.From) {
		return WishRollback, plain, nil //nolint:nilerr // without a supervisor nobody knows of a restore
	}
	wish := WishRollback
	if t.State == NeedsOperator {
		wish = WishResume // to the way back, which is there now
	}
	id, state := t.ID, t.State
	return wish, func(t *Txn) error {
		if t.ID == id && t.State == state && !t.NoReturn() {
			return nil
		}
		return plain(t)
	}, nil
}

// Well is nil when a version serves and is well, as the supervisor of a root says.
func Well(ctx context.Context, root, version string) error {
	r, err := supervisor.Ask(ctx, root, supervisor.Order{Do: "deep"})
	if err == nil && !serves(r, version) {
		err = fmt.Errorf("the current version is %s", r.Current)
	}
	if err != nil {
		return fmt.Errorf("version %s does not serve as it should: %w", version, err)
	}
	return nil
}
