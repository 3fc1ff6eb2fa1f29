// Package retention is the task that deletes what nobody wants any more: releases
// that their lifecycles do not keep, packages that the built-in feed does not keep,
// build information of what is gone, and last the blobs that no row names.
//
// What is kept, and why, is decided elsewhere (lifecycle, releases, feed). A task
// that ends half-way has done no harm: whoever goes on with it decides anew what is
// left.
package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Config of a Task.
type Config struct {
	DB       *db.DB
	Store    *docstore.Store
	Releases *releases.Service
	Packages *feed.Repository
	// Fetched are the packages that were fetched from external feeds; nil for none.
	Fetched *external.Feeds
	Blobs   Blobs
	// RunDir has the locks of the processes of this host, by which a sweep on SQLite
	// knows the backups that run.
	RunDir string
	Log    *slog.Logger
}

// Task runs the tasks named Retention.
type Task struct {
	cfg Config
	log *slog.Logger
}

var _ tasks.Runner = (*Task)(nil)

// New makes the runner.
func New(cfg Config) *Task {
	t := &Task{cfg: cfg, log: cfg.Log}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	return t
}

// Tag is the concurrency tag of tasks of retention: they run one after the other.
const Tag = "retention"

// Ended is tasks.Runner; nothing is left to do.
func (*Task) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }

// Run is tasks.Runner.
func (t *Task) Run(ctx context.Context, l *tasks.Lease) error {
	if _, err := l.Facts(ctx); err != nil {
		return err
	}
	r := &report{l: l}
	err := t.apply(ctx, r)
	switch {
	case errors.Is(err, errCanceled):
		return l.Finish(ctx, octopus.TaskCanceled, "The task was canceled.", r.rest())
	case err != nil:
		return err
	case r.failed > 0:
		return l.Finish(ctx, octopus.TaskFailed, fmt.Sprintf("%d parts were left out.", r.failed), r.rest())
	}
	return l.Finish(ctx, octopus.TaskSuccess, "", r.rest())
}

// errCanceled ends what a report is made of.
var errCanceled = errors.New("the task was canceled")

// report is the log of a task, which it writes a few hundred lines at a time.
type report struct {
	l        *tasks.Lease
	lines    []tasks.Line
	warnings bool
	failed   int
}

// say adds a line. It ends a task that is canceled.
func (r *report) say(ctx context.Context, category octopus.LogCategory, format string, args ...any) error {
	select {
	case <-r.l.Canceled:
		return errCanceled
	default:
	}
	const most = 500
	r.lines = append(r.lines, tasks.Line{Activity: r.l.ID, Category: category, At: time.Now().UTC(), Text: fmt.Sprintf(format, args...)})
	if len(r.lines) < most {
		return nil
	}
	return r.l.Commit(ctx, r.rest())
}

// rest takes the lines that are not written yet.
func (r *report) rest() tasks.Batch {
	b := tasks.Batch{Lines: r.lines, Warnings: r.warnings}
	r.lines, r.warnings = nil, false
	return b
}

// leaveOut tells of a part that could not be done, and lets the others be. It
// returns errors that concern them too.
func (r *report) leaveOut(ctx context.Context, what string, err error) error {
	if kind := fault.KindOf(err); kind == fault.Internal || kind == fault.Unavailable {
		return err
	}
	r.failed++
	r.warnings = true
	return r.say(ctx, octopus.LogError, "%s was left out: %s", what, strings.Join(fault.Messages(err), " "))
}

func (t *Task) apply(ctx context.Context, r *report) error {
	var spaces []octopus.Space
	err := t.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		spaces, err = docstore.All[octopus.Space](ctx, t.cfg.Store, tx, "spaces", docstore.Query{})
		return err
	})
	if err != nil {
		return err
	}
	if err := t.releases(ctx, r, spaces); err != nil {
		return err
	}
	if err := t.packages(ctx, r, spaces); err != nil {
		return err
	}
	if t.cfg.Fetched != nil {
		n, bytes, err := t.cfg.Fetched.Prune(ctx)
		if err != nil {
			return err
		}
		if err := r.say(ctx, octopus.LogInfo, "Forgot %d packages of external feeds with %d bytes, which can be fetched again.", n, bytes); err != nil {
			return err
		}
	}
	n, bytes, err := t.Sweep(ctx)
	if err != nil {
		return err
	}
	return r.say(ctx, octopus.LogInfo, "Deleted %d files of %d bytes that nothing has named for %d hours.", n, bytes, int(grace.Hours()))
}

