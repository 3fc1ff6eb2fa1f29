package version_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/takodeploy/tako/internal/version"
)

func randomVersions(b *testing.B, n int) []version.Version {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	list := make([]version.Version, n)
	for i := range list {
		text := strconv.Itoa(r.IntN(20)) + "." + strconv.Itoa(r.IntN(50)) + "." + strconv.Itoa(r.IntN(200))
		if r.IntN(2) == 0 {
			text += "-beta." + strconv.Itoa(r.IntN(1000))
		}
		list[i] = must(b, version.Octopus, text)
	}
	return list
}

// BenchmarkSort orders versions: n times the logarithm of n comparisons, each of
// two texts.
func BenchmarkSort(b *testing.B) {
	for _, n := range []int{100_000, 400_000} {
		b.Run(strconv.Itoa(n)+"versions", func(b *testing.B) {
			list := randomVersions(b, n)
			work := make([]version.Version, len(list))
			for b.Loop() {
				copy(work, list)
				slices.SortFunc(work, version.Compare)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/version")
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, s := range []version.Scheme{version.Octopus, version.SemVer, version.Maven} {
		b.Run(s.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must(b, s, "1.20.3-beta.14")
			}
		})
	}
}
