package upgrade

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/localsocket"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// notes is a log that may be written and read at once.
type notes struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// crew carries an upgrade from version 1 to 2 out, whose programs are scripts.
type crew struct {
	*Coordinator
	t    *testing.T
	root string
	log  *notes
}

// newCrew has an upgrade that has reached a state.
func newCrew(t *testing.T, reached State) *crew {
	t.Helper()
	c := &crew{t: t, root: t.TempDir(), log: &notes{}}
	id, err := Begin(c.root, Plan{From: "1", To: "2", Probation: time.Minute}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.Coordinator, err = Open(Config{Root: c.root, Store: stage.Open(c.root, nil), Environ: os.Environ(), Log: c.log, Poll: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, s := range steps[1:] {
		if c.last().State == reached {
			break
		}
		for _, kind := range []string{KindIntent, KindDone} {
			if err := c.write(&Txn{ID: id}, kind, Mark{State: s}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

func (c *crew) last() *Txn {
	c.t.Helper()
	err := c.journal.Refresh()
	if err != nil {
		c.t.Fatal(err)
	}
	last, err := Last(c.journal.Entries())
	if err != nil || last == nil {
		c.t.Fatal(last, err)
	}
	return last
}

func (c *crew) want(a Ask) {
	c.t.Helper()
	if err := Want(c.root, a, time.Now(), func(t *Txn) error { return Allowed(t, a.Wish) }); err != nil {
		c.t.Fatal(err)
	}
}

// program makes a version's program.
func (c *crew) program(version, script string, mode os.FileMode) {
	c.t.Helper()
	path := c.cfg.Store.Program(version)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		c.t.Fatal(err)
	}
	// A process that is forked meanwhile would hold the file open, and nothing could run it.
	syscall.ForkLock.RLock()
	err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), mode), os.Chmod(path, mode))
	syscall.ForkLock.RUnlock()
	if err != nil {
		c.t.Fatal(err)
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for late := time.Now().Add(2 * time.Minute); !so(); time.Sleep(5 * time.Millisecond) { //nolint:forbidigo // between two looks
		if time.Now().After(late) {
			t.Fatalf("it does not come about that %s", what)
		}
	}
}

// TestWishGoesBefore: what is asked for between the decision to finalize and its first word
// in the journal is what happens.
func TestWishGoesBefore(t *testing.T) {
	t.Parallel()
	for _, a := range []Ask{{Wish: WishRollback}, {Wish: WishHold, Until: time.Now().Add(time.Hour)}} {
		c := newCrew(t, Committed)
		decided := c.last()
		do := decided.Next(time.Now())
		if do.State != Finalized {
			t.Fatalf("next is %+v", do)
		}
		c.want(a)
		if _, err := c.intend(decided, do); !errors.Is(err, errOvertaken) {
			t.Errorf("%s: %v", a.Wish, err)
		}
		if now := c.last(); now.NoReturn() || now.Next(time.Now()).State == Finalized {
			t.Errorf("after %s it is being finalized: %+v", a.Wish, now)
		}
	}
	c := newCrew(t, Committed)
	begun, err := c.intend(c.last(), Do{State: Finalized})
	if err != nil || begun.Doing != Finalized || begun.Tries != 1 {
		t.Errorf("when nobody asks for anything: %+v, %v", begun, err)
	}
}

// TestGivenUpInTheMiddle: a command that runs before the switch is ended when somebody
// gives the upgrade up.
func TestGivenUpInTheMiddle(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Preflight)
	runs := filepath.Join(c.root, "runs")
	c.program("1", `if [ "$2" = list ]; then echo '[]'; exit 0; fi
trap 'echo ended >>'`+runs+`'; exit 1' TERM
echo "$@" >`+runs+`
while :; do sleep 0.05; done`, 0o700)
	ended := make(chan error, 1)
	var at *Txn
	go func() {
		last, err := c.Run(t.Context())
		at = last
		ended <- err
	}()
	eventually(t, "the backup is taken", func() bool {
		raw, err := os.ReadFile(runs)
		return err == nil && strings.HasPrefix(string(raw), "backup create") && strings.HasSuffix(string(raw), "\n")
	})
	c.want(Ask{Wish: WishAbort})
	if err := <-ended; err != nil || at.State != Aborted || at.Failed != "" || at.Error != "somebody asked for it" {
		t.Errorf("it is %+v, %v", at, err)
	}
	if raw, err := os.ReadFile(runs); err != nil || !strings.HasSuffix(string(raw), "ended\n") {
		t.Errorf("the command was not ended: %q, %v", raw, err)
	}
}

// TestWhatCountsAsBad: a version does when it did not work on the copy, and not when
// something else kept it from being tried.
func TestWhatCountsAsBad(t *testing.T) {
	t.Parallel()
	for script, bad := range map[string]bool{
		"echo 'tako: the migration failed' >&2; exit 4": true,
		"echo 'tako: the disk is full' >&2; exit 1":     false,
		"kill -9 $$": false,
		"":           false, // it is not there
	} {
		c := newCrew(t, BackedUp)
		if script != "" {
			c.program("2", script, 0o700)
		}
		txn := c.last()
		txn.Results = map[State]json.RawMessage{BackedUp: json.RawMessage(`{"ID":"b"}`)}
		if _, err := c.rehearse(t.Context(), txn); err == nil {
			t.Errorf("%q: the rehearsal has succeeded", script)
		}
		trust, err := c.cfg.Store.Trust()
		if err != nil {
			t.Fatal(err)
		}
		if reason, is := trust.Bad["2"]; is != bad {
			t.Errorf("%q: it counts as bad: %t, because of %q", script, is, reason)
		}
	}
}

// TestSharedOutage: only a program that was started and could not do its work tells that
// the old version would be no better off.
func TestSharedOutage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		mode   os.FileMode
		want   bool
	}{
		"it can work":      {"exit 0", 0o700, false},
		"it cannot work":   {"exit 1", 0o700, true},
		"it cannot be run": {"exit 1", 0o600, false},
		"it is not there":  {"", 0, false},
		"it is no program": {"", 0o700, false},
	} {
		crew := newCrew(t, Switched)
		switch {
		case c.script != "":
			crew.program("1", c.script, c.mode)
		case c.mode != 0:
			if err := os.MkdirAll(crew.cfg.Store.Program("1"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if got := crew.shared(t.Context(), crew.last()); got != c.want {
			t.Errorf("%s: shared is %t", name, got)
		}
	}
}

// TestNotesChangeNothing: when it cannot be noted which versions are good or bad, an
// upgrade comes to the same end.
func TestNotesChangeNothing(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Probation)
	if err := os.Mkdir(filepath.Join(Dir(c.root), "trust.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.step(t.Context(), c.last(), Do{State: Committed}); err != nil || c.last().State != Committed {
		t.Errorf("it is %+v, %v", c.last(), err)
	}
	c.markBad("2", "no luck")
	for _, want := range []string{"it could not be noted that version 2 is good", "it could not be noted that version 2 failed"} {
		if !strings.Contains(c.log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, c.log)
		}
	}
}

// TestBackupsAreLetGo: what was taken for an upgrade that came to nothing is kept for two
// weeks and no longer, and nothing else is touched; that it fails changes nothing.
func TestBackupsAreLetGo(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"0", "1"} {
		c := newCrew(t, BackedUp)
		ran := filepath.Join(c.root, "ran")
		c.program("1", `if [ "$1 $2" = "backup list" ]; then
cat <<'END'
[{"ID":"a","Pin":{"Reason":"taken for an upgrade","Upgrade":"`+c.last().ID+`"}},{"ID":"b","Pin":{"Upgrade":"another"}},{"ID":"c","Pin":null}]
END
exit 0
fi
echo "$@" >>`+ran+`
exit `+code, 0o700)
		c.want(Ask{Wish: WishAbort})
		last, err := c.Run(t.Context())
		if err != nil || last.State != Aborted {
			t.Fatalf("it is %+v, %v", last, err)
		}
		if raw, err := os.ReadFile(ran); err != nil || string(raw) != "backup unpin a --after 14d\n" {
			t.Errorf("it ran %q, %v", raw, err)
		}
		if said := strings.Contains(c.log.String(), "stay until somebody unpins them"); said != (code == "1") {
			t.Errorf("with code %s the log is: %s", code, c.log)
		}
	}
}

// full is a disk that is full.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestFullLog: a command goes on when nothing can be written to the log, and of much that
// it says the end is known.
func TestFullLog(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Planned)
	c.cfg.Log = loose{full{}}
	c.program("1", `line=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
i=0; while [ $i -lt 3000 ]; do echo $line >&2; i=$((i+1)); done
echo answer; echo 'tako: the last words' >&2; exit 3`, 0o700)
	out, err := c.run(t.Context(), "1", "some", "command", "more")
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 3 || !strings.HasSuffix(err.Error(), ": the last words") || string(out) != "answer\n" {
		t.Errorf("it said %q and ended with %v", out, err)
	}
	c.program("1", `i=0; while [ $i -lt 12 ]; do printf %4000d 7 >&2; i=$((i+1)); done; exit 3`, 0o700)
	if _, err := c.run(t.Context(), "1", "some", "command"); err == nil || len(err.Error()) > maxReason+200 || !strings.HasSuffix(err.Error(), "...") {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
	c.program("1", `head -c 5000000 /dev/zero`, 0o700)
	if _, err := c.run(t.Context(), "1", "some", "command"); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("an answer that is too long: %v", err)
	}
}

// TestEnding keeps the end, whatever the pieces are.
func TestEnding(t *testing.T) {
	t.Parallel()
	all := strings.Repeat("0123456789", 3*maxSaid/10)
	for _, piece := range []int{1000, maxSaid - 1, maxSaid, maxSaid + 1, len(all)} {
		var e ending
		for rest := all; rest != ""; {
			n := min(piece, len(rest))
			if got, err := e.Write([]byte(rest[:n])); err != nil || got != n {
				t.Fatal(got, err)
			}
			rest = rest[n:]
		}
		if string(e.kept) != all[len(all)-maxSaid:] {
			t.Errorf("in pieces of %d, %d bytes are kept", piece, len(e.kept))
		}
	}
}

// scripted answers a supervisor's socket: the next answer to each order, nothing where it
// is nil, and the last one again and again. It tells which orders there were.
type scripted struct {
	mu      sync.Mutex
	answers map[string][]*supervisor.Report
	orders  []string
}

func (s *scripted) listen(t *testing.T, root string) {
	t.Helper()
	ln, err := localsocket.Listen(t.Context(), supervisor.SocketPath(root))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.AcceptLocal()
			if err != nil {
				return // the test has ended
			}
			s.answer(conn)
		}
	}()
}

