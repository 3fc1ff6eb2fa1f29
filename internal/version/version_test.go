package version_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/version"
)

func must(tb testing.TB, s version.Scheme, text string) version.Version {
	tb.Helper()
	v, err := version.Parse(s, text)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// texts generates versions that a scheme takes, from a small alphabet so that
// equal and nearly equal ones meet.
func texts(s version.Scheme) *rapid.Generator[string] {
	number := rapid.SampledFrom([]string{"0", "00", "1", "01", "2", "9", "10", "11", "99", "100", "2147483647"})
	label := rapid.SampledFrom([]string{"0", "1", "2", "10", "007", "a", "A", "alpha", "b1", "beta", "RC", "x-y", "20240101123456", "99999999999999999999999999999999999999", "z9"})
	between := ""
	switch s {
	case version.SemVer:
		between = "."
	case version.Maven:
		label = rapid.SampledFrom([]string{"0", "1", "10", "alpha", "a1", "beta", "b", "rc", "cr2", "snapshot", "SNAPSHOT", "ga", "final", "sp", "sp1", "foo", "Foo", "jre8", "", "m3"})
		between = ".-_"
	case version.Octopus, version.Docker, version.Lexicographic:
		between = `.-_\`
	}
	return rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		if s != version.Lexicographic {
			b.WriteString(strings.Join(rapid.SliceOfN(number, 1, 4).Draw(t, "numbers"), "."))
		}
		if labels := rapid.SliceOfN(label, 0, 4).Draw(t, "labels"); len(labels) > 0 {
			if s != version.Lexicographic {
				b.WriteByte('-')
			}
			for i, l := range labels {
				if i > 0 {
					b.WriteByte(between[rapid.IntRange(0, len(between)-1).Draw(t, "separator")])
				}
				b.WriteString(l)
			}
		}
		if s != version.Maven && rapid.Bool().Draw(t, "has metadata") {
			b.WriteString("+" + label.Draw(t, "metadata"))
		}
		if b.Len() == 0 {
			return "0"
		}
		return b.String()
	})
}

func schemes() []version.Scheme {
	return []version.Scheme{version.Octopus, version.SemVer, version.Maven, version.Docker, version.Lexicographic}
}

func TestOrderIsTotal(t *testing.T) {
	t.Parallel()
	for _, s := range schemes() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				gen := texts(s)
				draw := func(label string) version.Version {
					v, err := version.Parse(s, gen.Draw(t, label))
					if err != nil {
						t.Fatal(err)
					}
					return v
				}
				a, b, c := draw("a"), draw("b"), draw("c")
				if version.Compare(a, a) != 0 {
					t.Fatalf("%s differs from itself", a)
				}
				if version.Compare(a, b) != -version.Compare(b, a) {
					t.Fatalf("%s and %s: not antisymmetric", a, b)
				}
				if version.Compare(a, b) <= 0 && version.Compare(b, c) <= 0 && version.Compare(a, c) > 0 {
					t.Fatalf("%s <= %s <= %s, but not transitive", a, b, c)
				}
				if version.Equal(a, b) != (version.Compare(a, b) == 0) {
					t.Fatalf("%s and %s: Equal and Compare disagree", a, b)
				}
			})
		})
	}
}

// compareByRule is the rule in words: the four numbers; a release above its
// pre-releases; labels one by one, numbers below text and by value, text
// without case, the shorter list first.
func compareByRule(t *rapid.T, a, b version.Version) int {
	if c := cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor), cmp.Compare(a.Patch, b.Patch), cmp.Compare(a.Revision, b.Revision)); c != 0 {
		return c
	}
	if a.Prerelease == "" || b.Prerelease == "" {
		return cmp.Compare(len(b.Prerelease), len(a.Prerelease))
	}
	split := func(v version.Version) []string {
		if v.Scheme() == version.SemVer {
			return strings.Split(v.Prerelease, ".")
		}
		return strings.Split(strings.NewReplacer("-", ".", "_", ".", `\`, ".").Replace(v.Prerelease), ".")
	}
	return slices.CompareFunc(split(a), split(b), func(x, y string) int {
		numeric := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
		switch {
		case numeric(x) && numeric(y):
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
		case numeric(x):
			return -1
		case numeric(y):
			return 1
		default:
			return strings.Compare(strings.ToLower(x), strings.ToLower(y))
		}
	})
}

func TestSortKeyFollowsTheRule(t *testing.T) {
	t.Parallel()
	for _, s := range []version.Scheme{version.Octopus, version.SemVer, version.Docker} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				gen := texts(s)
				a, errA := version.Parse(s, gen.Draw(t, "a"))
				b, errB := version.Parse(s, gen.Draw(t, "b"))
				if errA != nil || errB != nil {
					t.Fatal(errA, errB)
				}
				want := compareByRule(t, a, b)
				if got := version.Compare(a, b); sgn(got) != sgn(want) {
					t.Fatalf("Compare(%s, %s) = %d, by the rule %d", a, b, got, want)
				}
				if got := strings.Compare(version.SortKey(a), version.SortKey(b)); sgn(got) != sgn(want) {
					t.Fatalf("keys %q and %q of %s and %s compare as %d, by the rule %d", version.SortKey(a), version.SortKey(b), a, b, got, want)
				}
			})
		})
	}
}

func sgn(n int) int { return cmp.Compare(n, 0) }

// The keys are stored in databases: their text is a format, not a detail.
func TestSortKeyFormat(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scheme     version.Scheme
		text, want string
	}{
		{version.Octopus, "1.20", "1122000~"},
		{version.Octopus, "v1.2.3.4-beta_3", "11121314-2BETA 113"},
		{version.Octopus, "1.0.0-20240101123456", "11000-1E20240101123456"},
		{version.Octopus, "1.0-" + strings.Repeat("9", 40), "11000-1Z0040" + strings.Repeat("9", 40)},
		{version.SemVer, "1.0.0-x-y.7+build", "11000-2X-Y 117"},
		{version.Docker, "latest", "0000-2LATEST "},
		{version.Maven, "1.0.0-RC1", "A114911" + "6"},
		{version.Maven, "1.0.Final", "A116"},
		{version.Maven, "9.0.1-jre8", "A19A0A118jre 9186"},
		{version.Lexicographic, "release-2", "-2RELEASE 112"},
	} {
		if got := version.SortKey(must(t, tt.scheme, tt.text)); got != tt.want {
			t.Errorf("%s %q: key %q, want %q", tt.scheme, tt.text, got, tt.want)
		}
	}
}

// Each list is in ascending order, and each line holds equals.
func TestOrderTables(t *testing.T) {
	t.Parallel()
	for s, lines := range map[version.Scheme][]string{
		version.Maven: {
			"alpha", "1-alpha 1.0.alpha 1.0.0-alpha.0 1-alpha-0", "1-alpha-1 1-a1 1.alpha1 1_alpha_1", "1-beta 1.0.BETA", "1-m2 1-milestone-2",
			"1-rc 1.0.0.CR", "1-rc1-snapshot", "1-rc1 1.0-cr-1", "1-snapshot 1.0-SNAPSHOT",
			"1 1.0 1.0.0-0 1-ga 1.0.final 1.0.0.RELEASE 01 1.", "1-sp", "1-foo", "1-foo-1 1-foo1", "1-xyz", "1-1 1.0-01", "1.0.1-alpha", "1.0.1", "1.1-SNAPSHOT", "1.1", "1.10",
			"10", "20040616143000",
		},
		version.Octopus: {
			"alpha 0.0.0-ALPHA v0-alpha", "latest", "0.0.0 0 v0.0", "1-1", "1-2", "1-11", "1-a", "1-a.1 1.0.0_A-01", "1-a.b", "1-b", "1.0.0.0 1 1.0+x", "1.0.0.1", "1.0.1-x", "1.0.1",
		},
		version.SemVer: {
			"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-alpha-1", "1.0.0-beta 1.0.0-BETA", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0 1.0 1+b", "1.0.0.1",
		},
	} {
		var want [][]version.Version
		var all []version.Version
		for _, line := range lines {
			var equals []version.Version
			for text := range strings.FieldsSeq(line) {
				equals = append(equals, must(t, s, text))
			}
			want, all = append(want, equals), append(all, equals...)
		}
		for i, a := range want {
			for j, b := range want {
				for _, x := range a {
					for _, y := range b {
						if got := version.Compare(x, y); sgn(got) != cmp.Compare(i, j) {
							t.Errorf("%s: Compare(%s, %s) = %d, want %d", s, x, y, got, cmp.Compare(i, j))
						}
					}
				}
			}
		}
		if len(all) < 10 {
			t.Errorf("%s: only %d versions", s, len(all))
		}
	}
}

func TestNormalized(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scheme     version.Scheme
		text, want string
	}{
		{version.SemVer, "v01.2", "1.2.0"},
		{version.SemVer, "1.2.3.0-beta.1+meta", "1.2.3-beta.1"},
		{version.SemVer, "1.2.3.4", "1.2.3.4"},
		{version.Octopus, "1_2", "1.0.0-2"},
		{version.Octopus, "stable", "stable"},
		{version.Maven, "1.0.Final", "1.0.Final"},
		{version.Docker, "v1", "v1"},
	} {
		if got := must(t, tt.scheme, tt.text).Normalized(); got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.scheme, tt.text, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scheme version.Scheme
		text   string
	}{
		{version.SemVer, "1.2.3.4.5"},
		{version.SemVer, "1..2"},
		{version.SemVer, "1.0-"},
		{version.SemVer, "1.0+"},
		{version.SemVer, "beta"},
		{version.SemVer, "1.0.2147483648"},
		{version.Octopus, "1.0\x00"},
		{version.Maven, "1.0 beta"},
		{version.Maven, "1.0\xff"},
		{version.Octopus, strings.Repeat("1", version.MaxLength+1)},
		{version.Scheme(99), "1"},
	} {
		if _, err := version.Parse(tt.scheme, tt.text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s %q: error %v, want an invalid field", tt.scheme, tt.text, err)
		}
	}
}

func TestSchemeOfFeed(t *testing.T) {
	t.Parallel()
	for feed, want := range map[string]version.Scheme{
		"Maven": version.Maven, "docker": version.Docker, "AwsElasticContainerRegistry": version.Docker,
		"BuiltIn": version.SemVer, "NuGet": version.SemVer, "OctopusProject": version.Octopus, "": version.SemVer,
	} {
		if got := version.SchemeOfFeed(feed); got != want {
			t.Errorf("%q: %s, want %s", feed, got, want)
		}
	}
}

func TestRangeNuGet(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "1*", "*.1", "1.*.0", "**", "1.*.*", "[1.*]", "[1.0,2.*)", "(,*)", "1.*+m", "1.0-*.a", "1.0-a*b", "*.*", "1.*-a", "[1.0", "1.0]", "[1.0,2.0),[3.0,4.0)", "[2.0,1.0]", "(1.0,1.0]", "()", "[]", "[a,b]", "[1.0[,2.0]", "[1,2] x", strings.Repeat("[1.0],", 2000),
	} {
		if _, err := version.ParseRange(version.SemVer, text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: error %v, want an invalid field", text, err)
		}
	}
	for _, tt := range []struct {
		text, version string
		want          bool
	}{
		{"[1.0,1.0]", "1.0.0", true},
		{"(,)", "0.0.1-alpha", true},
		{"[2.0.0-alpha.1,2.0.0)", "2.0.0-alpha.0", false},
		{"[2.0.0-alpha.1,2.0.0)", "2.0.0-rc", true},
		{" [ 1.0 , 2.0 ) ", "1.5", true},
	} {
		r, err := version.ParseRange(version.SemVer, tt.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Contains(must(t, version.SemVer, tt.version)); got != tt.want {
			t.Errorf("%s contains %s: %t", tt.text, tt.version, got)
		}
	}
	if (version.Range{}).Contains(must(t, version.SemVer, "1.0")) {
		t.Error("the zero range contains a version")
	}
	if _, err := version.ParseRange(version.Maven, "[1.*,2)"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a floating bound in Maven's syntax: error %v, want an invalid field", err)
	}
}

// NuGet takes a floating lower bound for the lowest version that it may stand for.
func TestRangeFloats(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"*":              "[0.0.0,)",
		"*-*":            "[0.0.0-0,)",
		"1.*":            "[1.0,)",
		" 1.2.* ":        "[1.2.0,)",
		"1.2.3.*":        "[1.2.3.0,)",
		"1.0.0-*":        "[1.0.0-0,)",
		"1.0.0-beta*":    "[1.0.0-beta,)",
		"1.0.0-beta.*":   "[1.0.0-beta.0,)",
		"1.0.0-beta-x*":  "[1.0.0-beta-x,)",
		"1.*-*":          "[1.0-0,)",
		"1.2.*-rc.*":     "[1.2.0-rc.0,)",
		"[1.0.*, 2.0.0)": "[1.0.0,2.0.0)",
		"(1.*,2]":        "(1.0,2]",
		"[*,2.0.0-rc.1]": "[0.0.0,2.0.0-rc.1]",
	} {
		for _, s := range []version.Scheme{version.SemVer, version.Octopus} {
			r, err := version.ParseRange(s, text)
			if err != nil || r.String() != want {
				t.Errorf("%s: %q is %q (%v), want %q", s, text, r, err, want)
			}
		}
	}
	r, err := version.ParseRange(version.SemVer, "1.*")
	if err != nil || r.Contains(must(t, version.SemVer, "0.9")) || r.Contains(must(t, version.SemVer, "1.0-beta")) || !r.Contains(must(t, version.SemVer, "1.7")) || !r.Contains(must(t, version.SemVer, "2.0")) {
		t.Errorf("1.* is %s (%v); it must contain 1.7 and 2.0, and neither 0.9 nor 1.0-beta", r, err)
	}
}

// Intersect agrees with Contains, and String reads back.
func TestRangeProperties(t *testing.T) {
	t.Parallel()
	point := rapid.SampledFrom([]string{"1.0-alpha", "1.0", "1.1", "1.2", "1.2-rc", "1.3", "2.0", "2.0.0.1"})
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) version.Range {
			points := rapid.SliceOfNDistinct(point, 2, 4, rapid.ID).Draw(t, label)
			slices.SortFunc(points, func(a, b string) int {
				x, _ := version.Parse(version.Maven, a)
				y, _ := version.Parse(version.Maven, b)
				return version.Compare(x, y)
			})
			var parts []string
			for i := 0; i+1 < len(points); i += 2 {
				parts = append(parts, rapid.SampledFrom([]string{"[", "("}).Draw(t, "open")+points[i]+","+points[i+1]+rapid.SampledFrom([]string{"]", ")"}).Draw(t, "close"))
			}
			r, err := version.ParseRange(version.Maven, strings.Join(parts, ","))
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		a, b := draw("a"), draw("b")
		v, err := version.Parse(version.Maven, point.Draw(t, "v"))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := a.Intersect(b).Contains(v), a.Contains(v) && b.Contains(v); got != want {
			t.Fatalf("%s and %s: intersection %s contains %s: %t, want %t", a, b, a.Intersect(b), v, got, want)
		}
		again, err := version.ParseRange(version.Maven, a.String())
		if err != nil || again.String() != a.String() {
			t.Fatalf("%s reads back as %s, %v", a, again, err)
		}
	})
}

func TestFromFileName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][3]string{
		"Acme.Web.1.2.0.zip":                      {"Acme.Web", "1.2.0", ".zip"},
		"Acme.Web.1.2.0-beta.3+b-7.5.tar.gz":      {"Acme.Web", "1.2.0-beta.3+b-7.5", ".tar.gz"},
		"acme-web_2.1.2.3.4.NUPKG":                {"acme-web_2", "1.2.3.4", ".NUPKG"},
		"hello.1.zip":                             {"hello", "1", ".zip"},
		"foo.1.2.3.4.5.tgz":                       {"foo.1", "2.3.4.5", ".tgz"},
		"Acme.2.Web.1.0.0.jar":                    {"Acme.2.Web", "1.0.0", ".jar"},
		`C:\build\Acme.1.0.0.war`:                 {"Acme", "1.0.0", ".war"},
		"/tmp/x/Acme.1.0.0-release.tar.bz2":       {"Acme", "1.0.0-release", ".tar.bz2"},
		"Äpfel.1.0.0.tar.Z":                       {"Äpfel", "1.0.0", ".tar.Z"},
		"com.acme.site.2024.01.02.0304-x.tar":     {"com.acme.site", "2024.01.02.0304-x", ".tar"},
		"Acme.Web.1.0.0-feature-JIRA-1.2.tar.bz":  {"Acme.Web", "1.0.0-feature-JIRA-1.2", ".tar.bz"},
		"Acme-1.0.0.zip":                          {"Acme-1", "0.0", ".zip"}, // only a dot comes before a version
		"OctoFx.RateService.1.0.0.2147483647.ear": {"OctoFx.RateService", "1.0.0.2147483647", ".ear"},
	} {
		id, v, ext, err := version.FromFileName(name)
		if d := gocmp.Diff(want, [3]string{id, v, ext}); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, d)
		}
	}
	for _, name := range []string{
		"", ".zip", "Acme.zip", "Acme.1.0.0", "Acme.1.0.0.exe", "1.zip", "Acme-1.zip", "Acme..1.0.0.zip", "Ac me.1.0.0.zip",
		"Acme/.1.0.zip", "Acme.1.0.0-.zip", "Acme.1.0.0_x.zip", "-Acme.1.0.zip", "Acme.1. 0.zip", "Acme.99999999999.zip", "A." + strings.Repeat("1.", 4000) + "1.zip",
	} {
		if id, v, _, err := version.FromFileName(name); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "<id>.<version>") && !strings.Contains(err.Error(), "must") {
			t.Errorf("%.60q: id %q, version %q, error %v; want an error that shows the pattern", name, id, v, err)
		}
	}
}

func TestRule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		bounds, tag, whole, version string
		want                        bool
	}{
		{"", "", "", "1.0.0-x", true},
		{"[1.0,2.0)", "", "", "2.0.0", false},
		{"[1.0,2.0)", "^$", "", "1.5.0", true},
		{"[1.0,2.0)", "^$", "", "1.5.0-beta", false},
		{"", "^$", "", "1.0.0+build", false},
		{"", `^(|\+.*)$`, "", "1.0.0+build", true},
		{"", "^beta", "", "1.0.0-beta.2+x", true},
		{"", "^(?!beta)", "", "1.0.0-beta.2", false},
		{"", "", `^1\.0`, "1.0.0-beta", true},
		{"", "", `^2`, "1.0.0-beta", false},
	} {
		r, err := version.NewRule(version.SemVer, tt.bounds, tt.tag, tt.whole)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.AcceptsText(tt.version); err != nil || got != tt.want {
			t.Errorf("%+v: accepts %t, %v", tt, got, err)
		}
	}
	for _, tt := range [][3]string{{"[1.0", "", ""}, {"", "(", ""}, {"", "", "[a"}, {"", strings.Repeat("x", 2000), ""}} {
		if _, err := version.NewRule(version.SemVer, tt[0], tt[1], tt[2]); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: error %v, want an invalid field", tt, err)
		}
	}
	r, err := version.NewRule(version.SemVer, "", `^(a+)+$`, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AcceptsText("1.0-" + strings.Repeat("a", 60) + "-"); !fault.Is(err, fault.Invalid) {
		t.Errorf("an expression without end: error %v, want an invalid field", err)
	}
	if _, err := r.AcceptsText("?"); !fault.Is(err, fault.Invalid) {
		t.Errorf("not a version: error %v, want an invalid field", err)
	}
}

func TestTemplateVariables(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	for k, v := range version.TemplateVariables("V", must(t, version.Octopus, "1.2.9.4-beta.09+m")) {
		got[k] = v
	}
	want := map[string]string{
		"V.LastMajor": "1", "V.LastMinor": "2", "V.LastPatch": "9", "V.LastBuild": "9", "V.LastRevision": "4", "V.LastSuffix": "-beta.09",
		"V.NextMajor": "2", "V.NextMinor": "3", "V.NextPatch": "10", "V.NextBuild": "10", "V.NextRevision": "5", "V.NextSuffix": "-beta.10",
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	clear(got)
	for k, v := range version.TemplateVariables("Octopus.Version.Channel", version.Version{}) {
		got[k] = v
	}
	if got["Octopus.Version.Channel.NextPatch"] != "1" || got["Octopus.Version.Channel.LastMajor"] != "0" || got["Octopus.Version.Channel.NextSuffix"] != "" {
		t.Errorf("without a version: %v", got)
	}
	clear(got)
	for k, v := range version.DateVariables(time.Date(2026, 3, 1, 4, 5, 6, 0, time.UTC)) {
		got[k] = v
	}
	want = map[string]string{
		"Octopus.Date.Day": "1", "Octopus.Date.Month": "3", "Octopus.Date.Year": "2026", "Octopus.Date.DayOfYear": "60",
		"Octopus.Time.Hour": "4", "Octopus.Time.Minute": "5", "Octopus.Time.Second": "6",
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
