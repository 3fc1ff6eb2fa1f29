package backup

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/internal/secret"
)

// The levels of verification. Each does what the ones before it do.
const (
	// LevelFiles decrypts every file and compares its hash.
	LevelFiles = 1
	// LevelDatabase restores the database into a scratch place, reads it whole,
	// compares the rows of each table and opens every secret.
	LevelDatabase = 2
	// LevelBoot restores everything into a scratch place and starts the program on it.
	LevelBoot = 3
)

// Keys are what opens backups.
type Keys struct {
	// Identities decrypt the files, Masters open the secrets of the database.
	Identities []age.Identity
	Masters    []secret.MasterKey
	// Recovery, if it is given, does both.
	Recovery *secret.RecoveryKey
}

// ServerKeys are those that a server has, and recovery, if it is not nil.
func ServerKeys(ctx context.Context, box *secret.Box, src secret.Source, recovery *secret.RecoveryKey) (Keys, error) {
	k := Keys{Recovery: recovery}
	var err error
	if k.Identities, err = box.BackupIdentities(ctx); err != nil {
		return k, err
	}
	master, err := src.Load()
	k.Masters = []secret.MasterKey{master}
	return k, err
}

// KeysOf are those of a master key and a recovery key alone; either may be absent.
func KeysOf(master secret.MasterKey, recovery *secret.RecoveryKey) (Keys, error) {
	k := Keys{Recovery: recovery}
	if master.ID() == "" {
		return k, nil
	}
	identity, err := master.BackupIdentity()
	k.Identities, k.Masters = []age.Identity{identity}, []secret.MasterKey{master}
	return k, err
}

func (k *Keys) identities() []age.Identity {
	if k.Recovery == nil {
		return k.Identities
	}
	return append(slices.Clone(k.Identities), k.Recovery.Identity())
}

// master finds the master key of a backup's secrets.
func (k *Keys) master(m *Manifest) (secret.MasterKey, error) {
	for _, key := range k.Masters {
		if key.ID() == m.MasterID {
			return key, nil
		}
	}
	if k.Recovery != nil {
		for _, e := range m.Escrows {
			if e.Recovery == k.Recovery.ID() && e.MasterID == m.MasterID {
				return e.Open(*k.Recovery)
			}
		}
	}
	return secret.MasterKey{}, fault.New(fault.Invalid, "The secrets of backup %s are under master key %s, which is not here; give the recovery kit of its time with --recovery-key-file.", m.ID, m.MasterID)
}

// VerifyOptions of Verify.
type VerifyOptions struct {
	Level int
	Keys  Keys
	// Temp is a directory on the server's own disk for what is decrypted.
	Temp string
	// Server is a PostgreSQL database whose server takes the scratch database; nil
	// for backups of SQLite.
	Server *db.DB
	// Places are where the database keeps sealed values.
	Places func() []secret.Place
	// Keep leaves the database that was restored for the next verification of this backup,
	// which is then spared to restore it; the one with Last removes it. On SQLite, or at
	// LevelBoot, which changes it, nothing is kept.
	Keep, Last bool
	// Boot starts the program on a restored copy and has it answer, for LevelBoot.
	Boot     func(ctx context.Context, copy Copy) error
	Version  string
	Log      *slog.Logger
	Progress func(Progress)
}

// Copy is a backup restored into a scratch place.
type Copy struct {
	// Data is a data directory, Database the URL of the database.
	Data, Database string
	Master         secret.MasterKey
	Manifest       Manifest
}

// maxProblems bounds the problems that are named one by one.
const maxProblems = 50

// DamagedError says what is wrong with a backup.
type DamagedError struct {
	ID       string
	Problems []string
	More     int // problems beyond those named
}

// Error names every problem.
func (e *DamagedError) Error() string {
	text := fmt.Sprintf("backup %s is damaged: %s", e.ID, strings.Join(e.Problems, "; "))
	if e.More > 0 {
		text += fmt.Sprintf("; and %d more", e.More)
	}
	return text + ". Take a new backup, and restore from another one"
}

// ExitCode tells a damaged backup from one that could not be looked at.
func (e *DamagedError) ExitCode() int { return fault.ExitFound }

// BootError says that this program did not work on a copy of a backup. It says nothing
// against the backup, whose proof stays as it is.
type BootError struct {
	ID  string
	Err error
}

