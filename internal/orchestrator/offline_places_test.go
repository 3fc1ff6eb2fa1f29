package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/tasks"
)

// TestDropFolders: what counts is where a bundle ends up, whatever leads there.
func TestDropFolders(t *testing.T) {
	t.Parallel()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(parts ...string) string { return filepath.Join(append([]string{base}, parts...)...) }
	for _, dir := range []string{"lib/tako/blobs", "backups", "drops/deep", "opt/tako/versions"} {
		if err := os.MkdirAll(in(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"drops/link": in("lib", "tako"), "drops/nothing": in("none"), "drops/out": in("elsewhere"), "other": in("drops")} {
		if strings.HasSuffix(link, "out") {
			if err := os.Mkdir(to, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(to, in(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(in("opt", "program"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := Offline{Protected: []string{in("drops", "link"), in("backups"), in("opt", "tako"), in("opt", "program")}}
	bound := free
	bound.Roots = []string{in("none"), in("other")}
	const own, outside = "among the server's own files", "(its setting offline_drop_roots)"
	for path, want := range map[string]struct{ at, free, bound string }{
		"drops/deep/Test/Shop/1.0": {"drops/deep/Test/Shop/1.0", "", ""},
		"other/Test":               {"drops/Test", "", ""},
		"elsewhere/Test":           {"elsewhere/Test", "", outside},
		"drops/out/Test":           {"elsewhere/Test", "", outside},
		"lib/tako/blobs/1.0":       {"", own, own},
		"lib/tako":                 {"", own, own},
		"lib":                      {"", own, own}, // a folder below it could be named like data
		"drops/link/new/1.0":       {"", own, own},
		"backups/x":                {"", own, own},
		"opt/tako/versions/9":      {"", own, own},
		"opt":                      {"", own, own},
		"drops/nothing/x":          {"", "is a link to nothing", "is a link to nothing"},
	} {
		for i, says := range []string{want.free, want.bound} {
			o := []Offline{free, bound}[i]
			got, err := o.permitted(in(path), "vault")
			if says == "" && (err != nil || got != in(want.at)) {
				t.Errorf("%s, %v: %s, %v", path, o.Roots, got, err)
			}
			if says != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "vault")) {
				t.Errorf("%s, %v: %s, %v; want %q", path, o.Roots, got, err, says)
			}
		}
	}
}

// TestCanceledWhileFilling: a cancellation ends what is read for a bundle.
func TestCanceledWhileFilling(t *testing.T) {
	t.Parallel()
	canceled := make(chan struct{})
	r := &run{l: &tasks.Lease{Canceled: canceled}}
	from := &heedful{Reader: strings.NewReader("content"), stopped: func() error { return r.stopped(t.Context()) }}
	if n, err := from.Read(make([]byte, 3)); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	close(canceled)
	if rest, err := io.ReadAll(from); len(rest) > 0 || !errors.Is(err, errStopped) {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestFaultsOfDropFolders: what is no fault of the folder is not told as one, and stays
// what it is to those who ask.
func TestFaultsOfDropFolders(t *testing.T) {
	t.Parallel()
	d := &dropped{dir: "/drops"}
	d.info.Machine = "vault"
	full := d.failed(fmt.Errorf("put a file: %w", &fs.PathError{Op: "write", Path: "/drops/x", Err: syscall.ENOSPC}))
	if !fault.Is(full, fault.Invalid) || !strings.Contains(full.Error(), "vault cannot be written to its drop folder /drops: "+syscall.ENOSPC.Error()) {
		t.Errorf("a full disk: %v", full)
	}
	away := fault.New(fault.Unavailable, "The database is away.")
	for _, cause := range []error{tasks.ErrLost, away, context.DeadlineExceeded} {
		got := d.failed(fmt.Errorf("put a file: %w", fmt.Errorf("%w: %w", errUnowned, cause)))
		if !errors.Is(got, cause) || fault.Is(got, fault.Invalid) || fault.Is(got, fault.Unavailable) != errors.Is(cause, away) {
			t.Errorf("%v is told as %v", cause, got)
		}
	}
}
