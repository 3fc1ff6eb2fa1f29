//go:build linux

package instance_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/tentacle"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/octopus"
)

// The test binary is runner and stub as well.
func TestMain(m *testing.M) {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// patience is how long a slow machine may take.
const patience = 2 * time.Minute

// quick has lost connections made again soon.
var quick = halibut.Timing{Connect: 10 * time.Second, Attempts: 1, Again: 20 * time.Millisecond, AgainMax: 100 * time.Millisecond, Null: 200 * time.Millisecond, Grace: time.Second}

// server is a server's end of the protocol.
type server struct {
	*halibut.Node

	addr string // where it is polled
}

func newServer(t *testing.T) *server {
	t.Helper()
	id, err := halibut.NewIdentity("server", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	all := func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) { return true, nil }
	s := &server{halibut.New(halibut.Config{Identity: id, Timing: quick, TrustSubscriber: all}), ln.Addr().String()}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// running is an instance that runs.
type running struct {
	addr string // "" when it does not listen
	stop func() error
}

func run(t *testing.T, s instance.Store, name string) running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- instance.Run(ctx, instance.Options{
			Store: s, Name: name, Version: "test", Timing: quick, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Ready: func(a net.Addr) { ready <- a },
		})
	}()
	stopped := false
	r := running{stop: func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case a := <-ready:
		if a != nil {
			r.addr = a.String()
		}
	case err := <-done:
		stopped = true
		cancel()
		t.Fatalf("the instance ended: %v", err)
	case <-time.After(patience):
		t.Fatal("the instance is not ready")
	}
	return r
}

