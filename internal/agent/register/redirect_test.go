package register

import (
	"net/http"
	"net/url"
	"testing"
)

// TestRedirects: what follows a redirection has the key, so it stays with the server
// that was named, and with its encryption.
func TestRedirects(t *testing.T) {
	t.Parallel()
	server := &url.URL{Scheme: "https", Host: "tako.example.com"}
	c, err := NewClient(server, nil, Credentials{APIKey: "API-TEST"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://tako.example.com/api", nil)
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]bool{
		"https://tako.example.com/tako/api": true, "http://tako.example.com/api": false, "https://example.com/api": false, "https://tako.example.com:8443/api": false,
	} {
		next, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.http.CheckRedirect(next, []*http.Request{first}); (err == nil) != want {
			t.Errorf("%s: %v", to, err)
		}
	}
}
