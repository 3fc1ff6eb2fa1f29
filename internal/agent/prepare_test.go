//go:build linux

package agent_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/octodiff"
)

// TestDelta makes a package of one that the agent has and a delta, and refuses what
// does not make what was announced.
func TestDelta(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := retry(t.Context(), func() (agent.Hello, error) { return w.Hello(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	old := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog 0123456789\n"), 4000)
	next := append(append(bytes.Clone(old[:100_000]), "something new"...), old[100_000:]...)
	hash := func(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }
	var signature, delta bytes.Buffer
	err := octodiff.Sign(t.Context(), &signature, bytes.NewReader(old), octodiff.DefaultChunk)
	if err != nil {
		t.Fatal(err)
	}
	signed := signature.Bytes()
	s, err := octodiff.ReadSignature(bytes.NewReader(signed))
	if err == nil {
		err = octodiff.Diff(t.Context(), &delta, s, bytes.NewReader(next), int64(len(next)))
	}
	if err != nil {
		t.Fatal(err)
	}
	apply := func(base, target string, size int, delta []byte) error {
		return w.ApplyDelta(t.Context(), base, target, int64(size), bytes.NewReader(delta), int64(len(delta)))
	}
	if err := apply(hash(old), hash(next), len(next), delta.Bytes()); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), hash(old)) {
		t.Errorf("without its base: %v", err)
	}
	if err := w.PutPackage(t.Context(), hash(old), int64(len(old)), bytes.NewReader(old)); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"another target": apply(hash(old), strings.Repeat("0", 64), len(next), delta.Bytes()),
		"another size":   apply(hash(old), hash(next), len(next)+1, delta.Bytes()),
		"no delta":       apply(hash(old), hash(next), len(next), next),
		"cut off":        apply(hash(old), hash(next), len(next), delta.Bytes()[:delta.Len()-1]),
		"no hash":        apply("../x", hash(next), len(next), delta.Bytes()),
	} {
		if err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if has, err := w.HasPackage(t.Context(), hash(next)); has || err != nil {
		t.Errorf("a refused delta left a package: %v, %v", has, err)
	}
	if err := apply(hash(old), hash(next), len(next), delta.Bytes()); err != nil {
		t.Fatal(err)
	}
	if has, err := w.HasPackage(t.Context(), hash(next)); !has || err != nil {
		t.Errorf("HasPackage: %v, %v", has, err)
	}
	if delta.Len() > len(next)/10 {
		t.Errorf("the delta has %d bytes", delta.Len())
	}

	// A base that was damaged makes nothing, and the whole is taken in its place.
	damaged := append([]byte{'?'}, old[1:]...)
	if err := os.WriteFile(filepath.Join(w.home, "Packages", hash(old)), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	last := append(bytes.Clone(next), "the end"...)
	s, err = octodiff.ReadSignature(bytes.NewReader(signed))
	delta.Reset()
	if err == nil {
		err = octodiff.Diff(t.Context(), &delta, s, bytes.NewReader(last), int64(len(last)))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := apply(hash(old), hash(last), len(last), delta.Bytes()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), hash(last)) {
		t.Errorf("of a damaged base: %v", err)
	}
	if has, err := w.HasPackage(t.Context(), hash(last)); has || err != nil {
		t.Errorf("a damaged base left a package: %v, %v", has, err)
	}
	if err := w.PutPackage(t.Context(), hash(last), int64(len(last)), bytes.NewReader(last)); err != nil {
		t.Error(err)
	}
}

func packageOf(t testing.TB, files map[string]string) (sha string, b []byte) {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for name, body := range files {
		f, err := w.Create(name)
		if err == nil {
			_, err = io.WriteString(f, body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(buf.Bytes())
	return hex.EncodeToString(sum[:]), buf.Bytes()
}

func TestPackages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := retry(t.Context(), func() (agent.Hello, error) { return w.Hello(t.Context()) })
	if err != nil {
		t.Fatal(err)
	}
	sha, b := packageOf(t, map[string]string{"web/index.html": "<h#{Level}>", "Bootstrap.sh": "echo evil"})
	req := agent.StartRequest{
		Ticket: newTicket(), Body: "cat app/web/index.html; cmp copies/Acme.1.0.zip web.zip && echo same; ls",
		Files: []agent.File{{Name: "web.zip", Content: b}, {Name: ".own/vars.json", Content: []byte(`{"Level": "1"}`)}},
		Prepare: agent.Prepare{Substitute: agent.Substitution{Globs: []string{"app/**/*.html"}, Variables: ".own/vars.json"}, Packages: []agent.Package{
			{Name: "Acme", SHA256: sha, FileName: "Acme.1.0.zip", Extract: true, Dir: "app"},
			{Name: "Acme", SHA256: sha, FileName: "Acme.1.0.zip", Extract: true},
			{Name: "Acme", SHA256: sha, FileName: "Acme.1.0.zip", Dir: "copies"},
		}},
	}
	if ok, err := w.HasPackage(t.Context(), sha); ok || err != nil {
		t.Errorf("HasPackage before: %v, %v", ok, err)
	}
	if _, err := w.StartScript(t.Context(), req); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), sha) {
		t.Errorf("StartScript without its package: %v", err)
	}
	if err := w.PutPackage(t.Context(), sha, int64(len(b)), bytes.NewReader(b[:len(b)-1])); err == nil {
		t.Error("a package that was cut off was taken")
	}
	wrong := strings.Repeat("0", 64)
	if err := w.PutPackage(t.Context(), wrong, int64(len(b)), bytes.NewReader(b)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a package with another hash: %v", err)
	}
	if err := w.PutPackage(t.Context(), sha, int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if ok, err := w.HasPackage(t.Context(), sha); !ok || err != nil {
		t.Errorf("HasPackage after: %v, %v", ok, err)
	}
	start(t, w, req)
	st, log := finish(t, w, req.Ticket)
	if st.ExitCode != 0 || !strings.Contains(text(log, agent.Stdout), "<h1>same\n") && !strings.Contains(text(log, agent.Stdout), "<h1>\nsame\n") {
		t.Errorf("%+v %v", st, log)
	}
	if !strings.Contains(text(log, agent.Stdout), "'Bootstrap.sh' of the package Acme was left out") {
		t.Errorf("no warning about Bootstrap.sh: %v", log)
	}
	if !strings.Contains(text(log, agent.Debug), "Extracted 2 entries of Acme.1.0.zip to 'app'") {
		t.Errorf("no word about the extraction: %v", log)
	}
}

// A package for what only reads it is the cache's own file, any other one a copy.
func TestLinkedPackage(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	sha, b := packageOf(t, map[string]string{"a": "b"})
	if err := a.PutPackage(t.Context(), sha, int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	ticket := newTicket()
	start(t, a, agent.StartRequest{Ticket: ticket, Body: "stat -c %h own/Acme.zip copied/Acme.zip; sha256sum <own/Acme.zip", Prepare: agent.Prepare{Packages: []agent.Package{
		{Name: "Acme", SHA256: sha, FileName: "Acme.zip", Dir: "own", Link: true},
		{Name: "Acme", SHA256: sha, FileName: "Acme.zip", Dir: "copied"},
	}}})
	st, log := finish(t, a, ticket)
	lines := strings.Fields(text(log, agent.Stdout))
	// Its names are in the cache, of the workspace, and in it.
	if st.ExitCode != 0 || len(lines) < 3 || lines[0] != "3" || lines[1] != "1" || lines[2] != sha {
		t.Errorf("%+v %q", st, lines)
	}
}

// A package that is no archive ends the script before it starts, with a reason.
func TestPrepareFails(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	sum := sha256.Sum256([]byte("no zip"))
	sha := hex.EncodeToString(sum[:])
	if err := a.PutPackage(t.Context(), sha, 6, strings.NewReader("no zip")); err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(t.TempDir(), "ran")
	ticket := newTicket()
	start(t, a, agent.StartRequest{Ticket: ticket, Body: "touch " + ran, Prepare: agent.Prepare{
		Packages: []agent.Package{{Name: "Acme", SHA256: sha, FileName: "Acme.zip", Extract: true}},
	}})
	st, log := finish(t, a, ticket)
	if st.ExitCode != agent.ExitPrepare || !strings.Contains(text(log, agent.Stderr), "Acme.zip") {
		t.Errorf("%+v %v", st, log)
	}
	if _, err := os.Stat(ran); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the script ran: %v", err)
	}
}

// The cache stays within its limit, and a script that waits keeps its package.
func TestPackageEviction(t *testing.T) {
	t.Parallel()
	w := newWorld(t) // with a cache of 1 MiB
	put := func(fill byte) (string, []byte) {
		b := bytes.Repeat([]byte{fill}, 400<<10)
		sum := sha256.Sum256(b)
		sha := hex.EncodeToString(sum[:])
		if _, err := retry(t.Context(), func() (struct{}, error) {
			return struct{}{}, w.PutPackage(t.Context(), sha, int64(len(b)), bytes.NewReader(b))
		}); err != nil {
			t.Fatal(err)
		}
		return sha, b
	}
	first, content := put('a')
	holder, ticket := newTicket(), newTicket()
	start(t, w, agent.StartRequest{Ticket: holder, Body: "sleep 100", Isolation: agent.FullIsolation})
	start(t, w, agent.StartRequest{
		Ticket: ticket, Body: "sha256sum < data.bin", Isolation: agent.FullIsolation,
		Prepare: agent.Prepare{Packages: []agent.Package{{Name: "data", SHA256: first, FileName: "data.bin"}}},
	})
	for fill := range byte(4) {
		put(fill)
	}
	if ok, err := w.HasPackage(t.Context(), first); ok || err != nil {
		t.Errorf("the oldest package is still there: %v, %v", ok, err)
	}
	entries, err := os.ReadDir(filepath.Join(w.home, "Packages"))
	if err != nil || len(entries) != 2 {
		t.Errorf("%d packages in the cache, %v", len(entries), err)
	}
	if _, err := w.CancelScript(t.Context(), agent.StatusRequest{Ticket: holder}); err != nil {
		t.Fatal(err)
	}
	st, log := finish(t, w, ticket)
	if st.ExitCode != 0 || !strings.HasPrefix(text(log[3:], agent.Stdout), first) {
		t.Errorf("%+v %v (of %d bytes)", st, log, len(content))
	}
}

// A runner that dies while it prepares is followed by another that begins anew.
func TestPrepareAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, failpoint.Env+"=before-started:stall=300ms,runner-locked:stall=200ms", failpoint.EnvOnce+"="+t.TempDir())
	sha, b := packageOf(t, map[string]string{"a": "A"})
	if _, err := retry(t.Context(), func() (struct{}, error) {
		return struct{}{}, w.PutPackage(t.Context(), sha, int64(len(b)), bytes.NewReader(b))
	}); err != nil {
		t.Fatal(err)
	}
	ticket := newTicket()
	start(t, w, agent.StartRequest{Ticket: ticket, Body: "cat a/a", Prepare: agent.Prepare{
		Packages: []agent.Package{{Name: "a", SHA256: sha, FileName: "a.zip", Extract: true, Dir: "a"}},
	}})
	await(t, "the runner has the lock", func() bool { return w.pidOf(ticket, "lock") > 0 })
	if !w.killIn(ticket, "lock") {
		t.Fatal("there is no runner to kill")
	}
	st, log := finish(t, w, ticket)
	if st.ExitCode != 0 || text(log, agent.Stdout) != "A\n" {
		t.Errorf("%+v %v", st, log)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := strings.Repeat("0123456789", 100_000)
	up, err := retry(t.Context(), func() (agent.Uploaded, error) {
		return w.UploadFile(t.Context(), `Applications\sub\data.txt`, strings.NewReader(body))
	})
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(w.home, "Applications", "sub", "data.txt")
	if up.FullPath != want || up.Length != int64(len(body)) || len(up.SHA1) != 40 || len(up.SHA256) != 64 {
		t.Errorf("%+v", up)
	}
	for _, name := range []string{"Applications/sub/data.txt", want} {
		r, err := w.DownloadFile(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != body || r.Close() != nil {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
	if err := os.Symlink("/etc", filepath.Join(w.home, "out")); err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]fault.Kind{
		"../x": fault.Invalid, "/etc/passwd": fault.Invalid, "": fault.Invalid, ".": fault.Invalid, "a/../../b": fault.Invalid,
		"nothing": fault.NotFound, "out/passwd": fault.Invalid, "Work": fault.Invalid,
	} {
		if _, err := w.DownloadFile(t.Context(), name); !fault.Is(err, kind) {
			t.Errorf("download %q: %v", name, err)
		}
		if name == "nothing" || name == "Work" {
			continue
		}
		if _, err := w.UploadFile(t.Context(), name, strings.NewReader("x")); !fault.Is(err, fault.Invalid) {
			t.Errorf("upload %q: %v", name, err)
		}
	}
	// A script's own file, at the path that its API names.
	ticket := newTicket()
	start(t, w, agent.StartRequest{Ticket: ticket, Body: "mkdir d; echo result > d/out.txt", Wait: 10 * time.Second})
	finish(t, w, ticket)
	r, err := w.DownloadFile(t.Context(), agent.WorkspacePath(ticket, "d/out.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "result\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
