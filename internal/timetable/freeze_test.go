package timetable_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

func instantOf(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse("2006-01-02 15:04 -0700", text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func freeze(t testing.TB, start, end string, s *octopus.RecurringSchedule) *timetable.Freeze {
	t.Helper()
	f, err := timetable.FreezeOf(&octopus.DeploymentFreeze{
		Start: octopus.NewTime(instantOf(t, start)), End: octopus.NewTime(instantOf(t, end)), RecurringSchedule: s,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestPoint28FreezesInTimeZones: a freeze that comes again keeps the clock of whoever
// wrote it.
func TestPoint28FreezesInTimeZones(t *testing.T) {
	t.Parallel()
	date := octopus.NewTime(instantOf(t, "2026-01-31 00:00 +1000"))
	for name, test := range map[string]struct {
		start, end string
		schedule   *octopus.RecurringSchedule
		at         map[string]string // instants, and until when it holds; "" for not
	}{
		"once": {"2026-01-05 09:00 +0000", "2026-01-05 17:00 +0000", nil, map[string]string{
			"2026-01-05 08:59 +0000": "", "2026-01-05 09:00 +0000": "2026-01-05 17:00 +0000",
			"2026-01-05 17:59 +0100": "2026-01-05 17:00 +0000", "2026-01-05 17:00 +0000": "", "2026-01-06 10:00 +0000": "",
		}},
		// Nine in the morning of Monday in Brisbane is Sunday in UTC.
		"weekdays of the writer": {
			"2026-01-05 09:00 +1000", "2026-01-05 17:00 +1000",
			&octopus.RecurringSchedule{Type: octopus.RecursWeekly, Unit: 1, UserUTCOffsetInMinutes: 600, DaysOfWeek: octopus.Weekdays{octopus.Monday, octopus.Friday}, EndType: octopus.RecursUntil, EndOnDate: &date},
			map[string]string{
				"2026-01-04 23:00 +0000": "2026-01-05 07:00 +0000", "2026-01-11 23:30 +0000": "2026-01-12 07:00 +0000",
				"2026-01-09 10:00 +1000": "2026-01-09 17:00 +1000", "2026-01-10 10:00 +1000": "", "2026-01-12 07:00 +0000": "",
				"2026-01-30 10:00 +1000": "2026-01-30 17:00 +1000", "2026-02-02 10:00 +1000": "",
			},
		},
		"every second week": {
			"2026-01-05 09:00 +0000", "2026-01-05 10:00 +0000", &octopus.RecurringSchedule{Type: octopus.RecursWeekly, Unit: 2},
			map[string]string{"2026-01-12 09:30 +0000": "", "2026-01-19 09:30 +0000": "2026-01-19 10:00 +0000"},
		},
		"over midnight": {
			"2026-01-05 22:00 +0000", "2026-01-06 02:00 +0000", &octopus.RecurringSchedule{Type: octopus.RecursDaily, Unit: 1, EndType: octopus.RecursSomeTime, EndAfterOccurrences: 3},
			map[string]string{
				"2026-01-06 01:59 +0000": "2026-01-06 02:00 +0000", "2026-01-08 01:00 +0000": "2026-01-08 02:00 +0000",
				"2026-01-08 23:00 +0000": "", "2026-01-07 21:00 +0000": "",
			},
		},
		"one after another": {
			"2026-01-05 00:00 +0000", "2026-01-06 00:00 +0000", &octopus.RecurringSchedule{Type: octopus.RecursDaily, Unit: 1, EndType: octopus.RecursSomeTime, EndAfterOccurrences: 3},
			map[string]string{"2026-01-05 00:00 +0000": "2026-01-08 00:00 +0000", "2026-01-07 12:00 +0000": "2026-01-08 00:00 +0000", "2026-01-08 00:00 +0000": ""},
		},
		"last of the month": {
			"2026-01-31 00:00 +0000", "2026-02-01 00:00 +0000", &octopus.RecurringSchedule{Type: octopus.RecursMonthly, Unit: 1, MonthlyScheduleType: octopus.MonthlyDate, DateOfMonth: "L"},
			map[string]string{"2026-02-28 12:00 +0000": "2026-03-01 00:00 +0000", "2026-03-30 12:00 +0000": "", "2026-03-31 12:00 +0000": "2026-04-01 00:00 +0000"},
		},
		"a date that some months have": {
			"2026-01-31 00:00 +0000", "2026-02-01 00:00 +0000", &octopus.RecurringSchedule{Type: octopus.RecursMonthly, Unit: 1},
			map[string]string{"2026-02-28 12:00 +0000": "", "2026-03-31 12:00 +0000": "2026-04-01 00:00 +0000"},
		},
		"third Tuesday": {
			"2026-01-20 08:00 +0000", "2026-01-20 09:00 +0000", &octopus.RecurringSchedule{Type: octopus.RecursMonthly, Unit: 2, MonthlyScheduleType: octopus.MonthlyDay, DayNumberOfMonth: "3", DayOfWeek: "Tuesday"},
			map[string]string{"2026-02-17 08:30 +0000": "", "2026-03-17 08:30 +0000": "2026-03-17 09:00 +0000"},
		},
		"every Christmas": {
			"2025-12-24 00:00 +0100", "2025-12-27 00:00 +0100", &octopus.RecurringSchedule{Type: octopus.RecursAnnually, Unit: 1, UserUTCOffsetInMinutes: 60},
			map[string]string{"2030-12-26 22:59 +0000": "2030-12-27 00:00 +0100", "2030-12-26 23:00 +0000": "", "2026-12-23 23:00 +0000": "2026-12-27 00:00 +0100", "2025-01-01 00:00 +0000": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := freeze(t, test.start, test.end, test.schedule)
			for at, want := range test.at {
				until, ok := f.Holds(instantOf(t, at))
				switch {
				case ok != (want != ""):
					t.Errorf("at %s it holds: %v", at, ok)
				case ok && !until.Equal(instantOf(t, want)):
					t.Errorf("at %s it holds until %s, want %s", at, until, want)
				}
			}
		})
	}
}

// TestFreezeEnds: where a freeze holds it does so until the end that it tells of, and
// not then.
func TestFreezeEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		start := base.Add(time.Duration(rapid.IntRange(0, 60*24*40).Draw(t, "start")) * time.Minute)
		f, err := timetable.FreezeOf(&octopus.DeploymentFreeze{
			Start: octopus.NewTime(start), End: octopus.NewTime(start.Add(time.Duration(rapid.IntRange(1, 60*24*3).Draw(t, "length")) * time.Minute)),
			RecurringSchedule: &octopus.RecurringSchedule{
				Type:    rapid.SampledFrom([]octopus.RecurringType{octopus.RecursDaily, octopus.RecursWeekly, octopus.RecursMonthly, octopus.RecursAnnually}).Draw(t, "type"),
				Unit:    rapid.IntRange(1, 5).Draw(t, "unit"),
				EndType: octopus.RecursSomeTime, EndAfterOccurrences: rapid.IntRange(1, 50).Draw(t, "times"),
				UserUTCOffsetInMinutes: rapid.IntRange(-720, 840).Draw(t, "offset"),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := f.Holds(start); !ok {
			t.Fatal("it does not hold at its start")
		}
		at := start.Add(time.Duration(rapid.IntRange(0, 60*24*400).Draw(t, "at")) * time.Minute)
		until, ok := f.Holds(at)
		if !ok {
			return
		}
		if !until.After(at) {
			t.Fatalf("at %s it holds until %s", at, until)
		}
		middle := at.Add(until.Sub(at) / 2)
		if again, ok := f.Holds(middle); !ok || !again.Equal(until) {
			t.Fatalf("at %s it holds until %s, but at %s until %s, %v", at, until, middle, again, ok)
		}
		if _, ok := f.Holds(until); ok {
			t.Fatalf("it holds at its end, %s", until)
		}
	})
}
