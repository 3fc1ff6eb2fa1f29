package version

import (
	"iter"
	"strconv"
	"strings"
	"time"
)

// TemplateVariables yields the variables that a release version template may
// use about the latest version (the zero Version counts as 0.0.0):
//
//	<group>.LastMajor, LastMinor, LastPatch, LastBuild, LastRevision, LastSuffix
//	<group>.NextMajor, ...
//
// group is "Octopus.Version" for the project's latest release,
// "Octopus.Version.Channel" for that of the release's channel, and
// "Octopus.Version.Channel[Name]" for another channel's. Build is another name
// of Patch, as in .NET's four-part versions. Next is Last plus one. A suffix
// begins with its hyphen, and is empty when there is no pre-release; the next
// suffix has the last number in it incremented.
func TemplateVariables(group string, latest Version) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		numbers := [...]struct {
			name  string
			value int
		}{
			{"Major", latest.Major},
			{"Minor", latest.Minor},
			{"Patch", latest.Patch},
			{"Build", latest.Patch},
			{"Revision", latest.Revision},
		}
		for _, n := range numbers {
			if !yield(group+".Last"+n.name, strconv.Itoa(n.value)) || !yield(group+".Next"+n.name, strconv.Itoa(n.value+1)) {
				return
			}
		}
		suffix := ""
		if latest.Prerelease != "" {
			suffix = "-" + latest.Prerelease
		}
		if yield(group+".LastSuffix", suffix) {
			yield(group+".NextSuffix", nextSuffix(suffix))
		}
	}
}

// nextSuffix increments the number at the end: "-beta.9" becomes "-beta.10",
// "-rc1" becomes "-rc2"; a suffix without one stays.
func nextSuffix(suffix string) string {
	start := len(strings.TrimRight(suffix, "0123456789"))
	digits := suffix[start:]
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return suffix
	}
	next := strconv.FormatUint(n+1, 10)
	return suffix[:start] + strings.Repeat("0", max(0, len(digits)-len(next))) + next
}

// DateVariables yields the variables that a release version template may use
// about the time of the release: Octopus.Date.{Day,Month,Year,DayOfYear} and
// Octopus.Time.{Hour,Minute,Second}, without leading zeros.
func DateVariables(now time.Time) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, n := range [...]struct {
			name  string
			value int
		}{
			{"Octopus.Date.Day", now.Day()},
			{"Octopus.Date.Month", int(now.Month())},
			{"Octopus.Date.Year", now.Year()},
			{"Octopus.Date.DayOfYear", now.YearDay()},
			{"Octopus.Time.Hour", now.Hour()},
			{"Octopus.Time.Minute", now.Minute()},
			{"Octopus.Time.Second", now.Second()},
		} {
			if !yield(n.name, strconv.Itoa(n.value)) {
				return
			}
		}
	}
}
