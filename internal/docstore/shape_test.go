package docstore_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// oldThing is what Thing was in an earlier version.
type oldThing struct {
	octopus.Resource
	SpaceID  string             `json:"SpaceId"`
	Name     string             `json:"Name"`
	Slug     string             `json:"Slug"`
	Password *octopus.Sensitive `json:"Password,omitempty"`
	Retired  string             `json:"Retired"`
}

// TestDocumentsOfAnEarlierVersion get the members that came since.
func TestDocumentsOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		set, err := resource.NewSet(resource.Declare(resource.Declaration[oldThing]{Name: "things", ItemType: "Thing", Prefix: "Things", Slugged: true}))
		if err != nil {
			t.Fatal(err)
		}
		old := &world{docstore.New(set, w.box), t, w.d, w.as, w.box}
		old.made("things", `{"Name":"x","Retired":"r","New":1,"Password":{"NewValue":"clear"}}`)
		want := map[string]any{"Colour": "grey", "Tags": []any{}, "ClearMap": map[string]any{}, "Retired": "r", "New": 1.0, "Name": "x", "Slug": "x"}
		served := w.served("things", "Things-1")
		for member, value := range want {
			if diff := cmp.Diff(value, served[member]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", member, diff)
			}
		}
		if _, stored := served["Links"]; stored {
			t.Error("links are served from the store")
		}
		var v Thing
		w.read(func(tx *db.Tx) error {
			docs, _, err := w.List(w.as, tx, w.kind("things"), docstore.Query{Space: home})
			if err != nil {
				return err
			}
			if !strings.Contains(string(docs[0].Body), `"Colour":"grey"`) {
				t.Errorf("listed as %s", docs[0].Body)
			}
			return w.In(tx).Load(w.as, "things", "Things-1", &v)
		})
		if v.Colour != "grey" || !v.Password.HasValue {
			t.Errorf("loaded as %+v", v)
		}
		if v := w.reveal("Things-1"); *v.Password.NewValue != "clear" {
			t.Error("the secret is lost")
		}
		// The earlier version goes on beside: what it stores is read, and what it
		// reads of the new one keeps what it does not know.
		w.put("things", "x", `{"Name":"x","Colour":"red","Password":{"HasValue":true}}`)
		if got := old.served("things", "x"); got["Colour"] != "red" || got["Retired"] != "" {
			t.Errorf("the earlier version sees %v", got)
		}
		if doc := old.put("things", "x", mustJSON(t, old.served("things", "x"))); !strings.Contains(string(doc.Body), `"Colour":"red"`) {
			t.Errorf("the earlier version lost what it does not know: %s", doc.Body)
		}
		if w.kind("things").Shape() == old.kind("things").Shape() {
			t.Error("the types have one shape")
		}
	})
}
