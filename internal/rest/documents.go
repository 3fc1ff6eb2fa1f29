package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

// This file is what handlers use of declared kinds, by the same rules as the
// kinds' own operations: what the caller may not see is not found, and links,
// masking and paging are those of the API.

// readable returns the document that ref names if the caller may see it; what
// they may not see is not found.
func (s *Server) readable(ctx context.Context, tx *db.Tx, r *Request, k *resource.Kind, ref string) (*docstore.Doc, error) {
	doc, err := s.Store.Get(ctx, tx, k, r.Space, ref)
	if err != nil {
		return nil, err
	}
	ok, err := s.covers(ctx, tx, r, k, doc, k.Permissions.View)
	if err == nil && (!ok || k.Name == spacesKind && !r.knows(ident.SpaceID(doc.ID))) {
		err = fault.Missing(k.Noun, ref)
	}
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// covers reports whether the caller holds a permission for doc, in its own space.
func (s *Server) covers(ctx context.Context, tx *db.Tx, r *Request, k *resource.Kind, doc *docstore.Doc, permission string) (bool, error) {
	if permission == "" {
		return doc.Space == "" || r.knows(doc.Space), nil
	}
	switch grants := visible(r.Principal, permission, doc.Space); {
	case grants == nil:
		return true, nil
	case len(grants) == 0:
		return false, nil
	case permission == k.Permissions.View:
		return s.Store.Visible(ctx, tx, k, doc.ID, grants)
	default:
		return s.Store.Covered(ctx, tx, k, doc.ID, grants)
	}
}

// must is covers for a change: the thing may be seen, so the refusal says why.
// To see a document, holding the permission in one of its environments and for
// one of its tenants is enough; to change it, it must be held in all.
func (s *Server) must(ctx context.Context, tx *db.Tx, r *Request, k *resource.Kind, doc *docstore.Doc, permission string) error {
	ok, err := s.covers(ctx, tx, r, k, doc, permission)
	if grants := visible(r.Principal, permission, doc.Space); err == nil && ok && grants != nil {
		ok, err = s.coversAll(ctx, tx, k, doc, grants)
	}
	if err == nil && !ok {
		err = forbidden(permission)
	}
	return err
}

// coversAll reports whether grants cover doc in each of its environments and for
// each of its tenants.
func (s *Server) coversAll(ctx context.Context, tx *db.Tx, k *resource.Kind, doc *docstore.Doc, grants []resource.Grant) (bool, error) {
	tree, err := s.Store.Tree(k, doc)
	if err != nil {
		return false, err
	}
	values := func(path string) []string {
		if path == "" || path == "Id" {
			return []string{""}
		}
		if all := resource.Values(tree, path); len(all) > 0 {
			return all
		}
		return []string{""}
	}
	asked := map[string]bool{} // which subsets of the grants were found to cover doc
	for _, environment := range values(k.Dimensions.Environment) {
		for _, tenant := range values(k.Dimensions.Tenant) {
			var fitting []resource.Grant
			var key strings.Builder
			for i, g := range grants {
				if within(g.Environments, environment) && within(g.Tenants, tenant) {
					fitting = append(fitting, g)
					fmt.Fprint(&key, i, " ")
				}
			}
			if asked[key.String()] {
				continue
			}
			ok, err := s.Store.Covered(ctx, tx, k, doc.ID, fitting)
			if err != nil || !ok {
				return false, err
			}
			asked[key.String()] = true
		}
	}
	return true, nil
}

// within reports whether a grant's list lets an id through; "" stands for a
// dimension in which the documents are not looked at one by one.
func within(ids []string, id string) bool {
	return len(ids) == 0 || id == "" || slices.ContainsFunc(ids, func(one string) bool { return strings.EqualFold(one, id) })
}

// Spaces lists the spaces in which the caller holds a permission for anything,
// with "" for the system; "" as permission asks for all that the caller may know
// of. Lists across spaces are cut by it.
func (r *Request) Spaces(permission string) ([]ident.SpaceID, error) {
	spaces, err := r.allSpaces()
	if err != nil {
		return nil, err
	}
	if permission == "" {
		known := slices.DeleteFunc(slices.Clone(spaces.all), func(id ident.SpaceID) bool { return !r.knows(id) })
		return append(known, ""), nil
	}
	return spaces.holding(r.Principal, permission), nil
}

// Find returns the document of a kind that ref (an id, a slug or an exact name)
// names in the request's space, if the caller holds the kind's View permission
// for it; else it is not found.
func (r *Request) Find(ctx context.Context, tx *db.Tx, kind, ref string) (*docstore.Doc, error) {
	k, err := r.srv.Store.Kind(kind)
	if err != nil {
		return nil, err
	}
	return r.srv.readable(ctx, tx, r, k, ref)
}

// Must returns a Forbidden fault unless the caller holds a permission for doc,
// a document of that kind, in each of its environments and for each of its tenants.
func (r *Request) Must(ctx context.Context, tx *db.Tx, kind string, doc *docstore.Doc, permission string) error {
	k, err := r.srv.Store.Kind(kind)
	if err != nil {
		return err
	}
	return r.srv.must(ctx, tx, r, k, doc, permission)
}

// Render returns a stored document as the API serves it: without secrets, with links.
func (r *Request) Render(kind string, doc *docstore.Doc) (json.RawMessage, error) {
	k, err := r.srv.Store.Kind(kind)
	if err != nil {
		return nil, err
	}
	return r.srv.render(k, r.srv.links[kind], doc)
}

// List answers with a page of a kind's documents by the request's query, as the
// kind's own list does, and of those only what also matches where.
func (r *Request) List(kind string, where ...docstore.Match) (any, error) {
	c, err := r.crud(kind)
	if err != nil {
		return nil, err
	}
	return c.page(r, where...)
}

// All answers with every document of a kind that a query finds, as a bare array of
// any length; change may be nil, or makes another text of what is served of each.
func (r *Request) All(kind string, q docstore.Query, change func(json.RawMessage) (json.RawMessage, error)) (any, error) {
	c, err := r.crud(kind)
	if err != nil {
		return nil, err
	}
	return r.array(c.k, q, func(doc *docstore.Doc) (json.RawMessage, error) {
		text, err := r.srv.render(c.k, c.links, doc)
		if err != nil || change == nil {
			return text, err
		}
		return change(text)
	}), nil
}

// Get answers with one document, as the kind's own operation does.
func (r *Request) Get(kind, ref string) (any, error) {
	c, err := r.crud(kind)
	if err != nil {
		return nil, err
	}
	return c.read(r, ref)
}

// Create makes a document of a JSON object, as the kind's own operation does
// with the request's body. The caller must hold the kind's Create permission.
func (r *Request) Create(kind string, body []byte) (any, error) {
	c, err := r.crud(kind)
	if err != nil {
		return nil, err
	}
	return c.make(r, body)
}

// Replace puts a JSON object in place of a document, as the kind's own operation does.
func (r *Request) Replace(kind, ref string, body []byte) (any, error) {
	c, err := r.crud(kind)
	if err != nil {
		return nil, err
	}
	return c.put(r, ref, body)
}

// Delete removes a document, as the kind's own operation does.
func (r *Request) Delete(kind, ref string) (any, error) {
	c, err := r.crud(kind)
	if err != nil {
		return nil, err
	}
	return c.remove(r, ref)
}

func (r *Request) crud(kind string) (*crud, error) {
	k, err := r.srv.Store.Kind(kind)
	if err != nil {
		return nil, err
	}
	return &crud{s: r.srv, k: k, links: r.srv.links[kind]}, nil
}

// Refusal is the error of a deletion as the caller may read it: of what uses the
// document it names what they may see.
func (r *Request) Refusal(ctx context.Context, tx *db.Tx, err error) error {
	var used *docstore.UsedError
	if !errors.As(err, &used) {
		return err
	}
	return r.srv.Store.UsedBy(ctx, tx, used, func(k *resource.Kind, id string) (bool, error) {
		doc, err := r.srv.Store.Get(ctx, tx, k, r.Space, id)
		if fault.Is(err, fault.NotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return r.srv.covers(ctx, tx, r, k, doc, k.Permissions.View)
	})
}