func (s *scripted) answer(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewScanner(conn)
	var o supervisor.Order
	if !in.Scan() || json.Unmarshal(in.Bytes(), &o) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, strings.TrimSpace(o.Do+" "+o.Version))
	all := s.answers[o.Do]
	if len(all) == 0 {
		return
	}
	if len(all) > 1 {
		s.answers[o.Do] = all[1:]
	}
	if all[0] == nil {
		return
	}
	raw, err := json.Marshal(all[0])
	if err != nil {
		return
	}
	_, _ = conn.Write(append(raw, '\n'))
}

func (s *scripted) count(order string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		if o == order {
			n++
		}
	}
	return n
}

func serving(version string) *supervisor.Report {
	return &supervisor.Report{Format: control.Format, Current: version, Server: &control.Status{PID: 7, Version: version, Stage: control.Serving}}
}

// TestServiceStopsInTheMiddle: a supervisor that is stopped while it is told to switch is
// waited for, and the switch is ordered once more only if it has not come about.
func TestServiceStopsInTheMiddle(t *testing.T) {
	t.Parallel()
	none := &supervisor.Report{Format: control.Format, Current: "1"}
	flipped := &supervisor.Report{Format: control.Format, Current: "2"}
	for name, c := range map[string]struct {
		status []*supervisor.Report
		orders int
	}{
		"before it began":   {[]*supervisor.Report{serving("1"), none, none, serving("1"), serving("1")}, 2},
		"when it was done":  {[]*supervisor.Report{serving("1"), flipped}, 1},
		"when all was done": {[]*supervisor.Report{serving("1"), serving("2")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crew := newCrew(t, Expanded)
			s := &scripted{answers: map[string][]*supervisor.Report{
				"status": c.status, "switch": {nil, serving("2")},
				"deep": {{Format: control.Format, Current: "2", Error: "no server runs; the supervisor is trying to start one"}, serving("2")},
			}}
			done := make(chan error, 1)
			txn := crew.last()
			go func() { done <- crew.serve(t.Context(), txn, "2") }()
			eventually(t, "it waits for the supervisor", func() bool { return strings.Contains(crew.log.String(), "waiting for the supervisor") })
			s.listen(t, crew.root)
			if err := <-done; err != nil {
				t.Error(err)
			}
			if n := s.count("switch 2"); n != c.orders {
				t.Errorf("the switch was ordered %d times, not %d: %q", n, c.orders, s.orders)
			}
		})
	}
}

