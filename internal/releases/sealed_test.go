package releases

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/secret"
)

// TestSecretPlacesOpen finds every sealed value of a manifest under the names that it
// was sealed by.
func TestSecretPlacesOpen(t *testing.T) {
	t.Parallel()
	box, err := secret.Open(t.Context(), dbtest.Open(t, db.SQLite), secret.Source{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{cfg: Config{Sealer: box}}
	const owner = "variableset-Deployments-1"
	var m manifest
	if m.ByID, err = s.sealAnswers(owner, "id", map[string]string{"a": "by id"}); err != nil {
		t.Fatal(err)
	}
	if m.ByName, err = s.sealAnswers(owner, "name", map[string]string{"b": "by name"}); err != nil {
		t.Fatal(err)
	}
	passed, err := box.Seal(owner, "passed.c", []byte("passed"))
	if err != nil {
		t.Fatal(err)
	}
	m.Passed = []passedValue{{Name: "c", Sealed: passed}}
	carried, err := box.Seal(owner, carriedField(1), []byte("carried"))
	if err != nil {
		t.Fatal(err)
	}
	m.Carried = []carriedOutput{{Name: "open", Value: "plain"}, {Name: "d", Value: carried, Sensitive: true}}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := SecretPlaces()[0].Refs([]any{owner}, string(body))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, r := range refs {
		plain, err := box.Open(t.Context(), r.Owner, r.Field, r.Envelope)
		if err != nil {
			t.Errorf("%s: %v", r.Field, err)
		}
		got[string(plain)] = true
	}
	if diff := cmp.Diff(map[string]bool{"by id": true, "by name": true, "passed": true, "carried": true}, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
}
