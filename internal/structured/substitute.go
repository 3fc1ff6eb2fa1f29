package structured

import (
	"strings"

	"github.com/takodeploy/tako/internal/fault"
)

// Substitute evaluates a text file as a template. evaluate returns the result and
// the tokens that it left as they are; those are returned, for a warning. The
// file keeps its encoding, byte order mark and line ends; outputEncoding, if it
// names a known encoding, sets another, which for Unicode's has a byte order
// mark. If neither can hold the result, it is UTF-8 without one.
func Substitute(input []byte, outputEncoding string, evaluate func(string) (string, []string)) (output []byte, missing []string) {
	text, from := decode(input, nil)
	result, missing := evaluate(text)
	to := from
	if c, known := namedCharset(outputEncoding); outputEncoding != "" && known {
		to = c
	}
	if result == text && to.name == from.name && to.bom == from.bom {
		return input, missing
	}
	return to.encode(result), missing
}

// SubstituteStrict is Substitute for what runs before secrets are known: every
// token must have a value. name is the file's, for the error, which is a fault of
// kind Invalid.
func SubstituteStrict(name string, input []byte, outputEncoding string, evaluate func(string) (string, []string)) ([]byte, error) {
	output, missing := Substitute(input, outputEncoding, evaluate)
	if len(missing) > 0 {
		return nil, fault.New(fault.Invalid, "In the file '%s' these tokens could not be evaluated: '%s'. This may be due to missing or sensitive variables.", name, strings.Join(missing, "', '"))
	}
	return output, nil
}
