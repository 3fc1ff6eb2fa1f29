// Package backup takes backups of a running server, proves that they are good, and
// restores them.
//
// A backup is one moment of the database, with every blob that the database refers
// to at that moment. Blobs are there before the rows that name them and never
// change, so copying them after the database gives a whole that fits together,
// while everybody else goes on.
//
// # On disk
//
//	backups/
//	  20261127T141502Z-k3f9/   one backup
//	    database.age           the SQLite file, or pg_dump's custom format; zstd, age
//	    blobs.txt              the hash and size of each blob, sorted
//	    manifest.json          what it is: versions, counts, hashes; without secrets
//	    VERIFIED               that, when and how it was proven; written last
//	    KEEP                   why, and until when, it is not pruned; if somebody wants it
//	  blobs/<keys>/ab/<hash>.age
//	                 <hash>.age.damaged   that it was found so, and the next backup takes it anew
//
// Blobs are encrypted one by one and shared between the backups that are under the
// same keys, so that a backup costs only what is new since the last one. Everything
// is encrypted (age, X25519) to the recovery key and to a key of the server's own.
//
// A backup is made under another name and gets its own when it is whole and on
// disk; what a killed process left is removed by the next.
package backup

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/internal/secret"
)

// StampLayout is the time in a backup's name, in UTC: when it was begun.
const StampLayout = "20060102T150405Z"

// format of backups that this version writes.
const format = 1

// Names within a backup.
const (
	databaseFile = "database.age"
	blobsFile    = "blobs.txt"
	manifestFile = "manifest.json"
	verifiedFile = "VERIFIED"

	poolDir = "blobs"
	partial = ".partial-"
	trash   = ".trash-"
)

// maxManifest bounds what is read of a manifest, in bytes.
const maxManifest = 4 << 20

// Manifest says what a backup is. It tells no secret.
type Manifest struct {
	Format int
	ID     string
	// Created is the instant of the database that it has.
	Created time.Time
	// Version is that of the program, Config its settings without secrets.
	Version, Config string
	// Installation and Incarnation are the database's own.
	Installation, Incarnation string
	Dialect                   string // "sqlite" or "postgres"
	// Postgres is the server's major version and Schema where the tables were.
	Postgres int    `json:",omitempty"`
	Schema   string `json:",omitempty"`
	// The levels of the schema, and its fingerprint.
	SchemaLevel, MinReaderLevel int
	Fingerprint                 string
	// MasterID names the master key of its secrets, which is in Escrows, encrypted
	// to the recovery keys. Canary is a sealed value that the key opens.
	MasterID, Canary string
	Escrows          []secret.Escrow
	// Recipients are the keys it is encrypted to, Pool the folder of its blobs.
	Recipients []string
	Pool       string
	// Rows counts the rows of each table.
	Rows     map[string]int64
	Database File
	Blobs    File
	// BlobCount and BlobBytes are those of the content; Missing lists the blobs
	// that the server itself had no more, or damaged.
	BlobCount, BlobBytes int64
	Missing              []string `json:",omitempty"`
}

// File is one file of a backup: its content, and what is stored of it.
type File struct {
	Size, Stored         int64
	SHA256, StoredSHA256 string
}

// Verified says how a backup was proven.
type Verified struct {
	Level int
	At    time.Time
	Took  time.Duration
	By    string // the program's version
}

// Backup is one in the list. Problem says why one cannot be read.
type Backup struct {
	Manifest
	Verified *Verified
	// Pin keeps it from being pruned, also when that has ended; nil for none.
	Pin *Pin
	// Stored is what it takes on disk without its blobs.
	Stored  int64
	Problem string
}

// Store is a directory with backups.
type Store struct{ dir string }

// Open opens a directory of backups, and makes it if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, poolDir), 0o700); err != nil {
		return nil, fmt.Errorf("open backups: %w", translate(err))
	}
	return &Store{dir}, nil
}

// Dir is where the backups are.
func (s *Store) Dir() string { return s.dir }

