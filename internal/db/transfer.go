package db

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
)

// TransferOptions of Transfer.
type TransferOptions struct {
	// By is the version of the binary, for the record.
	By string
	// Progress is told how many rows of all are copied and, in the second stage,
	// compared; may be nil.
	Progress func(stage string, done, total int64)
	// Accept looks at the copy when it is there and compared, before it may be used; an
	// error leaves it marked. May be nil.
	Accept func(ctx context.Context) error
}

// Transferred says what Transfer copied.
type Transferred struct {
	Rows map[string]int64 // by table
	// Sums are the hashes of the tables' contents in a form that is the same on both
	// databases, and independent of the order of the rows.
	Sums map[string]string
}

// marked reports the source whose copy into a database was cut short, "" for none.
func (t *Tx) marked(ctx context.Context) (source string, err error) {
	there, err := t.HasTable(ctx, "copy_mark")
	if err != nil || !there {
		return "", err
	}
	err = t.QueryRow(ctx, `SELECT source FROM copy_mark WHERE id = 1`).Scan(&source)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return source, err
}

// Marked reports the source whose copy into this database was cut short, "" for none.
func (d *DB) Marked(ctx context.Context) (source string, err error) {
	err = d.Read(ctx, func(t *Tx) error {
		source, err = t.marked(ctx)
		return err
	})
	return source, err
}

// given is how many numbers the counters have given out: every start of a server takes
// some, and so does whatever makes something.
func (t *Tx) given(ctx context.Context) (n int64, err error) {
	err = t.QueryRow(ctx, `SELECT CAST(COALESCE(sum(c.next), 0) AS BIGINT) FROM counter c`).Scan(&n)
	return n, err
}

// kept are the tables of which a copy has rows of its own: those of the schema, those
// of running processes, and the mark.
func kept() []string {
	return []string{"tako_meta", "tako_migration", "tako_schema", "copy_mark", "node", "secret_holder", "blob_hold"}
}

// Transfer copies everything from one database to another, of whichever dialect, which
// must be empty or have the beginning of such a copy. It reads one view of the source,
// which it does not change. Until all of it is there, compared and accepted the target is
// marked, and CheckStart refuses it; cut short, the same call begins anew.
//
// Nothing may write to the source meanwhile, or it is not in the copy.
func Transfer(ctx context.Context, from, to *DB, opt TransferOptions) (done Transferred, err error) {
	if opt.Progress == nil {
		opt.Progress = func(string, int64, int64) {}
	}
	all, err := loadMigrations(embedded, "migrations")
	if err != nil {
		return done, err
	}
	if err := from.transferable(ctx, all); err != nil {
		return done, err
	}
	if err := to.prepare(ctx, all, from.url, opt); err != nil {
		return done, err
	}
	if err := failpoint.Hit("copy-marked"); err != nil {
		return done, err
	}
	if err := CheckStart(ctx, to, to.levels); fault.KindOf(err) != fault.Conflict {
		return done, errors.Join(errors.New("the database was not marked"), err)
	}
	c := &transfer{from: from, to: to, opt: opt, tables: map[string][]string{}}
	var given int64
	err = from.Snapshot(ctx, func(t *Tx) (err error) {
		if given, err = t.given(ctx); err != nil {
			return err
		}
		return c.copy(ctx, t)
	})
	if err != nil {
		return done, err
	}
	if err := failpoint.Hit("copy-copied"); err != nil {
		return done, err
	}
	if err := c.compare(ctx); err != nil {
		return c.done, err
	}
	if opt.Accept != nil {
		if err := opt.Accept(ctx); err != nil {
			return c.done, err
		}
	}
	err = from.Read(ctx, func(t *Tx) error {
		now, err := t.given(ctx)
		if err == nil && now != given {
			err = fault.New(fault.Conflict, "A server has run on %s since the copy began, and what it wrote is not in the copy; stop all servers, and repeat the copy.", from)
		}
		return err
	})
	if err != nil {
		return c.done, err
	}
	if err := failpoint.Hit("copy-accepted"); err != nil {
		return c.done, err
	}
	err = to.writeSchema(ctx, func(t *Tx) error {
		_, err := t.Exec(ctx, `DELETE FROM copy_mark`)
		return err
	})
	if err == nil {
		err = to.Checkpoint(ctx)
	}
	return c.done, err
}

