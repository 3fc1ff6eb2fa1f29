// Package library serves what a space keeps for all of its projects and is no plain
// resource: certificates with their files, and step templates with their versions.
package library

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/rest"
)

type api struct {
	db    *db.DB
	store *docstore.Store
}

// Routes are the operations. They all are in spaces, but for those on the
// community's templates.
func Routes(d *db.DB, store *docstore.Store) []rest.Route {
	a := &api{d, store}
	return slices.Concat(a.certificateRoutes(), a.templateRoutes(), a.retentionRoutes(), a.freezeRoutes(), a.subscriptionRoutes())
}

// change changes a document's tree as the server does, after a check that the
// caller holds a permission for it, and answers with it.
func (a *api) change(r *rest.Request, kind, permission string, fn func(ctx context.Context, tx *db.Tx, doc *docstore.Doc, tree map[string]any) error) (*docstore.Doc, error) {
	k, err := a.store.Kind(kind)
	if err != nil {
		return nil, err
	}
	var fresh *docstore.Doc
	err = a.db.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		doc, err := r.Find(ctx, tx, kind, r.PathValue("id"))
		if err != nil {
			return err
		}
		if err := r.Must(ctx, tx, kind, doc, permission); err != nil {
			return err
		}
		tree, err := a.store.Tree(k, doc)
		if err != nil {
			return err
		}
		if err := fn(ctx, tx, doc, tree); err != nil {
			return err
		}
		body, err := json.Marshal(tree)
		if err != nil {
			return fmt.Errorf("encode %s: %w", doc.ID, err)
		}
		fresh, err = a.store.Replace(ctx, tx, k, doc.Space, doc.ID, docstore.Input{Body: body, Server: true})
		return err
	})
	return fresh, err
}
