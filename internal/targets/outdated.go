package targets

import (
	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/version"
)

// Outdated reports whether an agent of ours of a version is older than its server. One
// that is newer serves another server too. Versions that cannot be compared count as
// outdated unless they are the same.
func Outdated(agentVersion, serverVersion string) bool {
	if agentVersion == serverVersion {
		return false
	}
	a, err := version.Parse(version.Octopus, agentVersion)
	if err != nil {
		return true
	}
	s, err := version.Parse(version.Octopus, serverVersion)
	return err != nil || version.Compare(a, s) < 0
}

// Upgradable reports whether an agent that has said hello can be brought to the
// server's version, and did not fail at just that.
func Upgradable(contract deploy.Contract, h agent.Hello, serverVersion string) bool {
	return contract == deploy.ContractTako && h.Program.Upgrades && Outdated(h.Version, serverVersion) &&
		(h.Program.Failed == nil || h.Program.Failed.Version != serverVersion)
}
