package upgrade

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// shelf is a root with versions, of which none runs.
type shelf struct {
	t     *testing.T
	root  string
	store *stage.Store
	now   time.Time
}

// newShelf has versions, of which the first is the current one. Nobody has touched them
// for a year.
func newShelf(t *testing.T, versions ...string) *shelf {
	t.Helper()
	s := &shelf{t: t, root: t.TempDir(), now: time.Now()}
	s.store = stage.Open(s.root, nil)
	for _, v := range versions {
		s.put(v, 365*24*time.Hour)
	}
	s.link("current", versions[0])
	return s
}

// put puts a directory among the versions that was last touched some time ago.
func (s *shelf) put(name string, ago time.Duration) {
	s.t.Helper()
	dir := filepath.Join(s.root, "versions", name)
	file := filepath.Join(dir, "tako")
	at := s.now.Add(-ago)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(file, []byte("program"), 0o700), os.Chtimes(file, at, at), os.Chtimes(dir, at, at)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) link(name, version string) {
	s.t.Helper()
	if err := os.Symlink(filepath.Join("versions", version), filepath.Join(s.root, name)); err != nil {
		s.t.Fatal(err)
	}
}

// upgrade writes an upgrade to the journal that has reached these states.
func (s *shelf) upgrade(from, to string, at time.Time, states ...State) {
	s.t.Helper()
	id, err := Begin(s.root, Plan{From: from, To: to}, at)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, state := range states {
		s.write(id, at, KindIntent, Mark{State: state})
		s.write(id, at, KindDone, Mark{State: state})
	}
}

