package octopus_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/octopus"
)

func TestTime(t *testing.T) {
	t.Parallel()
	const same = `"2026-01-02T03:04:05.678+00:00"`
	for in, want := range map[string]string{
		same:                                  same,
		`"2026-01-02T03:04:05.678Z"`:          same,
		`"2026-01-02T13:34:05.6789+10:30"`:    same,
		`"2026-01-02T03:04:05.678"`:           same,
		`"2026-01-02T03:04:05Z"`:              `"2026-01-02T03:04:05.000+00:00"`,
		`"2026-01-02T03:04"`:                  `"2026-01-02T03:04:00.000+00:00"`,
		`" 2026-01-02 03:04:05 +01:00 "`:      `"2026-01-02T02:04:05.000+00:00"`,
		`"2026-01-02 03:04"`:                  `"2026-01-02T03:04:00.000+00:00"`,
		`"2026-01-02"`:                        `"2026-01-02T00:00:00.000+00:00"`,
		`"0001-01-01T00:00:00+00:00"`:         `"0001-01-01T00:00:00.000+00:00"`,
		`"9999-12-31T23:59:59.9999999+00:00"`: `"9999-12-31T23:59:59.999+00:00"`,
		`""`:                                  `"0001-01-01T00:00:00.000+00:00"`,
		`null`:                                `"0001-01-01T00:00:00.000+00:00"`,
	} {
		var v octopus.Time
		if err := json.Unmarshal([]byte(in), &v); err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("%s = %s (%v), want %s", in, got, err, want)
		}
	}
	for _, in := range []string{`"tomorrow"`, `7`, `{}`, `"2026-13-01T00:00:00Z"`, `"9999-12-31T23:59:59-01:00"`, `"0001-01-01T00:00:00+01:00"`} {
		var v octopus.Time
		if err := json.Unmarshal([]byte(in), &v); err == nil {
			t.Errorf("%s was read as %s", in, v)
		}
	}
	if _, err := json.Marshal(octopus.NewTime(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))); err == nil {
		t.Error("a year of five digits was written")
	}
	if octopus.OptionalTime(time.Time{}) != nil {
		t.Error("the zero time is not null")
	}
}

func TestTimeSpan(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"00:00:00":         0,
		"00:02:30":         150 * time.Second,
		"23:59:59":         24*time.Hour - time.Second,
		"1.12:00:00":       36 * time.Hour,
		"106751.00:00:00":  106751 * 24 * time.Hour,
		"-00:00:01":        -time.Second,
		"-1.00:00:00":      -24 * time.Hour,
		"00:00:00.0000001": 100,
		"00:00:00.5000000": time.Second / 2,
	} {
		span, err := octopus.ParseTimeSpan(text)
		if err != nil || span.Duration() != want {
			t.Errorf("ParseTimeSpan(%q) = %v, %v; want %v", text, span.Duration(), err, want)
		}
		if got := octopus.TimeSpan(want).String(); got != text {
			t.Errorf("String of %v = %q, want %q", want, got, text)
		}
	}
	for text, want := range map[string]time.Duration{
		"2":          48 * time.Hour,
		"-2":         -48 * time.Hour,
		"01:30":      90 * time.Minute,
		"1:2:3":      time.Hour + 2*time.Minute + 3*time.Second,
		" 00:00:05 ": 5 * time.Second,
		"00:00:00.5": time.Second / 2,
		"3.01:30":    73*time.Hour + 30*time.Minute,
		"-0":         0,
	} {
		if span, err := octopus.ParseTimeSpan(text); err != nil || span.Duration() != want {
			t.Errorf("ParseTimeSpan(%q) = %v, %v; want %v", text, span.Duration(), err, want)
		}
	}
	for _, text := range []string{
		"", "-", "--1", ":", "::", "24:00:00", "00:60:00", "00:00:60", "1.2", "1.", ".5", "00:00:00.", "00:00:00.12345678",
		"00:00:00:00", "1.00:00:00:00", "a", "1h", "+1", "00:+1:00", "0:-1:0", "10675199.02:48:05.4775807", "106752", "99999999999", "00:00:00.-1",
	} {
		if span, err := octopus.ParseTimeSpan(text); err == nil {
			t.Errorf("ParseTimeSpan(%q) = %s", text, span)
		}
	}
	var v struct{ Span octopus.TimeSpan }
	if err := json.Unmarshal([]byte(`{"Span":90}`), &v); err == nil {
		t.Error("a number was read as a period")
	}
}

func TestTimeSpanRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		span := octopus.TimeSpan(rapid.Int64Range(math.MinInt64/100+1, math.MaxInt64/100).Draw(t, "ticks") * 100)
		data, err := json.Marshal(span)
		if err != nil {
			t.Fatal(err)
		}
		var back octopus.TimeSpan
		if err := json.Unmarshal(data, &back); err != nil || back != span {
			t.Fatalf("%s was read as %s (%v)", data, back, err)
		}
	})
}

func FuzzParseTimeSpan(f *testing.F) {
	for _, seed := range []string{"00:02:30", "1.12:00:00", "-1", "00:00:00.1234567"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		span, err := octopus.ParseTimeSpan(text)
		if err != nil {
			return
		}
		if again, err := octopus.ParseTimeSpan(span.String()); err != nil || again != span {
			t.Fatalf("%q = %s, which is read as %s (%v)", text, span, again, err)
		}
	})
}

// TestClockTime: a zone in the text does not move the clock, and none is written.
func TestClockTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`"2026-01-01T09:00:00.000Z"`: "2026-01-01T09:00:00.000", `"2026-01-01T09:00:00+02:00"`: "2026-01-01T09:00:00.000", `"2026-01-01T23:30:00-11:00"`: "2026-01-01T23:30:00.000",
		`"2022-09-14T09:00:00.000"`: "2022-09-14T09:00:00.000", `"2026-01-01 09:00"`: "2026-01-01T09:00:00.000",
	} {
		var at octopus.ClockTime
		if err := json.Unmarshal([]byte(text), &at); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		out, err := json.Marshal(at)
		if err != nil || string(out) != `"`+want+`"` {
			t.Errorf("%s is %s, %v, want %s", text, out, err, want)
		}
	}
	var at octopus.ClockTime
	if err := json.Unmarshal([]byte(`null`), &at); err != nil || !at.IsZero() {
		t.Errorf("null is %v, %v", at, err)
	}
	if err := json.Unmarshal([]byte(`"nine"`), &at); err == nil {
		t.Error("nine is a time")
	}
}
