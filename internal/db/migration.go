package db

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var embedded embed.FS

// migration is one file of migrations/: a step of the schema that is taken once.
type migration struct {
	id    string // the file's name without .sql: "0001_core"
	level int    // the schema level that it belongs to
	notx  bool   // it builds one index, which PostgreSQL does outside of transactions
	fill  *fill  // it fills a new table from an older one in portions, nil if not
	sql   string
	sum   string // SHA-256 of the file
}

// header is how a migration says what it is, on a line of its own.
const header = "-- tako: "

// loadMigrations reads the files of a folder in the order of their names.
func loadMigrations(fsys fs.FS, dir string) ([]migration, error) {
	names, err := fs.Glob(fsys, path.Join(dir, "*.sql"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []migration
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		m, err := parseMigration(strings.TrimSuffix(path.Base(name), ".sql"), string(text))
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		if len(out) > 0 && m.level < out[len(out)-1].level {
			return nil, fmt.Errorf("migration %s: level %d comes after level %d", name, m.level, out[len(out)-1].level)
		}
		out = append(out, m)
	}
	return out, nil
}

// parseMigration reads the header "-- tako: level 2, notx"; without one a
// migration has level 1 and runs in a transaction. What one is, is said by one word:
//
//	tx    its statements are one transaction
//	notx  it is one CREATE INDEX, which PostgreSQL builds beside running writers
//	fill  it is one INSERT INTO newer SELECT FROM older, taken in portions; see fill
func parseMigration(id, text string) (migration, error) {
	sum := sha256.Sum256([]byte(text))
	m := migration{id: id, level: 1, sql: text, sum: hex.EncodeToString(sum[:])}
	kind := "tx"
	for line := range strings.Lines(text) {
		spec, ok := strings.CutPrefix(strings.TrimSpace(line), header)
		if !ok {
			continue
		}
		for word := range strings.SplitSeq(spec, ",") {
			word = strings.TrimSpace(word)
			switch level, isLevel := strings.CutPrefix(word, "level "); {
			case isLevel:
				n, err := strconv.Atoi(level)
				if err != nil || n < 1 {
					return m, fmt.Errorf("level %q is no positive number", level)
				}
				m.level = n
			case word == "tx" || word == "notx" || word == "fill":
				if kind != "tx" && kind != word {
					return m, fmt.Errorf("header says %q and %q; a migration is one of them", kind, word)
				}
				kind = word
			default:
				return m, fmt.Errorf("header says %q; it may say level N, and tx, notx or fill", word)
			}
		}
	}
	var err error
	switch kind {
	case "notx":
		m.notx = true
		_, err = m.index()
	case "fill":
		m.fill, err = parseFill(text)
	}
	return m, err
}

// kind is the word of the header.
func (m migration) kind() string {
	switch {
	case m.notx:
		return "notx"
	case m.fill != nil:
		return "fill"
	}
	return "tx"
}

// index reads the one statement of a notx migration, CREATE INDEX name ON table ...
func (m migration) index() (name string, err error) {
	all := statements(m.sql)
	if len(all) == 1 {
		if words := strings.Fields(all[0]); len(words) > 4 && words[0] == "CREATE" && words[1] == "INDEX" && words[3] == "ON" {
			return words[2], nil
		}
	}
	return "", fmt.Errorf("notx needs exactly one statement, CREATE INDEX name ON table (columns)")
}

// MigrationIDs are the migrations that this binary knows, in order.
func MigrationIDs() ([]string, error) {
	all, err := loadMigrations(embedded, "migrations")
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(all))
	for i, m := range all {
		ids[i] = m.id
	}
	return ids, nil
}

// Levels say which schemas a binary can work on.
type Levels struct {
	// Level is the schema that the binary's migrations make.
	Level int
	// Min is the lowest schema level that it can run on.
	Min int
	// MinReader is the lowest level of a binary that can still read and write
	// the database once this binary's data formats are switched on.
	MinReader int
}

// minLevel and minReader are set by hand for each release.
const (
	minLevel  = 2
	minReader = 1
)

// BinaryLevels are the levels of this binary.
func BinaryLevels() Levels {
	l := Levels{Min: minLevel, MinReader: minReader}
	all, err := loadMigrations(embedded, "migrations")
	if err != nil || len(all) == 0 {
		return l // Migrate tells what is wrong with them
	}
	l.Level = all[len(all)-1].level
	return l
}
