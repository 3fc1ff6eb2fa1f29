package main

import (
	"strings"
	"testing"
)

// TestTable: the columns of a table stand below each other, whatever is in its cells.
func TestTable(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	rows := newTable(&out, "NAME", "COUNT", "REASON")
	rows.row("a", 12, "it has\nfailed,\tas so often")
	rows.row("longer", 3, "")
	if err := rows.flush(); err != nil {
		t.Fatal(err)
	}
	want := "NAME    COUNT  REASON\na       12     it has failed, as so often\nlonger  3      \n"
	if out.String() != want {
		t.Errorf("%q, not %q", out.String(), want)
	}
}
