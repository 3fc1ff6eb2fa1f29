package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// batch is how many rows a statement reads by their ids.
const batch = 100

// maxNamed bounds how many variables of one source, and targets of one lane, are named
// one by one; those beyond are in one hash together.
const maxNamed = 5000

// plans makes the plans of the last deployments of each place again.
func (r *run) plans(ctx context.Context) error {
	chosen, err := r.choose(ctx, r.Limits.Deployments, `SELECT p.id FROM (
			SELECT d.id, row_number() OVER (PARTITION BY d.project_id, d.environment_id, d.tenant_id ORDER BY d.created DESC, d.seq DESC) AS place
			FROM deployment d WHERE d.created <= ?) p WHERE p.place <= ?`, r.until(), r.Limits.PerPlace)
	if err != nil {
		return err
	}
	ids := chosen.ids()
	r.fact(PartPlans, "how many", fmt.Sprintf("%d of the %d that are the last %d of their place", len(ids), chosen.seen, r.Limits.PerPlace))
	for some := range slices.Chunk(ids, batch) {
		found, err := r.deployments(ctx, some)
		if err != nil {
			return err
		}
		for i := range found {
			if err := r.plan(ctx, &found[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) deployments(ctx context.Context, ids []string) (out []octopus.Deployment, err error) {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	err = r.DB.Read(ctx, func(tx *db.Tx) error {
		out = nil
		rows, err := tx.Query(ctx, `SELECT d.body FROM deployment d WHERE d.id IN (?`+strings.Repeat(", ?", len(ids)-1)+`) ORDER BY d.id`, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var body string
			if err := rows.Scan(&body); err != nil {
				return err
			}
			var d octopus.Deployment
			if err := json.Unmarshal([]byte(body), &d); err != nil {
				return fmt.Errorf("read a deployment: %w", err)
			}
			out = append(out, d)
		}
		return rows.Err()
	})
	return out, err
}

// plan notes what a deployment would do: its steps and actions, where each runs, with
// which packages, scripts and variables.
func (r *run) plan(ctx context.Context, d *octopus.Deployment) error {
	name := fmt.Sprintf("%s (%s to %s", d.ID, d.ProjectID, d.EnvironmentID)
	if d.TenantID != "" {
		name += " for " + string(d.TenantID)
	}
	name += ")"
	var p *deploy.Plan
	err := r.DB.Read(ctx, func(tx *db.Tx) (err error) {
		p, err = r.Releases.Replan(ctx, tx, d)
		return err
	})
	if err != nil {
		if ours(ctx, err) {
			return err
		}
		r.fact(PartPlans, name, reason(err))
		return nil
	}
	r.steps(name, p)
	process, err := r.Releases.Process(ctx, p)
	if err == nil {
		var values []variables.Variable
		if values, err = r.Releases.Variables(ctx, p); err == nil {
			r.variables(name, values)
			r.scripts(name, p, process, values)
			return nil
		}
	}
	if ours(ctx, err) {
		return err
	}
	r.fact(PartPlans, name+": variables", reason(err))
	return nil
}

// steps notes the order of a plan's steps and where their actions run.
func (r *run) steps(name string, p *deploy.Plan) {
	machines := map[string]string{"": "no target"}
	targets := map[string]string{}
	for i := range p.Machines {
		m := &p.Machines[i]
		machines[m.ID] = m.Name
		targets[m.Name] = fmt.Sprintf("tags %s; on a worker %t %s; may be offline %t", strings.Join(m.Roles, ", "), m.OnWorker, m.WorkerPoolID, m.MayBeOffline)
	}
	r.refer(PartPlans, name+": targets", targets)
	steps := map[string]string{}
	for i := range p.Steps {
		s := &p.Steps[i]
		steps[fmt.Sprintf("%03d %s", i+1, s.Name)] = fmt.Sprintf("number %s; condition %s; with the one before %t; rolling %t; tags %s; on %s",
			s.Number, s.Condition, s.WithPrevious, s.Rolling, strings.Join(s.Roles, ", "), r.lanes(s.Lanes, machines))
		for _, a := range s.Actions {
			steps[fmt.Sprintf("%03d %s / %s", i+1, s.Name, a.Name)] = fmt.Sprintf("number %s; type %s; place %s; pool %s%s; left out %t; required %t; own condition %t; packages %s",
				a.Number, a.Type, a.Place, a.WorkerPoolID, a.WorkerPoolVariable, a.Skip, a.Required, a.Variable, packages(a.Packages))
		}
	}
	r.refer(PartPlans, name+": steps", steps)
	general, err := json.Marshal(struct {
		Owner         deploy.OwnerKind
		Channel       string
		TenantTags    []string
		GuidedFailure bool
		Redeploy      bool
		Targets       deploy.Targets
	}{p.Owner, p.ChannelID, p.TenantTags, p.GuidedFailure, p.Redeploy, p.Targets})
	if err != nil {
		general = []byte(reason(err))
	}
	r.fact(PartPlans, name, string(general))
}

// lanes names the targets of a step.
func (r *run) lanes(ids []string, names map[string]string) string {
	const most = 20
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = names[id]
	}
	if len(out) > most {
		return fmt.Sprintf("%d targets %s", len(out), r.hash(append([]string{"targets"}, out...)...))
	}
	return strings.Join(out, ", ")
}

func packages(all []deploy.Package) string {
	var out []string
	for _, p := range all {
		out = append(out, fmt.Sprintf("%q %s %s of %s by %s, unpacked %t", p.Name, p.PackageID, p.Version, p.FeedID, p.Location, p.Extract))
	}
	return strings.Join(out, "; ")
}

// variables notes the values that the steps may use, by where they come from: what a
// project or a library set has is the same for all deployments of a release.
func (r *run) variables(name string, all []variables.Variable) {
	sources := map[string]map[string]string{}
	rest := map[string][]string{}
	for i := range all {
		v := &all[i]
		source := fmt.Sprintf("variables of %v %s", v.Source.Kind, v.Source.OwnerID)
		table := sources[source]
		if table == nil {
			table = map[string]string{}
			sources[source] = table
		}
		scope, err := json.Marshal(v.Scope)
		if err != nil {
			scope = []byte(reason(err))
		}
		kind := fmt.Sprintf("%s sensitive %t", v.Type, v.Sensitive)
		hash := kind + " " + r.hash("variable", source, v.Name, string(scope), v.Value)
		if len(table) >= maxNamed {
			rest[source] = append(rest[source], v.Name, string(scope), hash)
			continue
		}
		of := v.Name
		if text := string(scope); text != "{}" && text != "null" {
			of += " in " + text
		}
		for n := 2; table[of] != ""; n++ { // two of one name and scope, in their order
			of = fmt.Sprintf("%s (%d)", v.Name, n)
		}
		table[of] = hash
	}
	for source, table := range sources {
		if more := rest[source]; more != nil {
			table["(the others)"] = r.hash(append([]string{"variables"}, more...)...)
		}
		r.refer(PartPlans, name+": "+source, table)
	}
}

// scripts notes what actions are told to do, as it reads with the variables put in: of a
// script action that is the script.
func (r *run) scripts(name string, p *deploy.Plan, process []octopus.Step, all []variables.Variable) {
	set := variables.New(all...)
	takesPart := map[string]bool{}
	for i := range p.Steps {
		for _, a := range p.Steps[i].Actions {
			takesPart[a.ID] = true
		}
	}
	told := map[string]string{}
	for i := range process {
		s := &process[i]
		for j := range s.Actions {
			a := &s.Actions[j]
			if !takesPart[a.ID] {
				continue
			}
			resolved := set.Resolve(variables.Context{
				Environment: p.EnvironmentID, Channel: p.ChannelID, Tenant: p.TenantID, TenantTags: p.TenantTags, ProcessOwner: p.ProjectID, Action: a.ID,
			})
			var pairs []octostache.Pair
			for v := range resolved.All() {
				pairs = append(pairs, octostache.Pair{Name: v.Name, Value: v.Value})
			}
			// Both programs read the same clock.
			values := octostache.NewVariables(octostache.Options{Now: time.Unix(0, 0).UTC()}, pairs...)
			for key, v := range a.Properties {
				text := v.Value
				if v.Sensitive != nil && v.Sensitive.NewValue != nil {
					text = *v.Sensitive.NewValue
				}
				what := "setting " + key
				if strings.EqualFold(key, octopus.PropScriptBody) {
					what = "script"
				}
				told[fmt.Sprintf("%s / %s: %s", s.Name, a.Name, what)] = r.hash("property", a.ID, key, values.Evaluate(text).Text)
			}
		}
	}
	r.refer(PartPlans, name+": scripts", told)
}
