package resources

import (
	"context"

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
	if old == nil {
		return nil
	}
	if old.ProjectID != v.ProjectID {
		return fault.InvalidField("ProjectId", "ProjectId is '%s'; a channel stays in its project, '%s'.", v.ProjectID, old.ProjectID)
	}
	if !old.IsDefault || v.IsDefault {
		return nil
	}
	successor := false
	err := r.Each(ctx, "channels", ident.SpaceID(v.SpaceID), "ProjectId", v.ProjectID, func(id string) error {
		var c octopus.Channel
		err := r.Load(ctx, "channels", id, &c)
		successor = successor || c.ID != v.ID && c.IsDefault
		return err
	})
	if err == nil && !successor {
		return fault.InvalidField("IsDefault", "IsDefault is false; a project has one default channel. Make another channel the default instead.")
	}
	return err
}

func channelInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.Channel]) error {
	if c.Op == resource.Deleted {
		return refuseUsedChannel(ctx, w, c)
	}
	if !c.New.IsDefault {
		return nil
	}
	// The new default takes the place of the old one.
	return w.Each(ctx, "channels", c.Space, "ProjectId", c.New.ProjectID, func(id string) error {
		if id == c.ID {
			return nil
		}
		return dethrone(ctx, w, id)
	})
}

func dethrone(ctx context.Context, w resource.Writer, id string) error {
	var c octopus.Channel
	if err := w.Load(ctx, "channels", id, &c); err != nil || !c.IsDefault {
		return err
	}
	c.IsDefault = false
	return w.Replace(ctx, "channels", id, &c)
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
