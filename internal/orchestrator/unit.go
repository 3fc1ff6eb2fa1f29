package orchestrator

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/install"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Times of a unit.
const (
	// reachFor is how long an agent that does not answer is called again.
	reachFor = 5 * time.Minute
	// statusWait is how long an agent may hold back an answer without news.
	statusWait = 20 * time.Second
	// lateStart is how long a real Tentacle may still act on a StartScript that
	// was sent more than once, after which its ticket may be forgotten.
	lateStart = 15 * time.Minute
	// firstPause is the pause after the first call that was in vain; it doubles.
	firstPause = 50 * time.Millisecond
)

// attempt is one try of a unit.
type attempt struct {
	r       *run
	unit    deploy.Unit
	n       int
	id      string // of its cursor
	step    octopus.Step
	action  octopus.Action
	planned *deploy.Action
	vars    *octostache.Variables
	agent   targets.Agent
	ticket  agent.Ticket
	acked   bool
	resumed bool // another run wrote the intent, and may have sent it
	target  bool // it runs on the lane's machine, whose lock it takes
	sent    int  // StartScripts of this run
	lost    int  // of them, those without an answer
	parser  *parser
	cursor  int64
	notes   []tasks.Line // what the preparation has to say
}

func (r *run) attempt(unit deploy.Unit, n int) *attempt {
	a := &attempt{r: r, unit: unit, n: n, id: unit.Key() + "#" + strconv.Itoa(n), planned: &r.plan.Steps[unit.Step].Actions[unit.Action]}
	a.step, a.action, _ = r.action(unit)
	a.vars = r.resolved(unit.Step, &unit)
	a.parser = newParser(a)
	return a
}

// fact begins a fact about this attempt.
func (a *attempt) fact(kind deploy.FactKind) deploy.Fact {
	return deploy.Fact{Kind: kind, At: now(), Unit: &a.unit, Attempt: a.n}
}

func (a *attempt) line(category octopus.LogCategory, format string, args ...any) tasks.Line {
	return line(deploy.UnitActivity(a.r.l.ID, a.unit), category, a.r.vars.mask(fmt.Sprintf(format, args...)))
}

// start makes the first move of an attempt: everything is prepared, then the
// intent is committed, and only then something is sent.
func (r *run) start(ctx context.Context, unit deploy.Unit, n int) error {
	a := r.attempt(unit, n)
	if err := a.mask(); err != nil {
		return a.refuse(ctx, err)
	}
	if err := steps.Supported(a.planned.Type); err != nil && a.planned.Type != deploy.AcquirePackages {
		return a.refuse(ctx, err) // wherever it would run
	}
	place, pool, err := a.place()
	if err != nil {
		return a.refuse(ctx, err)
	}
	if place == deploy.OnServer {
		return a.serve(ctx)
	}
	if m := r.machine(unit.Lane); m != nil && m.Offline {
		if err := a.stillEnabled(ctx); err != nil {
			return a.notPrepared(ctx, err)
		}
		return a.pack(ctx, place)
	}
	a.target = place == deploy.OnTarget
	// Until the intent is there, a cancellation leaves whatever is under way.
	before, stop := a.untilCanceled(ctx)
	defer stop()
	if a.agent, err = a.reach(before, a.finder(place, pool)); err != nil {
		return a.notPrepared(ctx, a.calling(err))
	}
	if err := a.endEarlier(ctx); err != nil {
		return err
	}
	if a.target {
		if held, err := a.lock(ctx); err != nil || !held {
			return err
		}
	}
	if a.canceled() {
		return nil // nothing has begun, and nothing will
	}
	if err := a.stillEnabled(ctx); err != nil {
		return a.notPrepared(ctx, err)
	}
	a.ticket = agent.Ticket(strings.ToLower(r.l.ID + "-" + rand.Text()))
	req, err := a.request(before)
	if err != nil {
		return a.notPrepared(ctx, err)
	}
	hash, err := payload(req)
	if err != nil {
		return err
	}
	if !r.wanted(unit, n) {
		return a.withdraw(ctx)
	}
	intent := a.fact(deploy.FactIntent)
	intent.Intent = &deploy.Intent{Ticket: string(a.ticket), Agent: a.agent.Name, Contract: a.agent.Contract, PayloadSHA256: hash}
	if a.target {
		intent.Intent.Mutex = unit.Lane
	}
	b := tasks.Batch{Tickets: []tasks.Ticket{{ID: string(a.ticket), Unit: a.id, Agent: a.agent.Name, State: tasks.TicketOpen, Place: a.machineLabel(), Contract: string(a.agent.Contract)}}, Lines: a.notes}
	if err := r.commit(ctx, b, intent); err != nil {
		return err
	}
	if err := failpoint.Hit("intent-committed"); err != nil {
		return err
	}
	return a.send(ctx, req)
}

