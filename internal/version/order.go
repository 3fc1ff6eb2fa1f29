package version

import (
	"strconv"
	"strings"
)

// Compare orders two versions: -1, 0 or 1. Versions of one scheme follow its
// rules; versions of Octopus, SemVer and Docker compare with each other by
// number and label, which is what a list of releases with odd spellings needs.
// It is a total order for any mixture. Metadata never counts.
func Compare(a, b Version) int { return strings.Compare(a.key, b.key) }

// Equal reports whether the two versions are the same for users: "1.0" and
// "1.0.0.0" are, "1.0" and "1.0-beta" are not.
func Equal(a, b Version) bool { return a.key == b.key }

// SortKey returns a text of printable ASCII for a database column: ordered byte
// by byte (COLLATE "C", BINARY), it gives the order of [Compare]. Keys of equal
// versions are equal. A key is stored, so its format cannot change without a
// migration that rewrites the column.
func SortKey(v Version) string { return v.key }

// Parts of a key. In a key of labels, what follows the four numbers is either
// release, or prerelease and then labels; a list of labels that ends earlier is
// a prefix of the longer key and so sorts before it. endText is below every
// byte that a label may hold.
const (
	keyPrerelease = '-'
	keyRelease    = '~'
	keyNumber     = '1'
	keyText       = '2'
	endText       = ' '
)

// labelKey builds the key of every scheme but Maven: four numbers, then the
// labels of the pre-release.
//
//	1.20        11 220 0 0 ~
//	1.2-beta.3  11 12 0 0 - 2BETA_ 113     (without the spaces; _ is endText)
func labelKey(v Version) string {
	b := make([]byte, 0, 16+2*len(v.Prerelease))
	if v.scheme != Lexicographic {
		for _, n := range [...]int{v.Major, v.Minor, v.Patch, v.Revision} {
			b = appendNumber(b, strconv.Itoa(n))
		}
	}
	if v.Prerelease == "" {
		return string(append(b, keyRelease))
	}
	b = append(b, keyPrerelease)
	// In SemVer a hyphen is part of a label; elsewhere all separators are one.
	between := separators
	if v.scheme == SemVer {
		between = "."
	}
	rest := v.Prerelease
	for {
		i := strings.IndexAny(rest, between)
		if i < 0 {
			return string(appendLabel(b, rest))
		}
		b = appendLabel(b, rest[:i])
		rest = rest[i+1:]
	}
}

// appendLabel adds one label: numbers come before text and compare as numbers
// of any length; text compares without case.
func appendLabel(b []byte, label string) []byte {
	if label != "" && strings.Trim(label, "0123456789") == "" {
		return appendNumber(append(b, keyNumber), label)
	}
	return append(append(append(b, keyText), strings.ToUpper(label)...), endText)
}

// appendNumber adds decimal digits so that keys sort as the numbers do: first
// how many digits, then the digits, without leading zeros. The count is one of
// 0-9, then A-Y for 10 to 34, then Z and four digits.
func appendNumber(b []byte, digits string) []byte {
	digits = strings.TrimLeft(digits, "0")
	switch n := len(digits); {
	case n < 10:
		b = append(b, byte('0'+n))
	case n < 35:
		b = append(b, byte('A'+n-10))
	default:
		b = append(b, 'Z')
		b = append(b, strconv.Itoa(10000 + n)[1:]...)
	}
	return append(b, digits...)
}
