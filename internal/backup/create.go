package backup

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/secret"
)

// Source is the server that is backed up.
type Source struct {
	DB    *db.DB
	Keys  *secret.Box
	Blobs *blob.Dir
	// RunDir has the locks of the processes of this host, by which others know that
	// this backup runs.
	RunDir string
	// Temp is a directory on the server's own disk for what is not encrypted yet.
	Temp string
	// Version of the program, and its settings without secrets.
	Version, Config string
	// Pin keeps the backup from being pruned; nil for retention alone. Earlier backups
	// of the same upgrade lose theirs.
	Pin *Pin
	Log *slog.Logger
	// Progress is told now and then; may be nil.
	Progress func(Progress)
}

func (s *Source) tell(stage string, total int64) func(int64) {
	if s.Progress == nil {
		return func(int64) {}
	}
	s.Progress(Progress{Stage: stage, Total: total})
	return func(n int64) { s.Progress(Progress{stage, n, total}) }
}

// Create takes a backup while the server and everybody else goes on. On an error,
// and after a crash, nothing of it is left that could be taken for a backup.
func (s *Store) Create(ctx context.Context, src Source) (_ Manifest, err error) {
	if src.Log == nil {
		src.Log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up %s: %w", src.DB, translate(err))
		}
	}()
	unlock, err := s.lock(durable.Exclusive)
	if err != nil {
		return Manifest{}, err
	}
	defer unlock()
	if err := s.clean(); err != nil {
		return Manifest{}, err
	}
	temp, err := workDir(src.Temp)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	to, ids, err := src.Keys.BackupRecipients(ctx)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{
		Format: format, ID: newID(time.Now()), Version: src.Version, Config: src.Config, Dialect: src.DB.Dialect().String(),
		Recipients: ids, Pool: poolOf(ids),
	}
	if err := s.forecast(ctx, src, &m); err != nil {
		return m, err
	}
	dir := filepath.Join(s.dir, partial+m.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := failpoint.Hit("backup-begun"); err != nil {
		return m, err
	}
	// What the database lists is not swept away before it is copied.
	hold, err := retention.Hold(ctx, src.DB, src.RunDir, src.Log)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, hold.Release(ctx)) }()
	if err := failpoint.Hit("backup-held"); err != nil {
		return m, err
	}
	hashes, err := s.database(ctx, src, &m, dir, temp, to)
	if err != nil {
		return m, err
	}
	if err := s.copyBlobs(ctx, src, &m, dir, hashes, to); err != nil {
		return m, err
	}
	if took := time.Since(m.Created); took > blob.Grace && !hold.Kept() {
		// What lost its last row since may have been deleted before it was copied.
		return m, fault.New(fault.Unavailable, "The backup took %s, and could not keep the database from forgetting that it runs; what is deleted is kept for %s only. Take another one.", took.Round(time.Minute), blob.Grace)
	}
	if err := writeManifest(dir, &m); err != nil {
		return m, err
	}
	if src.Pin != nil {
		if err := src.Pin.write(dir); err != nil {
			return m, err
		}
	}
	if err := failpoint.Hit("backup-listed"); err != nil {
		return m, err
	}
	if err := s.syncAll(); err != nil {
		return m, err
	}
	if err := os.Rename(dir, filepath.Join(s.dir, m.ID)); err != nil {
		return m, err
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return m, err
	}
	if err := s.replaced(&m, src.Pin); err != nil {
		src.Log.Warn("an earlier backup of the same upgrade is still pinned", "err", err)
	}
	return m, failpoint.Hit("backup-done")
}

// newID names a backup: ids sort by time.
func newID(at time.Time) string {
	return at.UTC().Format(StampLayout) + "-" + strings.ToLower(rand.Text()[:4])
}

// poolOf names the folder of the blobs that are under these keys.
func poolOf(ids []string) string {
	sum := sha256.Sum256([]byte(strings.Join(ids, " ")))
	return hex.EncodeToString(sum[:8])
}

const workPrefix = "backup-"

