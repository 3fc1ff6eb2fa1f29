// Package preflight looks, before an upgrade begins, whether anything speaks against it.
// It changes nothing, beside servers that run.
//
// Each check says what was seen, not only whether it is good, and what to do about it. A
// failed check keeps the upgrade from beginning; a warning is for a person to know. What
// is checked comes as plain values: who calls has read the feed, asked the supervisor and
// opened the database.
package preflight

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// Status is what a check has come to.
type Status string

// The statuses, from good to bad.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is one thing that was looked at.
type Check struct {
	// Name stays the same from version to version.
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Seen is what was found, Remedy what to do, "" where there is nothing to be done.
	Seen   string `json:"seen"`
	Remedy string `json:"remedy,omitempty"`
	// Mendable tells that the upgrade itself sets it right when it begins: From's program
	// knows how (`database mend`).
	Mendable bool `json:"mendable,omitempty"`
}

// Report is what all checks have come to.
type Report struct {
	From   string        `json:"from"`
	To     string        `json:"to"`
	At     time.Time     `json:"at"`
	Took   time.Duration `json:"took_ns"`
	Checks []Check       `json:"checks"`
}

// Of lists the checks with a status.
func (r *Report) Of(s Status) (out []Check) {
	for _, c := range r.Checks {
		if c.Status == s {
			out = append(out, c)
		}
	}
	return out
}

// Passed reports whether no check failed.
func (r *Report) Passed() bool { return len(r.Of(Fail)) == 0 }

// Err is nil when no check failed, else a fault Conflict that names each that did.
func (r *Report) Err() error {
	failed := r.Of(Fail)
	if len(failed) == 0 {
		return nil
	}
	var all []string
	for _, c := range failed {
		all = append(all, c.Name+": "+c.Seen)
	}
	return fault.New(fault.Conflict, "%d checks speak against the upgrade: %s", len(failed), strings.Join(all, "; "))
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, c := range r.Checks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", strings.ToUpper(string(c.Status)), c.Name, c.Seen)
		if c.Remedy != "" {
			fmt.Fprintf(t, "\t\t-> %s\n", c.Remedy)
		}
	}
	fmt.Fprintf(t, "%s -> %s: %d checks, %d failed, %d warnings.\n", r.From, r.To, len(r.Checks), len(r.Of(Fail)), len(r.Of(Warn)))
	return t.Flush()
}

// Supervisor is what the supervisor has said of itself.
type Supervisor struct {
	// Error is why it did not answer, nil if it did.
	Error error
	// Format is the version of its language, Version that of its program, "" if it did
	// not say.
	Format  int
	Version string
	// Current is the version that serves, Ducks how many former servers have
	// connections left.
	Current string
	Ducks   int
}

// Input is what is looked at.
type Input struct {
	// From is the version that runs here, and To the one that is to.
	From, To string
	// Platform is where it runs: "linux/amd64". Bad are versions that were tried here
	// and failed.
	Platform string
	Bad      []string
	// Feed is the feed that To comes from, verified, nil when it was not believed, for
	// the reason FeedError.
	Feed      *releasefeed.Verified
	FeedError error
	// Program is the path of To's program, "" while it is not fetched.
	Program string

	DB    *db.DB
	Store *docstore.Store
	// Keys opens the master key and the data keys, without making any.
	Keys func(ctx context.Context) (*secret.Box, error)
	// Data is the data directory, Backups where backups are, Root the supervisor's
	// directory, "" where there is none.
	Data, Backups, Root string
	// Proven is when the newest backup that was proven was taken, zero for none.
	Proven time.Time
	// MinAgent and MinTentacle are the oldest versions of Tako's own agents, and of
	// Octopus Tentacles, that To deploys to; "" for any.
	MinAgent, MinTentacle string
	// Supervisor is nil where there is none to ask.
	Supervisor *Supervisor
	// Format is the version of the supervisor's language that To needs.
	Format int

	// Only limits the checks to those with these names, all when it is empty.
	Only []string
	// Now is the clock, time.Now unless set.
	Now func() time.Time
	Log *slog.Logger
}

// examination is one run.
type examination struct {
	Input
	report Report
	name   string
	// release is To's, nil if the feed has none.
	release *releasefeed.Release
}

// Run makes all checks. It returns an error only when ctx has ended: a check that cannot be
// made has failed.
func Run(ctx context.Context, in Input) (*Report, error) {
	if in.Now == nil {
		in.Now = time.Now
	}
	if in.Log == nil {
		in.Log = slog.New(slog.DiscardHandler)
	}
	started := time.Now()
	x := &examination{Input: in, report: Report{From: in.From, To: in.To, At: in.Now().UTC().Truncate(time.Second)}}
	x.release = in.target()
	for _, c := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"feed", x.feed},
		{"path", x.path},
		{"program", x.program},
		{"supervisor", x.supervisor},
		{"database-version", x.databaseVersion},
		{"schema", x.schema},
		{"migrations", x.migrations},
		{"finalized", x.finalized},
		{"integrity", x.integrity},
		{"documents", x.documents},
		{"disk", x.disk},
		{"files", x.files},
		{"writable", x.writable},
		{"clock", x.clock},
		{"master-key", x.masterKey},
		{"recovery-kit", x.recoveryKit},
		{"backup", x.backup},
		{"tasks", x.tasks},
		{"agents", x.agents},
	} {
		if len(in.Only) > 0 && !slices.Contains(in.Only, c.name) {
			continue
		}
		x.name = c.name
		before := len(x.report.Checks)
		err := c.run(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			x.Log.Warn("a check could not be made", "check", c.name, "err", err)
			text := err.Error()
			if fault.KindOf(err) != fault.Internal {
				text = strings.Join(fault.Messages(err), " ")
			}
			x.say(Fail, "Look at the server's own machine: tako doctor.", "The check could not be made: %s", text)
		}
		if len(x.report.Checks) == before {
			return nil, fmt.Errorf("the check %s has said nothing", c.name)
		}
	}
	x.report.Took = time.Since(started)
	return &x.report, nil
}

// target is the release that is wanted, nil if the feed has none.
func (in *Input) target() *releasefeed.Release {
	if in.Feed == nil {
		return nil
	}
	for i := range in.Feed.Releases {
		if in.Feed.Releases[i].Version == in.To {
			return &in.Feed.Releases[i]
		}
	}
	return nil
}

// say notes what the check that runs has come to.
func (x *examination) say(s Status, remedy, format string, args ...any) {
	x.report.Checks = append(x.report.Checks, Check{Name: x.name, Status: s, Seen: fmt.Sprintf(format, args...), Remedy: remedy})
}

// maxNamed bounds how many things of a kind are named.
const maxNamed = 20

// named lists the first of some names.
func named(all []string, count int) string {
	text := strings.Join(all[:min(len(all), maxNamed)], ", ")
	if count > maxNamed {
		text += fmt.Sprintf(" and %d more", count-maxNamed)
	}
	return text
}
