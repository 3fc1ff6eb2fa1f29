package version_test

import (
	"testing"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/version"
)

// Whatever a parser takes is stored and read back, so its text must parse to
// the same version again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"1.2.3", "v1. 2-beta_4+meta", "stable", "1.0.Final-SNAPSHOT", "-", "1..", "+", "1-ga.0.sp_a1"} {
		for scheme := range uint8(5) {
			f.Add(scheme, s)
		}
	}
	f.Fuzz(func(t *testing.T, scheme uint8, text string) {
		s := version.Scheme(scheme % 5)
		v, err := version.Parse(s, text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%q: %v is no fault", text, err)
			}
			return
		}
		if v.IsZero() {
			t.Fatalf("%q: the zero version", text)
		}
		again, err := version.Parse(s, v.String())
		if err != nil || !version.Equal(v, again) || again.String() != v.String() {
			t.Fatalf("%q is %q, and again %q (%v)", text, v, again, err)
		}
		if norm, err := version.Parse(s, v.Normalized()); err != nil || !version.Equal(v, norm) {
			t.Fatalf("%q has the normal form %q, which is another version (%v)", text, v.Normalized(), err)
		}
		for i := range len(version.SortKey(v)) {
			if c := version.SortKey(v)[i]; c < ' ' || s != version.Maven && c > '~' {
				t.Fatalf("%q has the key %q", text, version.SortKey(v))
			}
		}
	})
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"[1.0,2.0)", "(,1],[2,)", "1.0", "[1.0]", "(1,1)", "[,]", "[[1,]", "1.*"} {
		f.Add(s, "1.5")
	}
	f.Fuzz(func(t *testing.T, text, probe string) {
		for _, s := range []version.Scheme{version.SemVer, version.Maven} {
			r, err := version.ParseRange(s, text)
			if err != nil {
				continue
			}
			v, err := version.Parse(s, probe)
			if err != nil {
				continue
			}
			if r.Contains(v) != r.Intersect(r).Contains(v) {
				t.Fatalf("%q and itself differ about %q", text, probe)
			}
			again, err := version.ParseRange(s, r.String())
			if err != nil || again.Contains(v) != r.Contains(v) {
				t.Fatalf("%q writes as %q, which is another range (%v)", text, r, err)
			}
		}
	})
}

func FuzzMask(f *testing.F) {
	for _, s := range []string{"1.2.i", "v1.c.i-beta.i+c.i", "i", "-i", "1.2.3_c", "c.c.c.c-i.1"} {
		f.Add(s, "1.2.3.4-beta.5+x.7")
	}
	f.Fuzz(func(t *testing.T, mask, latest string) {
		v, _ := version.Parse(version.Octopus, latest)
		next, err := version.ApplyMask(mask, v)
		if err == nil && next.IsZero() {
			t.Fatalf("%q after %q is no version", mask, latest)
		}
		if err == nil && version.IsMask(mask) && version.IsMask(next.String()) {
			t.Fatalf("%q after %q leaves letters: %q", mask, latest, next)
		}
	})
}

func FuzzFromFileName(f *testing.F) {
	for _, s := range []string{"Acme.Web.1.2.0.zip", "a.1.tar.gz", "a.1.2.3.4.5-x+y.nupkg", "../x.1.zip"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		id, v, ext, err := version.FromFileName(name)
		if err != nil {
			return
		}
		if _, err := version.Parse(version.SemVer, v); err != nil || !version.ValidPackageID(id) {
			t.Fatalf("%q: id %q, version %q", name, id, v)
		}
		if id2, v2, ext2, err := version.FromFileName(id + "." + v + ext); err != nil || id2 != id || v2 != v || ext2 != ext {
			t.Fatalf("%q: %q %q %q reads back as %q %q %q, %v", name, id, v, ext, id2, v2, ext2, err)
		}
	})
}

// FuzzCoordinate checks that what is read of an artifact's name writes as a name
// of the same parts.
func FuzzCoordinate(f *testing.F) {
	for _, s := range []string{"org.acme:web", "org.acme:web:1.0", "org.acme:web:war:1.0", "g:a:zip:dist:1.0-SNAPSHOT", "g:a:jar", ":a", "a:b:c:d:e:f", "g:a::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []func(string) (version.Coordinate, bool){version.ParseCoordinate, version.ParsePackageID} {
			c, ok := read(text)
			if !ok {
				continue
			}
			again, ok := read(c.String())
			if !ok || again.String() != c.String() || again.Group != c.Group || again.Artifact != c.Artifact {
				t.Fatalf("%q is %+v, and again %+v", text, c, again)
			}
		}
	})
}
