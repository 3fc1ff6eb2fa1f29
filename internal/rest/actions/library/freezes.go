package library

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// freezes is a page under the names that clients of this collection read.
type freezes struct {
	octopus.Page[json.RawMessage]
	DeploymentFreezes octopus.List[json.RawMessage]
	Count             int64
}

// freezePage is the same for the document.
type freezePage struct {
	octopus.Page[octopus.DeploymentFreeze]
	DeploymentFreezes octopus.List[octopus.DeploymentFreeze]
	Count             int64
}

func (a *api) freezeRoutes() []rest.Route {
	list := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.List, About: about} }
	text := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.Text, About: about} }
	return []rest.Route{{
		Method: http.MethodGet, Pattern: "/deploymentfreezes", Mount: rest.InSystem, Permission: string(octopus.PermDeploymentFreezeAdminister), Handler: a.freezes, Overrides: true, Response: reflect.TypeFor[freezePage](),
		Query: []rest.Param{
			{Name: "skip", Type: rest.Number, About: "how many to leave out"},
			{Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"},
			list("ids", "only these"),
			text("name", "only the one with this name"), text("partialName", "only those with this in their name"),
			list("projectIds", "only of these projects"), list("environmentIds", "only of these environments"), list("tenantIds", "only of these tenants"),
		}, Summary: "Lists deployment freezes.",
	}}
}

func (a *api) freezes(r *rest.Request) (any, error) {
	answer, err := r.List("deploymentfreezes")
	if err != nil {
		return nil, err
	}
	page, ok := answer.(octopus.Page[json.RawMessage])
	if !ok {
		return nil, fmt.Errorf("the list of freezes is a %T", answer)
	}
	return freezes{Page: page, DeploymentFreezes: page.Items, Count: page.TotalResults}, nil
}
