package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/examples"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/octopus"
)

// demo makes the example's project and deploys it, over the API alone.
type demo struct {
	*client
	root string // where the service is installed
	out  io.Writer

	project octopus.Project
	dev     octopus.Environment
	prod    octopus.Environment
}

// What the example is called.
const (
	demoProject = "Hello web"
	demoPackage = "hello-web"
	demoStep    = "Deploy web service"
	demoAPI     = "/api/Spaces-1"
)

// prepare makes what the example needs; what is there from an earlier run stays.
func (d *demo) prepare(ctx context.Context) error {
	var err error
	if d.dev, err = ensure(ctx, d.client, "/environments", "Dev", octopus.Environment{Name: "Dev"}); err != nil {
		return err
	}
	if d.prod, err = ensure(ctx, d.client, "/environments", "Production", octopus.Environment{Name: "Production"}); err != nil {
		return err
	}
	lifecycle, err := ensure(ctx, d.client, "/lifecycles", "Dev to Production", octopus.Lifecycle{
		Name: "Dev to Production", Phases: octopus.List[octopus.Phase]{
			{Name: "Development", OptionalDeploymentTargets: octopus.List[string]{d.dev.ID}},
			{Name: "Live", OptionalDeploymentTargets: octopus.List[string]{d.prod.ID}},
		},
	})
	if err != nil {
		return err
	}
	d.project, err = ensure(ctx, d.client, "/projects", demoProject, octopus.Project{Name: demoProject, ProjectGroupID: "ProjectGroups-1", LifecycleID: lifecycle.ID})
	if err != nil {
		return err
	}
	if err := d.process(ctx); err != nil {
		return err
	}
	return d.variables(ctx)
}

// ensure returns the document of that name, which it makes when there is none.
func ensure[T any](ctx context.Context, c *client, kind, name string, v T) (T, error) {
	var page octopus.Page[T]
	err := c.call(ctx, http.MethodGet, demoAPI+kind+"?name="+url.QueryEscape(name), nil, &page)
	if err != nil || len(page.Items) > 0 {
		if err == nil {
			v = page.Items[0]
		}
		return v, err
	}
	return v, c.call(ctx, http.MethodPost, demoAPI+kind, v, &v)
}

func script(name, file string, more octopus.Properties) (octopus.Step, error) {
	body, err := examples.HelloWeb.ReadFile("hello-web/" + file)
	if err != nil {
		return octopus.Step{}, err
	}
	properties := octopus.Properties{
		octopus.PropRunOnServer: octopus.Plain("True"), octopus.PropScriptSource: octopus.Plain("Inline"),
		octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropScriptBody: octopus.Plain(string(body)),
	}
	for key, value := range more {
		properties[key] = value
	}
	return octopus.Step{Name: name, Actions: octopus.List[octopus.Action]{{Name: name, ActionType: octopus.ActionScript, Properties: properties}}}, nil
}

// process writes the steps anew, so that a newer demo brings its own.
func (d *demo) process(ctx context.Context) error {
	var p octopus.DeploymentProcess
	path := demoAPI + "/deploymentprocesses/" + d.project.DeploymentProcessID
	if err := d.call(ctx, http.MethodGet, path, nil, &p); err != nil {
		return err
	}
	deploy, err := script(demoStep, "deploy.sh", octopus.Properties{
		octopus.PropEnabledFeatures:                    octopus.Plain("Octopus.Features.SubstituteInFiles"),
		"Octopus.Action.SubstituteInFiles.TargetFiles": octopus.Plain("hello-web/config.json"),
	})
	if err != nil {
		return err
	}
	deploy.Actions[0].Packages = octopus.List[octopus.PackageReference]{{
		Name: demoPackage, PackageID: demoPackage, FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireOnServer,
		Properties: octopus.Map[string, octopus.PropertyText]{octopus.PackagePropExtract: "True"},
	}}
	check, err := script("Check health", "check.sh", nil)
	if err != nil {
		return err
	}
	announce, err := script("Announce", "announce.sh", nil)
	if err != nil {
		return err
	}
	announce.StartTrigger = octopus.StartWithPrevious
	p.Steps = octopus.List[octopus.Step]{deploy, check, announce}
	return d.call(ctx, http.MethodPut, path, p, nil)
}

