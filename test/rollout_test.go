package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// soakDialects are the databases of a test that needs much time on each.
func soakDialects() []db.Dialect {
	if soaking() {
		return apptest.Dialects()
	}
	return []db.Dialect{db.SQLite}
}

// webService serves a file at a port that it chooses, and says in another file which.
const webService = `import http.server, os, socketserver

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("site.txt", "rb") as f:
            body = f.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = socketserver.TCPServer(("127.0.0.1", 0), Page)
with open("port.new", "w") as f:
    f.write(str(server.server_address[1]))
os.rename("port.new", "port")
server.serve_forever()
`

// python is the interpreter itself: sessions on hosts have a path of their own.
func python(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Fatalf("python3 is needed for the web service: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// served is what a web service answers.
func served(t *testing.T, port string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %q, %v", resp.Status, body, err)
	}
	return string(body)
}

// onTarget is an action of one script on the step's targets.
func onTarget(name, body string) octopus.Action {
	a := script(name, body).Actions[0]
	a.Properties[octopus.PropRunOnServer] = octopus.Plain("False")
	return a
}

// questions are those that a task waits for the answers of.
func questions(t *testing.T, c *apptest.Client, task string) []octopus.Interruption {
	t.Helper()
	return apptest.Get[octopus.Page[octopus.Interruption]](t, c, space+"/interruptions?pendingOnly=true&regarding="+task).Items
}

// answered takes a question on and answers it.
func answered(t *testing.T, c *apptest.Client, question, choice string) {
	t.Helper()
	c.Must(t, http.MethodPut, space+"/interruptions/"+question+"/responsible", nil, nil)
	c.Must(t, http.MethodPost, space+"/interruptions/"+question+"/submit", map[string]string{octopus.FieldGuidance: choice, octopus.FieldNotes: "seen"}, nil)
}

// TestRollout brings a web service to machines of every kind, two at a time: three with
// agents that listen, three with agents that poll, two that are reached by SSH. The agent
// of one does not run. A person is asked about that one and excludes it; on all others
// the service answers with the configuration that the variables make there.
func TestRollout(t *testing.T) {
	t.Parallel()
	for _, dialect := range soakDialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			rollout(t, dialect)
		})
	}
}

