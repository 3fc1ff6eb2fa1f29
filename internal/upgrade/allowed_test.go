package upgrade

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// TestOnlyARestoreLeadsBack: from when on, and in which words.
func TestOnlyARestoreLeadsBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		restore bool
		state   State
		doing   State
		says    string // "" for a way back, "-" for another reason
	}{
		{true, Expanded, "", "-"},
		{true, Expanded, Switched, "version 2 does not hand its data back to version 1"},
		{true, Switched, "", "does not hand its data back"},
		{true, Committed, "", "does not hand its data back"},
		{true, NeedsOperator, "", "does not hand its data back"},
		{true, RolledBack, "", "-"},
		{true, Aborted, "", "-"},
		{false, Switched, "", ""},
		{false, Committed, "", ""},
		{false, Committed, Finalized, "the upgrade to 2 was finalized"},
		{true, Committed, Finalized, "the upgrade to 2 was finalized"},
		{false, Finalized, "", "the upgrade to 2 was finalized"},
	} {
		txn := &Txn{
			Plan: Plan{From: "1", To: "2", Restore: c.restore}, State: c.state, Doing: c.doing, noReturn: c.doing == Finalized || c.state == Finalized,
			Results: map[State]json.RawMessage{BackedUp: json.RawMessage(`{"ID":"20261127T100210Z-k3f9","Created":"2026-11-27T10:02:11.5Z"}`)},
		}
		err := Allowed(txn, WishRollback)
		var only *NeedsRestoreError
		switch {
		case c.says == "":
			if err != nil {
				t.Errorf("%+v: %v", c, err)
			}
		case c.says == "-":
			if err == nil || errors.As(err, &only) {
				t.Errorf("%+v: %v", c, err)
			}
		case !errors.As(err, &only) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "restore its backup 20261127T100210Z-k3f9, which loses what was written since 2026-11-27T10:02:11Z"):
			t.Errorf("%+v: %v", c, err)
		default:
			n := int64(14)
			if only.Newer = &n; !strings.Contains(err.Error(), "which loses 14 deployments") {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
}

// TestBackupOfAnUpgrade: a version that did not tell when it took the backup has told its
// name, which has the time in it.
func TestBackupOfAnUpgrade(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 27, 10, 2, 11, 0, time.UTC)
	for result, want := range map[string]struct {
		id string
		at time.Time
	}{
		"": {},
		`{"ID":"20261127T100211Z-k3f9","DatabaseBytes":1}`:                          {"20261127T100211Z-k3f9", at},
		`{"ID":"20261127T100211Z-k3f9","Created":"2026-11-27T10:02:12Z","Level":2}`: {"20261127T100211Z-k3f9", at.Add(time.Second)},
		`{"ID":"mine"}`: {},
		`[]`:            {},
	} {
		txn := &Txn{Results: map[State]json.RawMessage{}}
		if result != "" {
			txn.Results[BackedUp] = json.RawMessage(result)
		}
		if id, got := txn.Backup(); id != want.id || !got.Equal(want.at) {
			t.Errorf("%s: %q of %s", result, id, got)
		}
	}
}

// oneWay is a crew whose upgrade cannot be taken back without a restore.
func oneWay(t *testing.T, reached State) *crew {
	t.Helper()
	c := newCrew(t, Planned)
	if err := c.write(c.last(), KindDone, Mark{State: Aborted}); err != nil {
		t.Fatal(err)
	}
	id, err := Begin(c.root, Plan{From: "1", To: "2", Probation: time.Minute, Restore: true}, time.Now().Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
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

// TestNoWayBackByItself: the supervisor forgets the old version when the new one serves; a
// new one that is not well needs an operator, and one that never served is left as ever.
func TestNoWayBackByItself(t *testing.T) {
	t.Parallel()
	c := oneWay(t, Expanded)
	s := &scripted{answers: map[string][]*supervisor.Report{"status": {serving("2")}, "keep": {serving("2")}}}
	s.listen(t, c.root)
	if err := c.step(t.Context(), c.last(), Do{State: Switched}); err != nil || c.last().State != Switched || s.count("keep 2") != 1 {
		t.Fatalf("it is %+v, %v", c.last(), err)
	}
	if err := c.write(c.last(), KindFailed, Mark{State: Probation, Error: "version 2 is not well"}); err != nil {
		t.Fatal(err)
	}
	last, err := c.Run(t.Context())
	if err != nil || last.State != NeedsOperator || !strings.Contains(last.Error, "version 2 is not well; version 2 does not hand its data back to version 1") {
		t.Errorf("it is %+v, %v", last, err)
	}
	if s.count("switch 1") != 0 {
		t.Error("it was ordered to go back")
	}

	// The switch itself fails, and the old version serves on.
	c = oneWay(t, Expanded)
	refused := serving("1")
	refused.Error = "version 2 cannot take over"
	s = &scripted{answers: map[string][]*supervisor.Report{"status": {serving("1")}, "switch": {refused}, "deep": {serving("1")}}}
	s.listen(t, c.root)
	c.program("1", "echo '[]'", 0o700)
	if last, err := c.Run(t.Context()); err != nil || last.State != RolledBack || s.count("keep 2") != 0 {
		t.Errorf("it is %+v, %v", last, err)
	}
}

// TestClosedAfterARestore: once somebody has restored the data, and the old version serves,
// the upgrade can be closed, also one that needs an operator.
func TestClosedAfterARestore(t *testing.T) {
	t.Parallel()
	for _, state := range []State{Committed, NeedsOperator} {
		c := oneWay(t, Committed)
		if state == NeedsOperator {
			if err := c.write(c.last(), KindDone, Mark{State: NeedsOperator, Error: "no luck"}); err != nil {
				t.Fatal(err)
			}
		}
		c.program("1", "echo '[]'", 0o700)
		var only *NeedsRestoreError
		try := func() error {
			wish, allowed, err := Back(t.Context(), c.root)
			if err != nil {
				t.Fatal(err)
			}
			return Want(c.root, Ask{Wish: wish}, time.Now(), allowed)
		}
		if err := try(); !errors.As(err, &only) {
			t.Errorf("%s: without a supervisor: %v", state, err)
		}
		starting := &supervisor.Report{Format: control.Format, Current: "1"}
		s := &scripted{answers: map[string][]*supervisor.Report{"status": {serving("2"), starting, serving("1")}, "deep": {serving("1")}}}
		s.listen(t, c.root)
		for _, what := range []string{"the new version serves", "the old one does not serve yet"} {
			if err := try(); !errors.As(err, &only) {
				t.Errorf("%s: %s: %v", state, what, err)
			}
		}
		if err := try(); err != nil {
			t.Fatalf("%s: %v", state, err)
		}
		last, err := c.Run(t.Context())
		if err != nil || last.State != RolledBack {
			t.Errorf("%s: it is %+v, %v", state, last, err)
		}
		trust, err := c.cfg.Store.Trust()
		if err != nil || len(trust.Bad) != 0 {
			t.Errorf("%s: it counts as bad: %v, %v", state, trust.Bad, err)
		}
	}
}
