package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/installed"
	"github.com/takodeploy/tako/internal/lameduck"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// Names of the listening sockets, as a supervisor hands them over.
const (
	SocketHTTP   = "http"
	SocketAgents = "agents"
)

// shutdownGrace is how long answers that are under way may take at the end.
const shutdownGrace = 20 * time.Second

// loops are goroutines that go on until they are stopped.
type loops struct {
	ctx  context.Context //nolint:containedctx // whether they are to go on
	stop context.CancelFunc
	done chan struct{}
}

// begin starts loops, which end with ctx. An error of one of them is told to failed.
func begin(ctx context.Context, failed func(error), all ...func(context.Context) error) *loops {
	ctx, stop := context.WithCancel(ctx)
	l := &loops{ctx: ctx, stop: stop, done: make(chan struct{})}
	var wg sync.WaitGroup
	for _, run := range all {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				failed(err)
			}
		})
	}
	go func() {
		defer close(l.done)
		defer stop()
		wg.Wait()
	}()
	return l
}

// end stops the loops and waits until they have ended, or ctx.
func (l *loops) end(ctx context.Context) error {
	l.stop()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait stops the loops and waits until they have ended.
func (l *loops) wait() {
	if l != nil {
		l.stop()
		<-l.done
	}
}

// answers counts what a server has answered, for whoever watches a new version.
type answers struct{ all, failed atomic.Int64 }

// count takes in the status of one answer.
func (a *answers) count(status int) {
	a.all.Add(1)
	if status >= http.StatusInternalServerError {
		a.failed.Add(1)
	}
}

// life takes a server through its stages. By itself it serves until it is to end; under
// a supervisor it may first be a candidate, and in the end a lame duck.
type life struct {
	app  *App
	ctx  context.Context //nolint:containedctx // that of Run, under which everything runs
	fail context.CancelCauseFunc
	http *lameduck.Server

	turn sync.Mutex // held during a change of stage
	work *loops     // what claims tasks and keeps time, nil if nothing does
	port *loops     // what serves agents that poll

	mu    sync.Mutex
	stage control.Stage
}

var _ control.Server = (*life)(nil)

func newLife(ctx context.Context, a *App, fail context.CancelCauseFunc) *life {
	return &life{app: a, ctx: ctx, fail: fail, stage: control.Ready, http: lameduck.New(&http.Server{
		Handler:           a.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 * 1024,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	})}
}

func (l *life) at() control.Stage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stage
}

func (l *life) become(s control.Stage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stage = s
}

// Status is control.Server.
func (l *life) Status() control.Status {
	st := control.Status{
		PID: os.Getpid(), Version: l.app.version, Stage: l.at(), Listeners: []string{SocketHTTP},
		Answers: l.app.answers.all.Load(), Failed: l.app.answers.failed.Load(),
	}
	if l.app.agents != nil {
		st.Listeners = append(st.Listeners, SocketAgents)
	}
	return st
}

// Ready is control.Server: New has done all that can fail, but the database may have
// changed since.
func (l *life) Ready(ctx context.Context) error {
	return db.CheckStart(ctx, l.app.db, db.BinaryLevels())
}

// Deep is control.Server.
func (l *life) Deep(ctx context.Context) error {
	if at := l.at(); at != control.Serving {
		return fmt.Errorf("the server is %s", at)
	}
	if err := l.Ready(ctx); err != nil {
		return err
	}
	w := &probe{header: http.Header{}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+l.app.cfg.BasePath+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	l.app.handler.ServeHTTP(w, r)
	if w.status != 0 && w.status != http.StatusOK {
		return fmt.Errorf("the server is not ready (status %d)", w.status)
	}
	return nil
}

// probe looks at the status of an answer.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(status int)      { p.status = status }

// errStage refuses what does not follow from where a server is.
func errStage(at control.Stage, to string) error {
	return fmt.Errorf("a server that is %s cannot %s", at, to)
}

// Accept is control.Server.
func (l *life) Accept(context.Context) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	switch at := l.at(); at {
	case control.Serving:
		return nil
	case control.Ready:
	case control.Starting, control.Released, control.Ducking:
		return errStage(at, "begin to serve")
	}
	a := l.app
	listener := a.listener
	if a.tls != nil {
		listener = tls.NewListener(listener, a.tls.config())
	}
	l.startWork()
	if a.agents != nil {
		l.port = begin(l.ctx, l.failed, func(ctx context.Context) error { return a.network.Serve(ctx, a.agents) })
	}
	begin(l.ctx, l.failed, func(context.Context) error { return l.http.Serve(listener) })
	l.become(control.Serving)
	return nil
}

