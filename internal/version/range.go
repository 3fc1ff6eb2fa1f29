package version

import (
	"strings"

	"github.com/takodeploy/tako/internal/fault"
)

// maxIntervals bounds how many intervals a range may list.
const maxIntervals = 100

// Interval is a stretch of versions. A bound that is the zero Version is open
// to infinity.
type Interval struct {
	Lower, Upper                   Version
	LowerInclusive, UpperInclusive bool
}

// Contains reports whether v lies between the bounds. Bounds compare by order
// alone: an exclusive upper bound still admits its own pre-releases.
func (i Interval) Contains(v Version) bool {
	if !i.Lower.IsZero() {
		if c := Compare(i.Lower, v); c > 0 || c == 0 && !i.LowerInclusive {
			return false
		}
	}
	if !i.Upper.IsZero() {
		if c := Compare(v, i.Upper); c > 0 || c == 0 && !i.UpperInclusive {
			return false
		}
	}
	return true
}

// String writes the interval in brackets, "[1.0,2.0)".
func (i Interval) String() string {
	var b strings.Builder
	b.WriteByte(pick[byte](i.LowerInclusive, '[', '('))
	b.WriteString(i.Lower.String())
	if i.Lower.IsZero() || i.Lower.String() != i.Upper.String() {
		b.WriteByte(',')
		b.WriteString(i.Upper.String())
	}
	b.WriteByte(pick[byte](i.UpperInclusive, ']', ')'))
	return b.String()
}

func pick[T any](condition bool, yes, no T) T {
	if condition {
		return yes
	}
	return no
}

// Range is a set of versions: the union of its intervals, which are in order and
// do not overlap. The zero Range contains nothing.
type Range struct {
	// Intervals lists the parts of the range.
	Intervals []Interval
	// Recommended is the version that a Maven range without brackets names: it
	// is preferred, and excludes nothing.
	Recommended Version
}

// ParseRange reads a range in the syntax of the scheme's package tools.
//
// In Maven's, "1.0" recommends a version and allows all, and several intervals
// may be listed: "(,1.0],[1.2,)". In NuGet's, which all other schemes use,
// "1.0" means 1.0 or later, and there is one interval: "[1.0,2.0)", "(,1.0]",
// "[1.0]". There the lower bound may float, as in NuGet: "1.*", "[1.2.*,2.0)" and
// "1.0.0-beta.*" begin at 1.0, 1.2.0 and 1.0.0-beta.0. Floating prefers a version
// and excludes none, so "1.*" contains 2.0; write [1.0,2.0) to exclude it. The
// error is a fault of kind Invalid.
func ParseRange(scheme Scheme, text string) (Range, error) {
	invalid := func(why string) (Range, error) {
		return Range{}, fault.InvalidField("VersionRange", "The version range '%s' is not valid: %s. Write for example [1.0,2.0), or (,1.0], or [1.0].", text, why)
	}
	rest := strings.TrimSpace(text)
	if rest == "" {
		return invalid("it is empty")
	}
	if len(rest) > maxIntervals*8*len("[1.0.0,2.0.0)") {
		return Range{}, fault.InvalidField("VersionRange", "The version range is %d bytes long; that is too long.", len(rest))
	}
	if rest[0] != '[' && rest[0] != '(' {
		v, why := parseLower(scheme, rest)
		switch {
		case why != "":
			return invalid(why)
		case scheme == Maven:
			return Range{Intervals: []Interval{{}}, Recommended: v}, nil
		default:
			return Range{Intervals: []Interval{{Lower: v, LowerInclusive: true}}}, nil
		}
	}
	var r Range
	for rest != "" {
		if len(r.Intervals) == maxIntervals {
			return invalid("it lists too many intervals")
		}
		if len(r.Intervals) == 1 && scheme != Maven {
			return invalid("it must be one interval")
		}
		end := strings.IndexAny(rest, ")]")
		if rest[0] != '[' && rest[0] != '(' || end < 0 {
			return invalid("every interval must be enclosed in [ or ( and ] or )")
		}
		interval, why := parseInterval(scheme, rest[:end+1])
		if why != "" {
			return invalid(why)
		}
		if n := len(r.Intervals); n > 0 {
			before := r.Intervals[n-1].Upper
			if before.IsZero() || interval.Lower.IsZero() || Compare(interval.Lower, before) < 0 {
				return invalid("its intervals overlap or are not in ascending order")
			}
		}
		r.Intervals = append(r.Intervals, interval)
		rest = strings.TrimSpace(rest[end+1:])
		if next, found := strings.CutPrefix(rest, ","); found {
			rest = strings.TrimSpace(next)
		}
	}
	return r, nil
}

