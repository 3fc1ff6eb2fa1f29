package backup

import (
	"context"
	"errors"

	"github.com/takodeploy/tako/internal/durable"
)

// Kept are the backups that stay.
var Kept = kept

// InsideReal is the first of some directories that a path is in, through links.
var InsideReal = insideReal

// Unheard is what a restore does whose COMMIT was sent, and no answer came; it looks once.
func Unheard(ctx context.Context, opt RestoreOptions, r *Restored, former string) error {
	begun, err := newLife()
	if err != nil {
		return err
	}
	return begun.settle(ctx, &opt, r, former, 0, &undecidedError{errors.New("psql: killed")})
}

// Alone keeps others from making and pruning backups until unlock.
func (s *Store) Alone() (unlock func(), err error) { return s.lock(durable.Exclusive) }
