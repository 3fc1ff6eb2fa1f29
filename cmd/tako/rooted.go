package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/takodeploy/tako/internal/setup"
)

// refuseRoot refuses to work as root in a directory that belongs to somebody else. What
// root makes there the server could not change any more, and what root runs there that
// user could have put in its place.
func refuseRoot(root string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	owner := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	layout, err := setup.Usual("")
	if err != nil {
		return err
	}
	how := fmt.Sprintf("do it as that user: sudo -u %q -- ...", owner)
	if layout.Root == root {
		how = fmt.Sprintf("use the command %s, which becomes that user by itself", layout.Command())
	}
	return usageError{fmt.Errorf("%s belongs to the user %s, and you are root; %s", root, owner, how)}
}
