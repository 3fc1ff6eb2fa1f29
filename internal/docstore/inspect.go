package docstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

// Key names a document.
type Key struct{ Kind, ID string }

// Flaw is what is wrong with a stored document.
type Flaw struct {
	Key
	// Unreadable is why its body cannot be read; the rest is empty then.
	Unreadable error
	// Rows says which rows beside the document are not those that its declaration
	// makes of its body ("document_index: ProjectId is missing").
	Rows []string
	// Undeclared says that this version knows no such kind.
	Undeclared bool
}

// beside is a row beside a document, without the names of the document itself.
type beside struct{ table, field, a, b string }

func (r beside) String() string { return r.table + " " + r.field }

// expectation is what a document's body makes of the rows beside it, and of its own.
type expectation struct {
	flaw             Flaw
	rows             []beside
	space            string
	name, slug       string
	gotName, gotSlug string
	sort, gotSort    int64
}

// Inspect looks at up to n documents that come after a key, in the order of the keys,
// and calls fn for each that is not as it should be. It returns the last key it
// looked at and how many there were; a number below n is the end.
func (s *Store) Inspect(ctx context.Context, tx *db.Tx, after Key, n int, fn func(Flaw)) (last Key, looked int, err error) {
	var page []*expectation
	rows, err := tx.Query(ctx, `SELECT d.kind, d.id, d.seq, d.space_id, d.name, d.slug, d.sort, d.body_version, d.body FROM documents d
		WHERE (d.kind, d.id) > (?, ?) AND d.deleted = 0 ORDER BY d.kind, d.id LIMIT ?`, after.Kind, after.ID, n)
	if err != nil {
		return after, 0, fmt.Errorf("read documents: %w", err)
	}
	defer rows.Close()
	last = after
	for rows.Next() {
		e := &expectation{}
		var seq, shape int64
		var body string // of one document at a time
		if err := rows.Scan(&e.flaw.Kind, &e.flaw.ID, &seq, &e.space, &e.gotName, &e.gotSlug, &e.gotSort, &shape, &body); err != nil {
			return after, 0, fmt.Errorf("read documents: %w", err)
		}
		last = e.flaw.Key
		looked++
		s.expect(e, seq, shape, body)
		page = append(page, e)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return after, 0, fmt.Errorf("read documents: %w", err)
	}
	for len(page) > 0 {
		kind := page[0].flaw.Kind
		end := slices.IndexFunc(page, func(e *expectation) bool { return e.flaw.Kind != kind })
		if end < 0 {
			end = len(page)
		}
		if s.kinds[kind] != nil {
			if err := s.compare(ctx, tx, kind, page[:end]); err != nil {
				return after, 0, err
			}
		}
		for _, e := range page[:end] {
			if f := e.flaw; f.Unreadable != nil || f.Undeclared || len(f.Rows) > 0 {
				fn(f)
			}
		}
		page = page[end:]
	}
	return last, looked, nil
}

// expect works out what should be beside a document.
func (s *Store) expect(e *expectation, seq, shape int64, body string) {
	k := s.kinds[e.flaw.Kind]
	if k == nil {
		e.flaw.Undeclared = true
		return
	}
	tree, c, err := s.reread(k, Key{e.flaw.Kind, e.flaw.ID}, ident.SpaceID(e.space), seq, shape, body)
	if err != nil {
		e.flaw.Unreadable = err
		return
	}
	e.name, e.slug, e.sort = c.name, c.slug, c.sort(tree)
	e.rows = c.beside(tree)
}

// reread parses a stored document, and makes of it the change that would store it.
func (s *Store) reread(k *resource.Kind, key Key, space ident.SpaceID, seq, shape int64, body string) (resource.Tree, *change, error) {
	complete, err := fresh(k, key.ID, shape, body)
	if err != nil {
		return nil, nil, err
	}
	if _, err := resource.Parse([]byte(body)); err != nil {
		return nil, nil, err
	}
	tree, err := resource.Parse(complete)
	if err != nil {
		return nil, nil, err
	}
	masked, err := resource.Parse(complete)
	if err != nil {
		return nil, nil, err
	}
	if err := mask(masked); err != nil {
		return nil, nil, err
	}
	if _, err := k.Value(masked); err != nil {
		return nil, nil, err
	}
	c := &change{s: s, k: k, space: space, id: key.ID, seq: seq}
	if !k.Unnamed {
		c.name = ident.Fold(strings.TrimSpace(resource.Text(tree, "Name")))
	}
	if k.Slugged {
		c.slug = resource.Text(tree, "Slug")
	}
	return tree, c, nil
}

// beside lists the rows beside a document, sorted, each once.
func (c *change) beside(tree resource.Tree) []beside {
	var all []beside
	for _, path := range indexed(c.k) {
		for _, v := range fold(resource.Values(tree, path)) {
			all = append(all, beside{"document_index", path, string(c.space), v})
		}
	}
	claims := slices.Clone(c.k.Unique)
	if c.k.Slugged {
		claims = append(claims, resource.Unique{Field: "Slug", Within: c.k.SlugWithin})
	}
	for _, u := range claims {
		for _, v := range resource.Values(tree, u.Field) {
			all = append(all, beside{"document_unique", u.Field, c.uniqueScope(tree, u.Within), indexKey(v)})
		}
	}
	for _, ref := range c.k.References {
		if ref.OnDelete == resource.Ignore {
			continue
		}
		for _, v := range resource.Values(tree, ref.Path) {
			all = append(all, beside{"document_refs", ref.Path, ref.To, v})
		}
	}
	slices.SortFunc(all, compareBeside)
	return slices.Compact(all)
}

func compareBeside(a, b beside) int {
	return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.field, b.field), cmp.Compare(a.a, b.a), cmp.Compare(a.b, b.b))
}

