//go:build linux

package orchestrator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/install"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// The test binary is the agent with its runners and stubs, and with childEnv set
// a server that a test may kill.
func TestMain(m *testing.M) {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := install.Internal(os.Args); handled {
		os.Exit(code)
	}
	if len(os.Args) > 2 && os.Args[1] == "agent" && os.Args[2] == "run" {
		home := os.Args[slices.Index(os.Args, "--home")+1]
		handler, err := agent.LogHandler(home)
		if err == nil {
			err = agent.RunBuiltin(context.Background(), agent.Config{Home: home, Version: "test", Log: slog.New(handler), LockWait: 5 * time.Second})
		}
		exit(err)
	}
	if len(os.Args) > 2 && os.Args[1] == "agent" && os.Args[2] == "run-bundle" {
		exit(runBundle(os.Args[3:]))
	}
	if dir := os.Getenv(childEnv); dir != "" {
		exit(childServer(dir))
	}
	// The tests wait for other processes, mostly, and keep no processor busy.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		if err := parallel.Value.Set(strconv.Itoa(max(8, runtime.GOMAXPROCS(0)))); err != nil {
			exit(err)
		}
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// childEnv makes the test binary a server for the scenario in that directory.
const childEnv = "ORCHESTRATOR_TEST_CHILD"

// scenario is what a deployment refers to; it is a file, for all processes of a test.
type scenario struct {
	URL   string
	Steps []octopus.Step
	Vars  []plainVariable
	// Packages are hashes by "id version".
	Packages map[string]string
	// Targets are those that a deployment could have, where that is not those that it
	// has; Near the ids of those that the agent of the test stands for, and Fleet of
	// those that have agents of their own.
	Targets []releases.Target
	Near    []string
	Fleet   []string
	// Workers are the names of those of the default pool, each an agent of the fleet;
	// without any it is the built-in worker.
	Workers []string
	// Drops are the endpoints of offline drops, by the id of the target.
	Drops map[string]octopus.Endpoint
	// ReachFor is how long agents of the fleet are called again, as usual for zero.
	ReachFor time.Duration
	// CancelIn is when a cancellation is over at the latest, as usual for zero.
	CancelIn time.Duration
	// Settles is how long a start that was not answered may still be arriving, as usual for
	// zero.
	Settles time.Duration
}

type plainVariable struct {
	Name, Value string
	Sensitive   bool
	Scope       octopus.Scope
}

