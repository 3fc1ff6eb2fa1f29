package db

import (
	"fmt"
	"slices"
	"strings"
)

// growing are the tables that have rows for what a server does, and not only for what
// people configure: they have a million some day. What walks through all of them in one
// transaction holds SQLite's only writer for seconds.
var growing = map[string]string{
	"events":                "one for each change",
	"event_related":         "some for each event",
	"documents":             "snapshots of variables and processes, for each release",
	"document_index":        "some for each document",
	"document_unique":       "some for each document",
	"document_refs":         "some for each document",
	"task":                  "one for each deployment, health check, retention",
	"task_child":            "some for each task that starts others",
	"task_machine":          "some for each task",
	"journal":               "tens for each task",
	"task_log":              "some for each task, large",
	"task_log_segment":      "some for each task",
	"ticket":                "one for each script that ran",
	"unit_cursor":           "one for each script that ran",
	"interruption":          "some for each deployment",
	"answer":                "one for each interruption",
	"artifact":              "some for each deployment",
	"release":               "one for each build",
	"release_defect":        "some for each release",
	"deployment":            "one for each release and environment at least",
	"manifest":              "one for each deployment",
	"current_release":       "one for each project, environment and tenant",
	"latest_deployment":     "one for each project, environment and tenant",
	"snapshot_use":          "some for each release",
	"package":               "one for each build",
	"package_use":           "some for each release",
	"build_information":     "one for each build",
	"subscription_delivery": "some for each event",
}

// sideTable is the remedy for what would walk through one of them.
const sideTable = `make a table beside it, with the indexes that it needs, and fill that in portions ("` + header + `level N, fill")`

// linted are the tables that the migrations so far have made.
type linted struct {
	made   map[string]int  // the level that made a table
	filled map[string]bool // those that a fill has filled
}

// lint returns what in the migrations would break a binary of the former level
// that runs beside them, or a rollback to it. Tables are free while they are
// made; a table of an earlier level may only get what those who do not know of
// it do not notice: columns that may be left out, and indexes that refuse
// nothing.
func lint(all []migration) []string {
	var found []string
	tables := linted{made: map[string]int{}, filled: map[string]bool{}}
	for _, m := range all {
		if !strings.Contains(m.sql, header) {
			found = append(found, m.id+`: has no header "`+header+`level N, tx"`)
		}
		for _, s := range statements(m.sql) {
			for _, what := range lintStatement(m, s, tables) {
				found = append(found, fmt.Sprintf("%s: %s, in %q", m.id, what, firstLine(s)))
			}
		}
	}
	return found
}

// lintStatement judges one statement; tables is kept up.
func lintStatement(m migration, s string, tables linted) []string {
	words, made := keywords(s), tables.made
	old := func(table string) bool { level, known := made[table]; return known && level < m.level }
	var found []string
	if slices.Contains(words, "references") {
		found = append(found, "REFERENCES can refuse what older binaries do, and a copy on PostgreSQL has unlogged tables, to which no logged one may refer; have the code that deletes a row see to those that name it")
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
		switch table := after(words, "on"); {
		case old(table) && growing[table] != "":
			found = append(found, "an index on the older table "+table+", which grows ("+growing[table]+"): "+sideTable)
		case old(table) && !m.notx:
			found = append(found, "an index on the older table "+table+" is a migration of its own, with notx")
		case tables.filled[table]:
			found = append(found, lateIndex(table))
		}
	case has(words, "create", "unique", "index"):
		switch table := after(words, "on"); {
		case old(table) || made[table] == 0:
			found = append(found, "a unique index on "+table+" can refuse what older binaries write")
		case tables.filled[table]:
			found = append(found, lateIndex(table))
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
		if m.fill != nil {
			if !old(m.fill.from) {
				found = append(found, "fill is for what an older table has, and "+m.fill.from+" is none")
			}
			tables.filled[m.fill.into] = true
			break
		}
		for i, w := range words[:len(words)-1] {
			if from := words[i+1]; (w == "from" || w == "join") && old(from) && growing[from] != "" && from != table {
				found = append(found, "all rows of the older table "+from+" are read at once, and it grows ("+growing[from]+"): "+sideTable)
			}
		}
	default:
		found = append(found, "only CREATE TABLE, CREATE INDEX and ALTER TABLE ADD COLUMN are sure to harm nobody")
	}
	return found
}

func lateIndex(table string) string {
	return "an index on " + table + " after a fill of it is built from all rows at once; make it before the fill"
}

// lintColumn judges a column that is added to a table.
func lintColumn(words []string, old bool) []string {
	var found []string
	for _, bad := range []string{"unique", "check", "primary", "identity"} {
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
