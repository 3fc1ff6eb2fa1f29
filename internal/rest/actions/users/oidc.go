package users

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

const identityKind = "oidcidentities"

// identityRoutes are about the external identities that stand for service accounts.
func (a *api) identityRoutes() []rest.Route {
	one := reflect.TypeFor[octopus.OIDCIdentity]()
	view, edit := string(octopus.PermUserView), string(octopus.PermUserEdit)
	paged := []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/serviceaccounts/{id}/oidcidentities/v1", Permission: view, Handler: a.oidcIdentities, Response: reflect.TypeFor[octopus.OIDCIdentities](), Query: paged, Summary: "Lists the external identities of a service account."},
		{Method: http.MethodPost, Pattern: "/serviceaccounts/{id}/oidcidentities/create/v1", Permission: edit, Handler: a.createIdentity, Body: one, Response: one, Summary: "Adds an external identity to a service account."},
		{Method: http.MethodGet, Pattern: "/serviceaccounts/{id}/oidcidentities/{identity}/v1", Permission: view, Handler: a.oidcIdentity, Response: one, Summary: "Reads an external identity of a service account."},
		{Method: http.MethodPut, Pattern: "/serviceaccounts/{id}/oidcidentities/{identity}/v1", Permission: edit, Handler: a.putIdentity, Body: one, Response: one, Summary: "Replaces an external identity of a service account."},
		{Method: http.MethodDelete, Pattern: "/serviceaccounts/{id}/oidcidentities/{identity}/v1", Permission: edit, Handler: a.deleteIdentity, Summary: "Removes an external identity from a service account."},
	}
}

// account is the id of the service account that the path names.
func (a *api) account(ctx context.Context, tx *db.Tx, r *rest.Request) (string, error) {
	doc, err := r.Find(ctx, tx, kind, r.PathValue("id"))
	if err != nil {
		return "", err
	}
	var u octopus.User
	if err := json.Unmarshal(doc.Body, &u); err != nil {
		return "", err
	}
	if !u.IsService {
		return "", fault.Missing("service account", r.PathValue("id"))
	}
	return doc.ID, nil
}

// named checks that an identity is the account's.
func (a *api) named(r *rest.Request) (id string, err error) {
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		account, err := a.account(r.Context(), tx, r)
		if err != nil {
			return err
		}
		doc, err := r.Find(r.Context(), tx, identityKind, r.PathValue("identity"))
		if err != nil {
			return err
		}
		var one octopus.OIDCIdentity
		if err := json.Unmarshal(doc.Body, &one); err != nil {
			return err
		}
		if one.ServiceAccountID != account {
			return fault.Missing("OIDC identity", r.PathValue("identity"))
		}
		id = doc.ID
		return nil
	})
	return id, err
}

func (a *api) oidcIdentities(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	var out octopus.OIDCIdentities
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		account, err := a.account(ctx, tx, r)
		if err != nil {
			return err
		}
		k, err := a.store.Kind(identityKind)
		if err != nil {
			return err
		}
		docs, total, err := a.store.List(ctx, tx, k, docstore.Query{Where: []docstore.Match{{Path: "ServiceAccountId", Any: []string{account}}}, Page: p})
		if err != nil {
			return err
		}
		var server octopus.ServerConfiguration
		if err := a.store.Load(ctx, tx, "serverconfiguration", "server", &server); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		self := r.Href("/api/serviceaccounts/" + account + "/oidcidentities/v1")
		out = octopus.OIDCIdentities{ServerURL: server.ServerURI, ExternalID: a.auth.ExternalID(account), Count: total, TotalResults: total, Links: octopus.Links{"Self": self}}
		for _, doc := range docs {
			body, err := r.Render(identityKind, doc)
			if err != nil {
				return err
			}
			var one octopus.OIDCIdentity
			if err := json.Unmarshal(body, &one); err != nil {
				return err
			}
			out.OIDCIdentities = append(out.OIDCIdentities, one)
		}
		out.Items = out.OIDCIdentities
		return nil
	})
	return out, err
}

// identityBody is what a client sends, as the identity of the account in the path.
func (a *api) identityBody(r *rest.Request) ([]byte, error) {
	var one octopus.OIDCIdentity
	if err := r.Decode(&one); err != nil {
		return nil, err
	}
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		one.ServiceAccountID, err = a.account(r.Context(), tx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(one)
}

func (a *api) createIdentity(r *rest.Request) (any, error) {
	body, err := a.identityBody(r)
	if err != nil {
		return nil, err
	}
	return r.Create(identityKind, body)
}

func (a *api) oidcIdentity(r *rest.Request) (any, error) {
	id, err := a.named(r)
	if err != nil {
		return nil, err
	}
	return r.Get(identityKind, id)
}

func (a *api) putIdentity(r *rest.Request) (any, error) {
	id, err := a.named(r)
	if err != nil {
		return nil, err
	}
	body, err := a.identityBody(r)
	if err != nil {
		return nil, err
	}
	return r.Replace(identityKind, id, body)
}

func (a *api) deleteIdentity(r *rest.Request) (any, error) {
	id, err := a.named(r)
	if err != nil {
		return nil, err
	}
	return r.Delete(identityKind, id)
}
