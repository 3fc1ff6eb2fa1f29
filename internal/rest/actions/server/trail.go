package server

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// eventRoutes are the audit trail: of a space, or of all that the caller may see.
func (a *api) eventRoutes() []rest.Route {
	list := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.List, About: about} }
	filters := paged(
		list("ids", "only these"),
		rest.Param{Name: "from", Type: rest.Moment, About: "not before"}, rest.Param{Name: "to", Type: rest.Moment, About: "not after"},
		rest.Param{Name: "fromAutoId", Type: rest.Number, About: "from this number on; who follows the trail by number misses nothing"},
		rest.Param{Name: "toAutoId", Type: rest.Number, About: "up to this number"},
		list("regarding", "about all of these documents"), list("regardingAny", "about any of these documents"),
		list("projects", "of these projects"), list("projectGroups", "of these project groups"), list("environments", "of these environments"), list("tenants", "of these tenants"),
		list("users", "by these users"), list("user", "by this user"),
		list("eventCategories", "of these categories"), list("eventGroups", "of these groups of categories"), list("eventAgents", "by these programs"), list("documentTypes", "about documents of these types"),
		list("spaces", "of these spaces"),
		rest.Param{Name: "includeSystem", Type: rest.Boolean, About: "with those outside of spaces; true unless a space is in the path"},
		rest.Param{Name: "excludeDifference", Type: rest.Boolean, About: "without what exactly was changed"},
		rest.Param{Name: "asCsv", Type: rest.Boolean, About: "all of them as a table"},
	)
	applies := []rest.Param{{Name: "appliesTo", Type: rest.Text, About: "only of this kind of thing, such as Machine"}}
	routes := []rest.Route{
		{Method: http.MethodGet, Pattern: "/events", Permission: eventView, Handler: a.events, Response: reflect.TypeFor[octopus.Page[octopus.Event]](), Query: filters, Summary: "Lists what was done, the newest first."},
		{Method: http.MethodGet, Pattern: "/events/{id}", Permission: eventView, Handler: a.event, Response: reflect.TypeFor[octopus.Event](), Summary: "Reads an event."},
		{Method: http.MethodGet, Pattern: "/events/categories", Permission: rest.SignedIn, Handler: a.categories, Response: reflect.TypeFor[[]octopus.EventCategoryInfo](), Query: applies, Summary: "Lists the categories of events."},
		{Method: http.MethodGet, Pattern: "/events/groups", Permission: rest.SignedIn, Handler: a.groups, Response: reflect.TypeFor[[]octopus.EventGroup](), Query: applies, Summary: "Lists the groups of categories of events."},
		{Method: http.MethodGet, Pattern: "/events/agents", Permission: rest.SignedIn, Handler: a.agents, Response: reflect.TypeFor[[]octopus.EventAgent](), Summary: "Lists the programs that events are told apart by."},
		{Method: http.MethodGet, Pattern: "/events/documenttypes", Permission: rest.SignedIn, Handler: a.documentTypes, Response: reflect.TypeFor[[]octopus.EventDocumentType](), Summary: "Lists the types of documents that events are about."},
	}
	for i := range routes {
		routes[i].Mount = rest.InEither
	}
	return routes
}

// places are where the caller asks to look and may.
func places(r *rest.Request) ([]events.Place, error) {
	only, errOnly := r.QueryList("spaces")
	system, errSystem := r.QueryBool("includeSystem", r.Space == "")
	held, errHeld := r.Spaces(eventView)
	if err := errors.Join(errOnly, errSystem, errHeld); err != nil {
		return nil, err
	}
	if len(only) == 1 && strings.EqualFold(only[0], "all") {
		only = nil
	}
	all := []events.Place{}
	for _, space := range held {
		asked := r.Space == "" || space == r.Space
		asked = asked && (len(only) == 0 || slices.ContainsFunc(only, func(id string) bool { return strings.EqualFold(id, string(space)) }))
		if space == "" {
			asked = system
		}
		if asked {
			all = append(all, events.Place{Space: space, Grants: r.GrantsIn(space, eventView)})
		}
	}
	return all, nil
}

