package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/remote"
	"github.com/takodeploy/tako/internal/agent/versions"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

// lookEvery is how often a running instance looks whether its settings have changed.
const lookEvery = time.Second

// Options are what an instance runs with. Store and Name are needed.
type Options struct {
	Store   Store
	Name    string
	Version string // of the program
	// Exe is the program that runners are started from; "" is the running one.
	Exe string
	// LockWait is how long to wait for another process to let go of the instance.
	LockWait time.Duration
	// Versions are the programs that servers have brought, nil where they cannot upgrade
	// the instance.
	Versions *versions.Store
	Log      *slog.Logger // nil discards
	Timing   halibut.Timing
	// Ready, unless nil, is called once the instance can be reached: with the address
	// that it listens on, nil when it does not.
	Ready func(net.Addr)
}

// ErrSwitch is how Run ends when the instance has to go on by another program.
var ErrSwitch = errors.New("the instance goes on by another program")

// Run is the life of an instance: it answers servers until ctx ends (nil) or it cannot
// go on. Scripts that run then go on without it, and the next Run has them back.
// Settings that commands change meanwhile it takes over within seconds, but for the
// home and the directory of applications. There is one Run for an instance at a time,
// on this machine.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	set, raw, err := o.Store.read(o.Name)
	if err != nil {
		return err
	}
	id, err := o.Store.Identity(o.Name)
	if err != nil {
		return err
	}
	svc, err := agent.Open(ctx, agent.Config{
		Home: set.Home, Applications: set.Applications, Instance: set.Name, Version: o.Version, Exe: o.Exe, Log: o.Log, LockWait: o.LockWait, Versions: o.Versions,
	})
	if errors.Is(err, agent.ErrHomeBusy) {
		return fmt.Errorf("the instance %q runs already: %w", set.Name, err)
	}
	if err != nil {
		return err
	}
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-svc.Failed():
			stop(errors.New("the agent's disk refused to make something durable"))
		case <-svc.Switching():
			stop(ErrSwitch)
		case <-serving.Done():
		}
	}()
	// Calls that wait for a script's end are answered before their connections close.
	defer context.AfterFunc(serving, svc.Stop)()
	l := &life{Options: o, ctx: serving, raw: raw}
	l.node = halibut.New(halibut.Config{
		Identity: id, Services: remote.Services(svc), TrustCaller: l.trusts, Timing: o.Timing, Log: o.Log,
	})
	err = l.run(set)
	stop(nil)
	l.wg.Wait()
	if err == nil && ctx.Err() == nil {
		err = context.Cause(serving)
	}
	return errors.Join(err, svc.Close())
}

// life is a running instance.
type life struct {
	Options

	ctx     context.Context //nolint:containedctx // the life itself
	node    *halibut.Node
	raw     []byte // the settings in force, as they were read
	callers atomic.Pointer[[]halibut.Thumbprint]
	wg      sync.WaitGroup

	listen   string // the address, "" for none
	listener *work
	pollers  map[poller]*work
}

// poller is a server that is polled, and how.
type poller struct {
	Server
	connections int
	proxy       string
}

// work is a part of a life that ends earlier when the settings say so.
type work struct {
	stop context.CancelFunc
	done chan struct{}
}

func (w *work) end() {
	w.stop()
	<-w.done
}

