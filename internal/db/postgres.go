package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/takodeploy/tako/internal/egress"
)

const (
	// minPostgres is the oldest server whose functions we call, as server_version_num.
	minPostgres = 140000
	// poolSize bounds the connections of a process when Options do not.
	poolSize = 20
	// connectTimeout bounds one attempt to reach the server.
	connectTimeout = 10 * time.Second
	// unacknowledged is how long the server's machine may not acknowledge what
	// it was sent.
	unacknowledged = 20 * time.Second
)

func (d *DB) openPostgres(ctx context.Context, dsn string, opt Options) error {
	d.dialect, d.url = Postgres, withoutCredentials(dsn)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The parser's own error quotes the URL.
		return fmt.Errorf("open %s: the database URL cannot be read; use postgres://USER:PASSWORD@HOST:PORT/NAME", d.url)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	config.DialFunc = pgconn.DialFunc(egress.Dialer(net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         egress.LoseAfter(unacknowledged),
	}))
	if egress.Quarantined() {
		// The dialer decides by the name, and looks it up.
		config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	for name, value := range map[string]string{
		"application_name": "tako",
		"timezone":         "UTC",
		// A process that stops in the middle of a transaction must not hold
		// its locks for ever; Write and WriteEngine set tighter limits.
		"idle_in_transaction_session_timeout": "60s",
		"statement_timeout":                   "120s",
		"tcp_user_timeout":                    "10s",
		"client_min_messages":                 "warning",
	} {
		if _, set := config.RuntimeParams[name]; !set {
			config.RuntimeParams[name] = value
		}
	}
	d.pgConfig = config
	pool := sql.OpenDB(pgConnector{stdlib.GetConnector(*config)})
	size := opt.Readers
	if size <= 0 {
		size = poolSize
	}
	pool.SetMaxOpenConns(size)
	pool.SetMaxIdleConns(size)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(time.Hour)
	d.reader, d.writer = pool, pool
	if err := d.checkPostgres(ctx); err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", d.url, err), pool.Close())
	}
	return nil
}

// withoutCredentials keeps of a URL what may stand in a message.
func withoutCredentials(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		return "the PostgreSQL database"
	}
	kept := url.URL{Scheme: "postgres", Host: u.Host, Path: u.Path}
	if host := u.Query().Get("host"); host != "" {
		kept.RawQuery = url.Values{"host": {host}}.Encode()
	}
	return kept.String()
}

// checkPostgres refuses a server on which a commit would not be one, or which
// is not the server itself.
func (d *DB) checkPostgres(ctx context.Context) error {
	conn, err := d.reader.Conn(ctx)
	if err != nil {
		return d.translate(err)
	}
	defer func() { _ = conn.Close() }() // back into the pool
	var version, fsync, syncCommit, encoding string
	var backend uint32
	err = conn.QueryRowContext(ctx, `SELECT current_setting('server_version_num'), current_setting('fsync'),
		current_setting('synchronous_commit'), current_setting('server_encoding'), pg_backend_pid()`).
		Scan(&version, &fsync, &syncCommit, &encoding, &backend)
	if err != nil {
		return d.translate(err)
	}
	var seen uint32
	if err := rawPg(conn, func(c *pgconn.PgConn) error { seen = c.PID(); return nil }); err != nil {
		return err
	}
	n, err := strconv.Atoi(version)
	switch {
	case err != nil:
		return fmt.Errorf("read the server's version %q: %w", version, err)
	case n < minPostgres:
		return fmt.Errorf("the server is PostgreSQL %d; Tako needs %d or later", n/10000, minPostgres/10000)
	case fsync == "off":
		return errors.New("the server runs with fsync=off and would lose committed data in a crash; set fsync=on in postgresql.conf")
	case syncCommit == "off":
		return errors.New("synchronous_commit is off, so the server acknowledges commits that a crash loses; set it to on, for the server, the database and the role")
	case encoding != "UTF8":
		return fmt.Errorf("the database has encoding %s; create it with ENCODING 'UTF8'", encoding)
	case seen != backend:
		return errors.New("the URL leads to a connection pooler; LISTEN and advisory locks need a connection to the PostgreSQL server itself")
	}
	return nil
}

// rawPg lends fn the connection below database/sql.
func rawPg(conn *sql.Conn, fn func(*pgconn.PgConn) error) error {
	return conn.Raw(func(c any) error {
		conn, ok := c.(*pgConn)
		if !ok {
			return errors.New("db: not a PostgreSQL connection")
		}
		return fn(conn.Conn.Conn().PgConn())
	})
}

// pgConnector opens connections that allow one set of rows at a time.
type pgConnector struct{ driver.Connector }

func (c pgConnector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	std, ok := inner.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(errors.New("db: not a PostgreSQL connection"), inner.Close())
	}
	return &pgConn{Conn: std}, nil
}

// pgConn says itself when a query comes too early. pgx would take the
// connection for a broken one then, and database/sql would wait for ever to
// close it, as long as rows are open.
type pgConn struct {
	*stdlib.Conn
	open int // rows not yet closed
}

func (c *pgConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.open > 0 {
		return nil, errRowsOpen
	}
	return c.Conn.ExecContext(ctx, query, args)
}

func (c *pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.open > 0 {
		return nil, errRowsOpen
	}
	rows, err := c.Conn.QueryContext(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return countRows(rows, &c.open, nil), nil
}

// simple sends several statements in one message and returns the first field
// of each row, and the last statement's tag.
func simple(ctx context.Context, c *pgconn.PgConn, statements string) (fields []string, tag string, err error) {
	results, err := c.Exec(ctx, statements).ReadAll()
	for _, r := range results {
		for _, row := range r.Rows {
			for _, field := range row {
				fields = append(fields, string(field))
			}
		}
		tag = r.CommandTag.String()
	}
	return fields, tag, err
}
