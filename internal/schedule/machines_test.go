package schedule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// target makes a deployment target.
func (w *world) target(name string, change ...func(m *octopus.Machine)) string {
	w.t.Helper()
	m := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.dev}, Roles: octopus.List[string]{"web"}}
	m.Name, m.Endpoint = name, octopus.Endpoint{CommunicationStyle: octopus.StyleNone}
	for _, c := range change {
		c(m)
	}
	return w.create("machines", m)
}

// onTargets has the project's process run on the targets with a tag.
func (w *world) onTargets() {
	w.t.Helper()
	var p octopus.DeploymentProcess
	w.load("deploymentprocesses", w.project.DeploymentProcessID, &p)
	delete(p.Steps[0].Actions[0].Properties, octopus.PropRunOnServer)
	p.Steps[0].Properties = octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")}
	p.Steps = append(p.Steps, octopus.Step{Name: "Optional", Actions: octopus.List[octopus.Action]{{
		Name: "Optional", ActionType: octopus.ActionScript, Properties: octopus.Properties{
			octopus.PropScriptBody: octopus.Plain("echo"), octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropRunOnServer: octopus.Plain("true"),
		},
	}}})
	w.replace("deploymentprocesses", p.ID, &p)
}

// release makes a release and deploys it, with success.
func (w *world) releaseTo(environment, version string, o releases.Options, tenants ...string) {
	w.t.Helper()
	made, err := w.servers[0].rel.CreateRelease(w.ctx, releases.NewRelease{Space: space, Project: w.project.ID, Version: version}, nil)
	check(w.t, err)
	_, err = w.servers[0].rel.Deploy(w.ctx, releases.NewDeployments{Space: space, ReleaseID: made.Release.ID, Environments: []string{environment}, Tenants: tenants, Options: o}, nil)
	check(w.t, err)
	w.end(octopus.TaskSuccess)
}

// machineTrigger deploys to targets that some events are about.
func (w *world) machineTrigger(change ...func(t *octopus.Trigger)) string {
	w.t.Helper()
	trigger := &octopus.Trigger{
		Name: "New targets", ProjectID: w.project.ID,
		Filter: octopus.TriggerFilter{FilterType: octopus.FilterMachine, EventGroups: octopus.List[string]{"MachineAvailableForDeployment"}},
		Action: octopus.TriggerAction{ActionType: octopus.TriggerAutoDeploy},
	}
	for _, c := range change {
		c(trigger)
	}
	return w.create(resources.TriggerKind, trigger)
}

// gathered lets the time pass in which targets are gathered.
func (w *world) gathered() {
	w.t.Helper()
	w.move(resources.MachineWindow + time.Second)
	w.look()
}

// renewed are the deployments that triggers made: version, environment, tenant, targets
// and steps that were left out.
func (w *world) renewed() (out []string) {
	w.t.Helper()
	for _, id := range w.texts(`SELECT d.id FROM deployment d ORDER BY d.created, d.seq`) {
		one, err := w.deployment(id)
		check(w.t, err)
		if !strings.Contains(string(one.Comments), "by the trigger") {
			continue
		}
		machines := slices.Clone(one.SpecificMachineIDs)
		slices.Sort(machines)
		version := w.texts(`SELECT r.version FROM release r WHERE r.id = ?`, one.ReleaseID)[0]
		out = append(out, fmt.Sprintf("%s to %s for %q: %v, %d skipped", version, one.EnvironmentID, one.TenantID, machines, len(one.SkipActions)))
	}
	return out
}

