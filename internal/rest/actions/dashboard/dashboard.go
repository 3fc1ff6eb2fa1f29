// Package dashboard shows what is deployed where.
//
// Every part of a dashboard is one list that is filtered, in SQL, by what the
// caller may see: so a page takes the same few statements whatever it holds. A
// large dashboard is written while it is read, some projects at a time.
package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/rest"
	taskroutes "github.com/takodeploy/tako/internal/rest/actions/tasks"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

const (
	projectView     = string(octopus.PermProjectView)
	environmentView = string(octopus.PermEnvironmentView)
	tenantView      = string(octopus.PermTenantView)
	deploymentView  = string(octopus.PermDeploymentView)

	// shownProjects is how many projects a dashboard shows unless its user says
	// otherwise.
	shownProjects = 200
	// atOnce is how many projects are read together, and at the most shown without
	// writing while reading.
	atOnce = 250
)

type api struct {
	db      *db.DB
	store   *docstore.Store
	service *releases.Service
}

// Routes are the operations on dashboards.
func Routes(d *db.DB, store *docstore.Store, service *releases.Service) []rest.Route {
	a := &api{d, store, service}
	list := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.List, About: about} }
	board, configuration := reflect.TypeFor[octopus.Dashboard](), reflect.TypeFor[octopus.DashboardConfiguration]()
	return []rest.Route{
		{
			Method: http.MethodGet, Pattern: "/dashboard", Permission: projectView, Handler: a.dashboard, Response: board,
			Query: []rest.Param{
				{Name: "projectId", Type: rest.Text, About: "only this project"},
				{Name: "releaseId", Type: rest.Text, About: "only where this release was deployed last"},
				list("selectedTenants", "only these tenants"), list("selectedTags", "only tenants with one of these tags"),
				{Name: "showAll", Type: rest.Boolean, About: "all projects, whatever the configuration says"},
				{Name: "highestLatestVersionPerProjectAndEnvironment", Type: rest.Boolean, About: "of several tenants at one place only the one with the newest deployment"},
				{Name: "skip", Type: rest.Number, About: "how many projects to leave out"},
				{Name: "take", Type: rest.Number, About: "how many projects to show"},
			},
			Summary: "Shows what is deployed where, as the user's configuration says.",
		},
		{
			Method: http.MethodGet, Pattern: "/dashboard/dynamic", Permission: projectView, Handler: a.dynamic, Response: board,
			Query: []rest.Param{
				list("projects", "only these projects"), list("environments", "only these environments"),
				{Name: "includePrevious", Type: rest.Boolean, About: "with the last success, where something was deployed since"},
			},
			Summary: "Shows what is deployed where, for some projects and environments.",
		},
		{Method: http.MethodGet, Pattern: "/dashboardconfiguration", Permission: projectView, Handler: a.configuration, Response: configuration, Summary: "Reads what the user wants to see on the dashboard."},
		{Method: http.MethodPut, Pattern: "/dashboardconfiguration", Permission: projectView, Handler: a.configure, Body: configuration, Response: configuration, Summary: "Says what the user wants to see on the dashboard."},
	}
}

// wish is which part of everything a dashboard shows.
type wish struct {
	octopus.DashboardConfiguration
	release    string
	page       ident.Page // of projects
	limited    bool       // the page may leave projects out
	previous   bool
	newestOnly bool
}

