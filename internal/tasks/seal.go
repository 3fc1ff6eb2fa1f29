package tasks

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
)

func isNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// sealLoop moves logs that are long, or over, from rows to blobs.
func (s *Service) sealLoop(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Timing.Seal)
	defer tick.Stop()
	last := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := s.cfg.DB.Generation(ctx)
		if err == nil && now == last {
			continue // nothing was written anywhere
		}
		last = now
		if err := s.seal(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("seal logs", "err", err)
			last = 0
		}
	}
}

// seal makes segments of all logs that are over or have enough for one.
func (s *Service) seal(ctx context.Context) error {
	var found []string
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		found = nil
		rows, err := tx.Query(ctx, `SELECT t.id FROM task t WHERE t.id IN (SELECT c.task FROM task_log c) AND (t.completed_time > 0 OR
			t.log_bytes - (SELECT coalesce(sum(s.bytes), 0) FROM task_log_segment s WHERE s.task = t.id) >= ?) ORDER BY t.seq LIMIT 100`, segment)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			found = append(found, id)
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range found {
		if err := s.sealTask(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("seal log of %s: %w", id, err)) // the others need not wait for it
		}
	}
	return errors.Join(errs...)
}

// errGone undoes a segment of a task that was deleted meanwhile.
var errGone = errors.New("the lines are gone")

// sealTask makes segments of a task's chunks: blob first, then the rows in one
// transaction. A crash between the two leaves a blob that nobody names.
func (s *Service) sealTask(ctx context.Context, task string) error {
	for {
		var raw []byte
		var from, next int64
		var over bool
		err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
			t, err := Get(ctx, tx, task)
			if err != nil {
				return err
			}
			over = t.State.Completed()
			raw, from, next = nil, 0, 0
			rows, err := tx.Query(ctx, `SELECT c.line_from, c.lines, c.codec, c.data FROM task_log c WHERE c.task = ? ORDER BY c.line_from`, task)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() && len(raw) < segment {
				var lineFrom, lines, codec int64
				var data []byte
				if err := rows.Scan(&lineFrom, &lines, &codec, &data); err != nil {
					return err
				}
				plain, err := s.coder.unpack(codec, data)
				if err != nil {
					return err
				}
				if from == 0 {
					from = lineFrom
				}
				raw = append(raw, plain...)
				next = lineFrom + lines
			}
			return rows.Err()
		})
		if err != nil || len(raw) == 0 || !over && len(raw) < segment {
			return err
		}
		codec, data := s.coder.pack(raw)
		stored, err := s.cfg.Blobs.Put(ctx, io.MultiReader(bytes.NewReader([]byte{byte(codec)}), bytes.NewReader(data)), 2*segment)
		if err != nil {
			return err
		}
		if err := failpoint.Hit("segment-blob-renamed"); err != nil {
			return err
		}
		err = s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
			if err := stored.Fresh(); err != nil {
				return err // and sealed again
			}
			n, err := tx.Exec(ctx, `INSERT INTO task_log_segment (task, line_from, lines, bytes, sha256) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
				task, from, next-from, int64(len(raw)), string(stored.Hash))
			if err != nil || n == 0 {
				return err // another node has sealed these lines
			}
			n, err = tx.Exec(ctx, `DELETE FROM task_log WHERE task = ? AND line_from >= ? AND line_from < ?`, task, from, next)
			if err == nil && n == 0 {
				return errGone
			}
			return err
		})
		if errors.Is(err, errGone) {
			return nil
		}
		if err == nil {
			err = failpoint.Hit("segment-committed")
		}
		if err != nil {
			return err
		}
	}
}

func (s *Service) loadSegment(ctx context.Context, p part) ([]byte, error) {
	r, _, err := s.cfg.Blobs.Open(ctx, blob.Hash(p.sha256))
	if err != nil {
		return nil, fmt.Errorf("open log segment: %w", err)
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, 2*segment+1))
	if err != nil || len(body) == 0 {
		return nil, errors.Join(errLogDamaged, err)
	}
	return s.coder.unpack(int64(body[0]), body[1:])
}