// ended reports whether it has come to its end by itself.
func (w *work) ended() bool {
	if w == nil {
		return false
	}
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func (l *life) start(f func(ctx context.Context)) *work {
	ctx, stop := context.WithCancel(l.ctx)
	w := &work{stop: stop, done: make(chan struct{})}
	l.wg.Go(func() {
		defer close(w.done)
		defer stop()
		f(ctx)
	})
	return w
}

func (l *life) trusts(peer halibut.Thumbprint) bool {
	all := l.callers.Load()
	return all != nil && slices.Contains(*all, peer)
}

func (l *life) run(set *Settings) error {
	addr, err := l.apply(set)
	if err != nil {
		return err
	}
	if len(set.Servers) == 0 {
		l.Log.Warn("no server is trusted yet; register this instance with one")
	}
	l.Log.Info("agent is ready", "instance", set.Name, "home", set.Home, "thumbprint", l.node.Thumbprint(), "pid", os.Getpid(), "version", l.Version)
	if l.Ready != nil {
		l.Ready(addr)
	}
	notify("READY=1")
	defer func() {
		if !errors.Is(context.Cause(l.ctx), ErrSwitch) {
			notify("STOPPING=1")
		}
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-l.ctx.Done():
			return nil
		case <-tick.C:
		}
		err := l.look()
		if err == nil {
			said = ""
		} else if err.Error() != said { // again and again for as long as it lasts
			said = err.Error()
			l.Log.Error("the changed settings cannot be taken over", "instance", l.Name, "err", err)
		}
	}
}

// look takes over settings that have changed, and listens again when that broke off.
func (l *life) look() error {
	set, raw, err := l.Store.read(l.Name)
	if err != nil || bytes.Equal(raw, l.raw) && !l.listener.ended() {
		return err
	}
	if _, err := l.apply(set); err != nil {
		return err
	}
	l.raw = raw
	l.Log.Info("took over changed settings", "instance", l.Name, "servers", len(set.Servers))
	return nil
}

// apply makes the life what the settings say. What has not changed goes on
// undisturbed.
func (l *life) apply(set *Settings) (net.Addr, error) {
	var callers []halibut.Thumbprint
	wanted := map[poller]bool{}
	for _, v := range set.Servers {
		if v.Style == octopus.StyleListening {
			callers = append(callers, v.Thumbprint)
			continue
		}
		v.URL = "" // means nothing to a poller
		wanted[poller{v, connections(set.Connections), set.Proxy}] = true
	}
	l.callers.Store(&callers)
	for p, w := range l.pollers {
		if !wanted[p] {
			l.Log.Info("polls no longer", "server", p.Address)
			w.end()
			delete(l.pollers, p)
		}
	}
	if l.pollers == nil {
		l.pollers = map[poller]*work{}
	}
	for p := range wanted {
		if l.pollers[p] != nil {
			continue
		}
		w, err := l.poll(p)
		if err != nil {
			return nil, err
		}
		l.pollers[p] = w
	}
	return l.relisten(set.listens())
}

func (l *life) poll(p poller) (*work, error) {
	addr, err := halibut.ParseAddress(p.Address, halibut.DefaultServerPort)
	if err != nil {
		return nil, err
	}
	proxy, err := ParseProxy(p.proxy)
	if err != nil {
		return nil, err
	}
	l.Log.Info("polls", "server", p.Address, "thumbprint", p.Thumbprint, "connections", p.connections)
	return l.start(func(ctx context.Context) {
		l.node.Poll(ctx, halibut.Server{
			Addr: addr, Thumbprint: p.Thumbprint, Subscription: p.Subscription, Connections: p.connections, Dial: through(proxy),
		})
	}), nil
}

// connections are as many as scripts can be expected to need at once.
func connections(configured int) int {
	if configured > 0 {
		return configured
	}
	return min(max(5, runtime.NumCPU()), MaxConnections)
}

func (l *life) relisten(addr string) (net.Addr, error) {
	if l.listener != nil {
		if addr == l.listen && !l.listener.ended() {
			return nil, nil
		}
		l.listener.end()
		l.listener, l.listen = nil, ""
	}
	if addr == "" {
		return nil, nil
	}
	ln, err := (&net.ListenConfig{}).Listen(l.ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another port by `configure --port`", addr, err)
	}
	l.Log.Info("listens", "addr", ln.Addr().String())
	l.listen = addr
	l.listener = l.start(func(ctx context.Context) {
		if err := l.node.Serve(ctx, ln); err != nil {
			l.Log.Error("stopped to listen", "addr", addr, "err", err)
		}
	})
	return ln.Addr(), nil
}
