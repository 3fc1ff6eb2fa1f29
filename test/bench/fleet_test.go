package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/octopus"
)

const (
	// connections are those of an agent to its server, as many as it makes by itself on
	// a small machine.
	connections = 5
	// fleetPatience is how long anything may take of which the time is measured. What is
	// not done by then is a figure, too, and the next is measured.
	fleetPatience = 10 * time.Minute
	// endPatience is how long an agent may take to end when it is asked to.
	endPatience = 30 * time.Second
	// connected is what an agent logs once a server has accepted a connection.
	connected = "connected to the server"
)

// member is an agent of a fleet, configured as one on a machine of its own.
type member struct {
	name    string
	store   instance.Store
	machine octopus.Machine
	// made counts the connections that a server has accepted.
	made   atomic.Int64
	failed atomic.Pointer[error] // why it has ended
	cmd    *exec.Cmd             // nil for those in this process
}

// fleet is many agents that poll one server. They are targets of it with the tag
// "fleet", those in processes of their own with the tag "process", too.
type fleet struct {
	client  *apptest.Client
	dir     string
	members []*member

	ctx context.Context //nolint:containedctx // the fleet's life, from newFleet to its end
	wg  sync.WaitGroup  // of those in this process
}

// newFleet prepares agents and has a server know them. They poll the address, which is
// the server's or leads there. None runs yet.
func newFleet(b *testing.B, c *apptest.Client, address, environment string, inside, processes int) *fleet {
	b.Helper()
	all := inside + processes
	// One for the lock of its home, and what a script of each takes.
	roomFor(b, (connections+3)*all+500)
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	f := &fleet{client: c, dir: apptest.ShortDir(b), ctx: ctx}
	b.Cleanup(func() {
		stop()
		for _, m := range f.members {
			m.end()
		}
		f.wg.Wait()
		proctest.End(b, f.dir)
	})
	thumbprint, err := halibut.ParseThumbprint(apptest.Get[octopus.CertificateConfiguration](b, c, "/api/configuration/certificates/certificate-global").Thumbprint)
	if err != nil {
		b.Fatal(err)
	}
	keys := identities(b, all)
	f.members = make([]*member, all)
	for i := range f.members {
		f.members[i] = &member{name: fmt.Sprintf("agent-%04d", i+1), store: instance.Store{Dir: filepath.Join(f.dir, strconv.Itoa(i+1))}}
	}
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(8)
	for i, m := range f.members {
		group.Go(func() error {
			sub := halibut.NewSubscription()
			err := configured(m.store, keys[i], func(s *instance.Settings) {
				s.NoListen, s.Connections = true, connections
				s.Trust(instance.Server{Thumbprint: thumbprint, Style: octopus.StylePolling, Address: "https://" + address + "/", Subscription: sub})
			})
			if err != nil {
				return err
			}
			target := octopus.Machine{
				MachineBase: octopus.MachineBase{
					Name: m.name, SkipInitialHealthCheck: true,
					Endpoint: octopus.Endpoint{CommunicationStyle: octopus.StylePolling, URI: string(sub), Thumbprint: string(keys[i].Thumbprint)},
				},
				Roles: octopus.List[string]{"fleet"}, EnvironmentIDs: octopus.List[string]{environment},
			}
			if i >= inside {
				target.Roles = append(target.Roles, "process")
			}
			return f.register(ctx, m, target)
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	return f
}

func (f *fleet) register(ctx context.Context, m *member, target octopus.Machine) error {
	resp, err := f.client.Do(ctx, "POST", space+"/machines", target)
	if err == nil && resp.Status != 201 {
		err = fmt.Errorf("a target was answered with %d %s", resp.Status, resp.Body)
	}
	m.machine = target
	return err
}

// configured makes an instance of a store with an identity that is there.
func configured(store instance.Store, id *halibut.Identity, fn func(*instance.Settings)) error {
	dir := filepath.Join(store.Dir, "instances", instance.DefaultName)
	text, err := id.PEM()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "identity.pem"), text, 0o600); err != nil {
		return err
	}
	if _, err := store.Configure(instance.DefaultName, func(s *instance.Settings) error { fn(s); return nil }); err != nil {
		return err
	}
	has, err := store.Identity(instance.DefaultName)
	if err == nil && has.Thumbprint != id.Thumbprint {
		err = errors.New("the instance has made an identity of its own")
	}
	return err
}

// start starts all agents: those with the tag "process" in processes of the program,
// the others in this one.
func (f *fleet) start(b *testing.B) {
	b.Helper()
	exe := apptest.Binary(b)
	for _, m := range f.members {
		if len(m.machine.Roles) > 1 {
			m.cmd = runAgent(b, m.store, func(line string) {
				if strings.Contains(line, connected) {
					m.made.Add(1)
				}
			})
			continue
		}
		f.wg.Go(func() {
			err := instance.Run(f.ctx, instance.Options{Store: m.store, Name: instance.DefaultName, Version: "bench", Exe: exe, Log: slog.New(counter{&m.made})})
			if err != nil {
				m.failed.Store(&err) // await tells
			}
		})
	}
}

// runAgent runs an instance as a process; said is told of the lines of its log.
func runAgent(b *testing.B, store instance.Store, said func(line string)) *exec.Cmd {
	b.Helper()
	cmd := exec.Command(apptest.Binary(b), "agent", "run")
	cmd.Env = append(os.Environ(), instance.EnvDir+"="+store.Dir)
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(log); lines.Scan(); {
			said(lines.Text())
		}
	}()
	return cmd
}

