package projects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

func (a *api) variableRoutes() []rest.Route {
	set := reflect.TypeFor[octopus.VariableSet]()
	ids := rest.Param{Name: "ids", Type: rest.List, About: "only these sets"}
	text := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.Text, About: about} }
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/variables", Permission: variableView, Handler: a.sets, Response: reflect.TypeFor[octopus.Page[octopus.VariableSet]](), Query: []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}, ids}, Summary: "Lists variable sets, with the values that the caller may see."},
		{Method: http.MethodGet, Pattern: "/variables/all", Permission: variableView, Handler: a.allSets, Response: reflect.SliceOf(set), Query: []rest.Param{ids}, Summary: "Lists all variable sets as a bare array."},
		{Method: http.MethodGet, Pattern: "/variables/names", Permission: variableView, Handler: a.names, Response: reflect.TypeFor[[]string](), Query: []rest.Param{text("project", "whose variables, with those of the library sets that it includes"), text("runbook", "a runbook of the project"), {Name: "projectEnvironmentsFilter", Type: rest.List, About: "without the project's values for other environments"}}, Summary: "Lists the names of variables."},
		{Method: http.MethodGet, Pattern: "/variables/preview", Permission: variableView, Handler: a.preview, Response: reflect.TypeFor[preview](), Query: []rest.Param{
			text("project", "whose variables"), text("runbook", "for a runbook instead of the deployment process"), text("environment", "in this environment"), text("channel", "of a release in this channel"),
			text("tenant", "for this tenant"), text("action", "in this step"), text("machine", "on this target"), text("role", "on a target with this tag"),
		}, Summary: "Chooses the value of each variable for one deployment, and says why."},
		{Method: http.MethodGet, Pattern: "/variables/{id}", Permission: variableView, Handler: a.set, Response: set, Summary: "Reads a variable set, with the values that the caller may see."},
		{Method: http.MethodPut, Pattern: "/variables/{id}", Permission: variableView, Handler: a.putSet, Body: set, Response: set, Summary: "Replaces a variable set; each value that changes needs VariableEdit, and one without an environment VariableEditUnscoped or VariableEdit in all environments."},
	}
}

// variableSet is a set on its way to a client: what is stored, without secrets,
// beside the same as a value.
type variableSet struct {
	doc   *docstore.Doc
	tree  resource.Tree
	value *resources.VariableSet // its Variables are tree's, in the same order
	owner *owner
}

func (a *api) open(kind string, doc *docstore.Doc) (*variableSet, error) {
	k, err := a.store.Kind(kind)
	if err != nil {
		return nil, err
	}
	tree, err := a.store.Tree(k, doc)
	if err != nil {
		return nil, err
	}
	v, err := k.Value(tree)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", doc.ID, err)
	}
	value, _ := v.(*resources.VariableSet)
	if elements, _ := tree["Variables"].([]any); value == nil || len(elements) != len(value.Variables) {
		return nil, fmt.Errorf("read %s: it is no variable set", doc.ID)
	}
	return &variableSet{doc: doc, tree: tree, value: value}, nil
}

// element is the tree of one of the variables.
func (s *variableSet) element(i int) resource.Tree {
	elements, _ := s.tree["Variables"].([]any)
	element, _ := elements[i].(resource.Tree)
	return element
}

// read returns the set that ref names, or the snapshot of one, with its owner.
func (a *api) read(ctx context.Context, tx *db.Tx, r *rest.Request, ref string) (*variableSet, error) {
	kind := setKind
	doc, err := r.Find(ctx, tx, kind, a.canonical(ref))
	if fault.Is(err, fault.NotFound) && a.declared(snapshotKind) && strings.Contains(ref, "-s-") {
		kind = snapshotKind
		doc, err = r.Find(ctx, tx, kind, ref)
	}
	if err != nil {
		return nil, err
	}
	s, err := a.open(kind, doc)
	if err != nil {
		return nil, err
	}
	owners, err := a.owners(ctx, tx, r, []string{s.value.OwnerID})
	if err != nil {
		return nil, err
	}
	if s.owner = owners[s.value.OwnerID]; s.owner == nil || s.owner.library() && !s.owner.may(octopus.PermLibraryVariableSetView, rest.Target{}) {
		return nil, fault.Missing("variable set", ref)
	}
	return s, nil
}

