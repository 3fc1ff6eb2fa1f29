package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// access notes for every user which permissions they have, where, and within which scope.
// Users in the same teams share one table.
func (r *run) access(ctx context.Context) error {
	all := permission.All()
	for _, info := range all {
		r.fact(PartPermissions, string(info.Name), fmt.Sprintf("in spaces %t, on the system %t, scoped by %s", info.Space, info.System, strings.Join(info.Restrictions.Names(), ", ")))
	}
	return r.DB.Read(ctx, func(tx *db.Tx) error {
		clear(r.part(PartUsers))
		spaces, err := r.spaces(ctx, tx)
		if err != nil {
			return err
		}
		known := map[string]string{} // by the teams
		return r.Auth.EachAccess(ctx, tx, func(u *octopus.User, a *auth.Access) error {
			if strings.HasPrefix(u.Username, Probe) {
				return nil
			}
			var teams []string
			for _, t := range a.Teams() {
				teams = append(teams, t.ID)
			}
			slices.Sort(teams)
			key := strings.Join(teams, " ")
			table, ok := known[key]
			if !ok {
				table = r.table(matrix(r, a, all, spaces))
				known[key] = table
			}
			r.part(PartUsers)[fmt.Sprintf("%s %s (active %t)", u.ID, u.Username, u.IsActive)] = table
			return nil
		})
	})
}

// spaces are those that people have made.
func (r *run) spaces(ctx context.Context, tx *db.Tx) (map[ident.SpaceID]bool, error) {
	out := map[ident.SpaceID]bool{}
	err := r.Store.Each(ctx, tx, "spaces", docstore.Query{}, func(doc *docstore.Doc) error {
		s, err := docstore.Decode[octopus.Space](doc)
		if err == nil && !strings.HasPrefix(s.Name, Probe) {
			out[ident.SpaceID(doc.ID)] = true
		}
		return err
	})
	return out, err
}

// matrix is what somebody may do, by place and permission.
func matrix(r *run, a *auth.Access, all []permission.Info, spaces map[ident.SpaceID]bool) map[string]string {
	out := map[string]string{}
	places := append([]ident.SpaceID{""}, slices.DeleteFunc(a.Spaces(), func(s ident.SpaceID) bool { return !spaces[s] })...)
	for _, place := range places {
		for _, info := range all {
			if place == "" && !info.System || place != "" && !info.Space {
				continue
			}
			grants, held := a.Grants(string(info.Name), place)
			if !held {
				continue
			}
			where := string(place)
			if where == "" {
				where = "system"
			}
			out[string(info.Name)+" in "+where] = scope(r, grants)
		}
	}
	return out
}

// scope is the limits of a permission as text.
func scope(r *run, grants []resource.Grant) string {
	var ways []string
	for _, g := range grants {
		var limits []string
		for _, d := range []struct {
			name string
			ids  []string
		}{{"projects", g.Projects}, {"project groups", g.ProjectGroups}, {"environments", g.Environments}, {"tenants", g.Tenants}} {
			if len(d.ids) > 0 {
				ids := slices.Sorted(slices.Values(d.ids))
				limits = append(limits, d.name+" "+strings.Join(ids, " "))
			}
		}
		if len(limits) == 0 {
			return "without limit"
		}
		ways = append(ways, strings.Join(limits, ", "))
	}
	slices.Sort(ways)
	text := strings.Join(slices.Compact(ways), "; or ")
	const most = 500
	if len(text) > most {
		return fmt.Sprintf("%d ways %s", len(ways), r.hash("scope", text))
	}
	return text
}
