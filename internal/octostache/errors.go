package octostache

import (
	"fmt"
	"strings"
	"time"
)

// LoopError reports a variable whose value refers to itself, directly or not.
type LoopError struct {
	Symbol string   // the reference that closes the loop
	Path   []string // from the first reference to the one before Symbol
}

func (e *LoopError) Error() string {
	return fmt.Sprintf("An attempt to parse the variable symbol %q appears to have resulted in a self referencing loop (%s). "+
		"Ensure that recursive loops do not exist in the variable values.",
		e.Symbol, strings.Join(append(e.Path[:len(e.Path):len(e.Path)], e.Symbol), " -> "))
}

// MissingError lists what had no value. Unlike the other errors it comes with a usable text.
type MissingError struct {
	Tokens []string // as left in the text, in order, each once
}

func (e *MissingError) Error() string {
	return "The following tokens were unable to be evaluated: '" + strings.Join(e.Tokens, "', '") + "'"
}

// LimitError reports that a template costs more than [Limits] allow.
type LimitError struct {
	Limit string // the name of the field of Limits
	Value string // what it is set to
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("the template needs more than the limit %s of %s; simplify it or split it", e.Limit, e.Value)
}

// Limits bounds what one evaluation may cost. A zero field stands for its default.
type Limits struct {
	Depth  int // values that refer to values; 200
	Output int // bytes of any text on the way, the result too; 64 MiB
	Loops  int // items of all loops together; 1,000,000
	Steps  int // references, parts and blocks of 256 bytes handled; 20,000,000
	// Regex bounds each search of a regular expression; 2 s. Running out of it is a LimitError.
	Regex time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(field *int, value int) {
		if *field <= 0 {
			*field = value
		}
	}
	set(&l.Depth, 200)
	set(&l.Output, 64<<20)
	set(&l.Loops, 1_000_000)
	set(&l.Steps, 20_000_000)
	if l.Regex <= 0 {
		l.Regex = 2 * time.Second
	}
	return l
}
