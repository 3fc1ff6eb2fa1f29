package upgrade

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

var began = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// book is a journal in memory.
type book struct {
	entries []journal.Entry
	now     time.Time
}

func newBook() *book {
	b := &book{now: began}
	b.add(KindPlan, Plan{From: "2026.4.0", To: "2026.5.0", Hold: 72 * time.Hour, Probation: 10 * time.Minute})
	return b
}

func (b *book) add(kind string, data any) *book {
	raw, err := json.Marshal(data)
	if err != nil {
		raw = nil
	}
	b.now = b.now.Add(time.Second)
	b.entries = append(b.entries, journal.Entry{Seq: int64(len(b.entries)) + 1, Txn: "t", Kind: kind, At: b.now, Data: raw})
	return b
}

func (b *book) begin(s State) *book { return b.add(KindIntent, Mark{State: s}) }
func (b *book) done(s State) *book  { return b.begin(s).add(KindDone, Mark{State: s}) }
func (b *book) fail(s State) *book {
	return b.begin(s).add(KindFailed, Mark{State: s, Error: "no luck"})
}
func (b *book) wish(w Wish) *book { return b.add(KindAsk, Ask{Wish: w}) }

// at is a journal up to a state.
func at(s State) *book { return newBook().to(s) }

// inImage is a journal up to a state of an upgrade in a container, to whose new version nobody
// has changed yet.
func inImage(s State) *book {
	b := &book{now: began}
	return b.add(KindPlan, Plan{From: "2026.4.0", To: "2026.5.0", Hold: 72 * time.Hour, Image: true}).to(s)
}

// runs has the container of an upgrade run with the image of a version.
func (b *book) runs(version string) *book {
	from := map[string]string{"2026.4.0": "2026.5.0", "2026.5.0": "2026.4.0"}[version]
	return b.add(supervisor.NoteSwitched, way(from, version))
}

func (b *book) to(s State) *book {
	for _, one := range steps[1:] {
		if b.last() == s {
			break
		}
		b.done(one)
	}
	return b
}

func (b *book) last() State {
	t, err := Last(b.entries)
	if err != nil || t == nil {
		return ""
	}
	return t.State
}

func way(from, to string) map[string]string { return map[string]string{"from": from, "to": to} }

