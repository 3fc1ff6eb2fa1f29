package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/failpoint"
)

// fill is the statement of a migration that fills a table of its own level from
// one that older binaries write, portion by portion, each in a transaction of its
// own:
//
//	INSERT INTO newer (columns) SELECT values FROM older [alias] [WHERE condition]
//
// It says nothing of portions. The runner walks through the older table by its
// primary key and adds the condition that makes a portion, and ON CONFLICT DO
// NOTHING: a row whose key the newer table has already is left out, for no data
// that somebody has may make an upgrade fail.
//
// What is there when the fill begins is in the newer table when it ends, once, but
// for what was deleted meanwhile. No more can be said of it: older binaries go on
// writing. Of what they add while it runs some is taken along and some is not, what
// they change or delete in rows that were taken is not followed, and after its end
// nothing is, also when they serve again after a rollback. So a binary of the new
// level must not take the newer table for complete before Finalize: it writes both
// tables from its start, reads the older one, and once its level is active, so that
// nobody writes the older table alone any more, has background work compare the two
// and add, change and remove what differs. Only then the newer one is read.
type fill struct {
	into, from string
	name       string // what the statement calls the older table
	head       string // the statement up to there
	where      string // its condition, "" for none
}

// parseFill takes the script of a fill apart.
func parseFill(script string) (*fill, error) {
	all := statements(script)
	if len(all) != 1 {
		return nil, fmt.Errorf("fill needs exactly one statement, INSERT INTO newer (columns) SELECT values FROM older, and has %d", len(all))
	}
	pieces := tokens(all[0])
	var outer []int // the pieces that stand in no parentheses, but for blanks
	depth := 0
	for i, p := range pieces {
		switch {
		case p.text == "?":
			return nil, errors.New("fill has a parameter; which rows are a portion is for the runner to say")
		case p.text == "(":
			if depth++; depth == 1 {
				outer = append(outer, i)
			}
		case p.text == ")":
			depth--
		case depth == 0 && strings.TrimSpace(p.text) != "":
			outer = append(outer, i)
		}
	}
	word := func(n int) string {
		if n < len(outer) {
			return strings.ToLower(pieces[outer[n]].text)
		}
		return ""
	}
	isName := func(n int) bool { return n < len(outer) && pieces[outer[n]].word }
	if word(0) != "insert" || word(1) != "into" || !isName(2) || word(3) != "(" || word(4) != "select" {
		return nil, errors.New("fill does not begin with INSERT INTO newer (columns) SELECT")
	}
	for n := 5; n < len(outer); n++ {
		if slices.Contains(manyRows, word(n)) {
			return nil, fmt.Errorf("fill has %s, which is about more than one row of the older table, and the runner sees a portion at a time", strings.ToUpper(word(n)))
		}
	}
	n := 5
	for n < len(outer) && word(n) != "from" {
		n++
	}
	if !isName(n+1) || word(n+1) == "where" {
		return nil, errors.New("fill has no FROM with the name of one table")
	}
	f := &fill{into: word(2), from: word(n + 1)}
	n++
	if word(n+1) == "as" {
		n++
	}
	if isName(n+1) && word(n+1) != "where" {
		n++
	}
	f.name = pieces[outer[n]].text
	text := func(from, to int) string {
		var b strings.Builder
		for _, p := range pieces[from:to] {
			b.WriteString(p.text)
		}
		return strings.TrimSpace(b.String())
	}
	f.head = text(0, outer[n]+1)
	switch {
	case n+1 == len(outer):
	case word(n+1) == "where" && n+2 < len(outer):
		f.where = text(outer[n+1]+1, len(pieces))
	default:
		return nil, fmt.Errorf("fill has %q after the name of the older table; only WHERE and a condition may follow", pieces[outer[n+1]].text)
	}
	return f, nil
}

// manyRows are words by which what becomes of a row depends on others, or that the
// runner itself needs.
var manyRows = []string{ //nolint:gochecknoglobals // a constant
	"distinct", "group", "having", "order", "limit", "offset", "fetch", "union", "except", "intersect", "join", "window", "over",
	"on", "returning", "with", "count", "sum", "total", "avg", "min", "max", "group_concat", "string_agg", "array_agg",
}

