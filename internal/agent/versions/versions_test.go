package versions_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent/versions"
	"github.com/takodeploy/tako/internal/fault"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// program is one whose content is also what it says that its version is.
func program(version string) versions.Program {
	sum := sha256.Sum256([]byte(version))
	return versions.Program{SHA256: hex.EncodeToString(sum[:]), Version: version}
}

func open(t *testing.T, home string, running versions.Program) *versions.Store {
	t.Helper()
	s, err := versions.Open(home, running, func(_ context.Context, path string) (string, error) {
		b, err := os.ReadFile(path)
		return string(b), err
	})
	check(t, err)
	return s
}

func begin(t *testing.T, s *versions.Store, version, attempt string) (bool, error) {
	t.Helper()
	return s.Begin(t.Context(), versions.Trial{Program: program(version), Attempt: attempt, Within: time.Minute}, strings.NewReader(version))
}

// programs lists what is stored.
func programs(t *testing.T, s *versions.Store) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(s.Dir())
	check(t, err)
	for _, e := range entries {
		if e.IsDir() {
			b, err := os.ReadFile(filepath.Join(s.Dir(), e.Name(), "tako-agent"))
			check(t, err)
			out = append(out, string(b))
		}
	}
	return out
}

func TestTrials(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s := open(t, home, versions.Program{})
	begun, err := begin(t, s, "2", "a")
	check(t, err)
	if again, err := begin(t, s, "2", "a"); !begun || again || err != nil {
		t.Errorf("begun %t, and again %t, %v", begun, again, err)
	}
	if _, err := begin(t, s, "3", "b"); !fault.Is(err, fault.Conflict) {
		t.Errorf("another one beside it: %v", err)
	}
	if err := s.Confirm(program("2").SHA256); !fault.Is(err, fault.Conflict) {
		t.Errorf("the old program confirms the new one: %v", err)
	}
	check(t, s.Fail("It was bad."))
	st, err := s.Load()
	check(t, err)
	if st.Current != nil || st.Trial != nil || st.Failed == nil || st.Failed.Reason != "It was bad." || st.Failed.Attempt != "a" || st.Failed.Version != "2" {
		t.Errorf("after the failure: %+v", st)
	}
	if got := programs(t, s); len(got) != 0 {
		t.Errorf("of a failure stay %q", got)
	}
	_, err = begin(t, s, "2", "c")
	check(t, err)
	st, err = s.Load()
	check(t, err)
	if st.Failed != nil {
		t.Errorf("an old failure: %+v", st.Failed)
	}
	_, err = s.Start(st, "installed")
	check(t, err)
	two := open(t, home, program("2"))
	for range 2 {
		check(t, two.Confirm(program("2").SHA256))
	}
	if begun, err := begin(t, two, "2", "d"); begun || err != nil {
		t.Errorf("what runs is begun: %t, %v", begun, err)
	}
	_, err = begin(t, two, "3", "e")
	check(t, err)
	check(t, two.Confirm(program("2").SHA256)) // the confirmation of another server, and late
	if st, err := two.Load(); err != nil || st.Trial == nil || st.Current.SHA256 != program("2").SHA256 {
		t.Errorf("after the confirmation of what stays: %+v, %v", st, err)
	}
	check(t, two.Fail("No."))
	st, err = two.Load()
	check(t, err)
	if diff := cmp.Diff(&versions.Current{Program: program("2"), Over: "installed"}, st.Current); diff != "" {
		t.Error(diff)
	}
	if got := programs(t, two); !cmp.Equal(got, []string{"2"}) || !two.Intact(program("2")) || two.Intact(program("3")) {
		t.Errorf("there are %q", got)
	}
	check(t, two.Forget())
	if got := programs(t, two); len(got) != 0 {
		t.Errorf("of what is forgotten stay %q", got)
	}
}

