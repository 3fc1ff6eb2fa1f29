package triggers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	_ "time/tzdata" // the same zones on every host

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/triggers"
	"github.com/takodeploy/tako/octopus"
)

func routes(w *actiontest.World) []rest.Route { return triggers.Routes(w.DB, w.Store) }

var nested = rest.Alias{Kind: "projecttriggers", Pattern: "/projects/{owner}/triggers", Owner: "projects", Within: "ProjectId"}

// TestBothForms makes, reads, changes and deletes triggers by either path.
func TestBothForms(t *testing.T) {
	t.Parallel()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) {
		env := w.Create("/api/environments", `{"Name":"Dev"}`)
		project := w.Create("/api/projects", `{"Name":"Web","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		other := w.Create("/api/projects", `{"Name":"Other","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		body := func(name string) string {
			return `{"Name":"` + name + `","ProjectId":"` + project + `","Filter":{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000Z","DaysOfWeek":["Monday"],"Timezone":"W. Europe Standard Time"},
				"Action":{"ActionType":"DeployNewRelease","EnvironmentId":"` + env + `"}}`
		}
		flat := w.Create("/api/Spaces-1/projecttriggers", body("Flat"))
		deep := w.Create("/api/projects/"+project+"/triggers", body("Deep"))
		for _, path := range []string{"/api/projecttriggers/", "/api/Spaces-1/projects/" + project + "/triggers/"} {
			for _, id := range []string{flat, deep} {
				var v octopus.Trigger
				w.Get(path + id).Into(&v)
				v.Description = "by " + path
				changed := w.Must(200, http.MethodPut, path+id, strings.Replace(body(v.Name), `"Name"`, `"Description":"changed","Name"`, 1))
				if changed.Text("Description") != "changed" {
					t.Errorf("%s", changed.Body)
				}
			}
			if diff := cmp.Diff([]string{deep, flat}, w.Get(strings.TrimSuffix(path, "/")).IDs()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
		w.Must(404, http.MethodGet, "/api/projects/"+other+"/triggers/"+flat, "")
		var page octopus.Page[struct {
			octopus.Trigger
			NextRunTimes []octopus.Time
		}]
		w.Get("/api/Spaces-1/scheduledprojecttriggers?runs=3").Into(&page)
		if len(page.Items) != 2 || len(page.Items[0].NextRunTimes) != 3 || page.Items[0].NextRunTimes[0].Weekday().String() != "Monday" {
			t.Errorf("%+v", page)
		}
		if times, _ := w.Get("/api/scheduledprojecttriggers/" + flat).JSON()["NextRunTimes"].([]any); len(times) != 5 {
			t.Errorf("%v", times)
		}
		w.Must(200, http.MethodPut, "/api/projects/"+project+"/triggers/"+flat, strings.Replace(body("Flat"), `"Name"`, `"IsDisabled":true,"Name"`, 1))
		if times, _ := w.Get("/api/scheduledprojecttriggers/" + flat).JSON()["NextRunTimes"].([]any); len(times) != 0 {
			t.Errorf("of a disabled one: %v", times)
		}
		// What a trigger needs stays, until the trigger goes with its project.
		w.Must(409, http.MethodDelete, "/api/environments/"+env, "")
		w.Must(200, http.MethodDelete, "/api/projects/"+project+"/triggers/"+deep, "")
		w.Must(200, http.MethodDelete, "/api/projecttriggers/"+flat, "")
		again := w.Create("/api/projecttriggers", body("Again"))
		w.Must(200, http.MethodDelete, "/api/projects/"+project, "")
		w.Must(404, http.MethodGet, "/api/projecttriggers/"+again, "")
		w.Must(200, http.MethodDelete, "/api/environments/"+env, "")
	}, nested)
}

func TestRefusedTriggers(t *testing.T) {
	t.Parallel()
	w := actiontest.New(t, routes, nested)
	env := w.Create("/api/environments", `{"Name":"Dev"}`)
	project := w.Create("/api/projects", `{"Name":"Web","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
	const daily = `{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000Z"}`
	for _, c := range []struct{ filter, action, says string }{
		{`{}`, `{"ActionType":"AutoDeploy"}`, "Filter.FilterType is missing"},
		{`{"FilterType":"CronExpressionSchedule","CronExpression":"* *"}`, `{"ActionType":"RunRunbook","RunbookId":"Runbooks-1"}`, "Filter.CronExpression '* *' cannot be used: it has 2 fields"},
		{`{"FilterType":"OnceDailySchedule","Timezone":"Mars"}`, `{"ActionType":"RunRunbook","RunbookId":"Runbooks-1"}`, "Filter.Timezone names no time zone"},
		{`{"FilterType":"ArcFeedFilter"}`, `{"ActionType":"CreateRelease"}`, "Filter.Packages is empty"},
		{`{"FilterType":"FeedFilter","Packages":[{"PackageReference":""}]}`, `{"ActionType":"CreateRelease"}`, "without DeploymentActionSlug"},
		{daily, `{}`, "Action.ActionType is missing"},
		{daily, `{"ActionType":"AutoDeploy"}`, "a filter of type OnceDailySchedule cannot set off"},
		{daily, `{"ActionType":"DeployNewRelease"}`, "Action.EnvironmentId is missing"},
		{daily, `{"ActionType":"DeployNewRelease","EnvironmentId":"Environments-99"}`, "Environments-99"},
		{daily, `{"ActionType":"DeployLatestRelease","DestinationEnvironmentId":"` + env + `"}`, "Action.SourceEnvironmentIds is missing"},
		{daily, `{"ActionType":"RunRunbook"}`, "Action.RunbookId is missing"},
		{daily, `{"ActionType":"DeployNewRelease","EnvironmentId":"` + env + `","Variables":"[1]"}`, "Action.Variables is no JSON object"},
	} {
		a := w.Must(400, http.MethodPost, "/api/projecttriggers", `{"Name":"x","ProjectId":"`+project+`","Filter":`+c.filter+`,"Action":`+c.action+`}`)
		if !strings.Contains(string(a.Body), c.says) {
			t.Errorf("%s %s: %s", c.filter, c.action, a.Body)
		}
	}
	// What nobody knows is kept as it came.
	id := w.Create("/api/projecttriggers", `{"Name":"Odd","ProjectId":"`+project+`","Filter":{"FilterType":"MoonFilter","Phase":"full"},"Action":{"ActionType":"Howl","Loud":true}}`)
	if a := w.Get("/api/projecttriggers/" + id); !strings.Contains(string(a.Body), `"Phase":"full"`) || !strings.Contains(string(a.Body), `"Loud":true`) {
		t.Errorf("%s", a.Body)
	}
	w.Must(404, http.MethodGet, "/api/scheduledprojecttriggers/"+id, "")
}

func TestPreview(t *testing.T) {
	t.Parallel()
	w := actiontest.New(t, routes, nested)
	a := w.Must(200, http.MethodPost, "/api/scheduledprojecttriggers/preview?runs=2", `{"FilterType":"CronExpressionSchedule","CronExpression":"0 0 0 1 1 *"}`)
	if times, _ := a.JSON()["NextRunTimes"].([]any); len(times) != 2 || !strings.Contains(times[0].(string), "-01-01T00:00:00.000+00:00") {
		t.Errorf("%s", a.Body)
	}
	w.Must(400, http.MethodPost, "/api/scheduledprojecttriggers/preview", `{}`)
	w.Must(400, http.MethodPost, "/api/scheduledprojecttriggers/preview?runs=1000", `{"FilterType":"CronExpressionSchedule","CronExpression":"0 0 0 1 1 *"}`)
	viewer := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"ProjectView"}})
	w.MustAs(viewer, 403, http.MethodGet, "/api/scheduledprojecttriggers", "")
}

