package agent

import (
	"errors"
	"os"
	"runtime"
)

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

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // NTFS journals its directories; a handle to one cannot be flushed
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
