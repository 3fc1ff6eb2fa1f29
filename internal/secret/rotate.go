package secret

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
)

// RotateOptions of Rotate.
type RotateOptions struct {
	// Next is the new master key. It must be given where the key is not our own
	// file, and may be where it is; otherwise one is made.
	Next MasterKey
	// Places are all places of sealed values.
	Places []Place
	// Live lists the incarnations of the nodes that run, for which a rotation
	// waits; nil means that there are none.
	Live func(ctx context.Context) ([]string, error)
	// Wait bounds how long they are waited for; 30 seconds unless set.
	Wait time.Duration
	// Resealed is told how many values were sealed anew so far; may be nil.
	Resealed func(n int)
}

// Rotation says what Rotate did.
type Rotation struct {
	// From and To are the ids of the master keys.
	From, To string
	// Resumed says that an earlier rotation was brought to its end, and none begun.
	Resumed bool
	// Resealed counts the values that were sealed anew, Left those that are under
	// older data keys still because somebody wrote them meanwhile, or because
	// nobody can open them.
	Resealed, Left int
}

// LateError says that nodes did not take the new key in time.
type LateError struct{ Nodes []string }

// Error names the nodes and the remedy.
func (e *LateError) Error() string {
	return fmt.Sprintf("the new master key is in force, but the rotation is not finished: %s did not take it over yet; see that these nodes run or are stopped, and run `tako key rotate` again to end it", strings.Join(e.Nodes, ", "))
}

// maxPasses bounds how often the places are gone through for what was written by
// an old data key meanwhile.
const maxPasses = 3

// Rotate changes to a new master key and a new data key while servers run, and
// seals every value anew. A rotation that was cut short is brought to its end by
// the next call: at each moment the key that is in place opens the database.
//
// Older data keys stay in the database, under the new master key, so that a value
// which somebody wrote meanwhile opens too.
func (b *Box) Rotate(ctx context.Context, opt RotateOptions) (Rotation, error) {
	if opt.Wait == 0 {
		opt.Wait = 30 * time.Second
	}
	if err := b.refresh(ctx); err != nil {
		return Rotation{}, err
	}
	_, way, err := b.load(ctx)
	if err != nil {
		return Rotation{}, err
	}
	r := Rotation{From: way.from, To: way.to, Resumed: way.from != ""}
	if !r.Resumed {
		if r.From, r.To, err = b.begin(ctx, opt.Next); err != nil {
			return r, err
		}
	}
	if err := b.await(ctx, opt); err != nil {
		return r, err
	}
	if err := failpoint.Hit("rotate-known"); err != nil {
		return r, err
	}
	for pass := 0; pass < maxPasses; pass++ {
		var told func(int)
		if before := r.Resealed; opt.Resealed != nil {
			told = func(n int) { opt.Resealed(before + n) }
		}
		n, err := b.reseal(ctx, opt.Places, told)
		r.Resealed += n
		if err != nil {
			return r, err
		}
		if n == 0 {
			break
		}
	}
	if r.Left, err = b.older(ctx, opt.Places); err != nil {
		return r, err
	}
	return r, b.end(ctx, opt)
}

// begin puts the database under the new keys and the new master key in place.
func (b *Box) begin(ctx context.Context, next MasterKey) (from, to string, err error) {
	managed := b.src.Managed()
	switch {
	case !managed && next.id == "":
		return "", "", fault.New(fault.Invalid, "The master key of this server is not its own file; make a new one (`(umask 077; head -c 32 /dev/urandom | base64 > new.key)`), give it with --new-key-file, and put it where the old one comes from before a server starts again.")
	case next.id == "":
		next = NewMasterKey()
	}
	b.mu.RLock()
	master := b.master
	b.mu.RUnlock()
	if next.ID() == master.ID() {
		return "", "", fault.New(fault.Invalid, "The new master key is the one in force (%s); give another.", master.ID())
	}
	prepared := filepath.Join(b.src.Dir, nextName)
	if managed {
		if err := os.Remove(prepared); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an attempt that did not reach the database
			return "", "", err
		}
		if err := writeKey(prepared, next); err != nil {
			return "", "", fmt.Errorf("prepare the new master key: %w", err)
		}
	}
	if err := failpoint.Hit("rotate-prepared"); err != nil {
		return "", "", err
	}
	if err := b.d.Write(ctx, func(t *db.Tx) error { return b.switchKeys(ctx, t, master, next) }); err != nil {
		return "", "", fmt.Errorf("change the master key: %w", err)
	}
	if err := failpoint.Hit("rotate-switched"); err != nil {
		return "", "", err
	}
	if err := b.refresh(ctx); err != nil { // through the passage, which puts the key in place
		return "", "", err
	}
	return master.ID(), next.ID(), failpoint.Hit("rotate-named")
}

