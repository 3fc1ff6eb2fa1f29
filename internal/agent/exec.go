package agent

import "time"

// ExecRequest is what a program of ours does as the script of an agent of another make:
// what that agent has no words for. It runs in the script's directory.
//
// The program lies in <dir>/<SHA-256>/tako-agent, and the packages of Prepare in
// <dir>/packages/<SHA-256>: ReadyName names the file.
type ExecRequest struct {
	Script  string            // the file with the script, relative to its directory
	Env     map[string]string // added to its environment
	Timeout time.Duration     // preparation included; 0 is for ever
	Sent    []string          // the names of the script's own files, which packages do not overwrite
	Prepare Prepare
}

// PackagesName is the directory of packages beside those of the program's versions.
const PackagesName = "packages"

// ReadyName is the file beside an uploaded package or program that says that it is
// whole. It holds the file's name: an upload that broke off leaves one of another name
// behind.
const ReadyName = "ready"

// ExecExit is the exit code by which a process tells one of the agent's own.
func ExecExit(code int) int { return code & 0xff }
