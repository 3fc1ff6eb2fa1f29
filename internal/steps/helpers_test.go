//go:build unix

package steps_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/servicemsg"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/octopus"
)

// nasty is a text that breaks everything that is not quoted.
const nasty = "it's \"quoted\" $HOME `id` \\n %s * ?[a] #{not} ~ -n\nsecond line\ttab ünïcödé 🐙 ]"

// ran is what a script did.
type ran struct {
	code           int
	dir            string // the script's own
	stdout, stderr string
	// messages are those of stdout, "verb name=value ..." with values as given.
	messages []string
	// shown is stdout without messages, each line after its level in brackets.
	shown []string
}

// runScript runs an inline script as an agent would: its files in a directory, its
// body by bash in it.
func runScript(t *testing.T, syntax octopus.ScriptSyntax, body string, vars map[string]string, change ...func(octopus.Properties)) ran {
	t.Helper()
	props := octopus.Properties{
		octopus.PropScriptSyntax: {Value: string(syntax)},
		octopus.PropScriptBody:   {Value: body},
	}
	for _, c := range change {
		c(props)
	}
	var pairs []octostache.Pair
	for name, value := range vars {
		pairs = append(pairs, octostache.Pair{Name: name, Value: value})
	}
	r := ran{dir: t.TempDir()}
	work, err := steps.Prepare(steps.Input{
		Action: octopus.Action{ActionType: octopus.ActionScript, Properties: props}, Vars: octostache.NewVariables(octostache.Options{}, pairs...), Workspace: r.dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range work.Script.Files {
		name := filepath.Join(r.dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "Bootstrap.sh"), []byte(work.Script.Body), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"Bootstrap.sh"}, work.Script.Arguments...)...)
	cmd.Dir = r.dir
	// The poorest locale that there is.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PYTHONCOERCECLOCALE=0", "PYTHONUTF8=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	var scan servicemsg.Scanner
	level := "default"
	items := []servicemsg.Item{}
	for line := range strings.Lines(r.stdout) {
		items = append(items, scan.Feed(strings.TrimSuffix(line, "\n"))...)
	}
	for _, item := range append(items, scan.Flush()...) {
		if item.Message == nil {
			r.shown = append(r.shown, "["+level+"] "+item.Text)
			continue
		}
		if to, ok := strings.CutPrefix(item.Message.Name, "stdout-"); ok {
			level = to
			continue
		}
		text := item.Message.Name
		for _, name := range []string{"name", "value", "sensitive", "percentage", "message"} {
			if v, ok := item.Message.Attributes[name]; ok {
				text += fmt.Sprintf(" %s=%q", name, v)
			}
		}
		if path := item.Message.Get("path"); path != "" {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
			}
			if rel, err := filepath.Rel(r.dir, path); err != nil || !filepath.IsLocal(rel) || !strings.HasPrefix(rel, ".tako/artifacts/") {
				t.Errorf("an artifact is at %s, out of the agent's reach", path)
			}
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s is no plain file", path)
			}
			if item.Message.Get("length") != fmt.Sprint(len(content)) {
				t.Errorf("%s has %d bytes, not %s", path, len(content), item.Message.Get("length"))
			}
			text += fmt.Sprintf(" content=%q", content)
		}
		r.messages = append(r.messages, text)
	}
	return r
}

func (r ran) expect(t *testing.T, code int, messages, shown []string) {
	t.Helper()
	if r.code != code {
		t.Errorf("it exits with %d: %s", r.code, r.stderr)
	}
	if diff := cmp.Diff(messages, r.messages); diff != "" {
		t.Errorf("messages: %s", diff)
	}
	if diff := cmp.Diff(shown, r.shown); diff != "" {
		t.Errorf("output: %s", diff)
	}
}

var variables = map[string]string{
	"Plain": "plain value", "Nasty": nasty, "Octopus.Action[My Step].Output.X": "of a step", "It's": "quoted name", "Empty": "",
	"Composed": "<#{Plain}>", "ÜBER": "umlaut",
}

