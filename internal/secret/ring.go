package secret

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
)

// changed is the kind under which the keys' rows count their changes.
const changed = "secret_key"

// passage is the way from a former master key to the one that the data keys are
// under: the new key, sealed by the former. It is there while a rotation runs, so
// that other nodes, and a start after a crash, get from one to the other.
type passage struct {
	from, to string
	sealed   []byte
}

func readPassage(ctx context.Context, t *db.Tx) (passage, error) {
	var p passage
	err := t.QueryRow(ctx, `SELECT from_id, to_id, sealed FROM secret_passage`).Scan(&p.from, &p.to, &p.sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil
	}
	return p, err
}

// through goes the way with the former key in hand.
func (p passage) through(master MasterKey) (MasterKey, error) {
	raw, err := unwrapAs(master, "passage", p.to, p.sealed)
	if err != nil || len(raw) != KeySize {
		return MasterKey{}, errors.New("the new master key in secret_passage is damaged; put it into master.key from the recovery kit (`tako key recover`)")
	}
	return masterKey([KeySize]byte(raw)), nil
}

// adopt takes the data keys in hand. If they are under a new master key and there
// is a passage to it, that becomes the master key here too.
func (b *Box) adopt(wrapped []wrappedKey, way passage) error {
	b.mu.RLock()
	master := b.master
	b.mu.RUnlock()
	if want := wrapped[0].master; want != master.ID() && way.from == master.ID() && way.to == want {
		next, err := way.through(master)
		if err != nil {
			return err
		}
		if b.src.Managed() {
			if err := replaceKey(b.src.Dir, master.ID(), next); err != nil {
				return fmt.Errorf("keep the new master key: %w", err)
			}
		}
		master = next
	}
	keys, err := unwrapAll(master, wrapped)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.master, b.newest = master, wrapped[0].id
	maps.Copy(keys, missingFrom(keys, b.keys))
	b.keys = keys
	return nil
}

// missingFrom are the members of old that now has not.
func missingFrom(now, old map[string]cipher.AEAD) map[string]cipher.AEAD {
	left := map[string]cipher.AEAD{}
	for id, a := range old {
		if now[id] == nil {
			left[id] = a
		}
	}
	return left
}

// replaceKey puts a new key in the place of the former one, unless that was done.
func replaceKey(dir, from string, next MasterKey) error {
	path := filepath.Join(dir, FileName)
	k, err := readKey(path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && k.ID() == next.ID():
		return nil
	case err == nil && k.ID() != from:
		return fmt.Errorf("%s has master key %s, which is neither the former nor the new one", path, k.ID())
	}
	prepared := filepath.Join(dir, nextName)
	if k, err := readKey(prepared); err != nil || k.ID() != next.ID() {
		if err := os.Remove(prepared); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := writeKey(prepared, next); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Another process on this directory may have been faster by now.
	if err := os.Rename(prepared, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(dir)
}

// refresh reads the keys again, since another process changed them.
func (b *Box) refresh(ctx context.Context) error {
	b.again.Lock()
	defer b.again.Unlock()
	wrapped, way, err := b.load(ctx)
	if err != nil {
		return err
	}
	if len(wrapped) == 0 {
		return errors.New("the database has lost its data keys (table secret_key is empty); restore a backup")
	}
	return b.adopt(wrapped, way)
}

// Follow keeps the keys those of the database, and tells which ones this node has
// in hand, until ctx ends. node is its incarnation, as in the table node. A
// rotation waits for every running node.
func (b *Box) Follow(ctx context.Context, node string, log *slog.Logger) error {
	commits := b.d.Subscribe()
	defer commits.Close()
	var seen uint64
	told := ""
	for {
		now, err := b.d.Changes(ctx, changed)
		if err == nil && (told == "" || now != seen) {
			if err = b.refresh(ctx); err == nil {
				told, err = b.tell(ctx, node, told)
			}
			if err == nil {
				seen = now
			}
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("follow the keys of secrets", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-commits.C:
		}
	}
}

// tell writes which keys this node has, if it has others than it told before.
func (b *Box) tell(ctx context.Context, node, before string) (string, error) {
	b.mu.RLock()
	master, key := b.master.ID(), b.newest
	b.mu.RUnlock()
	if now := master + " " + key; now == before {
		return now, nil
	}
	err := b.d.Write(ctx, func(t *db.Tx) error {
		_, err := t.Exec(ctx, `INSERT INTO secret_holder (node, master_id, key_id) VALUES (?, ?, ?)
			ON CONFLICT (node) DO UPDATE SET master_id = excluded.master_id, key_id = excluded.key_id`, node, master, key)
		return err
	})
	return master + " " + key, err
}

// behind lists the running nodes that do not have the newest keys in hand, and
// forgets those that no longer run.
func (b *Box) behind(ctx context.Context, live []string) ([]string, error) {
	b.mu.RLock()
	master, key := b.master.ID(), b.newest
	b.mu.RUnlock()
	has := map[string]bool{}
	err := b.d.Read(ctx, func(t *db.Tx) error {
		clear(has)
		rows, err := t.Query(ctx, `SELECT node, master_id, key_id FROM secret_holder ORDER BY node`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var node, m, k string
			if err := rows.Scan(&node, &m, &k); err != nil {
				return err
			}
			has[node] = m == master && k == key
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read which keys the nodes have: %w", err)
	}
	var late []string
	for _, node := range live {
		if !has[node] {
			late = append(late, node)
		}
	}
	return late, nil
}

// forgetHolders removes what nodes told that no longer run.
func forgetHolders(ctx context.Context, t *db.Tx, live []string) error {
	rows, err := t.Query(ctx, `SELECT node FROM secret_holder ORDER BY node`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var gone []string
	for rows.Next() {
		var node string
		if err := rows.Scan(&node); err != nil {
			return err
		}
		if !slices.Contains(live, node) {
			gone = append(gone, node)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, node := range gone {
		if _, err := t.Exec(ctx, `DELETE FROM secret_holder WHERE node = ?`, node); err != nil {
			return err
		}
	}
	return nil
}