// render is a set as the caller may see it. The secrets beside the variables are
// the store's business and never on the wire.
func render(r *rest.Request, s *variableSet, scopes octopus.ScopeValues) (json.RawMessage, error) {
	seen := []any{}
	for i := range s.value.Variables {
		scope := &s.value.Variables[i].Scope
		if !s.owner.sees(scope) {
			continue
		}
		element := s.element(i)
		delete(element, "Secret")
		element["IsEditable"] = s.owner.changes(scope)
		seen = append(seen, element)
	}
	s.tree["Variables"], s.tree["ScopeValues"] = seen, scopes
	at := "/projects/"
	if s.owner.library() {
		at = "/libraryvariablesets/"
	}
	s.tree["Links"] = octopus.Links{"Self": r.SpaceHref("/variables/" + s.doc.ID), "Owner": r.SpaceHref(at + s.owner.id)}
	return json.Marshal(s.tree)
}

func (a *api) set(r *rest.Request) (any, error) {
	var s *variableSet
	var scopes map[string]octopus.ScopeValues
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		if s, err = a.read(r.Context(), tx, r, r.PathValue("id")); err == nil {
			scopes, err = a.scopeValues(r.Context(), tx, r, s.owner)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	body, err := render(r, s, scopes[s.owner.id])
	if err != nil {
		return nil, err
	}
	// No entity tag: what is seen depends on more than the document's version.
	return body, nil
}

// list reads a page of sets, with everything that they show, in a number of
// queries that does not depend on how many they are.
func (a *api) list(r *rest.Request, p ident.Page) (items []json.RawMessage, total int64, err error) {
	q := docstore.Query{Space: r.Space, Visible: r.Grants(variableView), Page: p}
	if r.HasQuery("ids") {
		ids, err := r.QueryList("ids")
		if err != nil {
			return nil, 0, err
		}
		q.IDs = []string{}
		for _, id := range ids {
			q.IDs = append(q.IDs, a.canonical(id))
		}
	}
	k, err := a.store.Kind(setKind)
	if err != nil {
		return nil, 0, err
	}
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		var docs []*docstore.Doc
		if docs, total, err = a.store.List(r.Context(), tx, k, q); err != nil {
			return err
		}
		sets := make([]*variableSet, len(docs))
		ids := make([]string, len(docs))
		for i, doc := range docs {
			if sets[i], err = a.open(setKind, doc); err != nil {
				return err
			}
			ids[i] = sets[i].value.OwnerID
		}
		owners, err := a.owners(r.Context(), tx, r, ids)
		if err != nil {
			return err
		}
		scopes, err := a.scopeValues(r.Context(), tx, r, values(owners)...)
		if err != nil {
			return err
		}
		items = make([]json.RawMessage, 0, len(sets))
		for _, s := range sets {
			if s.owner = owners[s.value.OwnerID]; s.owner == nil {
				continue
			}
			item, err := render(r, s, scopes[s.owner.id])
			if err != nil {
				return err
			}
			items = append(items, item)
		}
		return nil
	})
	return items, total, err
}

func values(owners map[string]*owner) []*owner {
	all := make([]*owner, 0, len(owners))
	for _, o := range owners {
		all = append(all, o)
	}
	return all
}

func (a *api) sets(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	items, total, err := a.list(r, p)
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "VariableSet", p, total, items), nil
}

func (a *api) allSets(r *rest.Request) (any, error) {
	return rest.Pages(func(p ident.Page) ([]json.RawMessage, int64, error) { return a.list(r, p) }), nil
}

// putSet replaces what the caller sees of a set: the values that they may not
// see stay as they are, for a client sends back what it was shown.
func (a *api) putSet(r *rest.Request) (any, error) {
	body, errBody := r.ReadBody()
	expect, errExpect := r.Expects()
	k, errKind := a.store.Kind(setKind)
	if err := errors.Join(errBody, errExpect, errKind); err != nil {
		return nil, err
	}
	var fresh *variableSet
	var scopes map[string]octopus.ScopeValues
	err := a.db.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		old, err := a.read(ctx, tx, r, r.PathValue("id"))
		if err != nil {
			return err
		}
		if old.doc.ID != a.canonical(r.PathValue("id")) {
			return fault.New(fault.Conflict, "The variable set '%s' is a snapshot, which nothing changes any more.", old.doc.ID)
		}
		if err := a.editsSome(ctx, tx, r, old); err != nil {
			return err
		}
		merged, err := merge(k, old, body)
		if err != nil {
			return err
		}
		doc, err := a.store.Replace(ctx, tx, k, old.doc.Space, old.doc.ID, docstore.Input{Body: merged, Expect: expect})
		if err != nil {
			return err
		}
		if fresh, err = a.open(setKind, doc); err != nil {
			return err
		}
		fresh.owner = old.owner
		scopes, err = a.scopeValues(ctx, tx, r, fresh.owner)
		return err
	})
	if err != nil {
		return nil, err
	}
	return render(r, fresh, scopes[fresh.owner.id])
}

