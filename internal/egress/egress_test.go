package egress

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"syscall"
	"testing"
)

func TestRules(t *testing.T) {
	t.Parallel()
	r, err := parse([]string{"10.1.0.0/16", "192.0.2.7", "db.example.com", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "192.0.2.7": true, "2001:db8::5": true,
		"10.2.0.1": false, "192.0.2.8": false, "0.0.0.0": false, "::": false, "169.254.169.254": false, "8.8.8.8": false,
	} {
		if got := r.allows(netip.MustParseAddr(at)); got != want {
			t.Errorf("%s: %t, want %t", at, got, want)
		}
	}
	for host, want := range map[string][2]bool{
		"db.example.com": {true, true}, "DB.example.com.": {true, true}, "localhost": {false, true}, "10.2.0.1": {false, true},
		"example.com": {false, false}, "evil.db.example.com": {false, false},
	} {
		if free, lookup := r.named(host); free != want[0] || lookup != want[1] {
			t.Errorf("%s: %t, %t, want %v", host, free, lookup, want)
		}
	}
	for _, bad := range []string{"", "http://a", "a:80", "a b"} {
		if _, err := parse([]string{bad}); err == nil {
			t.Errorf("%q is taken for a host", bad)
		}
	}
}

// TestQuarantine is the only test of the package that shuts the process in, and it does
// not run beside others.
func TestQuarantine(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer server.Close()
	refused := errors.New("the dialer's own rule")
	own := Dialer(net.Dialer{Control: func(_, _ string, _ syscall.RawConn) error { return refused }})
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:9")
	if err := Quarantine(); err != nil {
		t.Fatal(err)
	}
	defer quarantine.Store(nil)
	if !Quarantined() {
		t.Error("not in quarantine")
	}
	dial := Dialer(net.Dialer{})
	for _, at := range []string{"192.0.2.1:80", "[2001:db8::1]:80", "0.0.0.0:80", "example.invalid:80", "tako.example.com:443"} {
		if _, err := dial(t.Context(), "tcp", at); !errors.Is(err, ErrQuarantined) {
			t.Errorf("dial %s: %v", at, err)
		}
	}
	if _, err := dial(t.Context(), "udp", "192.0.2.1:53"); !errors.Is(err, ErrQuarantined) {
		t.Errorf("dial by UDP: %v", err)
	}
	if _, err := own(t.Context(), "tcp", server.Listener.Addr().String()); !errors.Is(err, refused) {
		t.Errorf("the dialer's own rule: %v", err)
	}
	client := Client()
	defer client.CloseIdleConnections()
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("loopback answers %d, %v", resp.StatusCode, err)
	}
	if _, err := Through(HTTPProxy{Name: "Gate", Addr: server.Listener.Addr().String()}, net.Dialer{})(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, ErrQuarantined) {
		t.Errorf("through a proxy of its own host: %v", err)
	}
	if proxy, err := Proxy(&http.Request{URL: &url.URL{Scheme: "http", Host: "example.com"}}); proxy != nil || err != nil {
		t.Errorf("a proxy is used: %v, %v", proxy, err)
	}
}
