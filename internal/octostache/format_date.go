package octostache

import (
	"strconv"
	"strings"
	"time"
)

// date is a moment as .NET's DateTime and DateTimeOffset have it.
type date struct {
	t    time.Time // in the zone it was given in
	zone zoneKind
}

type zoneKind uint8

const (
	noZone    zoneKind = iota // a DateTime that does not say; shown in local time
	utcZone                   // a DateTime in UTC
	localZone                 // a DateTime in local time
	ownZone                   // a DateTimeOffset
)

// parseDate reads a date, a time or both as .NET does in the invariant culture,
// with the month before the day. The zone of the result is noZone, utcZone (for
// Z and GMT) or ownZone. Without a zone the time is in that of now; a time alone
// is on now's day.
func parseDate(s string, now time.Time) (date, bool) {
	s = strings.TrimFunc(s, isSpace)
	if len(s) > 100 {
		return date{}, false
	}
	d := date{}
	loc := now.Location()
	day, clock := s, ""
	if i := strings.IndexByte(s, ':'); i >= 0 {
		start := i
		for start > 0 && isDigit(s[start-1]) {
			start--
		}
		day, clock = s[:start], s[start:]
		if clock, loc, d.zone = cutZone(clock, loc); loc == nil {
			return date{}, false
		}
	}
	year, month, dom := now.Date()
	if day = strings.TrimRight(day, " T,"); day != "" {
		t, ok := parseDay(day)
		if !ok {
			return date{}, false
		}
		year, month, dom = t.Date()
	}
	offset, ok := parseClock(clock)
	if !ok || day == "" && clock == "" {
		return date{}, false
	}
	h, m, sec := int(offset/time.Hour), int(offset/time.Minute%60), int(offset/time.Second%60)
	d.t = time.Date(year, month, dom, h, m, sec, int(offset%time.Second), loc)
	return d, d.t.Year() >= 1 && d.t.Year() <= 9999
}

// cutZone takes Z, GMT or an offset from the end of a time. A nil location means that it is not valid.
func cutZone(s string, local *time.Location) (string, *time.Location, zoneKind) {
	for _, utc := range [...]string{"Z", "GMT"} {
		if n := len(s) - len(utc); n >= 0 && strings.EqualFold(s[n:], utc) {
			return strings.TrimRight(s[:n], " "), time.UTC, utcZone
		}
	}
	i := strings.LastIndexAny(s, "+-")
	if i < 0 {
		return s, local, noZone
	}
	h, m, _ := strings.Cut(s[i+1:], ":")
	if m == "" && len(h) == 4 {
		h, m = h[:2], h[2:]
	}
	hours, ok := clockNumber(h)
	minutes, ok2 := 0, true
	if m != "" {
		minutes, ok2 = clockNumber(m)
	}
	if !ok || !ok2 || hours > 14 || minutes > 59 {
		return s, nil, noZone
	}
	seconds := hours*3600 + minutes*60
	if s[i] == '-' {
		seconds = -seconds
	}
	return strings.TrimRight(s[:i], " "), time.FixedZone("", seconds), ownZone
}

