package tasks

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/renewal"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// arguments are those of a task that somebody starts, by names without case.
type arguments map[string]json.RawMessage

func argumentsOf(in *octopus.Task) arguments {
	a := arguments{}
	for name, value := range in.Arguments {
		if string(value) != "null" {
			a[strings.ToLower(name)] = value
		}
	}
	return a
}

// read decodes an argument, if it is there.
func (a arguments) read(name, must string, v any) error {
	value, ok := a[strings.ToLower(name)]
	if !ok {
		return nil
	}
	if json.Unmarshal(value, v) != nil {
		return fault.InvalidField("Arguments."+name, "Arguments.%s is %.100s; it must be %s.", name, value, must)
	}
	return nil
}

func (a arguments) text(name string) (text string, err error) {
	err = a.read(name, "a text", &text)
	return strings.TrimSpace(text), err
}

// ids is a list of ids; some clients join them with commas.
func (a arguments) ids(name string) (list []string, err error) {
	if text := ""; json.Unmarshal(a[strings.ToLower(name)], &text) == nil {
		list = strings.Split(text, ",")
	} else if err := a.read(name, "a list of ids", &list); err != nil {
		return nil, err
	}
	var out []string
	for _, id := range list {
		if id = strings.TrimSpace(id); id != "" && !containsFold(out, id) {
			out = append(out, id)
		}
	}
	return out, nil
}

// period is a duration, between 0 (not given) and a day.
func (a arguments) period(name string) (time.Duration, error) {
	var t octopus.TimeSpan
	if err := a.read(name, "a period such as 00:05:00", &t); err != nil {
		return 0, err
	}
	if d := time.Duration(t); d >= 0 && d <= 24*time.Hour {
		return d, nil
	}
	return 0, fault.InvalidField("Arguments."+name, "Arguments.%s is %s; use at most a day, such as 00:05:00.", name, time.Duration(t))
}

// chooser finds the machines that a task of the caller may have to do with.
type chooser struct {
	a     *api
	r     *rest.Request
	space ident.SpaceID
	// runs says that the task runs what its caller wrote: it takes the permission to
	// change the machine too, in each of its environments and for each of its tenants.
	runs bool
}

// within are grants that are not limited to some projects: a machine is all projects'.
func (c *chooser) within(permission string) []resource.Grant {
	all := c.r.GrantsIn(c.space, permission)
	if all == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(g resource.Grant) bool { return len(g.Projects)+len(g.ProjectGroups) > 0 })
}

// covers reports whether grants hold for a machine: in each of its environments and for
// each of its tenants, or in any of them.
func covers(grants []resource.Grant, f *health.Found, all bool) bool {
	if grants == nil {
		return true
	}
	each := func(ids []string) []string {
		if len(ids) == 0 {
			return []string{""}
		}
		return ids
	}
	in := func(ids []string, id string) bool { return len(ids) == 0 || containsFold(ids, id) }
	for _, environment := range each(f.EnvironmentIDs) {
		for _, tenant := range each(f.TenantIDs) {
			ok := slices.ContainsFunc(grants, func(g resource.Grant) bool { return in(g.Environments, environment) && in(g.Tenants, tenant) })
			if ok != all {
				return ok
			}
		}
	}
	return all
}

// find returns the machines of a kind, of a query, that the caller may see. Those whose
// permissions do not reach are left out, or refused where strict says so.
func (c *chooser) find(ctx context.Context, tx *db.Tx, kind string, q docstore.Query, strict bool) ([]health.Found, error) {
	view, change := string(octopus.PermMachineView), string(octopus.PermMachineEdit)
	if kind == resources.WorkerKind {
		view, change = string(octopus.PermWorkerView), string(octopus.PermWorkerEdit)
	}
	q.Space, q.Visible = c.space, c.r.GrantsIn(c.space, view)
	all, err := health.Find(ctx, c.a.store, tx, kind, q)
	if err != nil {
		return nil, err
	}
	var out []health.Found
	needs := []string{create}
	if c.runs {
		needs = append(needs, change)
	}
	for i := range all {
		missing := slices.IndexFunc(needs, func(p string) bool { return !covers(c.within(p), &all[i], c.runs) })
		switch {
		case missing < 0:
			out = append(out, all[i])
		case strict:
			return nil, fault.New(fault.Forbidden, "You do not have permission to do this with %s: it needs %s, for all projects and for the machine. Ask an administrator for a role that grants it.", all[i].Machine.Name, needs[missing])
		}
	}
	return out, nil
}

