package octostache

import (
	"math"
	"strconv"
	"strings"
)

// decimal is a number in digits: 0.d1d2d3... times ten to the power exp.
type decimal struct {
	neg    bool
	digits string // without zeros in front; "" is zero
	exp    int
	scale  int // digits behind the point as written
	kind   numberKind
}

type numberKind uint8

const (
	decimalNumber numberKind = iota
	integerNumber
	doubleNumber
)

// parseDecimal reads what .NET's decimal type reads: up to 28 or 29 digits, no exponent.
func parseDecimal(s string) (decimal, bool) {
	s = strings.TrimFunc(s, isNumberSpace)
	// A sign may stand behind the number.
	if n := len(s) - 1; n > 0 && (s[n] == '-' || s[n] == '+') && isDigit(s[0]) {
		s = s[n:] + strings.TrimFunc(s[:n], isNumberSpace)
	}
	s, ok := plainNumber(s, false)
	if !ok {
		return decimal{}, false
	}
	d := decimal{neg: s[0] == '-'}
	whole, fraction, _ := strings.Cut(strings.TrimLeft(s, "+-"), ".")
	d.scale = len(fraction)
	whole = strings.TrimLeft(whole, "0")
	d.exp = len(whole)
	d.digits = whole + fraction
	d.normalize()
	if d.exp > 29 || d.exp == 29 && (d.digits + strings.Repeat("0", 29))[:29] > "79228162514264337593543950335" {
		return decimal{}, false
	}
	if len(d.digits) > 28 {
		d.round(28 - max(d.exp, 0))
		d.scale = min(d.scale, 28)
	}
	return d, true
}

func newDouble(f float64) decimal {
	d := decimal{kind: doubleNumber, neg: math.Signbit(f)}
	// Every digit that a double has, so that rounding is exact.
	mantissa, exp, _ := strings.Cut(strconv.FormatFloat(math.Abs(f), 'e', 766, 64), "e")
	e, _ := strconv.Atoi(exp)
	d.digits, d.exp = strings.Replace(mantissa, ".", "", 1), e+1
	d.normalize()
	return d
}

func newInteger(n int32) decimal {
	s := strconv.FormatInt(int64(n), 10)
	d := decimal{kind: integerNumber, neg: n < 0, digits: strings.TrimPrefix(s, "-")}
	d.exp = len(d.digits)
	d.normalize()
	return d
}

func (d *decimal) normalize() {
	for d.digits != "" && d.digits[0] == '0' {
		d.digits = d.digits[1:]
		d.exp--
	}
	if d.digits = strings.TrimRight(d.digits, "0"); d.digits == "" {
		d.exp = 0
	}
}

// round keeps that many digits behind the point; halves go away from zero.
func (d *decimal) round(places int) {
	n := d.exp + places
	if n >= len(d.digits) {
		return
	}
	if n < 0 {
		d.digits, d.exp = "", 0
		return
	}
	up := d.digits[n] >= '5'
	b := []byte(d.digits[:n])
	for i := n - 1; up && i >= 0; i-- {
		if b[i] < '9' {
			b[i]++
			up = false
		} else {
			b[i] = '0'
		}
	}
	d.digits = string(b)
	if up {
		d.digits = "1" + d.digits
		d.exp++
	}
	d.normalize()
}

// fixed writes the number without sign and with that many digits behind the point.
func (d *decimal) fixed(places int) (whole, fraction string) {
	whole = "0"
	if d.exp > 0 {
		whole = d.digit(0, d.exp)
	}
	return whole, d.digit(d.exp, d.exp+places)
}

// digit returns the digits from one position to another, zeros where there are none.
func (d *decimal) digit(from, to int) string {
	b := make([]byte, 0, max(0, to-from))
	for i := from; i < to; i++ {
		if i >= 0 && i < len(d.digits) {
			b = append(b, d.digits[i])
		} else {
			b = append(b, '0')
		}
	}
	return string(b)
}

// sign returns "-" for what shows as negative: only a double has a negative zero.
func (d *decimal) sign() string {
	if d.neg && (d.digits != "" || d.kind == doubleNumber) {
		return "-"
	}
	return ""
}

// maxPlaces bounds the precision that a format may ask for.
const maxPlaces = 1000

// formatNumber applies a .NET format to a number, in the invariant culture.
func formatNumber(d decimal, f float64, format string) (string, bool) {
	if d.kind == doubleNumber && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return formatDouble(f), true
	}
	if format == "" {
		format = "G"
	}
	if isLetter(format[0]) && len(format) <= 4 && strings.Trim(format[1:], "0123456789") == "" {
		places := -1
		if len(format) > 1 {
			places, _ = strconv.Atoi(format[1:])
			if places > maxPlaces {
				return "", false
			}
		}
		return standardNumber(d, f, format[0], places)
	}
	return customNumber(d, format), true
}

