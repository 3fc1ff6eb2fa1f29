package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// Format is the version of the workspace's files. Agents of different versions
// meet the same workspaces across upgrade and rollback, so it never changes the
// meaning of what is there.
const Format = 1

// Exit codes that are no script's own. Those down to -47 have the meaning that
// Octopus Tentacle gives them; the last two are ours.
const (
	ExitFatal         = -41 // the agent could not even try: known not to have started
	ExitNoShell       = -42 // the interpreter could not be executed: known not to have started
	ExitCanceled      = -43 // cancelled, before or after it started
	ExitMutexTimeout  = -44 // the isolation mutex was not free in time: known not to have started
	ExitUnknownTicket = -45 // the agent has never heard of the ticket (an answer, not a fate)
	ExitLost          = -46 // started, but its result cannot be known: ask a person, never retry
	ExitTimeout       = -48 // ran longer than StartRequest.Timeout and was killed
	ExitPrepare       = -49 // preparing the workspace was impossible: known not to have started
)

// ProgramEnv is set, in the environment of every script, to a path by which the script
// can call the program of its own runner, whatever an upgrade has put in its place.
const ProgramEnv = "TAKO_AGENT_EXE"

// Limits of what an agent accepts and answers.
const (
	MaxTicket  = 128      // bytes of a ticket
	MaxAnswer  = 4 << 20  // bytes of log text in one Status
	MaxRequest = 64 << 20 // bytes of a StartRequest, files included
	MaxEntry   = 64 << 10 // bytes of text in one Entry; longer lines become several entries
	MaxFiles   = 10_000   // files sent along with a StartRequest
	MaxWait    = time.Minute
)

// Ticket names one script for ever. The server makes it, commits it to its
// journal, and only then sends it. Letters, digits, '-' and '_', at most
// MaxTicket of them; compared without case.
type Ticket string

// Check reports why the ticket cannot be used, or nil.
func (t Ticket) Check() error {
	if t == "" || len(t) > MaxTicket || strings.Trim(strings.ToLower(string(t)), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return fault.InvalidField("Ticket", "The ticket %q must be 1 to %d letters, digits, '-' or '_'.", string(t), MaxTicket)
	}
	for _, c := range []byte(t) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return fault.InvalidField("Ticket", "The ticket %q must be letters, digits, '-' or '_'.", string(t))
		}
	}
	return nil
}

// State is how far a script has come, as its caller sees it.
type State int

