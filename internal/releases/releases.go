// Package releases makes releases of projects and deploys them.
//
// A release freezes what its project was: the process and the variables as
// snapshots that nothing changes any more, and the versions of the packages. A
// deployment adds what it alone has: where it goes, answers to prompts, what the
// server knew at that moment. Both are written in one transaction with the task
// that does the work; what the task needs to read later it gets through the
// methods that the package has for the engine (Process, Variables, Package,
// Ended).
//
// Releases and deployments are rows of their own tables with the document that
// clients see beside the columns they are found by. Whether a deployment is
// allowed is decided here and nowhere else, for people, triggers and the
// automatic deployments of a lifecycle alike.
package releases

import (
	"context"
	"log/slog"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Queue takes the tasks of deployments.
type Queue interface {
	Create(ctx context.Context, tx *db.Tx, n tasks.New) (*tasks.Task, error)
}

// Allow returns nil when whoever asks holds a permission for a target, else a
// fault. A nil Allow allows everything: the server itself asks.
type Allow func(permission string, t auth.Target) error

func (a Allow) check(permission octopus.Permission, t auth.Target) error {
	if a == nil {
		return nil
	}
	return a(string(permission), t)
}

// Config of a Service.
type Config struct {
	DB    *db.DB
	Store *docstore.Store
	Queue Queue
	// Packages finds packages in feeds.
	Packages Packages
	// Sealer keeps answers to prompts from being read in the database.
	Sealer docstore.Sealer
	Log    *slog.Logger
	// ServerURI is the address that people reach the server at, "" if nobody has said.
	ServerURI string
}

// Service makes and deploys releases. It is safe for concurrent use and holds no state.
type Service struct {
	cfg   Config
	db    *db.DB
	store *docstore.Store
	log   *slog.Logger
	turns *turns // of releases that are deployed
	// Each deployment reads all of them, three times.
	environments docstore.Memo[octopus.Environment]
}

// New makes a service. The store must know the kinds of [Kinds].
func New(cfg Config) *Service {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, db: cfg.DB, store: cfg.Store, log: log, turns: newTurns()}
}

// get decodes the document of a kind that ref (an id, a slug or a name) names.
// Its secrets, if the kind has any, are ciphertexts: it must not be served.
func get[T any](ctx context.Context, s *Service, tx *db.Tx, space ident.SpaceID, kind, ref string) (*T, error) {
	k, err := s.store.Kind(kind)
	if err != nil {
		return nil, err
	}
	doc, err := s.store.Get(ctx, tx, k, space, ref)
	if err != nil {
		return nil, err
	}
	return docstore.Decode[T](doc)
}

// all decodes every document of a kind in a space that matches where, in order.
func all[T any](ctx context.Context, s *Service, tx *db.Tx, space ident.SpaceID, kind string, where ...docstore.Match) ([]T, error) {
	return docstore.All[T](ctx, s.store, tx, kind, docstore.Query{Space: space, Where: where})
}

// allEnvironments are those of a space, in order; what is in them is not to be changed.
func (s *Service) allEnvironments(ctx context.Context, tx *db.Tx, space ident.SpaceID) ([]octopus.Environment, error) {
	return s.environments.All(ctx, s.store, tx, "environments", docstore.Query{Space: space})
}

// knows reports whether a kind is declared.
func (s *Service) knows(kind string) bool { return s.store.Kinds()[kind] != nil }

// canonical spells the prefix of an id as we do, since ids are compared without case.
func canonical(prefix, id string) string {
	if n := len(prefix); len(id) > n && id[n] == '-' && strings.EqualFold(id[:n], prefix) {
		return prefix + id[n:]
	}
	return id
}

// matches reports whether ref names something by its id, slug or name.
func matches(ref, id, slug, name string) bool {
	return strings.EqualFold(ref, id) || slug != "" && strings.EqualFold(ref, slug) || ident.Fold(ref) == ident.Fold(name)
}

// invalid is a fault of a request's field.
func invalid(field, format string, args ...any) error {
	return fault.InvalidField(field, format, args...)
}
