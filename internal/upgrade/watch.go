package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// answered is how many requests a server had answered at one moment, and how many of them
// with an error of its own.
type answered struct {
	PID    int   `json:"pid"`
	All    int64 `json:"all"`
	Failed int64 `json:"failed"`
}

func answeredBy(r supervisor.Report) answered {
	if r.Server == nil {
		return answered{}
	}
	return answered{r.Server.PID, r.Server.Answers, r.Server.Failed}
}

// answered asks the server that runs; whether it is well is the business of others.
func (c *Coordinator) answered(ctx context.Context) answered {
	r, _ := c.ask(ctx, supervisor.Order{Do: "deep"}) // nothing was counted then
	return answeredBy(r)
}

// since is what was answered after an earlier moment, of the same process.
func (a answered) since(before answered) answered {
	if a.PID != before.PID {
		return a
	}
	return answered{a.PID, a.All - before.All, a.Failed - before.Failed}
}

// rate is the share that failed, 0 to 1.
func (a answered) rate() float64 {
	if a.All == 0 {
		return 0
	}
	return float64(a.Failed) / float64(a.All)
}

// usual is the share of requests that the old version failed: all its life, or during the
// upgrade until the switch if that was worse.
func (t *Txn) usual() float64 {
	var first looked
	var last widened
	if json.Unmarshal(t.Results[Preflight], &first) != nil || json.Unmarshal(t.Results[Expanded], &last) != nil {
		return 0 // of a journal of another version: strict
	}
	return max(last.Answered.rate(), last.Answered.since(first.Answered).rate())
}

// What a version on probation may do.
const (
	failures = 3 // bad answers to a look, in a row
	unlucky  = 5 // requests that fail, whatever the share
	excused  = 3 // looks that find it ended for want of something that the old version has
)

// tooMany says whether a version fails more requests than twice the usual share and one
// of a hundred.
func tooMany(a answered, usual float64) error {
	if a.Failed < unlucky || a.rate() <= 2*usual+0.01 {
		return nil
	}
	return fmt.Errorf("%d of its %d answers were errors (%.1f %%; the version before: %.1f %%)", a.Failed, a.All, 100*a.rate(), 100*usual)
}

// watch looks at the new version until it has served for as long as the plan says.
func (c *Coordinator) watch(ctx context.Context, t *Txn) error {
	began, usual := time.Now(), t.usual()
	end := began.Add(t.stillToWatch(began))
	var calm time.Time // until then a server may be starting that has not crashed
	if t.Tries > 1 {
		calm = began.Add(c.patience) // everything may just have been started, as with the machine
	}
	bad, pid, absent := 0, 0, c.absent
	keeper, outages := 0, 0 // as the report before told: the supervisor, and ends that were no crashes
	alone := 0              // looks that found such an end while the old version could have gone on
	var before answered     // what had failed when the old version could not have done better
	for {
		if gone, err := c.wished(t); err != nil || gone {
			return errors.Join(err, errGivenUp)
		}
		r, err := c.ask(ctx, supervisor.Order{Do: "deep"})
		if r.Format == 0 {
			return err
		}
		if c.absent.After(absent) { // the next supervisor may have started the server anew
			bad, pid, absent, calm = 0, 0, c.absent, c.absent.Add(c.patience)
		}
		// That another process serves is no crash yet: the supervisor knows why.
		if pid != 0 && (keeper != r.PID || outages != r.Outages) {
			// One that it misses at once may be over when the old version is asked: that is no
			// fault of it. To end so again and again is.
			if keeper == r.PID && r.Outages > outages && !c.shared(ctx, t) {
				if alone++; alone > excused {
					return fmt.Errorf("version %s has ended %d times while it was on probation, for want of something that version %s has (exit code %d)", t.Plan.To, alone, t.Plan.From, fault.ExitUnavailable)
				}
			}
			bad, pid, calm = 0, 0, time.Now().Add(c.patience)
		}
		keeper, outages = r.PID, r.Outages
		if err == nil && !serves(r, t.Plan.To) {
			err = fmt.Errorf("the current version is %s", r.Current)
		}
		if r.Crashes > 0 || pid != 0 && r.Server != nil && r.Server.PID != pid {
			return fmt.Errorf("version %s crashed while it was on probation", t.Plan.To)
		}
		now := answeredBy(r)
		if r.Server != nil {
			pid = now.PID
		}
		starting := r.Server == nil || r.Server.Stage != control.Serving
		if bad++; err == nil || starting && r.Current == t.Plan.To && time.Now().Before(calm) {
			bad = 0
		}
		well := err == nil
		if bad < failures {
			err = tooMany(now.since(before), usual)
		}
		switch {
		case err != nil && c.shared(ctx, t):
			c.sayOnce("the server is not well, and version " + t.Plan.From + " would not be either: " + err.Error())
			// Once that is over, the supervisor may take seconds until it starts its server.
			bad, before, calm = 0, now, time.Now().Add(c.patience)
		case err != nil:
			return fmt.Errorf("version %s is not well: %w", t.Plan.To, err)
		case well && !time.Now().Before(end):
			return nil
		}
		if err := wait(ctx, c.cfg.Poll); err != nil {
			return err
		}
	}
}

// Times of a Coordinator.
const (
	// usualPatience is how long a version may take to be well once it serves, and the old one
	// to look at the database.
	usualPatience = 20 * time.Second
	// usualDoubt is how long the way back is tried while the old version cannot do its work
	// for a reason that may pass or not.
	usualDoubt = 15 * time.Minute
)

// shared reports whether the old version could not do its work now either, as when the
// database is away: to go back would help nobody. A program that cannot even be started
// does not tell.
func (c *Coordinator) shared(ctx context.Context, t *Txn) bool {
	_, why := c.unfit(ctx, t)
	return why != nil
}

// unfit is why the old version, which was started, could not do its work, and the exit code
// by which it said so; nil if it could, or does not tell.
func (c *Coordinator) unfit(ctx context.Context, t *Txn) (code int, why error) {
	ctx, stop := context.WithTimeout(ctx, usualPatience)
	defer stop()
	_, err := c.run(ctx, t.Plan.From, "database", "check")
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return 0, nil
	}
	return ended.ExitCode(), err
}

// setback is what keeps the way back from succeeding, as far as the old version tells.
type setback struct {
	why   error     // nil while nothing does
	since time.Time // when it began, of what may pass or not
}

// passes asks the old version whether it is worth while to wait on the way back. It is for as
// long as it takes while the old version says that the database is away (exit code 69): a
// person could do no more than bring that back. It is not for data that it cannot use (78).
// For any other reason it is until c.doubt has gone by; older versions do not tell
// an outage from anything else.
func (b *setback) passes(ctx context.Context, c *Coordinator, t *Txn) bool {
	code, why := c.unfit(ctx, t)
	b.why = why
	switch {
	case why == nil, code == fault.ExitUnavailable:
		b.since = time.Time{}
		return why != nil
	case code == fault.ExitRefused:
		return false
	case b.since.IsZero():
		b.since = time.Now()
	}
	return time.Since(b.since) < c.doubt
}

// of adds what the old version says to an error.
func (b *setback) of(err error) error {
	if b.why == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", err, b.why)
}
