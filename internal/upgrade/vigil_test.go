package upgrade

import (
	"testing"
	"time"
)

// TestVigil: a hold passes by two clocks. One of them can be set.
func TestVigil(t *testing.T) {
	t.Parallel()
	const hold = 72 * time.Hour
	type look struct {
		wall, ran time.Duration // since the commit, since the process began
		over      bool
	}
	for name, c := range map[string]struct {
		hold  time.Duration
		until time.Duration // of somebody's wish, 0 for none
		looks []look
	}{
		"it passes":                        {hold: hold, looks: []look{{0, 0, false}, {hold - 1, hold - 1, false}, {hold, hold, true}}},
		"no hold":                          {hold: 0, looks: []look{{time.Millisecond, time.Millisecond, true}}},
		"the clock is put forward":         {hold: hold, looks: []look{{0, 0, false}, {2 * hold, time.Hour, false}, {3*hold - time.Hour, hold - time.Second, false}, {3 * hold, hold, true}}},
		"the clock is put back":            {hold: hold, looks: []look{{0, 0, false}, {-hold, hold, false}, {hold, 3 * hold, true}}},
		"another process goes on":          {hold: hold, looks: []look{{hold - time.Hour, 0, false}, {hold, time.Hour - 1, false}, {hold, time.Hour, true}}},
		"it finds the hold over":           {hold: hold, looks: []look{{hold + time.Hour, 0, false}, {hold + time.Hour + settle - 1, settle - 1, false}, {hold + time.Hour + settle, settle, true}}},
		"and the clock is put back then":   {hold: hold, looks: []look{{hold + time.Hour, 0, false}, {time.Hour, settle, false}, {hold, hold - time.Hour + settle, false}, {hold + settle, hold - time.Hour + 2*settle, true}}},
		"and the clock jumps once more":    {hold: hold, looks: []look{{hold + time.Hour, 0, false}, {hold + 2*time.Hour, settle, false}, {hold + 2*time.Hour + settle, 2 * settle, true}}},
		"the clock was wrong at the start": {hold: hold, looks: []look{{-1000 * hold, 0, false}, {time.Hour, time.Minute, false}, {2 * hold, hold - time.Second, false}, {2 * hold, hold, true}}},
		"somebody holds it":                {hold: time.Hour, until: hold, looks: []look{{time.Hour, 0, false}, {hold, hold - time.Hour, true}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			txn := &Txn{ID: "t", State: Committed, At: began, Plan: Plan{Hold: c.hold}}
			if c.until != 0 {
				txn.Hold = began.Add(c.until)
			}
			var v vigil
			for i, l := range c.looks {
				if got := v.over(txn, began.Add(l.wall), l.ran); got != l.over {
					t.Fatalf("look %d (%s after the commit, %s after the beginning): over is %t", i, l.wall, l.ran, got)
				}
			}
		})
	}
}

// TestHoldThatChanges: another end, or another upgrade, is looked at anew.
func TestHoldThatChanges(t *testing.T) {
	t.Parallel()
	txn := &Txn{ID: "t", State: Committed, At: began, Plan: Plan{Hold: time.Hour}}
	var v vigil
	if v.over(txn, began, 0) || !v.over(txn, began.Add(time.Hour), time.Hour) {
		t.Fatal("the first hold")
	}
	txn.Hold = began.Add(3 * time.Hour)
	if v.over(txn, began.Add(time.Hour), time.Hour) || v.over(txn, began.Add(4*time.Hour), 3*time.Hour-1) || !v.over(txn, began.Add(4*time.Hour), 3*time.Hour) {
		t.Error("the second hold")
	}
	txn = &Txn{ID: "u", State: Committed, At: began.Add(4 * time.Hour), Plan: Plan{Hold: time.Hour}}
	if v.over(txn, began.Add(4*time.Hour), 5*time.Hour) || !v.over(txn, began.Add(5*time.Hour), 6*time.Hour) {
		t.Error("another upgrade's hold")
	}
}

// TestProbationIsWhole: the first try watches for the whole time, and a later one for no
// more than that, whatever the clock says.
func TestProbationIsWhole(t *testing.T) {
	t.Parallel()
	txn := &Txn{State: Switched, At: began, Doing: Probation, Plan: Plan{Probation: 10 * time.Minute}}
	for _, c := range []struct {
		tries       int
		after, want time.Duration
	}{
		{1, 0, 10 * time.Minute},
		{1, time.Hour, 10 * time.Minute},
		{2, 4 * time.Minute, 6 * time.Minute},
		{2, time.Hour, 0},
		{3, -time.Hour, 10 * time.Minute},
	} {
		txn.Tries = c.tries
		if got := txn.stillToWatch(began.Add(c.after)); got != c.want {
			t.Errorf("try %d, %s after the switch: %s, not %s", c.tries, c.after, got, c.want)
		}
	}
}
