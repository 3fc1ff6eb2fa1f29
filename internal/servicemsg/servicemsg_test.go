package servicemsg_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/servicemsg"
	"github.com/takodeploy/tako/internal/vectortest"
)

func TestVectors(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../structured/testdata/structured.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		ID, Kind   string
		Feature    string
		Chunks     []string
		Name       string
		Properties map[string]string
		Expected   json.RawMessage
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	counts := vectortest.New()
	t.Cleanup(func() { counts.Report(t, "structured.json, service messages") })
	for _, c := range cases {
		switch c.Kind {
		case "service_message_format":
			t.Run(c.ID, func(t *testing.T) {
				t.Parallel()
				counts.Count(t, c.Feature)
				var want string
				if err := json.Unmarshal(c.Expected, &want); err != nil {
					t.Fatal(err)
				}
				if got := (servicemsg.Message{Name: c.Name, Attributes: c.Properties}).String(); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		case "service_message_parse":
			t.Run(c.ID, func(t *testing.T) {
				t.Parallel()
				counts.Count(t, c.Feature)
				type message struct {
					Name       string            `json:"name"`
					Properties map[string]string `json:"properties"`
				}
				var want []message
				if err := json.Unmarshal(c.Expected, &want); err != nil {
					t.Fatal(err)
				}
				got := []message{}
				for _, item := range scan(t, strings.Join(c.Chunks, "")) {
					if item.Message != nil {
						got = append(got, message{item.Message.Name, item.Message.Attributes})
					}
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// scan feeds a text line by line, and takes the scanner through JSON in between.
func scan(t interface{ Fatal(...any) }, text string) []servicemsg.Item {
	var s servicemsg.Scanner
	var items []servicemsg.Item
	for line := range strings.SplitSeq(text, "\n") {
		items = append(items, s.Feed(line)...)
		kept, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		s = servicemsg.Scanner{}
		if err := json.Unmarshal(kept, &s); err != nil {
			t.Fatal(err)
		}
	}
	return append(items, s.Flush()...)
}

func TestFeed(t *testing.T) {
	t.Parallel()
	msg := func(name string, pairs ...string) servicemsg.Item {
		m := servicemsg.Message{Name: name, Attributes: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			m.Attributes[pairs[i]] = pairs[i+1]
		}
		return servicemsg.Item{Message: &m}
	}
	text := func(s string) servicemsg.Item { return servicemsg.Item{Text: s} }
	for name, tt := range map[string]struct {
		in   string
		want []servicemsg.Item
	}{
		"text":            {"hello\n\n ", []servicemsg.Item{text("hello"), text(""), text(" ")}},
		"alone":           {"##octopus[a]", []servicemsg.Item{msg("a")}},
		"amid text":       {"x ##octopus[a] y", []servicemsg.Item{msg("a"), text("x  y")}},
		"two":             {"##octopus[a]##octopus[b k=\"Yg==\"]", []servicemsg.Item{msg("a"), msg("b", "k", "b")}},
		"quotes":          {"##octopus[a k='Yg==' l=\"Yw==\" m='']", []servicemsg.Item{msg("a", "k", "b", "l", "c", "m", "")}},
		"over lines":      {"x##octopus[a k='Y\ng==\n'] y\nz", []servicemsg.Item{msg("a", "k", "b"), text("x y"), text("z")}},
		"two over lines":  {"##octopus[a\n]##octopus[b\n]", []servicemsg.Item{msg("a"), msg("b")}},
		"never ends":      {"x ##octopus[a\nk='Yg=='\n", []servicemsg.Item{text("x ##octopus[a"), text("k='Yg=='"), text("")}},
		"proves to be no": {"x ##octopus[a\nplain text\nmore", []servicemsg.Item{text("x ##octopus[a"), text("plain text"), text("more")}},
		"no, then yes":    {"##octopus[a !##octopus[b]", []servicemsg.Item{msg("b"), text("##octopus[a !")}},
		"no over lines, then yes": {"##octopus[a k='Yg\n##octopus[b]", []servicemsg.Item{
			text("##octopus[a k='Yg"), msg("b"),
		}},
		"bad base64":           {"##octopus[a k='!!']", []servicemsg.Item{text("##octopus[a k='!!']")}},
		"bad padding":          {"##octopus[a k='Yg']", []servicemsg.Item{text("##octopus[a k='Yg']")}},
		"bad padding in lines": {"##octopus[a k='Y\ng'] ##octopus[b]", []servicemsg.Item{text("##octopus[a k='Y"), msg("b"), text("g'] ")}},
		"bad UTF-8":            {"##octopus[a k='/w==']", []servicemsg.Item{text("##octopus[a k='/w==']")}},
		"attribute twice":      {"##octopus[a k='' k='']", []servicemsg.Item{text("##octopus[a k='' k='']")}},
		"no name":              {"##octopus[] ##octopus[ k='']", []servicemsg.Item{text("##octopus[] ##octopus[ k='']")}},
		"carriage returns":     {"##octopus[a\r\nk='Yg=='\r\n]", []servicemsg.Item{msg("a", "k", "b")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tt.want, scan(t, tt.in)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestGetIgnoresCase(t *testing.T) {
	t.Parallel()
	m := servicemsg.Message{Name: "setVariable", Attributes: map[string]string{"Name": "x", "value": "y"}}
	if m.Get("name") != "x" || m.Get("value") != "y" || m.Get("sensitive") != "" {
		t.Errorf("Get: %q %q %q", m.Get("name"), m.Get("value"), m.Get("sensitive"))
	}
}

// A message over the limit comes out as text, and what follows is scanned.
func TestLimit(t *testing.T) {
	t.Parallel()
	var s servicemsg.Scanner
	fed, line := 0, strings.Repeat("QUFB", 16<<10)
	var items []servicemsg.Item
	for _, l := range append([]string{"##octopus[a k='"}, slices.Repeat([]string{line}, servicemsg.MaxMessage/len(line)+1)...) {
		items = append(items, s.Feed(l)...)
		fed += len(l)
		if s.HeldBytes > servicemsg.MaxMessage {
			t.Fatalf("%d bytes held", s.HeldBytes)
		}
	}
	items = append(items, s.Feed("##octopus[b]")...)
	got, messages := 0, 0
	for _, i := range items {
		got += len(i.Text)
		if i.Message != nil {
			messages++
		}
	}
	if got != fed || messages != 1 {
		t.Errorf("%d of %d bytes of text, %d messages", got, fed, messages)
	}
}

// Messages printed amid any text, wrapped anywhere, come out whole, and the text
// without them.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z][A-Za-z-]{0,9}`)
		key := rapid.StringMatching(`[a-z]{1,3}`)
		var printed, plain strings.Builder
		var want []servicemsg.Message
		for range rapid.IntRange(0, 4).Draw(t, "messages") {
			words := rapid.StringMatching(`[a-z ]{0,6}`).Draw(t, "text")
			plain.WriteString(words)
			m := servicemsg.Message{Name: name.Draw(t, "name"), Attributes: rapid.MapOfN(key, rapid.String(), 0, 3).Draw(t, "attributes")}
			want = append(want, m)
			text := m.String()
			for range rapid.IntRange(0, 3).Draw(t, "wraps") {
				// Between the quotes and at blanks, a line end changes nothing.
				at := rapid.IntRange(len("##octopus[a"), len(text)-1).Draw(t, "where")
				if strings.Count(text[:at], `"`)%2 == 1 || text[at] == ' ' {
					text = text[:at] + "\n" + text[at:]
				}
			}
			printed.WriteString(words + text)
		}
		var got []servicemsg.Message
		var rest strings.Builder
		for _, item := range scan(t, printed.String()) {
			rest.WriteString(item.Text)
			if item.Message != nil {
				got = append(got, *item.Message)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
		if strings.TrimSpace(rest.String()) != strings.TrimSpace(plain.String()) {
			t.Fatalf("text %q, want %q", rest.String(), plain.String())
		}
	})
}

// Text without the opening comes back line by line, byte for byte.
func FuzzFeed(f *testing.F) {
	f.Add("hello\n##octopus[a k='Yg==']\nworld")
	f.Add("##octopus[##octopus[a\n]x")
	f.Add("##octopus[a k='\n##octopus[b\n'")
	f.Fuzz(func(t *testing.T, text string) {
		var rebuilt []string
		messages := 0
		for _, item := range scan(t, text) {
			if item.Message != nil {
				messages++
				continue
			}
			rebuilt = append(rebuilt, item.Text)
		}
		if messages == 0 && strings.Join(rebuilt, "\n") != text {
			t.Fatalf("%q came back as %q", text, rebuilt)
		}
	})
}

func BenchmarkFeedPlainLine(b *testing.B) {
	var s servicemsg.Scanner
	b.ReportAllocs()
	for b.Loop() {
		s.Feed("2026-01-01 12:00:00 INFO  [main] started in 3.2 seconds")
	}
}