// workDir makes a folder for this job and removes those of jobs that were killed:
// the caller holds the lock, so no other runs.
func workDir(parent string) (string, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	left, err := filepath.Glob(filepath.Join(parent, workPrefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	return os.MkdirTemp(parent, workPrefix)
}

// syncAll has the file system write everything that is not on disk yet: one call
// for any number of blobs.
func (s *Store) syncAll() error {
	f, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// referred lists the blobs that a database refers to, sorted, each once, in
// constant memory: into a file of one hash per line.
func referred(ctx context.Context, t *db.Tx, path string) (err error) {
	var parts []string
	for _, table := range retention.BlobTables() {
		parts = append(parts, `SELECT sha256 AS h FROM `+table)
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriter(out)
	rows, err := t.Query(ctx, strings.Join(parts, ` UNION `)+` ORDER BY h`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var h string
		if err := rows.Scan(&h); err != nil {
			return err
		}
		if h == "" {
			continue
		}
		if _, err := blob.ParseHash(h); err != nil {
			return err
		}
		if _, err := w.WriteString(h + "\n"); err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), w.Flush())
}

// describe notes what a database says of itself, and its blobs.
func describe(ctx context.Context, t *db.Tx, m *Manifest, hashes string) error {
	meta, err := t.Meta(ctx)
	if err != nil {
		return err
	}
	m.Installation, m.Incarnation = meta.InstallationID, meta.Incarnation
	m.SchemaLevel, m.MinReaderLevel, m.Fingerprint = meta.SchemaLevel, meta.MinReaderLevel, meta.Fingerprint
	if m.Rows, err = t.CountRows(ctx); err != nil {
		return err
	}
	// A rotation may run: what counts is the key at this moment.
	if m.MasterID, m.Escrows, err = secret.Escrows(ctx, t); err != nil {
		return err
	}
	return referred(ctx, t, hashes)
}

// database copies the database as it is at one moment into the backup, and returns
// the file with the hashes of its blobs.
func (s *Store) database(ctx context.Context, src Source, m *Manifest, dir, temp string, to []age.Recipient) (hashes string, err error) {
	hashes = filepath.Join(temp, "hashes")
	path := filepath.Join(temp, "database")
	if m.Canary, err = src.Keys.Seal(m.ID, "canary", []byte(m.ID)); err != nil {
		return "", err
	}
	src.tell("copying the database", 0)
	m.Created = time.Now().UTC()
	if src.DB.Dialect() == db.Postgres {
		err = dump(ctx, src, m, path, hashes)
	} else {
		err = copySQLite(ctx, src, m, path, hashes)
	}
	if err != nil {
		return "", err
	}
	if err := failpoint.Hit("backup-copied"); err != nil {
		return "", err
	}
	in, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer in.Close() // only read
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	compress := m.Dialect == db.SQLite.String() // pg_dump compresses by itself
	m.Database, err = sealFile(ctx, filepath.Join(dir, databaseFile), in, compress, to, src.tell("encrypting the database", info.Size()))
	if err != nil {
		return "", err
	}
	return hashes, errors.Join(os.Remove(path), failpoint.Hit("backup-sealed"))
}

func copySQLite(ctx context.Context, src Source, m *Manifest, path, hashes string) error {
	if err := src.DB.CopyTo(ctx, path); err != nil {
		return err
	}
	d, err := db.Open(ctx, "sqlite:"+path, db.Options{MustExist: true, Readers: 1, Log: src.Log})
	if err != nil {
		return err
	}
	err = d.Read(ctx, func(t *db.Tx) error { return describe(ctx, t, m, hashes) })
	return errors.Join(err, d.Close())
}

// copyBlobs puts every blob that is not there yet into the pool, and writes the list.
func (s *Store) copyBlobs(ctx context.Context, src Source, m *Manifest, dir, hashes string, to []age.Recipient) (err error) {
	in, err := os.Open(hashes)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	out, err := os.OpenFile(filepath.Join(dir, blobsFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	list := newCounted(out, nil)
	pool, err := s.openPool(m.Pool, to)
	if err != nil {
		return err
	}
	tell := src.tell("copying packages, artifacts and logs", m.BlobBytes)
	m.BlobBytes = 0
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		h := blob.Hash(lines.Text())
		size, err := pool.add(ctx, src.Blobs, h)
		var lost *lostError
		if errors.As(err, &lost) {
			src.Log.Warn("a blob of the server is gone or damaged; the backup is without it", "blob", h, "err", lost)
			m.Missing = append(m.Missing, string(h))
			continue
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(list, "%s %d\n", h, size); err != nil {
			return err
		}
		m.BlobCount++
		m.BlobBytes += size
		tell(m.BlobBytes)
		if err := failpoint.Hit("backup-blob"); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	m.Blobs = File{Size: list.n, Stored: list.n, SHA256: list.hex(), StoredSHA256: list.hex()}
	return out.Sync()
}

// lostError says that the server itself has not got a blob any more.
type lostError struct{ reason string }

func (e *lostError) Error() string { return e.reason }

// pool is a folder of encrypted blobs.
type pool struct {
	dir   string
	to    []age.Recipient
	empty int64 // the size of a file that seals nothing
}

func (s *Store) openPool(name string, to []age.Recipient) (*pool, error) {
	p := &pool{dir: filepath.Join(s.dir, poolDir, name), to: to}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(p.dir, "*.tmp"))
	if err != nil {
		return nil, err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	var n counter
	w, err := age.Encrypt(&n, to...)
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	p.empty = int64(n)
	return p, nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func blobPath(pool string, h blob.Hash) string {
	return filepath.Join(pool, string(h[:2]), string(h)+".age")
}

// damagedSuffix is what an empty file has in its name beside a blob that was found damaged.
const damagedSuffix = ".damaged"

// has reports whether a blob of n bytes is there, whole by its size, and nobody has found it
// damaged.
func (p *pool) has(h blob.Hash, n int64) bool {
	path := blobPath(p.dir, h)
	info, err := os.Stat(path)
	return err == nil && info.Size() == sealedSize(p.empty, n) && !exists(path+damagedSuffix)
}

// add puts a blob of the server into the pool, unless it is there.
func (p *pool) add(ctx context.Context, from *blob.Dir, h blob.Hash) (int64, error) {
	r, size, err := from.Open(ctx, h)
	if fault.Is(err, fault.NotFound) {
		return 0, &lostError{"it is not in the server's store"}
	}
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if p.has(h, size) {
		return size, nil
	}
	path := blobPath(p.dir, h)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	tmp := filepath.Join(p.dir, string(h)+".tmp")
	file, err := p.seal(ctx, tmp, r)
	if err != nil {
		return 0, err
	}
	if file.SHA256 != string(h) {
		return 0, errors.Join(os.Remove(tmp), &lostError{"its content is not what its name says"})
	}
	if err := os.Rename(tmp, path); err != nil {
		return 0, err
	}
	if err := os.Remove(path + damagedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return size, nil
}

// seal is sealFile without a sync of its own: there is one for all.
func (p *pool) seal(ctx context.Context, path string, r io.Reader) (file File, err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return file, err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	sealed, err := age.Encrypt(&durable.Paced{File: out}, p.to...)
	if err != nil {
		return file, err
	}
	plain := newCounted(sealed, nil)
	_, err = io.Copy(plain, stopped{ctx, r})
	if err := errors.Join(err, sealed.Close()); err != nil {
		return file, err
	}
	return File{Size: plain.n, SHA256: plain.hex()}, nil
}
