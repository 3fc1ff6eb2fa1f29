package main

import (
	"os"
	"strings"
	"time"
)

// A version that does not start, or never gets ready: a test says so in a file that only
// this version looks at.
func init() {
	if len(os.Args) < 2 || os.Args[1] != "server" {
		return
	}
	fault, _ := os.ReadFile(os.Getenv("TAKO_TEST_FAULT"))
	switch strings.TrimSpace(string(fault)) {
	case "exit":
		os.Exit(1)
	case "hang":
		time.Sleep(time.Hour)
	}
}
