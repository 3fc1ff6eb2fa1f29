package ocl

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const (
	indentation = "    "
	// defaultTag ends here-documents that ask for no tag of their own.
	defaultTag = "EOT"
)

// Print writes a document in its one form: four spaces a level, a blank line
// around blocks, and no line break at the end.
//
// Characters that a name cannot have become "_". A string of several lines
// becomes an indented here-document unless it asks for another format.
func Print(body Body) string { return PrintLines(body, "\n") }

// PrintLines is [Print] with a line break of one's own. Line breaks within
// strings are the strings' and stay as they are.
func PrintLines(body Body, lineBreak string) string {
	w := &writer{lineBreak: lineBreak}
	w.body(body, 0)
	return strings.TrimSuffix(w.String(), lineBreak)
}

type writer struct {
	strings.Builder
	lineBreak string
}

func (w *writer) indent(level int) { w.WriteString(strings.Repeat(indentation, level)) }

func (w *writer) body(body Body, level int) {
	for i, item := range body {
		if i > 0 && (item.Block != nil || body[i-1].Block != nil) {
			w.WriteString(w.lineBreak)
		}
		w.indent(level)
		w.WriteString(cleanName(item.Name))
		if item.Block == nil {
			w.WriteString(" = ")
			// The text of a here-document stands two levels deeper.
			w.value(item.Value, level, level+2)
		} else {
			w.block(item.Block, level)
		}
		w.WriteString(w.lineBreak)
	}
}

func (w *writer) block(b *Block, level int) {
	for _, label := range b.Labels {
		w.WriteByte(' ')
		w.quoted(label)
	}
	if len(b.Body) == 0 {
		w.WriteString(" {}")
		return
	}
	w.WriteString(" {")
	w.WriteString(w.lineBreak)
	w.body(b.Body, level+1)
	w.indent(level)
	w.WriteByte('}')
}

// cleanName replaces what a name cannot have.
func cleanName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '_'
	}, name)
	if clean == "" {
		return "_"
	}
	return clean
}

// value writes a value; the text of a here-document stands at a level of its own.
func (w *writer) value(v Value, level, textLevel int) {
	switch v.Kind {
	case Null:
		w.WriteString("null")
	case Bool:
		w.WriteString(strconv.FormatBool(v.Bool))
	case Int:
		w.WriteString(strconv.FormatInt(v.Int, 10))
	case Decimal:
		w.WriteString(v.Text)
	case String:
		w.text(v, textLevel)
	case List:
		w.WriteByte('[')
		for i, item := range v.List {
			if i > 0 {
				w.WriteString(", ")
			}
			if item.Kind == String {
				item.Format = SingleLine // a list stands on one line
			}
			w.value(item, level, textLevel)
		}
		w.WriteByte(']')
	case Map:
		w.dictionary(v.Map, level)
	}
}

func (w *writer) dictionary(entries []Entry, level int) {
	if len(entries) == 0 {
		w.WriteString("{}")
		return
	}
	w.WriteByte('{')
	w.WriteString(w.lineBreak)
	for _, e := range entries {
		w.indent(level + 1)
		if plainKey(e.Key) {
			w.WriteString(e.Key)
		} else {
			w.quoted(e.Key)
		}
		w.WriteString(" = ")
		w.value(e.Value, level+1, level+2)
		w.WriteString(w.lineBreak)
	}
	w.indent(level)
	w.WriteByte('}')
}

// plainKey reports whether a key needs no quotes.
func plainKey(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

func (w *writer) text(v Value, level int) {
	format := v.Format
	if format == Auto && strings.Contains(v.Text, "\n") {
		format = Indented
	}
	if (format != Heredoc && format != Indented) || !heredocSafe(v.Text) {
		w.quoted(v.Text)
		return
	}
	tag := freeTag(v.Tag, v.Text)
	w.WriteString("<<")
	if format == Indented {
		w.WriteByte('-')
	} else {
		level = 0
	}
	w.WriteString(tag)
	w.WriteString(w.lineBreak)
	for i, line := range strings.Split(v.Text, "\n") {
		if i > 0 {
			// A line break of the text is the text's own: after what may be
			// the "\r" of the line, a "\n".
			w.WriteByte('\n')
		}
		w.indent(level)
		w.WriteString(line)
	}
	w.WriteString(w.lineBreak)
	w.indent(level)
	w.WriteString(tag)
}

// heredocSafe reports whether a here-document can have a text: a "\r" at its end
// would become part of the line break that follows.
func heredocSafe(text string) bool { return !strings.HasSuffix(text, "\r") }

// freeTag returns the wanted tag, or one that no line of the text consists of.
func freeTag(tag, text string) string {
	if tag == "" || strings.HasPrefix(tag, "-") || strings.ContainsFunc(tag, unicode.IsSpace) {
		tag = defaultTag
	}
	base := tag
	for n := 1; slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
		_, ok := heredocEnd(tag, strings.TrimSuffix(line, "\r"))
		return ok
	}); n++ {
		tag = base + strconv.Itoa(n)
	}
	return tag
}

// quoted writes a string in quotes.
func (w *writer) quoted(s string) {
	w.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			w.WriteByte('\\')
			w.WriteByte(c)
		case '\n':
			w.WriteString(`\n`)
		case '\r':
			w.WriteString(`\r`)
		case '\t':
			w.WriteString(`\t`)
		default:
			w.WriteByte(c)
		}
	}
	w.WriteByte('"')
}

// SnakeCase is the name that a member of the API's model has in a file:
// "AllowDeploymentsToNoTargets" is "allow_deployments_to_no_targets".
func SnakeCase(name string) string {
	runes := []rune(name)
	var b strings.Builder
	for i, r := range runes {
		if unicode.IsSpace(r) {
			b.WriteByte('_')
			continue
		}
		if unicode.IsUpper(r) && i > 0 && !unicode.IsSpace(runes[i-1]) && runes[i-1] != '_' {
			if !unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]) {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
