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
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/lameduck"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
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
		return fault.ExitUnavailable
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
	switch r.URL.Path {
	case "/die":
		os.Exit(4)
	case "/lose":
		os.Exit(fault.ExitUnavailable)
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
	for l.is("hangs") {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
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
	limits := supervisor.Limits{Ready: 5 * time.Second, Orphan: time.Second, Page: patience}
	for name, limit := range map[string]*time.Duration{"TEST_DEEP": &limits.Deep, "TEST_ADOPT": &limits.Adopt, "TEST_READY": &limits.Ready, "TEST_PAGE": &limits.Page, "TEST_CRASHTIME": &limits.CrashTime} {
		if text, ok := os.LookupEnv(name); ok {
			*limit, _ = time.ParseDuration(text)
		}
	}
	if os.Getenv("LISTEN_FDS") != "" { // which is for the process with this number alone
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
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

// pids are the processes of the servers that run.
func (w *world) pids() (out []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range all {
		target, err := os.Readlink(exe)
		if err != nil || !strings.HasPrefix(target, filepath.Join(w.root, "versions")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe))); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// processes is how many servers run.
func (w *world) processes() int { return len(w.pids()) }

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