// compare reads the rows beside documents of one kind, and notes what differs.
func (s *Store) compare(ctx context.Context, tx *db.Tx, kind string, page []*expectation) error {
	ids := make([]string, len(page))
	for i, e := range page {
		ids[i] = e.flaw.ID
	}
	got := map[string][]beside{}
	for _, q := range []besideQuery{
		{"document_index", "field, space_id, value", "kind", "id"},
		{"document_unique", "field, scope, value", "kind", "id"},
		{"document_refs", "field, to_kind, to_id", "from_kind", "from_id"},
	} {
		if err := q.read(ctx, tx, kind, ids, got); err != nil {
			return fmt.Errorf("read %s: %w", q.table, err)
		}
	}
	for _, e := range page {
		if e.flaw.Unreadable == nil {
			e.note(got[e.flaw.ID])
		}
	}
	return nil
}

// besideQuery reads rows beside documents: a table, what of it makes a row, and how it
// calls a document's kind and id.
type besideQuery struct{ table, columns, kind, id string }

func (q besideQuery) read(ctx context.Context, tx *db.Tx, kind string, ids []string, into map[string][]beside) error {
	args := []any{kind}
	rows, err := tx.Query(ctx, `SELECT r.`+q.id+`, `+q.columns+` FROM `+q.table+` r WHERE r.`+q.kind+` = ? AND `+in(`r.`+q.id, ids, &args), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		r := beside{table: q.table}
		if err := rows.Scan(&id, &r.field, &r.a, &r.b); err != nil {
			return err
		}
		into[id] = append(into[id], r)
	}
	return rows.Err()
}

// note notes how what stands beside a document differs from what should.
func (e *expectation) note(got []beside) {
	said := map[string]bool{}
	say := func(what string) {
		if !said[what] {
			said[what] = true
			e.flaw.Rows = append(e.flaw.Rows, what)
		}
	}
	if e.gotName != e.name {
		say("documents name")
	}
	if e.gotSlug != e.slug {
		say("documents slug")
	}
	if e.gotSort != e.sort {
		say("documents sort")
	}
	has := map[beside]bool{}
	for _, r := range got {
		has[r] = true
	}
	for _, r := range e.rows {
		if !has[r] {
			say(r.String() + " is missing")
		}
		delete(has, r)
	}
	for r := range has {
		say(r.String() + " should not be there")
	}
	slices.Sort(e.flaw.Rows)
}

// Reindex writes the rows beside a document anew, from its body; its body, version and
// dates stay as they are. A name or slug that another document has by now is a fault.
func (s *Store) Reindex(ctx context.Context, tx *db.Tx, key Key) error {
	k, err := s.Kind(key.Kind)
	if err != nil {
		return err
	}
	doc, err := lock(ctx, tx, k, key.ID)
	if err != nil {
		return err
	}
	tree, c, err := s.reread(k, key, doc.Space, doc.Seq, k.Shape(), string(doc.Body))
	if err != nil {
		return err
	}
	c.tx = tx
	if _, err := tx.Exec(ctx, `UPDATE documents SET name = ?, slug = ?, sort = ? WHERE kind = ? AND id = ?`, c.name, c.slug, c.sort(tree), k.Name, key.ID); err != nil {
		return fmt.Errorf("index %s %s: %w", k.Noun, key.ID, err)
	}
	if err := clearIndex(ctx, tx, k, key.ID); err != nil {
		return err
	}
	tx.Changed(k.Name)
	return c.writeIndex(ctx, tree)
}

// Strays counts the rows beside documents that are not there, by table.
func Strays(ctx context.Context, tx *db.Tx) (map[string]int64, error) {
	out := map[string]int64{}
	for _, table := range strayTables() {
		var n int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM `+table+` WHERE `+stray(table)).Scan(&n); err != nil {
			return nil, fmt.Errorf("look for rows of %s without a document: %w", table, err)
		}
		if n > 0 {
			out[table] = n
		}
	}
	return out, nil
}

// DropStrays removes the rows beside documents that are not there, and counts them.
func DropStrays(ctx context.Context, tx *db.Tx) (n int64, err error) {
	for _, table := range strayTables() {
		dropped, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE `+stray(table))
		if err != nil {
			return n, fmt.Errorf("remove rows of %s without a document: %w", table, err)
		}
		n += dropped
	}
	return n, nil
}

func strayTables() []string { return []string{"document_index", "document_unique", "document_refs"} }

func stray(table string) string {
	kind, id := "kind", "id"
	if table == "document_refs" {
		kind, id = "from_kind", "from_id"
	}
	return fmt.Sprintf(`NOT EXISTS (SELECT 1 FROM documents d WHERE d.kind = %[1]s.%[2]s AND d.id = %[1]s.%[3]s)`, table, kind, id)
}

// Dangling is a reference to a document that is not there.
type Dangling struct {
	From, To Key
	Field    string
}

// EachDangling calls fn for every reference that forbids the deletion of its target, or
// follows it, and whose target is not there all the same.
func EachDangling(ctx context.Context, tx *db.Tx, fn func(Dangling)) error {
	rows, err := tx.Query(ctx, `SELECT r.from_kind, r.from_id, r.field, r.to_kind, r.to_id FROM document_refs r
		WHERE NOT EXISTS (SELECT 1 FROM documents d WHERE d.kind = r.to_kind AND d.id = r.to_id) ORDER BY r.from_kind, r.from_id, r.field`)
	if err != nil {
		return fmt.Errorf("look for references to what is not there: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var d Dangling
		if err := rows.Scan(&d.From.Kind, &d.From.ID, &d.Field, &d.To.Kind, &d.To.ID); err != nil {
			return err
		}
		fn(d)
	}
	return rows.Err()
}