// TestWayBackIsNotGivenUp: who gives an upgrade up while it switches has it go back, and
// not give up to go back.
func TestWayBackIsNotGivenUp(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Expanded)
	if _, err := c.intend(c.last(), Do{State: Switched}); err != nil {
		t.Fatal(err)
	}
	c.want(Ask{Wish: WishRollback})
	looks := []*supervisor.Report{}
	for range 20 {
		looks = append(looks, &supervisor.Report{Format: control.Format, Current: "2"})
	}
	s := &scripted{answers: map[string][]*supervisor.Report{"status": append(looks, serving("1"))}}
	s.listen(t, c.root)
	if err := c.step(t.Context(), c.last(), Do{State: RolledBack, Because: "somebody asked for it"}); err != nil {
		t.Fatal(err)
	}
	if got := c.last(); got.State != RolledBack || got.Failed != "" {
		t.Errorf("it is %+v", got)
	}
}

// TestWayBackPastOneThatHangs: a version that does not hand over is killed for that, and
// then one can go back; to go forward is not tried again.
func TestWayBackPastOneThatHangs(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]int{"1": 2, "2": 1} {
		from := map[string]string{"1": "2", "2": "1"}[to]
		refused := serving(from)
		refused.Error = "the version that runs did not give its tasks back"
		none := &supervisor.Report{Format: control.Format, Current: "2", Previous: "1"}
		s := &scripted{answers: map[string][]*supervisor.Report{
			"status": {serving(from), none}, "switch": {refused, serving(to)}, "deep": {serving(to)},
		}}
		c := newCrew(t, Expanded)
		s.listen(t, c.root)
		err := c.serve(t.Context(), c.last(), to)
		if n := s.count("switch " + to); n != want || (err == nil) != (want == 2) {
			t.Errorf("to version %s: it was ordered %d times: %v", to, n, err)
		}
	}
}

