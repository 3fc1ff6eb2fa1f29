package secret

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
)

// PutMasterKey makes a key the master.key of a data directory. One that is there
// already is never replaced: another than k is a fault Conflict.
func PutMasterKey(dir string, k MasterKey) error {
	path := filepath.Join(dir, FileName)
	there, err := readKey(path)
	switch {
	case err == nil && there.ID() == k.ID():
		return nil
	case err == nil:
		return fault.New(fault.Conflict, "%s has another master key (%s); move it away first if it is of no more use.", path, there.ID())
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return writeKey(path, k)
}

// Lost begins anew when the master key is lost for good: it makes a new one in
// src's data directory, and takes every sealed value that nobody can open any more
// out of the documents. entered is told of each: they must be entered again.
// Records of what was (answers to prompts, outputs of old deployments) stay, and
// stay closed; entered is told of none of them, and the number of them returned.
//
// It refuses while the key opens. Cut short, it goes on when it is called again.
func Lost(ctx context.Context, d *db.DB, src Source, places []Place, entered func(Ref)) (*Box, int, error) {
	if !src.Managed() {
		return nil, 0, fault.New(fault.Invalid, "The master key of this server is not its own file; take TAKO_MASTER_KEY or master_key_file out of its configuration first.")
	}
	b, err := Open(ctx, d, src)
	var wrong *WrongKeyError
	switch {
	case errors.As(err, &wrong):
		if err := beginAnew(ctx, d, src.Dir); err != nil {
			return nil, 0, err
		}
		if b, err = Open(ctx, d, src); err != nil {
			return nil, 0, err
		}
	case err != nil:
		return nil, 0, err
	default:
		if n, err := b.dead(ctx, places, func(Ref) {}); err != nil {
			return nil, 0, err
		} else if n == 0 {
			return nil, 0, fault.New(fault.Conflict, "The master key is there and opens everything (%s); nothing is lost, and nothing was changed.", b.MasterID())
		}
	}
	if err := failpoint.Hit("lost-begun"); err != nil {
		return nil, 0, err
	}
	if err := b.EnsureRecovery(ctx); err != nil {
		return nil, 0, err
	}
	left, err := b.clearDead(ctx, places, entered)
	return b, left, err
}

// beginAnew puts the database under a new master key, without its former data keys.
func beginAnew(ctx context.Context, d *db.DB, dir string) error {
	next := NewMasterKey()
	prepared, path := filepath.Join(dir, nextName), filepath.Join(dir, FileName)
	if err := os.Remove(prepared); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeKey(prepared, next); err != nil {
		return fmt.Errorf("prepare the new master key: %w", err)
	}
	// A wrong key that lies there may be the right one of something else.
	if err := os.Rename(path, path+".before-lost"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := d.Write(ctx, func(t *db.Tx) error {
		for _, table := range []string{"secret_key", "secret_passage", "secret_recovery", "secret_former"} {
			if _, err := t.Exec(ctx, `DELETE FROM `+table); err != nil {
				return err
			}
		}
		k, _, err := newDataKey(next, 1)
		if err != nil {
			return err
		}
		t.Changed(changed)
		return insertKey(ctx, t, k)
	})
	if err != nil {
		return fmt.Errorf("put the database under a new master key: %w", err)
	}
	if err := failpoint.Hit("lost-switched"); err != nil {
		return err
	}
	if err := os.Rename(prepared, path); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// dead tells of every value that nobody can open.
func (b *Box) dead(ctx context.Context, places []Place, fn func(Ref)) (n int, err error) {
	err = b.Walk(ctx, places, func(r Ref) error {
		_, err := b.Open(ctx, r.Owner, r.Field, r.Envelope)
		if isDead(err) {
			n++
			fn(r)
			return nil
		}
		return err
	})
	return n, err
}

// clearDead takes the dead values out of the places where they can be entered again.
func (b *Box) clearDead(ctx context.Context, places []Place, entered func(Ref)) (left int, err error) {
	err = b.eachBatch(ctx, places, func(p *Place, rows []row) error {
		var old, anew []row
		var told []Ref
		for _, r := range rows {
			refs, err := p.refs(r)
			if err != nil {
				return err
			}
			dead := map[string]bool{}
			for _, ref := range refs {
				if _, err := b.Open(ctx, ref.Owner, ref.Field, ref.Envelope); isDead(err) {
					dead[ref.Envelope] = true
					told = append(told, ref)
				} else if err != nil {
					return err
				}
			}
			switch {
			case len(dead) == 0:
			case p.Clear == nil:
				left += len(dead)
				told = told[:len(told)-len(dead)]
			default:
				body, err := p.Clear(r.key, r.body, func(e string) bool { return dead[e] })
				if err != nil {
					return err
				}
				old, anew = append(old, r), append(anew, row{r.key, body})
			}
		}
		for _, ref := range told {
			entered(ref) // before it is gone: a list cut short is completed by the next call
		}
		return b.change(ctx, p, old, anew)
	})
	return left, err
}

// Health is what Check found.
type Health struct {
	// MasterID is the id of the master key, DataKeys how many keys it wraps.
	MasterID string
	DataKeys int
	// Values counts the sealed values, Older those under a data key that is not
	// the newest, Dead those that nobody can open.
	Values, Older int
	Dead          []Ref // the first MaxDead
	DeadCount     int
	Rotating      bool
	Recoveries    []Recovery
}

// MaxDead bounds the values that Check names.
const MaxDead = 100

// Check opens every sealed value of the places.
func (b *Box) Check(ctx context.Context, places []Place) (Health, error) {
	if err := b.refresh(ctx); err != nil {
		return Health{}, err
	}
	b.mu.RLock()
	h := Health{MasterID: b.master.ID(), DataKeys: len(b.keys)}
	newest := b.newest
	b.mu.RUnlock()
	err := b.Walk(ctx, places, func(r Ref) error {
		h.Values++
		if Under(r.Envelope) != newest {
			h.Older++
		}
		_, err := b.Open(ctx, r.Owner, r.Field, r.Envelope)
		if isDead(err) {
			if h.DeadCount++; len(h.Dead) < MaxDead {
				h.Dead = append(h.Dead, r)
			}
			return nil
		}
		return err
	})
	if err != nil {
		return h, err
	}
	if h.Rotating, err = b.Rotating(ctx); err != nil {
		return h, err
	}
	h.Recoveries, err = b.Recoveries(ctx)
	return h, err
}

// String describes a ref for people, without the value.
func (r Ref) String() string {
	name := strings.TrimSpace(r.Kind + " " + r.Owner)
	if r.OwnerName != "" {
		name += " (" + r.OwnerName + ")"
	}
	at := r.At
	if at == "" {
		at = strings.TrimPrefix(r.Field, "/")
	}
	return name + ": " + at
}
