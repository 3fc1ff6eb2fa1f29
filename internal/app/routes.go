package app

import (
	"context"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/backups"
	"github.com/takodeploy/tako/internal/rest/actions/dashboard"
	"github.com/takodeploy/tako/internal/rest/actions/library"
	"github.com/takodeploy/tako/internal/rest/actions/machines"
	"github.com/takodeploy/tako/internal/rest/actions/packages"
	"github.com/takodeploy/tako/internal/rest/actions/projects"
	"github.com/takodeploy/tako/internal/rest/actions/registration"
	releaseroutes "github.com/takodeploy/tako/internal/rest/actions/releases"
	"github.com/takodeploy/tako/internal/rest/actions/server"
	taskroutes "github.com/takodeploy/tako/internal/rest/actions/tasks"
	"github.com/takodeploy/tako/internal/rest/actions/tenants"
	"github.com/takodeploy/tako/internal/rest/actions/triggers"
	upgraderoutes "github.com/takodeploy/tako/internal/rest/actions/upgrades"
	"github.com/takodeploy/tako/internal/rest/actions/users"
)

// routes are the operations that are no plain resources.
func routes(a *App, version string, store *docstore.Store, service *releases.Service, repo *feed.Repository, others *external.Feeds, blobs *blob.Dir) []rest.Route {
	var all []rest.Route
	all = append(all, users.Routes(a.db, store, a.auth)...)
	all = append(all, server.Routes(server.Config{
		DB: a.db, Store: store, Version: version, Node: a.cfg.Node, BuiltinWorker: a.cfg.BuiltinWorker, Started: time.Now(),
		Thumbprint: a.thumbprint, Instance: a.instance, Newest: a.upgrades.newest, ChecksForUpgrades: a.upgrades.named, OutOfRoom: a.outOfRoom,
	})...)
	all = append(all, projects.Routes(a.db, store)...)
	all = append(all, triggers.Routes(a.db, store)...)
	all = append(all, library.Routes(a.db, store)...)
	all = append(all, tenants.Routes(a.db, store)...)
	all = append(all, machines.Routes(a.db, store, a.machines)...)
	all = append(all, packages.Routes(a.db, store, repo, others)...)
	all = append(all, releaseroutes.Routes(a.db, service)...)
	all = append(all, taskroutes.Routes(a.db, store, a.tasks, service, blobs)...)
	all = append(all, dashboard.Routes(a.db, store, service)...)
	all = append(all, registration.Routes(registration.Config{
		DB: a.db, Store: store, Auth: a.auth, Thumbprint: a.thumbprint, ServerURI: a.cfg.ServerURI, CommsPort: a.agentPort(),
		Maintenance: func(ctx context.Context, tx *db.Tx) (bool, error) { return server.InMaintenance(ctx, tx, store) },
	})...)
	all = append(all, backups.Routes(backups.Config{
		DB: a.db, Queue: a.tasks, Open: a.openBackups, Own: ownDirectories(a.cfg), Database: a.cfg.Database, CloneHosts: a.cfg.CloneHosts(),
	})...)
	all = append(all, upgraderoutes.Routes(a.upgradeRoutes(version))...)
	return all
}

// aliases are further paths of declared kinds.
func aliases() []rest.Alias {
	return append(users.Aliases(), []rest.Alias{
		{Kind: "channels", Pattern: "/projects/{owner}/channels", Owner: "projects", Within: "ProjectId"},
		{Kind: "projecttriggers", Pattern: "/projects/{owner}/triggers", Owner: "projects", Within: "ProjectId"},
		{Kind: "projects", Pattern: "/projectgroups/{owner}/projects", Owner: "projectgroups", Within: "ProjectGroupId", Only: []string{"list"}},
		{Kind: "projects", Pattern: "/lifecycles/{owner}/projects", Owner: "lifecycles", Within: "LifecycleId", Only: []string{"list"}},
		{Kind: "machines", Pattern: "/environments/{owner}/machines", Owner: "environments", Within: "EnvironmentIds", Only: []string{"list"}},
		{Kind: "tenants", Pattern: "/tenant", Only: []string{"get"}}, // as one client spells it
		{Kind: "workers", Pattern: "/workerpools/{owner}/workers", Owner: "workerpools", Within: "WorkerPoolIds", Only: []string{"list"}},
	}...)
}

// RouteTable lists every operation of the API without a database behind it.
func RouteTable(version string) ([]rest.Line, error) {
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return nil, err
	}
	handler, err := rest.New(rest.Config{
		Store: docstore.New(kinds, nil), Routes: routes(&App{}, version, docstore.New(kinds, nil), nil, nil, nil, nil), Aliases: aliases(),
		Version: version, InstallationID: "00000000-0000-0000-0000-000000000000",
	})
	if err != nil {
		return nil, err
	}
	return handler.Routes(), nil
}
