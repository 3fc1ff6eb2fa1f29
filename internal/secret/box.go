// Package secret keeps what must not be read: sensitive values in the database,
// and secrets in memory that must not slip into a log.
//
// A value is sealed (AES-256-GCM) by a data key. Data keys are rows of the
// database, wrapped by the master key, which is outside of it: a stolen
// database, backup or disk image alone tells nothing. An envelope is bound to
// the document and the field that it belongs to, so that it opens nowhere else;
// whoever copies a document seals its secrets anew (Reseal).
//
// Rotate changes everything while servers run: a new master key, which wraps the
// data keys again, and a new data key, by which every value is sealed anew.
package secret

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/fault"
)

const (
	// prefix of every envelope; the number is the format.
	prefix = "tako1:"
	// MaxPlain bounds what Seal takes, in bytes.
	MaxPlain = 16 << 20
)

var encoding = base64.RawURLEncoding.Strict() //nolint:gochecknoglobals // a constant but for its type

// ErrEnvelope says that an envelope does not open: it was changed, cut, or
// belongs to another document or field.
var ErrEnvelope = errors.New("the sealed value does not open here")

// WrongKeyError says that the master key is not the one of this database.
type WrongKeyError struct {
	Want, Got string // ids of master keys
}

// Error names both keys and the remedy.
func (e *WrongKeyError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("the secrets of this database are under master key %s, and there is no master key here; put it back as master.key (mode 0600), or set TAKO_MASTER_KEY. Nothing was changed", e.Want)
	}
	return fmt.Sprintf("the secrets of this database are under master key %s, and the one given is %s; put the right one in master.key or TAKO_MASTER_KEY. Nothing was changed", e.Want, e.Got)
}

// ExitCode is that of a configuration error: restarting does not help.
func (e *WrongKeyError) ExitCode() int { return fault.ExitRefused }

// Box seals and opens values. It is safe for concurrent use.
type Box struct {
	d      *db.DB
	src    Source
	again  sync.Mutex // one refresh at a time
	mu     sync.RWMutex
	master MasterKey
	keys   map[string]cipher.AEAD // data keys by id
	newest string                 // the one that seals
}

