package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
)

// documentsAtOnce is how many documents one transaction looks at.
const documentsAtOnce = 100

// documents reads every document, and holds the rows beside it against what its
// declaration makes of it.
func (x *examination) documents(ctx context.Context) error {
	var total int64
	err := x.DB.Read(ctx, func(tx *db.Tx) error { return tx.QueryRow(ctx, `SELECT count(*) FROM documents`).Scan(&total) })
	if err != nil {
		return err
	}
	undeclared := map[string]int64{}
	for after, looked := (docstore.Key{}), documentsAtOnce; looked == documentsAtOnce; {
		var flaws []docstore.Flaw
		var last docstore.Key
		err := x.DB.Snapshot(ctx, func(tx *db.Tx) (err error) {
			flaws = nil
			last, looked, err = x.Store.Inspect(ctx, tx, after, documentsAtOnce, func(f docstore.Flaw) { flaws = append(flaws, f) })
			return err
		})
		if err != nil {
			return err
		}
		after = last
		x.check.Looked += int64(looked)
		x.Progress("documents", x.check.Looked, total)
		for _, f := range flaws {
			if f.Undeclared {
				undeclared[f.Kind]++
				continue
			}
			x.flaw(ctx, f)
		}
	}
	for _, kind := range sorted(undeclared) {
		x.add(Finding{
			Severity: Notice, Code: "document-undeclared", Where: "documents " + kind, What: count(undeclared[kind], "document is", "documents are") + " of a kind that this version does not know",
			Remedy: "A newer version has stored them; examine with that.",
		})
	}
	return x.strays(ctx)
}

func (x *examination) flaw(ctx context.Context, f docstore.Flaw) {
	where := f.Kind + " " + f.ID
	if f.Unreadable != nil {
		x.add(Finding{
			Severity: Error, Code: "document-unreadable", Where: where, What: "The document cannot be read: " + readable(f.Unreadable),
			Remedy: "Restore a backup beside this server, and enter the document again from it.",
		})
		return
	}
	x.mend(Finding{
		Severity: Error, Code: "document-index", Where: where, What: "The rows by which it is found are not those of its content: " + strings.Join(f.Rows[:min(len(f.Rows), 5)], "; "),
		Remedy: "tako doctor --fix writes them anew.",
	}, func() (string, error) {
		return "wrote them anew", x.DB.Write(ctx, func(tx *db.Tx) error { return x.Store.Reindex(ctx, tx, f.Key) })
	})
}

