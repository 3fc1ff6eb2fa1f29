package timetable

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// IsSchedule reports whether filters of a type are timetables.
func IsSchedule(t octopus.FilterType) bool {
	switch t {
	case octopus.FilterOnceDaily, octopus.FilterContinuousDaily, octopus.FilterDaily, octopus.FilterDaysPerWeek, octopus.FilterDaysPerMonth, octopus.FilterCron:
		return true
	case octopus.FilterMachine, octopus.FilterFeed, octopus.FilterArcFeed, octopus.FilterGit, octopus.FilterWebhook:
	}
	return false
}

// Of reads the timetable of a trigger's filter. Its errors are faults that name
// the member of the filter.
func Of(f *octopus.TriggerFilter) (*Timetable, error) {
	zone, err := Zone(f.Timezone)
	if err != nil {
		return nil, invalid("Timezone", "Timezone names no time zone: %s.", err)
	}
	t := &Timetable{zone: zone, days: everyDay}
	switch f.FilterType {
	case octopus.FilterOnceDaily:
		if t.days, err = weekdays(f); err == nil {
			t.clock, err = once(f)
		}
	case octopus.FilterContinuousDaily:
		if t.days, err = weekdays(f); err == nil {
			t.clock, err = window(f)
		}
	case octopus.FilterDaily:
		t.clock, err = daily(f)
	case octopus.FilterDaysPerWeek:
		if t.days, err = weekdays(f); err == nil {
			t.clock, err = daily(f)
		}
	case octopus.FilterDaysPerMonth:
		if t.days, err = monthly(f); err == nil {
			t.clock, err = once(f)
		}
	case octopus.FilterCron:
		c, err := Cron(f.CronExpression, zone)
		if err != nil {
			return nil, invalid("CronExpression", "CronExpression '%.100s' cannot be used: %s.", f.CronExpression, err)
		}
		return c, nil
	default:
		return nil, invalid("FilterType", "FilterType is '%.100s', which is no schedule.", f.FilterType)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func invalid(field, format string, args ...any) error {
	return fault.InvalidField("Filter."+field, "Filter."+format, args...)
}

// clockOf is the time of day of a member, in seconds.
func clockOf(name string, at *octopus.ClockTime) (int, error) {
	if at == nil {
		return 0, invalid(name, "%s is missing; give the time of day, such as \"2026-01-01T09:00:00\", of which the date and a zone do not matter.", name)
	}
	u := at.UTC()
	return u.Hour()*3600 + u.Minute()*60 + u.Second(), nil
}

// once fires at StartTime.
func once(f *octopus.TriggerFilter) (func(int) (int, bool), error) {
	at, err := clockOf("StartTime", f.StartTime)
	return func(from int) (int, bool) { return at, from <= at }, err
}

// daily fires at StartTime or all day long, as RunType and Interval say.
func daily(f *octopus.TriggerFilter) (func(int) (int, bool), error) {
	switch f.RunType {
	case octopus.RunContinuously:
		return window(f)
	case octopus.RunScheduledTime, "":
	default:
		return nil, invalid("RunType", "RunType is '%.100s'; use ScheduledTime or Continuously.", f.RunType)
	}
	if f.Interval == octopus.IntervalOnceDaily || f.Interval == "" {
		return once(f)
	}
	// From the time of day on to the end of the day.
	start, err := clockOf("StartTime", f.StartTime)
	if err != nil {
		return nil, err
	}
	step, err := interval(f)
	return every(start, daySeconds, step), err
}

// window fires from RunAfter to RunUntil; a window that ends at or before its
// beginning goes on over midnight.
func window(f *octopus.TriggerFilter) (func(int) (int, bool), error) {
	start, err := clockOf("RunAfter", f.RunAfter)
	if err != nil {
		return nil, err
	}
	end, err := clockOf("RunUntil", f.RunUntil)
	if err != nil {
		return nil, err
	}
	end++ // the last moment belongs to it
	if end-1 <= start {
		end += daySeconds
	}
	if end-1-start == daySeconds {
		end-- // a whole day, whose end is the next one's beginning
	}
	step, err := interval(f)
	return every(start, end, step), err
}

// every fires at start and each step after it, before end.
func every(start, end, step int) func(int) (int, bool) {
	return func(from int) (int, bool) {
		at := start
		if from > start {
			at += (from - start + step - 1) / step * step
		}
		return at, at < end
	}
}

// interval is how often a window fires, in seconds.
func interval(f *octopus.TriggerFilter) (int, error) {
	read := func(name string, n *int, most int) (int, error) {
		if n == nil {
			return 1, nil
		}
		if *n < 1 || *n > most {
			return 1, invalid(name, "%s is %d; use 1 to %d.", name, *n, most)
		}
		return *n, nil
	}
	switch f.Interval {
	case octopus.IntervalOnceHourly:
		n, err := read("HourInterval", f.HourInterval, 23)
		return n * 3600, err
	case octopus.IntervalOnceEveryMin:
		n, err := read("MinuteInterval", f.MinuteInterval, 24*60-1)
		return n * 60, err
	case octopus.IntervalOnceDaily, "":
		return daySeconds, nil
	}
	return 1, invalid("Interval", "Interval is '%.100s'; use OnceDaily, OnceHourly or OnceEveryMinute.", f.Interval)
}

var weekdayNames = map[octopus.Weekday]time.Weekday{ //nolint:gochecknoglobals // a constant table
	octopus.Sunday: time.Sunday, octopus.Monday: time.Monday, octopus.Tuesday: time.Tuesday, octopus.Wednesday: time.Wednesday,
	octopus.Thursday: time.Thursday, octopus.Friday: time.Friday, octopus.Saturday: time.Saturday,
}

func weekdayOf(name string, text octopus.Weekday) (time.Weekday, error) {
	for day, w := range weekdayNames {
		if strings.EqualFold(string(day), string(text)) {
			return w, nil
		}
	}
	return 0, invalid(name, "%s has '%.40s'; use the English name of a day, such as Monday.", name, text)
}

// weekdays are the days that a filter names: in DaysOfWeek, or each by its own
// member. Where neither is given every day is meant.
func weekdays(f *octopus.TriggerFilter) (func(time.Time) bool, error) {
	var set field
	given := len(f.DaysOfWeek) > 0
	for _, text := range f.DaysOfWeek {
		day, err := weekdayOf("DaysOfWeek", text)
		if err != nil {
			return nil, err
		}
		set |= 1 << day
	}
	if !given {
		for day, on := range []*bool{f.Sunday, f.Monday, f.Tuesday, f.Wednesday, f.Thursday, f.Friday, f.Saturday} {
			given = given || on != nil
			if on != nil && *on {
				set |= 1 << day
			}
		}
	}
	switch {
	case !given:
		return everyDay, nil
	case set == 0:
		return nil, invalid("DaysOfWeek", "DaysOfWeek has no day, so the schedule would never run; name one at least, or disable the trigger.")
	}
	return func(d time.Time) bool { return set.has(int(d.Weekday())) }, nil
}

// monthly are the days of a schedule of days per month.
func monthly(f *octopus.TriggerFilter) (func(time.Time) bool, error) {
	switch f.MonthlyScheduleType {
	case octopus.MonthlyDate:
		if strings.EqualFold(f.DateOfMonth, "L") {
			return func(d time.Time) bool { return d.Day() == lastDay(d) }, nil
		}
		n, err := strconv.Atoi(f.DateOfMonth)
		if err != nil || n < 1 || n > 31 {
			return nil, invalid("DateOfMonth", "DateOfMonth is '%.40s'; use 1 to 31, or L for the last day of the month.", f.DateOfMonth)
		}
		return func(d time.Time) bool { return d.Day() == n }, nil
	case octopus.MonthlyDay:
		day, err := weekdayOf("DayOfWeek", f.DayOfWeek)
		if err != nil {
			return nil, err
		}
		if strings.EqualFold(f.DayNumberOfMonth, "L") {
			return func(d time.Time) bool { return d.Weekday() == day && d.Day()+7 > lastDay(d) }, nil
		}
		n := slices.Index([]string{"1", "2", "3", "4", "5"}, f.DayNumberOfMonth)
		if n < 0 {
			return nil, invalid("DayNumberOfMonth", "DayNumberOfMonth is '%.40s'; use 1 to 5, or L for the last one of the month.", f.DayNumberOfMonth)
		}
		return func(d time.Time) bool { return d.Weekday() == day && (d.Day()-1)/7 == n }, nil
	}
	return nil, invalid("MonthlyScheduleType", "MonthlyScheduleType is '%.100s'; use DateOfMonth or DayOfMonth.", f.MonthlyScheduleType)
}