// place is where the attempt runs, and of what pool a worker must be, "" for the default
// one. What is to run on a target that nothing can run on is run by a worker.
func (a *attempt) place() (place deploy.Place, pool string, err error) {
	place, pool = a.planned.Place, a.planned.WorkerPoolID
	if m := a.r.machine(a.unit.Lane); m != nil && m.OnWorker && place != deploy.OnServer {
		place = deploy.OnWorker
		if a.planned.WorkerPoolVariable == "" {
			pool = cmp.Or(pool, m.WorkerPoolID)
		}
	}
	name := a.planned.WorkerPoolVariable
	if place != deploy.OnWorker || name == "" || pool != "" {
		return place, pool, nil
	}
	if text, ok := a.vars.Get(name); ok {
		pool = strings.TrimSpace(text)
	}
	if pool == "" {
		return place, "", &steps.Error{Message: fmt.Sprintf("The variable %s, which names the step's worker pool, has no value here.", name)}
	}
	return place, pool, nil
}

// reach finds an agent, for as long as it may take one to start. What is refused is
// not asked for again.
func (a *attempt) reach(ctx context.Context, find func(context.Context) (targets.Agent, error)) (targets.Agent, error) {
	since := time.Now()
	for pause := firstPause; ; pause = min(2*pause, 5*time.Second) {
		found, err := find(ctx)
		refused := len(fault.Faults(err)) > 0 && fault.KindOf(err) != fault.Unavailable
		if err == nil || refused || a.canceled() && !a.resumed {
			return found, err
		}
		patience := reachFor
		var away *targets.AwayError
		if errors.As(err, &away) {
			patience = away.Patience
		}
		if time.Since(since) > patience {
			return found, err
		}
		a.r.log.Warn("reach an agent", "unit", a.unit.Key(), "err", err)
		if !a.pause(ctx, pause) {
			return found, ctx.Err()
		}
	}
}

// mayArrive reports whether the start of a unit's latest attempt, which no agent has
// answered, may still arrive at one of another make: such an agent must not be asked about
// the script meanwhile, nor told to end it (tasks.StartSettles), and must not be told to
// forget it, since it would run what arrives after that.
func mayArrive(u *deploy.UnitState) bool {
	return u.Intent.Contract != deploy.ContractTako && !u.Acked
}

// endEarlier makes sure that a script whose fate was unknown does not run, and
// never will, before the unit is run again.
func (a *attempt) endEarlier(ctx context.Context) error {
	a.r.mu.Lock()
	u := a.r.state.Unit(a.unit)
	a.r.mu.Unlock()
	if u.Result == nil || u.Result.Outcome != deploy.Unknown || u.Intent.Ticket == "" {
		return nil
	}
	late := mayArrive(&u)
	if late {
		if err := a.letArrive(ctx, u.Ended); err != nil {
			return err
		}
	}
	byName := func(ctx context.Context) (targets.Agent, error) { return a.r.o.cfg.Agents.ByName(ctx, u.Intent.Agent) }
	for pause := firstPause; !a.canceled(); pause = min(2*pause, 5*time.Second) {
		old, err := a.reach(ctx, byName)
		if err == nil {
			var status agent.Status
			status, err = old.CancelScript(ctx, agent.StatusRequest{Ticket: agent.Ticket(u.Intent.Ticket), Wait: time.Second})
			if err == nil && status.State == agent.Complete {
				earlier := a.unit.Key() + "#" + strconv.Itoa(u.Attempt)
				t := tasks.Ticket{ID: u.Intent.Ticket, Unit: earlier, Agent: u.Intent.Agent, State: tasks.TicketComplete}
				if late {
					t.NotBefore = time.Now().Add(lateStart).UnixMicro()
				}
				return a.r.l.Commit(ctx, tasks.Batch{Tickets: []tasks.Ticket{t}, Unlock: []string{earlier}})
			}
		}
		if err != nil && ctx.Err() == nil {
			a.r.log.Warn("end an earlier script", "unit", a.unit.Key(), "err", err)
		}
		if !a.pause(ctx, pause) {
			return ctx.Err()
		}
	}
	return nil
}

