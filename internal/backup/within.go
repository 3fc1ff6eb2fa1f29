package backup

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
)

// Within restores a backup into a scratch place, proves it as Verify does at the level of
// the database, has fn work on the copy, and throws the copy away. No proof is noted or
// taken back: what fn says is about fn, not about the backup, and is returned as it is.
// opt.Level and opt.Boot are not used.
func (s *Store) Within(ctx context.Context, id string, opt VerifyOptions, fn func(ctx context.Context, c Copy) error) error {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	dir, unlock, err := s.hold(id)
	if err != nil {
		return err
	}
	defer unlock()
	var failed error
	opt.Level = LevelBoot
	opt.Boot = func(ctx context.Context, c Copy) error {
		failed = fn(ctx, c)
		return nil
	}
	if err := s.verify(ctx, dir, &opt); err != nil {
		return fmt.Errorf("restore backup %s into a scratch place: %w", filepath.Base(dir), translate(err))
	}
	return failed
}