// releases applies the policies of lifecycles.
func (t *Task) releases(ctx context.Context, r *report, spaces []octopus.Space) error {
	deleted, of := 0, 0
	for _, space := range spaces {
		var projects []octopus.Project
		err := t.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
			projects, err = docstore.All[octopus.Project](ctx, t.cfg.Store, tx, "projects", docstore.Query{Space: ident.SpaceID(space.ID)})
			return err
		})
		if err != nil {
			return err
		}
		of += len(projects)
		for i := range projects {
			p := &projects[i]
			n, err := t.cfg.Releases.Retain(ctx, p, func(v releases.RetentionVerdict) error {
				does := "is kept"
				if !v.Keep {
					does = "is deleted"
				}
				return r.say(ctx, octopus.LogInfo, "%s: release %s %s: %s.", p.Name, v.Version, does, v.Reason)
			})
			deleted += n
			if err == nil {
				continue
			}
			if err := r.leaveOut(ctx, "Project "+p.Name, err); err != nil {
				return err
			}
		}
	}
	return r.say(ctx, octopus.LogInfo, "Deleted %d releases of %d projects.", deleted, of)
}

// packages applies the policies of the built-in feeds, once it is known which
// packages the releases use, and lets build information go.
func (t *Task) packages(ctx context.Context, r *report, spaces []octopus.Space) error {
	if err := t.cfg.Releases.UsePackages(ctx); err != nil {
		return err
	}
	deleted, builds := 0, 0
	for _, space := range spaces {
		n, err := t.packagesOf(ctx, r, &space)
		deleted += n
		if err != nil {
			if err := r.leaveOut(ctx, "The built-in feed of space "+space.Name, err); err != nil {
				return err
			}
		}
		n, err = t.cfg.Packages.RetainBuilds(ctx, ident.SpaceID(space.ID), func(b octopus.BuildInformation) error {
			return r.say(ctx, octopus.LogInfo, "%s: build information of %s %s is deleted: it is older than %d days, and neither a package of the built-in feed nor a release has it.", space.Name, b.PackageID, b.Version, feed.BuildDays)
		})
		builds += n
		if err != nil {
			if err := r.leaveOut(ctx, "The build information of space "+space.Name, err); err != nil {
				return err
			}
		}
	}
	return r.say(ctx, octopus.LogInfo, "Deleted %d packages, and build information for %d versions without one.", deleted, builds)
}

func (t *Task) packagesOf(ctx context.Context, r *report, space *octopus.Space) (deleted int, err error) {
	id := ident.SpaceID(space.ID)
	var policy feed.RetentionPolicy
	err = t.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		policy, err = Policy(ctx, tx, t.cfg.Store, id)
		return err
	})
	if err != nil {
		return 0, err
	}
	if policy.Days <= 0 {
		return 0, r.say(ctx, octopus.LogInfo, "%s: all packages are kept.", space.Name)
	}
	return t.cfg.Packages.Retain(ctx, id, policy, t.cfg.Releases.Names, func(v feed.Verdict) error {
		return r.say(ctx, octopus.LogInfo, "%s: package %s %s: %s", space.Name, v.PackageID, v.Version, v.Reason)
	})
}

// Policy is the retention policy of a space's built-in feed; without that feed all
// is kept.
func Policy(ctx context.Context, tx *db.Tx, store *docstore.Store, space ident.SpaceID) (feed.RetentionPolicy, error) {
	var f octopus.Feed
	err := store.Load(ctx, tx, "feeds", resources.BuiltinFeed(space), &f)
	if fault.Is(err, fault.NotFound) {
		return feed.RetentionPolicy{}, nil
	}
	return feed.PolicyOf(&f), err
}
