package structured

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// xdtSpace is the namespace of the attributes that make a transform.
const xdtSpace = "http://schemas.microsoft.com/XML-Document-Transform"

// TransformXML applies an XDT transform (a Web.Release.config) to a
// configuration file. The transforms Insert, InsertIfMissing, InsertBefore,
// InsertAfter, Replace, Remove, RemoveAll, SetAttributes and RemoveAttributes are
// known, and the locators Match, Condition and XPath. What finds no element is a
// warning, and so is an unknown element of XDT's namespace. An unknown transform,
// a file that does not parse, and xdt:Import are errors: the last brings in
// transforms from a .NET assembly, and no such code can be run here. Result.Replaced
// has the name of each transform that was applied.
func TransformXML(name string, input []byte, transformName string, transform []byte) (Result, error) {
	text, charset := decodeXML(input)
	doc, err := parseNamed(name, text, false)
	if err != nil {
		return Result{}, err
	}
	transformText, _ := decodeXML(transform)
	rules, err := parseNamed(transformName, transformText, false)
	if err != nil {
		return Result{}, err
	}
	x := xdt{doc: doc}
	x.spaces = documentSpaces(rules, &Result{})
	if err := x.checkElements(rules); err != nil {
		return Result{}, fmt.Errorf("transform %s by %s: %w", name, transformName, err)
	}
	if err := x.apply(rules, []*xmlNode{doc}); err != nil {
		return Result{}, fmt.Errorf("transform %s by %s: %w", name, transformName, err)
	}
	x.result.Output = input
	if len(x.result.Replaced) > 0 {
		x.result.Output = encodeXML(doc, text, charset)
	}
	return x.result, nil
}

// parseNamed is parseXML for a file whose name is in the error.
func parseNamed(name, text string, keepSpace bool) (*xmlNode, error) {
	doc, err := parseXML(text, keepSpace)
	if pe, ok := errors.AsType[*ParseError](err); ok {
		pe.Name = name
	}
	return doc, err
}

type xdt struct {
	doc    *xmlNode
	spaces map[string]string
	result Result
}

// checkElements looks for elements of XDT's own namespace, wherever they are: an
// import counts even where nothing matches.
func (x *xdt) checkElements(n *xmlNode) error {
	for _, c := range n.children {
		if c.kind != xmlElement {
			continue
		}
		if c.space == xdtSpace {
			if c.local() == "Import" {
				from := ""
				for _, a := range c.attributes {
					if a.name == "assembly" || a.name == "path" {
						from = " '" + a.value + "'"
					}
				}
				return fmt.Errorf("the element '%s' imports transforms from the .NET assembly%s, which cannot be loaded; write them with the transforms that XDT has itself, such as Insert, Replace or SetAttributes", c.name, from)
			}
			x.result.warn("The transform's element '%s' is not known, so it did nothing.", c.name)
		}
		if err := x.checkElements(c); err != nil {
			return err
		}
	}
	return nil
}

// apply goes down the transform and the elements that it stands for.
func (x *xdt) apply(rules *xmlNode, parents []*xmlNode) error {
	for _, rule := range rules.children {
		if rule.kind != xmlElement || rule.space == xdtSpace {
			continue
		}
		targets, located, err := x.locate(rule, parents)
		if err != nil {
			return err
		}
		if a := xdtAttribute(rule, "Transform"); a != "" {
			kind, argument := splitCall(a)
			if err := x.transform(kind, argument, rule, parents, targets); err != nil {
				return err
			}
			if !strings.HasSuffix(kind, "Attributes") {
				continue // what is within the rule was copied, or is gone
			}
		}
		if len(targets) > 0 {
			if err := x.apply(rule, targets); err != nil {
				return err
			}
		} else if hasTransforms(rule) {
			x.result.warn("No element in the source document matches '%s'.", describePath(rule, located))
		}
	}
	return nil
}

func xdtAttribute(rule *xmlNode, local string) string {
	for _, a := range rule.attributes {
		if a.space == xdtSpace && a.local() == local {
			return strings.TrimSpace(a.value)
		}
	}
	return ""
}