// letArrive waits until a start that nobody waited for any more at a time has arrived or
// never will, or until the task is canceled.
func (a *attempt) letArrive(ctx context.Context, since time.Time) error {
	// Not longer than that, whatever has become of the clock.
	wait := min(time.Until(since.Add(a.r.o.settles)), a.r.o.settles)
	if wait <= 0 {
		return nil
	}
	text := a.line(octopus.LogWait, "Waiting for %s before the script is run again: its earlier start was not answered, and may still be arriving at the agent.", max(wait.Round(time.Second), time.Second))
	if err := a.r.l.Commit(ctx, tasks.Batch{Lines: []tasks.Line{text}}); err != nil {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.r.l.Canceled:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// resume goes on with an attempt whose intent is in the journal.
func (r *run) resume(ctx context.Context, unit deploy.Unit) error {
	r.mu.Lock()
	u := r.state.Unit(unit)
	r.mu.Unlock()
	a := r.attempt(unit, u.Attempt)
	if err := a.mask(); err != nil {
		return err
	}
	in := u.Intent
	a.ticket, a.acked, a.resumed, a.target = agent.Ticket(in.Ticket), u.Acked, true, in.Mutex != ""
	a.agent = targets.Agent{Name: in.Agent, Contract: in.Contract}
	if in.Contract == deploy.ContractNone {
		return a.serveAgain(ctx)
	}
	found, err := a.reach(ctx, func(ctx context.Context) (targets.Agent, error) { return r.o.cfg.Agents.ByName(ctx, in.Agent) })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		message := publicText(err, "What runs the script cannot be reached.")
		if away(err) {
			message = a.unreached(err)
		}
		return a.unknown(ctx, message, tasks.Batch{})
	}
	if found.Contract != in.Contract {
		a.agent.Label = found.Label
		// Who answers there now has never heard of the ticket, and would start it again.
		return a.unknown(ctx, a.where()+" has another agent than the one that the script was sent to.", tasks.Batch{})
	}
	a.agent = found
	if err := a.parser.load(ctx); err != nil {
		return err
	}
	switch {
	case u.Acked:
		return a.follow(ctx, nil)
	case in.Contract == deploy.ContractV1:
		return a.unknown(ctx, "The connection was lost while the script was being started.", tasks.Batch{})
	}
	req, err := a.request(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		// What the script was made of is gone; it may run all the same.
		return a.refused(ctx, err)
	}
	return a.send(ctx, req)
}

// refused ends an attempt that the agent does not take, or that cannot be sent
// again: as failed if it is certain that nothing of it has ever started.
func (a *attempt) refused(ctx context.Context, err error) error {
	message := publicText(err, a.where()+" refused the script.")
	if a.lost == 0 && !a.resumed {
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Failed, Message: message}, tasks.Batch{})
	}
	if a.agent.Contract != deploy.ContractTako {
		return a.unknown(ctx, message, tasks.Batch{})
	}
	// One that is unknown there gets a tombstone, so that nothing late starts it.
	status, statusErr := a.agent.GetStatus(ctx, agent.StatusRequest{Ticket: a.ticket, After: a.parser.seq})
	if statusErr == nil && status.State == agent.Complete && status.ExitCode == agent.ExitUnknownTicket {
		status, statusErr = a.agent.CancelScript(ctx, agent.StatusRequest{Ticket: a.ticket, After: a.parser.seq})
		if statusErr == nil && status.State == agent.Complete && status.ExitCode == agent.ExitCanceled {
			return a.conclude(ctx, deploy.Result{Outcome: deploy.Failed, Message: message}, tasks.Batch{})
		}
	}
	switch {
	case statusErr == nil:
		return a.follow(ctx, &status)
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return a.unknown(ctx, message, tasks.Batch{})
	}
}

// mask adds the secrets that this unit can see, as they are evaluated, to what is
// masked in the log.
func (a *attempt) mask() error { return a.r.vars.maskFor(a) }

