package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/version"
)

// databaseVersion holds the database's version against what the release works with.
func (x *examination) databaseVersion(ctx context.Context) error {
	var got string
	query, name := `SELECT sqlite_version()`, "SQLite"
	if x.DB.Dialect() == db.Postgres {
		query, name = `SELECT current_setting('server_version')`, "PostgreSQL"
	}
	if err := x.DB.Read(ctx, func(tx *db.Tx) error { return tx.QueryRow(ctx, query).Scan(&got) }); err != nil {
		return err
	}
	got, _, _ = strings.Cut(got, " ") // "17.6 (Debian 17.6-1)"
	least := ""
	if x.release != nil {
		if least = x.release.Database.SQLite; x.DB.Dialect() == db.Postgres {
			least = x.release.Database.PostgreSQL
		}
	}
	switch older, err := isOlder(got, least); {
	case least == "":
		x.say(OK, "", "%s %s; the release works with any", name, got)
	case err != nil:
		return fmt.Errorf("compare the versions %q and %q: %w", got, least, err)
	case older:
		x.say(Fail, "Upgrade the database's server first.", "%s %s, and version %s works with %s or later", name, got, x.To, least)
	default:
		x.say(OK, "", "%s %s; the release works with %s or later", name, got, least)
	}
	return nil
}

// isOlder compares versions such as "17", "17.6" and "3.50.1" number by number.
func isOlder(got, least string) (bool, error) {
	if least == "" {
		return false, nil
	}
	a, err := version.Parse(version.Octopus, got)
	if err != nil {
		return false, err
	}
	b, err := version.Parse(version.Octopus, least)
	return err == nil && version.Compare(a, b) < 0, err
}

// schema looks whether the schema is what the version that runs has made. An index that is
// missing can be made again, and does not speak against an upgrade; nor does what a newer
// version has added before it was given up.
func (x *examination) schema(ctx context.Context) error {
	r, err := doctor.Run(ctx, doctor.Config{DB: x.DB, Store: x.Store, Log: x.Log, Only: []string{"schema"}})
	if err != nil {
		return err
	}
	taken, err := x.taken(ctx)
	if err != nil {
		return err
	}
	added := func(code string) bool { return len(taken.foreign) > 0 && strings.HasSuffix(code, "-extra") }
	said := false
	for _, f := range r.Findings {
		status, remedy, mends := Warn, f.Remedy, f.Fixable && strings.HasPrefix(f.Code, "index-")
		if f.Severity == doctor.Notice || f.Code == "schema-behind" {
			continue // a database of an older level is what an upgrade is for
		}
		switch {
		case added(f.Code):
			remedy = "If it is of a newer version that was tried here, leave it: the upgrade to that version goes on with it."
		case mends:
			remedy = "The upgrade makes it again when it begins, before its backup; tako doctor --fix does, too."
		case f.Severity == doctor.Error:
			status = Fail
		}
		said = true
		x.say(status, remedy, "%s: %s", f.Where, f.What)
		x.report.Checks[len(x.report.Checks)-1].Mendable = mends
	}
	for code, n := range r.More {
		said = true
		status := Fail
		if added(code) {
			status = Warn
		}
		x.say(status, "tako doctor lists all of them.", "%d more of the kind %s", n, code)
	}
	if !said {
		meta, err := x.DB.Meta(ctx)
		if err != nil {
			return err
		}
		x.say(OK, "", "It is as its migrations have left it (level %d, fingerprint %.12s)", meta.SchemaLevel, meta.Fingerprint)
	}
	return nil
}

// taken are the migrations that a database has, done or begun.
type taken struct {
	open    []string // known to the version that runs, begun and not ended
	foreign []string // of another version
}

// taken reads which migrations the database has. A version has tens.
func (x *examination) taken(ctx context.Context) (out taken, err error) {
	own, err := db.MigrationIDs()
	if err != nil {
		return out, err
	}
	err = x.DB.Read(ctx, func(tx *db.Tx) error {
		out = taken{}
		return each(ctx, tx, `SELECT m.id, m.state FROM tako_migration m ORDER BY m.id LIMIT 10000`, func(id, state string) {
			switch {
			case !slices.Contains(own, id):
				out.foreign = append(out.foreign, id)
			case state != "done":
				out.open = append(out.open, id)
			}
		})
	})
	return out, err
}

