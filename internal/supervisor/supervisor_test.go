package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/lameduck"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

const patience = 2 * time.Minute

// TestMain lets the test's own program be the supervisor and the servers.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "server":
		os.Exit(serve())
	case len(os.Args) > 2 && os.Args[1] == "supervise":
		os.Exit(supervise(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// little is a server whose version is the name of its directory. Files beside its
// program say what is wrong with it.
type little struct {
	*lameduck.Server
	launch *control.Started
	dir    string
	mu     sync.Mutex
	stage  control.Stage
	stop   context.CancelFunc
}

func serve() int {
	launch, err := control.Launched()
	if err != nil || launch == nil {
		fmt.Fprintln(os.Stderr, "launch:", err)
		return 1
	}
	exe, err := os.Executable()
	if err != nil {
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &little{launch: launch, dir: filepath.Dir(exe), stage: control.Ready, stop: stop}
	if l.is("dies") {
		return 3
	}
	if os.Getenv("TEST_NEVER_READY") != "" {
		time.Sleep(patience) //nolint:forbidigo // until it is ended
		return 3
	}
	if l.is("waits") {
		return control.ExitUnavailable
	}
	if l.is("deaf") {
		signal.Ignore(syscall.SIGTERM)
	}
	l.Server = lameduck.New(&http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(l.answer)})
	go func() {
		if errors.Is(control.Serve(ctx, launch, l), control.ErrAbandoned) {
			stop()
		}
	}()
	if !launch.Candidate {
		_ = l.Accept(ctx)
	}
	select {
	case <-l.Drained():
	case <-ctx.Done():
	}
	return 0
}

func (l *little) is(what string) bool {
	_, err := os.Stat(filepath.Join(l.dir, what))
	return err == nil
}

func (l *little) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/die" {
		os.Exit(4)
	}
	body, _ := io.ReadAll(r.Body)
	_, _ = fmt.Fprintf(w, "%s %d %s", filepath.Base(l.dir), os.Getpid(), body)
}

func (l *little) set(s control.Stage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stage = s
}

func (l *little) Status() control.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return control.Status{PID: os.Getpid(), Version: filepath.Base(l.dir), Stage: l.stage, Listeners: []string{"http"}}
}

func (l *little) Ready(ctx context.Context) error {
	if l.is("hangs") {
		<-ctx.Done()
		return ctx.Err()
	}
	if l.is("unready") {
		return errors.New("the master key does not fit")
	}
	return nil
}

func (l *little) Accept(context.Context) error {
	if l.is("refuses") {
		return errors.New("it will not")
	}
	ln, ok := l.launch.Listeners["http"]
	if !ok {
		return errors.New("no socket")
	}
	l.set(control.Serving)
	go func() { _ = l.Serve(ln) }()
	return nil
}

func (l *little) Prepare(context.Context) error {
	if l.is("keeps") {
		return errors.New("a task does not end")
	}
	l.set(control.Released)
	return nil
}
func (l *little) Resume(context.Context) error { l.set(control.Serving); return nil }
func (l *little) Duck(context.Context) error   { l.set(control.Ducking); l.Server.Duck(); return nil }

func (l *little) Deep(context.Context) error {
	for l.is("stuck") {
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // between two looks
	}
	if l.is("unwell") {
		return errors.New("it does nothing")
	}
	return nil
}

func (l *little) ListenerFile(name string) (*os.File, error) {
	return control.FileOf(l.launch.Listeners[name])
}

