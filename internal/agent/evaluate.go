package agent

import (
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/octostache"
)

// newEvaluator evaluates #{...} templates with variables; nil is one without value.
func newEvaluator(variables map[string]*string, now time.Time) evaluator {
	pairs := make([]octostache.Pair, 0, len(variables))
	for name, value := range variables {
		p := octostache.Pair{Name: name, Null: value == nil}
		if value != nil {
			p.Value = *value
		}
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(a, b octostache.Pair) int { return strings.Compare(a.Name, b.Name) })
	vars := octostache.NewVariables(octostache.Options{Now: now}, pairs...)
	return func(text string) (string, []string, error) {
		r := vars.EvaluateFile(text)
		return r.Text, r.Missing, r.Err
	}
}
