package app_test

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/rest"
)

// Files of the list of what clients call, and of the document that is made of it.
const (
	endpointsFile = "../../docs/api-endpoints.csv"
	documentFile  = "../../docs/api-compatibility.md"
	// Between these lines the document is made by this test.
	beginMark = "<!-- made by `make docs`: do not edit below -->\n"
	endMark   = "<!-- end of what is made -->\n"
)

// endpoint is an operation that some client of Octopus Deploy's API calls.
type endpoint struct{ method, path, priority string }

// unserved are the reasons for which operations are not served, by what their path
// has in it; the first that fits holds.
func unserved() [][2]string {
	return [][2]string{
		{"/runbook", "runbooks are not there yet"},
		{"/api/deployments/{id}", "what a deployment was made with does not change"},
		{"/tasks/details", "details are read of one task, by its id"},
		{"/api/{spaceid}/variables", "a variable set comes and goes with its owner, and is changed by PUT"},
		{"/artifacts", "artifacts come from deployments; nobody adds others yet"},
		{"/interruptions/all", "interruptions are read by pages"},
		{"/dashboard/{id}", "dashboards have no ids"},
		{"/projecttriggers/{id}", "triggers are changed by PUT"},
		{"approval", "there are no approvals by change management"},
		{"/jira", "there are no issue trackers"},
		{"/azuredevops", "there are no issue trackers"},
		{"/ratelimiting", "there are no rate limits to configure"},
		{"/serverstatus", "there is no report of the system yet"},
		{"/api/configuration", "a server is configured by its flags and file"},
		{"onboarding", "there is no tour"},
		{"/platformhub", "there is no Platform Hub"},
		{"/processtemplates", "there is no Platform Hub"},
		{"/observability", "there is no Kubernetes monitor"},
		{"/livestatus", "there is no Kubernetes monitor"},
		{"/untenanted/", "there is no Kubernetes monitor"},
		{"/machines/{machineId}/resources", "there is no Kubernetes monitor"},
		{"/parentenvironments", "there are no ephemeral environments"},
		{"/ephemeral", "there are no ephemeral environments"},
		{"/deprovision", "there are no ephemeral environments"},
		{"/featuretoggles", "there are no feature toggles of projects"},
		{"/insights", "there are no insights"},
		{"/git", "projects are kept in the database"},
		{"{gitref}", "projects are kept in the database"},
		{"{ref}", "projects are kept in the database"},
		{"/octopusid", "there is no sign-in with an Octopus ID"},
		{"/communityactiontemplates", "no template of the community's library is kept"},
		{"/letsencrypt", "certificates of the server itself are its operator's to get"},
		{"/import-export", "spaces are moved with backups"},
		{"/migrations", "spaces are moved with backups"},
		{"/cloudtemplate", "cloud templates are not read"},
		{"/discover", "targets are not looked for"},
		{"/licenses", "there is nothing to license"},
		{"/invitations", "people are added by administrators"},
		{"/register", "people are added by administrators"},
		{"/telemetry", "nothing is reported to anybody"},
		{"/reporting", "there are no reports"},
		{"/scheduler", "the scheduler shows itself in the log"},
		{"/azure", "cloud accounts are not looked into"},
		{"/aws", "cloud accounts are not looked into"},
		{"", "not there yet"},
	}
}

func endpoints(t *testing.T) []endpoint {
	t.Helper()
	f, err := os.Open(endpointsFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var all []endpoint
	for _, row := range rows[1:] {
		all = append(all, endpoint{row[0], row[1], row[2]})
	}
	if len(all) < 400 {
		t.Fatalf("the list has %d rows", len(all))
	}
	return all
}

// words are the segments of a path; those of a template's tail are cut off.
func words(path string) []string {
	path, _, _ = strings.Cut(path, "{/")
	return strings.Split(strings.Trim(strings.ToLower(path), "/"), "/")
}

// spellings are the paths at which a route answers.
func spellings(l rest.Line) [][]string {
	all := [][]string{words(l.Path)}
	if rest, ok := strings.CutPrefix(l.Path, "/api/{space}"); ok {
		all = append(all, words("/api"+rest), words("/api/spaces/{space}"+rest))
	}
	return all
}

func serves(route []string, path []string) bool {
	if len(route) != len(path) {
		return false
	}
	for i, word := range route {
		if word != path[i] && !(strings.HasPrefix(word, "{") && strings.HasPrefix(path[i], "{")) {
			return false
		}
	}
	return true
}

// compatibility is the part of the document that is made.
func compatibility(t *testing.T) string {
	t.Helper()
	lines, err := app.RouteTable("2026.4.0-test")
	if err != nil {
		t.Fatal(err)
	}
	type count struct{ served, all int }
	counts, missing := map[string]count{}, map[string][]endpoint{}
	for _, e := range endpoints(t) {
		c := counts[e.priority]
		c.all++
		if slices.ContainsFunc(lines, func(l rest.Line) bool {
			return l.Method == e.method && slices.ContainsFunc(spellings(l), func(s []string) bool { return serves(s, words(e.path)) })
		}) {
			c.served++
		} else {
			missing[e.priority] = append(missing[e.priority], e)
		}
		counts[e.priority] = c
	}
	var b strings.Builder
	b.WriteString("## What clients call\n\nThe operations that known clients call (`docs/api-endpoints.csv`), by how much depends on them:\n\n| priority | served | of |\n|---|---|---|\n")
	for _, p := range []string{"1", "2", "3"} {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", p, counts[p].served, counts[p].all)
	}
	b.WriteString("\nOf priority 1 these are not served:\n\n| operation | why |\n|---|---|\n")
	for _, e := range missing["1"] {
		fmt.Fprintf(&b, "| `%s %s` | %s |\n", e.method, e.path, reason(e))
	}
	b.WriteString("\nOf the others, by reason:\n\n| why | operations |\n|---|---|\n")
	byReason := map[string]int{}
	for _, p := range []string{"2", "3"} {
		for _, e := range missing[p] {
			byReason[reason(e)]++
		}
	}
	var reasons []string
	for why := range byReason {
		reasons = append(reasons, why)
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Or(cmp.Compare(byReason[b], byReason[a]), cmp.Compare(a, b))
	})
	for _, why := range reasons {
		fmt.Fprintf(&b, "| %s | %d |\n", why, byReason[why])
	}
	b.WriteString("\n")
	return b.String()
}

func reason(e endpoint) string {
	for _, r := range unserved() {
		if strings.Contains(strings.ToLower(e.path), strings.ToLower(r[0])) {
			return r[1]
		}
	}
	return ""
}

// TestCompatibilityDocument: the document says what the table of routes says. With
// TAKO_UPDATE_DOCS=1 it is made anew.
func TestCompatibilityDocument(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(documentFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), beginMark)
	old, after, closed := strings.Cut(rest, endMark)
	if !ok || !closed {
		t.Fatalf("%s has not the lines between which it is made", documentFile)
	}
	made := compatibility(t)
	if os.Getenv("TAKO_UPDATE_DOCS") == "1" {
		if err := os.WriteFile(documentFile, []byte(before+beginMark+"\n"+made+endMark+after), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
		return
	}
	if old != "\n"+made {
		t.Errorf("%s is not what the table of routes says; make it anew with `make docs`", documentFile)
	}
}
