package structured

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// yamlEmitter writes nodes as text that fits into a file.
type yamlEmitter struct {
	layout yamlLayout
}

// block writes a node after a colon or a dash: text that begins with a space, or
// with a line end if the node is a block below. column is that of the collection
// it stands in.
func (e yamlEmitter) block(n *yaml.Node, anchor string, column int, inMapping bool) string {
	column = max(column, 0)
	if anchor == "" && n.Anchor != "" {
		anchor = "&" + n.Anchor
	}
	properties := ""
	if anchor != "" {
		properties += " " + anchor
	}
	if tag := tagText(n); tag != "" {
		properties += " " + tag
	}
	switch {
	case n.Kind == yaml.AliasNode:
		return " *" + n.Value
	case n.Kind == yaml.ScalarNode:
		text := writeScalar(n.Value, scalarStyle(n.Value, n.Style, false, isEmptyScalar(n)), column, e.layout.indent)
		if text == "" {
			return properties
		}
		return properties + " " + text
	case len(n.Content) == 0 || n.Style&yaml.FlowStyle != 0:
		return properties + " " + e.flowContent(n)
	}
	inner := column + e.layout.indent
	lead := "\n" + strings.Repeat(" ", inner)
	if inMapping && n.Kind == yaml.SequenceNode {
		inner = column + e.layout.sequence
		lead = "\n" + strings.Repeat(" ", inner)
	}
	between := lead
	if !inMapping && properties == "" { // beside the dash
		inner = column + 2
		lead, between = " ", "\n"+strings.Repeat(" ", inner)
	}
	var b strings.Builder
	b.WriteString(properties)
	if n.Kind == yaml.SequenceNode {
		for i, item := range n.Content {
			b.WriteString(pick(i == 0, lead, between) + "-" + e.block(item, "", inner, false))
		}
		return b.String()
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		b.WriteString(pick(i == 0, lead, between))
		if key.Kind == yaml.ScalarNode && !strings.Contains(key.Value, "\n") && len(key.Value) <= 128 || key.Kind == yaml.AliasNode {
			b.WriteString(e.flow(key) + pick(key.Kind == yaml.AliasNode, " :", ":"))
		} else {
			b.WriteString("?" + e.block(key, "", inner, true) + between + ":")
		}
		b.WriteString(e.block(value, "", inner, true))
	}
	return b.String()
}

// flow writes a node on one line.
func (e yamlEmitter) flow(n *yaml.Node) string {
	properties := ""
	if n.Anchor != "" {
		properties = "&" + n.Anchor + " "
	}
	if tag := tagText(n); tag != "" {
		properties += tag + " "
	}
	return properties + e.flowContent(n)
}

func (e yamlEmitter) flowContent(n *yaml.Node) string {
	switch n.Kind {
	case yaml.AliasNode:
		return "*" + n.Value
	case yaml.SequenceNode:
		items := make([]string, len(n.Content))
		for i, item := range n.Content {
			if items[i] = e.flow(item); items[i] == "" {
				items[i] = "null" // nothing between brackets is no item
			}
		}
		return "[" + strings.Join(items, ", ") + "]"
	case yaml.MappingNode:
		var pairs []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			colon := pick(n.Content[i].Kind == yaml.AliasNode, " :", ":")
			pairs = append(pairs, strings.TrimRight(e.flow(n.Content[i])+colon+" "+e.flow(n.Content[i+1]), " "))
		}
		return "{" + strings.Join(pairs, ", ") + "}"
	default:
		if isEmptyScalar(n) {
			return ""
		}
		style := scalarStyle(n.Value, n.Style, true, false)
		if style == yaml.SingleQuotedStyle && strings.Contains(n.Value, "\n") {
			style = yaml.DoubleQuotedStyle
		}
		return writeScalar(n.Value, style, 0, 0)
	}
}

func tagText(n *yaml.Node) string {
	if n.Style&yaml.TaggedStyle == 0 {
		return ""
	}
	if tag := n.ShortTag(); strings.HasPrefix(tag, "!") {
		return tag
	}
	return "!<" + n.Tag + ">"
}

// scalarFacts are what decides how a text can be written.
type scalarFacts struct {
	plainBlock, plainFlow, single, block bool
}