// refuse ends an attempt that nothing was started for.
func (a *attempt) refuse(ctx context.Context, err error) error {
	if a.canceled() && ctx.Err() == nil {
		return nil // nothing has begun, and nothing will
	}
	if m := a.r.machine(a.unit.Lane); m != nil && m.Offline && fault.Is(err, fault.Unavailable) {
		return err // no agent is away, but something of our own, and that passes
	}
	var public *steps.Error
	message := ""
	switch {
	case errors.As(err, &public):
		message = public.Message
	case len(fault.Messages(err)) > 0:
		message = strings.Join(fault.Messages(err), " ")
	case ctx.Err() != nil:
		return ctx.Err()
	case away(err):
		message = a.unreached(err)
	default:
		a.r.log.Error("prepare unit", "unit", a.unit.Key(), "err", err)
		message = "The step could not be prepared because of a failure of the server; its log has the details."
	}
	return a.conclude(ctx, deploy.Result{Outcome: deploy.Failed, Message: message}, tasks.Batch{}, a.unsent())
}

// unsent is the intent of an attempt that nothing is sent for.
func (a *attempt) unsent() deploy.Fact {
	a.ticket = "" // nobody has heard of it
	intent := a.fact(deploy.FactIntent)
	intent.Intent = &deploy.Intent{Contract: deploy.ContractNone}
	return intent
}

// request builds what the agent is asked to run.
func (a *attempt) request(ctx context.Context) (agent.StartRequest, error) {
	workspace := a.agent.Workspace(a.ticket)
	packages, extra, err := a.acquire(ctx, workspace, a.upload)
	if err != nil {
		return agent.StartRequest{}, err
	}
	return a.compose(workspace, packages, extra)
}

// compose builds it of packages that are at hand, and of the variables about them.
func (a *attempt) compose(workspace string, packages []steps.Package, extra []octostache.Pair) (req agent.StartRequest, err error) {
	a.vars = a.vars.With(extra...)
	plan := &a.r.plan
	work, err := steps.Prepare(steps.Input{
		Step: a.step, Action: a.action, Vars: a.vars, Packages: packages, Workspace: workspace,
		Place: steps.Place{
			SpaceID: plan.SpaceID, ProjectID: plan.ProjectID, EnvironmentID: plan.EnvironmentID, TenantID: plan.TenantID, MachineID: a.unit.Lane,
			Keep: plan.Keep, Redeploy: plan.Redeploy,
		},
	})
	if err != nil {
		return req, err
	}
	s := work.Script
	req = agent.StartRequest{
		Ticket: a.ticket, Body: s.Body, Files: s.Files, Arguments: s.Arguments, Prepare: s.Prepare,
		Timeout: s.Timeout, Isolation: agent.NoIsolation, Wait: 2 * time.Second,
	}
	a.isolate(&req)
	return req, nil
}

// acquire finds the action's packages and has each brought to where it is used.
func (a *attempt) acquire(ctx context.Context, workspace string, bring func(context.Context, Package, reference) error) ([]steps.Package, []octostache.Pair, error) {
	var acquired []steps.Package
	var extra []octostache.Pair
	for _, p := range a.planned.Acquired() {
		id, feed, version := a.vars.Evaluate(p.PackageID).Text, a.vars.Evaluate(p.FeedID).Text, a.vars.Evaluate(p.Version).Text
		found, err := a.r.o.cfg.Source.Package(ctx, &a.r.plan, feed, id, version)
		if err != nil {
			return nil, nil, err
		}
		if err := bring(ctx, found, reference{feed, id, version}); err != nil {
			return nil, nil, fmt.Errorf("bring package %s %s to the worker: %w", id, version, err)
		}
		one := steps.Package{Name: p.Name, PackageID: id, Version: version, FileName: found.FileName, SHA256: found.SHA256, Extract: p.Extract}
		if one.Name == "" && steps.InstallsPackage(a.planned.Type) {
			one.Extract, one.Into = false, install.PackageDir
		}
		acquired = append(acquired, one)
		extra = append(extra, packagePaths(one, workspace)...)
	}
	return acquired, extra, nil
}

