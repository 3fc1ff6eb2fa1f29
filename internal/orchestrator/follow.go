package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// follow reads the log of a script to its end, from an answer that is there already
// or, without one, from the next. Once the task is canceled it asks for the end of
// the script instead of for news.
func (a *attempt) follow(ctx context.Context, status *agent.Status) error {
	lost, pause := time.Time{}, firstPause // since when the agent has not answered
	for {
		if status != nil {
			if status.State == agent.Complete {
				return a.complete(ctx, *status)
			}
			if err := a.absorb(ctx, *status); err != nil {
				return err
			}
		}
		asked := time.Now()
		next, err := a.news(ctx)
		switch {
		case err == nil:
			if err := failpoint.Hit("logs-fetched"); err != nil {
				return err
			}
			status, lost = &next, time.Time{}
			if len(next.Entries) > 0 || next.State == agent.Complete {
				pause = firstPause
				continue
			}
			if time.Since(asked) > pause {
				continue
			}
			// It answers at once though there is nothing new: a canceled script
			// that has not ended, mostly.
		case ctx.Err() != nil:
			return ctx.Err()
		case a.canceled():
			// Past the bound others end the task, and the janitor keeps cancelling.
			status = nil
		default:
			status = nil
			if lost.IsZero() {
				lost = asked
			}
			a.r.log.Warn("ask for news of a script", "unit", a.unit.Key(), "err", err)
			if time.Since(lost) > a.patience() {
				return a.unknown(ctx, a.where()+" can no longer be reached. The script may still be running.", tasks.Batch{})
			}
		}
		if !a.pause(ctx, pause) {
			return ctx.Err()
		}
		pause = min(2*pause, a.mostPause())
	}
}

// mostPause is the longest pause between two calls.
func (a *attempt) mostPause() time.Duration {
	if a.canceled() {
		return time.Second
	}
	return 5 * time.Second
}

// news asks for the status of the script, or for its end; a cancellation ends the
// wait for the former.
func (a *attempt) news(ctx context.Context) (agent.Status, error) {
	if err := a.alive(ctx); err != nil {
		return agent.Status{}, err
	}
	// What the parser holds back need not come again.
	req := agent.StatusRequest{Ticket: a.ticket, After: a.parser.seq, Wait: time.Second}
	if a.canceled() {
		return a.agent.CancelScript(ctx, req)
	}
	ctx, stop := a.untilCanceled(ctx)
	defer stop()
	req.Wait = statusWait
	return a.agent.GetStatus(ctx, req)
}

