package structured_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/structured"
)

// bigJSON is a document of n times about 10 MB, and variables that match n times
// 1,000 values.
func bigJSON(n int) ([]byte, lookup) {
	var b strings.Builder
	var pairs []string
	b.WriteString(`{"services": [`)
	for i := range n * 50_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n  {\"name\": \"service-%d\", \"settings\": {\"host\": \"host-%d.example.com\", \"port\": %d, \"enabled\": true, \"tags\": [\"a\", \"b\", \"c\"], \"comment\": %q}}",
			i, i, i%65536, strings.Repeat("lorem ipsum ", 6))
		if i%50 == 0 {
			pairs = append(pairs, fmt.Sprintf("services:%d:settings:host", i), "replaced.example.com")
		}
	}
	b.WriteString("\n]}")
	return []byte(b.String()), vars(pairs...)
}

// BenchmarkJSON replaces values in documents of two sizes.
func BenchmarkJSON(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d0MB_%d000replacements", n, n), func(b *testing.B) {
			in, v := bigJSON(n)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := structured.Replace(structured.JSON, "big.json", in, v)
				if err != nil || len(r.Replaced) != n*1000 {
					b.Fatal(len(r.Replaced), err)
				}
			}
		})
	}
}

// BenchmarkYAML replaces a value in files of many lines and of one long line.
func BenchmarkYAML(b *testing.B) {
	for _, n := range []int{1, 4} {
		for name, in := range map[string]string{
			"lines":   strings.Repeat("- name: x # c\n  list: [1, 2]\n  text: |\n    a\n    b\n", n*20_000),
			"oneline": "[" + strings.Repeat("{name: x, list: [1, 2], text: a}, ", n*30_000) + "]\n",
		} {
			b.Run(fmt.Sprintf("%s_%dMB", name, n), func(b *testing.B) {
				v := vars("1000:name", "y")
				b.SetBytes(int64(len(in)))
				for b.Loop() {
					if r, err := structured.Replace(structured.YAML, "big.yaml", []byte(in), v); err != nil || len(r.Replaced) != 1 {
						b.Fatal(len(r.Replaced), err)
					}
				}
			})
		}
	}
}
