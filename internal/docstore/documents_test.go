package docstore_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
)

func TestADocumentsLife(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		doc := w.made("owners", `{"Name":"  Øre & Co  ","Description":"first","Id":"Owners-99","SpaceId":"Spaces-9","Links":{"Self":"/x"},"LastModifiedBy":"eve"}`)
		if doc.ID != "Owners-1" || doc.Space != home || doc.Slug != "re-co" || doc.Version != 1 || doc.By != "ada" || doc.Created.IsZero() {
			t.Errorf("made %+v", doc)
		}
		got := w.served("owners", "Owners-1")
		if on, _ := got["LastModifiedOn"].(string); !strings.HasSuffix(on, "+00:00") {
			t.Errorf("LastModifiedOn is %q", on)
		}
		delete(got, "LastModifiedOn")
		want := map[string]any{"Id": "Owners-1", "SpaceId": "Spaces-1", "Name": "Øre & Co", "Slug": "re-co", "Description": "first", "LastModifiedBy": "ada"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("served (-want +got):\n%s", diff)
		}
		for _, ref := range []string{"Owners-1", "owners-1", "OWNERS-1", "re-co", "RE-CO", "Øre & Co", " øRE & co "} {
			if found, err := w.find("owners", home, ref); err != nil || found.ID != doc.ID {
				t.Errorf("get %q: %v", ref, err)
			}
		}
		for _, ref := range []string{"", "Owners-2", "Owners-1 x", "nobody", "%", "re_co", strings.Repeat("x", 100_000)} {
			_, err := w.find("owners", home, ref)
			refused(t, err, fault.NotFound, "owner")
		}
		_, err := w.find("owners", other, "Owners-1")
		refused(t, err, fault.NotFound)

		// A replacement is the whole document; what is left out is gone.
		changed := w.put("owners", "re-co", `{"Name":"Renamed"}`)
		if changed.Version != 2 || changed.Slug != "re-co" || !changed.Created.Equal(doc.Created) {
			t.Errorf("changed to %+v", changed)
		}
		if got := w.served("owners", "Renamed"); got["Description"] != "" || got["Slug"] != "re-co" {
			t.Errorf("after the change: %v", got)
		}
		if _, err := w.find("owners", home, "Øre & Co"); !fault.Is(err, fault.NotFound) {
			t.Errorf("the old name still finds it: %v", err)
		}

		if err := w.remove("owners", "renamed"); err != nil {
			t.Fatal(err)
		}
		refused(t, w.remove("owners", "Owners-1"), fault.NotFound, "Owners-1")
		_, err = w.replace("owners", "Owners-1", `{"Name":"x"}`)
		refused(t, err, fault.NotFound, "Owners-1")
		for _, table := range []string{"documents", "document_index", "document_unique", "document_refs"} {
			if n := w.count(table); n != 0 {
				t.Errorf("%d rows are left in %s", n, table)
			}
		}
		if again := w.made("owners", `{"Name":"Renamed"}`); again.ID != "Owners-2" || again.Slug != "renamed" {
			t.Errorf("its name and slug are free, its id is not: %+v", again)
		}
	})
}

func TestBadDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
		for body, says := range map[string][]string{
			``:                {"no body"},
			`[]`:              {"an array", "JSON object"},
			`"x"`:             {"a text"},
			`null`:            {"null"},
			`{"Name":`:        {"middle"},
			`{"Name":"x"} {}`: {"after its JSON object"},
			`{"Name":"x",}`:   {"not JSON", "line 1"},
			`{}`:              {"Name is empty"},
			`{"Name":"   "}`:  {"Name is empty"},
			`{"Name":7}`:      {"Name is a number", "must be a text"},
			`{"Name":"a\nb"}`: {"control characters"},
			`{"Name":"` + strings.Repeat("n", 201) + `"}`:      {"201 bytes", "at most 200"},
			`{"Name":"x","Tags":"red"}`:                        {"Tags is a text", "must be an array"},
			`{"Name":"x","Tags":[1]}`:                          {"Tags.0 is a number"},
			`{"Name":"x","Count":1.5}`:                         {"Count"},
			`{"Name":"x","Count":99999999999999999999}`:        {"Count"},
			`{"Name":"x","Count":-1}`:                          {"Count is -1", "0 or more"},
			`{"Name":"x","Parts":[{"Parts":[{"Name":true}]}]}`: {"Parts.0.Parts.0.Name", "a boolean"},
			`{"Name":"x","Boxes":{"a":{"Size":"big"}}}`:        {"Boxes.a.Size"},
			`{"Name":"x","Deep":` + deep + `}`:                 {"100 levels deep"},
		} {
			_, err := w.create("things", home, body)
			refused(t, err, fault.Invalid, says...)
		}
		if n := w.count("documents") + w.count("events") + w.count("document_unique"); n != 0 {
			t.Errorf("refused documents left %d rows", n)
		}
		big := `{"Name":"big","Padding":"` + strings.Repeat("p", docstore.MaxBody) + `"}`
		_, err := w.create("things", home, big)
		refused(t, err, fault.TooLarge, "limit")
		if _, err := w.create("things", "", `{"Name":"x"}`); err == nil || fault.KindOf(err) != fault.Internal {
			t.Errorf("a document of a space without a space: %v", err)
		}
	})
}

