package version

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// parseMaven finds the numbers and the qualifier of a Maven version. Any text
// is a Maven version; a number joined by a hyphen right after the third is a
// build number, and a qualifier is introduced by a dot or a hyphen.
func parseMaven(text string) (v Version, why string) {
	text = strings.Trim(text, space)
	switch {
	case text == "":
		return v, "it is empty"
	case !utf8.ValidString(text):
		return v, "it is not valid UTF-8"
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return v, "it contains spaces or control characters"
	}
	rest := text
	for _, part := range []*int{&v.Major, &v.Minor, &v.Patch} {
		next := rest
		if v.Parts > 0 {
			var found bool
			if next, found = strings.CutPrefix(rest, "."); !found {
				break
			}
		}
		value, length := clampNumber(next)
		if length == 0 {
			break
		}
		*part = value
		v.Parts++
		rest = next[length:]
	}
	if v.Parts == 0 {
		v.Prerelease = text
		return v, ""
	}
	if build, found := strings.CutPrefix(rest, "-"); found {
		if value, length := clampNumber(build); length > 0 {
			v.Revision = value
			v.Parts = 4
			v.Prerelease = build[length:]
			return v, ""
		}
		v.Prerelease = build
	} else if qualifier, found := strings.CutPrefix(rest, "."); found {
		v.Prerelease = qualifier
	}
	return v, ""
}

// mavenPrerelease reports whether a qualifier is one that comes before the release.
func mavenPrerelease(qualifier string) bool {
	q := strings.ToLower(qualifier)
	for _, known := range []string{"alpha", "beta", "milestone", "cr", "rc"} {
		if strings.HasPrefix(q, known) {
			return true
		}
	}
	return q == "snapshot" || len(q) > 1 && strings.IndexByte("abm", q[0]) >= 0 && isDigit(q[1])
}

// mavenToken is a number or a qualifier of a Maven version.
type mavenToken struct {
	class byte   // its place in the order, one of the constants below
	text  string // digits, or the qualifier when it is not a known one
}

// The classes of tokens, and the end of the version, in ascending order. That
// the end has one place among them, whatever it is compared with, is what makes
// the order total.
const (
	mavenAlpha     = '1'
	mavenBeta      = '2'
	mavenMilestone = '3'
	mavenRC        = '4'
	mavenSnapshot  = '5'
	mavenEnd       = '6' // 1.0, 1.0-ga, 1.0.Final, 1.0.RELEASE
	mavenSP        = '7'
	mavenOther     = '8' // any other qualifier, by text
	mavenHyphen    = '9' // a number after a hyphen or a qualifier: 1-1, rc-1, rc1
	mavenDot       = 'A' // a number after a dot: 1.1
)

// mavenKey builds the sort key of a Maven version.
//
// Maven's own comparison pads the shorter version with "nothing", which equals
// 0 as well as "ga", and so contradicts itself: 1-sp < 1.0.alpha (text before
// number), 1.0.alpha < 1, 1 < 1-sp. Here all nothings are removed first, zeros
// before a qualifier, a hyphen or the end, and the qualifiers that mean
// "released", as Maven does since 3.9; then tokens are compared one by one, and
// the end has its own fixed place. Underscores separate as hyphens do.
func mavenKey(text string) string {
	tokens := mavenTokens(strings.ToLower(text))
	kept := tokens[:0]
	for _, t := range tokens {
		if t.class == mavenEnd {
			continue
		}
		if t.class != mavenDot {
			kept = trimZeros(kept)
		}
		kept = append(kept, t)
	}
	var b []byte
	for _, t := range trimZeros(kept) {
		b = append(b, t.class)
		switch t.class {
		case mavenHyphen, mavenDot:
			b = appendNumber(b, t.text)
		case mavenOther:
			b = append(append(b, t.text...), endText)
		}
	}
	return string(append(b, mavenEnd))
}

