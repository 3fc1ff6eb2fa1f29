package octodiff_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/octodiff"
)

func sign(t testing.TB, base []byte, chunk int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := octodiff.Sign(t.Context(), &out, bytes.NewReader(base), chunk); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func parse(t testing.TB, signature []byte) *octodiff.Signature {
	t.Helper()
	s, err := octodiff.ReadSignature(bytes.NewReader(signature))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func diff(t testing.TB, signature, file []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := octodiff.Diff(t.Context(), &out, parse(t, signature), bytes.NewReader(file), int64(len(file))); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func apply(base, delta []byte) ([]byte, error) {
	p, err := octodiff.Apply(bytes.NewReader(base), int64(len(base)), bytes.NewReader(delta), 1<<30)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(p)
}

type vector struct {
	Sentence string
	Times    int
	InsertAt int    `json:"insert_at"`
	Insert   string `json:"insert"`
	BaseSHA1 string `json:"base_sha1"`
	Sig      string `json:"signature_hex"`
	Delta    string `json:"delta_hex"`
	NewSHA1  string `json:"new_sha1"`
}

func (v vector) files() (base, file []byte) {
	text := strings.Repeat(v.Sentence, v.Times)
	return []byte(text), []byte(text[:v.InsertAt] + v.Insert + text[v.InsertAt:])
}

func vectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/octodiff.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(data, &all); err != nil || len(all) == 0 {
		t.Fatalf("%d vectors, %v", len(all), err)
	}
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sha1hex(b []byte) string { h := sha1.Sum(b); return hex.EncodeToString(h[:]) }

// TestVectors are files that the original tool made.
func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		base, file := v.files()
		if sha1hex(base) != v.BaseSHA1 || sha1hex(file) != v.NewSHA1 {
			t.Fatalf("base %s, new %s", sha1hex(base), sha1hex(file))
		}
		if got := hex.EncodeToString(sign(t, base, octodiff.DefaultChunk)); got != v.Sig {
			t.Errorf("signature\n%s, want\n%s", got, v.Sig)
		}
		got, err := apply(base, unhex(t, v.Delta))
		if err != nil || !bytes.Equal(got, file) {
			t.Errorf("the original's delta makes %d bytes, %v", len(got), err)
		}
		if got := hex.EncodeToString(diff(t, unhex(t, v.Sig), file)); got != v.Delta {
			t.Errorf("delta\n%s, want\n%s", got, v.Delta)
		}
	}
}

// TestRoundTrip: whatever the files, the delta of a base makes the new file.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		// Few different bytes and lengths, so that chunks repeat.
		text := rapid.OneOf(rapid.SliceOfN(rapid.SampledFrom([]byte("ab")), 0, 1500), rapid.SliceOfN(rapid.Byte(), 0, 1500))
		base := text.Draw(rt, "base")
		file := append([]byte(nil), base...)
		for range rapid.IntRange(0, 4).Draw(rt, "edits") {
			at := rapid.IntRange(0, len(file)).Draw(rt, "at")
			cut := rapid.IntRange(0, len(file)-at).Draw(rt, "cut")
			var in []byte
			if rapid.Bool().Draw(rt, "moves") && len(base) > 0 {
				in = base[rapid.IntRange(0, len(base)-1).Draw(rt, "from"):]
			} else {
				in = text.Draw(rt, "in")
			}
			file = append(append(append([]byte(nil), file[:at]...), in...), file[at+cut:]...)
		}
		chunk := rapid.IntRange(octodiff.MinChunk, 400).Draw(rt, "chunk")
		signature := sign(t, base, chunk)
		if rapid.Bool().Draw(rt, "newer checksum") {
			signature = newer(signature, base, chunk)
		}
		delta := diff(t, signature, file)
		// Who has the base comes to the same.
		var both bytes.Buffer
		if err := octodiff.DiffFiles(t.Context(), &both, bytes.NewReader(base), int64(len(base)), chunk, bytes.NewReader(file), int64(len(file))); err != nil || !bytes.Equal(both.Bytes(), delta) {
			rt.Fatalf("of two files a delta of %d bytes, of a signature one of %d; %v", both.Len(), len(delta), err)
		}
		got, err := apply(base, delta)
		if err != nil || !bytes.Equal(got, file) {
			rt.Fatalf("%d bytes, want %d; %v", len(got), len(file), err)
		}
		if bytes.Equal(base, file) && len(delta) > 80 {
			rt.Fatalf("equal files have a delta of %d bytes", len(delta))
		}
		// One byte at a time it comes to the same.
		p, err := octodiff.Apply(bytes.NewReader(base), int64(len(base)), iotest.OneByteReader(bytes.NewReader(delta)), int64(len(file)))
		if err != nil {
			rt.Fatal(err)
		}
		if got, err := io.ReadAll(iotest.HalfReader(p)); err != nil || !bytes.Equal(got, file) {
			rt.Fatalf("in pieces: %d bytes, want %d; %v", len(got), len(file), err)
		}
	})
}

