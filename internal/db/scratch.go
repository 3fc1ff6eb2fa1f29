package db

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/takodeploy/tako/internal/fault"
)

// scratchPrefix names databases that are thrown away.
const scratchPrefix = "tako_scratch_"

// Scratch is a database beside another one on its PostgreSQL server, which somebody works in
// for a while.
type Scratch struct {
	// URL is where it is.
	URL  string
	d    *DB
	name string
}

// emptyTemplate is what an empty database is a copy of.
const emptyTemplate = "template0 ENCODING 'UTF8'"

// Scratch makes an empty database on the same PostgreSQL server, to be dropped
// when it has served. Those that a killed process left are dropped too. A role
// that may not create databases gets a fault Forbidden.
func (d *DB) Scratch(ctx context.Context) (s *Scratch, err error) {
	err = d.scratching(ctx, func(conn *pgx.Conn) error {
		s, err = d.makeScratch(ctx, conn, emptyTemplate)
		return err
	})
	return s, err
}

// ScratchLike is Scratch, but makes a copy of the database that somebody kept under a label,
// by copying its files, if there is one that can be copied. full says that it did.
func (d *DB) ScratchLike(ctx context.Context, label string) (s *Scratch, full bool, err error) {
	err = d.scratching(ctx, func(conn *pgx.Conn) error {
		s, err = d.copyKept(ctx, conn, label)
		full = s != nil
		if full || ctx.Err() != nil || fault.Is(err, fault.Unavailable) {
			return err
		}
		if err != nil {
			d.log.DebugContext(ctx, "a database that was kept could not be copied", "database", d.url, "label", label, "err", err)
		}
		s, err = d.makeScratch(ctx, conn, emptyTemplate)
		return err
	})
	return s, full, err
}

// copyKept copies the database that was kept under a label; nil says that there is none.
func (d *DB) copyKept(ctx context.Context, conn *pgx.Conn, label string) (*Scratch, error) {
	kept, err := scratches(ctx, conn, label)
	if err != nil || len(kept) == 0 {
		return nil, d.translate(err)
	}
	from := pgx.Identifier{kept[0]}.Sanitize()
	var chooses bool
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int >= 150000`).Scan(&chooses); err != nil {
		return nil, d.translate(err)
	}
	if chooses {
		// Else all of it would be in the server's log as well, for which others wait when
		// they commit. Earlier versions know no other way.
		from += " STRATEGY FILE_COPY"
	}
	return d.makeScratch(ctx, conn, from)
}

// scratching runs fn with a connection that may make databases, once those are away that
// nobody needs any more.
func (d *DB) scratching(ctx context.Context, fn func(conn *pgx.Conn) error) error {
	if d.dialect != Postgres {
		return fault.New(fault.Unsupported, "SQLite has no server.")
	}
	return d.apart(ctx, func(conn *pgx.Conn) error {
		var may bool
		if err := conn.QueryRow(ctx, `SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user`).Scan(&may); err != nil {
			return err
		}
		if !may {
			return fault.New(fault.Forbidden, "The role %s may not create databases, so the backup cannot be restored for a test; ALTER ROLE %s CREATEDB allows it.", d.pgConfig.User, d.pgConfig.User)
		}
		if err := dropAbandoned(ctx, conn); err != nil {
			return err
		}
		return fn(conn)
	})
}

// apart runs fn with a connection of its own, and says what its errors mean.
func (d *DB) apart(ctx context.Context, fn func(conn *pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, d.pgConfig)
	if err != nil {
		return d.translate(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has served
	return d.translate(fn(conn))
}

func (d *DB) makeScratch(ctx context.Context, conn *pgx.Conn, like string) (*Scratch, error) {
	u, err := url.Parse(d.dsn)
	if err != nil {
		return nil, errors.New("the database URL cannot be read")
	}
	s := &Scratch{d: d, name: scratchPrefix + strconv.FormatInt(time.Now().Unix(), 10) + "_" + strings.ToLower(rand.Text()[:8])}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+s.name+" TEMPLATE "+like); err != nil {
		return nil, fmt.Errorf("create a database to restore into: %w", d.translate(err))
	}
	// What is done in there is to leave the processors to others.
	for _, setting := range []string{"max_parallel_workers_per_gather = 0", "max_parallel_maintenance_workers = 0", "jit = off"} {
		if _, err := conn.Exec(ctx, "ALTER DATABASE "+s.name+" SET "+setting); err != nil {
			return nil, errors.Join(d.translate(err), s.Drop(ctx))
		}
	}
	u.Path = "/" + s.name
	s.URL = u.String()
	return s, nil
}

// Drop drops it, also if ctx has ended.
func (s *Scratch) Drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return s.d.apart(ctx, func(conn *pgx.Conn) error { return drop(ctx, conn, s.name) })
}

// Keep keeps it as it is under a label, for ScratchLike: nobody can connect to it any more.
// It stays until DropKept, or for an hour or longer: until the next one is made.
func (s *Scratch) Keep(ctx context.Context, label string) error {
	return s.d.apart(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "ALTER DATABASE "+s.name+" ALLOW_CONNECTIONS false"); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "COMMENT ON DATABASE "+s.name+" IS '"+strings.ReplaceAll(label, "'", "''")+"'")
		return err
	})
}

// DropKept drops the databases that were kept under a label, if there are any. On SQLite
// there are none.
func (d *DB) DropKept(ctx context.Context, label string) error {
	if d.dialect != Postgres {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return d.apart(ctx, func(conn *pgx.Conn) error {
		kept, err := scratches(ctx, conn, label)
		for _, name := range kept {
			err = errors.Join(err, drop(ctx, conn, name))
		}
		return err
	})
}

func drop(ctx context.Context, conn *pgx.Conn, name string) error {
	_, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	return err
}

// scratches are the names of our role's scratch databases to which nobody is connected, the
// latest first: those that are kept under a label, or with "" all.
func scratches(ctx context.Context, conn *pgx.Conn, label string) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT d.datname::text FROM pg_database d WHERE d.datname LIKE 'tako\_scratch\_%' AND pg_get_userbyid(d.datdba) = current_user
		AND ($1 = '' OR shobj_description(d.oid, 'pg_database') = $1)
		AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datid = d.oid) ORDER BY 1 DESC`, label)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// dropAbandoned drops the scratch databases of processes that were killed: those
// to which nobody is connected, an hour after they were made. Their names say when.
func dropAbandoned(ctx context.Context, conn *pgx.Conn) error {
	names, err := scratches(ctx, conn, "")
	if err != nil {
		return err
	}
	for _, name := range names {
		made, _, _ := strings.Cut(strings.TrimPrefix(name, scratchPrefix), "_")
		if at, err := strconv.ParseInt(made, 10, 64); err != nil || time.Since(time.Unix(at, 0)) < time.Hour {
			continue
		}
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()); err != nil {
			return err
		}
	}
	return nil
}
