package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
)

// abandoned is how long a task of a dead owner may wait for another to take it over
// while servers run.
const abandoned = 10 * time.Minute

// tasks looks at the queue: gaps in journals, and what is held by nobody.
func (x *examination) tasks(ctx context.Context) error {
	err := x.DB.Snapshot(ctx, func(tx *db.Tx) error {
		return tx.QueryRow(ctx, `SELECT count(*) FROM task`).Scan(&x.check.Looked)
	})
	if err != nil {
		return err
	}
	for _, one := range []struct {
		query           string
		f               Finding
		done, statement string
	}{
		{
			query: `SELECT j.task || ': ' || CAST(count(*) AS TEXT) || ' facts, numbered ' || CAST(min(j.seq) AS TEXT) || ' to ' || CAST(max(j.seq) AS TEXT)
				FROM journal j GROUP BY j.task HAVING min(j.seq) <> 1 OR max(j.seq) <> count(*) ORDER BY j.task`,
			f: Finding{
				Severity: Error, Code: "journal-gap", Where: "journal", What: "Facts of a task are missing, so what it did is not known",
				Remedy: "Look at the task's log; if it has not ended, cancel it and deploy again.",
			},
		},
		{
			query: `SELECT s.task FROM slot s WHERE ` + overOf("s"),
			f: Finding{
				Severity: Warning, Code: "slot-leaked", Where: "slot", What: "A task that has ended takes up room of a node",
				Remedy: "tako doctor --fix gives it back.",
			},
			done: "gave it back", statement: `DELETE FROM slot WHERE ` + overOf("slot"),
		},
		{
			query: `SELECT s.task || ' ' || s.tag FROM tag_holder s WHERE ` + overOf("s"),
			f: Finding{
				Severity: Error, Code: "tag-leaked", Where: "tag_holder", What: "A task that has ended keeps others from running",
				Remedy: "tako doctor --fix lets them.",
			},
			done: "gave it back", statement: `DELETE FROM tag_holder WHERE ` + overOf("tag_holder"),
		},
		{
			query: `SELECT s.task || ' ' || s.machine FROM machine_lock s WHERE ` + overOf("s") + tickets("s"),
			f: Finding{
				Severity: Error, Code: "lock-leaked", Where: "machine_lock", What: "A task that has ended, and of which no script can run, keeps others off a machine",
				Remedy: "tako doctor --fix lets them.",
			},
			done: "gave it back", statement: `DELETE FROM machine_lock WHERE ` + overOf("machine_lock") + tickets("machine_lock"),
		},
	} {
		var found list
		err := x.DB.Snapshot(ctx, func(tx *db.Tx) (err error) {
			found, err = some(ctx, tx, one.query)
			return err
		})
		if err != nil {
			return err
		}
		x.all(ctx, found, one.f, one.done, one.statement)
	}
	return x.leases(ctx)
}

// overOf is the condition that the task of a row has ended, or is not there.
func overOf(table string) string {
	return `NOT EXISTS (SELECT 1 FROM task t WHERE t.id = ` + table + `.task AND t.completed_time = 0)`
}

// tickets is the condition that no script of a row's unit can run any more.
func tickets(table string) string {
	return fmt.Sprintf(` AND NOT EXISTS (SELECT 1 FROM ticket k WHERE k.task = %[1]s.task AND k.unit = %[1]s.unit AND k.state <> 'complete')`, table)
}

// leases looks for tasks whose owners are dead.
func (x *examination) leases(ctx context.Context) error {
	live, err := tasks.LiveNodes(ctx, x.DB, x.RunDir)
	if err != nil {
		return err
	}
	where, args := ``, []any{}
	if len(live) > 0 {
		where = ` AND t.owner NOT IN (?` + strings.Repeat(`, ?`, len(live)-1) + `)`
		for _, id := range live {
			args = append(args, id)
		}
	}
	var found, late list
	err = x.DB.Snapshot(ctx, func(tx *db.Tx) (err error) {
		if found, err = some(ctx, tx, `SELECT t.id FROM task t WHERE t.owner <> '' AND t.completed_time = 0`+where+` ORDER BY t.seq`, args...); err != nil {
			return err
		}
		late, err = some(ctx, tx, `SELECT t.id FROM task t WHERE t.owner <> '' AND t.completed_time = 0`+where+` AND t.updated_time < ? ORDER BY t.seq`,
			append(args, db.Micros(tx.Now().Add(-abandoned)))...)
		return err
	})
	if err != nil {
		return err
	}
	f := Finding{Severity: Notice, Code: "lease-dead", Where: "task", What: "Its owner is dead", Remedy: "Nothing: a server goes on with it as soon as one runs."}
	if len(live) > 0 {
		found = late
		f.Severity, f.What, f.Remedy = Warning, "Its owner is dead, and no server has gone on with it", "Look at the servers' logs, and restart them; or cancel the task."
	}
	x.all(ctx, found, f, "", "")
	return nil
}

// logs looks whether the lines of each task's log are all somewhere.
func (x *examination) logs(ctx context.Context) error {
	type flaw struct{ task, what string }
	var flaws []flaw
	n := 0
	var looked int64
	note := func(task, format string, args ...any) {
		if n++; len(flaws) < maxNamed {
			flaws = append(flaws, flaw{task, fmt.Sprintf(format, args...)})
		}
	}
	err := x.DB.Snapshot(ctx, func(tx *db.Tx) error {
		flaws, n, looked = nil, 0, 0
		rows, err := tx.Query(ctx, `SELECT p.task, p.line_from, p.lines, t.log_lines FROM (
				SELECT c.task AS task, c.line_from AS line_from, c.lines AS lines FROM task_log c
				UNION ALL SELECT s.task, s.line_from, s.lines FROM task_log_segment s) p
			JOIN task t ON t.id = p.task ORDER BY p.task, p.line_from`)
		if err != nil {
			return err
		}
		defer rows.Close()
		task, next, lines, broken := "", int64(0), int64(0), false
		end := func() {
			if task != "" && !broken && next-1 != lines {
				note(task, "it has %d lines and should have %d", next-1, lines)
			}
		}
		for rows.Next() {
			var id string
			var from, many, total int64
			if err := rows.Scan(&id, &from, &many, &total); err != nil {
				return err
			}
			if id != task {
				end()
				task, next, lines, broken = id, 1, total, false
				looked++
			}
			if from != next && !broken {
				broken = true
				if from > next {
					note(id, "lines %d to %d are missing", next, from-1)
				} else {
					note(id, "lines %d to %d are there twice", from, next-1)
				}
			}
			next = from + many
		}
		end()
		if err := rows.Close(); err != nil {
			return err
		}
		lost, err := some(ctx, tx, `SELECT t.id FROM task t WHERE t.log_lines > 0 AND NOT EXISTS (SELECT 1 FROM task_log c WHERE c.task = t.id)
			AND NOT EXISTS (SELECT 1 FROM task_log_segment s WHERE s.task = t.id) ORDER BY t.seq`)
		if err != nil {
			return err
		}
		for _, id := range lost.named {
			note(id, "none of its lines is there")
		}
		n += int(lost.count) - len(lost.named)
		return nil
	})
	if err != nil {
		return err
	}
	x.check.Looked = looked
	for _, f := range flaws {
		x.add(Finding{Severity: Error, Code: "log-gap", Where: "log of " + f.task, What: "A part of the log is not there: " + f.what, Remedy: "The rest can be read; what is missing is in backups from before."})
	}
	x.more("log-gap", n-len(flaws), false)
	return nil
}
