package external

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// usedEvery is how exactly the cache knows when a package was used last.
const usedEvery = time.Hour

// place is where a package is kept in the cache.
type place struct{ feed, origin, id, version string }

// originOf names where a feed leads: what was fetched from another address under
// the same id is not its package.
func originOf(doc *octopus.Feed) string {
	h := sha256.New()
	for _, s := range []string{string(doc.FeedType), doc.FeedURI, doc.RegistryPath, doc.Region, doc.Repository} {
		_, _ = fmt.Fprintf(h, "%d:%s", len(s), s) // a hash does not fail
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Fetch gets a package, from the cache or from its feed; fault.NotFound when the feed
// does not have it. Of several callers who want the same package of a feed at once,
// one fetches it and the others wait.
func (f *Feeds) Fetch(ctx context.Context, space ident.SpaceID, feedID, packageID, text string) (File, error) {
	if err := errors.Join(checkName("packageId", packageID), checkName("version", text)); err != nil {
		return File{}, err
	}
	o, err := f.open(ctx, space, feedID)
	if err != nil {
		return File{}, err
	}
	at := place{o.doc.ID, originOf(&o.doc), packageID, text}
	free, err := f.alone(ctx, strings.Join([]string{at.feed, at.origin, at.id, at.version}, "\x00"))
	if err != nil {
		return File{}, err
	}
	defer free()
	if file, ok, err := f.cached(ctx, at); err != nil || ok {
		return file, err
	}
	return f.fetch(ctx, space, o, at)
}

// alone waits until nobody else fetches what has that name.
func (f *Feeds) alone(ctx context.Context, name string) (free func(), err error) {
	for {
		f.mu.Lock()
		busy, ok := f.fetching[name]
		if !ok {
			done := make(chan struct{})
			f.fetching[name] = done
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				delete(f.fetching, name)
				f.mu.Unlock()
				close(done)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (f *Feeds) fetch(ctx context.Context, space ident.SpaceID, o *opened, at place) (File, error) {
	d, err := o.source.open(ctx, at.id, at.version)
	if err != nil {
		return File{}, err
	}
	var content io.Reader = d.body
	if d.hash != nil {
		content = io.TeeReader(content, d.hash)
	}
	info, err := f.cfg.Blobs.Put(ctx, content, f.cfg.MaxPackage)
	if errClose := d.body.Close(); err == nil {
		err = errClose
	}
	switch {
	case fault.Is(err, fault.TooLarge):
		return File{}, fault.New(fault.TooLarge, "The package %s version %s in the feed '%s' has more than %d bytes, which is the most that one can have; split it.", at.id, at.version, o.doc.Name, f.cfg.MaxPackage)
	case err != nil:
		return File{}, fmt.Errorf("fetch package %s %s: %w", at.id, at.version, err)
	}
	if d.hash != nil {
		if got := hex.EncodeToString(d.hash.Sum(nil)); !strings.EqualFold(got, d.sum) {
			return File{}, fault.New(fault.Unavailable, "The package %s version %s came from the feed '%s' with the hash %s, and the feed says %.130s; try again, or publish it there anew.", at.id, at.version, o.doc.Name, got, d.sum)
		}
	}
	file := File{Name: path.Base(strings.ReplaceAll(d.name, `\`, "/")), SHA256: string(info.Hash), Size: info.Size}
	return file, f.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		if err := info.Fresh(); err != nil {
			return err
		}
		// A version that may change stays named, so that its blob is kept until it
		// was used, and is never taken from the cache.
		_, err := tx.Exec(ctx, `INSERT INTO feed_cache (feed_id, origin, package_id, version, space_id, file_name, sha256, size, moving, used)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (feed_id, origin, package_id, version)
			DO UPDATE SET file_name = excluded.file_name, sha256 = excluded.sha256, size = excluded.size, moving = excluded.moving, used = excluded.used`,
			at.feed, at.origin, at.id, at.version, string(space), file.Name, file.SHA256, file.Size, boolean(d.moving), db.Micros(tx.Now()))
		return err
	})
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// cached looks a package up in the cache, and notes that it was used.
func (f *Feeds) cached(ctx context.Context, at place) (file File, ok bool, err error) {
	var used int64
	err = f.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		err := tx.QueryRow(ctx, `SELECT c.file_name, c.sha256, c.size, c.used FROM feed_cache c
			WHERE c.feed_id = ? AND c.origin = ? AND c.package_id = ? AND c.version = ? AND c.moving = 0`,
			at.feed, at.origin, at.id, at.version).Scan(&file.Name, &file.SHA256, &file.Size, &used)
		if ok = err == nil; errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil || !ok || time.Since(db.Time(used)) < usedEvery {
		return file, ok, err
	}
	err = f.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE feed_cache SET used = ? WHERE feed_id = ? AND origin = ? AND package_id = ? AND version = ? AND sha256 = ?`,
			db.Micros(tx.Now()), at.feed, at.origin, at.id, at.version, file.SHA256)
		ok = n > 0 // else it has just been pruned
		return err
	})
	return file, ok, err
}

// Prune forgets fetched packages that were not used for CacheAge, and of the others
// those that were used longest ago until CacheBytes are left. Their contents go with
// the next sweeps of the blob store. It tells how many went, and how many bytes.
func (f *Feeds) Prune(ctx context.Context) (n int, bytes int64, err error) {
	err = f.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		n, bytes = 0, 0
		before, err := f.oldest(ctx, tx)
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT count(*), COALESCE(sum(c.size), 0) FROM feed_cache c WHERE c.used < ?`, before).Scan(&n, &bytes); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM feed_cache WHERE used < ?`, before)
		return err
	})
	return n, bytes, err
}

// oldest is the time from which on what was used is kept.
func (f *Feeds) oldest(ctx context.Context, tx *db.Tx) (int64, error) {
	before := db.Micros(tx.Now().Add(-f.cfg.CacheAge))
	rows, err := tx.Query(ctx, `SELECT c.used, c.size FROM feed_cache c WHERE c.used >= ? ORDER BY c.used DESC`, before)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for left := f.cfg.CacheBytes; rows.Next(); {
		var used, size int64
		if err := rows.Scan(&used, &size); err != nil {
			return 0, err
		}
		if left -= size; left < 0 {
			return used + 1, rows.Err()
		}
	}
	return before, rows.Err()
}
