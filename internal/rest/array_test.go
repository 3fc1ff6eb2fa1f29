package rest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// TestArrays are lists without pages: empty ones, short ones, such as are written
// piece by piece, and such as fail.
func TestArrays(t *testing.T) {
	t.Parallel()
	pieces := func(fail int, sizes ...int) rest.Handler {
		return func(*rest.Request) (any, error) {
			n, i := 0, 0
			return rest.Array{Next: func() (items []json.RawMessage, err error) {
				if i++; i == fail {
					return nil, fault.New(fault.Conflict, "no more")
				}
				if i > len(sizes) {
					return nil, nil
				}
				for range sizes[i-1] {
					n++
					items = append(items, json.RawMessage(fmt.Sprintf("{\"N\":%d}\n", n)))
				}
				return items, nil
			}}, nil
		}
	}
	var at []rest.Route
	for name, handler := range map[string]rest.Handler{
		"none": pieces(0), "short": pieces(0, 3), "long": pieces(0, 500, 500, 1), "first": pieces(1, 3), "second": pieces(2, 3), "third": pieces(3, 500, 500),
		"pages": func(*rest.Request) (any, error) {
			return rest.Pages(func(p ident.Page) (items []struct{ N int64 }, total int64, err error) {
				for n := p.Skip + 1; n <= min(p.Skip+p.Take, 1234); n++ {
					items = append(items, struct{ N int64 }{n})
				}
				return items, 1234, nil
			}), nil
		},
	} {
		at = append(at, route("GET", "/arrays/"+name, rest.InSystem, rest.Public, handler))
	}
	w := newWorld(t, withRoutes(at...), func(c *rest.Config) { c.Compress = true })
	for name, want := range map[string]int{"none": 0, "short": 3, "long": 1001, "pages": 1234} {
		a := w.get("/api/arrays/"+name, "") // the client asks for gzip, and opens it
		var items []struct{ N int }
		if err := json.Unmarshal(a.body, &items); err != nil || a.status != 200 || len(items) != want || items == nil || a.header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s: %d %d items, %v, %v", name, a.status, len(items), err, a.header)
		}
		for i, item := range items {
			if item.N != i+1 {
				t.Fatalf("%s: item %d is %d", name, i+1, item.N)
			}
		}
	}
	for _, name := range []string{"first", "second"} {
		if a := w.get("/api/arrays/"+name, ""); a.status != 409 || !strings.Contains(string(a.body), "no more") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	for _, encoding := range []string{"gzip", "identity"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/api/arrays/third", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", encoding)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			err = errors.Join(err, resp.Body.Close())
		}
		if err == nil {
			t.Errorf("%s: a list that broke off looks whole", encoding)
		}
	}
	if a := w.do("HEAD", "/api/arrays/long", "", ""); a.status != 200 || len(a.body) != 0 {
		t.Errorf("HEAD: %d %.50q", a.status, a.body)
	}
}

// TestAllOfManyDocuments reads a list without pages that has several pieces.
func TestAllOfManyDocuments(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const total = 2*rest.Piece + 3
		var want []string
		err := w.db.Write(t.Context(), func(tx *db.Tx) error {
			want = nil
			for n := range total {
				id, err := w.store.In(tx).Create(t.Context(), "lifecycles", "Spaces-1", "", &octopus.Lifecycle{Name: fmt.Sprintf("%05d", n)})
				if err != nil {
					return err
				}
				want = append(want, id)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []octopus.Lifecycle
		if err := json.Unmarshal(w.must(200, "GET", "/api/Spaces-1/lifecycles/all", "").body, &got); err != nil {
			t.Fatal(err)
		}
		ids := make([]string, len(got))
		for i := range got {
			ids[i] = got[i].ID
		}
		if !slices.Equal(ids, want) {
			t.Errorf("%d of %d are there, or in another order", len(ids), len(want))
		}
	})
}
