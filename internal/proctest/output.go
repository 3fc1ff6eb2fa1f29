package proctest

import (
	"bytes"
	"sync"
)

// Output keeps what is written to it, and can be read at the same time: what a process
// says, or a log. The zero value is empty, and ready.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write is io.Writer. It never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String is all that was written until now.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
