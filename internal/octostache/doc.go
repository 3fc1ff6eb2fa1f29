// Package octostache evaluates the #{...} templates that variables, step
// settings and configuration files are written in. The language is compatible
// with the one that Octopus Deploy's variables use, oddities included: the same
// template gives the same text.
//
//	#{Name}  #{Octopus.Action[Web].Name}  #{Address[#{Region}]}   references
//	#{Name | ToLower | Replace "a" "b"}                           filters
//	#{if Name == "x"}…#{elseif Other}…#{else}…#{/if}              conditions
//	#{unless Name}…#{/unless}
//	#{each item in List}#{item.Name}#{/each}                      loops
//	#{calc {Port} + 1}                                            arithmetic
//	##{Name}                                                      a literal #{Name}
//
// A [Template] is parsed once, in time linear in its length, into an immutable
// tree and may be evaluated many times. [Variables] is an immutable lookup,
// built once per scope; [Variables.With] lays a few more values over it for a
// step without rebuilding the rest. Both are safe for concurrent use.
//
// Evaluation is pure: the time is a value ([Options.Now]), and the same
// template, variables and options always give the same result. What a template
// may cost is bounded by [Limits]; only the time-out on regular expressions
// depends on the machine.
//
// A reference that nothing answers stays in the text as it was written (up to
// white space and quoting) and is listed in [Result.Missing]; so does a filter
// that is unknown or cannot use its input. Values may hold templates
// themselves: they are evaluated where they are found, when they are needed,
// and a value that runs into itself is a [*LoopError].
//
// Numbers and dates are written and read as in .NET's invariant culture.
package octostache
