package test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// far are a server and two agents on a machine, one of which listens and one polls. What
// they say to each other goes over links.
type far struct {
	*apptest.Process
	*model
	host   *machine
	agents map[string]*instance // by their names
	links  map[string]*link
	ran    string // a file to which each script writes its target's name as it begins
	dir    string
	random *rand.Rand
}

var farNames = []string{"listens", "polls"}

// linesPerTarget is how many lines the script of a target writes.
const linesPerTarget = 40

func newFar(t *testing.T, dialect db.Dialect) *far {
	t.Helper()
	p := apptest.NewProcess(t, dialect)
	p.Start()
	dir := apptest.ShortDir(t)
	w := &far{
		Process: p, model: newModel(t, p.Client), host: newMachine(t, apptest.Binary(t), "agent"), dir: dir, ran: filepath.Join(dir, "ran"),
		agents: map[string]*instance{}, links: map[string]*link{}, random: rand.New(rand.NewPCG(3, uint64(dialect))),
	}
	var token octopus.RegistrationTokenCreated
	p.Must(t, http.MethodPost, space+"/machines/registration-tokens", octopus.RegistrationTokenCommand{
		RegistrationScope: octopus.RegistrationScope{EnvironmentIDs: octopus.List[string]{w.Dev.ID}, Roles: octopus.List[string]{"web"}}, Uses: 2,
	}, &token)
	at := port(t)
	w.links["listens"], w.links["polls"] = newLink(t, net.JoinHostPort("127.0.0.1", at)), newLink(t, p.Agents)
	w.host.run(installCommand(t, token, octopus.StyleListening, "listens",
		"--listen-address", "127.0.0.1", "--public-host-name", "127.0.0.1", "--port", at, "--tentacle-comms-port", w.links["listens"].port())...)
	w.host.run(installCommand(t, token, octopus.StylePolling, "polls", "--connections", "2", "--server-comms-port", w.links["polls"].port())...)
	for _, name := range farNames {
		w.agents[name] = w.host.launch(name)
	}
	return w
}

// each does something for both agents or their links.
func (w *far) each(fn func(name string)) {
	for _, name := range farNames {
		fn(name)
	}
}

func (w *far) restart(name string) { w.agents[name] = w.host.launch(name) }

// numbered has targets write numbered lines; with a gate, half of them before it is open.
func (w *far) numbered(gate string) octopus.Step {
	half := "true"
	if gate != "" {
		half = fmt.Sprintf(`[ $i -ne %d ] || until [ -e %q ]; do sleep 0.05; done`, linesPerTarget/2, gate)
	}
	return onTargets("Count", "web", fmt.Sprintf(`
name=$(get_octopusvariable Octopus.Machine.Name)
echo "$name" >> %[1]q
for i in $(seq %[2]d); do
  %[3]s
  echo "$name line $i"
  sleep 0.02
done`, w.ran, linesPerTarget, half))
}

// deploys begins a deployment of the process.
func (w *far) deploys(t *testing.T) (task string) {
	t.Helper()
	if err := os.Remove(w.ran); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_, version := w.release(t, nil)
	return w.deploy(t, version, w.Dev)
}

func (w *far) raw(t *testing.T, task string) string {
	t.Helper()
	return string(w.Process.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)
}

var lineOfTarget = regexp.MustCompile(`(listens|polls) line (\d+)$`)

// whole checks that a deployment ended as if nothing had happened: each script ran
// once, and each of its lines is in the log once, in order.
func (w *far) whole(t *testing.T, what, task string) {
	t.Helper()
	done := wait(t, w.Process.Client, task, 8*time.Minute)
	raw := w.raw(t, task)
	if done.State != octopus.TaskSuccess {
		t.Errorf("%s: it ended as %s: %s", what, done.State, done.ErrorMessage)
	}
	times, last := map[string]int{}, map[string]int{}
	for _, name := range lines(t, w.ran) {
		times[name]++
	}
	for line := range strings.Lines(raw) {
		if m := lineOfTarget.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			n, _ := strconv.Atoi(m[2])
			if n != last[m[1]]+1 {
				t.Errorf("%s: %s has line %d after line %d", what, m[1], n, last[m[1]])
			}
			last[m[1]] = n
		}
	}
	w.each(func(name string) {
		if times[name] != 1 || last[name] != linesPerTarget {
			t.Errorf("%s: on %s the script ran %d times, and has %d lines of %d", what, name, times[name], last[name], linesPerTarget)
		}
	})
	if t.Failed() {
		t.Fatalf("%s: the log:\n%s\nthe server:\n%s", what, raw, w.Output())
	}
}