// transferable refuses a source that is not of this binary's schema.
func (d *DB) transferable(ctx context.Context, all []migration) error {
	if err := CheckStart(ctx, d, d.levels); err != nil {
		return err
	}
	return d.Read(ctx, func(t *Tx) error {
		m, err := t.meta(ctx)
		if err != nil {
			return err
		}
		if m.SchemaLevel != d.levels.Level {
			return fault.New(fault.Invalid, "The schema of %s has level %d and this version makes level %d; copy with the version that its servers have, or start this version on it once.", d, m.SchemaLevel, d.levels.Level)
		}
		for _, m := range all {
			if done, err := t.migrationDone(ctx, m); err != nil || !done {
				return errors.Join(fault.New(fault.Invalid, "%s has not the migration %s of this version; start a server of this version on it once.", d, m.id), err)
			}
		}
		return nil
	})
}

// prepare makes the schema of the target together with the mark, or empties the
// beginning of a copy.
func (d *DB) prepare(ctx context.Context, all []migration, source string, opt TransferOptions) error {
	made := false
	mark := func(t *Tx) error {
		_, err := t.Exec(ctx, `INSERT INTO copy_mark (id, source, started) VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET source = excluded.source, started = excluded.started`, source, Micros(t.now))
		return err
	}
	unlock, err := d.lockMigrations(ctx)
	if err != nil {
		return fmt.Errorf("lock the schema: %w", err)
	}
	defer unlock()
	made, err = d.create(ctx, all, d.levels, MigrateOptions{By: opt.By}, mark)
	if err != nil || made {
		return err
	}
	half, err := d.Marked(ctx)
	if err != nil {
		return err
	}
	if half == "" {
		return fault.New(fault.Conflict, "%s has a server's data already; copy into an empty database.", d)
	}
	if err := d.transferable(ctx, all); err != nil && fault.KindOf(err) != fault.Conflict {
		return fault.New(fault.Conflict, "%s has the beginning of a copy that another version made; drop it, and copy into an empty database.", d)
	}
	return d.writeSchema(ctx, func(t *Tx) error {
		tables, err := t.tables(ctx)
		if err != nil {
			return err
		}
		for _, table := range tables {
			if strings.HasPrefix(table, "tako_") || table == "copy_mark" {
				continue
			}
			if _, err := t.Exec(ctx, `DELETE FROM "`+table+`"`); err != nil {
				return err
			}
		}
		return mark(t)
	})
}

// transfer is a copy under way.
type transfer struct {
	from, to    *DB
	opt         TransferOptions
	tables      map[string][]string // with their columns
	done        Transferred
	total, rows int64
}

// columns lists the columns of every table, sorted.
func (t *Tx) columns(ctx context.Context) (map[string][]string, error) {
	all, err := t.anatomy(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if column, ok := strings.CutPrefix(name, "column "); ok {
			table, column, _ := strings.Cut(column, ".")
			out[table] = append(out[table], column)
		}
	}
	return out, nil
}

// copy copies all tables, and what the database says of itself.
func (c *transfer) copy(ctx context.Context, t *Tx) error {
	c.done = Transferred{Rows: map[string]int64{}, Sums: map[string]string{}}
	mine, err := t.columns(ctx)
	if err != nil {
		return err
	}
	var theirs map[string][]string
	err = c.to.Read(ctx, func(t *Tx) error { theirs, err = t.columns(ctx); return err })
	if err != nil {
		return err
	}
	for table, columns := range theirs {
		if !slices.Equal(mine[table], columns) {
			return fault.New(fault.Invalid, "The table %s of %s has not the columns that this version makes; see `tako doctor`.", table, c.from)
		}
	}
	for table := range mine {
		if theirs[table] == nil {
			return fault.New(fault.Invalid, "%s has a table %s that does not belong to the schema, and nobody could copy it; drop it, or move it away.", c.from, table)
		}
	}
	counts, err := t.CountRows(ctx)
	if err != nil {
		return err
	}
	for _, table := range slices.Sorted(maps.Keys(theirs)) {
		if !slices.Contains(kept(), table) {
			c.tables[table] = theirs[table]
			c.total += counts[table]
		}
	}
	for _, table := range slices.Sorted(maps.Keys(c.tables)) {
		if err := c.table(ctx, t, table); err != nil {
			return fmt.Errorf("copy %s: %w", table, err)
		}
		if err := failpoint.Hit("copy-table"); err != nil {
			return err
		}
	}
	return c.self(ctx, t)
}

