package octodiff_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/takodeploy/tako/internal/octodiff"
)

// changedPackage is a file of 100 MB, and the same with a hundred places changed, which
// are one per cent of it together.
func changedPackage(b *testing.B) (base, file []byte) {
	b.Helper()
	const size, places = 100_000_000, 100
	base = make([]byte, size)
	_, _ = (&random{size: size}).ReadAt(base, 0) // of memory
	file = bytes.Clone(base)
	for i := range places {
		at := i * (size / places)
		for j := range size / 100 / places {
			file[at+j] ^= byte(j) | 1
		}
	}
	return base, file
}

func BenchmarkSign(b *testing.B) {
	base, _ := changedPackage(b)
	b.SetBytes(int64(len(base)))
	for b.Loop() {
		if err := octodiff.Sign(b.Context(), io.Discard, bytes.NewReader(base), octodiff.DefaultChunk); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadSignature(b *testing.B) {
	base, _ := changedPackage(b)
	signature := sign(b, base, octodiff.DefaultChunk)
	b.SetBytes(int64(len(base)))
	for b.Loop() {
		if _, err := octodiff.ReadSignature(bytes.NewReader(signature)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	base, file := changedPackage(b)
	signature := parse(b, sign(b, base, octodiff.DefaultChunk))
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if err := octodiff.Diff(b.Context(), io.Discard, signature, bytes.NewReader(file), int64(len(file))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiffFiles(b *testing.B) {
	base, file := changedPackage(b)
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if err := octodiff.DiffFiles(b.Context(), io.Discard, bytes.NewReader(base), int64(len(base)), octodiff.DefaultChunk, bytes.NewReader(file), int64(len(file))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	base, file := changedPackage(b)
	delta := diff(b, sign(b, base, octodiff.DefaultChunk), file)
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		p, err := octodiff.Apply(bytes.NewReader(base), int64(len(base)), bytes.NewReader(delta), int64(len(file)))
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, p); n != int64(len(file)) || err != nil {
			b.Fatal(n, err)
		}
	}
}