func rollout(t *testing.T, dialect db.Dialect) {
	p := apptest.NewProcess(t, dialect)
	p.Start()
	m := newModel(t, p.Client)
	m.Project.DefaultGuidedFailureMode = octopus.GuidedFailureOn
	m.Project = apptest.Put(t, p.Client, space+"/projects/"+m.Project.ID, m.Project)
	second := octopus.TimeSpan(time.Second)
	hasty := apptest.Post(t, p.Client, space+"/machinepolicies", octopus.MachinePolicy{
		Name: "Hasty", ConnectionRetryTimeLimit: second, ConnectionRetryCountLimit: 1, ConnectionConnectTimeout: 10 * second, PollingRequestQueueTimeout: second,
	})

	const away, window = "web-2", 2
	names := []string{"web-1", away, "web-3", "web-4", "web-5", "web-6", "web-7", "web-8"}
	var token octopus.RegistrationTokenCreated
	p.Must(t, http.MethodPost, space+"/machines/registration-tokens", octopus.RegistrationTokenCommand{
		RegistrationScope: octopus.RegistrationScope{EnvironmentIDs: octopus.List[string]{m.Dev.ID}, Roles: octopus.List[string]{"web"}}, Uses: 6,
	}, &token)
	host := newMachine(t, apptest.Binary(t), "agent")
	var installing sync.WaitGroup
	for i, name := range names[:6] {
		line := installCommand(t, token, octopus.StylePolling, name, "--connections", "2")
		if i < 3 {
			line = installCommand(t, token, octopus.StyleListening, name, "--listen-address", "127.0.0.1", "--public-host-name", "127.0.0.1", "--port", port(t))
		}
		installing.Go(func() {
			if out, err := host.command(line...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		})
	}
	for _, name := range names[6:] {
		_, endpoint := sshHost(t, p.Client)
		m.target(t, name, endpoint)
	}
	installing.Wait()
	if t.Failed() {
		t.FailNow()
	}
	ids := map[string]string{}
	for _, one := range apptest.Get[[]octopus.Machine](t, p.Client, space+"/machines/all") {
		ids[one.Name] = one.ID
		if one.Name == away {
			one.MachinePolicyID = hasty.ID
			apptest.Put(t, p.Client, space+"/machines/"+one.ID, one)
		}
	}
	for _, name := range names[:6] {
		if name != away {
			host.start(name)
		}
	}

	dir := apptest.ShortDir(t)
	order := filepath.Join(dir, "order")
	m.variables(t,
		text("Greeting", "Hello", octopus.Scope{}),
		text("Greeting", "Good day", octopus.Scope{Machine: octopus.List[string]{ids["web-5"]}}),
		text("Shared", dir, octopus.Scope{}), text("Python", python(t), octopus.Scope{}),
	)
	if r := p.Upload(t, space+"/packages/raw", "Acme.Web.1.2.0.zip", archive(t, map[string]string{
		"server.py": webService, "site.txt": "#{Greeting} from #{Octopus.Machine.Name}, version #{Octopus.Action.Package.PackageVersion}",
		"PreDeploy.sh": `echo "begins $(get_octopusvariable Octopus.Machine.Name)" >> "$(get_octopusvariable Shared)/order"`,
	})); r.Status != http.StatusCreated {
		t.Fatalf("push: %d %s", r.Status, r.Body)
	}
	install := octopus.Action{
		Name: "Install", ActionType: octopus.ActionPackage,
		Packages: octopus.List[octopus.PackageReference]{{PackageID: "Acme.Web", FeedID: "feeds-builtin", AcquisitionLocation: "Server"}},
		Properties: octopus.Properties{
			octopus.PropRunOnServer: octopus.Plain("False"), octopus.PropEnabledFeatures: octopus.Plain("Octopus.Features.SubstituteInFiles"),
			"Octopus.Action.SubstituteInFiles.TargetFiles": octopus.Plain("*.txt"),
		},
	}
	start := onTarget("Start", `
cd "$(get_octopusvariable "Octopus.Action[Install].Output.Package.InstallationDirectoryPath")" || exit 1
setsid "$(get_octopusvariable Python)" server.py > server.log 2>&1 < /dev/null &
for i in $(seq 2400); do
  [ -e port ] && { set_octopusvariable Port "$(cat port)"; exit 0; }
  sleep 0.05
done
cat server.log
exit 1`)
	check := onTarget("Check", `
name=$(get_octopusvariable Octopus.Machine.Name)
port=$(get_octopusvariable "Octopus.Action[Start].Output.Port")
exec 3<> "/dev/tcp/127.0.0.1/$port" || exit 1
printf 'GET / HTTP/1.0\r\n\r\n' >&3
grep -q "from $name, version 1.2.0" <&3 || exit 1
echo "$name is served at port $port"
echo "ends $name" >> "$(get_octopusvariable Shared)/order"`)
	m.process(t, octopus.Step{
		Name: "Roll out", Actions: octopus.List[octopus.Action]{install, start, check},
		Properties: octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web"), octopus.PropMaxParallelism: octopus.Plain(fmt.Sprint(window))},
	})
	_, version := m.release(t, nil)
	task := m.deploy(t, version, m.Dev)
	raw := func() string {
		return string(p.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)
	}
	asked := wait(t, p.Client, task, 4*time.Minute)
	pending := questions(t, p.Client, task)
	if asked.IsCompleted || len(pending) != 1 || pending[0].Type != octopus.InterruptionGuidedFailure || pending[0].Title != "Install on "+away {
		t.Fatalf("%s (%s), and asked is %+v\n%s", asked.State, asked.ErrorMessage, pending, raw())
	}
	answered(t, p.Client, pending[0].ID, octopus.GuidanceExclude)
	done := wait(t, p.Client, task, 4*time.Minute)
	log := raw()
	if done.State != octopus.TaskSuccess {
		t.Fatalf("%s: %s\n%s", done.State, done.ErrorMessage, log)
	}
	defer func() {
		if t.Failed() {
			t.Logf("the log:\n%s", log)
		}
	}()
	if want := "The deployment target " + away + " could not be reached for 1s"; !strings.Contains(log, want) {
		t.Errorf("the log does not say %q", want)
	}
	reached := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == away })
	for _, name := range reached {
		_, rest, found := strings.Cut(log, name+" is served at port ")
		if !found {
			t.Errorf("%s was not checked", name)
			continue
		}
		greeting := "Hello"
		if name == "web-5" {
			greeting = "Good day"
		}
		at, _, _ := strings.Cut(rest, "\n")
		if got, want := served(t, at), greeting+" from "+name+", version 1.2.0"; got != want {
			t.Errorf("%s answers %q, want %q", name, got, want)
		}
	}
	inWindow(t, lines(t, order), names, away, window)

	var id string
	if err := json.Unmarshal(done.Arguments["DeploymentId"], &id); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range reached {
		want = append(want, ids[name])
	}
	got := []string(apptest.Get[octopus.Deployment](t, p.Client, space+"/deployments/"+id).DeployedToMachineIDs)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("it went to (-want +got):\n%s", diff)
	}
}

// inWindow checks how targets followed each other: each began and ended once, no more at
// once than may, and none before all but a window's worth of those before it had ended.
func inWindow(t *testing.T, order, names []string, without string, window int) {
	t.Helper()
	begun, ended := map[string]int{}, map[string]int{without: 1}
	for i, line := range order {
		what, name, _ := strings.Cut(line, " ")
		if what == "ends" {
			ended[name]++
			continue
		}
		begun[name]++
		open := 0
		for _, before := range names[:slices.Index(names, name)] {
			if ended[before] == 0 {
				open++
			}
		}
		if open >= window {
			t.Errorf("%s began (line %d) before %d targets that come before it had ended", name, i+1, open)
		}
		if at := len(begun) - (len(ended) - 1); at > window {
			t.Errorf("%d targets at once when %s began", at, name)
		}
	}
	for _, name := range names {
		want := 1
		if name == without {
			want = 0
		}
		if begun[name] != want || name != without && ended[name] != want {
			t.Errorf("%s began %d times and ended %d times", name, begun[name], ended[name])
		}
	}
	if t.Failed() {
		t.Logf("the order:\n%s", strings.Join(order, "\n"))
	}
}