func supervise(root, addr string) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	limits := supervisor.Limits{Ready: 5 * time.Second, Orphan: time.Second}
	if text, ok := os.LookupEnv("TEST_DEEP"); ok {
		limits.Deep, _ = time.ParseDuration(text)
	}
	if os.Getenv("LISTEN_FDS") != "" { // which is for the process with this number alone
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	if text, ok := os.LookupEnv("TEST_ADOPT"); ok {
		limits.Adopt, _ = time.ParseDuration(text)
	}
	err := supervisor.Run(ctx, supervisor.Config{
		Root: root, Addresses: map[string]string{"http": addr}, Args: []string{"server"}, Environ: os.Environ(),
		Stdout: os.Stdout, Stderr: os.Stderr, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Limits: limits,
		First: func() error { return errors.New("there is no version") },
	})
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// world is an installation with a supervisor, a process of its own.
type world struct {
	t    *testing.T
	root string
	addr string
	cmd  *exec.Cmd
	// kept are sockets that systemd gives to a supervisor.
	kept []*os.File
}

func newWorld(t *testing.T, current string) *world {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, root: t.TempDir(), addr: ln.Addr().String()}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	w.install(current)
	if err := durable.Symlink("versions/"+current, filepath.Join(w.root, "current")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.clean)
	return w
}

// install puts a version in place, with what is wrong with it.
func (w *world) install(version string, wrong ...string) {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	dir := filepath.Join(w.root, "versions", version)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Link(exe, filepath.Join(dir, "tako")); err != nil {
		in, err := os.ReadFile(exe)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tako"), in, 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, what := range wrong {
		if err := os.WriteFile(filepath.Join(dir, what), nil, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) supervise(env ...string) {
	w.t.Helper()
	w.begin(env...)
	w.await("it serves", func() bool {
		r, err := w.order(supervisor.Order{Do: "status"})
		if err != nil || r.PID != w.cmd.Process.Pid || r.Server == nil {
			return false
		}
		_, err = w.get()
		return err == nil
	})
}

// begin starts a supervisor, and does not wait until something serves.
func (w *world) begin(env ...string) {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	w.cmd = exec.Command(exe, "supervise", w.root, w.addr)
	w.cmd.Env = append(os.Environ(), env...)
	w.cmd.ExtraFiles = w.kept
	// A file: a pipe would be the servers' too, and keep Wait from returning.
	out, err := os.OpenFile(filepath.Join(w.root, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	w.cmd.Stdout, w.cmd.Stderr = out, out
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) killSupervisor() {
	w.t.Helper()
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// clean ends everything that has a socket in the root.
func (w *world) clean() {
	if w.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(w.root, "log"))
		w.t.Logf("%s", log)
	}
	if w.cmd != nil {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
	}
	sockets, _ := filepath.Glob(filepath.Join(w.root, "run", "server-*.sock"))
	for _, s := range sockets {
		if c, st, err := control.Dial(context.Background(), s); err == nil {
			_ = c.Close()
			_ = syscall.Kill(st.PID, syscall.SIGKILL)
		}
	}
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// get asks the server who it is: its version and its process.
func (w *world) get(path ...string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + w.addr + "/" + strings.Join(path, ""))
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

func (w *world) serves(version string) string {
	w.t.Helper()
	who, err := w.get()
	if err != nil || !strings.HasPrefix(who, version+" ") {
		w.t.Errorf("version %s should serve: %q, %v", version, who, err)
	}
	return who
}

func (w *world) links(current, previous string) {
	w.t.Helper()
	c, _ := os.Readlink(filepath.Join(w.root, "current"))
	p, _ := os.Readlink(filepath.Join(w.root, "previous"))
	if filepath.Base(c) != current || p != "" && filepath.Base(p) != previous || p == "" && previous != "" {
		w.t.Errorf("current is %q and previous %q, not %q and %q", c, p, current, previous)
	}
}

func (w *world) order(o supervisor.Order) (supervisor.Report, error) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	return supervisor.Ask(ctx, w.root, o)
}

// processes are the servers that run.
func (w *world) processes() (n int) {
	all, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range all {
		if target, err := os.Readlink(exe); err == nil && strings.HasPrefix(target, filepath.Join(w.root, "versions")) {
			n++
		}
	}
	return n
}

// load sends requests until it is stopped, and counts those that fail.
func (w *world) load() (stop func() (done, failed int64)) {
	var done, failed atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 4 {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 1}}
		wg.Go(func() {
			for ctx.Err() == nil {
				r, err := client.Post("http://"+w.addr+"/", "text/plain", strings.NewReader("x"))
				if err != nil {
					failed.Add(1)
					w.t.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				if err != nil || r.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				done.Add(1)
			}
		})
	}
	return func() (int64, int64) { cancel(); wg.Wait(); return done.Load(), failed.Load() }
}

// TestSwitch goes to a new version and back under load, refuses bad ones, and fails no
// request.
func TestSwitch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	for _, wrong := range []string{"dies", "hangs", "unready", "refuses"} {
		w.install("2.0.0-"+wrong, wrong)
	}
	w.supervise()
	stop := w.load()
	first := w.serves("1.0.0")
	if r, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil || r.Current != "1.1.0" || r.Previous != "1.0.0" || r.Server.Version != "1.1.0" {
		t.Fatalf("%+v %v", r, err)
	}
	w.serves("1.1.0")
	w.links("1.1.0", "1.0.0")
	for wrong, says := range map[string]string{"dies": "exit status 3", "hangs": "deadline", "unready": "master key", "refuses": "it will not"} {
		r, err := w.order(supervisor.Order{Do: "switch", Version: "2.0.0-" + wrong})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", wrong, err)
		}
		if r.Server == nil || r.Server.Stage != control.Serving || r.Server.Version != "1.1.0" {
			t.Errorf("%s: %+v", wrong, r.Server)
		}
		w.serves("1.1.0")
	}
	w.links("1.1.0", "1.0.0")
	if r, err := w.order(supervisor.Order{Do: "switch", Version: "1.0.0"}); err != nil || r.Previous != "" {
		t.Errorf("back: %+v %v", r, err)
	}
	w.links("1.0.0", "")
	if back := w.serves("1.0.0"); back == first {
		t.Error("a former server was revived")
	}
	for _, bad := range []string{"", "9.9.9", "../versions/1.1.0", ".."} {
		if _, err := w.order(supervisor.Order{Do: "switch", Version: bad}); err == nil {
			t.Errorf("switched to %q", bad)
		}
	}
	if _, err := w.order(supervisor.Order{Do: "dance"}); err == nil {
		t.Error("it dances")
	}
	done, failed := stop()
	if failed > 0 {
		t.Errorf("%d of %d requests failed", failed, done)
	}
	t.Logf("%d requests", done)
	w.await("the former servers have ended", func() bool {
		r, err := w.order(supervisor.Order{Do: "status"})
		return err == nil && len(r.Ducks) == 0
	})
}

