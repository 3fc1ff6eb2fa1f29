package projects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// placeRoutes are about environments, worker pools and what is in them.
func (a *api) placeRoutes() []rest.Route {
	texts := reflect.TypeFor[[]string]()
	list := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.List, About: about} }
	filters := func(hide string, more ...rest.Param) []rest.Param {
		return append([]rest.Param{
			list("ids", "only these"),
			{Name: "partialName", Type: rest.Text, About: "only those with this in their name"},
			{Name: "machinePartialName", Type: rest.Text, About: "of machines with this in their name"},
			list("isDisabled", "of machines that are, or are not"), list("healthStatuses", "of machines in one of these states"), list("commStyles", "of machines that are reached so"), list("shellNames", "of machines with one of these shells"),
			{Name: hide, Type: rest.Boolean, About: "without those that have no machine"},
		}, more...)
	}
	get := func(pattern, permission string, h rest.Handler, response reflect.Type, summary string, query ...rest.Param) rest.Route {
		return rest.Route{Method: http.MethodGet, Pattern: pattern, Permission: permission, Handler: h, Response: response, Query: query, Summary: summary}
	}
	put := func(pattern, permission, kind string, response reflect.Type) rest.Route {
		return rest.Route{Method: http.MethodPut, Pattern: pattern, Permission: permission, Handler: a.sortOrder(kind, permission), Body: texts, Response: response, Summary: "Puts them into the order of a list of all their ids."}
	}
	return []rest.Route{
		put("/environments/sortorder", environmentEdit, "environments", reflect.TypeFor[[]octopus.Environment]()),
		get("/environments/summary", environmentView, a.environments, reflect.TypeFor[octopus.EnvironmentsSummary](), "Counts the targets of environments.", filters("hideEmptyEnvironments",
			list("roles", "of targets with one of these tags"), list("tenantIds", "of targets of these tenants"), list("tenantTags", "of targets with one of these tenant tags"))...),
		get("/environments/v2", environmentView, a.environmentsV2, reflect.TypeFor[octopus.Page[octopus.EnvironmentV2]](), "Lists environments with their type.",
			rest.Param{Name: "skip", Type: rest.Number, About: "how many to leave out"}, rest.Param{Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"},
			list("ids", "only these"), rest.Param{Name: "name", Type: rest.Text, About: "only the one with this name"}, rest.Param{Name: "partialName", Type: rest.Text, About: "only those with this in their name"}, list("type", "only of these types: Static, Parent, Ephemeral")),
		put("/tagsets/sortorder", tagSetEdit, "tagsets", reflect.TypeFor[[]octopus.TagSet]()),
		put("/workerpools/sortorder", workerEdit, "workerpools", reflect.TypeFor[[]octopus.WorkerPool]()),
		get("/workerpools/summary", workerView, a.pools, reflect.TypeFor[octopus.WorkerPoolsSummary](), "Counts the workers of pools.", filters("hideEmptyWorkerPools")...),
		get("/workerpools/dynamicworkertypes", workerView, a.workerTypes, reflect.TypeFor[workerTypes](), "Lists the types of workers that are made on demand; there are none."),
		get("/workerpools/supportedtypes", workerView, a.poolTypes, reflect.TypeFor[poolTypes](), "Lists the types of pools that can be made."),
		get("/machineroles/all", machineView, a.roles, texts, "Lists the target tags that targets have, as a bare array."),
		get("/machines/operatingsystem/names/all", machineView, a.distinct("machines", machineView, func(m *octopus.MachineBase) string { return m.OperatingSystem }), texts, "Lists the operating systems of targets."),
		get("/machines/operatingsystem/shells/all", machineView, a.distinct("machines", machineView, func(m *octopus.MachineBase) string { return m.ShellName }), texts, "Lists the shells of targets."),
		get("/workers/operatingsystem/names/all", workerView, a.distinct("workers", workerView, func(m *octopus.MachineBase) string { return m.OperatingSystem }), texts, "Lists the operating systems of workers."),
		get("/workers/operatingsystem/shells/all", workerView, a.distinct("workers", workerView, func(m *octopus.MachineBase) string { return m.ShellName }), texts, "Lists the shells of workers."),
	}
}

