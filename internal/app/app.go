// Package app builds a server from its configuration and runs it. It is the only
// place where the parts meet; no part finds another by itself.
package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/internal/mail"
	"github.com/takodeploy/tako/internal/notify"
	"github.com/takodeploy/tako/internal/oidc"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/renewal"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/server"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/schedule"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/directory"
	"github.com/takodeploy/tako/internal/targets/network"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/internal/targets/ssh"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Options are what a server needs beside its configuration.
type Options struct {
	Log *slog.Logger
	// Version is what clients see ("2026.4.0").
	Version string
	// Launch is how a supervisor has started this server; nil if none has.
	Launch *control.Started
	// Exe is the program that becomes the built-in worker; this one unless set.
	Exe string
	// Now is the clock of everything that is no lease; time.Now unless set.
	Now func() time.Time
	// OnStatement is told of every SQL statement, for tests that count them; see db.Options.
	OnStatement func(query string)
	// Upgrades is what upgrades need of the program that runs.
	Upgrades UpgradeOptions
	// Proof says that the server only answers a proof of a backup, on a copy that is
	// thrown away: whether it is a test instance's does not matter.
	Proof bool
	// Reserve is the size of the file that is given up when the disk is full, in bytes;
	// reserve.Size unless set.
	Reserve int64
}

// App is a server, ready to run.
type App struct {
	cfg      config.Config
	log      *slog.Logger
	db       *db.DB
	keys     *secret.Box
	auth     *auth.Service
	tasks    *tasks.Service
	identity *network.Certificate
	targets  *targets.Targets
	janitor  *orchestrator.Janitor
	schedule *schedule.Scheduler
	notify   *notify.Service
	handler  *rest.Server
	listener net.Listener
	network  *network.Network
	hosts    *ssh.Hosts
	programs *program.Finder
	machines *directory.Directory
	agents   net.Listener // nil where no agent polls
	tls      *certificates
	drain    context.CancelFunc
	version  string
	launch   *control.Started // nil without a supervisor
	answers  answers
	instance *instance.Marker // nil for a server that is no test instance
	upgrades upgrades
	reserve  *reserve.Reserve // nil for a server that only answers a proof
}

// New opens or sets up everything in the configured places and listens, so that
// Addr is known; it answers no request before Run.
func New(ctx context.Context, cfg config.Config, opt Options) (_ *App, err error) {
	a := &App{cfg: cfg, log: opt.Log, version: opt.Version, launch: opt.Launch}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.instance, err = instance.ShutIn(cfg.Data, cfg.Database); err != nil {
		return nil, err
	}
	if a.instance.Quarantined() {
		// Scripts are not bound by what binds this process, and no agent is its own.
		cfg.BuiltinWorker, cfg.AgentListen = false, ""
		a.cfg = cfg
		a.log.Warn("this server is a test instance in quarantine: it connects to its own host only and runs no script", "parent", a.instance.Parent)
	}
	if err := prepareData(cfg); err != nil {
		return nil, err
	}
	if a.tls, err = loadCertificates(cfg.TLSCert, cfg.TLSKey); err != nil {
		return nil, err
	}
	if a.listener, err = a.listen(ctx, SocketHTTP, cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	if cfg.AgentListen != "" {
		if a.agents, err = a.listen(ctx, SocketAgents, cfg.AgentListen); err != nil {
			return nil, fmt.Errorf("listen for agents on %s: %w; set agent_listen to another address, or to off if no agent polls", cfg.AgentListen, err)
		}
	}
	a.prepareReserve(opt)
	if a.db, err = openDatabase(ctx, cfg, opt, a.instance, a.log, a.makeRoom); err != nil {
		return nil, err
	}
	if a.keys, err = secret.Open(ctx, a.db, keySource(cfg)); err != nil {
		return nil, err
	}
	if err := a.keys.EnsureRecovery(ctx); err != nil {
		return nil, err
	}
	if a.identity, err = network.OpenCertificate(ctx, a.db, a.keys); err != nil {
		return nil, err
	}
	blobs, err := blob.OpenDir(filepath.Join(cfg.Data, "blobs"))
	if err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	blobs.WhenFull(a.outOfRoom)
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return nil, err
	}
	store := docstore.New(kinds, a.keys)
	meta, err := a.db.Meta(ctx)
	if err != nil {
		return nil, err
	}
	if a.auth, err = auth.Open(a.db, store, auth.Options{
		Log: a.log, Now: opt.Now, Installation: meta.InstallationID, Sealer: a.keys, Issuers: oidc.New(oidc.Config{Allow: a.outbound(), Now: opt.Now}),
	}); err != nil {
		return nil, err
	}
	if err := a.seed(ctx, store); err != nil {
		return nil, fmt.Errorf("set up a new server: %w", err)
	}
	return a, a.wire(ctx, opt, parts{a.keys, blobs, store, meta.InstallationID})
}

