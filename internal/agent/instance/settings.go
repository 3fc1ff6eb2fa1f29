package instance

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

// DefaultName is the instance that commands mean unless they name one.
const DefaultName = "default"

// DefaultPort is where an instance listens unless it is told otherwise.
const DefaultPort = 10933

// MaxConnections is how many connections an instance has to a server that it polls, at
// most: what a server takes of one agent.
const MaxConnections = 64

const (
	maxName    = 64
	maxServers = 100
)

// Settings are what an instance was configured with.
type Settings struct {
	Name string
	// Home is the directory that the instance works in, absolute.
	Home string
	// Applications is where packages are installed to, absolute; "" is Applications
	// below Home.
	Applications string `json:",omitempty"`
	// NoListen keeps servers from dialling this instance.
	NoListen bool
	// ListenAddress is the IP address to listen on; "" is every one.
	ListenAddress string `json:",omitempty"`
	Port          int
	// Connections are how many are made to each server that is polled; 0 chooses.
	Connections int `json:",omitempty"`
	// Proxy is the HTTP proxy through which polled servers are reached, as a URL that
	// may hold a user and a password; "" is none.
	Proxy   string   `json:",omitempty"`
	Servers []Server `json:",omitempty"`
}

// Server is a server that the instance trusts.
type Server struct {
	Thumbprint halibut.Thumbprint
	// Style is StyleListening for one that dials, StylePolling for one that is polled.
	Style octopus.CommunicationStyle
	// Address is "https://host:port/" of a server that is polled.
	Address string `json:",omitempty"`
	// Subscription is by what a server knows the instance that polls it.
	Subscription halibut.Subscription `json:",omitempty"`
	// URL is where the server's API was when the instance was registered, for people.
	URL string `json:",omitempty"`
}

// CheckName reports why a name cannot be an instance's.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName && strings.Trim(name[:1], "-.") != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
	if !ok {
		return fault.InvalidField("Name", "The instance name %q must have 1 to %d letters, digits, '-', '_' and '.', and begin with a letter, a digit or '_'.", name, maxName)
	}
	return nil
}

// check reports what in the settings breaks a rule, as a hand may have edited them.
func (s *Settings) check() error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	switch {
	case !filepath.IsAbs(s.Home):
		return fault.InvalidField("Home", "Home is %q; give an absolute directory.", s.Home)
	case s.Applications != "" && !filepath.IsAbs(s.Applications):
		return fault.InvalidField("Applications", "Applications is %q; give an absolute directory.", s.Applications)
	case s.Port < 1 || s.Port > 65535:
		return fault.InvalidField("Port", "Port is %d; use a number from 1 to 65535.", s.Port)
	case s.ListenAddress != "" && net.ParseIP(s.ListenAddress) == nil:
		return fault.InvalidField("ListenAddress", "ListenAddress is %q; give an IP address of this machine, or nothing for all of them.", s.ListenAddress)
	case s.Connections < 0 || s.Connections > MaxConnections:
		return fault.InvalidField("Connections", "Connections is %d; use a number from 1 to %d, or 0 to have it chosen.", s.Connections, MaxConnections)
	case len(s.Servers) > maxServers:
		return fault.InvalidField("Servers", "There are %d servers; %d is the most.", len(s.Servers), maxServers)
	}
	if _, err := ParseProxy(s.Proxy); err != nil {
		return err
	}
	for i := range s.Servers {
		if err := s.Servers[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (v *Server) check() error {
	thumbprint, err := halibut.ParseThumbprint(string(v.Thumbprint))
	if err != nil {
		return err
	}
	v.Thumbprint = thumbprint
	switch v.Style {
	case octopus.StyleListening:
		return nil
	case octopus.StylePolling:
		if _, err := halibut.ParseAddress(v.Address, halibut.DefaultServerPort); err != nil {
			return err
		}
		v.Subscription, err = halibut.ParseSubscription(string(v.Subscription))
		return err
	default:
		return fault.InvalidField("Style", "The style %q of a server must be %s (it dials) or %s (it is polled).", v.Style, octopus.StyleListening, octopus.StylePolling)
	}
}

// ParseProxy reads the URL of an HTTP proxy; nil for "".
func ParseProxy(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		// The text is left out: it may hold a password.
		return nil, fault.InvalidField("Proxy", "The proxy must be http://host:port, with user:password@ before the host if it asks for them.")
	}
	return u, nil
}

// Trust adds a server, or takes over what is new of one that is trusted: one that
// dials is known by its thumbprint, one that is polled by its address.
func (s *Settings) Trust(v Server) {
	for i, old := range s.Servers {
		if old.Style != v.Style || v.Style == octopus.StyleListening && old.Thumbprint != v.Thumbprint || v.Style == octopus.StylePolling && old.Address != v.Address {
			continue
		}
		if v.URL == "" {
			v.URL = old.URL
		}
		s.Servers[i] = v
		return
	}
	s.Servers = append(s.Servers, v)
}

// Distrust removes all that is known of a server, and reports whether it was anything.
func (s *Settings) Distrust(thumbprint halibut.Thumbprint) bool {
	kept := s.Servers[:0]
	for _, v := range s.Servers {
		if v.Thumbprint != thumbprint {
			kept = append(kept, v)
		}
	}
	gone := len(kept) < len(s.Servers)
	s.Servers = kept
	return gone
}

// Subscription is by what a server with that thumbprint knows the instance, "" when it
// is not polled: its nodes all know it by the same.
func (s *Settings) Subscription(thumbprint halibut.Thumbprint) halibut.Subscription {
	for _, v := range s.Servers {
		if v.Style == octopus.StylePolling && v.Thumbprint == thumbprint {
			return v.Subscription
		}
	}
	return ""
}

// listens is the address to listen on, "" for none: nobody could call an instance that
// trusts no server that dials.
func (s *Settings) listens() string {
	if s.NoListen {
		return ""
	}
	for _, v := range s.Servers {
		if v.Style == octopus.StyleListening {
			return net.JoinHostPort(s.ListenAddress, strconv.Itoa(s.Port))
		}
	}
	return ""
}

// String names the server.
func (v Server) String() string {
	if v.Style == octopus.StylePolling {
		return fmt.Sprintf("%s (%s)", v.Address, v.Thumbprint)
	}
	return string(v.Thumbprint)
}
