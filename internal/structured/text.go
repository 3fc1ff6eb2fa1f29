package structured

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

// charset is how a file's text is written as bytes.
type charset struct {
	name  string // as an XML declaration writes it
	bom   string // what the file begins with
	codec encoding.Encoding
}

func utf8Charset() charset { return charset{name: "utf-8", codec: encoding.Nop} }

func windows1252() charset { return charset{name: "windows-1252", codec: charmap.Windows1252} }

// marked lists the encodings that a byte order mark tells, longest mark first.
func marked() []charset {
	return []charset{
		{"utf-32", "\xff\xfe\x00\x00", utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM)},
		{"utf-32BE", "\x00\x00\xfe\xff", utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM)},
		{"utf-8", "\xef\xbb\xbf", encoding.Nop},
		{"utf-16", "\xff\xfe", unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)},
		{"utf-16BE", "\xfe\xff", unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)},
	}
}

// namedCharset returns the encoding of that name, as XML declarations and
// Octopus.Action.SubstituteInFiles.OutputEncoding have it. Those of Unicode come
// with their byte order mark, as .NET writes them.
func namedCharset(name string) (charset, bool) {
	switch strings.ToLower(name) {
	case "utf-8", "utf8":
		return charset{"utf-8", "\xef\xbb\xbf", encoding.Nop}, true
	case "utf-16", "utf-16le", "unicode":
		return marked()[3], true
	case "utf-16be", "unicodefffe":
		return marked()[4], true
	case "utf-32", "utf-32le":
		return marked()[0], true
	case "utf-32be":
		return marked()[1], true
	}
	codec, err := ianaindex.IANA.Encoding(name)
	if err != nil || codec == nil {
		return charset{}, false
	}
	return charset{name: strings.ToLower(name), codec: codec}, true
}

// decode finds a file's encoding and reads its text: by the byte order mark, or
// as preferred if the bytes allow that, or as UTF-8, or as Windows-1252, which
// takes any bytes.
func decode(input []byte, preferred *charset) (string, charset) {
	for _, c := range marked() {
		if bytes.HasPrefix(input, []byte(c.bom)) {
			body := input[len(c.bom):]
			if c.codec == encoding.Nop && !utf8.Valid(body) {
				break // a mark, but not its text
			}
			if text, err := c.codec.NewDecoder().Bytes(body); err == nil {
				return string(text), c
			}
		}
	}
	if preferred != nil && preferred.codec != encoding.Nop {
		if text, err := preferred.codec.NewDecoder().Bytes(input); err == nil && !bytes.ContainsRune(text, utf8.RuneError) {
			return string(text), charset{name: preferred.name, codec: preferred.codec}
		}
	}
	if utf8.Valid(input) {
		return string(input), utf8Charset()
	}
	c := windows1252()
	text, _ := c.codec.NewDecoder().Bytes(input) // cannot fail: every byte has a character
	return string(text), c
}

// encode writes text in the encoding, or in UTF-8 without a byte order mark if
// it cannot hold the text.
func (c charset) encode(text string) []byte {
	out, ok := c.tryEncode(text)
	if !ok {
		return []byte(text)
	}
	return out
}

// tryEncode is encode without the way out.
func (c charset) tryEncode(text string) ([]byte, bool) {
	body := []byte(text)
	if c.codec != encoding.Nop {
		var err error
		if body, err = c.codec.NewEncoder().Bytes(body); err != nil {
			return nil, false
		}
	}
	return append([]byte(c.bom), body...), true
}

// commonLineEnd returns the line end that text has most, "\n" if it has none.
func commonLineEnd(text string) string {
	dos := strings.Count(text, "\r\n")
	if unix := strings.Count(text, "\n") - dos; dos > unix {
		return "\r\n"
	}
	return "\n"
}

// position returns line and column of an offset, both from 1; columns count
// characters.
func position(text string, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	start := strings.LastIndexByte(before, '\n') + 1
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[start:]) + 1
}

// edit replaces a stretch of a text.
type edit struct {
	start, end int
	text       string
}

// applyEdits returns the text with its edits, of which one within another is
// left out.
func applyEdits(text string, edits []edit) string {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.start - b.start })
	var b strings.Builder
	at := 0
	for _, e := range edits {
		if e.start < at {
			continue
		}
		b.WriteString(text[at:e.start])
		b.WriteString(e.text)
		at = e.end
	}
	b.WriteString(text[at:])
	return b.String()
}
