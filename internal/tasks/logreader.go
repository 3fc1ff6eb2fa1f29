package tasks

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
)

// LogReader reads the logs of tasks without being a node of the queue: nothing is
// written to the database, and no lock is taken. It is safe for concurrent use.
type LogReader struct{ s *Service }

// NewLogReader makes a reader; blobs has the parts of logs that were sealed.
func NewLogReader(d *db.DB, blobs Blobs) (*LogReader, error) {
	coder, err := newCoder()
	if err != nil {
		return nil, fmt.Errorf("set up log compression: %w", err)
	}
	return &LogReader{&Service{cfg: Config{DB: d, Blobs: blobs}, coder: coder}}, nil
}

// ReadLog is Service.ReadLog.
func (r *LogReader) ReadLog(ctx context.Context, task string, from int64, fn func(Line) bool) error {
	return r.s.ReadLog(ctx, task, from, fn)
}
