package db

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// object is a table with its columns, or an index, in words that are the same
// whenever the schema is the same.
type object struct {
	name       string // "table documents", "index documents_by_name"
	definition string
}

// schema describes everything that the migrations made, sorted by name.
func (t *Tx) schema(ctx context.Context) ([]object, error) {
	columns, indexes := sqliteColumns, sqliteIndexes
	if t.d.dialect == Postgres {
		columns, indexes = postgresColumns, postgresIndexes
	}
	tables := map[string][]string{}
	err := t.each(ctx, columns, func(name, column string) { tables[name] = append(tables[name], column) })
	if err != nil {
		return nil, err
	}
	var out []object
	for name, cols := range tables {
		slices.Sort(cols)
		out = append(out, object{"table " + name, strings.Join(cols, ", ")})
	}
	err = t.each(ctx, indexes, func(name, definition string) {
		out = append(out, object{"index " + name, strings.Join(strings.Fields(definition), " ")})
	})
	slices.SortFunc(out, func(a, b object) int { return cmp.Compare(a.name, b.name) })
	return out, err
}

func (t *Tx) each(ctx context.Context, query string, fn func(a, b string)) error {
	rows, err := t.Query(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err below tells
	for rows.Next() {
		var a, b string
		if err := rows.Scan(&a, &b); err != nil {
			return err
		}
		fn(a, b)
	}
	return rows.Err()
}

// The names of tables and of what stands in them. Indexes that belong to a key
// have generated names on SQLite; the key itself is in the columns.
const (
	sqliteColumns = `SELECT m.name, c.name || ' ' || upper(c.type) || CASE WHEN c."notnull" THEN ' NOT NULL' ELSE '' END
			|| COALESCE(' DEFAULT ' || c.dflt_value, '') || CASE WHEN c.pk > 0 THEN ' KEY ' || c.pk ELSE '' END
		FROM sqlite_schema m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\'`
	sqliteIndexes = `SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL`

	postgresColumns = `SELECT c.relname::text, a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
			|| COALESCE(' COLLATE ' || NULLIF(l.collname, 'default'), '') || COALESCE(' DEFAULT ' || pg_get_expr(f.adbin, f.adrelid), '')
			|| CASE WHEN a.attidentity <> '' THEN ' IDENTITY' ELSE '' END
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
		LEFT JOIN pg_collation l ON l.oid = a.attcollation
		WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace`
	postgresIndexes = `SELECT c.relname::text, replace(pg_get_indexdef(i.indexrelid), quote_ident(n.nspname) || '.', '') || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class r ON r.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE r.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace`
)

func fingerprint(objects []object) string {
	h := sha256.New()
	for _, o := range objects {
		_, _ = fmt.Fprintf(h, "%s: %s\n", o.name, o.definition) // a hash does not fail
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Difference is a table or index that is not as the migrations left it.
type Difference struct {
	Object string // "index documents_by_name"
	Want   string // "" when it should not be there
	Got    string // "" when it is missing
}

// Drift lists how the schema differs from what the migrations left: what was
// changed by hand. A missing index can be made again from Want.
func Drift(ctx context.Context, d *DB) ([]Difference, error) {
	var out []Difference
	err := d.Read(ctx, func(t *Tx) error {
		out = nil
		if _, err := t.meta(ctx); err != nil {
			return err
		}
		want := map[string]string{}
		if err := t.each(ctx, `SELECT object, definition FROM tako_schema`, func(name, def string) { want[name] = def }); err != nil {
			return err
		}
		got, err := t.schema(ctx)
		if err != nil {
			return err
		}
		for _, o := range got {
			if want[o.name] != o.definition {
				out = append(out, Difference{o.name, want[o.name], o.definition})
			}
			delete(want, o.name)
		}
		for name, def := range want {
			out = append(out, Difference{Object: name, Want: def})
		}
		return nil
	})
	slices.SortFunc(out, func(a, b Difference) int { return cmp.Compare(a.Object, b.Object) })
	return out, err
}
