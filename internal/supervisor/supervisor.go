// Package supervisor is the small parent of the servers. It owns the listening
// sockets, starts the version that is current, hands over to another without closing
// a socket, and goes back when a new one cannot stay alive.
//
// It knows no database, no TLS and no configuration but addresses, so that it need
// not change with them: a supervisor is older than the servers that it starts. If it
// is killed, its servers go on; the next one finds them by their sockets. While no server
// can be started it answers by itself, with a page that says so.
//
// In its root directory lie
//
//	versions/<version>/tako   programs, never changed
//	current -> versions/...   what is to run
//	previous -> versions/...  what to go back to; gone when there is no way back
//	run/supervisor.sock       where commands come from (Ask)
//	run/server-<pid>.sock     where each server answers
//	upgrade/                  the journal of upgrades
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// Config of a supervisor.
type Config struct {
	Root string
	// Addresses are those to listen on, by the names that servers know: "http",
	// "agents". Args are a server's arguments, the first is "server".
	Addresses map[string]string
	Args      []string
	// Environ is a server's environment, Stdout and Stderr where it writes.
	Environ        []string
	Stdout, Stderr *os.File
	// First makes a version the current one where there is none and no server runs, or
	// says why not: then the supervisor does not start. It may be nil.
	First  func() error
	Log    *slog.Logger
	Limits Limits
}

// Limits are the longest times of what a supervisor waits for; zero is the usual one.
type Limits struct {
	Ready   time.Duration // until a server could take over: 30 s
	Release time.Duration // until it has given its tasks back: 10 s
	Accept  time.Duration // until it serves: 2 s
	Duck    time.Duration // until it accepts nobody any more: 2 s
	Deep    time.Duration // until it has looked whether it does its work: 5 s
	Drain   time.Duration // until its last connection ends: 31 min
	Stop    time.Duration // until it has ended when everything is to end: 40 s
	Bind    time.Duration // until an address is free: 10 s
	// Adopt is how long a server of an earlier supervisor may say nothing before it is
	// killed: 30 s.
	Adopt time.Duration
	// Orphan is how long a candidate waits for a supervisor before it ends: 10 s.
	Orphan time.Duration
	// Crashes in a row make it go back, if there is a way back: 3. A server that has run for
	// CrashTime, 60 s, begins a new row; one that cannot be started has not run.
	Crashes   int
	CrashTime time.Duration
	// Page is how long nothing may serve until the supervisor itself answers: 5 s. After a
	// start that did not succeed it does at once.
	Page time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, usual time.Duration) {
		if *d <= 0 {
			*d = usual
		}
	}
	set(&l.Ready, 30*time.Second)
	set(&l.Release, 10*time.Second)
	set(&l.Accept, 2*time.Second)
	set(&l.Duck, 2*time.Second)
	set(&l.Deep, 5*time.Second)
	set(&l.Drain, 31*time.Minute)
	set(&l.Stop, 40*time.Second)
	set(&l.Bind, 10*time.Second)
	set(&l.Adopt, 30*time.Second)
	set(&l.Orphan, 10*time.Second)
	set(&l.CrashTime, time.Minute)
	set(&l.Page, 5*time.Second)
	if l.Crashes <= 0 {
		l.Crashes = 3
	}
	return l
}

// Supervisor is one that runs.
type Supervisor struct {
	cfg     Config
	log     *slog.Logger
	lock    *durable.Lock
	sockets map[string]*os.File
	page    *page    // what is answered while no server runs
	server  *child   // the one that serves, nil while there is none
	ducks   []*child // those that only finish their connections
	crashes int      // in a row
	trouble string   // how the last server has ended by itself, or why it could not be started
	stuck   bool     // there were too many crashes, and there is no way back
	outages int      // ends, and starts that failed, for want of what every version needs
	waited  int      // those since a server has last begun
	orders  chan order
	// Told when a server that was started by an earlier supervisor, or is a duck, ends.
	ended chan *child
}

