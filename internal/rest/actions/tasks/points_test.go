package tasks_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

// What the server does not know it keeps as it came, also when somebody reads and writes the
// document; a step of that kind fails in one sentence, when it is run and not before.
func TestPoint25UnknownTypesAreKept(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		project := w.project("Shop")
		process := space + "/deploymentprocesses/deploymentprocess-" + project
		for path, body := range map[string]string{
			space + "/feeds":    `{"Name":"Odd","FeedType":"Pigeons","LoftUri":"https://example.com","Birds":[{"Ring":7,"Fast":true}]}`,
			space + "/machines": fmt.Sprintf(`{"Name":"Odd","EnvironmentIds":[%q],"Roles":["web"],"Endpoint":{"CommunicationStyle":"CarrierPigeon","Loft":{"Height":3,"Birds":["a","b"]}}}`, w.dev),
			process: `{"Version":2,"Steps":[{"Name":"Juggle","Actions":[{"Name":"Juggle","ActionType":"Octopus.Juggle","StepPackageVersion":"2.1.0","Inputs":{"balls":[1,{"deep":null}]},
				"Properties":{"Octopus.Action.Juggle.Balls":"3","Secret":{"HasValue":true,"NewValue":"hush"}},"Novelty":{"since":2031}}],"Knots":[1,2]}],"Mood":"good"}`,
		} {
			method, at := http.MethodPost, path
			if path == process {
				method = http.MethodPut
			}
			made := w.Must(map[string]int{http.MethodPost: http.StatusCreated, http.MethodPut: http.StatusOK}[method], method, path, body)
			if method == http.MethodPost {
				var doc struct{ ID string }
				made.Into(&doc)
				at += "/" + doc.ID
			}
			read := func() map[string]any {
				var doc map[string]any
				w.Get(at).Into(&doc)
				return doc
			}
			first := read()
			for _, part := range []string{"Pigeons", "Birds", "CarrierPigeon", "Height", "balls", "deep", "Novelty", "2031", "Knots", "Mood"} {
				if strings.Contains(body, part) && !strings.Contains(string(w.Get(at).Body), part) {
					t.Errorf("%s has lost %q: %s", at, part, w.Get(at).Body)
				}
			}
			again, err := json.Marshal(first)
			check(t, err)
			w.Must(http.StatusOK, http.MethodPut, at, string(again))
			second := read()
			for _, doc := range []map[string]any{first, second} {
				delete(doc, "Version")
				delete(doc, "LastModifiedOn")
			}
			if diff := cmp.Diff(first, second); diff != "" {
				t.Errorf("%s after it was read and written (-before +after):\n%s", at, diff)
			}
		}
		w.release("Shop", "2.0.0")
		task := w.deploy("Shop", "2.0.0", "Dev")
		w.ends(task, octopus.TaskFailed)
		if log := w.log(task); !strings.Contains(log, "This server cannot run steps of type Octopus.Juggle.") {
			t.Errorf("the log is\n%s", log)
		}
	})
}
