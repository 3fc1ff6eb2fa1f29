package structured

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxAttributes bounds the attributes of one element, which are searched one by
// one.
const maxAttributes = 1000

// xmlKind is a kind of node of an XML document.
type xmlKind uint8

const (
	xmlDocument xmlKind = iota
	xmlElement
	xmlAttribute
	xmlText
	xmlCData
	xmlComment
	xmlInstruction
	xmlDoctype   // value is the whole declaration
	xmlEntityRef // value is the name of an entity that the document declares
	xmlDeclaration
)

// xmlNode is a node of a document. It knows where its text lies, so that a file
// can be edited in place as well as written anew.
type xmlNode struct {
	kind        xmlKind
	name        string // as written: prefix and local name
	space       string // URI of the namespace
	value       string // of an attribute, text, comment or instruction
	parent      *xmlNode
	children    []*xmlNode
	attributes  []*xmlNode
	selfClosing bool
	order       int // in the document, for XPath

	// from and to are the offsets of an attribute's value between its quotes, or
	// of an element's content; both are at the slash of a self-closing tag.
	from, to int
}

func (n *xmlNode) prefix() string {
	if prefix, _, ok := strings.Cut(n.name, ":"); ok {
		return prefix
	}
	return ""
}

func (n *xmlNode) local() string { return n.name[strings.IndexByte(n.name, ':')+1:] }

// isNamespace reports whether an attribute declares a namespace.
func (n *xmlNode) isNamespace() bool {
	return n.name == "xmlns" || strings.HasPrefix(n.name, "xmlns:")
}

// attribute returns the attribute as it is written, nil if there is none.
func (n *xmlNode) attribute(name string) *xmlNode {
	for _, a := range n.attributes {
		if a.name == name {
			return a
		}
	}
	return nil
}

// lookupSpace returns the namespace that a prefix stands for at a node.
func (n *xmlNode) lookupSpace(prefix string) (string, bool) {
	switch prefix {
	case "xml":
		return "http://www.w3.org/XML/1998/namespace", true
	case "xmlns":
		return "http://www.w3.org/2000/xmlns/", true
	}
	want := "xmlns"
	if prefix != "" {
		want += ":" + prefix
	}
	for e := n; e != nil; e = e.parent {
		if a := e.attribute(want); a != nil {
			return a.value, true
		}
	}
	return "", prefix == ""
}

// text returns the node's string value, as XPath has it.
func (n *xmlNode) text() string {
	if n.kind != xmlElement && n.kind != xmlDocument {
		return n.value
	}
	var b strings.Builder
	n.appendText(&b)
	return b.String()
}

func (n *xmlNode) appendText(b *strings.Builder) {
	for _, c := range n.children {
		switch c.kind {
		case xmlText, xmlCData:
			b.WriteString(c.value)
		case xmlElement:
			c.appendText(b)
		case xmlDocument, xmlAttribute, xmlComment, xmlInstruction, xmlDoctype, xmlEntityRef, xmlDeclaration:
		}
	}
}

// add appends a child.
func (n *xmlNode) add(child *xmlNode) *xmlNode {
	child.parent = n
	n.children = append(n.children, child)
	return child
}

// xmlParser reads a document or a fragment.
type xmlParser struct {
	src       string
	at        int
	keepSpace bool // keep white space between tags
	doctype   string
}

type xmlSyntaxError struct {
	at     int
	reason string
}

func (e *xmlSyntaxError) Error() string { return e.reason }

func (p *xmlParser) fail(at int, format string, args ...any) error {
	return &xmlSyntaxError{at, fmt.Sprintf(format, args...)}
}

