// Package control is the language between a supervisor and the servers that it starts.
//
// Each server has a socket of its own; whoever holds the supervisor's place connects to
// it. So a server outlives its supervisor, and the next supervisor finds it and gets
// from it the listening sockets that nobody else holds any more.
//
// The language is frozen: supervisors and servers of neighbouring versions speak it
// with each other. Words may be added; those that are here keep their meaning.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/localsocket"
)

// Format is the version of the language.
const Format = 1

// Stage is how far a server is in its life.
type Stage string

// The stages, in order.
const (
	Starting Stage = "starting" // not ready yet
	Ready    Stage = "ready"    // could take over; accepts nothing, claims nothing, writes nothing
	Serving  Stage = "serving"
	Released Stage = "released" // answers requests, but has given its tasks back and claims none
	Ducking  Stage = "ducking"  // accepts nobody new, ends when the last connection does
)

// Status is what a server says of itself.
type Status struct {
	Format  int    `json:"format"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Stage   Stage  `json:"stage"`
	// Listeners are the names of its listening sockets.
	Listeners []string `json:"listeners,omitempty"`
	// Answers are how many requests it has answered since it began, Failed how many of
	// them it could not answer for a reason of its own (a status of 500 and above).
	Answers int64 `json:"answers,omitempty"`
	Failed  int64 `json:"failed,omitempty"`
}

// Server is what a server does when it is told to. Each may be told again.
type Server interface {
	Status() Status
	// Ready waits until the server could take over, or says why it cannot.
	Ready(ctx context.Context) error
	// Accept makes it serve: it accepts, claims tasks, keeps time.
	Accept(ctx context.Context) error
	// Prepare makes it give its tasks back and claim none; it goes on answering.
	Prepare(ctx context.Context) error
	// Resume undoes Prepare.
	Resume(ctx context.Context) error
	// Duck makes it accept nobody new, and end when the last connection does.
	Duck(ctx context.Context) error
	// Deep looks whether it does its work, as far as it can tell.
	Deep(ctx context.Context) error
	// ListenerFile is a copy of a listening socket, for the caller to close.
	ListenerFile(name string) (*os.File, error)
}

// Command is a word of the language.
type Command string

// The commands: those of Server, and Hello, which only asks.
const (
	Hello    Command = "hello"
	Wait     Command = "ready"
	Accept   Command = "accept"
	Prepare  Command = "prepare"
	Resume   Command = "resume"
	Duck     Command = "duck"
	Deep     Command = "deep"
	Listener Command = "listener" // of the name Argument; its descriptor comes with the answer
)

type request struct {
	Format   int     `json:"format"`
	Command  Command `json:"command"`
	Argument string  `json:"argument,omitempty"`
	// Limit is in milliseconds: after that nobody waits for the answer.
	Limit int64 `json:"limit"`
}

type reply struct {
	Status Status `json:"status"`
	Error  string `json:"error,omitempty"`
	// Unknown tells that the command is none of the server's version.
	Unknown bool `json:"unknown,omitempty"`
}

// ErrUnknown says that a server does not know a command.
var ErrUnknown = errors.New("the server does not know this command")

const maxLine = 64 << 10

// ErrAbandoned says that a candidate's supervisor is gone, and nobody will tell it to
// accept: it has to end.
var ErrAbandoned = errors.New("the supervisor that started this candidate is gone")

// Serve answers commands until ctx ends. A candidate that nobody wants any more gets
// ErrAbandoned.
func Serve(ctx context.Context, launch *Started, s Server) error {
	ln, err := localsocket.Listen(ctx, launch.Socket)
	if err != nil {
		return fmt.Errorf("listen for the supervisor: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	defer func() { _ = os.Remove(launch.Socket) }() // a name of our own: no successor's is there
	var orphan *orphanage
	if launch.Candidate && launch.Orphan > 0 {
		orphan = newOrphanage(launch.Orphan, func() {
			if st := s.Status().Stage; st == Starting || st == Ready {
				stop(ErrAbandoned)
			}
		})
		defer orphan.stop()
	}
	for {
		c, err := ln.AcceptLocal()
		switch {
		case errors.Is(context.Cause(ctx), ErrAbandoned):
			return ErrAbandoned
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("accept the supervisor: %w", err)
		}
		orphan.connected()
		go func() {
			defer orphan.left()
			answer(ctx, c, s)
		}()
	}
}

// orphanage acts when there was no supervisor for a while.
type orphanage struct {
	limit time.Duration
	mu    sync.Mutex
	there int // connections
	timer *time.Timer
}

func newOrphanage(limit time.Duration, act func()) *orphanage {
	return &orphanage{limit: limit, timer: time.AfterFunc(limit, act)}
}

func (o *orphanage) connected() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.there++
	o.timer.Stop()
}

func (o *orphanage) left() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.there--; o.there == 0 {
		o.timer.Reset(o.limit)
	}
}

func (o *orphanage) stop() { o.timer.Stop() }

// answer answers one supervisor, one command after the other.
func answer(ctx context.Context, c *net.UnixConn, s Server) {
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	in := bufio.NewScanner(c)
	in.Buffer(nil, maxLine)
	for in.Scan() {
		var req request
		var out reply
		var file *os.File
		if err := json.Unmarshal(in.Bytes(), &req); err != nil {
			out.Error = "the command cannot be read"
		} else {
			file, out = do(ctx, s, req)
		}
		if send(c, out, file) != nil {
			return
		}
	}
}

func do(ctx context.Context, s Server, req request) (file *os.File, out reply) {
	ctx, stop := context.WithTimeout(ctx, time.Duration(req.Limit)*time.Millisecond)
	defer stop()
	var err error
	switch req.Command {
	case Hello:
	case Wait:
		err = s.Ready(ctx)
	case Accept:
		err = s.Accept(ctx)
	case Prepare:
		err = s.Prepare(ctx)
	case Resume:
		err = s.Resume(ctx)
	case Duck:
		err = s.Duck(ctx)
	case Deep:
		err = s.Deep(ctx)
	case Listener:
		file, err = s.ListenerFile(req.Argument)
	default:
		out.Unknown = true
		err = ErrUnknown
	}
	out.Status = s.Status()
	out.Status.Format = Format
	if err != nil {
		out.Error = err.Error()
	}
	return file, out
}

func send(c *net.UnixConn, out reply, file *os.File) error {
	line, err := json.Marshal(out)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if file == nil {
		_, err = c.Write(line)
		return err
	}
	defer file.Close()
	// Not file.Fd(), which would make the shared socket a blocking one.
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { _, _, sent = c.WriteMsgUnix(line, unix.UnixRights(int(fd)), nil) })
	return errors.Join(err, sent)
}

// Conn is a connection to a server. It is not safe for concurrent use.
type Conn struct {
	c    *net.UnixConn
	lost bool
}

// Dial connects to a server's socket and greets it.
func Dial(ctx context.Context, path string) (*Conn, Status, error) {
	c, err := localsocket.Dial(ctx, path)
	if err != nil {
		return nil, Status{}, fmt.Errorf("connect to a server: %w", err)
	}
	conn := &Conn{c: c}
	st, err := conn.Do(ctx, Hello, 5*time.Second)
	if err != nil {
		return nil, st, errors.Join(err, c.Close())
	}
	return conn, st, nil
}

// Close closes the connection, which changes nothing for the server.
func (c *Conn) Close() error { return c.c.Close() }

// Lost reports whether an answer did not come, or not in time. Nothing more can be asked
// then: it may come yet, and would be taken for the answer to what is asked next.
func (c *Conn) Lost() bool { return c.lost }

// Do tells the server something and waits for its answer, limit at the longest. An
// error may be the server's own refusal, a deadline, or the end of the server.
func (c *Conn) Do(ctx context.Context, cmd Command, limit time.Duration) (Status, error) {
	st, file, err := c.ask(ctx, request{Format, cmd, "", limit.Milliseconds()}, limit)
	if file != nil {
		_ = file.Close()
	}
	return st, err
}

// Listener gets a listening socket from the server.
func (c *Conn) Listener(ctx context.Context, name string) (*os.File, error) {
	const limit = 5 * time.Second
	_, file, err := c.ask(ctx, request{Format, Listener, name, limit.Milliseconds()}, limit)
	if err == nil && file == nil {
		err = errors.New("the server sent no socket")
	}
	return file, err
}

// grace is how much longer than the server we wait, so that its own answer about a
// deadline arrives.
const grace = time.Second

func (c *Conn) ask(ctx context.Context, req request, limit time.Duration) (st Status, file *os.File, err error) {
	if c.lost {
		return st, nil, fmt.Errorf("tell the server to %s: %w", req.Command, net.ErrClosed)
	}
	if err := c.c.SetDeadline(time.Now().Add(limit + grace)); err != nil {
		return st, nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.c.SetDeadline(time.Unix(1, 0)) })()
	line, err := json.Marshal(req)
	if err != nil {
		return st, nil, err
	}
	if _, err := c.c.Write(append(line, '\n')); err != nil {
		c.lost = true
		return st, nil, fmt.Errorf("tell the server to %s: %w", req.Command, err)
	}
	answer, file, err := c.receive()
	if err != nil {
		c.lost = true
		return st, file, fmt.Errorf("wait for the server's answer to %s: %w", req.Command, err)
	}
	switch {
	case answer.Unknown:
		err = ErrUnknown
	case answer.Error != "":
		err = errors.New(answer.Error)
	}
	return answer.Status, file, err
}

// receive reads one answer, with the descriptor that came along.
func (c *Conn) receive() (out reply, file *os.File, err error) {
	var line []byte
	part, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	for len(line) == 0 || line[len(line)-1] != '\n' {
		n, extra, _, _, err := c.c.ReadMsgUnix(part, rights)
		if extra > 0 && file == nil {
			file = received(rights[:extra])
		}
		if err != nil || n == 0 {
			return out, file, errors.Join(err, net.ErrClosed)
		}
		if line = append(line, part[:n]...); len(line) > maxLine {
			return out, file, errors.New("the answer is too long")
		}
	}
	return out, file, json.Unmarshal(line, &out)
}

// received takes the one descriptor out of a control message.
func received(rights []byte) *os.File {
	all, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil
	}
	var file *os.File
	for i := range all {
		fds, err := unix.ParseUnixRights(&all[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			if file == nil {
				file = os.NewFile(uintptr(fd), "listener")
				continue
			}
			_ = unix.Close(fd)
		}
	}
	return file
}
