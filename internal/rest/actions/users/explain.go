package users

import (
	"errors"
	"slices"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// explanation is why a user may do something, or that they may not.
type explanation struct {
	UserID     string `json:"UserId"`
	Permission string
	SpaceID    octopus.NullString `json:"SpaceId"`
	IsGranted  bool
	// Because has every team, role and scope that suffices by itself.
	Because octopus.List[auth.Source]
	Links   octopus.Links
}

// explain answers why a user can do that: in a space, for a project, an environment
// and a tenant, each by its id.
func (a *api) explain(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	space := ident.SpaceID(r.Query("space"))
	if space == "" {
		space = resources.DefaultSpace
	}
	known, err := r.Spaces("")
	if err != nil {
		return nil, err
	}
	if !slices.Contains(known, space) {
		return nil, fault.Missing("space", string(space))
	}
	target := auth.Target{Project: r.Query("project"), Environment: r.Query("environment"), Tenant: r.Query("tenant")}
	if target.Project != "" {
		err := a.db.Read(r.Context(), func(tx *db.Tx) error {
			var p octopus.Project
			err := a.store.Load(r.Context(), tx, "projects", target.Project, &p)
			target.ProjectGroup = p.ProjectGroupID
			if err == nil && (p.SpaceID != string(space) || !me.Can(octopus.PermProjectView, space, auth.Target{Project: p.ID, ProjectGroup: p.ProjectGroupID})) {
				err = fault.Missing("project", target.Project)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	user := r.PathValue("id")
	why, errWhy := a.auth.Why(r.Context(), me, user, r.Query("permission"), space, target)
	doc, errUser := a.auth.User(r.Context(), me, user)
	if err := errors.Join(errWhy, errUser); err != nil {
		return nil, err
	}
	self := r.Href("/api/users/" + doc.ID)
	return explanation{
		UserID: doc.ID, Permission: r.Query("permission"), SpaceID: octopus.NullString(space), IsGranted: len(why) > 0, Because: why,
		Links: octopus.Links{"User": self, "Permissions": self + "/permissions"},
	}, nil
}

func (a *api) sessions(r *rest.Request) (any, error) {
	me, errBy := by(r)
	p, errPage := r.Page()
	if err := errors.Join(errBy, errPage); err != nil {
		return nil, err
	}
	all, total, err := a.auth.Sessions(r.Context(), me, r.PathValue("id"), p)
	if err != nil {
		return nil, err
	}
	for i := range all {
		user := r.Href("/api/users/" + all[i].UserID)
		all[i].Links = octopus.Links{"Self": user + "/sessions/" + all[i].ID, "User": user}
	}
	return rest.PageOf(r, "Session", p, total, all), nil
}

func (a *api) endSession(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	return nil, a.auth.EndSession(r.Context(), me, r.PathValue("id"), r.PathValue("session"))
}
