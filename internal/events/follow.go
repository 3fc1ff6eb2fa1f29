package events

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
)

// Position is a place in the trail, in the order in which events become visible to
// whoever follows it. The numbers of events are given out before their transactions
// end, so that on PostgreSQL a smaller one can become visible after a larger one; the
// numbers of transactions cannot, as long as one looks only at those before the oldest
// that is open. On SQLite, which writes one transaction at a time, the numbers of
// events do as they are.
type Position struct {
	Xact  int64
	Event int64
	// Floor is the number of an event below which all are known, whatever their
	// transaction: they come from another cluster, whose numbers say nothing here.
	Floor int64
}

// Behind reports whether a position comes after another one.
func (p Position) Behind(o Position) bool {
	return p.Xact > o.Xact || p.Xact == o.Xact && p.Event > o.Event
}

// After returns the positions of at most n events that follow another one, in order.
// None of them, and none between, is left out by who goes on from the last of them.
func After(ctx context.Context, tx *db.Tx, at Position, n int) ([]Position, error) {
	query := `SELECT e.xact, e.id FROM events e WHERE e.id > ? ORDER BY e.id LIMIT ?`
	args := []any{at.Event, int64(n)}
	if tx.Dialect() == db.Postgres {
		foreign, err := moved(ctx, tx, &at)
		if err != nil {
			return nil, err
		}
		settled := `e.xact < pg_snapshot_xmin(pg_current_snapshot())::text::bigint`
		if foreign {
			settled = `e.xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint`
		}
		query = `SELECT e.xact, e.id FROM events e WHERE (e.xact, e.id) > (?, ?) AND e.id > ? AND ` + settled + ` ORDER BY e.xact, e.id LIMIT ?`
		args = []any{at.Xact, at.Event, at.Floor, int64(n)}
	}
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var out []Position
	for rows.Next() {
		p := Position{Floor: at.Floor}
		if err := rows.Scan(&p.Xact, &p.Event); err != nil {
			return nil, fmt.Errorf("follow events: %w", err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// moved sees to a position from another cluster, of which this database is a copy:
// what is left of there comes first, and after it the events of here from the first.
func moved(ctx context.Context, tx *db.Tx, at *Position) (foreign bool, err error) {
	var ahead, left int64
	err = tx.QueryRow(ctx, `SELECT CASE WHEN ? >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN 1 ELSE 0 END`, at.Xact).Scan(&ahead)
	if err != nil || ahead == 0 {
		return false, err
	}
	err = tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM events e WHERE (e.xact, e.id) > (?, ?) LIMIT 1) q`, at.Xact, at.Event).Scan(&left)
	if err != nil || left > 0 {
		return true, err
	}
	var floor int64
	err = tx.QueryRow(ctx, `SELECT COALESCE(max(e.id), 0) FROM events e WHERE e.xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint`).Scan(&floor)
	*at = Position{Floor: max(floor, at.Floor)}
	return false, err
}
