package db

import (
	"context"
	"time"
)

// blockedEvery is how often it is looked whom a transaction waits for: several times in
// the time of one attempt.
const blockedEvery = lockTimeoutMS / 4 * time.Millisecond

// blockedQuery names those that keep a backend waiting, five at most. A role without the
// right to see others' activity is told their process and user alone.
const blockedQuery = `SELECT COALESCE(string_agg(b.holder, ' and '), '') FROM (
	SELECT CASE WHEN w.pid = 0 THEN 'a prepared transaction (see pg_prepared_xacts)'
		ELSE format('process %s (user %s, program %s, %s, since %s)', w.pid, COALESCE(a.usename, '?'), COALESCE(NULLIF(a.application_name, ''), '?'),
			COALESCE(a.state, 'state unknown'), COALESCE(to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '?')) END AS holder
	FROM unnest(pg_blocking_pids($1)) AS w(pid) LEFT JOIN pg_stat_activity a ON a.pid = w.pid
	ORDER BY a.xact_start LIMIT 5) b`

// blockedBy looks on PostgreSQL who keeps a backend waiting for a lock, while it waits:
// afterwards nobody can tell. stop ends that, and names those that were seen, "" for
// none.
func (d *DB) blockedBy(ctx context.Context, pid uint32) (stop func() string) {
	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan string, 1)
	go func() {
		holders := ""
		for holders == "" && sleep(ctx, blockedEvery) == nil {
			// One that cannot be asked is asked again, and not named in the end.
			_ = d.reader.QueryRowContext(ctx, blockedQuery, int64(pid)).Scan(&holders)
		}
		seen <- holders
	}()
	return func() string {
		cancel()
		return <-seen
	}
}
