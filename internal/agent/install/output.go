package install

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/takodeploy/tako/internal/servicemsg"
)

// output is the step's standard output: our own lines, and those of the scripts.
type output struct {
	mu sync.Mutex
	w  io.Writer
	// inLine tells that the last line of a script has no end yet.
	inLine bool
}

// lines writes whole lines of our own. Nobody is left to be told when that fails.
func (o *output) lines(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.inLine {
		text = "\n" + text
		o.inLine = false
	}
	_, _ = io.WriteString(o.w, text+"\n")
}

func (o *output) message(name string, pairs ...string) {
	m := servicemsg.Message{Name: name, Attributes: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.Attributes[pairs[i]] = pairs[i+1]
	}
	o.lines(m.String())
}

func (o *output) level(level, format string, args ...any) {
	o.lines("##octopus[stdout-" + level + "]\n" + strings.ReplaceAll(fmt.Sprintf(format, args...), "##octopus[", "## octopus[") + "\n##octopus[stdout-default]")
}

func (o *output) info(format string, args ...any)    { o.level("default", format, args...) }
func (o *output) verbose(format string, args ...any) { o.level("verbose", format, args...) }
func (o *output) warn(format string, args ...any)    { o.level("warning", format, args...) }

// maxLine bounds a line of a script that is looked at for service messages; longer
// ones are passed on all the same.
const maxLine = servicemsg.MaxMessage + 64<<10

// tee passes the output of a script on as it comes, and reads the service messages in
// it.
type tee struct {
	out     *output
	scanner servicemsg.Scanner
	line    bytes.Buffer
	heard   func(servicemsg.Message)
}

// Write is io.Writer.
func (t *tee) Write(p []byte) (int, error) {
	t.out.mu.Lock()
	n, err := t.out.w.Write(p)
	if n > 0 {
		t.out.inLine = p[n-1] != '\n'
	}
	t.out.mu.Unlock()
	for rest := p[:n]; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		piece := rest
		if end >= 0 {
			piece = rest[:end]
		}
		if t.line.Len()+len(piece) <= maxLine {
			t.line.Write(piece)
		}
		if end < 0 {
			break
		}
		t.take()
		rest = rest[end+1:]
	}
	return n, err
}

// take looks at a whole line.
func (t *tee) take() {
	t.hear(t.scanner.Feed(strings.TrimSuffix(t.line.String(), "\r")))
	t.line.Reset()
}

// end looks at what is left when the script has ended.
func (t *tee) end() {
	if t.line.Len() > 0 {
		t.take()
	}
	t.hear(t.scanner.Flush())
}

func (t *tee) hear(items []servicemsg.Item) {
	for _, item := range items {
		if item.Message != nil {
			t.heard(*item.Message)
		}
	}
}
