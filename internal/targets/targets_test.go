//go:build linux

package targets_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// The test binary is the agent too, with its runners and stubs.
func TestMain(m *testing.M) {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	if len(os.Args) > 2 && os.Args[1] == "agent" && os.Args[2] == "run" {
		home := os.Args[slices.Index(os.Args, "--home")+1]
		err := agent.RunBuiltin(context.Background(), agent.Config{Home: home, Version: "test", Log: slog.New(slog.DiscardHandler), LockWait: 5 * time.Second})
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// builtin finds agents whose built-in worker ends with the test.
func builtin(t *testing.T) (*targets.Targets, string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(t.TempDir(), "worker")
	t.Cleanup(func() { kill(home) })
	return targets.New(targets.Config{Exe: exe, Home: home}), home
}

// kill kills the agent of a home, and reports whether there was one.
func kill(home string) bool {
	c := agent.Dial(agent.SocketPath(home))
	defer c.Close()
	hello, err := c.Hello(context.Background())
	return err == nil && syscall.Kill(hello.PID, syscall.SIGKILL) == nil
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	found := targets.New(targets.Config{Disabled: true})
	if _, err := found.Worker(t.Context(), targets.Need{}); fault.KindOf(err) != fault.Unsupported || !strings.Contains(err.Error(), "switched off") {
		t.Errorf("a worker that is switched off: %v", err)
	}
	if err := found.Start(t.Context()); err != nil {
		t.Errorf("starting it: %v", err)
	}
	if _, err := found.ByName(t.Context(), "Machines-1"); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "'Machines-1'") {
		t.Errorf("a target: %v", err)
	}
	broken := targets.New(targets.Config{Exe: "/nowhere/tako", Home: t.TempDir()})
	if _, err := broken.Worker(t.Context(), targets.Need{}); err == nil || len(fault.Faults(err)) > 0 {
		t.Errorf("a program that is not there: %v", err)
	}
}

// finder is a Finder.
type finder func(name string) (targets.Agent, error)

func (f finder) ByName(_ context.Context, name string) (targets.Agent, error) { return f(name) }

// TestExaminationOfAbsent: an agent that was away for as long as it would be tried is
// asked for once, and others until that time is over.
func TestExaminationOfAbsent(t *testing.T) {
	t.Parallel()
	for retry, away := range map[time.Duration]time.Duration{time.Hour: 2 * time.Hour, 0: 0, 300 * time.Millisecond: 0} {
		asked := 0
		h, err := targets.Examine(t.Context(), targets.Examination{Machine: "Machines-1", Style: octopus.StylePolling, Retry: retry, Agents: finder(func(string) (targets.Agent, error) {
			asked++
			return targets.Agent{}, &targets.AwayError{Label: "box", Err: &targets.AbsentError{For: away}}
		})})
		if err != nil || h.Status != octopus.Unavailable || h.Summary != "The machine's agent polls, and is not connected to this server." || !h.Over {
			t.Errorf("%s of %s: %+v, %v", away, retry, h, err)
		}
		if tried := asked > 1; tried != (retry > away) {
			t.Errorf("%s of %s: asked %d times", away, retry, asked)
		}
	}
}

// scripted answers starts and questions in the order of its errors; the end of one that is
// answered is not heard of.
type scripted struct {
	agent.API
	starts []error
	ends   bool
}

func (*scripted) Hello(context.Context) (agent.Hello, error) { return agent.Hello{}, nil }

func (s *scripted) StartScript(context.Context, agent.StartRequest) (agent.Status, error) {
	err := s.starts[0]
	s.starts = s.starts[1:]
	return agent.Status{State: agent.Running}, err
}

func (s *scripted) GetStatus(context.Context, agent.StatusRequest) (agent.Status, error) {
	if s.ends {
		return agent.Status{State: agent.Complete}, nil
	}
	return agent.Status{}, fault.New(fault.Invalid, "Nothing is told.")
}

// TestTicketsOfExaminations: what an agent is told about the script of a check depends on
// what it has answered. One of another make is left alone while its start may be arriving.
func TestTicketsOfExaminations(t *testing.T) {
	t.Parallel()
	refused := fault.New(fault.Invalid, "No.")
	for name, c := range map[string]struct {
		contract deploy.Contract
		starts   []error
		ends     bool
		want     tasks.Ticket
		in       time.Duration
	}{
		"ours, unanswered":   {deploy.ContractTako, []error{refused}, false, tasks.Ticket{State: tasks.TicketCancel}, 0},
		"other, unanswered":  {deploy.ContractV2, []error{refused}, false, tasks.Ticket{State: tasks.TicketCancel}, tasks.StartSettles},
		"other, answered":    {deploy.ContractV2, []error{nil}, false, tasks.Ticket{State: tasks.TicketCancel, Answered: true}, 0},
		"other, ended":       {deploy.ContractV2, []error{nil}, true, tasks.Ticket{State: tasks.TicketComplete, Answered: true}, 0},
		"other, sent twice":  {deploy.ContractV2, []error{agent.ErrUnanswered, nil}, true, tasks.Ticket{State: tasks.TicketComplete, Answered: true}, 15 * time.Minute},
		"other, twice, lost": {deploy.ContractV2, []error{agent.ErrUnanswered, nil}, false, tasks.Ticket{State: tasks.TicketCancel, Answered: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := &scripted{starts: c.starts, ends: c.ends}
			began := deploy.Contract("")
			h, err := targets.Examine(t.Context(), targets.Examination{
				Machine: "Machines-1", Style: octopus.StyleListening, Ticket: "t", Retry: time.Minute,
				Agents: finder(func(name string) (targets.Agent, error) {
					return targets.Agent{API: api, Name: name, Contract: c.contract}, nil
				}),
				Begin: func(_ context.Context, _ string, contract deploy.Contract) error {
					began = contract
					return nil
				},
			})
			if err != nil || began != c.contract {
				t.Fatalf("began with %q: %v", began, err)
			}
			got, ok := h.Ticket("t", "unit")
			in := time.Until(time.UnixMicro(got.NotBefore))
			if want := c.in; !ok || got.State != c.want.State || got.Answered != c.want.Answered || got.Contract != string(c.contract) || (got.NotBefore == 0) != (want == 0) || want > 0 && (in > want || in < want-time.Minute) {
				t.Errorf("the agent is told %+v in %s", got, in)
			}
		})
	}
}

// Whatever is called, and however often the worker was killed: the call starts it
// again and is answered, through an agent that was found long before.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	found, home := builtin(t)
	if err := found.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := found.Worker(t.Context(), targets.Need{Pool: "WorkerPools-1"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != targets.Builtin || a.Contract != deploy.ContractTako || a.Home != home {
		t.Errorf("%+v", a)
	}
	content := "hello"
	sum := sha256.Sum256([]byte(content))
	hash := hex.EncodeToString(sum[:])
	path := agent.WorkspacePath("t-1", "out.txt")
	if got := a.Workspace("T-1"); got+"/out.txt" != filepath.Join(home, path) {
		t.Errorf("the workspace is %s", got)
	}
	for _, c := range []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"PutPackage", func(ctx context.Context) error {
			return a.PutPackage(ctx, hash, int64(len(content)), strings.NewReader(content))
		}},
		{"HasPackage", func(ctx context.Context) error {
			has, err := a.HasPackage(ctx, hash)
			if err == nil && !has {
				err = errors.New("it has forgotten the package")
			}
			return err
		}},
		{"StartScript", func(ctx context.Context) error {
			_, err := a.StartScript(ctx, agent.StartRequest{Ticket: "t-1", Body: "echo hello > out.txt", Wait: 20 * time.Second})
			return err
		}},
		{"GetStatus", func(ctx context.Context) error {
			st, err := a.GetStatus(ctx, agent.StatusRequest{Ticket: "t-1", Wait: 20 * time.Second})
			if err == nil && (st.State != agent.Complete || st.ExitCode != 0) {
				err = errors.New("it has not run: " + st.State.String())
			}
			return err
		}},
		{"DownloadFile", func(ctx context.Context) error {
			r, err := a.DownloadFile(ctx, path)
			if err != nil {
				return err
			}
			body, err := io.ReadAll(r)
			if string(body) != "hello\n" {
				t.Errorf("the file holds %q", body)
			}
			return errors.Join(err, r.Close())
		}},
		{"CancelScript", func(ctx context.Context) error {
			_, err := a.CancelScript(ctx, agent.StatusRequest{Ticket: "t-1"})
			return err
		}},
		{"CompleteScript", func(ctx context.Context) error { return a.CompleteScript(ctx, "t-1") }},
		{"Worker", func(ctx context.Context) error {
			_, err := found.ByName(ctx, targets.Builtin)
			return err
		}},
	} {
		if !kill(home) {
			t.Errorf("%s: there is no worker to kill", c.name)
		}
		if err := c.call(t.Context()); err != nil {
			t.Errorf("%s after the worker was killed: %v", c.name, err)
		}
	}
}

// Many who need the worker at the same time get one, and who does not want to wait
// any more does not.
func TestStartedOnce(t *testing.T) {
	t.Parallel()
	found, home := builtin(t)
	pids := make(chan int, 10)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			a, err := found.Worker(t.Context(), targets.Need{})
			if err != nil {
				t.Error(err)
				return
			}
			hello, err := a.Hello(t.Context())
			if err != nil {
				t.Error(err)
			}
			pids <- hello.PID
		})
	}
	wg.Wait()
	close(pids)
	first := 0
	for pid := range pids {
		if first == 0 {
			first = pid
		}
		if pid != first {
			t.Errorf("workers %d and %d", first, pid)
		}
	}
	kill(home)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := targets.New(targets.Config{Exe: "/nowhere", Home: home}).Worker(ctx, targets.Need{}); err == nil {
		t.Error("a canceled caller gets a worker")
	}
}