func TestIDsComeFromTheCounterAlone(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		given := func(kind, id string) error {
			return w.write(func(tx *db.Tx) error {
				_, err := w.Create(w.as, tx, w.kind(kind), docstore.Input{Space: home, ID: id, Body: []byte(`{"Name":"` + id + `"}`), Server: true})
				return err
			})
		}
		for _, id := range []string{"Owners-1", "Owners-7", "owners-7", "Owners-007"} {
			if err := given("owners", id); err == nil || fault.KindOf(err) != fault.Internal {
				t.Errorf("the counter's id %s was taken: %v", id, err)
			}
		}
		for _, id := range []string{"owners-builtin", "Owners-default-Spaces-2", "owners"} {
			if err := given("owners", id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		refused(t, given("owners", "owners-builtin"), fault.Conflict, "exists already")
		for want := range 40 { // beyond the first block
			if doc := w.made("owners", `{"Name":"n`+ident.ID("", int64(want))+`"}`); doc.ID != ident.ID("Owners", int64(want+1)) {
				t.Fatalf("number %d is %s", want+1, doc.ID)
			}
		}
		if err := w.write(func(tx *db.Tx) error {
			_, err := w.In(tx).Create(w.as, "nonsense", home, "", struct{}{})
			return err
		}); err == nil || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("an unknown kind: %v", err)
		}
	})
}

func TestWhatTheTypeDoesNotKnowStays(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		const body = `{"name":"x","future":{"a":[1,{"b":2.5}]},"Parts":[{"name":"one","New":1,"Parts":[{"Id":"inner","New":2}]},{"Id":"two","New":3}],"Boxes":{"k":{"size":4,"Lid":true}}}`
		w.made("things", body)
		check := func(doc *docstore.Doc) {
			t.Helper()
			for _, want := range []string{
				`"Name":"x"`, `"future":{"a":[1,{"b":2.5}]}`, `"New":1`, `"New":2`, `"New":3`, `"k":{"Lid":true,"Size":4}`,
			} {
				if !strings.Contains(string(doc.Body), want) {
					t.Errorf("%s is not in %s", want, doc.Body)
				}
			}
		}
		doc, err := w.find("things", home, "x")
		if err != nil {
			t.Fatal(err)
		}
		check(doc)
		// What a client reads, changes and sends back.
		round := w.served("things", "x")
		round["Count"] = 5
		text, err := json.Marshal(round)
		if err != nil {
			t.Fatal(err)
		}
		check(w.put("things", "x", string(text)))

		// What the server changes by the Go type.
		if err := w.write(func(tx *db.Tx) error {
			var v Thing
			in := w.In(tx)
			if err := in.Load(w.as, "things", doc.ID, &v); err != nil {
				return err
			}
			v.Count, v.Parts = 6, append(v.Parts[1:], v.Parts[0]) // the elements change places
			return in.Replace(w.as, "things", doc.ID, &v)
		}); err != nil {
			t.Fatal(err)
		}
		doc, err = w.find("things", home, "x")
		if err != nil {
			t.Fatal(err)
		}
		check(doc)
		parts := w.served("things", "x")["Parts"].([]any)
		if first := parts[0].(map[string]any); first["Id"] != "two" || first["New"] != 3.0 {
			t.Errorf("the unknown went to another element: %v", parts)
		}
		// A replacement without them takes them away.
		if doc := w.put("things", "x", `{"Name":"x"}`); strings.Contains(string(doc.Body), "future") {
			t.Errorf("left out, but still there: %s", doc.Body)
		}
	})
}

func TestMembersAreFoundWithoutCase(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("things", `{"NAME":"a","name":"b","cOUNT":3,"taGs":["x"],"ſtamp":"mine","sTamp":"mine"}`)
		got := w.served("things", "a") // in the order of the alphabet
		if got["Count"] != 3.0 || got["Stamp"] != nil || len(got["Tags"].([]any)) != 1 {
			t.Errorf("stored %v", got)
		}
		for name := range got {
			if strings.EqualFold(name, "name") && name != "Name" || strings.Contains(strings.ToLower(name), "tamp") && name != "Stamp" {
				t.Errorf("the spelling %q is stored", name)
			}
		}
		w.made("things", `{"name":"wrong","Name":"right"}`)
		if _, err := w.find("things", home, "right"); err != nil {
			t.Errorf("the exact spelling does not count: %v", err)
		}
	})
}