// Error says what did not work.
func (e *BootError) Error() string {
	return fmt.Sprintf("the program did not work on a copy of backup %s: %v. The backup is not to blame, and what was proven of it before still holds; look for the reason in this version of the program", e.ID, e.Err)
}

// Unwrap gives what the program failed with.
func (e *BootError) Unwrap() error { return e.Err }

// ExitCode tells a program that does not work from a damaged backup.
func (e *BootError) ExitCode() int { return fault.ExitDidNotWork }

type problems struct {
	named []string
	more  int
}

func (p *problems) add(format string, args ...any) {
	if len(p.named) < maxProblems {
		p.named = append(p.named, fmt.Sprintf(format, args...))
	} else {
		p.more++
	}
}

func (p *problems) err(id string) error {
	if len(p.named) == 0 {
		return nil
	}
	return &DamagedError{id, p.named, p.more}
}

// Verify proves a backup, and notes the proof beside it. Damage is a *DamagedError,
// which takes an earlier proof back. A *BootError, that this program does not work on the
// copy, leaves an earlier proof alone.
func (s *Store) Verify(ctx context.Context, id string, opt VerifyOptions) (_ Verified, err error) {
	started := time.Now()
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	dir, unlock, err := s.hold(id)
	if err != nil {
		return Verified{}, err
	}
	defer unlock()
	id = filepath.Base(dir)
	err = s.verify(ctx, dir, &opt)
	var damaged *DamagedError
	if errors.As(err, &damaged) {
		err := os.Remove(filepath.Join(dir, verifiedFile))
		if err == nil {
			err = durable.SyncDir(dir)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Verified{}, errors.Join(damaged, err)
		}
	}
	if err != nil {
		return Verified{}, fmt.Errorf("verify backup %s: %w", id, translate(err))
	}
	v := Verified{Level: opt.Level, At: time.Now().UTC(), Took: time.Since(started), By: opt.Version}
	if before := readVerified(dir); before != nil && before.Level > v.Level {
		return v, nil // the stronger proof stays
	}
	text, err := json.Marshal(v)
	if err != nil {
		return v, err
	}
	return v, writeFile(filepath.Join(dir, verifiedFile), text)
}

func (s *Store) verify(ctx context.Context, dir string, opt *VerifyOptions) (err error) {
	m, err := readManifest(dir)
	if err != nil {
		if fault.Is(err, fault.Unsupported) {
			return err
		}
		return &DamagedError{ID: filepath.Base(dir), Problems: []string{err.Error()}}
	}
	temp, release, err := verifyDir(opt.Temp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	needed := m.Database.Size
	if opt.Level >= LevelBoot {
		needed += m.BlobBytes
	}
	if err := checkSpace(min(stayFree, needed), need{temp, needed}); err != nil {
		return err
	}
	c := Copy{Data: filepath.Join(temp, "data"), Manifest: m}
	if err := os.Mkdir(c.Data, 0o700); err != nil {
		return err
	}
	var into *blob.Dir
	if opt.Level >= LevelBoot {
		if into, err = blob.OpenDir(filepath.Join(c.Data, "blobs")); err != nil {
			return err
		}
	}
	found := &problems{}
	database := filepath.Join(c.Data, "tako.db")
	whole, err := unsealDatabase(ctx, dir, &m, database, opt.Keys.identities(), tellOf(opt.Progress, "decrypting the database", m.Database.Size), found)
	if err != nil {
		return err
	}
	err = s.eachBlob(ctx, dir, &m, opt.Keys.identities(), tellOf(opt.Progress, "reading packages, artifacts and logs", m.BlobBytes), found, func(h blob.Hash, size int64, r io.Reader) error {
		if into == nil {
			_, err := io.Copy(io.Discard, r)
			return err
		}
		_, err := into.Put(ctx, r, size)
		return err
	})
	if err != nil {
		return err
	}
	if whole && opt.Level >= LevelDatabase {
		if err := verifyDatabase(ctx, &c, database, opt, found); err != nil {
			return err
		}
	}
	return found.err(m.ID)
}

// verifyDir makes a folder to verify in, and removes those of processes that were
// killed: a living one holds its folder's lock.
func verifyDir(parent string) (dir string, release func() error, err error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	left, err := filepath.Glob(filepath.Join(parent, "verify-*"))
	if err != nil {
		return "", nil, err
	}
	hold := func(dir string) (*os.File, error) {
		f, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		if err := durable.TryFlock(f, durable.Exclusive, durable.Moment); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
	for _, old := range left {
		f, err := hold(old)
		if err != nil {
			continue // somebody works in it, or has just ended
		}
		if err := errors.Join(os.RemoveAll(old), durable.Release(f)); err != nil {
			return "", nil, err
		}
	}
	if dir, err = os.MkdirTemp(parent, "verify-"); err != nil {
		return "", nil, err
	}
	f, err := hold(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), durable.Release(f)) }, nil
}