// TestOldKeepsItsTasks: a server that does not give its tasks back goes on.
func TestOldKeepsItsTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	if err := os.WriteFile(filepath.Join(w.root, "versions/1.0.0/keeps"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.supervise()
	before := w.serves("1.0.0")
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err == nil || !strings.Contains(err.Error(), "a task does not end") {
		t.Errorf("%v", err)
	}
	if w.serves("1.0.0") != before {
		t.Error("it was started anew")
	}
	w.links("1.0.0", "")
}

// TestSupervisorKilled: servers outlive their supervisor; the next one takes over what
// the first has left, also in the middle of a switch.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.supervise()
	before := w.serves("1.0.0")
	w.killSupervisor()
	if w.serves("1.0.0") != before {
		t.Error("the server did not go on")
	}
	stop := w.load()
	w.supervise()
	if w.serves("1.0.0") != before {
		t.Error("the server was started anew")
	}
	done, failed := stop()
	if failed > 0 {
		t.Errorf("%d of %d requests failed", failed, done)
	}
	if r, err := w.order(supervisor.Order{Do: "status"}); err != nil || r.Server == nil || r.PID != w.cmd.Process.Pid {
		t.Errorf("%+v %v", r, err)
	}
}

func TestSupervisorKilledAtEveryEdge(t *testing.T) {
	t.Parallel()
	for edge, want := range map[string]string{
		"handover-spawned": "1.0.0", "handover-ready": "1.0.0", "handover-released": "1.0.0",
		"handover-accepting": "1.1.0", "handover-ducked": "1.1.0", "handover-flipped": "1.1.0",
	} {
		t.Run(edge, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "1.0.0")
			w.install("1.1.0")
			w.supervise("TAKO_FAILPOINT=" + edge + ":kill")
			if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err == nil {
				t.Fatal("the supervisor lives")
			}
			_ = w.cmd.Wait()
			if _, err := w.get(); err != nil {
				t.Errorf("without a supervisor: %v", err)
			}
			w.supervise()
			w.serves(want)
			r, err := w.order(supervisor.Order{Do: "status"})
			if err != nil || r.Current != want || r.Server.Stage != control.Serving {
				t.Errorf("%+v %v", r, err)
			}
			w.await("one server is left", func() bool { return w.processes() == 1 })
			// And it can do it again.
			if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil {
				t.Error(err)
			}
			w.serves("1.1.0")
		})
	}
}