func TestTargetTrigger(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.onTargets()
		w.target("first")
		w.releaseTo(w.dev, "1.0.0", releases.Options{SkipActions: []string{"Optional"}})
		w.target("before the trigger")
		w.machineTrigger()
		// A freeze keeps nobody from what the others have.
		w.create(resources.FreezeKind, &octopus.DeploymentFreeze{
			Name: "Winter", Start: octopus.NewTime(day(1, "00:00:00").AddDate(0, -1, 0)), End: octopus.NewTime(day(31, "00:00:00")),
			ProjectEnvironmentScope: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev, w.test}},
		})
		a, b := w.target("a"), w.target("b")
		w.target("other tag", func(m *octopus.Machine) { m.Roles = octopus.List[string]{"db"} })
		w.target("elsewhere", func(m *octopus.Machine) { m.EnvironmentIDs = octopus.List[string]{w.test} })
		w.target("off", func(m *octopus.Machine) { m.IsDisabled = true })
		w.look()
		if got := w.renewed(); len(got) != 0 {
			t.Fatalf("before the time: %q", got)
		}
		w.gathered()
		w.gathered()
		// Two that came together have one deployment; the tag is for the process to say.
		got := w.renewed()
		if len(got) != 1 || !strings.HasPrefix(got[0], "1.0.0 to "+w.dev+` for "": [`) || !strings.Contains(got[0], a) || !strings.Contains(got[0], b) || !strings.HasSuffix(got[0], "1 skipped") {
			t.Fatalf("%q", got)
		}
		w.end(octopus.TaskSuccess)

		// Only what says something of deployments sets it off, and a target that has
		// the release is left out unless the trigger says otherwise.
		var m octopus.Machine
		w.load("machines", a, &m)
		m.Name = "renamed"
		w.replace("machines", a, &m)
		w.gathered()
		m.IsDisabled = true
		w.replace("machines", a, &m)
		w.gathered()
		m.IsDisabled = false
		w.replace("machines", a, &m)
		w.gathered()
		if n := len(w.renewed()); n != 1 {
			t.Errorf("%q", w.renewed())
		}
		again := true
		w.machineTrigger(func(v *octopus.Trigger) {
			v.Name, v.Action.ShouldRedeployWhenMachineHasBeenDeployedTo = "Again", &again
			v.Filter.EventGroups, v.Filter.EventCategories = nil, octopus.List[string]{"MachineEnabled"}
			v.Filter.EnvironmentIDs, v.Filter.Roles = octopus.List[string]{w.dev}, octopus.List[string]{"WEB"}
		})
		for _, off := range []bool{true, false} {
			m.IsDisabled = off
			w.replace("machines", a, &m)
		}
		w.gathered()
		if got := w.renewed(); len(got) != 2 || got[1] != fmt.Sprintf("1.0.0 to %s for %q: [%s], 1 skipped", w.dev, "", a) {
			t.Errorf("%q", got)
		}
		want := []string{"TriggerFired", "TriggerFired"}
		if diff := cmp.Diff(want, w.told()); diff != "" {
			t.Errorf("(-want +got):\n%s\n%q", diff, w.texts(`SELECT e.message FROM events e WHERE e.category LIKE 'Trigger%'`))
		}
		if n := len(w.texts(`SELECT u.id FROM due u WHERE u.kind = 'machines'`)); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// TestTargetTriggerForTenants: each tenant of a target has its own release renewed, or
// the one that was chosen.
func TestTargetTriggerForTenants(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.onTargets()
		w.project.TenantedDeploymentMode = octopus.Tenanted
		w.replace("projects", w.project.ID, &w.project)
		tenant := func(name string) string {
			return w.create("tenants", &octopus.Tenant{Name: name, ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}})
		}
		acme, beta, gamma := tenant("Acme"), tenant("Beta"), tenant("Gamma")
		of := func(tenants ...string) func(m *octopus.Machine) {
			return func(m *octopus.Machine) {
				m.TenantedDeploymentParticipation, m.TenantIDs = octopus.Tenanted, tenants
			}
		}
		w.target("shared", of(acme, beta, gamma))
		w.releaseTo(w.dev, "1.0.0", releases.Options{}, acme, gamma)
		w.releaseTo(w.dev, "2.0.0", releases.Options{}, beta)
		chosen := w.texts(`SELECT r.id FROM release r WHERE r.version = '1.0.0'`)[0]
		w.load("projects", w.project.ID, &w.project)
		w.project.AutoDeployReleaseOverrides = octopus.List[octopus.AutoDeployReleaseOverride]{{EnvironmentID: w.dev, TenantID: octopus.NullString(beta), ReleaseID: chosen}}
		w.replace("projects", w.project.ID, &w.project)
		w.machineTrigger()
		id := w.target("new", of(acme, beta))
		w.gathered()
		got := w.renewed()
		slices.Sort(got)
		want := []string{
			fmt.Sprintf("1.0.0 to %s for %q: [%s], 0 skipped", w.dev, acme, id),
			fmt.Sprintf("1.0.0 to %s for %q: [%s], 0 skipped", w.dev, beta, id),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s\n%q", diff, w.texts(`SELECT e.message FROM events e WHERE e.category LIKE 'Trigger%'`))
		}
	})
}

