// Package triggers shows when the schedules of triggers run next. The triggers
// themselves are a declared kind.
package triggers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

const (
	view = string(octopus.PermTriggerView)
	// shown is how many times to come are shown, mostShown the most that can be
	// asked for.
	shown     = 5
	mostShown = 100
)

// schedules are the types of filters that are schedules.
var schedules = []string{ //nolint:gochecknoglobals // a constant list
	string(octopus.FilterOnceDaily), string(octopus.FilterContinuousDaily), string(octopus.FilterDaily),
	string(octopus.FilterDaysPerWeek), string(octopus.FilterDaysPerMonth), string(octopus.FilterCron),
}

// scheduled is a trigger with a schedule, and when it runs next.
type scheduled struct {
	octopus.Trigger
	// NextRunTimes are empty when the trigger is disabled, or never runs again.
	NextRunTimes octopus.List[octopus.Time]
}

// preview is when a schedule would run.
type preview struct {
	NextRunTimes octopus.List[octopus.Time]
}

type api struct {
	db    *db.DB
	store *docstore.Store
}

// Routes are the operations on scheduled triggers.
func Routes(d *db.DB, store *docstore.Store) []rest.Route {
	a := &api{d, store}
	count := rest.Param{Name: "runs", Type: rest.Number, About: "how many times to come are shown; 5 unless said"}
	return []rest.Route{
		{
			Method: http.MethodGet, Pattern: "/scheduledprojecttriggers", Permission: view, Handler: a.list, Response: reflect.TypeFor[octopus.Page[scheduled]](),
			Query: []rest.Param{
				{Name: "skip", Type: rest.Number, About: "how many to leave out"},
				{Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"},
				{Name: "ids", Type: rest.List, About: "only these"},
				count,
			},
			Summary: "Lists the triggers that have a schedule, with when they run next.",
		},
		{
			Method: http.MethodGet, Pattern: "/scheduledprojecttriggers/{id}", Permission: view, Handler: a.get, Response: reflect.TypeFor[scheduled](), Query: []rest.Param{count},
			Summary: "Reads a trigger that has a schedule, with when it runs next.",
		},
		{
			Method: http.MethodPost, Reads: true, Pattern: "/scheduledprojecttriggers/preview", Permission: view, Handler: a.preview, Body: reflect.TypeFor[octopus.TriggerFilter](), Response: reflect.TypeFor[preview](), Query: []rest.Param{count},
			Summary: "Tells when a schedule would run.",
		},
	}
}

// runs is how many times to come are asked for.
func runs(r *rest.Request) (int, error) {
	n, err := r.QueryInt("runs", shown)
	if err == nil && (n < 1 || n > mostShown) {
		err = fault.InvalidField("runs", "runs is %d; use 1 to %d.", n, mostShown)
	}
	return int(n), err
}

func times(f *octopus.TriggerFilter, now time.Time, n int) (octopus.List[octopus.Time], error) {
	table, err := timetable.Of(f)
	if err != nil {
		return nil, err
	}
	out := octopus.List[octopus.Time]{}
	for _, at := range table.Upcoming(now, n) {
		out = append(out, octopus.NewTime(at))
	}
	return out, nil
}

func (a *api) document(r *rest.Request, k *resource.Kind, doc *docstore.Doc, now time.Time, n int) (scheduled, error) {
	var out scheduled
	body, err := a.store.Served(k, doc)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(body, &out.Trigger); err != nil {
		return out, fmt.Errorf("read %s: %w", doc.ID, err)
	}
	if !out.IsDisabled {
		if out.NextRunTimes, err = times(&out.Filter, now, n); err != nil {
			return out, err
		}
	}
	self := r.SpaceHref("/scheduledprojecttriggers/" + out.ID)
	out.Links = octopus.Links{"Self": self, "Trigger": r.SpaceHref("/projecttriggers/" + out.ID), "Project": r.SpaceHref("/projects/" + out.ProjectID)}
	return out, nil
}

func (a *api) list(r *rest.Request) (any, error) {
	n, err := runs(r)
	if err != nil {
		return nil, err
	}
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	q := docstore.Query{Space: r.Space, Visible: r.Grants(view), Where: []docstore.Match{{Path: "Filter.FilterType", Any: schedules}}, Page: page}
	if q.IDs, err = r.QueryList("ids"); err != nil {
		return nil, err
	}
	k, err := a.store.Kind(resources.TriggerKind)
	if err != nil {
		return nil, err
	}
	var items []scheduled
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		items = []scheduled{}
		docs, all, err := a.store.List(r.Context(), tx, k, q)
		if err != nil {
			return err
		}
		total = all
		for _, doc := range docs {
			item, err := a.document(r, k, doc, tx.Now(), n)
			if err != nil {
				return err
			}
			items = append(items, item)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "ScheduledProjectTrigger", page, total, items), nil
}

func (a *api) get(r *rest.Request) (any, error) {
	n, err := runs(r)
	if err != nil {
		return nil, err
	}
	var out scheduled
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		doc, err := r.Find(r.Context(), tx, resources.TriggerKind, r.PathValue("id"))
		if err != nil {
			return err
		}
		k, err := a.store.Kind(resources.TriggerKind)
		if err != nil {
			return err
		}
		var t octopus.Trigger
		if err := json.Unmarshal(doc.Body, &t); err != nil {
			return fmt.Errorf("read %s: %w", doc.ID, err)
		}
		if !timetable.IsSchedule(t.Filter.FilterType) {
			return fault.Missing("scheduled trigger", doc.ID)
		}
		out, err = a.document(r, k, doc, tx.Now(), n)
		return err
	})
	return out, err
}

func (a *api) preview(r *rest.Request) (any, error) {
	n, err := runs(r)
	if err != nil {
		return nil, err
	}
	var f octopus.TriggerFilter
	if err := r.Decode(&f); err != nil {
		return nil, err
	}
	var out preview
	err = a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		out.NextRunTimes, err = times(&f, tx.Now(), n)
		return err
	})
	if err != nil && strings.TrimSpace(string(f.FilterType)) == "" {
		err = fault.InvalidField("FilterType", "FilterType is missing; send the filter of a trigger.")
	}
	return out, err
}
