package releases_test

import (
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/octopus"
)

// frozen makes a freeze that holds for the next hour.
func (w *world) frozen(name string, change func(f *octopus.DeploymentFreeze)) string {
	w.t.Helper()
	f := &octopus.DeploymentFreeze{Name: name, Start: octopus.NewTime(time.Now().Add(-time.Hour)), End: octopus.NewTime(time.Now().Add(time.Hour))}
	change(f)
	return w.create("deploymentfreezes", "", f)
}

func (w *world) mayStart(d octopus.Deployment) error {
	w.t.Helper()
	plan := w.plan(d)
	return w.db.Read(w.t.Context(), func(tx *db.Tx) error { return w.rel.MayStart(w.t.Context(), tx, plan) })
}

// TestFreezeScopes: a freeze of a project in an environment is one for all its
// tenants, one of a tenant for that tenant alone.
func TestFreezeScopes(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.changeProject(func(p *octopus.Project) { p.TenantedDeploymentMode = octopus.TenantedOrUntenanted })
		w.steps(onWorker("Tell"))
		tenant := func(name string) string {
			return w.create("tenants", "", &octopus.Tenant{Name: name, ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}})
		}
		acme, other := tenant("Acme"), tenant("Other")
		to := func(tenants ...string) func(in *releases.NewDeployments) {
			return func(in *releases.NewDeployments) { in.Tenants = tenants }
		}
		r := w.release("1.0.0")
		before := w.deploy(r.ID, w.dev, to(acme))
		forAcme := w.frozen("Acme's", func(f *octopus.DeploymentFreeze) {
			f.TenantProjectEnvironmentScope = octopus.List[octopus.TenantProjectEnvironment]{{TenantID: acme, ProjectID: w.project.ID, EnvironmentID: w.dev}}
		})
		w.frozen("Elsewhere", func(f *octopus.DeploymentFreeze) {
			f.ProjectEnvironmentScope = octopus.Map[string, octopus.List[string]]{w.project.ID: {w.prod}}
		})
		w.frozen("Nowhere", func(f *octopus.DeploymentFreeze) {
			f.ProjectEnvironmentScope = octopus.Map[string, octopus.List[string]]{w.project.ID: {}}
		})
		_, err := w.tryDeploy(r.ID, w.dev, to(other, acme))
		refused(t, err, fault.Invalid, "'Acme's' keeps the project 'Web Shop' from being deployed to Dev for Acme")
		refused(t, w.mayStart(before), fault.Invalid, "'Acme's' keeps")
		w.deploy(r.ID, w.dev, to(other))
		w.deploy(r.ID, w.dev)
		w.deploy(r.ID, w.dev, to(acme), opt(func(o *releases.Options) { o.FreezeNames, o.FreezeReason = []string{forAcme}, "needed" }))

		// A target that was added is brought to what the others have.
		ignoring := w.deploy(r.ID, w.dev, to(acme), opt(func(o *releases.Options) { o.IgnoreFreezes = true }))
		check(t, w.mayStart(ignoring))

		w.frozen("All", func(f *octopus.DeploymentFreeze) {
			f.ProjectEnvironmentScope = octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}
		})
		_, err = w.tryDeploy(r.ID, w.dev, to(other))
		refused(t, err, fault.Invalid, "'All' keeps")
		_, err = w.tryDeploy(r.ID, w.dev)
		refused(t, err, fault.Invalid, "'All' keeps")
		// Each freeze is overridden by itself.
		_, err = w.tryDeploy(r.ID, w.dev, to(acme), opt(func(o *releases.Options) { o.FreezeNames, o.FreezeReason = []string{"all"}, "needed" }))
		refused(t, err, fault.Invalid, "'Acme's' keeps")
	})
}

// TestFreezeOfAutomaticDeployments: what the lifecycle would do by itself is left out,
// and told of.
func TestFreezeOfAutomaticDeployments(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		id := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Automatic", Phases: octopus.List[octopus.Phase]{{Name: "Dev", AutomaticDeploymentTargets: octopus.List[string]{w.dev}}}})
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = id })
		w.frozen("Christmas", func(f *octopus.DeploymentFreeze) {
			f.ProjectEnvironmentScope = octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}
		})
		r := w.release("1.0.0")
		if n := len(w.deployments(r.ID)); n != 0 {
			t.Errorf("%d deployments were made", n)
		}
		if n := count(t, w, `SELECT count(*) FROM events WHERE category = 'DeploymentFailed' AND message LIKE '%could not be queued automatically: The deployment freeze ''Christmas'' keeps%'`); n != 1 {
			t.Errorf("%d events tell of it", n)
		}
	})
}

// TestFreezeComesLater: who names a freeze that does not hold yet, and may not override
// it, has overridden nothing when it does.
func TestFreezeComesLater(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		r := w.release("1.0.0")
		id := w.frozen("Christmas", func(f *octopus.DeploymentFreeze) {
			f.Start = octopus.NewTime(time.Now().Add(10 * time.Minute))
			f.ProjectEnvironmentScope = octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}
		})
		in := releases.NewDeployments{
			Space: space, ReleaseID: r.ID, Environments: []string{w.dev},
			Options: releases.Options{FreezeNames: []string{"Christmas"}, FreezeReason: "who knows"},
		}
		deployer := func(permission string, _ auth.Target) error {
			if strings.HasPrefix(permission, "DeploymentFreeze") {
				return fault.New(fault.Forbidden, "needs %s", permission)
			}
			return nil
		}
		made, err := w.rel.Deploy(t.Context(), in, deployer)
		check(t, err)
		byBoss, err := w.rel.Deploy(t.Context(), in, nil)
		check(t, err)
		check(t, w.mayStart(made[0]))
		var f octopus.DeploymentFreeze
		w.load("deploymentfreezes", id, &f)
		f.Start = octopus.NewTime(time.Now().Add(-time.Hour))
		w.replace("deploymentfreezes", id, &f)
		refused(t, w.mayStart(made[0]), fault.Invalid, "'Christmas' keeps")
		check(t, w.mayStart(byBoss[0]))
	})
}
