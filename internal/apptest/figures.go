package apptest

import (
	"cmp"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
)

// Quantile is the smallest of all that the share q of them does not exceed; there has to
// be one.
func Quantile[T cmp.Ordered](all []T, q float64) T {
	all = slices.Sorted(slices.Values(all))
	return all[max(int(math.Ceil(q*float64(len(all)))), 1)-1]
}

// Size is the number that a variable of the environment gives, or the one that is
// measured where nothing else is said.
func Size(t testing.TB, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q; give a number from 1 on", name, text)
	}
	return n
}
