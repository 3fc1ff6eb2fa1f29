package main

import "fmt"

// unknownCommandError is a word where a command is expected.
type unknownCommandError struct{ below, word string }

func (e *unknownCommandError) Error() string {
	return fmt.Sprintf("there is no command %q below `%s`", e.word, e.below)
}
