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
	// Log is where commands write what they do.
	Log io.Writer
	// Poll is how often the journal and the server are looked at, 0 for once a second.
	Poll time.Duration
}

// Coordinator carries out what the journal says, one at a time for a root.
type Coordinator struct {
	cfg     Config
	journal *journal.Journal
	lock    *durable.Lock
	said    string // by sayOnce
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
func (e *BusyError) ExitCode() int { return 75 }

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
// carries out: whoever did was killed.
func Unattended(root string) (bool, error) {
	if _, err := os.Stat(Dir(root)); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	j, err := journal.Open(Dir(root))
	if err != nil {
		return false, err
	}
	last, err := Last(j.Entries())
	if err != nil || last == nil || last.State.Ended() {
		return false, err
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
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
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
	return &Coordinator{cfg: cfg, journal: j, lock: lock}, nil
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
		do := t.Next(time.Now())
		switch {
		case do.State == "" && do.Until.IsZero():
			return t, nil
		case do.State == "":
			if err := wait(ctx, min(c.cfg.Poll, time.Until(do.Until))); err != nil {
				return t, err
			}
			continue
		}
		if err := c.step(ctx, t, do); err != nil {
			return t, err
		}
	}
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
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	dir, err := os.MkdirTemp("", "tako-offer-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	feed := filepath.Join(dir, "feed.json")
	if err := os.WriteFile(feed, offer.Feed, 0o600); err != nil {
		return nil, err
	}
	c := &Coordinator{cfg: cfg}
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
	if err := c.write(t, KindIntent, Mark{State: do.State}); err != nil {
		return err
	}
	if err := failpoint.Hit("upgrade-begun-" + strings.ToLower(string(do.State))); err != nil {
		return err
	}
	fmt.Fprintln(c.cfg.Log, do.State)
	result, err := c.work(ctx, t, do)
	if ctx.Err() != nil {
		return ctx.Err() // cut short, as by a kill
	}
	if err != nil {
		fmt.Fprintf(c.cfg.Log, "%s: %v\n", do.State, err)
		return c.write(t, KindFailed, Mark{State: do.State, Error: err.Error()})
	}
	if err := failpoint.Hit("upgrade-worked-" + strings.ToLower(string(do.State))); err != nil {
		return err
	}
	m := Mark{State: do.State}
	if do.State == Aborted || do.State == RolledBack || do.State == NeedsOperator {
		m.Error = do.Because
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

func (c *Coordinator) write(t *Txn, kind string, m Mark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.journal.Append(time.Now(), func(all []journal.Entry) (journal.Entry, error) {
		last, err := Last(all)
		if err == nil && (last == nil || last.ID != t.ID) {
			err = errors.New("another upgrade has begun meanwhile")
		}
		return journal.Entry{Txn: t.ID, Kind: kind, Data: raw}, err
	})
	return err
}

// wished reports whether somebody has asked to give the upgrade up since the step began.
func (c *Coordinator) wished(t *Txn) (bool, error) {
	if err := c.journal.Refresh(); err != nil {
		return false, err
	}
	now, err := Last(c.journal.Entries())
	return err == nil && now != nil && now.ID == t.ID && (now.Abort || now.Rollback || now.WentBack), err
}

// ask tells the supervisor something, again for a while if it is just being started.
func (c *Coordinator) ask(ctx context.Context, o supervisor.Order) (supervisor.Report, error) {
	until := time.Now().Add(time.Minute)
	for {
		r, err := supervisor.Ask(ctx, c.cfg.Root, o)
		if err == nil || r.Format != 0 || ctx.Err() != nil || time.Now().After(until) {
			return r, err
		}
		if err := wait(ctx, c.cfg.Poll); err != nil {
			return r, err
		}
	}
}
