// Package failpoint lets a test make a real process die, stall or fail at a named
// place of its code, which no random kill hits within microseconds.
//
// It is compiled into every binary and steered by two environment variables:
//
//	TAKO_FAILPOINT=exit-renamed:kill,runner-locked:stall=2s,cancel-written:err
//	TAKO_FAILPOINT_ONCE=<dir>   each edge acts once, over all processes that share dir
//
// Without the first, a Hit costs one load.
package failpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The environment variables that steer it.
const (
	Env     = "TAKO_FAILPOINT"      // edge:kill|stall[=duration]|err, comma between several
	EnvOnce = "TAKO_FAILPOINT_ONCE" // a directory in which a hit leaves a file named as its edge
)

// DefaultStall is how long "stall" without a duration waits.
const DefaultStall = time.Minute

// ErrInjected is what Hit returns for an "err" edge.
var ErrInjected = errors.New("injected by a failpoint")

type mode uint8

const (
	kill mode = iota
	stall
	fail
)

type action struct {
	mode  mode
	stall time.Duration
}

type plan struct {
	edges map[string]action
	once  string
	err   error
}

// current is read from the environment at the first hit; processes do not change
// their minds afterwards.
var current = sync.OnceValue(func() *plan { //nolint:gochecknoglobals // the environment is global too, and Hit must be free
	spec := os.Getenv(Env)
	if spec == "" {
		return nil
	}
	edges, err := parse(spec)
	return &plan{edges: edges, once: os.Getenv(EnvOnce), err: err}
})

// Hit marks an edge: a place at which a crash matters. It returns nil, unless the
// environment names the edge: then the process kills itself, waits, or gets an
// error that wraps ErrInjected. With a TAKO_FAILPOINT that cannot be read every
// edge returns an error, so that a test with a typing error does not pass.
func Hit(edge string) error {
	p := current()
	if p == nil {
		return nil
	}
	return p.hit(edge)
}

func (p *plan) hit(edge string) error {
	if p.err != nil {
		return p.err
	}
	a, ok := p.edges[edge]
	if !ok {
		return nil
	}
	if p.once != "" {
		f, err := os.OpenFile(filepath.Join(p.once, edge), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("failpoint %s: %w", edge, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("failpoint %s: %w", edge, err)
		}
	}
	switch a.mode {
	case kill:
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		if err != nil {
			return fmt.Errorf("failpoint %s: kill: %w", edge, err)
		}
		select {} // the signal is on its way
	case stall:
		time.Sleep(a.stall)
	case fail:
		return fmt.Errorf("%s: %w", edge, ErrInjected)
	}
	return nil
}

func parse(spec string) (map[string]action, error) {
	edges := make(map[string]action)
	for part := range strings.SplitSeq(spec, ",") {
		edge, what, ok := strings.Cut(strings.TrimSpace(part), ":")
		if !ok || edge == "" || strings.ContainsAny(edge, `/\`) {
			return nil, fmt.Errorf("%s: %q is not edge:kill|stall|err", Env, part)
		}
		name, arg, hasArg := strings.Cut(what, "=")
		var a action
		switch {
		case name == "kill" && !hasArg:
			a.mode = kill
		case name == "err" && !hasArg:
			a.mode = fail
		case name == "stall":
			a.mode, a.stall = stall, DefaultStall
			if hasArg {
				d, err := time.ParseDuration(arg)
				if err != nil || d <= 0 {
					return nil, fmt.Errorf("%s: %q: the stall %q is no positive duration", Env, part, arg)
				}
				a.stall = d
			}
		default:
			return nil, fmt.Errorf("%s: %q: %q is none of kill, stall, stall=2s, err", Env, part, what)
		}
		edges[edge] = a
	}
	return edges, nil
}
