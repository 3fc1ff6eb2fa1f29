// Package journal is the memory of upgrades: a file of lines beside the database, so
// that restoring the database does not erase why that was done.
//
// Several processes append to it, each may be killed at any instant, and the power may
// go. Every line is checked by itself (a torn last line is dropped: what it said was
// not yet done) and names the hash of the line before (a line that was changed or lost
// in the middle is found, and never passed over).
package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/reserve"
)

// Entry is one line.
type Entry struct {
	Seq int64 `json:"seq"` // from 1, without gaps
	// Txn is the upgrade that it belongs to, Kind what it says, in the words of
	// whoever writes it, and Data what else there is to say.
	Txn  string          `json:"txn"`
	Kind string          `json:"kind"`
	At   time.Time       `json:"at"`
	Data json.RawMessage `json:"data,omitempty"`
	// Prev is the hash of the line before, "" in the first.
	Prev string `json:"prev,omitempty"`
}

// DamagedError is a journal that somebody has changed, or a disk has lost a part of.
type DamagedError struct {
	Path   string
	Line   int // from 1
	reason string
}

// Error names the line and the remedy.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("the journal of upgrades %s is damaged in line %d: %s. Move it away to begin a new one: the server itself does not need it", e.Path, e.Line, e.reason)
}

// maxLine is the size of the longest line.
const maxLine = 1 << 20

// Journal is the journal in a directory. It is not safe for concurrent use; several of
// them may be.
type Journal struct {
	path, lock string
	entries    []Entry
	size       int64 // of the lines that were read
	last       string
}

// Open reads the journal of a directory, which it makes if there is none.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the journal of upgrades: %w", err)
	}
	j := &Journal{path: filepath.Join(dir, "journal.jsonl"), lock: filepath.Join(dir, "journal.lock")}
	return j, j.Refresh()
}

// Entries are the lines as they were last read.
func (j *Journal) Entries() []Entry { return j.entries }

// Refresh reads what others have appended. It changes nothing on disk, so a torn last
// line may be one that is just being written.
func (j *Journal) Refresh() error {
	f, err := os.Open(j.path)
	if errors.Is(err, os.ErrNotExist) {
		j.entries, j.size, j.last = nil, 0, ""
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the journal of upgrades: %w", err)
	}
	defer f.Close()
	return j.read(f)
}

// read takes in the whole lines after those that are known.
func (j *Journal) read(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read the journal of upgrades: %w", err)
	}
	if info.Size() < j.size { // another file has taken its place
		j.entries, j.size, j.last = nil, 0, ""
	}
	rest, err := io.ReadAll(io.NewSectionReader(f, j.size, info.Size()-j.size))
	if err != nil {
		return fmt.Errorf("read the journal of upgrades: %w", err)
	}
	for len(rest) > 0 {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		e, hash, reason := j.parse(line)
		if !whole || reason != "" && len(after) == 0 {
			return nil // the last line, torn
		}
		if reason != "" {
			return &DamagedError{j.path, len(j.entries) + 1, reason}
		}
		j.entries, j.last = append(j.entries, e), hash
		j.size += int64(len(line)) + 1
		rest = after
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a table of constants

// parse reads a line: eight digits of its checksum, a space, and JSON.
func (j *Journal) parse(line []byte) (e Entry, hash, reason string) {
	if len(line) < 9 || len(line) > maxLine || line[8] != ' ' {
		return e, "", "it is no line of a journal"
	}
	body := line[9:]
	if fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) != string(line[:8]) {
		return e, "", "its checksum does not fit"
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return e, "", "it cannot be read"
	}
	if e.Seq != int64(len(j.entries))+1 || e.Prev != j.last {
		return e, "", "it does not follow from the line before"
	}
	return e, hashOf(body), ""
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}

// Append adds an entry. What it says is decided by next, which is given all entries as
// they are while nobody else can append, and fills in Txn, Kind and Data. If next
// fails, nothing is added. When Append returns without an error the entry is durable;
// with one it may be there or not. On a full disk the reserve is given up that a link
// beside the journal names.
func (j *Journal) Append(at time.Time, next func([]Entry) (Entry, error)) (_ Entry, err error) {
	unlock, err := durable.Wait(j.lock)
	if err != nil {
		return Entry{}, fmt.Errorf("append to the journal of upgrades: %w", err)
	}
	defer func() { err = errors.Join(err, unlock.Unlock()) }()
	_, missing := os.Stat(j.path)
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return Entry{}, fmt.Errorf("append to the journal of upgrades: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := j.read(f); err != nil {
		return Entry{}, err
	}
	e, err := next(j.entries)
	if err != nil {
		return Entry{}, err
	}
	e.Seq, e.At, e.Prev = int64(len(j.entries))+1, at.UTC().Truncate(time.Microsecond), j.last
	body, err := json.Marshal(e)
	if err != nil {
		return Entry{}, fmt.Errorf("encode an entry of the journal: %w", err)
	}
	line := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, castagnoli), body)
	if len(line) > maxLine {
		return Entry{}, fmt.Errorf("an entry of the journal has %d bytes; the limit is %d", len(line), maxLine)
	}
	err = j.write(f, line)
	if reserve.Full(err) {
		room, spending := reserve.Spend(filepath.Join(filepath.Dir(j.path), reserve.Name))
		if room {
			err, spending = j.write(f, line), nil
		}
		err = errors.Join(err, spending)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("append to the journal of upgrades: %w", err)
	}
	if missing != nil {
		if err := durable.SyncDir(filepath.Dir(j.path)); err != nil {
			return Entry{}, fmt.Errorf("append to the journal of upgrades: %w", err)
		}
	}
	j.entries, j.last = append(j.entries, e), hashOf(body)
	j.size += int64(len(line))
	return e, failpoint.Hit("journal-synced")
}

// write puts the line behind those that are whole, in the place of a torn one.
func (j *Journal) write(f *os.File, line []byte) error {
	if err := f.Truncate(j.size); err != nil {
		return err
	}
	if _, err := f.WriteAt(line[:len(line)/2], j.size); err != nil {
		return err
	}
	if err := failpoint.Hit("journal-torn"); err != nil {
		return err
	}
	if _, err := f.WriteAt(line[len(line)/2:], j.size+int64(len(line)/2)); err != nil {
		return err
	}
	if err := failpoint.Hit("journal-written"); err != nil {
		return err
	}
	return f.Sync()
}
