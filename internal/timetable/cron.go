package timetable

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxCron bounds a cron expression, in bytes.
const maxCron = 500

// Cron reads a cron expression: seconds, minutes, hours, day of the month, month,
// day of the week and, if it is to be restricted, the year, each as `*`, a value,
// a range, a step (`0/15`, `8-18/2`) or a list of these. Months and days of the
// week may have English names of three letters; Sunday is 0 or 7. A day of the
// month can also be `?` (any), `L` (the last), `LW` (the last working day) or
// `15W` (the working day next to the 15th), a day of the week `?`, `5L` (the last
// Friday) or `5#2` (the second). All fields must match: a 13th and a Friday is a
// Friday the 13th. With five fields the seconds are 0.
func Cron(expression string, zone *time.Location) (*Timetable, error) {
	if len(expression) > maxCron {
		return nil, fmt.Errorf("it has %d characters; use at most %d", len(expression), maxCron)
	}
	fields := strings.Fields(strings.ToUpper(expression))
	if len(fields) == 5 {
		fields = append([]string{"0"}, fields...)
	}
	if len(fields) < 6 || len(fields) > 7 {
		return nil, fmt.Errorf("it has %d fields; use six, for seconds, minutes, hours, day of the month, month and day of the week, such as 0 0 6 * * Mon-Fri", len(fields))
	}
	var c cron
	var err error
	for i, f := range []struct {
		to *field
		of unit
	}{
		{&c.seconds, unit{name: "seconds", low: 0, high: 59}},
		{&c.minutes, unit{name: "minutes", low: 0, high: 59}},
		{&c.hours, unit{name: "hours", low: 0, high: 23}},
		{nil, unit{}},
		{&c.months, unit{name: "month", low: 1, high: 12, names: monthNames}},
	} {
		if f.to == nil {
			continue
		}
		if *f.to, err = f.of.parse(fields[i]); err != nil {
			return nil, err
		}
	}
	if c.date, err = parseDates(fields[3]); err != nil {
		return nil, err
	}
	if c.weekday, err = parseWeekdays(fields[5]); err != nil {
		return nil, err
	}
	if len(fields) == 7 {
		if c.years, err = parseYears(fields[6]); err != nil {
			return nil, err
		}
	}
	return &Timetable{zone: zone, days: c.day, clock: c.clock}, nil
}

// field is a set of small numbers.
type field uint64

func (f field) has(n int) bool { return f&(1<<n) != 0 }

// next is the smallest member that is at least n, -1 when there is none.
func (f field) next(n int) int {
	rest := uint64(f) >> n << n
	if n > 63 || rest == 0 {
		return -1
	}
	return bits.TrailingZeros64(rest)
}

type cron struct {
	seconds, minutes, hours, months field
	date, weekday                   []func(date time.Time) bool // any of them
	years                           []span                      // none is every year
}

func (c *cron) day(date time.Time) bool {
	match := func(any []func(time.Time) bool) bool {
		return slices.ContainsFunc(any, func(f func(time.Time) bool) bool { return f(date) })
	}
	year := len(c.years) == 0 || slices.ContainsFunc(c.years, func(s span) bool { return s.has(date.Year()) })
	return year && c.months.has(int(date.Month())) && match(c.date) && match(c.weekday)
}

func (c *cron) clock(from int) (int, bool) {
	if from >= daySeconds {
		return 0, false
	}
	hour, minute, second := from/3600, from/60%60, from%60
	if c.hours.has(hour) {
		if c.minutes.has(minute) {
			if s := c.seconds.next(second); s >= 0 {
				return hour*3600 + minute*60 + s, true
			}
		}
		if m := c.minutes.next(minute + 1); m >= 0 {
			return hour*3600 + m*60 + c.seconds.next(0), true
		}
	}
	if h := c.hours.next(hour + 1); h >= 0 {
		return h*3600 + c.minutes.next(0)*60 + c.seconds.next(0), true
	}
	return 0, false
}

// span is every step-th number from low to high.
type span struct{ low, high, step int }

func (s span) has(n int) bool { return n >= s.low && n <= s.high && (n-s.low)%s.step == 0 }

// unit is what a field counts.
type unit struct {
	name      string
	low, high int
	names     []string // of low, low+1, ...
}

// The names that fields take, and what single fields count.
var (
	monthNames = []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"} //nolint:gochecknoglobals // constant
	dayNames   = []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}                                    //nolint:gochecknoglobals // constant

	datesUnit    = unit{name: "day of the month", low: 1, high: 31}                //nolint:gochecknoglobals // constant
	weekdaysUnit = unit{name: "day of the week", low: 0, high: 7, names: dayNames} //nolint:gochecknoglobals // constant
	yearsUnit    = unit{name: "year", low: 1, high: 9999}                          //nolint:gochecknoglobals // constant
)

