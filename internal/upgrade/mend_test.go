package upgrade

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/takodeploy/tako/internal/supervisor"
)

// TestMissingIndexes: the version that runs makes them again before the backup, if there is
// anything to make, and which it were stands in the journal; when it cannot, that ends it.
func TestMissingIndexes(t *testing.T) {
	t.Parallel()
	const fine = `{"name":"agents","status":"ok","seen":"x"},{"name":"schema","status":"warn","seen":"index stray: It does not belong"}`
	const missing = fine + `,{"name":"schema","status":"warn","seen":"index a: It is missing","mendable":true}`
	for name, c := range map[string]struct {
		checks, mend string
		ran, fails   bool
	}{
		"none":        {fine, "exit 9", false, false},
		"one":         {missing, `echo 'index a was missing' >&2; echo '{"Mended":["index a"]}'`, true, false},
		"one cannot":  {missing, "echo 'tako: index a has rows twice' >&2; exit 1", true, true},
		"no sentence": {missing, "echo hello", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crew := newCrew(t, Staged)
			s := &scripted{answers: map[string][]*supervisor.Report{"status": {serving("1")}, "deep": {serving("1")}}}
			s.listen(t, crew.root)
			ran := filepath.Join(crew.root, "ran")
			crew.program("1", `case "$1 $2" in
preflight*) echo '{"from":"1","to":"2","checks":[`+c.checks+`]}' ;;
"database mend") echo >`+ran+`; `+c.mend+` ;;
*) exit 8 ;;
esac`, 0o700)
			if err := crew.step(t.Context(), crew.last(), Do{State: Preflight}); err != nil {
				t.Fatal(err)
			}
			last := crew.last()
			if _, err := os.Stat(ran); (err == nil) != c.ran || (last.Failed == Preflight) != c.fails {
				t.Fatalf("it ran: %v; it is %+v\n%s", err, last, crew.log)
			}
			if c.fails {
				return
			}
			var found looked
			if err := json.Unmarshal(last.Results[Preflight], &found); err != nil {
				t.Fatal(err)
			}
			if len(found.Warnings) != 1 || (len(found.Mended) == 1 && found.Mended[0] == "index a") != c.ran {
				t.Errorf("it says %+v", found)
			}
		})
	}
}
