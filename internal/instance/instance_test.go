package instance_test

import (
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/instance"
)

// TestHosts reads the hosts that a test instance in quarantine may reach out of its
// database's URL, as PostgreSQL does.
func TestHosts(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"sqlite:/x/tako.db":                   "",
		"postgres://u@a/d":                    "a",
		"postgres://u@a,b/d":                  "a b",
		"postgres://u@a:5432,b:5433,a:5434/d": "a b",
		"postgres://u@/d?host=/run/pg,c":      "c",
	} {
		got, err := instance.Hosts(url)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s leads to %v, %v, want %s", url, got, err, want)
		}
	}
	if got, err := instance.Hosts("postgres://u@a:5432,b:x/d"); err == nil {
		t.Errorf("a URL that cannot be read leads to %v", got)
	}
}
