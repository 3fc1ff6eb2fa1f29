package ocl

import "strings"

// heredoc reads <<TAG or <<-TAG, lines, and a line with nothing but the tag.
// The text keeps its own line breaks; the one before the tag is not part of it.
func (p *parser) heredoc() (Value, error) {
	start := p.at
	line, _, complete := cutLine(p.text[p.at:])
	tag, indented, ok := heredocStart(line)
	if !ok || !complete {
		return Value{}, p.fail(start, "a here-document starts with << or <<- and a tag, such as <<-EOT, at the end of a line")
	}
	p.at += len(line)
	p.at += p.lineEnd()
	var lines, breaks []string
	for {
		if p.end() {
			return Value{}, p.fail(start, "a here-document is not closed: expected a line with %s", tag)
		}
		line, lineBreak, _ := cutLine(p.text[p.at:])
		if indent, ok := heredocEnd(tag, line); ok {
			// What follows the tag is the end of the attribute's line.
			p.at += len(line)
			format := Heredoc
			if indented {
				format = Indented
				lines = unindent(lines, indent+tag)
			}
			return Value{Kind: String, Text: join(lines, breaks), Format: format, Tag: tag}, nil
		}
		lines, breaks = append(lines, line), append(breaks, lineBreak)
		p.at += len(line) + len(lineBreak)
	}
}

// cutLine returns the first line, its line break, and whether there is one.
func cutLine(s string) (line, lineBreak string, ok bool) {
	i := strings.IndexByte(s, '\n')
	if i < 0 {
		return s, "", false
	}
	if i > 0 && s[i-1] == '\r' {
		return s[:i-1], s[i-1 : i+1], true
	}
	return s[:i], s[i : i+1], true
}

// join puts lines together with their breaks, without the last break.
func join(lines, breaks []string) string {
	var b strings.Builder
	for i, line := range lines {
		b.WriteString(line)
		if i < len(lines)-1 {
			b.WriteString(breaks[i])
		}
	}
	return b.String()
}

// heredocStart reads the first line, without its break.
func heredocStart(line string) (tag string, indented, ok bool) {
	rest, ok := strings.CutPrefix(line, "<<")
	if !ok {
		return "", false, false
	}
	rest, indented = strings.CutPrefix(rest, "-")
	tag = strings.TrimRight(rest, " \t")
	if tag == "" || strings.ContainsAny(tag, " \t\r") {
		return "", false, false
	}
	return tag, indented, true
}

// heredocEnd reports whether a line has nothing but the tag, and what stands before it.
func heredocEnd(tag, line string) (indent string, ok bool) {
	rest := strings.TrimLeft(line, " \t")
	if strings.TrimRight(rest, " \t\r") != tag {
		return "", false
	}
	return line[:len(line)-len(rest)], true
}

// unindent removes the white space that all lines start with, counting the line
// of the end tag. Lines of nothing but white space do not count, and lose what
// they have of it. A tab is one character.
func unindent(lines []string, endLine string) []string {
	least := -1
	for i := range len(lines) + 1 {
		line := endLine
		if i < len(lines) {
			line = lines[i]
		}
		rest := strings.TrimLeft(line, " \t")
		if n := len(line) - len(rest); rest != "" && (least < 0 || n < least) {
			least = n
		}
	}
	out := make([]string, len(lines))
	for i, line := range lines {
		blank := len(line) - len(strings.TrimLeft(line, " \t"))
		cut := blank
		if least >= 0 {
			cut = min(least, blank)
		}
		out[i] = line[cut:]
	}
	return out
}
