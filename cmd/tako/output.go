package main

import (
	"encoding/json"
	"errors"
	"io"

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

// printJSON prints a value for programs.
func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
