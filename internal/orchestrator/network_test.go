//go:build linux

package orchestrator_test

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/remote"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/network"
	"github.com/takodeploy/tako/octopus"
)

// far finds the one agent of a test, over the network.
type far struct {
	net *network.Network
	at  network.Endpoint
}

func (f far) Target(ctx context.Context, machine string) (targets.Agent, error) {
	return f.ByName(ctx, machine)
}

func (f far) Worker(ctx context.Context, _ targets.Need) (targets.Agent, error) {
	return f.ByName(ctx, "far")
}

func (f far) ByName(ctx context.Context, name string) (targets.Agent, error) {
	a, err := f.net.Agent(ctx, name, f.at)
	return targets.Agent{API: a.API, Name: name, Contract: a.Contract, Home: a.Home}, err
}

// connections are those between a server and its agent, which a test cuts.
type connections struct {
	mu  sync.Mutex
	all []net.Conn
}

func (c *connections) dial(ctx context.Context, proto, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, proto, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, conn)
	return conn, nil
}

func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.all {
		_ = conn.Close() // it may be closed already
	}
	c.all = nil
}

// overNetwork gives a world an agent that polls.
func (w *world) overNetwork() *connections {
	w.t.Helper()
	t := w.t
	svc, err := agent.Open(t.Context(), agent.Config{Home: filepath.Join(w.dir, "worker"), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	identity := func() *halibut.Identity {
		id, err := halibut.NewIdentity("test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	id, sub, cuts := identity(), halibut.NewSubscription(), &connections{}
	timing := halibut.Timing{Again: 5 * time.Millisecond, AgainMax: 20 * time.Millisecond}
	n := network.New(network.Config{Identity: identity(), Timing: timing, Trust: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
		return s == sub && p == id.Thumbprint, nil
	}})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := halibut.New(halibut.Config{Identity: id, Timing: timing, Services: remote.Services(svc)})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		node.Poll(ctx, halibut.Server{Addr: ln.Addr().String(), Thumbprint: n.Thumbprint(), Subscription: sub, Connections: 2, Dial: cuts.dial})
	})
	t.Cleanup(func() {
		n.Close()
		stop()
		wg.Wait()
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	w.far = far{n, network.Endpoint{URI: string(sub), Thumbprint: string(id.Thumbprint)}}
	return cuts
}

// TestOverTheNetwork deploys to an agent that polls, whose connections are cut all
// the time, and cancels there.
func TestOverTheNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite)
	cuts := w.overNetwork()
	w.serve("a")
	done := make(chan struct{})
	var cutter sync.WaitGroup
	cutter.Go(func() {
		for tick := time.Tick(150 * time.Millisecond); ; {
			select {
			case <-done:
				return
			case <-tick:
				cuts.cut()
			}
		}
	})
	id := w.queue(false,
		step("One", w.run("one", `set_octopusvariable Word "from one"
echo "kept" > kept.txt
new_octopusartifact kept.txt
for i in $(seq 100); do echo "line $i"; done`)),
		step("Two", w.run("two", `echo "it is $(get_octopusvariable "Octopus.Action[One].Output.Word")"`)),
	)
	w.ends(id, octopus.TaskSuccess)
	close(done)
	cutter.Wait()
	if w.ran("one") != 1 || w.ran("two") != 1 {
		t.Errorf("the scripts ran %d and %d times", w.ran("one"), w.ran("two"))
	}
	log := w.log(id)
	if n := len(w.said(id, "line ")); n != 100 || !slices.Contains(log, "Info it is from one") {
		t.Errorf("%d lines of 100:\n%s", n, strings.Join(log, "\n"))
	}
	if kept := w.artifacts(id); kept["kept.txt"] != "kept\n" {
		t.Errorf("the artifacts are %q", kept)
	}
	id = w.queue(false, step("Long", w.run("long", "sleep 1000 & echo before; wait")))
	await(t, "it runs", func() bool { return w.ran("long") == 1 })
	w.cancel(id)
	w.ends(id, octopus.TaskCanceled)
	if n := len(w.said(id, "The script was canceled.")); n != 1 {
		t.Errorf("%q", w.log(id))
	}
	await(t, "the agent has forgotten the scripts", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
}