func standardNumber(d decimal, f float64, format byte, places int) (string, bool) {
	or := func(n int) int {
		if places < 0 {
			return n
		}
		return places
	}
	point := func(whole, fraction string) string {
		if fraction == "" {
			return whole
		}
		return whole + "." + fraction
	}
	switch format | 0x20 {
	case 'c':
		d.round(or(2))
		whole, fraction := d.fixed(or(2))
		if s := "¤" + point(group(whole), fraction); d.sign() == "" {
			return s, true
		} else {
			return "(" + s + ")", true
		}
	case 'd':
		if d.kind != integerNumber {
			return "", false
		}
		whole, _ := d.fixed(0)
		return d.sign() + strings.Repeat("0", max(0, places-len(whole))) + whole, true
	case 'e':
		return scientific(d, or(6), format, 3), true
	case 'f':
		d.round(or(2))
		return d.sign() + point(d.fixed(or(2))), true
	case 'n':
		d.round(or(2))
		whole, fraction := d.fixed(or(2))
		return d.sign() + point(group(whole), fraction), true
	case 'p':
		d.exp += 2
		d.normalize()
		d.round(or(2))
		whole, fraction := d.fixed(or(2))
		return d.sign() + point(group(whole), fraction) + " %", true
	case 'r':
		if d.kind != doubleNumber {
			return "", false
		}
		return formatDouble(f), true
	case 'x':
		if d.kind != integerNumber {
			return "", false
		}
		s := strconv.FormatUint(uint64(uint32(int32(f))), 16)
		if format == 'X' {
			s = strings.ToUpper(s)
		}
		return strings.Repeat("0", max(0, places-len(s))) + s, true
	case 'g':
		return general(d, f, format, places), true
	}
	return "", false
}

func general(d decimal, f float64, format byte, places int) string {
	if places <= 0 {
		switch d.kind {
		case doubleNumber:
			if format == 'g' {
				return strings.ToLower(formatDouble(f))
			}
			return formatDouble(f)
		case decimalNumber:
			whole, fraction := d.fixed(d.scale)
			if fraction != "" {
				whole += "." + fraction
			}
			return d.sign() + whole
		case integerNumber:
			whole, _ := d.fixed(0)
			return d.sign() + whole
		}
	}
	d.round(places - d.exp)
	if d.exp > places || d.exp < -3 {
		return scientific(d, max(0, len(d.digits)-1), format-'g'+'e', 2)
	}
	whole, fraction := d.fixed(max(0, len(d.digits)-d.exp))
	if fraction != "" {
		whole += "." + fraction
	}
	return d.sign() + whole
}

// scientific writes d.ddde+003.
func scientific(d decimal, places int, e byte, width int) string {
	d.round(places + 1 - d.exp)
	exp := d.exp - 1
	if d.digits == "" {
		exp = 0
	}
	s := d.sign() + d.digit(0, 1)
	if places > 0 {
		s += "." + d.digit(1, places+1)
	}
	return s + string(e) + exponent(exp, true, width)
}

func exponent(n int, plus bool, width int) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	} else if plus {
		sign = "+"
	}
	s := strconv.Itoa(n)
	return sign + strings.Repeat("0", max(0, width-len(s))) + s
}

// group separates thousands.
func group(whole string) string {
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return whole
}

// customNumber applies a picture such as "#,##0.00;(0)".
func customNumber(d decimal, format string) string {
	sections := pictureSections(format)
	pick := 0
	if d.digits == "" && len(sections) > 2 {
		pick = 2
	} else if d.neg && len(sections) > 1 && sections[1] != "" {
		pick = 1
	}
	p := newPicture(sections[pick])
	n := d
	n.exp += p.shift
	if p.exponent {
		n.round(p.whole + p.fraction - n.exp)
	} else {
		n.round(p.fraction)
	}
	if n.digits == "" && d.digits != "" && len(sections) > 2 {
		// What rounds to zero shows as zero.
		pick = 2
		p = newPicture(sections[2])
	}
	sign := ""
	if pick == 0 && d.neg && (n.digits != "" || d.kind == doubleNumber) {
		sign = "-"
	}
	return sign + p.apply(n)
}

