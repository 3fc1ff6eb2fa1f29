//go:build linux

package agent_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"pgregory.net/rapid"
)

// known is what a caller has learnt of a ticket.
type known struct {
	req       agent.StartRequest
	lines     int
	fate      *int // the exit code of the first final answer
	runs      int  // executions at that time
	completed bool // its log may be gone
}

// TestModel sends calls and kills in every order that rapid thinks of. It holds the
// agent to what a caller may rely on: a script runs at most once; its fate is one,
// and after it was told the script does not run; a result that is known comes with
// the whole log; one at a time runs in a mutex.
func TestModel(t *testing.T) {
	t.Parallel()
	checks, limit := 0, walkSize(t, 10)
	rapid.Check(t, func(rt *rapid.T) {
		if checks++; checks > limit {
			return // real processes cost real time
		}
		modelRun(t, rt)
	})
}

func modelRun(t *testing.T, rt *rapid.T) {
	env := "A=b"
	if rapid.Bool().Draw(rt, "without cgroups") {
		env = "AGENT_TEST_NO_CGROUP=1"
	}
	w := newWorld(t, env)
	defer w.end()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must := func(err error) {
		if err != nil {
			rt.Fatal(err)
		}
	}
	tickets := make([]*known, 4)
	for i := range tickets {
		ticket := newTicket()
		mutex := fmt.Sprintf("m%d", i%2)
		n := rapid.IntRange(0, 300).Draw(rt, "lines")
		sleep := time.Duration(rapid.IntRange(0, 60).Draw(rt, "sleep")) * time.Millisecond
		tickets[i] = &known{lines: n, req: agent.StartRequest{
			Ticket: ticket, Body: w.script(ticket, mutex, n, sleep), Isolation: agent.FullIsolation, MutexName: mutex,
		}}
	}
	pick := func(rt *rapid.T) *known { return tickets[rapid.IntRange(0, len(tickets)-1).Draw(rt, "ticket")] }
	// learn checks an answer against what was answered before. The count of runs is
	// taken after it: nothing may start later.
	learn := func(k *known, st agent.Status) {
		if st.State != agent.Complete || st.ExitCode == agent.ExitUnknownTicket {
			return
		}
		if k.fate == nil {
			k.fate, k.runs = &st.ExitCode, w.runs(k.req.Ticket)
		}
		if *k.fate != st.ExitCode {
			rt.Fatalf("%s ended with %d, and now with %d", k.req.Ticket, *k.fate, st.ExitCode)
		}
	}
	check := func() {
		for _, k := range tickets {
			n := w.runs(k.req.Ticket)
			if n > 1 || k.fate != nil && n != k.runs {
				rt.Fatalf("%s ran %d times; %d times when its end was told", k.req.Ticket, n, k.runs)
			}
		}
		if o := w.overlaps(); len(o) > 0 {
			rt.Fatalf("met another script in their mutex: %v", o)
		}
	}
	rt.Repeat(map[string]func(*rapid.T){
		"start": func(rt *rapid.T) {
			k := pick(rt)
			st, err := w.start(ctx, k.req)
			must(err)
			learn(k, st)
		},
		"start twice": func(rt *rapid.T) {
			k := pick(rt)
			var racing sync.WaitGroup
			answers, errs := make([]agent.Status, 2), make([]error, 2)
			for i := range 2 {
				racing.Go(func() { answers[i], errs[i] = w.start(ctx, k.req) })
			}
			racing.Wait()
			for i := range 2 {
				must(errs[i])
				learn(k, answers[i])
			}
		},
		"status": func(rt *rapid.T) {
			k := pick(rt)
			st, err := retry(ctx, func() (agent.Status, error) {
				return w.GetStatus(ctx, agent.StatusRequest{Ticket: k.req.Ticket})
			})
			must(err)
			learn(k, st)
		},
		"cancel": func(rt *rapid.T) {
			k := pick(rt)
			st, err := w.cancel(ctx, k.req.Ticket)
			must(err)
			learn(k, st)
		},
		"complete": func(rt *rapid.T) {
			k := pick(rt)
			k.completed = true
			must(w.complete(ctx, k.req.Ticket))
		},
		"kill agent":  func(*rapid.T) { w.killAgent() },
		"kill runner": func(rt *rapid.T) { w.killIn(pick(rt).req.Ticket, "lock") },
		"kill script": func(rt *rapid.T) { w.killIn(pick(rt).req.Ticket, "started") },
		"pass time": func(rt *rapid.T) {
			wait(t, time.Duration(rapid.IntRange(1, 40).Draw(rt, "ms"))*time.Millisecond)
		},
		"": func(*rapid.T) { check() },
	})
	for _, k := range tickets {
		st, log, err := w.follow(ctx, k.req.Ticket)
		must(err)
		learn(k, st)
		n := w.runs(k.req.Ticket)
		switch st.ExitCode {
		case 7:
			if n != 1 {
				rt.Errorf("%s has a result and ran %d times", k.req.Ticket, n)
			}
			if !k.completed {
				if err := whole(log, k.lines); err != nil {
					rt.Errorf("%s: %v", k.req.Ticket, err)
				}
			}
		case agent.ExitNoShell, agent.ExitUnknownTicket:
			if n != 0 {
				rt.Errorf("%s ended with %d and ran %d times", k.req.Ticket, st.ExitCode, n)
			}
		case 128 + 9, agent.ExitCanceled, agent.ExitLost:
		default:
			rt.Errorf("%s ended with %d", k.req.Ticket, st.ExitCode)
		}
	}
	check()
}
