//go:build linux

package ssh_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/egress/proxytest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/internal/targets/ssh"
	"github.com/takodeploy/tako/internal/targets/ssh/sshtest"
	"github.com/takodeploy/tako/octopus"
	xssh "golang.org/x/crypto/ssh"
)

// The test binary is what is brought to hosts, with its runners and stubs.
func TestMain(m *testing.M) {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	if len(os.Args) > 2 && os.Args[1] == "agent" && os.Args[2] == "run" {
		home := os.Args[slices.Index(os.Args, "--home")+1]
		idle, err := time.ParseDuration(os.Args[slices.Index(os.Args, "--idle")+1])
		if err == nil {
			err = agent.RunBuiltin(context.Background(), agent.Config{Home: home, Version: "test", Log: slog.New(slog.DiscardHandler), LockWait: agent.HandOver, Idle: idle})
		}
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const installation = "installation-1"

// hosts are those of a server's process, which ends with the test.
func hosts(t *testing.T, change ...func(*ssh.Config)) *ssh.Hosts {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	programs := program.NewFinder(exe)
	cfg := ssh.Config{Installation: installation, Programs: programs}
	for _, c := range change {
		c(&cfg)
	}
	h := ssh.New(cfg)
	t.Cleanup(func() {
		h.Close()
		if err := programs.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// endpoint is that of a server by one of its keys' fingerprints.
func endpoint(t *testing.T, s *sshtest.Server, fingerprint string) ssh.Endpoint {
	t.Helper()
	f, err := ssh.ParseFingerprint(fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Endpoint{Host: s.Host, Port: s.Port, Fingerprint: f}
}

func own(t *testing.T, s *sshtest.Server) ssh.Endpoint {
	t.Helper()
	return endpoint(t, s, xssh.FingerprintSHA256(s.Keys[0]))
}

func login(s *sshtest.Server) ssh.Login { return ssh.Login{Username: s.User, PrivateKey: s.PrivateKey} }

func open(t *testing.T, h *ssh.Hosts, s *sshtest.Server) ssh.Agent {
	t.Helper()
	a, err := h.Agent(t.Context(), "web", own(t, s), login(s))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// finish follows a script to its end, whatever happens to the connection.
func finish(t *testing.T, a agent.Scripts, ticket agent.Ticket) (agent.Status, string) {
	t.Helper()
	var out strings.Builder
	after := int64(0)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		st, err := a.GetStatus(t.Context(), agent.StatusRequest{Ticket: ticket, After: after, Wait: 10 * time.Second})
		if err != nil && (errors.Is(err, agent.ErrNotSent) || errors.Is(err, agent.ErrUnanswered)) && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range st.Entries {
			if after++; e.Seq != after {
				t.Fatalf("entry %d came as number %d", after, e.Seq)
			}
			fmt.Fprintf(&out, "%d %s\n", e.Source, e.Text)
		}
		if st.State == agent.Complete {
			return st, out.String()
		}
	}
}

// await waits for what happens in other processes.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// everything calls all that an agent does.
func everything(t *testing.T, a ssh.Agent, s *sshtest.Server, name string) {
	t.Helper()
	ctx := t.Context()
	if want := filepath.Join(s.Home, ".tako", installation); a.Home != want {
		t.Errorf("its home is %s, not %s", a.Home, want)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.Create("hello.txt")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "from the package")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	hash := hex.EncodeToString(sum[:])
	if ok, err := a.HasPackage(ctx, hash); err != nil || ok {
		t.Errorf("a package that was never sent: %v, %v", ok, err)
	}
	if err := a.PutPackage(ctx, hash, int64(b.Len()), bytes.NewReader(b.Bytes())); err != nil {
		t.Fatal(err)
	}
	ticket := agent.Ticket(name)
	req := agent.StartRequest{
		Ticket: ticket, Body: "cat p/hello.txt; echo; echo \"$1 $MORE ${SSH_CONNECTION:-none}\"; echo oh >&2; echo artifact > out.txt; echo x >> " + filepath.Join(s.Home, "runs-"+name) + "; exit 3",
		Arguments: []string{"an argument"}, Env: map[string]string{"MORE": "env"}, Timeout: time.Minute, Wait: 20 * time.Second,
	}
	req.Prepare.Packages = []agent.Package{{Name: "P", SHA256: hash, FileName: "P.1.zip", Extract: true, Dir: "p"}}
	for range 2 {
		if _, err := a.StartScript(ctx, req); err != nil {
			t.Fatal(err)
		}
	}
	st, out := finish(t, a, ticket)
	for _, want := range []string{"0 from the package\n", "0 an argument env none\n", "1 oh\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if st.ExitCode != 3 {
		t.Errorf("exit code %d", st.ExitCode)
	}
	r, err := a.DownloadFile(ctx, agent.WorkspacePath(ticket, "out.txt"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || string(content) != "artifact\n" {
		t.Errorf("%q, %v", content, err)
	}
	if err := a.CompleteScript(ctx, ticket); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(s.Home, "runs-"+name)); err != nil || string(b) != "x\n" {
		t.Errorf("it ran: %q, %v", b, err)
	}
}

// TestHost brings an agent to a host, and uses all that it does over one connection. A
// server that is started anew finds the agent.
func TestHost(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{Passphrase: "open sesame", Shell: "echo welcome; echo to all >&2"})
	h := hosts(t)
	l := login(s)
	l.Passphrase = "open sesame"
	a, err := h.Agent(t.Context(), "web", own(t, s), l)
	if err != nil {
		t.Fatal(err)
	}
	everything(t, a, s, "first")
	first, err := a.Hello(t.Context())
	if err != nil || first.Version != "test" {
		t.Fatal(first, err)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	// The other key of the host, by the hash that is out of fashion.
	again, err := hosts(t).Agent(t.Context(), "web", endpoint(t, s, "MD5:"+xssh.FingerprintLegacyMD5(s.Keys[1])), l)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := again.Hello(t.Context()); err != nil || second.PID != first.PID {
		t.Errorf("agents %d and %d: %v", first.PID, second.PID, err)
	}
	// Another installation is a stranger to it.
	other, err := hosts(t, func(c *ssh.Config) { c.Installation = "installation-2" }).Agent(t.Context(), "web", own(t, s), l)
	if err != nil {
		t.Fatal(err)
	}
	if third, err := other.Hello(t.Context()); err != nil || third.PID == first.PID || other.Home == a.Home {
		t.Errorf("agents %d and %d in %s: %v", first.PID, third.PID, other.Home, err)
	}
	programs, err := filepath.Glob(filepath.Join(s.Home, ".tako/bin/*/*"))
	if err != nil || len(programs) != 1 {
		t.Errorf("programs %v: %v", programs, err)
	}
	wrong := l
	wrong.Passphrase = "close sesame"
	if _, err := h.Agent(t.Context(), "web", own(t, s), wrong); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("a wrong passphrase: %v", err)
	}
}

// TestNoForwarding is a host that carries no channels to sockets.
func TestNoForwarding(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{Config: []string{"AllowStreamLocalForwarding no", "AllowTcpForwarding no"}, Shell: "echo welcome"})
	a := open(t, hosts(t), s)
	everything(t, a, s, "bridged")
	// More at the same time than a host has sessions for one connection.
	hold := filepath.Join(s.Home, "hold")
	errs := make(chan error)
	const many = 12
	for i := range many {
		go func() {
			ticket := agent.Ticket(fmt.Sprint("many-", i))
			_, err := a.StartScript(t.Context(), agent.StartRequest{Ticket: ticket, Body: "until [ -e " + hold + " ]; do sleep 0.05; done"})
			if err == nil && i == many-1 {
				err = os.WriteFile(hold, nil, 0o600)
			}
			for err == nil {
				var st agent.Status
				st, err = a.GetStatus(t.Context(), agent.StatusRequest{Ticket: ticket, Wait: time.Second})
				if st.State == agent.Complete {
					break
				}
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestCut kills the sessions in mid-script, several times: the script runs once, and
// its output comes whole.
func TestCut(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{})
	a := open(t, hosts(t), s)
	begun, hold := filepath.Join(s.Home, "begun"), filepath.Join(s.Home, "hold")
	req := agent.StartRequest{Ticket: "Cut", Body: "echo x >> " + begun + "; echo one; until [ -e " + hold + " ]; do sleep 0.01; done; echo two"}
	if _, err := a.StartScript(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	type end struct {
		st  agent.Status
		out string
	}
	ended := make(chan end)
	go func() {
		st, out := finish(t, a, "Cut")
		ended <- end{st, out}
	}()
	await(t, "the script begins", func() bool { return exists(begun) })
	for i := range 3 {
		before := s.Connections()
		if n := s.Cut(); n == 0 {
			t.Errorf("cut %d: there is no connection", i)
		}
		await(t, "somebody connects again", func() bool { return s.Connections() > before })
	}
	// A call that is answered goes over the newest connection.
	if _, err := a.StartScript(t.Context(), req); err != nil && !errors.Is(err, agent.ErrNotSent) && !errors.Is(err, agent.ErrUnanswered) {
		t.Error(err)
	}
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := <-ended
	if e.st.ExitCode != 0 || e.out != "0 one\n0 two\n" {
		t.Errorf("exit code %d after\n%s", e.st.ExitCode, e.out)
	}
	if b, err := os.ReadFile(begun); err != nil || string(b) != "x\n" {
		t.Errorf("it ran: %q, %v", b, err)
	}
	// While nobody answers, nothing is said to be done that was not.
	s.SetDown(true)
	await(t, "the connections are gone", func() bool { return s.Cut() == 0 })
	await(t, "the loss is seen", func() bool {
		_, err := a.StartScript(t.Context(), agent.StartRequest{Ticket: "Never", Body: "true"})
		if err == nil {
			t.Error("a script was started")
			return true
		}
		return errors.Is(err, agent.ErrNotSent) && !errors.Is(err, agent.ErrUnanswered)
	})
	s.SetDown(false)
	if st, err := a.GetStatus(t.Context(), agent.StatusRequest{Ticket: "Never"}); err != nil || st.ExitCode != agent.ExitUnknownTicket {
		t.Errorf("a script that was not sent: %+v, %v", st, err)
	}
}

// TestKilledAgent kills the agent on the host: calls start it again.
func TestKilledAgent(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{})
	a := open(t, hosts(t), s)
	for range 2 {
		hello, err := a.Hello(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := os.FindProcess(hello.PID)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if st, err := a.GetStatus(t.Context(), agent.StatusRequest{Ticket: "None"}); err != nil || st.ExitCode != agent.ExitUnknownTicket {
			t.Errorf("%+v, %v", st, err)
		}
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	// A program that was removed is brought again.
	if err := os.RemoveAll(filepath.Join(s.Home, ".tako/bin")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, hosts(t), s).Hello(t.Context()); err != nil {
		t.Error(err)
	}
	if !exists(filepath.Join(s.Home, ".tako/bin")) {
		t.Error("the program is not there")
	}
}

// TestRefused says in a sentence why a host is not used.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{})
	h := hosts(t)
	try := func(e ssh.Endpoint, l ssh.Login) error {
		_, err := h.Agent(t.Context(), "web", e, l)
		return err
	}
	known := "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	err := try(endpoint(t, s, known), login(s))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), known) || !strings.Contains(err.Error(), xssh.FingerprintSHA256(s.Keys[0])) {
		t.Errorf("a strange key: %v", err)
	}
	stranger := login(s)
	stranger.PrivateKey = s.Stranger
	if err := try(own(t, s), stranger); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "does not let the user "+s.User+" in") {
		t.Errorf("a strange user: %v", err)
	}
	if err := try(own(t, s), ssh.Login{Username: s.User, PrivateKey: "-----BEGIN NOTHING-----"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no key: %v", err)
	}
	s.SetDown(true)
	if err := try(own(t, s), login(s)); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "broke it off") {
		t.Errorf("a server that hangs up: %v", err)
	}
	nobody := own(t, s)
	nobody.Port = 1
	if err := try(nobody, login(s)); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody: %v", err)
	}
	entries, err := os.ReadDir(s.Home)
	if err != nil || len(entries) > 0 {
		t.Errorf("something was written: %v, %v", entries, err)
	}
}

// TestUnfit are hosts that can be signed in to, and cannot be used.
func TestUnfit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		program, script, want string
		kind                  fault.Kind
	}{
		"another system":    {"uname", "echo Darwin arm64", "runs Darwin arm64", fault.Unsupported},
		"no POSIX shell":    {"sh", "echo 'unknown command'; exit 1", "unknown command", fault.Unsupported},
		"no such processor": {"uname", "echo Linux vax", "kind vax", fault.Unsupported},
		"no program for it": {"uname", "echo Linux s390x", "tako-agent-linux-s390x", fault.Unsupported},
		"no room":           {"cat", "echo 'cat: write error: No space left on device' >&2; exit 1", "home directory is full", fault.Unavailable},
		"no right to write": {"mkdir", "echo 'mkdir: read-only file system' >&2; exit 1", "read-only file system", fault.Unavailable},
		"not executable":    {"chmod", "exit 0", "may not be executed", fault.Unsupported},
		"half a program":    {"cat", "head -c 1000000", "what arrived has 1000000 bytes", fault.Unavailable},
		"too much":          {"cat", `head -c 1000000000; echo more`, "bytes, not ", fault.Unavailable},
		"another program":   {"cat", `size=$(wc -c); printf '#!/bin/sh\n: >"$HOME/ran"\n' | { head -c 100; head -c $((size - 25)) /dev/zero; }`, "what arrived has another SHA-256", fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sshtest.Start(t, sshtest.Options{Programs: map[string]string{c.program: c.script}})
			_, err := hosts(t).Agent(t.Context(), "web", own(t, s), login(s))
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if left, err := filepath.Glob(filepath.Join(s.Home, ".tako/bin/*/*")); err != nil || len(left) > 0 {
				t.Errorf("%v is left: %v", left, err)
			}
			if exists(filepath.Join(s.Home, "ran")) {
				t.Error("what is not ours was run")
			}
		})
	}
}

// accounts are those of a space.
type accounts map[string]octopus.Account

func (a accounts) Account(_ context.Context, space, id string) (octopus.Account, error) {
	found, ok := a[space+"/"+id]
	if !ok {
		return found, fault.Missing("account", id)
	}
	return found, nil
}

// TestDial reaches a machine by what its document says.
func TestDial(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{})
	key := base64.StdEncoding.EncodeToString([]byte(s.PrivateKey))
	account := octopus.Account{AccountType: octopus.AccountSSHKeyPair, Username: s.User, PrivateKeyFile: &octopus.Sensitive{NewValue: &key}}
	gate := proxytest.Start(t, "tako", "pr0xy")
	h := hosts(t, func(c *ssh.Config) {
		c.Proxies = gates{
			"Spaces-1/Proxies-1": {Name: "Gate", Addr: gate.Addr, Username: "tako", Password: "pr0xy"},
			"Spaces-1/Proxies-2": {Name: "Gate", Addr: gate.Addr, Username: "tako", Password: "wrong"},
		}
		c.Accounts = accounts{"Spaces-1/Accounts-1": account, "Spaces-1/Accounts-2": {AccountType: octopus.AccountToken}}
	})
	good := octopus.Endpoint{CommunicationStyle: octopus.StyleSSH, Host: s.Host, Port: s.Port, Fingerprint: xssh.FingerprintSHA256(s.Keys[0]), AccountID: "Accounts-1"}
	a, err := h.Dial(t.Context(), targets.Machine{ID: "Machines-1", SpaceID: "Spaces-1", Name: "web", Endpoint: good, Fresh: true})
	if err != nil || a.Contract != deploy.ContractTako || a.Home != filepath.Join(s.Home, ".tako", installation) {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := a.StartScript(t.Context(), agent.StartRequest{Ticket: "Dialled", Body: "true"}); err != nil {
		t.Error(err)
	}
	// By way of a proxy: the host speaks first, maybe together with the proxy's answer.
	behind := good
	behind.ProxyID = "Proxies-1"
	a, err = h.Dial(t.Context(), targets.Machine{ID: "Machines-2", SpaceID: "Spaces-1", Name: "web", Endpoint: behind, Fresh: true})
	if err != nil || !slices.Contains(gate.Tunnels(), net.JoinHostPort(s.Host, fmt.Sprint(s.Port))) {
		t.Fatalf("%+v, %v, by %q", a, err, gate.Tunnels())
	}
	gate.Cut()
	if status, err := a.StartScript(t.Context(), agent.StartRequest{Ticket: "Tunnelled", Body: "true", Wait: 20 * time.Second}); err != nil && !errors.Is(err, agent.ErrUnanswered) {
		t.Errorf("after a cut: %+v, %v", status, err)
	}
	for want, change := range map[string]func(e *octopus.Endpoint){
		"not there any more":                           func(e *octopus.Endpoint) { e.ProxyID = "Proxies-404" },
		"does not take the user name and the password": func(e *octopus.Endpoint) { e.ProxyID = "Proxies-2" },
		"Host":          func(e *octopus.Endpoint) { e.Host = "" },
		"is empty":      func(e *octopus.Endpoint) { e.AccountID = "" },
		"was not found": func(e *octopus.Endpoint) { e.AccountID = "Accounts-3" },
		"type Token":    func(e *octopus.Endpoint) { e.AccountID = "Accounts-2" },
	} {
		e := good
		change(&e)
		if _, err := h.Dial(t.Context(), targets.Machine{ID: "Machines-1", SpaceID: "Spaces-1", Name: "web", Endpoint: e}); len(fault.Faults(err)) == 0 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestPassword signs in by password, as hosts ask for it themselves and by PAM.
func TestPassword(t *testing.T) {
	t.Parallel()
	check := func(user, password string) (*xssh.Permissions, error) {
		if user == "deploy" && password == "secret" {
			return nil, nil
		}
		return nil, errors.New("no")
	}
	for name, cfg := range map[string]xssh.ServerConfig{
		"password": {PasswordCallback: func(c xssh.ConnMetadata, password []byte) (*xssh.Permissions, error) {
			return check(c.User(), string(password))
		}},
		"questions": {KeyboardInteractiveCallback: func(c xssh.ConnMetadata, ask xssh.KeyboardInteractiveChallenge) (*xssh.Permissions, error) {
			answers, err := ask("", "", []string{"Name of your pet:", "Password:"}, []bool{true, false})
			if err != nil || len(answers) != 2 || answers[0] != "" {
				return nil, fmt.Errorf("%q, %w", answers, err)
			}
			return check(c.User(), answers[1])
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, key, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := xssh.NewSignerFromKey(key)
			if err != nil {
				t.Fatal(err)
			}
			cfg.AddHostKey(signer)
			ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					raw, err := ln.Accept()
					if err != nil {
						return
					}
					c, chans, requests, err := xssh.NewServerConn(raw, &cfg)
					if err != nil {
						raw.Close()
						continue
					}
					wg.Go(func() { xssh.DiscardRequests(requests) })
					wg.Go(func() {
						for n := range chans {
							_ = n.Reject(xssh.Prohibited, "nothing runs here")
						}
						c.Close()
					})
				}
			})
			h := hosts(t)
			t.Cleanup(func() {
				h.Close()
				ln.Close()
				wg.Wait()
			})
			fingerprint, err := ssh.ParseFingerprint(xssh.FingerprintSHA256(signer.PublicKey()))
			if err != nil {
				t.Fatal(err)
			}
			e := ssh.Endpoint{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Fingerprint: fingerprint}
			_, err = h.Agent(t.Context(), "web", e, ssh.Login{Username: "deploy", Password: "secret"})
			if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "nothing runs here") {
				t.Errorf("the right password: %v", err)
			}
			_, err = h.Agent(t.Context(), "web", e, ssh.Login{Username: "deploy", Password: "hidden"})
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "deploy") || strings.Contains(err.Error(), "hidden") {
				t.Errorf("a wrong password: %v", err)
			}
		})
	}
}

