package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

func kinds(t *testing.T) resource.Set {
	t.Helper()
	set, err := resource.NewSet(
		resource.Declare(resource.Declaration[octopus.Project]{Name: "projects", ItemType: "Project", Prefix: "Projects"}),
		resource.Declare(resource.Declaration[octopus.Environment]{Name: "environments", ItemType: "Environment", Prefix: "Environments"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

type world struct {
	t     *testing.T
	db    *db.DB
	trail *events.Trail
}

func each(t *testing.T, fn func(w *world)) {
	t.Helper()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(&world{t, d, events.New(kinds(t))}) })
}

func (w *world) write(ctx context.Context, all ...db.Event) {
	w.t.Helper()
	err := w.db.Write(ctx, func(tx *db.Tx) error {
		for _, e := range all {
			tx.Event(e)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// everywhere is what one may see who may see all.
func everywhere() []events.Place {
	return []events.Place{{Space: ""}, {Space: "Spaces-1"}, {Space: "Spaces-2"}}
}

func (w *world) list(q events.Query) (found []octopus.Event, total int64) {
	w.t.Helper()
	if q.Places == nil {
		q.Places = everywhere()
	}
	err := w.db.Read(w.t.Context(), func(tx *db.Tx) (err error) {
		found, total, err = w.trail.List(w.t.Context(), tx, q)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found, total
}

// messages lists what is found, and checks that the total agrees.
func (w *world) messages(q events.Query) string {
	w.t.Helper()
	found, total := w.list(q)
	if int64(len(found)) != total {
		w.t.Errorf("%d events of %d", len(found), total)
	}
	all := make([]string, len(found))
	for i, e := range found {
		all[i] = e.Message
	}
	return strings.Join(all, " ")
}

// follows waits until who follows the trail by number sees what is wanted: on
// PostgreSQL that is when no older transaction of any database is open, and other
// tests have some.
func (w *world) follows(q events.Query, want string) {
	w.t.Helper()
	var got string
	for start := time.Now(); time.Since(start) < 2*time.Minute; {
		if got = w.messages(q); got == want {
			return
		}
	}
	w.t.Errorf("a follower sees %q, want %q", got, want)
}

// story writes one event of each sort, named by letters.
func (w *world) story() {
	ctx := w.t.Context()
	w.write(ctx, db.Event{Category: "Created", SpaceID: "", Message: "system", Related: []string{"Users-1", "projects-builtin"}, DocumentType: "User"})
	w.write(ctx, db.Event{Category: "Created", SpaceID: "Spaces-1", Message: "web", Related: []string{"Projects-1"}, ProjectID: "Projects-1", ProjectGroupID: "ProjectGroups-1", DocumentType: "Project"})
	w.write(ctx, db.Event{Category: "Modified", SpaceID: "Spaces-1", Message: "channel", Related: []string{"Channels-1", "Projects-1"}, ProjectID: "Projects-1", DocumentType: "Channel"})
	w.write(ctx, db.Event{Category: "DeploymentQueued", SpaceID: "Spaces-1", Message: "deploy", Related: []string{"Deployments-1", "Projects-1", "Environments-1", "Tenants-1"}, ProjectID: "Projects-1", EnvironmentID: "Environments-1", TenantID: "Tenants-1", DocumentType: "Deployment"})
	w.write(ctx, db.Event{Category: "MachineHealthy", SpaceID: "Spaces-1", Message: "machine", Related: []string{"Machines-1", "Environments-2", "Environments-1"}, EnvironmentID: "Environments-2", DocumentType: "Machine"})
	w.write(ctx, db.Event{Category: "Deleted", SpaceID: "Spaces-1", Message: "api", Related: []string{"Projects-2"}, ProjectID: "Projects-2", ProjectGroupID: "ProjectGroups-2", DocumentType: "Project"})
	as := db.WithActor(ctx, db.Actor{UserID: "Users-7", Username: "ada", Identity: "ApiKey", IPAddress: "10.0.0.1", UserAgent: "go-octopusdeploy/2.1 octopus-cli"})
	w.write(as, db.Event{Category: "Created", SpaceID: "Spaces-2", Message: "elsewhere", Related: []string{"Environments-9"}, EnvironmentID: "Environments-9", DocumentType: "Environment"})
	err := w.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('projects', 'ProjectGroupId', 'Spaces-1', 'projectgroups-1', 'Projects-1')`)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		w.story()
		const all = "elsewhere api machine deploy channel web system"
		for name, c := range map[string]struct {
			q    events.Query
			want string
		}{
			"all":                          {events.Query{}, all},
			"two categories":               {events.Query{Categories: []string{"created", "Deleted"}}, "elsewhere api web system"},
			"a group":                      {events.Query{Groups: []string{"machinehealth"}}, "machine"},
			"a group and a category":       {events.Query{Groups: []string{"Deployment"}, Categories: []string{"MachineHealthy"}}, "machine deploy"},
			"a category nobody knows":      {events.Query{Categories: []string{"Unheard"}}, ""},
			"regarding, in another case":   {events.Query{Regarding: []string{"projects-1"}}, "deploy channel web"},
			"regarding what has no number": {events.Query{Regarding: []string{"projects-builtin"}}, "system"},
			"regarding two documents":      {events.Query{Regarding: []string{"Projects-1", "Environments-1"}}, "deploy"},
			"regarding any of two":         {events.Query{RegardingAny: []string{"Projects-2", "Environments-1"}}, "api machine deploy"},
			"of a project":                 {events.Query{Projects: []string{"Projects-1", "Projects-3"}}, "deploy channel web"},
			"of a group, now or then":      {events.Query{ProjectGroups: []string{"ProjectGroups-1"}}, "deploy channel web"},
			"of an environment":            {events.Query{Environments: []string{"environments-1"}}, "machine deploy"},
			"of a tenant":                  {events.Query{Tenants: []string{"Tenants-1"}}, "deploy"},
			"by a user":                    {events.Query{Users: []string{"Users-7"}}, "elsewhere"},
			"by the command line":          {events.Query{Agents: []string{"commandline"}}, "elsewhere"},
			"by the server itself":         {events.Query{Agents: []string{"Server"}}, "api machine deploy channel web system"},
			"by something else":            {events.Query{Agents: []string{"Abacus"}}, ""},
			"about environments":           {events.Query{DocumentTypes: []string{"Environments"}}, "elsewhere"},
			"about deployments, projects":  {events.Query{DocumentTypes: []string{"Deployments", "project"}}, "api deploy web"},
			"about what nobody knows":      {events.Query{DocumentTypes: []string{"Unicorns"}}, ""},
			"by ids":                       {events.Query{IDs: []string{"Events-2", "events-1", "Projects-3", "x"}}, "web system"},
			"by no ids":                    {events.Query{IDs: []string{}}, ""},
			"from then on":                 {events.Query{From: time.Now().Add(time.Hour)}, ""},
			"until then":                   {events.Query{To: time.Now().Add(time.Hour)}, all},
			"in one space":                 {events.Query{Places: []events.Place{{Space: "Spaces-2"}}}, "elsewhere"},
			"nowhere":                      {events.Query{Places: []events.Place{}}, ""},
			"several at once, all of them": {events.Query{Projects: []string{"Projects-1"}, Categories: []string{"Created"}}, "web"},
		} {
			if got := w.messages(c.q); got != c.want {
				w.t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
		w.follows(events.Query{FromID: 2, ToID: 4}, "deploy channel web") // both included
	})
}

func TestOnlyWhatMayBeSeen(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		w.story()
		in := func(grants ...resource.Grant) []events.Place {
			return []events.Place{{Space: "Spaces-1", Grants: grants}}
		}
		for name, c := range map[string]struct {
			places []events.Place
			want   string
		}{
			"no grant":                         {[]events.Place{{Space: "Spaces-1", Grants: []resource.Grant{}}}, ""},
			"without limit":                    {in(resource.Grant{}), "api machine deploy channel web"},
			"one project":                      {in(resource.Grant{Projects: []string{"Projects-1"}}), "deploy channel web"},
			"one project group":                {in(resource.Grant{ProjectGroups: []string{"ProjectGroups-1"}}), "deploy channel web"},
			"one environment":                  {in(resource.Grant{Environments: []string{"Environments-1"}}), "machine deploy"},
			"one tenant":                       {in(resource.Grant{Tenants: []string{"Tenants-1"}}), "deploy"},
			"a project in another environment": {in(resource.Grant{Projects: []string{"Projects-1"}, Environments: []string{"Environments-2"}}), ""},
			"two grants":                       {in(resource.Grant{Projects: []string{"Projects-2"}}, resource.Grant{Tenants: []string{"Tenants-1"}}), "api deploy"},
			"one grant of another space":       {append(in(resource.Grant{Projects: []string{"Projects-2"}}), events.Place{Space: "Spaces-2"}, events.Place{Space: ""}), "elsewhere api system"},
		} {
			if got := w.messages(events.Query{Places: c.places}); got != c.want {
				w.t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
		read := func(places []events.Place, id string) error {
			return w.db.Read(w.t.Context(), func(tx *db.Tx) error {
				_, err := w.trail.Get(w.t.Context(), tx, events.Query{Places: places}, id)
				return err
			})
		}
		if err := read(in(resource.Grant{Projects: []string{"Projects-1"}}), "Events-6"); !fault.Is(err, fault.NotFound) {
			w.t.Errorf("another project's event is %v", err)
		}
		if err := read(in(resource.Grant{}), "events-6"); err != nil {
			w.t.Error(err)
		}
	})
}

func TestShape(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		ctx := db.WithActor(w.t.Context(), db.Actor{UserID: "Users-7", Username: "robot", Identity: "ApiKey", IPAddress: "10.0.0.1", UserAgent: "curl"})
		err := w.db.Write(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('users', 'IsService', '', 'true', 'Users-7')`)
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		const message = "Project Zoë 🐙 Web was changed"
		name := "Zoë 🐙 Web"
		w.write(ctx, db.Event{
			Category: "Modified", SpaceID: "Spaces-1", Message: message, Related: []string{"Projects-1", "", "ProjectGroups-1"},
			DocumentType: "Project", ProjectID: "Projects-1", ProjectGroupID: "ProjectGroups-1",
			References: []db.EventReference{{ID: "Projects-1", Start: len("Project "), Length: len(name)}, {ID: "Projects-1", Start: 20, Length: 1000}},
			Details:    json.RawMessage(`[{"path":"/Name","old":"Web","new":"Zoë 🐙 Web"},{"path":"/Icon","old":null,"new":{"Id":"a"}},{"path":"/Description","old":"x","new":null}]`),
		})
		var about events.Subject
		found, _ := w.list(events.Query{Shows: func(s events.Subject) bool { about = s; return true }})
		if diff := cmp.Diff(events.Subject{Space: "Spaces-1", DocumentType: "Project", Project: "Projects-1", ProjectGroup: "ProjectGroups-1"}, about); diff != "" {
			w.t.Error(diff)
		}
		e := found[0]
		if time.Since(e.Occurred.Time).Abs() > time.Minute {
			w.t.Errorf("occurred %v", e.Occurred)
		}
		e.Occurred = octopus.Time{}
		want := octopus.Event{
			Resource: octopus.Resource{ID: "Events-1"}, SpaceID: "Spaces-1", Category: "Modified", UserID: "Users-7", Username: "robot", IsService: true,
			IdentityEstablishedWith: "ApiKey", UserAgent: "curl", IPAddress: "10.0.0.1", Message: message,
			RelatedDocumentIDs: octopus.List[string]{"ProjectGroups-1", "Projects-1"},
			// An emoji is two of the units in which clients count.
			MessageReferences: octopus.List[octopus.EventReference]{{ReferencedDocumentID: "Projects-1", StartIndex: 8, Length: 10}},
			ChangeDetails: &octopus.ChangeDetails{
				DocumentContext: json.RawMessage("null"),
				Differences:     json.RawMessage(`[{"op":"replace","path":"/Name","value":"Zoë 🐙 Web","oldValue":"Web"},{"op":"add","path":"/Icon","value":{"Id":"a"}},{"op":"remove","path":"/Description","oldValue":"x"}]`),
			},
		}
		if diff := cmp.Diff(want, e); diff != "" {
			w.t.Errorf("(-want +got):\n%s", diff)
		}
		for name, q := range map[string]events.Query{
			"none wanted":  {NoDifference: true, Shows: func(events.Subject) bool { return true }},
			"not allowed":  {Shows: func(events.Subject) bool { return false }},
			"nothing said": {},
		} {
			if found, _ := w.list(q); found[0].ChangeDetails != nil {
				w.t.Errorf("%s: the difference is there", name)
			}
		}
	})
}

func TestPagesAndPieces(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		for i := range 7 {
			w.write(w.t.Context(), db.Event{Category: "Created", SpaceID: "Spaces-1", Message: fmt.Sprint(i)})
		}
		found, total := w.list(events.Query{Page: ident.Page{Skip: 2, Take: 2}})
		if total != 7 || len(found) != 2 || found[0].Message != "4" || found[1].Message != "3" {
			w.t.Errorf("a page of %d: %v", total, found)
		}
		if found, total := w.list(events.Query{Page: ident.Page{Skip: 9}}); total != 7 || found != nil {
			w.t.Errorf("behind the end: %d, %v", total, found)
		}
		var read []string
		for id := int64(0); ; {
			var found []octopus.Event
			err := w.db.Read(w.t.Context(), func(tx *db.Tx) (err error) {
				found, id, err = w.trail.Before(w.t.Context(), tx, events.Query{Places: everywhere()}, id, 3)
				return err
			})
			if err != nil {
				w.t.Fatal(err)
			}
			for _, e := range found {
				read = append(read, e.Message)
			}
			if id == 0 {
				break
			}
		}
		if diff := cmp.Diff([]string{"6", "5", "4", "3", "2", "1", "0"}, read); diff != "" {
			w.t.Errorf("in pieces (-want +got):\n%s", diff)
		}
	})
}

// An event that comes after the others were counted is in the page and in the total.
func TestTotalOfAGrowingTrail(t *testing.T) {
	t.Parallel()
	var w *world
	var late sync.Once
	d, err := db.Open(t.Context(), dbtest.URL(t, db.Postgres), db.Options{Log: dbtest.Log(t), OnStatement: func(query string) {
		if w != nil && strings.Contains(query, "ORDER BY e.id DESC") {
			late.Do(func() { w.write(t.Context(), db.Event{Category: "Created", Message: "late"}) })
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	other := &world{t, d, events.New(kinds(t))}
	other.write(t.Context(), db.Event{Category: "Created", Message: "early"})
	w = other
	if got := w.messages(events.Query{}); got != "late early" {
		t.Errorf("the trail is %q", got)
	}
}

func TestCatalogue(t *testing.T) {
	t.Parallel()
	trail := events.New(kinds(t))
	names := map[string]string{}
	for _, c := range events.Categories("") {
		names[c.ID] = c.Name
	}
	for id, name := range map[string]string{"DeploymentQueued": "Deployment queued", "Created": "Created", "InterruptionRaised": "Interruption raised"} {
		if names[id] != name {
			t.Errorf("%s is called %q", id, names[id])
		}
	}
	for _, g := range events.Groups("") {
		for _, c := range g.Categories {
			if names[c] == "" {
				t.Errorf("group %s has the unknown category %s", g.ID, c)
			}
		}
	}
	if got := events.Categories("machine"); len(got) == 0 || !slices.ContainsFunc(got, func(c events.Category) bool { return c.ID == "MachineHealthy" }) || slices.ContainsFunc(got, func(c events.Category) bool { return c.ID == "Created" }) {
		t.Errorf("of machines: %v", got)
	}
	types := trail.DocumentTypes()
	for _, want := range []events.DocumentType{{ID: "Projects", Name: "Project"}, {ID: "ServerTasks", Name: "Server task"}} {
		if !slices.Contains(types, want) {
			t.Errorf("%v is not in %v", want, types)
		}
	}
	for id, want := range map[string]string{"Projects-1": "/projects/Projects-1", "ServerTasks-3": "/tasks/ServerTasks-3", "packages-a.1": "", "x": ""} {
		if got := trail.Path(id); got != want {
			t.Errorf("%s is at %q, want %q", id, got, want)
		}
	}
}

// TestLongTrail counts no further than it must, and a walk through the pages comes to
// the end of the trail all the same.
func TestLongTrail(t *testing.T) {
	t.Parallel()
	const all = 10_150
	each(t, func(w *world) {
		err := w.db.Write(w.t.Context(), func(tx *db.Tx) error {
			_, err := tx.Exec(w.t.Context(), `INSERT INTO events (xact, occurred, category, space_id, user_id, username, identity, ip_address, user_agent,
				message, refs, details, project_id, project_group_id, environment_id, tenant_id, document_type)
				WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
				SELECT 0, i, 'Created', 'Spaces-1', '', '', '', '', '', '', 'null', '', '', '', '', '', '' FROM n`, int64(all))
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range []struct{ skip, take, items, total int64 }{
			{0, 30, 30, 10_030},
			{60, 60, 60, 10_120},
			{120, 30, 30, all},
			{all - 10, 30, 10, all},
			{all, 30, 0, all},
			{all + 1_000_000, 30, 0, all},
		} {
			found, total := w.list(events.Query{Page: ident.Page{Skip: c.skip, Take: c.take}})
			if int64(len(found)) != c.items || total != c.total {
				w.t.Errorf("skip %d, take %d: %d of %d, want %d of %d", c.skip, c.take, len(found), total, c.items, c.total)
			}
		}
	})
}
