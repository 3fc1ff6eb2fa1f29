package test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// weather is what a network does to what goes over it.
type weather struct {
	delay  time.Duration // of each piece, either way
	rate   int           // bytes a second, either way; 0 is as fast as it goes
	most   int64         // nothing goes on once that many bytes went a way in all; 0 is no bound
	stall  bool          // nothing goes on, and nobody is told
	closed bool          // whoever dials is sent away
}

// link is a network between a server and an agent: a proxy that does harm.
type link struct {
	addr   string
	target string
	// passed counts the bytes that whoever dialed has sent through, and received the
	// others.
	passed, received atomic.Int64

	running sync.WaitGroup
	mu      sync.Mutex
	now     weather
	changed chan struct{} // closed when now is another
	conns   map[*carried]bool
	ended   bool
}

// carried is a connection over a link.
type carried struct {
	in, out net.Conn
	lost    chan struct{} // closed: nothing more goes through it, though it stays open
	over    chan struct{} // closed with it
	once    sync.Once
	hole    sync.Once
}

func (c *carried) close() {
	c.once.Do(func() {
		_ = c.in.Close()  // that is what is wanted of them
		_ = c.out.Close() // whatever state they are in
		close(c.over)
	})
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{addr: ln.Addr().String(), target: target, changed: make(chan struct{}), conns: map[*carried]bool{}}
	l.running.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return // the test has ended
			}
			l.running.Go(func() { l.carry(in) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close() // ends the loop above
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		l.cut()
		l.running.Wait()
	})
	return l
}

// port is where it is dialed.
func (l *link) port() string {
	_, port, _ := net.SplitHostPort(l.addr) // it is an address
	return port
}

func (l *link) carry(in net.Conn) {
	if w, _ := l.weather(); w.closed {
		_ = in.Close() // whoever it is, is sent away
		return
	}
	out, err := new(net.Dialer).DialContext(context.Background(), "tcp", l.target)
	if err != nil {
		_ = in.Close() // nobody is behind it
		return
	}
	c := &carried{in: in, out: out, lost: make(chan struct{}), over: make(chan struct{})}
	l.mu.Lock()
	l.conns[c] = true
	ended := l.ended
	l.mu.Unlock()
	if ended {
		c.close()
	}
	var both sync.WaitGroup
	both.Go(func() { l.copy(c, c.out, c.in, &l.passed) })
	both.Go(func() { l.copy(c, c.in, c.out, &l.received) })
	both.Wait()
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

func (l *link) copy(c *carried, to io.Writer, from io.Reader, count *atomic.Int64) {
	defer c.close()
	piece := make([]byte, 16<<10)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if !l.goesOn(c, n, count) {
				return
			}
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
			count.Add(int64(n))
		}
		if err != nil {
			select { // the end of one that is lost is lost as well
			case <-c.lost:
				<-c.over
			default:
			}
			return
		}
	}
}

// goesOn waits for as long as the weather has n bytes wait; false is the connection's end.
func (l *link) goesOn(c *carried, n int, count *atomic.Int64) bool {
	for {
		w, changed := l.weather()
		if w.stall || w.most > 0 && count.Load() >= w.most {
			select {
			case <-changed:
				continue
			case <-c.over:
				return false
			}
		}
		pause := w.delay
		if w.rate > 0 {
			pause += time.Duration(n) * time.Second / time.Duration(w.rate)
		}
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.over:
			return false
		}
		select {
		case <-c.lost:
			<-c.over
			return false
		default:
			return true
		}
	}
}

func (l *link) weather() (weather, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// set has another weather from now on.
func (l *link) set(w weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = w
	close(l.changed)
	l.changed = make(chan struct{})
}

// cut ends all connections that there are, and reports how many.
func (l *link) cut() int {
	all := l.all()
	for _, c := range all {
		c.close()
	}
	return len(all)
}

// lose has nothing go through the connections that there are, though both ends keep
// them open. New ones are not concerned.
func (l *link) lose() {
	for _, c := range l.all() {
		c.hole.Do(func() { close(c.lost) })
	}
}

func (l *link) all() (all []*carried) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		all = append(all, c)
	}
	return all
}
