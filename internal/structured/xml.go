package structured

import (
	"strings"
)

// replaceXML replaces what XPath expressions select. A variable is taken for one
// if its name has a slash or a colon, parses, and uses no prefix that the
// document does not declare. Of an element the text is replaced, or, if it holds
// elements, what is in it, provided the value is XML. A variable without a value
// replaces nothing.
func replaceXML(input []byte, vars Lookup) (Result, error) {
	text, charset := decodeXML(input)
	doc, err := parseXML(text, false)
	if err != nil {
		return Result{}, err
	}
	r := Result{}
	spaces := documentSpaces(doc, &r)
	for name := range vars.Names() {
		if !strings.ContainsAny(name, "/:") || strings.HasPrefix(fold(name), "OCTOPUS") {
			continue
		}
		path, err := compileXPath(name, spaces)
		if err != nil {
			continue // a variable for something else
		}
		nodes, err := path.nodes(doc)
		if err != nil {
			r.warn("The XPath expression '%s' was left out: %v.", name, err)
			continue
		}
		if len(nodes) == 0 {
			continue
		}
		value := vars.Value(name)
		if value == nil {
			continue
		}
		for _, n := range nodes {
			if setXMLNode(n, name, *value, &r) {
				r.Replaced = append(r.Replaced, name)
			}
		}
	}
	r.Output = encodeXML(doc, text, charset)
	return r, nil
}

// decodeXML reads a file by its byte order mark or its declaration.
func decodeXML(input []byte) (string, charset) {
	var preferred *charset
	head := string(input[:min(len(input), 200)])
	if body, found := strings.CutPrefix(head, "<?xml "); found {
		body, _, _ = strings.Cut(body, "?>")
		if c, ok := namedCharset(declared(body, "encoding")); ok && !strings.HasPrefix(c.name, "utf-") {
			preferred = &c
		}
	}
	return decode(input, preferred)
}

// encodeXML writes a document in an encoding, or in UTF-8 if that cannot hold it;
// the declaration says which.
func encodeXML(doc *xmlNode, before string, c charset) []byte {
	newline := commonLineEnd(before)
	if out, ok := c.tryEncode(writeXML(doc, newline, c.name)); ok {
		return out
	}
	return []byte(writeXML(doc, newline, "utf-8"))
}

// documentSpaces collects the prefixes of a document, wherever they are
// declared. The first meaning of a prefix is the one that expressions use.
func documentSpaces(doc *xmlNode, r *Result) map[string]string {
	spaces := map[string]string{"xml": "http://www.w3.org/XML/1998/namespace"}
	var walk func(n *xmlNode)
	walk = func(n *xmlNode) {
		for _, a := range n.attributes {
			prefix, found := strings.CutPrefix(a.name, "xmlns:")
			if !found {
				continue
			}
			if first, known := spaces[prefix]; !known {
				spaces[prefix] = a.value
			} else if first != a.value {
				r.warn("The prefix '%s' stands for the namespace '%s', and elsewhere for '%s'; XPath expressions with it select the former only. Give every namespace a prefix of its own.", prefix, first, a.value)
			}
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(doc)
	return spaces
}

// setXMLNode gives a node the value, and reports whether it could.
func setXMLNode(n *xmlNode, expression, value string, r *Result) bool {
	if !validXMLText(value) {
		r.warn("The value for the XPath expression '%s' has characters that XML does not allow, so nothing was replaced.", expression)
		return false
	}
	switch n.kind {
	case xmlElement:
		holdsElements := false
		for _, c := range n.children {
			holdsElements = holdsElements || c.kind == xmlElement
		}
		switch {
		case len(n.children) == 1 && n.children[0].kind == xmlCData:
			n.children[0].value = value
		case holdsElements:
			children, err := parseXMLFragment(value, n)
			if err != nil {
				r.warn("The value for the XPath expression '%s' is not valid XML (%v), so the element was left as it is.", expression, err)
				return false
			}
			for _, c := range children {
				c.parent = n
			}
			n.children = children
		default:
			n.children = nil
			n.selfClosing = false
			if value != "" {
				n.add(&xmlNode{kind: xmlText, value: value})
			}
		}
	case xmlAttribute, xmlText, xmlCData, xmlComment, xmlInstruction:
		n.value = value
	case xmlDocument, xmlDoctype, xmlEntityRef, xmlDeclaration:
		r.warn("The XPath expression '%s' selects something that has no value to replace.", expression)
		return false
	}
	return true
}