func readScenario(dir string) (scenario, error) {
	var s scenario
	body, err := os.ReadFile(filepath.Join(dir, "scenario.json"))
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// source answers from the scenario's file.
type source struct{ dir string }

func (s source) MayStart(context.Context, *db.Tx, *deploy.Plan) error { return nil }

func (s source) Process(context.Context, *deploy.Plan) ([]octopus.Step, error) {
	sc, err := readScenario(s.dir)
	return sc.Steps, err
}

func (s source) Variables(context.Context, *deploy.Plan) ([]variables.Variable, error) {
	sc, err := readScenario(s.dir)
	var all []variables.Variable
	for _, v := range sc.Vars {
		all = append(all, variables.Variable{Name: v.Name, Value: v.Value, Sensitive: v.Sensitive, Scope: v.Scope, Source: variables.Source{Kind: variables.KindProject}})
	}
	return all, err
}

func (s source) Package(_ context.Context, _ *deploy.Plan, _, id, version string) (orchestrator.Package, error) {
	sc, err := readScenario(s.dir)
	if err != nil {
		return orchestrator.Package{}, err
	}
	hash, ok := sc.Packages[id+" "+version]
	if !ok {
		return orchestrator.Package{}, fault.New(fault.NotFound, "There is no package %s %s.", id, version)
	}
	sum, size, _ := strings.Cut(hash, " ")
	n, err := strconv.ParseInt(size, 10, 64)
	return orchestrator.Package{FileName: id + "." + version + ".zip", SHA256: sum, Size: n}, err
}

// earlier are all other versions that the scenario has of a package.
func (s source) earlier(ctx context.Context, p *deploy.Plan, _, id, version string) (all []orchestrator.Package, err error) {
	sc, err := readScenario(s.dir)
	for _, name := range slices.Sorted(maps.Keys(sc.Packages)) {
		if other, ok := strings.CutPrefix(name, id+" "); ok && other != version {
			one, err := s.Package(ctx, p, "", id, other)
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
	}
	return all, err
}

func (s source) Targets(_ context.Context, p *deploy.Plan) ([]releases.Target, error) {
	sc, err := readScenario(s.dir)
	if sc.Targets == nil {
		for _, m := range p.Machines {
			t := releases.Target{MayBeOffline: m.MayBeOffline}
			t.ID, t.Name, t.Roles = m.ID, m.Name, m.Roles
			sc.Targets = append(sc.Targets, t)
		}
	}
	return sc.Targets, err
}

// Checked notes what it is told in a file.
func (s source) Checked(_ context.Context, found []resources.MachineCheck) error {
	f, err := os.OpenFile(filepath.Join(s.dir, "health"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for _, h := range found {
		if _, err := fmt.Fprintln(f, h.ID, h.Status, h.Summary); err != nil {
			return err
		}
	}
	return f.Close()
}

// near finds the test's agent for the targets that it stands for, and those of the
// others for them.
type near struct {
	*targets.Targets
	dir   string
	fleet *fleet
}

func (n near) ByName(ctx context.Context, name string) (targets.Agent, error) {
	sc, err := readScenario(n.dir)
	if err != nil {
		return targets.Agent{}, err
	}
	if slices.Contains(sc.Fleet, name) {
		return n.fleet.agent(ctx, name, sc.ReachFor)
	}
	if slices.Contains(sc.Near, name) {
		name = targets.Builtin
	}
	return n.Targets.ByName(ctx, name)
}

func (n near) Target(ctx context.Context, machine string) (targets.Agent, error) {
	return n.ByName(ctx, machine)
}

func (n near) Worker(ctx context.Context, need targets.Need) (targets.Agent, error) {
	if need.Pool != "" && need.Pool != "WorkerPools-1" {
		return targets.Agent{}, fault.New(fault.Unsupported, "The worker pool %s has no workers.", need.Pool)
	}
	sc, err := readScenario(n.dir)
	if err != nil || len(sc.Workers) == 0 {
		return n.Targets.Worker(ctx, need)
	}
	pool := crew{workers: sc.Workers}
	return targets.New(targets.Config{Directory: pool, Disabled: true, Dialers: map[octopus.CommunicationStyle]targets.Dialer{
		octopus.StyleListening: func(ctx context.Context, m targets.Machine) (targets.Agent, error) {
			return n.fleet.agent(ctx, m.ID, sc.ReachFor)
		},
	}}).Worker(ctx, need)
}

// crew is a directory of one pool of healthy workers.
type crew struct{ workers []string }

func (crew) Machine(_ context.Context, id string) (targets.Machine, error) {
	return targets.Machine{}, fault.Missing("machine", id)
}

func (c crew) Pool(context.Context, string, string) (targets.Pool, error) {
	p := targets.Pool{ID: "WorkerPools-1", Name: "Default", Default: true}
	for _, name := range c.workers {
		p.Workers = append(p.Workers, targets.Machine{ID: name, Name: name, Health: octopus.Healthy, Endpoint: octopus.Endpoint{CommunicationStyle: octopus.StyleListening}})
	}
	return p, nil
}

func (source) Child(context.Context, *db.Tx, *deploy.Plan, releases.Child) (task, skipped string, err error) {
	return "", "", fault.New(fault.Unsupported, "There is no other project here.")
}

func (source) Reached(_ context.Context, tx *db.Tx, _ *deploy.Plan, machines []string) error {
	tx.Event(db.Event{Category: "Reached", Message: strings.Join(machines, " "), DocumentType: "Test"})
	return nil
}

func (source) Ended(_ context.Context, tx *db.Tx, t *tasks.Task, state octopus.TaskState) error {
	tx.Event(db.Event{Category: "Ended", Message: t.ID + " " + string(state), DocumentType: "Test"})
	return nil
}

// server is everything that runs deployments, on the scenario in dir.
type server struct {
	db      *db.DB
	tasks   *tasks.Service
	janitor *orchestrator.Janitor
	targets *targets.Targets
}

// brisk are times at which nothing is waited for longer than needed.
var brisk = tasks.Timing{Look: 20 * time.Millisecond, Seal: 50 * time.Millisecond, Retry: 5 * time.Millisecond}

func newServer(ctx context.Context, dir string, d *db.DB, node string, log *slog.Logger) (*server, error) {
	return newServerOf(ctx, dir, d, node, log, nil)
}

// newServerOf is newServer with agents of its own, unless they are nil.
func newServerOf(ctx context.Context, dir string, d *db.DB, node string, log *slog.Logger, agents orchestrator.Agents) (*server, error) {
	box, err := secret.Open(ctx, d, secret.Source{Dir: dir})
	if err != nil {
		return nil, err
	}
	blobs, err := blob.OpenDir(filepath.Join(dir, "blobs"))
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{db: d, targets: targets.New(targets.Config{Exe: exe, Home: filepath.Join(dir, "worker"), Log: log})}
	if agents == nil {
		agents = near{s.targets, dir, &fleet{dir: dir, exe: exe, log: log, all: map[string]*targets.Targets{}}}
	}
	sc, err := readScenario(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	runners := map[octopus.TaskName]tasks.Runner{
		octopus.TaskDeploy: orchestrator.New(orchestrator.Config{DB: d, Source: source{dir}, Agents: agents, Blobs: blobs, Sealer: box, Log: log, Earlier: source{dir}.earlier, TakesWork: takesWork(dir), Offline: passing(dir, offline(dir)), StartSettles: sc.Settles}),
	}
	timing := brisk
	timing.Cancel = sc.CancelIn
	s.tasks, err = tasks.Open(ctx, tasks.Config{DB: d, Blobs: blobs, Log: log, RunDir: filepath.Join(dir, "run"), Node: node, Version: "test", Runners: runners, Timing: timing})
	if err != nil {
		return nil, err
	}
	s.janitor = orchestrator.NewJanitor(s.tasks, agents, log)
	return s, nil
}

// run serves until ctx ends, or the database's fate is unknown.
func (s *server) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- s.tasks.Run(ctx) }()
	go func() { ended <- s.janitor.Run(ctx) }()
	var failed error
	select {
	case <-ctx.Done():
	case <-s.db.Failed():
		failed = errors.New("the database failed")
		stop()
	}
	return errors.Join(failed, <-ended, <-ended)
}

func childServer(dir string) error {
	ctx := context.Background()
	sc, err := readScenario(dir)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	d, err := db.Open(ctx, sc.URL, db.Options{Log: log})
	if err != nil {
		return err
	}
	s, err := newServer(ctx, dir, d, "child", log)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// world is a test's database, files and agent.
type world struct {
	t    testing.TB
	dir  string
	sc   scenario
	d    *db.DB
	desk *server             // queues, cancels, answers and reads; it runs nothing
	far  orchestrator.Agents // what servers in this process call; the built-in worker if nil
}

func newWorld(t testing.TB, dialect db.Dialect) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.sc.URL = dbtest.URL(t, dialect)
	w.d = dbtest.OpenURL(t, w.sc.URL)
	var err error
	if w.desk, err = newServer(t.Context(), w.dir, w.d, "desk", dbtest.Log(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		proctest.End(t, w.dir) // the agent and all that it left behind
		if err := w.desk.tasks.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// each runs a test on both databases.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	for _, dialect := range dbtest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, newWorld(t, dialect))
		})
	}
}

// client calls the agent, which runs.
func (w *world) client() *agent.Client {
	return agent.Dial(agent.SocketPath(filepath.Join(w.dir, "worker")))
}

// killAgent kills the agent, not its runners.
func (w *world) killAgent() bool {
	c := w.client()
	defer c.Close()
	hello, err := c.Hello(context.WithoutCancel(w.t.Context()))
	return err == nil && syscall.Kill(hello.PID, syscall.SIGKILL) == nil
}

// killIn kills the runner ("lock") or the script ("started") of a ticket.
func (w *world) killIn(ticket, file string) bool {
	body, err := os.ReadFile(filepath.Join(w.dir, "worker", "Work", ticket, file))
	var p struct{ PID int }
	if err != nil || json.Unmarshal(body, &p) != nil || p.PID <= 1 {
		return false
	}
	// The number may belong to somebody else by now.
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
	cmd, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
	if err != nil || err2 != nil || !strings.Contains(string(env)+string(cmd), w.dir) {
		return false
	}
	return syscall.Kill(p.PID, syscall.SIGKILL) == nil
}

// serve runs a server in this process until stop.
func (w *world) serve(node string) (stop func()) {
	w.t.Helper()
	s, err := newServerOf(w.t.Context(), w.dir, w.d, node, dbtest.Log(w.t), w.far)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, s.tasks.Close()); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// child starts a server as a process of its own.
func (w *world) child(env ...string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"="+w.dir), env...)
	out := &bytes.Buffer{}
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if w.t.Failed() {
			w.t.Logf("a server said:\n%s", out)
		}
	})
	return cmd
}

