package rest_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/rest"
)

func TestBadRequests(t *testing.T) {
	t.Parallel()
	onBoth(t, badRequests)
}

func badRequests(t *testing.T, w *world) {
	id := w.create("/api/environments", `{"Name":"Dev"}`)
	w.create("/api/accounts", `{"Name":"A"}`)
	self := "/api/environments/" + id
	for _, tc := range []struct {
		method, path, body string
		status             int
		says               []string // in the body
	}{
		// Bodies.
		{"POST", "/api/environments", "", 400, []string{"no body"}},
		{"POST", "/api/environments", "   \n", 400, []string{"no body"}},
		{"POST", "/api/environments", "[]", 400, []string{"an array", "object"}},
		{"POST", "/api/environments", "null", 400, []string{"null", "object"}},
		{"POST", "/api/environments", `"x"`, 400, []string{"a text", "object"}},
		{"POST", "/api/environments", "{\n \"Name\": \"a\",\n oops}", 400, []string{"line 3, column 2"}},
		{"POST", "/api/environments", `{"Name":"a"`, 400, []string{"ends in the middle"}},
		{"POST", "/api/environments", `{"Name":"a"} x`, 400, []string{"after"}},
		{"POST", "/api/environments", `{"Name":"a\u0000b"}`, 400, []string{"u0000"}},
		{"POST", "/api/environments", "{\"Name\":\"\xff\"}", 400, []string{"UTF-8"}},
		{"POST", "/api/environments", `{"Name":` + strings.Repeat("[", 20000) + `}`, 400, nil},
		{"POST", "/api/environments", `{"Name":5}`, 400, []string{`Name is a number`, "must be a text", `"Details":{"Name":`}},
		{"POST", "/api/environments", `{"Name":"x","SortOrder":"five"}`, 400, []string{"SortOrder is a text", "whole number"}},
		{"POST", "/api/environments", `{"Name":"x","SortOrder":1e40}`, 400, []string{"SortOrder"}},
		{"POST", "/api/environments", `{"Name":"x","EnvironmentTags":{"a":1}}`, 400, []string{"EnvironmentTags is an object", "an array"}},
		{"POST", "/api/environments", `{"Name":"x","ExtensionSettings":[{"extensionid":[]}]}`, 400, []string{"ExtensionSettings.0.ExtensionId is an array; it must be a text"}},
		{"POST", "/api/environments", `{"Name":"x","LastModifiedOn":"yesterday"}`, 400, []string{"LastModifiedOn does not fit", "yesterday", "2026-01-02T03:04:05"}},
		{"POST", "/api/accounts", `{"Name":"x","Token":{"HasValue":"hunter2"}}`, 400, []string{"Token.HasValue is a text; it must be true or false"}},
		{"POST", "/api/environments", `{"Name":""}`, 400, []string{"Name is empty"}},
		{"POST", "/api/environments", `{"Name":"` + strings.Repeat("n", 300) + `"}`, 400, []string{"300 bytes", "200"}},
		{"POST", "/api/environments", `{"Name":"dev"}`, 400, []string{"Name 'dev' is already used", id}},
		{"POST", "/api/environments", `{"Name":"x","Slug":"Not A Slug"}`, 400, []string{"Slug", "not-a-slug"}},
		{"POST", "/api/projects", `{"Name":"x"}`, 400, []string{"LifecycleId is empty"}},
		{"POST", "/api/projects", `{"Name":"","LifecycleId":"Lifecycles-99"}`, 400, []string{"Name is empty", "Lifecycles-99"}},
		{"POST", "/api/Spaces-2/accounts", `{"Name":"x","EnvironmentIds":["` + id + `"]}`, 400, []string{id, "does not exist in this space"}},
		// Queries.
		{"GET", "/api/environments?take=-1", "", 400, []string{"take is '-1'", "whole number"}},
		{"GET", "/api/environments?take=abc&skip=1.5", "", 400, []string{"take is 'abc'", "skip is '1.5'"}},
		{"GET", "/api/environments?skip=0x10", "", 400, []string{"skip"}},
		{"GET", "/api/environments?partialName=%zz", "", 400, []string{"query string"}},
		{"GET", "/api/environments?partialName=%ff", "", 400, []string{"UTF-8"}},
		{"GET", "/api/environments?name=%00", "", 400, []string{"UTF-8"}},
		{"GET", "/api/environments?ids=" + strings.Repeat("a,", 5001), "", 400, []string{"ids has more than 5000"}},
		{"GET", "/api/environments?" + strings.Repeat("a=1&", 201), "", 400, []string{"more than 200"}},
		{"GET", "/api/teams?includeSystem=perhaps", "", 400, []string{"includeSystem", "true or false"}},
		// Paths.
		{"GET", "/api/environments/%00", "", 400, []string{"path"}},
		{"GET", "/api/environments/%ff", "", 400, []string{"path"}},
		{"GET", "/api/environments/Environments-99999999999999999999", "", 404, []string{"environment"}},
		{"GET", "/api/environments/Projects-1", "", 404, nil},
		{"GET", "/api/environments/..%2f..%2fetc", "", 404, nil},
		{"GET", "/api/environments/" + strings.Repeat("x", 5000), "", 404, nil},
		{"GET", "/api/environments/'%20OR%201=1--", "", 404, nil},
		{"GET", "/api/nothing", "", 404, []string{"/api/nothing", "openapi.json"}},
		{"GET", "/api/environments/a/b/c/d/e/f/g/h/i/j", "", 404, nil},
		{"GET", "/api/Spaces-99/environments", "", 404, []string{"Spaces-99"}},
		// Methods.
		{"DELETE", "/api/environments", "", 405, []string{"DELETE", "GET, HEAD, POST"}},
		{"PATCH", self, "", 405, []string{"PATCH"}},
		{"POST", "/api/environments/all", "", 405, nil},
		{"BREW", self, "", 405, nil},
	} {
		before := w.dump()
		a := w.do(tc.method, tc.path, admin, tc.body)
		name := fmt.Sprintf("%s %.80s %.80q", tc.method, tc.path, tc.body)
		if a.status != tc.status {
			t.Errorf("%s: status %d, want %d: %s", name, a.status, tc.status, a.body)
			continue
		}
		for _, s := range tc.says {
			if !strings.Contains(string(a.body), s) {
				t.Errorf("%s: %s does not say %q", name, a.body, s)
			}
		}
		useful(t, name, a)
		if after := w.dump(); after != before {
			t.Errorf("%s changed what is stored", name)
		}
	}
	if allow := w.do(http.MethodDelete, "/api/environments", admin, "").header.Get("Allow"); allow != "GET, HEAD, POST" {
		t.Errorf("Allow is %q", allow)
	}
}

