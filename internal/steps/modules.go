package steps

import (
	"cmp"
	"slices"
	"strings"
	"unicode"

	"github.com/takodeploy/tako/internal/agent"
	libraries "github.com/takodeploy/tako/internal/script"
	"github.com/takodeploy/tako/octopus"
)

// module is a script module of a library set that the project includes.
type module struct {
	name, body string
	syntax     octopus.ScriptSyntax
}

// modules are the script modules among the variables, in the order of their names.
func (in Input) modules() []module {
	var out []module
	for pair := range in.Vars.All() {
		name, ok := indexOf(pair.Name, octopus.ScriptModulePrefix)
		if !ok || slices.ContainsFunc(out, func(m module) bool { return strings.EqualFold(m.name, name) }) {
			continue
		}
		body, _ := in.Vars.Get(pair.Name)
		syntax, _ := in.Vars.Get(octopus.ScriptModuleLanguagePrefix + name + "]")
		out = append(out, module{name: name, body: strings.ReplaceAll(body, "\r\n", "\n"), syntax: octopus.ScriptSyntax(cmp.Or(strings.TrimSpace(syntax), string(octopus.SyntaxPowerShell)))})
	}
	slices.SortFunc(out, func(a, b module) int { return strings.Compare(a.name, b.name) })
	return out
}

// indexOf is what stands in the brackets of a variable's name behind a prefix.
func indexOf(name, prefix string) (string, bool) {
	if len(name) <= len(prefix)+1 || !strings.EqualFold(name[:len(prefix)], prefix) || name[len(name)-1] != ']' {
		return "", false
	}
	return name[len(prefix) : len(name)-1], true
}

// addModules gives a script the modules of its own language: Bash sources them and
// Python imports them by name, PowerShell has them loaded.
func (s *Script) addModules(in Input, syntax octopus.ScriptSyntax) {
	dir, extension := "", ".sh"
	switch syntax {
	case octopus.SyntaxPython:
		extension = ".py"
	case octopus.SyntaxPowerShell:
		dir, extension = libraries.Modules, ".psm1"
	case octopus.SyntaxBash, octopus.SyntaxCSharp, octopus.SyntaxFSharp:
	}
	taken := map[string]bool{}
	for _, m := range in.modules() {
		if !strings.EqualFold(string(m.syntax), string(syntax)) {
			continue
		}
		for _, name := range m.fileNames() {
			file := dir + name + extension
			if taken[strings.ToLower(file)] {
				continue
			}
			taken[strings.ToLower(file)] = true
			s.Files = append(s.Files, agent.File{Name: file, Content: []byte(m.body + "\n")})
		}
	}
}

// fileNames are the names under which scripts look for a module: its letters and
// digits, with the underscores of its name and without.
func (m module) fileNames() []string {
	keep := func(also rune) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsLetter(r) || unicode.IsDigit(r) || r == also {
				return r
			}
			return -1
		}, m.name)
	}
	names := slices.Compact([]string{keep(0), keep('_')})
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}
