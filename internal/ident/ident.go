// Package ident has the small value types by which things are named and lists
// are cut: ids such as "Projects-12", slugs, the space a request works in, and
// pages.
package ident

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// SpaceID is the id of a space ("Spaces-1"); "" means the system, outside all spaces.
type SpaceID string

// ID joins a kind's prefix and a sequence number: ID("Projects", 12) is "Projects-12".
func ID(prefix string, seq int64) string { return prefix + "-" + strconv.FormatInt(seq, 10) }

// Seq returns the trailing number of an id and whether there is one.
func Seq(id string) (int64, bool) {
	i := strings.LastIndexByte(id, '-')
	if i < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(id[i+1:], 10, 64)
	return n, err == nil && n >= 0
}

// Fold maps a name to the form in which names are compared: trimmed and without case.
// Databases cannot be trusted with it (SQLite folds ASCII only), so it is stored folded.
func Fold(s string) string { return strings.ToLower(norm.NFC.String(strings.TrimSpace(s))) }

// MaxSlug is the longest slug made by Slug, in bytes.
const MaxSlug = 100

// Slug makes a URL-safe name from a person's one: lower-case ASCII letters and
// digits, other runs become one dash. Accents are dropped; a name without any
// usable character gives "x".
func Slug(name string) string {
	var b strings.Builder
	dash := false
	for _, r := range norm.NFKD.String(name) {
		switch {
		case unicode.Is(unicode.Mn, r):
			continue // an accent that NFKD split off
		case r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			if dash && b.Len() > 0 {
				b.WriteByte('-')
			}
			dash = false
			b.WriteRune(unicode.ToLower(r))
		default:
			dash = true
		}
		if b.Len() >= MaxSlug {
			break
		}
	}
	if b.Len() == 0 {
		return "x"
	}
	return strings.TrimRight(b.String(), "-")
}

// Page sizes of the API.
const (
	DefaultTake = 30
	// MaxTake bounds what one page may hold, whatever a client asks for
	// (2147483647 is asked for often).
	MaxTake = 10000
)

// Page is a slice of a list.
type Page struct {
	Skip int64
	Take int64 // 1..MaxTake
}

// Clamp returns p within bounds: a negative skip is 0, no take is DefaultTake.
func (p Page) Clamp() Page {
	if p.Take <= 0 {
		p.Take = DefaultTake
	}
	return Page{Skip: max(p.Skip, 0), Take: min(p.Take, MaxTake)}
}
