package structured

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// replaceYAML replaces values by path, in place: the text of the file is kept
// but for the values themselves. A scalar keeps its anchor, its tag and its
// quotes if the new value allows them. A mapping or sequence is replaced by what
// the variable's value is as YAML, or by a string if it is none.
//
// The YAML library says what the nodes are and where they begin; where they end
// is found here. Since the two must agree, the result is read again and compared
// with what was meant before it is returned.
func replaceYAML(input []byte, vars Lookup) (Result, error) {
	text, charset := decode(input, nil)
	newline := commonLineEnd(text)
	f := &yamlFile{src: newlines(text), names: pathVariables(vars), vars: vars, meant: map[*yaml.Node]*yaml.Node{}}
	docs, err := parseYAML(f.src)
	if err != nil {
		return Result{}, err
	}
	f.findLines()
	f.layout = detectLayout(docs)
	f.keepTags = strings.Contains(f.src, "%TAG !! ") && !strings.Contains(f.src, "%TAG !! tag:yaml.org,2002:\n")
	for _, doc := range docs {
		for _, root := range doc.Content {
			if _, err := f.visit(root, "", yamlSlot{column: -1, after: -1}); err != nil {
				return Result{}, err
			}
		}
	}
	if len(f.result.Replaced) == 0 {
		return f.result, nil
	}
	out := applyEdits(f.src, f.edits)
	again, err := parseYAML(out)
	if err != nil || !slices.EqualFunc(docs, again, f.same) {
		return Result{}, &ParseError{Reason: "its layout cannot be edited safely; write the values that variables replace on one line each"}
	}
	f.result.Output = charset.encode(strings.ReplaceAll(out, "\n", newline))
	return f.result, nil
}

