package apptest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/takodeploy/tako/internal/db"
)

// Fill makes the SQLite database of a server that has stopped one of years of use: many
// times what the first deployment of its first project left behind, until its file has so
// many bytes and the audit trail so many events.
func (p *Process) Fill(bytes, events int64) {
	p.t.Helper()
	path := filepath.Join(p.Data, "tako.db")
	d, err := db.Open(p.t.Context(), "sqlite:"+path, db.Options{MustExist: true})
	if err != nil {
		p.t.Fatal(err)
	}
	for from := 1; ; from += copiesAtOnce {
		var recorded int64
		err := d.Write(p.t.Context(), func(tx *db.Tx) error {
			statements, err := copies(p.t.Context(), tx, from)
			if err != nil {
				return err
			}
			for _, statement := range statements {
				n, err := tx.Exec(p.t.Context(), statement)
				if err == nil && n == 0 && from == 1 {
					err = errors.New("nothing to copy")
				}
				if err != nil {
					return fmt.Errorf("%w in %s", err, statement)
				}
			}
			return tx.QueryRow(p.t.Context(), `SELECT max(id) FROM events`).Scan(&recorded)
		})
		if err != nil {
			p.t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			p.t.Fatal(err)
		}
		if info.Size() >= bytes && recorded >= events {
			break
		}
	}
	if err := d.Close(); err != nil {
		p.t.Fatal(err)
	}
}

const (
	copiesAtOnce = 2000
	projects     = 300 // that the copies belong to
)

// original is what a deployment leaves behind in one table.
type original struct {
	table, where string
	// set gives columns that are neither copied nor renumbered.
	set map[string]string
}

// originals are copied together. n.i is the number of the copy.
func originals() []original {
	number := map[string]string{"seq": "10000 + n.i"}
	few := fmt.Sprintf(" AND n.i <= %d", projects)
	return []original{
		{"documents", "id = 'Projects-1'" + few, map[string]string{"seq": "10000 + n.i", "name": "name || n.i", "slug": "slug || n.i"}},
		{"document_index", "id = 'Projects-1'" + few, nil},
		{"current_release", "project_id = 'Projects-1'" + few, nil},
		{"latest_deployment", "project_id = 'Projects-1'" + few, map[string]string{"seq": "10000 + n.i", "created": "created + n.i"}},
		{"release", "id = 'Releases-1'", map[string]string{
			"seq": "10000 + n.i", "created": "created + n.i", "version": "version || n.i", "version_folded": "version_folded || n.i", "version_key": "version_key || n.i",
		}},
		{"deployment", "id = 'Deployments-1'", map[string]string{"seq": "10000 + n.i", "created": "created + n.i", "completed": "completed + n.i"}},
		{"manifest", "owner = 'Deployments-1'", nil},
		{"task", "id = 'ServerTasks-1'", number},
		{"journal", "task = 'ServerTasks-1'", nil},
		{"events", "project_id = 'Projects-1'", map[string]string{"id": "NULL", "occurred": "occurred + n.i"}},
	}
}

// copies are the statements that copy the originals with the numbers from first
// on. The ids in all texts are those of the copy, so that copies refer to each
// other as the originals do.
func copies(ctx context.Context, tx *db.Tx, first int) ([]string, error) {
	var all []string
	for _, o := range originals() {
		rows, err := tx.Query(ctx, `SELECT name, type FROM pragma_table_info(?)`, o.table)
		if err != nil {
			return nil, err
		}
		var columns []string
		for rows.Next() {
			var name, kind string
			if err := rows.Scan(&name, &kind); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			switch value, given := o.set[name]; {
			case given:
				name = value
			case strings.EqualFold(kind, "TEXT"):
				name = renumber(name)
			}
			columns = append(columns, name)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO %s SELECT %s FROM %s, n WHERE %s`,
			first, first+copiesAtOnce-1, o.table, strings.Join(columns, ", "), o.table, o.where))
	}
	return all, nil
}

// renumber is a column's text with the ids of a copy.
func renumber(column string) string {
	column = fmt.Sprintf(`replace(%s, 'Projects-1', 'Projects-' || (10001 + n.i %% %d))`, column, projects)
	for _, prefix := range []string{"Releases-", "Deployments-", "ServerTasks-"} {
		column = fmt.Sprintf(`replace(%s, '%[2]s1', '%[2]s' || (10000 + n.i))`, column, prefix)
	}
	return column
}
