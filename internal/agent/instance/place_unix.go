//go:build unix

package instance

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"

	"github.com/takodeploy/tako/internal/durable"
)

// defaultDir is the machine's for root, else the user's.
func defaultDir() (string, error) {
	if os.Geteuid() == 0 {
		if runtime.GOOS == "darwin" {
			return "/Library/Application Support/Tako Agent", nil
		}
		return "/etc/tako-agent", nil
	}
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "tako-agent"), err
}

// defaultHomes has the instances' homes.
func defaultHomes() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/tako-agent", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tako-agent"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "tako-agent"), err
}

func lockFile(f *os.File) error { return durable.Flock(f, durable.Exclusive) }

// syncDir makes a new name in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
