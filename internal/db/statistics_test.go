package db_test

import (
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

// TestStatisticsChooseTheIndex: of two indexes that both fit, readers use the one
// that leaves little to read, once there is enough to tell them apart.
func TestStatisticsChooseTheIndex(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := dbtest.Open(t, db.SQLite)
	write(t, d, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
			INSERT INTO release (id, seq, space_id, project_id, channel_id, version, version_folded, version_key, created, body)
			SELECT 'Releases-' || i, i, 'Spaces-1', 'Projects-' || (i % 200), 'Channels-1', i, i, i, i, '{}' FROM n`)
		return err
	})
	plan := func() string {
		var steps []string
		err := d.Read(ctx, func(tx *db.Tx) error {
			rows, err := tx.Query(ctx, `EXPLAIN QUERY PLAN SELECT count(*) FROM release r WHERE r.space_id = 'Spaces-1' AND r.project_id = 'Projects-7'`)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var id, parent, unused int
				var step string
				if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
					return err
				}
				steps = append(steps, step)
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(steps, "\n")
	}
	before := plan()
	if err := d.RefreshStatistics(ctx, 1<<30); err != nil || plan() != before {
		t.Errorf("statistics of a small database: %v, plan %s", err, plan())
	}
	if err := d.RefreshStatistics(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if after := plan(); !strings.Contains(after, "(project_id=?)") {
		t.Errorf("the releases of a project are found by %s (before statistics: %s)", after, before)
	}
}
