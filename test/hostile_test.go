package test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

// says dials a node of the protocol, says something, and reads to the end.
func says(t *testing.T, addr string, id *halibut.Identity, text string) (heard string) {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true}
	if id != nil {
		pem, err := id.PEM()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tls.X509KeyPair(pem, pem)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	c, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	_, _ = io.WriteString(c, text) // it may be refused before
	all, err := io.ReadAll(bufio.NewReader(c))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%q: the connection stays open", text)
	}
	return string(all)
}

// TestHostilePeers has strangers speak to a server and to an agent: with no certificate or
// one that nobody knows, with the subscription of another agent, with what is no message.
// They are refused without a word, the log has each once, and who is trusted is not
// disturbed.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	p := apptest.NewProcess(t, db.SQLite)
	p.Start()
	thumbprint := serverThumbprint(t, p.Client)
	m := newModel(t, p.Client)
	polling := newRemoteAgent(t, thumbprint)
	polls := octopus.Endpoint{CommunicationStyle: octopus.StylePolling, URI: string(halibut.NewSubscription()), Thumbprint: string(polling.id.Thumbprint)}
	m.target(t, "polls", polls)
	polling.polling(t, p.Agents, thumbprint, polls) // now that it is known, so that it was never refused
	host := newMachine(t, apptest.Binary(t), "agent")
	at := port(t)
	host.with([]string{"TAKO_API_KEY=" + apptest.AdminKey}, 0, "install", "--server", p.URL, "--no-service", "--name", "listens", "--instance", "listens",
		"--environment", "Dev", "--role", "web", "--listen-address", "127.0.0.1", "--public-host-name", "127.0.0.1", "--port", at)
	listening := host.launch("listens")
	stranger, err := halibut.NewIdentity("stranger", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	asAgent := func(e octopus.Endpoint) string { return "MX\r\n\r\nMX-SUBSCRIBER 1.0 " + e.URI + "\r\n\r\n" }
	const asServer, hello = "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n", "MX-SERVER 1.0\r\n\r\n"
	for _, c := range []struct {
		what, addr string
		id         *halibut.Identity
		says, log  string
		heard      string
	}{
		{"stolen subscription", p.Agents, stranger, asAgent(polls), "this subscription is not known with its certificate", ""},
		{"no certificate", p.Agents, nil, asAgent(polls), "it has no certificate", ""},
		{"a caller of the server", p.Agents, polling.id, asServer, "a caller was refused: its certificate is not trusted", ""},
		{"no identity", p.Agents, stranger, "MX\r\n\r\nHELLO\r\n\r\n", "it does not introduce itself", ""},
		// It is the agent, and breaks off in the middle of what nobody asked.
		{"speaks unasked", p.Agents, polling.id, asAgent(polls) + "\x01\xff\xff\x00\x00", "a connection was closed", hello},
		{"another server", "127.0.0.1:" + at, stranger, asServer, "a caller was refused: its certificate is not trusted", ""},
		{"no certificate for an agent", "127.0.0.1:" + at, nil, asServer, "it has no certificate", ""},
	} {
		output := p.Output
		if c.addr != p.Agents {
			output = listening.out.String
		}
		for range 3 {
			heard := says(t, c.addr, c.id, c.says)
			if !strings.HasPrefix(heard, c.heard) || c.heard == "" && heard != "" {
				t.Errorf("%s: heard %q, want %q", c.what, heard, c.heard)
			}
		}
		until(t, c.what+" is logged", func() bool { return strings.Contains(output(), c.log) })
		if n := strings.Count(output(), c.log); n != 1 {
			t.Errorf("%s was logged %d times:\n%s", c.what, n, output())
		}
	}
	m.process(t, onTargets("Say", "web", "echo fine"))
	_, version := m.release(t, nil)
	if done := wait(t, p.Client, m.deploy(t, version, m.Dev), 4*time.Minute); done.State != octopus.TaskSuccess {
		t.Errorf("%s: %s", done.State, done.ErrorMessage)
	}
}