// listen takes the supervisor's socket of that name, or opens one.
func (a *App) listen(ctx context.Context, name, addr string) (net.Listener, error) {
	if a.launch != nil {
		if ln := a.launch.Listeners[name]; ln != nil {
			return ln, nil
		}
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
}

// outbound says which addresses may be connected to because somebody with a permission
// named them: webhooks, issuers of tokens.
func (a *App) outbound() func(netip.Addr) bool {
	if a.cfg.WebhooksToSelf {
		return func(at netip.Addr) bool { return at.Unmap().IsLoopback() || notify.AllowWebhook(at) }
	}
	return notify.AllowWebhook
}

// parts are what wire connects.
type parts struct {
	keys         *secret.Box
	blobs        *blob.Dir
	store        *docstore.Store
	installation string
}

func (a *App) wire(ctx context.Context, opt Options, p parts) error {
	exe := opt.Exe
	if exe == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		exe = self
	}
	a.reach(exe, p.installation, p.store)
	packages := feed.New(a.db, p.blobs)
	others := external.New(external.Config{DB: a.db, Store: p.store, Blobs: p.blobs})
	runners := map[octopus.TaskName]tasks.Runner{}
	var err error
	a.tasks, err = tasks.Open(ctx, tasks.Config{
		DB: a.db, Blobs: p.blobs, Log: a.log, RunDir: runDir(a.cfg), Node: a.cfg.Node, Version: opt.Version, Runners: runners,
	})
	if err != nil {
		return err
	}
	sources := feeds{a.db, packages, others}
	service := releases.New(releases.Config{DB: a.db, Store: p.store, Queue: a.tasks, Packages: sources, Sealer: p.keys, Log: a.log, ServerURI: a.cfg.ServerURI})
	post := mail.New(a.db, p.store)
	runners[octopus.TaskDeploy] = orchestrator.New(orchestrator.Config{
		DB: a.db, Source: service, Agents: a.targets, Checks: a.targets.Checking(), TakesWork: a.targets.TakesWork, Blobs: p.blobs, Sealer: p.keys, Earlier: sources.earlier, Mail: post, Log: a.log,
		Offline: a.offline(exe, opt.Version),
	})
	a.notify = notify.New(notify.Config{
		DB: a.db, Store: p.store, Auth: a.auth, Trail: events.New(p.store.Kinds()), Mail: post, Log: a.log, ServerURI: a.cfg.ServerURI, Allow: a.outbound(),
	})
	packages.Notify(func(ctx context.Context, tx *db.Tx, p *feed.Package) error {
		return schedule.Pushed(ctx, tx, p.Space, p.PackageID, p.Version)
	})
	a.schedule = schedule.New(schedule.Config{DB: a.db, Store: p.store, Releases: service, Queue: a.tasks, Proven: a.proven, Log: a.log})
	if err := a.schedule.Ensure(ctx); err != nil {
		return err
	}
	runners[octopus.TaskRetention] = retention.New(retention.Config{DB: a.db, Store: p.store, Releases: service, Packages: packages, Fetched: others, Blobs: p.blobs, RunDir: runDir(a.cfg), Log: a.log})
	runners[octopus.TaskSystemIntegrityCheck] = doctor.NewRunner(doctorConfig(a.cfg, a.db, p.store, p.blobs, a.log))
	runners[octopus.TaskBackup] = a.backupRunner(opt, p)
	runners[octopus.TaskClone] = runners[octopus.TaskBackup]
	runners[octopus.TaskAdHocScript] = orchestrator.New(orchestrator.Config{DB: a.db, Source: releases.Scripts{Service: service}, Agents: a.targets, Blobs: p.blobs, Sealer: p.keys, Log: a.log})
	runners[octopus.TaskHealth] = health.New(health.Config{
		DB: a.db, Store: p.store, Agents: a.targets.Checking(), Programs: a.programs, Log: a.log,
		Settled: func(context.Context) (bool, error) { return a.upgrades.settled() },
		Upgrade: func(ctx context.Context, tx *db.Tx, space ident.SpaceID, machines []health.Machine) error {
			return renewal.Queue(ctx, tx, a.tasks, space, machines)
		},
	})
	runners[octopus.TaskUpgrade] = renewal.New(renewal.Config{DB: a.db, Store: p.store, Agents: a.targets, Programs: a.programs, Log: a.log})
	runners[octopus.TaskUpdateCalamari] = renewal.Tools{}
	a.janitor = orchestrator.NewJanitor(a.tasks, a.targets, a.log)
	draining, drain := context.WithCancel(context.WithoutCancel(ctx))
	a.drain = drain
	a.upgrades = a.prepareUpgrades(draining, opt, exe, p.store)
	a.handler, err = rest.New(rest.Config{
		Log: a.log, DB: a.db, Store: p.store, Auth: authenticator(a.auth),
		Routes:  routes(a, opt.Version, p.store, service, packages, others, p.blobs),
		Aliases: aliases(),
		Guard:   server.Guard(a.db, p.store),
		Version: opt.Version, InstallationID: p.installation, TestInstance: a.instance != nil, Base: a.cfg.BasePath, Drain: draining, Answered: a.answers.count,
	})
	return err
}

