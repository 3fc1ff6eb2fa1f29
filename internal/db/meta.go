package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"github.com/takodeploy/tako/internal/fault"
)

// Meta is what a database says of itself.
type Meta struct {
	// SchemaLevel is the level that its tables have, MinReaderLevel the lowest
	// level of a binary that may use it, and ActiveLevel the one whose data
	// formats are written.
	SchemaLevel, MinReaderLevel, ActiveLevel int
	// Fingerprint is a hash of the schema as the migrations left it.
	Fingerprint string
	// ExpandedBy is the version of the binary that raised SchemaLevel, at ExpandedAt.
	ExpandedBy  string
	ExpandedAt  time.Time
	FinalizedAt time.Time
	// InstallationID is the same in all backups of an installation, and another
	// in its clones. Incarnation is another after every restore and clone.
	InstallationID, Incarnation string
}

// ErrNoSchema says that Migrate has not run on this database.
var ErrNoSchema = errors.New("the database has no schema yet")

// Meta reads what the database says of itself; ErrNoSchema when it is new.
func (d *DB) Meta(ctx context.Context) (Meta, error) {
	var m Meta
	err := d.Read(ctx, func(t *Tx) (err error) {
		m, err = t.meta(ctx)
		return err
	})
	return m, err
}

// Meta reads what the database says of itself, within a transaction.
func (t *Tx) Meta(ctx context.Context) (Meta, error) { return t.meta(ctx) }

func (t *Tx) meta(ctx context.Context) (Meta, error) {
	var m Meta
	var expanded, finalized int64
	err := t.QueryRow(ctx, `SELECT schema_level, min_reader_level, active_level, fingerprint, expanded_by, expanded_at, finalized_at,
		installation_id, incarnation FROM tako_meta WHERE id = 1`).
		Scan(&m.SchemaLevel, &m.MinReaderLevel, &m.ActiveLevel, &m.Fingerprint, &m.ExpandedBy, &expanded, &finalized, &m.InstallationID, &m.Incarnation)
	if errors.Is(err, sql.ErrNoRows) || isNoTable(err) {
		return m, ErrNoSchema
	}
	m.ExpandedAt, m.FinalizedAt = Time(expanded), Time(finalized)
	return m, err
}

// isNoTable says that a table is missing. SQLite has one code for every mistake
// in a statement; the runner's own statements have no other.
func isNoTable(err error) bool {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return lite.Code() == 1
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "42P01"
}

// StartError says why this binary may not use this database. A process that
// ends because of it exits with ExitCode.
type StartError struct {
	Binary Levels
	Meta   Meta
	reason string
}

// Error names both levels and the remedy.
func (e *StartError) Error() string { return e.reason }

// ExitCode is that of a configuration error: restarting does not help.
func (e *StartError) ExitCode() int { return fault.ExitRefused }

// NeedsMigrate says that Migrate would make the database usable.
func (e *StartError) NeedsMigrate() bool { return e.Meta.SchemaLevel < e.Binary.Min }

// CheckStart is the start rule: a binary may use a database if its level is not
// below the lowest that the database's data allows, and if the schema is not
// below the lowest that the binary knows. The error is a *StartError, or a fault
// Conflict for one into which another was copied, and not to the end.
func CheckStart(ctx context.Context, d *DB, binary Levels) error {
	half, err := d.Marked(ctx)
	if err != nil {
		return err
	}
	if half != "" {
		return fault.New(fault.Conflict, "A copy of %s into this database (%s) was cut short, so it is not whole; repeat `tako database copy`, or drop it.", half, d)
	}
	m, err := d.Meta(ctx)
	if err != nil && !errors.Is(err, ErrNoSchema) {
		return err
	}
	return startRule(binary, m)
}

