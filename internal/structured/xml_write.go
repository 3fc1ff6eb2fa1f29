package structured

import "strings"

// writeXML writes a document with two spaces of indentation. Within an element
// that holds text nothing is indented, since white space there has a meaning.
// The declaration, if there is one, names the encoding.
func writeXML(doc *xmlNode, newline, encoding string) string {
	w := &xmlWriter{newline: newline}
	for i, c := range doc.children {
		if i > 0 {
			w.WriteString(newline)
		}
		if c.kind == xmlDeclaration {
			w.WriteString(`<?xml version="1.0" encoding="` + encoding + `"`)
			if standalone := declared(c.value, "standalone"); standalone != "" {
				w.WriteString(` standalone="` + standalone + `"`)
			}
			w.WriteString("?>")
			continue
		}
		w.node(c, 0)
	}
	return w.String()
}

// declared returns a pseudo attribute of an XML declaration.
func declared(declaration, name string) string {
	_, rest, found := strings.Cut(declaration, name)
	rest = strings.TrimLeft(rest, " \t\r\n")
	if !found || !strings.HasPrefix(rest, "=") {
		return ""
	}
	rest = strings.TrimLeft(rest[1:], " \t\r\n")
	if rest == "" || rest[0] != '"' && rest[0] != '\'' {
		return ""
	}
	value, _, found := strings.Cut(rest[1:], rest[:1])
	if !found {
		return ""
	}
	return value
}

type xmlWriter struct {
	strings.Builder
	newline string
	mixed   bool // within an element that holds text
}

func (w *xmlWriter) indent(depth int) {
	if w.mixed {
		return
	}
	w.WriteString(w.newline)
	for range depth {
		w.WriteString("  ")
	}
}

func (w *xmlWriter) node(n *xmlNode, depth int) {
	switch n.kind {
	case xmlElement:
		w.element(n, depth)
	case xmlText:
		w.WriteString(strings.ReplaceAll(escapeText(n.value), "\n", w.newline))
	case xmlCData:
		w.WriteString("<![CDATA[" + strings.ReplaceAll(strings.ReplaceAll(n.value, "]]>", "]]]]><![CDATA[>"), "\n", w.newline) + "]]>")
	case xmlComment:
		w.WriteString("<!--" + strings.ReplaceAll(safeComment(n.value), "\n", w.newline) + "-->")
	case xmlInstruction:
		w.WriteString("<?" + n.name)
		if n.value != "" {
			w.WriteString(" " + strings.ReplaceAll(strings.ReplaceAll(n.value, "?>", "? >"), "\n", w.newline))
		}
		w.WriteString("?>")
	case xmlDoctype:
		w.WriteString(strings.ReplaceAll(n.value, "\n", w.newline))
	case xmlEntityRef:
		w.WriteString("&" + n.value + ";")
	case xmlDocument, xmlAttribute, xmlDeclaration:
	}
}

func (w *xmlWriter) element(n *xmlNode, depth int) {
	w.WriteString("<" + n.name)
	for _, a := range n.attributes {
		w.WriteString(" " + a.name + `="` + escapeAttribute(a.value, '"') + `"`)
	}
	if n.selfClosing && len(n.children) == 0 {
		w.WriteString(" />")
		return
	}
	w.WriteByte('>')
	outer := w.mixed
	indented := false
	for _, c := range n.children {
		if c.kind == xmlText || c.kind == xmlCData || c.kind == xmlEntityRef {
			w.mixed = true
		} else {
			w.indent(depth + 1)
			indented = true
		}
		w.node(c, depth+1)
	}
	if indented {
		w.indent(depth)
	}
	w.mixed = outer
	w.WriteString("</" + n.name + ">")
}

// safeComment takes apart what a comment cannot hold.
func safeComment(s string) string {
	for strings.Contains(s, "--") {
		s = strings.ReplaceAll(s, "--", "- -")
	}
	if strings.HasSuffix(s, "-") {
		s += " "
	}
	return s
}

func escapeText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r\n", "\n", "\r", "\n").Replace(s)
}

// escapeAttribute writes a value for the kind of quotes around it.
func escapeAttribute(s string, quote byte) string {
	r := []string{"&", "&amp;", "<", "&lt;", ">", "&gt;", "\n", "&#xA;", "\r", "&#xD;", "\t", "&#x9;"}
	if quote == '\'' {
		r = append(r, "'", "&apos;")
	} else {
		r = append(r, `"`, "&quot;")
	}
	return strings.NewReplacer(r...).Replace(s)
}