// end ends the process of an agent, if it has one.
func (m *member) end() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	kill := time.AfterFunc(endPatience, func() { _ = m.cmd.Process.Kill() })
	_ = m.cmd.Wait() // by the signal
	kill.Stop()
	m.cmd = nil
}

// counter is a log that counts connections.
type counter struct{ made *atomic.Int64 }

func (counter) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (c counter) WithAttrs([]slog.Attr) slog.Handler         { return c }
func (c counter) WithGroup(string) slog.Handler              { return c }

func (c counter) Handle(_ context.Context, r slog.Record) error {
	if r.Message == connected {
		c.made.Add(1)
	}
	return nil
}

// marks are how many connections each agent has made until now.
func (f *fleet) marks() []int64 {
	all := make([]int64, len(f.members))
	for i, m := range f.members {
		all[i] = m.made.Load()
	}
	return all
}

// await waits until each agent has made n connections since marks, and returns how many
// agents have not when its patience ends.
func (f *fleet) await(b *testing.B, since []int64, n int64) int {
	b.Helper()
	for start := time.Now(); ; <-time.After(5 * time.Millisecond) {
		without := 0
		for i, m := range f.members {
			if m.made.Load() >= since[i]+n {
				continue
			}
			without++
			if err := m.failed.Load(); err != nil {
				b.Fatalf("%s has ended: %v", m.name, *err)
			}
		}
		if without == 0 || time.Since(start) > fleetPatience {
			return without
		}
	}
}

// roomFor fails where a process may not have as many files open. Go's programs, of
// which the server is one, raise their limit to the hard one by themselves.
func roomFor(b *testing.B, files int) {
	b.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		b.Fatal(err)
	}
	if l.Max < uint64(files) {
		b.Fatalf("a process may have %d files open here, and %d are needed: raise the hard limit (ulimit -Hn %d), or measure fewer agents (TAKO_TEST_BENCH_AGENTS)", l.Max, files, files)
	}
}

// identities are n agents' keys and certificates. Making one takes a tenth of a second
// and more, so they are made once and kept in the user's cache. Nothing but these
// benchmarks, on loopback, trusts them.
func identities(b *testing.B, n int) []*halibut.Identity {
	b.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "tako-bench")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	all := make([]*halibut.Identity, n)
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for i := range all {
		group.Go(func() (err error) {
			all[i], err = identity(filepath.Join(dir, fmt.Sprintf("agent-%04d.pem", i+1)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	return all
}

// identity reads an identity, or makes it.
func identity(path string) (*halibut.Identity, error) {
	if text, err := os.ReadFile(path); err == nil {
		if id, err := halibut.ParseIdentity(text); err == nil {
			return id, nil
		} // else it was not written to its end
	}
	id, err := halibut.NewIdentity("Tako Agent", time.Now())
	if err != nil {
		return nil, err
	}
	text, err := id.PEM()
	if err != nil {
		return nil, err
	}
	return id, os.WriteFile(path, text, 0o600)
}

// onFleet has a project's one step run on the targets with a tag, as many as possible
// at the same time. change, unless nil, makes the step another one.
func (w *work) onFleet(b *testing.B, tag string, change func(*octopus.Step)) {
	b.Helper()
	path := space + "/deploymentprocesses/" + w.project.DeploymentProcessID
	process := apptest.Get[octopus.DeploymentProcess](b, w.Client, path)
	one := &process.Steps[0]
	one.Properties = octopus.Properties{octopus.PropTargetRoles: octopus.Plain(tag)}
	one.Actions[0].Properties[octopus.PropRunOnServer] = octopus.Plain("False")
	if change != nil {
		change(one)
	}
	apptest.Put(b, w.Client, path, process)
	path = space + "/variables/" + w.project.VariableSetID
	set := apptest.Get[octopus.VariableSet](b, w.Client, path)
	atOnce := "100"
	set.Variables = octopus.List[octopus.Variable]{{Name: octopus.PropMaxParallelism, Value: &atOnce, Type: octopus.VariableString}}
	apptest.Put(b, w.Client, path, set)
}

// release makes the next release of the project.
func (w *work) release(b *testing.B) {
	b.Helper()
	var made struct{ ReleaseVersion string }
	w.Must(b, "POST", space+"/releases/create/v1", map[string]any{"spaceId": "Spaces-1", "projectName": w.project.Name}, &made)
	w.version = made.ReleaseVersion
}