var idPattern = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[a-z0-9]{4}$`)

// path is the folder of a backup. id is what List shows, or "latest".
func (s *Store) path(id string) (string, error) {
	if id == "latest" {
		all, err := s.List()
		if err != nil {
			return "", err
		}
		if len(all) == 0 {
			return "", fault.New(fault.NotFound, "There is no backup in %s.", s.dir)
		}
		id = all[0].ID
	}
	if !idPattern.MatchString(id) {
		return "", fault.New(fault.Invalid, "%q is no name of a backup, which looks like 20261127T141502Z-k3f9; `tako backup list` shows them.", id)
	}
	dir := filepath.Join(s.dir, id)
	if _, err := os.Stat(filepath.Join(dir, manifestFile)); errors.Is(err, fs.ErrNotExist) {
		return "", fault.New(fault.NotFound, "There is no backup %s in %s.", id, s.dir)
	}
	return dir, nil
}

// sealedManifest guards a manifest against damage.
type sealedManifest struct {
	SHA256   string          `json:"sha256"`
	Manifest json.RawMessage `json:"manifest"`
}

// readManifest reads and checks the manifest of the backup in dir.
func readManifest(dir string) (Manifest, error) {
	var m Manifest
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if err != nil {
		return m, err
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return m, err
	}
	damaged := fmt.Errorf("%s is damaged", filepath.Join(filepath.Base(dir), manifestFile))
	var s sealedManifest
	if err := json.Unmarshal(text, &s); err != nil {
		return m, damaged
	}
	if sum := sha256.Sum256(s.Manifest); hex.EncodeToString(sum[:]) != s.SHA256 {
		return m, damaged
	}
	if err := json.Unmarshal(s.Manifest, &m); err != nil {
		return m, damaged
	}
	if m.Format != format {
		return m, fault.New(fault.Unsupported, "Backup %s has format %d and this version of Tako reads format %d; use the version that made it (%s).", m.ID, m.Format, format, m.Version)
	}
	if m.ID != strings.TrimPrefix(filepath.Base(dir), partial) {
		return m, fmt.Errorf("the folder %s has the manifest of %s", filepath.Base(dir), m.ID)
	}
	return m, nil
}

func writeManifest(dir string, m *Manifest) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	text, err := json.Marshal(sealedManifest{hex.EncodeToString(sum[:]), body})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, manifestFile), append(text, '\n'))
}

// writeFile writes a small file so that it is whole or not there, and on disk.
func writeFile(path string, text []byte) (err error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// List gives every backup, the newest first. Those that cannot be read are in it.
func (s *Store) List() ([]Backup, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	var all []Backup
	for _, e := range entries {
		if !idPattern.MatchString(e.Name()) {
			continue
		}
		dir := filepath.Join(s.dir, e.Name())
		b := Backup{}
		if b.Manifest, err = readManifest(dir); err != nil {
			b.Problem = err.Error()
		}
		b.ID = e.Name()
		b.Verified, b.Pin = readVerified(dir), readPin(dir)
		for _, name := range []string{databaseFile, blobsFile, manifestFile} {
			if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
				b.Stored += info.Size()
			}
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b Backup) int { return cmp.Or(b.instant().Compare(a.instant()), strings.Compare(b.ID, a.ID)) })
	return all, nil
}

// instant is when a backup was taken, also of one whose manifest cannot be read.
func (b *Backup) instant() time.Time {
	if !b.Created.IsZero() {
		return b.Created
	}
	stamp, _, _ := strings.Cut(b.ID, "-")
	at, err := time.Parse(StampLayout, stamp)
	if err != nil {
		return time.Time{}
	}
	return at
}

func readVerified(dir string) *Verified {
	text, err := os.ReadFile(filepath.Join(dir, verifiedFile))
	var v Verified
	if err != nil || json.Unmarshal(text, &v) != nil {
		return nil
	}
	return &v
}

// BusyError says that another process works on the same backups.
type BusyError struct{ Dir string }

// Error names the directory.
func (e *BusyError) Error() string {
	return fmt.Sprintf("another process takes or prunes backups in %s just now; try again when it has ended", e.Dir)
}

// ExitCode is that of "busy".
func (e *BusyError) ExitCode() int { return fault.ExitBusy }

// lock keeps others from making and pruning backups; readers share.
func (s *Store) lock(how durable.Mode) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, translate(err)
	}
	err = durable.TryFlock(f, how, durable.Moment)
	if errors.Is(err, durable.ErrLocked) {
		err = &BusyError{s.dir}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = durable.Release(f) }, nil
}

// hold finds a backup and keeps it from being pruned until unlock.
func (s *Store) hold(id string) (dir string, unlock func(), err error) {
	if unlock, err = s.lock(durable.Shared); err != nil {
		return "", nil, err
	}
	if dir, err = s.path(id); err != nil {
		unlock()
		return "", nil, err
	}
	return dir, unlock, nil
}

// using has fn do something with a backup, which is not pruned meanwhile.
func (s *Store) using(id, do string, fn func(dir string) error) error {
	dir, unlock, err := s.hold(id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := fn(dir); err != nil {
		return fmt.Errorf("%s backup %s: %w", do, filepath.Base(dir), translate(err))
	}
	return nil
}

// clean removes what killed processes left. The lock is held.
func (s *Store) clean() error {
	left, err := filepath.Glob(filepath.Join(s.dir, ".[pt]*-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if name := filepath.Base(dir); strings.HasPrefix(name, partial) || strings.HasPrefix(name, trash) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// Progress of a long job.
type Progress struct {
	// Stage is what is being done, in words.
	Stage string
	// Done and Total count bytes; Total is 0 while it is unknown.
	Done, Total int64
}

// translate gives a full disk its meaning.
func translate(err error) error {
	if reserve.Full(err) {
		return &fault.Error{Kind: fault.Unavailable, Message: "The disk is full; free some space. Nothing was left half-done.", Cause: err}
	}
	return err
}
