package resources

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Spaces are walls within a server. A new one comes with what every space has.
func Spaces() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Space]{
		Name: "spaces", ItemType: "Space", Prefix: "Spaces", Scope: resource.InSystem, Slugged: true,
		Permissions: resource.Permissions{Create: "SpaceCreate", Edit: "SpaceEdit", Delete: "SpaceDelete"},
		Filters:     []resource.Filter{{Param: "taskQueueStopped", Path: "TaskQueueStopped"}},
		Owned:       []string{"IsDefault"},
		Links: map[string]string{
			"SpaceHome": "/api/{Id}",
			"Web":       "/app#/{Id}",
			"Logo":      "/api/spaces/{Id}/logo",
			"Search":    "/api/spaces/{Id}/search{?keyword}",
		},
		Prepare: func(v *octopus.Space) {
			if own := permission.SpaceManagersTeam(v.ID); !slices.Contains(v.SpaceManagersTeams, own) {
				v.SpaceManagersTeams = append(v.SpaceManagersTeams, own)
			}
		},
		Check: func(ctx context.Context, _ resource.Reader, _, v *octopus.Space) error {
			if !v.IsDefault && !byServer(ctx) && len(v.SpaceManagersTeams) < 2 && len(v.SpaceManagersTeamMembers) == 0 {
				return fault.InvalidField("SpaceManagersTeams", "SpaceManagersTeams and SpaceManagersTeamMembers are both empty; name at least one team or user who manages the space.")
			}
			return nil
		},
		InTx: spaceInTx,
	})
}

// DefaultSpace is the space of paths that name none.
const DefaultSpace ident.SpaceID = "Spaces-1"

// BuiltinFeed is the id of a space's built-in feed.
func BuiltinFeed(space ident.SpaceID) string { return own("feeds-builtin", space) }

// own is the id of what every space has one of: the default space's is plain.
func own(id string, space ident.SpaceID) string {
	if space == DefaultSpace || space == "" {
		return id
	}
	return id + "-" + string(space)
}

func spaceInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.Space]) error {
	switch c.Op {
	case resource.Created:
		if err := furnish(ctx, w, ident.SpaceID(c.ID)); err != nil {
			return err
		}
		return manage(ctx, w, c.New)
	case resource.Deleted:
		if c.Old.IsDefault {
			return fault.New(fault.Conflict, "The default space cannot be deleted.")
		}
		if !c.Old.TaskQueueStopped {
			return fault.New(fault.Conflict, "The space '%s' cannot be deleted while its task queue runs; set TaskQueueStopped to true first.", c.Old.Name)
		}
		return clearSpace(ctx, w, ident.SpaceID(c.ID))
	case resource.Modified:
		return manage(ctx, w, c.New)
	}
	return nil
}

// manage makes the space's managers those that the space names.
func manage(ctx context.Context, w resource.Writer, v *octopus.Space) error {
	own := permission.SpaceManagersTeam(v.ID)
	teams := slices.DeleteFunc(slices.Clone(v.SpaceManagersTeams), func(id string) bool { return id == own })
	return ManageSpace(ctx, w, ident.SpaceID(v.ID), teams, v.SpaceManagersTeamMembers)
}

// furnish makes what a space has from its first moment on, because clients look
// for it: lifecycle, project group, machine policy, worker pool and built-in feed.
// All but the feed have the next number of their kind, so the default space, which is
// the first, has Lifecycles-1 and so on.
func furnish(ctx context.Context, w resource.Writer, space ident.SpaceID) error {
	day := octopus.TimeSpan(24 * time.Hour)
	policy := &octopus.MachinePolicy{Name: "Default Machine Policy", IsDefault: true}
	policy.MachineHealthCheckPolicy.HealthCheckInterval = &day
	for _, one := range []struct {
		kind, id string
		v        any
	}{
		{"lifecycles", "", &octopus.Lifecycle{Name: "Default Lifecycle"}},
		{"projectgroups", "", &octopus.ProjectGroup{Name: "Default Project Group"}},
		{"machinepolicies", "", policy},
		{"workerpools", "", &octopus.WorkerPool{Name: "Default Worker Pool", IsDefault: true}},
		{"feeds", BuiltinFeed(space), &octopus.Feed{Name: "Tako Server (built-in)", FeedType: octopus.FeedBuiltIn}},
	} {
		if _, err := w.Create(ctx, one.kind, space, one.id, one.v); err != nil {
			return err
		}
	}
	return nil
}

// clearSpace deletes everything that is in a space.
func clearSpace(ctx context.Context, w resource.Writer, space ident.SpaceID) error {
	tx := w.Tx()
	kinds, err := kindsIn(ctx, tx, space)
	if err != nil {
		return fmt.Errorf("list what is in %s: %w", space, err)
	}
	for _, kind := range kinds {
		tx.Changed(kind) // what caches know of it is gone
	}
	for _, statement := range []string{
		`DELETE FROM document_refs WHERE EXISTS (SELECT 1 FROM documents d WHERE d.space_id = ? AND d.kind = document_refs.from_kind AND d.id = document_refs.from_id)`,
		`DELETE FROM document_unique WHERE EXISTS (SELECT 1 FROM documents d WHERE d.space_id = ? AND d.kind = document_unique.kind AND d.id = document_unique.id)`,
		`DELETE FROM document_index WHERE space_id = ?`,
		`DELETE FROM documents WHERE space_id = ?`,
		`DELETE FROM package WHERE space_id = ?`,
		`DELETE FROM machine_health WHERE space_id = ?`,
	} {
		if _, err := tx.Exec(ctx, statement, string(space)); err != nil {
			return fmt.Errorf("clear %s: %w", space, err)
		}
	}
	return nil
}

func kindsIn(ctx context.Context, tx *db.Tx, space ident.SpaceID) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT DISTINCT d.kind FROM documents d WHERE d.space_id = ? ORDER BY d.kind`, string(space))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var kinds []string
	for rows.Next() {
		var kind string
		if err := rows.Scan(&kind); err != nil {
			return nil, err
		}
		kinds = append(kinds, kind)
	}
	return kinds, rows.Err()
}
