package version_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/vectortest"
	"github.com/takodeploy/tako/internal/version"
)

// vector is one case of testdata/versioning.json: what the reference
// implementation answers.
type vector struct {
	ID, Feature, Kind, Scheme string
	Input, Other              *string
	Version                   *string
	Mask                      string
	Latest                    *string
	Versions                  []string
	Range                     string
	A, B                      any
	Expected                  any
	ExpectedSameAs            string   `json:"expected_same_as"`
	ExpectedSet               []string `json:"expected_set"`
	Error                     bool
}

// different lists the cases that Tako answers in another way on purpose, with
// the reason.
func different() map[string]string { return map[string]string{} }

func TestVectors(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/versioning.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []vector
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	reasons := different()
	counts := vectortest.New()
	t.Cleanup(func() { counts.Report(t, "versioning.json") })
	for _, c := range cases {
		if reason, ok := reasons[c.ID]; ok {
			counts.OnPurpose(c.ID + ": " + reason)
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			counts.Count(t, c.Feature)
			got := answer(t, c)
			want := c.Expected
			if c.ExpectedSet != nil || c.Kind == "mask_latest_all" {
				want = anyList(slices.Sorted(slices.Values(c.ExpectedSet)))
			}
			if c.Kind == "compare" {
				got, want = sign(got), sign(want)
			}
			if c.ExpectedSameAs != "" {
				want = parsed(t, c.ExpectedSameAs, c.Input).String()
			}
			if c.Error {
				want = nil
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got)\n%s\n%s", c.Kind, d, describe(c))
			}
		})
	}
}

func describe(c vector) string { b, _ := json.Marshal(c); return string(b) }

func sign(v any) any {
	switch f := v.(float64); {
	case f < 0:
		return -1.0
	case f > 0:
		return 1.0
	default:
		return v
	}
}

func anyList(list []string) any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func scheme(t *testing.T, name string) version.Scheme {
	t.Helper()
	for s := version.Octopus; s <= version.Lexicographic; s++ {
		if strings.EqualFold(s.String(), name) {
			return s
		}
	}
	if name == "nuget" {
		return version.SemVer
	}
	t.Fatalf("unknown scheme %q", name)
	return 0
}

func parsed(t *testing.T, schemeName string, text *string) version.Version {
	t.Helper()
	v, err := version.Parse(scheme(t, schemeName), deref(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// answer returns our answer in the shape of the case's expected value; nil is
// an error.
func answer(t *testing.T, c vector) any {
	t.Helper()
	switch c.Kind {
	case "parse":
		v, err := version.Parse(scheme(t, c.Scheme), deref(c.Input))
		if err != nil {
			return nil
		}
		prefix, counter := v.PrereleaseParts()
		all := map[string]any{
			"major": float64(v.Major), "minor": float64(v.Minor), "patch": float64(v.Patch), "revision": float64(v.Revision),
			"prerelease": v.Prerelease, "prerelease_prefix": prefix, "prerelease_counter": counter, "metadata": v.Metadata,
		}
		if want, ok := c.Expected.(map[string]any); ok { // the case asserts some of them
			for k := range all {
				if _, asserted := want[k]; !asserted {
					delete(all, k)
				}
			}
		}
		return all
	case "has_metadata":
		return parsed(t, c.Scheme, c.Input).Metadata != ""
	case "original_string", "to_string":
		return parsed(t, c.Scheme, c.Input).String()
	case "compare":
		return float64(version.Compare(parsed(t, c.Scheme, c.Input), parsed(t, c.Scheme, c.Other)))
	case "equal":
		return version.Equal(parsed(t, c.Scheme, c.Input), parsed(t, c.Scheme, c.Other))
	case "is_prerelease":
		return parsed(t, c.Scheme, c.Input).IsPrerelease()
	case "is_mask":
		return version.IsMask(c.Mask)
	case "mask":
		var latest version.Version
		if c.Latest != nil {
			latest = parsed(t, "octopus", c.Latest)
		}
		v, err := version.ApplyMask(c.Mask, latest)
		if err != nil {
			return nil
		}
		return v.String()
	case "mask_latest", "mask_latest_all":
		var versions []version.Version
		for _, s := range c.Versions {
			versions = append(versions, parsed(t, "octopus", &s))
		}
		m, ok := version.ParseMask(c.Mask)
		if !ok {
			t.Fatalf("%q is no mask", c.Mask)
		}
		if c.Kind == "mask_latest" {
			if v, ok := m.Latest(versions); ok {
				return v.String()
			}
			return nil
		}
		var all []string
		for _, v := range m.AllLatest(versions) {
			all = append(all, v.String())
		}
		slices.Sort(all)
		return anyList(all)
	case "maven_coordinate":
		co, ok := version.ParseCoordinate(deref(c.Input))
		return coordinate(co, ok)
	case "maven_coordinate_octopus":
		co, ok := version.ParsePackageID(deref(c.Input))
		co.Version = deref(c.Version)
		return coordinate(co, ok)
	case "range_parse":
		r, err := version.ParseRange(scheme(t, c.Scheme), c.Range)
		if err != nil {
			return nil
		}
		m := rangeFacts(r)
		m["selected_known"] = !r.Recommended.IsZero()
		m["selected"] = bound(r.Recommended)
		return m
	case "range_contains":
		return parsedRange(t, c.Scheme, c.Range).Contains(parsed(t, c.Scheme, c.Input))
	case "range_restrict":
		return rangeFacts(restricted(t, c.Scheme, c.A).Intersect(restricted(t, c.Scheme, c.B)))
	case "range_to_string":
		return parsedRange(t, c.Scheme, c.Range).String()
	default:
		t.Fatalf("unknown kind %q", c.Kind)
		return nil
	}
}

func parsedRange(t *testing.T, schemeName, text string) version.Range {
	t.Helper()
	r, err := version.ParseRange(scheme(t, schemeName), text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// restricted reads an operand: a range, or ["restrict", x, y].
func restricted(t *testing.T, schemeName string, operand any) version.Range {
	t.Helper()
	if list, ok := operand.([]any); ok {
		return restricted(t, schemeName, list[1]).Intersect(restricted(t, schemeName, list[2]))
	}
	return parsedRange(t, schemeName, fmt.Sprint(operand))
}

func rangeFacts(r version.Range) map[string]any {
	list := []any{}
	for _, i := range r.Intervals {
		list = append(list, map[string]any{
			"lower": bound(i.Lower), "lower_inclusive": i.LowerInclusive,
			"upper": bound(i.Upper), "upper_inclusive": i.UpperInclusive,
		})
	}
	return map[string]any{"recommended": bound(r.Recommended), "restrictions": list}
}

func bound(v version.Version) any {
	if v.IsZero() {
		return nil
	}
	return v.String()
}

func coordinate(c version.Coordinate, ok bool) any {
	if !ok {
		return nil
	}
	m := map[string]any{}
	for k, v := range map[string]string{"group": c.Group, "artifact": c.Artifact, "packaging": c.Packaging, "classifier": c.Classifier, "version": c.Version} {
		if v != "" {
			m[k] = v
		}
	}
	return m
}
