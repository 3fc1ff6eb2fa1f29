package db

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/takodeploy/tako/internal/fault"
)

// Endpoint is where a PostgreSQL server is reached: a host and a port, or the directory of
// a socket and its number.
type Endpoint struct {
	Host string
	Port uint16
}

// Local reports whether it is a socket of this host.
func (e Endpoint) Local() bool { return strings.HasPrefix(e.Host, "/") }

// String is HOST:PORT.
func (e Endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// isPostgres reports whether a database's URL is one of PostgreSQL.
func isPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// Endpoints are those that a database's URL leads to, in the order in which they are tried,
// with what the environment says where the URL does not: PostgreSQL's own rules, by which a
// URL may name several hosts. SQLite has none.
func Endpoints(url string) ([]Endpoint, error) {
	if !isPostgres(url) {
		return nil, nil
	}
	return endpoints(url, nil)
}

// foreignKeys are what may stand in a URL that somebody else than the server's own
// administrator has given: nothing that is secret, reads a file or runs something.
func foreignKeys() []string {
	return []string{"host", "port", "user", "dbname", "sslmode", "search_path", "connect_timeout", "application_name", "target_session_attrs"}
}

// ForeignEndpoints is Endpoints of a PostgreSQL URL that comes from far away. It refuses one
// that has anything in it beyond host, port, user, database and a few harmless parameters.
// Its error does not quote the URL.
func ForeignEndpoints(url string) ([]Endpoint, error) {
	if !isPostgres(url) {
		return nil, fault.New(fault.Invalid, "It is no URL of a PostgreSQL database.")
	}
	return endpoints(url, foreignKeys())
}

func endpoints(url string, allowed []string) ([]Endpoint, error) {
	c, err := pgconn.ParseConfigWithOptions(url, pgconn.ParseConfigOptions{ConnStringAllowedKeys: allowed})
	if err != nil {
		// The parser's own error may quote the URL.
		text := "The URL of the database cannot be read; use postgres://USER@HOST:PORT/NAME."
		if allowed != nil {
			text = "The URL of the database cannot be read, or has something in it that it may not have here. Beside USER@HOST:PORT/NAME it may have the parameters " + strings.Join(allowed, ", ") + "."
		}
		return nil, fault.New(fault.Invalid, "%s", text)
	}
	all := []Endpoint{{c.Host, c.Port}}
	for _, f := range c.Fallbacks { // each host is in it once more for each kind of encryption
		if e := (Endpoint{f.Host, f.Port}); !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all, nil
}