func clockNumber(s string) (int, bool) {
	if len(s) < 1 || len(s) > 2 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// parseClock reads h:mm, h:mm:ss and h:mm:ss.fff, followed by AM or PM or not.
func parseClock(s string) (time.Duration, bool) {
	if s == "" {
		return 0, true
	}
	half := ""
	if n := len(s) - 2; n > 0 {
		if h := fold(s[n:]); h == "AM" || h == "PM" {
			half, s = h, strings.TrimRight(s[:n], " ")
		}
	}
	hms := strings.Split(s, ":")
	var seconds, fraction string
	switch len(hms) {
	case 2:
		seconds = "0"
	case 3:
		seconds, fraction, _ = strings.Cut(hms[2], ".")
	default:
		return 0, false
	}
	h, ok := clockNumber(hms[0])
	m, ok2 := clockNumber(hms[1])
	sec, ok3 := clockNumber(seconds)
	if !ok || !ok2 || !ok3 || m > 59 || sec > 59 || strings.Trim(fraction, "0123456789") != "" {
		return 0, false
	}
	switch {
	case half == "" && h > 23, half != "" && (h < 1 || h > 12):
		return 0, false
	case half == "AM" && h == 12:
		h = 0
	case half == "PM" && h < 12:
		h += 12
	}
	// Dates have seven digits of a second.
	ticks, _ := strconv.Atoi((fraction + "0000000")[:7])
	if len(fraction) > 7 && fraction[7] >= '5' {
		ticks++
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(sec)*time.Second + time.Duration(ticks)*100, true
}

func parseDay(s string) (time.Time, bool) {
	s = strings.Join(strings.Fields(strings.ReplaceAll(s, ",", " ")), " ")
	if word, rest, ok := strings.Cut(s, " "); ok {
		for _, layout := range [...]string{"Monday", "Mon"} {
			if _, err := time.Parse(layout, word); err == nil {
				s = rest
				break
			}
		}
	}
	for _, layout := range [...]string{
		"2006-1-2", "2006/1/2", "2006.1.2", "1/2/2006", "1-2-2006", "1.2.2006",
		"2 Jan 2006", "2 January 2006", "Jan 2 2006", "January 2 2006", "2006 Jan 2", "2006 January 2",
		"2-Jan-2006", "2-January-2006", "2006-Jan-2",
		"2006-1", "2006/1", "1/2006", "Jan 2006", "January 2006", "2006 January", "2006 Jan",
		"1/2/06", "1-2-06", "2-Jan-06", "2 Jan 06",
	} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if strings.HasSuffix(layout, "06") && !strings.HasSuffix(layout, "2006") && t.Year() >= 2050 {
			t = t.AddDate(-100, 0, 0)
		}
		return t, true
	}
	return time.Time{}, false
}

// formatDate applies a .NET format to a date, in the invariant culture.
func formatDate(d date, format string) (string, bool) {
	if format == "" {
		format = "G"
		if d.zone == ownZone {
			format = "MM/dd/yyyy HH:mm:ss zzz"
		}
	}
	if len(format) == 1 {
		long, ok := standardDate(&d, format[0])
		if !ok {
			return "", false
		}
		format = long
	}
	return customDate(d, format)
}

func standardDate(d *date, format byte) (string, bool) {
	utc := func() {
		if d.zone == ownZone {
			d.t = d.t.UTC()
		}
	}
	switch format {
	case 'd':
		return "MM/dd/yyyy", true
	case 'D':
		return "dddd, dd MMMM yyyy", true
	case 'f':
		return "dddd, dd MMMM yyyy HH:mm", true
	case 'F':
		return "dddd, dd MMMM yyyy HH:mm:ss", true
	case 'g':
		return "MM/dd/yyyy HH:mm", true
	case 'G':
		return "MM/dd/yyyy HH:mm:ss", true
	case 'm', 'M':
		return "MMMM dd", true
	case 'o', 'O':
		return "yyyy-MM-ddTHH:mm:ss.fffffffK", true
	case 'r', 'R':
		utc()
		return "ddd, dd MMM yyyy HH:mm:ss 'GMT'", true
	case 's':
		return "yyyy-MM-ddTHH:mm:ss", true
	case 't':
		return "HH:mm", true
	case 'T':
		return "HH:mm:ss", true
	case 'u':
		utc()
		return "yyyy-MM-dd HH:mm:ss'Z'", true
	case 'U':
		if d.zone == ownZone {
			return "", false
		}
		d.t = d.t.UTC()
		return "dddd, dd MMMM yyyy HH:mm:ss", true
	case 'y', 'Y':
		return "yyyy MMMM", true
	}
	return "", false
}

func customDate(d date, format string) (string, bool) {
	if strings.HasPrefix(format, "%") && len(format) == 2 {
		format = format[1:]
	}
	var b strings.Builder
	for i := 0; i < len(format); {
		c := format[i]
		n := 1
		for i+n < len(format) && format[i+n] == c {
			n++
		}
		switch c {
		case '\'', '"':
			end, ok := quotedDate(&b, format[i:])
			if !ok {
				return "", false
			}
			n = end
		case '\\':
			if i+1 == len(format) {
				return "", false
			}
			b.WriteByte(format[i+1])
			n = 2
		case '%':
			// It makes the next character a format of its own, which it is here anyway.
			if i+1 == len(format) || format[i+1] == '%' {
				return "", false
			}
			n = 1
		default:
			var ok bool
			if n, ok = datePart(&b, d, c, n); !ok {
				return "", false
			}
		}
		i += n
	}
	return b.String(), true
}

// quotedDate copies a quoted literal and returns its length with the quotes.
func quotedDate(b *strings.Builder, s string) (int, bool) {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return i + 1, true
		case s[i] == '\\':
			if i++; i == len(s) {
				return 0, false
			}
		}
		b.WriteByte(s[i])
	}
	return 0, false
}

