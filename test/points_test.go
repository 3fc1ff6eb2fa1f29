package test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// The raw log has every line, in order; the log in a task's details only the last ones, with
// the numbers that they have in the whole.
func TestPoint27RawIsWholeAndDetailsAreTheTail(t *testing.T) {
	t.Parallel()
	apptest.Run(t, func(t *testing.T, s *apptest.Server) {
		const lines = 5000
		c := s.Client
		m := newModel(t, c)
		m.process(t, script("Count", fmt.Sprintf("for ((i = 1; i <= %d; i++)); do echo \"line $i of the count\"; done", lines)))
		_, version := m.release(t, nil)
		task := m.deploy(t, version, m.Dev)
		if done := wait(t, c, task, 2*time.Minute); done.State != octopus.TaskSuccess {
			t.Fatalf("it ended as %s: %s", done.State, done.ErrorMessage)
		}
		next := 1
		for line := range strings.Lines(string(c.Must(t, http.MethodGet, space+"/tasks/"+task+"/raw", nil, nil).Body)) {
			if !strings.Contains(line, " of the count") {
				continue
			}
			if !strings.Contains(line, fmt.Sprintf("line %d of the count", next)) {
				t.Fatalf("line %d is %q", next, line)
			}
			next++
		}
		if next != lines+1 {
			t.Errorf("the raw log has %d lines of the count", next-1)
		}
		details := apptest.Get[octopus.TaskDetails](t, c, space+"/tasks/"+task+"/details?tail=10")
		var texts []string
		var walk func(a *octopus.Activity)
		walk = func(a *octopus.Activity) {
			for _, e := range a.LogElements {
				texts = append(texts, fmt.Sprint(e.Number, " ", e.MessageText))
			}
			for i := range a.Children {
				walk(&a.Children[i])
			}
		}
		for i := range details.ActivityLogs {
			walk(&details.ActivityLogs[i])
		}
		all := strings.Join(texts, "\n")
		for want, n := range map[string]int{" of the count": 9, "0 4991 earlier lines are left out": 1, "5001 The deployment completed successfully.": 1, "5000 line 5000 of the count": 1, "4992 line 4992 of the count": 1} {
			if got := strings.Count(all, want); got != n {
				t.Errorf("the tail has %q %d times:\n%s", want, got, all)
			}
		}
		if details.PhysicalLogSize < lines*20 {
			t.Errorf("the log has %d bytes", details.PhysicalLogSize)
		}
	})
}
