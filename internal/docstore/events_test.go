package docstore_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
)

// trail is an event as it is stored.
type trail struct {
	Category, Space, User, Message, Type string
	Refs                                 []db.EventReference
	Details                              []struct {
		Path     string
		Old, New any
	}
}

func (w *world) trail() (all []trail) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error {
		rows, err := tx.Query(w.as, `SELECT category, space_id, username, message, document_type, refs, details FROM events ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e trail
			var refs, details string
			if err := rows.Scan(&e.Category, &e.Space, &e.User, &e.Message, &e.Type, &refs, &details); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(refs), &e.Refs); err != nil {
				return err
			}
			if details != "" {
				if err := json.Unmarshal([]byte(details), &e.Details); err != nil {
					return err
				}
			}
			all = append(all, e)
		}
		return rows.Err()
	})
	return all
}

func (w *world) last() trail {
	w.t.Helper()
	all := w.trail()
	return all[len(all)-1]
}

// differences are the lines of an event, as text.
func (e trail) differences(t testing.TB) []string {
	t.Helper()
	var lines []string
	for _, d := range e.Details {
		lines = append(lines, fmt.Sprintf("%s: %s -> %s", d.Path, mustJSON(t, d.Old), mustJSON(t, d.New)))
	}
	return lines
}

func TestEveryChangeHasItsEvent(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("owners", `{"Name":"Äpfel 🍎"}`)
		w.made("things", `{"Name":"x","CascadeId":"Owners-1"}`)
		w.made("notes", `{"Text":"t"}`)
		w.made("newest", `{"Text":"no event"}`)
		w.put("owners", "Owners-1", `{"Name":"Birnen"}`)
		if err := w.remove("owners", "birnen"); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range w.trail() {
			got = append(got, e.Category+" "+e.Space+" "+e.User+" "+e.Type+": "+e.Message)
		}
		want := []string{
			"Created Spaces-1 ada Owner: Owner Äpfel 🍎 was created",
			"Created Spaces-1 ada Thing: Thing x was created",
			"Created Spaces-1 ada Note: Note Notes-1 was created",
			"Modified Spaces-1 ada Owner: Owner Birnen was changed",
			"Deleted Spaces-1 ada Thing: Thing x was deleted",
			"Deleted Spaces-1 ada Owner: Owner Birnen was deleted",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		// In UTF-16 units, as clients count.
		if diff := cmp.Diff([]db.EventReference{{ID: "Owners-1", Start: 6, Length: 8}}, w.trail()[0].Refs); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if n := w.count(`event_related r WHERE r.document_id = 'Owners-1'`); n != 3 {
			t.Errorf("%d events are about the owner", n)
		}
	})
}

func TestDifferences(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("things", `{"Name":"x","Count":1,"Tags":["a"],"Password":{"NewValue":"clear-1"},"Boxes":{"k":{"Size":1}},
			"Parts":[{"Id":"1","Name":"one","Secret":{"NewValue":"clear-2"}},{"Id":"2","Name":"two"},{"Id":"3","Name":"three"}],
			"Properties":{"P":"old","Q":{"NewValue":"clear-3"},"R":"r"}}`)
		w.put("things", "x", `{"Name":"y","Count":2,"Tags":["a","b"],"Password":{"HasValue":true,"NewValue":"clear-4"},"Boxes":{"k":{"Size":2},"l/m":{"Size":3}},
			"Parts":[{"Id":"3","Name":"three"},{"Id":"1","Name":"one","Secret":{"HasValue":true}},{"Id":"4","Name":"four","Secret":{"NewValue":"clear-5"}}],
			"Properties":{"P":"new","Q":{"HasValue":true},"R":{"NewValue":"clear-6"}},"New":{"a":1}}`)
		want := []string{
			`/Boxes/k/Size: 1 -> 2`,
			`/Boxes/l~1m: null -> {"Size":3}`,
			`/Count: 1 -> 2`,
			`/Name: "x" -> "y"`,
			`/New: null -> {"a":1}`,
			`/Parts/4: null -> {"Id":"4","Name":"four","Parts":[],"Secret":"***"}`,
			`/Parts/2: {"Id":"2","Name":"two","Parts":[]} -> null`,
			`/Parts: ["1","3"] -> ["3","1"]`,
			`/Password: "***" -> "***"`,
			`/Properties/P: "old" -> "new"`,
			`/Properties/R: "r" -> "***"`,
			`/Tags: ["a"] -> ["a","b"]`,
		}
		if diff := cmp.Diff(want, w.last().differences(t)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		w.put("things", "y", mustJSON(t, w.served("things", "y")))
		if e := w.last(); e.Category != "Modified" || len(e.Details) != 0 {
			t.Errorf("a change of nothing: %+v", e)
		}
		if strings.Contains(w.everything(), "clear-") || strings.Contains(mustJSON(t, w.trail()), "tako1:") {
			t.Error("the trail has secrets")
		}
	})
}

func TestDifferencesAreBounded(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		many := func(value string) string {
			boxes := map[string]any{}
			for i := range 3000 {
				boxes[fmt.Sprintf("box %d", i)] = map[string]any{"Size": i, "Text": value}
			}
			return mustJSON(t, map[string]any{"Name": "x", "Colour": strings.Repeat(value, 5000), "Boxes": boxes})
		}
		w.made("things", many("a"))
		w.put("things", "x", many("b"))
		e := w.last()
		if n := len(e.Details); n < 100 || n > 201 || e.Details[n-1].Path != "/" || len(mustJSON(t, e.Details)) > 80*1024 {
			t.Errorf("%d differences, %d bytes, the last at %s", n, len(mustJSON(t, e.Details)), e.Details[n-1].Path)
		}
		w.put("things", "x", `{"Name":"x"}`)
		w.put("things", "x", `{"Name":"x","Colour":"`+strings.Repeat("c", 5000)+`"}`)
		if diff := cmp.Diff([]string{`/Colour: "grey" -> "(too long)"`}, w.last().differences(t)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestMeasuredMembersAreNoChange: what the server finds out again and again is stored,
// and neither audited nor told as a change of somebody's.
func TestMeasuredMembersAreNoChange(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		id := w.made("things", `{"Name":"x","Colour":"red"}`).ID
		change := func(by string, fn func(v *Thing)) (v Thing) {
			t.Helper()
			err := w.d.Write(db.WithActor(t.Context(), db.Actor{UserID: "Users-9", Username: by}), func(tx *db.Tx) error {
				if err := w.Store.Load(t.Context(), tx, "things", id, &v); err != nil {
					return err
				}
				fn(&v)
				if err := w.Store.In(tx).Replace(db.WithActor(t.Context(), db.Actor{Username: by}), "things", id, &v); err != nil {
					return err
				}
				return w.Store.Load(t.Context(), tx, "things", id, &v)
			})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if v := change("meter", func(v *Thing) { v.Stamp = "measured" }); v.Stamp != "measured" || v.LastModifiedBy != "ada" {
			t.Errorf("it is %q, changed last by %s", v.Stamp, v.LastModifiedBy)
		}
		if n := len(w.trail()); n != 1 {
			t.Errorf("%d events where its creation is the only one", n)
		}
		if v := change("meter", func(v *Thing) { v.Stamp, v.Colour = "again", "blue" }); v.LastModifiedBy != "meter" || w.last().Category != "Modified" {
			t.Errorf("another change was taken for a measured one: by %s, %s", v.LastModifiedBy, w.last().Category)
		}
	})
}
