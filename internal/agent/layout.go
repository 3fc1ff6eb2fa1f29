package agent

// Names of a workspace's files; doc.go says who writes them.
const (
	requestName    = "request"
	filesName      = "files"
	packagesName   = "packages"
	lockName       = "lock"
	aliveName      = "alive"
	wakeName       = "wake"
	startedName    = "started"
	execFailedName = "exec-failed"
	cancelName     = "cancel"
	completeName   = "complete"
	exitName       = "exit"
	exitTempName   = "exit.tmp"
	runnerErrName  = "runner.err"
	bodyName       = "Bootstrap.sh"
)
