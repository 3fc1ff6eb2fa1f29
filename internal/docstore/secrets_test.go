package docstore_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
)

// reveal reads a thing with its secrets in clear.
func (w *world) reveal(id string) (v Thing) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error { return w.Reveal(w.as, tx, "things", id, &v) })
	return v
}

// everything is all text that the database has.
func (w *world) everything() string {
	w.t.Helper()
	var all strings.Builder
	for _, query := range []string{
		`SELECT body FROM documents`, `SELECT value FROM document_index`, `SELECT value FROM document_unique`, `SELECT message FROM events`, `SELECT details FROM events`,
	} {
		w.read(func(tx *db.Tx) error {
			rows, err := tx.Query(w.as, query)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var text string
				if err := rows.Scan(&text); err != nil {
					return err
				}
				all.WriteString(text + "\n")
			}
			return rows.Err()
		})
	}
	return all.String()
}

const secretThing = `{"Name":"x","Password":{"HasValue":true,"NewValue":"clear-1"},
	"Parts":[{"Name":"a","Secret":{"NewValue":"clear-2"}},{"Name":"b","Secret":"clear-3","Parts":[{"Id":"deep","Secret":{"HasValue":true,"NewValue":"clear-4","Hint":"h","Stray":"clear-5"}}]}],
	"Properties":{"Plain":"text","A.B/C":{"HasValue":true,"NewValue":"clear-6"},"Wrapped":{"IsSensitive":true,"SensitiveValue":{"HasValue":true,"NewValue":"clear-7"}}},
	"Unknown":{"list":[{"Name":"n","credential":{"hasValue":true,"newValue":"clear-8"}},{"credential":{"newValue":12345678}}]}}`

func TestSecretsAreSealedAndMasked(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("things", secretThing)
		stored := w.everything()
		for _, secret := range []string{"clear-", "12345678"} {
			if strings.Contains(stored, secret) {
				t.Errorf("%s… is in the database:\n%s", secret, stored)
			}
		}
		served, err := json.Marshal(w.served("things", "x"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(served), "tako1:") || strings.Contains(string(served), "Stray") || strings.Count(string(served), `"HasValue":true`) != 8 {
			t.Errorf("served as %s", served)
		}
		var masked Thing
		w.read(func(tx *db.Tx) error { return w.In(tx).Load(w.as, "things", "Things-1", &masked) })
		if !masked.Password.HasValue || masked.Password.NewValue != nil {
			t.Errorf("rules see %+v", *masked.Password)
		}

		v := w.reveal("Things-1")
		for got, want := range map[*string]string{
			v.Password.NewValue:                        "clear-1",
			v.Parts[0].Secret.NewValue:                 "clear-2",
			v.Parts[1].Secret.NewValue:                 "clear-3",
			v.Parts[1].Parts[0].Secret.NewValue:        "clear-4",
			v.Properties["A.B/C"].Sensitive.NewValue:   "clear-6",
			v.Properties["Wrapped"].Sensitive.NewValue: "clear-7",
		} {
			if got == nil || *got != want {
				t.Errorf("revealed something other than %s", want)
			}
		}
		if string(v.Parts[1].Parts[0].Secret.Hint) != "h" || v.Properties.Get("Plain") != "text" {
			t.Error("what is no secret has changed")
		}
	})
}

