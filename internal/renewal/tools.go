package renewal

import (
	"context"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Tools runs the tasks named UpdateCalamari, which clients start to have the tools of
// steps updated: there are none here beside agents, so they have nothing to do.
type Tools struct{}

var _ tasks.Runner = Tools{}

// Run is tasks.Runner.
func (Tools) Run(ctx context.Context, l *tasks.Lease) error {
	return l.Finish(ctx, octopus.TaskSuccess, "", tasks.Batch{Lines: []tasks.Line{{
		Activity: l.ID, Category: octopus.LogInfo, At: time.Now().UTC(),
		Text: "There is nothing to do: agents have all that steps need, or get it with a step. A task named Upgrade brings agents to the server's version.",
	}}})
}

// Ended is tasks.Runner; nothing is left to do.
func (Tools) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }
