package docstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

// Limits of what is stored.
const (
	MaxName = 200             // bytes of a name
	MaxBody = 8 * 1024 * 1024 // bytes of a document
)

// Input is what a client wants stored.
type Input struct {
	Space ident.SpaceID // of a new document; "" for the system
	// ID of a new document where it does not follow from the counter
	// ("variableset-Projects-1", "teams-everyone"); else "".
	ID   string
	Body []byte // a JSON object
	// Expect is the version that the document must have, from If-Match; 0 is any.
	Expect int64
	// Server marks what the server itself stores: owned members are taken from
	// Body and a Version member need not match.
	Server bool
}

// Create stores a new document by its kind's rules, in tx.
func (s *Store) Create(ctx context.Context, tx *db.Tx, k *resource.Kind, in Input) (*Doc, error) {
	incoming, _, err := k.Decode(in.Body)
	if err != nil {
		return nil, err
	}
	c := change{s: s, tx: tx, k: k, space: in.Space, id: in.ID, version: 1, by: db.ActorFrom(ctx).Username}
	if k.Scope == resource.InSystem {
		c.space = ""
	}
	if err := c.number(ctx); err != nil {
		return nil, err
	}
	if !in.Server {
		s.dropOwned(k, incoming, nil)
	}
	tree, err := c.prepare(ctx, incoming, nil)
	if err != nil {
		return nil, err
	}
	if err := c.finish(ctx, tree, nil); err != nil {
		return nil, err
	}
	v, err := c.reload(tree)
	if err != nil {
		return nil, err
	}
	doc, err := c.insert(ctx, tree)
	if err != nil {
		return nil, err
	}
	if err := k.InTx(ctx, s.In(tx), resource.Created, c.space, c.id, nil, v); err != nil {
		return nil, err
	}
	c.event("Created", "was created", tree, nil)
	return doc, nil
}

// number gives a new document its id, and its place among those of its kind: by
// the number in the id, or a fresh one where a given id has none.
func (c *change) number(ctx context.Context) (err error) {
	if c.id == "" {
		c.seq, err = c.tx.NextSeq(ctx, c.k.Prefix)
		c.id = ident.ID(c.k.Prefix, c.seq)
		return err
	}
	n, ok := ident.Seq(c.id)
	if !ok {
		n, err = c.tx.NextSeq(ctx, c.k.Prefix+":order")
	}
	c.seq = n
	return err
}

// Replace stores in.Body in place of the document that ref names in space.
func (s *Store) Replace(ctx context.Context, tx *db.Tx, k *resource.Kind, space ident.SpaceID, ref string, in Input) (*Doc, error) {
	doc, err := s.Get(ctx, tx, k, space, ref)
	if err != nil {
		return nil, err
	}
	return s.replace(ctx, tx, k, doc.ID, in)
}