// TestAgentFaults has agents die, and what is between them and their server fail, in
// the middle of scripts and of uploads: each script runs once, and its log is whole.
func TestAgentFaults(t *testing.T) {
	t.Parallel()
	for _, dialect := range soakDialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newFar(t, dialect)
			w.inMidScript(t)
			w.inMidUpload(t)
			w.cancelOfDead(t, "listens", "polls")
			if soaking() {
				w.cancelOfDead(t, "polls", "listens")
			}
			w.atRandom(t)
			healthy(t, w.Process)
		})
	}
}

// inMidScript kills both agents, cuts, and loses all connections while the scripts run.
func (w *far) inMidScript(t *testing.T) {
	gate := filepath.Join(w.dir, "gate")
	w.process(t, w.numbered(gate))
	for what, harm := range map[string]func(){
		"agents killed": func() {
			w.each(func(name string) { w.agents[name].kill() })
			w.each(w.restart)
		},
		"connections lost": func() {
			w.each(func(name string) { w.links[name].lose() })
			// Within this time the server asks; later the end of the connections is found out.
			pause := time.NewTimer(1500 * time.Millisecond)
			<-pause.C
			w.each(func(name string) { w.links[name].cut() })
		},
	} {
		task := w.deploys(t)
		until(t, "both scripts run", func() bool { return len(lines(t, w.ran)) == len(farNames) })
		harm()
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.whole(t, what, task)
		if err := os.Remove(gate); err != nil {
			t.Fatal(err)
		}
	}
}

// inMidUpload kills both agents when a quarter of a package is sent to them, over slow links.
func (w *far) inMidUpload(t *testing.T) {
	size := 6 << 20
	if soaking() {
		size = 64 << 20
	}
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // it never fails
	sum := sha256.Sum256(content)
	hash := hex.EncodeToString(sum[:])
	if r := w.Process.Upload(t, space+"/packages/raw", "Large.1.0.0.zip", archive(t, map[string]string{
		"large": string(content), "PostDeploy.sh": `echo "$(get_octopusvariable Octopus.Machine.Name) has $(sha256sum < large)"`,
	})); r.Status != http.StatusCreated {
		t.Fatalf("push: %d %s", r.Status, r.Body)
	}
	install := onTargets("Install", "web", "")
	install.Actions[0].ActionType = octopus.ActionPackage
	install.Actions[0].Packages = octopus.List[octopus.PackageReference]{{PackageID: "Large", FeedID: "feeds-builtin", AcquisitionLocation: "Server"}}
	install.Actions[0].Properties = octopus.Properties{octopus.PropRunOnServer: octopus.Plain("False")}
	w.process(t, install, w.numbered(""))
	// To one that listens the server dials, from one that polls it answers.
	sent := func(name string) int64 {
		if name == "listens" {
			return w.links[name].passed.Load()
		}
		return w.links[name].received.Load()
	}
	quarter := map[string]int64{}
	w.each(func(name string) {
		quarter[name] = sent(name) + int64(size/4)
		w.links[name].set(weather{rate: size, most: quarter[name]})
	})
	task := w.deploys(t)
	w.each(func(name string) {
		until(t, "a quarter of the package is sent to "+name, func() bool { return sent(name) >= quarter[name] })
		w.agents[name].kill()
	})
	w.each(func(name string) { w.links[name].set(weather{}) })
	w.each(w.restart)
	w.whole(t, "killed in an upload", task)
	raw := w.raw(t, task)
	w.each(func(name string) {
		if want := name + " has " + hash; strings.Count(raw, want) != 1 {
			t.Errorf("the log has %d times %q:\n%s", strings.Count(raw, want), want, raw)
		}
	})
}

