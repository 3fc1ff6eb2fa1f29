package releases_test

import (
	"fmt"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// large is a project with a hundred steps and a thousand variables, and a release of it.
func large(b *testing.B, dialect db.Dialect) (*world, octopus.Release) {
	b.Helper()
	w := newWorld(b, dbtest.Open(b, dialect))
	var steps []octopus.Step
	for i := range 100 {
		steps = append(steps, script(fmt.Sprintf("Step %d", i), func(a *octopus.Action) {
			a.Properties[octopus.PropScriptBody] = octopus.Plain(fmt.Sprintf("%0500d", i))
		}))
	}
	w.steps(steps...)
	var vars []octopus.Variable
	for i := range 1000 {
		v := value(fmt.Sprintf("Variable %d", i/2), fmt.Sprintf("%050d", i))
		switch {
		case i%2 == 1:
			v.Scope.Environment = octopus.List[string]{w.dev}
		case i%20 == 0:
			v.Type = octopus.VariableSensitive
		}
		vars = append(vars, v)
	}
	w.variables(vars...)
	for i := range 20 {
		w.machine(fmt.Sprintf("web-more-%d", i), w.dev, "web")
	}
	return w, w.release("1.0.0")
}

func each(b *testing.B, fn func(b *testing.B, w *world, r octopus.Release)) {
	b.Helper()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		b.Run(dialect.String(), func(b *testing.B) {
			w, r := large(b, dialect)
			b.ReportAllocs()
			b.ResetTimer()
			fn(b, w, r)
		})
	}
}

func BenchmarkDeploy(b *testing.B) {
	each(b, func(b *testing.B, w *world, r octopus.Release) {
		for b.Loop() {
			w.deploy(r.ID, w.dev)
		}
	})
}

func BenchmarkCreateRelease(b *testing.B) {
	each(b, func(b *testing.B, w *world, _ octopus.Release) {
		for b.Loop() {
			w.release("")
		}
	})
}

func BenchmarkVariables(b *testing.B) {
	each(b, func(b *testing.B, w *world, r octopus.Release) {
		plan := w.plan(w.deploy(r.ID, w.dev))
		for b.Loop() {
			if _, err := w.rel.Variables(b.Context(), plan); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEnded ends a successful deployment, as the engine does.
func BenchmarkEnded(b *testing.B) {
	each(b, func(b *testing.B, w *world, r octopus.Release) {
		d := w.deploy(r.ID, w.dev)
		for b.Loop() {
			check(b, w.db.WriteEngine(b.Context(), func(tx *db.Tx) error {
				task, err := tasks.Get(b.Context(), tx, d.TaskID)
				if err != nil {
					return err
				}
				return w.rel.Ended(b.Context(), tx, task, octopus.TaskSuccess)
			}))
		}
	})
}
