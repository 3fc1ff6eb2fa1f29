package agent

import (
	"encoding/json"
	"strings"
	"time"
)

// internalArg as the first argument makes the program one of our own processes;
// the second names which, the rest is its business.
const internalArg = "tako-internal"

// ReplyMark begins the one line of standard output that is for the program on the
// other side: the shells of some accounts write lines of their own before it.
const ReplyMark = "@tako@ "

// ProgramName is the name that an uploaded program has in the directory of its version.
const ProgramName = "tako-agent"

// Launched is the answer of LaunchArgs.
type Launched struct {
	Home    string // absolute
	Socket  string // where it answers, absolute
	PID     int
	Version string
}

// LaunchArgs are the arguments with which a program of ours starts the agent of a home
// on its machine unless it runs already, removes programs beside its own that nobody
// uses, and answers a Launched. The agent ends by itself when it was idle for so long.
// With replace, an agent that runs from another uploaded program makes room for this one;
// its scripts go on. The home is for the caller to add, as the last argument.
func LaunchArgs(idle time.Duration, replace bool) []string {
	mode := "keep"
	if replace {
		mode = "replace"
	}
	return []string{internalArg, "launch", idle.String(), mode}
}

// ConnectArgs are the arguments with which a program of ours connects its standard
// input and output to the agent of a home, which the caller adds as the last argument.
// What comes after a line of ReplyMark is the agent's.
func ConnectArgs() []string { return []string{internalArg, "connect"} }

// VerifyArgs are the arguments with which a program of ours answers whether its file
// has that SHA-256.
func VerifyArgs(sha256 string) []string { return []string{internalArg, "verify", sha256} }

// PruneArgs are the arguments with which a program of ours removes programs beside its
// own that nobody uses.
func PruneArgs() []string { return []string{internalArg, "prune"} }

// ExecArgs are the arguments with which a program of ours runs a script as the
// ExecRequest in a file says; those of the script follow.
func ExecArgs(request string) []string { return []string{internalArg, "exec", request} }

// FindReply returns what follows ReplyMark in a program's output.
func FindReply(output string) (string, bool) {
	for line := range strings.Lines(output) {
		if reply, ok := strings.CutPrefix(line, ReplyMark); ok {
			return strings.TrimRight(reply, "\r\n"), true
		}
	}
	return "", false
}

// ParseLaunched reads the answer of LaunchArgs from a program's output.
func ParseLaunched(output string) (Launched, bool) {
	var l Launched
	reply, ok := FindReply(output)
	return l, ok && json.Unmarshal([]byte(reply), &l) == nil && l.Home != "" && l.Socket != ""
}
