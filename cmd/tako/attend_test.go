package main

import (
	"testing"
	"time"
)

// TestRetries: what ends again and again is tried ever more seldom, and at once after
// progress.
func TestRetries(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	var r retries
	tries := func(mark int64, during time.Duration) (n int) {
		for end := now.Add(during); now.Before(end); now = now.Add(attendEvery) {
			if r.due(now, mark) {
				n++
			}
		}
		return n
	}
	if !r.due(now, 7) {
		t.Fatal("it waits before the first time")
	}
	if n := tries(7, time.Minute); n < 2 || n > 4 {
		t.Errorf("%d times in the first minute", n)
	}
	tries(7, time.Hour)
	if n := tries(7, time.Hour); n < 11 || n > 13 {
		t.Errorf("%d times an hour, later", n)
	}
	if !r.due(now, 8) {
		t.Error("it waits after progress")
	}
	if r.due(now, 8) {
		t.Error("twice at the same time")
	}
}
