package ident_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/ident"
)

func TestSlug(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"My Project":        "my-project",
		"  Åse's  API (v2)": "ase-s-api-v2",
		"---":               "x",
		"":                  "x",
		"日本":                "x",
		"a_b.c":             "a-b-c",
	} {
		if got := ident.Slug(in); got != want {
			t.Errorf("Slug(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSlugIsStableAndSafe(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := ident.Slug(rapid.String().Draw(t, "name"))
		if s == "" || len(s) > ident.MaxSlug || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Fatalf("bad slug %q", s)
		}
		if again := ident.Slug(s); again != s {
			t.Fatalf("Slug(%q) = %q: not stable", s, again)
		}
	})
}

func TestSeq(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"Projects-12": 12, "deploymentprocess-Projects-7": 7} {
		if got, ok := ident.Seq(in); !ok || got != want {
			t.Errorf("Seq(%q) = %d, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "Projects", "Projects-", "Projects-x", "feeds-builtin"} {
		if _, ok := ident.Seq(in); ok {
			t.Errorf("Seq(%q) found a number", in)
		}
	}
}

func TestPageClamp(t *testing.T) {
	t.Parallel()
	if got := (ident.Page{Skip: -5, Take: 2147483647}).Clamp(); got != (ident.Page{Skip: 0, Take: ident.MaxTake}) {
		t.Errorf("Clamp = %+v", got)
	}
	if got := (ident.Page{}).Clamp(); got.Take != ident.DefaultTake {
		t.Errorf("Clamp of nothing = %+v", got)
	}
}