func (a *api) dashboard(r *rest.Request) (any, error) {
	var w wish
	showAll, err := r.QueryBool("showAll", false)
	if err != nil {
		return nil, err
	}
	if w.newestOnly, err = r.QueryBool("highestLatestVersionPerProjectAndEnvironment", false); err != nil {
		return nil, err
	}
	skip, err := r.QueryInt("skip", 0)
	if err != nil {
		return nil, err
	}
	take, err := r.QueryInt("take", 0)
	if err != nil {
		return nil, err
	}
	if !showAll {
		err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
			w.DashboardConfiguration, err = read(r.Context(), tx, r)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	tenants, err := r.QueryList("selectedTenants")
	if err != nil {
		return nil, err
	}
	tags, err := r.QueryList("selectedTags")
	if err != nil {
		return nil, err
	}
	if len(tenants)+len(tags) > 0 {
		w.IncludedTenantIDs, w.IncludedTenantTags = tenants, tags
	}
	if id := r.Query("projectId"); id != "" {
		w.IncludedProjectIDs, w.IncludedProjectGroupIDs, w.IncludedProjectTags = octopus.List[string]{id}, nil, nil
	}
	w.release, w.previous = r.Query("releaseId"), true
	switch {
	case take > 0:
		w.page, w.limited = ident.Page{Skip: skip, Take: min(take, ident.MaxTake)}, true
	case showAll:
		w.page = ident.Page{Skip: skip, Take: ident.MaxTake}
	case w.ProjectLimit != nil && *w.ProjectLimit > 0:
		w.page, w.limited = ident.Page{Skip: skip, Take: int64(*w.ProjectLimit)}, true
	default:
		w.page, w.limited = ident.Page{Skip: skip, Take: shownProjects}, true
	}
	return a.show(r, &w)
}

func (a *api) dynamic(r *rest.Request) (any, error) {
	w := wish{page: ident.Page{Take: ident.MaxTake}}
	projects, err := r.QueryList("projects")
	if err != nil {
		return nil, err
	}
	environments, err := r.QueryList("environments")
	if err != nil {
		return nil, err
	}
	w.IncludedProjectIDs, w.IncludedEnvironmentIDs = projects, environments
	if w.previous, err = r.QueryBool("includePrevious", false); err != nil {
		return nil, err
	}
	return a.show(r, &w)
}

// board is a dashboard in the making.
type board struct {
	a   *api
	r   *rest.Request
	w   *wish
	out octopus.Dashboard
	// projects are the ids of those shown; environments and tenants restrict the
	// deployments, nil does not.
	projects, environments, tenants []string
}

func (a *api) show(r *rest.Request, w *wish) (any, error) {
	b := &board{a: a, r: r, w: w}
	if err := a.db.Read(r.Context(), func(tx *db.Tx) error { return b.frame(r.Context(), tx) }); err != nil {
		return nil, err
	}
	if len(b.projects) > atOnce {
		return b.stream()
	}
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		if b.out.Items, err = b.items(r.Context(), tx, b.projects, false); err != nil || !w.previous {
			return err
		}
		b.out.PreviousItems, err = b.items(r.Context(), tx, b.projects, true)
		return err
	})
	return b.out, err
}

// list decodes the documents of a kind that the caller may see, and counts them:
// those of the query's page, or all behind its Skip if it asks for more than a page can hold.
func list[T any](ctx context.Context, tx *db.Tx, b *board, kind, permission string, q docstore.Query) ([]T, int64, error) {
	q.Space = b.r.Space
	if permission != "" {
		q.Visible = b.r.Grants(permission)
	}
	if q.Page.Take == 0 || q.Page.Take >= ident.MaxTake {
		out, err := docstore.All[T](ctx, b.a.store, tx, kind, q)
		total := int64(len(out))
		return out[max(0, min(q.Page.Skip, total)):], total, err
	}
	k, err := b.a.store.Kind(kind)
	if err != nil {
		return nil, 0, err
	}
	docs, total, err := b.a.store.List(ctx, tx, k, q)
	if err != nil {
		return nil, 0, err
	}
	out := make([]T, len(docs))
	for i, doc := range docs {
		v, err := docstore.Decode[T](doc)
		if err != nil {
			return nil, 0, err
		}
		out[i] = *v
	}
	return out, total, nil
}

// project and channel are what a dashboard needs of them: of all projects, the whole
// documents would be a lot.
type project struct {
	ID, Name, Slug         string
	IsDisabled             bool
	ProjectGroupID         string
	LifecycleID            string
	TenantedDeploymentMode octopus.TenantedDeploymentMode
}

type channel struct{ ProjectID, LifecycleID string }

// chosen is nil for no choice, which does not restrict.
func chosen(ids []string) []string {
	if len(ids) == 0 {
		return nil
	}
	return ids
}