// parseXML reads a document. White space between tags is dropped, unless
// keepSpace or xml:space="preserve" keeps it.
func parseXML(src string, keepSpace bool) (*xmlNode, error) {
	p := &xmlParser{src: src, keepSpace: keepSpace}
	doc := &xmlNode{kind: xmlDocument, to: len(src)}
	err := p.content(doc)
	if err == nil {
		roots := 0
		for _, c := range doc.children {
			switch {
			case c.kind == xmlElement:
				roots++
			case (c.kind == xmlText || c.kind == xmlCData) && strings.Trim(c.value, " \t\r\n") != "":
				err = p.fail(0, "there is text outside the root element")
			}
		}
		if roots != 1 && err == nil {
			err = p.fail(len(src), "there are %d root elements; there must be one", roots)
		}
	}
	if err != nil {
		at := 0
		if se, ok := errors.AsType[*xmlSyntaxError](err); ok {
			at = se.at
		}
		line, column := position(src, at)
		return nil, &ParseError{Format: XML, Line: line, Column: column, Reason: err.Error()}
	}
	return doc, nil
}

// parseXMLFragment reads what may stand within an element.
func parseXMLFragment(src string, within *xmlNode) ([]*xmlNode, error) {
	p := &xmlParser{src: src}
	holder := &xmlNode{kind: xmlElement, name: within.name, parent: within}
	if err := p.content(holder); err != nil {
		return nil, err
	}
	if p.at < len(src) {
		return nil, p.fail(p.at, "an end tag without its start")
	}
	return holder.children, nil
}

// content reads the nodes up to the end tag of root, or the end of the text.
// Open elements are kept in the tree, not on the stack of calls.
func (p *xmlParser) content(root *xmlNode) error {
	at, depth := root, 0
	for p.at < len(p.src) {
		rest := p.src[p.at:]
		switch {
		case strings.HasPrefix(rest, "</"):
			if at == root {
				return p.fail(p.at, "an end tag without its start")
			}
			if err := p.endTag(at); err != nil {
				return err
			}
			at = at.parent
			depth--
		case strings.HasPrefix(rest, "<!--"):
			body, err := p.until("<!--", "-->")
			if err != nil {
				return err
			}
			at.add(&xmlNode{kind: xmlComment, value: newlines(body)})
		case strings.HasPrefix(rest, "<![CDATA["):
			body, err := p.until("<![CDATA[", "]]>")
			if err != nil {
				return err
			}
			at.add(&xmlNode{kind: xmlCData, value: newlines(body)})
		case strings.HasPrefix(rest, "<?"):
			if err := p.instruction(at); err != nil {
				return err
			}
		case strings.HasPrefix(rest, "<!DOCTYPE"):
			if at.kind != xmlDocument {
				return p.fail(p.at, "a document type within an element")
			}
			if err := p.documentType(at); err != nil {
				return err
			}
		case rest[0] == '<':
			e, err := p.startTag(at)
			if err != nil {
				return err
			}
			if !e.selfClosing {
				if depth++; depth > maxDepth {
					return p.fail(p.at, "it nests too deep")
				}
				at = e
			}
		default:
			if err := p.characters(at); err != nil {
				return err
			}
		}
	}
	if at != root {
		return p.fail(p.at, "the element '%s' has no end tag", at.name)
	}
	return nil
}

// newlines reads line ends as XML does.
func newlines(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// until reads what stands between two marks.
func (p *xmlParser) until(open, end string) (string, error) {
	body, _, found := strings.Cut(p.src[p.at+len(open):], end)
	if !found {
		return "", p.fail(p.at, "'%s' is not closed by '%s'", open, end)
	}
	p.at += len(open) + len(body) + len(end)
	return body, nil
}

func (p *xmlParser) instruction(at *xmlNode) error {
	start := p.at
	body, err := p.until("<?", "?>")
	if err != nil {
		return err
	}
	name := body[:nameLength(body)]
	switch {
	case name == "":
		return p.fail(start, "a processing instruction without a name")
	case strings.EqualFold(name, "xml"):
		if start != 0 || at.kind != xmlDocument {
			return p.fail(start, "an XML declaration that is not at the begin")
		}
		at.add(&xmlNode{kind: xmlDeclaration, name: name, value: strings.TrimSpace(body[len(name):])})
	default:
		at.add(&xmlNode{kind: xmlInstruction, name: name, value: newlines(strings.TrimLeft(body[len(name):], " \t\r\n"))})
	}
	return nil
}

// documentType keeps the declaration as it is.
func (p *xmlParser) documentType(at *xmlNode) error {
	start, brackets, quote := p.at, 0, byte(0)
	for ; p.at < len(p.src); p.at++ {
		switch c := p.src[p.at]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case strings.HasPrefix(p.src[p.at:], "<!--"):
			if _, err := p.until("<!--", "-->"); err != nil {
				return err
			}
			p.at--
		case c == '"' || c == '\'':
			quote = c
		case c == '[':
			brackets++
		case c == ']':
			brackets--
		case c == '>' && brackets == 0:
			p.at++
			p.doctype = p.src[start:p.at]
			at.add(&xmlNode{kind: xmlDoctype, value: newlines(p.doctype)})
			return nil
		}
	}
	return p.fail(start, "the document type does not end")
}