// datePart writes n characters c of a format, or fewer, and returns how many.
func datePart(b *strings.Builder, d date, c byte, n int) (int, bool) {
	pad := func(value, width int) {
		s := strconv.Itoa(value)
		b.WriteString(strings.Repeat("0", max(0, width-len(s))))
		b.WriteString(s)
	}
	t := d.t
	switch c {
	case 'd':
		switch {
		case n <= 2:
			pad(t.Day(), n)
		case n == 3:
			b.WriteString(t.Format("Mon"))
		default:
			b.WriteString(t.Weekday().String())
		}
	case 'M':
		switch {
		case n <= 2:
			pad(int(t.Month()), n)
		case n == 3:
			b.WriteString(t.Format("Jan"))
		default:
			b.WriteString(t.Month().String())
		}
	case 'y':
		if n <= 2 {
			pad(t.Year()%100, n)
		} else {
			pad(t.Year(), min(n, 20))
		}
	case 'h':
		pad((t.Hour()+11)%12+1, min(n, 2))
	case 'H':
		pad(t.Hour(), min(n, 2))
	case 'm':
		pad(t.Minute(), min(n, 2))
	case 's':
		pad(t.Second(), min(n, 2))
	case 'f', 'F':
		if n > 7 {
			return n, false
		}
		digits := t.Format(".0000000")[1 : n+1]
		if c == 'F' {
			if digits = strings.TrimRight(digits, "0"); digits == "" {
				// The point before it goes too.
				if s := b.String(); strings.HasSuffix(s, ".") {
					b.Reset()
					b.WriteString(s[:len(s)-1])
				}
			}
		}
		b.WriteString(digits)
	case 't':
		half := "AM"
		if t.Hour() >= 12 {
			half = "PM"
		}
		b.WriteString(half[:min(n, 2)])
	case 'g':
		b.WriteString("A.D.")
	case 'z':
		offset(b, t, n)
	case 'K':
		for range n {
			switch d.zone {
			case utcZone:
				b.WriteByte('Z')
			case localZone, ownZone:
				offset(b, t, 3)
			case noZone:
			}
		}
	default:
		b.WriteString(strings.Repeat(string(c), n))
	}
	return n, true
}

// offset writes the distance from UTC: +h, +hh or +hh:mm.
func offset(b *strings.Builder, t time.Time, n int) {
	_, seconds := t.Zone()
	sign := byte('+')
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	b.WriteByte(sign)
	h, m := seconds/3600, seconds/60%60
	if n == 1 {
		b.WriteString(strconv.Itoa(h))
		return
	}
	two := func(v int) { b.WriteString(strconv.Itoa(v/10) + strconv.Itoa(v%10)) }
	if two(h); n > 2 {
		b.WriteByte(':')
		two(m)
	}
}
