package test

import (
	"fmt"
	"os"
	"testing"
)

// built is a directory for programs that are built once for all tests.
var built string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tako-built-")
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built = dir
	code := m.Run()
	_ = os.RemoveAll(dir) // it is the system's temporary directory
	os.Exit(code)
}
