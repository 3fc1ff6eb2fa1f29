package releasefeed

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// key is a key of the tests, the same for the same number.
func key(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return ed25519.NewKeyFromSeed(seed)
}

func public(keys ...ed25519.PrivateKey) []ed25519.PublicKey {
	var out []ed25519.PublicKey
	for _, k := range keys {
		p, _ := k.Public().(ed25519.PublicKey)
		out = append(out, p)
	}
	return out
}

func root(t testing.TB, threshold int, keys ...ed25519.PrivateKey) Root {
	t.Helper()
	r, err := NewRoot(1, threshold, public(keys...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func release(v string, change ...func(*Release)) Release {
	r := Release{
		Version: v, Date: start, Level: 2, MinReaderLevel: 1, UpgradeFromMin: "2026.1.0", Rollback: RollbackFree,
		Artifacts: map[string]Artifact{"linux/amd64": {URL: "tako-" + v, Size: 10, SHA256: strings.Repeat("ab", 32)}},
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

func feed(t testing.TB, number int64, releases ...Release) Feed {
	t.Helper()
	f, err := NewFeed(Feed{Channel: "stable", Number: number, Issued: start, Expires: start.AddDate(0, 1, 0), Releases: releases})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func sign(t testing.TB, document any, keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	data, err := Sign(document, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestVerify(t *testing.T) {
	t.Parallel()
	good := feed(t, 7, release("2026.5.0"))
	signed := sign(t, good, key(1), key(2))
	two := root(t, 2, key(1), key(2), key(3))
	now := start.Add(time.Hour)
	v, err := Verify(signed, two, "stable", Seen{Number: 7}, now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(good, v.Feed); diff != "" {
		t.Error(diff)
	}
	if v.Expired || v.Seen != (Seen{7, start}) {
		t.Errorf("expired %v, seen %v", v.Expired, v.Seen)
	}
	broken := release("2026.5.0")
	broken.Artifacts["linux/amd64"] = Artifact{URL: "x", Size: 1, SHA256: "AB"}
	for name, c := range map[string]struct {
		signed []byte
		seen   Seen
		want   Reason
	}{
		"empty":               {nil, Seen{}, Malformed},
		"no JSON":             {[]byte("<html>"), Seen{}, Malformed},
		"truncated":           {signed[:len(signed)/2], Seen{}, Malformed},
		"too large":           {make([]byte, MaxDocument+1), Seen{}, Malformed},
		"unsigned":            {sign(t, good), Seen{}, Unsigned},
		"of other keys":       {sign(t, good, key(8), key(9)), Seen{}, UnknownKeys},
		"of one key":          {sign(t, good, key(1)), Seen{}, TooFewKeys},
		"of one key, twice":   {[]byte(strings.Replace(string(sign(t, good, key(1))), `"signatures":[`, `"signatures":[`+one(t, sign(t, good, key(1)))+`,`, 1)), Seen{}, TooFewKeys},
		"changed":             {[]byte(strings.Replace(string(signed), "2026.5.0", "2026.5.1", 1)), Seen{}, WrongSignature},
		"older":               {signed, Seen{Number: 8}, Older},
		"another kind":        {sign(t, two, key(1), key(2)), Seen{}, Foreign},
		"another channel":     {sign(t, Feed{Type: "feed", Channel: "edge", Number: 7, Issued: start, Expires: now}, key(1), key(2)), Seen{}, Foreign},
		"signed, but no feed": {sign(t, map[string]any{"type": "feed", "channel": 5}, key(1), key(2)), Seen{}, Malformed},
		"no validity":         {sign(t, Feed{Type: "feed", Channel: "stable", Number: 7}, key(1), key(2)), Seen{}, Malformed},
		"a bad hash":          {sign(t, Feed{Type: "feed", Channel: "stable", Number: 7, Issued: start, Expires: now, Releases: []Release{broken}}, key(1), key(2)), Seen{}, Malformed},
		"a release twice":     {sign(t, Feed{Type: "feed", Channel: "stable", Number: 7, Issued: start, Expires: now, Releases: []Release{release("2026.5.0"), release("2026.5.0")}}, key(1), key(2)), Seen{}, Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Verify(c.signed, two, "stable", c.seen, now); !Is(err, c.want) {
				t.Errorf("%v, not %s", err, c.want)
			}
		})
	}
}

// one is the only signature of a document, as JSON.
func one(t *testing.T, signed []byte) string {
	t.Helper()
	e, err := open(signed)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(e.Signatures[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestExpiry: neither an old feed nor a clock that was put back hides that its time is
// over; then only a person's own choice counts.
func TestExpiry(t *testing.T) {
	t.Parallel()
	r := root(t, 1, key(1))
	signed := sign(t, feed(t, 3, release("2026.5.0")), key(1))
	for name, c := range map[string]struct {
		now  time.Time
		seen Seen
		want bool
	}{
		"in time":        {start.AddDate(0, 0, 30), Seen{}, false},
		"late":           {start.AddDate(0, 1, 1), Seen{}, true},
		"clock put back": {start.AddDate(-1, 0, 0), Seen{Number: 2, Issued: start.AddDate(0, 2, 0)}, true},
	} {
		v, err := Verify(signed, r, "stable", c.seen, c.now)
		if err != nil || v.Expired != c.want {
			t.Errorf("%s: expired %v, %v", name, v != nil && v.Expired, err)
			continue
		}
		in := Installed{Version: "2026.4.0", Platform: "linux/amd64"}
		if _, err := v.Choose(in, ""); (err != nil) != c.want {
			t.Errorf("%s: the newest: %v", name, err)
		}
		if got, err := v.Choose(in, "2026.5.0"); err != nil || got.Release.Version != "2026.5.0" {
			t.Errorf("%s: by name: %v", name, err)
		}
	}
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	signed := sign(t, feed(t, 1, release("2026.5.0")), key(1))
	signed, err := AddSignature(signed, key(3))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(signed, root(t, 2, key(1), key(2), key(3)), "stable", Seen{}, start); err != nil {
		t.Errorf("two of three: %v", err)
	}
	if _, err := Verify(signed, root(t, 3, key(1), key(2), key(3)), "stable", Seen{}, start); !Is(err, TooFewKeys) {
		t.Errorf("three of three: %v", err)
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	first := root(t, 2, key(1), key(2))
	second, err := NewRoot(2, 1, public(key(3))...)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRoot(sign(t, first, key(1), key(2))); err != nil || got.Version != 1 {
		t.Errorf("the first: %v", err)
	}
	if _, err := ParseRoot(sign(t, first, key(1))); !Is(err, TooFewKeys) {
		t.Errorf("the first, by one of its two keys: %v", err)
	}
	got, err := first.Next(sign(t, second, key(1), key(2), key(3)))
	if err != nil || got.Version != 2 || got.Threshold != 1 {
		t.Fatalf("the next: %v %v", got, err)
	}
	if _, err := first.Next(sign(t, second, key(3))); !Is(err, UnknownKeys) {
		t.Errorf("the next, by its own key only: %v", err)
	}
	if _, err := first.Next(sign(t, second, key(1), key(2))); !Is(err, UnknownKeys) {
		t.Errorf("the next, without its own key: %v", err)
	}
	if _, err := got.Next(sign(t, first, key(1), key(2), key(3))); !Is(err, Older) {
		t.Errorf("back to the first: %v", err)
	}
	if _, err := NewRoot(1, 1, public(key(1), key(1))...); err == nil {
		t.Error("a key twice")
	}
	if _, err := NewRoot(1, 2, public(key(1))...); err == nil {
		t.Error("a threshold that nobody can reach")
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	stop := func(r *Release) { r.RequiredStop = true }
	revoked := func(r *Release) { r.Revoked = "it loses logs." }
	from := func(v string) func(*Release) { return func(r *Release) { r.UpgradeFromMin = v } }
	arm := func(r *Release) { r.Artifacts = map[string]Artifact{"linux/arm64": r.Artifacts["linux/amd64"]} }
	all := []Release{
		release("2026.4.0"), release("2026.4.1"), release("2026.5.0", stop), release("2026.5.1"), release("2026.6.0", stop, revoked),
		release("2026.7.0", from("2026.5.0")), release("2026.7.1", revoked), release("2026.8.0-rc.1"), release("2026.7.2", arm),
	}
	v := &Verified{Feed: feed(t, 1, all...)}
	for name, c := range map[string]struct {
		in     Installed
		wanted string
		want   string
		passed []string
		stop   bool
		fails  string
		newest bool
	}{
		"the newest, by way of a stop": {in: Installed{Version: "2026.4.0"}, want: "2026.5.0", stop: true, passed: []string{"2026.4.1"}},
		"the newest, from the stop":    {in: Installed{Version: "2026.5.0"}, want: "2026.7.0", passed: []string{"2026.6.0", "2026.5.1"}},
		"by name":                      {in: Installed{Version: "2026.4.0"}, wanted: "2026.4.1", want: "2026.4.1"},
		"nothing newer":                {in: Installed{Version: "2026.7.0"}, fails: "nothing newer", newest: true},
		"what failed here":             {in: Installed{Version: "2026.5.0", Bad: []string{"2026.7.0"}}, want: "2026.5.1"},
		"what failed here, by name":    {in: Installed{Version: "2026.5.0", Bad: []string{"2026.7.0"}}, wanted: "2026.7.0", want: "2026.7.0", passed: []string{"2026.6.0", "2026.5.1"}},
		"revoked":                      {in: Installed{Version: "2026.7.0"}, wanted: "2026.7.1", fails: "it loses logs"},
		"older":                        {in: Installed{Version: "2026.7.0"}, wanted: "2026.5.0", fails: "rollback"},
		"the same":                     {in: Installed{Version: "2026.7.0"}, wanted: "2026.7.0", fails: "runs already", newest: true},
		"unknown":                      {in: Installed{Version: "2026.7.0"}, wanted: "2027.1.0", fails: "no version"},
		"another platform":             {in: Installed{Version: "2026.7.0"}, wanted: "2026.7.2", fails: "linux/amd64"},
		"that platform":                {in: Installed{Version: "2026.7.0", Platform: "linux/arm64"}, want: "2026.7.2", passed: []string{"2026.7.1"}},
		"a candidate from a candidate": {in: Installed{Version: "2026.8.0-beta.1"}, want: "2026.8.0-rc.1"},
		"too old":                      {in: Installed{Version: "2025.4.0"}, wanted: "2026.4.0", fails: "from version 2026.1.0 on"},
		"where nothing is yet":         {want: "2026.7.0"},
		"where nothing is, by name":    {wanted: "2026.4.1", want: "2026.4.1"},
		"where nothing is for it":      {in: Installed{Platform: "plan9/386"}, fails: "no version for plan9/386"},
		"no version of ours":           {in: Installed{Version: "unknown"}, fails: "no release's"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.in.Platform == "" {
				c.in.Platform = "linux/amd64"
			}
			got, err := v.Choose(c.in, c.wanted)
			if c.fails != "" {
				no, ok := err.(*NoChoice) //nolint:errorlint // as documented
				if !ok || !strings.Contains(err.Error(), c.fails) || no.Newest != c.newest {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Release.Version != c.want || got.Stop != c.stop || got.Artifact.Size != 10 {
				t.Errorf("%+v", got)
			}
			if diff := cmp.Diff(c.passed, got.Passed); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRollbackOfAChoice: what a release costs that is passed, the one that passes it costs.
func TestRollbackOfAChoice(t *testing.T) {
	t.Parallel()
	restore := func(r *Release) { r.Rollback = RollbackRestore }
	v := &Verified{Feed: feed(t, 1, release("2026.4.0", restore), release("2026.5.0"), release("2026.6.0", restore), release("2026.7.0"))}
	for _, c := range []struct {
		from, to string
		want     Rollback
	}{
		{"2026.4.0", "2026.5.0", RollbackFree},
		{"2026.4.0", "2026.6.0", RollbackRestore},
		{"2026.4.0", "2026.7.0", RollbackRestore},
		{"2026.5.0", "2026.7.0", RollbackRestore},
		{"2026.6.0", "2026.7.0", RollbackFree},
		{"", "2026.7.0", RollbackFree},
	} {
		got, err := v.Choose(Installed{Version: c.from, Platform: "linux/amd64"}, c.to)
		if err != nil {
			t.Fatal(err)
		}
		if got.Rollback != c.want {
			t.Errorf("from %q to %s: %s", c.from, c.to, got.Rollback)
		}
	}
}

// TestStopsAreVisited walks from any version to the newest: it ends there, and no stop
// is jumped over.
func TestStopsAreVisited(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 12).Draw(t, "releases")
		var all []Release
		stops := map[string]bool{}
		for i := range n {
			r := release(fmt.Sprintf("2026.%d.0", i+1))
			r.RequiredStop = rapid.Bool().Draw(t, "stop")
			stops[r.Version] = r.RequiredStop
			all = append(all, r)
		}
		v := &Verified{Feed: Feed{Channel: "stable", Releases: all}}
		at := rapid.IntRange(1, n).Draw(t, "from")
		visited := map[string]bool{}
		for range n + 1 {
			c, err := v.Choose(Installed{Version: fmt.Sprintf("2026.%d.0", at), Platform: "linux/amd64"}, "")
			if err != nil {
				break
			}
			visited[c.Release.Version] = true
			from := at
			if _, err := fmt.Sscanf(c.Release.Version, "2026.%d.0", &at); err != nil || at <= from {
				t.Fatalf("from %d to %s", from, c.Release.Version)
			}
			for i := from + 1; i < at; i++ {
				if stops[fmt.Sprintf("2026.%d.0", i)] {
					t.Fatalf("from %d to %d over the stop %d", from, at, i)
				}
			}
		}
		if at != n {
			t.Fatalf("ended at %d of %d", at, n)
		}
	})
}

// FuzzVerify: whatever is read, only what was signed is believed.
func FuzzVerify(f *testing.F) {
	signed := sign(f, feed(f, 3, release("2026.5.0")), key(1))
	f.Add(signed)
	f.Add(signed[:40])
	f.Add([]byte(`{"signed":{"type":"feed"},"signatures":[{"keyid":"","sig":""}]}`))
	r := root(f, 1, key(1))
	original, err := open(signed)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Verify(data, r, "stable", Seen{}, start); err == nil {
			if e, err := open(data); err != nil || string(e.Signed) != string(original.Signed) {
				t.Errorf("believed: %q", data)
			}
		} else if Is(err, "") {
			t.Errorf("an error without a reason: %v", err)
		}
		_, _ = ParseRoot(data)
	})
}
