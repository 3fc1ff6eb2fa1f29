package tasks

import (
	"cmp"
	"context"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// maxScript bounds the text of a script that a task runs, in bytes.
const maxScript = 1 << 20

// syntaxes are the languages of scripts that a task runs.
var syntaxes = []octopus.ScriptSyntax{octopus.SyntaxBash, octopus.SyntaxPython, octopus.SyntaxPowerShell} //nolint:gochecknoglobals // a constant list

// script is the task that runs a script on machines: those of some ids, else the targets
// of environments with one of some tags, else the workers of pools.
func (c *chooser) script(ctx context.Context, tx *db.Tx, in *octopus.Task, description string) (n tasks.New, err error) {
	args := argumentsOf(in)
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	lists := map[string][]string{}
	for _, name := range []string{"MachineIds", "WorkerIds", "EnvironmentIds", "TargetRoles", "WorkerPoolIds"} {
		list, err := args.ids(name)
		note(err)
		lists[name] = list
	}
	body := ""
	note(args.read("ScriptBody", "a text", &body))
	language, err := args.text("Syntax")
	note(err)
	kind, err := args.text("TargetType")
	note(err)
	template, err := args.text("ActionTemplateId")
	note(err)
	var values octopus.Properties
	note(args.read("Properties", "the values of the step template's parameters", &values))
	var syntax octopus.ScriptSyntax
	for _, one := range syntaxes {
		if strings.EqualFold(string(one), cmp.Or(language, string(octopus.SyntaxPowerShell))) {
			syntax = one
		}
	}
	switch {
	case strings.EqualFold(kind, "OctopusServer"):
		note(fault.InvalidField("Arguments.TargetType", "Arguments.TargetType is OctopusServer, and this server runs no such scripts on its own host; run them on machines or workers."))
	case template != "":
		note(c.exists(ctx, tx, "ActionTemplateId", "actiontemplates", template, "ActionTemplateView"))
	case syntax == "":
		note(fault.InvalidField("Arguments.Syntax", "Arguments.Syntax is '%.50s'; use Bash, Python or PowerShell.", language))
	case strings.TrimSpace(body) == "":
		note(fault.InvalidField("Arguments.ScriptBody", "Arguments.ScriptBody is empty; give the script."))
	case len(body) > maxScript:
		note(fault.InvalidField("Arguments.ScriptBody", "Arguments.ScriptBody has %d bytes; use at most %d.", len(body), maxScript))
	}
	if err := joined(errs); err != nil {
		return n, err
	}
	var found []health.Found
	ids := append(lists["MachineIds"], lists["WorkerIds"]...)
	switch {
	case len(ids) > 0:
		found, err = c.byID(ctx, tx, "MachineIds", ids)
	case len(lists["EnvironmentIds"]) > 0:
		where := []docstore.Match{{Path: "EnvironmentIds", Any: lists["EnvironmentIds"]}}
		if len(lists["TargetRoles"]) > 0 {
			where = append(where, docstore.Match{Path: "Roles", Any: lists["TargetRoles"]})
		}
		found, err = c.find(ctx, tx, resources.TargetKind, docstore.Query{Where: where}, true)
	case len(lists["WorkerPoolIds"]) > 0:
		found, err = c.find(ctx, tx, resources.WorkerKind, docstore.Query{Where: []docstore.Match{{Path: "WorkerPoolIds", Any: lists["WorkerPoolIds"]}}}, true)
	}
	if err != nil {
		return n, err
	}
	script := releases.NewScript{Space: c.space, Description: cmp.Or(description, "Run a script"), Syntax: syntax, Body: body, Template: template, Values: values}
	for i := range found {
		f := &found[i]
		switch {
		case f.IsDisabled && len(ids) > 0:
			return n, fault.InvalidField("Arguments.MachineIds", "Arguments.MachineIds names %s, which is disabled; enable it, or leave it out.", f.Machine.Name)
		case f.IsDisabled:
			continue
		case !f.Checkable() || f.Endpoint.CommunicationStyle == octopus.StyleNone:
			if len(ids) > 0 {
				return n, fault.InvalidField("Arguments.MachineIds", "Arguments.MachineIds names %s, which has no agent that could run a script; leave it out.", f.Machine.Name)
			}
			continue
		}
		script.Machines = append(script.Machines, deploy.Machine{ID: f.Machine.ID, Name: f.Machine.Name})
	}
	switch {
	case len(script.Machines) == 0:
		return n, fault.New(fault.Invalid, "The arguments name no machine on which a script could run; give MachineIds, or EnvironmentIds with TargetRoles, or WorkerPoolIds.")
	case len(script.Machines) > deploy.MaxMachines:
		return n, fault.New(fault.Invalid, "These are %d machines; a task runs a script on at most %d.", len(script.Machines), deploy.MaxMachines)
	}
	n, err = c.a.service.Script(ctx, tx, script)
	n.EnvironmentID = oneEnvironment(found)
	return n, err
}
