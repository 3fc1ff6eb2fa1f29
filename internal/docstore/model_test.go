package docstore_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
)

// modelThing is what a thing must be, as far as the model goes.
type modelThing struct {
	name    string
	refuse  string          // an owner's id
	clears  map[string]bool // owners' ids
	secret  string
	version int64
}

// model is what the store must be: its owners by name, its things by id.
type model struct {
	w      *world
	owners map[string]string // id by name
	things map[string]*modelThing
}

var modelNames = []string{"a", "B", "ç", "d"}

func (m *model) ownerIDs() []string { return slices.Sorted(maps.Values(m.owners)) }

// anOwner draws the id of an owner, or one that does not exist.
func (m *model) anOwner(t *rapid.T) string {
	return rapid.SampledFrom(append(m.ownerIDs(), "Owners-100000")).Draw(t, "owner")
}

func (m *model) createOwner(t *rapid.T) {
	name := rapid.SampledFrom(modelNames).Draw(t, "name")
	doc, err := m.w.create("owners", home, fmt.Sprintf(`{"Name":%q}`, name))
	if _, taken := m.owners[name]; taken {
		if !fault.Is(err, fault.Invalid) {
			t.Fatalf("a second owner %s: %v", name, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("owner %s: %v", name, err)
	}
	m.owners[name] = doc.ID
}

func (m *model) deleteOwner(t *rapid.T) {
	id := m.anOwner(t)
	err := m.w.remove("owners", id)
	exists := slices.Contains(m.ownerIDs(), id)
	used := false
	for _, thing := range m.things {
		used = used || thing.refuse == id
	}
	switch {
	case !exists:
		if !fault.Is(err, fault.NotFound) {
			t.Fatalf("deleting %s, which is not there: %v", id, err)
		}
	case used:
		if !fault.Is(err, fault.Conflict) {
			t.Fatalf("deleting %s, which is used: %v", id, err)
		}
	case err != nil:
		t.Fatalf("deleting %s: %v", id, err)
	default:
		maps.DeleteFunc(m.owners, func(_, o string) bool { return o == id })
		for _, thing := range m.things {
			if thing.clears[id] {
				delete(thing.clears, id)
				thing.version++
			}
		}
	}
}

// draw makes a thing's body and what is expected of it.
func (m *model) draw(t *rapid.T, old *modelThing) (body string, next *modelThing, valid bool) {
	next = &modelThing{name: rapid.SampledFrom(modelNames).Draw(t, "name"), clears: map[string]bool{}, version: 1}
	valid = true
	doc := map[string]any{"Name": next.name}
	if rapid.Bool().Draw(t, "refuses") {
		next.refuse = m.anOwner(t)
		doc["RefuseId"] = next.refuse
	}
	var clears []string
	for range rapid.IntRange(0, 3).Draw(t, "clears") {
		id := m.anOwner(t)
		clears, next.clears[id] = append(clears, id), true
	}
	doc["ClearIds"] = clears
	switch rapid.IntRange(0, 3).Draw(t, "secret") {
	case 0:
		next.secret = fmt.Sprintf("secret-%d", rapid.IntRange(1, 9).Draw(t, "value"))
		doc["Password"] = map[string]any{"HasValue": true, "NewValue": next.secret}
	case 1:
		doc["Password"] = map[string]any{"HasValue": true}
		if old != nil {
			next.secret = old.secret
		}
	case 2:
		doc["Password"] = map[string]any{"HasValue": false}
	}
	for _, id := range append(slices.Collect(maps.Keys(next.clears)), next.refuse) {
		valid = valid && (id == "" || slices.Contains(m.ownerIDs(), id))
	}
	for _, other := range m.things {
		valid = valid && (other == old || other.name != next.name)
	}
	return mustJSON(t, doc), next, valid
}

func (m *model) createThing(t *rapid.T) {
	body, next, valid := m.draw(t, nil)
	doc, err := m.w.create("things", home, body)
	switch {
	case !valid && fault.Is(err, fault.Invalid):
	case valid && err == nil:
		m.things[doc.ID] = next
	default:
		t.Fatalf("create %s (valid %v): %v", body, valid, err)
	}
}

func (m *model) aThing(t *rapid.T) string {
	ids := slices.Sorted(maps.Keys(m.things))
	if len(ids) == 0 {
		t.Skip("no thing")
	}
	return rapid.SampledFrom(ids).Draw(t, "thing")
}

func (m *model) replaceThing(t *rapid.T) {
	id := m.aThing(t)
	old := m.things[id]
	body, next, valid := m.draw(t, old)
	expect := rapid.SampledFrom([]int64{0, 0, old.version, old.version + 1}).Draw(t, "expect")
	_, err := m.w.replaceIf("things", id, body, expect)
	switch {
	case expect > old.version:
		if !fault.Is(err, fault.Conflict) {
			t.Fatalf("replace %s, expecting version %d of %d: %v", id, expect, old.version, err)
		}
	case !valid && fault.Is(err, fault.Invalid):
	case valid && err == nil:
		next.version = old.version + 1
		m.things[id] = next
	default:
		t.Fatalf("replace %s by %s (valid %v): %v", id, body, valid, err)
	}
}

func (m *model) deleteThing(t *rapid.T) {
	id := m.aThing(t)
	if err := m.w.remove("things", id); err != nil {
		t.Fatalf("delete %s: %v", id, err)
	}
	delete(m.things, id)
}

// check compares the store with the model.
func (m *model) check(t *rapid.T) {
	byName := func(a, b string) int { return cmp.Compare(ident.Fold(m.things[a].name), ident.Fold(m.things[b].name)) }
	want := slices.SortedFunc(maps.Keys(m.things), byName)
	got, _ := m.w.list("things", docstore.Query{Space: home})
	if !slices.Equal(want, got) {
		t.Fatalf("things are %v, want %v", got, want)
	}
	refs := 0
	for id, thing := range m.things {
		doc, err := m.w.find("things", home, id)
		if err != nil {
			t.Fatal(err)
		}
		v := m.w.reveal(id)
		secret := ""
		if v.Password != nil && v.Password.NewValue != nil {
			secret = *v.Password.NewValue
		}
		clears := map[string]bool{}
		for _, o := range v.ClearIDs {
			clears[o] = true
		}
		if doc.Version != thing.version || v.Name != thing.name || string(v.RefuseID) != thing.refuse || secret != thing.secret || !maps.Equal(clears, thing.clears) {
			t.Fatalf("%s is version %d %s, want %+v", id, doc.Version, doc.Body, *thing)
		}
		refs += len(thing.clears)
		if thing.refuse != "" {
			refs++
		}
	}
	if n := m.w.count("document_refs"); n != refs {
		t.Fatalf("%d references, want %d", n, refs)
	}
	if n := m.w.count("document_unique"); n != 2*(len(m.things)+len(m.owners)) {
		t.Fatalf("%d unique values for %d documents", n, len(m.things)+len(m.owners))
	}
}

// TestAgainstAModel does a random sequence of changes to the store and to maps,
// which have to stay the same.
func TestAgainstAModel(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		rapid.Check(t, func(t *rapid.T) {
			w.wipe() // of a sequence that ended early, something is left
			m := &model{w: w, owners: map[string]string{}, things: map[string]*modelThing{}}
			t.Repeat(map[string]func(*rapid.T){
				"create owner": m.createOwner, "delete owner": m.deleteOwner,
				"create thing": m.createThing, "replace thing": m.replaceThing, "delete thing": m.deleteThing,
				"": m.check,
			})
		})
	})
}
