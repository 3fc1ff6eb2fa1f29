package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Alias serves a kind under another path besides its own: nested below an owner
// ("/projects/{owner}/channels"), or by another name ("/tenant").
type Alias struct {
	Kind    string // "channels"
	Pattern string // of the list; "{owner}" stands for the owner's id, slug or name
	// Owner is the owner's kind and Within the member of the nested documents that
	// holds its id ("ProjectId"). Lists are cut to the owner, what belongs to
	// another is not found, and a new document gets the owner. Both "" without one.
	Owner, Within string
	// Only names the operations that are served, of "list", "all", "get",
	// "create", "replace" and "delete"; nil is all.
	Only []string
}

// crud serves one kind at one place.
type crud struct {
	s     *Server
	k     *resource.Kind
	links *linkMaker
	at    Alias
	owner *resource.Kind
}

// kindRoutes are the operations on a declared kind.
func (s *Server) kindRoutes(k *resource.Kind, at Alias) ([]Route, error) {
	c := &crud{s: s, k: k, links: s.links[k.Name], at: at}
	if at.Owner != "" {
		var err error
		if c.owner, err = s.Store.Kind(at.Owner); err != nil {
			return nil, err
		}
	}
	mount := InSpace
	switch k.Scope {
	case resource.InSystem:
		mount = InSystem
	case resource.InEither:
		mount = InEither
	case resource.InSpace:
	}
	view := k.Permissions.View
	if view == "" {
		view = SignedIn
	}
	noun, many := k.Noun, plural(k)
	page := reflect.TypeFor[octopus.Page[any]]()
	list := []Param{
		{"ids", List, "only these"},
		{"name", Text, "only the one with this name"},
		{"partialName", Text, "only those with this in their name"},
	}
	if k.Unnamed {
		list = list[:1]
	}
	if k.Search != "" {
		list = append(list, Param{k.Search, Text, "the same as partialName"})
	}
	for _, f := range k.Filters {
		list = append(list, Param{f.Param, List, "only those with one of these " + f.Path})
	}
	if mount == InEither {
		list = append(list, Param{"spaces", List, "only those of these spaces"}, Param{"includeSystem", Boolean, "with those of the system; true unless said"})
	}
	paged := append([]Param{{"skip", Number, "how many to leave out"}, {"take", Number, "how many to give; 30 unless said"}}, list...)

	routes := []Route{
		{Method: http.MethodGet, Pattern: at.Pattern, Permission: view, Handler: c.list, Query: paged, Response: page, item: k.Type, op: "list", Summary: "Lists " + many + "."},
		{Method: http.MethodGet, Pattern: at.Pattern + "/all", Permission: view, Handler: c.all, Query: list, Response: reflect.SliceOf(k.Type), op: "all", Summary: "Lists all " + many + " as a bare array."},
		{Method: http.MethodGet, Pattern: at.Pattern + "/{id}", Permission: view, Handler: c.get, Response: k.Type, op: "get", Summary: "Reads " + a(noun) + " by id" + byName(k) + "."},
	}
	if p := k.Permissions.Create; p != "" {
		routes = append(routes, Route{Method: http.MethodPost, Pattern: at.Pattern, Permission: p, Handler: c.create, Body: k.Type, Response: k.Type, op: "create", Summary: "Creates " + a(noun) + "."})
	}
	if p := k.Permissions.Edit; p != "" {
		routes = append(routes, Route{Method: http.MethodPut, Pattern: at.Pattern + "/{id}", Permission: p, Handler: c.replace, Body: k.Type, Response: k.Type, op: "replace", Summary: "Replaces " + a(noun) + " as a whole."})
	}
	if p := k.Permissions.Delete; p != "" {
		routes = append(routes, Route{Method: http.MethodDelete, Pattern: at.Pattern + "/{id}", Permission: p, Handler: c.delete, op: "delete", Summary: "Deletes " + a(noun) + "."})
	}
	kept := routes[:0]
	for _, r := range routes {
		if at.Only == nil || slices.Contains(at.Only, r.op) {
			r.Mount, r.Group = mount, k.Name
			kept = append(kept, r)
		}
	}
	return kept, nil
}

