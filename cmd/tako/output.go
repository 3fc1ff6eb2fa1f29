package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// form is how a command prints what it has to tell: the flag --output of all of them.
type form string

const (
	formTable form = "table"
	formJSON  form = "json"
)

// outputFlag adds the flag to a command.
func outputFlag(cmd *cobra.Command, f *form) {
	*f = formTable
	cmd.Flags().Var(f, "output", "table or json")
}

// String is pflag.Value.
func (f *form) String() string { return string(*f) }

// Type is pflag.Value.
func (*form) Type() string { return "string" }

// Set is pflag.Value.
func (f *form) Set(text string) error {
	switch v := form(text); v {
	case formTable, formJSON:
		*f = v
		return nil
	}
	return errors.New("use table or json")
}

// table prints rows of cells in columns, for people.
type table struct{ w *tabwriter.Writer }

// newTable begins a table with the heads of its columns.
func newTable(out io.Writer, heads ...any) table {
	t := table{tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)}
	t.row(heads...)
	return t
}

var oneLine = strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")

// row adds a row. What has several lines, as an error may, is put on one.
func (t table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = oneLine.Replace(fmt.Sprint(c))
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t")) // flush tells what went wrong
}

// flush prints the table.
func (t table) flush() error { return t.w.Flush() }

// printJSON prints a value for programs.
func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
