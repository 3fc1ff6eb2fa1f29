package ocl

import (
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// WriteVariables writes the variables of a project, in the order of the names'
// first values. Sensitive ones are left out: they stay in the database.
func WriteVariables(variables []octopus.Variable, lookup Lookup) (Body, error) {
	var named octopus.List[namedValues]
	index := map[string]int{}
	for _, v := range variables {
		if v.Secret() {
			continue
		}
		key := ident.Fold(v.Name)
		i, ok := index[key]
		if !ok {
			i = len(named)
			index[key] = i
			named = append(named, namedValues{name: v.Name, variableType: variableType(v)})
		}
		if named[i].variableType != variableType(v) {
			named[i].variableType = "" // each value has its own
		}
		named[i].values = append(named[i].values, v)
	}
	return write("the variables", lookup, func(c *codec) { blocks(c, "variable", &named, describeVariable) })
}

// ReadVariables reads the variables of a project. Values have no ids in files;
// they get ids that stay the same as long as their name and scope do. A
// sensitive variable in a file has no value.
func ReadVariables(body Body, lookup Lookup) ([]octopus.Variable, error) {
	var named octopus.List[namedValues]
	err := read("the variables", body, lookup, func(c *codec) { blocks(c, "variable", &named, describeVariable) })
	if err != nil {
		return nil, err
	}
	variables := []octopus.Variable{}
	known := map[string]int{}
	for _, n := range named {
		for _, v := range n.values {
			key := ident.Fold(n.name) + "\x00" + fmt.Sprint(v.Scope)
			v.ID = stableID("variable", key, fmt.Sprint(known[key]))
			known[key]++
			variables = append(variables, v)
		}
	}
	return variables, nil
}

// namedValues are the values of a name; its type is "" when they differ in it.
type namedValues struct {
	name         string
	variableType octopus.VariableType
	values       octopus.List[octopus.Variable]
}

func variableType(v octopus.Variable) octopus.VariableType {
	if v.Type == "" {
		return octopus.VariableString
	}
	return v.Type
}

func describeVariable(c *codec, n *namedValues) {
	label(c, &n.name)
	if c.reading && strings.TrimSpace(n.name) == "" {
		c.fail(c.pos, "A variable needs a label with its name, such as variable \"Url\" { ... }.")
	}
	shared := n.variableType
	if c.reading || shared != "" {
		text(c, "type", &shared, octopus.VariableString)
	}
	blocks(c, "value", &n.values, func(c *codec, v *octopus.Variable) { describeVariableValue(c, v, n, shared) })
}

// describeVariableValue has a value of one line in the label, any other in an
// attribute; an empty one is in neither.
func describeVariableValue(c *codec, v *octopus.Variable, n *namedValues, shared octopus.VariableType) {
	kind := shared
	if !c.reading && n.variableType == "" {
		kind = variableType(*v)
		c.put("type", Text(string(kind)))
	} else if c.reading {
		text(c, "type", &kind, shared)
	}
	ref := valueRef(kind)
	var inLabel, inBody string
	if !c.reading {
		s := c.translate(Pos{}, ref, v.Text())
		if strings.ContainsAny(s, "\r\n") {
			inBody = s
		} else {
			inLabel = s
		}
	}
	label(c, &inLabel)
	text(c, "value", &inBody, "")
	if c.reading {
		if inLabel != "" && inBody != "" {
			c.fail(c.pos, "A value of the variable %q is there twice, as the label and as \"value\"; keep one.", n.name)
		}
		s := c.translate(c.pos, ref, inLabel+inBody)
		*v = octopus.Variable{Name: n.name, Type: kind, IsSensitive: kind == octopus.VariableSensitive, IsEditable: true}
		if !v.IsSensitive {
			v.Value = &s
		} else if s != "" {
			c.fail(c.pos, "The sensitive variable %q has its value in the file; remove it there and set it in the project.", n.name)
		}
	}
	text(c, "description", &v.Description, "")
	describeScope(c, &v.Scope)
	describePrompt(c, &v.Prompt)
}

// valueRef is what the value of a variable of some type names.
func valueRef(kind octopus.VariableType) Ref {
	switch kind {
	case octopus.VariableAWSAccount, octopus.VariableAzureAccount, octopus.VariableGoogleAccount, octopus.VariableUserAccount, octopus.VariableOIDCAccount:
		return RefAccount
	case octopus.VariableWorkerPool:
		return RefWorkerPool
	case octopus.VariableCertificate:
		return RefCertificate
	case octopus.VariableString, octopus.VariableSensitive:
	}
	return refNone
}

func describeScope(c *codec, s *octopus.Scope) {
	references(c, "action", &s.Action, RefAction)
	references(c, "channel", &s.Channel, RefChannel)
	references(c, "environment", &s.Environment, RefEnvironment)
	references(c, "machine", &s.Machine, RefMachine)
	references(c, "process", &s.ProcessOwner, RefProcess)
	references(c, "role", &s.Role, refNone)
	references(c, "tenant", &s.Tenant, RefTenant)
	references(c, "tenant_tag", &s.TenantTag, refNone)
}

func describePrompt(c *codec, p **octopus.VariablePrompt) {
	var value octopus.VariablePrompt
	if *p != nil {
		value = **p
	}
	found := block(c, "prompt", *p != nil, func(c *codec) {
		always(c, "description", &value.Description)
		dictionary(c, "display_settings", &value.DisplaySettings)
		always(c, "label", &value.Label)
		flag(c, "required", &value.Required)
	})
	if c.reading {
		*p = nil
		if found {
			*p = &value
		}
	}
}
