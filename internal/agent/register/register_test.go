package register_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/takodeploy/tako/internal/agent/register"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

const key = "API-TESTTESTTEST"

func TestParseServer(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://tako.example.com":       "https://tako.example.com",
		" http://tako:8065/ ":            "http://tako:8065",
		"https://example.com/tako/":      "https://example.com/tako",
		"https://example.com/tako/api":   "https://example.com/tako",
		"https://example.com/api/":       "https://example.com",
		"tako.example.com":               "",
		"ftp://tako.example.com":         "",
		"https://":                       "",
		"https://me:pass@tako.example":   "",
		"https://tako.example.com/?a=b":  "",
		"https://tako.example.com/#here": "",
	} {
		got, err := register.ParseServer(in)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

// server answers by its paths; "BASE" in an answer is its own address.
func server(t *testing.T, answers map[string]string) (*register.Client, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if got := r.Header.Get("X-Octopus-ApiKey"); got != key {
			t.Errorf("%s has the key %q", r.URL, got)
		}
		answer, ok := answers[r.Method+" "+r.URL.RequestURI()]
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"ErrorMessage":"There is no %s."}`, r.URL.RequestURI())
		case strings.HasPrefix(answer, "http"):
			http.Redirect(w, r, answer, http.StatusFound)
		default:
			_, _ = w.Write([]byte(answer))
		}
	}))
	t.Cleanup(srv.Close)
	at, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := register.NewClient(at, nil, register.Credentials{APIKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, &asked
}

// TestKeyStaysWithItsServer: neither a link nor a redirection takes a key elsewhere.
func TestKeyStaysWithItsServer(t *testing.T) {
	t.Parallel()
	var stolen atomic.Int64
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
	defer thief.Close()
	for name, answers := range map[string]map[string]string{
		"link":        {"GET /api": `{"ApiVersion":"3.0.0","Links":{"Spaces":"/s","CurrentUser":"` + thief.URL + `/me"}}`},
		"scheme":      {"GET /api": `{"ApiVersion":"3.0.0","Links":{"Spaces":"/s","CurrentUser":"//` + strings.TrimPrefix(thief.URL, "http://") + `/me"}}`},
		"redirection": {"GET /api": thief.URL + "/api"},
	} {
		c, asked := server(t, answers)
		_, err := c.Register(t.Context(), register.Machine{Name: "x"})
		if err == nil || asked.Load() != 1 {
			t.Errorf("%s: %v after %d requests", name, err, asked.Load())
		}
	}
	if stolen.Load() != 0 {
		t.Error("another server was asked")
	}
}

// TestOddServers: what is no server of this API is told from one that refuses.
func TestOddServers(t *testing.T) {
	t.Parallel()
	links := `{"ApiVersion":"3.0.0","Links":{"Spaces":"/s","CurrentUser":"/me","CertificateConfiguration":"/c{/id}{?skip,take}"}}`
	me := `{"Links":{"Spaces":"/mine"}}`
	for name, c := range map[string]struct {
		answers map[string]string
		says    string
	}{
		"a web page":       {map[string]string{"GET /api": "<html>"}, "check the URL"},
		"another API":      {map[string]string{"GET /api": `{"ApiVersion":"4.0.0"}`}, `API version "4.0.0"`},
		"no link":          {map[string]string{"GET /api": `{"ApiVersion":"3.0.0","Links":{"Spaces":"/s"}}`}, `no link "CurrentUser"`},
		"a broken link":    {map[string]string{"GET /api": `{"ApiVersion":"3.0.0","Links":{"Spaces":"/s","CurrentUser":"/me{"}}`}, "no template"},
		"nothing there":    {map[string]string{"GET /api": links}, "404: There is no /me."},
		"no default space": {map[string]string{"GET /api": links, "GET /me": me, "GET /mine": `[{"Id":"Spaces-2","Name":"Far"}]`}, "--space: Far"},
		"a certificate that is none": {map[string]string{
			"GET /api": links, "GET /me": me, "GET /mine": `[{"Id":"Spaces-1","IsDefault":true,"Links":{"SpaceHome":"/home"}}]`, "GET /c/certificate-global": `{"Thumbprint":"12"}`,
		}, "40 hexadecimal digits"},
	} {
		client, _ := server(t, c.answers)
		if _, err := client.Register(t.Context(), register.Machine{Name: "x"}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	client, _ := server(t, nil)
	_, err := client.Thumbprint(t.Context())
	var refused *register.StatusError
	if !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		t.Errorf("%v", err)
	}
}

// TestAnotherServersPort: a machine is not registered with a server that it could not
// poll.
func TestAnotherServersPort(t *testing.T) {
	t.Parallel()
	own := halibut.Thumbprint(strings.Repeat("A", 40))
	c, asked := server(t, map[string]string{
		"GET /api": `{"ApiVersion":"3.0.0","Links":{"SpaceHome":"/home","CertificateConfiguration":"/c{/id}"}}`, "GET /c/certificate-global": `{"Thumbprint":"` + string(own) + `"}`,
		"GET /home": `{"Links":{}}`,
	})
	_, err := c.Register(t.Context(), register.Machine{Name: "x", Expect: halibut.Thumbprint(strings.Repeat("B", 40))})
	if err == nil || !strings.Contains(err.Error(), string(own)) || asked.Load() != 4 {
		t.Errorf("%v after %d requests", err, asked.Load())
	}
}

func TestTokenIsSentAgain(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var cmd octopus.RegistrationCommand
		if err := json.NewDecoder(r.Body).Decode(&cmd); err != nil || cmd.Token != "tako-register-x" || r.URL.Path != "/base/api/registrations" {
			t.Errorf("%s %v %v", r.URL, cmd, err)
		}
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler) //nolint:forbidigo // the answer is lost
		}
		_, _ = w.Write([]byte(`{"SpaceId":"Spaces-1","MachineId":"Machines-1","Name":"x","Thumbprint":"` + strings.Repeat("a", 40) + `"}`))
	}))
	defer srv.Close()
	at, err := register.ParseServer(srv.URL + "/base")
	if err != nil {
		t.Fatal(err)
	}
	c, err := register.NewClient(at, nil, register.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done, err := c.RegisterByToken(t.Context(), octopus.RegistrationCommand{Token: "tako-register-x"})
	if err != nil || done.MachineID != "Machines-1" || done.Server != halibut.Thumbprint(strings.Repeat("A", 40)) || tries.Load() != 2 {
		t.Errorf("%+v %v after %d tries", done, err, tries.Load())
	}
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/handshake" || len(r.TLS.PeerCertificates) > 0 || r.ContentLength != 0 {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer srv.Close()
	want := halibut.ThumbprintOf(srv.Certificate().Raw)
	for _, code := range []int64{http.StatusOK, http.StatusBadRequest} {
		status.Store(code)
		if got, err := register.Handshake(t.Context(), srv.URL+"/", nil); err != nil || got != want {
			t.Errorf("%d: %s %v", code, got, err)
		}
	}
	if _, err := register.Handshake(t.Context(), "http://x/", nil); err == nil {
		t.Error("an address without TLS is taken")
	}
}
