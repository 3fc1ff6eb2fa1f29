package version

import (
	"time"

	"github.com/dlclark/regexp2"

	"github.com/takodeploy/tako/internal/fault"
)

// tagTimeout bounds one match of a rule's expression. Users write them for a
// backtracking engine, so one can be made to run for ever.
const tagTimeout = 250 * time.Millisecond

// Rule says which versions of a package a channel accepts. The zero Rule
// accepts all.
type Rule struct {
	scheme Scheme
	bounds *Range
	tag    *regexp2.Regexp
	whole  *regexp2.Regexp
}

// NewRule reads a channel's rule for packages of the scheme. Each part may be
// empty and then restricts nothing. versionRange is as [ParseRange] reads it;
// tag is a regular expression in .NET's syntax that must match somewhere in
// what [Tag] returns ("^$" for final versions only); whole is one that must
// match somewhere in the version as written. Errors are faults of kind Invalid.
func NewRule(scheme Scheme, versionRange, tag, whole string) (Rule, error) {
	r := Rule{scheme: scheme}
	if versionRange != "" {
		bounds, err := ParseRange(scheme, versionRange)
		if err != nil {
			return Rule{}, err
		}
		r.bounds = &bounds
	}
	var err error
	if r.tag, err = compile("Tag", tag); err != nil {
		return Rule{}, err
	}
	if r.whole, err = compile("VersionTagRegex", whole); err != nil {
		return Rule{}, err
	}
	return r, nil
}

func compile(field, expression string) (*regexp2.Regexp, error) {
	if expression == "" {
		return nil, nil // no expression restricts nothing
	}
	if len(expression) > MaxLength {
		return nil, fault.InvalidField(field, "%s is %d bytes long; an expression has at most %d.", field, len(expression), MaxLength)
	}
	re, err := regexp2.Compile(expression, regexp2.None)
	if err != nil {
		return nil, fault.InvalidField(field, "%s '%s' is not a valid regular expression: %v. Write for example ^$ for versions without a pre-release tag, or ^beta.", field, expression, err)
	}
	re.MatchTimeout = tagTimeout
	return re, nil
}

// Tag returns the text that a rule's expression for pre-releases is matched
// with: the pre-release, and the metadata with its plus sign.
func Tag(v Version) string {
	if v.Metadata == "" {
		return v.Prerelease
	}
	return v.Prerelease + "+" + v.Metadata
}

// Accepts reports whether the rule allows v. The error, of kind Invalid, means
// that an expression took too long, and so must be changed.
func (r Rule) Accepts(v Version) (bool, error) {
	if r.bounds != nil && !r.bounds.Contains(v) {
		return false, nil
	}
	for _, match := range []struct {
		field, text string
		re          *regexp2.Regexp
	}{{"Tag", Tag(v), r.tag}, {"VersionTagRegex", v.String(), r.whole}} {
		if match.re == nil {
			continue
		}
		ok, err := match.re.MatchString(match.text)
		if err != nil {
			return false, fault.InvalidField(match.field, "%s '%s' took too long to match '%s'; simplify the expression.", match.field, match.re.String(), match.text)
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}

// AcceptsText is Accepts for a version that is still a text, of the rule's
// scheme.
func (r Rule) AcceptsText(text string) (bool, error) {
	v, err := Parse(r.scheme, text)
	if err != nil {
		return false, err
	}
	return r.Accepts(v)
}