// pictureSections splits a picture at the ";" that are not quoted.
func pictureSections(format string) []string {
	var out []string
	start := 0
	for i := 0; i < len(format); i++ {
		switch c := format[i]; c {
		case '\\':
			i++
		case '\'', '"':
			if n := strings.IndexByte(format[i+1:], c); n >= 0 {
				i += n + 1
			} else {
				i = len(format)
			}
		case ';':
			out = append(out, format[start:i])
			start = i + 1
		}
	}
	return append(out, format[min(start, len(format)):])
}

// picture is one section of a custom format.
type picture struct {
	src      string
	whole    int // places before the point
	fraction int // places behind it
	minWhole int // of these, how many always show
	minFrac  int
	shift    int // powers of ten: % multiplies by 100, a trailing comma divides by 1000
	grouped  bool
	exponent bool
}

func newPicture(src string) picture {
	p := picture{src: src}
	point, firstZero, lastZero, commas := false, -1, -1, 0
	p.scan(func(c byte, lit string) {
		switch {
		case lit != "":
			p.exponent = p.exponent || c == 'E'
		case c == '0' || c == '#':
			if commas > 0 && !point && p.whole > 0 {
				p.grouped = true
			}
			commas = 0
			if point {
				if p.fraction++; c == '0' {
					lastZero = p.fraction
				}
			} else {
				if c == '0' && firstZero < 0 {
					firstZero = p.whole
				}
				p.whole++
			}
		case c == '.':
			if !point {
				p.shift -= 3 * commas
				commas = 0
			}
			point = true
		case c == ',':
			if p.whole > 0 && !point {
				commas++
			}
		case c == '%':
			p.shift += 2
		case c == 'm':
			p.shift += 3
		}
	})
	if !point {
		p.shift -= 3 * commas
	}
	if firstZero >= 0 {
		p.minWhole = p.whole - firstZero
	}
	p.minFrac = max(lastZero, 0)
	return p
}

// scan calls fn for each element: a placeholder c, or a literal text, which for
// an exponent comes with c = 'E'. A per mille sign is c = 'm'.
func (p *picture) scan(fn func(c byte, literal string)) {
	s := p.src
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '0', '#', '.', ',', '%':
			fn(c, "")
		case '\\':
			if i++; i < len(s) {
				fn(0, s[i:i+1])
			}
		case '\'', '"':
			n := strings.IndexByte(s[i+1:], c)
			if n < 0 {
				n = len(s) - i - 1
			}
			if n > 0 {
				fn(0, s[i+1:i+1+n])
			}
			i += n + 1
		case 'e', 'E':
			j := i + 1
			if j < len(s) && (s[j] == '+' || s[j] == '-') {
				j++
			}
			k := j
			for k < len(s) && s[k] == '0' {
				k++
			}
			if k > j {
				fn('E', s[i:k])
				i = k - 1
			} else {
				fn(0, s[i:i+1])
			}
		default:
			if strings.HasPrefix(s[i:], "‰") {
				fn('m', "")
				i += len("‰") - 1
			} else {
				fn(0, s[i:i+1])
			}
		}
	}
}

func (p *picture) apply(d decimal) string {
	exp := 0
	if p.exponent {
		exp = d.exp - p.whole
		if d.digits == "" {
			exp = 0
		}
		d.exp -= exp
	}
	whole, fraction := d.fixed(p.fraction)
	whole = strings.TrimLeft(whole, "0")
	whole = strings.Repeat("0", max(0, p.minWhole-len(whole))) + whole
	for len(fraction) > p.minFrac && fraction[len(fraction)-1] == '0' {
		fraction = fraction[:len(fraction)-1]
	}
	// The digits that have no place of their own go before the first place.
	var b strings.Builder
	place, at, point := 0, 0, false
	digit := func() {
		b.WriteByte(whole[at])
		at++
		if left := len(whole) - at; p.grouped && left > 0 && left%3 == 0 {
			b.WriteByte(',')
		}
	}
	p.scan(func(c byte, lit string) {
		switch {
		case c == 'E' && lit != "":
			b.WriteByte(lit[0])
			plus := len(lit) > 1 && lit[1] == '+'
			b.WriteString(exponent(exp, plus, strings.Count(lit, "0")))
		case lit != "":
			b.WriteString(lit)
		case c == '0' || c == '#':
			if point {
				if fraction != "" {
					b.WriteByte(fraction[0])
					fraction = fraction[1:]
				}
				return
			}
			place++
			for len(whole)-at > p.whole-place {
				digit()
			}
		case c == '.':
			if !point {
				for at < len(whole) {
					digit()
				}
				if point = true; fraction != "" {
					b.WriteByte('.')
				}
			}
		case c == '%':
			b.WriteByte('%')
		case c == 'm':
			b.WriteString("‰")
		}
	})
	return b.String()
}