func plural(k *resource.Kind) string {
	switch n := k.Noun; {
	case strings.HasSuffix(n, "y") && !strings.HasSuffix(n, "ay") && !strings.HasSuffix(n, "ey"):
		return n[:len(n)-1] + "ies"
	case strings.HasSuffix(n, "s"), strings.HasSuffix(n, "x"):
		return n + "es"
	default:
		return n + "s"
	}
}

func a(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) && !strings.HasPrefix(noun, "user") {
		return "an " + noun
	}
	return "a " + noun
}

func byName(k *resource.Kind) string {
	switch {
	case k.Unnamed:
		return ""
	case k.Slugged:
		return ", slug or exact name"
	default:
		return " or exact name"
	}
}

// query reads the parameters of a list.
func (c *crud) query(r *Request) (docstore.Query, error) {
	q := docstore.Query{Space: r.Space, PartialName: r.Query("partialName"), Name: r.Query("name")}
	if q.PartialName == "" && c.k.Search != "" {
		q.PartialName = r.Query(c.k.Search)
	}
	var err error
	if q.IDs, err = r.QueryList("ids"); err != nil {
		return q, err
	}
	for _, f := range c.k.Filters {
		values, err := r.QueryList(f.Param)
		if err != nil {
			return q, err
		}
		if len(values) > 0 {
			q.Where = append(q.Where, docstore.Match{Path: f.Path, Any: values})
		}
	}
	if c.k.Scope == resource.InEither {
		return q, c.scope(r, &q)
	}
	if c.k.Name == spacesKind {
		q.IDs = r.knownSpaces(q.IDs)
	}
	switch {
	case c.k.Permissions.View != "":
		q.Visible = r.Grants(c.k.Permissions.View)
	case c.k.Scope == resource.InSpace && !r.knows(r.Space):
		return q, fault.Missing("space", string(r.Space)) // the default one, which the path did not name
	}
	return q, nil
}

// scope cuts a list of a kind that lives in spaces and in the system to the
// places that the caller asks for and may see.
func (c *crud) scope(r *Request, q *docstore.Query) error {
	system, err := r.QueryBool("includeSystem", true)
	if err != nil {
		return err
	}
	only, err := r.QueryList("spaces")
	if err != nil {
		return err
	}
	places, err := r.Spaces(c.k.Permissions.View)
	if err != nil {
		return err
	}
	q.Spaces = slices.DeleteFunc(places, func(id ident.SpaceID) bool {
		if id == "" {
			return !system
		}
		return r.Space != "" && id != r.Space ||
			len(only) > 0 && !slices.ContainsFunc(only, func(o string) bool { return strings.EqualFold(o, string(id)) })
	})
	if r.Space != "" && c.k.Permissions.View != "" && slices.Contains(q.Spaces, r.Space) {
		q.Visible = r.Grants(c.k.Permissions.View)
	}
	return nil
}

// within cuts q to the owner in the path, if there is one.
func (c *crud) within(ctx context.Context, tx *db.Tx, r *Request, q *docstore.Query) error {
	id, err := c.ownerID(ctx, tx, r)
	if err == nil && id != "" {
		q.Where = append(q.Where, docstore.Match{Path: c.at.Within, Any: []string{id}})
	}
	return err
}

func (c *crud) ownerID(ctx context.Context, tx *db.Tx, r *Request) (string, error) {
	if c.owner == nil {
		return "", nil
	}
	doc, err := c.s.readable(ctx, tx, r, c.owner, r.PathValue("owner"))
	if err != nil {
		return "", err
	}
	return doc.ID, nil
}

// list is a page. Clients whose link template had no {/id} put that into the query: with
// id=all it is the bare array that the template means.
func (c *crud) list(r *Request) (any, error) {
	if strings.EqualFold(r.Query("id"), "all") {
		return c.all(r)
	}
	return c.page(r)
}

