// Package bench measures the built program from outside, as benchmarks of Go's
// testing package: a process that is started, spoken to over loopback, and looked
// at in /proc. Nothing here fails because something is slow; what is wrong (a
// status, a lost line of a log) does fail.
//
// Each benchmark chooses for itself how long it measures, and is run once:
//
//	go test ./test/bench -run '^$' -bench . -benchtime 1x
//
// scripts/bench.sh does so, and prints the machine beside the figures.
package bench