// step is a step of one script on the worker.
func step(name, body string, change ...func(*octopus.Step)) octopus.Step {
	s := octopus.Step{
		ID: "s-" + name, Name: name, Condition: octopus.StepConditionSuccess, Properties: octopus.Properties{},
		Actions: []octopus.Action{{ID: "a-" + name, Name: name, ActionType: octopus.ActionScript, Properties: octopus.Properties{
			octopus.PropRunOnServer: {Value: "True"}, octopus.PropScriptSyntax: {Value: "Bash"}, octopus.PropScriptBody: {Value: body},
		}}},
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func when(c octopus.StepCondition) func(*octopus.Step) {
	return func(s *octopus.Step) { s.Condition = c }
}

func beside(s *octopus.Step) { s.StartTrigger = octopus.StartWithPrevious }

func property(key, value string) func(*octopus.Step) {
	return func(s *octopus.Step) { s.Actions[0].Properties[key] = octopus.PropertyValue{Value: value} }
}

// queue queues a deployment of these steps.
func (w *world) queue(guided bool, process ...octopus.Step) string {
	w.t.Helper()
	w.sc.Steps = process
	w.save()
	versions := map[deploy.PackageKey]string{}
	plan, err := deploy.Build(deploy.Input{
		Plan:    deploy.Plan{Owner: deploy.OwnerDeployment, OwnerID: "Deployments-1", EnvironmentID: "Environments-1", GuidedFailure: guided},
		Process: process, Versions: versions,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	var id string
	w.write(func(ctx context.Context, tx *db.Tx) error {
		t, err := w.desk.tasks.Create(ctx, tx, tasks.New{Space: "Spaces-1", Name: octopus.TaskDeploy, Description: "Deploy", Plan: plan, Tag: "tag"})
		if err == nil {
			id = t.ID
		}
		return err
	})
	return id
}

func (w *world) save() {
	w.t.Helper()
	body, err := json.Marshal(w.sc)
	file := filepath.Join(w.dir, "scenario.json")
	if err == nil {
		err = os.WriteFile(file+".new", body, 0o600)
	}
	if err == nil { // servers read it at any time
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	if err := w.d.WriteEngine(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	if err := w.d.Read(ctx, func(tx *db.Tx) error { return fn(ctx, tx) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) count(query string, args ...any) (n int64) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) error { return tx.QueryRow(ctx, query, args...).Scan(&n) })
	return n
}

func (w *world) task(id string) *tasks.Task {
	w.t.Helper()
	var t *tasks.Task
	w.read(func(ctx context.Context, tx *db.Tx) (err error) {
		t, err = tasks.Get(ctx, tx, id)
		return err
	})
	return t
}

// await waits for what other goroutines and processes do.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// ends waits for the end of a task and checks how it ended.
func (w *world) ends(id string, want octopus.TaskState) *tasks.Task {
	w.t.Helper()
	await(w.t, id+" ends", func() bool { return w.task(id).State.Completed() })
	t := w.task(id)
	if t.State != want {
		w.t.Fatalf("%s ended as %s: %s\n%s", id, t.State, t.Error, strings.Join(w.log(id), "\n"))
	}
	if n := w.count(`SELECT count(*) FROM events WHERE category = 'Ended' AND message = ?`, id+" "+string(want)); n != 1 {
		w.t.Errorf("its end was told %d times", n)
	}
	return t
}

// log is the log of a task, "Info hello" for each line.
func (w *world) log(id string) []string {
	w.t.Helper()
	var all []string
	err := w.desk.tasks.ReadLog(context.WithoutCancel(w.t.Context()), id, 1, func(l tasks.Line) bool {
		if l.Number != int64(len(all))+1 {
			w.t.Errorf("line %d came as number %d", len(all)+1, l.Number)
		}
		all = append(all, string(l.Category)+" "+l.Text)
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// said are the lines of the log that contain a text.
func (w *world) said(id, text string) []string {
	w.t.Helper()
	var found []string
	for _, l := range w.log(id) {
		if strings.Contains(l, text) {
			found = append(found, l)
		}
	}
	return found
}

// state folds the journal of a task.
func (w *world) state(id string) *deploy.State {
	w.t.Helper()
	var s *deploy.State
	w.read(func(ctx context.Context, tx *db.Tx) error {
		plan := new(deploy.Plan)
		if err := tasks.Plan(ctx, tx, id, plan); err != nil {
			return err
		}
		rows, err := tasks.Journal(ctx, tx, id)
		if err != nil {
			return err
		}
		facts := make([]deploy.Fact, len(rows))
		for i, r := range rows {
			if err := json.Unmarshal(r.Body, &facts[i]); err != nil {
				return err
			}
		}
		s, err = deploy.Fold(plan, facts)
		return err
	})
	return s
}

// raw is everything that the database has about a task's past, as text: for what
// must not be in it.
func (w *world) raw(id string) string {
	w.t.Helper()
	var b strings.Builder
	for _, query := range []string{
		`SELECT fact FROM journal WHERE task = ?`, `SELECT parser FROM unit_cursor WHERE task = ?`, `SELECT error FROM task WHERE id = ?`,
		`SELECT filename FROM artifact WHERE task = ?`, `SELECT body FROM interruption WHERE task = ?`,
	} {
		w.read(func(ctx context.Context, tx *db.Tx) error {
			rows, err := tx.Query(ctx, query, id)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var text string
				if err := rows.Scan(&text); err != nil {
					return err
				}
				b.WriteString(text + "\n")
			}
			return rows.Err()
		})
	}
	return b.String() + strings.Join(w.log(id), "\n")
}

// ran is how often scripts have written a word into the test's directory.
func (w *world) ran(word string) int {
	w.t.Helper()
	body, err := os.ReadFile(filepath.Join(w.dir, "ran"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(body)) {
		if strings.TrimSpace(line) == word {
			n++
		}
	}
	return n
}

// run is a script that notes that it ran, then goes on.
func (w *world) run(word, then string) string {
	return fmt.Sprintf("echo %s >> '%s'\n%s", word, filepath.Join(w.dir, "ran"), then)
}

// hold is a script that waits until the test lets it go on.
func (w *world) hold(name string) string {
	return fmt.Sprintf("until test -e '%s'; do sleep 0.02; done\n", filepath.Join(w.dir, "go-"+name))
}

func (w *world) letGo(name string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "go-"+name), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// ticket is that of a step's script which runs.
func (w *world) ticket(id string, step int) string {
	w.t.Helper()
	return w.state(id).Unit(deploy.Unit{Step: step}).Intent.Ticket
}

// asked waits for a question and returns its id.
func (w *world) asked(id string) string {
	w.t.Helper()
	var found string
	await(w.t, "somebody is asked", func() bool {
		if t := w.task(id); t.State.Completed() {
			w.t.Fatalf("it ended as %s: %s", t.State, strings.Join(w.log(id), "\n"))
		}
		w.read(func(ctx context.Context, tx *db.Tx) error {
			page, _, err := tasks.Interruptions(ctx, tx, tasks.InterruptionQuery{Visible: []tasks.Visible{{Space: "Spaces-1"}}, Regarding: id, PendingOnly: true})
			if err == nil && len(page) > 0 {
				found = page[0].ID
			}
			return err
		})
		return found != ""
	})
	return found
}

func (w *world) answer(question string, choice deploy.Choice) error {
	ctx := context.WithoutCancel(w.t.Context())
	return w.d.WriteEngine(ctx, func(tx *db.Tx) error {
		return orchestrator.Answer(ctx, w.desk.tasks, tx, deploy.Answer{ID: question, Choice: choice, User: "ann"})
	})
}

func (w *world) cancel(id string) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx) error {
		_, err := w.desk.tasks.Cancel(ctx, tx, id)
		return err
	})
}

// artifact reads an artifact's content.
func (w *world) artifacts(id string) map[string]string {
	w.t.Helper()
	blobs, err := blob.OpenDir(filepath.Join(w.dir, "blobs"))
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[string]string{}
	w.read(func(ctx context.Context, tx *db.Tx) error {
		page, _, err := tasks.Artifacts(ctx, tx, tasks.ArtifactQuery{Visible: []tasks.Visible{{Space: "Spaces-1"}}, Regarding: id})
		if err != nil {
			return err
		}
		for _, a := range page {
			if _, twice := found[a.Filename]; twice {
				w.t.Errorf("the artifact %s is there twice", a.Filename)
			}
			r, _, err := blobs.Open(ctx, blob.Hash(a.SHA256))
			if err != nil {
				return err
			}
			body, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			found[a.Filename] = string(body)
			if err := r.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	return found
}