// newer is a signature with the newer checksum, worked out byte by byte.
func newer(old, base []byte, chunk int) []byte {
	head, _, _ := bytes.Cut(old, []byte(">>>"))
	out := append(bytes.Replace(head, []byte("\x07Adler32"), []byte("\x09Adler32V2"), 1), ">>>"...)
	for len(base) > 0 {
		n := min(chunk, len(base))
		a, b := uint32(1), uint32(0)
		for _, x := range base[:n] {
			a = (a + uint32(x)) % 65521
			b = (b + a) % 65521
		}
		hash := sha1.Sum(base[:n])
		out = binary.LittleEndian.AppendUint16(out, uint16(n))
		out = binary.LittleEndian.AppendUint32(out, b<<16|a)
		out = append(out, hash[:]...)
		base = base[n:]
	}
	return out
}

// TestSmallDeltas: what is moved, inserted or taken out costs little more than itself.
func TestSmallDeltas(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	base := make([]byte, 300_000)
	for i := range base {
		base[i] = byte(r.Uint32())
	}
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	zeros := make([]byte, 200_000)
	for name, tt := range map[string]struct {
		base, file []byte
		most       int
	}{
		"equal":            {base, base, 70},
		"empty":            {base, nil, 50},
		"of nothing":       {nil, base[:100], 160},
		"inserted first":   {base, cat([]byte("x"), base), 100},
		"inserted":         {base, cat(base[:100_001], []byte("hello"), base[100_001:]), 2048 + 150},
		"appended":         {base, cat(base, []byte("hello")), 100},
		"cut at the start": {base, base[1:], 2048 + 100},
		"cut at the end":   {base, base[:len(base)-1], 2048 + 100},
		"swapped":          {base, cat(base[150_000:], base[:150_000]), 2*2048 + 200},
		"zeros":            {zeros, zeros[:150_000], 2048 + 150},
		"more zeros":       {zeros, make([]byte, 400_000), 600},
	} {
		delta := diff(t, sign(t, tt.base, octodiff.DefaultChunk), tt.file)
		got, err := apply(tt.base, delta)
		if err != nil || !bytes.Equal(got, tt.file) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if len(delta) > tt.most {
			t.Errorf("%s: the delta has %d bytes, want at most %d", name, len(delta), tt.most)
		}
	}
}

// delta puts one together by hand.
func delta(want []byte, commands ...any) []byte {
	hash := sha1.Sum(want)
	b := append([]byte("OCTODELTA\x01\x04SHA1\x14\x00\x00\x00"), hash[:]...)
	b = append(b, ">>>"...)
	for _, c := range commands {
		switch c := c.(type) {
		case byte:
			b = append(b, c)
		case int:
			b = binary.LittleEndian.AppendUint64(b, uint64(c))
		case string:
			b = append(b, c...)
		}
	}
	return b
}

const (
	cp   = byte(0x60)
	data = byte(0x80)
)

