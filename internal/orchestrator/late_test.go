//go:build linux

package orchestrator_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/halibut/tentacle"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/network/tentacletest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// late is an agent of another make, and the way to it: starts of the first script that is
// sent there are not answered, and arrive late.
type late struct {
	agent.API // is nil: nothing else is called
	model     *tentacletest.Agent
	// inCall says that the agent has the start, and is dealing with it. If it is asked about
	// the script then, it takes it for lost for good, though it runs.
	inCall bool
	// after is when the start arrives by itself, counted from when it was sent; 0 is never.
	after time.Duration

	mu      sync.Mutex
	first   agent.Ticket
	request agent.StartRequest
	sent    time.Time
	arrived bool
	lost    bool
	asked   []time.Time // about the first script, or to end it
}

// start hands a request to the agent.
func (l *late) start(req agent.StartRequest) (agent.Status, error) {
	for _, f := range req.Files {
		name := filepath.Join(l.model.Home, "Work", string(req.Ticket), filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return agent.Status{}, err
		}
		if err := os.WriteFile(name, f.Content, 0o600); err != nil {
			return agent.Status{}, err
		}
	}
	return answered(l.model.StartScript(context.Background(), tentacle.StartScriptV2{
		ScriptTicket: tentacle.Ticket{TaskID: string(req.Ticket)}, TaskID: string(req.Ticket), Scripts: map[tentacle.ScriptType]string{tentacle.Bash: req.Body},
		Arguments: req.Arguments, Isolation: tentacle.Isolation(req.Isolation), MutexName: req.MutexName,
	}))
}

func answered(st tentacle.StatusV2, err error) (agent.Status, error) {
	out := agent.Status{Ticket: agent.Ticket(st.Ticket.TaskID), State: agent.State(st.State), ExitCode: int(st.ExitCode), Next: st.NextLogSequence}
	for i, o := range st.Logs {
		seq := st.NextLogSequence - int64(len(st.Logs)) + int64(i) + 1
		out.Entries = append(out.Entries, agent.Entry{Seq: seq, Source: agent.Source(o.Source), Time: o.Occurred, Text: o.Text})
	}
	return out, err
}

func (l *late) StartScript(_ context.Context, req agent.StartRequest) (agent.Status, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == "" {
		l.first, l.request, l.sent = req.Ticket, req, time.Now()
	}
	if req.Ticket == l.first && !l.arrived {
		return agent.Status{}, agent.ErrUnanswered
	}
	return l.start(req)
}

// arrive has the start arrive that was not answered.
func (l *late) arrive(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.arrives(); err != nil {
		t.Fatal(err)
	}
}

func (l *late) arrives() error {
	if l.arrived {
		return nil
	}
	l.arrived = true
	_, err := l.start(l.request)
	return err
}

// ask notes a question about a script; lost tells that the agent has lost it.
func (l *late) ask(t agent.Ticket) (lost bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t != l.first {
		return false, nil
	}
	l.asked = append(l.asked, time.Now())
	if l.after > 0 && time.Since(l.sent) >= l.after {
		err = l.arrives()
	}
	l.lost = l.lost || l.inCall && !l.arrived
	return l.lost, err
}

// ticket is that of the first script.
func (l *late) ticket() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.first)
}

func (l *late) questions() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

func (l *late) GetStatus(ctx context.Context, req agent.StatusRequest) (agent.Status, error) {
	if lost, err := l.ask(req.Ticket); lost || err != nil {
		return agent.Status{Ticket: req.Ticket, State: agent.Complete, ExitCode: agent.ExitLost, Next: req.After}, err
	}
	return answered(l.model.GetStatus(ctx, tentacle.StatusRequestV2{Ticket: tentacle.Ticket{TaskID: string(req.Ticket)}, LastLogSequence: req.After}))
}

