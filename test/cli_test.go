package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// run runs the program and returns what it wrote and its exit code.
func run(t *testing.T, in string, args ...string) (out string, code int) {
	t.Helper()
	return runWith(t, nil, in, args...)
}

// runWith is run with more in its environment.
func runWith(t *testing.T, env []string, in string, args ...string) (out string, code int) {
	t.Helper()
	return runProgram(t, apptest.Binary(t), env, in, args...)
}

// runProgram is runWith with the program of another version.
func runProgram(t *testing.T, program string, env []string, in string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(in)
	body, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return string(body), code
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	occupied := t.TempDir()
	if err := os.WriteFile(filepath.Join(occupied, "blobs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tako.yaml")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:9999\nlistn: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"help", []string{"server", "--help"}, 0, []string{"--tls-cert", "Examples:", "TAKO_ADMIN_USERNAME"}},
		{"version", []string{"version", "--output", "json"}, 0, []string{`"Version":"2026.`, `"Commit":`}},
		{"routes", []string{"routes"}, 0, []string{"/api/{space}/environments/{id}", "EnvironmentView", "public"}},
		{"form of output", []string{"backup", "list", "--output", "text"}, 2, []string{`invalid argument "text" for "--output"`, "use table or json"}},
		{"another form of output", []string{"routes", "--output", "xml"}, 2, []string{"use table or json"}},
		{"settings", []string{"server", "--listen", "127.0.0.1:7777", "--database", "postgres://u:hunter2@h/d", "--print-config"}, 0, []string{`listen: "127.0.0.1:7777"`, "u:***@h"}},
		{"bad flag", []string{"server", "--lisen", "x"}, 2, []string{"unknown flag: --lisen"}},
		{"bad address", []string{"server", "--listen", "nowhere"}, 2, []string{`listen is "nowhere"`, "127.0.0.1:8065"}},
		{"bad address of agents", []string{"server", "--agent-listen", "nowhere"}, 2, []string{`agent_listen is "nowhere"`, ":10943", "off"}},
		{"bad file", []string{"server", "--config", file}, 2, []string{`"listn" is no setting`, "tls_cert"}},
		{"half of TLS", []string{"server", "--tls-cert", "x.pem"}, 2, []string{"tls_cert and tls_key belong together"}},
		{"occupied directory", []string{"server", "--data", occupied, "--agent-listen", "off"}, 1, []string{"no tako.db", "--data"}},
		{"no server", []string{"admin", "create-api-key", "--data", t.TempDir()}, 1, []string{"no server's database"}},
		{"agent", []string{"agent", "run", "--home", t.TempDir()}, 2, []string{"--builtin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, code := run(t, "", tt.args...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d: %s", code, tt.code, out)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("output lacks %q:\n%s", want, out)
				}
			}
			if strings.Contains(out, "hunter2") {
				t.Errorf("output shows a password:\n%s", out)
			}
		})
	}
}

// TestServerLife starts a server over HTTPS, stops it cleanly, finds everything
// again, makes a key on the command line, and refuses a foreign master key.
func TestServerLife(t *testing.T) {
	t.Parallel()
	p := apptest.NewProcess(t, db.SQLite)
	cert, key := certificate(t)
	p.Env = []string{"TAKO_TLS_CERT=" + cert, "TAKO_TLS_KEY=" + key}
	p.Start()
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // its own certificate
	defer secure.CloseIdleConnections()
	if !strings.HasPrefix(p.URL, "https://") {
		t.Fatalf("it serves at %s", p.URL)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		resp, err := secure.Get(p.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.TLS == nil {
			t.Errorf("%s answers %d", path, resp.StatusCode)
		}
	}
	p.Stop()
	if !strings.Contains(p.Output(), "Tako has stopped.") {
		t.Errorf("it did not stop cleanly:\n%s", p.Output())
	}

	p.Env = nil
	p.Start()
	made := apptest.Post(t, p.Client, space+"/environments", octopus.Environment{Name: "Kept"})
	out, code := run(t, "", "admin", "create-api-key", "--data", p.Data, "--user", "admin", "--purpose", "test")
	if code != 0 {
		t.Fatalf("create-api-key: %d %s", code, out)
	}
	if got := apptest.Get[octopus.Environment](t, p.As(strings.TrimSpace(out)), space+"/environments/kept"); got.ID != made.ID {
		t.Errorf("found %s, want %s", got.ID, made.ID)
	}
	if out, code := run(t, "short\n", "admin", "reset-password", "--data", p.Data); code == 0 || !strings.Contains(out, "Password") {
		t.Errorf("a short password: %d %s", code, out)
	}
	if out, code := run(t, "long enough for anybody\n", "admin", "reset-password", "--data", p.Data); code != 0 {
		t.Errorf("reset-password: %d %s", code, out)
	}
	resp, err := p.As("").Do(t.Context(), http.MethodPost, "/api/users/login", map[string]any{"Username": "admin", "Password": "long enough for anybody"})
	if err != nil || resp.Status != http.StatusOK || len(resp.Header.Values("Set-Cookie")) < 2 {
		t.Errorf("sign in: %v %+v", err, resp)
	}
	p.Stop()

	master := filepath.Join(p.Data, "master.key")
	if err := os.Remove(master); err != nil {
		t.Fatal(err)
	}
	out, code = run(t, "", "server", "--data", p.Data, "--listen", "127.0.0.1:0", "--agent-listen", "off")
	if code != 78 || !strings.Contains(out, "master key") {
		t.Errorf("without its master key: %d %s", code, out)
	}
	if _, err := os.Stat(master); err == nil {
		t.Error("a new master key was made beside an old database")
	}
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
