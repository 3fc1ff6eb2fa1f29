package docstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
)

func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("owners", `{"Name":"Ærø"}`)
		w.made("owners", `{"Name":"Second"}`)
		for _, name := range []string{"Ærø", "ÆRØ", " ærø ", "A\u030arø"} {
			_, err := w.create("owners", home, `{"Name":"`+name+`"}`)
			if strings.HasPrefix(name, "A\u030a") { // an Å of two characters: another name
				if err != nil {
					t.Error(err)
				}
				continue
			}
			refused(t, err, fault.Invalid, "Name '", "already used", "Owners-1", "choose another")
		}
		_, err := w.replace("owners", "Second", `{"Name":"ærø"}`)
		refused(t, err, fault.Invalid, "already used by the owner 'Owners-1'")
		w.put("owners", "Owners-1", `{"Name":"ÆRØ"}`) // its own, spelled anew
		if _, err := w.create("owners", other, `{"Name":"Second"}`); err != nil {
			t.Errorf("in another space the name is free: %v", err)
		}
		w.made("things", `{"Name":"Second"}`) // so it is for another kind
	})
}

func TestUniqueWithinAnOwner(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		one, two := w.made("owners", `{"Name":"one"}`).ID, w.made("owners", `{"Name":"two"}`).ID
		child := func(space ident.SpaceID, owner, name, sort string) error {
			_, err := w.create("children", space, fmt.Sprintf(`{"OwnerId":%q,"Name":%q,"Sort":%q}`, owner, name, sort))
			return err
		}
		if err := child(home, one, "Default", "a"); err != nil {
			t.Fatal(err)
		}
		refused(t, child(home, one, "default", "b"), fault.Invalid, "Name 'default'")
		if err := child(home, two, "Default", "b"); err != nil {
			t.Errorf("below another owner: %v", err)
		}
		// A value that is unique within another member is so in its space only.
		refused(t, child(home, two, "Other", "a"), fault.Invalid, "Sort 'a'")
		far, err := w.create("owners", other, `{"Name":"far"}`)
		if err != nil {
			t.Fatal(err)
		}
		if err := child(other, far.ID, "Other", "a"); err != nil {
			t.Errorf("in another space: %v", err)
		}
		ids, _ := w.list("children", docstore.Query{Space: home})
		for _, id := range ids {
			if doc, _ := w.find("children", home, id); doc.Slug != "default" {
				t.Errorf("%s has the slug %s", id, doc.Slug)
			}
		}
	})
}

func TestSlugs(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		slug := func(body string) string { t.Helper(); return w.made("owners", body).Slug }
		for _, tt := range []struct{ body, want string }{
			{`{"Name":"Web Shop"}`, "web-shop"},
			{`{"Name":"web shop!"}`, "web-shop-2"},
			{`{"Name":"web--shop"}`, "web-shop-3"},
			{`{"Name":"given","Slug":"mine"}`, "mine"},
			{`{"Name":"mine"}`, "mine-2"},
			{`{"Name":"empty","Slug":""}`, "empty"},
			{`{"Name":"null","Slug":null}`, "null"},
			{`{"Name":"日本"}`, "x"},
			{`{"Name":"中国"}`, "x-2"},
			{`{"Name":"Owners 3"}`, "owners-3-2"}, // "owners-3" is an id
			{`{"Name":"Things 3"}`, "things-3"},   // of another kind
		} {
			if got := slug(tt.body); got != tt.want {
				t.Errorf("%s has the slug %s, want %s", tt.body, got, tt.want)
			}
		}
		for given, says := range map[string]string{
			"Mine": "for example 'mine'", "a b": "for example 'a-b'", "-a": "for example 'a'", "mine": "already used by the owner", "owners-4": "looks like the id", strings.Repeat("s", 101): "lower-case",
		} {
			_, err := w.create("owners", home, fmt.Sprintf(`{"Name":"refused","Slug":%q}`, given))
			refused(t, err, fault.Invalid, "Slug", says)
		}
		if doc := w.put("owners", "mine", `{"Name":"renamed","Slug":"mine"}`); doc.Slug != "mine" {
			t.Errorf("sent back, it is %s", doc.Slug)
		}
		if doc := w.put("owners", "mine", `{"Name":"renamed again"}`); doc.Slug != "mine" {
			t.Errorf("left out, it is %s", doc.Slug)
		}
		if doc := w.put("owners", "mine", `{"Name":"renamed again","Slug":"new"}`); doc.Slug != "new" {
			t.Errorf("changed, it is %s", doc.Slug)
		}
		if doc, err := w.find("owners", home, "mine"); err != nil || doc.Slug != "mine-2" { // by its name
			t.Errorf("the old slug finds %v, %v", doc, err)
		}
		_, err := w.replace("owners", "new", `{"Name":"renamed again","Slug":"web-shop"}`)
		refused(t, err, fault.Invalid, "already used")
		if got := slug(`{"Name":"reuse","Slug":"mine"}`); got != "mine" {
			t.Errorf("the free slug was not given: %s", got)
		}
	})
}

// TestOneOfManyCreatorsWins has many create the same name at once, from two
// processes.
func TestOneOfManyCreatorsWins(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			url := dbtest.URL(t, dialect)
			first := newWorld(t, dbtest.OpenURL(t, url))
			second := &world{first.Store, t, dbtest.OpenURL(t, url), first.as, first.box}
			const n = 12
			results := make(chan error, 2*n)
			for i := range n {
				w := []*world{first, second}[i%2]
				go func() {
					_, err := w.create("owners", home, `{"Name":"the one"}`)
					results <- err
				}()
				go func() { // names that differ, with a slug that does not
					_, err := w.create("owners", home, fmt.Sprintf(`{"Name":"alike %s"}`, strings.Repeat("!", i)))
					if err != nil {
						t.Errorf("slug of its own: %v", err)
					}
					results <- fault.InvalidField("", "counted above")
				}()
			}
			won := 0
			for range 2 * n {
				if err := <-results; err == nil {
					won++
				} else if !fault.Is(err, fault.Invalid) {
					t.Errorf("a loser heard %v", err)
				}
			}
			if ids, _ := first.list("owners", docstore.Query{Space: home, Name: "the one"}); won != 1 || len(ids) != 1 {
				t.Errorf("%d won, stored %v", won, ids)
			}
			if slugs := first.count(`document_unique u WHERE u.field = 'Slug' AND u.value LIKE 'alike%'`); slugs != n {
				t.Errorf("%d slugs of %d documents", slugs, n)
			}
		})
	}
}
