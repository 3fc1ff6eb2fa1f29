// Package timetable says when a schedule fires: pure, from the schedule's
// settings and an instant to the next instant.
//
// A timetable is a set of readings of a wall clock: the dates that match, and on
// each of them the times of day. Only at the end a reading becomes an instant, in
// the schedule's time zone, by two rules for the days on which the clocks change:
//
//   - A reading that the clock skips fires at once after the gap. All readings in
//     one gap are the same instant, and fire once.
//   - A reading that the clock shows twice fires the first time only.
//
// So whatever the zone does, the instants of a timetable strictly increase, and a
// daily schedule fires once on each of its days.
package timetable

import (
	"time"
)

const (
	daySeconds = 24 * 60 * 60
	// horizon bounds the search for the next time. The longest wait there is, for
	// a 29th of February on a given day of the week around a year such as 2100,
	// takes 40 years.
	horizon = 41 * 366
)

// Timetable is when a schedule fires. It is immutable.
type Timetable struct {
	zone *time.Location
	// days reports whether the schedule fires on a date, which is at midnight UTC.
	days func(date time.Time) bool
	// clock returns the first time of day that is at least from, in seconds since
	// midnight by the wall clock. It may be past the next midnight when a window
	// that began on the day goes on after it, for less than a day.
	clock func(from int) (int, bool)
	// interval, where it is not zero, takes the place of days and clock.
	interval time.Duration
}

// Every is a timetable without a clock: it fires each time that a period has passed,
// from wherever it is asked. The period must be positive.
func Every(period time.Duration) *Timetable { return &Timetable{zone: time.UTC, interval: period} }

// Zone is where the timetable's clock hangs.
func (t *Timetable) Zone() *time.Location { return t.zone }

// Next returns the first instant strictly after the given one at which the
// schedule fires; ok is false when there is none (a date that never comes).
func (t *Timetable) Next(after time.Time) (next time.Time, ok bool) {
	if t.interval > 0 {
		return after.Add(t.interval), true
	}
	local := after.In(t.zone)
	// Two days back: what was skipped by a clock, or a window that began the day
	// before, may be still to come.
	date := civil(local).AddDate(0, 0, -2)
	for range horizon {
		if t.days(date) {
			if at, ok := t.nextOf(date, after); ok {
				return at, true
			}
		}
		date = date.AddDate(0, 0, 1)
	}
	return time.Time{}, false
}

// nextOf returns the first instant after the given one of those that belong to a date.
func (t *Timetable) nextOf(date, after time.Time) (time.Time, bool) {
	// Clocks are changed by less than a day, so readings that are long past can
	// be passed over without a look at each.
	from := max(int(reading(after.In(t.zone)).Sub(date)/time.Second)-daySeconds, 0)
	for {
		second, ok := t.clock(from)
		if !ok {
			return time.Time{}, false
		}
		if at := instant(date.Add(time.Duration(second)*time.Second), t.zone); at.After(after) {
			return at, true
		}
		from = second + 1
	}
}

// Upcoming returns at most n instants after the given one, in order.
func (t *Timetable) Upcoming(after time.Time, n int) []time.Time {
	var out []time.Time
	for len(out) < n {
		next, ok := t.Next(after)
		if !ok {
			break
		}
		out = append(out, next)
		after = next
	}
	return out
}

// reading is what a clock shows, as if it hung in UTC.
func reading(local time.Time) time.Time {
	return time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), local.Second(), 0, time.UTC)
}

// civil is the date of a reading.
func civil(local time.Time) time.Time {
	return time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
}

// instant is when a clock in a zone shows a reading (see the package's rules).
func instant(wall time.Time, zone *time.Location) time.Time {
	// With the offsets that hold well before and well after, the reading is one of
	// two instants: the earlier one that really shows it is the answer.
	early := wall.Add(-offset(wall.Add(-26*time.Hour), zone))
	late := wall.Add(-offset(wall.Add(26*time.Hour), zone))
	if late.Before(early) {
		early, late = late, early
	}
	for _, at := range []time.Time{early, late} {
		if reading(at.In(zone)).Equal(wall) {
			return at.In(zone)
		}
	}
	return afterGap(wall, early.Add(-time.Hour), late.Add(time.Hour), zone)
}

// offset is how far a zone is ahead of UTC at an instant.
func offset(at time.Time, zone *time.Location) time.Duration {
	_, seconds := at.In(zone).Zone()
	return time.Duration(seconds) * time.Second
}

// afterGap is the first instant between from and to whose reading is not before
// wall: a reading that does not exist is the end of the gap that swallows it.
func afterGap(wall, from, to time.Time, zone *time.Location) time.Time {
	for to.Sub(from) > time.Second {
		middle := from.Add(to.Sub(from) / 2).Truncate(time.Second)
		if !middle.After(from) {
			break
		}
		if reading(middle.In(zone)).Before(wall) {
			from = middle
		} else {
			to = middle
		}
	}
	return to.In(zone)
}
