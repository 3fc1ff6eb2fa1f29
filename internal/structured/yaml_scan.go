package structured

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// yamlProperties are what stands before a node: an anchor and a tag.
type yamlProperties struct {
	start   int // of the node with its properties
	content int // of the node itself
	anchor  string
	tag     string // as written
	tagAt   int
}

func (p yamlProperties) anchorText() string {
	if p.anchor == "" {
		return ""
	}
	return "&" + p.anchor
}

// shortTag writes a verbatim tag of YAML's own types with the usual prefix.
func (p yamlProperties) shortTag() string {
	return "!!" + strings.TrimSuffix(strings.TrimPrefix(p.tag, "!<tag:yaml.org,2002:"), ">")
}

// properties reads the anchor and the tag of a node, in either order.
func (f *yamlFile) properties(n *yaml.Node, flow bool) yamlProperties {
	p := yamlProperties{start: f.offset(n.Line, n.Column)}
	p.content = p.start
	if n.Kind == yaml.AliasNode {
		return p
	}
	// No text can begin with these signs, so they need not be doubted; but what
	// follows the properties of an empty scalar may be another node's.
	for at := p.start; at < len(f.src); at = f.skip(at) {
		switch {
		case f.src[at] == '&' && n.Anchor != "" && p.anchor == "":
			p.anchor = n.Anchor
			at += 1 + len(n.Anchor)
		case f.src[at] == '!' && p.tag == "":
			p.tagAt = at
			at += tagLength(f.src[at:], flow)
			p.tag = f.src[p.tagAt:at]
		default:
			if !isEmptyScalar(n) {
				p.content = at
			}
			return p
		}
		p.content = at
	}
	return p
}

// isEmptyScalar reports whether a node has no text of its own.
func isEmptyScalar(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "" && n.Style&^yaml.TaggedStyle == 0
}

// tagLength returns the length of the tag that s begins with.
func tagLength(s string, flow bool) int {
	if strings.HasPrefix(s, "!<") {
		if n := strings.IndexByte(s, '>'); n >= 0 {
			return n + 1
		}
	}
	ends := " \t\n"
	if flow {
		ends = " \t\n,[]{}"
	}
	if n := strings.IndexAny(s, ends); n >= 0 {
		return n
	}
	return len(s)
}

// skip returns the offset after white space, line ends and comments.
func (f *yamlFile) skip(at int) int {
	for at < len(f.src) {
		switch c := f.src[at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			at++
		case c == '#' && (at == 0 || strings.IndexByte(" \t\n\r", f.src[at-1]) >= 0):
			if n := strings.IndexByte(f.src[at:], '\n'); n >= 0 {
				at += n
			} else {
				at = len(f.src)
			}
		default:
			return at
		}
	}
	return at
}