// strays looks for rows beside documents that are not there.
func (x *examination) strays(ctx context.Context) error {
	var found map[string]int64
	err := x.DB.Snapshot(ctx, func(tx *db.Tx) (err error) {
		found, err = docstore.Strays(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	for _, table := range sorted(found) {
		x.mend(Finding{
			Severity: Error, Code: "document-stray", Where: table, What: count(found[table], "row belongs", "rows belong") + " to documents that are not there",
			Remedy: "tako doctor --fix removes them: they keep names taken, and things from being deleted.",
		}, func() (string, error) {
			return "removed them", x.DB.Write(ctx, func(tx *db.Tx) error { _, err := docstore.DropStrays(ctx, tx); return err })
		})
	}
	return nil
}

// soft is a column that names a row of another table, without a foreign key.
type soft struct {
	table, label string // label is what names a row for people
	column       string
	target       string // table.column
	where        string // which rows; "" for all
	derived      string // what repairs all of it without a loss; "" for nothing
}

// softs are the references of the tables that are no documents.
func softs() []soft {
	document := func(kind string) string { return "documents.id/" + kind }
	all := []soft{
		{table: "deployment", label: "s.id", column: "release_id", target: "release.id"},
		{table: "deployment", label: "s.id", column: "task_id", target: "task.id"},
		{table: "deployment", label: "s.id", column: "project_id", target: document("projects")},
		{table: "release", label: "s.id", column: "project_id", target: document("projects")},
		{table: "release_defect", label: "s.id", column: "release_id", target: "release.id"},
		{table: "current_release", label: "s.project_id || ' ' || s.environment_id || ' ' || s.tenant_id", column: "deployment_id", target: "deployment.id", derived: "current_release"},
		{table: "current_release", label: "s.project_id || ' ' || s.environment_id || ' ' || s.tenant_id", column: "release_id", target: "release.id", derived: "current_release"},
		{table: "latest_deployment", label: "s.project_id || ' ' || s.environment_id || ' ' || s.tenant_id", column: "deployment_id", target: "deployment.id", derived: "latest_deployment"},
		{table: "manifest", label: "s.id", column: "owner", target: "deployment.id"},
		{table: "snapshot_use", label: "s.owner || ' ' || s.snapshot", column: "owner", target: "release.id"},
		{table: "snapshot_use", label: "s.owner || ' ' || s.snapshot", column: "snapshot", target: "documents.id"},
		{table: "package_use", label: "s.owner || ' ' || s.package_folded", column: "owner", target: "release.id"},
		{table: "event_related", label: "CAST(s.event_id AS TEXT) || ' ' || s.document_id", column: "event_id", target: "events.id"},
		{table: "subscription_sender", label: "s.subscription || ' ' || s.channel", column: "subscription", target: document("subscriptions")},
		{table: "documents", label: "s.kind || ' ' || s.id", column: "space_id", target: document("spaces"), where: "s.space_id <> '' AND s.deleted = 0"},
		{table: "package", label: "s.id", column: "space_id", target: document("spaces")},
	}
	for _, table := range []string{"user_password", "user_search", "api_key", "session"} {
		label := "s.user_id" // the ids of sessions are nobody's business
		if table == "api_key" {
			label = "s.id"
		}
		all = append(all, soft{table: table, label: label, column: "user_id", target: document("users")})
	}
	for _, table := range []string{"journal", "unit_cursor", "task_log", "task_log_segment", "interruption", "answer", "artifact", "task_hold"} {
		all = append(all, soft{table: table, label: "s.task", column: "task", target: "task.id"})
	}
	return append(all, soft{table: "task_child", label: "s.parent", column: "parent", target: "task.id"})
}

// missing is the condition that what a row names is not there.
func (s *soft) missing() string {
	target, kind, isDocument := strings.Cut(s.target, "/")
	table, column, _ := strings.Cut(target, ".")
	cond := fmt.Sprintf(`NOT EXISTS (SELECT 1 FROM %s o WHERE o.%s = s.%s`, table, column, s.column)
	if isDocument {
		cond += ` AND o.kind = '` + kind + `'`
	}
	cond += `)`
	if s.where != "" {
		cond = s.where + ` AND ` + cond
	}
	return cond
}

// rederive are the statements that make derived tables again where they are wrong.
func rederive() map[string][]string {
	places := func(table string) string {
		return fmt.Sprintf(`DELETE FROM %[1]s WHERE NOT EXISTS (SELECT 1 FROM deployment o WHERE o.id = %[1]s.deployment_id) `, table)
	}
	missing := func(table string) string {
		return fmt.Sprintf(`NOT EXISTS (SELECT 1 FROM %s c WHERE c.project_id = d.project_id AND c.environment_id = d.environment_id AND c.tenant_id = d.tenant_id)`, table)
	}
	same := `l.project_id = d.project_id AND l.environment_id = d.environment_id AND l.tenant_id = d.tenant_id`
	return map[string][]string{
		"current_release": {
			places("current_release") + `OR NOT EXISTS (SELECT 1 FROM release o WHERE o.id = current_release.release_id)`,
			`INSERT INTO current_release (project_id, environment_id, tenant_id, release_id, deployment_id, completed)
				SELECT d.project_id, d.environment_id, d.tenant_id, d.release_id, d.id, d.completed FROM deployment d WHERE d.state = 'Success' AND ` + missing("current_release") + `
				AND EXISTS (SELECT 1 FROM release r WHERE r.id = d.release_id)
				AND NOT EXISTS (SELECT 1 FROM deployment l WHERE ` + same + ` AND l.state = 'Success' AND (l.completed > d.completed OR l.completed = d.completed AND l.seq > d.seq))`,
		},
		"latest_deployment": {
			places("latest_deployment"),
			`INSERT INTO latest_deployment (project_id, environment_id, tenant_id, deployment_id, created, seq)
				SELECT d.project_id, d.environment_id, d.tenant_id, d.id, d.created, d.seq FROM deployment d WHERE ` + missing("latest_deployment") + `
				AND NOT EXISTS (SELECT 1 FROM deployment l WHERE ` + same + ` AND (l.created > d.created OR l.created = d.created AND l.seq > d.seq))`,
		},
	}
}

// references looks for whatever names something that is not there.
func (x *examination) references(ctx context.Context) error {
	var named []docstore.Dangling
	n := 0
	err := x.DB.Snapshot(ctx, func(tx *db.Tx) error {
		named, n = nil, 0
		return docstore.EachDangling(ctx, tx, func(d docstore.Dangling) {
			if n++; len(named) < maxNamed {
				named = append(named, d)
			}
		})
	})
	if err != nil {
		return err
	}
	const code = "reference-dangling"
	for _, d := range named {
		x.add(Finding{
			Severity: Error, Code: code, Where: d.From.Kind + " " + d.From.ID, What: fmt.Sprintf("%s names the %s %s, which is not there", d.Field, d.To.Kind, d.To.ID),
			Remedy: "Change the document to name another one, or restore the one that it names.",
		})
	}
	x.more(code, n-len(named), false)
	for _, s := range softs() {
		if err := x.soft(ctx, s); err != nil {
			return fmt.Errorf("%s.%s: %w", s.table, s.column, err)
		}
		x.check.Looked++
	}
	return nil
}

func (x *examination) soft(ctx context.Context, s soft) error {
	var found list
	err := x.DB.Snapshot(ctx, func(tx *db.Tx) (err error) {
		found, err = some(ctx, tx, `SELECT DISTINCT `+s.label+` FROM `+s.table+` s WHERE `+s.missing()+` ORDER BY 1`)
		return err
	})
	if err != nil || found.count == 0 {
		return err
	}
	target, kind, _ := strings.Cut(s.target, "/")
	if kind == "" {
		kind, _, _ = strings.Cut(target, ".")
	}
	f := Finding{
		Severity: Error, Code: "row-dangling", Where: s.table, What: fmt.Sprintf("%s names a row of %s that is not there", s.column, kind),
		Remedy: "Restore a backup beside this server and see what is missing; nothing is deleted by the doctor.",
	}
	if s.derived == "" {
		x.all(ctx, found, f, "", "")
		return nil
	}
	f.Remedy = "tako doctor --fix works it out anew."
	var outcome error
	if x.Fix {
		outcome = x.DB.WriteEngine(ctx, func(tx *db.Tx) error {
			for _, statement := range rederive()[s.derived] {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, where := range found.named {
		one := f
		one.Where += " " + where
		x.mend(one, func() (string, error) { return "worked it out anew", outcome })
	}
	x.more(f.Code, int(found.count)-len(found.named), x.Fix && outcome == nil)
	return nil
}