// failed ends the server: one of its parts cannot go on.
func (l *life) failed(err error) {
	if l.ctx.Err() == nil {
		l.fail(err)
	}
}

// startWork begins everything that only one version may do at a time for this node.
func (l *life) startWork() {
	a := l.app
	l.work = begin(l.ctx, l.failed, a.tasks.Run, a.janitor.Run, a.schedule.Run, a.notify.Run, a.db.KeepStatistics, a.upgrades.lookout.Run, a.keepReserve,
		func(ctx context.Context) error {
			// Nobody's work waits for it, and the next start notes it.
			if err := installed.Record(ctx, a.db, a.cfg.Node, a.version); err != nil && ctx.Err() == nil {
				a.log.Warn("the history of versions has a gap", "err", err)
			}
			return nil
		},
		func(ctx context.Context) error {
			// Beside everything else: what does not need the worker need not wait for it.
			if err := a.targets.Start(ctx); err != nil && ctx.Err() == nil {
				a.log.Error("start the built-in worker", "err", err)
			}
			return nil
		})
}

// Prepare is control.Server.
func (l *life) Prepare(ctx context.Context) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	switch at := l.at(); at {
	case control.Released:
		return nil
	case control.Serving:
	case control.Starting, control.Ready, control.Ducking:
		return errStage(at, "give its tasks back")
	}
	if err := l.work.end(ctx); err != nil {
		return fmt.Errorf("give the tasks back: %w", err)
	}
	l.become(control.Released)
	return nil
}

// Resume is control.Server.
func (l *life) Resume(ctx context.Context) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	switch at := l.at(); at {
	case control.Released, control.Serving:
	case control.Starting, control.Ready, control.Ducking:
		return errStage(at, "go on")
	}
	if l.work.ctx.Err() == nil {
		return nil
	}
	// It may not have been in time for Prepare.
	if err := l.work.end(ctx); err != nil {
		return fmt.Errorf("wait for the end of what was begun: %w", err)
	}
	l.startWork()
	l.become(control.Serving)
	return nil
}

// Duck is control.Server.
func (l *life) Duck(ctx context.Context) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	switch at := l.at(); at {
	case control.Ducking:
		return nil
	case control.Released, control.Serving:
	case control.Starting, control.Ready:
		return errStage(at, "end by and by")
	}
	l.become(control.Ducking)
	l.http.Duck()
	l.app.drain() // live logs end, and are followed elsewhere
	if l.port != nil {
		l.port.stop()
	}
	return l.work.end(ctx)
}

// ListenerFile is control.Server.
func (l *life) ListenerFile(name string) (*os.File, error) {
	switch {
	case name == SocketHTTP:
		return control.FileOf(l.app.listener)
	case name == SocketAgents && l.app.agents != nil:
		return control.FileOf(l.app.agents)
	}
	return nil, fmt.Errorf("there is no socket %q", name)
}

// Run serves until ctx ends, then finishes the answers under way and gives the
// tasks back. It returns once nothing of it runs any more. Under a supervisor it also
// ends when another version serves and the last connection has gone.
func (a *App) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	l := newLife(ctx, a, fail)
	always := []func(context.Context) error{
		a.auth.Run,
		a.identify,
		func(ctx context.Context) error { return a.keys.Follow(ctx, a.tasks.Incarnation(), a.log) },
		a.watchDatabase,
	}
	if a.launch == nil || !a.launch.Candidate {
		if err := l.Accept(ctx); err != nil {
			return err
		}
	}
	if a.launch != nil {
		always = append(always, func(ctx context.Context) error { return control.Serve(ctx, a.launch, l) })
	}
	base := begin(ctx, l.failed, always...)
	select {
	case <-ctx.Done():
	case <-l.http.Drained():
	}
	fail(nil)
	err := l.end()
	base.wait()
	return errors.Join(err, reason(context.Cause(ctx)))
}

// reason is why a server ended, nil if it was told to.
func reason(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// end stops what a server does.
func (l *life) end() error {
	l.app.drain() // live logs end by themselves
	grace, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), shutdownGrace)
	defer cancel()
	err := l.http.Shutdown(grace)
	l.turn.Lock()
	defer l.turn.Unlock()
	l.port.wait()
	l.work.wait()
	return err
}

// watchDatabase ends the server when it no longer knows what its database has:
// the next start finds out.
func (a *App) watchDatabase(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.db.Failed():
		return fmt.Errorf("the database failed in the middle of a commit; the server ends, to start from what is stored: %w", db.ErrFateUnknown)
	}
}
