package projects_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestPoint25UnknownTypesRoundTrip: a step, a target and an account of types that the
// server does not know, with members that it does not know, come back as they were
// sent; read and put back, they are the same, and keep their secrets.
func TestPoint25UnknownTypesRoundTrip(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		const odd = `"Odd":{"Deep":[1,2.50,{"Null":null,"Big":12345678901234567890}],"Empty":{}}`
		for _, c := range []struct{ path, body, secret string }{
			{"machines", `{"Name":"M","EnvironmentIds":["` + w.prod + `"],"Roles":["r"],"Endpoint":{"CommunicationStyle":"Quantum","Qubits":7,"Key":{"HasValue":true,"NewValue":"hush"},` + odd + `}}`, "Endpoint.Key"},
			{"accounts", `{"Name":"A","AccountType":"Vault","Path":"kv/x","Token":{"HasValue":true,"NewValue":"hush"},` + odd + `}`, "Token"},
		} {
			made := w.Must(201, "POST", "/api/"+c.path, c.body)
			w.same(t, c.path+"/"+made.Text("Id"), c.body, c.secret, "hush")
		}
		process := "deploymentprocesses/deploymentprocess-" + w.web
		body := `{"Version":2,"Steps":[{"Id":"s9","Name":"Odd","StartTrigger":"StartAfterPrevious",` + odd + `,"Actions":[{"Id":"a9","Name":"Odd","ActionType":"Vendor.Teleport",` + odd + `,"Properties":{"Vendor.Mode":"fast","Vendor.Key":{"HasValue":true,"NewValue":"hush"}}}]}]}`
		w.Must(200, "PUT", "/api/"+process, body)
		w.same(t, process, strings.Replace(body, `"Version":2,`, "", 1), "Steps.0.Actions.0.Properties.Vendor.Key", "hush")
	})
}

// same reads a document, finds in it what was sent but for its secret, and puts it back
// as it was read: then it is the same, and the secret is what it was.
func (w *world) same(t *testing.T, path, sent, secret, hush string) {
	t.Helper()
	read := w.Get("/api/" + path)
	if strings.Contains(string(read.Body), hush) || !strings.Contains(string(read.Body), `12345678901234567890`) || !strings.Contains(string(read.Body), `2.50`) {
		t.Errorf("%s: %s", path, read.Body)
	}
	var want, got any
	for text, to := range map[string]*any{strings.ReplaceAll(sent, `"NewValue":"`+hush+`"`, `"NewValue":null`): &want, string(read.Body): &got} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	if where := lacks(want, got); where != "" {
		t.Errorf("%s has not what was sent at %s: %s", path, where, read.Body)
	}
	again := w.Must(200, "PUT", "/api/"+path, string(read.Body))
	first, second := plain(t, read.Body), plain(t, again.Body)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("%s was put back (-read +answered):\n%s", path, diff)
	}
	kind, id, _ := strings.Cut(path, "/")
	doc := map[string]any{}
	if err := w.DB.Read(t.Context(), w.reveal(kind, id, &doc)); err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(doc); err != nil || !strings.Contains(string(text), `"NewValue":"`+hush+`"`) {
		t.Errorf("%s has lost %s: %v", path, secret, err)
	}
}

// lacks tells where got has not what want has; got may have more members.
func lacks(want, got any) string {
	switch v := want.(type) {
	case map[string]any:
		has, _ := got.(map[string]any)
		for name, one := range v {
			if where := lacks(one, has[name]); where != "" {
				return "." + name + where
			}
		}
		return ""
	case []any:
		has, _ := got.([]any)
		if len(has) != len(v) {
			return "[]"
		}
		for i := range v {
			if where := lacks(v[i], has[i]); where != "" {
				return "[]" + where
			}
		}
		return ""
	}
	if !cmp.Equal(want, got) {
		return " "
	}
	return ""
}

// plain is a document without what changes with every write.
func plain(t *testing.T, body []byte) map[string]any {
	t.Helper()
	doc := map[string]any{}
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	delete(doc, "LastModifiedOn")
	delete(doc, "Version")
	return doc
}

// TestPoint26OptimisticLocks: of two who have read the same process, or variable set,
// the second to write is refused, and what the first has written stays.
func TestPoint26OptimisticLocks(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		key := w.person([]string{"VariableView", "VariableEdit", "ProjectView"})
		first, second := w.read(actiontest.Admin, w.web), w.read(key, w.web)
		kept := w.mustPut(actiontest.Admin, first, value("Port", "80"))
		if kept.Version != first.Version+1 {
			t.Errorf("version %d follows %d", kept.Version, first.Version)
		}
		if a := w.put(key, second, value("Port", "81")); a.Status != 409 || !strings.Contains(string(a.Body), "modified by somebody else") {
			t.Errorf("the second: %d %s", a.Status, a.Body)
		}
		if got := texts(w.read(actiontest.Admin, w.web)); got["Port"] != "80" {
			t.Errorf("the set has %v", got)
		}
		if a := w.put(key, w.read(key, w.web), value("Port", "81")); a.Status != 200 {
			t.Errorf("read anew: %d %s", a.Status, a.Body)
		}

		path := "/api/deploymentprocesses/deploymentprocess-" + w.web
		var mine, theirs octopus.DeploymentProcess
		w.Get(path).Into(&mine)
		w.Get(path).Into(&theirs)
		put := func(status int, p octopus.DeploymentProcess, name string) {
			t.Helper()
			p.Steps[0].Name = name
			body, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if a := w.Must(status, "PUT", path, string(body)); status == 409 && !strings.Contains(string(a.Body), "modified by somebody else") {
				t.Errorf("%s: %s", name, a.Body)
			}
		}
		put(200, mine, "Mine")
		put(409, theirs, "Theirs")
		var now octopus.DeploymentProcess
		w.Get(path).Into(&now)
		if now.Steps[0].Name != "Mine" || now.Version != mine.Version+1 {
			t.Errorf("version %d has the step %s", now.Version, now.Steps[0].Name)
		}
		now.Version = 0 // who says nothing of what they have read has read nothing
		put(409, now, "Nobody's")
	})
}

// reveal reads a document with its secrets in clear.
func (w *world) reveal(kind, id string, to any) func(tx *db.Tx) error {
	return func(tx *db.Tx) error { return w.Store.Reveal(w.T.Context(), tx, kind, id, to) }
}
