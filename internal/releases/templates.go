package releases

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// templates reads the step templates that actions were made from, each version once.
type templates struct {
	s     *Service
	space ident.SpaceID
	read  map[string]*octopus.ActionTemplate // by id of the version; nil is none
}

func (s *Service) templates(space ident.SpaceID) *templates {
	return &templates{s, space, map[string]*octopus.ActionTemplate{}}
}

// of is the template that an action was made from, as it was then, its secrets in
// clear. It is nil for an action that is made from none, or from one that is gone: the
// action is a copy, and stays what it is.
func (c *templates) of(ctx context.Context, tx *db.Tx, a *octopus.Action) (*octopus.ActionTemplate, error) {
	id := canonical("ActionTemplates", strings.TrimSpace(a.Properties.Get(octopus.PropTemplateID)))
	n, err := strconv.Atoi(strings.TrimSpace(a.Properties.Get(octopus.PropTemplateVersion)))
	if id == "" || err != nil {
		return nil, nil //nolint:nilnil,nilerr // no template is no mistake
	}
	id = resources.ActionTemplateVersionID(id, n)
	if t, ok := c.read[id]; ok {
		return t, nil
	}
	var v resources.ActionTemplateVersion
	switch err := c.s.store.Reveal(ctx, tx, "actiontemplateversions", id, &v); {
	case fault.Is(err, fault.NotFound) || err == nil && v.SpaceID != string(c.space):
		c.read[id] = nil
	case err != nil:
		return nil, err
	default:
		c.read[id] = &v.Template
	}
	return c.read[id], nil
}

// complete gives actions what their templates say and they do not: properties, packages,
// and the default values of parameters. Where an action runs is for its process to say.
func (c *templates) complete(ctx context.Context, tx *db.Tx, steps []octopus.Step) error {
	for i := range steps {
		for j := range steps[i].Actions {
			a := &steps[i].Actions[j]
			t, err := c.of(ctx, tx, a)
			if err != nil {
				return err
			}
			if t != nil {
				completeAction(a, t)
			}
		}
	}
	return nil
}

func completeAction(a *octopus.Action, t *octopus.ActionTemplate) {
	if a.Properties == nil {
		a.Properties = octopus.Properties{}
	}
	set := func(key string, value octopus.PropertyValue) {
		if _, ok := a.Properties.Lookup(key); !ok {
			a.Properties[key] = value
		}
	}
	for key, value := range t.Properties {
		if !strings.EqualFold(key, octopus.PropRunOnServer) && !strings.EqualFold(key, octopus.PropTargetRoles) {
			set(key, value)
		}
	}
	for i := range t.Parameters {
		set(t.Parameters[i].Name, t.Parameters[i].DefaultValue)
	}
	for _, ref := range t.Packages {
		if !containsReference(a.Packages, ref.Name) {
			a.Packages = append(a.Packages, ref)
		}
	}
	for i := range a.Packages {
		choosePackage(&a.Packages[i], a.Properties)
	}
}

func containsReference(refs []octopus.PackageReference, name string) bool {
	for i := range refs {
		if ident.Fold(refs[i].Name) == ident.Fold(name) {
			return true
		}
	}
	return false
}

// choosePackage has a reference whose package is for a parameter to say refer to the
// one that the parameter names.
func choosePackage(ref *octopus.PackageReference, properties octopus.Properties) {
	parameter := string(ref.Properties[octopus.PackagePropParameterName])
	if ref.PackageID != "" || parameter == "" || !strings.EqualFold(string(ref.Properties[octopus.PackagePropSelectionMode]), "deferred") {
		return
	}
	var chosen struct {
		PackageID string `json:"PackageId"`
		FeedID    string `json:"FeedId"`
	}
	text := strings.TrimSpace(properties.Get(parameter))
	if json.Unmarshal([]byte(text), &chosen) != nil {
		chosen.PackageID = text // the id alone
	}
	ref.PackageID = chosen.PackageID
	if chosen.FeedID != "" {
		ref.FeedID = chosen.FeedID
	}
	if ref.FeedID == "" {
		ref.FeedID = builtinFeed
	}
}

// builtinFeed is the feed of a package parameter that names none.
const builtinFeed = "feeds-builtin"

// parameters are the values of templates' parameters, each for the action that has it
// alone. They have the parameters' types, so that an account's parts follow from it.
func (c *templates) parameters(ctx context.Context, tx *db.Tx, steps []octopus.Step) ([]variables.Variable, error) {
	var out []variables.Variable
	for i := range steps {
		for j := range steps[i].Actions {
			a := &steps[i].Actions[j]
			t, err := c.of(ctx, tx, a)
			if err != nil {
				return nil, err
			}
			if t == nil {
				continue
			}
			for k := range t.Parameters {
				out = append(out, resources.ParameterVariable(&t.Parameters[k], a))
			}
		}
	}
	return out, nil
}