func TestBash(t *testing.T) {
	t.Parallel()
	const strict = "set -euo pipefail; IFS=$'\\n\\t,'; trap 'echo trapped >&2' ERR\n"
	outer := t.TempDir()
	for name, content := range map[string]string{"a b'c.txt": "one", "-n": "dash", "big.log": strings.Repeat("x", 100000)} {
		if err := os.WriteFile(filepath.Join(outer, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"", strict} {
		for _, c := range []struct {
			name, body      string
			code            int
			messages, shown []string
		}{
			{
				"get", `printf '[%s]' "$(get_octopusvariable Plain)" "$(get_octopusvariable pLAIN)" "$(get_octopusvariable Missing)" "$(get_octopusvariable Empty)" "$(get_octopusvariable 'octopus.action[my step].output.x')" "$(get_octopusvariable "it's")" "$(get_octopusvariable composed)" "$(get_octopusvariable '*')"; echo
get_octopusvariable plain; echo
shopt -q nocasematch && echo "case is still folded"; echo done`,
				0, nil,
				[]string{"[default] [plain value][plain value][][][of a step][quoted name][<plain value>][]", "[default] plain value", "[default] done"},
			},
			{"get keeps the case folding that a script has set", `shopt -s nocasematch; get_octopusvariable plain; shopt -q nocasematch && echo " kept"`, 0, nil, []string{"[default] plain value kept"}},
			{"any text", `v="$(get_octopusvariable Nasty)"; set_octopusvariable "$v" "$v"; set_octopusvariable Secret "$v" -sensitive; set_octopusvariable Empty ""`, 0, []string{
				fmt.Sprintf("setVariable name=%q value=%q", nasty, nasty), fmt.Sprintf("setVariable name=\"Secret\" value=%q sensitive=\"True\"", nasty), `setVariable name="Empty" value=""`,
			}, nil},
			{"artifacts", fmt.Sprintf(`cd %q; new_octopusartifact "a b'c.txt"; new_octopusartifact -n 'other "name"'; new_octopusartifact %q/big.log; echo more > own; (new_octopusartifact own); ln -s own link; new_octopusartifact ./link; rm own link; echo end`, outer, outer), 0, []string{
				`createArtifact name="a b'c.txt" content="one"`, `createArtifact name="other \"name\"" content="dash"`,
				fmt.Sprintf(`createArtifact name="big.log" content=%q`, strings.Repeat("x", 100000)), `createArtifact name="own" content="more\n"`, `createArtifact name="link" content="more\n"`,
			}, []string{"[default] end"}},
			{"an artifact that is none", `if new_octopusartifact /nowhere; then echo yes; else echo no; fi; if new_octopusartifact /; then echo yes; fi`, 0, nil, []string{"[default] no"}},
			{"progress", `update_progress 50; update_progress 75 "three
quarters"`, 0, []string{`progress percentage="50" message=""`, `progress percentage="75" message="three\nquarters"`}, nil},
			{"levels", `write_verbose a "b  c"; write_highlight -n; write_wait '\t%s'; write_warning "two
lines"; write_error e; printf 'from a pipe\nno line end' | write_verbose; echo_warning w; echo_verbose v; echo plain`, 0, nil, []string{
				"[verbose] a b  c", "[highlight] -n", `[wait] \t%s`, "[warning] two", "[warning] lines", "[error] e", "[verbose] from a pipe", "[verbose] no line end",
				"[warning] w", "[verbose] v", "[default] plain",
			}},
			{"failing", `fail_step "because
of that"; echo never`, 1, []string{`resultMessage message="because\nof that"`}, nil},
			{"failing without a word", `fail_step; echo never`, 1, nil, nil},
			{"an exit code of its own", `echo x; exit 7`, 7, nil, []string{"[default] x"}},
			{"the last command's", `true; false`, 1, nil, nil},
			{"mask", `mask_octopusvalue "$(get_octopusvariable Nasty)"; echo after`, 0, []string{fmt.Sprintf("mask value=%q", nasty)}, []string{"[default] after"}},
			{"arguments", `echo "$#:$1:$2"; [ "$0" != x ]`, 0, nil, []string{"[default] 2:one word:$HOME"}},
		} {
			name := c.name
			if prefix != "" {
				name += ", strictly"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := runScript(t, octopus.SyntaxBash, prefix+c.body, variables, func(p octopus.Properties) {
					p[octopus.PropScriptParameters] = octopus.PropertyValue{Value: `'one word' '$HOME'`}
				})
				r.expect(t, c.code, c.messages, c.shown)
				if c.name == "mask" && !strings.HasPrefix(r.stderr, "##octopus[mask value='") {
					t.Errorf("the other stream: %q", r.stderr)
				}
				if c.code == 0 && strings.Contains(r.stderr, "trapped") {
					t.Errorf("a helper's own doings reach the script's trap: %s", r.stderr)
				}
				if c.name == "an artifact that is none" && strings.Count(r.stderr, "does not exist") != 2 {
					t.Errorf("stderr: %q", r.stderr)
				}
			})
		}
	}
}

func TestPython(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Fatal("python3 is needed for the scripts that are written in it")
	}
	outer := t.TempDir()
	if err := os.WriteFile(filepath.Join(outer, "a b'c.txt"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body      string
		code            int
		messages, shown []string
	}{
		{
			"get", `print([get_octopusvariable(n) for n in ("Plain", "pLAIN", "Missing", "Empty", "octopus.action[my step].output.x", "it's", "composed", "über")], octopusvariables["Plain"])`,
			0, nil,
			[]string{"[default] ['plain value', 'plain value', None, '', 'of a step', 'quoted name', '<plain value>', 'umlaut'] plain value"},
		},
		{"any text", "v = get_octopusvariable('Nasty')\nset_octopusvariable(v, v)\nset_octopusvariable('Secret', v, sensitive=True)\nset_octopusvariable('Number', 5)\nset_octopusvariable('Empty', '')", 0, []string{
			fmt.Sprintf("setVariable name=%q value=%q", nasty, nasty), fmt.Sprintf("setVariable name=\"Secret\" value=%q sensitive=\"True\"", nasty),
			`setVariable name="Number" value="5"`, `setVariable name="Empty" value=""`,
		}, nil},
		{"artifacts", fmt.Sprintf("import os\nos.chdir(%q)\nnew_octopusartifact(\"a b'c.txt\")\nopen('own', 'w').write('more')\nos.symlink('own', 'link')\nnew_octopusartifact('own', 'other \"name\"')\ncreateartifact('link')\nos.remove('own')\nos.remove('link')", outer), 0, []string{
			`createArtifact name="a b'c.txt" content="one"`, `createArtifact name="other \"name\"" content="more"`, `createArtifact name="link" content="more"`,
		}, nil},
		{"an artifact that is none", "try:\n  new_octopusartifact('/nowhere')\nexcept FileNotFoundError as e:\n  print(e)\ntry:\n  new_octopusartifact('/')\nexcept OSError:\n  print('no')", 0, nil, []string{"[default] The artifact /nowhere does not exist or is no file.", "[default] no"}},
		{"progress", "update_progress(50)\nupdateprogress(75, 'x')", 0, []string{`progress percentage="50" message=""`, `progress percentage="75" message="x"`}, nil},
		{"levels", "write_verbose('a')\nwrite_highlight('b')\nwrite_wait('c')\nwrite_warning('d\\ne')\nwrite_error('f')\nprintwarning('g')\nprint('h')\nwrite_verbose('\\udcff')", 0, nil, []string{
			"[verbose] a", "[highlight] b", "[wait] c", "[warning] d", "[warning] e", "[error] f", "[warning] g", "[default] h", `[verbose] \udcff`,
		}},
		{"failing", "fail_step('because')\nprint('never')", 1, []string{`resultMessage message="because"`}, nil},
		{"failing without a word", "failstep()", 1, nil, nil},
		{"an exit code of its own", "import sys\nsys.exit(7)", 7, nil, nil},
		{"an exception", "print('x')\nraise ValueError('no')", 1, nil, []string{"[default] x"}},
		{"mask", "mask_octopusvalue(get_octopusvariable('Nasty'))", 0, []string{fmt.Sprintf("mask value=%q", nasty)}, nil},
		{"arguments", "import sys\nprint(sys.argv[1:], __name__)", 0, nil, []string{"[default] ['one word', '$HOME'] __main__"}},
		{"umlauts in any locale", "print('ünïcödé')", 0, nil, []string{"[default] ünïcödé"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := runScript(t, octopus.SyntaxPython, c.body, variables, func(p octopus.Properties) {
				p[octopus.PropScriptParameters] = octopus.PropertyValue{Value: `'one word' '$HOME'`}
			})
			r.expect(t, c.code, c.messages, c.shown)
			if c.name == "mask" && !strings.HasPrefix(r.stderr, "##octopus[mask value='") {
				t.Errorf("the other stream: %q", r.stderr)
			}
			if c.name == "an exception" && !strings.Contains(r.stderr, "ValueError: no") {
				t.Errorf("stderr: %q", r.stderr)
			}
		})
	}
}

// PowerShell is tried where it is installed; where it is not, a script says so.
func TestPowerShell(t *testing.T) {
	t.Parallel()
	r := runScript(t, octopus.SyntaxPowerShell, `Set-OctopusVariable -name "A" -value $OctopusParameters["PLAIN"]
Set-Content own.txt 'x' -NoNewline; New-OctopusArtifact own.txt; Remove-Item own.txt; Write-Highlight 'high'; Write-Output 'out'; Fail-Step 'because'`, variables)
	if _, err := exec.LookPath("pwsh"); err != nil {
		if r.code != 127 || !strings.Contains(r.stderr, "install PowerShell 7") {
			t.Errorf("%d: %s", r.code, r.stderr)
		}
		return
	}
	r.expect(t, 1, []string{`setVariable name="A" value="plain value"`, `createArtifact name="own.txt" content="x"`, `resultMessage message="because"`}, []string{"[highlight] high", "[default] out"})
}
