package projects

import (
	"context"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// Kinds of the documents whose variables there are, and of these.
const (
	setKind      = "variables"
	snapshotKind = "variablesnapshots"
	projectKind  = "projects"
	libraryKind  = "libraryvariablesets"
	setPrefix    = "variableset-"
)

// owner is whose variables a set has, and what the caller may do with them.
//
// A value that is scoped to environments is seen by who holds VariableView in one
// of them, and changed by who holds VariableEdit in all. A value of no environment
// takes the permission without a limit to environments, or the one for unscoped
// values. The values of a library set take the set's own permissions besides.
type owner struct {
	id, name string
	project  *octopus.Project // nil for a library set
	target   auth.Target
	may      func(permission octopus.Permission, t auth.Target) bool
}

func (o *owner) library() bool { return o.project == nil }

// sees reports whether the caller may see a value with this scope.
func (o *owner) sees(s *octopus.Scope) bool {
	if o.library() && !o.may(octopus.PermLibraryVariableSetView, auth.Target{}) {
		return false
	}
	return slices.ContainsFunc(o.places(s), func(t auth.Target) bool {
		return o.may(octopus.PermVariableView, t) || t.Environment == "" && o.may(octopus.PermVariableViewUnscoped, t)
	})
}

// changes reports whether the caller may change a value with this scope.
func (o *owner) changes(s *octopus.Scope) bool {
	if o.library() && !o.may(octopus.PermLibraryVariableSetEdit, auth.Target{}) {
		return false
	}
	return !slices.ContainsFunc(o.places(s), func(t auth.Target) bool {
		return !o.may(octopus.PermVariableEdit, t) && (t.Environment != "" || !o.may(octopus.PermVariableEditUnscoped, t))
	})
}

// places are what a permission must be held for: each of the environments, or none.
func (o *owner) places(s *octopus.Scope) []auth.Target {
	if len(s.Environment) == 0 {
		return []auth.Target{o.target}
	}
	places := make([]auth.Target, len(s.Environment))
	for i, id := range s.Environment {
		places[i] = o.target
		places[i].Environment = id
	}
	return places
}

// owners reads whose variables sets are, in two queries however many they are.
func (a *api) owners(ctx context.Context, tx *db.Tx, r *rest.Request, ids []string) (map[string]*owner, error) {
	found := make(map[string]*owner, len(ids))
	may := func(p octopus.Permission, t auth.Target) bool { return r.Principal.Access().Can(string(p), r.Space, t) }
	for _, kind := range []string{projectKind, libraryKind} {
		k, err := a.store.Kind(kind)
		if err != nil {
			return nil, err
		}
		mine := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !strings.HasPrefix(id, k.Prefix+"-") })
		if len(mine) == 0 {
			continue
		}
		err = a.store.Each(ctx, tx, kind, docstore.Query{Space: r.Space, IDs: mine}, func(doc *docstore.Doc) error {
			p, err := docstore.Decode[octopus.Project](doc) // a library set has the few members that are used
			if err != nil {
				return err
			}
			o := &owner{id: doc.ID, name: p.Name, may: may}
			if kind == projectKind {
				o.project = p
				o.target = auth.Target{Project: doc.ID, ProjectGroup: p.ProjectGroupID}
			}
			found[doc.ID] = o
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// canonical spells the id of a variable set as it is stored: ids are compared
// without case.
func (a *api) canonical(id string) string {
	if len(id) <= len(setPrefix) || !strings.EqualFold(id[:len(setPrefix)], setPrefix) {
		return id
	}
	rest := id[len(setPrefix):]
	for _, kind := range []string{projectKind, libraryKind} {
		if k := a.store.Kinds()[kind]; k != nil {
			rest = docstore.CanonicalID(k, rest)
		}
	}
	return setPrefix + rest
}

// forbidden is the refusal of a change to a value.
func forbidden(name string, p octopus.Permission) error {
	return fault.New(fault.Forbidden, "You do not have permission to change the variable '%.100s': it needs %s in each of the environments that the value is and shall be scoped to. Ask an administrator for a role that grants it.", name, p)
}
