package releases

import (
	"context"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// values are the variables of a project or a release while something is decided
// about it: version numbers, prompts, the concurrency tag. What is secret is not
// in them; where there is a secret stands [variables.Redacted].
type values struct {
	all []variables.Variable
	set *variables.Set // compiled when first needed
}

// currentValues are a project's variables as they are now.
func (s *Service) currentValues(ctx context.Context, tx *db.Tx, project *octopus.Project) (*values, error) {
	space := ident.SpaceID(project.SpaceID)
	ids := []string{project.VariableSetID}
	for _, id := range project.IncludedLibraryVariableSetIDs {
		ids = append(ids, "variableset-"+id)
	}
	var sets []frozenSet
	for i, id := range ids {
		set, err := get[resources.VariableSet](ctx, s, tx, space, "variables", id)
		if err != nil {
			return nil, err
		}
		sets = append(sets, frozenSet{id: id, library: i > 0, order: int64(i), set: set})
	}
	return valuesOf(sets), nil
}

// source says where the values of a set come from.
func (f *frozenSet) source() variables.Source {
	src := variables.Source{Kind: variables.KindProject, OwnerID: f.set.OwnerID}
	if f.library {
		src.Kind, src.Order = variables.KindLibrary, f.order
	}
	return src
}

func valuesOf(sets []frozenSet) *values {
	v := &values{}
	for i := range sets {
		src := sets[i].source()
		for _, one := range sets[i].set.Variables {
			secret := ""
			if one.Secret != nil && one.Secret.HasValue {
				secret = variables.Redacted
			}
			v.all = append(v.all, variables.From(one.Variable, src, secret))
		}
	}
	return v
}

// lookup is what templates see of the values in a context, and of more.
func (v *values) lookup(c variables.Context, now time.Time, more ...octostache.Pair) *octostache.Variables {
	if v.set == nil {
		v.set = variables.New(v.all...)
	}
	var pairs []octostache.Pair
	for one := range v.set.Resolve(c).All() {
		if !one.Sensitive {
			pairs = append(pairs, octostache.Pair{Name: one.Name, Value: one.Value})
		}
	}
	return octostache.NewVariables(octostache.Options{Now: now}, append(pairs, more...)...)
}

// has reports whether there is any value of a name.
func (v *values) has(name string) bool {
	for i := range v.all {
		if ident.Fold(v.all[i].Name) == ident.Fold(name) {
			return true
		}
	}
	return false
}

// pairsOf are variables as templates see them, without secrets.
func pairsOf(all []variables.Variable) []octostache.Pair {
	var pairs []octostache.Pair
	for _, v := range all {
		if !v.Sensitive {
			pairs = append(pairs, octostache.Pair{Name: v.Name, Value: v.Value})
		}
	}
	return pairs
}
