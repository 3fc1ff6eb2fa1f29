//go:build linux

package network_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/remote"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/egress/proxytest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/targets/network"
)

// TestNetwork reaches two agents by what a machine's endpoint says of them.
func TestNetwork(t *testing.T) {
	t.Parallel()
	ids, err := identities()
	if err != nil {
		t.Fatal(err)
	}
	serverID, agentID := ids[0], ids[1]
	sub := halibut.NewSubscription()
	quick := halibut.Timing{Pause: time.Millisecond, Again: 5 * time.Millisecond, AgainMax: 20 * time.Millisecond}
	server := network.New(network.Config{
		Identity: serverID, Timing: quick,
		Trust: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
			return s == sub && p == agentID.Thumbprint, nil
		},
	})
	svc, err := agent.Open(t.Context(), agent.Config{Home: t.TempDir(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	node := halibut.New(halibut.Config{
		Identity: agentID, Timing: quick, Services: remote.Services(svc),
		TrustCaller: func(p halibut.Thumbprint) bool { return p == server.Thumbprint() },
	})
	listen := func() net.Listener {
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	serverPort, agentPort := listen(), listen()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(ctx, serverPort); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := node.Serve(ctx, agentPort); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		node.Poll(ctx, halibut.Server{Addr: serverPort.Addr().String(), Thumbprint: server.Thumbprint(), Subscription: sub})
	})
	t.Cleanup(func() {
		server.Close()
		stop()
		wg.Wait()
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	spaced := strings.ToLower(string(agentID.Thumbprint[:20]) + " " + string(agentID.Thumbprint[20:]))
	for name, e := range map[string]network.Endpoint{
		"listening": {URI: "https://" + agentPort.Addr().String() + "/", Thumbprint: string(agentID.Thumbprint)},
		"polling":   {URI: strings.ToUpper(string(sub)), Thumbprint: spaced},
	} {
		for range 2 {
			a, err := server.Agent(t.Context(), name, e)
			if err != nil || a.Contract != deploy.ContractTako {
				t.Fatal(name, a.Contract, err)
			}
			hello, err := a.Hello(t.Context())
			if err != nil || hello.Home != a.Home || hello.Version != "test" {
				t.Fatal(name, hello, err)
			}
		}
	}
	if n := server.Connected(sub, agentID.Thumbprint); n != 1 {
		t.Errorf("%d connections", n)
	}
	for name, e := range map[string]network.Endpoint{
		"no thumbprint":   {URI: string(sub), Thumbprint: "12"},
		"no subscription": {URI: "poll://", Thumbprint: spaced},
		"no address":      {URI: "ftp://x", Thumbprint: spaced},
	} {
		if _, err := server.Agent(t.Context(), name, e); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	proxied(t, server, network.Endpoint{URI: "https://" + agentPort.Addr().String() + "/", Thumbprint: string(agentID.Thumbprint)})
	other := network.Endpoint{URI: "https://" + agentPort.Addr().String() + "/", Thumbprint: string(serverID.Thumbprint)}
	if _, err := server.Agent(t.Context(), "other", other); !errors.Is(err, agent.ErrNotSent) {
		t.Errorf("somebody else's certificate: %v", err)
	}
	server.Close()
	if _, err := server.Agent(t.Context(), "late", other); !errors.Is(err, agent.ErrNotSent) {
		t.Errorf("after the end: %v", err)
	}
}

// proxied reaches an agent through a proxy, again when the proxy was away, and not at all
// by one that refuses.
func proxied(t *testing.T, server *network.Network, e network.Endpoint) {
	t.Helper()
	gate := proxytest.Start(t, "tako", "pr0xy")
	e.Proxy = egress.HTTPProxy{Name: "Gate", Addr: gate.Addr, Username: "tako", Password: "pr0xy"}
	a, err := server.Agent(t.Context(), "behind", e)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{strings.Trim(strings.TrimPrefix(e.URI, "https:"), "/")}, gate.Tunnels()); diff != "" {
		t.Errorf("tunnels (-want +got):\n%s", diff)
	}
	gate.Refuse(true)
	gate.Cut()
	if _, err := a.Hello(t.Context()); !errors.Is(err, agent.ErrNotSent) || !strings.Contains(err.Error(), "the proxy Gate ("+gate.Addr+") does not connect to ") || !strings.Contains(err.Error(), "it answers 503") {
		t.Errorf("by a proxy that refuses: %v", err)
	}
	gate.Refuse(false)
	if hello, err := a.Hello(t.Context()); err != nil || hello.Version != "test" {
		t.Errorf("by a proxy that is back: %+v, %v", hello, err)
	}
	e.Proxy.Password = "wrong"
	if _, err := server.Agent(t.Context(), "behind", e); !errors.Is(err, agent.ErrNotSent) || !strings.Contains(err.Error(), "does not take the user name and the password") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
}
