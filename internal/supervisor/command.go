package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/localsocket"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// Order is what a supervisor can be told.
type Order struct {
	Format int `json:"format"`
	// Do is what: "status"; "switch", to Version; "deep", which has the server look whether
	// it does its work; or "keep", which takes the way back away from Version, the current
	// one, before its data becomes such that no older version can use it.
	Do      string `json:"do"`
	Version string `json:"version,omitempty"`
}

// Report is a supervisor's answer.
type Report struct {
	Format   int    `json:"format"`
	PID      int    `json:"pid"`
	Current  string `json:"current"`  // version
	Previous string `json:"previous"` // "" when there is no way back
	// Image is the version of the image, if this is the first process of a container: it
	// hands over to no other version. "" for a supervisor.
	Image string `json:"image,omitempty"`
	// Server is the one that serves, nil while there is none. Ducks are former ones
	// that have connections left.
	Server *control.Status  `json:"server,omitempty"`
	Ducks  []control.Status `json:"ducks,omitempty"`
	// Page tells that no server can be started, and the supervisor itself answers.
	Page bool `json:"page,omitempty"`
	// Crashes is how often in a row a server has ended by itself, or could not be started,
	// since the last switch and without one that ran for a minute in between.
	Crashes int `json:"crashes"`
	// Outages is how often since the last switch one ended, or could not be started, for want
	// of something that every version needs (fault.ExitUnavailable): these are no crashes.
	Outages int `json:"outages,omitempty"`
	// Trouble is how the last one has ended, or why it could not be started; "" for a server
	// that has run for a minute since. NeedsOperator tells that this goes on, and that there
	// is no version to go back to.
	Trouble       string `json:"trouble,omitempty"`
	NeedsOperator bool   `json:"needs_operator,omitempty"`
	Error         string `json:"error,omitempty"`
	// Blameless tells that Error, of a switch, is nothing of the version to switch to.
	Blameless bool `json:"blameless,omitempty"`
}

// order is an Order on its way through the loop.
type order struct {
	Order
	done chan Report
}

const maxOrder = 64 << 10

// SocketPath is where the supervisor of a root listens.
func SocketPath(root string) string { return filepath.Join(root, "run", "supervisor.sock") }

// Ask tells the supervisor of a root something, and waits for its answer. A Report
// with an Error is also an error.
func Ask(ctx context.Context, root string, o Order) (Report, error) {
	var r Report
	c, err := localsocket.Dial(ctx, SocketPath(root))
	if err != nil {
		return r, fmt.Errorf("no supervisor runs in %s: %w", root, err)
	}
	defer c.Close() //nolint:errcheck // read or given up
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	o.Format = control.Format
	line, err := json.Marshal(o)
	if err != nil {
		return r, err
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		return r, fmt.Errorf("tell the supervisor: %w", err)
	}
	in := bufio.NewScanner(c)
	in.Buffer(nil, maxOrder)
	if !in.Scan() {
		return r, errors.Join(errors.New("the supervisor did not answer"), in.Err(), ctx.Err())
	}
	if err := json.Unmarshal(in.Bytes(), &r); err != nil {
		return r, fmt.Errorf("read the supervisor's answer: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// listen takes orders until ctx ends; done is closed then.
func (s *Supervisor) listen(ctx context.Context) (done chan struct{}, err error) {
	ln, err := localsocket.Listen(ctx, SocketPath(s.cfg.Root))
	if err != nil {
		return nil, err
	}
	done = make(chan struct{})
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	go func() {
		defer close(done)
		for {
			c, err := ln.AcceptLocal()
			if err != nil {
				if ctx.Err() == nil {
					s.log.Error("take orders", "err", err)
				}
				return
			}
			go s.take(ctx, c)
		}
	}()
	return done, nil
}

// take passes the orders of one connection on.
func (s *Supervisor) take(ctx context.Context, c *net.UnixConn) {
	defer c.Close() //nolint:errcheck // read or given up
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	in := bufio.NewScanner(c)
	in.Buffer(nil, maxOrder)
	for in.Scan() {
		o := order{done: make(chan Report, 1)}
		if err := json.Unmarshal(in.Bytes(), &o.Order); err != nil {
			o.Do = ""
		}
		select {
		case s.orders <- o:
		case <-ctx.Done():
			return
		}
		select {
		case r := <-o.done:
			line, err := json.Marshal(r)
			if err != nil {
				return
			}
			if _, err := c.Write(append(line, '\n')); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// obey does what it is told, in the loop.
func (s *Supervisor) obey(ctx context.Context, o order) Report {
	var err error
	switch o.Do {
	case "status":
	case "switch":
		err = s.handOver(ctx, o.Version)
	case "deep":
		err = s.deep(ctx)
	case "keep":
		err = s.keep(o.Version)
	default:
		err = fmt.Errorf("this supervisor does not know the order %.40q", o.Do)
	}
	r := s.report()
	if err != nil {
		r.Error = err.Error()
		var old blameless
		r.Blameless = errors.As(err, &old)
	}
	return r
}

// deep has the server look whether it does its work.
func (s *Supervisor) deep(ctx context.Context) error {
	if s.server == nil {
		return errors.New("no server runs; the supervisor is trying to start one")
	}
	return s.server.tell(ctx, control.Deep, s.cfg.Limits.Deep)
}

// keep forgets the previous version: nobody goes back to it by himself any more.
func (s *Supervisor) keep(version string) error {
	dir, err := s.versionDir(version)
	if err != nil {
		return err
	}
	return s.forgetPrevious(version, dir)
}

func (s *Supervisor) forgetPrevious(version, dir string) error {
	current, err := os.Readlink(s.path("current"))
	if err != nil {
		return fmt.Errorf("find the current version: %w", err)
	}
	if current != dir {
		return fmt.Errorf("the current version is %s, not %s", filepath.Base(current), version)
	}
	err = os.Remove(s.path("previous"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(err, durable.SyncDir(s.cfg.Root))
}

func (s *Supervisor) report() Report {
	r := Report{Format: control.Format, PID: os.Getpid(), Page: s.page.shown(), Crashes: s.crashes, Outages: s.outages}
	if !s.proven() {
		r.Trouble, r.NeedsOperator = s.trouble, s.stuck
	}
	if link, err := os.Readlink(s.path("current")); err == nil {
		r.Current = filepath.Base(link)
	}
	if link, err := os.Readlink(s.path("previous")); err == nil {
		r.Previous = filepath.Base(link)
	}
	if s.server != nil {
		st := s.server.status
		r.Server = &st
	}
	for _, d := range s.ducks {
		r.Ducks = append(r.Ducks, d.status)
	}
	return r
}
