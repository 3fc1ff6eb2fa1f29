package db

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Deviation is one object of the schema that is not as this binary's migrations make
// it: a table, a column, an index, a constraint or a trigger.
type Deviation struct {
	Object string // "column documents.body"
	Want   string // "" when it should not be there
	Got    string // "" when it is missing
}

// Kind is the object's first word: table, column, index, constraint, trigger.
func (d Deviation) Kind() string {
	kind, _, _ := strings.Cut(d.Object, " ")
	return kind
}

// name is the object without its kind.
func (d Deviation) name() string {
	_, name, _ := strings.Cut(d.Object, " ")
	return name
}

// Mendable says that Mend can do something about it: an index that is missing, or
// left invalid by an attempt to build it that was cut short.
func (d Deviation) Mendable() bool {
	return d.Kind() == "index" && d.Want != "" && (d.Got == "" || d.Got == d.Want+invalid) && !strings.HasSuffix(d.Object, "_pkey")
}

// invalid is what the description of an index ends with that PostgreSQL does not use.
const invalid = " INVALID"

// Inspection is what Inspect found.
type Inspection struct {
	Deviations []Deviation
	// Pending are the migrations of this binary that the database has not got, and
	// Foreign those whose file was another one; either lets Deviations say how the
	// schema differs from what the database itself recorded.
	Pending, Foreign []string
	// Recorded is set when the comparison is with what the database recorded, for
	// another reason too: the level is another, or this role may make no schema.
	Recorded bool
	// Fingerprint is that of the schema as it is.
	Fingerprint string
}

// Inspect compares the schema of a database with the one that this binary's
// migrations make: on a scratch file, or on PostgreSQL in a transaction that is
// rolled back.
func Inspect(ctx context.Context, d *DB) (Inspection, error) {
	var in Inspection
	all, err := loadMigrations(embedded, "migrations")
	if err != nil {
		return in, err
	}
	got, recorded := map[string]string{}, map[string]string{}
	err = d.Snapshot(ctx, func(t *Tx) error {
		in = Inspection{}
		clear(recorded)
		m, err := t.meta(ctx)
		if err != nil {
			return err
		}
		in.Recorded = m.SchemaLevel != d.levels.Level
		sums := map[string]string{}
		if err := t.each(ctx, `SELECT id, sha256 FROM tako_migration WHERE state = 'done'`, func(id, sum string) { sums[id] = sum }); err != nil {
			return err
		}
		for _, m := range all {
			switch sum, done := sums[m.id]; {
			case !done:
				in.Pending = append(in.Pending, m.id)
			case sum != m.sum:
				in.Foreign = append(in.Foreign, m.id)
			}
		}
		if got, err = t.anatomy(ctx); err != nil {
			return err
		}
		objects, err := t.schema(ctx)
		if err != nil {
			return err
		}
		in.Fingerprint = fingerprint(objects)
		return t.each(ctx, `SELECT object, definition FROM tako_schema`, func(name, def string) { recorded[name] = def })
	})
	if err != nil {
		return in, err
	}
	want := map[string]string{}
	if in.Recorded = in.Recorded || len(in.Pending)+len(in.Foreign) > 0; !in.Recorded {
		if want, err = d.expected(ctx, all); err != nil {
			if ctx.Err() != nil {
				return in, err
			}
			d.log.DebugContext(ctx, "the schema is compared with what the database recorded", "database", d.url, "error", err)
			in.Recorded = true
		}
	}
	if in.Recorded {
		// It knows of neither constraints nor triggers.
		for name := range got {
			if strings.HasPrefix(name, "constraint ") || strings.HasPrefix(name, "trigger ") {
				delete(got, name)
			}
		}
		want = dissect(recorded)
	}
	in.Deviations = deviations(want, got)
	return in, nil
}

// dissect turns tables with all their columns into single objects.
func dissect(objects map[string]string) map[string]string {
	out := map[string]string{}
	for name, definition := range objects {
		table, isTable := strings.CutPrefix(name, "table ")
		if !isTable {
			out[name] = definition
			continue
		}
		out[name] = "a table"
		for column := range strings.SplitSeq(definition, ", ") {
			column, rest, _ := strings.Cut(column, " ")
			out["column "+table+"."+column] = rest
		}
	}
	return out
}

func deviations(want, got map[string]string) []Deviation {
	var out []Deviation
	for name, w := range want {
		if g := got[name]; g != w {
			out = append(out, Deviation{name, w, g})
		}
	}
	for name, g := range got {
		if _, known := want[name]; !known {
			out = append(out, Deviation{Object: name, Got: g})
		}
	}
	// What goes with a table that is missing, or is not ours, is no news.
	whole := map[string]bool{}
	for _, d := range out {
		if d.Kind() == "table" && (d.Want == "" || d.Got == "") {
			whole[d.name()] = true
		}
	}
	out = slices.DeleteFunc(out, func(d Deviation) bool {
		table, _, dotted := strings.Cut(d.name(), ".")
		return dotted && whole[table] || d.Kind() == "index" && whole[tableOf(d.Want+d.Got)]
	})
	slices.SortFunc(out, func(a, b Deviation) int { return cmp.Compare(a.Object, b.Object) })
	return out
}

