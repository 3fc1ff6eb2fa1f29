package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/takodeploy/tako/internal/failpoint"
)

// Names of the log's files in a workspace.
const (
	logName   = "log"
	indexName = "log.idx"
)

// indexEvery is the distance of the index entries: number k (from 0) is the byte
// offset of the frame with seq (k+1)*indexEvery+1. The index is a hint, checked
// at every use and rebuilt when it is short.
const indexEvery = 1000

// flushAt is how many bytes of frames a logWriter gathers before it writes them.
const flushAt = 256 << 10

// seek returns the offset at which the frame with number seq or an earlier one
// begins, and that frame's number; offset 0 and number 1 at worst. The index has
// entries entries; it may lag behind the log.
func seek(log, index io.ReaderAt, entries, seq int64) (off, at int64) {
	var b [8]byte
	head := make([]byte, maxFrame)
	for k := min((seq-1)/indexEvery, entries) - 1; k >= 0; k /= 2 {
		if _, err := index.ReadAt(b[:], k*8); err == nil {
			off := int64(binary.LittleEndian.Uint64(b[:]))
			n, err := log.ReadAt(head, max(off, 0))
			if err == nil || errors.Is(err, io.EOF) {
				if _, got, _, err := frameAt(head[:n]); err == nil && got == (k+1)*indexEvery+1 {
					return off, got
				}
			}
		}
		if k == 0 {
			break
		}
	}
	return 0, 1
}

// logPart is an answer from a log.
type logPart struct {
	entries []Entry
	next    int64 // number of the last entry given, or the one asked for
	more    bool  // there are entries after next
	ended   bool  // the end frame was reached
}

