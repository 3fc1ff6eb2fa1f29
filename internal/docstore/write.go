package docstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

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

	typed bool // Body was a Go value, which has not what its type does not know
}

// Create stores a new document by its kind's rules, in tx.
func (s *Store) Create(ctx context.Context, tx *db.Tx, k *resource.Kind, in Input) (*Doc, error) {
	incoming, err := k.Tree(in.Body)
	if err != nil {
		return nil, err
	}
	c := change{s: s, tx: tx, k: k, space: in.Space, id: in.ID, version: 1, by: db.ActorFrom(ctx).Username, server: in.Server}
	switch {
	case k.Scope == resource.InSystem:
		c.space = ""
	case k.Scope == resource.InSpace && c.space == "":
		return nil, fmt.Errorf("create %s: it belongs to a space, and none is given", k.Noun)
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

// number gives a new document its id, and its place among those of its kind. An
// id with the kind's prefix and a number comes from the counter alone: one that
// is given would be given again, once the counter gets there.
func (c *change) number(ctx context.Context) (err error) {
	if c.id == "" {
		c.seq, err = c.tx.NextSeq(ctx, c.k.Prefix)
		c.id = ident.ID(c.k.Prefix, c.seq)
		return err
	}
	if numbered(c.k, c.id) {
		return fmt.Errorf("create %s %s: such ids are given out by the counter; leave the id empty", c.k.Noun, c.id)
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
	doc, err := lock(ctx, tx, k, id)
	if err != nil {
		return nil, err
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
	incoming, err := k.Tree(in.Body)
	if err != nil {
		return nil, err
	}
	if !in.Server {
		if k.Versioned && number(incoming["Version"]) != number(oldTree["Version"]) {
			return nil, changedSince(k, id)
		}
		s.dropOwned(k, incoming, oldTree)
	}
	if in.typed {
		k.KeepUnknown(incoming, masked)
	}
	c := change{
		s: s, tx: tx, k: k, space: doc.Space, id: doc.ID, seq: doc.Seq, version: doc.Version + 1,
		by: db.ActorFrom(ctx).Username, created: db.Micros(doc.Created), server: in.Server, oldTree: oldTree,
	}
	tree, err := c.prepare(ctx, incoming, old)
	if err != nil {
		return nil, err
	}
	if err := c.finish(ctx, tree, oldTree); err != nil {
		return nil, err
	}
	measured := in.Server && onlyMeasured(k, tree, oldTree)
	if measured {
		tree["LastModifiedOn"], tree["LastModifiedBy"], c.by = oldTree["LastModifiedOn"], oldTree["LastModifiedBy"], doc.By
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
	if !measured {
		c.event("Modified", "was changed", tree, oldTree)
	}
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
		for name := range incoming { // the type need not know the member, nor spell it
			if strings.EqualFold(name, member) {
				delete(incoming, name)
			}
		}
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
	server              bool          // see Input
	oldTree             resource.Tree // nil at creation
}

// prepare applies defaults, general rules and the kind's own, and returns the
// tree to be stored, still without what only finish knows.
func (c *change) prepare(ctx context.Context, incoming resource.Tree, old any) (resource.Tree, error) {
	incoming["Id"] = c.id
	if c.k.Scope != resource.InSystem {
		incoming["SpaceId"] = string(c.space)
	}
	delete(incoming, "Links")
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
	case strings.ContainsFunc(c.display, unicode.IsControl):
		return []error{fault.InvalidField("Name", "Name is %q, which has control characters; use letters, digits and signs.", c.display)}
	}
	return nil
}

// checkReferences finds references to what does not exist, or not here. What
// dangles already, since its target was deleted, may stay where the declaration
// lets it.
func (c *change) checkReferences(ctx context.Context, tree resource.Tree) []error {
	var faults []error
	for _, ref := range c.k.References {
		to := c.s.kinds[ref.To]
		values := resource.Values(tree, ref.Path)
		if len(values) == 0 {
			if ref.Required {
				faults = append(faults, fault.InvalidField(field(ref.Path), "%s is empty; give the id of one of the %s.", field(ref.Path), to.Name))
			}
			continue
		}
		if slices.ContainsFunc(values, func(id string) bool { return CanonicalID(to, id) != id }) {
			canonical(tree, ref.Path, to)
			values = resource.Values(tree, ref.Path)
		}
		if ref.OnDelete == resource.Ignore {
			if c.server {
				continue
			}
			before := resource.Values(c.oldTree, ref.Path)
			values = slices.DeleteFunc(values, func(id string) bool { return slices.Contains(before, id) })
		}
		missing, err := c.missing(ctx, to, values)
		if err != nil {
			return []error{err}
		}
		for _, id := range missing {
			faults = append(faults, fault.InvalidField(field(ref.Path), "%s names '%s', which does not exist in this space; give the id of one of the %s.", field(ref.Path), short(id), to.Name))
		}
	}
	return faults
}

// field is a path as messages show it.
func field(path string) string {
	path, _ = strings.CutSuffix(path, ".*key")
	return strings.ReplaceAll(path, ".*", "")
}

// canonical spells the ids at path as their kind does.
func canonical(tree resource.Tree, path string, to *resource.Kind) {
	path, keys := strings.CutSuffix(path, ".*key")
	resource.Walk(tree, path, func(obj resource.Tree, key string) {
		switch v := obj[key].(type) {
		case string:
			obj[key] = CanonicalID(to, v)
		case []any:
			for i, e := range v {
				if id, ok := e.(string); ok {
					v[i] = CanonicalID(to, id)
				}
			}
		case resource.Tree:
			if !keys {
				return
			}
			for _, id := range slices.Sorted(maps.Keys(v)) {
				if spelled := CanonicalID(to, id); spelled != id {
					if _, twice := v[spelled]; !twice {
						v[spelled] = v[id]
					}
					delete(v, id)
				}
			}
		}
	})
}

// missing lists which ids are no documents of kind to that this one may refer to.
func (c *change) missing(ctx context.Context, to *resource.Kind, ids []string) ([]string, error) {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 0 {
		return nil, nil
	}
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
	return c.s.seal(c.id, tree, old)
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
	taken, err := c.takenSlugs(ctx, c.uniqueScope(tree, c.k.SlugWithin), want)
	if err != nil {
		return err
	}
	// One that looks like a numbered id would find another document.
	kept := resource.Text(old, "Slug")
	free := func(slug string) bool {
		return (taken[slug] == "" || taken[slug] == c.id) && (slug == kept || !numbered(c.k, slug))
	}
	if given != "" && !free(want) {
		if holder := taken[want]; holder != "" {
			return fault.InvalidField("Slug", "Slug '%s' is already used by the %s '%s'; choose another one, or leave it empty to get one.", given, c.k.Noun, holder)
		}
		return fault.InvalidField("Slug", "Slug '%s' looks like the id of a %s; choose another one, or leave it empty to get one.", given, c.k.Noun)
	}
	c.slug = want
	for n := 2; !free(c.slug); n++ {
		c.slug = want + "-" + strconv.Itoa(n)
	}
	tree["Slug"] = c.slug
	return nil
}

// takenSlugs lists who has want, or want with something after a dash, as slug.
func (c *change) takenSlugs(ctx context.Context, scope, want string) (map[string]string, error) {
	rows, err := c.tx.Query(ctx, `SELECT u.value, u.id FROM document_unique u WHERE u.kind = ? AND u.field = 'Slug' AND u.scope = ?
		AND (u.value = ? OR u.value >= ? AND u.value < ?)`, c.k.Name, scope, want, want+"-", want+".") // "." is what follows "-"
	if err != nil {
		return nil, fmt.Errorf("look up slugs: %w", err)
	}
	defer rows.Close()
	taken := map[string]string{}
	for rows.Next() {
		var slug, id string
		if err := rows.Scan(&slug, &id); err != nil {
			return nil, fmt.Errorf("look up slugs: %w", err)
		}
		taken[slug] = id
	}
	return taken, rows.Err()
}

// uniqueScope is within what a value is unique: the space, and the owner there.
func (c *change) uniqueScope(tree resource.Tree, within string) string {
	if within == "" {
		return string(c.space)
	}
	return string(c.space) + "/" + indexKey(strings.Join(resource.Values(tree, within), ","))
}

// reload is the document's value as it will be read, for InTx.
func (c *change) reload(tree resource.Tree) (any, error) {
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", c.k.Noun, c.id, err)
	}
	masked, err := resource.Parse(body)
	if err != nil {
		return nil, err
	}
	if err := mask(masked); err != nil {
		return nil, err
	}
	return c.k.Value(masked)
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
		VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, 0, ?)`,
		c.k.Name, c.id, c.seq, string(c.space), c.name, c.slug, c.sort(tree), c.k.Shape(), now, now, c.by, body)
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
	n, err := c.tx.Exec(ctx, `UPDATE documents SET name = ?, slug = ?, sort = ?, version = ?, body_version = ?, updated = ?, updated_by = ?, body = ?
		WHERE kind = ? AND id = ? AND version = ? AND deleted = 0`,
		c.name, c.slug, c.sort(tree), c.version, c.k.Shape(), now, c.by, body, c.k.Name, c.id, c.version-1)
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
