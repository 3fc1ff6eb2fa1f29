package rest

import (
	"net/http"
	"os"
	"strings"
	"sync/atomic"
)

var misanswered atomic.Int64

// misanswer is a version that starts well, and then fails each fifth request of a kind, or
// dies of it: a test says so in a file that only this version looks at.
func misanswer(r *http.Request) {
	if r.URL.Path != "/api/spaces/all" && r.URL.Path != "/readyz" {
		return
	}
	fault, _ := os.ReadFile(os.Getenv("TAKO_TEST_FAULT"))
	switch strings.TrimSpace(string(fault)) {
	case "unwell":
		if r.URL.Path == "/readyz" {
			panic("as the test wants it")
		}
	case "errors":
		if misanswered.Add(1)%5 == 0 {
			panic("as the test wants it")
		}
	case "die":
		os.Exit(3)
	}
}
