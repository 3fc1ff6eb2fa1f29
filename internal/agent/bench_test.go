//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
)

// How fast a script may print: a million lines from its first to its last, through
// the runner's log and the answers to the caller.
func BenchmarkLines(b *testing.B) {
	const n = 1_000_000
	a := open(b, b.TempDir())
	for b.Loop() {
		ticket := newTicket()
		begin := time.Now()
		start(b, a, agent.StartRequest{Ticket: ticket, Body: fmt.Sprintf("seq -f 'a line of a log, as long as lines are: %%.0f' %d", n)})
		for st := (agent.Status{}); st.State != agent.Complete; {
			var err error
			if st, err = a.GetStatus(b.Context(), agent.StatusRequest{Ticket: ticket, After: n, Wait: time.Minute}); err != nil {
				b.Fatal(err)
			}
		}
		written := time.Since(begin)
		st, log := finish(b, a, ticket)
		if st.ExitCode != 0 || len(log) != n {
			b.Fatal(st.ExitCode, len(log))
		}
		b.ReportMetric(n/written.Seconds(), "lines/s")
		b.ReportMetric(n/(time.Since(begin)-written).Seconds(), "lines/s-read")
	}
}

// What a script costs from StartScript to CompleteScript, against running it by
// hand, with the agent in a process of its own.
func BenchmarkScript(b *testing.B) {
	d := startDaemon(b, b.TempDir())
	byHand := time.Duration(0)
	for b.Loop() {
		ticket := newTicket()
		st, err := d.StartScript(b.Context(), agent.StartRequest{Ticket: ticket, Body: "echo hello", Wait: time.Minute})
		if err != nil || st.State != agent.Complete || len(st.Entries) != 1 {
			b.Fatal(st, err)
		}
		if err := d.CompleteScript(b.Context(), ticket); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		if out, err := exec.CommandContext(b.Context(), "/bin/bash", "-c", "echo hello").Output(); err != nil || len(out) != 6 {
			b.Fatal(err)
		}
		byHand += time.Since(begin)
	}
	b.ReportMetric(float64(byHand.Microseconds())/float64(b.N)/1000, "ms/by-hand")
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid)); err == nil {
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
				var kb float64
				if _, err := fmt.Sscan(f[1], &kb); err == nil {
					b.ReportMetric(kb/1024, "MiB-agent")
				}
			}
		}
	}
}
