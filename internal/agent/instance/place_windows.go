package instance

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// defaultDir is the machine's: services have no user of their own.
func defaultDir() (string, error) {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	return filepath.Join(dir, "Tako Agent"), err
}

// defaultHomes has the instances' homes.
func defaultHomes() (string, error) {
	dir, err := defaultDir()
	return filepath.Join(dir, "homes"), err
}

func lockFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &windows.Overlapped{})
}

// syncDir does nothing: NTFS journals its directories.
func syncDir(string) error { return nil }