// TestPoint28OffsetOfATime: whatever zone a client writes a time of day in, it is that
// time in the trigger's own zone, and is served without one.
func TestPoint28OffsetOfATime(t *testing.T) {
	t.Parallel()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) {
		env := w.Create("/api/environments", `{"Name":"Dev"}`)
		project := w.Create("/api/projects", `{"Name":"Web","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		for name, start := range map[string]string{"UTC": "2026-01-01T09:00:00.000Z", "east": "2026-01-01T09:00:00+10:00", "west": "2026-07-01T09:00:00-07:00", "none": "2026-01-01T09:00:00"} {
			id := w.Create("/api/projecttriggers", fmt.Sprintf(`{"Name":%q,"ProjectId":%q,"Filter":{"FilterType":"OnceDailySchedule","StartTime":%q,"Timezone":"Asia/Tokyo"},
				"Action":{"ActionType":"DeployNewRelease","EnvironmentId":%q}}`, name, project, start, env))
			if body := string(w.Get("/api/projecttriggers/" + id).Body); !strings.Contains(body, `T09:00:00.000",`) {
				t.Errorf("%s is served as %s", name, body)
			}
			var v struct{ NextRunTimes []octopus.Time }
			w.Get("/api/scheduledprojecttriggers/" + id + "?runs=1").Into(&v)
			if len(v.NextRunTimes) != 1 || v.NextRunTimes[0].Hour() != 0 || v.NextRunTimes[0].Minute() != 0 {
				t.Errorf("%s runs at %v, want nine o'clock in Tokyo", name, v.NextRunTimes)
			}
		}
	}, nested)
}
