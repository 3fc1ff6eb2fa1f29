package app

import (
	"context"
	"slices"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// seed makes what every server has: the default space with its furniture, the
// built-in teams and roles, and the administrator that the environment names.
// What is there already stays as it is.
func (a *App) seed(ctx context.Context, store *docstore.Store) error {
	if err := a.auth.EnsureBuiltins(ctx); err != nil {
		return err
	}
	err := a.db.Write(ctx, func(tx *db.Tx) error {
		w := store.In(tx)
		var space octopus.Space
		if err := w.Load(ctx, "spaces", string(resources.DefaultSpace), &space); !fault.Is(err, fault.NotFound) {
			return err
		}
		_, err := w.Create(ctx, "spaces", "", "", &octopus.Space{Name: "Default", IsDefault: true})
		return err
	})
	if err != nil || a.cfg.AdminUsername == "" {
		return err
	}
	id, err := a.auth.CreateAdministrator(ctx, auth.Administrator{
		Username: a.cfg.AdminUsername, Password: string(a.cfg.AdminPassword), APIKey: string(a.cfg.AdminAPIKey),
	})
	if err != nil {
		return err
	}
	// The space says who manages it, so that whoever changes it changes nobody unseen.
	return a.db.Write(ctx, func(tx *db.Tx) error {
		w := store.In(tx)
		var space octopus.Space
		err := w.Load(ctx, "spaces", string(resources.DefaultSpace), &space)
		if err != nil || slices.Contains(space.SpaceManagersTeamMembers, id) {
			return err
		}
		space.SpaceManagersTeamMembers = append(space.SpaceManagersTeamMembers, id)
		return w.Replace(ctx, "spaces", space.ID, &space)
	})
}
