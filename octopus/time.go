package octopus

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Time is an instant as the API writes it: in UTC, to the millisecond, with an
// explicit zone ("2026-01-02T03:04:05.678+00:00"). Members that may be null are
// of type *Time.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000-07:00"

// NewTime wraps t.
func NewTime(t time.Time) Time { return Time{t.UTC()} }

// OptionalTime wraps t, and gives null for the zero time.
func OptionalTime(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{t.UTC()}
}

// Equal reports whether both are the same instant.
func (t Time) Equal(u Time) bool { return t.Time.Equal(u.Time) }

// String returns the text that the wire carries.
func (t Time) String() string { return t.UTC().Format(timeLayout) }

// MarshalJSON writes the instant in UTC. Years outside 1 to 9999 are an error,
// since no client could read them.
func (t Time) MarshalJSON() ([]byte, error) {
	if err := checkYear(t.Time); err != nil {
		return nil, err
	}
	return []byte(`"` + t.String() + `"`), nil
}

// UnmarshalJSON reads RFC 3339, with or without a fraction. People type these
// texts into command lines, so a blank may stand for the T, seconds may be left
// out, a text without a zone is UTC, and a date alone is its midnight. null and
// "" leave t as it is.
func (t *Time) UnmarshalJSON(data []byte) error {
	u, ok, err := readTime(data)
	if ok && err == nil {
		t.Time = u.UTC()
	}
	return err
}

// readTime reads a time in the zone that its text has; ok is false for null and "".
func readTime(data []byte) (u time.Time, ok bool, err error) {
	if firstByte(data) == 'n' {
		return u, false, nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return u, false, fmt.Errorf("time %s: want a text such as \"2026-01-02T03:04:05+00:00\"", excerpt(data))
	}
	if s = strings.TrimSpace(s); s == "" {
		return u, false, nil
	}
	for _, layout := range []string{
		time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 Z07:00",
		"2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.DateOnly,
	} {
		if u, err := time.Parse(layout, s); err == nil {
			return u, true, checkYear(u)
		}
	}
	return u, false, fmt.Errorf("time %s: want the form 2026-01-02T03:04:05+00:00", excerpt(data))
}

// ClockTime is what a wall clock shows ("2026-01-02T09:00:00.000"); where that clock
// hangs is said elsewhere. It is written without a zone, as clients expect who would
// turn an instant into their own time.
type ClockTime struct {
	// Time shows it in UTC.
	time.Time
}

const clockLayout = "2006-01-02T15:04:05.000"

// String returns the text that the wire carries.
func (t ClockTime) String() string { return t.UTC().Format(clockLayout) }

// MarshalJSON writes what the clock shows.
func (t ClockTime) MarshalJSON() ([]byte, error) {
	if err := checkYear(t.Time); err != nil {
		return nil, err
	}
	return []byte(`"` + t.String() + `"`), nil
}

// UnmarshalJSON reads the texts that Time reads. A zone in the text is that of whoever
// wrote it and has no meaning: "2026-01-02T09:00:00+02:00" is nine o'clock.
func (t *ClockTime) UnmarshalJSON(data []byte) error {
	u, ok, err := readTime(data)
	if err != nil || !ok {
		return err
	}
	t.Time = time.Date(u.Year(), u.Month(), u.Day(), u.Hour(), u.Minute(), u.Second(), u.Nanosecond(), time.UTC)
	return checkYear(t.Time)
}

func checkYear(t time.Time) error {
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return fmt.Errorf("time of year %d: want 1 to 9999", y)
	}
	return nil
}

// TimeSpan is a period, on the wire a text of the form [-][d.]hh:mm:ss[.fffffff]
// ("00:02:30", "1.12:00:00").
type TimeSpan time.Duration

// Duration returns the period as Go counts it.
func (s TimeSpan) Duration() time.Duration { return time.Duration(s) }

// String returns the text that the wire carries. A fraction is written with
// seven digits (units of 100 ns) and only when there is one.
func (s TimeSpan) String() string {
	d, sign := time.Duration(s), ""
	ticks := uint64(d / 100)
	if d < 0 {
		sign, ticks = "-", uint64(-(d / 100))
	}
	const perSecond = 10_000_000
	seconds, fraction := ticks/perSecond, ticks%perSecond
	text := fmt.Sprintf("%02d:%02d:%02d", seconds/3600%24, seconds/60%60, seconds%60)
	if days := seconds / 86400; days > 0 {
		text = fmt.Sprintf("%d.%s", days, text)
	}
	if fraction > 0 {
		text += fmt.Sprintf(".%07d", fraction)
	}
	if ticks == 0 {
		sign = ""
	}
	return sign + text
}

// MarshalJSON writes the text of String.
func (s TimeSpan) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// UnmarshalJSON reads what [ParseTimeSpan] reads; null leaves s as it is.
func (s *TimeSpan) UnmarshalJSON(data []byte) error {
	if firstByte(data) == 'n' {
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("period %s: want a text such as \"00:02:30\"", excerpt(data))
	}
	span, err := ParseTimeSpan(text)
	if err != nil {
		return err
	}
	*s = span
	return nil
}

// ParseTimeSpan reads [-][d.]hh:mm[:ss[.fffffff]], or a whole number of days.
// Hours go to 23, minutes and seconds to 59; a period that [time.Duration]
// cannot hold (about 292 years) is an error.
func ParseTimeSpan(text string) (TimeSpan, error) {
	bad := func() (TimeSpan, error) {
		return 0, fmt.Errorf("period %q: want the form hh:mm:ss or d.hh:mm:ss", excerpt([]byte(text)))
	}
	rest, negative := strings.CutPrefix(strings.TrimSpace(text), "-")
	clock := strings.Split(rest, ":")
	var days, hours, minutes, seconds, ticks uint64
	ok := true
	part := func(s string, most uint64, width int) uint64 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n > most || len(s) > width || s[0] == '+' {
			ok = false
		}
		return n
	}
	const maxDays = 106751 // what a time.Duration holds
	if d, h, found := strings.Cut(clock[0], "."); found || len(clock) == 1 {
		if days = part(d, maxDays, 8); found {
			if len(clock) == 1 {
				return bad()
			}
			clock[0] = h
		}
	}
	switch len(clock) {
	case 1:
	case 3:
		s, fraction, found := strings.Cut(clock[2], ".")
		seconds = part(s, 59, 2)
		if found {
			if fraction == "" || len(fraction) > 7 {
				return bad()
			}
			ticks = part((fraction + "000000")[:7], 9_999_999, 7)
		}
		fallthrough
	case 2:
		hours, minutes = part(clock[0], 23, 2), part(clock[1], 59, 2)
	default:
		return bad()
	}
	if !ok {
		return bad()
	}
	total := (((days*24+hours)*60+minutes)*60+seconds)*10_000_000 + ticks
	if total > math.MaxInt64/100 {
		return bad()
	}
	span := TimeSpan(total * 100)
	if negative {
		span = -span
	}
	return span, nil
}