func (d *demo) variables(ctx context.Context) error {
	var set octopus.VariableSet
	path := demoAPI + "/variables/" + d.project.VariableSetID
	if err := d.call(ctx, http.MethodGet, path, nil, &set); err != nil {
		return err
	}
	in := func(env octopus.Environment) octopus.Scope {
		return octopus.Scope{Environment: octopus.List[string]{env.ID}}
	}
	value := func(name, text string, scope octopus.Scope) octopus.Variable {
		return octopus.Variable{Name: name, Value: &text, Type: octopus.VariableString, Scope: scope}
	}
	set.Variables = octopus.List[octopus.Variable]{
		value("InstallRoot", d.root, octopus.Scope{}),
		value("Greeting", "Hello from #{Octopus.Environment.Name}, with love", octopus.Scope{}),
		value("Greeting", "Hello, world", in(d.prod)),
		value("Port", "8081", in(d.dev)),
		value("Port", "8082", in(d.prod)),
	}
	return d.call(ctx, http.MethodPut, path, set, nil)
}

// zipped is the example's package.
func zipped() ([]byte, error) {
	files, err := fs.Sub(examples.HelloWeb, "hello-web/package")
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	if err := w.AddFS(files); err != nil {
		return nil, err
	}
	err = w.Close()
	return archive.Bytes(), err
}

// deploy pushes the package, makes a release and follows it to Dev.
func (d *demo) deploy(ctx context.Context, cfg config.Config) error {
	content, err := zipped()
	if err != nil {
		return err
	}
	pushed := time.Now().UTC().Format("2006.102.150405")
	var p octopus.Package
	if err := d.upload(ctx, demoAPI+"/packages/raw?overwriteMode=IgnoreIfExists", demoPackage+"."+pushed+".zip", content, &p); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "Pushed package %s %s (%d bytes).\n", p.PackageID, p.Version, p.PackageSizeBytes)
	var made struct{ ReleaseID, ReleaseVersion string }
	if err := d.call(ctx, http.MethodPost, demoAPI+"/releases/create/v1", map[string]any{"projectName": demoProject, "packageVersion": pushed}, &made); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "Created release %s of %s.\n", made.ReleaseVersion, demoProject)
	var started struct {
		DeploymentServerTasks []struct{ DeploymentID, ServerTaskID string }
	}
	err = d.call(ctx, http.MethodPost, demoAPI+"/deployments/create/untenanted/v1", map[string]any{
		"projectName": demoProject, "releaseVersion": made.ReleaseVersion, "environmentNames": []string{"Dev"},
	}, &started)
	if err != nil {
		return err
	}
	if len(started.DeploymentServerTasks) != 1 {
		return fmt.Errorf("the server started %d deployments, want 1", len(started.DeploymentServerTasks))
	}
	task := started.DeploymentServerTasks[0].ServerTaskID
	fmt.Fprintf(d.out, "Deploying it to Dev as %s:\n", task)
	state, err := d.watch(ctx, task)
	if err != nil {
		return err
	}
	if state != octopus.TaskSuccess {
		return fmt.Errorf("the deployment ended as %s; see %s%s/tasks/%s/raw", state, d.url, demoAPI, task)
	}
	d.next(cfg, made.ReleaseVersion, task)
	return nil
}

// watch prints the log as it comes and returns how the task ended.
func (d *demo) watch(ctx context.Context, task string) (state octopus.TaskState, err error) {
	err = d.follow(ctx, demoAPI+"/tasks/"+task+"/log", func(event, data string) error {
		var line struct {
			Category    octopus.LogCategory
			MessageText string
			State       octopus.TaskState
		}
		if err := json.Unmarshal([]byte(data), &line); err != nil {
			return err
		}
		if event == "end" {
			state = line.State
			return nil
		}
		if line.Category != octopus.LogVerbose {
			fmt.Fprintf(d.out, "  %-9s %s\n", line.Category, line.MessageText)
		}
		return nil
	})
	if err == nil && state == "" {
		err = errors.New("the live log ended before the deployment did")
	}
	return state, err
}

func (d *demo) next(cfg config.Config, release, task string) {
	data := cfg.Data
	if short, err := filepath.Rel(filepath.Dir(cfg.Data), cfg.Data); err == nil {
		data = "./" + short
	}
	text := `
Done: release $R runs in Dev, at http://127.0.0.1:8081/

What to do next:
  Get an API key:        export KEY=$(bin/tako admin create-api-key --user $U --data $D)
  Read the whole log:    curl -H "X-Octopus-ApiKey: $KEY" $S/api/Spaces-1/tasks/$T/raw
  Go to Production:      curl -H "X-Octopus-ApiKey: $KEY" $S/api/Spaces-1/deployments/create/untenanted/v1 \
                           -d '{"projectName":"Hello web","releaseVersion":"$R","environmentNames":["Production"]}'
  Look at the API:       $S/api/openapi.json
  Stop the service:      kill $(cat $D/demo/Dev/service.pid)
`
	fmt.Fprintln(d.out, strings.NewReplacer("$R", release, "$U", cfg.AdminUsername, "$D", data, "$S", d.url, "$T", task).Replace(text))
}
