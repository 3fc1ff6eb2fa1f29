//go:build linux

package orchestrator_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

// TestWorkerLeaseCap: a deployment's steps stay on one worker, unless a variable spreads
// them; then also those that start together go to different ones.
func TestWorkerLeaseCap(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Workers = []string{"Machines-w1", "Machines-w2", "Machines-w3"}
		w.sc.Fleet = w.sc.Workers
		w.serve("a")
		for limit, want := range map[string]string{
			"many": "6", "1": "2 2 2", "4": "2 4",
		} {
			w.sc.Vars = []plainVariable{{Name: octopus.PropWorkerLeaseCap, Value: limit}}
			file := filepath.Join(t.TempDir(), "homes")
			var process []octopus.Step
			for i := range 6 {
				s := step(fmt.Sprint("S", i), `echo "$TentacleHome" >> '`+file+`'`)
				if i == 1 || i == 2 {
					beside(&s)
				}
				process = append(process, s)
			}
			id := w.queue(false, process...)
			w.ends(id, octopus.TaskSuccess)
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			count := map[string]int{}
			for _, home := range strings.Fields(string(body)) {
				count[home]++
			}
			var got []int
			for _, n := range count {
				got = append(got, n)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, strings.Trim(fmt.Sprint(got), "[]")); diff != "" {
				t.Errorf("cap %q (-want +got):\n%s", limit, diff)
			}
			if said := len(w.said(id, "is "+limit+").")); limit == "1" && said != 6 {
				t.Errorf("cap %s: %d lines say who was taken", limit, said)
			}
		}
	})
}
