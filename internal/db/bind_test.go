package db

import "testing"

func TestNumbered(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		`SELECT 1`:                          `SELECT 1`,
		`a = ? AND b IN (?, ?)`:             `a = $1 AND b IN ($2, $3)`,
		`a = '?' AND b = ?`:                 `a = '?' AND b = $1`,
		`a = 'it''s ?' AND "c?" = ?`:        `a = 'it''s ?' AND "c?" = $1`,
		"a = ? -- really?\nAND b = ?":       "a = $1 \nAND b = $2",
		`a = ? -- really?`:                  `a = $1 `,
		`a - ? - -?`:                        `a - $1 - -$2`,
		`a = 'unterminated ?`:               `a = 'unterminated ?`,
		`(?,?,?,?,?,?,?,?,?,?,?)`:           `($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)`,
		`x = ? OR name = 'größe?' OR y = ?`: `x = $1 OR name = 'größe?' OR y = $2`,
		`x = ''?`:                           `x = ''$1`,
	} {
		if got := numbered(query); got != want {
			t.Errorf("numbered(%q) = %q, want %q", query, got, want)
		}
	}
}
