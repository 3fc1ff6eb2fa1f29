package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

const installer = "../install.sh"

// setUp runs install.sh.
func setUp(t *testing.T, in string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{installer}, args...)...)
	cmd.Stdin = strings.NewReader(in)
	body, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return string(body), code
}

// posing is a program that is this one, but says that it has another version.
func posing(t *testing.T, version string) []byte {
	t.Helper()
	return fmt.Appendf(nil, "#!/bin/sh\n[ \"$1\" != version ] || { echo '{\"Version\":%q,\"Platform\":%q}'; exit; }\nexec '%s' \"$@\"\n", version, stage.Platform(), apptest.Binary(t))
}

// publisher makes what a project publishes: keys, a root, feeds and bundles.
type publisher struct {
	t   *testing.T
	dir string
}

func (p *publisher) at(name string) string { return filepath.Join(p.dir, name) }

func (p *publisher) do(args ...string) {
	p.t.Helper()
	if out, code := run(p.t, "", append([]string{"release"}, args...)...); code != 0 {
		p.t.Fatalf("%v: %d %s", args, code, out)
	}
}

// root makes a root of keys that must all sign.
func (p *publisher) root(name string, keys ...string) {
	p.t.Helper()
	args := []string{"root", "--threshold", fmt.Sprint(len(keys)), "--out", p.at(name)}
	for _, k := range keys {
		if _, err := os.Stat(p.at(k)); err != nil {
			p.do("keygen", p.at(k))
		}
		args = append(args, "--key", p.at(k)+".pub", "--sign", p.at(k))
	}
	p.do(args...)
}

// release makes a feed and a bundle of a version: <version>.json and <version>.bundle.
func (p *publisher) release(version string, program []byte, keys ...string) {
	p.t.Helper()
	from := dist(p.t, version, program)
	args := []string{"feed", "--dist", from, "--out", p.at(version + ".json"), "--issued", "2026-11-01T00:00:00Z", "--days", "3000"}
	for _, k := range keys {
		args = append(args, "--sign", p.at(k))
	}
	p.do(args...)
	p.do("bundle", "--feed", p.at(version+".json"), "--root", p.at("root.json"), "--dist", from, "--version", version, "--out", p.at(version+".bundle"))
	files, err := filepath.Glob(filepath.Join(from, "tako-*"))
	if err != nil || len(files) != 1 {
		p.t.Fatal(files, err)
	}
	if err := os.Rename(files[0], p.at(filepath.Base(files[0]))); err != nil {
		p.t.Fatal(err)
	}
}

func needOpenSSL(t *testing.T) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "openssl", "version").Output(); err != nil || !strings.HasPrefix(string(out), "OpenSSL 3") {
		if os.Getenv("CI") == "true" {
			t.Fatalf("openssl 3 is not installed: %s %v", out, err)
		}
		t.Skipf("openssl 3 is not installed: %s %v", out, err)
	}
}

// TestInstallerBelievesNobody: nothing is run, and nothing is left, of what is not what it
// should be.
func TestInstallerBelievesNobody(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	p := &publisher{t, t.TempDir()}
	ran := p.at("it-was-run")
	program := fmt.Appendf(nil, "#!/bin/sh\necho ran >%s\n", ran)
	p.root("root.json", "a", "b")
	p.root("strangers.json", "c")
	p.root("three.json", "a", "b", "c")
	p.release("2026.4.0", program, "a", "b")
	bundle, root := p.at("2026.4.0.bundle"), p.at("root.json")
	raw, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	change := func(name, from, to string) string {
		t.Helper()
		changed := strings.Replace(string(raw), from, to, 1)
		if changed == string(raw) || len(changed) != len(raw) {
			t.Fatalf("%s: nothing to change", name)
		}
		if err := os.WriteFile(p.at(name), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		return p.at(name)
	}
	if err := os.WriteFile(p.at("half"), raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	feed := httptest.NewServer(http.FileServer(http.Dir(p.dir)))
	t.Cleanup(feed.Close)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":                  {nil, 2, "name one place"},
		"two places":               {[]string{"--bundle", bundle, "--from", bundle}, 2, "name one place"},
		"an unknown option":        {[]string{"--force"}, 2, "there is no option --force"},
		"an option without value":  {[]string{"--bundle"}, 2, "--bundle needs a value"},
		"a bundle without trust":   {[]string{"--bundle", bundle}, 2, "needs --trust"},
		"a feed without trust":     {[]string{"--feed", feed.URL + "/2026.4.0.json"}, 2, "needs --trust"},
		"a file that is not there": {[]string{"--bundle", p.at("none"), "--trust", root}, 1, "cannot be read"},
		"another hash":             {[]string{"--bundle", bundle, "--sha256", strings.Repeat("0", 64)}, 1, "and should be 000"},
		"another program's hash":   {[]string{"--from", bundle, "--sha256", strings.Repeat("0", 64)}, 1, "and should be 000"},
		"other keys":               {[]string{"--bundle", bundle, "--trust", p.at("strangers.json")}, 1, "0 of the keys"},
		"too few keys":             {[]string{"--bundle", bundle, "--trust", p.at("three.json")}, 1, "2 of the keys"},
		"a feed by other keys":     {[]string{"--feed", feed.URL + "/2026.4.0.json", "--trust", p.at("strangers.json")}, 1, "0 of the keys"},
		"no feed":                  {[]string{"--feed", feed.URL + "/none.json", "--trust", root}, 1, "cannot fetch"},
		"a root for a feed":        {[]string{"--feed", feed.URL + "/root.json", "--trust", root}, 1, "no feed"},
		"a feed for a root":        {[]string{"--bundle", bundle, "--trust", p.at("2026.4.0.json")}, 1, "is no root"},
		"a program that changed":   {[]string{"--bundle", change("program", "echo ran", "echo Ran"), "--trust", root}, 1, "not the one that was signed"},
		"a feed that changed":      {[]string{"--bundle", change("feed", fmt.Sprintf(`"level":%d`, db.BinaryLevels().Level+1), `"level":1`), "--trust", root}, 1, "does not fit"},
		"a signature that is none": {[]string{"--bundle", change("keyid", `"keyid":"`, `"keyiD":"`), "--trust", root}, 1, "1 of the keys"},
		"half a bundle":            {[]string{"--bundle", p.at("half"), "--trust", root}, 1, "install.sh: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prefix := filepath.Join(t.TempDir(), "x")
			out, code := setUp(t, "", append([]string{"--prefix", prefix}, c.args...)...)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("%d %s", code, out)
			}
			if _, err := os.Stat(prefix); err == nil {
				t.Error("something was installed")
			}
			if _, err := os.Stat(ran); err == nil {
				t.Error("the program was run")
			}
		})
	}
}

