package deploy_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/deploy"
)

func TestAttemptKey(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		u := deploy.Unit{
			Step: rapid.IntRange(0, 999).Draw(t, "step"), Action: rapid.IntRange(0, 99).Draw(t, "action"),
			Lane: rapid.StringMatching(`|Machines-[0-9]+|[a-z.#]+`).Draw(t, "lane"),
		}
		n := rapid.IntRange(1, 9).Draw(t, "attempt")
		got, attempt, err := deploy.ParseAttempt(u.AttemptKey(n))
		if err != nil || got != u || attempt != n {
			t.Fatalf("%+v, %d, %v of %q", got, attempt, err, u.AttemptKey(n))
		}
	})
	for _, bad := range []string{"", "1", "1.2", "a.1#1", "1.b#1", "1.1#"} {
		if u, n, err := deploy.ParseAttempt(bad); err == nil {
			t.Errorf("%q is read as %+v, %d", bad, u, n)
		}
	}
}