// freePort is one that nobody listens on just now.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// store makes one with an instance that listens on loopback.
func store(t *testing.T, name string, servers ...instance.Server) (instance.Store, halibut.Thumbprint) {
	t.Helper()
	s := instance.Store{Dir: t.TempDir()}
	t.Cleanup(func() { proctest.End(t, s.Dir) })
	port := freePort(t)
	_, err := s.Configure(name, func(v *instance.Settings) error {
		v.ListenAddress, v.Port, v.Servers, v.Connections = "127.0.0.1", port, servers, 2
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Identity(name)
	if err != nil {
		t.Fatal(err)
	}
	return s, id.Thumbprint
}

// eventually waits for something, which it asks for again and again.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("it never came: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// script runs one on the agent that c calls, and returns what it printed.
func script(t *testing.T, c halibut.Caller, ticket, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := tentacle.Client{Caller: c}
	st, err := client.StartScript(ctx, tentacle.StartScriptV2{
		ScriptTicket: tentacle.Ticket{TaskID: ticket}, ScriptBody: body, TaskID: "ServerTasks-1", Scripts: map[tentacle.ScriptType]string{tentacle.Bash: body},
	})
	var out strings.Builder
	for ; err == nil; st, err = client.GetStatus(ctx, tentacle.StatusRequestV2{Ticket: st.Ticket, LastLogSequence: st.NextLogSequence}) {
		for _, line := range st.Logs {
			out.WriteString(line.Text + "\n")
		}
		if st.State == tentacle.Complete && len(st.Logs) == 0 {
			if err := client.CompleteScript(ctx, tentacle.CompleteV2{Ticket: st.Ticket}); err != nil {
				t.Error(err)
			}
			return out.String()
		}
	}
	t.Fatal(err)
	return ""
}

func TestServersReachAnInstance(t *testing.T) {
	t.Parallel()
	dialler, polled := newServer(t), newServer(t)
	sub := halibut.NewSubscription()
	s, self := store(t, "Both",
		instance.Server{Thumbprint: dialler.Thumbprint(), Style: octopus.StyleListening},
		instance.Server{Thumbprint: polled.Thumbprint(), Style: octopus.StylePolling, Address: "https://" + polled.addr + "/", Subscription: sub})
	apps := t.TempDir()
	if _, err := s.Update("both", func(v *instance.Settings) error { v.Applications = apps; return nil }); err != nil {
		t.Fatal(err)
	}
	r := run(t, s, "both")
	listening := dialler.Listening(r.addr, self, nil, halibut.Effort{})
	defer listening.Close()
	if got, want := script(t, listening, "Ticket-1", `echo "$TentacleInstanceName $TentacleApplications"`), "Both "+apps+"\n"; got != want {
		t.Errorf("listening: %q, want %q", got, want)
	}
	if got := script(t, polled.Polling(sub, self, halibut.Effort{}), "Ticket-2", "echo polled"); got != "polled\n" {
		t.Errorf("polling: %q", got)
	}
	eventually(t, "as many connections as configured", func() bool { return polled.Connected(sub, self) == 2 })

	// One that is polled may not dial, and a stranger neither.
	other := polled.Listening(r.addr, self, nil, halibut.Effort{})
	defer other.Close()
	if _, err := (tentacle.Client{Caller: other}).Capabilities(t.Context()); !errors.Is(err, halibut.ErrNotSent) {
		t.Errorf("a server that is not trusted to dial: %v", err)
	}
	err := instance.Run(t.Context(), instance.Options{Store: s, Name: "BOTH"})
	if !errors.Is(err, agent.ErrHomeBusy) || !strings.Contains(err.Error(), `"Both" runs already`) {
		t.Errorf("a second process: %v", err)
	}
}

func TestChangedSettingsAreTakenOver(t *testing.T) {
	t.Parallel()
	one, two := newServer(t), newServer(t)
	s, self := store(t, "one")
	r := run(t, s, "one")
	if r.addr != "" {
		t.Errorf("it listens on %s, though no server may dial", r.addr)
	}
	update := func(fn func(v *instance.Settings)) *instance.Settings {
		t.Helper()
		set, err := s.Update("one", func(v *instance.Settings) error { fn(v); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	sub := halibut.NewSubscription()
	set := update(func(v *instance.Settings) {
		v.Trust(instance.Server{Thumbprint: one.Thumbprint(), Style: octopus.StyleListening})
		v.Trust(instance.Server{Thumbprint: two.Thumbprint(), Style: octopus.StylePolling, Address: "https://" + two.addr + "/", Subscription: sub})
	})
	addr := net.JoinHostPort(set.ListenAddress, itoa(set.Port))
	listening := one.Listening(addr, self, nil, halibut.Effort{})
	defer listening.Close()
	answers := func() bool {
		_, err := tentacle.Client{Caller: listening}.Capabilities(t.Context())
		return err == nil
	}
	eventually(t, "a call of the server that is trusted now", answers)
	eventually(t, "a poll", func() bool { return two.Connected(sub, self) > 0 })
	update(func(v *instance.Settings) { v.Distrust(two.Thumbprint()) })
	eventually(t, "no poll any more", func() bool { return two.Connected(sub, self) == 0 })
	if !answers() {
		t.Error("the other server was disturbed")
	}
	// What cannot be read changes nothing.
	path := filepath.Join(s.Dir, "instances", "one", "settings.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !answers() {
		t.Error("spoilt settings were taken over")
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	update(func(v *instance.Settings) { v.NoListen = true })
	eventually(t, "nobody listening", func() bool { return !answers() })
}

func itoa(n int) string { return (&net.TCPAddr{Port: n}).String()[1:] }

func TestScriptsOutliveTheInstance(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s, self := store(t, "one", instance.Server{Thumbprint: srv.Thumbprint(), Style: octopus.StyleListening})
	r := run(t, s, "one")
	l := srv.Listening(r.addr, self, nil, halibut.Effort{})
	defer l.Close()
	client := tentacle.Client{Caller: l}
	held := filepath.Join(t.TempDir(), "go")
	ticket := tentacle.Ticket{TaskID: "Ticket-held"}
	body := "echo before\nwhile [ ! -e '" + held + "' ]; do sleep 0.02; done\necho after"
	st, err := client.StartScript(t.Context(), tentacle.StartScriptV2{ScriptTicket: ticket, ScriptBody: body, Scripts: map[tentacle.ScriptType]string{tentacle.Bash: body}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the script's first line", func() bool {
		st, err = client.GetStatus(t.Context(), tentacle.StatusRequestV2{Ticket: ticket})
		return err == nil && len(st.Logs) > 0
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = run(t, s, "one")
	again := srv.Listening(r.addr, self, nil, halibut.Effort{})
	defer again.Close()
	client = tentacle.Client{Caller: again}
	eventually(t, "the script's end", func() bool {
		st, err = client.GetStatus(t.Context(), tentacle.StatusRequestV2{Ticket: ticket})
		if err != nil {
			t.Fatal(err)
		}
		return st.State == tentacle.Complete
	})
	if len(st.Logs) != 2 || st.Logs[1].Text != "after" || st.ExitCode != 0 {
		t.Errorf("%+v", st)
	}
}

// TestProxy polls through an HTTP proxy that asks for a password.
func TestProxy(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	proxy, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	asked := make(chan *http.Request, 100)
	go func() {
		for {
			c, err := proxy.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				asked <- r
				if r.Header.Get("Proxy-Authorization") == "" {
					_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
					return
				}
				to, err := net.Dial("tcp", r.Host)
				if err != nil {
					return
				}
				defer to.Close()
				_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
				go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
				_, _ = io.Copy(c, to)
			}()
		}
	}()
	sub := halibut.NewSubscription()
	s, self := store(t, "one", instance.Server{Thumbprint: srv.Thumbprint(), Style: octopus.StylePolling, Address: "https://" + srv.addr + "/", Subscription: sub})
	set := func(proxy string) {
		if _, err := s.Update("one", func(v *instance.Settings) error { v.Proxy = proxy; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	set("http://" + proxy.Addr().String())
	run(t, s, "one")
	if r := <-asked; r.Method != http.MethodConnect || r.Host != srv.addr {
		t.Errorf("%s %s", r.Method, r.Host)
	}
	set("http://me:secret@" + proxy.Addr().String())
	eventually(t, "a connection through the proxy", func() bool { return srv.Connected(sub, self) > 0 })
}