func startRule(binary Levels, m Meta) error {
	switch {
	case binary.Level < m.MinReaderLevel:
		return &StartError{binary, m, fmt.Sprintf(
			"this version of tako knows schema level %d, but the data of this database is of level %d and needs at least level %d; run the newer version (its schema was made by %s), or go back with `tako backup restore`",
			binary.Level, m.ActiveLevel, m.MinReaderLevel, orUnknown(m.ExpandedBy))}
	case m.SchemaLevel < binary.Min:
		return &StartError{binary, m, fmt.Sprintf(
			"the schema of this database has level %d (made by %s) and this version of tako needs at least level %d; run `tako upgrade`, which takes a backup first",
			m.SchemaLevel, orUnknown(m.ExpandedBy), binary.Min)}
	}
	return nil
}

func orUnknown(s string) string {
	if strings.TrimSpace(s) == "" {
		return "an unknown version"
	}
	return s
}

// mayWrite is the part of the start rule that can change under a running
// process: once a newer level's formats are switched on, it must not write.
func (t *Tx) mayWrite(minReader int) error {
	if minReader > t.d.levels.Level {
		return startRule(t.d.levels, Meta{SchemaLevel: minReader, MinReaderLevel: minReader, ActiveLevel: minReader})
	}
	return nil
}

// Finalize switches on the data formats of the binary's level: the one step of
// an upgrade that cannot be taken back. Processes of a level below
// own.MinReader can no longer write from then on.
func Finalize(ctx context.Context, d *DB) error {
	return d.writeSchema(ctx, func(t *Tx) error {
		m, err := t.meta(ctx)
		if err != nil {
			return err
		}
		own := d.levels
		switch {
		case m.SchemaLevel < own.Level:
			return fmt.Errorf("finalize level %d: the schema has level %d and must be migrated first", own.Level, m.SchemaLevel)
		case m.ActiveLevel >= own.Level:
			return nil
		}
		_, err = t.Exec(ctx, `UPDATE tako_meta SET active_level = ?, min_reader_level = ?, finalized_at = ? WHERE id = 1`,
			own.Level, max(m.MinReaderLevel, own.MinReader), Micros(t.now))
		return err
	})
}

// skipped is by how much counters are raised when a database begins a new life:
// ids that the lost part of the old one gave out are not given out again.
const skipped = 1_000_000

// Reincarnate gives a restored or cloned database a new incarnation, so that
// nothing which still runs for its former life can write to it, and makes its
// counters skip the ids that may have been given out since, and the numbers of events:
// whoever follows them, or tells repetitions by them, would miss what is new. A clone
// gets another installation id too; "" keeps the one that is there.
func Reincarnate(ctx context.Context, d *DB, installation string) error {
	return d.writeSchema(ctx, func(t *Tx) error {
		t.AfterCommit(d.counters.forget)
		if _, err := t.Exec(ctx, `UPDATE counter SET next = next + ?`, skipped); err != nil {
			return err
		}
		numbers, err := t.Identities(ctx)
		if err != nil {
			return err
		}
		for _, one := range numbers {
			if err := t.SetIdentity(ctx, one, max(one.Last, one.Largest)+skipped); err != nil {
				return fmt.Errorf("skip the numbers of %s: %w", one.Table, err)
			}
		}
		if _, err := t.Exec(ctx, `UPDATE tako_meta SET incarnation = ? WHERE id = 1`, rand.Text()); err != nil || installation == "" {
			return err
		}
		_, err = t.Exec(ctx, `UPDATE tako_meta SET installation_id = ? WHERE id = 1`, installation)
		return err
	})
}

// ReincarnateSQL is what Reincarnate does to a restored database, as statements for
// psql, to be done in the transaction that restores it. schema is quoted.
func ReincarnateSQL(schema, incarnation string) string {
	return fmt.Sprintf(`UPDATE %[1]s.counter SET next = next + %[2]d;
UPDATE %[1]s.tako_meta SET incarnation = '%[3]s' WHERE id = 1;
SELECT setval(q.s, COALESCE(pg_sequence_last_value(q.s), 0) + %[2]d) FROM (
	SELECT pg_get_serial_sequence(c.oid::regclass::text, a.attname)::regclass AS s FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> ''
	WHERE c.relkind = 'r' AND c.relnamespace = '%[4]s'::regnamespace) q;
`, schema, skipped, incarnation, strings.ReplaceAll(schema, "'", "''"))
}
