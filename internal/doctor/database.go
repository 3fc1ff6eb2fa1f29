package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
)

const byHand = "Find out who changed it by hand, and change it back; or restore a backup."

// schema compares the schema with what this program's migrations make.
func (x *examination) schema(ctx context.Context) error {
	meta, err := x.DB.Meta(ctx)
	if err != nil {
		return err
	}
	own := db.BinaryLevels()
	switch {
	case meta.SchemaLevel < own.Level:
		x.add(Finding{
			Severity: Warning, Code: "schema-behind", Where: "schema",
			What:   fmt.Sprintf("The schema has level %d, and this version makes level %d", meta.SchemaLevel, own.Level),
			Remedy: "Start this version's server once, or examine with the version that the servers have.",
		})
	case meta.SchemaLevel > own.Level:
		x.add(Finding{
			Severity: Notice, Code: "schema-ahead", Where: "schema",
			What:   fmt.Sprintf("The schema has level %d (made by %s), and this version knows level %d", meta.SchemaLevel, meta.ExpandedBy, own.Level),
			Remedy: "Examine with the version that made it, which knows more.",
		})
	}
	in, err := db.Inspect(ctx, x.DB)
	if err != nil {
		return err
	}
	for _, id := range in.Pending {
		if meta.SchemaLevel >= own.Level {
			x.add(Finding{
				Severity: Error, Code: "migration-missing", What: "A migration of this version was never taken", Where: id,
				Remedy: "A database from before the first release has to be made anew; otherwise report this.",
			})
		}
	}
	for _, id := range in.Foreign {
		x.add(Finding{
			Severity: Error, Code: "migration-changed", What: "A migration was taken from another file than this version has", Where: id,
			Remedy: "A database from before the first release has to be made anew; otherwise report this.",
		})
	}
	x.check.Looked = int64(len(in.Deviations))
	for _, d := range in.Deviations {
		x.deviation(ctx, d)
	}
	if len(in.Deviations) == 0 && in.Fingerprint != meta.Fingerprint && !in.Recorded {
		x.mend(Finding{
			Severity: Warning, Code: "fingerprint", Where: "tako_meta", What: "The schema is as it should be, and its recorded fingerprint is another",
			Remedy: "tako doctor --fix records it anew.",
		}, func() (string, error) {
			return "recorded the schema anew", db.Migrate(ctx, x.DB, db.MigrateOptions{By: meta.ExpandedBy})
		})
	}
	return nil
}

// deviation notes an object that is not as it should be.
func (x *examination) deviation(ctx context.Context, d db.Deviation) {
	f := Finding{Severity: Error, Where: d.Object, Remedy: byHand}
	kind := d.Kind()
	switch {
	case d.Got == "":
		f.Code, f.What = kind+"-missing", "It is missing; it should be "+d.Want
	case d.Want == "":
		f.Code, f.What = kind+"-extra", "It does not belong to the schema: "+d.Got
		switch {
		case kind == "table":
			f.Severity, f.Remedy = Notice, "Drop it if it is of no use to you; it is in nobody's way."
		case kind == "index" && !strings.HasPrefix(d.Got, "CREATE UNIQUE"):
			f.Severity, f.Remedy = Warning, "Drop it: it costs time with each write, and may be in the way of an upgrade."
		case kind == "column" && !strings.Contains(d.Got, "NOT NULL"):
			f.Severity, f.Remedy = Warning, "Drop it: it may be in the way of an upgrade."
		}
	case d.Mendable():
		f.Code, f.What = "index-invalid", "The database does not use it: an attempt to build it was cut short"
	default:
		f.Code, f.What = kind+"-changed", "It is "+d.Got+" and should be "+d.Want
	}
	if !d.Mendable() {
		x.add(f)
		return
	}
	f.Severity, f.Remedy = Warning, "tako doctor --fix makes it again."
	x.mend(f, func() (string, error) { return "made it again", db.Mend(ctx, x.DB, d) })
}

// integrity has the database look at its own pages.
func (x *examination) integrity(ctx context.Context) error {
	look := x.DB.QuickIntegrity
	if x.Full {
		look = x.DB.Integrity
	}
	damage, err := look(ctx)
	if err != nil {
		return err
	}
	for _, what := range damage {
		x.add(Finding{Severity: Error, Code: "database-damaged", What: "The database is damaged: " + what, Where: x.DB.String(), Remedy: restore})
	}
	if x.DB.Dialect() != db.Postgres {
		return nil
	}
	return x.DB.Read(ctx, func(tx *db.Tx) error {
		var failures int64
		if err := tx.QueryRow(ctx, `SELECT COALESCE((SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()), 0)`).Scan(&failures); err != nil {
			return err
		}
		if failures > 0 {
			x.add(Finding{
				Severity: Error, Code: "database-damaged", What: fmt.Sprintf("PostgreSQL has read %d pages with a wrong checksum", failures), Where: x.DB.String(),
				Remedy: "Look at the server's log and its disk; restore a backup.",
			})
		}
		return nil
	})
}

const (
	// clockOff is by how much clocks may differ that leases are compared by; clockWrong
	// is what makes due times and sessions go wrong.
	clockOff   = 2 * time.Second
	clockWrong = 30 * time.Second
)

