package rest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// discard is a ResponseWriter without a connection.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(code int)        { d.status = code }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkSmallGet is an authenticated read of an environment by its id, through
// the whole handler but not the network.
func BenchmarkSmallGet(b *testing.B) {
	w := newWorld(b)
	id := w.create("/api/environments", `{"Name":"Production","Description":"where it counts"}`)
	req := httptest.NewRequest(http.MethodGet, "/api/Spaces-1/environments/"+id, nil)
	req.Header.Set("X-Octopus-ApiKey", admin)
	b.ReportAllocs()
	for b.Loop() {
		rec := &discard{header: http.Header{}}
		w.api.ServeHTTP(rec, req)
		if rec.status != http.StatusOK {
			b.Fatal(rec.status)
		}
	}
}

// BenchmarkSmallGetOverLoopback is the same by a client over one connection, whose
// own work counts too.
func BenchmarkSmallGetOverLoopback(b *testing.B) {
	w := newWorld(b)
	id := w.create("/api/environments", `{"Name":"Production"}`)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	b.ReportAllocs()
	for b.Loop() {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, w.url+"/api/Spaces-1/environments/"+id, nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("X-Octopus-ApiKey", admin)
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList reads a page of 30 environments.
func BenchmarkList(b *testing.B) {
	w := newWorld(b)
	for _, c := range "abcdefghijklmnopqrstuvwxyz0123456789" {
		w.create("/api/environments", `{"Name":"Environment `+string(c)+`"}`)
	}
	req := httptest.NewRequest(http.MethodGet, "/api/Spaces-1/environments", nil)
	req.Header.Set("X-Octopus-ApiKey", admin)
	b.ReportAllocs()
	for b.Loop() {
		rec := &discard{header: http.Header{}}
		w.api.ServeHTTP(rec, req)
		if rec.status != http.StatusOK {
			b.Fatal(rec.status)
		}
	}
}

// BenchmarkRoot reads the root document, as every command of the CLI does twice.
func BenchmarkRoot(b *testing.B) {
	w := newWorld(b)
	req := httptest.NewRequest(http.MethodGet, "/api", nil)
	b.ReportAllocs()
	for b.Loop() {
		w.api.ServeHTTP(&discard{header: http.Header{}}, req)
	}
}
