package db

import (
	"fmt"
	"slices"
	"strings"
)

// lint returns what in the migrations would break a binary of the former level
// that runs beside them, or a rollback to it. Tables are free while they are
// made; a table of an earlier level may only get what those who do not know of
// it do not notice: columns that may be left out, and indexes that refuse
// nothing.
func lint(all []migration) []string {
	var found []string
	made := map[string]int{} // the level that made a table
	for _, m := range all {
		if !strings.Contains(m.sql, header) {
			found = append(found, m.id+`: has no header "`+header+`level N, tx"`)
		}
		for _, s := range statements(m.sql) {
			for _, what := range lintStatement(m, s, made) {
				found = append(found, fmt.Sprintf("%s: %s, in %q", m.id, what, firstLine(s)))
			}
		}
	}
	return found
}

// lintStatement judges one statement; made is kept up.
func lintStatement(m migration, s string, made map[string]int) []string {
	words := keywords(s)
	old := func(table string) bool { level, known := made[table]; return known && level < m.level }
	var found []string
	if i := slices.Index(words, "references"); i >= 0 && i+1 < len(words) && old(words[i+1]) {
		found = append(found, "a foreign key to "+words[i+1]+" can refuse what older binaries do")
	}
	switch {
	case has(words, "create", "table"):
		table := strings.TrimSpace(words[2])
		if _, twice := made[table]; twice {
			found = append(found, "table "+table+" is made twice")
		}
		made[table] = m.level
		if slices.Contains(words, "serial") || slices.Contains(words, "autoincrement") || slices.Contains(words, "generated") {
			found = append(found, "numbers are given out by IDENTITY")
		}
	case has(words, "create", "index"):
		if table := after(words, "on"); old(table) && !m.notx {
			found = append(found, "an index on the older table "+table+" is a migration of its own, with notx")
		}
	case has(words, "create", "unique", "index"):
		if table := after(words, "on"); old(table) || made[table] == 0 {
			found = append(found, "a unique index on "+table+" can refuse what older binaries write")
		}
	case has(words, "alter", "table") && len(words) > 5 && words[3] == "add" && words[4] == "column":
		found = append(found, lintColumn(words[5:], old(words[2]))...)
	case has(words, "insert", "into") || has(words, "update") || has(words, "delete", "from"):
		table := words[2]
		if words[0] == "update" {
			table = words[1]
		}
		if old(table) || made[table] == 0 {
			found = append(found, "rows of the older table "+table+" are changed by background work, in small batches")
		}
	default:
		found = append(found, "only CREATE TABLE, CREATE INDEX and ALTER TABLE ADD COLUMN are sure to harm nobody")
	}
	return found
}

// lintColumn judges a column that is added to a table.
func lintColumn(words []string, old bool) []string {
	var found []string
	for _, bad := range []string{"unique", "check", "references", "primary", "identity"} {
		if old && slices.Contains(words, bad) {
			found = append(found, "a column of an older table with "+strings.ToUpper(bad)+" can refuse what older binaries write")
		}
	}
	if i := slices.Index(words, "not"); old && i >= 0 && i+1 < len(words) && words[i+1] == "null" && !slices.Contains(words, "default") {
		found = append(found, "a column that is NOT NULL needs a DEFAULT, since older binaries leave it out")
	}
	return found
}

// keywords are the bare words of a statement, in lower case.
func keywords(s string) []string {
	var out []string
	for _, t := range tokens(s) {
		if t.word {
			out = append(out, strings.ToLower(t.text))
		}
	}
	return out
}

func has(words []string, prefix ...string) bool {
	return len(words) > len(prefix) && slices.Equal(words[:len(prefix)], prefix)
}

func after(words []string, word string) string {
	if i := slices.Index(words, word); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}