// nameLength returns the length of the name that s begins with.
func nameLength(s string) int {
	for i, r := range s {
		letter := r == '_' || r == ':' || 'a' <= r|0x20 && r|0x20 <= 'z' && r < 0x80 || r >= 0xC0 && r != 0xD7 && r != 0xF7 && r != utf8.RuneError
		if !letter && (i == 0 || r != '-' && r != '.' && (r < '0' || r > '9') && r != 0xB7) {
			return i
		}
	}
	return len(s)
}

func (p *xmlParser) skip() {
	for p.at < len(p.src) && strings.IndexByte(" \t\r\n", p.src[p.at]) >= 0 {
		p.at++
	}
}

func (p *xmlParser) readName() (string, error) {
	n := nameLength(p.src[p.at:])
	name := p.src[p.at : p.at+n]
	if prefix, local, two := strings.Cut(name, ":"); name == "" || two && (prefix == "" || local == "" || strings.Contains(local, ":")) {
		return "", p.fail(p.at, "a name was expected")
	}
	p.at += n
	return name, nil
}

func (p *xmlParser) startTag(parent *xmlNode) (*xmlNode, error) {
	start := p.at
	p.at++
	name, err := p.readName()
	if err != nil {
		return nil, err
	}
	e := parent.add(&xmlNode{kind: xmlElement, name: name})
	for {
		before := p.at
		p.skip()
		if p.at == len(p.src) {
			return nil, p.fail(start, "the tag '%s' does not end", name)
		}
		if c := p.src[p.at]; c == '>' || c == '/' {
			e.from, e.to = p.at, p.at
			if c == '/' {
				e.selfClosing = true
				p.at++
				if p.at == len(p.src) || p.src[p.at] != '>' {
					return nil, p.fail(p.at, "'>' was expected")
				}
			}
			p.at++
			if c == '>' {
				e.from = p.at
			}
			break
		}
		if before == p.at {
			return nil, p.fail(p.at, "white space was expected")
		}
		if err := p.readAttribute(e); err != nil {
			return nil, err
		}
	}
	var ok bool
	if e.space, ok = e.lookupSpace(e.prefix()); !ok {
		return nil, p.fail(start, "the prefix '%s' is not declared", e.prefix())
	}
	for _, a := range e.attributes {
		if a.prefix() == "" {
			continue
		}
		if a.space, ok = e.lookupSpace(a.prefix()); !ok {
			return nil, p.fail(start, "the prefix '%s' is not declared", a.prefix())
		}
	}
	return e, nil
}

