package resources

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

// TriggerKind names the kind of triggers.
const TriggerKind = "projecttriggers"

// ProjectTriggers do something for a project when something else happens.
//
// A filter or an action of a type that is not known here is kept as it is; it
// fails, with a sentence, when it is to do something.
func ProjectTriggers() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Trigger]{
		Name: TriggerKind, ItemType: "ProjectTrigger", Noun: "trigger", Prefix: "ProjectTriggers",
		Permissions: resource.Permissions{View: "TriggerView", Create: "TriggerCreate", Edit: "TriggerEdit", Delete: "TriggerDelete"},
		Dimensions:  resource.Dimensions{Project: "ProjectId"},
		Unique:      []resource.Unique{{Field: "Name", Within: "ProjectId"}},
		Filters: []resource.Filter{
			{Param: "projectIds", Path: "ProjectId"},
			{Param: "filterTypes", Path: "Filter.FilterType"},
			{Param: "actionTypes", Path: "Action.ActionType"},
		},
		References: []resource.Reference{
			{Path: "ProjectId", To: "projects", OnDelete: resource.Cascade, Required: true},
			{Path: "Action.ChannelId", To: "channels"},
			{Path: "Action.SourceEnvironmentIds", To: "environments"},
			{Path: "Action.DestinationEnvironmentId", To: "environments"},
			{Path: "Action.EnvironmentId", To: "environments"},
			// A tenant that is gone is passed over when the trigger runs; were it
			// taken out, a trigger for it alone would deploy for nobody.
			{Path: "Action.TenantIds", To: "tenants", OnDelete: resource.Ignore},
		},
		Links: map[string]string{
			"Project":   "/api/{space}/projects/{ProjectId}",
			"Scheduled": "/api/{space}/scheduledprojecttriggers/{Id}",
		},
		Prepare: func(v *octopus.Trigger) {
			if timetable.IsSchedule(v.Filter.FilterType) && v.Filter.Timezone == "" {
				v.Filter.Timezone = "UTC"
			}
		},
		Check: checkTrigger,
		InTx:  triggerInTx,
	})
}

// causes are the filters that can set an action off.
var causes = map[octopus.TriggerActionType]func(octopus.FilterType) bool{ //nolint:gochecknoglobals // a constant table
	octopus.TriggerAutoDeploy:    func(f octopus.FilterType) bool { return f == octopus.FilterMachine },
	octopus.TriggerDeployLatest:  timetable.IsSchedule,
	octopus.TriggerDeployNew:     timetable.IsSchedule,
	octopus.TriggerRunRunbook:    func(f octopus.FilterType) bool { return timetable.IsSchedule(f) || f == octopus.FilterWebhook },
	octopus.TriggerCreateRelease: func(f octopus.FilterType) bool { return slices.Contains(changesOfSources, f) },
}

var changesOfSources = []octopus.FilterType{octopus.FilterFeed, octopus.FilterArcFeed, octopus.FilterGit} //nolint:gochecknoglobals // a constant list

func checkTrigger(ctx context.Context, r resource.Reader, old, v *octopus.Trigger) error {
	if old != nil && old.ProjectID != v.ProjectID {
		return fault.InvalidField("ProjectId", "ProjectId is '%s'; a trigger stays in its project, '%s'.", v.ProjectID, old.ProjectID)
	}
	var had octopus.List[string]
	if old != nil {
		had = old.Action.TenantTags
	}
	err := errors.Join(checkFilter(&v.Filter), checkAction(&v.Action), checkTenantTags(ctx, r, v.SpaceID, had, tagList{"Action.TenantTags", v.Action.TenantTags}))
	if err != nil {
		return err
	}
	known := timetable.IsSchedule(v.Filter.FilterType) || slices.Contains(changesOfSources, v.Filter.FilterType) ||
		v.Filter.FilterType == octopus.FilterMachine || v.Filter.FilterType == octopus.FilterWebhook
	if cause := causes[v.Action.ActionType]; cause != nil && known && !cause(v.Filter.FilterType) {
		return fault.InvalidField("Action.ActionType", "Action.ActionType is %s, which a filter of type %s cannot set off; choose another of the two.", v.Action.ActionType, v.Filter.FilterType)
	}
	if v.Action.ChannelID == "" {
		return nil
	}
	var channel octopus.Channel
	if err := r.Load(ctx, "channels", v.Action.ChannelID, &channel); err != nil {
		return err
	}
	if channel.ProjectID != v.ProjectID {
		return fault.InvalidField("Action.ChannelId", "Action.ChannelId is '%s', a channel of another project; name one of the trigger's own.", v.Action.ChannelID)
	}
	return nil
}

