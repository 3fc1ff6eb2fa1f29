// Package script is what deployment scripts find around them, wherever they run: the
// functions by which Bash, Python and PowerShell read variables and talk to the
// server. The server sends these files along with a script step; the program that
// deploys packages writes them beside the scripts of a package.
//
// The three libraries know each other's files by their names within one directory,
// Dir, of the script's workspace.
package script

import (
	_ "embed"
	"encoding/json"
	"iter"
	"strings"
)

// Names within a script's workspace. What is ours is out of the user's way.
const (
	Dir        = ".tako/"
	Variables  = Dir + "variables.json" // what VariablesJSON writes; Python and PowerShell read it
	Modules    = Dir + "modules/"       // the script modules of PowerShell
	Bash       = Dir + "helpers.sh"     // what BashLibrary writes; scripts source it in the workspace
	Python     = Dir + "run.py"         // Python's library, which runs the script it is given
	PowerShell = Dir + "run.ps1"        // PowerShell's library, which runs the script it is given
	Arguments  = Dir + "arguments.txt"  // the arguments of a PowerShell script
)

//go:embed helpers.sh
var bashText string

//go:embed run.py
var pythonText string

//go:embed run.ps1
var powerShellText string

// Values are variables by name with their evaluated values.
type Values = iter.Seq2[string, string]

// BashLibrary is the content of Bash: the functions, and the variables, whose names
// are matched without case, as everywhere. Bash has no NUL: variables that hold one
// are left out.
func BashLibrary(values Values) []byte {
	var b strings.Builder
	b.WriteString("__tako_variable() {\n  case \"$1\" in\n")
	for name, text := range values {
		if strings.ContainsRune(name+text, 0) {
			continue
		}
		b.WriteString("    " + Quote(name) + ") printf '%s' " + Quote(text) + " ;;\n")
	}
	b.WriteString("    *) return 1 ;;\n  esac\n}\n")
	b.WriteString(bashText)
	return []byte(b.String())
}

// PythonLibrary is the content of Python.
func PythonLibrary() []byte { return []byte(pythonText) }

// PowerShellLibrary is the content of PowerShell.
func PowerShellLibrary() []byte { return []byte(powerShellText) }

// VariablesJSON is the content of Variables: one JSON object of strings.
func VariablesJSON(values Values) ([]byte, error) {
	all := map[string]string{}
	for name, text := range values {
		all[name] = text
	}
	return json.Marshal(all)
}

// Quote makes one word of text for a shell.
func Quote(text string) string { return `'` + strings.ReplaceAll(text, `'`, `'\''`) + `'` }