// useful checks the body of a refusal: words for people, in the members where
// clients look for them.
func useful(t interface{ Errorf(string, ...any) }, name string, a answer) {
	var body struct {
		ErrorMessage string
		Errors       *[]string
	}
	if err := unmarshal(a.body, &body); err != nil {
		t.Errorf("%s: %v in %s", name, err, a.body)
		return
	}
	if len(body.ErrorMessage) < 10 {
		t.Errorf("%s: ErrorMessage is %q", name, body.ErrorMessage)
	}
	switch {
	case a.status == http.StatusBadRequest && (body.Errors == nil || len(*body.Errors) == 0):
		t.Errorf("%s: a 400 without Errors: %s", name, a.body)
	case a.status != http.StatusBadRequest && body.Errors != nil:
		t.Errorf("%s: a %d with Errors, which hide its status from clients: %s", name, a.status, a.body)
	}
}

func TestHugeBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(http.MethodPost, "/api/environments", admin, `{"Name":"`+strings.Repeat("x", rest.MaxBody)+`"}`)
	if a.status != http.StatusRequestEntityTooLarge || !strings.Contains(a.text(t, "ErrorMessage"), "16777216") {
		t.Errorf("%d %.300s", a.status, a.body)
	}
	// Within what a request may carry, but more than a document may hold.
	a = w.do(http.MethodPost, "/api/environments", admin, `{"Name":"x","Description":"`+strings.Repeat("x", 9<<20)+`"}`)
	if a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %.300s", a.status, a.body)
	}
}

// TestSpoiledBodies sends what a client might send by mistake: a good body of
// every kind with one member spoiled. None may fail the server, and what is
// refused changes nothing.
func TestSpoiledBodies(t *testing.T) {
	t.Parallel()
	onBoth(t, spoiledBodies)
}

