//go:build linux

package network_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/remote"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/network"
	"github.com/takodeploy/tako/octopus"
)

// TestChecksDoNotWait reaches agents that are away for health checks: one that polls, and
// was not there for long, is not waited for, and one that listens has the time of one
// attempt.
func TestChecksDoNotWait(t *testing.T) {
	t.Parallel()
	ids, err := identities()
	if err != nil {
		t.Fatal(err)
	}
	sub, peer := halibut.NewSubscription(), ids[1].Thumbprint
	server := network.New(network.Config{
		Identity: ids[0], Timing: halibut.Timing{Pause: time.Millisecond, AgainMax: 20 * time.Millisecond},
		Trust: func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) { return true, nil },
	})
	listen := func() net.Listener {
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	t.Cleanup(func() {
		server.Close()
		stop()
		wg.Wait()
	})
	machine := func(style octopus.CommunicationStyle, uri string) targets.Machine {
		m := targets.Machine{ID: "Machines-1", Name: "box", Check: true, Endpoint: octopus.Endpoint{CommunicationStyle: style, URI: uri, Thumbprint: string(peer)}}
		m.Policy = octopus.MachinePolicy{
			ConnectionConnectTimeout: octopus.TimeSpan(200 * time.Millisecond), ConnectionRetryCountLimit: 3, ConnectionRetrySleepInterval: octopus.TimeSpan(time.Millisecond),
			PollingRequestQueueTimeout: octopus.TimeSpan(time.Hour),
		}
		return m
	}
	polls := machine(octopus.StylePolling, string(sub))
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var absent *targets.AbsentError
	if _, err := server.Dial(soon, polls); !errors.Is(err, agent.ErrNotSent) || errors.As(err, &absent) {
		t.Errorf("while nobody can come: %v", err)
	}

	port := listen()
	wg.Go(func() {
		if err := server.Serve(ctx, port); err != nil {
			t.Error(err)
		}
	})
	away := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; {
			moment, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, err := server.Dial(moment, polls)
			cancel()
			if errors.As(err, &absent) && errors.Is(err, agent.ErrNotSent) && absent.For > 25*time.Millisecond {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	away("nobody has come")
	svc, err := agent.Open(t.Context(), agent.Config{Home: t.TempDir(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	node := halibut.New(halibut.Config{Identity: ids[1], Services: remote.Services(svc)})
	polling, leave := context.WithCancel(ctx)
	defer leave()
	left := make(chan struct{})
	wg.Go(func() {
		defer close(left)
		node.Poll(polling, halibut.Server{Addr: port.Addr().String(), Thumbprint: server.Thumbprint(), Subscription: sub})
	})
	for server.Connected(sub, peer) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the agent does not come")
		}
		<-time.After(time.Millisecond)
	}
	if _, err := server.Dial(t.Context(), polls); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	leave()
	<-left
	away("it has left")
	polls.Check = false
	moment, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	polls.Fresh = true // what it has said is not asked again otherwise
	if a, err := server.Dial(moment, polls); errors.As(err, &absent) {
		t.Errorf("for a deployment: %v, %v", a, err)
	}

	// It accepts, and says nothing.
	mute := listen()
	var dialed atomic.Int64
	wg.Go(func() {
		var conns []net.Conn
		for {
			c, err := mute.Accept()
			if err != nil {
				break
			}
			dialed.Add(1)
			conns = append(conns, c)
		}
		for _, c := range conns {
			_ = c.Close() // nothing was written
		}
	})
	defer mute.Close()
	listens := machine(octopus.StyleListening, "https://"+mute.Addr().String()+"/")
	if _, err := server.Dial(t.Context(), listens); !errors.Is(err, agent.ErrNotSent) || dialed.Load() != 1 {
		t.Errorf("a check dials %d times: %v", dialed.Load(), err)
	}
	listens.Check = false
	if _, err := server.Dial(t.Context(), listens); !errors.Is(err, agent.ErrNotSent) || dialed.Load() != 4 {
		t.Errorf("a deployment has dialed %d times: %v", dialed.Load()-1, err)
	}
}
