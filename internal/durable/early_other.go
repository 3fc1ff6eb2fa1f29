//go:build !linux

package durable

import "os"

// StartWriting has the disk begin to write what was written to a file, where the system can
// be told so.
func StartWriting(*os.File) {}