// tableOf is the table of an index, by its definition.
func tableOf(definition string) string {
	words := strings.Fields(definition)
	for i, w := range words {
		if w == "ON" && i+1 < len(words) {
			return strings.Trim(words[i+1], `"`)
		}
	}
	return ""
}

const (
	sqliteRest = `SELECT 'trigger ' || tbl_name || '.' || name, sql FROM sqlite_schema WHERE type = 'trigger'
		UNION ALL SELECT 'constraint ' || m.name || '.' || f."from", 'FOREIGN KEY (' || f."from" || ') REFERENCES ' || f."table" || ' (' || COALESCE(f."to", '') || ')'
		FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`
	postgresRest = `SELECT 'trigger ' || r.relname || '.' || t.tgname, pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' ' || t.tgenabled::text END
		FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal AND r.relnamespace = current_schema()::regnamespace
		UNION ALL SELECT 'constraint ' || r.relname || '.' || c.conname, pg_get_constraintdef(c.oid)
		FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid WHERE c.contype IN ('c', 'f', 'p', 'u', 'x') AND r.relnamespace = current_schema()::regnamespace
		UNION ALL SELECT 'table ' || relname, CASE relpersistence WHEN 'u' THEN 'an UNLOGGED table, which a crash empties' ELSE 'a table' END
		FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace`
)

// anatomy describes the schema object by object.
func (t *Tx) anatomy(ctx context.Context) (map[string]string, error) {
	objects, err := t.schema(ctx)
	if err != nil {
		return nil, err
	}
	whole := map[string]string{}
	for _, o := range objects {
		whole[o.name] = o.definition
	}
	out := dissect(whole)
	rest := sqliteRest
	if t.d.dialect == Postgres {
		rest = postgresRest
	}
	err = t.each(ctx, rest, func(name, definition string) { out[name] = strings.Join(strings.Fields(definition), " ") })
	return out, err
}

// errUndo rolls back what was only made to be looked at.
var errUndo = errors.New("only made to be looked at")

// expected is the anatomy that the migrations make.
func (d *DB) expected(ctx context.Context, all []migration) (want map[string]string, err error) {
	if d.dialect == SQLite {
		return expectedSQLite(ctx, all, d.levels)
	}
	err = d.writeSchema(ctx, func(t *Tx) error {
		scratch := strings.ToLower("tako_expected_" + rand.Text()[:8])
		make := "CREATE SCHEMA " + scratch + "; SET LOCAL search_path TO " + scratch
		if err := rawPg(t.conn, func(c *pgconn.PgConn) error { _, _, err := simple(ctx, c, make); return err }); err != nil {
			return err
		}
		if err := t.script(ctx, runnerTables()); err != nil {
			return err
		}
		for _, m := range all {
			if err := t.script(ctx, statements(m.sql)); err != nil {
				return fmt.Errorf("migration %s: %w", m.id, err)
			}
		}
		if want, err = t.anatomy(ctx); err != nil {
			return err
		}
		return errUndo
	})
	if errors.Is(err, errUndo) {
		err = nil
	}
	return want, err
}

func expectedSQLite(ctx context.Context, all []migration, levels Levels) (want map[string]string, err error) {
	dir, err := os.MkdirTemp("", "tako-schema-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := Open(ctx, "sqlite:"+filepath.Join(dir, "tako.db"), Options{Readers: 1, Levels: levels})
	if err != nil {
		return nil, err
	}
	err = d.migrate(ctx, all, levels, MigrateOptions{})
	if err == nil {
		err = d.Read(ctx, func(t *Tx) error {
			want, err = t.anatomy(ctx)
			return err
		})
	}
	return want, errors.Join(err, d.Close())
}

// Mend makes an index that is missing or invalid again, while others go on: on
// PostgreSQL without keeping writers out.
func Mend(ctx context.Context, d *DB, dev Deviation) error {
	if !dev.Mendable() {
		return fmt.Errorf("%s cannot be made again without a look at it", dev.Object)
	}
	if d.dialect == SQLite {
		return d.writeSchema(ctx, func(t *Tx) error {
			_, err := t.Exec(ctx, dev.Want)
			return err
		})
	}
	conn, err := d.writer.Conn(ctx)
	if err != nil {
		return d.translate(err)
	}
	defer func() { _ = conn.Close() }() // back into the pool
	run := func(s string) error {
		return rawPg(conn, func(c *pgconn.PgConn) error {
			_, _, err := simple(ctx, c, s)
			return d.translate(err)
		})
	}
	name := `"` + strings.ReplaceAll(dev.name(), `"`, `""`) + `"`
	if err := run("SET lock_timeout = 0; SET statement_timeout = 0"); err != nil {
		return err
	}
	if dev.Got != "" {
		err = run("DROP INDEX CONCURRENTLY " + name)
	}
	if err == nil {
		head, rest, _ := strings.Cut(dev.Want, " INDEX ")
		if err = run(head + " INDEX CONCURRENTLY " + rest); err != nil {
			// What it left is of no use to anybody.
			err = errors.Join(err, run("DROP INDEX CONCURRENTLY IF EXISTS "+name))
		}
	}
	return errors.Join(err, run("RESET lock_timeout; RESET statement_timeout"))
}
