package retention

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
)

// Blobs is the store that is swept.
type Blobs interface {
	// List gives every blob in some order.
	List(ctx context.Context) iter.Seq2[blob.Info, error]
	// Delete removes a blob, unless it was put since the given time.
	Delete(ctx context.Context, h blob.Hash, unusedSince time.Time) (deleted bool, err error)
}

const (
	// grace is how long a blob stays after it was put last, and again after it was
	// first seen that no row names it.
	grace = blob.Grace
	// sweepPage is how many blobs are looked up at a time.
	sweepPage = 500
)

// namers are the tables whose column sha256 names blobs.
var namers = []string{"package", "feed_cache", "artifact", "task_log_segment"} //nolint:gochecknoglobals // a constant

// BlobTables are the tables whose column sha256 names blobs.
func BlobTables() []string { return slices.Clone(namers) }

// Sweep deletes the blobs that no row names, and says how many and of how many bytes.
//
// A blob is there before its row, so one without may be about to get it. Two things
// keep it: whoever writes the row does so only soon after the blob was put
// (blob.Info.Fresh), and Sweep leaves alone what was put within twice that time,
// which the store checks once more, with nobody putting, in the moment that it
// deletes. A blob whose last row went may still be read, or be in a backup's list:
// it is noted as an orphan, and deleted by a sweep that finds it so another grace
// later. As long as somebody holds the blobs (Hold), none is deleted: what the database
// names after the hold began can have lost its last row only since, so its note, and
// with it the look at the holds, is later. Any number of processes may sweep at once.
func (t *Task) Sweep(ctx context.Context) (deleted int, bytes int64, err error) {
	before := time.Now().Add(-grace)
	page := make([]blob.Info, 0, sweepPage)
	sweep := func() error {
		n, size, err := t.sweepPage(ctx, page, before)
		deleted, bytes, page = deleted+n, bytes+size, page[:0]
		return err
	}
	for info, err := range t.cfg.Blobs.List(ctx) {
		if err != nil {
			return deleted, bytes, err
		}
		if !info.Used.Before(before) {
			continue
		}
		if page = append(page, info); len(page) == sweepPage {
			if err := sweep(); err != nil {
				return deleted, bytes, err
			}
		}
	}
	err = sweep()
	return deleted, bytes, err
}

func (t *Task) sweepPage(ctx context.Context, page []blob.Info, before time.Time) (deleted int, bytes int64, err error) {
	if len(page) == 0 {
		return 0, 0, nil
	}
	var due map[blob.Hash]bool
	changes := false
	err = t.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) { _, changes, err = orphans(ctx, tx, page, false, false); return err })
	if err == nil && changes {
		err = t.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
			holding, err := held(ctx, tx, t.cfg.RunDir)
			if err == nil {
				due, _, err = orphans(ctx, tx, page, true, holding)
			}
			return err
		})
	}
	if err != nil || len(due) == 0 {
		return 0, 0, err
	}
	// Their notes are gone by now: one that is not deleted after all begins anew.
	if err := failpoint.Hit("orphans-due"); err != nil {
		return 0, 0, err
	}
	for _, info := range page {
		if !due[info.Hash] {
			continue
		}
		gone, err := t.cfg.Blobs.Delete(ctx, info.Hash, before)
		if err != nil {
			return deleted, bytes, err
		}
		if gone {
			deleted, bytes = deleted+1, bytes+info.Size
		}
		if err := failpoint.Hit("orphan-deleted"); err != nil {
			return deleted, bytes, err
		}
	}
	return deleted, bytes, nil
}

// orphans compares blobs with the rows that name them. With write it keeps the
// notes: of those that are named it forgets them, others it notes, and the notes of
// those that have had one for the grace it takes back and returns as due, unless they are
// held: then they stay as they are. Without, it only tells whether there is anything to
// write.
func orphans(ctx context.Context, tx *db.Tx, page []blob.Info, write, holding bool) (due map[blob.Hash]bool, changes bool, err error) {
	hashes := make([]any, len(page))
	for i, info := range page {
		hashes[i] = string(info.Hash)
	}
	list := `(?` + strings.Repeat(`, ?`, len(page)-1) + `)`
	named := map[blob.Hash]bool{}
	for _, table := range namers {
		err := each(ctx, tx, `SELECT b.sha256, 0 FROM `+table+` b WHERE b.sha256 IN `+list, hashes, func(h blob.Hash, _ int64) { named[h] = true })
		if err != nil {
			return nil, false, fmt.Errorf("look for the rows of blobs: %w", err)
		}
	}
	noted := map[blob.Hash]int64{}
	if err := each(ctx, tx, `SELECT b.sha256, b.since FROM blob_orphan b WHERE b.sha256 IN `+list, hashes, func(h blob.Hash, since int64) { noted[h] = since }); err != nil {
		return nil, false, fmt.Errorf("read orphans: %w", err)
	}
	due = map[blob.Hash]bool{}
	for _, info := range page {
		h := info.Hash
		since, isNoted := noted[h]
		statement, args := "", []any{string(h)}
		switch {
		case isNoted && !named[h] && since <= db.Micros(tx.Now().Add(-grace)):
			if holding {
				continue
			}
			due[h] = true
			statement = `DELETE FROM blob_orphan WHERE sha256 = ?`
		case isNoted && named[h]:
			statement = `DELETE FROM blob_orphan WHERE sha256 = ?`
		case !isNoted && !named[h]:
			statement, args = `INSERT INTO blob_orphan (sha256, since) VALUES (?, ?) ON CONFLICT DO NOTHING`, append(args, db.Micros(tx.Now()))
		default:
			continue
		}
		changes = true
		if !write {
			continue
		}
		if _, err := tx.Exec(ctx, statement, args...); err != nil {
			return nil, false, fmt.Errorf("note orphans: %w", err)
		}
	}
	return due, changes, nil
}

// each calls fn for every row of a hash and a number.
func each(ctx context.Context, tx *db.Tx, query string, args []any, fn func(h blob.Hash, n int64)) error {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var h string
		var n int64
		if err := rows.Scan(&h, &n); err != nil {
			return err
		}
		fn(blob.Hash(h), n)
	}
	return rows.Err()
}
