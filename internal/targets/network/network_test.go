//go:build linux

package network_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/remote"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/tentacle"
	"github.com/takodeploy/tako/internal/halibut/wire"
	"github.com/takodeploy/tako/internal/targets/network"
	"github.com/takodeploy/tako/internal/targets/program"
)

// The test binary is runner and stub, too.
func TestMain(m *testing.M) {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// world is a server and an agent, each with a certificate, on loopback.
type world struct {
	caller halibut.Caller
	home   string

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// cut ends all connections between the two.
func (w *world) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
		delete(w.conns, c)
	}
}

func (w *world) dial(ctx context.Context, proto, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, proto, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = true
	return c, nil
}

// identities are those of a server and an agent: making keys takes long.
var identities = sync.OnceValues(func() (ids [2]*halibut.Identity, err error) {
	for i := range ids {
		if ids[i], err = halibut.NewIdentity("test", time.Now()); err != nil {
			return ids, err
		}
	}
	return ids, nil
})

// connect makes a world in which the agent offers what serve says.
func connect(t *testing.T, polling bool, serve func(agent.API) []halibut.Service) *world {
	t.Helper()
	w := &world{home: t.TempDir(), conns: map[net.Conn]bool{}}
	svc, err := agent.Open(t.Context(), agent.Config{Home: w.home, Version: "test", LockWait: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := identities()
	if err != nil {
		t.Fatal(err)
	}
	serverID, agentID, sub := ids[0], ids[1], halibut.NewSubscription()
	quick := halibut.Timing{Pause: time.Millisecond, Again: 5 * time.Millisecond, AgainMax: 20 * time.Millisecond}
	server := halibut.New(halibut.Config{Identity: serverID, Timing: quick, TrustSubscriber: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
		return s == sub && p == agentID.Thumbprint, nil
	}})
	node := halibut.New(halibut.Config{Identity: agentID, Timing: quick, Services: serve(svc), TrustCaller: func(p halibut.Thumbprint) bool { return p == serverID.Thumbprint }})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	accepting := node
	if polling {
		accepting = server
		w.caller = server.Polling(sub, agentID.Thumbprint, halibut.Effort{})
		wg.Go(func() {
			node.Poll(ctx, halibut.Server{Addr: ln.Addr().String(), Thumbprint: serverID.Thumbprint, Subscription: sub, Dial: w.dial})
		})
	} else {
		l := server.Listening(ln.Addr().String(), agentID.Thumbprint, w.dial, halibut.Effort{})
		t.Cleanup(l.Close)
		w.caller = l
	}
	wg.Go(func() {
		if err := accepting.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func pace() network.Pace {
	return network.Pace{First: time.Millisecond, Most: 20 * time.Millisecond, Growth: 1.5}
}

func open(t *testing.T, w *world) network.Agent {
	t.Helper()
	return openWith(t, w, programs(t))
}

func openWith(t *testing.T, w *world, programs *program.Finder) network.Agent {
	t.Helper()
	a, err := network.Open(t.Context(), w.caller, "the agent", pace(), programs)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// withoutOwn is an agent of another make.
func withoutOwn(svc agent.API) []halibut.Service {
	var all []halibut.Service
	for _, s := range remote.Services(svc) {
		if s.Name != remote.TakoService && s.Name != tentacle.CapabilitiesService {
			all = append(all, s)
		}
	}
	return append(all, tentacle.ServeCapabilities(all...))
}

// each runs a test in both modes and with both contracts.
func each(t *testing.T, fn func(t *testing.T, w *world, contract deploy.Contract)) {
	t.Helper()
	for mode, polling := range map[string]bool{"listening": false, "polling": true} {
		for contract, serve := range map[deploy.Contract]func(agent.API) []halibut.Service{deploy.ContractTako: remote.Services, deploy.ContractV2: withoutOwn} {
			t.Run(mode+"/"+string(contract), func(t *testing.T) {
				t.Parallel()
				fn(t, connect(t, polling, serve), contract)
			})
		}
	}
}

// finish follows a script to its end and returns its output.
func finish(t *testing.T, a agent.Scripts, ticket agent.Ticket) (agent.Status, string) {
	t.Helper()
	var out strings.Builder
	after := int64(0)
	for {
		st, err := a.GetStatus(t.Context(), agent.StatusRequest{Ticket: ticket, After: after, Wait: 10 * time.Second})
		if errors.Is(err, agent.ErrNotSent) || errors.Is(err, agent.ErrUnanswered) {
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
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
		if st.Next != after {
			t.Fatalf("after %d entries comes %d", after, st.Next)
		}
		if st.State == agent.Complete {
			return st, out.String()
		}
	}
}

// TestScripts runs scripts over the network as the built-in worker does.
func TestScripts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, contract deploy.Contract) {
		ctx := t.Context()
		a := open(t, w)
		if a.Contract != contract || a.Home != w.home {
			t.Fatalf("it is %s in %q", a.Contract, a.Home)
		}
		req := agent.StartRequest{
			Ticket: "Script-1", Body: "echo \"$1 $(cat dir/file)\"\necho oh >&2\necho result > artifact\necho x >> " + filepath.Join(w.home, "runs") + "\nexit 3",
			Files: []agent.File{{Name: "dir/file", Content: []byte("content")}, {Name: "empty"}}, Arguments: []string{"an argument"}, Wait: time.Minute,
		}
		for range 2 {
			if _, err := a.StartScript(ctx, req); err != nil {
				t.Fatal(err)
			}
		}
		st, out := finish(t, a, req.Ticket)
		if st.ExitCode != 3 || !strings.Contains(out, "0 an argument content\n") || !strings.Contains(out, "1 oh\n") {
			t.Errorf("exit code %d after\n%s", st.ExitCode, out)
		}
		path := agent.WorkspacePath(req.Ticket, "artifact")
		r, err := a.DownloadFile(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "result\n" || r.Close() != nil {
			t.Errorf("the artifact is %q: %v", b, err)
		}
		if err := a.CompleteScript(ctx, req.Ticket); err != nil {
			t.Fatal(err)
		}
		if _, err := a.DownloadFile(ctx, path); !fault.Is(err, fault.NotFound) {
			t.Errorf("a file that is gone: %v", err)
		}
		// Our agents remember it, and others would run it once more.
		if st, err := a.StartScript(ctx, req); err != nil || st.State != agent.Complete || st.ExitCode != 3 {
			t.Errorf("the script once more: %+v, %v", st, err)
		}
		if b, err := os.ReadFile(filepath.Join(w.home, "runs")); err != nil || string(b) != "x\n" {
			t.Errorf("it ran: %q, %v", b, err)
		}
		// What breaks a rule is told.
		req.Ticket, req.Files = "Script-2", []agent.File{{Name: "../outside", Content: []byte("x")}}
		if _, err := a.StartScript(ctx, req); err == nil {
			t.Error("a file outside of the workspace was written")
		} else if !fault.Is(err, fault.Invalid) {
			t.Errorf("a file outside of the workspace: %v", err)
		}
		if _, err := a.GetStatus(ctx, agent.StatusRequest{Ticket: "a/b"}); !fault.Is(err, fault.Invalid) {
			t.Errorf("a ticket that is none: %v", err)
		}
		if st, err := a.GetStatus(ctx, agent.StatusRequest{Ticket: "unknown"}); err != nil || st.ExitCode != agent.ExitUnknownTicket {
			t.Errorf("an unknown ticket: %+v, %v", st, err)
		}
	})
}

// TestCancel ends a script while somebody waits for its news, on an agent that has
// one connection.
func TestCancel(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, _ deploy.Contract) {
		a := open(t, w)
		if _, err := a.StartScript(t.Context(), agent.StartRequest{Ticket: "Long", Body: "echo begun; sleep 1000"}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			after := int64(0)
			for {
				st, err := a.GetStatus(ctx, agent.StatusRequest{Ticket: "Long", After: after, Wait: time.Minute})
				if err != nil {
					left <- err
					return
				}
				if after = st.Next; after == 1 {
					left <- nil
				}
			}
		}()
		if err := <-left; err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		w.mu.Lock()
		before := len(w.conns)
		w.mu.Unlock()
		for {
			st, err := a.CancelScript(t.Context(), agent.StatusRequest{Ticket: "Long", After: 1, Wait: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if st.State == agent.Complete {
				if st.ExitCode != agent.ExitCanceled {
					t.Errorf("exit code %d", st.ExitCode)
				}
				break
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.conns) > before+1 {
			t.Errorf("it took %d connections more", len(w.conns)-before)
		}
	})
}

// TestPackages prepares a workspace over the network, whoever made the agent.
func TestPackages(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, contract deploy.Contract) {
		ctx := t.Context()
		a := open(t, w)
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		f, err := z.Create("hello.txt")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, "from the package")
		z.Close()
		sum := sha256.Sum256(b.Bytes())
		hash := hex.EncodeToString(sum[:])
		req := agent.StartRequest{Ticket: "P", Body: `cat p/hello.txt; echo; echo "$MORE"`, Env: map[string]string{"MORE": "env"}}
		req.Prepare.Packages = []agent.Package{{Name: "P", SHA256: hash, FileName: "P.1.0.0.zip", Extract: true, Dir: "p"}}
		if ok, err := a.HasPackage(ctx, hash); ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := a.PutPackage(ctx, hash, int64(b.Len()), bytes.NewReader(b.Bytes()[:b.Len()-1])); err == nil {
			t.Fatal("half a package was taken")
		}
		if err := a.PutPackage(ctx, hash, int64(b.Len()), bytes.NewReader(b.Bytes())); err != nil {
			t.Fatal(err)
		}
		if ok, err := a.HasPackage(ctx, hash); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if _, err := a.StartScript(ctx, req); err != nil {
			t.Fatal(err)
		}
		if st, out := finish(t, a, req.Ticket); st.ExitCode != 0 || !strings.Contains(out, "0 from the package\n0 env\n") {
			t.Errorf("exit code %d after\n%s", st.ExitCode, out)
		}
		// The contract of our own is none for files.
		var answer remote.Answer
		err = w.caller.Call(ctx, halibut.Call{Service: remote.TakoService, Method: remote.CallMethod, Params: []any{remote.Request{Method: "GET", Path: "/v1/files?path=x"}}}, &answer)
		var refused *wire.ServerError
		if !errors.As(err, &refused) {
			t.Errorf("%+v, %v", answer, err)
		}
	})
}

// TestFiles moves files, and none outside of the agent's home.
func TestFiles(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, _ deploy.Contract) {
		a := open(t, w)
		content := bytes.Repeat([]byte("0123456789"), 50_000)
		up, err := a.UploadFile(t.Context(), `sub\file`, bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha1.Sum(content)
		if up.FullPath != filepath.Join(w.home, "sub/file") || up.SHA1 != hex.EncodeToString(sum[:]) || up.Length != int64(len(content)) {
			t.Errorf("%+v", up)
		}
		if b, err := os.ReadFile(filepath.Join(w.home, "sub/file")); err != nil || !bytes.Equal(b, content) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
		for _, bad := range []string{"../out", "/etc/out", `..\..\out`} {
			if _, err := a.UploadFile(t.Context(), bad, strings.NewReader("x")); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Forbidden) {
				t.Errorf("%s was written: %v", bad, err)
			}
			if r, err := a.DownloadFile(t.Context(), bad); err == nil {
				r.Close()
				t.Errorf("%s was read", bad)
			}
		}
		if _, err := a.UploadFile(t.Context(), "x", io.LimitReader(rand.NewChaCha8([32]byte{}), 5)); !fault.Is(err, fault.Unsupported) {
			t.Errorf("a file of unknown size: %v", err)
		}
	})
}