func (s *Store) replace(ctx context.Context, tx *db.Tx, k *resource.Kind, id string, in Input) (*Doc, error) {
	doc, err := scanDoc(tx.QueryRow(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.id = ? AND d.deleted = 0`+tx.ForUpdate(), k.Name, id).Scan)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", k.Noun, id, err)
	}
	if in.Expect != 0 && in.Expect != doc.Version {
		return nil, changedSince(k, id)
	}
	oldTree, err := resource.Parse(doc.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", k.Noun, id, err)
	}
	masked, err := s.Tree(k, doc)
	if err != nil {
		return nil, err
	}
	old, err := k.Value(masked)
	if err != nil {
		return nil, err
	}
	incoming, _, err := k.Decode(in.Body)
	if err != nil {
		return nil, err
	}
	if !in.Server {
		if k.Versioned && number(incoming["Version"]) != number(oldTree["Version"]) {
			return nil, changedSince(k, id)
		}
		s.dropOwned(k, incoming, oldTree)
	}
	c := change{s: s, tx: tx, k: k, space: doc.Space, id: doc.ID, seq: doc.Seq, version: doc.Version + 1, by: db.ActorFrom(ctx).Username, created: db.Micros(doc.Created)}
	tree, err := c.prepare(ctx, incoming, old)
	if err != nil {
		return nil, err
	}
	if err := c.finish(ctx, tree, oldTree); err != nil {
		return nil, err
	}
	v, err := c.reload(tree)
	if err != nil {
		return nil, err
	}
	fresh, err := c.update(ctx, tree)
	if err != nil {
		return nil, err
	}
	if err := k.InTx(ctx, s.In(tx), resource.Modified, c.space, c.id, old, v); err != nil {
		return nil, err
	}
	c.event("Modified", "was changed", tree, oldTree)
	return fresh, nil
}

func changedSince(k *resource.Kind, id string) error {
	return fault.New(fault.Conflict, "The %s '%s' was modified by somebody else since it was read; read it again and repeat the change.", k.Noun, id)
}

func number(v any) string {
	switch n := v.(type) {
	case json.Number:
		return n.String()
	case string:
		return n
	default:
		return "0"
	}
}

// dropOwned puts the stored values of server-owned members in place of what a
// client sent.
func (s *Store) dropOwned(k *resource.Kind, incoming, old resource.Tree) {
	for _, member := range k.Owned {
		delete(incoming, member)
		if v, ok := old[member]; ok {
			incoming[member] = v
		}
	}
}

// change is one document on its way into the database.
type change struct {
	s                   *Store
	tx                  *db.Tx
	k                   *resource.Kind
	space               ident.SpaceID
	id                  string
	seq, version        int64
	created             int64
	by                  string
	name, display, slug string
}

// prepare applies defaults, general rules and the kind's own, and returns the
// tree to be stored, still without what only finish knows.
func (c *change) prepare(ctx context.Context, incoming resource.Tree, old any) (resource.Tree, error) {
	incoming["Id"] = c.id
	if c.k.Scope != resource.InSystem {
		incoming["SpaceId"] = string(c.space)
	}
	delete(incoming, "Links")
	delete(incoming, "LastModifiedOn") // what a client sends there may not even be a time
	v, err := c.k.Value(incoming)
	if err != nil {
		return nil, err
	}
	c.k.Prepare(v)
	tree, err := c.k.Encode(v, incoming)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(append(c.checkName(tree), c.checkReferences(ctx, tree)...)...); err != nil {
		return nil, err
	}
	if v, err = c.k.Value(tree); err != nil {
		return nil, err
	}
	if err := c.k.Check(ctx, c.s.In(c.tx), old, v); err != nil {
		return nil, err
	}
	tree, err = c.k.Encode(v, incoming)
	delete(tree, "Links")
	return tree, err
}

func (c *change) checkName(tree resource.Tree) []error {
	if c.k.Unnamed {
		return nil
	}
	c.display = strings.TrimSpace(resource.Text(tree, "Name"))
	tree["Name"] = c.display
	c.name = ident.Fold(c.display)
	switch {
	case c.display == "":
		return []error{fault.InvalidField("Name", "Name is empty; give the %s a name.", c.k.Noun)}
	case len(c.display) > MaxName:
		return []error{fault.InvalidField("Name", "Name has %d bytes; use at most %d.", len(c.display), MaxName)}
	}
	return nil
}

func (c *change) checkReferences(ctx context.Context, tree resource.Tree) []error {
	var faults []error
	for _, ref := range c.k.References {
		values := resource.Values(tree, ref.Path)
		if len(values) == 0 {
			if ref.Required {
				faults = append(faults, fault.InvalidField(ref.Path, "%s is empty; give the id of one of the %s.", ref.Path, ref.To))
			}
			continue
		}
		if ref.OnDelete == resource.Ignore && !ref.Required {
			continue
		}
		missing, err := c.missing(ctx, c.s.kinds[ref.To], values)
		if err != nil {
			return []error{err}
		}
		for _, id := range missing {
			faults = append(faults, fault.InvalidField(ref.Path, "%s names '%.100s', which does not exist in this space; give the id of one of the %s.", ref.Path, id, ref.To))
		}
	}
	return faults
}

// missing lists which ids are no documents of kind to that this one may refer to.
func (c *change) missing(ctx context.Context, to *resource.Kind, ids []string) ([]string, error) {
	if len(ids) > maxIDs {
		return nil, fault.New(fault.Invalid, "The %s refers to %d %s; refer to at most %d.", c.k.Noun, len(ids), to.Name, maxIDs)
	}
	args := []any{to.Name}
	rows, err := c.tx.Query(ctx, `SELECT d.id, d.space_id FROM documents d WHERE d.kind = ? AND d.deleted = 0 AND `+in(`d.id`, ids, &args), args...)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", to.Name, err)
	}
	defer rows.Close()
	found := map[string]bool{c.id: c.k == to && c.id != ""}
	for rows.Next() {
		var id string
		var space ident.SpaceID
		if err := rows.Scan(&id, &space); err != nil {
			return nil, err
		}
		found[id] = space == "" || space == c.space || c.k.Scope != resource.InSpace
	}
	var missing []string
	for _, id := range ids {
		if !found[id] {
			missing = append(missing, id)
		}
	}
	return missing, rows.Err()
}

// finish sets what the server owns of every document, and seals its secrets.
func (c *change) finish(ctx context.Context, tree, old resource.Tree) error {
	tree["Id"] = c.id
	if c.k.Scope != resource.InSystem {
		tree["SpaceId"] = string(c.space)
		if c.space == "" {
			tree["SpaceId"] = nil // of the system
		}
	}
	tree["LastModifiedOn"] = c.tx.Now().Format("2006-01-02T15:04:05.000+00:00")
	tree["LastModifiedBy"] = c.by
	if c.k.Versioned {
		tree["Version"] = json.Number(strconv.FormatInt(c.version, 10))
	}
	if c.k.Slugged {
		if err := c.chooseSlug(ctx, tree, old); err != nil {
			return err
		}
	}
	return c.s.seal(c.k, c.id, tree, old)
}

// chooseSlug keeps a given slug, else the old one, else makes one of the name.
func (c *change) chooseSlug(ctx context.Context, tree, old resource.Tree) error {
	given := strings.TrimSpace(resource.Text(tree, "Slug"))
	want := ident.Slug(given)
	switch {
	case given != "":
		if given != resource.Text(old, "Slug") && want != given {
			return fault.InvalidField("Slug", "Slug is '%.100s'; use lower-case letters, digits and single dashes, for example '%s'.", given, want)
		}
		want = given
	case resource.Text(old, "Slug") != "":
		want = resource.Text(old, "Slug")
	default:
		want = ident.Slug(c.display)
	}
	scope := c.slugScope(tree)
	for n := 1; ; n++ {
		candidate := want
		if n > 1 {
			candidate = want + "-" + strconv.Itoa(n)
		}
		var holder string
		err := c.tx.QueryRow(ctx, `SELECT coalesce(max(u.id), '') FROM document_unique u WHERE u.kind = ? AND u.field = 'Slug' AND u.scope = ? AND u.value = ?`,
			c.k.Name, scope, candidate).Scan(&holder)
		if err != nil {
			return fmt.Errorf("look up slug: %w", err)
		}
		if holder == "" || holder == c.id {
			c.slug = candidate
			tree["Slug"] = candidate
			return nil
		}
		if given != "" {
			return fault.InvalidField("Slug", "Slug '%s' is used by %s '%s'; choose another one, or leave it empty to get one.", given, c.k.Noun, holder)
		}
	}
}

func (c *change) slugScope(tree resource.Tree) string {
	return c.uniqueScope(tree, c.k.SlugWithin)
}

func (c *change) uniqueScope(tree resource.Tree, within string) string {
	if within == "" {
		return string(c.space)
	}
	return strings.Join(resource.Values(tree, within), ",")
}

func (c *change) reload(tree resource.Tree) (any, error) {
	masked, err := resource.Parse(mustJSON(tree))
	if err != nil {
		return nil, err
	}
	if err := mask(c.k, masked); err != nil {
		return nil, err
	}
	return c.k.Value(masked)
}

// mustJSON encodes a tree, which has come out of JSON and goes back into it.
func mustJSON(tree resource.Tree) []byte {
	body, err := json.Marshal(tree)
	if err != nil {
		return []byte("null") // parsed by the caller, which reports it
	}
	return body
}

func (c *change) body(tree resource.Tree) (string, error) {
	body, err := json.Marshal(tree)
	if err != nil {
		return "", fmt.Errorf("encode %s %s: %w", c.k.Noun, c.id, err)
	}
	if len(body) > MaxBody {
		return "", fault.New(fault.TooLarge, "The %s has %d bytes; the limit is %d.", c.k.Noun, len(body), MaxBody)
	}
	return string(body), nil
}

func (c *change) sort(tree resource.Tree) int64 {
	switch c.k.Order {
	case resource.ByNumber:
		n, err := strconv.ParseInt(number(tree["SortOrder"]), 10, 64)
		if err != nil {
			return 0
		}
		return n
	case resource.ByAge:
		return c.seq
	case resource.ByNewest:
		return -c.seq
	default:
		return 0
	}
}

func (c *change) insert(ctx context.Context, tree resource.Tree) (*Doc, error) {
	body, err := c.body(tree)
	if err != nil {
		return nil, err
	}
	now := db.Micros(c.tx.Now())
	_, err = c.tx.Exec(ctx, `INSERT INTO documents (kind, id, seq, space_id, name, slug, sort, version, body_version, created, updated, updated_by, deleted, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, 1, 1, ?, ?, ?, 0, ?)`,
		c.k.Name, c.id, c.seq, string(c.space), c.name, c.slug, c.sort(tree), now, now, c.by, body)
	if errors.Is(err, db.ErrUnique) {
		return nil, fault.New(fault.Conflict, "The %s '%s' exists already.", c.k.Noun, c.id)
	}
	if err != nil {
		return nil, fmt.Errorf("store %s %s: %w", c.k.Noun, c.id, err)
	}
	if err := c.writeIndex(ctx, tree); err != nil {
		return nil, err
	}
	c.tx.Changed(c.k.Name)
	return c.doc(body, now), nil
}

func (c *change) update(ctx context.Context, tree resource.Tree) (*Doc, error) {
	body, err := c.body(tree)
	if err != nil {
		return nil, err
	}
	now := db.Micros(c.tx.Now())
	n, err := c.tx.Exec(ctx, `UPDATE documents SET name = ?, slug = ?, sort = ?, version = ?, updated = ?, updated_by = ?, body = ?
		WHERE kind = ? AND id = ? AND version = ? AND deleted = 0`,
		c.name, c.slug, c.sort(tree), c.version, now, c.by, body, c.k.Name, c.id, c.version-1)
	if err != nil {
		return nil, fmt.Errorf("store %s %s: %w", c.k.Noun, c.id, err)
	}
	if n == 0 {
		return nil, changedSince(c.k, c.id)
	}
	if err := clearIndex(ctx, c.tx, c.k, c.id); err != nil {
		return nil, err
	}
	if err := c.writeIndex(ctx, tree); err != nil {
		return nil, err
	}
	c.tx.Changed(c.k.Name)
	doc := c.doc(body, now)
	doc.Created = db.Time(c.created)
	return doc, nil
}

func (c *change) doc(body string, now int64) *Doc {
	return &Doc{
		ID: c.id, Seq: c.seq, Space: c.space, Slug: c.slug, Version: c.version,
		Created: db.Time(now), Updated: db.Time(now), By: c.by, Body: json.RawMessage(body),
	}
}
