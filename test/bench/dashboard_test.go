package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// Sizes of the dashboard's database.
const (
	boardProjects     = 1000
	boardEnvironments = 20
	boardReleases     = 5 // of a project, each deployed everywhere
)

// BenchmarkDashboard reads a dashboard of 1,000 projects in 20 environments with
// 100,000 deployments: its first page, of 50 projects, and the whole.
func BenchmarkDashboard(b *testing.B) {
	p := started(b, db.SQLite)
	w := newWork(b, p.Client, boardEnvironments, "true")
	w.ended(b, w.deploy(b, 0, true), fast)
	p.Stop()
	fillBoard(b, filepath.Join(p.Data, "tako.db"))
	p.Start()
	idle()
	pid := p.PID()
	forgetPeaks(b, pid)
	for _, one := range []struct {
		name, path      string
		projects, times int
	}{
		{"50-projects", space + "/dashboard?take=50", 50, 20},
		{"all", space + "/dashboard?showAll=true", boardProjects, 3},
	} {
		b.Run(one.name, func(b *testing.B) {
			var took []time.Duration
			var size int
			for range one.times {
				start := time.Now()
				answer := p.Must(b, http.MethodGet, one.path, nil, nil)
				took, size = append(took, time.Since(start)), len(answer.Body)
			}
			board := apptest.Get[octopus.Dashboard](b, p.Client, one.path)
			if len(board.Projects) != one.projects || len(board.Items) != one.projects*boardEnvironments {
				b.Fatalf("%d projects, %d items", len(board.Projects), len(board.Items))
			}
			b.ReportMetric(ms(apptest.Quantile(took, 0.5)), "ms-p50")
			b.ReportMetric(ms(apptest.Quantile(took, 0.95)), "ms-p95")
			b.ReportMetric(float64(size)/1024, "KiB")
			b.ReportMetric(peak(b, pid), "MiB-peak")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// fillBoard copies the one project with its release and its deployment until
// there are as many as the benchmark wants.
func fillBoard(b *testing.B, path string) {
	b.Helper()
	d, err := db.Open(b.Context(), "sqlite:"+path, db.Options{MustExist: true})
	if err != nil {
		b.Fatal(err)
	}
	numbers := fmt.Sprintf(`WITH RECURSIVE p (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM p WHERE i < %d), r (k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM r WHERE k < %d),
		e (id, n) AS (SELECT id, seq FROM documents WHERE kind = 'environments')`, boardProjects-2, boardReleases-1)
	const (
		ofProject    = `(10000 + p.i)`
		ofRelease    = `(10000 + p.i * 5 + r.k)`
		ofDeployment = `(10000 + (p.i * 5 + r.k) * 100 + e.n)`
	)
	replaced := func(column string, pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			column = fmt.Sprintf(`replace(%s, '%s1', '%s' || %s)`, column, pairs[i], pairs[i], pairs[i+1])
		}
		return column
	}
	project := []string{"Projects-", ofProject, "Channels-", ofProject}
	release := append([]string{"Releases-", ofRelease}, project...)
	deployment := append([]string{"Deployments-", ofDeployment, "ServerTasks-", ofDeployment}, release...)
	for _, one := range []struct {
		table, from, where string
		pairs              []string
		set                map[string]string
	}{
		{"documents", `p`, `o.kind IN ('projects', 'channels') AND o.id IN ('Projects-1', 'Channels-1')`, project, map[string]string{"seq": ofProject, "name": "o.name || p.i", "slug": "o.slug || p.i"}},
		{"document_index", `p`, `o.kind IN ('projects', 'channels') AND o.id IN ('Projects-1', 'Channels-1')`, project, map[string]string{"value": `replace(o.value, 'projects-1', 'projects-' || ` + ofProject + `)`}},
		{"release", `p, r`, `o.id = 'Releases-1'`, release, map[string]string{
			"seq": ofRelease, "created": "o.created + r.k", "version": "o.version || r.k", "version_folded": "o.version_folded || r.k", "version_key": "o.version_key || r.k",
		}},
		{"deployment", `p, r, e`, `o.id = 'Deployments-1'`, deployment, map[string]string{"seq": ofDeployment, "created": "o.created + r.k", "environment_id": "e.id"}},
		{"task", `p, r, e`, `o.id = 'ServerTasks-1'`, deployment, map[string]string{"seq": ofDeployment, "environment_id": "e.id", "plan": "'null'"}},
		{"current_release", `p, r, e`, fmt.Sprintf(`o.project_id = 'Projects-1' AND r.k = %d`, boardReleases-1), deployment, map[string]string{"environment_id": "e.id"}},
		{"latest_deployment", `p, r, e`, fmt.Sprintf(`o.project_id = 'Projects-1' AND r.k = %d`, boardReleases-1), deployment, map[string]string{"environment_id": "e.id", "created": "o.created + r.k", "seq": ofDeployment}},
		// The first project, too, is everywhere.
		{"deployment", `p, r, e`, `o.id = 'Deployments-1' AND p.i = 0 AND r.k = 0 AND e.id <> o.environment_id`, []string{"Deployments-", "(1000000 + e.n)"}, map[string]string{"seq": "1000000 + e.n", "environment_id": "e.id"}},
		{"latest_deployment", `p, r, e`, `o.project_id = 'Projects-1' AND p.i = 0 AND r.k = 0 AND e.id <> o.environment_id`, []string{"Deployments-", "(1000000 + e.n)"}, map[string]string{"seq": "1000000 + e.n", "environment_id": "e.id"}},
	} {
		err := d.Write(b.Context(), func(tx *db.Tx) error {
			columns, err := columnsOf(b.Context(), tx, one.table)
			if err != nil {
				return err
			}
			values := make([]string, len(columns))
			for i, c := range columns {
				if values[i] = one.set[c.name]; values[i] == "" {
					if values[i] = "o." + c.name; strings.EqualFold(c.kind, "TEXT") {
						values[i] = replaced(values[i], one.pairs...)
					}
				}
			}
			n, err := tx.Exec(b.Context(), numbers+` INSERT INTO `+one.table+` SELECT `+strings.Join(values, ", ")+` FROM `+one.table+` o, `+one.from+` WHERE `+one.where)
			if err == nil && n == 0 {
				err = errors.New("nothing to copy")
			}
			if err != nil {
				return fmt.Errorf("%s: %w", one.table, err)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
}

type column struct{ name, kind string }

func columnsOf(ctx context.Context, tx *db.Tx, table string) (all []column, err error) {
	rows, err := tx.Query(ctx, `SELECT name, type FROM pragma_table_info(?)`, table)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.name, &c.kind); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}
