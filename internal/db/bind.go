package db

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// maxBound bounds the rewritten texts that are kept; lists of every length make
// texts without end.
const maxBound = 4096

type bound struct {
	texts sync.Map // with ? -> with $n
	count atomic.Int64
}

// bind writes ? as the database wants it.
func (d *DB) bind(query string) string {
	if d.dialect == SQLite {
		return query
	}
	if text, ok := d.bound.texts.Load(query); ok {
		return text.(string)
	}
	text := numbered(query)
	if d.bound.count.Add(1) > maxBound {
		d.bound.texts.Clear()
		d.bound.count.Store(1)
	}
	d.bound.texts.Store(query, text)
	return text
}

// numbered replaces each ? outside quotes and comments by $1, $2 ...
func numbered(query string) string {
	var b strings.Builder
	b.Grow(len(query) + 16)
	n := 0
	for i := 0; i < len(query); i++ {
		switch c := query[i]; {
		case c == '?':
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
			continue
		case c == '\'' || c == '"':
			end := strings.IndexByte(query[i+1:], c) // a doubled quote just opens the next one
			if end < 0 {
				b.WriteString(query[i:])
				return b.String()
			}
			b.WriteString(query[i : i+end+2])
			i += end + 1
			continue
		case c == '-' && strings.HasPrefix(query[i:], "--"):
			end := strings.IndexByte(query[i:], '\n')
			if end < 0 {
				return b.String()
			}
			i += end
			b.WriteByte('\n')
			continue
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
