package version

import (
	"regexp"
	"strconv"
	"strings"
)

// Mask is a pattern for the next version: i increments a number of the latest
// version, c keeps it, digits stand for themselves. "1.2.i" after 1.2.7 makes
// 1.2.8, "i.0.0-beta.i" after 1.2.7-beta.3 makes 2.0.0-beta.4.
type Mask struct {
	prefix     string
	numbers    [4]string // "" when the mask does not have it
	prerelease string
	metadata   string
}

// maskPattern also matches plain versions: the reference behaviour applies the
// rules for missing numbers to them too (1.2.3 after 1.0.0.0 becomes 1.2.3.0).
var maskPattern = regexp.MustCompile(`^(?:([vV])?(\d+|i|c)(?:\.(\d+|i|c))?(?:\.(\d+|i|c))?(?:\.(\d+|i|c))?)?(?:-([^+\s]*))?(?:\+(\S*))?$`)

// ParseMask reads a mask. It reports false for texts that cannot be one, such
// as any with spaces; a plain version is read as a mask without i or c, see
// [Mask.Substitutes].
func ParseMask(text string) (Mask, bool) {
	if len(text) > MaxLength {
		return Mask{}, false
	}
	m := maskPattern.FindStringSubmatch(text)
	if m == nil {
		return Mask{}, false
	}
	return Mask{prefix: m[1], numbers: [4]string(m[2:6]), prerelease: m[6], metadata: m[7]}, true
}

// IsMask reports whether text contains mask letters that will be replaced. (A
// lone letter after the hyphen, 1.2.3-i, is replaced too though it does not
// count here: so does the product whose masks these are.)
func IsMask(text string) bool {
	m, ok := ParseMask(text)
	return ok && m.Substitutes()
}

// Substitutes reports whether one of the numbers is i or c, or the pre-release
// or metadata ends in .i or .c.
func (m Mask) Substitutes() bool {
	for _, n := range m.numbers {
		if isMaskLetter(n) {
			return true
		}
	}
	return endsInLetter(m.prerelease) || endsInLetter(m.metadata)
}

func isMaskLetter(s string) bool { return s == "i" || s == "c" }

func endsInLetter(s string) bool {
	return strings.HasSuffix(s, ".i") || strings.HasSuffix(s, ".c")
}

// Latest returns the highest of the versions that the mask continues: those
// that have the mask's own digits up to its first letter. Among equals (which
// differ in metadata alone) it returns the first. It reports false when there
// is none.
func (m Mask) Latest(versions []Version) (Version, bool) {
	var best Version
	for _, v := range versions {
		if m.continues(v) && (best.IsZero() || Compare(v, best) > 0) {
			best = v
		}
	}
	return best, !best.IsZero()
}

// AllLatest is Latest, but returns all of the equals, in the order given.
func (m Mask) AllLatest(versions []Version) []Version {
	best, ok := m.Latest(versions)
	if !ok {
		return nil
	}
	var all []Version
	for _, v := range versions {
		if m.continues(v) && Equal(v, best) {
			all = append(all, v)
		}
	}
	return all
}

func (m Mask) continues(v Version) bool {
	for i, have := range [...]int{v.Major, v.Minor, v.Patch, v.Revision} {
		want := m.numbers[i]
		if isMaskLetter(want) {
			return true
		}
		if n, _ := clampNumber(want); n != have {
			return false
		}
	}
	return true
}

// ApplyMask makes the version that follows latest, which is the zero Version
// when there is none yet: i and c are 0 then. A text that is no mask is parsed
// as a version of the Octopus scheme; so is the result, and the error is that
// of [Parse].
func ApplyMask(text string, latest Version) (Version, error) {
	m, ok := ParseMask(text)
	if !ok {
		return Parse(Octopus, text)
	}
	if latest.IsZero() {
		return Parse(Octopus, m.first())
	}
	current, _ := ParseMask(latest.String()) // numbers that it has not are 0
	return Parse(Octopus, m.after(current))
}

// first fills the mask when there is no version before.
func (m Mask) first() string {
	var b strings.Builder
	b.WriteString(m.prefix)
	for i, n := range m.numbers {
		if n == "" {
			continue
		}
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(pick(isMaskLetter(n), "0", n))
	}
	writeLabels(&b, '-', m.prerelease, func(_ int, label string) string { return pick(isMaskLetter(label), "0", label) })
	writeLabels(&b, '+', m.metadata, func(_ int, label string) string { return pick(isMaskLetter(label), "0", label) })
	return b.String()
}

// after fills the mask from the version before. A letter right after an i is
// reset to 0, but only there: i.c.c makes 2.0.3 from 1.2.3. A number that the
// mask leaves out is 0 if the version before has it.
func (m Mask) after(current Mask) string {
	var b strings.Builder
	b.WriteString(m.prefix)
	for i, n := range m.numbers {
		switch {
		case i == 0:
			b.WriteString(substitute(n, current.numbers[0]))
		case n == "" && current.numbers[i] != "" && m.numbers[i-1] != "":
			b.WriteString(".0")
		case n == "":
		case isMaskLetter(n) && m.numbers[i-1] == "i":
			b.WriteString(".0")
		default:
			b.WriteString("." + substitute(n, current.numbers[i]))
		}
	}
	writeLabels(&b, '-', m.prerelease, labelFiller(m.prerelease, current.prerelease))
	writeLabels(&b, '+', m.metadata, labelFiller(m.metadata, current.metadata))
	return b.String()
}

// substitute replaces a mask letter, given the number of the version before.
func substitute(mask, current string) string {
	n, _ := strconv.ParseInt(current, 10, 64) // a letter or nothing counts as 0
	switch mask {
	case "i":
		return strconv.FormatInt(n+1, 10)
	case "c":
		return strconv.FormatInt(n, 10)
	default:
		return mask
	}
}

// labelFiller returns how labels of a pre-release or of metadata are filled
// from those in the same place of the version before.
func labelFiller(mask, current string) func(int, string) string {
	labels, before := strings.Split(mask, "."), strings.Split(current, ".")
	reset := endsInLetter(mask)
	return func(i int, label string) string {
		if reset && i > 0 && labels[i-1] == "i" {
			return "0"
		}
		value := ""
		if i < len(before) {
			if n, err := strconv.ParseInt(before[i], 10, 32); err == nil {
				value = strconv.FormatInt(n, 10)
			}
		}
		return substitute(label, value)
	}
}

func writeLabels(b *strings.Builder, lead byte, labels string, fill func(int, string) string) {
	if labels == "" {
		return
	}
	i := 0
	for label := range strings.SplitSeq(labels, ".") {
		b.WriteByte(pick(i == 0, lead, '.'))
		b.WriteString(fill(i, label))
		i++
	}
}
