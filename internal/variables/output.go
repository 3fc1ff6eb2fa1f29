package variables

import "github.com/takodeploy/tako/octopus"

// Output is a variable that an action has set.
type Output struct {
	// Action is the action's name.
	Action string
	// MachineID and Machine (its name) are empty for an action that runs for
	// no target.
	MachineID, Machine string
	Name, Value        string
	Sensitive          bool
	// Order grows with time over one run: the last of several values wins.
	Order int64
}

// OutputName is the name under which later steps find an action's output.
func OutputName(action, name string) string {
	return "Octopus.Action[" + action + "].Output." + name
}

// OutputNameOn is the name of an output of one machine, by the machine's name.
func OutputNameOn(action, machine, name string) string {
	return "Octopus.Action[" + action + "].Output[" + machine + "]." + name
}

// Variables are the values by which later steps can reach an output:
//
//   - by the machine's name from anywhere;
//   - without a machine, from the same machine;
//   - without a machine from anywhere, where of several machines the last one
//     wins.
func (o Output) Variables() []Variable {
	v := Variable{
		Name: OutputName(o.Action, o.Name), Value: o.Value, Sensitive: o.Sensitive,
		Type: octopus.VariableString, Source: Source{Kind: KindOutput, OwnerID: o.Action, Order: o.Order},
	}
	if o.Sensitive {
		v.Type = octopus.VariableSensitive
	}
	if o.MachineID == "" {
		return []Variable{v}
	}
	named, local := v, v
	named.Name = OutputNameOn(o.Action, o.Machine, o.Name)
	local.Scope.Machine = octopus.List[string]{o.MachineID}
	return []Variable{named, local, v}
}
