package steps

import (
	_ "embed"
	"strings"
)

//go:embed helpers.sh
var bashHelpersText string

//go:embed run.py
var pythonRunnerText string

//go:embed run.ps1
var pwshRunnerText string

// helpersFor is the bash library with the unit's variables: names are matched
// without case, as everywhere.
func helpersFor(in Input) string {
	var b strings.Builder
	b.WriteString("__tako_variable() {\n  case \"$1\" in\n")
	for pair := range in.Vars.All() {
		text, ok := in.Vars.Get(pair.Name)
		if !ok || strings.ContainsRune(pair.Name+text, 0) {
			continue // bash has no NUL
		}
		b.WriteString("    " + quote(pair.Name) + ") printf '%s' " + quote(text) + " ;;\n")
	}
	b.WriteString("    *) return 1 ;;\n  esac\n}\n")
	b.WriteString(bashHelpersText)
	return b.String()
}