// parseYAML reads all documents. The library knows YAML 1.1 and what 1.2 changed
// in practice, but refuses the directive of 1.2.
func parseYAML(text string) ([]*yaml.Node, error) {
	if strings.HasPrefix(text, "%YAML 1.2") || strings.Contains(text, "\n%YAML 1.2") {
		text = strings.ReplaceAll(text, "%YAML 1.2", "%YAML 1.1") // of one length: places stay
	}
	loader, err := yaml.NewLoader(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	var docs []*yaml.Node
	for {
		doc := &yaml.Node{}
		err := loader.Load(doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			pe := &ParseError{Reason: err.Error()}
			if le, ok := errors.AsType[*yaml.LoadError](err); ok {
				pe.Reason = le.Message
				pe.Line, pe.Column = le.Mark.Line, le.Mark.Column
				if le.ContextMsg != "" {
					pe.Reason = le.ContextMsg + ": " + le.Message
					pe.Line, pe.Column = le.ContextMark.Line, le.ContextMark.Column
				}
			}
			return nil, pe
		}
		docs = append(docs, doc)
	}
}

// yamlFile is a file while its edits are collected.
type yamlFile struct {
	src      string
	lines    []int // where each line begins
	names    paths
	vars     Lookup
	result   Result
	edits    []edit
	meant    map[*yaml.Node]*yaml.Node // what replaced nodes must read as
	layout   yamlLayout
	keepTags bool // !! is not the usual prefix
	frozen   bool // within a replaced node
	depth    int
	// The last place that was looked up: nodes come in order, and a line may be long.
	seenLine, seenColumn, seenAt int
}

// yamlSlot is the place where a node stands.
type yamlSlot struct {
	column  int  // of the innermost block collection, from 0; -1 at the root
	flow    bool // within [] or {}
	mapping bool // the value of a key, not an item
	after   int  // where the text before the node ends: after the colon or dash; -1 if there is none
}

// findLines notes where lines begin, by the line ends that YAML knows.
func (f *yamlFile) findLines() {
	f.lines = []int{0}
	for i, r := range f.src {
		switch r {
		case '\n', '\r', 0x85, 0x2028, 0x2029:
			f.lines = append(f.lines, i+utf8.RuneLen(r))
		}
	}
}

// offset returns the byte offset of a place that the library gave.
func (f *yamlFile) offset(line, column int) int {
	if line < 1 || line > len(f.lines) {
		return len(f.src)
	}
	if line != f.seenLine || column < f.seenColumn {
		f.seenLine, f.seenColumn, f.seenAt = line, 1, f.lines[line-1]
	}
	for ; f.seenColumn < column; f.seenColumn++ {
		_, n := utf8.DecodeRuneInString(f.src[f.seenAt:])
		f.seenAt += n
	}
	return f.seenAt
}

// columnOf returns the column of an offset, from 0.
func (f *yamlFile) columnOf(at int) int {
	i, found := slices.BinarySearch(f.lines, at)
	if !found {
		i--
	}
	return utf8.RuneCountInString(f.src[f.lines[i]:at])
}

// same reports whether the node b of the new text is what a of the old should
// have become.
func (f *yamlFile) same(a, b *yaml.Node) bool {
	if want, ok := f.meant[a]; ok {
		return sameNode(want, b)
	}
	return a.Kind == b.Kind && a.Value == b.Value && a.Anchor == b.Anchor && a.Tag == b.Tag &&
		slices.EqualFunc(a.Content, b.Content, f.same)
}

func sameNode(a, b *yaml.Node) bool {
	// Between brackets an empty item has to be written as null.
	same := a.Value == b.Value || isEmptyScalar(a) && b.Value == "null" && b.ShortTag() == "!!null"
	return same && a.Kind == b.Kind && slices.EqualFunc(a.Content, b.Content, sameNode)
}

// visit finds where a node ends, and replaces it or what is in it.
func (f *yamlFile) visit(n *yaml.Node, path string, slot yamlSlot) (end int, err error) {
	if f.depth++; f.depth > maxDepth {
		return 0, &ParseError{Line: n.Line, Column: n.Column, Reason: "it nests too deep"}
	}
	defer func() { f.depth-- }()
	p := f.properties(n, slot.flow)
	if isEmptyScalar(n) && p.content == p.start && slot.after >= 0 {
		// The library puts it where the next node begins; it belongs to its colon or dash.
		p.start, p.content = slot.after, slot.after
	}
	if !f.keepTags && strings.HasPrefix(p.tag, "!<tag:yaml.org,2002:") {
		f.edits = append(f.edits, edit{p.tagAt, p.tagAt + len(p.tag), p.shortTag()})
	}
	name, matches := f.names[fold(path)]
	matches = matches && path != "" && !f.frozen
	switch n.Kind {
	case yaml.ScalarNode:
		end = f.scalarEnd(n, p.content, slot)
		if matches {
			f.replaceScalar(n, name, p, end, slot)
		}
		return end, nil
	case yaml.MappingNode, yaml.SequenceNode:
		if matches {
			f.frozen = true
			mark := len(f.edits)
			end, err = f.children(n, path, p.content, slot)
			f.frozen = false
			f.edits = f.edits[:mark]
			if err == nil {
				f.replaceCollection(n, name, p, end, slot)
			}
			return end, err
		}
		return f.children(n, path, p.content, slot)
	default: // an alias
		return p.content + 1 + len(n.Value), nil
	}
}

// children visits what a collection holds.
func (f *yamlFile) children(n *yaml.Node, path string, at int, slot yamlSlot) (int, error) {
	brackets := at < len(f.src) && (n.Kind == yaml.MappingNode && f.src[at] == '{' || n.Kind == yaml.SequenceNode && f.src[at] == '[') && n.Style&yaml.FlowStyle != 0
	inner := yamlSlot{column: slot.column, flow: slot.flow || brackets, mapping: n.Kind == yaml.MappingNode}
	if !inner.flow {
		inner.column = f.columnOf(at)
	}
	if brackets {
		at++
	}
	var err error
	if n.Kind == yaml.SequenceNode {
		for i, item := range n.Content {
			if inner.after = -1; !inner.flow {
				inner.after = f.skip(at) + 1 // past the dash
			}
			if at, err = f.visit(item, joinPath(path, strconv.Itoa(i)), inner); err != nil {
				return 0, err
			}
		}
	} else {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			frozen := f.frozen
			f.frozen = true
			inner.after = -1
			at, err = f.visit(key, "", inner)
			f.frozen = frozen
			if err != nil {
				return 0, err
			}
			keyEnd := at
			if colon := f.skip(at); colon < len(f.src) && f.src[colon] == ':' {
				inner.after = colon + 1
			}
			for key.Kind == yaml.AliasNode && key.Alias != nil {
				key = key.Alias
			}
			if key.Kind == yaml.ScalarNode && (inner.flow || inner.after >= 0) {
				at, err = f.visit(value, joinPath(path, key.Value), inner)
			} else { // no path names what is below, or a lone "? key" has no place for a value
				f.frozen = true
				at, err = f.visit(value, "", inner)
				f.frozen = frozen
			}
			if err != nil {
				return 0, err
			}
			if isEmptyScalar(value) && inner.after < 0 {
				at = keyEnd
			}
		}
	}
	if brackets {
		for at < len(f.src) && f.src[at] != ']' && f.src[at] != '}' {
			if next := f.skip(at); next > at {
				at = next
			} else {
				at++ // a comma, or the colon of a key without a value
			}
		}
		at = min(at+1, len(f.src))
	}
	return at, nil
}

func joinPath(path, name string) string {
	if path == "" {
		return name
	}
	return path + ":" + name
}

