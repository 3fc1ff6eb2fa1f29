package upgrade

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/localsocket"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

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

// TestWayBackInAnOutage: the way back is tried until the database is there again, for some
// time when nobody knows whether that is what is missing, and is not waited for where the old
// version cannot use the data. Then its own words say why.
func TestWayBackInAnOutage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code   string
		doubt  time.Duration
		orders int
	}{
		"the database is away":            {"69", 0, MaxTries + 2},
		"it does not know why":            {"1", time.Hour, MaxTries + 2},
		"it did not know for a long time": {"1", 0, MaxTries},
		"it cannot use the data":          {"78", time.Hour, MaxTries},
	} {
		refused := serving("2")
		refused.Error = "version 1 cannot take over"
		answers := []*supervisor.Report{}
		for range MaxTries + 1 {
			answers = append(answers, refused)
		}
		s := &scripted{answers: map[string][]*supervisor.Report{
			"status": {serving("2")}, "switch": append(answers, serving("1")), "deep": {serving("1")},
		}}
		crew := newCrew(t, Committed)
		crew.doubt = c.doubt
		crew.program("1", "echo 'tako: what it says' >&2; exit "+c.code, 0o700)
		s.listen(t, crew.root)
		err := crew.serve(t.Context(), crew.last(), "1")
		if n := s.count("switch 1"); n != c.orders || (err == nil) != (c.orders > MaxTries) {
			t.Errorf("%s: it was ordered %d times, not %d: %v", name, n, c.orders, err)
		}
		if said := crew.log.String(); !strings.Contains(said, "what it says") || err != nil && !strings.Contains(err.Error(), "what it says") {
			t.Errorf("%s: it is not told why: %v\n%s", name, err, said)
		}
	}
}

// TestWayBackToOneThatIsNotWell: once the old version is the current one it is waited for as
// long as its reason may pass, and else somebody is needed.
func TestWayBackToOneThatIsNotWell(t *testing.T) {
	t.Parallel()
	for code, comes := range map[string]bool{"69": true, "1": false, "78": false} {
		unwell := serving("1")
		unwell.Error = "it is not ready"
		looks := []*supervisor.Report{}
		for range 20 {
			looks = append(looks, unwell)
		}
		if comes {
			looks = append(looks, serving("1"))
		}
		s := &scripted{answers: map[string][]*supervisor.Report{"status": {{Format: control.Format, Current: "1"}}, "deep": looks}}
		c := newCrew(t, Committed)
		c.patience, c.doubt = time.Millisecond, 0
		c.program("1", "[ $1 = database ] && exit "+code+"; echo '[]'", 0o700)
		s.listen(t, c.root)
		c.want(Ask{Wish: WishRollback})
		last, err := c.Run(t.Context())
		if err != nil || comes != (last.State == RolledBack) || !comes && (last.State != NeedsOperator || !strings.Contains(last.Error, "it is not ready (database check of version 1: exit status "+code)) {
			t.Errorf("with code %s it is %+v, %v", code, last, err)
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

// TestOutageWhileWatched: a server that could not be started while the database was away is
// started by and by when that is there again, and its version is not to blame until then.
func TestOutageWhileWatched(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Switched)
	txn := c.last()
	txn.Plan.Probation, txn.Tries = 0, 1
	starting := &supervisor.Report{Format: control.Format, Current: "2", Error: "no server runs"}
	looks := []*supervisor.Report{}
	for range 3 * failures {
		looks = append(looks, starting)
	}
	s := &scripted{answers: map[string][]*supervisor.Report{"deep": append(looks, serving("2"))}}
	s.listen(t, c.root)
	// It is away when it is asked for the first time, and then no more.
	c.program("1", "mkdir '"+filepath.Join(c.root, "asked")+"' && exit 1; exit 0", 0o700)
	if err := c.watch(t.Context(), txn); err != nil {
		t.Error(err)
	}
	if !strings.Contains(c.log.String(), "version 1 would not be either") {
		t.Errorf("the old version was not asked: %s", c.log)
	}
}