// TestInstaller installs a release from a bundle and from a feed, again, and over another.
func TestInstaller(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	p := &publisher{t, t.TempDir()}
	p.root("root.json", "a", "b")
	p.release("2026.4.0", posing(t, "2026.4.0"), "a", "b")
	p.release("2026.5.0", posing(t, "2026.5.0"), "a", "b")
	prefix := t.TempDir()
	from := func(version string) []string {
		return []string{"--bundle", p.at(version + ".bundle"), "--trust", p.at("root.json"), "--prefix", prefix}
	}
	if out, code := setUp(t, "", from("2026.4.0")...); code != 0 || !strings.Contains(out, "Tako 2026.4.0 is installed") {
		t.Fatalf("%d %s", code, out)
	}
	store := stage.Open(filepath.Join(prefix, "var/lib/tako"), nil)
	if m, err := store.Manifest("2026.4.0"); err != nil || m.Release.Version != "2026.4.0" {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := store.Root(); err != nil {
		t.Errorf("an upgrade would not know whom to believe: %v", err)
	}
	if out, code := setUp(t, "", from("2026.4.0")...); code != 0 || !strings.Contains(out, "nothing had to be changed") {
		t.Errorf("again: %d %s", code, out)
	}
	if out, code := setUp(t, "", from("2026.5.0")...); code != 1 || !strings.Contains(out, "tako upgrade --bundle "+p.at("2026.5.0.bundle")) || !strings.Contains(out, "Nothing was changed") {
		t.Errorf("another version: %d %s", code, out)
	}
	if out, code := setUp(t, "", append(from("2026.5.0"), "--supervisor-only")...); code != 1 || !strings.Contains(out, "is not version 2026.5.0 of the release") {
		t.Errorf("a supervisor that poses as another: %d %s", code, out)
	}
	if link, err := os.Readlink(filepath.Join(prefix, "var/lib/tako/current")); err != nil || link != "versions/2026.4.0" {
		t.Error(link, err)
	}
	// With the hash alone the program installs itself, and pins no keys.
	sum, err := exec.CommandContext(t.Context(), "sha256sum", p.at("2026.4.0.bundle")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if out, code := setUp(t, "", "--bundle", p.at("2026.4.0.bundle"), "--sha256", string(sum[:64]), "--prefix", t.TempDir()); code != 0 || !strings.Contains(out, "is installed") {
		t.Errorf("by its hash: %d %s", code, out)
	}
}

// TestInstallerFeed installs from a feed what the installer has fetched and checked, without
// fetching it twice.
func TestInstallerFeed(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	program, err := os.ReadFile(apptest.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, "", "version", "--output", "json")
	var says struct{ Version string }
	if err := json.Unmarshal([]byte(out), &says); err != nil {
		t.Fatal(err)
	}
	p := &publisher{t, t.TempDir()}
	p.root("root.json", "a")
	p.release(says.Version, program, "a")
	var fetched atomic.Int32
	files := http.FileServer(http.Dir(p.dir))
	feed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "-"+runtime.GOOS+"-"+runtime.GOARCH) {
			fetched.Add(1)
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(feed.Close)
	prefix := t.TempDir()
	text, code := setUp(t, "", "--feed", feed.URL+"/"+says.Version+".json", "--trust", p.at("root.json"), "--to", says.Version, "--prefix="+prefix)
	if code != 0 || !strings.Contains(text, "is installed") {
		t.Fatalf("%d %s", code, text)
	}
	if n := fetched.Load(); n != 1 {
		t.Errorf("the program was fetched %d times", n)
	}
	trust, err := stage.Open(filepath.Join(prefix, "var/lib/tako"), nil).Trust()
	if err != nil || trust.Feed != feed.URL+"/"+says.Version+".json" {
		t.Errorf("an upgrade would not look there: %+v %v", trust, err)
	}
	again := []string{"--feed", feed.URL + "/" + says.Version + ".json", "--trust", p.at("root.json"), "--supervisor-only", "--prefix"}
	if text, code := setUp(t, "", append(again, prefix)...); code != 0 || !strings.Contains(text, "nothing had to be changed") {
		t.Errorf("the supervisor alone: %d %s", code, text)
	}
	if text, code := setUp(t, "", append(again, t.TempDir())...); code != 1 || !strings.Contains(text, "install without --supervisor-only") {
		t.Errorf("the supervisor of nothing: %d %s", code, text)
	}
}

// TestInstalledServer runs what install.sh has installed as its last lines say, and takes
// it away again.
func TestInstalledServer(t *testing.T) {
	t.Parallel()
	prefix := apptest.ShortDir(t)
	at := func(parts ...string) string { return filepath.Join(append([]string{prefix}, parts...)...) }
	built := filepath.Join(t.TempDir(), "tako")
	if err := os.Symlink(apptest.Binary(t), built); err != nil {
		t.Fatal(err)
	}
	out, code := setUp(t, "", "--from", filepath.Dir(built), "--root-dir", prefix, "--listen", "127.0.0.1:0", "--admin", "ann")
	supervise, rest, _ := strings.Cut(strings.Join(strings.Fields(out), " "), " It serves:")
	_, supervise, found := strings.Cut(supervise, "run: ")
	if code != 0 || !found || !strings.Contains(rest, "create-api-key --user ann") {
		t.Fatalf("%d %s", code, out)
	}
	t.Cleanup(func() { apptest.StopWorker(t, at("var/lib/tako/data")) })
	words := strings.Fields(supervise)
	cmd := exec.Command(words[0], words[1:]...) //nolint:gosec // the words are the installer's
	cmd.Env = append(os.Environ(), "TAKO_AGENT_LISTEN=off")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url := ""
	for lines := bufio.NewScanner(stdout); url == "" && lines.Scan(); {
		if _, after, ok := strings.Cut(lines.Text(), " is ready at "); ok {
			url, _, _ = strings.Cut(after, " ")
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	key, err := exec.CommandContext(t.Context(), at("usr/local/bin/tako"), "admin", "create-api-key", "--user", "ann").Output()
	if err != nil {
		t.Fatalf("%s %v", key, err)
	}
	client := &apptest.Client{URL: url, Key: strings.TrimSpace(string(key))}
	var me struct{ Username string }
	client.Must(t, http.MethodGet, "/api/users/me", nil, &me)
	if me.Username != "ann" {
		t.Errorf("%+v", me)
	}
	modeOf := func(path string) os.FileMode {
		info, err := os.Stat(at(path))
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if m := modeOf("var/lib/tako/data/master.key"); m != 0o600 {
		t.Errorf("the master key has mode %o", m)
	}
	if out, code := setUp(t, "", "--uninstall", "--prefix", prefix); code != 1 || !strings.Contains(out, "a supervisor runs") {
		t.Errorf("while it runs: %d %s", code, out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	started := time.Now()
	if out, code := setUp(t, "", "--uninstall", "--prefix", prefix); code != 0 || !strings.Contains(out, "The data is still in "+at("var/lib/tako")) {
		t.Errorf("%d %s", code, out)
	}
	t.Logf("removed in %s", time.Since(started))
	if m := modeOf("var/lib/tako/data/tako.db"); m != 0o600 {
		t.Errorf("the database has mode %o", m)
	}
	if out, code := setUp(t, "", "--uninstall", "--prefix", prefix); code != 1 || !strings.Contains(out, "no Tako is installed") {
		t.Errorf("again: %d %s", code, out)
	}
	if out, code := setUp(t, "", "--from", filepath.Dir(built), "--prefix", prefix); code != 0 {
		t.Errorf("once more: %d %s", code, out)
	}
	if out, code := setUp(t, "yes\n", "--purge", "--prefix", prefix); code != 1 || !strings.Contains(out, "nothing was removed") {
		t.Errorf("without its path typed: %d %s", code, out)
	}
	if out, code := setUp(t, at("var/lib/tako")+"\n", "--purge", "--prefix", prefix); code != 0 {
		t.Errorf("%d %s", code, out)
	}
	if _, err := os.Stat(at("var/lib/tako")); err == nil {
		t.Error("the data is left")
	}
}

// TestShellcheck has the scripts checked. `make test` installs it.
func TestShellcheck(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("shellcheck"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("shellcheck is not installed")
		}
		t.Skip("shellcheck is not installed")
	}
	if out, err := exec.CommandContext(t.Context(), "shellcheck", installer).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
