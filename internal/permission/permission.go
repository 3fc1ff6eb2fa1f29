// Package permission knows the permissions that roles can grant, and the roles
// and teams that every server has.
//
// The names, their levels and the dimensions by which each can be scoped are
// those of Octopus Deploy's API, because clients send them, show them and store
// them in configuration. Who holds what is decided elsewhere; this is the table
// that the decision stands on. The package is pure.
package permission

import (
	"slices"
	"strings"
	"sync"

	"github.com/takodeploy/tako/octopus"
)

// level says where a permission means something.
type level uint8

const (
	inSpace  level = 1 << iota // for what belongs to a space
	inSystem                   // for what is outside of spaces
	inBoth   = inSpace | inSystem
)

// Restrictions are the dimensions by which a permission can be scoped. A scope
// in another dimension does not narrow it.
type Restrictions uint8

// The dimensions. Scoping by project includes scoping by project group.
const (
	Projects Restrictions = 1 << iota
	ProjectGroups
	Environments
	Tenants
)

// Has reports whether all of o are among r.
func (r Restrictions) Has(o Restrictions) bool { return r&o == o }

// Names lists the dimensions by their names on the wire, in alphabetical order.
func (r Restrictions) Names() []string {
	names := []string{}
	for _, d := range []struct {
		bit  Restrictions
		name string
	}{{Environments, "Environments"}, {ProjectGroups, "ProjectGroups"}, {Projects, "Projects"}, {Tenants, "Tenants"}} {
		if r.Has(d.bit) {
			names = append(names, d.name)
		}
	}
	return names
}

// Info is what is known of a permission.
type Info struct {
	Name octopus.Permission
	// Space and System say at which levels it can be held; some at both.
	Space, System bool
	Restrictions  Restrictions
	About         string // a sentence for people, without its full stop
}

// Describe is About with what it can be restricted to, as roles show it.
func (i Info) Describe() string {
	if i.Restrictions == 0 {
		return i.About
	}
	return i.About + " (restrictable to " + strings.Join(i.Restrictions.Names(), ", ") + ")"
}

// Looks reports whether a holder can see more but change nothing.
func (i Info) Looks() bool {
	switch i.Name {
	case octopus.PermTaskViewLog, octopus.PermVariableViewUnscoped:
		return true
	default:
		return strings.HasSuffix(string(i.Name), "View")
	}
}

type table struct {
	all    []Info
	byName map[string]int // as it is written, and in lower case
}

var catalogue = sync.OnceValue(func() table { //nolint:gochecknoglobals // a constant
	t := table{byName: map[string]int{}}
	for _, e := range entries() {
		t.byName[string(e.name)] = len(t.all)
		t.byName[strings.ToLower(string(e.name))] = len(t.all)
		t.all = append(t.all, Info{
			Name: e.name, Space: e.level&inSpace != 0, System: e.level&inSystem != 0,
			Restrictions: e.restrict, About: e.about,
		})
	}
	return t
})

// All lists every permission.
func All() []Info { return slices.Clone(catalogue().all) }

// Find returns what is known of a permission; its name is compared without case.
func Find[S ~string](name S) (Info, bool) {
	t := catalogue()
	if i, ok := t.byName[string(name)]; ok {
		return t.all[i], true
	}
	if i, ok := t.byName[strings.ToLower(string(name))]; ok {
		return t.all[i], true
	}
	return Info{}, false
}