func (l *late) CancelScript(ctx context.Context, req agent.StatusRequest) (agent.Status, error) {
	if lost, err := l.ask(req.Ticket); lost || err != nil {
		return agent.Status{Ticket: req.Ticket, State: agent.Complete, ExitCode: agent.ExitLost, Next: req.After}, err
	}
	return answered(l.model.CancelScript(ctx, tentacle.CancelV2{Ticket: tentacle.Ticket{TaskID: string(req.Ticket)}, LastLogSequence: req.After}))
}

func (l *late) CompleteScript(ctx context.Context, t agent.Ticket) error {
	return l.model.CompleteScript(ctx, tentacle.CompleteV2{Ticket: tentacle.Ticket{TaskID: string(t)}})
}

// lateAgents are one agent for everybody.
type lateAgents struct{ *late }

var _ orchestrator.Agents = lateAgents{}

func (l lateAgents) ByName(_ context.Context, name string) (targets.Agent, error) {
	return targets.Agent{API: l.late, Name: name, Label: strings.TrimPrefix(name, "Machines-"), Contract: deploy.ContractV2, Home: l.model.Home, Patience: 50 * time.Millisecond}, nil
}

func (l lateAgents) Target(ctx context.Context, machine string) (targets.Agent, error) {
	return l.ByName(ctx, machine)
}

func (l lateAgents) Worker(ctx context.Context, _ targets.Need) (targets.Agent, error) {
	return l.ByName(ctx, "far")
}

// withLate has a late agent run all scripts of a world.
func (w *world) withLate(l *late) *late {
	w.t.Helper()
	l.model = tentacletest.New(filepath.Join(w.dir, "late"))
	w.far = lateAgents{l}
	w.save()
	return l
}

// single is a script that notes that it ran, and "overlap" where another one runs, and
// holds until its word is let go.
func (w *world) single(word string) string {
	return fmt.Sprintf(`exec 9>'%[1]s/lock-%[2]s'
flock -n 9 || echo overlap >> '%[1]s/ran'
echo %[2]s >> '%[1]s/ran'
until test -e '%[1]s/go-%[2]s'; do sleep 0.02 9>&-; done
`, w.dir, word)
}

// due is what becomes of a ticket, and when.
func (w *world) due(ticket string) (state string, in time.Duration) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) error {
		var at int64
		err := tx.QueryRow(ctx, `SELECT k.state, k.not_before FROM ticket k WHERE k.ticket = ?`, ticket).Scan(&state, &at)
		in = max(0, time.Until(time.UnixMicro(at)))
		return err
	})
	return state, in
}

