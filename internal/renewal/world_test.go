//go:build linux

package renewal_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/renewal"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/directory"
	"github.com/takodeploy/tako/internal/targets/network"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// built is where TestMain's directory for programs is.
var built string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tako-renewal-")
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built = dir
	code := m.Run()
	_ = os.RemoveAll(dir) // it is the system's temporary directory
	os.Exit(code)
}

const (
	space = ident.SpaceID("Spaces-1")
	older = "1.0.0" // of the agents
	newer = "2.0.0" // of the server
)

// programs builds the agent's program in both versions, once.
var programs = sync.OnceValues(func() (map[string]string, error) {
	out := map[string]string{}
	for _, version := range []string{older, newer} {
		out[version] = filepath.Join(built, "tako-agent-"+version)
		cmd := exec.CommandContext(context.Background(), "go", "build", "-ldflags", "-s -w -X main.version="+version, "-o", out[version], "github.com/takodeploy/tako/cmd/tako-agent")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if said, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build tako-agent %s: %w\n%s", version, err, said)
		}
	}
	return out, nil
})

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for something, which it asks for again and again.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// world is a server of the newer version, as far as it upgrades agents.
type world struct {
	t        *testing.T
	d        *db.DB
	store    *docstore.Store
	net      *network.Network
	polled   string // where agents poll it
	targets  *targets.Targets
	programs map[string]string
	dir, env string
	queue    *tasks.Service // queues, and runs nothing
	cfg      tasks.Config
	stop     func()   // stops the node
	sent     sync.Map // subscriptions whose agents are sent away when they connect
}

// newWorld makes one that gives new programs so long; the zero time is the usual one.
func newWorld(t *testing.T, d *db.DB, within time.Duration) *world {
	t.Helper()
	built, err := programs()
	check(t, err)
	w := &world{t: t, d: d, dir: t.TempDir(), programs: built}
	t.Cleanup(func() { proctest.End(t, w.dir) })
	set, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	check(t, err)
	box, err := secret.Open(t.Context(), d, secret.Source{Dir: t.TempDir()})
	check(t, err)
	w.store = docstore.New(set, box)
	id, err := halibut.NewIdentity("server", time.Now())
	check(t, err)
	machines := directory.New(d, w.store)
	finder := program.NewFinder(built[newer])
	t.Cleanup(func() { check(t, finder.Close()) })
	w.net = network.New(network.Config{Identity: id, Trust: w.trusts(machines), Programs: finder, Log: dbtest.Log(t)})
	w.targets = targets.New(targets.Config{Disabled: true, Directory: machines, Dialers: map[octopus.CommunicationStyle]targets.Dialer{
		octopus.StyleListening: w.net.Dial, octopus.StylePolling: w.net.Dial,
	}})
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	w.polled = ln.Addr().String()
	blobs, err := blob.OpenDir(filepath.Join(w.dir, "blobs"))
	check(t, err)
	runners := map[octopus.TaskName]tasks.Runner{}
	w.cfg = tasks.Config{
		DB: d, Blobs: blobs, RunDir: filepath.Join(w.dir, "run"), Node: "desk", Version: newer, Log: dbtest.Log(t),
		Timing: tasks.Timing{Look: 20 * time.Millisecond, Retry: 10 * time.Millisecond},
	}
	w.queue, err = tasks.Open(t.Context(), w.cfg)
	check(t, err)
	t.Cleanup(func() { check(t, w.queue.Close()) })
	w.cfg.Runners = runners
	runners[octopus.TaskUpgrade] = renewal.New(renewal.Config{DB: d, Store: w.store, Agents: w.targets, Programs: finder, Within: within, Log: dbtest.Log(t)})
	runners[octopus.TaskUpdateCalamari] = renewal.Tools{}
	runners[octopus.TaskHealth] = health.New(health.Config{
		DB: d, Store: w.store, Agents: w.targets, Log: dbtest.Log(t),
		Upgrade: func(ctx context.Context, tx *db.Tx, space ident.SpaceID, machines []health.Machine) error {
			return renewal.Queue(ctx, tx, w.queue, space, machines)
		},
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.net.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		err := <-ended
		w.net.Close()
		check(t, err)
	})
	w.stop = w.serve("one")
	w.create("spaces", "", &octopus.Space{Name: "Default", IsDefault: true})
	w.env = w.create("environments", space, &octopus.Environment{Name: "Dev"})
	return w
}

// trusts are the agents of machines, but for those that are sent away.
func (w *world) trusts(machines *directory.Directory) func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) {
	return func(ctx context.Context, sub halibut.Subscription, peer halibut.Thumbprint) (bool, error) {
		if _, away := w.sent.Load(sub); away {
			return false, nil
		}
		return machines.Trusts(ctx, sub, peer)
	}
}

// serve runs the tasks on a node until stop or the end of the test.
func (w *world) serve(node string) (stop func()) {
	w.t.Helper()
	cfg := w.cfg
	cfg.Node = node
	queue, err := tasks.Open(w.t.Context(), cfg)
	check(w.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- queue.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, queue.Close()); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) write(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	check(w.t, w.d.Write(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }))
}

func (w *world) read(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	check(w.t, w.d.Read(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }))
}

func (w *world) create(kind string, space ident.SpaceID, v any) (id string) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx) (err error) {
		id, err = w.store.In(tx).Create(ctx, kind, space, "", v)
		return err
	})
	return id
}

// installed is an agent of the older version, kept running as by a service manager: it
// is started again whenever it has ended.
type installed struct {
	w    *world
	id   string // of its machine
	name string
	exe  string // that is installed
	sub  halibut.Subscription
	out  proctest.Output
}