func TestBeginRefuses(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), versions.Program{})
	ok := versions.Trial{Program: program("2"), Attempt: "a", Within: time.Minute}
	for name, tc := range map[string]struct {
		change  func(*versions.Trial)
		content string
		noted   bool // as the last failure
	}{
		"no hash":       {func(v *versions.Trial) { v.SHA256 = "../x" }, "2", false},
		"no version":    {func(v *versions.Trial) { v.Version = "" }, "2", false},
		"no attempt":    {func(v *versions.Trial) { v.Attempt = "" }, "2", false},
		"no time":       {func(v *versions.Trial) { v.Within = 0 }, "2", false},
		"too much time": {func(v *versions.Trial) { v.Within = time.Hour }, "2", false},
		"other content": {func(*versions.Trial) {}, "22", false},
		"no content":    {func(*versions.Trial) {}, "", false},
		"other version": {func(v *versions.Trial) { v.Version = "3" }, "2", true},
	} {
		trial := ok
		tc.change(&trial)
		begun, err := s.Begin(t.Context(), trial, strings.NewReader(tc.content))
		var wrong *fault.Error
		if begun || !errors.As(err, &wrong) {
			t.Errorf("%s: %t, %v", name, begun, err)
		}
		if got := programs(t, s); len(got) != 0 {
			t.Errorf("%s: there are %q", name, got)
		}
		st, err := s.Load()
		check(t, err)
		if st.Trial != nil || (st.Failed != nil) != tc.noted {
			t.Errorf("%s: it is noted as %+v", name, st)
		}
		if tc.noted {
			if st.Failed.Version != "3" || st.Failed.Attempt != "a" || !strings.Contains(st.Failed.Reason, "says that it is version 2") {
				t.Errorf("%s: it is noted as %+v", name, st.Failed)
			}
			check(t, os.Remove(filepath.Join(s.Dir(), "state.json")))
		}
	}
}

// huge is a program that no disk has room for: its file has a hole.
func huge(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "huge"))
	check(t, err)
	t.Cleanup(func() { _ = f.Close() })
	check(t, f.Truncate(8<<40))
	return f
}

// TestNoRoom: what the disk has no room for is not begun.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	s := open(t, t.TempDir(), versions.Program{})
	begun, err := s.Begin(t.Context(), versions.Trial{Program: program("2"), Attempt: "a", Within: time.Minute}, huge(t))
	if begun || !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("begun %t, %v", begun, err)
	}
	if entries, err := os.ReadDir(s.Dir()); err != nil || len(entries) != 0 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// twice is one directory by two paths: of the long one state.json can be read, and not
// be replaced, since the name of the file beside it is too long. So nothing is written
// there, as on a full disk, whoever runs the test.
func twice(t *testing.T) (short, long string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("paths have other limits elsewhere")
	}
	const home = 4080 - len("/Versions")
	base := t.TempDir()
	short, long = base, base
	for n := 0; len(long) < home; n++ {
		name := strings.Repeat("d", 200)
		if left := home - len(long); left <= 202 {
			name = strings.Repeat("d", left-1)
		}
		check(t, os.Mkdir(filepath.Join(short, name), 0o700))
		link := filepath.Join(base, fmt.Sprint("l", n))
		check(t, os.Symlink(filepath.Join(short, name), link))
		short, long = link, long+"/"+name
	}
	return short, long
}

// TestFullDisk: where the disk takes nothing a trial ends all the same, and what was
// forgotten stays so, until somebody else has written.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	short, long := twice(t)
	s := open(t, short, versions.Program{})
	full := open(t, long, versions.Program{})
	_, err := begin(t, s, "2", "a")
	check(t, err)
	if err := full.Fail("It was bad."); err == nil {
		t.Error("it was written")
	}
	st, err := full.Load()
	check(t, err)
	if st.Trial != nil || st.Failed == nil || st.Failed.Reason != "It was bad." {
		t.Errorf("after the failure: %+v", st)
	}
	if st, err := s.Load(); err != nil || st.Trial == nil {
		t.Errorf("another process reads %+v, %v", st, err)
	}
	check(t, s.Fail("Another one says so."))
	if st, err := full.Load(); err != nil || st.Trial != nil || st.Failed == nil || st.Failed.Reason != "Another one says so." {
		t.Errorf("after it was written: %+v, %v", st, err)
	}
	_, err = begin(t, s, "3", "b")
	check(t, err)
	check(t, open(t, short, program("3")).Confirm(program("3").SHA256))
	if err := full.Forget(); err == nil {
		t.Error("it was written")
	}
	if st, err := full.Load(); err != nil || st.Current != nil {
		t.Errorf("after it was forgotten: %+v, %v", st, err)
	}
	if st, err := s.Load(); err != nil || st.Current == nil {
		t.Errorf("another process reads %+v, %v", st, err)
	}
}

