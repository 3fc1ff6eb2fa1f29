package program_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/targets/program"
)

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".new", []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("tako", "the server")
	write("agents/tako-agent-linux-s390x", "an agent")
	f := program.NewFinder(filepath.Join(dir, "tako"))
	content := func(p program.Platform) string {
		t.Helper()
		found, err := f.Find(p)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(found.Open())
		if sum := sha256.Sum256(b); err != nil || found.SHA256 != hex.EncodeToString(sum[:]) || found.Size != int64(len(b)) {
			t.Errorf("%+v: %v", found, err)
		}
		return string(b)
	}
	own := program.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH}
	for range 2 {
		if got := content(own); got != "the server" {
			t.Errorf("own platform: %q", got)
		}
		write("tako", "an upgrade") // does not change what is running
	}
	if got := content(program.Platform{OS: "linux", Arch: "s390x"}); got != "an agent" {
		t.Errorf("another: %q", got)
	}
	none := program.Platform{OS: "linux", Arch: "riscv64"}
	if _, err := f.Find(none); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "tako-agent-linux-riscv64") {
		t.Error(err)
	}
	write("tako-agent-linux-riscv64", "a late one")
	if got := content(none); got != "a late one" {
		t.Errorf("one that came later: %q", got)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestParseUname(t *testing.T) {
	t.Parallel()
	for uname, want := range map[string]string{"Linux x86_64\n": "linux/amd64", "Linux aarch64": "linux/arm64", "Linux armv7l": "linux/arm"} {
		if p, err := program.ParseUname("It", uname); err != nil || p.String() != want {
			t.Errorf("%q is %v, %v", uname, p, err)
		}
	}
	for uname, want := range map[string]string{"Darwin arm64": "It runs Darwin arm64", "Linux vax": "kind vax", "": "does not tell"} {
		if _, err := program.ParseUname("It", uname); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", uname, err)
		}
	}
}
