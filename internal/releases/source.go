package releases

import (
	"context"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// Process is the frozen process of a plan, its secrets in clear.
func (s *Service) Process(ctx context.Context, p *deploy.Plan) ([]octopus.Step, error) {
	var process octopus.DeploymentProcess
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		return s.store.Reveal(ctx, tx, ProcessSnapshots, p.ProcessID, &process)
	})
	return process.Steps, err
}

// Variables are all values that a plan's steps may use, secrets in clear: those
// of the project and its library sets as the release froze them, the answers to
// prompts, those of step templates' parameters, the members of accounts, and what the
// server defines.
func (s *Service) Variables(ctx context.Context, p *deploy.Plan) (all []variables.Variable, err error) {
	c := variables.Context{Environment: p.EnvironmentID, Channel: p.ChannelID, Tenant: p.TenantID, TenantTags: p.TenantTags, ProcessOwner: p.ProjectID}
	err = s.db.Read(ctx, func(tx *db.Tx) error {
		var process octopus.DeploymentProcess
		if err := s.store.Reveal(ctx, tx, ProcessSnapshots, p.ProcessID, &process); err != nil {
			return err
		}
		all, err = s.manifestValues(ctx, tx, ident.SpaceID(p.SpaceID), p.ManifestID, process.Steps, c)
		return err
	})
	return all, err
}

// Package finds a package that a release selected.
func (s *Service) Package(ctx context.Context, p *deploy.Plan, feedID, packageID, version string) (Package, error) {
	if strings.EqualFold(feedID, ReleasesFeed) {
		return Package{}, fault.New(fault.Unsupported, "The release %s of %s is no package that can be fetched.", version, packageID)
	}
	found, err := s.cfg.Packages.Find(ctx, ident.SpaceID(p.SpaceID), feedID, packageID, version)
	if err != nil {
		return Package{}, fmt.Errorf("find package %s %s: %w", packageID, version, err)
	}
	return found, nil
}
