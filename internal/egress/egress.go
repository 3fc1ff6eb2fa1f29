// Package egress is the one way out of a server's process. Every connection that it
// opens is dialed by a function of this package, and a test keeps other dialers out of
// the code. So a copy of a production server, which must not speak to what the
// production server speaks to, can be shut in: Quarantine.
//
// The scripts that an agent runs are other processes, and not bound by it.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
)

// DialFunc opens a connection.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// ErrQuarantined says that the process must not connect there.
var ErrQuarantined = errors.New("this server is a test instance in quarantine, which connects to its own host only")

// rules are what a quarantined process may connect to besides its own host.
type rules struct {
	hosts    map[string]bool // by name, folded
	prefixes []netip.Prefix
}

var quarantine atomic.Pointer[rules] //nolint:gochecknoglobals // a guard of the whole process is one that no part can go around

// Quarantine lets this process connect to its own host, over loopback and unix sockets,
// and to what allow lists: names of hosts, addresses, and networks such as 10.0.0.0/8.
// No other name is looked up. Nothing lifts it but the end of the process.
func Quarantine(allow ...string) error {
	r, err := parse(allow)
	if err != nil {
		return err
	}
	quarantine.Store(r)
	return nil
}

// Quarantined reports whether Quarantine was called.
func Quarantined() bool { return quarantine.Load() != nil }

func parse(allow []string) (*rules, error) {
	r := &rules{hosts: map[string]bool{}}
	for _, one := range allow {
		if one == "" {
			return nil, errors.New("an allowed host is empty; name a host, an address or a network")
		}
		if p, err := netip.ParsePrefix(one); err == nil {
			r.prefixes = append(r.prefixes, p.Masked())
		} else if a, err := netip.ParseAddr(one); err == nil {
			a = a.Unmap().WithZone("")
			r.prefixes = append(r.prefixes, netip.PrefixFrom(a, a.BitLen()))
		} else if strings.ContainsAny(one, "/: ") {
			return nil, fmt.Errorf("the allowed host %q is no name, no address and no network such as 10.0.0.0/8; it has no port", one)
		} else {
			r.hosts[strings.ToLower(one)] = true
		}
	}
	return r, nil
}

// named reports whether a host may be connected to whatever address it has, and
// whether its name may be looked up.
func (r *rules) named(host string) (free, lookup bool) {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if r.hosts[name] {
		return true, true
	}
	_, err := netip.ParseAddr(host)
	return false, err == nil || name == "localhost" || name == ""
}

func (r *rules) allows(at netip.Addr) bool {
	at = at.Unmap().WithZone("")
	if at.IsLoopback() {
		return true
	}
	for _, p := range r.prefixes {
		if p.Contains(at) {
			return true
		}
	}
	return false
}

func local(network string) bool { return strings.HasPrefix(network, "unix") }

// Dialer gives a dialer's function within the rules of the process as they are when it
// is called. The dialer's own Control is asked too; ControlContext must not be set.
func Dialer(d net.Dialer) DialFunc {
	own := d.Control
	bound := d
	bound.Control = func(network, address string, c syscall.RawConn) error {
		if r := quarantine.Load(); r != nil && !local(network) {
			at, err := netip.ParseAddrPort(address)
			if err != nil || !r.allows(at.Addr()) {
				return ErrQuarantined
			}
		}
		if own == nil {
			return nil
		}
		return own(network, address, c)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		r := quarantine.Load()
		if r == nil || local(network) {
			return d.DialContext(ctx, network, address)
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		free, lookup := r.named(host)
		switch {
		case free:
			return d.DialContext(ctx, network, address)
		case !lookup:
			// To ask for its address would be to tell somebody.
			return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%w, and not to %s", ErrQuarantined, host)}
		}
		return bound.DialContext(ctx, network, address)
	}
}

// Proxy is http.ProxyFromEnvironment, but a process in quarantine uses none: what is
// behind a proxy on its own host is elsewhere.
func Proxy(r *http.Request) (*url.URL, error) {
	if Quarantined() {
		return nil, nil //nolint:nilnil // as http.Transport asks for
	}
	return http.ProxyFromEnvironment(r)
}

// Client makes an HTTP client with the usual settings.
func Client() *http.Client {
	t := &http.Transport{Proxy: Proxy, DialContext: Dialer(net.Dialer{}), ForceAttemptHTTP2: true}
	return &http.Client{Transport: t}
}
