// Package tentacle has the contracts between a server and an agent, with the names
// that they have on the wire: what an agent can do, its two script services, and
// its file transfer. Client is the calling side; the functions that make a
// halibut.Service are the answering one.
package tentacle

import (
	"time"

	"github.com/takodeploy/tako/internal/halibut/wire"
)

// Names of the services.
const (
	CapabilitiesService = "ICapabilitiesServiceV2"
	ScriptServiceV1     = "IScriptService"
	ScriptServiceV2     = "IScriptServiceV2"
	FileTransferService = "IFileTransferService"
)

const (
	namespace = "Octopus.Tentacle.Contracts."
	assembly  = ", Octopus.Tentacle.Contracts"
)

// renamed are the names of a class that had another one before: agents of every
// age read the old one, and current ones still write it.
func renamed(class string) []string {
	return []string{"Octopus.Shared.Contracts." + class + ", Octopus.Shared", namespace + class + assembly}
}

func named(class string) []string { return []string{namespace + class + assembly} }

// Capabilities tells what an agent can do: the names of services.
type Capabilities struct {
	SupportedCapabilities []string
}

// TypeNames is wire.Typed.
func (Capabilities) TypeNames() []string { return named("Capabilities.CapabilitiesResponseV2") }

// State is how far a script has come.
type State int32

// The states.
const (
	Pending  State = 0
	Running  State = 1
	Complete State = 2
)

// Source says where a line of output came from.
type Source int32

// The sources.
const (
	StdOut Source = 0
	StdErr Source = 1
	Debug  Source = 2
)

// Isolation says which scripts may run at the same time.
type Isolation int32

// The isolation levels.
const (
	NoIsolation   Isolation = 0
	FullIsolation Isolation = 1
)

// ScriptType is the language of a script. It is a name where it is a key.
type ScriptType string

// The languages.
const (
	PowerShell ScriptType = "PowerShell"
	Bash       ScriptType = "Bash"
)

// Exit codes that are no script's own.
const (
	ExitFatal         int32 = -41
	ExitNoShell       int32 = -42
	ExitCanceled      int32 = -43
	ExitMutexTimeout  int32 = -44
	ExitUnknownTicket int32 = -45
	ExitLost          int32 = -46
	ExitNoPowerShell  int32 = -47
)

// Ticket names one script. It is compared without case.
type Ticket struct {
	TaskID string `wire:"TaskId"`
}

// TypeNames is wire.Typed.
func (Ticket) TypeNames() []string { return renamed("ScriptTicket") }

// File is written into the script's workspace. The old form, which encrypts the
// file on the agent's disk, is asked for by EncryptionPassword.
type File struct {
	Name               string
	Contents           *wire.DataStream
	EncryptionPassword string `wire:",null"`
}

// TypeNames is wire.Typed.
func (File) TypeNames() []string { return renamed("ScriptFile") }

// StartScriptV2 starts a script, once for its ticket.
type StartScriptV2 struct {
	ScriptTicket Ticket
	ScriptBody   string // what runs on Windows, and elsewhere unless Scripts has Bash
	TaskID       string `wire:"TaskId"`
	// Wait is how long the answer may wait for the script's end; 0 is not at all.
	Wait         time.Duration `wire:"DurationToWaitForScriptToFinish,null"`
	Isolation    Isolation
	MutexTimeout time.Duration `wire:"ScriptIsolationMutexTimeout"` // 0 waits for ever
	MutexName    string        `wire:"IsolationMutexName,null"`     // "" is that of the agent
	Scripts      map[ScriptType]string
	Files        []File
	Arguments    []string
}

// TypeNames is wire.Typed.
func (StartScriptV2) TypeNames() []string { return named("ScriptServiceV2.StartScriptCommandV2") }

// StatusRequestV2 asks for the output after a number.
type StatusRequestV2 struct {
	Ticket          Ticket
	LastLogSequence int64
}

// TypeNames is wire.Typed.
func (StatusRequestV2) TypeNames() []string { return named("ScriptServiceV2.ScriptStatusRequestV2") }

// CancelV2 ends a script.
type CancelV2 struct {
	Ticket          Ticket
	LastLogSequence int64
}

// TypeNames is wire.Typed.
func (CancelV2) TypeNames() []string { return named("ScriptServiceV2.CancelScriptCommandV2") }

// CompleteV2 forgets a script.
type CompleteV2 struct {
	Ticket Ticket
}

// TypeNames is wire.Typed.
func (CompleteV2) TypeNames() []string { return named("ScriptServiceV2.CompleteScriptCommandV2") }

// Output is one line of a script's output.
type Output struct {
	Source   Source
	Occurred time.Time
	Text     string
}

// StatusV2 is the answer to everything about a script.
type StatusV2 struct {
	Ticket          Ticket
	Logs            []Output
	NextLogSequence int64
	State           State
	ExitCode        int32
}

// TypeNames is wire.Typed.
func (StatusV2) TypeNames() []string { return named("ScriptServiceV2.ScriptStatusResponseV2") }

// StartScriptV1 starts a script each time that it comes.
type StartScriptV1 struct {
	ScriptBody   string
	Isolation    Isolation
	Scripts      map[ScriptType]string
	Files        []File
	Arguments    []string
	TaskID       string        `wire:"TaskId,null"`
	MutexTimeout time.Duration `wire:"ScriptIsolationMutexTimeout"`
	MutexName    string        `wire:"IsolationMutexName,null"`
}

// TypeNames is wire.Typed.
func (StartScriptV1) TypeNames() []string { return renamed("StartScriptCommand") }

// StatusRequestV1 asks for the output after a number.
type StatusRequestV1 struct {
	Ticket          Ticket
	LastLogSequence int64
}

// TypeNames is wire.Typed.
func (StatusRequestV1) TypeNames() []string { return renamed("ScriptStatusRequest") }

// CancelV1 ends a script.
type CancelV1 struct {
	Ticket          Ticket
	LastLogSequence int64
}

// TypeNames is wire.Typed.
func (CancelV1) TypeNames() []string { return renamed("CancelScriptCommand") }

// CompleteV1 forgets a script and returns the rest of its output.
type CompleteV1 struct {
	Ticket          Ticket
	LastLogSequence int64
}

// TypeNames is wire.Typed.
func (CompleteV1) TypeNames() []string { return renamed("CompleteScriptCommand") }

// StatusV1 is the answer to everything about a script.
type StatusV1 struct {
	Ticket          Ticket
	Logs            []Output
	NextLogSequence int64
	State           State
	ExitCode        int32
}

// TypeNames is wire.Typed.
func (StatusV1) TypeNames() []string { return renamed("ScriptStatusResponse") }

// UploadResult is what became of an upload.
type UploadResult struct {
	FullPath string
	Hash     string // SHA-1, lower-case hex
	Length   int64
}

// TypeNames is wire.Typed.
func (UploadResult) TypeNames() []string { return renamed("UploadResult") }