func TestNext(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		book *book
		want State
	}{
		"begun":                               {newBook(), Staged},
		"staged":                              {at(Staged), Preflight},
		"in the middle of a step":             {at(Staged).begin(Preflight), Preflight},
		"killed in it too often":              {at(Staged).begin(Preflight).begin(Preflight).begin(Preflight), Aborted},
		"a step fails":                        {at(BackedUp).fail(Rehearsed), Aborted},
		"given up":                            {at(BackedUp).wish(WishAbort), Aborted},
		"given up in the middle of expanding": {at(Rehearsed).begin(Expanded).wish(WishAbort), Aborted},
		"expanded":                            {at(Expanded), Switched},
		"killed while switching":              {at(Expanded).begin(Switched), Switched},
		"given up while switching":            {at(Expanded).begin(Switched).wish(WishAbort), RolledBack},
		"the switch fails":                    {at(Expanded).fail(Switched), RolledBack},
		"switched":                            {at(Switched), Probation},
		"it is not well":                      {at(Switched).fail(Probation), RolledBack},
		"killed in watching too often":        {at(Switched).begin(Probation).begin(Probation).begin(Probation).begin(Probation), Probation},
		"it crashes":                          {at(Switched).begin(Probation).add(supervisor.NoteWentBack, way("2026.5.0", "2026.4.0")), RolledBack},
		"something else went back":            {at(Switched).add(supervisor.NoteWentBack, way("2026.4.0", "2026.3.0")), Probation},
		"going back":                          {at(Switched).fail(Probation).begin(RolledBack), RolledBack},
		"cannot go back":                      {at(Switched).fail(Probation).fail(RolledBack), NeedsOperator},
		"killed in going back too often":      {at(Switched).wish(WishRollback).begin(RolledBack).begin(RolledBack).begin(RolledBack), NeedsOperator},
		"somebody has helped":                 {at(Switched).fail(Probation).fail(RolledBack).done(NeedsOperator).wish(WishResume), RolledBack},
		"kept all the same":                   {at(Switched).fail(Probation).fail(RolledBack).done(NeedsOperator).wish(WishForward), ""},
		"kept, and left after all":            {at(Switched).fail(Probation).fail(RolledBack).done(NeedsOperator).wish(WishForward).wish(WishRollback), RolledBack},
		"kept, and final":                     {at(Committed).wish(WishRollback).fail(RolledBack).done(NeedsOperator).wish(WishForward).wish(WishFinalize), Finalized},
		"well":                                {at(Probation), Committed},
		"committed":                           {at(Committed), ""},
		"not waiting":                         {at(Committed).wish(WishFinalize), Finalized},
		"held again":                          {at(Committed).wish(WishFinalize).wish(WishHold), ""},
		"going back after days":               {at(Committed).wish(WishRollback), RolledBack},
		"going back goes before":              {at(Committed).wish(WishFinalize).wish(WishRollback), RolledBack},
		"crashes after days":                  {at(Committed).add(supervisor.NoteWentBack, way("2026.5.0", "2026.4.0")), RolledBack},
		"being finalized":                     {at(Committed).begin(Finalized).wish(WishRollback), Finalized},
		"cannot be finalized":                 {at(Committed).fail(Finalized), NeedsOperator},
		"could not be, and is tried again":    {at(Committed).fail(Finalized).done(NeedsOperator).wish(WishResume), Finalized},
		"could not be, and is kept":           {at(Committed).fail(Finalized).done(NeedsOperator).wish(WishForward), Finalized},
		"finalized":                           {at(Finalized).wish(WishRollback), ""},
		"given up before":                     {at(Staged).done(Aborted).wish(WishFinalize), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			txn, err := Last(c.book.entries)
			if err != nil {
				t.Fatal(err)
			}
			if got := txn.Next(c.book.now); got.State != c.want {
				t.Errorf("next is %q (%s), not %q", got.State, got.Because, c.want)
			}
		})
	}
}

