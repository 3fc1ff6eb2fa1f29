package db

import (
	"context"
	"fmt"
	"time"
)

const (
	// statisticsEvery is how often SQLite looks whether its statistics still fit.
	statisticsEvery = time.Hour
	// statisticsFrom is the size in bytes from which statistics are worth
	// having. Of a smaller database they tell that it has hardly any rows, and a
	// plan made for these would read all of them when there are many.
	statisticsFrom = 16 << 20
	// analysisLimit is how many rows of an index are looked at: enough to tell
	// one that picks a project from one that picks everything.
	analysisLimit = 400
)

// KeepStatistics keeps what SQLite's planner knows of the tables up to date,
// until ctx ends. Without it the planner takes any index for as good as another,
// and finds the few releases of a project by reading those of the space.
// PostgreSQL sees to its statistics itself.
func (d *DB) KeepStatistics(ctx context.Context) error {
	if d.dialect == Postgres {
		return nil
	}
	tick := time.NewTicker(statisticsEvery)
	defer tick.Stop()
	for {
		if err := d.refreshStatistics(ctx, statisticsFrom); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "the database's statistics could not be refreshed", "database", d.url, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// refreshStatistics analyses the tables that have no statistics or have grown
// much since, in a database of at least so many bytes. It takes milliseconds.
func (d *DB) refreshStatistics(ctx context.Context, from int64) error {
	var size int64
	err := d.WriteEngine(ctx, func(tx *Tx) error {
		if err := tx.QueryRow(ctx, `SELECT p.page_count * s.page_size FROM pragma_page_count() p, pragma_page_size() s`).Scan(&size); err != nil {
			return fmt.Errorf("read the database's size: %w", err)
		}
		if size < from {
			return nil
		}
		const all = 0x10002 // tables without statistics too, that were not queried here
		for _, pragma := range []string{fmt.Sprintf("PRAGMA analysis_limit = %d", analysisLimit), fmt.Sprintf("PRAGMA optimize = %d", all)} {
			if _, err := tx.Exec(ctx, pragma); err != nil {
				return fmt.Errorf("%s: %w", pragma, err)
			}
		}
		return nil
	})
	if err != nil || size < from {
		return err
	}
	// A connection reads the statistics when it is opened: those that rest are
	// closed now, those at work when their time is over.
	d.reader.SetMaxIdleConns(0)
	d.reader.SetMaxIdleConns(d.readers)
	return nil
}