// Run supervises until ctx ends; then it ends the servers.
func Run(ctx context.Context, cfg Config) (err error) {
	s := &Supervisor{cfg: cfg, log: cfg.Log, orders: make(chan order), ended: make(chan *child, 16)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.cfg.Limits = cfg.Limits.withDefaults()
	if err := os.MkdirAll(s.path("run"), 0o700); err != nil {
		return fmt.Errorf("make the directory for sockets: %w", err)
	}
	s.lock, err = durable.TryLock(s.path("run", "supervisor.lock"))
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("another supervisor runs in %s: %w", cfg.Root, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lock.Unlock()) }()
	if err := s.adopt(ctx); err != nil {
		return err
	}
	if err := s.first(); err != nil {
		return err
	}
	if err := s.bind(ctx); err != nil {
		return err
	}
	defer s.closeSockets()
	s.page = newPage(s.sockets, s.cfg.Limits.Page, s.log)
	defer s.page.hide()
	listening, stop := context.WithCancel(ctx)
	defer stop()
	commands, err := s.listen(listening)
	if err != nil {
		return err
	}
	defer func() { stop(); <-commands }()
	notifySystemd("READY=1", s.sockets)
	return s.loop(ctx)
}

// first has a version made the current one, where that is needed. A server that runs has
// told already which one it is.
func (s *Supervisor) first() error {
	if s.server != nil || s.cfg.First == nil {
		return nil
	}
	if _, err := os.Lstat(s.path("current")); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return s.cfg.First()
}

func (s *Supervisor) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Root}, parts...)...)
}

// bind opens the addresses whose sockets came from nobody else.
func (s *Supervisor) bind(ctx context.Context) error {
	if s.sockets == nil {
		s.sockets = map[string]*os.File{}
	}
	for name, f := range fromSystemd() {
		addr, wanted := s.cfg.Addresses[name]
		switch {
		case s.sockets[name] != nil: // the server has the same one
			_ = f.Close()
		case wanted && listensOn(ctx, f, addr):
			s.sockets[name] = f
		default: // it is kept over a restart, also when the settings have changed meanwhile
			s.log.Info("the socket that systemd has kept is not the one of the settings", "name", name, "settings", addr)
			_ = f.Close()
			forget(name)
		}
	}
	for name, addr := range s.cfg.Addresses {
		if s.sockets[name] != nil {
			continue
		}
		f, err := s.open(ctx, addr)
		if err != nil {
			return fmt.Errorf("listen on %s (%s): %w", addr, name, err)
		}
		s.sockets[name] = f
	}
	return nil
}