// TestNextInContainer: nothing is switched over there, and nobody goes back but by the image
// of the old version.
func TestNextInContainer(t *testing.T) {
	t.Parallel()
	const older, newer = "2026.4.0", "2026.5.0"
	for name, c := range map[string]struct {
		book  *book
		want  State
		waits bool
	}{
		"begun":                                {inImage(Planned), Staged, false},
		"rehearsed":                            {inImage(Rehearsed), Expanded, false},
		"expanded":                             {inImage(Expanded), "", true},
		"killed in expanding too often":        {inImage(Rehearsed).begin(Expanded).begin(Expanded).begin(Expanded), Aborted, false},
		"given up":                             {inImage(Expanded).wish(WishAbort), Aborted, false},
		"a third version's image":              {inImage(Expanded).add(supervisor.NoteSwitched, way(older, "2026.3.0")), "", true},
		"the new image":                        {inImage(Expanded).runs(newer), Switched, false},
		"the new image too early":              {inImage(Staged).begin(Preflight).runs(newer), Switched, false},
		"the new image after a step failed":    {inImage(Preflight).fail(BackedUp).runs(newer), Switched, false},
		"the new image, and back at once":      {inImage(Expanded).runs(newer).runs(older), RolledBack, false},
		"switched":                             {inImage(Expanded).runs(newer).done(Switched), Committed, false},
		"killed in it again and again":         {inImage(Expanded).runs(newer).done(Switched).begin(Committed).begin(Committed).begin(Committed), Committed, false},
		"committed":                            {inImage(Expanded).runs(newer).done(Switched).done(Committed), "", false},
		"not waiting":                          {inImage(Expanded).runs(newer).wish(WishFinalize).done(Switched).done(Committed), Finalized, false},
		"to go back":                           {inImage(Expanded).runs(newer).done(Switched).done(Committed).wish(WishRollback), "", true},
		"to go back goes before":               {inImage(Expanded).runs(newer).done(Switched).done(Committed).wish(WishFinalize).wish(WishRollback), "", true},
		"to go back, and not after all":        {inImage(Expanded).runs(newer).done(Switched).done(Committed).wish(WishRollback).wish(WishHold), "", false},
		"to go back, and final":                {inImage(Expanded).runs(newer).done(Switched).done(Committed).wish(WishRollback).wish(WishFinalize), Finalized, false},
		"the old image":                        {inImage(Expanded).runs(newer).done(Switched).done(Committed).wish(WishRollback).runs(older), RolledBack, false},
		"the old image, and the new one again": {inImage(Expanded).runs(newer).done(Switched).done(Committed).runs(older).begin(RolledBack).runs(newer), "", false},
		"being finalized":                      {inImage(Expanded).runs(newer).done(Switched).done(Committed).begin(Finalized).wish(WishRollback), Finalized, false},
		"cannot be finalized":                  {inImage(Expanded).runs(newer).done(Switched).done(Committed).fail(Finalized), NeedsOperator, false},
		"the old image, not final after all":   {inImage(Expanded).runs(newer).done(Switched).done(Committed).begin(Finalized).runs(older), RolledBack, false},
		"could not be final, the old image":    {inImage(Expanded).runs(newer).done(Switched).done(Committed).fail(Finalized).runs(older), RolledBack, false},
		"went back":                            {inImage(Expanded).runs(newer).runs(older).done(RolledBack).runs(newer), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			txn, err := Last(c.book.entries)
			if err != nil {
				t.Fatal(err)
			}
			if got := txn.Next(c.book.now); got.State != c.want || txn.Waits() != c.waits {
				t.Errorf("next is %q (%s), and it waits for an image: %t", got.State, got.Because, txn.Waits())
			}
		})
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	b := at(Committed)
	txn, err := Last(b.entries)
	if err != nil {
		t.Fatal(err)
	}
	due := b.now.Add(72 * time.Hour)
	if diff := cmp.Diff(Do{Until: due}, txn.Next(b.now)); diff != "" {
		t.Error(diff)
	}
	if got := txn.Next(due); got.State != Finalized {
		t.Errorf("when it is due: %+v", got)
	}
	later := due.AddDate(0, 0, 7)
	b.add(KindAsk, Ask{Wish: WishHold, Until: later})
	if txn, err = Last(b.entries); err != nil {
		t.Fatal(err)
	}
	if got := txn.Next(due); !got.Until.Equal(later) || got.State != "" {
		t.Errorf("held: %+v", got)
	}
	b.wish(WishFinalize)
	if txn, err = Last(b.entries); err != nil || txn.Next(due).State != Finalized {
		t.Errorf("not held any more: %v", err)
	}
}

// TestForward: a version that is kept has its hold from then on, or until the later time
// that somebody wanted.
func TestForward(t *testing.T) {
	t.Parallel()
	for _, hold := range []time.Duration{time.Hour, 1000 * time.Hour} {
		b := at(Committed)
		until := b.now.Add(hold)
		b.add(KindAsk, Ask{Wish: WishHold, Until: until})
		b.wish(WishRollback).fail(RolledBack).done(NeedsOperator)
		b.now = b.now.Add(24 * time.Hour)
		b.wish(WishForward)
		txn, err := Last(b.entries)
		if err != nil {
			t.Fatal(err)
		}
		want := b.now.Add(72 * time.Hour)
		if until.After(want) {
			want = until
		}
		if txn.State != Committed || !txn.Due().Equal(want) || txn.Failed != "" || txn.Error != "" || txn.Rollback {
			t.Errorf("held for %s: due %s, not %s: %+v", hold, txn.Due(), want, txn)
		}
	}
}

// TestFoldKeepsUpgradesApart: each has its own entries; what no upgrade has written, or
// a newer version has, is passed over.
func TestFoldKeepsUpgradesApart(t *testing.T) {
	t.Parallel()
	b := newBook().done(Staged).done(Aborted)
	b.entries = append([]journal.Entry{{Seq: 0, Kind: supervisor.NoteSwitched, Data: json.RawMessage(`{"from":"a","to":"b"}`)}}, b.entries...)
	b.entries = append(b.entries, journal.Entry{Txn: "u", Kind: KindPlan, At: b.now, Data: json.RawMessage(`{"from":"2026.4.0","to":"2026.6.0"}`)},
		journal.Entry{Txn: "u", Kind: "of next year", At: b.now, Data: json.RawMessage(`[]`)},
		journal.Entry{Txn: "t", Kind: KindDone, At: b.now, Data: json.RawMessage(`{"state":"FINALIZED"}`)})
	all, err := Fold(b.entries)
	if err != nil || len(all) != 2 || all[0].State != Aborted || all[1].State != Planned || all[1].Plan.To != "2026.6.0" {
		t.Errorf("%+v %v", all, err)
	}
	b.entries = append(b.entries, journal.Entry{Txn: "u", Kind: KindDone, Data: json.RawMessage(`[]`)})
	if _, err := Fold(b.entries); err == nil {
		t.Error("an entry that cannot be read is passed over")
	}
}

