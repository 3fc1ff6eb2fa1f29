package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// traffic is what clients ask of a server at a steady rate, half of them over connections
// that they keep. Each writes numbers to an environment of its own, and reads them again:
// what was answered once has to be there.
type traffic struct {
	callers []*caller
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	done    atomic.Int64 // requests

	mu       sync.Mutex
	problems []string // the first few
}

const (
	inTraffic     = 16 // callers
	problemsShown = 10
	// unanswered is how long a caller waits for an answer.
	unanswered = 2 * time.Minute
)

// caller has one request under way at a time.
type caller struct {
	url, key string
	http     *http.Client
	kept     bool // its connection
	own      octopus.Environment
	// asked is the last number that it wrote, stored the last that it knows to be there.
	asked, stored int
	samples       []sample
}

// sample is one request.
type sample struct {
	due         time.Time
	took        time.Duration // since it was due: waiting behind the one before counts
	kept, write bool
	failed      bool // there was no answer, or not the right one
	again       bool // the client's library has sent it twice, which not every library would
	lost        bool // the answer lacked a number that was stored
}

// newTraffic begins with so many requests a second, of which one in so many is a write.
func newTraffic(t *testing.T, c *apptest.Client, rate, oneIn int) *traffic {
	t.Helper()
	usual, ok := c.HTTP.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("the client's transport is a %T", c.HTTP.Transport)
	}
	l := &traffic{}
	name := rand.Text()
	for i := range inTraffic {
		transport := usual.Clone()
		transport.DisableKeepAlives = i%2 == 1
		l.callers = append(l.callers, &caller{
			url: c.URL, key: c.Key, http: &http.Client{Transport: transport, Timeout: unanswered}, kept: !transport.DisableKeepAlives,
			own: apptest.Post(t, c, space+"/environments", octopus.Environment{Name: fmt.Sprintf("Caller %d of %s", i, name), Description: "0"}),
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel = cancel
	every, first := inTraffic*time.Second/time.Duration(rate), time.Now()
	for i, c := range l.callers {
		l.wg.Go(func() { l.call(ctx, c, first.Add(every*time.Duration(i)/inTraffic), every, oneIn) })
	}
	t.Cleanup(func() { cancel(); l.wg.Wait() })
	return l
}

// call makes the requests of a caller, each when it is due.
func (l *traffic) call(ctx context.Context, c *caller, due time.Time, every time.Duration, oneIn int) {
	defer c.http.CloseIdleConnections()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		l.one(context.WithoutCancel(ctx), c, due, n%oneIn == 0)
		due = due.Add(every)
	}
}

// one makes a request.
func (l *traffic) one(ctx context.Context, c *caller, due time.Time, write bool) {
	s := sample{due: due, kept: c.kept, write: write}
	err := c.ask(ctx, &s)
	s.took, s.failed = time.Since(due), err != nil
	c.samples = append(c.samples, s)
	l.done.Add(1)
	if err == nil && s.again {
		err = errors.New("it was sent twice")
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.problems) < problemsShown {
			l.problems = append(l.problems, fmt.Sprintf("%s connection kept: %v, write: %v: %v", due.Format(time.StampMilli), s.kept, s.write, err))
		}
	}
}

// ask writes the next number, or reads the last.
func (c *caller) ask(ctx context.Context, s *sample) error {
	var connections atomic.Int32
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connections.Add(1) }})
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if s.write {
		c.asked++
		own := c.own
		own.Description = strconv.Itoa(c.asked)
		raw, err := json.Marshal(own)
		if err != nil {
			return err
		}
		method, body = http.MethodPut, bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+space+"/environments/"+c.own.ID, body)
	if err != nil {
		return err
	}
	req.Header.Set("X-Octopus-ApiKey", c.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	s.again = connections.Load() > 1
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %.300s", resp.StatusCode, raw)
	}
	var got octopus.Environment
	if err := json.Unmarshal(raw, &got); err != nil {
		return err
	}
	n, err := strconv.Atoi(got.Description)
	if err != nil || n < c.stored || n > c.asked || s.write && n != c.asked {
		s.lost = true
		return fmt.Errorf("the number is %q; %d was stored, and %d the last that was written", got.Description, c.stored, c.asked)
	}
	c.stored = n
	return nil
}

// end stops the traffic, and reads once more what each caller has written. After it the
// samples are there to be looked at.
func (l *traffic) end(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	for _, c := range l.callers {
		l.one(t.Context(), c, time.Now(), false)
		c.http.CloseIdleConnections()
	}
	for _, p := range l.problems {
		t.Log(p)
	}
}

// span is a time in which something happens.
type span struct{ from, to time.Time }

func (s span) String() string {
	return s.to.Sub(s.from).Round(10 * time.Millisecond).String()
}

// met reports whether a request was under way in one of the spans.
func (s sample) met(spans []span) bool {
	for _, one := range spans {
		if s.due.Before(one.to) && s.due.Add(s.took).After(one.from) {
			return true
		}
	}
	return false
}

// figures of some requests.
type figures struct {
	n, kept, failed, again, lost int
	outage                       span // from the first that failed to the last
	p999, longest                time.Duration
}

// figures are those of the requests that count.
func (l *traffic) figures(counts func(s sample) bool) (f figures) {
	var took []time.Duration
	for _, c := range l.callers {
		for _, s := range c.samples {
			if !counts(s) {
				continue
			}
			took = append(took, s.took)
			for _, add := range []struct {
				to *int
				is bool
			}{{&f.kept, s.kept}, {&f.failed, s.failed}, {&f.again, s.again}, {&f.lost, s.lost}} {
				if add.is {
					*add.to++
				}
			}
			if end := s.due.Add(s.took); s.failed {
				if f.outage.from.IsZero() || s.due.Before(f.outage.from) {
					f.outage.from = s.due
				}
				if end.After(f.outage.to) {
					f.outage.to = end
				}
			}
		}
	}
	if f.n = len(took); f.n > 0 {
		f.p999, f.longest = apptest.Quantile(took, 0.999), apptest.Quantile(took, 1)
	}
	return f
}

// String is what they took.
func (f figures) String() string {
	if f.n == 0 {
		return "none"
	}
	return fmt.Sprintf("p99.9 %s, longest %s of %d", f.p999.Round(time.Millisecond), f.longest.Round(time.Millisecond), f.n)
}

// anyRequest counts all of a traffic.
func anyRequest(sample) bool { return true }
