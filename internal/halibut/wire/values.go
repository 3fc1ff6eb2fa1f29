package wire

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// GUID is an identifier of 128 bits, in the order in which it is written as text.
type GUID [16]byte

// NewGUID makes a random one.
func NewGUID() GUID {
	var g GUID
	_, _ = rand.Read(g[:]) // never fails
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}

// String is the usual text.
func (g GUID) String() string {
	s := hex.EncodeToString(g[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// swapped turns the order of text into .NET's order of bytes, and back: the first
// three fields are little-endian there.
func (g GUID) swapped() GUID {
	return GUID{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}

const (
	tick = 100 * time.Nanosecond // the unit of .NET's times
	day  = 24 * time.Hour
)

// FormatTimeSpan writes a duration as .NET does: [-][d.]hh:mm:ss[.fffffff].
func FormatTimeSpan(d time.Duration) string {
	var b strings.Builder
	rest := uint64(d.Truncate(tick)) // negative ones are negated next
	if d < 0 {
		b.WriteByte('-')
		rest = -rest
	}
	if days := rest / uint64(day); days > 0 {
		fmt.Fprintf(&b, "%d.", days)
	}
	rest %= uint64(day)
	fmt.Fprintf(&b, "%02d:%02d:%02d", rest/uint64(time.Hour), rest/uint64(time.Minute)%60, rest/uint64(time.Second)%60)
	if ticks := rest % uint64(time.Second) / uint64(tick); ticks > 0 {
		fmt.Fprintf(&b, ".%07d", ticks)
	}
	return b.String()
}

// ParseTimeSpan reads what .NET writes. Spans over 292 years become the longest
// duration there is.
func ParseTimeSpan(s string) (time.Duration, error) {
	bad := violation("the time span %q is not written as [-][d.]hh:mm:ss[.fffffff]", clip(s))
	rest, negative := strings.CutPrefix(s, "-")
	days := uint64(0)
	if dot, colon := strings.IndexByte(rest, '.'), strings.IndexByte(rest, ':'); dot >= 0 && dot < colon {
		n, err := strconv.ParseUint(rest[:dot], 10, 32)
		if err != nil {
			return 0, bad
		}
		days, rest = n, rest[dot+1:]
	}
	whole, fraction, hasFraction := strings.Cut(rest, ".")
	parts := strings.Split(whole, ":")
	if len(parts) != 3 || hasFraction && (len(fraction) == 0 || len(fraction) > 7) {
		return 0, bad
	}
	limits := [3]uint64{24, 60, 60}
	seconds := uint64(0)
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil || n >= limits[i] {
			return 0, bad
		}
		seconds = seconds*60 + n
	}
	ticks := uint64(0)
	if hasFraction {
		n, err := strconv.ParseUint((fraction + "0000000")[:7], 10, 32)
		if err != nil {
			return 0, bad
		}
		ticks = n
	}
	// In ticks .NET's whole range fits; in nanoseconds it does not.
	const most = uint64(math.MaxInt64 / tick)
	total := (days*86400+seconds)*uint64(time.Second/tick) + ticks
	d := time.Duration(math.MaxInt64)
	if total <= most {
		d = time.Duration(total) * tick // fits, as just checked
	}
	if negative {
		d = -d
	}
	return d, nil
}
