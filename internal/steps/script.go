package steps

import (
	"cmp"
	"iter"
	"path"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
	libraries "github.com/takodeploy/tako/internal/script"
	"github.com/takodeploy/tako/octopus"
)

// Keys of the feature that substitutes variables in files.
const (
	featureSubstitute = "Octopus.Features.SubstituteInFiles"
	propSubstitute    = "Octopus.Action.SubstituteInFiles.TargetFiles"
)

// script is an action of type Octopus.Script: Bash, Python or PowerShell, written
// in the process or found in the action's primary package.
func script(in Input) (*Work, error) {
	if c := in.Action.Container; c != nil && (c.Image != "" || c.GitURL != "" || c.Dockerfile != "") {
		return nil, failf("This server cannot run scripts in a container; take the container image out of the step.")
	}
	if len(in.Action.GitDependencies) > 0 {
		return nil, failf("This server cannot fetch files from Git; take the Git dependencies out of the step.")
	}
	syntax, err := in.property(octopus.PropScriptSyntax)
	if err != nil {
		return nil, err
	}
	body, where, err := in.scriptBody(syntax)
	if err != nil {
		return nil, err
	}
	arguments, err := in.property(octopus.PropScriptParameters)
	if err != nil {
		return nil, err
	}
	s := &Script{}
	if err := s.limits(in); err != nil {
		return nil, err
	}
	values, err := libraries.VariablesJSON(in.values())
	if err != nil {
		return nil, err
	}
	s.Files = append(s.Files, agent.File{Name: libraries.Variables, Content: values})
	switch octopus.ScriptSyntax(syntax) {
	case octopus.SyntaxBash, "":
		s.bash(in, body, where, arguments)
	case octopus.SyntaxPython:
		s.python(in, body, where, arguments)
	case octopus.SyntaxPowerShell:
		s.powerShell(in, body, where, arguments)
	default:
		return nil, failf("This server cannot run scripts written in %s; use Bash, Python or PowerShell.", syntax)
	}
	for _, p := range in.Packages {
		s.Prepare.Packages = append(s.Prepare.Packages, p.prepare())
	}
	if in.feature(featureSubstitute) {
		globs, err := in.property(propSubstitute)
		if err != nil {
			return nil, err
		}
		for glob := range strings.FieldsFuncSeq(globs, func(r rune) bool { return r == '\n' || r == '\r' || r == ';' }) {
			if glob = strings.TrimSpace(glob); glob != "" {
				s.Prepare.Substitute.Globs = append(s.Prepare.Substitute.Globs, strings.ReplaceAll(glob, `\`, "/"))
			}
		}
		s.Prepare.Substitute.Variables = libraries.Variables
	}
	return &Work{Script: s}, nil
}

// limits reads what ends a script as failed, whatever its exit code.
func (s *Script) limits(in Input) (err error) {
	if s.Timeout, err = in.minutes(octopus.PropExecutionTimeout); err != nil {
		return err
	}
	s.FailOnErrorOutput, err = in.flag(octopus.PropFailOnErrorOutput, false)
	return err
}

// Dir is where a reference is unpacked below the script's directory: the primary
// package in the directory itself, others in one of their name.
func (p Package) Dir() string {
	if p.Into != "" || p.Name == "" {
		return p.Into
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>|`, r) || r < ' ' {
			return '_'
		}
		return r
	}, p.Name)
}

// scriptBody returns the text of an inline script, or the path of one in a package.
// Some step types keep an inline one for each language.
func (in Input) scriptBody(syntax string) (body, where string, err error) {
	source, err := in.property(octopus.PropScriptSource)
	if err != nil {
		return "", "", err
	}
	switch octopus.ScriptSource(source) {
	case octopus.ScriptInline, "":
		key := octopus.PropScriptBody
		if own := key + "[" + cmp.Or(syntax, string(octopus.SyntaxBash)) + "]"; in.Action.Properties.Get(key) == "" && in.Action.Properties.Get(own) != "" {
			key = own
		}
		body, err := in.property(key)
		return strings.ReplaceAll(body, "\r\n", "\n"), "", err
	case octopus.ScriptPackage:
		file, err := in.property(octopus.PropScriptFileName)
		if err != nil {
			return "", "", err
		}
		file = path.Clean(strings.ReplaceAll(strings.TrimSpace(file), `\`, "/"))
		if file == "." || path.IsAbs(file) || strings.HasPrefix(file, "../") || file == ".." {
			return "", "", failf("The script file is '%.100s'; give the path of a file within the package.", file)
		}
		for _, p := range in.Packages {
			if p.Name == "" && p.Extract {
				return "", file, nil
			}
		}
		return "", "", failf("The script %s comes from a package, but the step selects none.", file)
	default:
		return "", "", failf("This server cannot run scripts from the source %s; use Inline or Package.", source)
	}
}

// values are all variables with their evaluated values.
func (in Input) values() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for pair := range in.Vars.All() {
			if text, ok := in.Vars.Get(pair.Name); ok && !yield(pair.Name, text) {
				return
			}
		}
	}
}

func (s *Script) bash(in Input, body, where, arguments string) {
	s.addModules(in, octopus.SyntaxBash)
	s.Files = append(s.Files, agent.File{Name: libraries.Bash, Content: libraries.BashLibrary(in.values())})
	if where == "" {
		where = libraries.Dir + "script.sh"
		s.Files = append(s.Files, agent.File{Name: where, Content: []byte(body + "\n")})
	}
	// Sourced, so that the script sees the helpers and its exit is ours.
	s.Body = ". ./" + libraries.Bash + "\nset -- " + arguments + "\n. " + libraries.Quote("./"+where) + "\n"
}

func (s *Script) python(in Input, body, where, arguments string) {
	s.addModules(in, octopus.SyntaxPython)
	s.Files = append(s.Files, agent.File{Name: libraries.Python, Content: libraries.PythonLibrary()})
	if where == "" {
		where = libraries.Dir + "script.py"
		s.Files = append(s.Files, agent.File{Name: where, Content: []byte(body + "\n")})
	}
	s.Body = `command -v python3 >/dev/null 2>&1 || { echo "Python scripts need python3, which is not installed on this machine." >&2; exit 127; }
exec python3 -u ` + libraries.Python + " " + libraries.Quote(where) + " " + arguments + "\n"
}

func (s *Script) powerShell(in Input, body, where, arguments string) {
	s.addModules(in, octopus.SyntaxPowerShell)
	s.Files = append(s.Files, agent.File{Name: libraries.PowerShell, Content: libraries.PowerShellLibrary()})
	if where == "" {
		where = libraries.Dir + "script.ps1"
		s.Files = append(s.Files, agent.File{Name: where, Content: []byte(body + "\n")})
	}
	s.Files = append(s.Files, agent.File{Name: libraries.Arguments, Content: []byte(arguments)})
	s.Body = `command -v pwsh >/dev/null 2>&1 || { echo "PowerShell scripts need pwsh, which is not installed on this machine; install PowerShell 7 or write the step in Bash or Python." >&2; exit 127; }
exec pwsh -NoProfile -NonInteractive -File ` + libraries.PowerShell + " " + libraries.Quote(where) + "\n"
}
