//go:build !linux

package install

import (
	"errors"
	"os"
)

// errPlatform says that packages are deployed on Linux alone, so far.
var errPlatform = errors.New("deploying packages is not supported on this platform yet")

func freeSpace(string) (bytes uint64, known bool) { return 0, false }

func syncDisk(string) error { return errPlatform }

func syncDir(string) error { return errPlatform }

func lock(*os.File, func()) error { return errPlatform }
