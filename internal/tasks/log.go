package tasks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// Line is a line of a task's log.
type Line struct {
	// Number counts the task's lines from 1; the lease gives it.
	Number int64
	// Activity is the id of the node of the log tree that the line belongs to.
	Activity string
	Category octopus.LogCategory
	At       time.Time
	Text     string
	Detail   string
}

// Sizes of the log's parts.
const (
	maxChunk = 256 * 1024      // bytes of lines in one row
	segment  = 4 * 1024 * 1024 // bytes of lines in one blob
	// maxText bounds one line's text and its detail, in bytes. Lines of scripts
	// are shorter: their agents split them.
	maxText = 256 * 1024
)

// Codecs of chunks and segments.
const (
	codecPlain = 0
	codecZstd  = 1
)

// Coders of one process; both are safe for concurrent use in the ways used here.
type coder struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCoder() (*coder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(4*segment))
	return &coder{enc, dec}, err
}

// compressFrom is the size from which compression pays.
const compressFrom = 512

func (c *coder) pack(raw []byte) (codec int64, data []byte) {
	if len(raw) < compressFrom {
		return codecPlain, raw
	}
	return codecZstd, c.enc.EncodeAll(raw, nil)
}

func (c *coder) unpack(codec int64, data []byte) ([]byte, error) {
	switch codec {
	case codecPlain:
		return data, nil
	case codecZstd:
		return c.dec.DecodeAll(data, nil)
	default:
		return nil, fmt.Errorf("log codec %d is not known to this version", codec)
	}
}

// appendLine encodes a line: lengths and texts, one after another.
func appendLine(buf []byte, l Line) []byte {
	buf = binary.AppendVarint(buf, l.At.UnixMicro())
	for _, s := range [...]string{string(l.Category), l.Activity, bounded(l.Text), bounded(l.Detail)} {
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		buf = append(buf, s...)
	}
	return buf
}

// bounded cuts a text that is too long, between two characters.
func bounded(text string) string {
	if len(text) <= maxText {
		return text
	}
	n := maxText
	for n > maxText-utf8.UTFMax && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}

var errLogDamaged = errors.New("the log is damaged")

// decodeLines calls fn for each of the count lines of a chunk; number is that of
// the first.
func decodeLines(buf []byte, number, count int64, fn func(Line) bool) error {
	end := number + count
	text := func() (string, bool) {
		n, w := binary.Uvarint(buf)
		if w <= 0 || n > uint64(len(buf)-w) {
			return "", false
		}
		s := string(buf[w : w+int(n)])
		buf = buf[w+int(n):]
		return s, true
	}
	for len(buf) > 0 {
		at, w := binary.Varint(buf)
		if w <= 0 {
			return errLogDamaged
		}
		buf = buf[w:]
		l := Line{Number: number, At: time.UnixMicro(at).UTC()}
		category, ok1 := text()
		activity, ok2 := text()
		message, ok3 := text()
		detail, ok4 := text()
		if !ok1 || !ok2 || !ok3 || !ok4 {
			return errLogDamaged
		}
		l.Category, l.Activity, l.Text, l.Detail = octopus.LogCategory(category), activity, message, detail
		if number == end {
			return errLogDamaged
		}
		if !fn(l) {
			return nil
		}
		number++
	}
	if number != end {
		return errLogDamaged
	}
	return nil
}

// flushLog writes the transaction's lines as chunks.
func (w *writer) flushLog(ctx context.Context) error {
	var raw []byte
	first, count := w.line+1, int64(0)
	flush := func() error {
		if count == 0 {
			return nil
		}
		codec, data := w.l.s.coder.pack(raw)
		_, err := w.tx.Exec(ctx, `INSERT INTO task_log (task, line_from, lines, epoch, codec, data) VALUES (?, ?, ?, ?, ?, ?)`,
			w.l.ID, first, count, w.l.epoch, codec, data)
		if errors.Is(err, db.ErrUnique) {
			return ErrLost
		}
		if err != nil {
			return fmt.Errorf("append log of %s: %w", w.l.ID, err)
		}
		w.line += count
		w.bytes += int64(len(raw))
		first, count, raw = w.line+1, 0, raw[:0]
		return nil
	}
	for _, l := range w.pending {
		raw = appendLine(raw, l)
		count++
		if len(raw) >= maxChunk {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// part is a stored run of lines: a chunk in the database or a segment in a blob.
type part struct {
	from, lines int64
	sha256      string // of a segment; "" for a chunk
}

// parts lists where the lines of a task are, in order.
func parts(ctx context.Context, tx *db.Tx, task string, from int64) ([]part, error) {
	rows, err := tx.Query(ctx, `SELECT s.line_from, s.lines, s.sha256 FROM task_log_segment s WHERE s.task = ? AND s.line_from + s.lines > ?
		UNION ALL SELECT c.line_from, c.lines, '' FROM task_log c WHERE c.task = ? AND c.line_from + c.lines > ? ORDER BY 1`, task, from, task, from)
	if err != nil {
		return nil, fmt.Errorf("read log of %s: %w", task, err)
	}
	defer rows.Close()
	var all []part
	for rows.Next() {
		var p part
		if err := rows.Scan(&p.from, &p.lines, &p.sha256); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, rows.Err()
}

// ReadLog calls fn for every committed line of a task from number from on, in
// order, until fn returns false. Memory is bounded by one part of the log.
func (s *Service) ReadLog(ctx context.Context, task string, from int64, fn func(Line) bool) error {
	next, more := max(from, 1), true
	for more {
		var all []part
		err := s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
			all, err = parts(ctx, tx, task, next)
			return err
		})
		if err != nil || len(all) == 0 {
			return err
		}
		moved := false
		for _, p := range all {
			raw, err := s.loadPart(ctx, task, p)
			if errors.Is(err, errMoved) {
				moved = true // sealed meanwhile: look again from here
				break
			}
			if err != nil {
				return err
			}
			err = decodeLines(raw, p.from, p.lines, func(l Line) bool {
				if l.Number >= next {
					next = l.Number + 1
					more = fn(l)
				}
				return more
			})
			if err != nil {
				return fmt.Errorf("log of %s from line %d: %w", task, p.from, err)
			}
			if !more {
				return nil
			}
		}
		more = moved
	}
	return nil
}

// TailStart is the number of the first of the last n lines of a log.
func TailStart(total, n int64) int64 { return max(total-n+1, 1) }

var errMoved = errors.New("the part was sealed")

func (s *Service) loadPart(ctx context.Context, task string, p part) ([]byte, error) {
	if p.sha256 != "" {
		return s.loadSegment(ctx, p)
	}
	var codec int64
	var data []byte
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		return tx.QueryRow(ctx, `SELECT c.codec, c.data FROM task_log c WHERE c.task = ? AND c.line_from = ?`, task, p.from).Scan(&codec, &data)
	})
	if isNoRows(err) {
		return nil, errMoved
	}
	if err != nil {
		return nil, fmt.Errorf("read log of %s: %w", task, err)
	}
	return s.coder.unpack(codec, data)
}