func TestHostileDeltas(t *testing.T) {
	t.Parallel()
	base := []byte("0123456789")
	const most = 1<<63 - 1
	good := delta([]byte("234hi"), cp, 2, 3, data, 2, "hi")
	if got, err := apply(base, good); err != nil || string(got) != "234hi" {
		t.Fatalf("%q, %v", got, err)
	}
	for n := range good {
		switch _, err := apply(base, good[:n]); {
		case err == nil:
			t.Errorf("%d of %d bytes are taken for a delta", n, len(good))
		case !errors.Is(err, io.ErrUnexpectedEOF) && !fault.Is(err, fault.Invalid):
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for name, tt := range map[string]struct {
		delta []byte
		says  string
	}{
		"another format":      {[]byte("OCTOSIG\x01\x04SHA1 and so on and on"), "format's name"},
		"another version":     {[]byte("OCTODELTA\x02\x04SHA1 and so on and on"), "version 2"},
		"another hash":        {[]byte("OCTODELTA\x01\x03MD5 and so on and on"), "MD5"},
		"a long hash":         {[]byte("OCTODELTA\x01\x04SHA1\xff\xff\xff\xffand so on and so on and on"), "4294967295"},
		"no end of header":    {bytes.Replace(good, []byte(">>>"), []byte(">><"), 1), "end of its header"},
		"unknown command":     {delta(nil, byte(0x70)), "0x70"},
		"copy beyond":         {delta(nil, cp, 8, 3), "copies 3 bytes from 8 on, of a base of 10"},
		"copy from beyond":    {delta(nil, cp, 11, 0), "from 11 on"},
		"copy that overflows": {delta(nil, cp, 1, most), "copies 9223372036854775807"},
		"both at the most":    {delta(nil, cp, most, most), "copies"},
		"copy before":         {delta(nil, cp, -1, 1), "from -1 on"},
		"negative copy":       {delta(nil, cp, 1, -1), "copies -1"},
		"negative data":       {delta(nil, data, -1, ""), "inserts -1"},
		"another base":        {delta([]byte("abc"), cp, 0, 3), "SHA-1 differs"},
		"not all of it":       {delta([]byte("0123"), cp, 0, 3), "SHA-1 differs"},
		"too much data":       {delta(nil, data, most, "abc"), "larger than the limit"},
	} {
		_, err := apply(base, tt.delta)
		if err == nil || !strings.Contains(err.Error(), tt.says) || !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.TooLarge) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
	// The limit holds over all commands.
	p, err := octodiff.Apply(bytes.NewReader(base), 10, bytes.NewReader(delta(nil, cp, 0, 10, cp, 0, 10)), 19)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(p); !fault.Is(err, fault.TooLarge) {
		t.Errorf("20 bytes of at most 19: %v", err)
	}
	// Without the hash what is made is what the commands say.
	p, err = octodiff.Apply(bytes.NewReader(base), 10, bytes.NewReader(delta([]byte("abc"), cp, 0, 3)), 19)
	if err != nil {
		t.Fatal(err)
	}
	p.LeaveHashOut()
	if got, err := io.ReadAll(p); string(got) != "012" || err != nil {
		t.Errorf("without the hash: %q, %v", got, err)
	}
	// A base that is shorter than it was said to be.
	p, err = octodiff.Apply(bytes.NewReader(base[:5]), 10, bytes.NewReader(delta(base, cp, 0, 10)), 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(p); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short base: %v", err)
	}
}

func TestHostileSignatures(t *testing.T) {
	t.Parallel()
	row := func(length uint16) string {
		return string(binary.LittleEndian.AppendUint16(nil, length)) + strings.Repeat("x", 24)
	}
	const head = "OCTOSIG\x01\x04SHA1\x07Adler32>>>"
	for name, tt := range map[string]struct{ signature, says string }{
		"another format":   {"OCTODELTA\x01", "format's name"},
		"another version":  {"OCTOSIG\x03", "version 3"},
		"another hash":     {"OCTOSIG\x01\x03MD5\x07Adler32>>>", "MD5"},
		"another checksum": {"OCTOSIG\x01\x04SHA1\x05Crc32>>>", "Crc32"},
		"no header's end":  {"OCTOSIG\x01\x04SHA1\x07Adler32>> ", "end of its header"},
		"empty chunk":      {head + row(0), "0 bytes"},
		"large chunk":      {head + row(31745), "31745 bytes"},
		"short in between": {head + row(200) + row(100) + row(200), "only the last"},
		"longer":           {head + row(200) + row(300), "only the last"},
	} {
		_, err := octodiff.ReadSignature(strings.NewReader(tt.signature))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
	whole := head + row(200) + row(100)
	for n := range len(whole) {
		_, err := octodiff.ReadSignature(strings.NewReader(whole[:n]))
		if between := n == len(head) || n == len(head)+26; between != (err == nil) || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	if err := octodiff.Sign(t.Context(), io.Discard, strings.NewReader("x"), octodiff.MinChunk-1); err == nil {
		t.Error("chunks of 127 bytes are allowed")
	}
	broken := errors.New("broken")
	if err := octodiff.Sign(t.Context(), io.Discard, iotest.ErrReader(broken), octodiff.DefaultChunk); !errors.Is(err, broken) {
		t.Errorf("a base that cannot be read: %v", err)
	}
}

// TestOneChecksumForAll: a signature whose chunks have one checksum is no way to
// make the search take the square of its time.
func TestOneChecksumForAll(t *testing.T) {
	t.Parallel()
	b := []byte("OCTOSIG\x01\x04SHA1\x07Adler32>>>")
	r := rand.New(rand.NewPCG(3, 4))
	zero := sign(t, make([]byte, 128), 128)
	rolling := zero[len(zero)-24:][:4]
	for range 50_000 {
		b = append(append(b, 128, 0), rolling...)
		for range 20 {
			b = append(b, byte(r.Uint32()))
		}
	}
	file := make([]byte, 100_000) // every place of it has that checksum
	got, err := apply(nil, diff(t, b, file))
	if err != nil || !bytes.Equal(got, file) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestChunk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size, most int64
		want       int
	}{
		{0, 1 << 20, octodiff.DefaultChunk},
		{78 << 20, 1 << 20, octodiff.DefaultChunk},
		{160 << 20, 1 << 20, (160<<20)/(1<<20/octodiff.ChunkCost) + 1},
		{1 << 50, 1 << 20, octodiff.MaxChunk},
		{1 << 50, 0, octodiff.MaxChunk},
	} {
		if got := octodiff.Chunk(tt.size, tt.most); got != tt.want {
			t.Errorf("Chunk(%d, %d) = %d, want %d", tt.size, tt.most, got, tt.want)
		}
	}
}

// random is a file of pseudo-random bytes without any memory: as many as are
// asked for, with every 100th stretch of 4 KB another one where changed is set.
type random struct {
	at, size int64
	changed  bool
}

func (r *random) ReadAt(b []byte, at int64) (int, error) {
	n := int(min(int64(len(b)), max(r.size-at, 0)))
	for i := range b[:n] {
		place := uint64(at) + uint64(i)
		x := place/8 + 1
		if r.changed && place/4096%100 == 7 {
			x ^= 1 << 40
		}
		x *= 0x9E3779B97F4A7C15
		x ^= x >> 29
		x *= 0xBF58476D1CE4E5B9
		x ^= x >> 32
		b[i] = byte(x >> (8 * (place % 8)))
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (r *random) Read(b []byte) (int, error) {
	n, err := r.ReadAt(b, r.at)
	r.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (r *random) Seek(offset int64, _ int) (int64, error) { r.at = offset; return offset, nil }

// TestALargeFileTakesLittleMemory signs, compares and patches 64 MB.
func TestALargeFileTakesLittleMemory(t *testing.T) { //nolint:paralleltest // it measures memory
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var signature, changes bytes.Buffer
	if err := octodiff.Sign(t.Context(), &signature, &random{size: size}, octodiff.DefaultChunk); err != nil {
		t.Fatal(err)
	}
	s, err := octodiff.ReadSignature(&signature)
	if err != nil {
		t.Fatal(err)
	}
	if err := octodiff.Diff(t.Context(), &changes, s, &random{size: size, changed: true}, size); err != nil {
		t.Fatal(err)
	}
	length := changes.Len()
	p, err := octodiff.Apply(&random{size: size}, size, &changes, size)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, p)
	if err != nil || n != size {
		t.Errorf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	total := after.TotalAlloc - before.TotalAlloc // more than is ever held at once
	t.Logf("delta of %d KB, memory allocated in all %d KB", length>>10, total>>10)
	if length > size/50 {
		t.Errorf("one per cent changed makes a delta of %d bytes", length)
	}
	if total > size/4 {
		t.Errorf("%d bytes allocated for files of %d", total, size)
	}
}

func FuzzApply(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte("0123456789"), unhex(f, v.Delta))
	}
	f.Add([]byte("0123456789"), delta([]byte("234hi"), cp, 2, 3, data, 2, "hi"))
	f.Fuzz(func(t *testing.T, base, input []byte) {
		const limit = 1 << 16
		p, err := octodiff.Apply(bytes.NewReader(base), int64(len(base)), bytes.NewReader(input), limit)
		if err != nil {
			return
		}
		if got, err := io.ReadAll(p); len(got) > limit {
			t.Errorf("%d bytes, %v", len(got), err)
		} else if sum := sha1.Sum(got); err == nil && !bytes.Contains(input, sum[:]) {
			t.Errorf("a file that the delta does not name: %d bytes", len(got))
		}
	})
}

func FuzzSignature(f *testing.F) {
	for _, v := range vectors(f) {
		_, file := v.files()
		f.Add(unhex(f, v.Sig), file)
	}
	f.Fuzz(func(t *testing.T, signature, file []byte) {
		s, err := octodiff.ReadSignature(bytes.NewReader(signature))
		if err != nil {
			return
		}
		// Of a base that does not exist; the delta names the file all the same.
		var out bytes.Buffer
		if err := octodiff.Diff(t.Context(), &out, s, bytes.NewReader(file), int64(len(file))); err != nil {
			t.Fatal(err)
		}
		if sum := sha1.Sum(file); !bytes.Contains(out.Bytes(), sum[:]) {
			t.Error("the delta does not name the file")
		}
	})
}
