package auth

import (
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/octopus"
)

// Description is what clients are told of a permission.
type Description struct {
	Description           string               `json:"Description"`
	SupportedRestrictions octopus.List[string] `json:"SupportedRestrictions"`
	CanApplyAtSpaceLevel  bool                 `json:"CanApplyAtSpaceLevel"`
	CanApplyAtSystemLevel bool                 `json:"CanApplyAtSystemLevel"`
}

// Descriptions describes all permissions, by name.
func Descriptions() octopus.Map[octopus.Permission, Description] {
	all := octopus.Map[octopus.Permission, Description]{}
	for _, info := range permission.All() {
		all[info.Name] = Description{
			Description: info.About, SupportedRestrictions: info.Restrictions.Names(),
			CanApplyAtSpaceLevel: info.Space, CanApplyAtSystemLevel: info.System,
		}
	}
	return all
}

// Places selects parts of somebody's access.
type Places struct {
	Spaces []string // ids, compared without case; nil is all
	System bool     // with what holds outside of spaces
}

func (p Places) keep(space ident.SpaceID) bool {
	if space == "" {
		return p.System
	}
	return p.Spaces == nil || slices.ContainsFunc(p.Spaces, func(id string) bool { return strings.EqualFold(id, string(space)) })
}

// seen returns a user whom by may see.
func (s *Service) seen(ctx context.Context, by *Principal, ref string) (*known, error) {
	var k *known
	err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
		k, err = s.visibleUser(ctx, tx, by, ref)
		return err
	})
	return k, err
}

// Permissions is what a user whom by may see can do at some places.
func (s *Service) Permissions(ctx context.Context, by *Principal, ref string, at Places) (*octopus.UserPermissions, error) {
	k, err := s.seen(ctx, by, ref)
	if err != nil {
		return nil, err
	}
	out := k.access.Permissions(at.keep)
	out.ID = k.user.ID
	return &out, nil
}

// Why lists what gives a user whom by may see a permission for a target; nothing
// when it is not held.
func (s *Service) Why(ctx context.Context, by *Principal, ref, name string, space ident.SpaceID, t Target) (octopus.List[Source], error) {
	if _, ok := permission.Find(name); !ok {
		return nil, fault.InvalidField("permission", "permission is '%.100s', which is none; /api/permissions/all lists them.", name)
	}
	k, err := s.seen(ctx, by, ref)
	if err != nil {
		return nil, err
	}
	return k.access.Why(name, space, t), nil
}

// TeamsOf lists the teams of a user whom by may see, Everyone among them.
func (s *Service) TeamsOf(ctx context.Context, by *Principal, ref string, at Places) (octopus.List[octopus.TeamReference], error) {
	k, err := s.seen(ctx, by, ref)
	if err != nil {
		return nil, err
	}
	var teams octopus.List[octopus.TeamReference]
	for _, t := range k.access.Teams() {
		if at.keep(ident.SpaceID(t.SpaceID)) {
			teams = append(teams, reference(t))
		}
	}
	return teams, nil
}

// SpacesOf lists the spaces in which a user whom by may see can do anything: all
// of them are there for one who may see spaces as such.
func (s *Service) SpacesOf(ctx context.Context, by *Principal, ref string) (spaces []ident.SpaceID, all bool, err error) {
	k, err := s.seen(ctx, by, ref)
	if err != nil {
		return nil, false, err
	}
	return k.access.Spaces(), k.access.Can(string(octopus.PermSpaceView), "", Target{}), nil
}

// PermissionsCSV is the matrix of what a user whom by may see can do, with a line
// for each way in which a permission is held.
func (s *Service) PermissionsCSV(ctx context.Context, by *Principal, ref string, at Places) ([]byte, error) {
	p, err := s.Permissions(ctx, by, ref, at)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	lines := [][]string{{"Permission", "Space", "Projects", "ProjectGroups", "Environments", "Tenants"}}
	for _, name := range p.SystemPermissions {
		lines = append(lines, []string{string(name), "", "", "", "", ""})
	}
	for _, name := range slices.Sorted(maps.Keys(p.SpacePermissions)) {
		for _, r := range p.SpacePermissions[name] {
			lines = append(lines, []string{
				string(name), r.SpaceID, strings.Join(r.RestrictedToProjectIDs, " "), strings.Join(r.RestrictedToProjectGroupIDs, " "),
				strings.Join(r.RestrictedToEnvironmentIDs, " "), strings.Join(r.RestrictedToTenantIDs, " "),
			})
		}
	}
	if err := w.WriteAll(lines); err != nil {
		return nil, fmt.Errorf("write CSV: %w", err)
	}
	return []byte(b.String()), nil
}