// switchKeys wraps the data keys by the new master key and adds a new one, by
// which values are sealed from now on.
func (b *Box) switchKeys(ctx context.Context, t *db.Tx, master, next MasterKey) error {
	keys, err := readKeys(ctx, t)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.master != master.ID() {
			return &WrongKeyError{Want: k.master, Got: master.ID()}
		}
		raw, err := unwrapKey(master, k.id, k.wrapped)
		if err != nil {
			return fmt.Errorf("data key %s: %w", k.id, err)
		}
		wrapped, err := wrap(next, k.id, raw)
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `UPDATE secret_key SET master_id = ?, wrapped = ? WHERE id = ?`, next.ID(), wrapped, k.id); err != nil {
			return err
		}
	}
	made, seal, err := newDataKey(next, keys[0].seq+1)
	if err != nil {
		return err
	}
	if err := insertKey(ctx, t, made); err != nil {
		return err
	}
	sealed, err := wrapAs(master, "passage", next.ID(), next.key[:])
	if err != nil {
		return err
	}
	if _, err := t.Exec(ctx, `INSERT INTO secret_passage (from_id, to_id, sealed, created) VALUES (?, ?, ?, ?)`,
		master.ID(), next.ID(), sealed, db.Micros(t.Now())); err != nil {
		return err
	}
	if err := keepFormer(ctx, t, master, seal); err != nil {
		return err
	}
	t.Changed(changed)
	return escrowAll(ctx, t, next)
}

// await waits until every running node has the new keys in hand.
func (b *Box) await(ctx context.Context, opt RotateOptions) error {
	if opt.Live == nil {
		return nil
	}
	commits := b.d.Subscribe()
	defer commits.Close()
	limit := time.NewTimer(opt.Wait)
	defer limit.Stop()
	tick := time.NewTicker(time.Second) // a node that dies makes no commit
	defer tick.Stop()
	for {
		live, err := opt.Live(ctx)
		if err != nil {
			return err
		}
		late, err := b.behind(ctx, live)
		if err != nil || len(late) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return &LateError{late}
		case <-commits.C:
		case <-tick.C:
		}
	}
}

// older counts the values that are not under the newest data key.
func (b *Box) older(ctx context.Context, places []Place) (n int, err error) {
	b.mu.RLock()
	newest := b.newest
	b.mu.RUnlock()
	err = b.Walk(ctx, places, func(r Ref) error {
		if Under(r.Envelope) != newest {
			n++
		}
		return nil
	})
	return n, err
}

// end closes the passage: from now on the former master key leads nowhere.
func (b *Box) end(ctx context.Context, opt RotateOptions) error {
	var live []string
	if opt.Live != nil {
		var err error
		if live, err = opt.Live(ctx); err != nil {
			return err
		}
	}
	err := b.d.Write(ctx, func(t *db.Tx) error {
		if err := forgetHolders(ctx, t, live); err != nil {
			return err
		}
		_, err := t.Exec(ctx, `DELETE FROM secret_passage`)
		return err
	})
	if err != nil {
		return fmt.Errorf("end the rotation: %w", err)
	}
	return failpoint.Hit("rotate-ended")
}

// Rotating reports whether a rotation was begun and not brought to its end.
func (b *Box) Rotating(ctx context.Context) (bool, error) {
	_, way, err := b.load(ctx)
	return way.from != "", err
}

// NewDataKey makes the key by which values are sealed from now on; older
// envelopes open as before.
func (b *Box) NewDataKey(ctx context.Context) error {
	b.mu.RLock()
	master := b.master
	b.mu.RUnlock()
	err := b.d.Write(ctx, func(t *db.Tx) error {
		keys, err := readKeys(ctx, t)
		if err != nil {
			return err
		}
		if len(keys) == 0 || keys[0].master != master.ID() {
			return errors.New("another process changes the master key just now; try again")
		}
		made, _, err := newDataKey(master, keys[0].seq+1)
		if err != nil {
			return err
		}
		t.Changed(changed)
		return insertKey(ctx, t, made)
	})
	if err != nil {
		return fmt.Errorf("make a data key: %w", err)
	}
	return b.refresh(ctx)
}

// newDataKey makes a data key, and a function that seals by it.
func newDataKey(master MasterKey, seq int64) (wrappedKey, sealer, error) {
	var id [6]byte
	var key [KeySize]byte
	_, _ = rand.Read(id[:]) // it ends the process rather than fail
	_, _ = rand.Read(key[:])
	k := wrappedKey{id: hex.EncodeToString(id[:]), master: master.ID(), seq: seq}
	var err error
	if k.wrapped, err = wrap(master, k.id, key[:]); err != nil {
		return k, nil, err
	}
	a, err := aead(key[:])
	if err != nil {
		return k, nil, err
	}
	return k, func(owner, field string, plain []byte) string { return sealBy(k.id, a, owner, field, plain) }, nil
}

// sealer seals a value by one data key.
type sealer func(owner, field string, plain []byte) string
