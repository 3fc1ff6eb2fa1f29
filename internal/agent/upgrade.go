package agent

import (
	"context"
	"runtime"
	"time"

	"github.com/takodeploy/tako/internal/agent/versions"
)

// SelfTestArgs are the arguments, after those that name the agent's commands, with
// which a program of ours looks whether it could be the agent of an instance. It answers
// its version after ReplyMark.
func SelfTestArgs(instance string) []string {
	return []string{"agent", "self-test", "--instance", instance}
}

// UpgradeRequest says by which program an agent is to go on.
type UpgradeRequest struct {
	// SHA256 is that of the program's file, which is in the package cache (PutPackage).
	SHA256 string
	// Version is what the program must say of itself.
	Version string
	// Attempt is by what the caller knows this upgrade from others.
	Attempt string
	// Within is how long the new program has for ConfirmProgram to reach it.
	Within time.Duration
}

// Upgrades is what agents do that a server can upgrade (Hello.Program.Upgrades).
type Upgrades interface {
	// UpgradeProgram checks the program, has it test itself, stores it beside the others,
	// and answers. Then the agent goes on by that program; scripts are not touched. Unless
	// ConfirmProgram comes in time, the program from before goes on, and says why in
	// Hello.Program.Failed. Refused, nothing has changed, but that a program which does
	// not run there is Failed too. It may be repeated.
	UpgradeProgram(ctx context.Context, req UpgradeRequest) error
	// ConfirmProgram has the program that answers stay. It may be repeated.
	ConfirmProgram(ctx context.Context, sha256 string) error
}

// ProgramState is what an agent says about its program.
type ProgramState struct {
	// Platform is that of the program, "linux/arm64".
	Platform string
	// Upgrades says that the agent has the calls of Upgrades.
	Upgrades bool
	// SHA256 is that of a program that a server has brought, "" for the installed one.
	SHA256 string
	// Trial says that it waits for ConfirmProgram.
	Trial bool
	// Failed is the last upgrade, when it has failed, or has stayed and then ended again
	// and again.
	Failed *FailedUpgrade
}

// FailedUpgrade is an upgrade after which an agent went on by the program from before.
type FailedUpgrade struct {
	Attempt, Version string // no Attempt where it had been confirmed
	Reason           string // a sentence
}

// programState is what is said of the program of a store.
func programState(s *versions.Store) (ProgramState, error) {
	r := ProgramState{Platform: runtime.GOOS + "/" + runtime.GOARCH, Upgrades: s != nil}
	if s == nil {
		return r, nil
	}
	st, err := s.Load()
	if err != nil {
		return r, err
	}
	r.SHA256 = s.Running().SHA256
	r.Trial = st.Trial != nil && st.Trial.SHA256 == r.SHA256
	if f := st.Failed; f != nil {
		r.Failed = &FailedUpgrade{f.Attempt, f.Version, f.Reason}
	}
	return r, nil
}