// dueSince has the time of a task's tickets come; before is how long ago.
func (w *world) dueSince(id string, before time.Duration) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE ticket SET not_before = ? WHERE task = ?`, db.Micros(tx.Now().Add(-before)), id)
		return err
	})
}

// TestAnswersAboutLateStarts: a person answers about a script whose start arrives only
// then. Whatever they answer, nobody asks the agent before, so that it does not lose the
// script; the machine stays locked while it runs; it is not forgotten so soon that it would
// run again; and one that is to run again does so when the one before has been ended.
func TestAnswersAboutLateStarts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		choice deploy.Choice
		state  octopus.TaskState
		worker bool
	}{
		{deploy.MarkSucceeded, octopus.TaskSuccess, false},
		{deploy.MarkFailed, octopus.TaskFailed, false},
		{deploy.MarkFailed, octopus.TaskFailed, true},
	} {
		t.Run(fmt.Sprintf("%s, on a worker %t", c.choice, c.worker), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, w *world) {
				far := w.withLate(&late{inCall: true})
				w.serve("a")
				in := deploy.Input{Process: []octopus.Step{step("One", w.single("one"), there)}, Machines: machines("a")}
				if c.worker {
					in = deploy.Input{Process: []octopus.Step{step("One", w.single("one"))}}
				}
				id := w.queuePlan(in)
				if err := w.answer(w.asked(id), c.choice); err != nil {
					t.Fatal(err)
				}
				w.ends(id, c.state)
				if state, in := w.due(far.ticket()); state != "complete" || in < 10*time.Minute {
					t.Errorf("the agent is told %s in %s", state, in)
				}
				if n := len(far.questions()); n > 0 {
					t.Errorf("the agent was asked %d times while the start was arriving", n)
				}
				far.arrive(t)
				await(t, "it runs", func() bool { return w.ran("one") == 1 })
				if !c.worker {
					w.dueSince(id, 0)
					await(t, "the agent is asked", func() bool { return len(far.questions()) > 0 })
					if locks := w.locks(); len(locks) != 1 {
						t.Errorf("while it runs the locks are %q", locks)
					}
				}
				w.letGo("one")
				w.dueSince(id, 0)
				w.tidy()
				if n := w.ran("one"); n != 1 {
					t.Errorf("it ran %d times", n)
				}
			})
		})
	}
	t.Run(string(deploy.RunAgain), func(t *testing.T) {
		t.Parallel()
		each(t, func(t *testing.T, w *world) {
			w.sc.Settles = time.Second
			far := w.withLate(&late{inCall: true, after: w.sc.Settles - 100*time.Millisecond})
			w.serve("a")
			id := w.queuePlan(deploy.Input{Process: []octopus.Step{step("One", w.single("one"), there)}, Machines: machines("a")})
			unit := deploy.Unit{Lane: "Machines-a"}
			question := w.asked(id)
			ended := w.state(id).Unit(unit).Ended
			if err := w.answer(question, deploy.RunAgain); err != nil {
				t.Fatal(err)
			}
			far.arrive(t)
			await(t, "it runs again", func() bool {
				u := w.state(id).Unit(unit)
				return u.Attempt == 2 && u.Acked
			})
			if state, in := w.due(far.ticket()); state != "complete" || in < 10*time.Minute {
				t.Errorf("of the first script the agent is told %s in %s", state, in)
			}
			if at := far.questions()[0]; at.Before(ended.Add(w.sc.Settles)) {
				t.Errorf("the agent was told after %s", at.Sub(ended))
			}
			w.letGo("one")
			w.ends(id, octopus.TaskSuccess)
			w.dueSince(id, 0)
			w.tidy()
			if n := w.ran("one"); n < 1 || n > 2 {
				t.Errorf("it ran %d times", n)
			}
			if n := len(w.said(id, "may still be arriving at the agent")); n != 1 {
				t.Errorf("that it waits is said %d times:\n%s", n, strings.Join(w.log(id), "\n"))
			}
		})
	})
}

// TestEndOfLateStarts: a script whose start arrives after its agent was told to end what it
// does not know is ended then.
func TestEndOfLateStarts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		far := w.withLate(&late{})
		stop := w.serve("a")
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{step("One", w.single("one"), there)}, Machines: machines("a")})
		w.asked(id)
		w.cancel(id)
		w.ends(id, octopus.TaskCanceled)
		if state, in := w.due(far.ticket()); state != "cancel" || in < tasks.StartSettles-time.Minute {
			t.Errorf("the agent is told %s in %s", state, in)
		}
		w.dueSince(id, 0)
		await(t, "the agent was told, and will be again", func() bool {
			state, in := w.due(far.ticket())
			return len(far.questions()) == 1 && state == "cancel" && in > 0
		})
		if _, in := w.due(far.ticket()); in > time.Minute {
			t.Errorf("it is told again in %s", in)
		}
		far.arrive(t)
		await(t, "it runs", func() bool { return w.ran("one") == 1 })
		if locks := w.locks(); len(locks) != 1 {
			t.Errorf("while it runs the locks are %q", locks)
		}
		w.dueSince(id, 0)
		await(t, "it was ended", func() bool {
			st, err := far.model.GetStatus(t.Context(), tentacle.StatusRequestV2{Ticket: tentacle.Ticket{TaskID: far.ticket()}})
			return err == nil && st.State == tentacle.Complete && st.ExitCode == tentacle.ExitCanceled
		})
		// When it is too late for any start it is forgotten.
		stop()
		w.dueSince(id, time.Hour)
		w.serve("b")
		w.tidy()
	})
}
