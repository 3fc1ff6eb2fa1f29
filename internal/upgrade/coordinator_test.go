package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// crew carries an upgrade from version 1 to 2 out, whose programs are scripts.
type crew struct {
	*Coordinator
	t    *testing.T
	root string
	log  *proctest.Output
}

// newCrew has an upgrade that has reached a state.
func newCrew(t *testing.T, reached State) *crew {
	t.Helper()
	c := &crew{t: t, root: t.TempDir(), log: &proctest.Output{}}
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
		if said := strings.Contains(c.log.String(), "stay until the next one, or until somebody unpins them"); said != (code == "1") {
			t.Errorf("with code %s the log is: %s", code, c.log)
		}
	}
}

// TestBackupsAreLetGoLater: the next upgrade lets go what those before it could not, and
// nothing else.
func TestBackupsAreLetGoLater(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Preflight)
	const script = `if [ "$1 $2" = "backup list" ]; then
cat <<'END'
[{"ID":"a","Pin":{"Upgrade":"%[1]s"}},{"ID":"b","Pin":{"Upgrade":"another"}},{"ID":"c","Pin":{"Upgrade":"%[1]s","Until":"2027-01-01T00:00:00Z"}}]
END
exit 0
fi
echo "$@" >>%[2]s
echo '{"ID":"d"}'
exit %[3]d`
	ran, former := filepath.Join(c.root, "ran"), c.last().ID
	c.program("1", fmt.Sprintf(script, former, ran, 1), 0o700)
	c.want(Ask{Wish: WishAbort})
	if last, err := c.Run(t.Context()); err != nil || last.State != Aborted {
		t.Fatalf("it is %+v, %v", last, err)
	}
	if err := os.Remove(ran); err != nil { // what failed
		t.Fatal(err)
	}
	c.program("1", fmt.Sprintf(script, former, ran, 0), 0o700)
	id, err := Begin(c.root, Plan{From: "1", To: "3"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.backUp(t.Context(), c.last()); err != nil {
		t.Error(err)
	}
	want := "backup unpin a --after 14d\nbackup create --verify 2 --for-upgrade " + id + " --output json\n"
	if raw, err := os.ReadFile(ran); err != nil || string(raw) != want {
		t.Errorf("it ran %q, %v", raw, err)
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