// place is what the world is like: what a journal cannot see.
type place struct {
	*book
	t                   *rapid.T
	current             string
	previous            bool
	backup, rehearsal   bool
	expanded, finalized bool
}

// holds is the invariant that carries everything, and what else must never be.
func (p *place) holds() {
	p.t.Helper()
	switch {
	case p.current == "new" && !p.expanded:
		p.t.Fatal("the new version runs on the old schema")
	case p.current == "old" && p.finalized:
		p.t.Fatal("the old version runs on the new version's data")
	case p.previous && p.finalized:
		p.t.Fatal("the supervisor could go back to a version that cannot run")
	case p.expanded && (!p.backup || !p.rehearsal):
		p.t.Fatal("the schema was changed without a backup or a rehearsal")
	}
}

// crash tells whether whoever does it is killed here.
func (p *place) crash(chaos bool) bool { return chaos && rapid.IntRange(0, 5).Draw(p.t, "crash") == 0 }

// step does what comes next, and may be killed anywhere or fail. It tells whether there
// was something to do.
func (p *place) step(chaos bool) bool {
	txn, err := Last(p.entries)
	if err != nil {
		p.t.Fatal(err)
	}
	do := txn.Next(p.now)
	if do.State == "" {
		if !do.Until.IsZero() {
			p.now = do.Until
			return true
		}
		return false
	}
	if do.State == Finalized { // the way back goes first
		if p.current != "new" {
			p.t.Fatalf("finalized while %s runs", p.current)
		}
		p.previous = false
		if p.crash(chaos) {
			return true
		}
	}
	p.begin(do.State)
	if p.crash(chaos) {
		return true
	}
	if chaos && do.State != NeedsOperator && do.State != Aborted && do.State != Committed && rapid.IntRange(0, 7).Draw(p.t, "fails") == 0 {
		p.add(KindFailed, Mark{State: do.State, Error: "no luck"})
		return true
	}
	switch do.State {
	case BackedUp:
		p.backup = true
	case Rehearsed:
		p.rehearsal = true
	case Expanded:
		p.expanded = true
	case Switched:
		p.current, p.previous = "new", true
	case RolledBack:
		p.current, p.previous = "old", false
	case Finalized:
		p.finalized = true
	case Planned, Staged, Preflight, Probation, Committed, Aborted, NeedsOperator:
	}
	p.holds()
	if p.crash(chaos) {
		return true
	}
	p.add(KindDone, Mark{State: do.State})
	return true
}

// TestAnyCourse: whatever is killed, fails or is asked for, the version that is current
// can run on what is on disk, and in the end the upgrade has one outcome, which is true.
func TestAnyCourse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := &place{book: newBook(), t: t, current: "old"}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 11).Draw(t, "what") {
			case 0:
				w := rapid.SampledFrom([]Wish{WishAbort, WishRollback, WishFinalize, WishHold, WishResume, WishForward}).Draw(t, "wish")
				if w != WishForward || p.current == "new" { // it has to serve
					p.wish(w)
				}
			case 1: // the new version cannot stay alive
				if p.current == "new" && p.previous {
					p.add(supervisor.NoteWentBack, way("2026.5.0", "2026.4.0"))
					p.current, p.previous = "old", false
					p.holds()
				}
			default:
				p.step(true)
			}
		}
		for n := 0; p.step(false); n++ {
			if n > 30 {
				t.Fatalf("it does not end: %s", p.last())
			}
		}
		switch s := p.last(); s {
		case Finalized:
			if p.current != "new" || !p.finalized {
				t.Fatalf("%s, and %s runs", s, p.current)
			}
		case Aborted, RolledBack:
			if p.current != "old" {
				t.Fatalf("%s, and %s runs", s, p.current)
			}
		case NeedsOperator:
		case Planned, Staged, Preflight, BackedUp, Rehearsed, Expanded, Switched, Probation, Committed:
			t.Fatalf("it ended at %s", s)
		}
	})
}