// cancelOfDead cancels a deployment of whose agents one is dead, and the other one's link
// stands still: it ends, and the scripts do when the agents are back.
func (w *far) cancelOfDead(t *testing.T, dead, still string) {
	w.process(t, onTargets("Hang", "web", fmt.Sprintf(`echo $$ >> %q; sleep 1000`, w.ran)))
	task := w.deploys(t)
	until(t, "both scripts run", func() bool { return len(lines(t, w.ran)) == len(farNames) })
	w.agents[dead].kill()
	w.links[still].set(weather{stall: true})
	asked := time.Now()
	w.Process.Must(t, http.MethodPost, "/api/tasks/"+task+"/cancel", nil, nil)
	done := wait(t, w.Process.Client, task, 4*time.Minute)
	if done.State != octopus.TaskCanceled {
		t.Errorf("it ended as %s: %s\n%s", done.State, done.ErrorMessage, w.raw(t, task))
	}
	// Ten seconds, and what a machine needs on which everything else is tested too.
	bound := time.Minute
	if soaking() {
		bound = 11 * time.Second
	}
	if done.CompletedTime == nil {
		t.Fatal("it has no time of its end")
	}
	took := done.CompletedTime.Sub(asked)
	t.Logf("canceled with %s dead and %s still in %s", dead, still, took.Round(time.Millisecond))
	if took > bound {
		t.Errorf("the cancellation took %s", took)
	}
	pids := lines(t, w.ran)
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("a script has ended without its agent: %v", err)
		}
	}
	w.restart(dead)
	w.links[still].set(weather{})
	for _, text := range pids {
		pid, _ := strconv.Atoi(text) // it is one
		until(t, "the script is ended", func() bool { return syscall.Kill(pid, 0) != nil })
	}
}

// mishap is something that happens to an agent or to its link, and is over when it
// returns, within about the time that it is given.
type mishap struct {
	name string
	do   func(name string, most time.Duration)
}

// forAWhile waits for a random time.
func (w *far) forAWhile(most time.Duration) {
	pause := time.NewTimer(time.Duration(w.random.Int64N(int64(most))))
	<-pause.C
}

func (w *far) mishaps() []mishap {
	under := func(name string, now weather, most time.Duration) {
		w.links[name].set(now)
		w.forAWhile(most)
		w.links[name].set(weather{})
	}
	return []mishap{
		{"killed", func(name string, _ time.Duration) {
			w.agents[name].kill()
			w.restart(name)
		}},
		{"dead for a while", func(name string, most time.Duration) {
			w.agents[name].kill()
			w.forAWhile(most)
			w.restart(name)
		}},
		{"cut", func(name string, _ time.Duration) { w.links[name].cut() }},
		{"half open", func(name string, most time.Duration) {
			w.links[name].lose()
			w.forAWhile(most)
			w.links[name].cut()
		}},
		{"still", func(name string, most time.Duration) { under(name, weather{stall: true}, most) }},
		{"late", func(name string, most time.Duration) {
			under(name, weather{delay: 20*time.Millisecond + time.Duration(w.random.Int64N(int64(200*time.Millisecond)))}, most)
		}},
		{"sent away", func(name string, most time.Duration) {
			w.links[name].set(weather{closed: true})
			w.links[name].cut()
			w.forAWhile(most)
			w.links[name].set(weather{})
		}},
	}
}

// atRandom has one fault after the other happen at random moments of deployments.
func (w *far) atRandom(t *testing.T) {
	w.process(t, w.numbered(""))
	count, most := 2, 300*time.Millisecond
	if soaking() {
		count, most = 50, 8*time.Second
	}
	kinds, happened := w.mishaps(), map[string]int{}
	for i := range count {
		kind, name := kinds[w.random.IntN(len(kinds))], farNames[w.random.IntN(len(farNames))]
		happened[kind.name+" ("+name+")"]++
		began := time.Now()
		task := w.deploys(t)
		w.forAWhile(1500 * time.Millisecond) // the random moment
		kind.do(name, most)
		w.whole(t, fmt.Sprintf("fault %d, %s is %s", i+1, name, kind.name), task)
		t.Logf("fault %d: %s %s, %s", i+1, name, kind.name, time.Since(began).Round(100*time.Millisecond))
	}
	t.Logf("%d deployments with a fault each: %v", count, happened)
}
