package test

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
)

// requests sends requests until it is stopped, half of them over connections that are
// kept, and counts them and those that failed.
func requests(t *testing.T, c *apptest.Client) (stop func() (done, failed int64)) {
	t.Helper()
	var done, failed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 4 {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 1}}
		wg.Go(func() {
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, c.URL+"/api/spaces/all", http.NoBody)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("X-Octopus-ApiKey", c.Key)
				r, err := client.Do(req)
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
					_ = r.Body.Close()
				}
				done.Add(1)
				if err != nil || r.StatusCode != http.StatusOK {
					failed.Add(1)
					t.Errorf("a request failed: %v", err)
				}
			}
		})
	}
	return func() (int64, int64) { cancel(); wg.Wait(); return done.Load(), failed.Load() }
}

// TestHandover switches versions to and fro in the middle of deployments: no request
// fails, each script runs once, no line of a log is missing or doubled. Then the
// supervisor is killed, which changes nothing.
func TestHandover(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.Supervised()
			w := newWalk(t, p, rand.Uint64()) //nolint:gosec // any moments will do
			p.Install("2026.4.0")
			p.Install("2026.5.0")
			stop := requests(t, p.Client)
			versions := []string{"2026.5.0", "2026.4.0"}
			rounds := 3
			if soaking() {
				rounds = 20
			}
			for round := range rounds {
				to := versions[round%2]
				done := w.disturb(t, func() {
					r, err := p.Switch(to)
					if err != nil || r.Current != to {
						t.Fatalf("switch to %s: %+v %v\n%s", to, r, err, p.Output())
					}
				})
				w.undisturbed(t, "switch to "+to, done)
			}
			done := w.disturb(t, func() {
				before := p.Servers()
				p.Kill()
				p.Start()
				if after := p.Servers(); len(before) == 0 || len(after) != len(before) {
					t.Errorf("servers %v, then %v", before, after)
				}
			})
			w.undisturbed(t, "kill of the supervisor", done)
			n, failed := stop()
			if failed > 0 {
				t.Errorf("%d of %d requests failed", failed, n)
			}
			t.Logf("%d requests, %d switches", n, rounds)
			if link, err := filepath.EvalSymlinks(filepath.Join(p.Root, "current")); err != nil || filepath.Base(link) != versions[(rounds-1)%2] {
				t.Errorf("current is %s, %v", link, err)
			}
		})
	}
}

// TestHandoverOfAgents switches versions to and fro while scripts run on an agent that
// listens, one that polls and a worker that polls: no request fails, the agents come to
// the version that serves, and each script goes on where it was.
func TestHandoverOfAgents(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.Supervised()
			p.AgentListen = apptest.FixedAddress(t)
			p.Start()
			p.Install("2026.4.0")
			p.Install("2026.5.0")
			f := newFleet(t, p)
			stop := requests(t, p.Client)
			for _, to := range []string{"2026.5.0", "2026.4.0", "2026.5.0"} {
				if r, err := p.Switch(to); err != nil || r.Current != to {
					t.Fatalf("switch to %s: %+v %v\n%s", to, r, err, p.Output())
				}
			}
			f.finish(t)
			if n, failed := stop(); failed > 0 {
				t.Errorf("%d of %d requests failed", failed, n)
			}
		})
	}
}
