// Package servicemsg finds service messages in the output of scripts.
//
// A script talks back to the server by printing
//
//	##octopus[setVariable name='<base64>' value="<base64>"]
//
// anywhere in its output: amid other text, several in one line, or one over many
// lines, since a terminal or a tool may have wrapped it. What looks like a
// message but is none is ordinary output, and no character of that may be lost
// or held back for long. So the [Scanner] reads the grammar byte by byte, and
// holds text only while it can still become a message.
//
// A task's log is fetched in pieces, maybe by different processes, so a scanner
// is a plain value whose JSON is kept between fetches.
package servicemsg

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxMessage bounds one message, in bytes of output. A longer one is ordinary
// output: its name says what it is, but nothing reads a variable of that size.
const MaxMessage = 4 << 20

// opening begins every message.
const opening = "##octopus["

// Message is one service message.
type Message struct {
	// Name says what the message is for, as printed ("setVariable"). Names that
	// the reader does not know are to be ignored.
	Name string
	// Attributes holds the decoded values by name, as printed.
	Attributes map[string]string
}

// Get returns the attribute of that name in any case, or "".
func (m Message) Get(name string) string {
	if v, ok := m.Attributes[name]; ok {
		return v
	}
	for k, v := range m.Attributes {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// String writes the message as a script prints it, attributes sorted by name.
func (m Message) String() string {
	var b strings.Builder
	b.WriteString(opening)
	b.WriteString(m.Name)
	for _, k := range slices.Sorted(maps.Keys(m.Attributes)) {
		b.WriteString(" " + k + `="` + base64.StdEncoding.EncodeToString([]byte(m.Attributes[k])) + `"`)
	}
	b.WriteByte(']')
	return b.String()
}

// Item is a piece of output in its place: a line of text, or a message.
type Item struct {
	// Text is one line of ordinary output, if Message is nil.
	Text string
	// Message is a service message.
	Message *Message
}

// Scanner tells messages from text. The zero Scanner is ready; one serves one
// stream (standard output and standard error of a script are two). It is not
// safe for concurrent use.
type Scanner struct {
	// Held are the lines, or their ends, that may yet become a message. The
	// first begins with the opening.
	Held []string `json:"held,omitempty"`
	// HeldBytes is the length of Held.
	HeldBytes int `json:"heldBytes,omitempty"`
	// State is how far the grammar has been read.
	State State `json:"state,omitempty"`
	// Inline is the text before the message in the first held line, which is
	// known to be ordinary. Bytes, since output need not be valid UTF-8; what is
	// held is ASCII by the grammar.
	Inline []byte `json:"inline,omitempty"`
}

// State is a place in the grammar of messages.
type State string

// The places: what may come next.
const (
	inName      State = "name"
	wantAttr    State = "attribute" // white space has been read
	inAttr      State = "attributeName"
	wantEquals  State = "equals"
	wantQuote   State = "quote"
	inSingle    State = "single"
	inDouble    State = "double"
	afterValue  State = "afterValue"
	complete    State = "complete"
	notAMessage State = "invalid"
)

// next reads one byte.
func (s State) next(c byte) State {
	blank := c == ' ' || c == '\t' || c == '\r' || c == '\n'
	word := c == '-' || c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
	switch s {
	case inName:
		switch {
		case word:
			return inName
		case blank:
			return wantAttr
		case c == ']':
			return complete
		}
	case wantAttr:
		switch {
		case blank:
			return wantAttr
		case word:
			return inAttr
		case c == ']':
			return complete
		}
	case inAttr:
		switch {
		case word:
			return inAttr
		case blank:
			return wantEquals
		case c == '=':
			return wantQuote
		}
	case wantEquals:
		switch {
		case blank:
			return wantEquals
		case c == '=':
			return wantQuote
		}
	case wantQuote:
		switch {
		case blank:
			return wantQuote
		case c == '\'':
			return inSingle
		case c == '"':
			return inDouble
		}
	case inSingle, inDouble:
		base64Byte := c == '+' || c == '/' || c == '=' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
		switch {
		case blank || base64Byte:
			return s
		case s == inSingle && c == '\'' || s == inDouble && c == '"':
			return afterValue
		}
	case afterValue:
		switch {
		case blank:
			return wantAttr
		case c == ']':
			return complete
		}
	case complete, notAMessage:
	}
	return notAMessage
}

// Feed reads one line of output, without its line end, and returns what is
// known now, in order. A line that holds nothing but messages gives no text; a
// line with text and messages gives one text, without the messages.
func (s *Scanner) Feed(line string) []Item {
	var items []Item
	text, seen := "", false // the ordinary text of this line; whether a message stood in it
	rest := line
	if len(s.Held) > 0 {
		n := s.advance("\n" + rest)
		switch s.State {
		case complete:
			held := strings.Join(s.Held, "\n") + "\n" + rest[:n-1]
			text, seen, rest = string(s.Inline), true, rest[n-1:]
			m, ok := parse(held)
			if !ok {
				items, text, seen = s.release(items), "", false
				rest = line
			} else {
				items = append(items, Item{Message: &m})
				s.reset()
			}
		case notAMessage:
			items = s.release(items)
		case inName, wantAttr, inAttr, wantEquals, wantQuote, inSingle, inDouble, afterValue:
			if s.hold(rest) {
				return nil
			}
			items = s.release(items)
		}
	}
	for {
		i := strings.Index(rest, opening)
		if i < 0 {
			break
		}
		s.State = inName
		n := len(opening) + s.advance(rest[i+len(opening):])
		switch s.State {
		case complete:
			if m, ok := parse(rest[i : i+n]); ok {
				text += rest[:i]
				seen = true
				items = append(items, Item{Message: &m})
				rest = rest[i+n:]
				continue
			}
		case inName, wantAttr, inAttr, wantEquals, wantQuote, inSingle, inDouble, afterValue:
			if s.hold(rest[i:]) {
				s.Inline = []byte(text + rest[:i])
				return items
			}
		case notAMessage:
		}
		// Only the opening is known to be text; a message may follow it.
		text += rest[:i+len(opening)]
		rest = rest[i+len(opening):]
	}
	s.State = ""
	if text += rest; !seen || strings.TrimSpace(text) != "" {
		items = append(items, Item{Text: text})
	}
	return items
}

// Flush ends the stream: what is held is text.
func (s *Scanner) Flush() []Item { return s.release(nil) }

// advance moves the state over text, and returns how many bytes it read; fewer
// than all if the message ended or proved to be none.
func (s *Scanner) advance(text string) int {
	for i := range len(text) {
		if s.State = s.State.next(text[i]); s.State == complete || s.State == notAMessage {
			return i + 1
		}
	}
	return len(text)
}

// hold keeps a line, unless it makes the message too long.
func (s *Scanner) hold(line string) bool {
	if s.HeldBytes+len(line)+1 > MaxMessage {
		return false
	}
	s.Held = append(s.Held, line)
	s.HeldBytes += len(line) + 1
	return true
}

// release adds the held lines as text.
func (s *Scanner) release(items []Item) []Item {
	for i, line := range s.Held {
		if i == 0 {
			line = string(s.Inline) + line
		}
		items = append(items, Item{Text: line})
	}
	s.reset()
	return items
}

func (s *Scanner) reset() { *s = Scanner{} }

// parse reads a text that the grammar has accepted. It reports false if a value
// is not base64 of UTF-8, an attribute is named twice, or the name is missing.
func parse(text string) (Message, bool) {
	body := strings.TrimSuffix(strings.TrimPrefix(text, opening), "]")
	end := strings.IndexAny(body, " \t\r\n")
	if end < 0 {
		end = len(body)
	}
	m := Message{Name: body[:end], Attributes: map[string]string{}}
	rest := strings.TrimSpace(body[end:])
	for rest != "" {
		name, after, _ := strings.Cut(rest, "=")
		name, after = strings.TrimSpace(name), strings.TrimSpace(after)
		encoded, after, _ := strings.Cut(after[1:], after[:1])
		rest = strings.TrimSpace(after)

		value, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(encoded), ""))
		if _, twice := m.Attributes[name]; err != nil || twice || !utf8.Valid(value) {
			return Message{}, false
		}
		m.Attributes[name] = string(value)
	}
	return m, m.Name != ""
}
