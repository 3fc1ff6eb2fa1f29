package server

import (
	"net/http"
	"reflect"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/installed"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

func (a *api) versionRoutes() []rest.Route {
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/system/versions", Permission: administer, Handler: a.versions, Response: reflect.TypeFor[octopus.Page[octopus.InstalledVersion]](), Query: paged(), Summary: "Lists the versions that have served on the server's database, the newest first."},
	}
}

func (a *api) versions(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	var all []installed.Version
	var total int64
	err = a.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		all, total, err = installed.List(r.Context(), tx, p.Skip, p.Take)
		return err
	})
	if err != nil {
		return nil, err
	}
	items := make([]octopus.InstalledVersion, len(all))
	for i, v := range all {
		items[i] = octopus.InstalledVersion{Version: v.Number, SchemaLevel: v.Level, Node: octopus.NullString(v.Node), Installed: octopus.NewTime(v.Began)}
	}
	return rest.PageOf(r, "InstalledVersion", p, total, items), nil
}
