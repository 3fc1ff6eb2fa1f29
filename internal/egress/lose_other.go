//go:build !linux

package egress

import (
	"syscall"
	"time"
)

// LoseAfter leaves connections to keep-alive where there is no such option.
func LoseAfter(time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error { return nil }
}