// self copies what the database says of itself, and the numbers that it gives out.
func (c *transfer) self(ctx context.Context, t *Tx) error {
	m, err := t.meta(ctx)
	if err != nil {
		return err
	}
	numbers, err := t.Identities(ctx)
	if err != nil {
		return err
	}
	return c.to.writeSchema(ctx, func(t *Tx) error {
		t.AfterCommit(c.to.counters.forget)
		for _, one := range numbers {
			if err := t.SetIdentity(ctx, one, max(one.Last, one.Largest)); err != nil {
				return fmt.Errorf("set the numbers of %s: %w", one.Table, err)
			}
		}
		_, err := t.Exec(ctx, `UPDATE tako_meta SET min_reader_level = ?, active_level = ?, finalized_at = ?, installation_id = ?, incarnation = ? WHERE id = 1`,
			m.MinReaderLevel, m.ActiveLevel, Micros(m.FinalizedAt), m.InstallationID, m.Incarnation)
		return err
	})
}

// selection is the query that reads a table.
func selection(table string, columns []string) string {
	picked := make([]string, len(columns))
	for i, column := range columns {
		picked[i] = `s."` + column + `"`
	}
	return `SELECT ` + strings.Join(picked, ", ") + ` FROM "` + table + `" s`
}

const (
	// rowsAtOnce and bytesAtOnce bound what is in memory, and in one transaction of
	// the target.
	rowsAtOnce  = 2000
	bytesAtOnce = 8 << 20
)

// table copies a table, a piece at a time.
func (c *transfer) table(ctx context.Context, t *Tx, table string) error {
	columns := c.tables[table]
	rows, err := t.Query(ctx, selection(table, columns))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	var sum rowSum
	var n int64
	var batch [][]any
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := c.acceptable(table, columns, batch); err != nil {
			return err
		}
		if err := c.insert(ctx, table, columns, batch); err != nil {
			return err
		}
		n += int64(len(batch))
		c.rows += int64(len(batch))
		batch, size = batch[:0], 0
		c.opt.Progress("copying", c.rows, c.total)
		return failpoint.Hit("copy-batch")
	}
	for rows.Next() {
		row, bytes, err := scanRow(rows, len(columns))
		if err != nil {
			return err
		}
		sum.add(row)
		size += bytes
		if batch = append(batch, row); len(batch) >= rowsAtOnce || size >= bytesAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(rows.Err(), flush()); err != nil {
		return err
	}
	c.done.Rows[table], c.done.Sums[table] = n, sum.hex()
	return nil
}

