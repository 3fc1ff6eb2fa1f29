// Package orchestrator runs deployments: it takes the plan that a task carries,
// does what the pure rules of package deploy say may be done next, and writes
// everything it learns to the task's journal before it acts on it.
//
// A deployment belongs to whoever holds its lease. When that process dies,
// another one reads plan and journal, comes to the same state, and goes on:
// scripts that run are found again by their tickets, decisions are facts and not
// taken twice, and a script whose fate cannot be known is asked about.
package orchestrator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/mail"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// Source knows what a plan refers to.
type Source interface {
	// Process is the frozen process of a plan, its secrets in clear.
	Process(ctx context.Context, p *deploy.Plan) ([]octopus.Step, error)
	// Variables are the values of a plan's manifest, its secrets in clear.
	Variables(ctx context.Context, p *deploy.Plan) ([]variables.Variable, error)
	// Package finds a package that a release selected.
	Package(ctx context.Context, p *deploy.Plan, feedID, packageID, version string) (Package, error)
	// Targets are the targets that the deployment could have now.
	Targets(ctx context.Context, p *deploy.Plan) ([]releases.Target, error)
	// Checked is told of the health of targets.
	Checked(ctx context.Context, found []resources.MachineCheck) error
	// MayStart checks that nothing keeps a deployment that waited from starting now;
	// fault.Invalid says what does.
	MayStart(ctx context.Context, tx *db.Tx, p *deploy.Plan) error
	// Child makes the deployment that a step of another one asks for, in the
	// caller's transaction, and returns its task; or it says why it need not be made.
	Child(ctx context.Context, tx *db.Tx, p *deploy.Plan, c releases.Child) (task, skipped string, err error)
	// Reached is told to which targets a deployment went, where those are not all that
	// it was made for and no others, in the transaction that ends it.
	Reached(ctx context.Context, tx *db.Tx, p *deploy.Plan, machines []string) error
	// Ended is told of a deployment that has ended, in that transaction.
	Ended(ctx context.Context, tx *db.Tx, t *tasks.Task, state octopus.TaskState) error
}

// Package is a package that can be fetched.
type Package = releases.Package

// Blobs has the contents of packages, and takes artifacts.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, limit int64) (blob.Info, error)
	Open(ctx context.Context, h blob.Hash) (io.ReadSeekCloser, int64, error)
}

// Sealer keeps sensitive outputs from being read in the journal.
type Sealer interface {
	Seal(owner, field string, clear []byte) (string, error)
	Open(ctx context.Context, owner, field, sealed string) ([]byte, error)
}

// Agents finds who runs scripts.
type Agents interface {
	// Worker chooses a worker, and Target finds the agent of a deployment target, for
	// new work.
	Worker(ctx context.Context, need targets.Need) (targets.Agent, error)
	Target(ctx context.Context, machine string) (targets.Agent, error)
	// ByName finds an agent for what is under way there.
	ByName(ctx context.Context, name string) (targets.Agent, error)
}

// Mail sends e-mails.
type Mail interface {
	// Addresses are those of the members of teams.
	Addresses(ctx context.Context, teams []string) ([]string, error)
	Send(ctx context.Context, m mail.Message) error
}

// Config of an Orchestrator.
type Config struct {
	DB     *db.DB
	Source Source
	Agents Agents
	// Checks finds the agents of targets that a step checks; nil is Agents.
	Checks targets.Finder
	// TakesWork checks that a target takes new work now; targets.ErrDisabled says that
	// it was disabled. Nil has it found out by Agents alone.
	TakesWork func(ctx context.Context, machine string) error
	Blobs     Blobs
	Sealer    Sealer
	// Earlier finds the versions of a package that a target may have already, the most
	// likely one first: of them, one that it has is what the package is sent as the
	// difference to. It may be nil: then packages are sent whole.
	Earlier func(ctx context.Context, p *deploy.Plan, feedID, packageID, version string) ([]Package, error)
	// Offline makes the bundles of offline drops; nil refuses them.
	Offline *Offline
	// StartSettles is how long a start that no agent of another make has answered may
	// still be arriving there; 0 is tasks.StartSettles.
	StartSettles time.Duration
	// Mail may be nil: then steps that send e-mails fail.
	Mail Mail
	Log  *slog.Logger
}

// Orchestrator runs deployment tasks. It is a tasks.Runner.
type Orchestrator struct {
	cfg     Config
	log     *slog.Logger
	settles time.Duration // Config.StartSettles
	deltas  chan struct{} // has one for each difference that is being made
}

var (
	_ tasks.Runner = (*Orchestrator)(nil)
	_ tasks.Parker = (*Orchestrator)(nil)
)

// New makes an orchestrator.
func New(cfg Config) *Orchestrator {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Checks == nil {
		cfg.Checks = cfg.Agents
	}
	return &Orchestrator{cfg: cfg, log: log, settles: cmp.Or(cfg.StartSettles, tasks.StartSettles), deltas: make(chan struct{}, deltasAtOnce)}
}

