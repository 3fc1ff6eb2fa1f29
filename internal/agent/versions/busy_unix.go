//go:build unix

package versions

import (
	"errors"

	"golang.org/x/sys/unix"
)

func isBusy(err error) bool { return errors.Is(err, unix.ETXTBSY) }