// install installs an agent and makes it a deployment target. Edge is where it fails,
// once: "" for nowhere.
func (w *world) install(name string, style octopus.CommunicationStyle, edge string, change ...func(*octopus.Machine)) *installed {
	w.t.Helper()
	a := &installed{w: w, name: name, exe: filepath.Join(w.dir, name+".exe")}
	check(w.t, os.Link(w.programs[older], a.exe))
	store := instance.Store{Dir: filepath.Join(w.dir, name)}
	ln, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	check(w.t, err)
	port := ln.Addr().(*net.TCPAddr).Port
	check(w.t, ln.Close())
	server := instance.Server{Thumbprint: w.net.Thumbprint(), Style: style}
	endpoint := octopus.Endpoint{CommunicationStyle: style, URI: fmt.Sprintf("https://127.0.0.1:%d/", port)}
	if style == octopus.StylePolling {
		server.Subscription, server.Address = halibut.NewSubscription(), "https://"+w.polled+"/"
		endpoint.URI, a.sub = string(server.Subscription), server.Subscription
	}
	_, err = store.Configure(name, func(v *instance.Settings) error {
		v.ListenAddress, v.Port, v.Servers, v.Connections = "127.0.0.1", port, []instance.Server{server}, 2
		return nil
	})
	check(w.t, err)
	id, err := store.Identity(name)
	check(w.t, err)
	endpoint.Thumbprint = string(id.Thumbprint)
	m := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.env}, Roles: octopus.List[string]{"web"}}
	m.Name, m.Endpoint, m.SkipInitialHealthCheck = name, endpoint, true
	for _, c := range change {
		c(m)
	}
	a.id = w.create("machines", space, m)
	once := filepath.Join(w.dir, name+".once")
	check(w.t, os.Mkdir(once, 0o700))
	env := append(os.Environ(), instance.EnvDir+"="+store.Dir)
	if edge != "" {
		env = append(env, failpoint.Env+"="+edge, failpoint.EnvOnce+"="+once)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, a.exe, "run", "--instance", name)
			cmd.Env, cmd.Stdout, cmd.Stderr = env, &a.out, &a.out
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = time.Minute
			if err := cmd.Run(); ctx.Err() == nil {
				_, _ = fmt.Fprintf(&a.out, "ended: %v\n", err)
				<-time.After(10 * time.Millisecond)
			}
		}
	}()
	w.t.Cleanup(func() {
		stop()
		<-gone
		if w.t.Failed() {
			w.t.Logf("%s:\n%s", name, a.out.String())
		}
	})
	return a
}

// api is the agent as the server calls it.
func (a *installed) api() targets.Agent {
	a.w.t.Helper()
	var found targets.Agent
	until(a.w.t, a.name+" is reached", func() bool {
		var err error
		found, err = a.w.targets.ByName(context.WithoutCancel(a.w.t.Context()), a.id)
		return err == nil
	})
	return found
}

// hello is what the agent says; it may be away for a moment.
func (a *installed) hello() (h agent.Hello) {
	a.w.t.Helper()
	api := a.api()
	until(a.w.t, a.name+" answers", func() bool {
		var err error
		h, err = api.Hello(context.WithoutCancel(a.w.t.Context()))
		return err == nil
	})
	return h
}

// document is the machine as clients see it.
func (a *installed) document() (m octopus.Machine) {
	a.w.t.Helper()
	a.w.read(func(ctx context.Context, tx *db.Tx) error {
		return a.w.store.Load(ctx, tx, resources.TargetKind, a.id, &m)
	})
	return m
}

// upgrade queues the task that upgrades agents.
func (w *world) upgrade(agents ...*installed) (task string) {
	w.t.Helper()
	var machines []health.Machine
	for _, a := range agents {
		machines = append(machines, health.Machine{Kind: resources.TargetKind, ID: a.id, Name: a.name})
	}
	w.write(func(ctx context.Context, tx *db.Tx) error {
		t, err := w.queue.Create(ctx, tx, renewal.NewTask(space, machines, ""))
		if err == nil {
			task = t.ID
		}
		return err
	})
	return task
}

func (w *world) task(id string) (t *tasks.Task) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) (err error) {
		t, err = tasks.Get(ctx, tx, id)
		return err
	})
	return t
}

// ends waits for the end of a task, and checks how it ended.
func (w *world) ends(id string, want octopus.TaskState) *tasks.Task {
	w.t.Helper()
	until(w.t, id+" ends", func() bool { return w.task(id).State.Completed() })
	t := w.task(id)
	if t.State != want {
		w.t.Fatalf("%s is %s (%s):\n%s", id, t.State, t.Error, w.log(id, ""))
	}
	return t
}

// log is what a task says of a machine; "" is all.
func (w *world) log(id, machine string) string {
	w.t.Helper()
	var lines []string
	check(w.t, w.queue.ReadLog(context.WithoutCancel(w.t.Context()), id, 1, func(l tasks.Line) bool {
		if machine == "" || l.Activity == health.Activity(id, machine) {
			lines = append(lines, l.Text)
		}
		return true
	}))
	return strings.Join(lines, "\n")
}

// nodes are the states of a task's machines in its log.
func (w *world) nodes(id string) map[string]octopus.ActivityStatus {
	w.t.Helper()
	out := map[string]octopus.ActivityStatus{}
	w.read(func(ctx context.Context, tx *db.Tx) error {
		t, err := tasks.Get(ctx, tx, id)
		if err != nil {
			return err
		}
		root, err := renewal.Tree(ctx, tx, t)
		if err != nil {
			return err
		}
		for _, c := range root.Children {
			out[c.Name] = c.Status
		}
		return nil
	})
	return out
}