// Ended is called when a deployment's task ends, whoever ended it.
func (o *Orchestrator) Ended(ctx context.Context, tx *db.Tx, t *tasks.Task, state octopus.TaskState) error {
	if err := wakeParent(ctx, tx, t.ID); err != nil {
		return err
	}
	return o.cfg.Source.Ended(ctx, tx, t, state)
}

// Run brings a deployment forward until it ends, waits, or ctx does.
func (o *Orchestrator) Run(ctx context.Context, l *tasks.Lease) error {
	r, err := o.load(ctx, l)
	if err != nil {
		return giveUp(ctx, l, err)
	}
	return r.loop(ctx)
}

// giveUp ends a deployment that cannot be loaded, if it never will be.
func giveUp(ctx context.Context, l *tasks.Lease, err error) error {
	var damaged *damagedError
	var blocked *blockedError
	switch {
	case errors.As(err, &blocked):
		lines := []tasks.Line{line(l.ID, octopus.LogFatal, blocked.Error())}
		return l.Finish(ctx, octopus.TaskFailed, blocked.Error(), tasks.Batch{Lines: lines, Warnings: true})
	case errors.As(err, &damaged):
		// Nothing that runs again will read it better.
		return l.Finish(ctx, octopus.TaskFailed, damaged.Error(), tasks.Batch{Warnings: true})
	}
	return err
}

// damagedError is a plan or a journal that cannot be read.
type damagedError struct{ err error }

func (e *damagedError) Error() string { return "The deployment cannot go on: " + e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// blockedError says why a deployment that waited may not start.
type blockedError struct{ why string }

func (e *blockedError) Error() string { return e.why }

// load reads everything that a run works from.
func (o *Orchestrator) load(ctx context.Context, l *tasks.Lease) (*run, error) {
	r := &run{o: o, l: l, log: o.log.With("task", l.ID), busy: map[deploy.Unit]*work{}, leaving: map[string]bool{}, chosen: map[deploy.Unit]string{}, choosing: make(chan struct{}, 1), woken: make(chan struct{}, 1)}
	err := o.cfg.DB.Read(ctx, func(tx *db.Tx) error { return tasks.Plan(ctx, tx, l.ID, &r.plan) })
	if err != nil {
		return nil, err
	}
	if r.plan.Format > deploy.Format {
		return nil, fmt.Errorf("plan of %s has format %d, this version reads up to %d", l.ID, r.plan.Format, deploy.Format)
	}
	rows, err := l.Facts(ctx)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		if err := r.mayStart(ctx); err != nil {
			return nil, err
		}
		r.pending.Also = r.started // told once, with the first fact
	}
	facts := make([]deploy.Fact, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.Body, &facts[i]); err != nil {
			return nil, &damagedError{fmt.Errorf("fact %d of its journal: %w", row.Seq, err)}
		}
	}
	if r.state, err = deploy.Fold(&r.plan, facts); err != nil {
		return nil, &damagedError{err}
	}
	if len(r.plan.Steps) == 0 || r.state.Cancelled && !r.state.Running() {
		return r, nil // nothing of it will be looked up
	}
	if r.process, err = o.cfg.Source.Process(ctx, &r.plan); err != nil {
		return nil, fmt.Errorf("read the process of %s: %w", l.ID, err)
	}
	r.loadOthers()
	if err := r.loadVariables(ctx); err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return r, r.leaveOut(ctx)
	}
	return r, nil
}

// mayStart asks whether the deployment may still begin. Nobody asks once it has.
func (r *run) mayStart(ctx context.Context) error {
	select {
	case <-r.l.Canceled:
		return nil // it is not going to
	default:
	}
	err := r.o.cfg.DB.Read(ctx, func(tx *db.Tx) error { return r.o.cfg.Source.MayStart(ctx, tx, &r.plan) })
	if fault.Is(err, fault.Invalid) {
		return &blockedError{strings.Join(fault.Messages(err), " ")}
	}
	return err
}

// started writes the audit event of a deployment that begins.
func (r *run) started(_ context.Context, tx *db.Tx) error {
	t := r.l.Task
	category, document := "DeploymentStarted", string(r.plan.Owner)
	switch t.Name {
	case octopus.TaskRunbookRun:
		category = "RunbookRunStarted"
	case octopus.TaskAdHocScript:
		category, document = string(octopus.EventTaskStarted), "ServerTask"
	default:
	}
	related := []string{t.ID, r.plan.OwnerID, t.ProjectID, t.EnvironmentID}
	if r.plan.ReleaseID != "" {
		related = append(related, r.plan.ReleaseID)
	}
	tx.Event(db.Event{
		Category: category, SpaceID: string(t.Space), Message: t.Description + " started", Related: related,
		ProjectID: t.ProjectID, EnvironmentID: t.EnvironmentID, TenantID: t.TenantID, DocumentType: document,
	})
	return nil
}