// TestWayBackInAnOutage: the way back is tried until the database is there again, and is
// not waited for where the old version cannot use the data.
func TestWayBackInAnOutage(t *testing.T) {
	t.Parallel()
	for code, orders := range map[string]int{"1": MaxTries + 2, "78": MaxTries} {
		refused := serving("2")
		refused.Error = "version 1 cannot take over: it has ended: exit status 69"
		answers := []*supervisor.Report{}
		for range MaxTries + 1 {
			answers = append(answers, refused)
		}
		s := &scripted{answers: map[string][]*supervisor.Report{
			"status": {serving("2")}, "switch": append(answers, serving("1")), "deep": {serving("1")},
		}}
		c := newCrew(t, Committed)
		c.program("1", "exit "+code, 0o700)
		s.listen(t, c.root)
		err := c.serve(t.Context(), c.last(), "1")
		if n := s.count("switch 1"); n != orders || (err == nil) != (code == "1") {
			t.Errorf("with code %s it was ordered %d times, not %d: %v", code, n, orders, err)
		}
	}
}

// TestNotFinalizedInAnOutage: the end of the hold may come while the database is away; what
// would fail then, and could not be taken back, is not begun.
func TestNotFinalizedInAnOutage(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Committed)
	unwell := serving("2")
	unwell.Error = "the database does not answer"
	s := &scripted{answers: map[string][]*supervisor.Report{"status": {serving("2")}, "deep": {unwell, unwell, serving("2")}, "keep": {serving("2")}}}
	s.listen(t, c.root)
	c.program("2", "echo '{}'", 0o700)
	last, err := c.Run(t.Context())
	if err != nil || last.State != Finalized || last.Failed != "" {
		t.Errorf("it is %+v, %v", last, err)
	}
	if n := s.count("deep"); n != 3 || !strings.Contains(c.log.String(), "not finalized yet: the database does not answer") {
		t.Errorf("it looked %d times: %s", n, c.log)
	}
}