// editsSome refuses a caller who may change no value at all.
func (a *api) editsSome(ctx context.Context, tx *db.Tx, r *rest.Request, s *variableSet) error {
	if s.owner.library() {
		if err := r.Allow(string(octopus.PermLibraryVariableSetEdit), rest.Target{}); err != nil {
			return err
		}
	}
	err := r.Must(ctx, tx, setKind, s.doc, string(octopus.PermVariableEdit))
	if fault.Is(err, fault.Forbidden) && r.Must(ctx, tx, setKind, s.doc, string(octopus.PermVariableEditUnscoped)) == nil {
		return nil
	}
	return err
}

// merge is the body that replaces old: what the client sent, if the caller may
// change what differs, and the values that they do not see.
func merge(k *resource.Kind, old *variableSet, body []byte) ([]byte, error) {
	tree, v, err := k.Decode(body)
	if err != nil {
		return nil, err
	}
	sent := v.(*resources.VariableSet)
	for name := range tree {
		if strings.EqualFold(name, "ScopeValues") {
			delete(tree, name) // computed
		}
	}
	elements, _ := tree["Variables"].([]any)
	if len(elements) != len(sent.Variables) {
		elements = []any{}
	}
	stored := make(map[string]int, len(old.value.Variables))
	for i := range old.value.Variables {
		stored[old.value.Variables[i].ID] = i
	}
	kept := map[string]bool{}
	var faults []error
	for i := range sent.Variables {
		one := &sent.Variables[i]
		if element, ok := elements[i].(resource.Tree); ok {
			delete(element, "Secret") // what is stored beside a variable is no client's business
			delete(element, "IsEditable")
		}
		var before *resources.Variable
		if at, ok := stored[one.ID]; ok {
			before, kept[one.ID] = &old.value.Variables[at], true
		}
		faults = append(faults, old.owner.mayReplace(before, one))
		if old.owner.library() {
			faults = append(faults, variables.CheckLibrary(fmt.Sprintf("Variables[%d].Scope", i), one.Scope))
		}
	}
	for i := range old.value.Variables {
		one := &old.value.Variables[i]
		switch {
		case kept[one.ID]:
		case !old.owner.sees(&one.Scope):
			elements = append(elements, old.element(i))
		case !old.owner.changes(&one.Scope):
			faults = append(faults, forbidden(one.Name, octopus.PermVariableEdit))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	tree["Variables"] = elements
	return json.Marshal(tree)
}

// mayReplace refuses a value that the caller may not put in the place of before,
// which is nil for a new one.
func (o *owner) mayReplace(before, after *resources.Variable) error {
	switch {
	case before == nil && o.changes(&after.Scope):
		return nil
	case before != nil && !o.sees(&before.Scope):
		return fault.New(fault.Forbidden, "You do not have permission to change the variable with the id '%.100s'; leave its Id empty for what is new.", before.ID)
	case before != nil && (same(before, after) || o.changes(&before.Scope) && o.changes(&after.Scope)):
		return nil
	}
	return forbidden(after.Name, octopus.PermVariableEdit)
}

// same reports whether a value comes back as it was shown: a sensitive one
// without its secret.
func same(before, after *resources.Variable) bool {
	plain := func(v *resources.Variable) (octopus.Variable, bool) {
		out := v.Variable
		out.Name, out.IsEditable = strings.TrimSpace(out.Name), true
		if out.Type == "" {
			out.Type = octopus.VariableString
		}
		if !out.Secret() {
			text := out.Text()
			out.Value = &text
			return out, false
		}
		given := out.Text() != ""
		out.Type, out.IsSensitive, out.Value = octopus.VariableSensitive, true, nil
		return out, given
	}
	x, _ := plain(before)
	y, given := plain(after)
	if given {
		return false
	}
	one, errOne := json.Marshal(x)
	two, errTwo := json.Marshal(y)
	return errOne == nil && errTwo == nil && slices.Equal(one, two)
}