// TestCuts cuts connections all the time: every script runs once, and its output
// comes whole.
func TestCuts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, _ deploy.Contract) {
		a := open(t, w)
		done := make(chan struct{})
		var cutter sync.WaitGroup
		cutter.Go(func() {
			for {
				pause := time.NewTimer(time.Duration(20+rand.IntN(60)) * time.Millisecond)
				select {
				case <-done:
					pause.Stop()
					return
				case <-pause.C:
					w.cut()
				}
			}
		})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				req := agent.StartRequest{
					Ticket: agent.Ticket(fmt.Sprintf("Cut-%d", i)), Wait: time.Second,
					Body: fmt.Sprintf("echo x >> %s-%d; for i in $(seq 200); do echo line $i; done", filepath.Join(w.home, "runs"), i),
				}
				for {
					_, err := a.StartScript(t.Context(), req)
					if err == nil {
						break
					}
					if len(fault.Faults(err)) > 0 || t.Context().Err() != nil {
						t.Error(err)
						return
					}
				}
				st, out := finish(t, a, req.Ticket)
				if n := strings.Count(out, "0 line "); st.ExitCode != 0 || n != 200 {
					t.Errorf("exit code %d after %d lines", st.ExitCode, n)
				}
				if b, err := os.ReadFile(fmt.Sprintf("%s-%d", filepath.Join(w.home, "runs"), i)); err != nil || string(b) != "x\n" {
					t.Errorf("it ran: %q, %v", b, err)
				}
			})
		}
		wg.Wait()
		close(done)
		cutter.Wait()
	})
}

// TestTooOld refuses agents without tickets, and says what one without an answer is.
func TestTooOld(t *testing.T) {
	t.Parallel()
	w := connect(t, false, func(agent.API) []halibut.Service { return nil })
	if _, err := network.Open(t.Context(), w.caller, "old", pace(), nil); !fault.Is(err, fault.Unsupported) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := network.Open(ctx, w.caller, "none", pace(), nil); !errors.Is(err, agent.ErrNotSent) {
		t.Error(err)
	}
}
