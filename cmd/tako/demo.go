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
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/examples"
	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/octopus"
)

// demo registers the targets, makes the example's project and deploys it, over the API
// alone.
type demo struct {
	*client
	crew   *crew
	polled string // where agents poll the server
	cfg    config.Config
	out    io.Writer

	project octopus.Project
	dev     octopus.Environment
	prod    octopus.Environment
}

// What the example is called. Its script looks for demoInstall's output.
const (
	demoProject = "Hello web"
	demoPackage = "hello-web"
	demoInstall = "Deploy web service"
	demoTag     = "web"
	demoDev     = "Dev"
	demoProd    = "Production"
	demoAPI     = "/api/Spaces-1"
)

// clearFor is how long the deployments may take to end that are canceled.
const clearFor = 30 * time.Second

// run deploys the example, and unless once is set it waits for the end of ctx. What is
// being deployed then is canceled, so that nothing of it goes on.
func (d *demo) run(ctx context.Context, opt app.Options, once bool) error {
	err := d.show(ctx, opt, once)
	if err == nil && !once {
		<-ctx.Done()
		fmt.Fprintln(d.out)
	}
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errServerEnded): // which says why
		return nil
	case errors.Is(cause, errAgentEnded):
		err = cause
	case cause != nil: // it was told to end, of which err tells
		err = nil
	}
	if d.project.ID == "" {
		return err
	}
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), clearFor)
	defer stop()
	return errors.Join(err, d.clear(ending))
}

// show is the demo from its preparation to what to do next.
func (d *demo) show(ctx context.Context, opt app.Options, once bool) error {
	admin, err := app.OpenAdmin(ctx, d.cfg, opt)
	if err != nil {
		return err
	}
	d.key, err = admin.CreateAPIKey(ctx, d.cfg.AdminUsername, "demo")
	if err = errors.Join(err, admin.Close()); err != nil {
		return err
	}
	if err := d.prepare(ctx); err != nil {
		return fmt.Errorf("prepare the example: %w", err)
	}
	release, task, err := d.deploy(ctx)
	if err != nil {
		return err
	}
	for _, t := range d.crew.targets {
		if err := d.answers(ctx, t, release); err != nil {
			return err
		}
	}
	if !once {
		d.next(release, task)
	}
	return nil
}

