package bench

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// BenchmarkFleet is a server with 1,000 polling agents in this process, each with its
// own keys, home and connections, and 20 in processes of their own
// (TAKO_TEST_BENCH_AGENTS, TAKO_TEST_BENCH_PROCESSES): what they cost when nobody has work for
// them, how long a health check of all takes, a deployment of a script that does
// nothing, and until all are back after the server was restarted. Agents and server
// share the machine, so that all but the memory is a bound from above.
func BenchmarkFleet(b *testing.B) {
	inside, processes := apptest.Size(b, "TAKO_TEST_BENCH_AGENTS", 1000), apptest.Size(b, "TAKO_TEST_BENCH_PROCESSES", 20)
	dialects(b, func(b *testing.B, dialect db.Dialect) {
		p := apptest.NewProcess(b, dialect)
		p.AgentListen = apptest.FixedAddress(b)
		p.Start()
		awaitWorker(b, p)
		w := newWork(b, p.Client, 1, `echo "here I am"`)
		idle()
		alone, own := pss(b, p.PID()), anonymous(b, p.PID())
		f := newFleet(b, p.Client, p.Agents, w.environments[0].ID, inside, processes)
		w.onFleet(b, "fleet", nil)
		w.release(b)

		b.Run("connect", func(b *testing.B) {
			start := time.Now()
			f.start(b)
			reportBack(b, f, make([]int64, len(f.members)), start)
		})
		b.Run("idle", func(b *testing.B) {
			idle()
			with := pss(b, p.PID())
			before, start := cpu(b, p.PID()), time.Now()
			<-time.After(40 * time.Second) // longer than an agent is left without a word
			spent := cpu(b, p.PID()) - before
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(alone, "MiB-server-alone")
			b.ReportMetric(with, "MiB-server-with-them")
			b.ReportMetric(math.Round((anonymous(b, p.PID())-own)/float64(len(f.members))), "KiB-for-each")
			b.ReportMetric(math.Round(1000*spent.Seconds()/time.Since(start).Seconds())/10, "%-of-a-core")
			each := 0.0
			for _, m := range f.members[inside:] {
				each += pss(b, m.cmd.Process.Pid)
			}
			b.ReportMetric(math.Round(10*each/float64(processes))/10, "MiB-an-agent")
		})
		for _, round := range []string{"first", "second"} {
			b.Run("health/"+round, func(b *testing.B) {
				forgetPeaks(b, p.PID())
				reportCheck(b, w, f, len(f.members))
				b.ReportMetric(peak(b, p.PID()), "MiB-peak-server")
			})
		}
		for _, round := range []string{"first", "second"} {
			b.Run("deployment/"+round, func(b *testing.B) {
				forgetPeaks(b, p.PID())
				reportDeployment(b, w, f)
				b.ReportMetric(peak(b, p.PID()), "MiB-peak-server")
			})
		}
		b.Run("idle-again", func(b *testing.B) {
			idle()
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(pss(b, p.PID()), "MiB-server")
		})
		b.Run("restart", func(b *testing.B) {
			start := time.Now()
			p.Stop()
			since := f.marks() // nobody can connect just now
			stopped := time.Since(start)
			p.Start()
			b.ReportMetric(15, "s-is-the-aim")
			b.ReportMetric(ms(stopped)/1000, "s-stop")
			b.ReportMetric(ms(time.Since(start))/1000, "s-ready-again")
			reportBack(b, f, since, start)
			awaitWorker(b, p)
		})
		b.Run("health-without-processes", func(b *testing.B) {
			for _, m := range f.members[inside:] {
				m.end()
			}
			reportCheck(b, w, f, inside)
		})
	})
}

// reportBack reports how long it takes from start until each agent has a connection,
// and until it has all of them.
func reportBack(b *testing.B, f *fleet, since []int64, start time.Time) {
	b.Helper()
	f.await(b, since, 1)
	one := time.Since(start)
	without := f.await(b, since, connections)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(without), "agents-without")
	b.ReportMetric(ms(one)/1000, "s-one-connection-each")
	b.ReportMetric(ms(time.Since(start))/1000, "s-all-connections")
}

// reportCheck checks all targets, of which as many as given are there. How many of them
// were not found well is a figure: an agent that waits too long on a machine that is
// too small is not.
func reportCheck(b *testing.B, w *work, f *fleet, there int) {
	b.Helper()
	start := time.Now()
	var task octopus.Task
	w.Must(b, http.MethodPost, space+"/tasks", map[string]any{"Name": "Health", "Arguments": map[string]any{"RestrictedTo": "DeploymentTargets"}}, &task)
	took := w.completed(b, task.ID, start)
	well := apptest.Get[octopus.Page[octopus.Machine]](b, w.Client, space+"/machines?healthStatuses=Healthy&take=1").TotalResults
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(there-int(well)), "agents-not-healthy")
	b.ReportMetric(ms(took)/1000, "s")
	b.ReportMetric(math.Round(float64(len(f.members))/took.Seconds()), "agents/s")
}

// reportDeployment deploys to all agents.
func reportDeployment(b *testing.B, w *work, f *fleet) {
	b.Helper()
	start := time.Now()
	task := w.deploy(b, 0, false)
	request := time.Since(start)
	took := w.completed(b, task, start)
	raw := w.Must(b, http.MethodGet, space+"/tasks/"+task+"/raw", nil, nil).Body
	n := strings.Count(string(raw), "here I am\n")
	if n > len(f.members) {
		b.Fatalf("%d agents ran the script %d times:\n%.2000s", len(f.members), n, raw)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(f.members)-n), "agents-without")
	b.ReportMetric(ms(request), "ms-request")
	b.ReportMetric(ms(took)/1000, "s")
	b.ReportMetric(math.Round(float64(len(f.members))/took.Seconds()), "agents/s")
}

// completed waits until a task has ended, somehow, and returns how long it took. What is
// not done in time is canceled, which the log tells.
func (w *work) completed(b *testing.B, task string, start time.Time) time.Duration {
	b.Helper()
	canceled := false
	for {
		<-time.After(slow)
		done := apptest.Get[octopus.Task](b, w.Client, "/api/tasks/"+task)
		if done.IsCompleted {
			if !done.FinishedSuccessfully {
				b.Logf("%s: %s", done.State, done.ErrorMessage)
			}
			return done.CompletedTime.Sub(start)
		}
		if !canceled && time.Since(start) > fleetPatience {
			w.Must(b, http.MethodPost, "/api/tasks/"+task+"/cancel", nil, nil)
			canceled = true
		}
	}
}

// pss is the memory of one process in MiB, pages that it shares divided among those
// who share them.
func pss(b *testing.B, pid int) float64 {
	b.Helper()
	return math.Round(10*proc(b, pid, "smaps_rollup")["Pss"]/1024) / 10
}

// anonymous is the memory of a process, in KiB, that no other one shares, such as its
// heap: the pages of the program are the agents', too, so that they count the less in
// pss the more of those there are.
func anonymous(b *testing.B, pid int) float64 {
	b.Helper()
	return proc(b, pid, "smaps_rollup")["Anonymous"]
}

// cpu is the time that a process has computed.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	// After the name, which is in brackets: the state is the third field of all.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		b.Fatalf("/proc/%d/stat is %q", pid, stat)
	}
	const tick = 10 * time.Millisecond // of Linux, on every machine that Go knows
	var sum time.Duration
	for _, text := range fields[11:13] { // in programs and in the kernel
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}