func TestSecretsOutliveChanges(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("things", secretThing)
		// Sent back as it was read: everything is kept, byte by byte.
		before, err := w.find("things", home, "x")
		if err != nil {
			t.Fatal(err)
		}
		round, err := json.Marshal(w.served("things", "x"))
		if err != nil {
			t.Fatal(err)
		}
		after := w.put("things", "x", string(round))
		for _, member := range []string{"Password", "Parts", "Properties", "Unknown"} {
			old, now := object(t, before.Body)[member], object(t, after.Body)[member]
			if a, b := mustJSON(t, old), mustJSON(t, now); a != b {
				t.Errorf("%s was\n%s and is\n%s", member, a, b)
			}
		}
		// Elements that change places keep theirs; new ones have none.
		doc := w.served("things", "x")
		parts := doc["Parts"].([]any)
		doc["Parts"] = []any{map[string]any{"Name": "new", "Secret": map[string]any{"HasValue": true}}, parts[1], parts[0]}
		w.put("things", "x", mustJSON(t, doc))
		v := w.reveal("Things-1")
		if s := v.Parts[0].Secret; s.HasValue || s.NewValue != nil {
			t.Error("a new element has got a secret")
		}
		if *v.Parts[1].Secret.NewValue != "clear-3" || *v.Parts[2].Secret.NewValue != "clear-2" || *v.Parts[1].Parts[0].Secret.NewValue != "clear-4" {
			t.Error("the secrets did not move with their elements")
		}
		// Anew, cleared, and turned into a plain text and back.
		w.put("things", "x", `{"Name":"x","Password":{"HasValue":true,"NewValue":"other-1"},"Properties":{"A.B/C":"plain","Wrapped":{"HasValue":false,"NewValue":null}}}`)
		v = w.reveal("Things-1")
		if *v.Password.NewValue != "other-1" || v.Properties.Get("A.B/C") != "plain" || v.Properties["Wrapped"].Sensitive.HasValue {
			t.Error("the change was not made")
		}
		w.put("things", "x", `{"Name":"x","Password":{"HasValue":false},"Properties":{"A.B/C":{"HasValue":true},"Wrapped":{"HasValue":true}}}`)
		v = w.reveal("Things-1")
		if v.Password.HasValue || v.Properties["A.B/C"].Sensitive.HasValue || v.Properties["Wrapped"].Sensitive.HasValue {
			t.Error("a cleared secret has come back")
		}
		if strings.Contains(w.everything(), "tako1:") {
			t.Error("an envelope is left that nothing shows")
		}
		// Left out altogether, it is gone too.
		w.put("things", "x", `{"Name":"x","Password":{"NewValue":"again-1"}}`)
		w.put("things", "x", `{"Name":"x"}`)
		w.put("things", "x", `{"Name":"x","Password":{"HasValue":true}}`)
		if v := w.reveal("Things-1"); v.Password.HasValue {
			t.Error("a secret that was left out has come back")
		}
	})
}

func mustJSON(t interface {
	Helper()
	Fatal(args ...any)
}, v any,
) string {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestSecretsOpenOnlyWhereTheyBelong moves a ciphertext to another document and
// to another field.
func TestSecretsOpenOnlyWhereTheyBelong(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("things", `{"Name":"x","Password":{"NewValue":"clear"}}`)
		w.made("things", `{"Name":"y","Password":{"NewValue":"clear"},"Properties":{"P":{"NewValue":"other"}}}`)
		swap := func(statement string, args ...any) {
			t.Helper()
			if err := w.write(func(tx *db.Tx) error { _, err := tx.Exec(w.as, statement, args...); return err }); err != nil {
				t.Fatal(err)
			}
		}
		swap(`UPDATE documents SET body = (SELECT s.body FROM documents s WHERE s.id = 'Things-1') WHERE id = 'Things-2'`)
		err := w.d.Read(w.as, func(tx *db.Tx) error { return w.Reveal(w.as, tx, "things", "Things-2", &Thing{}) })
		if err == nil || strings.Contains(err.Error(), "clear") {
			t.Errorf("a moved secret opened: %v", err)
		}
		swap(`UPDATE documents SET body = replace(body, '"Password":', '"Elsewhere":') WHERE id = 'Things-1'`)
		if err := w.d.Read(w.as, func(tx *db.Tx) error { return w.Reveal(w.as, tx, "things", "Things-1", &Thing{}) }); err == nil {
			t.Error("a secret opened under another member")
		}
	})
}

// TestTextThatLooksLikeASecret is a text, and stays.
func TestTextThatLooksLikeASecret(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		const body = `{"Name":"x","Properties":{"Json":"{\"NewValue\":\"a\"}"},"Audit":{"NewValue":{"a":1},"OldValue":null},"Flags":{"HasValue":true,"Other":1}}`
		w.made("things", body)
		got := mustJSON(t, w.served("things", "x"))
		for _, want := range []string{`"Json":"{\"NewValue\":\"a\"}"`, `"Audit":{"NewValue":{"a":1},"OldValue":null}`, `"Flags":{"HasValue":true,"Other":1}`} {
			if !strings.Contains(got, want) {
				t.Errorf("%s is not in %s", want, got)
			}
		}
	})
}
