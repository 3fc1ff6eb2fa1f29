//go:build !linux

package main

import (
	"os"
	"syscall"
)

// terminate ends a process.
const terminate = syscall.SIGTERM

// apart changes nothing: scripts run on Linux alone, and so does the demo.
func apart() *syscall.SysProcAttr { return nil }

// marked finds nobody.
func marked(string) []*os.Process { return nil }
