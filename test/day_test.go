package test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

func decode[T any](t testing.TB, body []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %.500s", err, body)
	}
	return v
}

const secretValue = "s3cr3t-t0ken-value"

// TestAUsersDay goes from nothing to Production over HTTP alone.
func TestAUsersDay(t *testing.T) {
	t.Parallel()
	apptest.Run(t, func(t *testing.T, s *apptest.Server) {
		c := s.Client
		m := newModel(t, c)

		// A process of three steps, the third beside the second.
		install := script("Install", `
echo "Installing with greeting $(get_octopusvariable Greeting)"
cat web/config.json
echo "The token is $(get_octopusvariable ApiToken)"
set_octopusvariable Url "http://$(get_octopusvariable Octopus.Environment.Name | tr A-Z a-z).example.com/"
set_octopusvariable SessionKey "made-of-$(get_octopusvariable ApiToken)" -sensitive
`)
		install.Actions[0].Packages = octopus.List[octopus.PackageReference]{{
			Name: "web", PackageID: "Acme.Web", FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireOnServer,
			Properties: octopus.Map[string, octopus.PropertyText]{octopus.PackagePropExtract: "True"},
		}}
		install.Actions[0].Properties[octopus.PropEnabledFeatures] = octopus.Plain("Octopus.Features.SubstituteInFiles")
		install.Actions[0].Properties["Octopus.Action.SubstituteInFiles.TargetFiles"] = octopus.Plain("web/*.json")
		check := script("Check", `
url=$(get_octopusvariable "Octopus.Action[Install].Output.Url")
echo "checking $url"
echo "result of $url" > report.txt
new_octopusartifact report.txt "Report of #{Octopus.Environment.Name}.txt"
write_highlight "Answers at $url"
`)
		notify := beside(script("Notify", `echo "telling people about #{Octopus.Release.Number}"; write_warning "nobody listens"`))
		p := m.process(t, install, check, notify)
		if len(p.Steps) != 3 || p.Steps[0].ID == "" || p.Version < 1 {
			t.Fatalf("process came back as %+v", p)
		}
		m.variables(t,
			text("Greeting", "Hello developers", in(m.Dev)), text("Greeting", "Hello customers", in(m.Production)),
			octopus.Variable{Name: "ApiToken", Value: new(secretValue), Type: octopus.VariableSensitive})
		set := c.Must(t, http.MethodGet, space+"/variables/"+m.Project.VariableSetID, nil, nil)
		if strings.Contains(string(set.Body), secretValue) || strings.Contains(string(set.Body), `"Secret"`) {
			t.Errorf("the variable set shows a secret: %s", set.Body)
		}

		// A package.
		content := archive(t, map[string]string{"config.json": `{"greeting": "#{Greeting}", "version": "#{Octopus.Release.Number}"}`})
		if r := c.Upload(t, space+"/packages/raw?overwriteMode=FailIfExists", "Acme.Web.1.2.0.zip", content); r.Status != http.StatusCreated {
			t.Fatalf("push: %d %s", r.Status, r.Body)
		}
		if r := c.Upload(t, space+"/packages/raw?overwriteMode=FailIfExists", "Acme.Web.1.2.0.zip", content); r.Status != http.StatusConflict || !strings.Contains(string(r.Body), "already exists") {
			t.Errorf("second push: %d %s", r.Status, r.Body)
		}

		// A release.
		id, version := m.release(t, nil)
		release := apptest.Get[octopus.Release](t, c, space+"/releases/"+id)
		if version != "0.0.1" || len(release.SelectedPackages) != 1 || release.SelectedPackages[0].Version != "1.2.0" {
			t.Errorf("release %s selects %+v", version, release.SelectedPackages)
		}

		// Production is refused before Dev has it.
		said := c.Refused(t, http.StatusBadRequest, http.MethodPost, space+"/deployments/create/untenanted/v1", m.deployment(version, m.Production))
		if !strings.Contains(said, "Production") || !strings.Contains(said, "Development") {
			t.Errorf("the refusal says %q", said)
		}

		// Dev, with its live log.
		task := m.deploy(t, version, m.Dev)
		live := follow(t, c, task)
		done := wait(t, c, task, 4*time.Minute)
		if !done.FinishedSuccessfully || done.State != octopus.TaskSuccess || !done.HasWarningsOrErrors {
			t.Fatalf("task ended as %s (warnings %v): %s\n%s", done.State, done.HasWarningsOrErrors, done.ErrorMessage, strings.Join(live, "\n"))
		}
		log := strings.Join(live, "\n")
		for _, want := range []string{
			"Installing with greeting Hello developers", `{"greeting": "Hello developers", "version": "0.0.1"}`,
			"The token is ********", "checking http://dev.example.com/", "Answers at http://dev.example.com/", "telling people about 0.0.1",
		} {
			if !strings.Contains(log, want) {
				t.Errorf("the live log lacks %q:\n%s", want, log)
			}
		}
		if strings.Contains(log, secretValue) {
			t.Errorf("the live log shows the secret:\n%s", log)
		}
		raw := string(c.Must(t, http.MethodGet, space+"/tasks/"+task+"/raw", nil, nil).Body)
		for _, line := range live {
			if !strings.Contains(raw, line) {
				t.Errorf("the raw log lacks the live line %q", line)
			}
		}

		// Details, outputs and artifacts.
		details := apptest.Get[octopus.TaskDetails](t, c, space+"/tasks/"+task+"/details")
		root := details.ActivityLogs[0]
		if len(root.Children) != 4 || root.Children[3].Status != octopus.ActivitySuccessWithWarning || root.Children[0].Name != "Acquire packages" || root.Children[1].Status != octopus.ActivitySuccess {
			t.Errorf("the log tree is %+v", root.Children)
		}
		artifacts := apptest.Get[octopus.Page[octopus.Artifact]](t, c, space+"/artifacts?regarding="+task)
		if len(artifacts.Items) != 1 || artifacts.Items[0].Filename != "Report of Dev.txt" {
			t.Fatalf("artifacts are %+v", artifacts.Items)
		}
		file := c.Must(t, http.MethodGet, artifacts.Items[0].Links["Content"], nil, nil)
		if string(file.Body) != "result of http://dev.example.com/\n" {
			t.Errorf("the artifact is %q", file.Body)
		}

		// Production now.
		done = wait(t, c, m.deploy(t, version, m.Production), 4*time.Minute)
		if !done.FinishedSuccessfully {
			t.Errorf("Production ended as %s: %s", done.State, done.ErrorMessage)
		}
		progress := apptest.Get[octopus.LifecycleProgression](t, c, space+"/releases/"+id+"/progression")
		if len(progress.Phases) != 2 || progress.Phases[1].Progress != "Complete" {
			t.Errorf("progression is %+v", progress.Phases)
		}

		// The audit trail.
		events := apptest.Get[octopus.Page[octopus.Event]](t, c, "/api/events?take=200")
		var seen []string
		for _, e := range events.Items {
			seen = append(seen, string(e.Category))
			if strings.Contains(e.Message+string(mustJSON(t, e)), secretValue) {
				t.Errorf("event %s shows the secret", e.ID)
			}
		}
		for _, want := range []string{"Created", "Modified", "DeploymentQueued", "DeploymentStarted", "DeploymentSucceeded"} {
			if !slices.Contains(seen, want) {
				t.Errorf("the audit trail has no %s event: %v", want, seen)
			}
		}
	})
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// follow reads the live log of a task to its end.
func follow(t testing.TB, c *apptest.Client, task string) []string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/api/tasks/"+task+"/log", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Octopus-ApiKey", c.Key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("live log: %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	var texts []string
	last, event := int64(0), ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case name == "event":
			event = value
		case name == "data" && event == "line":
			line := decode[octopus.LogElement](t, []byte(value))
			if line.Number != last+1 {
				t.Errorf("line %d comes after line %d", line.Number, last)
			}
			last = line.Number
			texts = append(texts, line.MessageText)
		}
	}
	return texts
}
