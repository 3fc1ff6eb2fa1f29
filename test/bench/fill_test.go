package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
)

// largeSize is that of the large database, in bytes.
const largeSize = 1 << 30

// large is a server that has stopped, whose database is one of years of use: many
// times what it left behind of one deployment.
func large(b *testing.B) (*apptest.Process, *work) {
	b.Helper()
	p := started(b, db.SQLite)
	w := newWork(b, p.Client, 3, "true")
	w.ended(b, w.deploy(b, 0, true), fast)
	p.Stop()

	path := filepath.Join(p.Data, "tako.db")
	d, err := db.Open(b.Context(), "sqlite:"+path, db.Options{MustExist: true})
	if err != nil {
		b.Fatal(err)
	}
	for from := 1; ; from += copiesAtOnce {
		err := d.Write(b.Context(), func(tx *db.Tx) error {
			for _, statement := range copies {
				if _, err := tx.Exec(b.Context(), fmt.Sprintf(numbers, from, from+copiesAtOnce-1)+statement); err != nil {
					return fmt.Errorf("%w in %s", err, statement)
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		if info.Size() >= largeSize {
			break
		}
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	return p, w
}

const copiesAtOnce = 2000

// numbers is a table n of numbers i that copies are told apart by.
const numbers = `WITH RECURSIVE n (i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d)`

// copies multiply a project with its release, its deployment, its task with the
// journal, and all events. The copies have ids and names of their own.
var copies = []string{ //nolint:gochecknoglobals // a constant, were there constant lists
	copyOf("projects", "Projects-"),
	copyOf("releases", "Releases-"),
	copyOf("deployments", "Deployments-"),
	copyOfIndex("projects", "Projects-"),
	copyOfIndex("releases", "Releases-"),
	copyOfIndex("deployments", "Deployments-"),
	`INSERT INTO task SELECT 'ServerTasks-' || (10000 + n.i), 10000 + n.i, space_id, name, description, arguments, state, runnable, waiting, priority,
		queue_time, expiry, start_time, completed_time, updated_time, error, has_warnings, tag, project_id, environment_id, tenant_id, runbook_id,
		user_id, node, owner, db_incarnation, epoch, resumes, cancel_at, plan, log_lines, log_bytes FROM task t, n WHERE t.seq < 10000`,
	`INSERT INTO journal SELECT 'ServerTasks-' || (10000 + n.i), j.seq, j.epoch, fact FROM journal j JOIN task t ON t.id = j.task, n WHERE t.seq < 10000`,
	`INSERT INTO events (xact, occurred, category, space_id, user_id, username, identity, ip_address, user_agent, message, refs, details, project_id,
		project_group_id, environment_id, tenant_id, document_type) SELECT xact, occurred, category, space_id, user_id, username, identity, ip_address,
		user_agent, message, refs, details, project_id, project_group_id, environment_id, tenant_id, document_type FROM events e, n WHERE e.id < 100`,
}

func copyOf(kind, prefix string) string {
	return fmt.Sprintf(`INSERT INTO documents SELECT kind, '%[2]s' || (10000 + n.i), 10000 + n.i, space_id, name || n.i, slug || n.i, sort, version,
		body_version, created, updated, updated_by, deleted, replace(body, '"' || id || '"', '"%[2]s' || (10000 + n.i) || '"')
		FROM documents d, n WHERE d.kind = '%[1]s' AND d.seq < 10000`, kind, prefix)
}

func copyOfIndex(kind, prefix string) string {
	return fmt.Sprintf(`INSERT INTO document_index SELECT x.kind, field, x.space_id, value, '%[2]s' || (10000 + n.i)
		FROM document_index x JOIN documents d ON d.kind = x.kind AND d.id = x.id, n WHERE x.kind = '%[1]s' AND d.seq < 10000`, kind, prefix)
}

// BenchmarkLarge is a server with a database of 1 GiB: its start, what it takes
// when idle, and the first pages of its longest lists.
func BenchmarkLarge(b *testing.B) {
	p, w := large(b)
	b.Run("sqlite/start", func(b *testing.B) {
		p.Start()
		reportStarts(b, func() *apptest.Process {
			p.Stop()
			return p
		})
	})
	b.Run("sqlite/idle", func(b *testing.B) { reportIdle(b, p) })
	for _, one := range []struct{ name, path string }{
		{"environment", space + "/environments/Environments-1"},
		{"100-projects", space + "/projects?take=100"},
		{"30-tasks", space + "/tasks?take=30"},
		{"30-events", "/api/events?take=30"},
	} {
		b.Run("sqlite/"+one.name+"/connections=1", func(b *testing.B) { reportLoad(b, p, one.path, 1) })
	}
	b.Run("sqlite/task", func(b *testing.B) { reportLone(b, w, true) })
}