// open listens, again and again for a while: the processes of a killed supervisor may
// have the address until they are gone, and systemd until it has forgotten a socket.
func (s *Supervisor) open(ctx context.Context, addr string) (*os.File, error) {
	until := time.Now().Add(s.cfg.Limits.Bind)
	for {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err == nil {
			f, err := control.FileOf(ln)
			return f, errors.Join(err, ln.Close())
		}
		if ctx.Err() != nil || time.Now().After(until) {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *Supervisor) closeSockets() {
	for _, f := range s.sockets {
		_ = f.Close()
	}
}

// loop keeps a server running, and does what it is told.
func (s *Supervisor) loop(ctx context.Context) error {
	var next time.Time // the next start: an order that comes before it does not put it off
	wait := func(pause time.Duration) { next = time.Now().Add(pause) }
	for {
		var again <-chan time.Time
		if s.server == nil {
			s.page.expect()
			if pause := time.Until(next); pause > 0 {
				again = time.After(pause)
			} else if err := s.start(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("start the server", "err", err)
				s.page.show()
				s.trouble = strings.ReplaceAll(err.Error(), "\n", "; ")
				wait(s.failed(err))
				continue
			}
		}
		var gone <-chan struct{}
		if s.server != nil {
			gone = s.server.gone
		}
		select {
		case <-ctx.Done():
			return s.end()
		case <-again:
		case <-gone:
			s.log.Error("the server has ended", "version", s.server.version(), "pid", s.server.pid, "state", s.server.state())
			s.trouble = fmt.Sprintf("version %s has ended by itself: %s", s.server.version(), s.server.state())
			if s.proven() {
				s.crashes, s.stuck = 0, false
			}
			count := s.crashed
			if s.server.code == fault.ExitUnavailable {
				count = s.outage
			}
			s.server.close()
			s.server = nil
			wait(count())
		case d := <-s.ended:
			s.ducks = slices.DeleteFunc(s.ducks, func(c *child) bool { return c == d })
			d.close()
			s.log.Info("the former server has ended", "version", d.version(), "pid", d.pid)
		case o := <-s.orders:
			o.done <- s.obey(ctx, o)
		}
	}
}

// errUnavailable is a server that could not begin for want of something that every version
// needs.
var errUnavailable = errors.New("something that it needs is not there")

// failed is crashed after a start that did not succeed. Where another version would do no
// better, that is no crash, and nobody goes back for it.
func (s *Supervisor) failed(err error) time.Duration {
	if !errors.Is(err, errUnavailable) {
		return s.crashed()
	}
	return s.outage()
}

// outage is crashed for an end that is none of the version's doing.
func (s *Supervisor) outage() time.Duration {
	s.outages++
	s.waited++
	return min(100*time.Millisecond<<min(s.waited-1, 10), 5*time.Second)
}

// crashed counts the end of a server that nobody asked for. After too many it goes
// back, where there is a way. It tells how long to wait before the next start.
func (s *Supervisor) crashed() time.Duration {
	s.crashes++
	if s.stuck = s.crashes >= s.cfg.Limits.Crashes; s.stuck {
		if back, err := s.goBack(); err != nil {
			s.log.Error("go back to the previous version", "err", err)
		} else if back != "" {
			s.log.Error("the server could not stay alive; going back", "to", back)
			s.afresh()
			return 0
		}
	}
	if s.crashes < 2 {
		return 0
	}
	return min(100*time.Millisecond<<min(s.crashes-2, 10), 5*time.Second)
}

// proven reports whether the server has run for long enough to count as one that stays
// alive.
func (s *Supervisor) proven() bool {
	return s.server != nil && time.Since(s.server.started) >= s.cfg.Limits.CrashTime
}

// afresh forgets the crashes of another version.
func (s *Supervisor) afresh() { s.crashes, s.outages, s.stuck, s.trouble = 0, 0, false, "" }

// goBack makes the previous version the current one, if there is one.
func (s *Supervisor) goBack() (string, error) {
	back, err := os.Readlink(s.path("previous"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	bad, err := os.Readlink(s.path("current"))
	if err != nil {
		return "", err
	}
	if back == bad {
		return "", nil
	}
	s.note(NoteWentBack, map[string]string{"from": filepath.Base(bad), "to": filepath.Base(back)})
	return back, s.flip(bad, back)
}

// start runs the current version. It is told to accept, and does not begin to by itself,
// so that the supervisor has ended to answer in its place.
func (s *Supervisor) start(ctx context.Context) error {
	dir, err := os.Readlink(s.path("current"))
	if err != nil {
		return fmt.Errorf("find the current version: %w", err)
	}
	c, err := s.spawn(dir, true)
	if err != nil {
		return err
	}
	err = c.reach(ctx, s.cfg.Limits.Ready)
	if err == nil {
		s.page.hide()
		// As long as it was waited for to be ready: there is nobody else who could serve.
		err = c.tell(ctx, control.Accept, s.cfg.Limits.Ready)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("version %s does not answer: %w", filepath.Base(dir), err), c.kill())
		if c.code == fault.ExitUnavailable {
			err = fmt.Errorf("%w: %w", errUnavailable, err)
		}
		return err
	}
	c.started = time.Now()
	s.server, s.waited = c, 0
	s.log.Info("the server runs", "version", c.version(), "pid", c.pid)
	notifySystemd("STATUS=version "+c.version(), nil)
	return nil
}

// end stops everything in order.
func (s *Supervisor) end() error {
	notifySystemd("STOPPING=1", nil)
	all := s.ducks
	if s.server != nil {
		all = append(all, s.server)
	}
	for _, c := range all {
		c.terminate()
	}
	// One limit for all of them together: systemd waits for nobody any longer.
	limit, stop := context.WithTimeout(context.Background(), s.cfg.Limits.Stop)
	defer stop()
	for _, c := range all {
		select {
		case <-c.gone:
		case <-limit.Done():
			s.log.Error("the server does not end; killing it", "pid", c.pid)
			_ = c.kill()
		}
		c.close()
	}
	return nil
}

// adopt finds the servers of an earlier supervisor. At most one goes on serving; what
// an interrupted switch has left is brought to an end.
func (s *Supervisor) adopt(ctx context.Context) error {
	if err := s.endHidden(ctx); err != nil {
		return err
	}
	paths, err := filepath.Glob(s.path("run", "server-*.sock"))
	if err != nil {
		return err
	}
	found, err := s.strays(ctx, paths)
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b *child) int { return a.started.Compare(b.started) })
	for _, c := range slices.Backward(found) { // the youngest first: a switch goes forward
		switch c.status.Stage {
		case control.Serving:
			if s.server == nil {
				s.server = c
				continue
			}
			s.retire(ctx, c)
		case control.Ducking:
			s.watchDuck(c)
		case control.Starting, control.Ready, control.Released:
		}
	}
	for _, c := range slices.Backward(found) {
		switch {
		case c.status.Stage == control.Released && s.server == nil:
			if err := c.tell(ctx, control.Resume, s.cfg.Limits.Accept); err != nil {
				s.log.Error("let a server go on", "pid", c.pid, "err", err)
				_ = c.kill()
				continue
			}
			s.server = c
		case c.status.Stage == control.Released:
			s.retire(ctx, c)
		case c.status.Stage == control.Starting || c.status.Stage == control.Ready:
			_ = c.kill() // nobody has seen it
		}
	}
	if s.server == nil {
		return nil
	}
	s.log.Info("a server of an earlier supervisor goes on", "version", s.server.version(), "pid", s.server.pid)
	s.sockets = map[string]*os.File{}
	for _, name := range s.server.status.Listeners {
		f, err := s.server.conn.Listener(ctx, name)
		if err != nil {
			return fmt.Errorf("take the socket %s over: %w", name, err)
		}
		s.sockets[name] = f
	}
	if err := s.settle(s.server); err != nil { // it serves all the same
		s.log.Error("make the version that serves the current one", "version", s.server.version(), "err", err)
	}
	return nil
}

// settle makes the version that serves the current one: a switch that was cut short
// after its new version had begun is complete. A link that was lost is made anew.
func (s *Supervisor) settle(c *child) error {
	dir := c.dir(s.cfg.Root)
	current, err := os.Readlink(s.path("current"))
	switch {
	case dir == "" || err == nil && current == dir:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return durable.Symlink(dir, s.path("current"))
	case err != nil:
		return err
	}
	return s.flip(current, dir)
}

// flip makes a version the current one, and the other the one to go back to; who goes
// back has no way back.
func (s *Supervisor) flip(from, to string) error {
	s.note(NoteSwitched, map[string]string{"from": filepath.Base(from), "to": filepath.Base(to)})
	previous, err := os.Readlink(s.path("previous"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if previous == to { // one step, which also a full disk allows
		return durable.Rename(s.path("previous"), s.path("current"))
	}
	if err := durable.Symlink(from, s.path("previous")); err != nil {
		return err
	}
	return durable.Symlink(to, s.path("current"))
}

// versionDir is the link's text for a version of this root that is there.
func (s *Supervisor) versionDir(version string) (string, error) {
	if version == "" || strings.ContainsAny(version, "/\\") || strings.HasPrefix(version, ".") {
		return "", fmt.Errorf("%.60q is no version", version)
	}
	dir := filepath.Join("versions", version)
	if _, err := os.Stat(filepath.Join(s.cfg.Root, dir, program)); err != nil {
		return "", fmt.Errorf("version %s is not installed: %w", version, err)
	}
	return dir, nil
}
