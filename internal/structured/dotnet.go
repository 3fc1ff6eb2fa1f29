package structured

import (
	"slices"
	"strings"
)

// ReplaceDotNetConfig replaces the settings that variables name in a .NET
// configuration file, in place: the value of appSettings/add by its key, the
// connectionString of connectionStrings/add by its name, and the value within
// applicationSettings' settings by theirs. Namespaces do not matter, nor does
// case. A variable without a value makes the setting empty. An added attribute or
// element is the only thing that is ever added: where the setting has no value.
// The error is a *[ParseError].
func ReplaceDotNetConfig(name string, input []byte, vars Lookup) (Result, error) {
	text, charset := decodeXML(input)
	doc, err := parseNamed(name, text, true)
	if err != nil {
		return Result{}, err
	}
	d := dotNet{text: text, vars: vars, names: map[string]string{}}
	for n := range vars.Names() {
		d.names[fold(n)] = n
	}
	d.walk(doc)
	if len(d.result.Replaced) == 0 {
		d.result.Output = input
		return d.result, nil
	}
	d.result.Output = charset.encode(applyEdits(text, d.edits))
	return d.result, nil
}

// dotNet collects the edits of a file, in its order.
type dotNet struct {
	text   string
	vars   Lookup
	names  map[string]string
	edits  []edit
	result Result
}

func (d *dotNet) walk(n *xmlNode) {
	for _, c := range n.children {
		if c.kind != xmlElement {
			continue
		}
		switch local := c.local(); {
		case n.kind == xmlElement && local == "add" && n.local() == "appSettings":
			d.attribute(c, "key", "value")
		case n.kind == xmlElement && local == "add" && n.local() == "connectionStrings":
			d.attribute(c, "name", "connectionString")
		case local == "setting" && withinElement(c, "applicationSettings"):
			d.setting(c)
		default:
			d.walk(c)
		}
	}
}

func withinElement(n *xmlNode, local string) bool {
	for n = n.parent; n != nil && n.kind == xmlElement; n = n.parent {
		if n.local() == local {
			return true
		}
	}
	return false
}

// value returns what a setting with that name must become.
func (d *dotNet) value(e *xmlNode, keyName string) (string, bool) {
	key := e.attribute(keyName)
	if key == nil {
		return "", false
	}
	name, found := d.names[fold(key.value)]
	if !found {
		return "", false
	}
	value := ""
	if v := d.vars.Value(name); v != nil {
		value = *v
	}
	if !validXMLText(value) {
		d.result.warn("The variable '%s' has characters that XML does not allow, so the setting was left as it is.", name)
		return "", false
	}
	d.result.Replaced = append(d.result.Replaced, name)
	return value, true
}

func (d *dotNet) attribute(e *xmlNode, keyName, valueName string) {
	value, found := d.value(e, keyName)
	if !found {
		return
	}
	if a := e.attribute(valueName); a != nil {
		d.edits = append(d.edits, edit{a.from, a.to, escapeAttribute(value, d.text[a.from-1])})
		return
	}
	end := e.attributes[len(e.attributes)-1].to + 1
	d.edits = append(d.edits, edit{end, end, " " + valueName + `="` + escapeAttribute(value, '"') + `"`})
}

func (d *dotNet) setting(e *xmlNode) {
	value, found := d.value(e, "name")
	if !found {
		return
	}
	i := slices.IndexFunc(e.children, func(c *xmlNode) bool { return c.kind == xmlElement && c.local() == "value" })
	if i >= 0 {
		d.content(e.children[i], escapeText(value))
		return
	}
	tag := "value"
	if p := e.prefix(); p != "" {
		tag = p + ":value"
	}
	added := "<" + tag + ">" + escapeText(value) + "</" + tag + ">"
	if e.selfClosing {
		d.content(e, added)
	} else {
		d.edits = append(d.edits, edit{e.to, e.to, added})
	}
}

// content replaces what is within an element, which may be self-closing.
func (d *dotNet) content(e *xmlNode, text string) {
	if !e.selfClosing {
		d.edits = append(d.edits, edit{e.from, e.to, text})
		return
	}
	start := len(strings.TrimRight(d.text[:e.from], " \t\r\n"))
	d.edits = append(d.edits, edit{start, e.to + 2, ">" + text + "</" + e.name + ">"})
}
