package rest

import (
	"net/http"
	"os"
	"strings"
	"sync/atomic"
)

var misanswered atomic.Int64

// misanswer is a version that starts well, and then fails each fifth request of a kind, or
// dies of it, but only once it serves; or one that answers differently, which it shows when
// it is compared. A test says so in a file that only this version looks at.
func misanswer(r *http.Request) {
	does, path := "", r.URL.Path
	if len(os.Args) > 1 {
		does = os.Args[1]
	}
	if does == "server" && (path == "/api/spaces/all" || path == "/readyz") || does == "verify" && path == "/api/lifecycles" {
		misbehave(does, path)
	}
}

func misbehave(does, path string) {
	raw, _ := os.ReadFile(os.Getenv("TAKO_TEST_FAULT"))
	fault := strings.TrimSpace(string(raw))
	if (does == "verify") != (fault == "differs") {
		return
	}
	switch fault {
	case "differs":
		panic("as the test wants it")
	case "unwell":
		if path == "/readyz" {
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