// frame reads everything of a dashboard but its deployments.
func (b *board) frame(ctx context.Context, tx *db.Tx) error {
	b.out = octopus.Dashboard{Resource: octopus.Resource{Links: octopus.Links{"Self": b.r.SpaceHref("/dashboard")}}}
	q := docstore.Query{IDs: chosen(b.w.IncludedProjectIDs), Page: b.w.page}
	if len(b.w.IncludedProjectGroupIDs) > 0 {
		q.Where = append(q.Where, docstore.Match{Path: "ProjectGroupId", Any: b.w.IncludedProjectGroupIDs})
	}
	projects, total, err := list[project](ctx, tx, b, "projects", projectView, q)
	if err != nil {
		return err
	}
	if b.w.limited {
		limit := int(b.w.page.Take)
		b.out.ProjectLimit, b.out.IsFiltered = &limit, total > b.w.page.Take
	}
	environments, _, err := list[octopus.Environment](ctx, tx, b, "environments", environmentView, docstore.Query{IDs: chosen(b.w.IncludedEnvironmentIDs)})
	if err != nil {
		return err
	}
	for _, e := range environments {
		b.out.Environments = append(b.out.Environments, octopus.Named{ID: e.ID, Name: e.Name})
	}
	b.environments = []string{}
	for _, e := range environments {
		b.environments = append(b.environments, e.ID)
	}
	groups, _, err := list[octopus.ProjectGroup](ctx, tx, b, "projectgroups", string(octopus.PermProjectGroupView), docstore.Query{})
	if err != nil {
		return err
	}
	if err := b.frameTenants(ctx, tx, projects); err != nil {
		return err
	}
	places, err := b.places(ctx, tx, projects, environments)
	if err != nil {
		return err
	}
	ofGroup := map[string][]string{}
	for i := range projects {
		p := &projects[i]
		b.projects = append(b.projects, p.ID)
		b.out.Projects = append(b.out.Projects, octopus.DashboardProject{
			ID: p.ID, Name: p.Name, Slug: p.Slug, IsDisabled: p.IsDisabled, ProjectGroupID: p.ProjectGroupID, EnvironmentIDs: places[p.ID],
			TenantedDeploymentMode: p.TenantedDeploymentMode, CanPerformUntenantedDeployment: p.TenantedDeploymentMode != octopus.Tenanted,
			Links: octopus.Links{"Self": b.r.SpaceHref("/projects/" + p.ID)},
		})
		for _, id := range places[p.ID] {
			if !slices.Contains(ofGroup[p.ProjectGroupID], id) {
				ofGroup[p.ProjectGroupID] = append(ofGroup[p.ProjectGroupID], id)
			}
		}
	}
	for _, g := range groups {
		if slices.ContainsFunc(projects, func(p project) bool { return p.ProjectGroupID == g.ID }) {
			b.out.ProjectGroups = append(b.out.ProjectGroups, octopus.DashboardGroup{ID: g.ID, Name: g.Name, EnvironmentIDs: ofGroup[g.ID], Links: octopus.Links{"Self": b.r.SpaceHref("/projectgroups/" + g.ID)}})
		}
	}
	return nil
}

// frameTenants reads the tenants, each with its connections between the projects and
// the environments of the dashboard: of others the caller may know nothing.
func (b *board) frameTenants(ctx context.Context, tx *db.Tx, projects []project) error {
	shown := make(map[string]bool, len(projects)+len(b.environments))
	for i := range projects {
		shown[projects[i].ID] = true
	}
	for _, id := range b.environments {
		shown[id] = true
	}
	tenants, _, err := list[octopus.Tenant](ctx, tx, b, "tenants", tenantView, docstore.Query{IDs: chosen(b.w.IncludedTenantIDs)})
	if err != nil {
		return err
	}
	restricted := len(b.w.IncludedTenantIDs)+len(b.w.IncludedTenantTags) > 0
	if restricted {
		b.tenants = []string{}
	}
	for _, t := range tenants {
		tagged := len(b.w.IncludedTenantTags) == 0 || slices.ContainsFunc(t.TenantTags, func(has string) bool {
			return slices.ContainsFunc(b.w.IncludedTenantTags, func(tag string) bool { return strings.EqualFold(tag, has) })
		})
		if !tagged {
			continue
		}
		if restricted {
			b.tenants = append(b.tenants, t.ID)
		}
		one := octopus.DashboardTenant{ID: t.ID, Name: t.Name, TenantTags: t.TenantTags, ProjectEnvironments: octopus.Map[string, octopus.List[string]]{}, Links: octopus.Links{"Self": b.r.SpaceHref("/tenants/" + t.ID)}}
		for project, environments := range t.ProjectEnvironments {
			if shown[project] {
				one.ProjectEnvironments[project] = slices.DeleteFunc(environments, func(id string) bool { return !shown[id] })
			}
		}
		b.out.Tenants = append(b.out.Tenants, one)
	}
	return nil
}

