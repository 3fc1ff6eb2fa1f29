package db

import (
	"context"
	"fmt"
)

// Identity is a column whose numbers the database gives out itself.
type Identity struct {
	Table, Column string
	// Last is the number given out last, Largest the largest that a row has; both
	// are 0 where there is none.
	Last, Largest int64
}

// Identities lists the columns whose numbers the database gives out itself.
func (t *Tx) Identities(ctx context.Context) ([]Identity, error) {
	query := `SELECT m.name, c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c ON c.pk = 1 WHERE m.type = 'table' AND upper(m.sql) LIKE '%AUTOINCREMENT%' ORDER BY m.name`
	if t.d.dialect == Postgres {
		query = `SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> ''
			WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace ORDER BY c.relname`
	}
	var all []Identity
	err := t.each(ctx, query, func(table, column string) { all = append(all, Identity{Table: table, Column: column}) })
	if err != nil {
		return nil, err
	}
	for i := range all {
		one := &all[i]
		last := `SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = '` + one.Table + `'), 0)`
		if t.d.dialect == Postgres {
			var sequence string
			if err := t.QueryRow(ctx, `SELECT pg_get_serial_sequence(quote_ident(?), ?)`, one.Table, one.Column).Scan(&sequence); err != nil {
				return nil, fmt.Errorf("find the sequence of %s: %w", one.Table, err)
			}
			last = `SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM ` + sequence
		}
		if err := t.QueryRow(ctx, last).Scan(&one.Last); err != nil {
			return nil, fmt.Errorf("read the last number of %s: %w", one.Table, err)
		}
		if err := t.QueryRow(ctx, `SELECT COALESCE(max(`+one.Column+`), 0) FROM `+one.Table).Scan(&one.Largest); err != nil {
			return nil, fmt.Errorf("read the largest number of %s: %w", one.Table, err)
		}
	}
	return all, nil
}

// SetIdentity has the database give out the numbers after last; a number of 0 sets
// nothing. On PostgreSQL it is not undone with the transaction.
func (t *Tx) SetIdentity(ctx context.Context, one Identity, last int64) error {
	if last <= 0 {
		return nil
	}
	if t.d.dialect == Postgres {
		var set int64
		return t.QueryRow(ctx, `SELECT setval(pg_get_serial_sequence(quote_ident(?), ?), ?)`, one.Table, one.Column, last).Scan(&set)
	}
	n, err := t.Exec(ctx, `UPDATE sqlite_sequence SET seq = ? WHERE name = ?`, last, one.Table)
	if err == nil && n == 0 {
		_, err = t.Exec(ctx, `INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)`, one.Table, last)
	}
	return err
}