// byID returns the machines of some ids, targets and workers, in their order.
func (c *chooser) byID(ctx context.Context, tx *db.Tx, argument string, ids []string) ([]health.Found, error) {
	byKind := map[string][]string{}
	for _, id := range ids {
		kind := resources.TargetKind
		if len(id) > 8 && strings.EqualFold(id[:8], "Workers-") {
			kind = resources.WorkerKind
		}
		byKind[kind] = append(byKind[kind], id)
	}
	found := map[string]health.Found{}
	for _, kind := range []string{resources.TargetKind, resources.WorkerKind} {
		if len(byKind[kind]) == 0 {
			continue
		}
		some, err := c.find(ctx, tx, kind, docstore.Query{IDs: byKind[kind]}, true)
		if err != nil {
			return nil, err
		}
		for _, f := range some {
			found[ident.Fold(f.ID)] = f
		}
	}
	out := make([]health.Found, 0, len(ids))
	for _, id := range ids {
		f, ok := found[ident.Fold(id)]
		if !ok {
			return nil, fault.InvalidField("Arguments."+argument, "Arguments.%s names '%.100s', which was not found in this space, or you do not have permission to view it; give ids of machines or workers.", argument, id)
		}
		out = append(out, f)
	}
	return out, nil
}

// named are the machines that a task's arguments name: those of some ids, else those of
// an environment, else those of a worker pool, else all that the caller may have it do
// with. Given are the arguments that say so, for the task to keep.
func (c *chooser) named(ctx context.Context, tx *db.Tx, args arguments) (found []health.Found, given map[string]any, err error) {
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	ids, err := args.ids("MachineIds")
	note(err)
	environment, err := args.text("EnvironmentId")
	note(err)
	pool, err := args.text("WorkerpoolId")
	note(err)
	only, err := args.text("RestrictedTo")
	note(err)
	targets, workers := true, true
	switch strings.ToLower(only) {
	case "", "unlimited":
	case "deploymenttargets":
		workers = false
	case "workers":
		targets = false
	case "policies":
		if len(ids) == 0 {
			note(fault.InvalidField("Arguments.MachineIds", "Arguments.MachineIds is empty; with RestrictedTo Policies, give the ids of the machines."))
		}
	default:
		note(fault.InvalidField("Arguments.RestrictedTo", "Arguments.RestrictedTo is '%.50s'; use DeploymentTargets, Workers, Policies or Unlimited.", only))
	}
	if err := joined(errs); err != nil {
		return nil, nil, err
	}
	add := func(kind string, where ...docstore.Match) error {
		some, err := c.find(ctx, tx, kind, docstore.Query{Where: where}, false)
		found = append(found, some...)
		return err
	}
	switch {
	case len(ids) > 0:
		found, err = c.byID(ctx, tx, "MachineIds", ids)
	case environment != "":
		if err = c.exists(ctx, tx, "EnvironmentId", "environments", environment, string(octopus.PermEnvironmentView)); err == nil {
			err = add(resources.TargetKind, docstore.Match{Path: "EnvironmentIds", Any: []string{environment}})
		}
	case pool != "":
		if err = c.exists(ctx, tx, "WorkerpoolId", "workerpools", pool, string(octopus.PermWorkerView)); err == nil {
			err = add(resources.WorkerKind, docstore.Match{Path: "WorkerPoolIds", Any: []string{pool}})
		}
	default:
		if targets {
			err = add(resources.TargetKind)
		}
		if workers && err == nil {
			err = add(resources.WorkerKind)
		}
	}
	switch {
	case err != nil:
		return nil, nil, err
	case len(found) > health.MaxMachines:
		return nil, nil, fault.New(fault.Invalid, "These are %d machines; a task has to do with %d at most. Name an environment, a worker pool or machines.", len(found), health.MaxMachines)
	}
	given = map[string]any{}
	for name, value := range map[string]string{"EnvironmentId": environment, "WorkerpoolId": pool, "RestrictedTo": only} {
		if value != "" {
			given[name] = value
		}
	}
	if len(ids) > 0 {
		all := make([]string, len(found))
		for i := range found {
			all[i] = found[i].ID
		}
		given["MachineIds"] = all
	}
	return found, given, nil
}

