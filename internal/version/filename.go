package version

import (
	"strings"
	"unicode"

	"github.com/takodeploy/tako/internal/fault"
)

// extensions lists what a package file may end in. A longer extension comes
// before the one that it ends with.
func extensions() []string {
	return []string{".tar.bz2", ".tar.gz", ".tar.bz", ".tar.z", ".nupkg", ".zip", ".jar", ".war", ".ear", ".rar", ".tgz", ".tbz", ".tar"}
}

// FromFileName finds package id, version and extension in a file name such as
// "Acme.Web.1.2.0-beta.3.tar.gz" (directories before it are ignored). The id is
// letters, digits and underscores in segments joined by - . or _; it ends at
// the first dot after which the rest is a version of one to four numbers with
// an optional pre-release and metadata. An id with a segment of digits is
// therefore ambiguous: "Acme.2.1.0.zip" is Acme 2.1.0.
//
// The version is returned as written; it parses as [SemVer]. The extension has
// its dot and its case. The error is a fault of kind Invalid that shows the
// pattern.
func FromFileName(name string) (id, version, ext string, err error) {
	base := name[strings.LastIndexAny(name, `/\`)+1:]
	lower := strings.ToLower(base)
	for _, e := range extensions() {
		if strings.HasSuffix(lower, e) && len(lower) == len(base) {
			ext = base[len(base)-len(e):]
			break
		}
	}
	invalid := func(why string) (string, string, string, error) {
		return "", "", "", fault.InvalidField("FileName", "The file name '%.200s' does not name a package: %s. It must be <id>.<version><extension>, for example Acme.Web.1.2.0.zip; the extension must be one of %s.",
			base, why, strings.Join(extensions(), " "))
	}
	if ext == "" {
		return invalid("its extension is not one of a package")
	}
	stem := base[:len(base)-len(ext)]
	if len(stem) > MaxLength {
		return invalid("it is too long")
	}
	for i := range len(stem) {
		if stem[i] == '.' && i+1 < len(stem) && isDigit(stem[i+1]) && isPackageVersion(stem[i+1:]) {
			if id = stem[:i]; !ValidPackageID(id) {
				return invalid("its id may only hold letters, digits and underscores, joined by single - . or _")
			}
			return id, stem[i+1:], ext, nil
		}
	}
	return invalid("no version follows its id")
}

// isPackageVersion reports whether all of s is a version as file names have
// them: numbers first, and nothing that SemVer would not take.
func isPackageVersion(s string) bool {
	_, err := Parse(SemVer, s)
	return err == nil && isDigit(s[0]) && !strings.ContainsAny(s, space)
}

// ValidPackageID reports whether id can name a package of the built-in
// repository: segments of letters, digits and underscores, joined by single
// hyphens or dots.
func ValidPackageID(id string) bool {
	wasWord := false
	for _, r := range id {
		switch {
		case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			wasWord = true
		case (r == '-' || r == '.') && wasWord:
			wasWord = false
		default:
			return false
		}
	}
	return wasWord
}