// scalarEnd returns where the text of a scalar ends.
func (f *yamlFile) scalarEnd(n *yaml.Node, at int, slot yamlSlot) int {
	switch {
	case isEmptyScalar(n):
		return at
	case n.Style&yaml.DoubleQuotedStyle != 0:
		for i := at + 1; i < len(f.src); i++ {
			switch f.src[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0:
		for i := at + 1; i < len(f.src); i++ {
			if f.src[i] == '\'' {
				if i+1 == len(f.src) || f.src[i+1] != '\'' {
					return i + 1
				}
				i++
			}
		}
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return f.blockEnd(at, slot)
	default:
		return f.plainEnd(at, slot)
	}
	return len(f.src)
}

// blockEnd returns where a literal or folded scalar ends: at the end of its last
// line, without the line end. Empty lines after it are its own only if the
// header says so.
func (f *yamlFile) blockEnd(at int, slot yamlSlot) int {
	header := f.src[at:]
	if n := strings.IndexByte(header, '\n'); n >= 0 {
		header = header[:n]
	}
	indicators, _, _ := strings.Cut(header, " ")
	line := at + len(header)
	indent := -1
	if i := strings.IndexAny(indicators, "123456789"); i >= 0 {
		indent = max(slot.column, 0) + int(indicators[i]-'0')
	}
	end := line
	for line < len(f.src) {
		text, _, _ := strings.Cut(f.src[line+1:], "\n")
		lead := len(text) - len(strings.TrimLeft(text, " "))
		blank := lead == len(text)
		if indent < 0 && !blank {
			if lead <= slot.column {
				break
			}
			indent = lead
		}
		if !blank && lead < indent || !blank && slot.column < 0 && isDocumentMark(text) {
			break
		}
		line += 1 + len(text)
		if line > len(f.src) {
			break
		}
		if !blank || indent >= 0 && lead > indent || strings.Contains(indicators, "+") {
			end = line
		}
	}
	// A file's last line end is not a line of the scalar.
	if end == len(f.src) && strings.HasSuffix(f.src, "\n") && end > at+len(header) {
		end--
	}
	return end
}

func isDocumentMark(line string) bool {
	return (strings.HasPrefix(line, "---") || strings.HasPrefix(line, "...")) && (len(line) == 3 || strings.IndexByte(" \t", line[3]) >= 0)
}

// plainEnd returns where a scalar without quotes ends.
func (f *yamlFile) plainEnd(at int, slot yamlSlot) int {
	end := at
	for i := at; i < len(f.src) && f.src[i] != '#'; {
		if i == 0 || f.src[i-1] == '\n' { // a file may be one long line: look only here
			if text, _, _ := strings.Cut(f.src[i:], "\n"); isDocumentMark(text) {
				break
			}
		}
		for i < len(f.src) && strings.IndexByte(" \t\n\r", f.src[i]) < 0 {
			next := byte(' ')
			if i+1 < len(f.src) {
				next = f.src[i+1]
			}
			c := f.src[i]
			if c == ':' && strings.IndexByte(" \t\n\r", next) >= 0 ||
				slot.flow && (strings.IndexByte(",[]{}", c) >= 0 || c == ':' && strings.IndexByte(",]}", next) >= 0) {
				break
			}
			_, n := utf8.DecodeRuneInString(f.src[i:])
			i += n
			end = i
		}
		if i == len(f.src) || strings.IndexByte(" \t\n\r", f.src[i]) < 0 {
			break
		}
		broken := false
		for i < len(f.src) && strings.IndexByte(" \t\n\r", f.src[i]) >= 0 {
			broken = broken || f.src[i] == '\n'
			i++
		}
		if broken && !slot.flow && i < len(f.src) && f.columnOf(i) <= slot.column {
			break
		}
	}
	return end
}

// yamlLayout is how a file is indented.
type yamlLayout struct {
	indent   int // of a collection within another
	sequence int // of a sequence within a mapping: often 0
}

// detectLayout counts the indentations of a file's block collections.
func detectLayout(docs []*yaml.Node) yamlLayout {
	indents, sequences, order := map[int]int{}, map[int]int{}, []int{}
	var walk func(n *yaml.Node, column, depth int, inMapping bool)
	walk = func(n *yaml.Node, column, depth int, inMapping bool) {
		if n.Style&yaml.FlowStyle != 0 || depth > maxDepth {
			return
		}
		inner := column
		if n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode {
			inner = n.Column
			if step := inner - column; step >= 2 && step <= 9 {
				if indents[step]++; indents[step] == 1 {
					order = append(order, step)
				}
			}
			if n.Kind == yaml.SequenceNode && inMapping {
				sequences[inner-column]++
			}
		}
		for i, child := range n.Content {
			walk(child, inner, depth+1, n.Kind == yaml.MappingNode && i%2 == 1)
		}
	}
	for _, doc := range docs {
		for _, root := range doc.Content {
			walk(root, 1, 0, false)
		}
	}
	layout := yamlLayout{indent: 2}
	best := 0
	for _, step := range order {
		if indents[step] > best {
			layout.indent, best = step, indents[step]
		}
	}
	best = sequences[0]
	for step := 2; step <= 9; step++ {
		if sequences[step] > best {
			layout.sequence, best = step, sequences[step]
		}
	}
	return layout
}