// sortOrder puts the documents of a kind into the order of the ids in the body,
// which has to have all of them: it takes the permissions without a limit, for the
// place of one is that of all others too.
func (a *api) sortOrder(kind, edit string) rest.Handler {
	return func(r *rest.Request) (any, error) {
		var ids []string
		if err := r.Decode(&ids); err != nil {
			return nil, err
		}
		k, err := a.store.Kind(kind)
		if err != nil {
			return nil, err
		}
		for _, permission := range []string{k.Permissions.View, edit} {
			if permission == "" {
				continue
			}
			if err := r.Allow(permission, rest.Target{}); err != nil {
				return nil, err
			}
		}
		var items []json.RawMessage
		err = a.db.Write(r.Context(), func(tx *db.Tx) error {
			ctx := r.Context()
			docs := map[string]*docstore.Doc{}
			err := a.store.Each(ctx, tx, kind, docstore.Query{Space: r.Space}, func(doc *docstore.Doc) error {
				docs[doc.ID] = doc
				return nil
			})
			if err != nil {
				return err
			}
			items = make([]json.RawMessage, 0, len(ids))
			for i, id := range ids {
				id = docstore.CanonicalID(k, id)
				doc := docs[id]
				if doc == nil {
					return fault.New(fault.Invalid, "The list names '%.100s', which is none of the %s, or names it twice; give each id once.", id, kind)
				}
				delete(docs, id)
				if doc, err = a.place(ctx, tx, r, kind, edit, doc, i); err != nil {
					return err
				}
				item, err := r.Render(kind, doc)
				if err != nil {
					return err
				}
				items = append(items, item)
			}
			if len(docs) > 0 {
				return fault.New(fault.Invalid, "The list leaves out %d of the %s; give the ids of all.", len(docs), kind)
			}
			return nil
		})
		return items, err
	}
}

// place gives a document its place in the order, if it has another.
func (a *api) place(ctx context.Context, tx *db.Tx, r *rest.Request, kind, edit string, doc *docstore.Doc, at int) (*docstore.Doc, error) {
	k, err := a.store.Kind(kind)
	if err != nil {
		return nil, err
	}
	tree, err := a.store.Tree(k, doc)
	if err != nil {
		return nil, err
	}
	if fmt.Sprint(tree["SortOrder"]) == fmt.Sprint(at) {
		return doc, nil
	}
	if err := r.Must(ctx, tx, kind, doc, edit); err != nil {
		return nil, err
	}
	tree["SortOrder"] = at
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", doc.ID, err)
	}
	return a.store.Replace(ctx, tx, k, doc.Space, doc.ID, docstore.Input{Body: body, Server: true})
}

// environmentsV2 lists environments with what newer clients want to know beside.
func (a *api) environmentsV2(r *rest.Request) (any, error) {
	types, err := r.QueryList("type")
	if err != nil {
		return nil, err
	}
	if len(types) > 0 && !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, string(octopus.EnvironmentStatic)) }) {
		p, err := r.Page()
		return rest.PageOf[octopus.EnvironmentV2](r, "Environment", p, 0, nil), err
	}
	answer, err := r.List("environments")
	if err != nil {
		return nil, err
	}
	page, ok := answer.(octopus.Page[json.RawMessage])
	if !ok {
		return nil, fmt.Errorf("the list of environments is a %T", answer)
	}
	for i, item := range page.Items {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(item, &members); err != nil {
			return nil, fmt.Errorf("read environment: %w", err)
		}
		members["Type"], members["ParentEnvironmentId"] = json.RawMessage(`"Static"`), json.RawMessage("null")
		if page.Items[i], err = json.Marshal(members); err != nil {
			return nil, fmt.Errorf("encode environment: %w", err)
		}
	}
	return page, nil
}

