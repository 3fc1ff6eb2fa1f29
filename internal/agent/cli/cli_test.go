package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/takodeploy/tako/internal/agent/cli"
	"github.com/takodeploy/tako/internal/agent/instance"
)

// No test may touch the instances of the machine that it runs on.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tako-agent-cli")
	if err == nil {
		err = os.Setenv(instance.EnvDir, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir) // a temporary directory
	os.Exit(code)
}

func program() cli.Program { return cli.Program{Name: "tako-agent", Version: "1.2.3"} }

// run runs a command line, and returns its exit code and all that it printed.
func run(p cli.Program, args ...string) (int, string) {
	var out bytes.Buffer
	code := cli.Main(p, args, &out, &out)
	return code, out.String()
}

// TestCommandsAreExplained wants of every command what it does and how it is called, and
// that its examples name flags that there are.
func TestCommandsAreExplained(t *testing.T) {
	t.Parallel()
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" && !cmd.HasSubCommands() {
			t.Errorf("%s is not explained", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || f.Name != strings.ToLower(f.Name) {
				t.Errorf("%s --%s is not explained, or not in lower case", cmd.CommandPath(), f.Name)
			}
		})
		for word := range strings.FieldsSeq(cmd.Example) {
			if name, is := strings.CutPrefix(word, "--"); is && cmd.Flags().Lookup(name) == nil {
				t.Errorf("the example of %s has the flag %s, which it does not know", cmd.CommandPath(), word)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	all := cli.Commands(program())
	if len(all) < 10 {
		t.Errorf("there are %d commands", len(all))
	}
	for _, cmd := range all {
		walk(cmd)
	}
}

// TestFlagsHaveOtherSpellings takes the flags as other agents' commands have them.
func TestFlagsHaveOtherSpellings(t *testing.T) {
	t.Parallel()
	spellings := map[string][]string{
		"register-with": {
			"apiKey", "publicHostName", "tenanttag", "env", "tag", "role", "environment", "tenanted-deployment-participation", "comms-style", "server-comms-port", "tentacle-comms-port",
			"bearerToken", "Force", "PolicY",
		},
		"register-worker": {"workerpool", "worker-pool"},
		"configure":       {"noListen", "listenAddress", "app", "remove-trust"},
	}
	for _, cmd := range cli.Commands(program()) {
		for _, name := range spellings[cmd.Name()] {
			if cmd.Flags().Lookup(name) == nil && cmd.Flags().Lookup(strings.ToLower(name)) == nil {
				t.Errorf("%s does not know --%s", cmd.Name(), name)
			}
		}
	}
}

func TestProgram(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{0, "1.2.3\n", []string{"version"}},
		{0, "1.2.3\n", []string{"--version"}},
		{0, "register-with", nil},
		{0, "Examples:", []string{"help", "install"}},
		{2, `there is no command "fly"`, []string{"fly"}},
		{2, "unknown flag: --fly", []string{"configure", "--fly"}},
		{2, `invalid argument "x" for "--port" flag`, []string{"configure", "--port", "x"}},
		{2, "--builtin needs --home", []string{"run", "--builtin"}},
		{2, "--home and --idle go with --builtin", []string{"run", "--home", "/x"}},
		{2, `takes no argument "x"`, []string{"service", "status", "x"}},
		{2, "--instance is missing", []string{"delete-instance"}},
		{2, `--trust "12": give the 40 hexadecimal digits`, []string{"configure", "--instance", "t", "--trust", "12"}},
		{2, `--server "ftp://x": give the server's URL`, []string{"install", "--server", "ftp://x"}},
		{2, "give one of --api-key, --api-key-file", []string{"install", "--server", "http://x", "--api-key", "API-X", "--token", "t"}},
		{2, "--api-key-file: open /no/such/file", []string{"install", "--server", "http://x", "--api-key-file", "/no/such/file"}},
		{2, "a registration token says by itself", []string{"install", "--server", "http://x", "--token", "tako-register-x", "--role", "web"}},
		{2, "give one of them", []string{"install", "--server", "http://x", "--api-key", "API-X", "--role", "web", "--worker-pool", "p"}},
	} {
		if code, out := run(program(), c.args...); code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%q: exit code %d, want %d with %q:\n%s", c.args, code, c.code, c.says, out)
		}
	}
}

// TestProxyPassword takes the password of a proxy from where nobody else sees it.
func TestProxyPassword(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(instance.EnvDir, filepath.Join(dir, "agents"))
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte("of/the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	configured := func(want string, args ...string) {
		t.Helper()
		if code, out := run(program(), append([]string{"configure", "--instance", "web"}, args...)...); code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, code, out)
		}
		set, err := instance.Store{Dir: filepath.Join(dir, "agents")}.Load("web")
		if err != nil || set.Proxy != want {
			t.Errorf("%q: %q, %v; want %q", args, set.Proxy, err, want)
		}
	}
	refused := func(says string, args ...string) {
		t.Helper()
		if code, out := run(program(), append([]string{"configure", "--instance", "web"}, args...)...); code != 2 || !strings.Contains(out, says) {
			t.Errorf("%q: exit code %d: %s; want %q", args, code, out, says)
		}
	}
	configured("http://me:of%2Fthe%20file@gate:3128", "--proxy", "http://me@gate:3128", "--proxy-password-file", file)
	configured("http://me:of%2Fthe%20file@gate:3128", "--port", "10950")
	configured("http://me@gate:3128", "--proxy", "http://me@gate:3128")
	refused("goes with --proxy", "--proxy-password-file", file)
	refused("goes with a user without a password", "--proxy", "http://gate:3128", "--proxy-password-file", file)
	refused("goes with a user without a password", "--proxy", "http://me:too@gate:3128", "--proxy-password-file", file)
	refused("no/such/file", "--proxy", "http://me@gate:3128", "--proxy-password-file", "/no/such/file")
	t.Setenv("TAKO_AGENT_PROXY_PASSWORD", "surroundings")
	configured("http://me:surroundings@gate:3128", "--proxy", "http://me@gate:3128")
	configured("http://me:own@gate:3128", "--proxy", "http://me:own@gate:3128")
	configured("http://gate:3128", "--proxy", "http://gate:3128")
	configured("", "--proxy", "")
}