// The states, with their numbers on the Tentacle protocol's wire.
const (
	Pending  State = 0 // known, not started: waits for its mutex, or is being prepared
	Running  State = 1 // started, or over with log entries still to fetch
	Complete State = 2 // over; ExitCode says how
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Pending:
		return "Pending"
	case Running:
		return "Running"
	case Complete:
		return "Complete"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Source says where a line of the log came from.
type Source uint8

// The sources, with their numbers on the Tentacle protocol's wire.
const (
	Stdout Source = 0
	Stderr Source = 1
	Debug  Source = 2 // the agent's own remarks
)

// Entry is one line of a script's log.
type Entry struct {
	Seq    int64 // from 1, without gaps, the same at every reading
	Source Source
	Time   time.Time // when the runner read it, UTC
	Text   string    // without line end; valid UTF-8; at most MaxEntry bytes
}

// Isolation says which other scripts may run beside this one.
type Isolation int

// The isolation levels, with their numbers on the Tentacle protocol's wire.
const (
	NoIsolation   Isolation = 0 // runs beside others of its mutex that have NoIsolation too
	FullIsolation Isolation = 1 // runs alone in its mutex
)

// DefaultMutex is the mutex of requests that name none.
const DefaultMutex = "RunningScript"

// File is a file of the workspace. Name is relative, with '/' between
// directories; it may not leave the workspace.
type File struct {
	Name    string
	Content []byte
}

// StartRequest says what to run. The same ticket must always come with the same
// request: the first one counts, a different one is answered with the first's
// status and a warning in the agent's log.
type StartRequest struct {
	Ticket    Ticket
	Body      string            // bash; saved as Bootstrap.sh with LF line ends
	Files     []File            // written beside it
	Arguments []string          // of the script
	Env       map[string]string // added to the script's environment

	Isolation    Isolation
	MutexName    string        // "" is DefaultMutex
	MutexTimeout time.Duration // longest wait for the mutex, then ExitMutexTimeout; 0 waits for ever

	// Timeout is how long the script may run, preparation included. After that
	// its process tree is killed and it ends with ExitTimeout. 0 is for ever.
	Timeout time.Duration

	Prepare Prepare // done by the runner before the script starts

	// Wait lets the answer come when the script is over, or after this time
	// (at most MaxWait). It is no part of what is run.
	Wait time.Duration
}

// Prepare is what the runner does in the workspace before the script starts. It
// may be done several times (a runner killed in it is followed by another), each
// time from the beginning.
type Prepare struct {
	Packages   []Package
	Substitute Substitution
}

// Package is one package to copy or unpack into the workspace. It must be in the
// agent's cache (PutPackage) when StartScript comes, and stays until it is used.
type Package struct {
	Name     string // for messages only
	SHA256   string // of its bytes, lower-case hex
	FileName string // "Acme.Web.1.2.0.zip": the copy's name; its extension tells the format
	Extract  bool   // unpack it into Dir; else copy it there as FileName
	Dir      string // relative to the workspace, "" is its root
	// Link has the copy be another name of the cache's own file, where that can be:
	// for what only reads it. Agents that do not know it copy.
	Link bool `json:",omitempty"`
}

// Substitution replaces variables in files of the workspace.
type Substitution struct {
	Globs     []string // relative, '/' between directories, ** for any depth
	Variables string   // a JSON file of the workspace: an object of strings; "" does nothing
}

// StatusRequest asks about a ticket.
type StatusRequest struct {
	Ticket Ticket
	After  int64 // entries after this number are wanted; 0 for all
	// Wait holds the answer back until the script is over or has new entries,
	// or for this time (at most MaxWait).
	Wait time.Duration
}

// Status is the answer to everything about a ticket.
type Status struct {
	Ticket   Ticket
	State    State
	ExitCode int     // meaningful when Complete
	Entries  []Entry // those after StatusRequest.After, at most MaxAnswer bytes
	Next     int64   // pass as After next time; never below the After that was sent

	// Waiting says, for a person, why a Pending script does not start yet.
	Waiting string
	// Survivors names processes of a cancelled script that could not be killed.
	// While they live, the script's mutex stays taken.
	Survivors []string
}

// Scripts runs scripts. Every call may be repeated with the same ticket at any
// time, also after an agent's death or upgrade:
//
//   - StartScript commits the request and starts it, once. For a known ticket it
//     answers that one's status; a script that has ended is not started again.
//   - GetStatus gives the state and the log after a number. An unknown ticket is
//     Complete with ExitUnknownTicket, which does not keep a later StartScript
//     from running it. A pending script that its agent lost sight of (restart) is
//     queued again.
//   - CancelScript ends the process tree: repeat it (or GetStatus) until
//     Complete, which takes at most 8 s. An unknown ticket is remembered as
//     cancelled: a StartScript that comes later will not run it.
//   - CompleteScript forgets log and workspace, and keeps the exit code for 30
//     days. Call it when result, log and artifacts are stored.
//
// Errors: a fault.Error is the agent's refusal: nothing was done. It is final for
// this request unless its kind is fault.Unavailable (stopping, disk full).
// ErrNotSent: nothing arrived. ErrUnanswered: it may have been acted upon; the
// one thing to do is to send the same request with the same ticket again.
type Scripts interface {
	StartScript(ctx context.Context, req StartRequest) (Status, error)
	GetStatus(ctx context.Context, req StatusRequest) (Status, error)
	CancelScript(ctx context.Context, req StatusRequest) (Status, error)
	CompleteScript(ctx context.Context, ticket Ticket) error
}

// Files moves single files. Paths are relative to the agent's home ('\' is taken
// as '/'), or absolute and inside it; nothing outside can be reached. A file of a
// script's workspace is at WorkspacePath.
type Files interface {
	// UploadFile writes a file, whole or not at all, making its directories.
	UploadFile(ctx context.Context, path string, r io.Reader) (Uploaded, error)
	// DownloadFile opens a file; the caller closes it. A missing one is fault.NotFound.
	DownloadFile(ctx context.Context, path string) (io.ReadCloser, error)
}

// Uploaded is what became of an upload.
type Uploaded struct {
	FullPath string
	SHA1     string // lower-case hex; what the Tentacle protocol answers
	SHA256   string // lower-case hex
	Length   int64
}

// Packages is the agent's package cache, addressed by content. It forgets what
// was not used for longest when it is over its limit.
type Packages interface {
	HasPackage(ctx context.Context, sha256 string) (bool, error)
	// PutPackage stores size bytes of r, which must have that hash. Storing what
	// is there already reads nothing.
	PutPackage(ctx context.Context, sha256 string, size int64, r io.Reader) error
}

// Deltas is what agents of this version can do besides: an agent of an earlier one
// answers with an error, and gets the whole package.
type Deltas interface {
	// ApplyDelta stores a package of size bytes, which must have the hash target, made
	// of the cached package base and of an Octodiff delta of deltaSize bytes. A base
	// that is not there is fault.NotFound; a delta that does not make the target of it
	// fault.Invalid. Nothing is stored then.
	ApplyDelta(ctx context.Context, base, target string, size int64, delta io.Reader, deltaSize int64) error
}

// Hello says who answers.
type Hello struct {
	Version string // of the program
	PID     int
	Format  int    // Format of its workspaces
	Home    string // absolute
	// Program is unknown, its zero value, of agents before there was an upgrade.
	Program ProgramState
}

// API is everything an agent does. Service is it, Client reaches it over a socket.
type API interface {
	Hello(ctx context.Context) (Hello, error)
	Scripts
	Files
	Packages
}

// How a call can end without an answer. Errors of a Client wrap one of them,
// unless they are the agent's refusal (a fault.Error).
var (
	ErrNotSent    = errors.New("the agent was not reached")
	ErrUnanswered = errors.New("the agent did not answer")
)

// WorkspacePath is the path, for DownloadFile and UploadFile, of a file that a
// script sees under name in its current directory.
func WorkspacePath(t Ticket, name string) string {
	return "Work/" + strings.ToLower(string(t)) + "/files/" + name
}
