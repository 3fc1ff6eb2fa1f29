package db

import "strings"

// Containing is the pattern of LIKE, with ESCAPE '\', of the texts that have s in
// them: whatever has a meaning of its own in a pattern stands for itself.
func Containing(s string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s) + "%"
}