// TestDiscover sees a host's key, and that of nobody.
func TestDiscover(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{})
	key, err := ssh.Discover(t.Context(), nil, s.Host, s.Port)
	want := ssh.HostKey{Algorithm: "ssh-ed25519", SHA256: xssh.FingerprintSHA256(s.Keys[0]), MD5: xssh.FingerprintLegacyMD5(s.Keys[0])}
	if err != nil || key != want {
		t.Errorf("%+v, %v", key, err)
	}
	s.SetDown(true)
	if _, err := ssh.Discover(t.Context(), nil, s.Host, s.Port); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no server: %v", err)
	}
	if _, err := ssh.Discover(t.Context(), nil, s.Host, 1); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no port: %v", err)
	}
	gate := ssh.Dialer(egress.Through(egress.HTTPProxy{Name: "Gate", Addr: "127.0.0.1:1"}, net.Dialer{}))
	if _, err := ssh.Discover(t.Context(), gate, s.Host, s.Port); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "cannot be reached: the proxy Gate (127.0.0.1:1) does not answer for it: connection refused.") {
		t.Errorf("no proxy: %v", err)
	}
}

// gates are proxies by "space/id".
type gates map[string]egress.HTTPProxy

func (g gates) Proxy(_ context.Context, space, id string) (egress.HTTPProxy, error) {
	p, ok := g[space+"/"+id]
	if !ok {
		return p, fault.Missing("proxy", id)
	}
	return p, nil
}
