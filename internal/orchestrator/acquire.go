package orchestrator

import (
	"context"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// acquireAll makes sure that all packages of the deployment are there and can be read,
// before the first of them is used: a deployment that lacks one fails before it has
// changed anything that needs packages. What a package is may be for a target to say;
// that is looked for when the step runs there.
func (a *attempt) acquireAll(ctx context.Context) error {
	if a.canceled() && !a.resumed {
		return nil // nothing has begun, and nothing will
	}
	type named struct{ feed, id, version string }
	seen := map[named]bool{}
	var lines []tasks.Line
	var missing []string
	for i := range a.r.plan.Steps {
		step := &a.r.plan.Steps[i]
		for j := range step.Actions {
			if step.Actions[j].Skip || step.AllDone() {
				continue
			}
			packages := step.Actions[j].Acquired()
			if len(packages) == 0 {
				continue
			}
			vars := a.r.resolved(i, &deploy.Unit{Step: i, Action: j})
			for _, p := range packages {
				feed, id, version := vars.Evaluate(p.FeedID), vars.Evaluate(p.PackageID), vars.Evaluate(p.Version)
				key := named{feed.Text, id.Text, version.Text}
				// What a target has a say in is not known here.
				local := len(step.Roles) > 0 && strings.Contains(p.FeedID+p.PackageID+p.Version, "#{")
				if local || feed.Err != nil || id.Err != nil || version.Err != nil || seen[key] {
					continue
				}
				seen[key] = true
				found, err := a.readable(ctx, key.feed, key.id, key.version)
				switch {
				case ctx.Err() != nil:
					return ctx.Err()
				case err == nil:
					lines = append(lines, a.line(octopus.LogInfo, "The package %s %s is there (%d bytes).", key.id, key.version, found.Size))
				default:
					a.r.log.Warn("acquire a package", "unit", a.unit.Key(), "package", key.id, "err", err)
					missing = append(missing, publicText(err, fmt.Sprintf("The package %s %s cannot be read because of a failure of the server; its log has the details.", key.id, key.version)))
				}
			}
		}
	}
	result := deploy.Result{Outcome: deploy.Succeeded}
	if len(missing) > 0 {
		result.Outcome, result.Message = deploy.Failed, strings.Join(missing, " ")
	}
	if a.resumed {
		return a.conclude(ctx, result, tasks.Batch{Lines: lines})
	}
	intent := a.fact(deploy.FactIntent)
	intent.Intent = &deploy.Intent{Contract: deploy.ContractNone}
	return a.conclude(ctx, result, tasks.Batch{Lines: lines}, intent)
}

// readable finds a package and opens it.
func (a *attempt) readable(ctx context.Context, feed, id, version string) (Package, error) {
	found, err := a.r.o.cfg.Source.Package(ctx, &a.r.plan, feed, id, version)
	if err != nil {
		return found, err
	}
	content, _, err := a.r.o.cfg.Blobs.Open(ctx, blob.Hash(found.SHA256))
	if err != nil {
		return found, err
	}
	return found, content.Close()
}