// TestCrashes: a server that dies is started again; one that cannot stay alive gives
// way to the previous version, and that is remembered.
func TestCrashes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	w.supervise()
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil {
		t.Fatal(err)
	}
	w.crash("1.1.0", 3)
	w.await("the previous version serves", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.0.0 ") })
	w.links("1.0.0", "")
	j, err := journal.Open(filepath.Join(w.root, "upgrade"))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(j.Entries()); n == 0 || j.Entries()[n-2].Kind != supervisor.NoteWentBack {
		t.Errorf("%+v", j.Entries())
	}
	// Without a way back it is started again and again.
	for range 4 {
		_, _ = w.get("die")
		w.await("it serves again", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.0.0 ") })
	}
}

// crash has the server of a version die, again and again.
func (w *world) crash(version string, times int) {
	w.t.Helper()
	for i := range times {
		who := ""
		w.await("it serves again", func() (ok bool) { var err error; who, err = w.get(); return err == nil })
		if !strings.HasPrefix(who, version+" ") {
			w.t.Fatalf("after %d crashes: %s", i, who)
		}
		_, _ = w.get("die")
		w.await("it has died", func() bool { now, _ := w.get(); return now != who })
	}
}

// TestKeep: the way back goes when it is told so, of the current version only.
func TestKeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	w.install("b")
	w.supervise()
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "b"}); err != nil {
		t.Fatal(err)
	}
	w.links("b", "a")
	if _, err := w.order(supervisor.Order{Do: "keep", Version: "a"}); err == nil {
		t.Error("a version was kept that is not the current one")
	}
	w.links("b", "a")
	for range 2 {
		if r, err := w.order(supervisor.Order{Do: "keep", Version: "b"}); err != nil || r.Previous != "" {
			t.Errorf("%+v %v", r, err)
		}
		w.links("b", "")
	}
}

// TestDeep: the server is asked whether it does its work.
func TestDeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	w.supervise()
	if r, err := w.order(supervisor.Order{Do: "deep"}); err != nil || r.Server == nil {
		t.Errorf("%+v %v", r, err)
	}
	if err := os.WriteFile(filepath.Join(w.root, "versions", "a", "unwell"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.order(supervisor.Order{Do: "deep"}); err == nil || !strings.Contains(err.Error(), "it does nothing") {
		t.Error(err)
	}
}

// TestOnlyOne: a second supervisor of a root refuses.
func TestOnlyOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.supervise()
	err := supervisor.Run(t.Context(), supervisor.Config{Root: w.root})
	if !errors.Is(err, durable.ErrLocked) {
		t.Errorf("%v", err)
	}
}

// TestEnd: with its supervisor told to end, the servers end.
func TestEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- supervisor.Run(ctx, supervisor.Config{
			Root: w.root, Addresses: map[string]string{"http": w.addr}, Args: []string{"server"}, Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr,
		})
	}()
	w.await("it serves", func() bool { _, err := w.get(); return err == nil })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if who, err := w.get(); err == nil {
		t.Errorf("%s still serves", who)
	}
}
