package backup

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/tasks"
)

func (s *Store) restorePostgres(ctx context.Context, dir string, opt *RestoreOptions, r *Restored, master secret.MasterKey) (err error) {
	if _, lite := sqlitePath(opt.Database); lite {
		return fault.New(fault.Invalid, "The backup is of PostgreSQL; name the database to restore into with --database postgres://...")
	}
	d, err := db.Open(ctx, opt.Database, db.Options{Log: opt.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	former := "" // the id of the master key that the data is under which is replaced
	_, err = d.Meta(ctx)
	switch {
	case errors.Is(err, db.ErrNoSchema):
	case err != nil:
		return err
	default:
		r.Replaced = true
		if former, err = masterOf(ctx, d); err != nil {
			opt.Log.Debug("the database does not tell which master key it is under", "err", err)
		}
		live, err := tasks.LiveNodes(ctx, d, opt.RunDir)
		if err != nil {
			return err
		}
		if len(live) > 0 {
			return fault.New(fault.Conflict, "%d servers run on %s, or did within the last minute; stop them first.", len(live), d)
		}
		if err := r.newer(ctx, d); err != nil {
			return err
		}
	}
	temp, err := workDir(filepath.Join(opt.Data, workName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(temp))) }()
	staged := filepath.Join(temp, "database")
	if err := s.files(ctx, dir, opt, r, staged); err != nil {
		return err
	}
	if err := putKey(opt, r, master); err != nil {
		return err
	}
	if err := failpoint.Hit("restore-marked"); err != nil {
		return err
	}
	tellOf(opt.Progress, "restoring the database", 0)
	begun, err := newLife()
	if err != nil {
		return err
	}
	if r.Kept, err = load(ctx, d, &r.Manifest, staged, begun); err != nil {
		if err := begun.settle(ctx, opt, r, former, patience, err); err != nil {
			return err
		}
	}
	return failpoint.Hit("restore-swapped")
}

// masterOf is the id of the master key that a database's secrets are under.
func masterOf(ctx context.Context, d *db.DB) (id string, err error) {
	err = d.Read(ctx, func(t *db.Tx) error {
		if has, err := t.HasTable(ctx, "secret_key"); err != nil || !has {
			return err
		}
		id, _, err = secret.Escrows(ctx, t)
		return err
	})
	return id, err
}

// patience is how long a restore looks for the fate of its transaction.
const patience = 30 * time.Second

// life is the one that a database begins with a restore. By it one sees whether the
// transaction was committed, even if nobody has heard of it: incarnation is then what the
// database says, and lock is an advisory lock that is held until the transaction has ended.
type life struct {
	incarnation string
	lock        int64
}

func newLife() (*life, error) {
	var number [8]byte
	if _, err := rand.Read(number[:]); err != nil {
		return nil, err
	}
	return &life{rand.Text(), int64(binary.BigEndian.Uint64(number[:]) >> 1)}, nil //nolint:gosec // the first bit is 0
}

// settle decides what becomes of the master key after the restore has failed with cause:
// it has to be the one of the data that is there now. nil says that the restore was
// committed all the same. former is the id of the key of the data that was there before.
func (l *life) settle(ctx context.Context, opt *RestoreOptions, r *Restored, former string, within time.Duration, cause error) error {
	var undecided *undecidedError
	if !errors.As(cause, &undecided) {
		return errors.Join(cause, putKeyBack(opt, r, former))
	}
	committed, err := l.began(ctx, opt, within)
	switch {
	case err == nil && committed:
		opt.Log.Warn("the backup was restored, but the end of it was not heard of", "err", cause)
		return nil
	case err == nil:
		return errors.Join(cause, putKeyBack(opt, r, former))
	}
	text := "The database does not tell whether the backup was restored into it. "
	if r.KeptKey != "" {
		text += fmt.Sprintf("Both master keys are kept: %s is that of the backup, and %s the one before. ", filepath.Join(opt.Data, secret.FileName), r.KeptKey)
	}
	return &fault.Error{
		Kind: fault.Unavailable, Message: text + fmt.Sprintf("Repeat the restore once the database answers; start no server before (%v).", cause), Cause: errors.Join(cause, err),
	}
}

// began reports whether the database has begun this life. An error says that nobody knows.
func (l *life) began(ctx context.Context, opt *RestoreOptions, within time.Duration) (bool, error) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*patience)
	defer stop()
	for late := time.Now().Add(within); ; {
		committed, err := l.look(ctx, opt)
		if err == nil || time.Now().After(late) {
			return committed, err
		}
		again := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
			again.Stop()
			return false, err
		case <-again.C:
		}
	}
}

// look looks once. An error says that the database does not answer, or has not yet done
// with the transaction.
func (l *life) look(ctx context.Context, opt *RestoreOptions) (committed bool, err error) {
	d, err := db.Open(ctx, opt.Database, db.Options{Readers: 1, Log: opt.Log})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var ended bool
	err = d.Read(ctx, func(t *db.Tx) error {
		return t.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(?)`, l.lock).Scan(&ended)
	})
	if err == nil && !ended {
		err = errors.New("the transaction of the restore has not ended")
	}
	if err != nil {
		return false, err
	}
	meta, err := d.Meta(ctx) // in a view of its own, which is from after the end
	if errors.Is(err, db.ErrNoSchema) {
		return false, nil
	}
	return meta.Incarnation == l.incarnation, err
}

// putKeyBack undoes putKey, also that of an earlier call, for a database that was not
// replaced: former is the id of the master key that it is under.
func putKeyBack(opt *RestoreOptions, r *Restored, former string) error {
	if !opt.ManagedKey {
		return nil
	}
	path := filepath.Join(opt.Data, secret.FileName)
	if r.KeptKey == "" {
		key, err := secret.Source{File: path + beforeSuffix}.Load()
		if err != nil || key.ID() != former {
			return nil //nolint:nilerr // there is none to put back
		}
	}
	return os.Rename(path+beforeSuffix, path)
}
