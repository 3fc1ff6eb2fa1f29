package releases

import (
	"context"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// tenantVariables are a tenant's variables for a project in an environment, secrets
// in clear, and the templates without a value: as they are now, for a release does
// not freeze them.
func (s *Service) tenantVariables(ctx context.Context, tx *db.Tx, project, tenant, environment string) ([]variables.Variable, []variables.Missing, error) {
	if tenant == "" || project == "" {
		return nil, nil, nil
	}
	var p octopus.Project
	if err := s.store.Reveal(ctx, tx, "projects", project, &p); err != nil {
		return nil, nil, err
	}
	libraries := make([]octopus.LibraryVariableSet, len(p.IncludedLibraryVariableSetIDs))
	for i, id := range p.IncludedLibraryVariableSetIDs {
		if err := s.store.Reveal(ctx, tx, "libraryvariablesets", id, &libraries[i]); err != nil {
			return nil, nil, err
		}
	}
	var set resources.TenantVariableSet
	if err := s.store.Reveal(ctx, tx, "tenantvariables", resources.TenantVariablesID(tenant), &set); err != nil && !fault.Is(err, fault.NotFound) {
		return nil, nil, err
	}
	all, missing := resources.TenantVariables(tenant, environment, &p, libraries, &set)
	return all, missing, nil
}

// tenantValues are a tenant's variables where a deployment runs.
func (s *Service) tenantValues(ctx context.Context, tx *db.Tx, c variables.Context) ([]variables.Variable, error) {
	all, _, err := s.tenantVariables(ctx, tx, c.ProcessOwner, c.Tenant, c.Environment)
	return all, err
}

// complete refuses to deploy for a tenant that lacks values.
func (sc *scene) complete(ctx context.Context, tx *db.Tx, p place) error {
	_, missing, err := sc.s.tenantVariables(ctx, tx, sc.project.ID, p.tenantID(), p.environment.ID)
	if err != nil || len(missing) == 0 {
		return err
	}
	names := make([]string, len(missing))
	for i, m := range missing {
		names[i] = m.Name
	}
	return invalid("TenantId", "The tenant '%s' has no value for %s in the environment '%s'; give it one, or the template a default.", p.tenant.Name, strings.Join(names, ", "), p.environment.Name)
}
