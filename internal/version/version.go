package version

import (
	"math"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
)

// MaxLength is the longest version text that any parser takes, in bytes. A
// release may have 349 characters and a Docker tag 128; the rest is slack for
// packages with long build metadata.
const MaxLength = 1024

// Scheme says which grammar a version is written in and how it is ordered.
type Scheme uint8

const (
	// Octopus is the scheme of releases, and takes almost anything: an optional
	// v, up to four numbers, a pre-release after any of - . _ \ and metadata
	// after +. Plain text is a pre-release of 0.0.0.
	Octopus Scheme = iota
	// SemVer is SemVer 2 as NuGet reads it: one to four numbers, an optional v,
	// leading zeros allowed, labels ordered without regard to case, metadata
	// ignored in order. It serves NuGet feeds and the built-in repository.
	SemVer
	// Maven takes any text without spaces and orders it by Maven's rules.
	Maven
	// Docker reads a tag as Octopus does; "latest" is no pre-release, and lies
	// below every tag with a number in it.
	Docker
	// Lexicographic has no numbers at all: only labels, compared one by one.
	Lexicographic
)

// String returns the scheme's name, for logs and error messages.
func (s Scheme) String() string {
	switch s {
	case Octopus:
		return "Octopus"
	case SemVer:
		return "SemVer"
	case Maven:
		return "Maven"
	case Docker:
		return "Docker"
	case Lexicographic:
		return "Lexicographic"
	default:
		return "scheme " + strconv.Itoa(int(s))
	}
}

// SchemeOfFeed returns the scheme of the packages of a feed, by the feed's type
// as the API names it ("Maven", "Docker", "BuiltIn"...). Types that are not
// known hold SemVer packages.
func SchemeOfFeed(feedType string) Scheme {
	switch strings.ToLower(feedType) {
	case "maven":
		return Maven
	case "docker", "ociregistry", "awselasticcontainerregistry", "azurecontainerregistry", "googlecontainerregistry":
		return Docker
	case "octopusproject":
		return Octopus
	default:
		return SemVer
	}
}

// Version is one parsed version. The zero value stands for "no version"; it
// sorts before every other. Versions may be compared with == only for identity
// of text; use [Compare] or [Equal] for order.
type Version struct {
	// Major, Minor, Patch and Revision are the leading numbers; those that the
	// text does not have are 0. They fit in 32 bits.
	Major, Minor, Patch, Revision int
	// Parts is how many of the four numbers the text has.
	Parts int
	// Prerelease is what follows the numbers, without its separator; for Maven
	// the qualifier, for Lexicographic the whole text but the metadata.
	Prerelease string
	// Metadata is what follows the plus sign.
	Metadata string

	scheme   Scheme
	original string
	key      string
}

// Parse reads text as a version of the scheme. The error is a fault of kind
// Invalid that names the text.
func Parse(scheme Scheme, text string) (Version, error) {
	if len(text) > MaxLength {
		return Version{}, fault.InvalidField("Version", "The version '%s...' is %d bytes long; a version has at most %d.", text[:32], len(text), MaxLength)
	}
	var v Version
	var why string
	switch scheme {
	case Octopus, Docker:
		v, why = parseOctopus(text)
	case SemVer:
		v, why = parseSemVer(text)
	case Maven:
		v, why = parseMaven(text)
	case Lexicographic:
		v, why = parseLexicographic(text)
	default:
		why = "its scheme is not known"
	}
	if why != "" {
		return Version{}, fault.InvalidField("Version", "The version '%s' is not valid: %s.", text, why)
	}
	v.scheme = scheme
	v.original = strings.ReplaceAll(strings.TrimSpace(text), " ", "")
	if scheme == Maven {
		v.key = mavenKey(v.original)
	} else {
		v.key = labelKey(v)
	}
	return v, nil
}

// Scheme returns the scheme that the version was parsed as.
func (v Version) Scheme() Scheme { return v.scheme }

// IsZero reports whether v is "no version", the zero value.
func (v Version) IsZero() bool { return v.key == "" }

// String returns the version as it was written, without spaces: "v1.001.2" and
// "1.2.3.0" keep their v, zeros and parts.
func (v Version) String() string { return v.original }

// Normalized returns the one text that stands for all spellings of a numbered
// version, as NuGet does: no v, no leading zeros, three numbers or four when
// the fourth is not 0, the pre-release, no metadata. The other schemes have no
// such form: it is the original text.
func (v Version) Normalized() string {
	if v.scheme != Octopus && v.scheme != SemVer || v.Parts == 0 {
		return v.original
	}
	b := make([]byte, 0, len(v.original)+4)
	b = strconv.AppendInt(b, int64(v.Major), 10)
	b = strconv.AppendInt(append(b, '.'), int64(v.Minor), 10)
	b = strconv.AppendInt(append(b, '.'), int64(v.Patch), 10)
	if v.Revision != 0 {
		b = strconv.AppendInt(append(b, '.'), int64(v.Revision), 10)
	}
	if v.Prerelease != "" {
		b = append(append(b, '-'), v.Prerelease...)
	}
	return string(b)
}

// PrereleaseParts splits the pre-release at its first separator: "beta.12" is
// ("beta", "12"), "alpha" is ("alpha", "").
func (v Version) PrereleaseParts() (prefix, counter string) {
	if i := strings.IndexAny(v.Prerelease, separators); i >= 0 {
		return v.Prerelease[:i], v.Prerelease[i+1:]
	}
	return v.Prerelease, ""
}