// packagePaths are the variables that tell a script where a package is.
func packagePaths(p steps.Package, workspace string) []octostache.Pair {
	dir := workspace
	if p.Dir() != "" {
		dir += "/" + p.Dir()
	}
	key := "Octopus.Action.Package[" + p.Name + "]."
	pairs := []octostache.Pair{
		{Name: key + "PackageFileName", Value: p.FileName},
		{Name: key + "PackageVersion", Value: p.Version},
	}
	if p.Extract {
		return append(pairs, octostache.Pair{Name: key + "ExtractedPath", Value: dir})
	}
	return append(pairs, octostache.Pair{Name: key + "PackageFilePath", Value: dir + "/" + p.FileName})
}

// reference names a package as a release selected it.
type reference struct{ feed, id, version string }

func (a *attempt) upload(ctx context.Context, p Package, ref reference) error {
	since := time.Now()
	for pause := firstPause; ; pause = min(2*pause, 5*time.Second) {
		err := a.bring(ctx, p, ref)
		if err == nil || !away(err) || a.canceled() && !a.resumed || time.Since(since) > a.patience() {
			return err
		}
		if !a.pause(ctx, pause) {
			return ctx.Err()
		}
	}
}

// away reports whether a call of an agent failed since it is not there for now.
func away(err error) bool {
	return errors.Is(err, agent.ErrNotSent) || errors.Is(err, agent.ErrUnanswered) || fault.KindOf(err) == fault.Unavailable
}

func (a *attempt) bring(ctx context.Context, p Package, ref reference) error {
	has, err := a.agent.HasPackage(ctx, p.SHA256)
	if err != nil || has {
		return a.calling(err)
	}
	if sent, err := a.bringDelta(ctx, p, ref); err != nil || sent {
		return a.calling(err)
	}
	content, _, err := a.r.o.cfg.Blobs.Open(ctx, blob.Hash(p.SHA256))
	if err != nil {
		return err
	}
	defer content.Close()
	return a.calling(a.agent.PutPackage(ctx, p.SHA256, p.Size, content))
}

// payload is the hash of what a ticket stands for.
func payload(req agent.StartRequest) (string, error) {
	req.Wait = 0
	body, err := json.Marshal(req)
	if err != nil {
		return "", fmt.Errorf("encode request: %w", err)
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}

// send starts the script. Until it is answered the same request is sent again
// with the same ticket, which an agent runs once.
func (a *attempt) send(ctx context.Context, req agent.StartRequest) error {
	since := time.Now()
	for pause := firstPause; ; pause = min(2*pause, 5*time.Second) {
		if err := a.alive(ctx); err != nil {
			return err
		}
		if a.canceled() && a.agent.Contract == deploy.ContractTako {
			return a.follow(ctx, nil) // which also keeps a start that is under way from running
		}
		a.sent++
		status, err := a.startScript(ctx, req)
		if err := failpoint.Hit("start-sent"); err != nil {
			return err
		}
		switch {
		case err == nil:
			if err := failpoint.Hit("start-replied"); err != nil {
				return err
			}
			return a.follow(ctx, &status)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, agent.ErrUnanswered):
			a.lost++
		case errors.Is(err, agent.ErrNotSent), fault.KindOf(err) == fault.Unavailable:
			// It is being started, or its disk is full.
		default:
			return a.refused(ctx, err)
		}
		a.r.log.Warn("start a script", "unit", a.unit.Key(), "err", err)
		sure := a.lost == 0 && !a.resumed // that it has never started
		if sure && a.canceled() {
			return a.conclude(ctx, deploy.Result{Outcome: deploy.Canceled, Message: "The script was canceled before it was started."}, tasks.Batch{})
		}
		if time.Since(since) > a.patience() {
			if !sure {
				return a.unknown(ctx, a.where()+" could not be reached, and it is not known whether it started the script.", tasks.Batch{})
			}
			return a.unavailable(ctx, publicText(err, a.unreached(err)))
		}
		if !a.pause(ctx, pause) {
			return ctx.Err()
		}
	}
}

func publicText(err error, otherwise string) string {
	if m := fault.Messages(err); len(m) > 0 {
		return strings.Join(m, " ")
	}
	return otherwise
}

func (a *attempt) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (a *attempt) canceled() bool {
	select {
	case <-a.r.l.Canceled:
		return true
	default:
		return false
	}
}