func trimZeros(tokens []mavenToken) []mavenToken {
	for n := len(tokens); n > 0; n-- {
		t := tokens[n-1]
		if t.class < mavenHyphen || strings.Trim(t.text, "0") != "" {
			return tokens[:n]
		}
	}
	return nil
}

// mavenTokens splits at dots, hyphens and underscores, and between letters and
// digits. An empty token counts as 0.
func mavenTokens(text string) []mavenToken {
	var tokens []mavenToken
	after := byte('.') // the separator before the token, 0 for a mere change from digits to letters or back
	for {
		n := strings.IndexAny(text, ".-_")
		field := text
		if n >= 0 {
			field = text[:n]
		}
		if field == "" && (n >= 0 || len(tokens) == 0) {
			tokens = append(tokens, mavenToken{numberClass(tokens, after), ""})
		}
		for field != "" {
			length := strings.IndexFunc(field, func(r rune) bool { return r < '0' || r > '9' })
			if length != 0 {
				if length < 0 {
					length = len(field)
				}
				tokens = append(tokens, mavenToken{numberClass(tokens, after), field[:length]})
			} else {
				if length = strings.IndexAny(field, "0123456789"); length < 0 {
					length = len(field)
				}
				tokens = append(tokens, qualifier(field[:length], length < len(field)))
			}
			field, after = field[length:], 0
		}
		if n < 0 {
			return tokens
		}
		after, text = text[n], text[n+1:]
	}
}

func numberClass(before []mavenToken, after byte) byte {
	if after == '.' && (len(before) == 0 || before[len(before)-1].class >= mavenHyphen) {
		return mavenDot
	}
	return mavenHyphen
}

// qualifier ranks a lower-case qualifier. A single a, b or m right before a
// digit is short for alpha, beta or milestone.
func qualifier(q string, digitFollows bool) mavenToken {
	class := byte(mavenOther)
	switch q {
	case "alpha":
		class = mavenAlpha
	case "beta":
		class = mavenBeta
	case "milestone":
		class = mavenMilestone
	case "rc", "cr":
		class = mavenRC
	case "snapshot":
		class = mavenSnapshot
	case "ga", "final", "release":
		class = mavenEnd
	case "sp":
		class = mavenSP
	}
	if digitFollows {
		switch q {
		case "a":
			class = mavenAlpha
		case "b":
			class = mavenBeta
		case "m":
			class = mavenMilestone
		}
	}
	return mavenToken{class, q}
}

// Coordinate names a Maven artifact.
type Coordinate struct {
	Group, Artifact, Packaging, Classifier, Version string
}

// ParseCoordinate reads an artifact as Maven's tools write it: group:artifact,
// then version, or packaging and version, or packaging, classifier and version.
func ParseCoordinate(text string) (Coordinate, bool) {
	parts := strings.Split(text, ":")
	c := Coordinate{}
	switch len(parts) {
	case 5:
		c.Classifier = parts[3]
		fallthrough
	case 4:
		c.Packaging = parts[2]
		fallthrough
	case 3:
		c.Version = parts[len(parts)-1]
		fallthrough
	case 2:
		c.Group, c.Artifact = parts[0], parts[1]
	}
	return c, c.Group != "" && c.Artifact != ""
}

// ParsePackageID reads the id of a package in a Maven feed, which has no
// version of its own: group:artifact, then packaging, then classifier.
func ParsePackageID(text string) (Coordinate, bool) {
	parts := strings.Split(text, ":")
	c := Coordinate{}
	switch len(parts) {
	case 4:
		c.Classifier = parts[3]
		fallthrough
	case 3:
		c.Packaging = parts[2]
		fallthrough
	case 2:
		c.Group, c.Artifact = parts[0], parts[1]
	}
	return c, c.Group != "" && c.Artifact != ""
}

// String writes the coordinate with the parts that it has.
func (c Coordinate) String() string {
	parts := []string{c.Group, c.Artifact}
	for _, p := range []string{c.Packaging, c.Classifier, c.Version} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ":")
}
