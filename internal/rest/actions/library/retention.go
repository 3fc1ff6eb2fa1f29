package library

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

const (
	retentionKind = "retentionpolicies"
	retentionView = string(octopus.PermLifecycleView)
	retentionEdit = string(octopus.PermRetentionAdminister)
)

func (a *api) retentionRoutes() []rest.Route {
	one := reflect.TypeFor[octopus.RetentionPolicy]()
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/retentionpolicies", Permission: retentionView, Handler: a.retentions, Response: reflect.TypeFor[octopus.Page[octopus.RetentionPolicy]](), Query: []rest.Param{{Name: "RetentionType", Type: rest.Text, About: "only the one of this type, whose members then stand in the answer too"}}, Summary: "Lists what a space keeps where lifecycles and runbooks leave it to the space."},
		{Method: http.MethodGet, Pattern: "/retentionpolicies/{id}", Permission: retentionView, Handler: a.retention, Response: one, Summary: "Reads a retention policy of a space."},
		{Method: http.MethodPut, Pattern: "/retentionpolicies/{id}", Permission: retentionEdit, Handler: a.putRetention, Body: one, Response: one, Summary: "Replaces a retention policy of a space."},
	}
}

// retentionOf reads the policy of a type, or what holds without.
func (a *api) retentionOf(ctx context.Context, tx *db.Tx, r *rest.Request, of octopus.RetentionType) (octopus.RetentionPolicy, error) {
	p := resources.DefaultRetention(r.Space, of)
	if err := a.store.Load(ctx, tx, retentionKind, p.ID, &p); err != nil && !fault.Is(err, fault.NotFound) {
		return p, err
	}
	p.Links = octopus.Links{"Self": r.SpaceHref("/retentionpolicies/" + p.ID)}
	return p, nil
}

func (a *api) retentions(r *rest.Request) (any, error) {
	types := resources.RetentionTypes()
	wanted := r.Query("RetentionType")
	if wanted != "" {
		of, ok := typeNamed(wanted)
		if !ok {
			return nil, fault.InvalidField("RetentionType", "RetentionType is '%.100s'; use %s, %s or %s.", wanted, types[0], types[1], types[2])
		}
		types = []octopus.RetentionType{of}
	}
	var all []octopus.RetentionPolicy
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		all = nil
		for _, of := range types {
			p, err := a.retentionOf(r.Context(), tx, r, of)
			if err != nil {
				return err
			}
			all = append(all, p)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	page := rest.PageOf(r, "RetentionPolicy", ident.Page{Take: 30}, int64(len(all)), all)
	if wanted == "" {
		return page, nil
	}
	// Clients that ask for one type expect it alone: its members stand beside the page's.
	out := map[string]json.RawMessage{}
	for _, part := range []any{page, all[0]} {
		body, err := json.Marshal(part)
		if err != nil {
			return nil, fmt.Errorf("encode retention policy: %w", err)
		}
		links := out["Links"]
		if err := json.Unmarshal(body, &out); err != nil {
			return nil, fmt.Errorf("encode retention policy: %w", err)
		}
		if links != nil {
			out["Links"] = links
		}
	}
	return out, nil
}

func typeNamed(name string) (octopus.RetentionType, bool) {
	for _, of := range resources.RetentionTypes() {
		if strings.EqualFold(string(of), name) {
			return of, true
		}
	}
	return "", false
}

// retentionNamed finds which policy of the space a path names.
func retentionNamed(r *rest.Request) (octopus.RetentionType, error) {
	for _, of := range resources.RetentionTypes() {
		if strings.EqualFold(resources.RetentionPolicyID(r.Space, of), r.PathValue("id")) {
			return of, nil
		}
	}
	return "", fault.Missing("retention policy", r.PathValue("id"))
}

func (a *api) retention(r *rest.Request) (any, error) {
	of, err := retentionNamed(r)
	if err != nil {
		return nil, err
	}
	var p octopus.RetentionPolicy
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		p, err = a.retentionOf(r.Context(), tx, r, of)
		return err
	})
	return p, err
}

func (a *api) putRetention(r *rest.Request) (any, error) {
	of, errNamed := retentionNamed(r)
	if errNamed != nil {
		return nil, errNamed
	}
	var in octopus.RetentionPolicy
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	k, err := a.store.Kind(retentionKind)
	if err != nil {
		return nil, err
	}
	p := resources.DefaultRetention(r.Space, of)
	p.Strategy, p.Unit, p.QuantityToKeep = in.Strategy, in.Unit, in.QuantityToKeep
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", p.ID, err)
	}
	err = a.db.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		if err := r.Allow(retentionEdit, rest.Target{}); err != nil {
			return err
		}
		_, err := a.store.Replace(ctx, tx, k, r.Space, p.ID, docstore.Input{Body: body, Server: true})
		if fault.Is(err, fault.NotFound) {
			_, err = a.store.Create(ctx, tx, k, docstore.Input{Space: r.Space, ID: p.ID, Body: body, Server: true})
		}
		if err != nil {
			return err
		}
		p, err = a.retentionOf(ctx, tx, r, of)
		return err
	})
	return p, err
}
