package agent

import (
	"context"
	"os"
)

// Unpack unpacks a package into the directory of root, as a StartRequest with
// Prepare does: name, by its extension, tells the format; entries that would leave the
// directory, links that lead out of it, and archives that grow beyond all measure are
// refused. It returns the number of entries. It is for a directory that nobody else
// writes to.
func Unpack(ctx context.Context, root *os.Root, f *os.File, name string) (entries int, err error) {
	u := &unpacker{root: root, dir: ".", limits: defaultArchiveLimits()}
	err = u.unpack(ctx, f, name)
	return u.entries, err
}

// DiskFull reports whether err may go away when somebody makes room on a disk.
func DiskFull(err error) bool { return diskFull(err) }

// ReplaceFile writes a file of root anew, whole or not at all, with the mode it had.
func ReplaceFile(root *os.Root, name string, content []byte) error {
	return replaceFile(root, name, content)
}

// ReadFile reads a file of root that has at most limit bytes.
func ReadFile(root *os.Root, name string, limit int64) ([]byte, error) {
	return readBounded(root, name, limit)
}

// SubstituteFile replaces the variables in a text file of root. The file keeps its mode,
// and, unless outputEncoding names another one, its encoding. evaluate gives a text with
// its variables replaced, and the tokens that it left as they are; those are in the
// warning, a sentence for people, "" for none.
func SubstituteFile(root *os.Root, name, outputEncoding string, evaluate func(text string) (string, []string, error)) (warning string, err error) {
	return substituteFile(root, name, outputEncoding, evaluate)
}

// Glob is a pattern for paths: *, ? and [a-z] within a name, ** for any number of
// directories, {a,b} for either. A pattern that begins with / or ./ means the same
// without.
type Glob struct{ alternatives glob }

// ParseGlob reads a pattern; one that leaves the directory is an error.
func ParseGlob(pattern string) (Glob, error) {
	g, err := parseGlob(pattern)
	return Glob{g}, err
}

// Match reports whether a relative path, with '/' between directories, matches.
func (g Glob) Match(name string) bool { return g.alternatives.match(name) }