// alive waits until this process may call agents. While its heart does not beat
// somebody else may own the task.
func (a *attempt) alive(ctx context.Context) error {
	for !a.r.l.Service().Alive() {
		if !a.pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// absorb commits what an answer brought: log lines, cursor and parser in step.
func (a *attempt) absorb(ctx context.Context, status agent.Status) error {
	b, facts, err := a.read(status)
	if err != nil {
		return err
	}
	if !a.acked {
		facts = append([]deploy.Fact{a.fact(deploy.FactAck)}, facts...)
	}
	if len(b.Cursors) == 0 && len(facts) == 0 {
		return nil
	}
	if !a.acked && a.agent.Contract != deploy.ContractTako {
		b.Tickets = append(b.Tickets, tasks.Ticket{ID: string(a.ticket), Unit: a.id, Agent: a.agent.Name, State: tasks.TicketOpen, Answered: true})
	}
	if err := a.commit(ctx, b, facts...); err != nil {
		return err
	}
	if !a.acked {
		a.acked = true
		return failpoint.Hit("ack-committed")
	}
	return nil
}

// commit writes facts with whatever belongs to them; outputs are visible before
// anything that follows from the facts can start.
func (a *attempt) commit(ctx context.Context, b tasks.Batch, facts ...deploy.Fact) error {
	for _, f := range facts {
		b.Facts = append(b.Facts, f)
	}
	if err := a.r.l.Commit(ctx, b); err != nil {
		return err
	}
	if err := a.r.publish(ctx, facts); err != nil {
		return err
	}
	a.r.apply(facts...)
	return nil
}

// read turns an answer into what is to be committed.
func (a *attempt) read(status agent.Status) (tasks.Batch, []deploy.Fact, error) {
	facts, err := a.parser.feed(status.Entries)
	if err != nil {
		return tasks.Batch{}, nil, err
	}
	b, err := a.taken()
	return b, facts, err
}

// taken is what the parser has ready, if that is more than before.
func (a *attempt) taken() (tasks.Batch, error) {
	var b tasks.Batch
	lines, cursor, state, err := a.parser.take()
	if err != nil || cursor == a.cursor && len(lines) == 0 {
		return b, err
	}
	a.cursor = cursor
	b.Lines, b.Warnings = lines, a.parser.Warned
	b.Cursors = []tasks.Cursor{{Unit: a.id, Seq: a.cursor, Parser: state}}
	return b, nil
}

// complete ends the attempt of a script that is over: the last of its log, its
// artifacts and its result are committed together.
func (a *attempt) complete(ctx context.Context, status agent.Status) error {
	facts, err := a.parser.feed(status.Entries)
	if err != nil {
		return err
	}
	facts = append(facts, a.parser.end()...)
	b, err := a.taken()
	if err != nil {
		return err
	}
	if !a.acked {
		facts = append([]deploy.Fact{a.fact(deploy.FactAck)}, facts...)
		a.acked = true
	}
	if err := a.collect(ctx, &b); err != nil {
		return err
	}
	return a.judge(ctx, status, b, facts...)
}

// judge says what an exit code means.
func (a *attempt) judge(ctx context.Context, status agent.Status, b tasks.Batch, facts ...deploy.Fact) error {
	result := deploy.Result{ExitCode: status.ExitCode, Warnings: a.parser.Warned}
	switch status.ExitCode {
	case 0:
		result.Outcome = deploy.Succeeded
		if a.parser.Stderr && isTrue(a.vars.Evaluate(a.action.Properties.Get(octopus.PropFailOnErrorOutput)).Text) {
			result.Outcome, result.Message = deploy.Failed, "The script wrote to its error output, and the step is set to fail then."
		}
	case agent.ExitCanceled:
		if a.canceled() {
			result.Outcome, result.Message = deploy.Canceled, "The script was canceled."
			if len(status.Survivors) > 0 {
				result.Message += " Some of its processes could not be ended: " + strings.Join(status.Survivors, ", ") + "."
			}
		} else {
			result.Outcome, result.Message = deploy.Failed, "The script was canceled by its agent."
		}
	case agent.ExitLost, agent.ExitUnknownTicket:
		return a.unknown(ctx, "The result of the script was lost: its runner or its machine was stopped while it ran.", b, facts...)
	case agent.ExitTimeout:
		result.Outcome, result.Message = deploy.Failed, "The script ran longer than its time limit and was ended."
	case agent.ExitMutexTimeout:
		result.Outcome, result.Message = deploy.Failed, "The script waited too long for another one on the same machine and was not started."
	case agent.ExitNoShell:
		result.Outcome, result.Message = deploy.Failed, "The script was not started: its interpreter could not be run, or was ended before it began."
	case agent.ExitPrepare, agent.ExitFatal:
		result.Outcome, result.Message = deploy.Failed, "The script was not started because its files could not be prepared."
	default:
		result.Outcome = deploy.Failed
		result.Message = fmt.Sprintf("The script exited with code %d.", status.ExitCode)
		if a.parser.Message != "" {
			result.Message = a.r.vars.mask(a.parser.Message)
		}
	}
	return a.conclude(ctx, result, b, facts...)
}

// unknown raises the question that only a person can answer.
func (a *attempt) unknown(ctx context.Context, message string, b tasks.Batch, facts ...deploy.Fact) error {
	return a.conclude(ctx, deploy.Result{Outcome: deploy.Unknown, Message: message}, b, facts...)
}

// conclude commits a result after the facts that led to it, and what follows from
// it: another attempt, or a question. Neither a retry nor guided failure ever
// answers for an unknown fate.
func (a *attempt) conclude(ctx context.Context, result deploy.Result, b tasks.Batch, facts ...deploy.Fact) error {
	f := a.fact(deploy.FactResult)
	result.Message = a.r.vars.mask(result.Message)
	f.Result = &result
	switch result.Outcome {
	case deploy.Failed:
		b.Lines = append(b.Lines, a.line(octopus.LogError, "%s", result.Message))
		b.Warnings = true
		if at, ok := a.retry(); ok {
			result.RetryAt = &at
			b.Lines = append(b.Lines, a.line(octopus.LogWarning, "Trying again (attempt %d).", a.n+1))
		} else if a.r.plan.GuidedFailure && !a.canceled() {
			if err := a.ask(ctx, &f, &b, deploy.AskGuided, result.Message); err != nil {
				return err
			}
		}
	case deploy.Unknown:
		b.Warnings = true
		if a.canceled() {
			b.Lines = append(b.Lines, a.line(octopus.LogError, "%s", result.Message))
			break // the deployment ends anyway
		}
		b.Lines = append(b.Lines, a.line(octopus.LogError, "%s Whether it ran, and how it ended, cannot be known; a person has to decide.", result.Message))
		if err := a.ask(ctx, &f, &b, deploy.AskUnknown, result.Message); err != nil {
			return err
		}
	case deploy.Canceled:
		b.Lines = append(b.Lines, a.line(octopus.LogWarning, "%s", result.Message))
	case deploy.Succeeded, deploy.Skipped:
	}
	if a.ticket != "" {
		t := tasks.Ticket{ID: string(a.ticket), Unit: a.id, Agent: a.agent.Name, State: tasks.TicketComplete, Answered: a.acked}
		switch {
		case result.Outcome == deploy.Unknown && a.canceled():
			t.State = tasks.TicketCancel // the janitor goes on until it has ended
			if a.agent.Contract != deploy.ContractTako && !a.acked {
				t.NotBefore = time.Now().Add(a.r.o.settles).UnixMicro()
			}
		case result.Outcome == deploy.Unknown:
			t.State = tasks.TicketOpen // until it is known what becomes of it
		case a.agent.Contract != deploy.ContractTako && (a.sent != 1 || a.lost > 0 || a.resumed): // by whom it was sent, too, that wrote its intent
			t.NotBefore = time.Now().Add(lateStart).UnixMicro()
		}
		b.Tickets = append(b.Tickets, t)
	}
	if a.unit.Lane != "" && result.Outcome != deploy.Unknown {
		b.Unlock = append(b.Unlock, a.id) // else the script may still run there
	}
	if err := a.commit(ctx, b, append(facts, f)...); err != nil {
		return err
	}
	return failpoint.Hit("result-committed")
}

// retry reports whether the action is to be tried again by itself, and when.
func (a *attempt) retry() (time.Time, bool) {
	if a.canceled() || a.planned.Place == deploy.OnServer {
		return time.Time{}, false
	}
	number := func(key string) int {
		n, err := strconv.Atoi(strings.TrimSpace(a.vars.Evaluate(a.action.Properties.Get(key)).Text))
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	if a.n > min(number(octopus.PropRetryCount), 3) {
		return time.Time{}, false
	}
	return now().Add(time.Duration(min(number(octopus.PropRetryBackoff), 3600)) * time.Second), true
}

// ask raises an interruption together with the result that it is about.
func (a *attempt) ask(ctx context.Context, f *deploy.Fact, b *tasks.Batch, kind deploy.AskKind, message string) error {
	id, err := a.r.l.NextInterruption(ctx)
	if err != nil {
		return err
	}
	f.Ask = &deploy.Ask{ID: id, Kind: kind}
	return a.raise(b, octopus.InterruptionGuidedFailure, id, Question{
		Kind: kind, Message: message, Required: a.planned.Required, OnTarget: a.unit.Lane != "",
	})
}

// raise has a batch raise the interruption of a question. Those about targets of one
// step have one correlation, which links them.
func (a *attempt) raise(b *tasks.Batch, kind octopus.InterruptionType, id string, q Question) error {
	q.Unit, q.Attempt, q.Message = a.unit, a.n, a.r.vars.mask(q.Message)
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	title, correlation := a.planned.Name, deploy.UnitActivity(a.r.l.ID, a.unit)
	if a.unit.Lane != "" {
		title += " on " + a.r.machineName(a.unit.Lane)
		correlation = deploy.StepActivity(a.r.l.ID, a.unit.Step)
	}
	b.Interruptions = append(b.Interruptions, tasks.Interruption{ID: id, Kind: kind, Title: title, Unit: a.id, Correlation: correlation, Body: body})
	return nil
}

// Question is the body of an interruption: what is asked about which unit.
type Question struct {
	Kind     deploy.AskKind
	Unit     deploy.Unit
	Attempt  int
	Message  string
	Required bool
	OnTarget bool
	// Teams are ids of the teams that may answer a manual intervention; none means
	// whoever may deploy.
	Teams []string `json:",omitempty"`
}

// Choices lists the answers that the question takes.
func (q Question) Choices() []deploy.Choice {
	switch q.Kind {
	case deploy.AskUnknown:
		return []deploy.Choice{deploy.MarkSucceeded, deploy.MarkFailed, deploy.RunAgain}
	case deploy.AskManual:
		return []deploy.Choice{deploy.Proceed, deploy.Abort}
	case deploy.AskGuided:
	case deploy.AskChild:
		return nil // nobody is asked
	}
	choices := []deploy.Choice{deploy.Fail, deploy.Retry}
	if !q.Required {
		choices = append(choices, deploy.Ignore)
		if q.OnTarget {
			choices = append(choices, deploy.Exclude)
		}
	}
	return choices
}

// Field is the name of the form's field that has the choice.
func (q Question) Field() string {
	if q.Kind == deploy.AskManual {
		return octopus.FieldResult
	}
	return octopus.FieldGuidance
}

// Answer records a person's answer to an interruption.
func Answer(ctx context.Context, s *tasks.Service, tx *db.Tx, answer deploy.Answer) error {
	id := answer.ID
	i, err := tasks.GetInterruption(ctx, tx, id)
	if err != nil {
		return err
	}
	var q Question
	if err := json.Unmarshal(i.Body, &q); err != nil {
		return fmt.Errorf("read interruption %s: %w", id, err)
	}
	allowed := make([]string, 0, 4)
	for _, c := range q.Choices() {
		if c == answer.Choice {
			return s.Answer(ctx, tx, id, deploy.Fact{Kind: deploy.FactAnswer, At: tx.Now(), Unit: &q.Unit, Attempt: q.Attempt, Answer: &answer})
		}
		allowed = append(allowed, string(c))
	}
	return fault.InvalidField(q.Field(), "The answer '%.40s' does not fit; choose one of %s.", answer.Choice, strings.Join(allowed, ", "))
}

// collect stores the artifacts that the script announced. One that the agent does
// not hand out is a warning; a store of our own that fails is tried again by
// whoever runs the deployment then.
func (a *attempt) collect(ctx context.Context, b *tasks.Batch) error {
	for _, want := range a.parser.Artifacts {
		got, refused, err := a.download(ctx, want)
		switch {
		case err != nil:
			return fmt.Errorf("store the artifact %s: %w", a.r.vars.mask(want.Name), err)
		case refused != nil:
			b.Warnings = true
			b.Lines = append(b.Lines, a.line(octopus.LogWarning, "The artifact %s could not be collected: %s", want.Name, publicText(refused, "it could not be read from the worker.")))
		default:
			b.Artifacts = append(b.Artifacts, got)
		}
	}
	return nil
}

// maxArtifact bounds one artifact, in bytes.
const maxArtifact = 8 << 30

// download fetches an artifact. refused is why the agent does not hand it out; it is
// asked again while it is only away.
func (a *attempt) download(ctx context.Context, want artifact) (got tasks.Artifact, refused, err error) {
	since := time.Now()
	var stored blob.Info
	for pause := firstPause; ; pause = min(2*pause, 5*time.Second) {
		if stored, refused, err = a.fetch(ctx, want.Path); err != nil {
			return got, nil, err
		}
		if refused == nil {
			break
		}
		if !away(refused) || a.canceled() || time.Since(since) > a.patience() {
			return got, refused, nil
		}
		if !a.pause(ctx, pause) {
			return got, nil, ctx.Err()
		}
	}
	if err := failpoint.Hit("artifact-stored"); err != nil {
		return got, nil, err
	}
	source := ""
	if a.unit.Lane != "" {
		source = a.r.machineName(a.unit.Lane)
	}
	return tasks.Artifact{
		Filename: a.r.vars.mask(want.Name), Source: source, Correlation: deploy.UnitActivity(a.r.l.ID, a.unit),
		Size: stored.Size, SHA256: string(stored.Hash), Stored: stored.Used,
	}, nil, nil
}

// fetch copies a file of the agent into the store, and tells whose failure it was.
func (a *attempt) fetch(ctx context.Context, path string) (stored blob.Info, refused, err error) {
	content, err := a.agent.DownloadFile(ctx, path)
	if err != nil {
		return stored, err, nil
	}
	defer content.Close()
	in := &watchedReader{r: content}
	stored, err = a.r.o.cfg.Blobs.Put(ctx, in, maxArtifact)
	switch {
	case in.err != nil:
		return stored, fmt.Errorf("%w: %w", agent.ErrUnanswered, in.err), nil // it broke off
	case fault.Is(err, fault.TooLarge):
		return stored, err, nil
	}
	return stored, nil, err
}

// watchedReader remembers the error that ended it.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
