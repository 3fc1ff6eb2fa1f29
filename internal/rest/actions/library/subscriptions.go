package library

import (
	"net/http"
	"reflect"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/notify"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

func (a *api) subscriptionRoutes() []rest.Route {
	return []rest.Route{{
		Method: http.MethodGet, Pattern: "/subscriptions/{id}/deliveries", Permission: string(octopus.PermSubscriptionView), Handler: a.deliveries,
		Response: reflect.TypeFor[octopus.Page[octopus.SubscriptionDelivery]](),
		Query: []rest.Param{
			{Name: "skip", Type: rest.Number, About: "how many to leave out"},
			{Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"},
		},
		Summary: "Lists the latest attempts to send a subscription, the newest first.",
	}}
}

func (a *api) deliveries(r *rest.Request) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	var found []octopus.SubscriptionDelivery
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		doc, err := r.Find(r.Context(), tx, resources.SubscriptionKind, r.PathValue("id"))
		if err != nil {
			return err
		}
		found, total, err = notify.Deliveries(r.Context(), tx, doc.ID, page)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i].Links = octopus.Links{
			"Subscription": r.SpaceHref("/subscriptions/" + found[i].SubscriptionID), "Event": r.SpaceHref("/events/" + found[i].LastEventID),
		}
	}
	return rest.PageOf(r, "SubscriptionDelivery", page, total, found), nil
}