// migrations looks for those that were begun and not brought to their end. One that the
// version that runs does not know is of a newer one that was tried, which would go on with
// it: that is in nobody's way.
func (x *examination) migrations(ctx context.Context) error {
	taken, err := x.taken(ctx)
	if err != nil {
		return err
	}
	if n := len(taken.open); n > 0 {
		x.say(Fail, "Restart the server, which goes on with them, and wait until they are done.", "%d migrations have begun and not ended: %s", n, named(taken.open, n))
		return nil
	}
	if n := len(taken.foreign); n > 0 {
		x.say(OK, "", "None of this version is under way; %d are of another version: %s", n, named(taken.foreign, n))
		return nil
	}
	x.say(OK, "", "None is under way")
	return nil
}

// finalized looks whether the upgrade to the version that runs was brought to its end. What
// a version has added that was left again, or given up, waits for that version alone.
func (x *examination) finalized(ctx context.Context) error {
	meta, err := x.DB.Meta(ctx)
	if err != nil {
		return err
	}
	own := db.BinaryLevels().Level
	switch {
	case meta.ActiveLevel < own:
		x.say(Fail, "tako upgrade finalize, or roll it back.", "The last upgrade (to schema level %d by %s) is not finalized: data is still written as level %d has it", own, meta.ExpandedBy, meta.ActiveLevel)
	case meta.ActiveLevel < meta.SchemaLevel:
		x.say(OK, "", "Data is written as schema level %d has it; version %s, which does not run, has made level %d beside", meta.ActiveLevel, meta.ExpandedBy, meta.SchemaLevel)
	default:
		x.say(OK, "", "Data is written as schema level %d has it", meta.ActiveLevel)
	}
	return nil
}

// integrity has the database look at its own pages.
func (x *examination) integrity(ctx context.Context) error {
	damage, err := x.DB.QuickIntegrity(ctx)
	if err != nil && !db.IsDamage(err) {
		return err
	}
	if err != nil {
		damage = append(damage, err.Error())
	}
	if len(damage) > 0 {
		x.say(Fail, "Restore the last backup: tako backup restore latest.", "The database is damaged: %s", named(damage, len(damage)))
		return nil
	}
	x.say(OK, "", "%s is whole, as far as a quick look tells", x.DB)
	return nil
}

// documents reads every document. One that cannot be read keeps the upgrade from beginning:
// nobody knows what a new version makes of it, and what then fails would not name it.
func (x *examination) documents(ctx context.Context) error {
	r, err := doctor.Run(ctx, doctor.Config{DB: x.DB, Store: x.Store, Log: x.Log, Only: []string{"documents"}})
	if err != nil {
		return err
	}
	status := func(code string) Status {
		if code == "document-unreadable" || code == "check-failed" {
			return Fail
		}
		return Warn
	}
	said := false
	for _, f := range r.Findings {
		if f.Severity == doctor.Notice {
			continue // those of a newer version that was tried
		}
		said = true
		x.say(status(f.Code), f.Remedy, "%s: %s", f.Where, f.What)
	}
	for code, n := range r.More {
		said = true
		x.say(status(code), "tako doctor lists all of them.", "%d more of the kind %s", n, code)
	}
	if !said {
		x.say(OK, "", "%d can be read, and are found by what is in them", r.Checks[0].Looked)
	}
	return nil
}

// clockOff is by how much clocks may differ before it is worth saying.
const clockOff = 30 * time.Second

// clock compares this machine's clock with the database's and with the feed's.
func (x *examination) clock(ctx context.Context) error {
	var micros, newest int64
	query := `SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER)`
	if x.DB.Dialect() == db.Postgres {
		query = `SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint`
	}
	before := x.Now()
	started := time.Now()
	err := x.DB.Read(ctx, func(tx *db.Tx) error {
		if err := tx.QueryRow(ctx, query).Scan(&micros); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT COALESCE(max(e.occurred), 0) FROM events e`).Scan(&newest)
	})
	if err != nil {
		return err
	}
	took := time.Since(started)
	said := false
	off := db.Time(micros).Sub(before.Add(took/2)).Abs() - took/2
	if off > clockOff {
		said = true
		x.say(Warn, "Have both machines set their clocks by the same time servers (NTP).", "The clocks of this machine and of the database differ by %s", off.Round(time.Second))
	}
	if ahead := db.Time(newest).Sub(before); ahead > clockOff {
		said = true
		x.say(Warn, "Set the clock of this machine.", "The last event is %s in the future by the clock of this machine", ahead.Round(time.Second))
	}
	if x.Feed != nil {
		if ahead := x.Feed.Seen.Issued.Sub(before); ahead > clockOff {
			said = true
			x.say(Warn, "Set the clock of this machine.", "The feed was signed %s in the future by the clock of this machine", ahead.Round(time.Second))
		}
	}
	if !said {
		x.say(OK, "", "The clocks of this machine and of the database differ by less than %s, and none is behind the feed", clockOff)
	}
	return nil
}
