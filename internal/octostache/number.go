package octostache

import (
	"math"
	"strconv"
	"strings"
)

// formatDouble writes a number as .NET does: the shortest text that reads back
// as the same number, with an exponent from 1E+15 on and below 1E-05.
func formatDouble(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	s := strconv.FormatFloat(f, 'E', -1, 64)
	mantissa, exponent, _ := strings.Cut(s, "E")
	if e, _ := strconv.Atoi(exponent); f == 0 || e >= -4 && e < 15 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return mantissa + "E" + exponent // Go's exponent has a sign and two digits too
}

// isNumberSpace is the white space that .NET allows around numbers.
func isNumberSpace(r rune) bool { return r == ' ' || '\t' <= r && r <= '\r' }

// parseInt32 reads a whole number with an optional sign and white space around it.
func parseInt32(s string) (int32, bool) {
	s = strings.TrimFunc(s, isNumberSpace)
	n, err := strconv.ParseInt(s, 10, 32)
	return int32(n), err == nil
}

// parseDouble reads a number, with thousands separated by commas or not, and
// with an exponent or not.
func parseDouble(s string) (float64, bool) {
	s = strings.TrimFunc(s, isNumberSpace)
	switch fold(s) {
	case "NAN", "-NAN", "+NAN":
		return math.NaN(), true
	case "INFINITY", "+INFINITY", "∞", "+∞":
		return math.Inf(1), true
	case "-INFINITY", "-∞":
		return math.Inf(-1), true
	}
	s, ok := plainNumber(s, true)
	if !ok {
		return 0, false
	}
	f, _ := strconv.ParseFloat(s, 64) // out of range gives the infinity that is wanted
	return f, true
}

// plainNumber checks a number and takes the commas out of its whole part.
func plainNumber(s string, exponent bool) (string, bool) {
	var b strings.Builder
	i, digits := 0, 0
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		b.WriteByte(s[i])
		i++
	}
	for ; i < len(s) && (isDigit(s[i]) || s[i] == ',' && digits > 0); i++ {
		if s[i] != ',' {
			b.WriteByte(s[i])
			digits++
		}
	}
	if i < len(s) && s[i] == '.' {
		b.WriteByte('.')
		for i++; i < len(s) && isDigit(s[i]); i++ {
			b.WriteByte(s[i])
			digits++
		}
	}
	if digits == 0 {
		return "", false
	}
	if exponent && i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		start := i
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if i == len(s) || !isDigit(s[i]) {
			return "", false
		}
		for i < len(s) && isDigit(s[i]) {
			i++
		}
		b.WriteString(s[start:i])
	}
	return b.String(), i == len(s)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
