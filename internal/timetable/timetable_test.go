package timetable_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the same zones on every host

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

func at(text string) *octopus.ClockTime {
	t, err := time.Parse("15:04:05", text)
	if err != nil {
		panic(err) //nolint:forbidigo // a test's own constant
	}
	return &octopus.ClockTime{Time: t.AddDate(2026, 0, 0)}
}

func number(n int) *int { return &n }

func yes() *bool { b := true; return &b }

// upcoming are the next times of a filter, as its own clock shows them.
func upcoming(t *testing.T, f octopus.TriggerFilter, after string, n int) (out []string) {
	t.Helper()
	table, err := timetable.Of(&f)
	if err != nil {
		t.Fatal(err)
	}
	from, err := time.Parse(time.RFC3339, after)
	if err != nil {
		t.Fatal(err)
	}
	for _, next := range table.Upcoming(from, n) {
		out = append(out, next.Format("Mon 2006-01-02 15:04:05 -0700"))
	}
	return out
}

// TestForms has every form of schedule that there is.
func TestForms(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		f     octopus.TriggerFilter
		after string
		want  []string
	}{
		"once daily": {
			octopus.TriggerFilter{FilterType: octopus.FilterOnceDaily, StartTime: at("09:30:00"), Timezone: "Europe/Berlin"},
			"2026-01-01T08:30:00Z",
			[]string{"Fri 2026-01-02 09:30:00 +0100", "Sat 2026-01-03 09:30:00 +0100"},
		},
		"once daily on some days": {
			octopus.TriggerFilter{FilterType: octopus.FilterOnceDaily, StartTime: at("09:30:00"), DaysOfWeek: octopus.Weekdays{"monday", "Friday"}},
			"2026-01-01T00:00:00Z",
			[]string{"Fri 2026-01-02 09:30:00 +0000", "Mon 2026-01-05 09:30:00 +0000", "Fri 2026-01-09 09:30:00 +0000"},
		},
		"daily at a time": {
			octopus.TriggerFilter{FilterType: octopus.FilterDaily, RunType: octopus.RunScheduledTime, StartTime: at("23:00:00"), Interval: octopus.IntervalOnceDaily, Timezone: "Tokyo Standard Time"},
			"2026-01-01T00:00:00Z",
			[]string{"Thu 2026-01-01 23:00:00 +0900"},
		},
		"daily, every few hours": {
			octopus.TriggerFilter{FilterType: octopus.FilterDaily, StartTime: at("20:00:00"), Interval: octopus.IntervalOnceHourly, HourInterval: number(2)},
			"2026-01-01T12:00:00Z",
			[]string{"Thu 2026-01-01 20:00:00 +0000", "Thu 2026-01-01 22:00:00 +0000", "Fri 2026-01-02 20:00:00 +0000"},
		},
		"days per week, continuously": {
			octopus.TriggerFilter{
				FilterType: octopus.FilterDaysPerWeek, RunType: octopus.RunContinuously, Interval: octopus.IntervalOnceEveryMin, MinuteInterval: number(30),
				RunAfter: at("09:00:00"), RunUntil: at("10:00:00"), Wednesday: yes(),
			},
			"2026-01-01T00:00:00Z",
			[]string{"Wed 2026-01-07 09:00:00 +0000", "Wed 2026-01-07 09:30:00 +0000", "Wed 2026-01-07 10:00:00 +0000", "Wed 2026-01-14 09:00:00 +0000"},
		},
		"continuous over midnight": {
			octopus.TriggerFilter{
				FilterType: octopus.FilterContinuousDaily, Interval: octopus.IntervalOnceHourly, HourInterval: number(3),
				RunAfter: at("22:00:00"), RunUntil: at("04:00:00"), DaysOfWeek: octopus.Weekdays{"Friday"},
			},
			"2026-01-01T00:00:00Z",
			[]string{"Fri 2026-01-02 22:00:00 +0000", "Sat 2026-01-03 01:00:00 +0000", "Sat 2026-01-03 04:00:00 +0000", "Fri 2026-01-09 22:00:00 +0000"},
		},
		"continuous, the whole day": {
			octopus.TriggerFilter{
				FilterType: octopus.FilterContinuousDaily, Interval: octopus.IntervalOnceHourly, HourInterval: number(12), RunAfter: at("00:00:00"), RunUntil: at("00:00:00"),
			},
			"2026-01-01T00:00:00Z",
			[]string{"Thu 2026-01-01 12:00:00 +0000", "Fri 2026-01-02 00:00:00 +0000", "Fri 2026-01-02 12:00:00 +0000"},
		},
		"a date of the month": {
			octopus.TriggerFilter{FilterType: octopus.FilterDaysPerMonth, StartTime: at("06:00:00"), MonthlyScheduleType: octopus.MonthlyDate, DateOfMonth: "31"},
			"2026-01-01T00:00:00Z",
			[]string{"Sat 2026-01-31 06:00:00 +0000", "Tue 2026-03-31 06:00:00 +0000"},
		},
		"the last date": {
			octopus.TriggerFilter{FilterType: octopus.FilterDaysPerMonth, StartTime: at("06:00:00"), MonthlyScheduleType: octopus.MonthlyDate, DateOfMonth: "L"},
			"2028-01-31T06:00:00Z",
			[]string{"Tue 2028-02-29 06:00:00 +0000", "Fri 2028-03-31 06:00:00 +0000"},
		},
		"the last Friday": {
			octopus.TriggerFilter{FilterType: octopus.FilterDaysPerMonth, StartTime: at("06:00:00"), MonthlyScheduleType: octopus.MonthlyDay, DayNumberOfMonth: "L", DayOfWeek: "Friday"},
			"2026-01-01T00:00:00Z",
			[]string{"Fri 2026-01-30 06:00:00 +0000", "Fri 2026-02-27 06:00:00 +0000", "Fri 2026-03-27 06:00:00 +0000"},
		},
		"the second Tuesday": {
			octopus.TriggerFilter{FilterType: octopus.FilterDaysPerMonth, StartTime: at("06:00:00"), MonthlyScheduleType: octopus.MonthlyDay, DayNumberOfMonth: "2", DayOfWeek: "Tuesday"},
			"2026-01-01T00:00:00Z",
			[]string{"Tue 2026-01-13 06:00:00 +0000", "Tue 2026-02-10 06:00:00 +0000"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, upcoming(t, tt.f, tt.after, len(tt.want))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCron(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string][]string{
		"0 0 06 * * Mon-Fri":     {"Thu 2026-01-01 06:00:00", "Fri 2026-01-02 06:00:00", "Mon 2026-01-05 06:00:00"},
		"30 0/20 6 * * ?":        {"Thu 2026-01-01 06:00:30", "Thu 2026-01-01 06:20:30", "Thu 2026-01-01 06:40:30", "Fri 2026-01-02 06:00:30"},
		"0 */4 * * *":            {"Thu 2026-01-01 04:00:00", "Thu 2026-01-01 08:00:00"}, // five fields
		"*/30 59 23 31 12 *":     {"Thu 2026-12-31 23:59:00", "Thu 2026-12-31 23:59:30", "Fri 2027-12-31 23:59:00"},
		"0 0 0 L * *":            {"Sat 2026-01-31 00:00:00", "Sat 2026-02-28 00:00:00"},
		"0 0 0 LW * *":           {"Fri 2026-01-30 00:00:00", "Fri 2026-02-27 00:00:00"},
		"0 0 0 1W * *":           {"Mon 2026-02-02 00:00:00", "Mon 2026-03-02 00:00:00", "Wed 2026-04-01 00:00:00", "Fri 2026-05-01 00:00:00"},
		"0 0 0 31W 5 *":          {"Fri 2026-05-29 00:00:00"},
		"0 0 0 ? * 5L":           {"Fri 2026-01-30 00:00:00", "Fri 2026-02-27 00:00:00"},
		"0 0 0 ? * fri#5":        {"Fri 2026-01-30 00:00:00", "Fri 2026-05-29 00:00:00"},
		"0 0 0 ? * 0,7":          {"Sun 2026-01-04 00:00:00", "Sun 2026-01-11 00:00:00"},
		"0 0 0 13 * Fri":         {"Fri 2026-02-13 00:00:00", "Fri 2026-03-13 00:00:00", "Fri 2026-11-13 00:00:00"},
		"0 0 0 29 2 Sat":         {"Sat 2048-02-29 00:00:00", "Sat 2076-02-29 00:00:00", "Sat 2116-02-29 00:00:00"},
		"0 0 0 1 jan,jul * 2028": {"Sat 2028-01-01 00:00:00", "Sat 2028-07-01 00:00:00"},
		"0 0 0 1 1 * */4":        {"Mon 2029-01-01 00:00:00", "Sat 2033-01-01 00:00:00"},
		"0 0 0 30 2 *":           nil, // never
		"0 0 0 1 1 * 2020":       nil,
	} {
		t.Run(expression, func(t *testing.T) {
			t.Parallel()
			c, err := timetable.Cron(expression, time.UTC)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, next := range c.Upcoming(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), max(len(want), 1)) {
				got = append(got, next.Format("Mon 2006-01-02 15:04:05"))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCronRefuses(t *testing.T) {
	t.Parallel()
	for expression, says := range map[string]string{
		"":                        "0 fields",
		"* * * *":                 "4 fields",
		"* * * * * * * *":         "8 fields",
		"60 * * * * *":            "seconds field has '60'",
		"* * 24 * * *":            "hours field has '24'",
		"* * * 0 * *":             "day of the month field has '0'",
		"* * * 0W * *":            "day of the month field has '0'",
		"* * * * Foo *":           "month field has 'FOO'",
		"* * * * * 8":             "day of the week field has '8'",
		"* * * * * L":             "day of the week field has 'L'",
		"* * * * * Fri#6":         "'#6'",
		"* * * * * 9L":            "'9'",
		"* */0 * * * *":           "step '0'",
		"* 30-10 * * * *":         "ends before it begins",
		"* 1,,2 * * * *":          "minutes field has ''",
		"* +1 * * * *":            "minutes field has '+1'",
		"* * * * * * 0":           "year field has '0'",
		strings.Repeat("1,", 300): "at most 500",
	} {
		if _, err := timetable.Cron(expression, time.UTC); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, want %q", expression, err, says)
		}
	}
}

func TestFilterRefuses(t *testing.T) {
	t.Parallel()
	no := false
	for field, f := range map[string]octopus.TriggerFilter{
		"Filter.FilterType":          {FilterType: octopus.FilterGit},
		"Filter.Timezone":            {FilterType: octopus.FilterOnceDaily, StartTime: at("00:00:00"), Timezone: "Mars/Olympus"},
		"Filter.StartTime":           {FilterType: octopus.FilterOnceDaily},
		"Filter.RunAfter":            {FilterType: octopus.FilterContinuousDaily, RunUntil: at("00:00:00")},
		"Filter.RunUntil":            {FilterType: octopus.FilterContinuousDaily, RunAfter: at("00:00:00")},
		"Filter.RunType":             {FilterType: octopus.FilterDaily, RunType: "Never"},
		"Filter.Interval":            {FilterType: octopus.FilterDaily, StartTime: at("00:00:00"), Interval: "Yearly"},
		"Filter.HourInterval":        {FilterType: octopus.FilterContinuousDaily, RunAfter: at("01:00:00"), RunUntil: at("02:00:00"), Interval: octopus.IntervalOnceHourly, HourInterval: number(24)},
		"Filter.MinuteInterval":      {FilterType: octopus.FilterDaily, StartTime: at("00:00:00"), Interval: octopus.IntervalOnceEveryMin, MinuteInterval: number(0)},
		"Filter.DaysOfWeek":          {FilterType: octopus.FilterDaysPerWeek, StartTime: at("00:00:00"), Monday: &no},
		"Filter.MonthlyScheduleType": {FilterType: octopus.FilterDaysPerMonth, StartTime: at("00:00:00")},
		"Filter.DateOfMonth":         {FilterType: octopus.FilterDaysPerMonth, StartTime: at("00:00:00"), MonthlyScheduleType: octopus.MonthlyDate, DateOfMonth: "32"},
		"Filter.DayNumberOfMonth":    {FilterType: octopus.FilterDaysPerMonth, StartTime: at("00:00:00"), MonthlyScheduleType: octopus.MonthlyDay, DayOfWeek: "Monday", DayNumberOfMonth: "6"},
		"Filter.DayOfWeek":           {FilterType: octopus.FilterDaysPerMonth, StartTime: at("00:00:00"), MonthlyScheduleType: octopus.MonthlyDay, DayOfWeek: "Moonday"},
		"Filter.CronExpression":      {FilterType: octopus.FilterCron, CronExpression: "* *"},
	} {
		_, err := timetable.Of(&f)
		faults := fault.Faults(err)
		if len(faults) != 1 || faults[0].Field != field || !strings.HasPrefix(faults[0].Message, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestPoint28ZonesAndDaylightSaving has the days on which clocks are changed.
func TestPoint28ZonesAndDaylightSaving(t *testing.T) {
	t.Parallel()
	daily := func(clock, zone string) octopus.TriggerFilter {
		return octopus.TriggerFilter{FilterType: octopus.FilterOnceDaily, StartTime: at(clock), Timezone: zone}
	}
	for name, tt := range map[string]struct {
		f     octopus.TriggerFilter
		after string
		want  []string
	}{
		"02:30 does not exist": {
			daily("02:30:00", "W. Europe Standard Time"), "2026-03-28T12:00:00Z",
			[]string{"Sun 2026-03-29 03:00:00 +0200", "Mon 2026-03-30 02:30:00 +0200"},
		},
		"02:30 is twice": {
			daily("02:30:00", "Europe/Berlin"), "2026-10-24T12:00:00Z",
			[]string{"Sun 2026-10-25 02:30:00 +0200", "Mon 2026-10-26 02:30:00 +0100"},
		},
		"between the two": {
			daily("02:30:00", "Europe/Berlin"), "2026-10-25T00:45:00Z",
			[]string{"Mon 2026-10-26 02:30:00 +0100"},
		},
		"half an hour": {
			daily("02:10:00", "Australia/Lord_Howe"), "2026-10-03T12:00:00Z",
			[]string{"Sun 2026-10-04 02:30:00 +1100", "Mon 2026-10-05 02:10:00 +1100"},
		},
		"midnight does not exist": {
			daily("00:00:00", "America/Santiago"), "2026-09-05T12:00:00Z",
			[]string{"Sun 2026-09-06 01:00:00 -0300", "Mon 2026-09-07 00:00:00 -0300"},
		},
		"a whole day does not exist": {
			daily("12:00:00", "Pacific/Apia"), "2011-12-29T12:00:00Z",
			[]string{"Thu 2011-12-29 12:00:00 -1000", "Sat 2011-12-31 00:00:00 +1400", "Sat 2011-12-31 12:00:00 +1400"},
		},
		"all that a gap swallows is one": {
			octopus.TriggerFilter{FilterType: octopus.FilterCron, CronExpression: "0 */20 * * * *", Timezone: "Europe/Berlin"},
			"2026-03-29T00:30:00Z",
			[]string{"Sun 2026-03-29 01:40:00 +0100", "Sun 2026-03-29 03:00:00 +0200", "Sun 2026-03-29 03:20:00 +0200"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, upcoming(t, tt.f, tt.after, len(tt.want))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

var zones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia", "Africa/Casablanca", "Asia/Kathmandu",
	"Pacific/Chatham", "America/St_Johns", "Asia/Gaza", "Eastern Standard Time", "Iran Standard Time", "Antarctica/Troll",
}

// anyFilter draws a schedule of whole minutes, and a plain reading of what it
// means: whether it fires when the clock shows a reading.
func anyFilter(t *rapid.T) (octopus.TriggerFilter, func(wall time.Time) bool) {
	minute := func(name string) int { return rapid.IntRange(0, 24*60-1).Draw(t, name) }
	clock := func(m int) *octopus.ClockTime { return at(fmt.Sprintf("%02d:%02d:00", m/60, m%60)) }
	ofDay := func(w time.Time) int { return w.Hour()*60 + w.Minute() }
	f := octopus.TriggerFilter{Timezone: rapid.SampledFrom(zones).Draw(t, "zone")}
	switch rapid.IntRange(0, 3).Draw(t, "form") {
	case 0:
		start := minute("start")
		f.FilterType, f.StartTime = octopus.FilterOnceDaily, clock(start)
		return f, func(w time.Time) bool { return ofDay(w) == start }
	case 1:
		after, until, step := minute("after"), minute("until"), rapid.IntRange(1, 200).Draw(t, "step")
		day := time.Weekday(rapid.IntRange(0, 6).Draw(t, "day"))
		f.FilterType, f.Interval, f.MinuteInterval = octopus.FilterContinuousDaily, octopus.IntervalOnceEveryMin, &step
		f.RunAfter, f.RunUntil, f.DaysOfWeek = clock(after), clock(until), octopus.Weekdays{octopus.Weekday(day.String())}
		return f, func(w time.Time) bool {
			m, on := ofDay(w), w.Weekday()
			if until <= after && m < after {
				m, on = m+24*60, (on+6)%7 // still in the window that began yesterday
			}
			end := until
			if until <= after {
				end += 24 * 60
			}
			if until == after {
				end--
			}
			return on == day && m >= after && m <= end && (m-after)%step == 0
		}
	case 2:
		start := minute("start")
		nth, day := rapid.SampledFrom([]string{"1", "2", "3", "4", "L"}).Draw(t, "nth"), time.Weekday(rapid.IntRange(0, 6).Draw(t, "day"))
		f.FilterType, f.StartTime = octopus.FilterDaysPerMonth, clock(start)
		f.MonthlyScheduleType, f.DayNumberOfMonth, f.DayOfWeek = octopus.MonthlyDay, nth, octopus.Weekday(day.String())
		return f, func(w time.Time) bool {
			if w.Weekday() != day || ofDay(w) != start {
				return false
			}
			if nth == "L" {
				return w.AddDate(0, 0, 7).Month() != w.Month()
			}
			before := 0
			for d := w.AddDate(0, 0, -7); d.Month() == w.Month(); d = d.AddDate(0, 0, -7) {
				before++
			}
			return nth == fmt.Sprint(before+1)
		}
	default:
		minutes := rapid.SliceOfNDistinct(rapid.IntRange(0, 59), 1, 4, rapid.ID).Draw(t, "minutes")
		low := rapid.IntRange(0, 23).Draw(t, "low")
		high := rapid.IntRange(low, 23).Draw(t, "high")
		step := rapid.IntRange(1, 9).Draw(t, "step")
		f.FilterType = octopus.FilterCron
		f.CronExpression = fmt.Sprintf("0 %s %d-%d/%d * * *", strings.Trim(strings.ReplaceAll(fmt.Sprint(minutes), " ", ","), "[]"), low, high, step)
		return f, func(w time.Time) bool {
			return slices.Contains(minutes, w.Minute()) && w.Hour() >= low && w.Hour() <= high && (w.Hour()-low)%step == 0
		}
	}
}

// changes are the minutes at which a zone's clocks are changed near an instant, if any.
func nearChange(t *rapid.T, zone *time.Location) time.Time {
	from := time.Date(rapid.IntRange(1995, 2045).Draw(t, "year"), time.Month(rapid.IntRange(1, 12).Draw(t, "month")), rapid.IntRange(1, 28).Draw(t, "date"), 0, 0, 0, 0, time.UTC)
	if !rapid.Bool().Draw(t, "at a change") {
		return from
	}
	_, before := from.In(zone).Zone()
	for at := from; at.Before(from.AddDate(1, 0, 0)); at = at.Add(time.Hour) {
		if _, now := at.In(zone).Zone(); now != before {
			return at.Add(-time.Duration(rapid.IntRange(0, 30).Draw(t, "hours before")) * time.Hour)
		}
	}
	return from
}

// TestAgainstEveryMinute compares with somebody who looks at the clock each
// minute, and fires for every reading that is new since the last look.
func TestAgainstEveryMinute(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f, fires := anyFilter(t)
		table, err := timetable.Of(&f)
		if err != nil {
			t.Fatal(err)
		}
		from := nearChange(t, table.Zone())
		const watched = 3 * 24 * 60
		show := func(at time.Time) time.Time {
			l := at.In(table.Zone())
			return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
		}
		// The look begins earlier, so that what the clock showed before from is known.
		at := from.Add(-27 * time.Hour)
		seen := show(at)
		var want []time.Time
		for ; !at.After(from.Add(watched * time.Minute)); at = at.Add(time.Minute) {
			fired := false
			for now := show(at); seen.Before(now); {
				seen = seen.Add(time.Minute)
				fired = fired || fires(seen)
			}
			if fired && at.After(from) {
				want = append(want, at)
			}
		}
		next := from
		for i, w := range append(want, time.Time{}) {
			got, ok := table.Next(next)
			switch {
			case w.IsZero():
				if ok && !got.After(from.Add(watched*time.Minute)) {
					t.Fatalf("%+v from %s: fires at %s besides", f, from, got)
				}
			case !ok || !got.Equal(w):
				t.Fatalf("%+v from %s: number %d is %s, want %s", f, from, i, got, w.In(table.Zone()))
			case !got.After(next):
				t.Fatalf("%s is not after %s", got, next)
			}
			next = got
		}
	})
}

// TestNextIsTheFirstAfter asks from anywhere between two times.
func TestNextIsTheFirstAfter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f, _ := anyFilter(t)
		table, err := timetable.Of(&f)
		if err != nil {
			t.Fatal(err)
		}
		times := table.Upcoming(nearChange(t, table.Zone()), 6)
		for i := 1; i < len(times); i++ {
			if !times[i].After(times[i-1]) {
				t.Fatalf("%s comes after %s", times[i], times[i-1])
			}
			between := times[i-1].Add(time.Duration(rapid.Int64Range(0, int64(times[i].Sub(times[i-1])-1)).Draw(t, "between")))
			if got, _ := table.Next(between); !got.Equal(times[i]) {
				t.Fatalf("after %s comes %s, want %s", between, got, times[i])
			}
		}
	})
}

func TestZones(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"": "UTC", "UTC": "UTC", "eastern standard time": "America/New_York", "Russia Time Zone 11": "Asia/Kamchatka", "UTC-08": "Etc/GMT+8", "Asia/Tokyo": "Asia/Tokyo",
	} {
		if zone, err := timetable.Zone(name); err != nil || zone.String() != want {
			t.Errorf("%q: %v %v", name, zone, err)
		}
	}
	for _, name := range []string{"Local", "local", "Nowhere", "../etc/passwd"} {
		if zone, err := timetable.Zone(name); err == nil {
			t.Errorf("%q is %s", name, zone)
		}
	}
	for _, name := range timetable.WindowsNames() {
		if _, err := timetable.Zone(name); err != nil {
			t.Error(err)
		}
	}
}

func FuzzCron(f *testing.F) {
	for _, s := range []string{"0 0 6 * * Mon-Fri", "0 0/5 * L * 5L", "0 0 0 15W 1-6/2 ? 2030", "* * * * *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		c, err := timetable.Cron(expression, time.UTC)
		if err != nil {
			return
		}
		from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for _, next := range c.Upcoming(from, 3) {
			if !next.After(from) {
				t.Fatalf("%q: %s after %s", expression, next, from)
			}
			from = next
		}
	})
}

// TestEvery: a period counts from where it is asked, whatever clocks do.
func TestEvery(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC) // clocks are changed in Europe
	got := timetable.Every(90*time.Minute).Upcoming(at, 2)
	if want := []time.Time{at.Add(90 * time.Minute), at.Add(3 * time.Hour)}; !slices.EqualFunc(got, want, time.Time.Equal) {
		t.Errorf("it fires at %v, not at %v", got, want)
	}
}