// A fill begins with a portion of firstRows. Those that follow have as many rows as
// keep other writers out for about portionTime, or for twice as long as the quickest
// one took where that is more: there it is the commit that takes the time, and it
// would for fewer rows too. So a writer of SQLite, which waits for the portion under
// way, waits for some twenty milliseconds; the next one begins after a pause as long.
const (
	firstRows   = 200
	leastRows   = 10
	mostRows    = 5000
	portionTime = 20 * time.Millisecond
	mostTime    = 100 * time.Millisecond
)

// portionAfter is how many rows a portion has after one that took so long.
func portionAfter(rows int, took, quickest time.Duration) int {
	aim := min(max(portionTime, 2*quickest), mostTime)
	switch {
	case took > aim:
		rows = int(int64(rows) * int64(aim) / int64(took))
	case took < aim*3/4:
		rows += rows / 2
	}
	return min(max(rows, leastRows), mostRows)
}

// fill takes what is left of a fill. Where it has got to is committed with each
// portion, so it can be cut short anywhere, and several processes may be at it.
func (d *DB) fill(ctx context.Context, m migration, opt MigrateOptions) (held time.Duration, err error) {
	var key []string
	err = d.Read(ctx, func(t *Tx) error {
		key, err = t.primaryKey(ctx, m.fill.from)
		return err
	})
	if err != nil {
		return 0, err
	}
	rows, quickest := firstRows, mostTime
	if opt.Alone {
		rows = mostRows
	}
	for {
		done := false
		held, err = d.holdSchema(ctx, func(t *Tx) error {
			done, err = t.portion(ctx, m, key, rows)
			return err
		})
		if err != nil || done {
			return held, err
		}
		if err := failpoint.Hit("fill-portion"); err != nil {
			return held, err
		}
		if opt.Alone {
			continue // nobody waits
		}
		quickest = min(quickest, held)
		rows = portionAfter(rows, held, quickest)
		if err := giveWay(ctx, held, opt); err != nil {
			return held, err
		}
	}
}

// portion fills in what belongs to the next rows of the older table.
func (t *Tx) portion(ctx context.Context, m migration, key []string, rows int) (done bool, err error) {
	past, last, done, err := t.filled(ctx, m)
	if err != nil || done {
		return done, err // another process was faster
	}
	if last == nil {
		// What comes after it is not waited for: there might be no end to it.
		if last, err = t.keyOf(ctx, m.fill.from, key, nil, nil, 0, " DESC"); err != nil {
			return false, err
		}
		if last == nil {
			return true, t.markMigration(ctx, m, "done") // it is empty
		}
	}
	to, err := t.keyOf(ctx, m.fill.from, key, past, last, rows-1, "")
	if err != nil {
		return false, err
	}
	if to == nil {
		to = last
	}
	window, args := between(m.fill.name, key, past, to)
	statement := m.fill.head + " WHERE " + window
	if m.fill.where != "" {
		// In this form it leads neither database away from the primary key.
		statement += " AND CASE WHEN " + m.fill.where + " THEN 1 ELSE 0 END = 1"
	}
	statement = inDialect(t.d.dialect, statement+" ON CONFLICT DO NOTHING")
	if _, err := t.Exec(ctx, statement, args...); err != nil {
		return false, fmt.Errorf("%w, in %q after %s", err, firstLine(statement), placeText(past))
	}
	done = slices.Equal(to, last)
	state := "done"
	if !done {
		state = filledTo + keyText(to) + filledOf + keyText(last)
	}
	if err := t.markMigration(ctx, m, state); err != nil {
		return false, err
	}
	return done, failpoint.Hit("fill-commit")
}

// placeText is a key for messages.
func placeText(key []any) string {
	if key == nil {
		return "the beginning"
	}
	return "the row " + keyText(key)
}