// TestAnyCourseInContainer: whatever is killed, fails or is asked for, and whichever of the two
// images somebody starts, nothing is finalized under the old one, and in the end the upgrade
// waits for an image or has an outcome that is true.
func TestAnyCourseInContainer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, serving, final := inImage(Planned), "2026.4.0", false
		step := func(chaos bool) bool {
			txn, err := Last(b.entries)
			if err != nil {
				t.Fatal(err)
			}
			do := txn.Next(b.now)
			if do.State == "" {
				b.now = later(b.now, do.Until)
				return !do.Until.IsZero()
			}
			// Only the new version gives the way back up, or switches its formats on.
			if do.State == Finalized && serving != "2026.5.0" {
				t.Fatalf("finalized while %s runs", serving)
			}
			if do.State == Switched && serving != "2026.5.0" || do.State == RolledBack && serving != "2026.4.0" {
				t.Fatalf("%s while %s runs", do.State, serving)
			}
			b.begin(do.State)
			crash := func() bool { return chaos && rapid.IntRange(0, 5).Draw(t, "crash") == 0 }
			if crash() {
				return true
			}
			before := !do.State.reached(Switched)
			if chaos && (before && do.State != Aborted || do.State == Finalized) && rapid.IntRange(0, 7).Draw(t, "fails") == 0 {
				b.add(KindFailed, Mark{State: do.State, Error: "no luck"})
				return true
			}
			final = final || do.State == Finalized
			if !crash() {
				b.add(KindDone, Mark{State: do.State})
			}
			return true
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 11).Draw(t, "what") {
			case 0:
				w := rapid.SampledFrom([]Wish{WishAbort, WishRollback, WishFinalize, WishHold, WishResume}).Draw(t, "wish")
				if txn, err := Last(b.entries); err == nil && Allowed(txn, w) == nil {
					b.wish(w)
				}
			case 1:
				other := map[string]string{"2026.4.0": "2026.5.0", "2026.5.0": "2026.4.0"}[serving]
				if other == "2026.5.0" || !final { // else it does not start
					serving = other
					b.runs(serving)
				}
			default:
				step(true)
			}
		}
		for n := 0; step(false); n++ {
			if n > 30 {
				t.Fatalf("it does not end: %s", b.last())
			}
		}
		txn, err := Last(b.entries)
		if err != nil {
			t.Fatal(err)
		}
		switch txn.State {
		case Finalized:
			if serving != "2026.5.0" || !final {
				t.Fatalf("%s, and %s runs", txn.State, serving)
			}
		case Aborted, RolledBack, NeedsOperator: // after which either image may have been started
		case Planned, Staged, Preflight, BackedUp, Rehearsed, Expanded, Switched, Probation, Committed:
			if !txn.Waits() || txn.Serves() != (serving == "2026.5.0") {
				t.Fatalf("it ended at %s, and %s runs", txn.State, serving)
			}
		}
	})
}

func TestSettled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		book *book
		want bool
	}{
		"begun":                {newBook(), true},
		"expanded":             {at(Expanded), true},
		"switching":            {at(Expanded).begin(Switched), false},
		"on probation":         {at(Switched), false},
		"committed":            {at(Committed), false},
		"going back":           {at(Committed).wish(WishRollback).begin(RolledBack), false},
		"went back":            {at(Committed).done(RolledBack), true},
		"finalized":            {at(Finalized), true},
		"given up before":      {at(Staged).done(Aborted), true},
		"somebody has to help": {at(Switched).fail(Probation).fail(RolledBack).done(NeedsOperator), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			txn, err := Last(c.book.entries)
			if err != nil {
				t.Fatal(err)
			}
			if got := txn.Settled(); got != c.want {
				t.Errorf("settled is %t", got)
			}
		})
	}
}
