package users

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// placesOf reads which parts of somebody's access are asked for.
func placesOf(r *rest.Request) (auth.Places, error) {
	system, errSystem := r.QueryBool("includeSystem", true)
	spaces, errSpaces := r.QueryList("spaces")
	if len(spaces) == 1 && strings.EqualFold(spaces[0], "all") {
		spaces = nil
	}
	return auth.Places{Spaces: spaces, System: system}, errors.Join(errSystem, errSpaces)
}

func (a *api) permissions(r *rest.Request) (any, error) {
	me, errBy := by(r)
	at, errAt := placesOf(r)
	if err := errors.Join(errBy, errAt); err != nil {
		return nil, err
	}
	out, err := a.auth.Permissions(r.Context(), me, r.PathValue("id"), at)
	if err != nil {
		return nil, err
	}
	user := r.Href("/api/users/" + out.ID)
	out.Links = octopus.Links{"Self": user + "/permissions", "User": user}
	return out, nil
}

func (a *api) export(r *rest.Request) (any, error) {
	me, errBy := by(r)
	at, errAt := placesOf(r)
	if err := errors.Join(errBy, errAt); err != nil {
		return nil, err
	}
	table, err := a.auth.PermissionsCSV(r.Context(), me, r.PathValue("id"), at)
	if err != nil {
		return nil, err
	}
	return rest.Raw{ContentType: "text/csv; charset=utf-8", Content: strings.NewReader(string(table)), Name: "permissions.csv"}, nil
}

func (a *api) teams(r *rest.Request) (any, error) { return a.teamsOf(r, r.PathValue("id")) }

func (a *api) membership(r *rest.Request) (any, error) {
	if user := r.Query("userId"); user != "" {
		return a.teamsOf(r, user)
	}
	return a.teamsOf(r, auth.Me)
}

func (a *api) teamsOf(r *rest.Request, user string) (any, error) {
	me, errBy := by(r)
	at, errAt := placesOf(r)
	if err := errors.Join(errBy, errAt); err != nil {
		return nil, err
	}
	return a.auth.TeamsOf(r.Context(), me, user, at)
}

func (a *api) descriptions(*rest.Request) (any, error) { return auth.Descriptions(), nil }

// spaces lists where a user may do anything. What the one who asks may not know
// of is left out.
func (a *api) spaces(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	theirs, all, err := a.auth.SpacesOf(r.Context(), me, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	known, err := r.Spaces("")
	if err != nil {
		return nil, err
	}
	ids := []string{}
	for _, id := range known {
		if id != "" && (all || slices.Contains(theirs, id)) {
			ids = append(ids, string(id))
		}
	}
	k, err := a.store.Kind("spaces")
	if err != nil {
		return nil, err
	}
	var items []json.RawMessage
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		items = []json.RawMessage{}
		for batch := range slices.Chunk(ids, 1000) {
			docs, _, err := a.store.List(r.Context(), tx, k, docstore.Query{IDs: batch, Page: ident.Page{Take: ident.MaxTake}})
			if err != nil {
				return err
			}
			for _, doc := range docs {
				item, err := r.Render(k.Name, doc)
				if err != nil {
					return err
				}
				items = append(items, item)
			}
		}
		return nil
	})
	return items, err
}

// withLinks puts the links on a key.
func withLinks(r *rest.Request, key *octopus.APIKeyBase) {
	user := r.Href("/api/users/" + key.UserID)
	key.Links = octopus.Links{"Self": user + "/apikeys/" + key.ID, "User": user}
}

func (a *api) keys(r *rest.Request) (any, error) {
	me, errBy := by(r)
	p, errPage := r.Page()
	if err := errors.Join(errBy, errPage); err != nil {
		return nil, err
	}
	keys, total, err := a.auth.ListAPIKeys(r.Context(), me, r.PathValue("id"), p)
	if err != nil {
		return nil, err
	}
	for i := range keys {
		withLinks(r, &keys[i].APIKeyBase)
	}
	return rest.PageOf(r, "ApiKey", p, total, keys), nil
}

func (a *api) key(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	key, err := a.auth.APIKey(r.Context(), me, r.PathValue("id"), r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	withLinks(r, &key.APIKeyBase)
	return key, nil
}

func (a *api) createKey(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	var want octopus.APIKeyCommand
	if err := r.Decode(&want); err != nil {
		return nil, err
	}
	key, err := a.auth.CreateAPIKey(r.Context(), me, r.PathValue("id"), want)
	if err != nil {
		return nil, err
	}
	withLinks(r, &key.APIKeyBase)
	return rest.Created{Body: key, Location: key.Links["Self"]}, nil
}

func (a *api) revokeKey(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	return nil, a.auth.RevokeAPIKey(r.Context(), me, r.PathValue("id"), r.PathValue("key"))
}
