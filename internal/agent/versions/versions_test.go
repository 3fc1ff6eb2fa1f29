package versions_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
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
	}{
		"no hash":       {func(v *versions.Trial) { v.SHA256 = "../x" }, "2"},
		"no version":    {func(v *versions.Trial) { v.Version = "" }, "2"},
		"no attempt":    {func(v *versions.Trial) { v.Attempt = "" }, "2"},
		"no time":       {func(v *versions.Trial) { v.Within = 0 }, "2"},
		"too much time": {func(v *versions.Trial) { v.Within = time.Hour }, "2"},
		"other content": {func(*versions.Trial) {}, "22"},
		"no content":    {func(*versions.Trial) {}, ""},
		"other version": {func(v *versions.Trial) { v.Version = "3" }, "2"},
	} {
		trial := ok
		tc.change(&trial)
		begun, err := s.Begin(t.Context(), trial, strings.NewReader(tc.content))
		var wrong *fault.Error
		if begun || !errors.As(err, &wrong) {
			t.Errorf("%s: %t, %v", name, begun, err)
		}
		if entries, err := os.ReadDir(s.Dir()); err != nil || len(entries) != 0 {
			t.Errorf("%s: there are %v, %v", name, entries, err)
		}
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
