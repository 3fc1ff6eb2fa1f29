package octostache_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/octostache"
)

// bigTemplate has 10,000 references in about a megabyte.
func bigTemplate(tag func(i int) string) string {
	var b strings.Builder
	for i := range 10_000 {
		b.WriteString("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor # incididunt ")
		b.WriteString(tag(i))
	}
	return b.String()
}

func benchVars() *octostache.Variables {
	var pairs []octostache.Pair
	for i := range 2000 {
		pairs = append(pairs, octostache.Pair{Name: fmt.Sprintf("Octopus.Action[Step %d].Name", i), Value: "some value"})
	}
	pairs = append(pairs, octostache.Pair{Name: "Server", Value: "#{Octopus.Action[Step 7].Name}:#{Port}"}, octostache.Pair{Name: "Port", Value: "8080"},
		octostache.Pair{Name: "Config", Value: `{"db": {"host": "h", "port": [1, 2, 3]}}`})
	return octostache.NewVariables(testOptions(), pairs...)
}

func BenchmarkEvaluate(b *testing.B) {
	for name, tag := range map[string]func(i int) string{
		"names":     func(i int) string { return fmt.Sprintf("#{Octopus.Action[Step %d].Name}", i%2000) },
		"nested":    func(int) string { return "#{Server | ToUpper}" },
		"json":      func(int) string { return "#{Config.db.port[2]}" },
		"missing":   func(i int) string { return fmt.Sprintf("#{Missing%d}", i) },
		"condition": func(int) string { return `#{if Port == "8080"}#{Server}#{else}x#{/if}` },
		"unclosed":  func(int) string { return "#{if Port}" },
	} {
		b.Run(name, func(b *testing.B) {
			v, text := benchVars(), bigTemplate(tag)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if r := v.Evaluate(text); r.Err != nil {
					b.Fatal(r.Err)
				}
			}
		})
	}
}

// BenchmarkTemplate has the time per byte and per reference for a template of a
// megabyte and 10,000 references, and for larger ones: both stay the same.
func BenchmarkTemplate(b *testing.B) {
	v := benchVars()
	text := bigTemplate(func(i int) string { return fmt.Sprintf("#{Octopus.Action[Step %d].Name}", i%2000) })
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("%dMB_%d000references", n, n*10), func(b *testing.B) {
			text := strings.Repeat(text, n)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if r := v.Evaluate(text); r.Err != nil {
					b.Fatal(r.Err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*10_000), "ns/reference")
		})
	}
}

func BenchmarkExecute(b *testing.B) {
	v := benchVars()
	text := bigTemplate(func(i int) string { return fmt.Sprintf("#{Octopus.Action[Step %d].Name}", i%2000) })
	tmpl, err := octostache.Parse(text)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		v.Execute(tmpl)
	}
}

func BenchmarkNewVariables(b *testing.B) {
	var pairs []octostache.Pair
	for p := range benchVars().All() {
		pairs = append(pairs, p)
	}
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			octostache.NewVariables(testOptions(), pairs...)
		}
	})
	b.Run("with", func(b *testing.B) {
		v := octostache.NewVariables(testOptions(), pairs...)
		for b.Loop() {
			v.With(pairs[:50]...)
		}
	})
	b.Run("untouched", func(b *testing.B) {
		v := octostache.NewVariables(testOptions(), pairs...)
		for b.Loop() {
			v.Evaluate("no references here")
		}
	})
}
