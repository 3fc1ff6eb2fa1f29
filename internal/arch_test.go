package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// ranks orders the packages: an import goes from a line to one below it. Within
// a line the packages are strangers to each other, but for the arrows below.
var ranks = [][]string{
	{"cmd/tako", "cmd/tako-agent", "internal/apptest"},
	{"internal/app"},
	{"internal/config", "internal/rest", "internal/web", "internal/schedule", "internal/setup"},
	{"internal/supervisor", "internal/upgrade", "internal/backup", "internal/doctor", "internal/verify", "internal/upgrade/preflight"},
	{"internal/orchestrator", "internal/steps", "internal/targets", "internal/retention", "internal/health", "internal/renewal"},
	{"internal/releases", "internal/notify"},
	{"internal/tasks", "internal/feed", "internal/events", "internal/auth", "internal/mail", "internal/resources"},
	{"internal/docstore", "internal/resource", "internal/agent", "internal/halibut", "internal/blob", "internal/git"},
	{"internal/secret", "internal/db", "internal/oidc", "internal/instance", "internal/installed", "internal/reserve"},
	{
		"internal/deploy", "internal/lifecycle", "internal/variables", "internal/octostache", "internal/version",
		"internal/structured", "internal/ocl", "internal/servicemsg", "internal/permission", "internal/certificate", "internal/octodiff", "internal/timetable", "internal/script",
	},
	{"octopus", "internal/ident", "internal/fault", "internal/failpoint", "internal/egress", "internal/vectortest", "internal/proctest", "internal/disktest", "examples", "internal/durable", "internal/lameduck", "internal/localsocket"},
}

// arrows are allowed within a line: from a package to those it may import.
var arrows = map[string][]string{
	"cmd/tako":              {},
	"internal/orchestrator": {"internal/steps", "internal/targets"},
	"internal/steps":        {"internal/targets"},
	"internal/health":       {"internal/targets"},
	"internal/renewal":      {"internal/health", "internal/targets"},
	"internal/rest":         {"internal/web"},
	"internal/upgrade":      {"internal/backup", "internal/supervisor", "internal/verify", "internal/upgrade/preflight"},
	"internal/doctor":       {"internal/backup"},
	// Its checks are the doctor's where they are the same.
	"internal/upgrade/preflight": {"internal/upgrade", "internal/backup", "internal/doctor"},
	"internal/docstore":          {"internal/resource"},
	"internal/agent":             {"internal/halibut"},
	"internal/secret":            {"internal/db"},
	"internal/instance":          {"internal/db"},
	"internal/installed":         {"internal/db"},
	"internal/auth":              {"internal/resources"},
	"internal/structured":        {"internal/octostache"},
	"internal/ident":             {"internal/fault"},
	"internal/localsocket":       {"internal/egress"},
	"internal/supervisor":        {"internal/upgrade"},
}

const module = "github.com/takodeploy/tako/"

// rank finds a package's line, or that of the package it is a part of.
func rank(pkg string) (int, string) {
	for p := pkg; p != "." && p != "/"; p = path.Dir(p) {
		for i, line := range ranks {
			if slices.Contains(line, p) {
				return i, p
			}
		}
	}
	return -1, ""
}

type listed struct {
	ImportPath string
	Imports    []string
	Doc        string
	GoFiles    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Doc,GoFiles", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
	if len(all) < 20 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

// TestImportsGoDown holds every import to the drawing of docs/architecture.md.
func TestImportsGoDown(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(from, "test") {
			continue // journeys see the product from outside
		}
		fromRank, fromName := rank(from)
		if fromRank < 0 {
			t.Errorf("%s has no place in the drawing; give it one in ranks, and in docs/architecture.md", from)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			toRank, toName := rank(to)
			switch {
			case toName == fromName, toRank > fromRank:
			case toRank == fromRank && slices.Contains(arrows[fromName], toName):
			default:
				t.Errorf("%s imports %s, which goes up or sideways", from, to)
			}
		}
	}
}

// TestAgentIsAlone keeps the server out of the program that runs on targets.
func TestAgentIsAlone(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/tako-agent")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if ours, ok := strings.CutPrefix(dep, module); ok {
			if i, name := rank(ours); i < 7 && name != "cmd/tako-agent" || name == "internal/db" || name == "internal/docstore" {
				t.Errorf("tako-agent links %s", ours)
			}
		}
		if strings.Contains(dep, "modernc.org/sqlite") || strings.Contains(dep, "jackc/pgx") {
			t.Errorf("tako-agent links %s", dep)
		}
	}
}

// TestPackagesAreExplained wants a doc comment of every package.
func TestPackagesAreExplained(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if len(strings.TrimSpace(p.Doc)) < 40 {
			t.Errorf("%s has no doc comment that says what it is for", p.ImportPath)
		}
	}
}

// TestSQLiteHasItsOwnLibc holds modernc.org/libc at the version that the SQLite
// driver was generated for: another one breaks it in subtle ways.
func TestSQLiteHasItsOwnLibc(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "graph").Output()
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := exec.CommandContext(t.Context(), "go", "list", "-m", "modernc.org/sqlite", "modernc.org/libc").Output()
	if err != nil {
		t.Fatal(err)
	}
	versions := strings.Fields(string(chosen)) // sqlite v1 libc v2
	if len(versions) != 4 {
		t.Fatalf("go list says %q", chosen)
	}
	want := versions[0] + "@" + versions[1] + " " + versions[2] + "@" + versions[3]
	if !strings.Contains(string(out), want+"\n") {
		t.Errorf("libc is %s, which is not what the driver %s asks for", versions[3], versions[1])
	}
}
