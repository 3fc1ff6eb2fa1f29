package doctor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/retention"
)

// blobsAtOnce is how many blobs are looked up at a time.
const blobsAtOnce = 500

// overdue is how long after it could have been removed a blob without a row is told of.
const overdue = 24 * time.Hour

// labels name the rows of the tables whose column sha256 names blobs, and the size that
// they say a blob has; "0" where they say none.
func labels() map[string][2]string {
	return map[string][2]string{
		"package":          {"s.id", "s.size"},
		"artifact":         {"s.id || ' (' || s.filename || ')'", "s.size"},
		"feed_cache":       {"s.package_id || ' ' || s.version", "s.size"},
		"task_log_segment": {"'log of ' || s.task", "0"},
	}
}

// blobs looks for rows without blobs, blobs without rows, and blobs that are damaged.
func (x *examination) blobs(ctx context.Context) error {
	if x.Blobs == nil {
		return nil
	}
	for _, table := range retention.BlobTables() {
		if err := x.namers(ctx, table); err != nil {
			return err
		}
	}
	return x.stored(ctx)
}

// namers looks for the blob of each row of a table.
func (x *examination) namers(ctx context.Context, table string) error {
	label, known := labels()[table]
	if !known {
		label = [2]string{"s.sha256", "0"}
	}
	for after := ""; ; {
		type named struct {
			hash, where string
			size        int64
		}
		var page []named
		err := x.DB.Read(ctx, func(tx *db.Tx) error {
			page = page[:0]
			rows, err := tx.Query(ctx, `SELECT s.sha256, min(`+label[0]+`), max(`+label[1]+`) FROM `+table+` s WHERE s.sha256 > ? GROUP BY s.sha256 ORDER BY s.sha256 LIMIT ?`, after, blobsAtOnce)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var n named
				if err := rows.Scan(&n.hash, &n.where, &n.size); err != nil {
					return err
				}
				page = append(page, n)
			}
			return rows.Err()
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, n := range page {
			x.check.Looked++
			if err := x.oneNamed(ctx, table, n.hash, n.where, n.size); err != nil {
				return err
			}
		}
		after = page[len(page)-1].hash
	}
}

func (x *examination) oneNamed(ctx context.Context, table, hash, where string, size int64) error {
	info, err := x.Blobs.Stat(ctx, blob.Hash(hash))
	f := Finding{Severity: Error, Where: table + " " + where, Remedy: "Restore it from a backup (tako backup restore into another directory), or push the package again; a log or artifact is lost otherwise."}
	if table == "feed_cache" {
		f.Severity, f.Remedy = Warning, "Nothing: it is fetched again when it is needed."
	}
	switch {
	case fault.Is(err, fault.NotFound):
		f.Code, f.What = "blob-missing", "Its content is not there: blob "+hash
	case err != nil:
		return err
	case size > 0 && info.Size != size:
		f.Code, f.What = "blob-size", fmt.Sprintf("Its content has %d bytes instead of %d: blob %s", info.Size, size, hash)
	default:
		return nil
	}
	x.add(f)
	return nil
}

// stored looks at each blob of the store: whether a row names it and, with Full, whether
// its content is what its name says.
func (x *examination) stored(ctx context.Context) error {
	var total, done int64
	page := make([]blob.Info, 0, blobsAtOnce)
	var orphans, bytes int64
	look := func() error {
		n, size, err := x.unnamed(ctx, page)
		orphans, bytes, page = orphans+n, bytes+size, page[:0]
		return err
	}
	if x.Full {
		for info, err := range x.Blobs.List(ctx) {
			if err != nil {
				return err
			}
			total += info.Size
		}
	}
	for info, err := range x.Blobs.List(ctx) {
		if err != nil {
			return err
		}
		if x.Full {
			if err := x.read(ctx, info); err != nil {
				return err
			}
			done += info.Size
			x.Progress("blobs", done, max(total, done))
		}
		if page = append(page, info); len(page) == blobsAtOnce {
			if err := look(); err != nil {
				return err
			}
		}
	}
	if err := look(); err != nil || orphans == 0 {
		return err
	}
	x.mend(Finding{
		Severity: Warning, Code: "blob-orphan", Where: "blobs", What: fmt.Sprintf("%s (%d bytes) that no row names should have been removed by now", count(orphans, "blob", "blobs"), bytes),
		Remedy: "Retention removes them; see whether it runs. tako doctor --fix does the same once.",
	}, func() (string, error) {
		if x.Sweep == nil {
			return "", errNoSweep
		}
		n, size, err := x.Sweep(ctx)
		return fmt.Sprintf("removed %d blobs (%d bytes); the others are noted, and go when they have been so for %s", n, size, blob.Grace), err
	})
	return nil
}

// unnamed counts the blobs of a page that no row names and that should be gone.
func (x *examination) unnamed(ctx context.Context, page []blob.Info) (n, bytes int64, err error) {
	if len(page) == 0 {
		return 0, 0, nil
	}
	hashes := make([]any, len(page))
	for i, info := range page {
		hashes[i] = string(info.Hash)
	}
	in := `(?` + strings.Repeat(`, ?`, len(page)-1) + `)`
	named, noted := map[string]bool{}, map[string]time.Time{}
	err = x.DB.Read(ctx, func(tx *db.Tx) error {
		clear(named)
		clear(noted)
		for _, table := range retention.BlobTables() {
			rows, err := tx.Query(ctx, `SELECT s.sha256 FROM `+table+` s WHERE s.sha256 IN `+in, hashes...)
			if err != nil {
				return err
			}
			for rows.Next() {
				var h string
				if err := rows.Scan(&h); err != nil {
					return errors.Join(err, rows.Close())
				}
				named[h] = true
			}
			if err := errors.Join(rows.Err(), rows.Close()); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, `SELECT s.sha256, s.since FROM blob_orphan s WHERE s.sha256 IN `+in, hashes...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var h string
			var since int64
			if err := rows.Scan(&h, &since); err != nil {
				return err
			}
			noted[h] = db.Time(since)
		}
		return rows.Err()
	})
	if err != nil {
		return 0, 0, err
	}
	// A blob may be put before its row, and stays for a grace after it was noted.
	old := time.Now().Add(-blob.Grace - overdue)
	for _, info := range page {
		since, isNoted := noted[string(info.Hash)]
		if !named[string(info.Hash)] && info.Used.Before(old) && (!isNoted || since.Before(old)) {
			n, bytes = n+1, bytes+info.Size
		}
	}
	return n, bytes, nil
}

// read reads a blob, and compares its hash.
func (x *examination) read(ctx context.Context, info blob.Info) error {
	r, _, err := x.Blobs.Open(ctx, info.Hash)
	if fault.Is(err, fault.NotFound) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	defer r.Close() // only read
	sum := sha256.New()
	_, err = io.Copy(sum, reader{ctx, r})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f := Finding{Severity: Error, Code: "blob-damaged", Where: "blob " + string(info.Hash), Remedy: "Restore it from a backup: the same `tako backup restore` puts a good one in its place."}
	switch {
	case err != nil:
		x.Log.Error("read a blob", "blob", info.Hash, "err", err)
		f.What = "Its content cannot be read: " + readable(err)
	case hex.EncodeToString(sum.Sum(nil)) != string(info.Hash):
		f.What = "Its content is not what its name says"
	default:
		return nil
	}
	x.add(f)
	return nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context //nolint:containedctx // it lives as long as one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