func checkFilter(f *octopus.TriggerFilter) error {
	switch {
	case f.FilterType == "":
		return fault.InvalidField("Filter.FilterType", "Filter.FilterType is missing; name what sets the trigger off, such as OnceDailySchedule.")
	case timetable.IsSchedule(f.FilterType):
		_, err := timetable.Of(f)
		return err
	case f.FilterType == octopus.FilterArcFeed && len(f.Packages) == 0:
		return fault.InvalidField("Filter.Packages", "Filter.Packages is empty; name a package whose new versions set the trigger off.")
	}
	for _, p := range f.Packages {
		if p.DeploymentAction == "" && p.DeploymentActionSlug == "" {
			return fault.InvalidField("Filter.Packages", "Filter.Packages has an entry without DeploymentActionSlug; name the step that uses the package.")
		}
	}
	return nil
}

func checkAction(a *octopus.TriggerAction) error {
	need := func(field string, missing bool, what string) error {
		if missing {
			return fault.InvalidField("Action."+field, "Action.%s is missing; name %s.", field, what)
		}
		return nil
	}
	if a.Variables != "" {
		var answers map[string]string
		if err := json.Unmarshal([]byte(a.Variables), &answers); err != nil {
			return fault.InvalidField("Action.Variables", "Action.Variables is no JSON object of texts; write it as {\"Variables-1\":\"value\"}.")
		}
	}
	switch a.ActionType {
	case "":
		return need("ActionType", true, "what the trigger does, such as DeployLatestRelease")
	case octopus.TriggerDeployLatest:
		return errors.Join(
			need("SourceEnvironmentIds", len(a.SourceEnvironmentIDs) == 0, "the environments whose latest release is taken"),
			need("DestinationEnvironmentId", a.DestinationEnvironmentID == "", "the environment to deploy to"),
		)
	case octopus.TriggerDeployNew:
		return need("EnvironmentId", a.EnvironmentID == "", "the environment to deploy to")
	case octopus.TriggerRunRunbook:
		return need("RunbookId", a.RunbookID == "", "the runbook to run")
	case octopus.TriggerAutoDeploy, octopus.TriggerCreateRelease:
	}
	return nil
}

// triggerInTx keeps the due row of a schedule in step with its trigger.
func triggerInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.Trigger]) error {
	tx := w.Tx()
	if c.New == nil || c.New.IsDisabled || !timetable.IsSchedule(c.New.Filter.FilterType) {
		return dropDue(ctx, tx, c.ID)
	}
	table, err := timetable.Of(&c.New.Filter)
	if err != nil {
		return err
	}
	// What was done once is not done again, wherever the clock stands.
	var fired int64
	err = tx.QueryRow(ctx, `SELECT u.fired FROM due u WHERE u.id = ?`, c.ID).Scan(&fired)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read when %s is due: %w", c.ID, err)
	}
	next, ok := table.Next(db.Time(max(fired, db.Micros(tx.Now()))))
	if !ok {
		return dropDue(ctx, tx, c.ID)
	}
	_, err = tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks) VALUES (?, 'trigger', ?, '', ?, 0, 0, 0, 0, '', '')
		ON CONFLICT (id) DO UPDATE SET at = excluded.at`, c.ID, string(c.Space), db.Micros(next))
	if err != nil {
		return fmt.Errorf("store when %s is due: %w", c.ID, err)
	}
	return nil
}

func dropDue(ctx context.Context, tx *db.Tx, id string) error {
	if _, err := tx.Exec(ctx, `DELETE FROM due WHERE id = ?`, id); err != nil {
		return fmt.Errorf("forget when %s is due: %w", id, err)
	}
	return nil
}