// authenticator lets the API ask auth.
func authenticator(s *auth.Service) rest.Authenticator {
	return rest.AuthenticatorFunc(func(r *http.Request) (rest.Principal, error) {
		p, err := s.FromRequest(r)
		if err != nil || p == nil {
			return rest.Anonymous{}, err
		}
		return p, nil
	})
}

// prepareData makes the data directory. One that has something in it, but not
// the database that its server had, is left alone: a new database beside old
// blobs and keys would be a server without a memory.
func prepareData(cfg config.Config) error {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	half, err := backup.Pending(cfg.Data)
	if err != nil {
		return err
	}
	if half != "" {
		return fault.New(fault.Conflict, "The restore of backup %s into %s was cut short; end it first: tako backup restore %s", half, cfg.Data, half)
	}
	if cfg.Database != "sqlite:"+filepath.Join(cfg.Data, "tako.db") {
		return nil
	}
	_, err = os.Stat(filepath.Join(cfg.Data, "tako.db"))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(cfg.Data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "master.key" {
			return fmt.Errorf("the data directory %s has %s in it but no tako.db; restore the database, or name an empty directory with --data", cfg.Data, e.Name())
		}
	}
	return nil
}

func openDatabase(ctx context.Context, cfg config.Config, opt Options, marker *instance.Marker, log *slog.Logger, makeRoom func() bool) (*db.DB, error) {
	how := db.Options{Log: log, Now: opt.Now, OnStatement: opt.OnStatement, OnFull: makeRoom}
	d, err := db.Open(ctx, cfg.Database, how)
	if fault.Is(err, fault.Unavailable) && strings.HasPrefix(cfg.Database, "sqlite:") && makeRoom() {
		d, err = db.Open(ctx, cfg.Database, how) // on a disk that was full when the former process ended
	}
	if err != nil {
		return nil, err
	}
	if !opt.Proof {
		if err := instance.Check(ctx, d, marker); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	if err := bringUp(ctx, cfg, opt, d, log); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Addr is the address the server listens on.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

// URL is where the server is reached from its own host.
func (a *App) URL() string {
	scheme := "http"
	if a.tls != nil {
		scheme = "https"
	}
	return scheme + "://" + a.listener.Addr().String() + a.cfg.BasePath
}

// Handler is the API, for tests that need no socket.
func (a *App) Handler() http.Handler { return a.handler }

// Close releases what New opened. Run must have returned.
func (a *App) Close() error {
	var errs []error
	if a.drain != nil {
		a.drain()
	}
	if a.tasks != nil {
		errs = append(errs, a.tasks.Close())
	}
	if a.network != nil {
		a.network.Close()
	}
	if a.hosts != nil {
		a.hosts.Close()
		errs = append(errs, a.programs.Close())
	}
	for _, l := range []net.Listener{a.listener, a.agents} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	return errors.Join(errs...)
}
