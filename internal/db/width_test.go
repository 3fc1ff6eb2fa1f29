package db

import "testing"

func TestWidth(t *testing.T) {
	t.Parallel()
	var w width
	at := func(want float64) {
		t.Helper()
		if got := w.weight(); got != int64(everyone/want) {
			t.Errorf("a writer weighs %d of %d, want a part in %v", got, int64(everyone), want)
		}
	}
	at(widest)
	w.ended(false)
	at(widest)
	w.ended(true)
	at(widest / 2)
	for range 20 {
		w.ended(true)
	}
	at(1)
	w.ended(false)
	at(1 + widen)
	steps := 0
	for ; w.weight() > everyone/widest+1; steps++ {
		if w.ended(false); steps > 10_000 {
			t.Fatal("it does not become wide again")
		}
	}
	if steps < 100 {
		t.Errorf("it was wide again after %d writers", steps)
	}
	at(widest)
}
