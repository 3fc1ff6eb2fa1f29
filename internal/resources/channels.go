package resources

import (
	"context"
	"errors"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Channels tell a project's lines of releases apart. Exactly one is the default.
func Channels() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Channel]{
		Name: "channels", ItemType: "Channel", Prefix: "Channels", Slugged: true, SlugWithin: "ProjectId",
		Permissions: resource.Permissions{View: "ProcessView", Create: "ProcessEdit", Edit: "ProcessEdit", Delete: "ProcessEdit"},
		Dimensions:  resource.Dimensions{Project: "ProjectId"},
		Unique:      []resource.Unique{{Field: "Name", Within: "ProjectId"}},
		References: []resource.Reference{
			{Path: "ProjectId", To: "projects", OnDelete: resource.Cascade, Required: true},
			{Path: "LifecycleId", To: "lifecycles"},
		},
		Links: map[string]string{
			"Project":  "/api/{space}/projects/{ProjectId}",
			"Releases": "/api/{space}/projects/{ProjectId}/channels/{Id}/releases{?skip,take,searchByVersion}",
		},
		Prepare: func(v *octopus.Channel) {
			if v.Type == "" {
				v.Type = octopus.ChannelLifecycle
			}
		},
		Check: checkChannel,
		InTx:  channelInTx,
	})
}

func checkChannel(ctx context.Context, r resource.Reader, old, v *octopus.Channel) error {
	var had octopus.List[string]
	if old != nil {
		had = old.TenantTags
	}
	err := errors.Join(
		oneOf("Type", &v.Type, octopus.ChannelLifecycle, octopus.ChannelEphemeral),
		checkTenantTags(ctx, r, v.SpaceID, had, tagList{"TenantTags", v.TenantTags}),
	)
	if err != nil || old == nil {
		return err
	}
	if old.ProjectID != v.ProjectID {
		return fault.InvalidField("ProjectId", "ProjectId is '%s'; a channel stays in its project, '%s'.", v.ProjectID, old.ProjectID)
	}
	if !old.IsDefault || v.IsDefault {
		return nil
	}
	others, err := defaults(ctx, r, "channels", v.SpaceID, "ProjectId", v.ProjectID, v.ID)
	if err == nil && len(others) == 0 {
		return fault.InvalidField("IsDefault", "IsDefault is false; a project has one default channel. Make another channel the default instead.")
	}
	return err
}

// defaults lists the documents of a kind that say of themselves that they are the
// default, but for one.
func defaults(ctx context.Context, r resource.Reader, kind, space, path, value, but string) (found []string, err error) {
	err = r.Each(ctx, kind, ident.SpaceID(space), path, value, func(id string) error {
		var one struct{ IsDefault bool }
		if id == but {
			return nil
		}
		err := r.Load(ctx, kind, id, &one)
		if one.IsDefault {
			found = append(found, id)
		}
		return err
	})
	return found, err
}

func channelInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.Channel]) error {
	if c.Op == resource.Deleted {
		return refuseUsedChannel(ctx, w, c)
	}
	if !c.New.IsDefault {
		return nil
	}
	// The new default takes the place of the old one.
	others, err := defaults(ctx, w, "channels", string(c.Space), "ProjectId", c.New.ProjectID, c.ID)
	if err != nil {
		return err
	}
	for _, id := range others {
		var old octopus.Channel
		if err := w.Load(ctx, "channels", id, &old); err != nil {
			return err
		}
		old.IsDefault = false
		if err := w.Replace(ctx, "channels", id, &old); err != nil {
			return err
		}
	}
	return nil
}

// refuseUsedChannel keeps the default channel and one that has releases, unless
// the whole project goes.
func refuseUsedChannel(ctx context.Context, w resource.Writer, c resource.Change[octopus.Channel]) error {
	var project octopus.Project
	if err := w.Load(ctx, "projects", c.Old.ProjectID, &project); fault.Is(err, fault.NotFound) {
		return nil
	} else if err != nil {
		return err
	}
	var releases int64
	if err := w.Tx().QueryRow(ctx, `SELECT count(*) FROM release r WHERE r.channel_id = ?`, c.ID).Scan(&releases); err != nil {
		return err
	}
	switch {
	case releases > 0:
		return fault.New(fault.Conflict, "The channel '%s' cannot be deleted because it has %d releases; delete or move them first.", c.Old.Name, releases)
	case c.Old.IsDefault && ident.SpaceID(project.SpaceID) == c.Space:
		return fault.New(fault.Conflict, "The channel '%s' cannot be deleted because it is the project's default; make another channel the default first.", c.Old.Name)
	}
	return nil
}