// hasTransforms reports whether a transform stands below a rule.
func hasTransforms(rule *xmlNode) bool {
	return slices.ContainsFunc(rule.children, func(c *xmlNode) bool {
		return c.kind == xmlElement && (xdtAttribute(c, "Transform") != "" || hasTransforms(c))
	})
}

func describePath(rule *xmlNode, located string) string {
	path := ""
	for e := rule; e != nil && e.kind == xmlElement; e = e.parent {
		path = "/" + e.name + path
	}
	return path + located
}

// splitCall reads "Name(argument)".
func splitCall(s string) (name, argument string) {
	name, argument, _ = strings.Cut(s, "(")
	return strings.TrimSpace(name), strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(argument), ")"))
}

// locate finds the elements that a rule stands for.
func (x *xdt) locate(rule *xmlNode, parents []*xmlNode) (targets []*xmlNode, located string, err error) {
	locator, argument := splitCall(xdtAttribute(rule, "Locator"))
	if locator == "XPath" {
		path, err := compileXPath(argument, x.spaces)
		if err != nil {
			return nil, "", fmt.Errorf("the locator XPath(%s): %w", argument, err)
		}
		from := parents
		if strings.HasPrefix(argument, "/") {
			from = []*xmlNode{x.doc}
		}
		for _, p := range from {
			nodes, err := path.nodesFrom(x.doc, p)
			if err != nil {
				return nil, "", fmt.Errorf("the locator XPath(%s): %w", argument, err)
			}
			for _, n := range nodes {
				if n.kind == xmlElement {
					targets = append(targets, n)
				}
			}
		}
		return targets, " at " + argument, nil
	}
	var condition *xpath
	var keys []string
	switch locator {
	case "":
	case "Match":
		for key := range strings.SplitSeq(argument, ",") {
			key = strings.TrimSpace(key)
			a := rule.attribute(key)
			if a == nil {
				return nil, "", fmt.Errorf("the locator Match(%s) names an attribute that '%s' does not have", argument, rule.name)
			}
			keys = append(keys, key)
			located += fmt.Sprintf("[@%s='%s']", key, a.value)
		}
	case "Condition":
		if condition, err = compileXPath(argument, x.spaces); err != nil {
			return nil, "", fmt.Errorf("the locator Condition(%s): %w", argument, err)
		}
		located = "[" + argument + "]"
	default:
		return nil, "", fmt.Errorf("the locator '%s' is not supported", locator)
	}
	for _, p := range parents {
		var same []*xmlNode
		for _, c := range p.children {
			if c.kind == xmlElement && c.local() == rule.local() && c.space == rule.space {
				same = append(same, c)
			}
		}
		for i, c := range same {
			ok := !slices.ContainsFunc(keys, func(key string) bool {
				a := c.attribute(key)
				return a == nil || a.value != rule.attribute(key).value
			})
			if condition != nil {
				if ok, err = condition.holds(c, i+1, len(same)); err != nil {
					return nil, "", fmt.Errorf("the locator Condition(%s): %w", argument, err)
				}
			}
			if ok {
				targets = append(targets, c)
			}
		}
	}
	return targets, located, nil
}