func machinesOf(found []health.Found) []health.Machine {
	out := make([]health.Machine, len(found))
	for i := range found {
		out[i] = found[i].Machine
	}
	return out
}

// health is the task that checks machines.
func (c *chooser) health(ctx context.Context, tx *db.Tx, in *octopus.Task, description string) (n tasks.New, err error) {
	args := argumentsOf(in)
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	var job health.Job
	job.Timeout, err = args.period("Timeout")
	note(err)
	job.MachineTimeout, err = args.period("MachineTimeout")
	note(err)
	note(args.read("OnlyTestConnection", "true or false", &job.OnlyConnect))
	found, given, err := c.named(ctx, tx, args)
	note(err)
	if err := joined(errs); err != nil {
		return n, err
	}
	job.Machines = machinesOf(found)
	n = health.NewTask(c.space, job, description)
	maps.Copy(n.Arguments, given)
	for name, value := range map[string]time.Duration{"Timeout": job.Timeout, "MachineTimeout": job.MachineTimeout} {
		if value != 0 {
			n.Arguments[name] = octopus.TimeSpan(value)
		}
	}
	n.EnvironmentID = oneEnvironment(found)
	return n, nil
}

// upgrade is the task that upgrades the agents of machines, or, by the name of the other
// one, what has their tools updated.
func (c *chooser) upgrade(ctx context.Context, tx *db.Tx, in *octopus.Task, name octopus.TaskName, description string) (tasks.New, error) {
	found, given, err := c.named(ctx, tx, argumentsOf(in))
	if err != nil {
		return tasks.New{}, err
	}
	n := renewal.NewTask(c.space, machinesOf(found), description)
	if name == octopus.TaskUpdateCalamari {
		n.Name, n.Plan, n.Description = name, struct{}{}, cmp.Or(description, "Update the tools of machines")
	}
	maps.Copy(n.Arguments, given)
	n.EnvironmentID = oneEnvironment(found)
	return n, nil
}

// exists checks that a document that an argument names is there for the caller.
func (c *chooser) exists(ctx context.Context, tx *db.Tx, argument, kind, id, view string) error {
	k, err := c.a.store.Kind(kind)
	if err != nil {
		return err
	}
	docs, _, err := c.a.store.List(ctx, tx, k, docstore.Query{Space: c.space, IDs: []string{id}, Visible: c.r.GrantsIn(c.space, view), Page: ident.Page{Take: 1}})
	if err == nil && len(docs) == 0 {
		err = fault.InvalidField("Arguments."+argument, "Arguments.%s is '%.100s', which was not found in this space, or you do not have permission to view it; give the id of one of the %s.", argument, id, kind)
	}
	return err
}

// oneEnvironment is the environment that all of some targets are in, "" for none or
// several: who sees the tasks of an environment alone sees those about it.
func oneEnvironment(found []health.Found) string {
	one := ""
	for i := range found {
		ids := found[i].EnvironmentIDs
		if len(ids) != 1 || one != "" && ids[0] != one {
			return ""
		}
		one = ids[0]
	}
	return one
}
