package resources

import (
	"context"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// LibraryVariableSets are variables, or script modules, that projects share.
func LibraryVariableSets() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.LibraryVariableSet]{
		Name: "libraryvariablesets", ItemType: "LibraryVariableSet", Noun: "library variable set", Prefix: "LibraryVariableSets",
		Permissions: resource.Permissions{View: "LibraryVariableSetView", Create: "LibraryVariableSetCreate", Edit: "LibraryVariableSetEdit", Delete: "LibraryVariableSetDelete"},
		Unique:      []resource.Unique{{Field: "Name", Within: "ContentType"}},
		Filters:     []resource.Filter{{Param: "contentType", Path: "ContentType"}},
		Owned:       []string{"VariableSetId"},
		Links:       map[string]string{"Variables": "/api/{space}/variables/{VariableSetId}"},
		Prepare: func(v *octopus.LibraryVariableSet) {
			v.VariableSetID = "variableset-" + v.ID
			if v.ContentType == "" {
				v.ContentType = octopus.ContentVariables
			}
		},
		Check: func(_ context.Context, _ resource.Reader, old, v *octopus.LibraryVariableSet) error {
			if old != nil && old.ContentType != v.ContentType {
				return fault.InvalidField("ContentType", "ContentType is '%.100s'; a library variable set stays what it is, '%s'. Create another one instead.", v.ContentType, old.ContentType)
			}
			var templates octopus.List[octopus.TemplateParameter]
			if old != nil {
				templates = old.Templates
			}
			if err := checkTemplates(v.Templates, templates); err != nil {
				return err
			}
			return oneOf("ContentType", &v.ContentType, octopus.ContentVariables, octopus.ContentScriptModule)
		},
		InTx: func(ctx context.Context, w resource.Writer, c resource.Change[octopus.LibraryVariableSet]) error {
			switch c.Op {
			case resource.Created:
				_, err := w.Create(ctx, "variables", c.Space, c.New.VariableSetID, &VariableSet{OwnerID: c.ID})
				return err
			case resource.Deleted:
				return w.Delete(ctx, "variables", c.Old.VariableSetID)
			case resource.Modified:
			}
			return nil
		},
	})
}
