package octostache

import (
	"math"
	"strconv"
	"strings"
	"time"
)

func nowDate(f *filtering) (string, bool, error) { return now(f, date{t: f.e.opts.Now}) }

func nowDateUTC(f *filtering) (string, bool, error) {
	return now(f, date{t: f.e.opts.Now.UTC(), zone: utcZone})
}

func now(f *filtering, d date) (string, bool, error) {
	if f.has || len(f.opts) > 1 {
		return "", false, nil
	}
	layout := "O"
	if len(f.opts) == 1 {
		layout = f.opts[0]
	}
	s, ok := formatDate(d, layout)
	return s, ok, nil
}

// ticksPerSecond is the precision of dates.
const ticksPerSecond = 10_000_000

// addSeconds makes a filter that moves a date by its option, a number of units
// of that many seconds.
func addSeconds(unit float64) filter {
	return func(f *filtering) (string, bool, error) {
		if len(f.opts) != 1 || strings.Contains(f.opts[0], ",") {
			return "", false, nil
		}
		n, ok := parseDouble(f.opts[0])
		ticks := n * unit * ticksPerSecond
		if !ok || math.IsNaN(ticks) || math.Abs(ticks) >= math.MaxInt64 {
			return "", false, nil
		}
		return shift(f, func(t time.Time) time.Time {
			whole, rest := int64(ticks)/ticksPerSecond, int64(ticks)%ticksPerSecond
			return time.Unix(t.Unix()+whole, int64(t.Nanosecond())+rest*100).In(t.Location())
		})
	}
}

// addMonths moves a date by a whole number of months; a day that the month
// lacks becomes its last one.
func addMonths(f *filtering) (string, bool, error) {
	if len(f.opts) != 1 {
		return "", false, nil
	}
	n, ok := parseInt32(f.opts[0])
	if !ok || n < -120000 || n > 120000 {
		return "", false, nil
	}
	return shift(f, func(t time.Time) time.Time {
		first := time.Date(t.Year(), t.Month()+time.Month(n), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), t.Location())
		last := first.AddDate(0, 1, -1).Day()
		return first.AddDate(0, 0, min(t.Day(), last)-1)
	})
}

// shift moves the input and writes it in the round-trip format, with the zone it had.
func shift(f *filtering, move func(time.Time) time.Time) (string, bool, error) {
	if !f.has {
		return "", false, nil
	}
	d, ok := parseDate(f.in, f.e.opts.Now)
	if !ok {
		return "", false, nil
	}
	if d.zone == noZone { // the clock on the wall moves, whatever the zone does that day
		t := d.t
		d.t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	}
	if d.t = move(d.t); d.t.Year() < 1 || d.t.Year() > 9999 {
		return "", false, nil
	}
	s, ok := formatDate(d, "O")
	return s, ok, nil
}

// format takes a format, or a type and a format. Without a type the input is
// taken as a decimal number or else as a date with an offset.
func format(f *filtering) (string, bool, error) {
	if !f.has || len(f.opts) < 1 || len(f.opts) > 2 {
		return "", false, nil
	}
	kind, layout := "", f.opts[len(f.opts)-1]
	if len(f.opts) == 2 {
		kind = fold(f.opts[0])
	}
	s, ok := formatAs(f, kind, layout)
	return s, ok, nil
}

func formatAs(f *filtering, kind, layout string) (string, bool) {
	switch kind {
	case "", "DECIMAL":
		if d, ok := parseDecimal(f.in); ok {
			v, _ := strconv.ParseFloat(f.in, 64)
			return formatNumber(d, v, layout)
		}
		if kind != "" {
			return "", false
		}
	case "INT", "INT32":
		n, ok := parseInt32(f.in)
		if !ok {
			return "", false
		}
		return formatNumber(newInteger(n), float64(n), layout)
	case "DOUBLE":
		v, ok := parseDouble(f.in)
		if !ok {
			return "", false
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return formatNumber(decimal{kind: doubleNumber}, v, layout)
		}
		return formatNumber(newDouble(v), v, layout)
	case "DATE", "DATETIME", "DATETIMEOFFSET":
	default:
		return "", false
	}
	d, ok := parseDate(f.in, f.e.opts.Now)
	if !ok {
		return "", false
	}
	if kind == "" || kind == "DATETIMEOFFSET" {
		d.zone = ownZone
	} else if d.zone != noZone {
		d = date{t: d.t.In(f.e.opts.Now.Location()), zone: localZone}
	}
	return formatDate(d, layout)
}