// keyOf reads a key of a table: of the rows after past and not after last, where
// those are given, the one that has so many before it, or nil.
func (t *Tx) keyOf(ctx context.Context, table string, key []string, past, last []any, before int, order string) ([]any, error) {
	window, args := between("k", key, past, last)
	columns, orders := make([]string, len(key)), make([]string, len(key))
	for i, column := range key {
		columns[i] = `k."` + column + `"`
		orders[i] = columns[i] + order
	}
	query := `SELECT ` + strings.Join(columns, ", ") + ` FROM "` + table + `" k WHERE ` + window + ` ORDER BY ` + strings.Join(orders, ", ") + ` LIMIT 1 OFFSET ?`
	rows, err := t.Query(ctx, query, append(args, before)...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	if !rows.Next() {
		return nil, rows.Err()
	}
	values, into := make([]any, len(key)), make([]any, len(key))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	for i, v := range values {
		switch v.(type) {
		case int64, string:
		default:
			return nil, fmt.Errorf("the table %s has a %T in its key's column %s, and only numbers and texts can be walked through", table, v, key[i])
		}
	}
	return values, errors.Join(rows.Close(), rows.Err())
}

// between is the condition that a key is after past and not after last; either may
// be nil.
func between(name string, key []string, past, last []any) (condition string, args []any) {
	columns := make([]string, len(key))
	for i, column := range key {
		columns[i] = name + `."` + column + `"`
	}
	left, right := strings.Join(columns, ", "), strings.TrimSuffix(strings.Repeat("?, ", len(key)), ", ")
	if len(key) > 1 {
		left, right = "("+left+")", "("+right+")"
	}
	condition = "1 = 1"
	if past != nil {
		condition, args = condition+" AND "+left+" > "+right, append(args, past...)
	}
	if last != nil {
		condition, args = condition+" AND "+left+" <= "+right, append(args, last...)
	}
	return condition, args
}

const (
	sqliteKey   = `SELECT c.name, c.type FROM pragma_table_info(?) c WHERE c.pk > 0 ORDER BY c.pk`
	postgresKey = `SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid CROSS JOIN unnest(i.indkey) WITH ORDINALITY k (attnum, place)
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
		WHERE i.indisprimary AND c.relname = ? AND c.relnamespace = current_schema()::regnamespace ORDER BY k.place`
)

// primaryKey lists the columns of a table's primary key.
func (t *Tx) primaryKey(ctx context.Context, table string) (key []string, err error) {
	query := sqliteKey
	if t.d.dialect == Postgres {
		query = postgresKey
	}
	rows, err := t.Query(ctx, query, table)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var name, kind string
		if err := rows.Scan(&name, &kind); err != nil {
			return nil, err
		}
		if kind = strings.ToLower(kind); kind != "bigint" && kind != "integer" && kind != "text" {
			return nil, fmt.Errorf("the table %s cannot be walked through: its key's column %s is %s, neither number nor text", table, name, kind)
		}
		key = append(key, name)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(key) == 0 {
		return nil, fmt.Errorf("the table %s cannot be walked through: it is not there, or has no primary key", table)
	}
	return key, nil
}

// How the state of a fill under way is noted. Binaries that do not know of fills
// only ask whether it is "done".
const (
	filledTo = "filled to "
	filledOf = " of "
)

// filled reads how far a fill has got: up to which key, nil for none, and with
// which one it ends, nil if that was not looked up yet.
func (t *Tx) filled(ctx context.Context, m migration) (past, last []any, done bool, err error) {
	state, sum, err := t.migrationState(ctx, m)
	if err != nil || state == "" {
		return nil, nil, false, err
	}
	if sum != m.sum {
		return nil, nil, false, errOtherFile
	}
	if state == "done" {
		return nil, nil, true, nil
	}
	rest, ok := strings.CutPrefix(state, filledTo)
	if ok {
		past, rest, ok = parseKey(rest)
	}
	if ok {
		rest, ok = strings.CutPrefix(rest, filledOf)
	}
	if ok {
		last, rest, ok = parseKey(rest)
	}
	if !ok || rest != "" || len(past) != len(last) {
		return nil, nil, false, fmt.Errorf("its state %q is none that this version has written", state)
	}
	return past, last, false, nil
}

// keyText writes a key so that parseKey reads the very same: numbers, and texts in
// quotes, whatever is in them.
func keyText(key []any) string {
	var b strings.Builder
	for i, v := range key {
		if i > 0 {
			b.WriteByte(',')
		}
		switch v := v.(type) {
		case int64:
			b.WriteString(strconv.FormatInt(v, 10))
		case string:
			b.WriteString(strconv.Quote(v))
		}
	}
	return b.String()
}

// parseKey reads what keyText wrote at the beginning of a text.
func parseKey(text string) (key []any, rest string, ok bool) {
	for {
		if quoted, err := strconv.QuotedPrefix(text); err == nil {
			v, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, text, false
			}
			key, text = append(key, v), text[len(quoted):]
		} else {
			end := 0
			for end < len(text) && text[end] != ',' && text[end] != ' ' {
				end++
			}
			v, err := strconv.ParseInt(text[:end], 10, 64)
			if err != nil {
				return nil, text, false
			}
			key, text = append(key, v), text[end:]
		}
		if rest, more := strings.CutPrefix(text, ","); more {
			text = rest
			continue
		}
		return key, text, true
	}
}
