package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Env is the environment variable by which a supervisor tells a server how it was
// started: a Launch as JSON.
const Env = "TAKO_LAUNCH"

// Launch is how a server is started by a supervisor.
type Launch struct {
	Format int `json:"format"`
	// Socket is where the server answers the supervisor.
	Socket string `json:"socket"`
	// Candidate waits to be told to accept, as all do that a supervisor starts, so that
	// nobody else does so at the same time. Else the server does it by itself.
	Candidate bool `json:"candidate,omitempty"`
	// Orphan is after how many milliseconds without a supervisor a candidate ends.
	Orphan int64 `json:"orphan,omitempty"`
	// Listeners are the descriptors of the listening sockets, by name.
	Listeners map[string]int `json:"listeners,omitempty"`
}

// Variable is the environment variable with the launch.
func (l Launch) Variable() (string, error) {
	l.Format = Format
	raw, err := json.Marshal(l)
	return Env + "=" + string(raw), err
}

// Launched tells a server how it was started, once; nil if by no supervisor. It is for
// the first lines of a program: the descriptors are closed for its children.
func Launched() (*Started, error) {
	text, ok := os.LookupEnv(Env)
	if !ok {
		return nil, nil //nolint:nilnil // no supervisor is an answer
	}
	if err := os.Unsetenv(Env); err != nil {
		return nil, err
	}
	var l Launch
	if err := json.Unmarshal([]byte(text), &l); err != nil || l.Socket == "" {
		return nil, fmt.Errorf("%s is set, but not by a supervisor; unset it", Env)
	}
	out := &Started{Socket: l.Socket, Candidate: l.Candidate, Orphan: time.Duration(l.Orphan) * time.Millisecond, Listeners: map[string]net.Listener{}}
	for name, fd := range l.Listeners {
		ln, err := listener(fd, name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("take the socket %s from the supervisor: %w", name, err), out.Close())
		}
		out.Listeners[name] = ln
	}
	return out, nil
}

// Started is how this server was started.
type Started struct {
	Socket    string
	Candidate bool
	Orphan    time.Duration
	Listeners map[string]net.Listener
}

// Close closes what was handed over.
func (l *Started) Close() error {
	var errs []error
	for _, ln := range l.Listeners {
		errs = append(errs, ln.Close())
	}
	return errors.Join(errs...)
}

func listener(fd int, name string) (net.Listener, error) {
	if fd < 3 {
		return nil, fmt.Errorf("descriptor %d is none of a socket", fd)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), name)
	ln, err := net.FileListener(f) // has a descriptor of its own
	return ln, errors.Join(err, f.Close())
}
