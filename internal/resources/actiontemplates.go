package resources

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// ActionTemplates are step templates: actions with parameters. A step that is made
// from one is a copy, which stays as it is until somebody updates it. Every change
// makes a version; all of them are kept.
func ActionTemplates() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.ActionTemplate]{
		Name: "actiontemplates", ItemType: "ActionTemplate", Noun: "step template", Prefix: "ActionTemplates",
		Permissions: resource.Permissions{View: "ActionTemplateView", Create: "ActionTemplateCreate", Edit: "ActionTemplateEdit", Delete: "ActionTemplateDelete"},
		Owned:       []string{"Version", "CommunityActionTemplateId"},
		Links: map[string]string{
			"Usage":         "/api/{space}/actiontemplates/{Id}/usage",
			"ActionsUpdate": "/api/{space}/actiontemplates/{Id}/actionsUpdate",
			"Versions":      "/api/{space}/actiontemplates/{Id}/versions{/version}",
			"Logo":          "/api/{space}/actiontemplates/{Id}/logo",
		},
		Check: checkActionTemplate,
		InTx:  actionTemplateInTx,
	})
}

// ActionTemplateVersion is a step template as it was.
type ActionTemplateVersion struct {
	octopus.Resource
	SpaceID          string                 `json:"SpaceId"`
	ActionTemplateID string                 `json:"ActionTemplateId"`
	Version          int                    `json:"Version"`
	Template         octopus.ActionTemplate `json:"Template"`
}

// ActionTemplateVersionID is the id of a version of a step template.
func ActionTemplateVersionID(template string, version int) string {
	return fmt.Sprintf("ActionTemplateVersions-%s-v%d", template, version)
}

// ActionTemplateVersions are step templates as they were. They go with their template.
func ActionTemplateVersions() *resource.Kind {
	return resource.Declare(resource.Declaration[ActionTemplateVersion]{
		Name: "actiontemplateversions", ItemType: "ActionTemplateVersion", Noun: "version of a step template", Prefix: "ActionTemplateVersions",
		Permissions: resource.Permissions{View: "ActionTemplateView"},
		Unnamed:     true, Hidden: true, Unaudited: true, Order: resource.ByAge,
		References: []resource.Reference{{Path: "ActionTemplateId", To: "actiontemplates", OnDelete: resource.Cascade, Required: true}},
	})
}

const maxParameters = 500 // of one step template

func checkActionTemplate(_ context.Context, _ resource.Reader, old, v *octopus.ActionTemplate) error {
	var had octopus.List[octopus.TemplateParameter]
	v.Version = 0
	if old != nil {
		had, v.Version = old.Parameters, old.Version+1
	}
	faults := []error{checkTemplates(v.Parameters, had)}
	switch {
	case strings.TrimSpace(string(v.ActionType)) == "":
		faults = append(faults, fault.InvalidField("ActionType", "ActionType is empty; give one such as Octopus.Script."))
	case old != nil && old.ActionType != v.ActionType:
		faults = append(faults, fault.InvalidField("ActionType", "ActionType is '%.100s'; a step template stays what it is, '%s'. Create another one instead.", v.ActionType, old.ActionType))
	case len(v.Parameters) > maxParameters:
		faults = append(faults, fault.InvalidField("Parameters", "Parameters has %d entries; use at most %d.", len(v.Parameters), maxParameters))
	}
	return errors.Join(faults...)
}

func actionTemplateInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.ActionTemplate]) error {
	if c.Op == resource.Deleted {
		quoted, err := encodedText(c.ID)
		if err != nil {
			return err
		}
		users, err := column(ctx, w, `SELECT d.id FROM documents d WHERE d.kind = 'deploymentprocesses' AND d.space_id = ? AND d.deleted = 0 AND d.body LIKE ? ORDER BY d.seq LIMIT 5`,
			string(c.Space), "%"+quoted+"%")
		if err != nil {
			return fmt.Errorf("look up uses of a step template: %w", err)
		}
		if len(users) > 0 {
			return fault.New(fault.Conflict, "The step template '%s' cannot be deleted because it is used by %s; change or delete these first.", c.Old.Name, strings.Join(users, ", "))
		}
		return nil
	}
	v := ActionTemplateVersion{ActionTemplateID: c.ID, Version: c.New.Version}
	if err := w.Reveal(ctx, "actiontemplates", c.ID, &v.Template); err != nil {
		return err
	}
	_, err := w.Create(ctx, "actiontemplateversions", c.Space, ActionTemplateVersionID(c.ID, v.Version), &v)
	return err
}