// transform applies one transform.
func (x *xdt) transform(kind, argument string, rule *xmlNode, parents, targets []*xmlNode) error {
	done := func() { x.result.Replaced = append(x.result.Replaced, kind) }
	missing := func(nodes []*xmlNode) bool {
		if len(nodes) == 0 {
			x.result.warn("No element in the source document matches '%s', so %s did nothing.", describePath(rule, ""), kind)
		}
		return len(nodes) == 0
	}
	switch kind {
	case "Insert", "InsertIfMissing":
		if kind == "InsertIfMissing" && len(targets) > 0 || missing(parents) {
			return nil
		}
		if parents[0] == x.doc {
			return fmt.Errorf("%s cannot add a second root element '%s'", kind, rule.name)
		}
		parents[0].selfClosing = false
		x.insert(parents[0], len(parents[0].children), rule)
	case "InsertBefore", "InsertAfter":
		path, err := compileXPath(argument, x.spaces)
		if err != nil {
			return fmt.Errorf("%s(%s): %w", kind, argument, err)
		}
		nodes, err := path.nodes(x.doc)
		if err != nil {
			return fmt.Errorf("%s(%s): %w", kind, argument, err)
		}
		if missing(nodes) {
			return nil
		}
		parent := nodes[0].parent
		i := -1
		if parent != nil {
			i = slices.Index(parent.children, nodes[0])
		}
		if i < 0 || parent == x.doc {
			return fmt.Errorf("%s(%s) selects something beside which no element can stand", kind, argument)
		}
		x.insert(parent, i+pick(kind == "InsertAfter", 1, 0), rule)
	case "Replace":
		if missing(targets) {
			return nil
		}
		parent := targets[0].parent
		i := slices.Index(parent.children, targets[0])
		parent.children = slices.Delete(parent.children, i, i+1)
		x.insert(parent, i, rule)
	case "Remove", "RemoveAll":
		if missing(targets) {
			return nil
		}
		if kind == "Remove" {
			targets = targets[:1]
		}
		for _, t := range targets {
			if t.parent == x.doc {
				return fmt.Errorf("%s cannot remove the root element '%s'", kind, t.name)
			}
			t.parent.children = slices.DeleteFunc(t.parent.children, func(c *xmlNode) bool { return c == t })
		}
	case "SetAttributes", "RemoveAttributes":
		if missing(targets) {
			return nil
		}
		return x.attributes(kind, argument, rule, targets)
	default:
		return fmt.Errorf("the transform '%s' is not supported", kind)
	}
	done()
	return nil
}

// attributes sets or removes attributes: those that the argument lists, or all
// of the rule.
func (x *xdt) attributes(kind, argument string, rule *xmlNode, targets []*xmlNode) error {
	var names []string
	if argument != "" {
		for name := range strings.SplitSeq(argument, ",") {
			names = append(names, strings.TrimSpace(name))
		}
	} else {
		for _, a := range rule.attributes {
			if a.space != xdtSpace && !a.isNamespace() {
				names = append(names, a.name)
			}
		}
	}
	for _, name := range names {
		wanted := rule.attribute(name)
		if wanted == nil && kind == "SetAttributes" {
			return fmt.Errorf("SetAttributes(%s) names an attribute that '%s' does not have", argument, rule.name)
		}
		for _, t := range targets {
			switch a := t.attribute(name); {
			case kind == "RemoveAttributes":
				t.attributes = slices.DeleteFunc(t.attributes, func(a *xmlNode) bool { return a.name == name })
			case a != nil:
				a.value = wanted.value
			default:
				t.attributes = append(t.attributes, &xmlNode{kind: xmlAttribute, name: name, space: wanted.space, value: wanted.value, parent: t})
			}
		}
	}
	x.result.Replaced = append(x.result.Replaced, kind)
	return nil
}

// insert puts a copy of a rule's element into the document.
func (x *xdt) insert(parent *xmlNode, at int, rule *xmlNode) {
	c := copyRule(rule, parent)
	parent.children = slices.Insert(parent.children, at, c)
	declareSpaces(c)
}

// copyRule copies an element without what makes it a rule.
func copyRule(n, parent *xmlNode) *xmlNode {
	c := &xmlNode{kind: n.kind, name: n.name, space: n.space, value: n.value, selfClosing: n.selfClosing, parent: parent}
	for _, a := range n.attributes {
		if a.space != xdtSpace && (!a.isNamespace() || a.value != xdtSpace) {
			c.attributes = append(c.attributes, &xmlNode{kind: xmlAttribute, name: a.name, space: a.space, value: a.value, parent: c})
		}
	}
	for _, child := range n.children {
		c.children = append(c.children, copyRule(child, c))
	}
	return c
}

// declareSpaces declares the namespaces that an element brings from another
// document.
func declareSpaces(n *xmlNode) {
	need := func(prefix, space string) {
		if have, _ := n.lookupSpace(prefix); have == space {
			return
		}
		name := "xmlns"
		if prefix != "" {
			name += ":" + prefix
		}
		n.attributes = append(n.attributes, &xmlNode{kind: xmlAttribute, name: name, value: space, parent: n})
	}
	need(n.prefix(), n.space)
	for _, a := range n.attributes {
		if a.prefix() != "" && !a.isNamespace() {
			need(a.prefix(), a.space)
		}
	}
	for _, c := range n.children {
		if c.kind == xmlElement {
			declareSpaces(c)
		}
	}
}
