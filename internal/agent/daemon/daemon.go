// Package daemon has the machine's service manager keep a program running: systemd on
// Linux, the service control manager on Windows.
package daemon

import (
	"errors"
)

// Service is a program that is to run for as long as the machine does.
type Service struct {
	// Name is the service's, without an ending: letters, digits, '-', '_' and '.'.
	Name        string
	Description string
	Exe         string // absolute
	Args        []string
	// Env are further variables, "NAME=value".
	Env []string
	// User is the account that it runs as; "" is that of the system.
	User string
}

// State is what a service does.
type State string

// The states.
const (
	Running      State = "running"
	Stopped      State = "stopped"
	Failed       State = "failed"
	NotInstalled State = "not installed"
)

// ErrNoManager says that there is no service manager here that is known.
var ErrNoManager = errors.New("this machine has no service manager that is supported (systemd, Windows services)")
