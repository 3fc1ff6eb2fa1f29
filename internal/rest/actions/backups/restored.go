package backups

import (
	"context"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

func (a *api) restored(r *rest.Request) (any, error) {
	var doc octopus.Restored
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = restoredDocument(r.Context(), tx, r)
		return err
	})
	return doc, err
}

func restoredDocument(ctx context.Context, tx *db.Tx, r *rest.Request) (octopus.Restored, error) {
	found, err := tasks.ReadRestored(ctx, tx)
	self := r.Href("/api/system/restored")
	return octopus.Restored{
		IsHeld: !found.At.IsZero(), BackupID: octopus.NullString(found.Backup), Instant: octopus.OptionalTime(found.Instant), RestoredAt: octopus.OptionalTime(found.At),
		QueuedTasks: found.Queued, ExecutingTasks: found.UnderWay, Links: octopus.Links{"Self": self, "Release": self + "/release"},
	}, err
}

func (a *api) release(r *rest.Request) (any, error) {
	var in octopus.RestoredRelease
	if err := r.DecodeOptional(&in); err != nil {
		return nil, err
	}
	var doc octopus.Restored
	err := a.db.Write(r.Context(), func(tx *db.Tx) error {
		if _, err := tasks.ReleaseHeld(r.Context(), tx, in.TaskIDs); err != nil {
			return err
		}
		var err error
		doc, err = restoredDocument(r.Context(), tx, r)
		return err
	})
	return doc, err
}