// replaceScalar notes the edit that gives a scalar the variable's value.
func (f *yamlFile) replaceScalar(n *yaml.Node, name string, p yamlProperties, end int, slot yamlSlot) {
	value := f.value(name)
	if value == nil {
		f.meant[n] = &yaml.Node{Kind: yaml.ScalarNode, Value: "null"}
		f.insert(p.start, end, strings.TrimLeft(p.anchorText()+" null", " "), slot)
		return
	}
	f.meant[n] = &yaml.Node{Kind: yaml.ScalarNode, Value: *value}
	old := f.src[p.content:end]
	text := writeScalar(*value, scalarStyle(*value, n.Style, slot.flow, false), max(slot.column, 0), f.layout.indent)
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		header, _, _ := strings.Cut(old, "\n")
		if i := strings.IndexByte(header, '#'); i > 0 { // the comment beside the indicator
			first, rest, more := strings.Cut(text, "\n")
			text = first + " " + header[i:]
			if more {
				text += "\n" + rest
			}
		}
	}
	if strings.HasPrefix(text, "|") || strings.HasPrefix(text, ">") {
		// Blank lines after it would become part of it: all if it keeps its line
		// ends, else those with spaces.
		header, _, _ := strings.Cut(text, "\n")
		for at := end; at < len(f.src) && f.src[at] == '\n'; {
			line, _, _ := strings.Cut(f.src[at+1:], "\n")
			if strings.Trim(line, " \t") != "" || at+1 == len(f.src) {
				break
			}
			if at += 1 + len(line); line != "" || strings.Contains(header, "+") {
				end = at
			}
		}
		if end == len(f.src) {
			text += "\n"
		}
	}
	if p.content > p.start && p.content < end && strings.IndexByte(" \t\n", f.src[p.content-1]) < 0 {
		text = " " + text // an anchor may be followed by the text without a space
	}
	if !slot.flow && p.content < end {
		if column := f.columnOf(p.content); column <= slot.column {
			text = strings.Repeat(" ", slot.column+1-column) + text // only a | or > may stand so far left
		}
	}
	f.insert(p.content, end, text, slot)
}

// value returns the value of a variable that replaces something.
func (f *yamlFile) value(name string) *string {
	f.result.Replaced = append(f.result.Replaced, name)
	value := f.vars.Value(name)
	if value != nil && !utf8.ValidString(*value) {
		valid := strings.ToValidUTF8(*value, "\uFFFD")
		value = &valid
	}
	return value
}

// insert notes an edit; a node that had no text gets the space, or the colon,
// that sets it apart.
func (f *yamlFile) insert(start, end int, text string, slot yamlSlot) {
	if start == end {
		if slot.flow && slot.mapping && slot.after < 0 {
			text = ": " + text
		} else if start > 0 && strings.IndexByte(" \n", f.src[start-1]) < 0 {
			text = " " + text
		}
		if end < len(f.src) && f.src[end] == '#' {
			text += " "
		}
	}
	f.edits = append(f.edits, edit{start, end, text})
}

// replaceCollection notes the edit that puts the variable's value in the place
// of a mapping or sequence.
func (f *yamlFile) replaceCollection(n *yaml.Node, name string, p yamlProperties, end int, slot yamlSlot) {
	fragment := readFragment(f.value(name))
	f.meant[n] = fragment
	e := yamlEmitter{layout: f.layout}
	anchor := p.anchorText() // aliases elsewhere may need it
	if slot.flow || slot.after < 0 {
		f.edits = append(f.edits, edit{p.start, end, strings.TrimLeft(anchor+" "+e.flow(fragment), " ")})
		return
	}
	text := e.block(fragment, anchor, slot.column, slot.mapping)
	comment, _, _ := strings.Cut(f.src[slot.after:p.start], "\n")
	comment = strings.TrimRight(comment, " \t")
	switch first, rest, more := strings.Cut(text, "\n"); {
	case strings.HasPrefix(text, "\n"):
		text = comment + text
	case !more:
		text += comment
	case fragment.Kind == yaml.ScalarNode && endsInBlock(fragment):
		text = first + comment + "\n" + rest
	}
	if line, _, _ := strings.Cut(f.src[end:], "\n"); endsInBlock(fragment) && strings.HasPrefix(strings.TrimLeft(line, " \t"), "#") {
		// A comment behind a literal text would become part of it: it goes below.
		end += len(line)
		text += "\n" + strings.Repeat(" ", max(slot.column, 0)) + strings.TrimLeft(line, " \t")
	}
	f.edits = append(f.edits, edit{slot.after, end, text})
}

// endsInBlock reports whether a node's last text is written as a literal or
// folded scalar.
func endsInBlock(n *yaml.Node) bool {
	for n.Kind != yaml.ScalarNode {
		if len(n.Content) == 0 || n.Style&yaml.FlowStyle != 0 {
			return false
		}
		n = n.Content[len(n.Content)-1]
	}
	return scalarStyle(n.Value, n.Style, false, isEmptyScalar(n))&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// readFragment reads a variable's value as YAML; what is none, or empty, is a
// string in quotes.
func readFragment(value *string) *yaml.Node {
	if value == nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: "null"}
	}
	docs, err := parseYAML(newlines(*value))
	if err != nil || len(docs) != 1 || len(docs[0].Content) != 1 {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: *value, Style: yaml.DoubleQuotedStyle}
	}
	root := docs[0].Content[0]
	if strings.TrimSpace(*value) == "" {
		root.Style = yaml.DoubleQuotedStyle
	}
	return root
}
