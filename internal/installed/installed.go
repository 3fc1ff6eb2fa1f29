// Package installed remembers which versions have served on a database. The database is
// what a backup and another host have as well, so that it can tell which version they
// need; the journal of upgrades stays on the host where they were made.
package installed

import (
	"context"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/db"
)

// Version is one that began to serve.
type Version struct {
	// Number is the version's, "2026.5.0".
	Number string
	// Level is its schema level, see db.Levels.
	Level int
	// Node is where it began to serve, "" where that is not known.
	Node string
	// Began is when it did.
	Began time.Time
}

// Record notes that a version begins to serve on a node, unless the last one that did so
// there was the same.
func Record(ctx context.Context, d *db.DB, node, version string) error {
	err := d.WriteEngine(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO installation_history (seq, version, level, node, began)
			SELECT coalesce((SELECT max(seq) FROM installation_history), 0) + 1, ?, ?, ?, ? FROM tako_meta
			WHERE coalesce((SELECT version FROM installation_history WHERE node IN (?, '') ORDER BY seq DESC LIMIT 1), '') <> ?`,
			version, db.BinaryLevels().Level, node, db.Micros(tx.Now()), node, version)
		return err
	})
	if err != nil {
		return fmt.Errorf("note that version %s serves: %w", version, err)
	}
	return nil
}

// List reads at most take versions, the newest first, after leaving out skip of them, and
// how many there are.
func List(ctx context.Context, tx *db.Tx, skip, take int64) (all []Version, total int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM installation_history`).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count versions: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT version, level, node, began FROM installation_history ORDER BY seq DESC LIMIT ? OFFSET ?`, take, skip)
	if err != nil {
		return nil, 0, fmt.Errorf("read versions: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var v Version
		var began int64
		if err := rows.Scan(&v.Number, &v.Level, &v.Node, &began); err != nil {
			return nil, 0, fmt.Errorf("read versions: %w", err)
		}
		v.Began = db.Time(began)
		all = append(all, v)
	}
	return all, total, rows.Err()
}
