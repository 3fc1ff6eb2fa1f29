package structured

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"
)

// MaxFile bounds the files that are read, in bytes. Configuration is smaller.
const MaxFile = 64 << 20

// maxDepth bounds how deep a file may nest.
const maxDepth = 512

// Format is a kind of file with structure.
type Format string

// The formats. The empty one means: by the file's name.
const (
	ByName     Format = ""
	JSON       Format = "Json"
	YAML       Format = "Yaml"
	XML        Format = "Xml"
	Properties Format = "Properties"
)

// FormatOf returns the format that a file's extension tells, or ByName.
func FormatOf(name string) Format {
	switch strings.ToLower(path.Ext(name)) {
	case ".json":
		return JSON
	case ".yaml", ".yml":
		return YAML
	case ".xml":
		return XML
	case ".properties":
		return Properties
	default:
		return ByName
	}
}

// Lookup gives the variables of a deployment. Names are unique without regard
// to case.
type Lookup interface {
	// Names yields the names of all variables.
	Names() iter.Seq[string]
	// Value returns the evaluated value of a variable by its exact name; nil is a
	// variable without a value, which replaces by null or by nothing. It is
	// called only for variables that match.
	Value(name string) *string
}

// Result is what came of a file.
type Result struct {
	// Output is the file's new content: the input itself if nothing matched.
	Output []byte
	// Replaced names the variable of each replaced value, in the order of the
	// file; one that matches twice is there twice.
	Replaced []string
	// Warnings are sentences for the task log.
	Warnings []string
}

func (r *Result) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// ParseError says where a file breaks the rules of its format.
type ParseError struct {
	// Name is the file's name.
	Name string
	// Format is what it was read as.
	Format Format
	// Line and Column count from 1; 0 is unknown.
	Line, Column int
	// Reason is what is wrong there.
	Reason string
}

// Error names the file, the place and the reason.
func (e *ParseError) Error() string {
	where := ""
	if e.Line > 0 {
		where = fmt.Sprintf(" at line %d, column %d", e.Line, e.Column)
	}
	return fmt.Sprintf("read %s as %s: %s%s", e.Name, e.Format, e.Reason, where)
}

// Replace replaces the values in a file that variables name. With ByName the
// format is that of the file's extension; where that tells nothing, JSON, XML,
// YAML and properties are tried in this order. A file that does not parse gives
// a *[ParseError].
//
// Variables whose names begin with "Octopus" are the system's and replace
// nothing, but "Octopus:..." may be a path in JSON and YAML.
func Replace(format Format, name string, input []byte, vars Lookup) (Result, error) {
	if len(input) > MaxFile {
		return Result{}, &ParseError{Name: name, Format: format, Reason: fmt.Sprintf("it has %d bytes; at most %d are read", len(input), MaxFile)}
	}
	if format == ByName {
		format = FormatOf(name)
	}
	replace := map[Format]func([]byte, Lookup) (Result, error){
		JSON: replaceJSON, YAML: replaceYAML, XML: replaceXML, Properties: replaceProperties,
	}
	tried := []Format{format}
	if format == ByName {
		tried = []Format{JSON, XML, YAML, Properties}
	}
	var errs []error
	for _, f := range tried {
		try, known := replace[f]
		if !known {
			return Result{}, fmt.Errorf("replace variables in %s: the format %q is not known", name, f)
		}
		result, err := try(input, vars)
		if err == nil {
			if len(result.Replaced) == 0 {
				result.Output = input
			}
			return result, nil
		}
		if pe, ok := errors.AsType[*ParseError](err); ok {
			pe.Name, pe.Format = name, f
		}
		errs = append(errs, err)
	}
	return Result{}, errors.Join(errs...)
}

// paths holds the variables that may name a path in JSON and YAML, by folded name.
type paths map[string]string

func pathVariables(vars Lookup) paths {
	p := paths{}
	for name := range vars.Names() {
		folded := fold(name)
		if strings.HasPrefix(folded, "OCTOPUS") && !strings.HasPrefix(folded, "OCTOPUS:") {
			continue
		}
		p[folded] = name
	}
	return p
}

// fold makes names that differ in case alone equal.
func fold(s string) string { return strings.ToUpper(s) }
