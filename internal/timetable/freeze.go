package timetable

import (
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Freeze is when a deployment freeze holds: once, or again and again. It is
// immutable.
//
// The first time is always that from Start to End as they are written; what follows
// has the same length, begins at the same time of day, and falls on the dates of the
// pattern after it. The clock is that of the person who wrote the pattern, as far from
// UTC as they were then: unlike a trigger's it is never changed.
type Freeze struct {
	start, end time.Time
	// The rest is for a freeze that comes again; matches is nil for one that does not.
	matches func(date time.Time) bool
	until   time.Time // the last date, zero for no such date
	most    int       // times in all, the first included; 0 for no limit
}

// maxJoined bounds how many times that overlap are told of as one.
const maxJoined = 400

// FreezeOf reads the times of a freeze. Its errors are faults that name the member.
func FreezeOf(f *octopus.DeploymentFreeze) (*Freeze, error) {
	out := &Freeze{start: f.Start.Time, end: f.End.Time}
	s := f.RecurringSchedule
	if s == nil {
		return out, nil
	}
	if s.UserUTCOffsetInMinutes < -18*60 || s.UserUTCOffsetInMinutes > 18*60 {
		return nil, recurring("UserUtcOffsetInMinutes", "UserUtcOffsetInMinutes is %d; use a number from -1080 to 1080.", s.UserUTCOffsetInMinutes)
	}
	zone := time.FixedZone("", s.UserUTCOffsetInMinutes*60)
	out.start, out.end = out.start.In(zone), out.end.In(zone)
	first, unit := civil(out.start), max(s.Unit, 1)
	switch s.Type {
	case octopus.RecursDaily:
		out.matches = func(d time.Time) bool { return days(first, d)%unit == 0 }
	case octopus.RecursWeekly:
		on, err := weekdays(&octopus.TriggerFilter{DaysOfWeek: s.DaysOfWeek})
		if err != nil {
			return nil, recurring("DaysOfWeek", "DaysOfWeek has a name that is no day of the week; use names such as Monday.")
		}
		if len(s.DaysOfWeek) == 0 {
			on = func(d time.Time) bool { return d.Weekday() == first.Weekday() }
		}
		// Weeks begin on Monday.
		monday := first.AddDate(0, 0, -(int(first.Weekday())+6)%7)
		out.matches = func(d time.Time) bool { return days(monday, d)/7%unit == 0 && on(d) }
	case octopus.RecursMonthly:
		on, err := monthlyFreeze(s, first)
		if err != nil {
			return nil, err
		}
		out.matches = func(d time.Time) bool { return months(first, d)%unit == 0 && on(d) }
	case octopus.RecursAnnually:
		out.matches = func(d time.Time) bool {
			return (d.Year()-first.Year())%unit == 0 && d.Month() == first.Month() && d.Day() == first.Day()
		}
	default:
		return nil, recurring("Type", "Type is '%.40s'; use Daily, Weekly, Monthly or Annually.", s.Type)
	}
	switch s.EndType {
	case octopus.RecursUntil:
		if s.EndOnDate == nil {
			return nil, recurring("EndOnDate", "EndOnDate is empty; give the date after which the freeze comes no more.")
		}
		out.until = civil(s.EndOnDate.In(zone))
	case octopus.RecursSomeTime:
		out.most = max(s.EndAfterOccurrences, 1)
	case octopus.RecursForever, "":
	}
	return out, nil
}

func recurring(field, format string, args ...any) error {
	return fault.InvalidField("RecurringSchedule."+field, "RecurringSchedule."+format, args...)
}

// monthlyFreeze are the days of a monthly pattern; a month that has no such day is
// passed over. Without any the day is that of the first time.
func monthlyFreeze(s *octopus.RecurringSchedule, first time.Time) (func(time.Time) bool, error) {
	f := &octopus.TriggerFilter{
		MonthlyScheduleType: s.MonthlyScheduleType, DateOfMonth: strings.TrimSpace(string(s.DateOfMonth)),
		DayNumberOfMonth: strings.TrimSpace(string(s.DayNumberOfMonth)), DayOfWeek: octopus.Weekday(s.DayOfWeek),
	}
	if f.MonthlyScheduleType == "" {
		f.MonthlyScheduleType = octopus.MonthlyDate
	}
	if f.MonthlyScheduleType == octopus.MonthlyDate && f.DateOfMonth == "" {
		f.DateOfMonth = strconv.Itoa(first.Day())
	}
	on, err := monthly(f)
	if err != nil {
		return nil, recurring("MonthlyScheduleType", "MonthlyScheduleType is '%.40s' with DateOfMonth '%.40s', DayNumberOfMonth '%.40s' and DayOfWeek '%.40s'; use DateOfMonth with a date from 1 to 31 or L, or DayOfMonth with a number from 1 to 5 or L and the name of a day.",
			s.MonthlyScheduleType, s.DateOfMonth, s.DayNumberOfMonth, s.DayOfWeek)
	}
	return on, nil
}

// days is how many days lie between two dates.
func days(from, to time.Time) int { return int(to.Sub(from) / (24 * time.Hour)) }

// months is how many months lie between two dates.
func months(from, to time.Time) int {
	return (to.Year()-from.Year())*12 + int(to.Month()-from.Month())
}

// Holds reports whether the freeze holds at an instant, and until when: past times
// that follow without a gap. Its last instant does not belong to it.
func (f *Freeze) Holds(at time.Time) (until time.Time, ok bool) {
	if !f.end.After(f.start) || at.Before(f.start) {
		return time.Time{}, false
	}
	length := f.end.Sub(f.start)
	date, ok := f.latest(at, length)
	if !ok {
		return time.Time{}, false
	}
	until = f.begins(date).Add(length)
	for range maxJoined {
		// The next one begins before this ends: together they are one.
		next, ok := f.latest(until, length)
		if !ok || !next.After(date) {
			break
		}
		date, until = next, f.begins(next).Add(length)
	}
	return until, true
}

// begins is when the time of a date begins.
func (f *Freeze) begins(date time.Time) time.Time {
	s := f.start
	return time.Date(date.Year(), date.Month(), date.Day(), s.Hour(), s.Minute(), s.Second(), s.Nanosecond(), s.Location())
}

// latest is the date of the last time that has begun at an instant and is not over.
func (f *Freeze) latest(at time.Time, length time.Duration) (time.Time, bool) {
	first := civil(f.start)
	if f.matches != nil {
		for date := civil(at.In(f.start.Location())); date.After(first); date = date.AddDate(0, 0, -1) {
			begins := f.begins(date)
			if !at.Before(begins.Add(length)) {
				break // and so are all before it
			}
			if !begins.After(at) && f.occurs(date, first) {
				return date, true
			}
		}
	}
	return first, !at.Before(f.start) && at.Before(f.end)
}

// occurs reports whether the freeze comes on a date after the first.
func (f *Freeze) occurs(date, first time.Time) bool {
	if !f.matches(date) || !f.until.IsZero() && date.After(f.until) {
		return false
	}
	if f.most == 0 {
		return true
	}
	n := 1
	for d := first.AddDate(0, 0, 1); !d.After(date) && n <= f.most; d = d.AddDate(0, 0, 1) {
		if f.matches(d) {
			n++
		}
	}
	return n <= f.most
}