// parseLower reads a lower bound, which may float.
func parseLower(scheme Scheme, text string) (Version, string) {
	if scheme == Maven || !strings.Contains(text, "*") {
		return parseBound(scheme, text)
	}
	floor, ok := lowestOf(text)
	if !ok {
		return Version{}, "in '" + text + "' a * may only stand for the last number (1.2.*) or end the pre-release (1.2.0-beta.*)"
	}
	return parseBound(scheme, floor)
}

// lowestOf returns the version that a floating one begins at.
func lowestOf(text string) (string, bool) {
	numbers, label, labelled := strings.Cut(text, "-")
	if numbers == "*" {
		numbers = "0.0.0"
	} else if head, floats := strings.CutSuffix(numbers, ".*"); floats {
		numbers = head + ".0"
	} else if !labelled {
		return "", false
	}
	if labelled {
		var floats bool
		if label, floats = strings.CutSuffix(label, "*"); !floats {
			return "", false
		}
		if label == "" || strings.HasSuffix(label, ".") {
			label += "0" // the lowest label there is
		}
		numbers += "-" + label
	}
	return numbers, !strings.ContainsAny(numbers, "*+")
}

func parseBound(scheme Scheme, text string) (Version, string) {
	if strings.Contains(text, "*") {
		return Version{}, "only the lower bound of a NuGet range may have a *"
	}
	if strings.ContainsAny(text, "[](),") {
		return Version{}, "a version contains a bracket or comma"
	}
	v, err := Parse(scheme, text)
	if err != nil {
		return v, "'" + text + "' is not a version"
	}
	return v, ""
}

// parseInterval reads one bracketed interval.
func parseInterval(scheme Scheme, text string) (i Interval, why string) {
	i.LowerInclusive = text[0] == '['
	i.UpperInclusive = text[len(text)-1] == ']'
	inner := strings.TrimSpace(text[1 : len(text)-1])
	lower, upper, two := strings.Cut(inner, ",")
	lower, upper = strings.TrimSpace(lower), strings.TrimSpace(upper)
	if !two {
		if !i.LowerInclusive || !i.UpperInclusive {
			return i, "a single version must be enclosed in [ and ]"
		}
		upper = lower
	}
	if lower != "" || !two {
		if i.Lower, why = parseLower(scheme, lower); why != "" {
			return i, why
		}
	}
	if upper != "" || !two {
		if i.Upper, why = parseBound(scheme, upper); why != "" {
			return i, why
		}
	}
	if two && !i.Lower.IsZero() && !i.Upper.IsZero() {
		switch c := Compare(i.Lower, i.Upper); {
		case c > 0:
			return i, "its lower bound is above its upper bound"
		case c == 0 && scheme == Maven && lower == upper, c == 0 && scheme != Maven && (!i.LowerInclusive || !i.UpperInclusive):
			return i, "its bounds are the same; write one version in [ and ]"
		}
	}
	return i, ""
}

// Contains reports whether v is in the range.
func (r Range) Contains(v Version) bool {
	for _, i := range r.Intervals {
		if i.Contains(v) {
			return true
		}
	}
	return false
}

// Intersect returns the versions that are in both ranges. The recommended
// version is r's, else that of other, if the result contains it; an empty
// result keeps it, so that a message can name it.
func (r Range) Intersect(other Range) Range {
	var out Range
	for _, a := range r.Intervals {
		for _, b := range other.Intervals {
			if i, ok := intersect(a, b); ok {
				out.Intervals = append(out.Intervals, i)
			}
		}
	}
	for _, v := range []Version{r.Recommended, other.Recommended} {
		if !v.IsZero() && out.Recommended.IsZero() && (len(out.Intervals) == 0 || out.Contains(v)) {
			out.Recommended = v
		}
	}
	return out
}

func intersect(a, b Interval) (Interval, bool) {
	i := a
	switch c := Compare(a.Lower, b.Lower); {
	case b.Lower.IsZero():
	case a.Lower.IsZero() || c < 0:
		i.Lower, i.LowerInclusive = b.Lower, b.LowerInclusive
	case c == 0:
		i.LowerInclusive = a.LowerInclusive && b.LowerInclusive
	}
	switch c := Compare(a.Upper, b.Upper); {
	case b.Upper.IsZero():
	case a.Upper.IsZero() || c > 0:
		i.Upper, i.UpperInclusive = b.Upper, b.UpperInclusive
	case c == 0:
		i.UpperInclusive = a.UpperInclusive && b.UpperInclusive
	}
	if i.Lower.IsZero() || i.Upper.IsZero() {
		return i, true
	}
	c := Compare(i.Lower, i.Upper)
	return i, c < 0 || c == 0 && i.LowerInclusive && i.UpperInclusive
}

// String writes the range as [ParseRange] reads it.
func (r Range) String() string {
	if !r.Recommended.IsZero() {
		return r.Recommended.String()
	}
	parts := make([]string, len(r.Intervals))
	for n, i := range r.Intervals {
		parts[n] = i.String()
	}
	return strings.Join(parts, ",")
}