func (s *shelf) write(id string, at time.Time, kind string, data any) {
	s.t.Helper()
	j, err := journal.Open(Dir(s.root))
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := json.Marshal(data)
	if err == nil {
		_, err = j.Append(at, func([]journal.Entry) (journal.Entry, error) {
			return journal.Entry{Txn: id, Kind: kind, Data: raw}, nil
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) prune(dry bool) *Pruned {
	s.t.Helper()
	p, err := Prune(s.t.Context(), s.root, s.store, Pruning{DryRun: dry, By: "ada", Now: s.now})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// names are what is in the directory of versions, but for its lock.
func (s *shelf) names() []string {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.root, "versions"))
	if err != nil {
		s.t.Fatal(err)
	}
	all := []string{}
	for _, e := range entries {
		if e.Name() != ".lock" {
			all = append(all, e.Name())
		}
	}
	return all
}

// goes asserts which versions a prune says that it removes, and that it does so.
func (s *shelf) goes(want ...string) {
	s.t.Helper()
	before := s.names()
	for _, dry := range []bool{true, false} {
		p := s.prune(dry)
		got := []string{}
		var bytes int64
		for _, v := range p.Versions {
			if v.Why == "" {
				s.t.Errorf("%s: nobody knows why", v.Name)
			}
			if v.Removed {
				got = append(got, v.Name)
				bytes += v.Bytes
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
			s.t.Errorf("dry %t: (-want +got)\n%s%+v", dry, diff, p.Versions)
		}
		if p.Count != len(want) || p.Bytes != bytes || p.DryRun != dry {
			s.t.Errorf("dry %t: it counts %+v", dry, p)
		}
		left := slices.DeleteFunc(slices.Clone(before), func(name string) bool { return !dry && slices.Contains(want, name) })
		if diff := cmp.Diff(left, s.names()); diff != "" {
			s.t.Errorf("dry %t: on disk is (-want +got)\n%s", dry, diff)
		}
	}
}

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// whole are the states of an upgrade that is final.
var whole = []State{Staged, Preflight, BackedUp, Rehearsed, Expanded, Switched, Probation, Committed, Finalized}

// TestPrune: what nobody needs goes, and nothing else.
func TestPrune(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		on   func(*shelf)
		goes []string
	}{
		"no upgrade at all": {func(*shelf) {}, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0"}},
		"the one before a final upgrade, and nothing older": {func(s *shelf) {
			s.upgrade("2026.2.0", "2026.3.0", s.now.Add(-20*week), whole...)
			s.upgrade("2026.3.0", "2026.4.0", s.now.Add(-10*week), whole...)
		}, []string{"2026.1.0", "2026.2.0", "2026.5.0"}},
		"the way back, however old": {func(s *shelf) {
			s.upgrade("2026.1.0", "2026.4.0", s.now.Add(-52*week), whole[:8]...)
			s.link("previous", "2026.1.0")
		}, []string{"2026.2.0", "2026.3.0", "2026.5.0"}},
		"the way back without a journal": {func(s *shelf) { s.link("previous", "2026.2.0") }, []string{"2026.1.0", "2026.3.0", "2026.5.0"}},
		"an upgrade has only begun":      {func(s *shelf) { s.upgrade("2026.4.0", "2026.5.0", s.now.Add(-52*week)) }, []string{"2026.1.0", "2026.2.0", "2026.3.0"}},
		"an upgrade is being finalized": {func(s *shelf) {
			s.upgrade("2026.3.0", "2026.4.0", s.now.Add(-52*week), whole[:8]...)
			s.write(lastID(s), s.now, KindIntent, Mark{State: Finalized})
		}, []string{"2026.1.0", "2026.2.0", "2026.5.0"}},
		"an upgrade needs an operator": {func(s *shelf) {
			s.upgrade("2026.2.0", "2026.4.0", s.now.Add(-52*week), append(slices.Clone(whole[:6]), NeedsOperator)...)
		}, []string{"2026.1.0", "2026.3.0", "2026.5.0"}},
		"one that was given up lately": {func(s *shelf) { s.upgrade("2026.4.0", "2026.5.0", s.now.Add(-13*day), Staged, Aborted) }, []string{"2026.1.0", "2026.2.0", "2026.3.0"}},
		"one that was left long ago": {func(s *shelf) {
			s.upgrade("2026.4.0", "2026.5.0", s.now.Add(-15*day), append(slices.Clone(whole[:6]), RolledBack)...)
		}, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0"}},
		"a bad one, tried again lately": {func(s *shelf) { bad(s, "2026.5.0"); s.put("2026.5.0", day) }, []string{"2026.1.0", "2026.2.0", "2026.3.0"}},
		"a bad one, after a while":      {func(s *shelf) { bad(s, "2026.5.0") }, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0"}},
		"two pins":                      {func(s *shelf) { pin(s, "2026.1.0", "2026.5.0") }, []string{"2026.2.0", "2026.3.0"}},
		"a pin that was taken away": {func(s *shelf) {
			pin(s, "2026.1.0")
			unpin(s, "2026.1.0")
			unpin(s, "2026.2.0")
			s.put("2026.1.0", week)
		}, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0"}},
		"a transfer that may go on":     {func(s *shelf) { s.put("2026.6.0.partial", day-time.Minute) }, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0"}},
		"a transfer that was forgotten": {func(s *shelf) { s.put("2026.6.0.partial", day+time.Minute) }, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0", "2026.6.0.partial"}},
		"a slow transfer of an upgrade": {func(s *shelf) { s.put("2026.6.0.partial", week); s.upgrade("2026.4.0", "2026.6.0", s.now.Add(-week)) }, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0"}},
		"what somebody has put there": {func(s *shelf) {
			s.put("old", 99*week)
			s.put(".hidden", 99*week)
			s.put("v2026.1.0", 99*week)
			s.put("x.partial", 99*week)
		}, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0"}},
		"a version before its own final": {func(s *shelf) { s.put("2026.4.0-rc.1", 99*week) }, []string{"2026.1.0", "2026.2.0", "2026.3.0", "2026.4.0-rc.1", "2026.5.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t, "2026.4.0", "2026.1.0", "2026.2.0", "2026.3.0", "2026.5.0")
			c.on(s)
			s.goes(c.goes...)
		})
	}
}

func lastID(s *shelf) string {
	s.t.Helper()
	j, err := journal.Open(Dir(s.root))
	if err != nil {
		s.t.Fatal(err)
	}
	last, err := Last(j.Entries())
	if err != nil || last == nil {
		s.t.Fatal(last, err)
	}
	return last.ID
}

func bad(s *shelf, version string) {
	s.t.Helper()
	if err := s.store.MarkBad(version, "it crashed"); err != nil {
		s.t.Fatal(err)
	}
}

func pin(s *shelf, versions ...string) {
	s.t.Helper()
	for _, v := range versions {
		if err := s.store.PinVersion(v, stage.VersionPin{Reason: "the audit", At: s.now}); err != nil {
			s.t.Fatal(err)
		}
	}
}

func unpin(s *shelf, version string) {
	s.t.Helper()
	if err := s.store.UnpinVersion(version); err != nil {
		s.t.Fatal(err)
	}
}

// TestPruneIsNoted: what went, and on whose behalf, is in the journal, which an upgrade is
// read from as before; a prune that has nothing to do leaves it alone.
func TestPruneIsNoted(t *testing.T) {
	t.Parallel()
	s := newShelf(t, "2026.4.0", "2026.1.0", "2026.3.0")
	s.upgrade("2026.3.0", "2026.4.0", s.now.Add(-week), whole...)
	entries := func() []journal.Entry {
		t.Helper()
		j, err := journal.Open(Dir(s.root))
		if err != nil {
			t.Fatal(err)
		}
		return j.Entries()
	}
	before := len(entries())
	s.prune(true)
	if got := entries(); len(got) != before {
		t.Errorf("a dry run has written %+v", got[before:])
	}
	s.prune(false)
	s.prune(false)
	all := entries()
	if len(all) != before+1 {
		t.Fatalf("%d entries were written, not 1", len(all)-before)
	}
	var r Removal
	if err := json.Unmarshal(all[before].Data, &r); err != nil || all[before].Kind != KindPruned {
		t.Fatal(all[before], err)
	}
	if diff := cmp.Diff(Removal{Versions: []string{"2026.1.0"}, Bytes: 7, By: "ada"}, r); diff != "" {
		t.Errorf("it says (-want +got)\n%s", diff)
	}
	if last, err := Last(all); err != nil || last.State != Finalized {
		t.Errorf("the upgrade is %+v, %v", last, err)
	}
}

// TestPruneWithoutKnowledge: where nobody can know what is needed, nothing goes.
func TestPruneWithoutKnowledge(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*shelf) error{
		"no current version": func(s *shelf) error { return os.Remove(filepath.Join(s.root, "current")) },
		"a current version of nobody": func(s *shelf) error {
			s.put("own", 0)
			return errors.Join(os.Remove(filepath.Join(s.root, "current")), os.Symlink("versions/own", filepath.Join(s.root, "current")))
		},
		"a journal that was changed": func(s *shelf) error {
			s.upgrade("2026.3.0", "2026.4.0", s.now, Staged)
			path := filepath.Join(Dir(s.root), "journal.jsonl")
			raw, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(raw), "2026.3.0", "2026.1.0", 1)), 0o600))
		},
		"what is trusted cannot be read": func(s *shelf) error {
			return errors.Join(os.MkdirAll(Dir(s.root), 0o700), os.WriteFile(filepath.Join(Dir(s.root), "trust.json"), []byte("{"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t, "2026.4.0", "2026.1.0", "2026.3.0")
			if err := harm(s); err != nil {
				t.Fatal(err)
			}
			before := s.names()
			p, err := Prune(t.Context(), s.root, s.store, Pruning{Now: s.now})
			if err == nil && p.Count > 0 {
				t.Errorf("it says %+v", p)
			}
			if err == nil && !strings.Contains(name, "of nobody") {
				t.Error("it has succeeded")
			}
			if diff := cmp.Diff(before, s.names()); diff != "" {
				t.Errorf("on disk is (-want +got)\n%s", diff)
			}
		})
	}
}

// TestPruneBesideAnUpgrade: an upgrade that begins while somebody else has the versions
// keeps what it is for.
func TestPruneBesideAnUpgrade(t *testing.T) {
	t.Parallel()
	s := newShelf(t, "2026.4.0", "2026.1.0", "2026.5.0")
	staging, err := s.store.Lock() // as Stage does
	if err != nil {
		t.Fatal(err)
	}
	type end struct {
		p   *Pruned
		err error
	}
	done := make(chan end, 1)
	go func() {
		p, err := Prune(t.Context(), s.root, s.store, Pruning{Now: s.now})
		done <- end{p, err}
	}()
	s.upgrade("2026.4.0", "2026.5.0", s.now.Add(-52*week))
	if err := staging.Unlock(); err != nil {
		t.Fatal(err)
	}
	if e := <-done; e.err != nil || e.p.Count != 1 {
		t.Errorf("%+v, %v", e.p, e.err)
	}
	if diff := cmp.Diff([]string{"2026.4.0", "2026.5.0"}, s.names()); diff != "" {
		t.Errorf("on disk is (-want +got)\n%s", diff)
	}
}

// TestPruneWhatRuns: a version that a process runs from stays until that has ended, also
// if the root has another name.
func TestPruneWhatRuns(t *testing.T) {
	t.Parallel()
	s := newShelf(t, "2026.4.0", "2026.1.0", "2026.2.0")
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	if cat, err = filepath.EvalSymlinks(cat); err != nil {
		t.Fatal(err)
	}
	// A process that is forked meanwhile would hold the file open, and nothing could run it.
	syscall.ForkLock.RLock()
	err = supervisor.Install(s.root, "2026.3.0", cat)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	alias := filepath.Join(t.TempDir(), "alias")
	if err := os.Symlink(s.root, alias); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), s.store.Program("2026.3.0"))
	cmd.Args = []string{"cat"} // where that is one of many names of a program
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.root = alias
	s.store = stage.Open(alias, nil)
	s.goes("2026.1.0", "2026.2.0")
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	s.goes("2026.3.0")
}

// TestPruneBundles: a bundle that was sent to the server goes after a day, unless an upgrade
// needs it.
func TestPruneBundles(t *testing.T) {
	t.Parallel()
	s := newShelf(t, "2026.4.0")
	dir := filepath.Join(Dir(s.root), "bundles")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := func(n string) string { return filepath.Join(dir, strings.Repeat(n, 64)+".bundle") }
	for n, ago := range map[string]time.Duration{"1": week, "2": week, "3": day - time.Minute} {
		at := s.now.Add(-ago)
		if err := errors.Join(os.WriteFile(path(n), []byte("no bundle any more"), 0o600), os.Chtimes(path(n), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Begin(s.root, Plan{From: "2026.4.0", To: "2026.5.0", Bundle: path("2")}, s.now); err != nil {
		t.Fatal(err)
	}
	there := func() (names string) {
		for _, n := range []string{"1", "2", "3"} {
			if _, err := os.Stat(path(n)); err == nil {
				names += n
			}
		}
		return names
	}
	if p := s.prune(true); p.Count != 1 || p.Bytes != 18 || there() != "123" {
		t.Errorf("a dry run: %+v; there is %s", p, there())
	}
	if p := s.prune(false); p.Count != 1 || there() != "23" {
		t.Errorf("%+v; there is %s", p, there())
	}
}

// TestPins: a pin is for a version that is there, and says why.
func TestPins(t *testing.T) {
	t.Parallel()
	s := newShelf(t, "2026.4.0", "2026.1.0")
	pin(s, "2026.1.0")
	p := s.prune(true)
	if i := slices.IndexFunc(p.Versions, func(v OnDisk) bool { return v.Name == "2026.1.0" }); i < 0 || p.Versions[i].Why != "it is pinned: the audit" {
		t.Errorf("%+v", p.Versions)
	}
	for version, want := range map[string]string{"2026.9.0": "version 2026.9.0 is not installed", "../2026.1.0": "is no version", "": "is no version", ".lock": "is no version"} {
		for _, err := range []error{s.store.PinVersion(version, stage.VersionPin{}), s.store.UnpinVersion(version)} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", version, err)
			}
		}
	}
	if err := s.store.PinVersion("2026.1.0", stage.VersionPin{Reason: strings.Repeat("x", 1001)}); err == nil || !strings.Contains(err.Error(), "1001 bytes") {
		t.Errorf("a long reason: %v", err)
	}
	// Whoever wrote one that cannot be read wanted something.
	if err := os.WriteFile(filepath.Join(s.root, "versions", "2026.1.0", "KEEP"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.goes()
}

// TestFinalizedPrunes: an upgrade that is final leaves the version before it, and nothing
// older; that this cannot be done changes nothing about it.
func TestFinalizedPrunes(t *testing.T) {
	t.Parallel()
	for _, broken := range []bool{false, true} {
		c := newCrew(t, Committed)
		c.program("1", "exit 1", 0o700)
		c.program("2", "echo '{}'", 0o700)
		if !broken {
			if err := os.Symlink("versions/2", filepath.Join(c.root, "current")); err != nil {
				t.Fatal(err)
			}
		}
		old := filepath.Join(c.root, "versions", "1.0.0-old")
		if err := os.MkdirAll(old, 0o700); err != nil {
			t.Fatal(err)
		}
		s := &scripted{answers: map[string][]*supervisor.Report{"deep": {serving("2")}, "keep": {serving("2")}}}
		s.listen(t, c.root)
		last, err := c.Run(t.Context())
		if err != nil || last.State != Finalized {
			t.Fatalf("it is %+v, %v", last, err)
		}
		_, err = os.Stat(old)
		if gone := errors.Is(err, fs.ErrNotExist); gone == broken {
			t.Errorf("broken %t: the old version is gone: %t", broken, gone)
		}
		if _, err := os.Stat(c.cfg.Store.Program("1")); err != nil {
			t.Error(err)
		}
		want := "removing version 1.0.0-old"
		if broken {
			want = "stay until `tako upgrade prune`"
		}
		if !strings.Contains(c.log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, c.log)
		}
	}
}