func TestOwnedMembersBelongToTheServer(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		doc := w.made("things", `{"Name":"x","Stamp":{"of":"a wrong type"}}`)
		if got := w.served("things", "x")["Stamp"]; got != nil {
			t.Errorf("a client set Stamp to %v", got)
		}
		if err := w.write(func(tx *db.Tx) error {
			return w.In(tx).Replace(w.as, "things", doc.ID, &Thing{Name: "x", Stamp: "by the server"})
		}); err != nil {
			t.Fatal(err)
		}
		w.put("things", "x", `{"Name":"x","stamp":"by a client"}`)
		w.put("things", "x", `{"Name":"x","Stamp":7}`)
		w.put("things", "x", `{"Name":"x"}`)
		if got := w.served("things", "x")["Stamp"]; got != "by the server" {
			t.Errorf("Stamp is %v", got)
		}
	})
}

func TestVersions(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		note := w.made("notes", `{"Text":"one","Version":77}`)
		if got := w.served("notes", note.ID); got["Version"] != 1.0 {
			t.Errorf("a new document has version %v", got["Version"])
		}
		for _, body := range []string{`{"Text":"two"}`, `{"Text":"two","Version":0}`, `{"Text":"two","Version":2}`, `{"Text":"two","Version":null}`} {
			_, err := w.replace("notes", note.ID, body)
			refused(t, err, fault.Conflict, "modified by somebody else")
		}
		w.put("notes", note.ID, `{"Text":"two","version":1}`)
		if got := w.served("notes", note.ID); got["Version"] != 2.0 || got["Text"] != "two" {
			t.Errorf("after the change: %v", got)
		}
		_, err := w.replace("notes", note.ID, `{"Text":"three","Version":1}`)
		refused(t, err, fault.Conflict)

		// If-Match holds for every kind; without it the last one wins.
		w.made("owners", `{"Name":"x"}`)
		_, err = w.replaceIf("owners", "x", `{"Name":"x"}`, 2)
		refused(t, err, fault.Conflict)
		if _, err := w.replaceIf("owners", "x", `{"Name":"x"}`, 1); err != nil {
			t.Errorf("If-Match with the right version: %v", err)
		}
		if doc := w.put("owners", "x", `{"Name":"x"}`); doc.Version != 3 {
			t.Errorf("version is %d", doc.Version)
		}
	})
}

// TestOneOfTwoChangesWins changes one version of a document at the same time.
func TestOneOfTwoChangesWins(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		note := w.made("notes", `{"Text":"start"}`)
		const n = 8
		results := make(chan error, n)
		for range n {
			go func() {
				_, err := w.replace("notes", note.ID, `{"Text":"mine","Version":1}`)
				results <- err
			}()
		}
		won := 0
		for range n {
			err := <-results
			if err == nil {
				won++
			} else if !fault.Is(err, fault.Conflict) {
				t.Errorf("a loser heard %v", err)
			}
		}
		if got := w.served("notes", note.ID); won != 1 || got["Version"] != 2.0 {
			t.Errorf("%d won, version %v", won, got["Version"])
		}
	})
}

func TestAFailedChangeLeavesNothing(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		broken := errors.New("broken")
		err := w.write(func(tx *db.Tx) error {
			if _, err := w.Create(w.as, tx, w.kind("owners"), docstore.Input{Space: home, Body: []byte(`{"Name":"x"}`)}); err != nil {
				return err
			}
			return broken
		})
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if n := w.count("documents") + w.count("events") + w.count("document_unique"); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		if doc := w.made("owners", `{"Name":"x"}`); doc.ID == "" {
			t.Error("no id")
		}
	})
}

func TestScopes(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		system, err := w.create("rows", home, `{"Name":"of the system"}`)
		if err != nil || system.Space != "" {
			t.Fatalf("%+v, %v", system, err)
		}
		for _, space := range []ident.SpaceID{"", home, other} {
			if _, err := w.find("rows", space, system.ID); err != nil {
				t.Errorf("from %q: %v", space, err)
			}
		}
		for _, space := range []ident.SpaceID{"", home, other} {
			if _, err := w.create("eithers", space, `{"Name":"same"}`); err != nil {
				t.Errorf("the name is free in %q: %v", space, err)
			}
		}
		if ids, _ := w.list("eithers", docstore.Query{Space: home}); len(ids) != 2 {
			t.Errorf("a space sees %v", ids)
		}
		if ids, _ := w.list("eithers", docstore.Query{}); len(ids) != 3 {
			t.Errorf("all are %v", ids)
		}
		if ids, _ := w.list("eithers", docstore.Query{Spaces: []ident.SpaceID{"", other}}); len(ids) != 2 {
			t.Errorf("of the system and the other space are %v", ids)
		}
		if ids, _ := w.list("eithers", docstore.Query{Spaces: []ident.SpaceID{}}); len(ids) != 0 {
			t.Errorf("of no place are %v", ids)
		}
		if doc, err := w.find("eithers", "", "Eithers-1"); err != nil || object(t, doc.Body)["SpaceId"] != nil {
			t.Errorf("%v, %v", doc, err)
		}
	})
}
