package upgrade

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// tale writes entries a second apart.
type tale struct {
	t   *testing.T
	all []journal.Entry
	now time.Time
	txn string
}

func (s *tale) add(kind string, data any) {
	s.t.Helper()
	raw, err := json.Marshal(data)
	if err != nil {
		s.t.Fatal(err)
	}
	s.all = append(s.all, journal.Entry{Txn: s.txn, Kind: kind, At: s.now, Data: raw})
}

func (s *tale) step(state State, took time.Duration) {
	s.t.Helper()
	s.add(KindIntent, Mark{State: state})
	s.now = s.now.Add(took)
	s.add(KindDone, Mark{State: state})
}

// TestStepsTellTimes: how long each step took, and how long the rest takes by what the
// upgrade before took.
func TestStepsTellTimes(t *testing.T) {
	t.Parallel()
	s := &tale{t: t, now: time.Unix(1000, 0).UTC()}
	s.txn = "one"
	s.add(KindPlan, Plan{From: "1.0.0", To: "2.0.0", Probation: time.Minute})
	for i, state := range []State{Staged, Preflight, BackedUp, Rehearsed, Expanded, Switched, Probation, Committed, Finalized} {
		s.step(state, time.Duration(i+1)*time.Second)
	}
	first := len(s.all)
	s.txn = "two"
	s.now = s.now.Add(time.Hour)
	s.add(KindPlan, Plan{From: "2.0.0", To: "3.0.0", Probation: 30 * time.Second})
	s.step(Staged, 10*time.Second)
	s.add(KindIntent, Mark{State: Preflight})

	all, err := Fold(s.all)
	if err != nil {
		t.Fatal(err)
	}
	took := map[State]time.Duration{}
	for _, step := range Steps(s.all, &all[0]) {
		took[step.State] = step.Took()
	}
	sec := time.Second
	if diff := cmp.Diff(map[State]time.Duration{
		Planned: 0, Staged: sec, Preflight: 2 * sec, BackedUp: 3 * sec, Rehearsed: 4 * sec, Expanded: 5 * sec, Switched: 6 * sec, Probation: 7 * sec, Committed: 8 * sec, Finalized: 9 * sec,
	}, took); diff != "" {
		t.Errorf("the first took (-want +got)\n%s", diff)
	}
	second := Steps(s.all, &all[1])
	if got := second[1]; got.Took() != 10*sec || got.Usual != sec {
		t.Errorf("STAGED is %+v", got)
	}
	if last := second[len(second)-1]; last.State != Committed || !last.Ended.IsZero() {
		t.Errorf("the last step is %+v", last)
	}
	// PREFLIGHT has gone on for 1.5 of its 2 seconds; 3+4+5+6 and the probation remain.
	if left, ok := Remaining(second, &all[1], s.now.Add(1500*time.Millisecond)); !ok || left != 18*sec+30*sec+500*time.Millisecond {
		t.Errorf("the rest takes %s, %t", left, ok)
	}
	if _, ok := Remaining(Steps(s.all[:first], &all[0]), &all[0], s.now); ok {
		t.Error("a finalized upgrade still has a rest")
	}
	// Of the first upgrade nothing is known.
	early, err := Fold(s.all[:4])
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := Remaining(Steps(s.all[:4], &early[0]), &early[0], s.now); ok {
		t.Error("how long the first upgrade takes is guessed")
	}
}

// TestAllowed: what may be wanted follows from the state.
func TestAllowed(t *testing.T) {
	t.Parallel()
	wishes := []Wish{WishAbort, WishRollback, WishFinalize, WishHold, WishResume, WishForward}
	for _, c := range []struct {
		txn  Txn
		want []Wish
	}{
		{Txn{State: Planned}, []Wish{WishAbort, WishResume}},
		{Txn{State: Expanded, Doing: Switched}, []Wish{WishRollback, WishResume}},
		{Txn{State: Switched}, []Wish{WishRollback, WishResume}},
		{Txn{State: Committed}, []Wish{WishRollback, WishFinalize, WishHold, WishResume}},
		{Txn{State: Committed, Doing: Finalized, noReturn: true}, []Wish{WishResume}},
		{Txn{State: Finalized, noReturn: true}, nil},
		{Txn{State: RolledBack}, nil},
		{Txn{State: Aborted}, nil},
		{Txn{State: NeedsOperator}, []Wish{WishResume, WishForward}},
	} {
		var got []Wish
		for _, w := range wishes {
			if Allowed(&c.txn, w) == nil {
				got = append(got, w)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (on the way to %q): (-want +got)\n%s", c.txn.State, c.txn.Doing, diff)
		}
	}
}
