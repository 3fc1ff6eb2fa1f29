package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Array answers with a JSON array that is written while it is sent, so that only a
// piece of it is in memory: next gives the next items, and whether there may be more.
// It is called once before the answer begins, for its error to have a status; a later
// one cuts the answer off.
func Array[T any](next func() (items []T, more bool, err error)) (Raw, error) {
	a := &array[T]{next: next}
	err := a.piece()
	return Raw{ContentType: "application/json; charset=utf-8", Content: a}, err
}

type array[T any] struct {
	next  func() ([]T, bool, error)
	text  bytes.Buffer // written, not yet read
	begun bool
	ended bool
}

func (a *array[T]) piece() error {
	items, more, err := a.next()
	if err != nil {
		return err
	}
	for i := range items {
		body, err := json.Marshal(&items[i])
		if err != nil {
			return fmt.Errorf("encode an item of an array: %w", err)
		}
		a.text.WriteByte(map[bool]byte{false: '[', true: ','}[a.begun])
		a.text.Write(body)
		a.begun = true
	}
	if !more {
		if !a.begun {
			a.text.WriteByte('[')
		}
		a.text.WriteString("]\n")
		a.ended = true
	}
	return nil
}

// Read is io.Reader.
func (a *array[T]) Read(p []byte) (int, error) {
	for a.text.Len() == 0 {
		if a.ended {
			return 0, io.EOF
		}
		if err := a.piece(); err != nil {
			return 0, err
		}
	}
	return a.text.Read(p)
}