// TestEndsAgainAndAgain: a confirmed program that does not stay up yields, and the same
// one is not brought at once.
func TestEndsAgainAndAgain(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s := open(t, home, versions.Program{})
	if yields, err := s.Ended("nothing"); yields || err != nil {
		t.Errorf("the installed program yields: %t, %v", yields, err)
	}
	_, err := begin(t, s, "2", "a")
	check(t, err)
	check(t, open(t, home, program("2")).Confirm(program("2").SHA256))
	for n := 1; n <= 3; n++ {
		// Each end is told by a parent that was started again.
		yields, err := open(t, home, versions.Program{}).Ended("signal: killed")
		check(t, err)
		if yields != (n == 3) {
			t.Errorf("after %d ends it yields: %t", n, yields)
		}
		if n == 1 { // it is long past
			st, err := s.Load()
			check(t, err)
			old := st.Current.Ends[0].Add(-time.Hour).Format(time.RFC3339Nano)
			b, err := os.ReadFile(filepath.Join(s.Dir(), "state.json"))
			check(t, err)
			now := st.Current.Ends[0].Format(time.RFC3339Nano)
			check(t, os.WriteFile(filepath.Join(s.Dir(), "state.json"), []byte(strings.Replace(string(b), now, old, 1)), 0o600))
			yields, err := s.Ended("signal: killed")
			if yields || err != nil {
				t.Errorf("an end of long ago counts: %t, %v", yields, err)
			}
			if st, err := s.Load(); err != nil || len(st.Current.Ends) != 1 {
				t.Errorf("it has ended %+v, %v", st.Current, err)
			}
		}
	}
	st, err := s.Load()
	check(t, err)
	if st.Current != nil || st.Failed == nil || st.Failed.Version != "2" || !strings.Contains(st.Failed.Reason, "3 times within 1m0s, at last so: signal: killed") {
		t.Errorf("%+v", st)
	}
	if got := programs(t, s); len(got) != 0 {
		t.Errorf("there are %q", got)
	}
}

// TestStateThatCannotBeRead: the installed program runs.
func TestStateThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), versions.Program{})
	for _, text := range []string{"", "{", `{"Current":{"SHA256":"../../bin/sh"}}`, `{"Trial":{"SHA256":""}}`} {
		check(t, os.WriteFile(filepath.Join(s.Dir(), "state.json"), []byte(text), 0o600))
		if st, err := s.Load(); err != nil || st.Current != nil || st.Trial != nil {
			t.Errorf("%q: %+v, %v", text, st, err)
		}
	}
}

func TestSays(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "program")
	check(t, os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = fail ] && { echo \"it is broken\" >&2; exit 3; }\necho hello\necho \"@ $1 $A\"\n"), 0o700))
	version, err := versions.Says([]string{"A=b"}, "@ ", "1.2")(t.Context(), script)
	if err != nil || version != "1.2 b" {
		t.Errorf("it says %q, %v", version, err)
	}
	if _, err := versions.Says(nil, "@ ", "fail")(t.Context(), script); err == nil || !strings.Contains(err.Error(), "it is broken") {
		t.Errorf("it fails with %v", err)
	}
	if _, err := versions.Says(nil, "none ", "x")(t.Context(), script); err == nil || !strings.Contains(err.Error(), "hello") {
		t.Errorf("it fails with %v", err)
	}
}