// machine is what the summaries read of a target or a worker.
type machine struct {
	octopus.MachineBase
	EnvironmentIDs []string `json:"EnvironmentIds"`
	WorkerPoolIDs  []string `json:"WorkerPoolIds"`
	Roles          []string
	TenantIDs      []string `json:"TenantIds"`
	TenantTags     []string
}

func newCounts() octopus.MachineCounts {
	return octopus.MachineCounts{
		MachineHealthStatusSummaries: octopus.Map[string, int]{}, MachineEndpointSummaries: octopus.Map[string, int]{},
		MachineTenantSummaries: octopus.Map[string, int]{}, MachineTenantTagSummaries: octopus.Map[string, int]{},
	}
}

func count(c *octopus.MachineCounts, m *machine) {
	c.TotalMachines++
	if m.IsDisabled {
		c.TotalDisabledMachines++
	}
	c.MachineHealthStatusSummaries[string(m.HealthStatus)]++
	c.MachineEndpointSummaries[string(m.Endpoint.CommunicationStyle)]++
	for _, id := range m.TenantIDs {
		c.MachineTenantSummaries[id]++
	}
	for _, tag := range m.TenantTags {
		c.MachineTenantTagSummaries[tag]++
	}
}

// tally counts the machines of a kind, in all and by where they are. It reads
// them once, however many places there are.
func (a *api) tally(ctx context.Context, tx *db.Tx, r *rest.Request, kind, permission string, places func(*machine) []string) (all octopus.MachineCounts, by map[string]*octopus.MachineCounts, err error) {
	k, err := a.store.Kind(kind)
	if err != nil {
		return all, nil, err
	}
	q := docstore.Query{Space: r.Space, Visible: r.Grants(permission), PartialName: r.Query("machinePartialName")}
	for _, f := range k.Filters {
		if f.Param == "thumbprint" || f.Param == "environmentIds" || f.Param == "workerPoolIds" {
			continue
		}
		wanted, err := r.QueryList(f.Param)
		if err != nil {
			return all, nil, err
		}
		if len(wanted) > 0 {
			q.Where = append(q.Where, docstore.Match{Path: f.Path, Any: wanted})
		}
	}
	all, by = newCounts(), map[string]*octopus.MachineCounts{}
	err = a.store.Each(ctx, tx, kind, q, func(doc *docstore.Doc) error {
		m, err := docstore.Decode[machine](doc)
		if err != nil {
			return err
		}
		count(&all, m)
		for _, id := range places(m) {
			if by[id] == nil {
				c := newCounts()
				by[id] = &c
			}
			count(by[id], m)
		}
		return nil
	})
	return all, by, err
}

// summarize reads the places of a summary with the counts of each.
func summarize[T any](a *api, r *rest.Request, kind, view, machines, seen, hide string, places func(*machine) []string, add func(one T, c octopus.MachineCounts)) (all octopus.MachineCounts, err error) {
	hidden, errHide := r.QueryBool(hide, false)
	q := docstore.Query{Space: r.Space, Visible: r.Grants(view), PartialName: r.Query("partialName")}
	if r.HasQuery("ids") {
		q.IDs, err = r.QueryList("ids")
	}
	if err := errors.Join(errHide, err); err != nil {
		return all, err
	}
	type row struct {
		one T
		c   octopus.MachineCounts
	}
	var rows []row
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		rows = nil
		var by map[string]*octopus.MachineCounts
		if all, by, err = a.tally(r.Context(), tx, r, machines, seen, places); err != nil {
			return err
		}
		return a.store.Each(r.Context(), tx, kind, q, func(doc *docstore.Doc) error {
			c := newCounts()
			if by[doc.ID] != nil {
				c = *by[doc.ID]
			}
			if hidden && c.TotalMachines == 0 {
				return nil
			}
			body, err := r.Render(kind, doc)
			if err != nil {
				return err
			}
			next := row{c: c}
			if err := json.Unmarshal(body, &next.one); err != nil {
				return err
			}
			rows = append(rows, next)
			return nil
		})
	})
	for _, row := range rows {
		add(row.one, row.c)
	}
	return all, err
}