// places are the environments of the lifecycles of projects, as far as the caller
// sees them, by project.
func (b *board) places(ctx context.Context, tx *db.Tx, projects []project, environments []octopus.Environment) (map[string][]string, error) {
	all, _, err := list[octopus.Lifecycle](ctx, tx, b, "lifecycles", "", docstore.Query{})
	if err != nil {
		return nil, err
	}
	reached := map[string][]string{}
	for i := range all {
		for _, e := range releases.Reached(&all[i], environments) {
			reached[all[i].ID] = append(reached[all[i].ID], e.ID)
		}
	}
	out := map[string][]string{}
	add := func(project, lifecycle string) {
		for _, id := range reached[lifecycle] {
			if !slices.Contains(out[project], id) {
				out[project] = append(out[project], id)
			}
		}
	}
	ids := make([]string, len(projects))
	for i, p := range projects {
		ids[i] = p.ID
		add(p.ID, p.LifecycleID)
	}
	for some := range slices.Chunk(ids, atOnce) {
		channels, _, err := list[channel](ctx, tx, b, "channels", "", docstore.Query{Where: []docstore.Match{{Path: "ProjectId", Any: some}}})
		if err != nil {
			return nil, err
		}
		for _, c := range channels {
			if c.LifecycleID != "" {
				add(c.ProjectID, c.LifecycleID)
			}
		}
	}
	return out, nil
}

// items are the deployments of some projects.
func (b *board) items(ctx context.Context, tx *db.Tx, projects []string, previous bool) ([]octopus.DashboardItem, error) {
	found, err := b.a.service.Latest(ctx, tx, releases.LatestQuery{
		Space: b.r.Space, Projects: projects, Environments: b.environments, Tenants: b.tenants, Release: b.w.release, Previous: previous, Visible: b.r.Grants(deploymentView),
	})
	if err != nil {
		return nil, err
	}
	if b.w.newestOnly {
		found = newest(found)
	}
	var open []string
	for _, l := range found {
		if !l.State.Completed() {
			open = append(open, l.TaskID)
		}
	}
	pending, err := tasks.Pending(ctx, tx, open)
	if err != nil {
		return nil, err
	}
	out := make([]octopus.DashboardItem, len(found))
	for i := range found {
		out[i] = b.item(&found[i], pending[found[i].TaskID], tx.Now(), previous)
	}
	return out, nil
}

// newest keeps one deployment of each project and environment.
func newest(found []releases.Latest) (out []releases.Latest) {
	for _, l := range found {
		if n := len(out); n > 0 && out[n-1].ProjectID == l.ProjectID && out[n-1].EnvironmentID == l.EnvironmentID {
			if l.Created.After(out[n-1].Created) {
				out[n-1] = l
			}
			continue
		}
		out = append(out, l)
	}
	return out
}