func (p *xmlParser) readAttribute(e *xmlNode) error {
	start := p.at
	name, err := p.readName()
	if err != nil {
		return err
	}
	if len(e.attributes) == maxAttributes {
		return p.fail(start, "the element has more than %d attributes", maxAttributes)
	}
	if e.attribute(name) != nil {
		return p.fail(start, "the attribute '%s' is there twice", name)
	}
	p.skip()
	if p.at == len(p.src) || p.src[p.at] != '=' {
		return p.fail(p.at, "'=' was expected")
	}
	p.at++
	p.skip()
	if p.at == len(p.src) || p.src[p.at] != '"' && p.src[p.at] != '\'' {
		return p.fail(p.at, "a quote was expected")
	}
	quote := p.src[p.at]
	p.at++
	n := strings.IndexByte(p.src[p.at:], quote)
	if n < 0 {
		return p.fail(start, "the value of the attribute '%s' does not end", name)
	}
	a := &xmlNode{kind: xmlAttribute, name: name, parent: e, from: p.at, to: p.at + n}
	raw := p.src[a.from:a.to]
	if i := strings.IndexByte(raw, '<'); i >= 0 {
		return p.fail(a.from+i, "'<' within the value of an attribute")
	}
	raw = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, newlines(raw))
	if a.value, err = p.decode(raw, a.from, nil); err != nil {
		return err
	}
	e.attributes = append(e.attributes, a)
	p.at = a.to + 1
	return nil
}

func (p *xmlParser) endTag(e *xmlNode) error {
	start := p.at
	p.at += 2
	name, err := p.readName()
	if err != nil {
		return err
	}
	if name != e.name {
		return p.fail(start, "the end tag '%s' does not match the start tag '%s'", name, e.name)
	}
	p.skip()
	if p.at == len(p.src) || p.src[p.at] != '>' {
		return p.fail(p.at, "'>' was expected")
	}
	p.at++
	e.to = start
	return nil
}

// characters reads text up to the next tag.
func (p *xmlParser) characters(at *xmlNode) error {
	start := p.at
	n := strings.IndexByte(p.src[p.at:], '<')
	if n < 0 {
		n = len(p.src) - p.at
	}
	p.at += n
	raw := newlines(p.src[start:p.at])
	if strings.Trim(raw, " \t\n") == "" {
		if at.kind == xmlDocument || !p.keepSpace && !preservesSpace(at) {
			return nil
		}
	}
	if i := strings.Index(raw, "]]>"); i >= 0 {
		return p.fail(start+i, "']]>' within text")
	}
	text, err := p.decode(raw, start, at)
	if err == nil && text != "" {
		at.add(&xmlNode{kind: xmlText, value: text})
	}
	return err
}

func preservesSpace(n *xmlNode) bool {
	for ; n != nil; n = n.parent {
		if a := n.attribute("xml:space"); a != nil {
			return a.value == "preserve"
		}
	}
	return false
}

// decode replaces the references in raw. An entity that the document type
// declares becomes a node of its own in text; everything before it is added.
func (p *xmlParser) decode(raw string, offset int, parent *xmlNode) (string, error) {
	if strings.IndexByte(raw, '&') < 0 {
		if i := strings.IndexFunc(raw, func(r rune) bool { return !xmlChar(r) }); i >= 0 {
			return "", p.fail(offset+i, "a character that XML does not allow")
		}
		return raw, nil
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(raw, "&")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, found := strings.Cut(rest, ";")
		r := map[string]rune{"lt": '<', "gt": '>', "amp": '&', "quot": '"', "apos": '\''}[name]
		if strings.HasPrefix(name, "#") {
			digits, base := name[1:], 10
			if strings.HasPrefix(digits, "x") {
				digits, base = digits[1:], 16
			}
			if n, err := strconv.ParseInt(digits, base, 32); err == nil && xmlChar(rune(n)) {
				r = rune(n)
			}
		}
		switch {
		case !found || name == "":
			return "", p.fail(offset, "'&' must be written '&amp;'")
		case r != 0:
			b.WriteRune(r)
		case parent != nil && strings.Contains(p.doctype, "<!ENTITY "+name+" "):
			if b.Len() > 0 {
				parent.add(&xmlNode{kind: xmlText, value: b.String()})
				b.Reset()
			}
			parent.add(&xmlNode{kind: xmlEntityRef, value: name})
		default:
			return "", p.fail(offset, "the reference '&%s;' is not known", name)
		}
		raw = after
	}
}

// xmlChar reports whether XML 1.0 allows a character.
func xmlChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= ' ' && r != 0xFFFE && r != 0xFFFF
}

// validXMLText reports whether a value can be written in XML at all.
func validXMLText(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !xmlChar(r) }) < 0
}