// scanRow reads a row as numbers, texts and bytes, and tells its size.
func scanRow(rows *sql.Rows, n int) (row []any, size int, err error) {
	row = make([]any, n)
	into := make([]any, n)
	for i := range row {
		into[i] = &row[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, 0, err
	}
	for i, v := range row {
		switch v := v.(type) {
		case string:
			size += len(v)
		case []byte:
			if size += len(v); v == nil {
				row[i] = []byte{} // SQLite's driver gives empty ones as nil, which is null to insert
			}
		default:
			size += 8
		}
	}
	return row, size, nil
}

// insert writes a piece of a table in one transaction.
func (c *transfer) insert(ctx context.Context, table string, columns []string, batch [][]any) error {
	return c.to.writeSchema(ctx, func(t *Tx) error {
		if c.to.dialect == Postgres {
			// What comes last, with the mark, is waited for, and all before it with it.
			if _, err := t.Exec(ctx, `SET LOCAL synchronous_commit TO off`); err != nil {
				return err
			}
			return t.conn.Raw(func(driver any) error {
				conn, ok := driver.(*pgConn)
				if !ok {
					return errors.New("db: not a PostgreSQL connection")
				}
				_, err := conn.Conn.Conn().CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromRows(batch))
				return c.to.translate(err)
			})
		}
		const parameters = 10000
		one := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
		into := `INSERT INTO "` + table + `" ("` + strings.Join(columns, `", "`) + `") VALUES `
		for some := range slices.Chunk(batch, max(parameters/len(columns), 1)) {
			args := make([]any, 0, len(some)*len(columns))
			for _, row := range some {
				args = append(args, row...)
			}
			if _, err := t.Exec(ctx, into+one+strings.Repeat(", "+one, len(some)-1), args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// acceptable refuses texts that PostgreSQL cannot store.
func (c *transfer) acceptable(table string, columns []string, batch [][]any) error {
	if c.to.dialect != Postgres {
		return nil
	}
	for _, row := range batch {
		for i, v := range row {
			if text, ok := v.(string); ok && (!utf8.ValidString(text) || strings.ContainsRune(text, 0)) {
				return fault.New(fault.Invalid, "The column %s of a row of %s has a text that is no UTF-8 or has a zero in it, which PostgreSQL cannot store; the row begins with %.60q.", columns[i], table, row[0])
			}
		}
	}
	return nil
}

// DifferenceError says that a copy is not what was copied.
type DifferenceError struct{ Tables []string }

// Error names the tables.
func (e *DifferenceError) Error() string {
	return "the copy differs from the source in " + strings.Join(e.Tables, ", ") + "; it must not be used"
}

// compare reads the copy whole, and holds it against what was read of the source.
func (c *transfer) compare(ctx context.Context) error {
	var differ []string
	var seen int64
	err := c.to.Snapshot(ctx, func(t *Tx) error {
		differ, seen = nil, 0
		for _, table := range slices.Sorted(maps.Keys(c.tables)) {
			sum, n, err := c.sum(ctx, t, table, func(n int64) { c.opt.Progress("comparing", seen+n, c.total) })
			if err != nil {
				return err
			}
			seen += n
			if n != c.done.Rows[table] || sum.hex() != c.done.Sums[table] {
				differ = append(differ, table)
			}
		}
		return nil
	})
	if err == nil && len(differ) > 0 {
		err = &DifferenceError{differ}
	}
	return err
}

// sum adds up a table of the copy, and counts its rows.
func (c *transfer) sum(ctx context.Context, t *Tx, table string, tell func(n int64)) (sum rowSum, n int64, err error) {
	rows, err := t.Query(ctx, selection(table, c.tables[table]))
	if err != nil {
		return sum, 0, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		row, _, err := scanRow(rows, len(c.tables[table]))
		if err != nil {
			return sum, n, err
		}
		sum.add(row)
		if n++; n%rowsAtOnce == 0 {
			tell(n)
		}
	}
	return sum, n, rows.Err()
}

// rowSum adds up the hashes of rows, so that their order does not matter.
type rowSum [4]uint64

// add adds a row. Each value is written with its kind and length: a number as such,
// texts and bytes as what they are.
func (s *rowSum) add(row []any) {
	h := sha256.New()
	write := func(kind byte, content []byte) {
		var head [9]byte
		head[0] = kind
		binary.BigEndian.PutUint64(head[1:], uint64(len(content)))
		_, _ = h.Write(head[:]) // a hash does not fail
		_, _ = h.Write(content)
	}
	for _, v := range row {
		switch v := v.(type) {
		case int64:
			write('i', binary.BigEndian.AppendUint64(nil, uint64(v))) //nolint:gosec // its bits
		case nil:
			write('0', nil)
		case string:
			write('t', []byte(v))
		case []byte:
			write('b', v)
		default:
			write('?', fmt.Append(nil, v))
		}
	}
	sum := h.Sum(nil)
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], binary.LittleEndian.Uint64(sum[8*i:]), carry)
	}
}

func (s *rowSum) hex() string {
	var out []byte
	for _, word := range s {
		out = binary.LittleEndian.AppendUint64(out, word)
	}
	return hex.EncodeToString(out)
}
