package test

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/resources"
)

// TestPoint18DifferenceOfEveryWrite changes a document of every kind and reads what the
// audit trail says of it: every member that changed and no other, and of secrets only
// that they changed.
func TestPoint18DifferenceOfEveryWrite(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newWalker(t, apptest.StartWith(t, dialect, apptest.Options{NoWorker: true}))
			known := map[string]example{}
			for _, e := range examples() {
				known[e.kind] = e
			}
			secrets := 0
			for _, k := range resources.All() {
				e, ok := known[k.Name]
				if k.Hidden || k.Permissions.Create == "" || k.Unaudited || !ok {
					continue
				}
				t.Run(k.Name, func(t *testing.T) {
					w := *w
					w.t = t
					at := "/api/" + k.Name + "/" + w.make(k.Name, e.create)
					secrets += w.differs(at, parse(t, w.fill(e.full, "")))
				})
			}
			if secrets < 5 {
				t.Errorf("only %d kinds had secrets", secrets)
			}
			// Kinds that are there with others, or once in all.
			project := w.get("/api/projects/" + w.of["project"])
			variables, process := w.get("/api/variables/"+fmt.Sprint(project["VariableSetId"])), w.get("/api/deploymentprocesses/"+fmt.Sprint(project["DeploymentProcessId"]))
			variables["Variables"] = []any{
				map[string]any{"Name": "Greeting", "Type": "String", "Value": "Hello"},
				map[string]any{"Name": "Password", "Type": "Sensitive", "IsSensitive": true, "Value": "hush-variable"},
			}
			w.differs("/api/variables/"+fmt.Sprint(variables["Id"]), variables)
			process["Steps"] = []any{map[string]any{"Name": "Say", "Actions": []any{map[string]any{"Name": "Say", "ActionType": "Octopus.Script", "Properties": map[string]any{
				"Octopus.Action.RunOnServer": "true", "Octopus.Action.Script.ScriptBody": "echo", "Octopus.Action.Script.Syntax": "Bash", "Hidden": map[string]any{"HasValue": true, "NewValue": "hush-step"},
			}}}}}
			w.differs("/api/deploymentprocesses/"+fmt.Sprint(process["Id"]), process)
			w.Must(t, http.MethodPut, "/api/smtpconfiguration", map[string]any{"SmtpHost": "old.example.com", "SmtpPort": 25, "SendEmailFrom": "tako@example.com"}, nil)
			w.differs("/api/smtpconfiguration", map[string]any{"SmtpHost": "mail.example.com", "SmtpPort": 25, "SendEmailFrom": "tako@example.com", "SmtpLogin": "u", "SmtpPassword": map[string]any{"HasValue": true, "NewValue": "hush"}})
		})
	}
}

// differs changes a document and checks what is told of it; it returns 1 if there was a
// secret in the change.
func (w *walker) differs(at string, change map[string]any) int {
	t := w.t
	t.Helper()
	hidden := secretsOf(change)
	before := w.get(at)
	w.Must(t, http.MethodPut, at, change, nil)
	after := w.get(at)
	id := fmt.Sprint(after["Id"])
	var page struct {
		Items []struct {
			Category, Message string
			ChangeDetails     struct {
				Differences []struct {
					Op, Path        string
					Value, OldValue any
				}
			}
		}
	}
	resp := w.Must(t, http.MethodGet, "/api/events?eventCategories=Modified&take=1&regarding="+id, nil, &page)
	if len(page.Items) != 1 {
		t.Fatalf("%d events tell of it", len(page.Items))
	}
	for _, text := range hidden {
		if strings.Contains(string(resp.Body), text) {
			t.Errorf("a secret is in its event")
		}
	}
	told := map[string]bool{}
	for _, d := range page.Items[0].ChangeDetails.Differences {
		member := strings.Split(d.Path, "/")[1]
		told[member] = true
		if d.Path == "/"+member && after[member] != nil && secretsOf(map[string]any{member: change[member]}) == nil && !reflect.DeepEqual(d.Value, "(too long)") && d.Op != "remove" {
			if diff := contains(d.Value, after[member]); diff != "" && !isList(after[member]) {
				t.Errorf("%s became something else: %s", d.Path, diff)
			}
		}
	}
	for _, member := range slices.Sorted(maps.Keys(after)) {
		if slices.Contains([]string{"LastModifiedOn", "LastModifiedBy", "Links", "Version"}, member) {
			continue
		}
		changed := !cmp.Equal(before[member], after[member])
		secret := len(secretsOf(map[string]any{member: change[member]})) > 0
		switch {
		case changed && !told[member] && !empty(before[member], after[member]):
			t.Errorf("%s changed from %v to %v, which nobody tells", member, before[member], after[member])
		case secret && !told[member]:
			t.Errorf("%s has a new secret, which nobody tells", member)
		case !changed && !secret && told[member]:
			t.Errorf("%s is told of and has not changed", member)
		}
	}
	return min(len(hidden), 1)
}

// secretsOf are the texts of a document's secrets, and of sensitive variables.
func secretsOf(v any) (out []string) {
	switch v := v.(type) {
	case map[string]any:
		if text, ok := v["NewValue"].(string); ok {
			out = append(out, text)
		}
		if text, ok := v["Value"].(string); ok && v["IsSensitive"] == true {
			out = append(out, text)
		}
		for _, one := range v {
			out = append(out, secretsOf(one)...)
		}
	case []any:
		for _, one := range v {
			out = append(out, secretsOf(one)...)
		}
	}
	return out
}

func isList(v any) bool {
	_, ok := v.([]any)
	return ok
}

// empty reports whether two values are the same nothing in two forms.
func empty(a, b any) bool {
	none := func(v any) bool {
		switch v := v.(type) {
		case nil:
			return true
		case []any:
			return len(v) == 0
		case map[string]any:
			return len(v) == 0
		}
		return v == "" || v == false
	}
	return none(a) && none(b)
}