// Open gets the master key and the data keys ready. In a database without keys
// it makes them, and the master key too if src's data directory has none.
// Otherwise nothing is written, and a key that is not the right one is a
// *WrongKeyError.
func Open(ctx context.Context, d *db.DB, src Source) (*Box, error) {
	b := &Box{d: d, src: src}
	wrapped, way, err := b.load(ctx)
	if err != nil {
		return nil, err
	}
	master, err := src.Load()
	switch {
	case errors.Is(err, ErrNoKey) && len(wrapped) > 0:
		// Only what was prepared for this database may stand in for it.
		if master, err = adoptNext(src.Dir, MasterKey{}, wrapped[0].master); err == nil && master.id == "" {
			err = &WrongKeyError{Want: wrapped[0].master}
		}
		if err != nil {
			return nil, err
		}
	case errors.Is(err, ErrNoKey) && src.Managed():
		master, err = makeMaster(src.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	if len(wrapped) == 0 {
		if wrapped, err = b.first(ctx, master); err != nil {
			return nil, err
		}
	}
	if src.Managed() {
		if master, err = adoptNext(src.Dir, master, wrapped[0].master); err != nil {
			return nil, err
		}
	}
	b.master = master
	return b, b.adopt(wrapped, way)
}

func makeMaster(dir string) (MasterKey, error) {
	k := NewMasterKey()
	err := writeKey(filepath.Join(dir, FileName), k)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		return Source{Dir: dir}.Load()
	}
	return k, err
}

// adoptNext ends a rotation that was cut short: if the database is under the
// key that was prepared, that becomes the key.
func adoptNext(dir string, master MasterKey, want string) (MasterKey, error) {
	if master.ID() == want || dir == "" {
		return master, nil
	}
	path := filepath.Join(dir, nextName)
	next, err := readKey(path)
	if err != nil || next.ID() != want {
		return master, nil // the caller finds that the key is the wrong one
	}
	if err := os.Rename(path, filepath.Join(dir, FileName)); err != nil {
		return next, err
	}
	return next, durable.SyncDir(dir)
}

// wrappedKey is a row of secret_key.
type wrappedKey struct {
	id, master string
	seq        int64
	wrapped    []byte
}

// load reads the data keys, the newest first, and the passage to their master
// key, if there is one.
func (b *Box) load(ctx context.Context) (keys []wrappedKey, way passage, err error) {
	err = b.d.Read(ctx, func(t *db.Tx) error {
		if keys, err = readKeys(ctx, t); err != nil {
			return err
		}
		way, err = readPassage(ctx, t)
		return err
	})
	if err != nil {
		return nil, way, fmt.Errorf("read data keys: %w", err)
	}
	return keys, way, nil
}

func readKeys(ctx context.Context, t *db.Tx) ([]wrappedKey, error) {
	rows, err := t.Query(ctx, `SELECT id, seq, master_id, wrapped FROM secret_key ORDER BY seq DESC`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err below tells
	var keys []wrappedKey
	for rows.Next() {
		var k wrappedKey
		if err := rows.Scan(&k.id, &k.seq, &k.master, &k.wrapped); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

// first makes the first data key, unless another process did meanwhile.
func (b *Box) first(ctx context.Context, master MasterKey) (keys []wrappedKey, err error) {
	err = b.d.Write(ctx, func(t *db.Tx) error {
		if keys, err = readKeys(ctx, t); err != nil || len(keys) > 0 {
			return err
		}
		k, _, err := newDataKey(master, 1)
		if err != nil {
			return err
		}
		keys = []wrappedKey{k}
		return insertKey(ctx, t, k)
	})
	if err != nil {
		return nil, fmt.Errorf("make the first data key: %w", err)
	}
	return keys, nil
}

func insertKey(ctx context.Context, t *db.Tx, k wrappedKey) error {
	_, err := t.Exec(ctx, `INSERT INTO secret_key (id, seq, master_id, wrapped, created) VALUES (?, ?, ?, ?, ?)`,
		k.id, k.seq, k.master, k.wrapped, db.Micros(t.Now()))
	return err
}

// unwrapAll opens the data keys.
func unwrapAll(master MasterKey, wrapped []wrappedKey) (map[string]cipher.AEAD, error) {
	keys := make(map[string]cipher.AEAD, len(wrapped))
	for _, k := range wrapped {
		if k.master != master.ID() {
			return nil, &WrongKeyError{Want: k.master, Got: master.ID()}
		}
		raw, err := unwrapKey(master, k.id, k.wrapped)
		if err != nil {
			return nil, fmt.Errorf("data key %s: %w", k.id, err)
		}
		if keys[k.id], err = aead(raw); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func wrap(master MasterKey, id string, key []byte) ([]byte, error) {
	return wrapAs(master, "data key", id, key)
}

// wrapAs seals a key by the master key, for one purpose.
func wrapAs(master MasterKey, purpose, id string, key []byte) ([]byte, error) {
	if master.id == "" {
		return nil, ErrNoKey
	}
	a, err := aead(master.key[:])
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nil, key, associated(purpose, id)), nil
}

func unwrapKey(master MasterKey, id string, wrapped []byte) ([]byte, error) {
	raw, err := unwrapAs(master, "data key", id, wrapped)
	if err != nil || len(raw) != KeySize {
		return nil, errors.New("its row in secret_key is damaged")
	}
	return raw, nil
}

func unwrapAs(master MasterKey, purpose, id string, wrapped []byte) ([]byte, error) {
	a, err := aead(master.key[:])
	if err != nil {
		return nil, err
	}
	return a.Open(nil, nil, wrapped, associated(purpose, id))
}

// associated binds an envelope to names; their lengths keep ("ab", "c") apart
// from ("a", "bc").
func associated(names ...string) []byte {
	var out []byte
	for _, n := range names {
		out = binary.BigEndian.AppendUint32(out, uint32(len(n)))
		out = append(out, n...)
	}
	return out
}

// MasterID is the id of the master key, for messages and backups.
func (b *Box) MasterID() string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.master.ID()
}

// Seal makes an envelope of plain that opens only for the same owner (the id of
// the document) and field. It is ASCII text; its key's id is in front.
func (b *Box) Seal(owner, field string, plain []byte) (string, error) {
	if len(plain) > MaxPlain {
		return "", fmt.Errorf("seal %s of %s: %d bytes are more than %d", field, owner, len(plain), MaxPlain)
	}
	b.mu.RLock()
	id, a := b.newest, b.keys[b.newest]
	b.mu.RUnlock()
	return sealBy(id, a, owner, field, plain), nil
}

func sealBy(id string, a cipher.AEAD, owner, field string, plain []byte) string {
	return prefix + id + ":" + encoding.EncodeToString(a.Seal(nil, nil, plain, associated(id, owner, field)))
}

// IsEnvelope says whether s looks like what Seal makes.
func IsEnvelope(s string) bool { return strings.HasPrefix(s, prefix) }

// Open returns what Seal was given. The error is ErrEnvelope if envelope is not
// the owner's and field's, or was changed. A data key that another process made
// meanwhile is read from the database.
func (b *Box) Open(ctx context.Context, owner, field, envelope string) ([]byte, error) {
	rest, ok := strings.CutPrefix(envelope, prefix)
	id, body, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return nil, fmt.Errorf("open %s of %s: %w", field, owner, ErrEnvelope)
	}
	a, err := b.key(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", field, owner, err)
	}
	sealed, err := encoding.DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", field, owner, ErrEnvelope)
	}
	plain, err := a.Open(nil, nil, sealed, associated(id, owner, field))
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", field, owner, ErrEnvelope)
	}
	return plain, nil
}

func (b *Box) key(ctx context.Context, id string) (cipher.AEAD, error) {
	b.mu.RLock()
	a := b.keys[id]
	b.mu.RUnlock()
	if a != nil {
		return a, nil
	}
	if err := b.refresh(ctx); err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if a = b.keys[id]; a == nil {
		return nil, fmt.Errorf("data key %q is unknown: %w", id, ErrEnvelope)
	}
	return a, nil
}

// Reseal makes an envelope of another owner and field from one, for copies of
// documents.
func (b *Box) Reseal(ctx context.Context, fromOwner, fromField, toOwner, toField, envelope string) (string, error) {
	plain, err := b.Open(ctx, fromOwner, fromField, envelope)
	if err != nil {
		return "", err
	}
	return b.Seal(toOwner, toField, plain)
}