func (b *board) item(l *releases.Latest, pending []octopus.InterruptionType, now time.Time, previous bool) octopus.DashboardItem {
	item := octopus.DashboardItem{
		ID: l.DeploymentID, ProjectID: l.ProjectID, EnvironmentID: l.EnvironmentID, DeploymentEnvironmentID: l.EnvironmentID, ReleaseID: l.ReleaseID,
		DeploymentID: l.DeploymentID, TaskID: l.TaskID, TenantID: octopus.NullString(l.TenantID), ChannelID: l.ChannelID, ReleaseVersion: l.Version,
		Created: octopus.NewTime(l.Created), QueueTime: octopus.NewTime(l.Created), StartTime: octopus.OptionalTime(l.Started), CompletedTime: octopus.OptionalTime(l.Completed),
		State: l.State, HasPendingInterruptions: len(pending) > 0, PendingInterruptionTypes: pending, HasWarningsOrErrors: l.HasWarnings || l.State == octopus.TaskFailed,
		ErrorMessage: l.Error, IsCurrent: !previous, IsPrevious: previous, IsCompleted: l.State.Completed(),
		Links: octopus.Links{
			"Self": b.r.SpaceHref("/deployments/" + l.DeploymentID), "Release": b.r.SpaceHref("/releases/" + l.ReleaseID), "Task": b.r.SpaceHref("/tasks/" + l.TaskID),
		},
	}
	if !l.QueueTime.IsZero() {
		item.QueueTime = octopus.NewTime(l.QueueTime)
	}
	if !l.Started.IsZero() {
		end := l.Completed
		if end.IsZero() {
			end = now
		}
		item.Duration = taskroutes.Duration(end.Sub(l.Started))
	}
	return item
}

// read reads what the caller wants to see; the defaults hold until they have said.
func read(ctx context.Context, tx *db.Tx, r *rest.Request) (c octopus.DashboardConfiguration, err error) {
	rows, err := tx.Query(ctx, `SELECT c.body FROM dashboard_configuration c WHERE c.user_id = ? AND c.space_id = ?`, r.Principal.Actor().UserID, string(r.Space))
	if err != nil {
		return c, fmt.Errorf("read the configuration of a dashboard: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var body string
		if err := rows.Scan(&body); err != nil {
			return c, err
		}
		if err := json.Unmarshal([]byte(body), &c); err != nil {
			return c, fmt.Errorf("read the configuration of a dashboard: %w", err)
		}
	}
	return c, rows.Err()
}

func answer(r *rest.Request, c octopus.DashboardConfiguration) octopus.DashboardConfiguration {
	c.ID, c.SpaceID = "DashboardConfiguration-"+r.Principal.Actor().UserID, string(r.Space)
	c.Links = octopus.Links{"Self": r.SpaceHref("/dashboardconfiguration")}
	return c
}

func (a *api) configuration(r *rest.Request) (any, error) {
	var c octopus.DashboardConfiguration
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		c, err = read(r.Context(), tx, r)
		return err
	})
	return answer(r, c), err
}

// maxIncluded bounds each list of a configuration.
const maxIncluded = 1000

func (a *api) configure(r *rest.Request) (any, error) {
	var c octopus.DashboardConfiguration
	if err := r.Decode(&c); err != nil {
		return nil, err
	}
	for name, ids := range map[string]octopus.List[string]{
		"IncludedProjectGroupIds": c.IncludedProjectGroupIDs, "IncludedProjectIds": c.IncludedProjectIDs, "IncludedProjectTags": c.IncludedProjectTags,
		"IncludedEnvironmentIds": c.IncludedEnvironmentIDs, "IncludedEnvironmentTags": c.IncludedEnvironmentTags, "IncludedTenantIds": c.IncludedTenantIDs, "IncludedTenantTags": c.IncludedTenantTags,
	} {
		if len(ids) > maxIncluded {
			return nil, fault.InvalidField(name, "%s has %d entries; use at most %d.", name, len(ids), maxIncluded)
		}
	}
	if len(c.IncludedProjectTags)+len(c.IncludedEnvironmentTags) > 0 {
		return nil, fault.New(fault.Unsupported, "This server cannot choose what a dashboard shows by the tags of projects and environments; name projects, groups and environments instead.")
	}
	if c.ProjectLimit != nil && *c.ProjectLimit < 0 {
		return nil, fault.InvalidField("ProjectLimit", "ProjectLimit is %d; use null for no limit of your own, or a positive number.", *c.ProjectLimit)
	}
	c.Resource = octopus.Resource{}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of a dashboard: %w", err)
	}
	err = a.db.Write(r.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(r.Context(), `INSERT INTO dashboard_configuration (user_id, space_id, body) VALUES (?, ?, ?) ON CONFLICT (user_id, space_id) DO UPDATE SET body = excluded.body`,
			r.Principal.Actor().UserID, string(r.Space), string(body))
		return err
	})
	return answer(r, c), err
}