// TestRestartIsNoCrash: while a version is watched its server may be begun anew together
// with the supervisor.
func TestRestartIsNoCrash(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Switched)
	txn := c.last()
	txn.Plan.Probation, txn.Tries = 0, 1
	again := serving("2")
	again.Server.PID = 8
	unwell := &supervisor.Report{Format: control.Format, Current: "2", Server: &control.Status{PID: 7, Version: "2", Stage: control.Serving}, Error: "it is not ready"}
	starting := &supervisor.Report{Format: control.Format, Current: "2", Error: "no server runs"}
	s := &scripted{answers: map[string][]*supervisor.Report{"deep": {unwell, nil, starting, starting, starting, starting, again}}}
	s.listen(t, c.root)
	c.program("1", "exit 0", 0o700)
	if err := c.watch(t.Context(), txn); err != nil {
		t.Error(err)
	}
	s = &scripted{answers: map[string][]*supervisor.Report{"deep": {unwell, again}}}
	c = newCrew(t, Switched)
	s.listen(t, c.root)
	if err := c.watch(t.Context(), txn); err == nil || !strings.Contains(err.Error(), "crashed") {
		t.Errorf("another server, and the same supervisor: %v", err)
	}
}

// TestAttended: the process that carries upgrades out is known by its number, by what it
// runs, and by the root that it does it for.
func TestAttended(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, WorkerCommand), []byte("read line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, other, alias := filepath.Join(dir, "root"), filepath.Join(dir, "other"), filepath.Join(dir, "alias")
	for _, r := range []string{root, other} {
		if err := os.MkdirAll(Dir(r), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(root, alias); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", WorkerCommand, "--root", root)
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	for _, r := range []string{root, other} {
		raw, err := json.Marshal(pid)
		if err == nil {
			err = os.WriteFile(lockPath(r), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := Attended(root); got != pid {
		t.Errorf("the root is attended by %d, not %d", got, pid)
	}
	if got := Attended(alias); got != pid {
		t.Errorf("by its other name it is attended by %d, not %d", got, pid)
	}
	if got := Attended(other); got != 0 {
		t.Errorf("another root is attended by %d, which is busy with %s", got, root)
	}
	if err := errors.Join(in.Close(), ignored(cmd.Wait())); err != nil {
		t.Fatal(err)
	}
	if got := Attended(root); got != 0 {
		t.Errorf("it is attended by %d, which has ended", got)
	}
}

// ignored takes an exit code for none: `read` has one at the end of its input.
func ignored(err error) error {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return nil
	}
	return err
}

// TestLongLogIsPutAside when the next process begins.
func TestLongLogIsPutAside(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Planned)
	log := WorkerLog(c.root)
	for i, size := range []int64{maxLog - 1, maxLog} {
		if err := errors.Join(os.WriteFile(log, []byte("old"), 0o600), os.Truncate(log, size)); err != nil {
			t.Fatal(err)
		}
		if err := (Worker{Program: "/bin/true", Environ: os.Environ()}).Start(c.root); err != nil {
			t.Fatal(err)
		}
		aside, err := os.Stat(log + ".1")
		if now, bad := os.Stat(log); bad != nil || (now.Size() == 0) != (i == 1) || (err == nil) != (i == 1) {
			t.Errorf("of %d bytes: %v, %v, put aside %v, %v", size, now, bad, aside, err)
		}
	}
}