// IsPrerelease reports whether the version is one that users do not take unless
// they ask for it. In Maven only the known qualifiers make it so.
func (v Version) IsPrerelease() bool {
	switch v.scheme {
	case Maven:
		return mavenPrerelease(v.Prerelease)
	case Docker:
		return v.Prerelease != "" && v.original != "latest"
	case Lexicographic:
		return false
	case Octopus, SemVer:
	}
	return v.Prerelease != ""
}

const (
	separators = `.-_\`
	space      = " \t\r\n\v\f"
)

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlphanumeric(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// labelByte reports whether c may stand in a pre-release of the Octopus scheme.
func labelByte(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte(separators, c) >= 0
}

// spanLabels returns the length of the pre-release that s begins with.
func spanLabels(s string) int {
	n := 0
	for n < len(s) && labelByte(s[n]) {
		n++
	}
	return n
}

// cutMetadata reads the rest of a version: nothing, or metadata after a plus
// sign, and spaces at the end.
func cutMetadata(s string) (metadata, why string) {
	n := 0
	if strings.HasPrefix(s, "+") {
		n = 1
		for n < len(s) && (labelByte(s[n]) || s[n] == '+') {
			n++
		}
		metadata = s[1:n]
	}
	if rest := strings.TrimRight(s[n:], space); rest != "" {
		return "", "the character " + strconv.Quote(string([]rune(rest)[:1])) + " cannot stand here"
	}
	return metadata, ""
}

// number reads the digits that s begins with as a 32-bit number.
func number(s string) (value, length int, ok bool) {
	for length < len(s) && isDigit(s[length]) {
		length++
	}
	n, err := strconv.ParseInt(s[:length], 10, 32)
	return int(n), length, err == nil
}

const tooLarge = "a number in it is larger than 2147483647"

// parseOctopus reads the scheme of releases. Spaces around the numbers are
// tolerated since releases with such versions exist.
func parseOctopus(text string) (v Version, why string) {
	rest := strings.TrimLeft(text, space)
	if rest == "" {
		return v, "it is empty"
	}
	numbers := rest
	if rest[0]|0x20 == 'v' {
		numbers = strings.TrimLeft(rest[1:], space)
	}
	if numbers != "" && isDigit(numbers[0]) {
		rest = numbers
		for _, part := range []*int{&v.Major, &v.Minor, &v.Patch, &v.Revision} {
			if v.Parts > 0 {
				next, found := strings.CutPrefix(rest, ".")
				next = strings.TrimLeft(next, space)
				if !found || next == "" || !isDigit(next[0]) {
					break
				}
				rest = next
			}
			value, length, ok := number(rest)
			if !ok {
				return v, tooLarge
			}
			*part = value
			v.Parts++
			trimmed := strings.TrimLeft(rest[length:], space)
			// Without this, "1 0" would read as 1.0.0-0 but be kept as "10".
			if len(trimmed) < len(rest)-length && trimmed != "" && isAlphanumeric(trimmed[0]) {
				return v, "there is a space inside it"
			}
			rest = trimmed
		}
	}
	if rest != "" && strings.IndexByte(separators, rest[0]) >= 0 {
		rest = rest[1:]
	}
	n := spanLabels(rest)
	v.Prerelease = rest[:n]
	v.Metadata, why = cutMetadata(rest[n:])
	return v, why
}

// parseLexicographic reads labels and metadata.
func parseLexicographic(text string) (v Version, why string) {
	if strings.Trim(text, space) == "" {
		return v, "it is empty"
	}
	n := spanLabels(text)
	v.Prerelease = text[:n]
	v.Metadata, why = cutMetadata(text[n:])
	return v, why
}

// parseSemVer reads SemVer 2 with NuGet's liberties.
func parseSemVer(text string) (v Version, why string) {
	rest := strings.TrimPrefix(strings.Trim(text, space), "v")
	if rest == "" {
		return v, "it is empty"
	}
	rest, metadata, hasMetadata := strings.Cut(rest, "+")
	numbers, labels, hasLabels := strings.Cut(rest, "-")

	slots := []*int{&v.Major, &v.Minor, &v.Patch, &v.Revision}
	for part := range strings.SplitSeq(numbers, ".") {
		part = strings.Trim(part, space)
		if v.Parts == len(slots) {
			return v, "it has more than four numbers"
		}
		value, length, ok := number(part)
		switch {
		case length == 0 || length < len(part):
			return v, strconv.Quote(part) + " is no number; it must begin with one to four numbers joined by dots"
		case !ok:
			return v, tooLarge
		}
		*slots[v.Parts] = value
		v.Parts++
	}
	if hasLabels && !validLabels(labels) {
		return v, "the pre-release must be letters, digits and hyphens, joined by single dots"
	}
	if hasMetadata && !validLabels(metadata) {
		return v, "the metadata must be letters, digits and hyphens, joined by single dots"
	}
	v.Prerelease, v.Metadata = labels, metadata
	return v, ""
}

func validLabels(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" {
			return false
		}
		for i := range len(label) {
			if !isAlphanumeric(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

// clampNumber is number for schemes in which a number may have any length; the
// order does not depend on it.
func clampNumber(s string) (value, length int) {
	value, length, ok := number(s)
	if !ok && length > 0 {
		value = math.MaxInt32
	}
	return value, length
}