// query reads the filters of a list.
func (a *api) query(r *rest.Request) (q events.Query, err error) {
	var errs []error
	keep := func(err error) { errs = append(errs, err) }
	q.Places, err = places(r)
	keep(err)
	q.Shows = a.shows(r)
	q.Page, err = r.Page()
	keep(err)
	q.From, err = r.QueryTime("from")
	keep(err)
	q.To, err = r.QueryTime("to")
	keep(err)
	q.FromID, err = r.QueryInt("fromAutoId", 0)
	keep(err)
	q.ToID, err = r.QueryInt("toAutoId", 0)
	keep(err)
	q.NoDifference, err = r.QueryBool("excludeDifference", false)
	keep(err)
	var user []string
	for _, list := range []struct {
		name string
		to   *[]string
	}{
		{"ids", &q.IDs},
		{"regarding", &q.Regarding},
		{"regardingAny", &q.RegardingAny},
		{"projects", &q.Projects},
		{"projectGroups", &q.ProjectGroups},
		{"environments", &q.Environments},
		{"tenants", &q.Tenants},
		{"users", &q.Users},
		{"user", &user},
		{"eventCategories", &q.Categories},
		{"eventGroups", &q.Groups},
		{"eventAgents", &q.Agents},
		{"documentTypes", &q.DocumentTypes},
	} {
		*list.to, err = r.QueryList(list.name)
		keep(err)
	}
	q.Users = append(q.Users, user...)
	return q, errors.Join(errs...)
}

// shows decides whose differences the caller sees: those of documents that they may
// see themselves. The variables of a set may have a scope each, which a difference
// does not tell, so theirs take the permission for all of them.
func (a *api) shows(r *rest.Request) func(events.Subject) bool {
	views := map[string]string{} // permission by item type
	for _, k := range a.Store.Kinds() {
		views[k.ItemType] = k.Permissions.View
	}
	return func(s events.Subject) bool {
		may := func(p string) bool {
			return r.Principal.Access().Can(p, s.Space, rest.Target{Project: s.Project, ProjectGroup: s.ProjectGroup, Environment: s.Environment, Tenant: s.Tenant})
		}
		view, known := views[s.DocumentType]
		switch {
		case !known:
			return false
		case view == "":
			return true // everybody reads them
		case s.DocumentType == variableSet && strings.HasPrefix(s.Project, a.Store.Kinds()["libraryvariablesets"].Prefix+"-"):
			return may(view) && may(string(octopus.PermLibraryVariableSetView))
		default:
			return may(view)
		}
	}
}

// variableSet is the item type of variable sets, whose owner stands in the place of
// a project.
const variableSet = "VariableSet"

func (a *api) events(r *rest.Request) (any, error) {
	q, errQuery := a.query(r)
	table, errTable := r.QueryBool("asCsv", false)
	if err := errors.Join(errQuery, errTable); err != nil {
		return nil, err
	}
	if table {
		q.NoDifference = true
		return rest.Raw{ContentType: "text/csv; charset=utf-8", Name: "events.csv", Content: &tableReader{ctx: r.Context(), a: a, q: q}}, nil
	}
	var found []octopus.Event
	var total int64
	err := a.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		found, total, err = a.trail.List(r.Context(), tx, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range found {
		a.complete(r, &found[i])
	}
	return rest.PageOf(r, "Event", q.Page, total, found), nil
}

func (a *api) event(r *rest.Request) (any, error) {
	held, err := r.Spaces(eventView)
	if err != nil {
		return nil, err
	}
	q := events.Query{Shows: a.shows(r)}
	for _, space := range held {
		if r.Space == "" || space == r.Space {
			q.Places = append(q.Places, events.Place{Space: space, Grants: r.GrantsIn(space, eventView)})
		}
	}
	var e *octopus.Event
	err = a.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		e, err = a.trail.Get(r.Context(), tx, q, r.PathValue("id"))
		return err
	})
	if err != nil {
		return nil, err
	}
	a.complete(r, e)
	return e, nil
}

// complete adds the links, and the message as HTML.
func (a *api) complete(r *rest.Request, e *octopus.Event) {
	self := "/api/"
	if e.SpaceID != "" {
		self += string(e.SpaceID) + "/"
	}
	e.Links = octopus.Links{"Self": r.Href(self + "events/" + e.ID)}
	e.MessageHTML = a.markUp(r, e)
}