// prepare makes what the example needs; what is there from an earlier run stays.
func (d *demo) prepare(ctx context.Context) error {
	var err error
	if d.dev, err = ensure(ctx, d.client, "/environments", demoDev, octopus.Environment{Name: demoDev}); err != nil {
		return err
	}
	if d.prod, err = ensure(ctx, d.client, "/environments", demoProd, octopus.Environment{Name: demoProd}); err != nil {
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
	if err := d.targets(ctx); err != nil {
		return err
	}
	if err := d.process(ctx); err != nil {
		return err
	}
	return d.variables(ctx)
}

// targets registers the agents, starts them, and has the server look whether they are well.
func (d *demo) targets(ctx context.Context) error {
	g, each := errgroup.WithContext(ctx)
	for _, t := range d.crew.targets {
		g.Go(func() error {
			if err := d.crew.install(each, t, d.url, d.polled, d.key); err != nil {
				return err
			}
			return d.crew.start(each, t)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	// What a demo that was killed has left is canceled now that its agents are there.
	if err := d.clear(ctx); err != nil {
		return err
	}
	ids := make([]string, len(d.crew.targets))
	for i, t := range d.crew.targets {
		machine, err := d.machine(ctx, t)
		if err != nil {
			return err
		}
		t.id, ids[i] = machine.ID, machine.ID
	}
	var task octopus.Task
	err := d.call(ctx, http.MethodPost, demoAPI+"/tasks", map[string]any{
		"Name": octopus.TaskHealth, "Description": "Check the demo's agents", "Arguments": map[string]any{"MachineIds": ids},
	}, &task)
	if err != nil {
		return err
	}
	if _, err := d.watch(ctx, task.ID, io.Discard); err != nil {
		return err
	}
	for _, t := range d.crew.targets {
		machine, err := d.machine(ctx, t)
		if err != nil {
			return err
		}
		if machine.HealthStatus != octopus.Healthy {
			return fmt.Errorf("the agent %s is %s: %s; its log is %s", t.name, machine.HealthStatus, machine.StatusSummary, t.log)
		}
		how := "polls the server at " + d.polled
		if t.style == octopus.StyleListening {
			how = fmt.Sprintf("listens at 127.0.0.1:%d", t.port)
		}
		fmt.Fprintf(d.out, "The agent %s %s and is healthy.\n", t.name, how)
	}
	return nil
}

// machine is a target as the server knows it.
func (d *demo) machine(ctx context.Context, t *demoTarget) (octopus.Machine, error) {
	var page octopus.Page[octopus.Machine]
	if err := d.call(ctx, http.MethodGet, demoAPI+"/machines?name="+url.QueryEscape(t.name), nil, &page); err != nil {
		return octopus.Machine{}, err
	}
	if len(page.Items) != 1 {
		return octopus.Machine{}, fmt.Errorf("the server knows %d targets with the name %s, want 1", len(page.Items), t.name)
	}
	return page.Items[0], nil
}

// clear cancels the project's deployments that have not ended, and waits until they have.
func (d *demo) clear(ctx context.Context) error {
	var page octopus.Page[octopus.Task]
	path := demoAPI + "/tasks?name=" + string(octopus.TaskDeploy) + "&active=true&project=" + d.project.ID
	if err := d.call(ctx, http.MethodGet, path, nil, &page); err != nil {
		return err
	}
	for _, task := range page.Items {
		var refused *apiError // it may have ended meanwhile
		if err := d.call(ctx, http.MethodPost, demoAPI+"/tasks/"+task.ID+"/cancel", nil, nil); err != nil && !errors.As(err, &refused) {
			return err
		}
		state, err := d.watch(ctx, task.ID, io.Discard)
		if err != nil {
			return fmt.Errorf("cancel %s: %w", task.ID, err)
		}
		fmt.Fprintf(d.out, "The deployment %s had not ended, and is %s now.\n", task.ID, state)
	}
	return nil
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

// demoScript is an action that runs a script of the example.
func demoScript(name, file, onServer string) (octopus.Action, error) {
	body, err := examples.HelloWeb.ReadFile("hello-web/" + file)
	if err != nil {
		return octopus.Action{}, err
	}
	return octopus.Action{Name: name, ActionType: octopus.ActionScript, Properties: octopus.Properties{
		octopus.PropRunOnServer: octopus.Plain(onServer), octopus.PropScriptSource: octopus.Plain("Inline"),
		octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropScriptBody: octopus.Plain(string(body)),
	}}, nil
}

// process writes the steps anew, so that a newer demo brings its own.
func (d *demo) process(ctx context.Context) error {
	var p octopus.DeploymentProcess
	path := demoAPI + "/deploymentprocesses/" + d.project.DeploymentProcessID
	if err := d.call(ctx, http.MethodGet, path, nil, &p); err != nil {
		return err
	}
	install := octopus.Action{
		Name: demoInstall, ActionType: octopus.ActionPackage,
		Properties: octopus.Properties{
			octopus.PropRunOnServer:                        octopus.Plain("False"),
			octopus.PropEnabledFeatures:                    octopus.Plain("Octopus.Features.SubstituteInFiles"),
			"Octopus.Action.SubstituteInFiles.TargetFiles": octopus.Plain("config.json"),
		},
		Packages: octopus.List[octopus.PackageReference]{{PackageID: demoPackage, FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireOnServer}},
	}
	start, err := demoScript("Start and check", "start.sh", "False")
	if err != nil {
		return err
	}
	announce, err := demoScript("Announce", "announce.sh", "True")
	if err != nil {
		return err
	}
	p.Steps = octopus.List[octopus.Step]{
		{
			Name: "One web server after the other", Actions: octopus.List[octopus.Action]{install, start},
			Properties: octopus.Properties{octopus.PropTargetRoles: octopus.Plain(demoTag), octopus.PropMaxParallelism: octopus.Plain("1")},
		},
		{Name: announce.Name, Actions: octopus.List[octopus.Action]{announce}, StartTrigger: octopus.StartWithPrevious},
	}
	return d.call(ctx, http.MethodPut, path, p, nil)
}

func (d *demo) variables(ctx context.Context) error {
	var set octopus.VariableSet
	path := demoAPI + "/variables/" + d.project.VariableSetID
	if err := d.call(ctx, http.MethodGet, path, nil, &set); err != nil {
		return err
	}
	value := func(name, text string, scope octopus.Scope) octopus.Variable {
		return octopus.Variable{Name: name, Value: &text, Type: octopus.VariableString, Scope: scope}
	}
	set.Variables = octopus.List[octopus.Variable]{
		value("Greeting", "Hello from #{Octopus.Environment.Name}, with love", octopus.Scope{}),
		value("Greeting", "Hello, world", octopus.Scope{Environment: octopus.List[string]{d.prod.ID}}),
	}
	for _, t := range d.crew.targets {
		in := func(env octopus.Environment) octopus.Scope {
			return octopus.Scope{Environment: octopus.List[string]{env.ID}, Machine: octopus.List[string]{t.id}}
		}
		set.Variables = append(set.Variables, value("Port", strconv.Itoa(t.dev), in(d.dev)), value("Port", strconv.Itoa(t.prod), in(d.prod)))
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
func (d *demo) deploy(ctx context.Context) (release, task string, err error) {
	content, err := zipped()
	if err != nil {
		return "", "", err
	}
	pushed := time.Now().UTC().Format("2006.102.150405")
	var p octopus.Package
	if err := d.upload(ctx, demoAPI+"/packages/raw?overwriteMode=IgnoreIfExists", demoPackage+"."+pushed+".zip", content, &p); err != nil {
		return "", "", err
	}
	fmt.Fprintf(d.out, "Pushed package %s %s (%d bytes).\n", p.PackageID, p.Version, p.PackageSizeBytes)
	var made struct{ ReleaseID, ReleaseVersion string }
	if err := d.call(ctx, http.MethodPost, demoAPI+"/releases/create/v1", map[string]any{"projectName": demoProject, "packageVersion": pushed}, &made); err != nil {
		return "", "", err
	}
	fmt.Fprintf(d.out, "Created release %s of %s.\n", made.ReleaseVersion, demoProject)
	var started struct {
		DeploymentServerTasks []struct{ DeploymentID, ServerTaskID string }
	}
	err = d.call(ctx, http.MethodPost, demoAPI+"/deployments/create/untenanted/v1", map[string]any{
		"projectName": demoProject, "releaseVersion": made.ReleaseVersion, "environmentNames": []string{demoDev},
	}, &started)
	if err != nil {
		return "", "", err
	}
	if len(started.DeploymentServerTasks) != 1 {
		return "", "", fmt.Errorf("the server started %d deployments, want 1", len(started.DeploymentServerTasks))
	}
	task = started.DeploymentServerTasks[0].ServerTaskID
	fmt.Fprintf(d.out, "Deploying it to Dev as %s:\n", task)
	state, err := d.watch(ctx, task, d.out)
	if err != nil {
		return "", "", err
	}
	if state != octopus.TaskSuccess {
		return "", "", fmt.Errorf("the deployment %s ended as %s", task, state)
	}
	return made.ReleaseVersion, task, nil
}

// watch writes the log as it comes and returns how the task ended.
func (d *demo) watch(ctx context.Context, task string, out io.Writer) (state octopus.TaskState, err error) {
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
			fmt.Fprintf(out, "  %-9s %s\n", line.Category, line.MessageText)
		}
		return nil
	})
	if err == nil && state == "" {
		err = errors.New("the live log ended before the task did")
	}
	return state, err
}

// answers asks a target's service which release it is.
func (d *demo) answers(ctx context.Context, t *demoTarget, release string) error {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	service := client{url: serviceURL(t.dev)}
	var health struct{ Status, Version, Environment, Target string }
	if err := service.call(ctx, http.MethodGet, "health", nil, &health); err != nil {
		return fmt.Errorf("ask the service on %s at %s how it is: %w", t.name, service.url, err)
	}
	if health.Status != "ok" || health.Version != release || health.Environment != demoDev || health.Target != t.name {
		return fmt.Errorf("the service on %s at %s says %+v, and should be ok as release %s in %s", t.name, service.url, health, release, demoDev)
	}
	fmt.Fprintf(d.out, "The service on %s answers as release %s.\n", health.Target, health.Version)
	return nil
}

func serviceURL(port int) string { return fmt.Sprintf("http://127.0.0.1:%d/", port) }

func (d *demo) next(release, task string) {
	data := d.cfg.Data
	if here, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(here, data); err == nil && filepath.IsLocal(short) {
			data = "./" + short
		}
	}
	one, two := d.crew.targets[0], d.crew.targets[1]
	text := `
Done: release $R runs in Dev.

Where to look:
  Server:                $S, as user $U
  Service on $1:      $A
  Service on $2:      $B
  Logs of the agents:    $D/demo/$1.log, $D/demo/$2.log
  Logs of the services:  $D/demo/agents/homes/*/Applications/*/hello-web/*/service.log

What to do next:
  Get an API key:        export KEY=$(bin/tako admin create-api-key --user $U --data $D)
  Read the whole log:    curl -H "X-Octopus-ApiKey: $KEY" $S/api/Spaces-1/tasks/$T/raw
  See the targets:       curl -H "X-Octopus-ApiKey: $KEY" $S/api/Spaces-1/machines
  Go to Production:      curl -H "X-Octopus-ApiKey: $KEY" $S/api/Spaces-1/deployments/create/untenanted/v1 \
                           -d '{"projectName":"Hello web","releaseVersion":"$R","environmentNames":["Production"]}'
                         and look at $a and $b
  Look at the API:       $S/api/openapi.json

Press Ctrl-C to end the server, the agents and the services.`
	fmt.Fprintln(d.out, strings.NewReplacer(
		"$R", release, "$U", d.cfg.AdminUsername, "$D", data, "$S", d.url, "$T", task, "$1", one.name, "$2", two.name,
		"$A", serviceURL(one.dev), "$B", serviceURL(two.dev), "$a", serviceURL(one.prod), "$b", serviceURL(two.prod),
	).Replace(text))
}