// readLog returns the entries of a workspace's log after number after, up to limit
// bytes, in a time that depends on the answer, not on the log. It may run while
// the log grows; a torn frame ends the answer. No log is an empty log.
func readLog(dir string, after int64, limit int) (logPart, error) {
	part := logPart{next: max(after, 0)}
	log, err := os.Open(filepath.Join(dir, logName))
	if errors.Is(err, fs.ErrNotExist) {
		return part, nil
	}
	if err != nil {
		return part, err
	}
	defer log.Close()
	off, want := int64(0), int64(1)
	if part.next >= indexEvery {
		if index, err := os.Open(filepath.Join(dir, indexName)); err == nil {
			if info, err := index.Stat(); err == nil {
				off, want = seek(log, index, info.Size()/8, part.next+1)
			}
			_ = index.Close()
		}
	}
	buf := make([]byte, 0, 64<<10)
	size := 0
	for {
		if cap(buf)-len(buf) < maxFrame {
			buf = append(make([]byte, 0, max(2*cap(buf), 4*maxFrame)), buf...)
		}
		n, err := log.ReadAt(buf[len(buf):cap(buf)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return part, err
		}
		eof := err != nil
		off += int64(n)
		buf = buf[:len(buf)+n]
		used, s := 0, ""
		for {
			n, seq, source, err := frameAt(buf[used:])
			if err != nil || seq != want {
				break
			}
			if source == endOfLog {
				part.ended = true
				return part, nil
			}
			if seq > part.next {
				if size > 0 && size+n > limit {
					part.more = true
					return part, nil
				}
				size += n
				if s == "" {
					s = string(buf) // one allocation for all texts of this piece
				}
				part.entries = append(part.entries, entryOf(buf[used:used+n], s[used:]))
				part.next = seq
			}
			want++
			used += n
		}
		buf = buf[:copy(buf, buf[used:])]
		if eof || (used == 0 && len(buf) >= maxFrame) {
			return part, nil
		}
	}
}

// logWriter appends to a workspace's log. Only the holder of the workspace's lock
// may have one.
type logWriter struct {
	log, index *os.File
	off        int64 // bytes of whole frames in the file
	indexed    int64 // bytes of the index file
	seq        int64 // of the last frame, gathered ones included
	ended      bool  // the last frame is the end frame
	patient    bool  // wait while the disk is full; else that is an error
	buf        []byte
	idx        []byte
	oldest     time.Time // when the first frame of buf was added
}

// openLog opens the log in dir for appending, making it when there is none. It
// cuts off a torn last frame and completes the index.
func openLog(dir string) (*logWriter, error) {
	w := &logWriter{}
	var err error
	if w.log, err = os.OpenFile(filepath.Join(dir, logName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if w.index, err = os.OpenFile(filepath.Join(dir, indexName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, errors.Join(err, w.log.Close())
	}
	if err := w.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("recover log: %w", err), w.close())
	}
	return w, nil
}

// recover reads the log from its beginning, and makes the index anew: after a crash
// neither can be trusted, and a writer rarely finds a log that is not new.
func (w *logWriter) recover() error {
	if err := w.index.Truncate(0); err != nil {
		return err
	}
	buf := make([]byte, 0, 4*maxFrame)
	read := int64(0)
	for {
		n, err := w.log.ReadAt(buf[len(buf):cap(buf)], read)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		read += int64(n)
		buf = buf[:len(buf)+n]
		used := 0
		for {
			n, seq, source, err := frameAt(buf[used:])
			if err != nil || seq != w.seq+1 {
				break
			}
			if seq > 1 && seq%indexEvery == 1 {
				w.idx = binary.LittleEndian.AppendUint64(w.idx, uint64(w.off))
			}
			w.seq, w.off, w.ended = seq, w.off+int64(n), source == endOfLog
			used += n
		}
		buf = buf[:copy(buf, buf[used:])]
		if n == 0 || used == 0 {
			break
		}
	}
	return w.log.Truncate(w.off)
}

// add gathers a line. It splits what is longer than MaxEntry and mends what is not
// UTF-8.
func (w *logWriter) add(source Source, at time.Time, text []byte) {
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
	}
	for len(text) > MaxEntry {
		n := cutText(text, MaxEntry)
		w.frame(source, at, text[:n])
		text = text[n:]
	}
	w.frame(source, at, text)
}

// say gathers remarks of our own, one entry each.
func (w *logWriter) say(source Source, lines ...string) {
	now := time.Now()
	for _, line := range lines {
		w.add(source, now, []byte(line))
	}
}

func (w *logWriter) frame(source Source, at time.Time, text []byte) {
	if len(w.buf) == 0 {
		w.oldest = at
	}
	w.seq++
	if w.seq > 1 && w.seq%indexEvery == 1 {
		w.idx = binary.LittleEndian.AppendUint64(w.idx, uint64(w.off+int64(len(w.buf))))
	}
	w.buf = appendFrame(w.buf, w.seq, source, at, text)
}

// end gathers the end frame, unless the log has one already.
func (w *logWriter) end() {
	if !w.ended {
		w.frame(endOfLog, time.Now(), nil)
		w.ended = true
	}
}

// last is the number of the last entry, the end frame not counted.
func (w *logWriter) last() int64 {
	if w.ended {
		return w.seq - 1
	}
	return w.seq
}

// flush writes what is gathered. A patient writer waits a full disk out: no line is
// ever dropped, and the script stops when its pipe is full.
func (w *logWriter) flush() error {
	err := w.patiently(func() error {
		for len(w.buf) > 0 {
			if err := failpoint.Hit("log-full"); err != nil {
				return errors.Join(syscall.ENOSPC, err)
			}
			n, err := w.log.WriteAt(w.buf, w.off)
			w.off += int64(n)
			w.buf = w.buf[:copy(w.buf, w.buf[n:])]
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if len(w.idx) > 0 {
		// The index only makes reading fast; when it cannot be written, the next
		// flush tries again.
		if n, err := w.index.WriteAt(w.idx, w.indexed); err == nil {
			w.indexed += int64(n)
			w.idx = w.idx[:0]
		}
	}
	return nil
}

// patiently does f, and if the writer is patient again every second until there is
// room for it on the disk.
func (w *logWriter) patiently(f func() error) error {
	for {
		err := f()
		if err == nil || !w.patient || !diskFull(err) {
			return err
		}
		time.Sleep(time.Second)
	}
}

func (w *logWriter) sync() error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.log.Sync()
}

func (w *logWriter) close() error { return errors.Join(w.log.Close(), w.index.Close()) }

// diskFull reports whether err may go away when somebody makes room.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota)
}