// clock compares this machine's clock with the database's, and with what is stored.
func (x *examination) clock(ctx context.Context) error {
	return x.DB.Read(ctx, func(tx *db.Tx) error {
		if x.DB.Dialect() == db.Postgres {
			var micros int64
			before := time.Now()
			if err := tx.QueryRow(ctx, `SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint`).Scan(&micros); err != nil {
				return err
			}
			took := time.Since(before)
			off := db.Time(micros).Sub(before.Add(took/2)).Abs() - took/2
			f := Finding{
				Severity: Warning, Code: "clock-differs", Where: x.DB.String(), Remedy: "Have both machines set their clocks by the same time servers (NTP).",
				What: fmt.Sprintf("The clocks of this machine and of the database differ by %s", off.Round(100*time.Millisecond)),
			}
			if off > clockWrong {
				f.Severity = Error
			}
			if off > clockOff {
				x.add(f)
			}
		}
		var newest int64
		if err := tx.QueryRow(ctx, `SELECT COALESCE(max(e.occurred), 0) FROM events e`).Scan(&newest); err != nil {
			return err
		}
		if ahead := time.Until(db.Time(newest)); ahead > clockWrong {
			x.add(Finding{
				Severity: Warning, Code: "clock-behind", Where: "events", Remedy: "Set the clock of this machine; what is due comes late until it has caught up.",
				What: fmt.Sprintf("The last event is %s in the future by the clock of this machine", ahead.Round(time.Second)),
			})
		}
		return nil
	})
}

// counted are the tables whose ids come from a counter, beside the documents.
func counted() map[string]string {
	return map[string]string{
		"ServerTasks": "task", "Interruptions": "interruption", "Artifacts": "artifact", "apikeys": "api_key",
		"Releases": "release", "Deployments": "deployment", "Defects": "release_defect", "BuildInformation": "build_information",
		"OctopusServerNodes": "node_setting", "RegistrationTokens": "registration_token",
	}
}

// numbers looks whether ids that are given out next are above those that are there.
func (x *examination) numbers(ctx context.Context) error {
	largest, next := map[string]int64{}, map[string]int64{}
	var identities []db.Identity
	err := x.DB.Snapshot(ctx, func(tx *db.Tx) error {
		clear(largest)
		clear(next)
		for counter, table := range counted() {
			var n int64
			if err := tx.QueryRow(ctx, `SELECT COALESCE(max(seq), 0) FROM `+table).Scan(&n); err != nil {
				return err
			}
			largest[counter] = n
		}
		rows, err := tx.Query(ctx, `SELECT d.kind, d.id FROM documents d WHERE NOT EXISTS (SELECT 1 FROM documents o WHERE o.kind = d.kind AND o.seq > d.seq)`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var kind, id string
			if err := rows.Scan(&kind, &id); err != nil {
				return err
			}
			k := x.Store.Kinds()[kind]
			if k == nil {
				continue
			}
			if n, ok := ident.Seq(id); ok && id == ident.ID(k.Prefix, n) {
				largest[k.Prefix] = max(largest[k.Prefix], n)
			}
		}
		if err := rows.Close(); err != nil {
			return err
		}
		counters, err := tx.Query(ctx, `SELECT c.kind, c.next FROM counter c`)
		if err != nil {
			return err
		}
		defer counters.Close()
		for counters.Next() {
			var kind string
			var n int64
			if err := counters.Scan(&kind, &n); err != nil {
				return err
			}
			next[kind] = n
		}
		if err := counters.Close(); err != nil {
			return err
		}
		identities, err = tx.Identities(ctx)
		return err
	})
	if err != nil {
		return err
	}
	x.check.Looked = int64(len(largest) + len(identities))
	for _, counter := range sorted(largest) {
		most := largest[counter]
		if most == 0 || next[counter] > most {
			continue
		}
		x.mend(Finding{
			Severity: Error, Code: "counter-behind", Where: "counter " + counter,
			What:   fmt.Sprintf("The next id is %s, and there is %s already", ident.ID(counter, max(next[counter], 1)), ident.ID(counter, most)),
			Remedy: "tako doctor --fix raises it; then restart the servers, which may have taken numbers from it.",
		}, func() (string, error) {
			return fmt.Sprintf("raised it to %d", most+1), x.DB.WriteEngine(ctx, func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO counter (kind, next) VALUES (?, ?)
					ON CONFLICT (kind) DO UPDATE SET next = CASE WHEN counter.next > excluded.next THEN counter.next ELSE excluded.next END`, counter, most+1)
				return err
			})
		})
	}
	for _, one := range identities {
		if one.Last >= one.Largest {
			continue
		}
		x.mend(Finding{
			Severity: Error, Code: "counter-behind", Where: one.Table + "." + one.Column,
			What:   fmt.Sprintf("The database gives out %d next, and %d is there already", one.Last+1, one.Largest),
			Remedy: "tako doctor --fix raises it.",
		}, func() (string, error) {
			return fmt.Sprintf("raised it to %d", one.Largest), x.DB.WriteEngine(ctx, func(tx *db.Tx) error { return tx.SetIdentity(ctx, one, one.Largest) })
		})
	}
	return nil
}
