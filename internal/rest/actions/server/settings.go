package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// setting is a document of settings, of which there is one.
type setting struct {
	a        *api
	k        *resource.Kind
	complete func(resource.Tree) // what does not come from the document
	absent   func(resource.Tree) // defaults that depend on how the server was started
}

// settingRoutes are the settings of the server. Whoever is signed in may read
// them, but for those that tell of its surroundings.
func (a *api) settingRoutes() []rest.Route {
	var routes []rest.Route
	for _, k := range resources.Configurations() {
		s := &setting{a: a, k: k}
		view := rest.SignedIn
		switch k.Name {
		case "featuresconfiguration":
			s.complete = func(t resource.Tree) { t["IsBuiltInWorkerEnabled"] = a.BuiltinWorker }
		case resources.UpgradeConfigurationKind:
			s.absent = func(t resource.Tree) { t["AllowChecking"] = a.ChecksForUpgrades != nil && a.ChecksForUpgrades() }
		case "serverconfiguration", "smtpconfiguration":
			view = configure
		case resources.BackupConfigurationKind:
			view = administer
		}
		routes = append(
			routes,
			rest.Route{Method: http.MethodGet, Pattern: "/" + k.Name, Permission: view, Handler: s.get, Response: k.Type, Summary: "Reads the " + k.Noun + "."},
			rest.Route{Method: http.MethodPut, Pattern: "/" + k.Name, Permission: k.Permissions.Edit, Handler: s.put, Body: k.Type, Response: k.Type, Summary: "Changes the " + k.Noun + "."},
		)
	}
	return routes
}

// read returns the document; nil when there is none, and the defaults hold.
func (s *setting) read(ctx context.Context, tx *db.Tx) (*docstore.Doc, error) {
	doc, err := s.a.Store.Get(ctx, tx, s.k, "", s.k.Prefix)
	if fault.Is(err, fault.NotFound) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return doc, err
}

func (s *setting) get(r *rest.Request) (any, error) {
	var doc *docstore.Doc
	err := s.a.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = s.read(r.Context(), tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.answer(r, doc)
}

func (s *setting) put(r *rest.Request) (any, error) {
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	if err := s.possible(body); err != nil {
		return nil, err
	}
	expect, err := r.Expects()
	if err != nil {
		return nil, err
	}
	var doc *docstore.Doc
	err = s.a.DB.Write(r.Context(), func(tx *db.Tx) error {
		old, err := s.read(r.Context(), tx)
		if err != nil {
			return err
		}
		if old == nil {
			doc, err = s.a.Store.Create(r.Context(), tx, s.k, docstore.Input{ID: s.k.Prefix, Body: body})
			return err
		}
		doc, err = s.a.Store.Replace(r.Context(), tx, s.k, "", s.k.Prefix, docstore.Input{Body: body, Expect: expect})
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.answer(r, doc)
}

// possible refuses what would be stored and change nothing.
func (s *setting) possible(body []byte) error {
	_, v, err := s.k.Decode(body)
	if err != nil {
		return err
	}
	if f, ok := v.(*octopus.FeaturesConfiguration); ok && f.IsBuiltInWorkerEnabled != s.a.BuiltinWorker {
		return fault.InvalidField("IsBuiltInWorkerEnabled", "IsBuiltInWorkerEnabled is %t; the built-in worker is switched where the server is started: set builtin_worker in its configuration.", f.IsBuiltInWorkerEnabled)
	}
	return nil
}

func (s *setting) answer(r *rest.Request, doc *docstore.Doc) (any, error) {
	var tree resource.Tree
	var err error
	if doc != nil {
		tree, err = s.a.Store.Tree(s.k, doc)
	} else {
		v := s.k.New()
		s.k.Prepare(v)
		if tree, err = s.k.Encode(v, nil); err == nil {
			tree["Id"] = s.k.Prefix
			if s.absent != nil {
				s.absent(tree)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if s.complete != nil {
		s.complete(tree)
	}
	tree["Links"] = octopus.Links{"Self": r.Href("/api/" + s.k.Name)}
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", s.k.Noun, err)
	}
	if doc == nil {
		return json.RawMessage(body), nil
	}
	return rest.Tagged{Body: json.RawMessage(body), Version: doc.Version}, nil
}

// MayCheckForUpgrades reports whether the server may look for newer versions of itself by
// itself: it may until somebody forbids it.
func MayCheckForUpgrades(ctx context.Context, tx *db.Tx, store *docstore.Store) (bool, error) {
	c, err := upgradeConfiguration(ctx, tx, store)
	return c == nil || c.AllowChecking, err
}

// upgradeConfiguration is what somebody has set, nil for nothing.
func upgradeConfiguration(ctx context.Context, tx *db.Tx, store *docstore.Store) (*octopus.UpgradeConfiguration, error) {
	var c octopus.UpgradeConfiguration
	err := store.Load(ctx, tx, resources.UpgradeConfigurationKind, resources.UpgradeConfigurationID, &c)
	if fault.Is(err, fault.NotFound) {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	return &c, err
}

// InMaintenance reports whether the server is in maintenance mode.
func InMaintenance(ctx context.Context, tx *db.Tx, store *docstore.Store) (bool, error) {
	var m octopus.MaintenanceConfiguration
	err := store.Load(ctx, tx, "maintenanceconfiguration", resources.MaintenanceID, &m)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return m.IsInMaintenanceMode, err
}

// Guard makes what [rest.Config] wants for maintenance mode: while it is on, only
// holders of AdministerSystem may change anything, or queue a task. Reading goes on (by
// POST too, where a question does not fit into a query), signing in and out too, and so do the tasks that are running or queued: it is no stop of the
// queue. A mode that was switched on by another process holds here within the
// time in which changes become known.
func Guard(d *db.DB, store *docstore.Store) func(*rest.Request) error {
	type seen struct {
		at uint64
		on bool
	}
	var last atomic.Pointer[seen]
	on := func(ctx context.Context) (bool, error) {
		at, err := d.Changes(ctx, "maintenanceconfiguration")
		if err != nil {
			return false, err
		}
		if s := last.Load(); s != nil && s.at == at {
			return s.on, nil
		}
		s := &seen{at: at}
		err = d.Read(ctx, func(tx *db.Tx) (err error) {
			s.on, err = InMaintenance(ctx, tx, store)
			return err
		})
		if err != nil {
			return false, err
		}
		last.Store(s)
		return s.on, nil
	}
	return func(r *rest.Request) error {
		if slices.Contains([]string{http.MethodGet, http.MethodHead}, r.Method) || r.Route().Reads || r.Route().Permission == rest.Public {
			return nil
		}
		locked, err := on(r.Context())
		if err != nil || !locked || r.Principal.Access().Can(administer, "", rest.Target{}) {
			return err
		}
		return fault.New(fault.Forbidden, "The server is in maintenance mode, in which only holders of %s can change anything or start a task. Reading goes on, and so do the tasks that are queued already. Try again when the mode is off, or ask an administrator.", administer)
	}
}
