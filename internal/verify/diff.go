package verify

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
)

// Difference is one fact that the two programs have found differently.
type Difference struct {
	// Part and What name the fact.
	Part, What string
	// Old and New are its values, "" where there is none.
	Old, New string
	// Harmless tells what a new version may bring: members that answers did not have,
	// permissions and routes that there were not.
	Harmless bool
}

// Of a new version there may be many harmless differences: they take no room from the
// others.
const (
	maxDifferences = 500 // that are named
	maxHarmless    = 200 // that are named
)

// Comparison is what Diff has found.
type Comparison struct {
	OldVersion, NewVersion string
	Facts                  int // how many were compared
	Differences            []Difference
	// More counts the differences that are not named, MoreHarmless the harmless ones that
	// are not.
	More, MoreHarmless int
}

// Same reports whether there is no difference but harmless ones.
func (c *Comparison) Same() bool { return c.Count() == 0 }

// Count is how many differences there are that are not harmless.
func (c *Comparison) Count() int {
	n := c.More
	for i := range c.Differences {
		if !c.Differences[i].Harmless {
			n++
		}
	}
	return n
}

// Harmless is how many differences there are that only a new version brings.
func (c *Comparison) Harmless() int { return len(c.Differences) + c.More + c.MoreHarmless - c.Count() }

// Diff compares the facts of the program that runs with those of the one that is to. It
// fails with a fault Invalid for documents that cannot be compared.
func Diff(before, after *Document) (*Comparison, error) {
	switch {
	case before.Format != Format || after.Format != Format:
		return nil, fault.New(fault.Invalid, "The documents have the formats %d and %d; this version compares documents of format %d.", before.Format, after.Format, Format)
	case before.Seed != after.Seed || before.Key != after.Key:
		return nil, fault.New(fault.Invalid, "The documents were made with different seeds or keys, so that nothing can be compared; make both with the same --seed and --key-file.")
	case before.ReadOnly != after.ReadOnly:
		return nil, fault.New(fault.Invalid, "One of the documents was made with --read-only, and the other one was not; make both alike.")
	}
	c := &comparison{Comparison: Comparison{OldVersion: before.Version, NewVersion: after.Version}, before: before, after: after}
	for _, part := range keys(before.Facts, after.Facts) {
		was, is := before.Facts[part], after.Facts[part]
		names := keys(was, is)
		c.Facts += len(names)
		for _, name := range names {
			c.value(part, name, pick(was, name), pick(is, name))
		}
	}
	return &c.Comparison, nil
}

type comparison struct {
	Comparison
	before, after *Document
	harmlessNamed int
}

// keys are those of both maps, in order.
func keys[V any](a, b map[string]V) []string {
	both := maps.Clone(a)
	if both == nil {
		both = map[string]V{}
	}
	maps.Copy(both, b)
	return slices.Sorted(maps.Keys(both))
}

// pick is a value, nil where there is none.
func pick(m map[string]string, name string) *string {
	v, ok := m[name]
	if !ok {
		return nil
	}
	return &v
}

// value compares one fact; of two tables it compares the entries.
func (c *comparison) value(part, what string, was, is *string) {
	if was != nil && is != nil && *was == *is {
		return
	}
	old, isTable := c.entries(c.before, was)
	new, alsoTable := c.entries(c.after, is)
	if (isTable || was == nil) && (alsoTable || is == nil) && (isTable || alsoTable) {
		for _, name := range keys(old, new) {
			a, b := pick(old, name), pick(new, name)
			if a == nil || b == nil || *a != *b {
				c.add(part, what, name, a, b)
			}
		}
		return
	}
	c.add(part, what, "", was, is)
}

func (c *comparison) entries(d *Document, value *string) (map[string]string, bool) {
	if value == nil {
		return nil, false
	}
	id, ok := strings.CutPrefix(*value, "@")
	return d.Tables[id], ok
}

func (c *comparison) add(part, what, entry string, was, is *string) {
	d := Difference{Part: part, What: what, Harmless: c.harmless(part, what, entry, was)}
	if entry != "" {
		d.What += ": " + entry
	}
	if was != nil {
		d.Old = *was
	}
	if is != nil {
		d.New = *is
	}
	switch {
	case d.Harmless && c.harmlessNamed == maxHarmless:
		c.MoreHarmless++
		return
	case d.Harmless:
		c.harmlessNamed++
	case len(c.Differences)-c.harmlessNamed == maxDifferences:
		c.More++
		return
	}
	c.Differences = append(c.Differences, d)
}

// harmless tells what only a newer program can have.
func (c *comparison) harmless(part, what, entry string, was *string) bool {
	if was != nil {
		return false
	}
	switch part {
	case PartPermissions:
		return true
	case PartRoutes:
		return true
	case PartSignIn, PartPush:
		return strings.HasSuffix(what, ": shape") && entry != ""
	case PartUsers:
		name, _, _ := strings.Cut(entry, " ")
		_, known := c.before.Facts[PartPermissions][name]
		return entry != "" && !known
	}
	return false
}

// WriteText writes the comparison for people.
func (c *Comparison) WriteText(w io.Writer) error {
	var b strings.Builder
	value := func(text string) string {
		if text == "" {
			return "(nothing)"
		}
		return text
	}
	for _, harmless := range []bool{false, true} {
		said, more := false, c.More
		if harmless {
			more = c.MoreHarmless
		}
		for _, d := range c.Differences {
			if d.Harmless != harmless {
				continue
			}
			if !said && harmless {
				fmt.Fprintln(&b, "New, and no loss to anybody:")
			}
			said = true
			fmt.Fprintf(&b, "%s: %s\n    old: %s\n    new: %s\n", d.Part, d.What, value(d.Old), value(d.New))
		}
		if more > 0 {
			fmt.Fprintf(&b, "And %d more of these.\n", more)
		}
	}
	fmt.Fprintf(&b, "%d facts of version %s and %s compared: %d differences, %d of them harmless.\n", c.Facts, c.OldVersion, c.NewVersion, c.Count()+c.Harmless(), c.Harmless())
	_, err := io.WriteString(w, b.String())
	return err
}

// maxDocument bounds a document that is read, in bytes.
const maxDocument = 1 << 30

// Read reads a document that Write has written.
func Read(r io.Reader) (*Document, error) {
	d := &Document{}
	if err := json.NewDecoder(io.LimitReader(r, maxDocument)).Decode(d); err != nil {
		return nil, fault.New(fault.Invalid, "This is no document of facts: %v.", err)
	}
	return d, nil
}

// Write writes a document. The same facts are always the same bytes.
func (d *Document) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(d)
}