// analyze finds which styles can hold a text, by YAML's rules for the characters
// that have a meaning at the begin of a scalar and in it.
func analyze(s string) scalarFacts {
	if s == "" {
		return scalarFacts{single: true}
	}
	var indicator, flowIndicator, breaks, special, edge, trailingSpace, spaceBeforeBreak, spaceAfterBreak bool
	if strings.HasPrefix(s, "---") || strings.HasPrefix(s, "...") {
		indicator = true
	}
	before := rune(' ')
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		after := rune(' ')
		if i+size < len(s) {
			after, _ = utf8.DecodeRuneInString(s[i+size:])
		}
		blankAfter := after == ' ' || after == '\t' || after == '\n'
		switch {
		case i == 0 && strings.ContainsRune("#,[]{}&*!|>'\"%@`", r), i == 0 && strings.ContainsRune("-?:", r) && blankAfter:
			indicator = true
		case strings.ContainsRune(",?[]{}", r):
			flowIndicator = true
		case r == ':':
			flowIndicator = true
			indicator = indicator || blankAfter
		case r == '#' && (before == ' ' || before == '\t' || before == '\n'):
			indicator = true
		case r == '\n':
			breaks = true
			edge = edge || i == 0 || i+size == len(s)
			spaceBeforeBreak = spaceBeforeBreak || i > 0 && before == ' '
		case r == ' ':
			edge = edge || i == 0 || i+size == len(s)
			trailingSpace = trailingSpace || i+size == len(s)
			spaceAfterBreak = spaceAfterBreak || i > 0 && before == '\n'
		case !printable(r) || r == '\t' || r == utf8.RuneError && size == 1:
			special = true
		}
		before = r
	}
	plain := !indicator && !breaks && !edge && !special
	return scalarFacts{
		plainBlock: plain,
		plainFlow:  plain && !flowIndicator,
		single:     !spaceAfterBreak && !spaceBeforeBreak && !special,
		block:      !trailingSpace && !spaceBeforeBreak && !special,
	}
}

// printable reports whether YAML may hold a character as itself. Line ends other
// than \n are escaped, since readers disagree about them.
func printable(r rune) bool {
	return r >= ' ' && r <= '~' || r >= 0xA0 && r <= 0xD7FF && r != 0x2028 && r != 0x2029 || r >= 0xE000 && r <= 0xFFFD && r != 0xFEFF || r >= 0x10000
}

// scalarStyle returns the style wanted if it can hold the text, else the next
// that can. isNull says that an empty plain text is meant.
func scalarStyle(s string, want yaml.Style, flow, isNull bool) yaml.Style {
	facts := analyze(s)
	want &^= yaml.TaggedStyle | yaml.FlowStyle
	if want == 0 {
		if isNull || !flow && facts.plainBlock || flow && facts.plainFlow {
			return 0
		}
		want = yaml.SingleQuotedStyle
	}
	if want == yaml.LiteralStyle || want == yaml.FoldedStyle {
		if facts.block && !flow && s != "" {
			return want
		}
		return yaml.DoubleQuotedStyle
	}
	if want == yaml.SingleQuotedStyle && facts.single {
		return want
	}
	return yaml.DoubleQuotedStyle
}

// writeScalar writes a text in a style that can hold it. Lines after the first
// are indented by so much more than the column that the scalar stands in.
func writeScalar(s string, style yaml.Style, column, indent int) string {
	margin := strings.Repeat(" ", column+indent)
	switch style {
	case yaml.SingleQuotedStyle:
		return "'" + foldLines(strings.ReplaceAll(s, "'", "''"), margin) + "'"
	case yaml.DoubleQuotedStyle:
		return quoteDouble(s)
	case yaml.LiteralStyle, yaml.FoldedStyle:
		return writeBlock(s, style, margin, indent)
	default:
		return s
	}
}

// foldLines writes line ends so that reading folds them back: each run has one
// more.
func foldLines(s, margin string) string {
	var b strings.Builder
	for s != "" {
		n := strings.IndexByte(s, '\n')
		if n < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:n])
		run := len(s[n:]) - len(strings.TrimLeft(s[n:], "\n"))
		b.WriteString(strings.Repeat("\n", run+1) + margin)
		s = s[n+run:]
	}
	return b.String()
}

func quoteDouble(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			b.WriteString(`\uFFFD`)
		case printable(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02X`, r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// writeBlock writes a literal or folded scalar, without its last line end.
func writeBlock(s string, style yaml.Style, margin string, indent int) string {
	header := pick(style == yaml.LiteralStyle, "|", ">")
	if s[0] == ' ' || s[0] == '\n' {
		header += string(rune('0' + indent))
	}
	body := strings.TrimSuffix(s, "\n")
	switch {
	case body == s:
		header += "-"
	case body == "" || strings.HasSuffix(body, "\n"):
		header += "+"
	}
	var b strings.Builder
	b.WriteString(header)
	lines := strings.Split(body, "\n")
	for i, line := range lines {
		b.WriteByte('\n')
		// Between two lines of running text, folding takes one line end away.
		if style == yaml.FoldedStyle && i > 0 && line != "" && line[0] != ' ' {
			j := i - 1
			for j > 0 && lines[j] == "" {
				j--
			}
			if lines[j] != "" && lines[j][0] != ' ' {
				b.WriteByte('\n')
			}
		}
		if line != "" {
			b.WriteString(margin + line)
		}
	}
	return b.String()
}