// number reads one value.
func (u unit) number(text string) (int, error) {
	if i := slices.Index(u.names, text); i >= 0 {
		return u.low + i, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < u.low || n > u.high || strings.HasPrefix(text, "+") {
		return 0, fmt.Errorf("its %s field has '%s'; use %d to %d", u.name, text, u.low, u.high)
	}
	return n, nil
}

// span reads one entry of a list.
func (u unit) span(text string) (s span, err error) {
	s = span{u.low, u.high, 1}
	values, step, stepped := strings.Cut(text, "/")
	if stepped {
		n, err := strconv.Atoi(step)
		if err != nil || n < 1 || n > u.high {
			return s, fmt.Errorf("its %s field has the step '%s'; use 1 to %d", u.name, step, u.high)
		}
		s.step = n
	}
	if values == "*" {
		return s, nil
	}
	low, high, ranged := strings.Cut(values, "-")
	if s.low, err = u.number(low); err != nil {
		return s, err
	}
	switch {
	case ranged:
		if s.high, err = u.number(high); err != nil {
			return s, err
		}
		if s.high < s.low {
			return s, fmt.Errorf("its %s field has '%s', which ends before it begins", u.name, values)
		}
	case !stepped:
		s.high = s.low
	}
	return s, nil
}

// parse reads a list of plain entries.
func (u unit) parse(text string) (f field, err error) {
	for entry := range strings.SplitSeq(text, ",") {
		s, err := u.span(entry)
		if err != nil {
			return 0, err
		}
		f |= s.field()
	}
	return f, nil
}

func (s span) field() (f field) {
	for n := s.low; n <= s.high; n += s.step {
		f |= 1 << n
	}
	return f
}

func parseYears(text string) (out []span, err error) {
	for entry := range strings.SplitSeq(text, ",") {
		s, err := yearsUnit.span(entry)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func everyDay(time.Time) bool { return true }

// parseDates reads the field of days of the month.
func parseDates(text string) (any []func(time.Time) bool, err error) {
	for entry := range strings.SplitSeq(text, ",") {
		switch {
		case entry == "?":
			any = append(any, everyDay)
		case entry == "L":
			any = append(any, func(d time.Time) bool { return d.Day() == lastDay(d) })
		case entry == "LW":
			any = append(any, func(d time.Time) bool { return d.Day() == workday(d, lastDay(d)) })
		case strings.HasSuffix(entry, "W"):
			n, err := datesUnit.number(strings.TrimSuffix(entry, "W"))
			if err != nil {
				return nil, err
			}
			any = append(any, func(d time.Time) bool { return n <= lastDay(d) && d.Day() == workday(d, n) })
		default:
			s, err := datesUnit.span(entry)
			if err != nil {
				return nil, err
			}
			any = append(any, func(d time.Time) bool { return s.has(d.Day()) })
		}
	}
	return any, nil
}

// parseWeekdays reads the field of days of the week.
func parseWeekdays(text string) (any []func(time.Time) bool, err error) {
	for entry := range strings.SplitSeq(text, ",") {
		name, nth, numbered := strings.Cut(entry, "#")
		switch {
		case entry == "?":
			any = append(any, everyDay)
		case numbered:
			day, err := weekdaysUnit.number(name)
			if err != nil {
				return nil, err
			}
			n, err := strconv.Atoi(nth)
			if err != nil || n < 1 || n > 5 {
				return nil, fmt.Errorf("its day of the week field has '#%s'; use #1 to #5", nth)
			}
			any = append(any, func(d time.Time) bool { return int(d.Weekday()) == day%7 && (d.Day()-1)/7+1 == n })
		case len(entry) > 1 && strings.HasSuffix(entry, "L"):
			day, err := weekdaysUnit.number(strings.TrimSuffix(entry, "L"))
			if err != nil {
				return nil, err
			}
			any = append(any, func(d time.Time) bool { return int(d.Weekday()) == day%7 && d.Day()+7 > lastDay(d) })
		default:
			s, err := weekdaysUnit.span(entry)
			if err != nil {
				return nil, err
			}
			f := s.field()
			any = append(any, func(d time.Time) bool { return f.has(int(d.Weekday())) || d.Weekday() == time.Sunday && f.has(7) })
		}
	}
	return any, nil
}

// lastDay is the number of days of a date's month.
func lastDay(date time.Time) int {
	return time.Date(date.Year(), date.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// workday is the working day of a date's month that is next to a day of it.
func workday(date time.Time, day int) int {
	switch last := lastDay(date); time.Date(date.Year(), date.Month(), day, 0, 0, 0, 0, time.UTC).Weekday() {
	case time.Saturday:
		if day == 1 {
			return 3
		}
		return day - 1
	case time.Sunday:
		if day == last {
			return day - 2
		}
		return day + 1
	default:
		return day
	}
}
