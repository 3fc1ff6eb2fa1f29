package octodiff

// checksum is a rolling checksum: from the one of a window follows that of the
// window one byte further. Its value is b<<16 | a, where a adds up the bytes and
// b the values that a had.
type checksum struct {
	name string
	// modulus is what a and b are kept below. The older kind, which tools write
	// by default, cuts them to 16 bits instead of a prime.
	modulus uint32
}

// adler and adlerV2 are the checksums that signatures name.
var (
	adler   = checksum{"Adler32", 1 << 16} //nolint:gochecknoglobals // a constant
	adlerV2 = checksum{"Adler32V2", 65521} //nolint:gochecknoglobals // a constant
)

// of is the checksum of a window of at most MaxChunk bytes: so few that neither
// sum leaves its 64 bits before it is reduced.
func (c checksum) of(window []byte) uint32 {
	a, b := uint64(1), uint64(0)
	// Eight at a time wait for each other less than eight sums after another.
	for ; len(window) >= 8; window = window[8:] {
		x0, x1, x2, x3 := uint64(window[0]), uint64(window[1]), uint64(window[2]), uint64(window[3])
		x4, x5, x6, x7 := uint64(window[4]), uint64(window[5]), uint64(window[6]), uint64(window[7])
		b += 8*a + (8*x0 + 7*x1 + 6*x2 + 5*x3) + (4*x4 + 3*x5 + 2*x6 + x7)
		a += (x0 + x1 + x2 + x3) + (x4 + x5 + x6 + x7)
	}
	for _, x := range window {
		a += uint64(x)
		b += a
	}
	return uint32(b%uint64(c.modulus))<<16 | uint32(a%uint64(c.modulus))
}

// roll moves a window of n bytes on by one: out leaves it, in enters.
func (c checksum) roll(value uint32, out, in byte, n int) uint32 {
	m := c.modulus
	a, b := value&0xFFFF, value>>16
	a = (a + m - uint32(out) + uint32(in)) % m
	// The byte that leaves was counted once in a and n times in b, and so was
	// a's first 1.
	b = (b + m - uint32(n)*uint32(out)%m + a + m - 1) % m
	return b<<16 | a
}
