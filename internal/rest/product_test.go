package rest_test

import (
	"net/http"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
)

// TestProductKinds serves every kind of the product, and what a new space has
// from the start: the declarations must make routes, and the documents fit what
// the OpenAPI document says of them.
func TestProductKinds(t *testing.T) {
	t.Parallel()
	set, err := resource.NewSet(resources.All()...)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldOf(t, dbtest.Open(t, db.SQLite), set, func(c *rest.Config) { c.Aliases = nil })
	for name, k := range set {
		if k.Hidden {
			continue
		}
		page := w.must(http.StatusOK, http.MethodGet, "/api/"+name, "").json(t)
		w.must(http.StatusOK, http.MethodGet, "/api/"+name+"/all", "")
		for _, id := range idsOf(page["Items"]) {
			doc := w.must(http.StatusOK, http.MethodGet, "/api/"+name+"/"+id, "").json(t)
			links, _ := doc["Links"].(map[string]any)
			self, _ := links["Self"].(string)
			w.must(http.StatusOK, http.MethodGet, self, "")
		}
	}
}
