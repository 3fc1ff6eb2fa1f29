package app

import (
	"context"
	"net"
	"path/filepath"

	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/directory"
	"github.com/takodeploy/tako/internal/targets/network"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/internal/targets/ssh"
	"github.com/takodeploy/tako/octopus"
)

// reach makes what finds agents: exe becomes the built-in worker, and is what SSH
// hosts of the same platform get.
func (a *App) reach(exe, installation string, store *docstore.Store) {
	machines := directory.New(a.db, store)
	a.machines = machines
	a.programs = program.NewFinder(exe)
	a.network = network.New(network.Config{AwaitIdentity: a.identity.Identity, Trust: machines.Trusts, Programs: a.programs, Proxies: machines, Log: a.log})
	a.hosts = ssh.New(ssh.Config{Installation: installation, Programs: a.programs, Accounts: machines, Proxies: machines, Log: a.log})
	a.targets = targets.New(targets.Config{
		Exe: exe, Home: filepath.Join(a.cfg.Data, "worker"), Disabled: !a.cfg.BuiltinWorker, Log: a.log,
		Directory: machines,
		Dialers: map[octopus.CommunicationStyle]targets.Dialer{
			octopus.StyleListening: a.network.Dial,
			octopus.StylePolling:   a.network.Dial,
			octopus.StyleSSH:       a.hosts.Dial,
		},
	})
}

// thumbprint is what agents have to trust.
func (a *App) thumbprint(ctx context.Context) (string, error) {
	print, err := a.identity.Thumbprint(ctx)
	return string(print), err
}

// identify makes the certificate for agents where there is none yet, beside everything
// else: who needs it sooner waits for it.
func (a *App) identify(ctx context.Context) error {
	if _, err := a.identity.Identity(ctx); err != nil && ctx.Err() == nil {
		a.log.Error("the certificate for agents was not made; whoever needs it next tries again", "err", err)
	}
	return nil
}

// AgentAddr is the address at which agents poll, nil where none does.
func (a *App) AgentAddr() net.Addr {
	if a.agents == nil {
		return nil
	}
	return a.agents.Addr()
}

// agentPort is where agents poll, 0 where none does.
func (a *App) agentPort() int {
	if at, ok := a.AgentAddr().(*net.TCPAddr); ok {
		return at.Port
	}
	return 0
}

// offline is what bundles of offline drops are made with, and where they do not go: to
// what the server itself keeps and runs.
func (a *App) offline(exe, version string) *orchestrator.Offline {
	protected := []string{a.cfg.Data, exe}
	if a.cfg.Backups != "" {
		protected = append(protected, a.cfg.Backups)
	}
	if a.launch != nil {
		protected = append(protected, filepath.Dir(filepath.Dir(a.launch.Socket))) // run/server-x.sock
	}
	return &orchestrator.Offline{Endpoint: a.machines.Endpoint, Programs: a.programs, Version: version, Protected: protected, Roots: a.cfg.DropRoots()}
}
