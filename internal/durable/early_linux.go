package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// StartWriting has the disk begin to write what was written to a file. It makes nothing
// durable: that is for Sync, which is quicker then.
func StartWriting(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	// A file system may not know it, and an error of the disk is told to Sync as well.
	_ = conn.Control(func(fd uintptr) { _ = unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
}