func (a *api) environments(r *rest.Request) (any, error) {
	out := octopus.EnvironmentsSummary{Links: octopus.Links{"Self": r.SpaceHref("/environments/summary")}}
	all, err := summarize(a, r, "environments", environmentView, "machines", machineView, "hideEmptyEnvironments",
		func(m *machine) []string { return m.EnvironmentIDs },
		func(e octopus.Environment, c octopus.MachineCounts) {
			out.EnvironmentSummaries = append(out.EnvironmentSummaries, octopus.EnvironmentSummary{Environment: e, MachineCounts: c})
		})
	out.MachineCounts = all
	return out, err
}

func (a *api) pools(r *rest.Request) (any, error) {
	out := octopus.WorkerPoolsSummary{Links: octopus.Links{"Self": r.SpaceHref("/workerpools/summary")}}
	all, err := summarize(a, r, "workerpools", workerView, "workers", workerView, "hideEmptyWorkerPools",
		func(m *machine) []string { return m.WorkerPoolIDs },
		func(p octopus.WorkerPool, c octopus.MachineCounts) {
			out.WorkerPoolSummaries = append(out.WorkerPoolSummaries, octopus.WorkerPoolSummary{WorkerPool: p, MachineCounts: c})
		})
	out.MachineCounts = all
	return out, err
}

// workerTypes are the images of workers that are made on demand.
type workerTypes struct {
	ID          string `json:"Id"`
	WorkerTypes octopus.List[string]
	Links       octopus.Links
}

func (a *api) workerTypes(r *rest.Request) (any, error) {
	return workerTypes{ID: "dynamicworkertypes", Links: octopus.Links{"Self": r.SpaceHref("/workerpools/dynamicworkertypes")}}, nil
}

// poolTypes are the types of pools.
type poolTypes struct {
	ID                 string `json:"Id"`
	SupportedPoolTypes octopus.List[octopus.WorkerPoolType]
	Links              octopus.Links
}

func (a *api) poolTypes(r *rest.Request) (any, error) {
	return poolTypes{
		ID: "supportedtypes", SupportedPoolTypes: octopus.List[octopus.WorkerPoolType]{octopus.PoolStatic},
		Links: octopus.Links{"Self": r.SpaceHref("/workerpools/supportedtypes")},
	}, nil
}

func (a *api) roles(r *rest.Request) (any, error) {
	roles := roleSet{}
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		return a.store.Each(r.Context(), tx, "machines", docstore.Query{Space: r.Space, Visible: r.Grants(machineView)}, func(doc *docstore.Doc) error {
			m, err := docstore.Decode[struct{ Roles []string }](doc)
			if err == nil {
				roles.add(m.Roles...)
			}
			return err
		})
	})
	return roles.names(), err
}

// distinct lists what the machines of a kind have there, each once.
func (a *api) distinct(kind, permission string, of func(*octopus.MachineBase) string) rest.Handler {
	return func(r *rest.Request) (any, error) {
		found := roleSet{}
		err := a.db.Read(r.Context(), func(tx *db.Tx) error {
			return a.store.Each(r.Context(), tx, kind, docstore.Query{Space: r.Space, Visible: r.Grants(permission)}, func(doc *docstore.Doc) error {
				m, err := docstore.Decode[octopus.MachineBase](doc)
				if err == nil {
					found.add(of(m))
				}
				return err
			})
		})
		return found.names(), err
	}
}