func spoiledBodies(t *testing.T, w *world) {
	env := w.create("/api/environments", `{"Name":"Dev"}`)
	life := w.create("/api/lifecycles", `{"Name":"L"}`)
	project := w.create("/api/projects", `{"Name":"P","LifecycleId":"`+life+`"}`)
	good := map[string]map[string]any{
		"spaces":       {"Name": "S"},
		"environments": {"Name": "E", "SortOrder": 3, "EnvironmentTags": []any{"a/b"}},
		"lifecycles":   {"Name": "LL", "Phases": []any{map[string]any{"Name": "one", "OptionalDeploymentTargets": []any{env}}}},
		"projects":     {"Name": "PP", "LifecycleId": life},
		"channels":     {"Name": "C", "ProjectId": project},
		"accounts":     {"Name": "A", "AccountType": "Token", "Token": map[string]any{"HasValue": true, "NewValue": "x"}, "EnvironmentIds": []any{env}},
		"teams":        {"Name": "T"},
	}
	ids := map[string]string{}
	members := map[string][]string{}
	for kind, k := range testKinds(t) {
		ids[kind] = w.create("/api/"+kind, encode(t, good[kind]))
		members[kind] = memberNames(k.Type)
	}
	kinds := slices.Sorted(func(yield func(string) bool) {
		for k := range good {
			if !yield(k) {
				return
			}
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		kind := rapid.SampledFrom(kinds).Draw(rt, "kind")
		body := map[string]any{}
		for k, v := range good[kind] {
			body[k] = v
		}
		for range rapid.IntRange(1, 3).Draw(rt, "spoiled") {
			body[rapid.SampledFrom(members[kind]).Draw(rt, "member")] = spoil().Draw(rt, "value")
		}
		prefix := "/api/"
		if kind != "spaces" {
			prefix = rapid.SampledFrom([]string{"/api/", "/api/", "/api/Spaces-1/", "/api/spaces/Spaces-1/", "/api/Spaces-2/", "/api/Spaces-77/"}).Draw(rt, "where")
		}
		method, path := http.MethodPost, prefix+kind
		if rapid.Bool().Draw(rt, "replace") {
			method, path = http.MethodPut, prefix+kind+"/"+rapid.SampledFrom([]string{ids[kind], ids[kind], ids[kind], "x", "'"}).Draw(rt, "id")
		}
		before := w.dump()
		a := w.do(method, path, admin, encode(t, body))
		switch {
		case a.status == http.StatusOK || a.status == http.StatusCreated:
			if id := a.text(t, "Id"); method == http.MethodPost {
				w.must(http.StatusOK, http.MethodDelete, path+"/"+id, "")
			} else {
				w.must(http.StatusOK, http.MethodPut, path, encode(t, good[kind]))
			}
		case a.status >= 400 && a.status < 500:
			useful(rt, path, a)
			if after := w.dump(); after != before {
				rt.Errorf("%s %s: a refused request changed what is stored", method, path)
			}
		default:
			rt.Errorf("%s %s %s: %d %s", method, path, encode(t, body), a.status, a.body)
		}
	})
}

// spoil is a value that does not belong where it is put.
func spoil() *rapid.Generator[any] {
	return rapid.OneOf(
		rapid.SampledFrom([]any{
			nil, true, -1, 1.5, 1e300, "", " ", "Environments-99", "Spaces-2", "%", "../..", "<script>", "\u2028", strings.Repeat("ä", 500),
			[]any{},
			[]any{nil},
			[]any{[]any{}},
			[]any{1},
			[]any{"x", "x"},
			map[string]any{},
			map[string]any{"": nil},
			map[string]any{"HasValue": true},
			map[string]any{"HasValue": true, "NewValue": 5},
			[]any{map[string]any{"Id": []any{}}},
		}),
		rapid.Custom(func(t *rapid.T) any { return rapid.String().Draw(t, "text") }),
	)
}

func memberNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, memberNames(f.Type)...)
		case name != "-" && f.IsExported():
			names = append(names, name)
		}
	}
	return names
}

func TestRoutesNamePermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lines := w.api.Routes()
	if len(lines) < 40 {
		t.Fatalf("only %d routes", len(lines))
	}
	for _, l := range lines {
		if l.Permission == "" || l.Summary == "" || l.Mount.String() == "" {
			t.Errorf("%s %s names no permission, or has no summary", l.Method, l.Path)
		}
	}
	handler := func(*rest.Request) (any, error) { return nil, nil }
	for name, r := range map[string]rest.Route{
		"no permission": {Method: "GET", Pattern: "/x", Handler: handler, Summary: "x"},
		"no summary":    {Method: "GET", Pattern: "/x", Handler: handler, Permission: rest.Public},
		"no handler":    {Method: "GET", Pattern: "/x", Summary: "x", Permission: rest.Public},
		"no method":     {Pattern: "/x", Handler: handler, Summary: "x", Permission: rest.Public},
		"permission":    {Method: "GET", Pattern: "/x", Handler: handler, Summary: "x", Permission: "ProjectAdore"},
		"override":      {Method: "GET", Pattern: "/x/{id}", Handler: handler, Summary: "x", Permission: rest.Public, Overrides: true},
		"taken":         {Method: "GET", Pattern: "/environments/{other}", Handler: handler, Summary: "x", Permission: rest.Public},
		"bad pattern":   {Method: "GET", Pattern: "/{", Handler: handler, Summary: "x", Permission: rest.Public},
	} {
		_, err := rest.New(rest.Config{DB: w.db, Store: w.store, Auth: w.keys, Version: "1.0.0", Routes: []rest.Route{r}})
		if err == nil {
			t.Errorf("a route with %s was taken", name)
		}
	}
	if _, err := rest.New(rest.Config{DB: w.db, Store: w.store, Auth: w.keys, Version: "1.0.0+abc"}); err == nil {
		t.Error("a version with a +suffix was taken")
	}
}