// markUp is an event's message with links to the pages of what it names.
func (a *api) markUp(r *rest.Request, e *octopus.Event) string {
	text := utf16.Encode([]rune(e.Message))
	var b strings.Builder
	at := 0
	plain := func(to int) string { return html.EscapeString(string(utf16.Decode(text[at:to]))) }
	refs := slices.SortedFunc(slices.Values(e.MessageReferences), func(x, y octopus.EventReference) int { return x.StartIndex - y.StartIndex })
	for _, ref := range refs {
		path := a.trail.Path(ref.ReferencedDocumentID)
		if ref.StartIndex < at || ref.StartIndex+ref.Length > len(text) || path == "" {
			continue
		}
		b.WriteString(plain(ref.StartIndex))
		at = ref.StartIndex
		name := plain(at + ref.Length)
		at += ref.Length
		if e.SpaceID != "" {
			path = "/" + string(e.SpaceID) + path
		}
		fmt.Fprintf(&b, `<a href="%s">%s</a>`, html.EscapeString(r.Href("/app#"+path)), name)
	}
	b.WriteString(plain(len(text)))
	return b.String()
}

// tableReader is a part of the trail as CSV, read piece by piece as it is sent.
type tableReader struct {
	ctx  context.Context //nolint:containedctx // a reader has no other way to be told
	a    *api
	q    events.Query
	last int64 // the smallest number that was read
	done bool
	buf  bytes.Buffer
}

// tablePiece is how many events are read at once.
const tablePiece = 1000

// Read gives the next part of the table.
func (t *tableReader) Read(p []byte) (int, error) {
	for t.buf.Len() == 0 {
		if t.done {
			return 0, io.EOF
		}
		if err := t.next(); err != nil {
			return 0, err
		}
	}
	return t.buf.Read(p)
}

func (t *tableReader) next() error {
	w := csv.NewWriter(&t.buf)
	if t.last == 0 {
		if err := w.Write([]string{"Id", "Occurred", "Category", "Username", "UserId", "SpaceId", "Message", "RelatedDocumentIds", "IdentityEstablishedWith", "IpAddress", "UserAgent"}); err != nil {
			return err
		}
	}
	var found []octopus.Event
	err := t.a.DB.Read(t.ctx, func(tx *db.Tx) (err error) {
		found, t.last, err = t.a.trail.Before(t.ctx, tx, t.q, t.last, tablePiece)
		return err
	})
	if err != nil {
		return err
	}
	t.done = len(found) < tablePiece
	for _, e := range found {
		line := []string{
			e.ID, e.Occurred.String(), string(e.Category), e.Username, e.UserID, string(e.SpaceID), e.Message, strings.Join(e.RelatedDocumentIDs, " "),
			string(e.IdentityEstablishedWith), string(e.IPAddress), string(e.UserAgent),
		}
		for i := range line {
			line[i] = inert(line[i])
		}
		if err := w.Write(line); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// inert keeps a spreadsheet from taking a text for a formula: people can name
// things as they like.
func inert(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

func (a *api) categories(r *rest.Request) (any, error) {
	all := octopus.List[octopus.EventCategoryInfo]{}
	for _, c := range events.Categories(r.Query("appliesTo")) {
		all = append(all, octopus.EventCategoryInfo{ID: octopus.EventCategory(c.ID), Name: c.Name})
	}
	return all, nil
}

func (a *api) groups(r *rest.Request) (any, error) {
	all := octopus.List[octopus.EventGroup]{}
	for _, g := range events.Groups(r.Query("appliesTo")) {
		one := octopus.EventGroup{ID: g.ID, Name: g.Name}
		for _, c := range g.Categories {
			one.EventCategories = append(one.EventCategories, octopus.EventCategory(c))
		}
		all = append(all, one)
	}
	return all, nil
}

func (a *api) agents(*rest.Request) (any, error) {
	all := octopus.List[octopus.EventAgent]{}
	for _, one := range events.Agents() {
		all = append(all, octopus.EventAgent{ID: one.ID, Name: one.Name})
	}
	return all, nil
}

func (a *api) documentTypes(*rest.Request) (any, error) {
	all := octopus.List[octopus.EventDocumentType]{}
	for _, one := range a.trail.DocumentTypes() {
		all = append(all, octopus.EventDocumentType{ID: one.ID, Name: one.Name})
	}
	return all, nil
}
