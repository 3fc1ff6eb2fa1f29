package rest_test

import (
	"net/http"
	"testing"
)

func TestFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Logf("%s", w.get("/api/", "").body)
	id := w.create("/api/environments", `{"name":"Dev"}`)
	t.Logf("%s", w.must(200, http.MethodGet, "/api/Spaces-1/environments/"+id, "").body)
	t.Logf("%s", w.must(200, http.MethodGet, "/api/Spaces-1/environments", "").body)
}