func tellOf(fn func(Progress), stage string, total int64) func(int64) {
	return (&Source{Progress: fn}).tell(stage, total)
}

// unsealDatabase decrypts the database into a new file, and reports whether it is whole. That
// its content is on the disk is left to those who keep it.
func unsealDatabase(ctx context.Context, dir string, m *Manifest, path string, by []age.Identity, tell func(int64), found *problems) (whole bool, err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	source := filepath.Join(dir, databaseFile)
	info, err := os.Stat(source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		found.add("%s is not there", databaseFile)
		return false, nil
	case err != nil:
		return false, err
	case info.Size() != m.Database.Stored:
		found.add("%s has %d bytes instead of %d", databaseFile, info.Size(), m.Database.Stored)
		return false, nil
	}
	in, err := openFile(ctx, source, m.Dialect == db.SQLite.String(), by, tell)
	if err == nil {
		defer in.close()
		_, err = io.Copy(&durable.Paced{File: out}, in)
	}
	if errors.Is(err, errWrongKey) {
		// A damaged header looks the same.
		if sum, hashErr := hashFile(ctx, source); hashErr != nil {
			return false, hashErr
		} else if sum != m.Database.StoredSHA256 {
			err = errors.New("it is damaged")
		}
	}
	switch {
	case errors.Is(err, errWrongKey), isOurs(ctx, err):
		return false, fmt.Errorf("decrypt %s: %w", databaseFile, err)
	case err != nil:
		found.add("%s: %v", databaseFile, err)
		return false, nil
	case !in.is(m.Database.Size, m.Database.SHA256):
		found.add("%s has not the content that it had", databaseFile)
		return false, nil
	}
	return true, nil
}

func hashFile(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	sum := newCounted(io.Discard, nil)
	_, err = io.Copy(sum, stopped{ctx, f})
	return sum.hex(), err
}

// isOurs tells troubles of this machine from damage of a backup.
func isOurs(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || reserve.Full(err) || fault.Is(err, fault.Unavailable))
}

// eachBlob gives the content of every blob of a backup to fn, which reads it whole;
// what is not as it should be goes to found.
func (s *Store) eachBlob(ctx context.Context, dir string, m *Manifest, by []age.Identity, tell func(int64), found *problems, fn func(h blob.Hash, size int64, r io.Reader) error) error {
	list, err := openList(dir, m)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errList) {
		found.add("%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer list.Close() // only read
	var done int64
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		name, digits, _ := strings.Cut(lines.Text(), " ")
		h, err := blob.ParseHash(name)
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return err
		}
		err = s.oneBlob(ctx, m, h, n, by, fn)
		if errors.Is(err, errWrongKey) {
			err = errors.New("its header is damaged") // the database is under the same keys, and opened
		}
		switch {
		case isOurs(ctx, err):
			return fmt.Errorf("blob %s: %w", h, err)
		case errors.Is(err, fs.ErrNotExist):
			found.add("blob %s is not there", h)
		case err != nil:
			found.add("blob %s: %v", h, err)
			s.distrust(m.Pool, h)
		}
		done += n
		tell(done)
	}
	return lines.Err()
}

// distrust has the next backup take a blob anew that is not what it was, though it has its
// size: with it the backups that share it are good again. Whoever may not write there takes
// no backups there either.
func (s *Store) distrust(pool string, h blob.Hash) {
	if f, err := os.OpenFile(blobPath(s.poolPath(pool), h)+damagedSuffix, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		_ = f.Close() // it has nothing in it
	}
}

// errList says that the list of a backup's blobs is not what it was.
var errList = errors.New(blobsFile + " is damaged")