// TestScheduleForTenantsWithPrompts: a schedule answers prompts by the variable's id, for
// each of its tenants and those with its tags; without an answer it fails and says so.
func TestScheduleForTenantsWithPrompts(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.project.TenantedDeploymentMode = octopus.Tenanted
		w.replace("projects", w.project.ID, &w.project)
		w.create("tagsets", &octopus.TagSet{Name: "Region", Tags: octopus.List[octopus.Tag]{{Name: "North", Color: "#333333"}}})
		connected := octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}
		named := w.create("tenants", &octopus.Tenant{Name: "Named", ProjectEnvironments: connected})
		tagged := w.create("tenants", &octopus.Tenant{Name: "Tagged", ProjectEnvironments: connected, TenantTags: octopus.List[string]{"Region/North"}})
		w.create("tenants", &octopus.Tenant{Name: "Other", ProjectEnvironments: connected})
		w.create("tenants", &octopus.Tenant{Name: "Off", ProjectEnvironments: connected, TenantTags: octopus.List[string]{"Region/North"}, IsDisabled: true})
		w.create("tenants", &octopus.Tenant{Name: "Elsewhere", ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.test}}, TenantTags: octopus.List[string]{"Region/North"}})
		var set octopus.VariableSet
		w.load("variables", w.project.VariableSetID, &set)
		set.Variables = octopus.List[octopus.Variable]{{Name: "Answer", Type: octopus.VariableString, Prompt: &octopus.VariablePrompt{Label: "The answer", Required: true}}}
		w.replace("variables", set.ID, &set)
		w.load("variables", w.project.VariableSetID, &set)
		trigger := func(name, cron, variables string) {
			w.create(resources.TriggerKind, &octopus.Trigger{
				Name: name, ProjectID: w.project.ID, Filter: octopus.TriggerFilter{FilterType: octopus.FilterCron, CronExpression: cron},
				Action: octopus.TriggerAction{
					ActionType: octopus.TriggerDeployNew, EnvironmentID: w.dev, Variables: variables,
					TenantIDs: octopus.List[string]{named}, TenantTags: octopus.List[string]{"region/north"},
				},
			})
		}
		trigger("Answered", "0 0 1 * * *", fmt.Sprintf(`{%q:"42"}`, set.Variables[0].ID))
		trigger("Not answered", "0 0 2 * * *", "")
		w.at(day(1, "01:00:00"))
		w.look()
		got := w.texts(`SELECT d.tenant_id FROM deployment d ORDER BY d.tenant_id`)
		want := []string{named, tagged}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%q", diff, w.texts(`SELECT e.message FROM events e WHERE e.category LIKE 'Trigger%'`))
		}
		for _, id := range w.texts(`SELECT d.id FROM deployment d`) {
			d, err := w.deployment(id)
			check(t, err)
			if got := string(d.FormValues[set.Variables[0].ID]); got != "42" {
				t.Errorf("%s has the answer %q", id, got)
			}
		}
		w.end(octopus.TaskSuccess)
		w.at(day(1, "02:00:00"))
		w.look()
		w.count(2, "without an answer")
		told := w.texts(`SELECT e.message FROM events e WHERE e.category = 'TriggerFailed'`)
		if len(told) != 1 || !strings.Contains(told[0], `"The answer" needs a value`) {
			t.Errorf("%q", told)
		}
	})
}

// TestScheduleInAFreeze: what a schedule would deploy into a freeze is left out, and
// the audit trail says why.
func TestScheduleInAFreeze(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.every("0 0 1 * * *")
		w.create(resources.FreezeKind, &octopus.DeploymentFreeze{
			Name: "Winter", Start: octopus.NewTime(day(1, "00:30:00")), End: octopus.NewTime(day(1, "01:30:00")),
			ProjectEnvironmentScope: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}},
		})
		w.at(day(1, "01:00:00"))
		w.look()
		w.count(0, "in the freeze")
		told := w.texts(`SELECT e.message FROM events e WHERE e.category = 'TriggerFailed'`)
		if len(told) != 1 || !strings.Contains(told[0], "The deployment freeze 'Winter' keeps the project 'Web Shop' from being deployed to Dev until 2026-01-01T01:30:00") {
			t.Errorf("%q", told)
		}
		w.at(day(2, "01:00:00"))
		w.look()
		w.count(1, "after it")
	})
}

func (w *world) deployment(id string) (d *octopus.Deployment, err error) {
	err = w.servers[0].db.Read(w.ctx, func(tx *db.Tx) error {
		d, err = w.servers[0].rel.Deployment(w.ctx, tx, space, id)
		return err
	})
	return d, err
}