// page is a page of the list, and of that only what also matches where.
func (c *crud) page(r *Request, where ...docstore.Match) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	q, err := c.query(r)
	if err != nil {
		return nil, err
	}
	q.Page, q.Where = page, append(q.Where, where...)
	var docs []*docstore.Doc
	var total int64
	err = c.s.DB.Read(r.Context(), func(tx *db.Tx) error {
		q := q
		if err := c.within(r.Context(), tx, r, &q); err != nil {
			return err
		}
		docs, total, err = c.s.Store.List(r.Context(), tx, c.k, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	items := make([]json.RawMessage, len(docs))
	for i, doc := range docs {
		if items[i], err = c.s.render(c.k, c.links, doc); err != nil {
			return nil, err
		}
	}
	return PageOf(r, c.k.ItemType, page, total, items), nil
}

func (c *crud) all(r *Request) (any, error) {
	q, err := c.query(r)
	if err != nil {
		return nil, err
	}
	err = c.s.DB.Read(r.Context(), func(tx *db.Tx) error {
		return c.within(r.Context(), tx, r, &q)
	})
	if err != nil {
		return nil, err
	}
	return r.array(c.k, q, func(doc *docstore.Doc) (json.RawMessage, error) { return c.s.render(c.k, c.links, doc) }), nil
}

// array is the list of a kind's documents that a query finds, without pages.
func (r *Request) array(k *resource.Kind, q docstore.Query, render func(doc *docstore.Doc) (json.RawMessage, error)) Array {
	var last *docstore.Doc
	end := false
	return Array{Next: func() (items []json.RawMessage, err error) {
		if end {
			return nil, nil
		}
		var docs []*docstore.Doc
		err = r.srv.DB.Read(r.Context(), func(tx *db.Tx) error {
			docs, err = r.srv.Store.After(r.Context(), tx, k, q, last, Piece)
			return err
		})
		if err != nil {
			return nil, err
		}
		if end = len(docs) < Piece; !end {
			last = docs[len(docs)-1]
		}
		items = make([]json.RawMessage, len(docs))
		for i, doc := range docs {
			if items[i], err = render(doc); err != nil {
				return nil, err
			}
		}
		return items, nil
	}}
}

func (c *crud) get(r *Request) (any, error) { return c.read(r, r.PathValue("id")) }

func (c *crud) read(r *Request, ref string) (any, error) {
	var doc *docstore.Doc
	err := c.s.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = c.find(r.Context(), tx, r, ref)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.answer(doc)
}

func (c *crud) answer(doc *docstore.Doc) (any, error) {
	body, err := c.s.render(c.k, c.links, doc)
	if err != nil {
		return nil, err
	}
	return Tagged{Body: body, Version: doc.Version}, nil
}

// find reads the document that ref names, if the caller may see it here.
func (c *crud) find(ctx context.Context, tx *db.Tx, r *Request, ref string) (*docstore.Doc, error) {
	owner, err := c.ownerID(ctx, tx, r)
	if err != nil {
		return nil, err
	}
	if owner == "" {
		return c.s.readable(ctx, tx, r, c.k, ref)
	}
	// Names and slugs of nested documents are unique within their owner only.
	q := docstore.Query{Space: r.Space, Where: []docstore.Match{{Path: c.at.Within, Any: []string{owner}}}, Page: ident.Page{Take: 1}}
	byID, byName := q, q
	byID.IDs, byName.Name = []string{ref}, ref
	attempts := []docstore.Query{byID}
	if !c.k.Unnamed {
		attempts = append(attempts, byName)
	}
	for _, q := range attempts {
		docs, _, err := c.s.Store.List(ctx, tx, c.k, q)
		if err != nil {
			return nil, err
		}
		if len(docs) > 0 {
			return c.s.readable(ctx, tx, r, c.k, docs[0].ID)
		}
	}
	doc, err := c.s.readable(ctx, tx, r, c.k, ref) // by slug
	if err != nil {
		return nil, err
	}
	tree, err := c.s.Store.Tree(c.k, doc)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(resource.Values(tree, c.at.Within), owner) {
		return nil, fault.Missing(c.k.Noun, ref)
	}
	return doc, nil
}

func (c *crud) create(r *Request) (any, error) {
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	return c.make(r, body)
}

func (c *crud) make(r *Request, body []byte) (any, error) {
	var err error
	in := docstore.Input{Space: r.Space, Body: body}
	if c.k.Scope == resource.InEither && r.Space == "" {
		if in.Space, err = c.spaceOf(r, body); err != nil {
			return nil, err
		}
	}
	var doc *docstore.Doc
	err = c.s.DB.Write(r.Context(), func(tx *db.Tx) error {
		in := in
		if c.owner != nil {
			owner, err := c.ownerID(r.Context(), tx, r)
			if err != nil {
				return err
			}
			if in.Body, err = setMember(body, c.at.Within, owner); err != nil {
				return err
			}
		}
		doc, err = c.s.Store.Create(r.Context(), tx, c.k, in)
		if err != nil {
			return err
		}
		return c.s.must(r.Context(), tx, r, c.k, doc, c.k.Permissions.Create)
	})
	if err != nil {
		return nil, err
	}
	answer, err := c.answer(doc)
	if err != nil {
		return nil, err
	}
	return Created{Body: answer, Location: c.links.self(doc)}, nil
}

// spaceOf reads which space a new document of a kind in either is for.
func (c *crud) spaceOf(r *Request, body []byte) (ident.SpaceID, error) {
	tree, _, err := c.k.Decode(body)
	if err != nil {
		return "", err
	}
	ref := resource.Text(tree, "SpaceId")
	if ref == "" {
		return "", nil
	}
	spaces, err := r.allSpaces()
	if err != nil {
		return "", err
	}
	sp, ok := spaces.find(ref)
	if !ok {
		return "", fault.InvalidField("SpaceId", "SpaceId names '%.100s', which does not exist; give the id of a space, or leave it empty for the system.", ref)
	}
	return sp.ID, nil
}

// setMember puts a text into a JSON object, whatever its member was.
func setMember(body []byte, member, value string) ([]byte, error) {
	tree, err := resource.Parse(body)
	if err != nil {
		return nil, err
	}
	for name := range tree {
		if strings.EqualFold(name, member) {
			delete(tree, name)
		}
	}
	tree[member] = value
	return json.Marshal(tree)
}

func (c *crud) replace(r *Request) (any, error) {
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	return c.put(r, r.PathValue("id"), body)
}

func (c *crud) put(r *Request, ref string, body []byte) (any, error) {
	expect, err := r.Expects()
	if err != nil {
		return nil, err
	}
	var fresh *docstore.Doc
	err = c.s.DB.Write(r.Context(), func(tx *db.Tx) error {
		doc, err := c.find(r.Context(), tx, r, ref)
		if err != nil {
			return err
		}
		if err := c.s.must(r.Context(), tx, r, c.k, doc, c.k.Permissions.Edit); err != nil {
			return err
		}
		fresh, err = c.s.Store.Replace(r.Context(), tx, c.k, doc.Space, doc.ID, docstore.Input{Body: body, Expect: expect})
		if err != nil {
			return err
		}
		// It may have moved to where the caller has no right to put it.
		return c.s.must(r.Context(), tx, r, c.k, fresh, c.k.Permissions.Edit)
	})
	if err != nil {
		return nil, err
	}
	return c.answer(fresh)
}

func (c *crud) delete(r *Request) (any, error) { return c.remove(r, r.PathValue("id")) }

func (c *crud) remove(r *Request, ref string) (any, error) {
	expect, err := r.Expects()
	if err != nil {
		return nil, err
	}
	return nil, c.s.DB.Write(r.Context(), func(tx *db.Tx) error {
		doc, err := c.find(r.Context(), tx, r, ref)
		if err != nil {
			return err
		}
		if err := c.s.must(r.Context(), tx, r, c.k, doc, c.k.Permissions.Delete); err != nil {
			return err
		}
		if expect != 0 && expect != doc.Version {
			return fault.New(fault.Conflict, "The %s '%s' was modified by somebody else since it was read; read it again before you delete it.", c.k.Noun, doc.ID)
		}
		return r.Refusal(r.Context(), tx, c.s.Store.Delete(r.Context(), tx, c.k, doc.Space, doc.ID))
	})
}