// openList opens the list of a backup's blobs once it has shown that it is whole.
func openList(dir string, m *Manifest) (_ *os.File, err error) {
	f, err := os.Open(filepath.Join(dir, blobsFile))
	if err != nil {
		return nil, err
	}
	sum := newCounted(io.Discard, nil)
	_, err = io.Copy(sum, f)
	if err == nil && sum.hex() != m.Blobs.SHA256 {
		err = errList
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *Store) oneBlob(ctx context.Context, m *Manifest, h blob.Hash, n int64, by []age.Identity, fn func(blob.Hash, int64, io.Reader) error) error {
	in, err := openFile(ctx, blobPath(s.poolPath(m.Pool), h), false, by, nil)
	if err != nil {
		return err
	}
	defer in.close()
	if err := fn(h, n, in); err != nil {
		return err
	}
	if !in.is(n, string(h)) {
		return errors.New("it has not the content that it had")
	}
	return nil
}

// verifyDatabase opens the restored database and holds it against the manifest.
func verifyDatabase(ctx context.Context, c *Copy, path string, opt *VerifyOptions, found *problems) (err error) {
	tellOf(opt.Progress, "reading the database", 0)
	c.Database = "sqlite:" + path
	if c.Manifest.Dialect == db.Postgres.String() {
		if opt.Server == nil || opt.Server.Dialect() != db.Postgres {
			return fault.New(fault.Invalid, "The backup is of PostgreSQL; name a database of the server that is to take the scratch copy with --database.")
		}
		place, err := newScratch(ctx, c, path, opt)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, place.done(ctx, err == nil && len(found.named) == 0)) }()
		c.Database = place.URL
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	d, err := db.Open(ctx, c.Database, db.Options{MustExist: true, Log: opt.Log})
	if isOurs(ctx, err) {
		return err
	}
	if err != nil {
		found.add("the database does not open: %v", err)
		return nil
	}
	err = inspect(ctx, d, c, opt, found)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	if len(found.named) > 0 || opt.Level < LevelBoot {
		return nil
	}
	tellOf(opt.Progress, "starting the program on the copy", 0)
	if err := secret.PutMasterKey(c.Data, c.Master); err != nil {
		return err
	}
	return c.blame(ctx, opt.Boot(ctx, *c))
}

// blame makes a failure of the program on a copy one of the program, unless it is a
// trouble of this machine.
func (c *Copy) blame(ctx context.Context, err error) error {
	if err == nil || isOurs(ctx, err) {
		return err
	}
	return &BootError{c.Manifest.ID, err}
}

// older reports whether the schema of a copy is of a level that this program has yet to
// expand: what fails on it may be the program's fault.
func (c *Copy) older() bool { return c.Manifest.SchemaLevel < db.BinaryLevels().Level }

func inspect(ctx context.Context, d *db.DB, c *Copy, opt *VerifyOptions, found *problems) error {
	m := &c.Manifest
	damage, err := d.Integrity(ctx)
	if isOurs(ctx, err) {
		return err
	}
	if err != nil {
		found.add("the database cannot be read: %v", err)
		return nil
	}
	for _, what := range damage {
		found.add("the database: %s", what)
	}
	var rows map[string]int64
	err = d.Read(ctx, func(t *db.Tx) (err error) {
		rows, err = t.CountRows(ctx)
		return err
	})
	if isOurs(ctx, err) {
		return err
	}
	if err != nil {
		found.add("the database cannot be read: %v", err)
		return nil
	}
	for table, want := range m.Rows {
		if got, ok := rows[table]; !ok || got != want {
			found.add("table %s has %d rows instead of %d", table, got, want)
		}
	}
	if c.Master, err = opt.Keys.master(m); err != nil {
		return err
	}
	box, err := secret.Open(ctx, d, secret.Source{Text: secret.Text(c.Master.Reveal())})
	var wrong *secret.WrongKeyError
	switch {
	case err == nil:
	case isOurs(ctx, err), c.older() && !errors.As(err, &wrong) && len(found.named) == 0:
		return c.blame(ctx, err)
	default:
		found.add("the secrets do not open: %v", err)
		return nil
	}
	canary, err := box.Open(ctx, m.ID, "canary", m.Canary)
	if isOurs(ctx, err) {
		return err
	}
	if err != nil || string(canary) != m.ID {
		found.add("the canary does not open: %v", err)
	}
	h, err := box.Check(ctx, opt.Places())
	if err != nil && c.older() && len(found.named) == 0 {
		return c.blame(ctx, err)
	}
	if err != nil {
		return err
	}
	for _, ref := range h.Dead {
		found.add("a secret does not open: %s", ref)
	}
	return nil
}
