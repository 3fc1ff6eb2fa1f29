package orchestrator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// bench makes parsers as an attempt has them.
type bench struct {
	t   testing.TB
	box *secret.Box
}

func newBench(t testing.TB) *bench {
	t.Helper()
	box, err := secret.Open(t.Context(), dbtest.Open(t, db.SQLite), secret.Source{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t, box}
}

// parser is one that goes on behind cursor with a stored state, nil at the start;
// outputs are the sensitive ones that the journal has.
func (b *bench) parser(cursor int64, state json.RawMessage, outputs ...string) *parser {
	b.t.Helper()
	masker, err := variables.NewMasker(append(outputs, "hunter22")...)
	if err != nil {
		b.t.Fatal(err)
	}
	r := &run{o: &Orchestrator{cfg: Config{Sealer: b.box}}, l: &tasks.Lease{Task: &tasks.Task{ID: "ServerTasks-1"}}, vars: &values{masker: masker}}
	a := &attempt{r: r, n: 1, id: "0.0#1"}
	a.parser = newParser(a)
	if err := a.parser.restore(cursor, state); err != nil {
		b.t.Fatal(err)
	}
	for _, sealed := range a.parser.Masks {
		clear, err := b.box.Open(b.t.Context(), "ServerTasks-1", "mask", sealed)
		if err == nil {
			err = masker.Add(string(clear))
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return a.parser
}

// output is what a script's log amounts to.
type output struct {
	Lines     []string
	Outputs   []string
	Artifacts []artifact
	Message   string
	Warned    bool
	Stderr    bool
}

func (b *bench) add(o *output, lines []tasks.Line, facts []deploy.Fact) {
	b.t.Helper()
	for _, l := range lines {
		o.Lines = append(o.Lines, string(l.Category)+" "+l.Text)
	}
	for _, f := range facts {
		value := f.Output.Value
		if f.Output.Sensitive {
			clear, err := b.box.Open(b.t.Context(), "ServerTasks-1", "output."+f.Output.Name, value)
			if err != nil {
				b.t.Fatal(err)
			}
			value = "sealed " + string(clear)
		}
		o.Outputs = append(o.Outputs, f.Output.Name+"="+value)
	}
}

// whole reads everything at once.
func (b *bench) whole(entries []agent.Entry) output {
	b.t.Helper()
	var o output
	p := b.parser(0, nil)
	facts, err := p.feed(entries)
	if err != nil {
		b.t.Fatal(err)
	}
	b.finish(&o, p, facts)
	return o
}

func (b *bench) finish(o *output, p *parser, facts []deploy.Fact) {
	b.t.Helper()
	facts = append(facts, p.end()...)
	lines, cursor, _, err := p.take()
	if err != nil || cursor != p.seq {
		b.t.Fatalf("after entry %d the cursor is %d, %v", p.seq, cursor, err)
	}
	b.add(o, lines, facts)
	o.Artifacts, o.Message, o.Warned, o.Stderr = p.Artifacts, p.Message, p.Warned, p.Stderr
}

// entries numbers lines; those that begin with "!" are of the error output.
func entries(lines ...string) []agent.Entry {
	var all []agent.Entry
	for i, l := range lines {
		e := agent.Entry{Seq: int64(i) + 1, Time: time.UnixMicro(int64(i)).UTC(), Text: strings.TrimPrefix(strings.TrimPrefix(l, "!"), "?")}
		switch {
		case strings.HasPrefix(l, "!"):
			e.Source = agent.Stderr
		case strings.HasPrefix(l, "?"):
			e.Source = agent.Debug
		}
		all = append(all, e)
	}
	return all
}

// message is a service message as a script prints it.
func message(name string, attributes ...string) string {
	text := "##octopus[" + name
	for i := 0; i < len(attributes); i += 2 {
		text += fmt.Sprintf(" %s='%s'", attributes[i], base64.StdEncoding.EncodeToString([]byte(attributes[i+1])))
	}
	return text + "]"
}

func TestParser(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, c := range []struct {
		name  string
		lines []string
		want  output
	}{
		{"nothing", nil, output{}},
		{"plain", []string{"out", "!err", "?agent"}, output{Lines: []string{"Info out", "Error err", "Verbose agent"}, Warned: true, Stderr: true}},
		{"secrets", []string{"a hunter22 b", "!hunter22", "?hunter22"}, output{Lines: []string{"Info a ******** b", "Error ********", "Verbose ********"}, Warned: true, Stderr: true}},
		{
			"levels",
			[]string{"##octopus[stdout-verbose]", "v", "!e", "##octopus[stdout-highlight]", "h", "##octopus[stdout-warning]", "w", "##octopus[stdout-nonsense]", "still", "##octopus[stdout-wait]", "wait", "##octopus[stdout-ignore]", "gone", "##octopus[stdout-default]", "d", "!##octopus[stderr-progress]", "!p", "!##octopus[stderr-ignore]", "!gone", "!##octopus[stderr-default]", "##octopus[stdout-error]", "e"},
			output{Lines: []string{"Verbose v", "Error e", "Highlight h", "Warning w", "Warning still", "Wait wait", "Info d", "Verbose p", "Error e"}, Warned: true, Stderr: true},
		},
		{
			"outputs",
			[]string{
				message("setVariable", "name", "A", "value", "1"), message("SETVARIABLE", "Name", "B", "Value", "t0psecret", "Sensitive", "True"), "t0psecret", message("setVariable", "name", "C", "value", "has hunter22"),
				message("setVariable", "value", "no name"), "in the " + message("setVariable", "name", "A", "value", "2") + "middle",
			},
			output{Lines: []string{"Info ********", "Info in the middle"}, Outputs: []string{"A=1", "B=sealed t0psecret", "C=sealed has hunter22", "A=2"}},
		},
		{"one over several lines", []string{"before ##octopus[setVariable name='QQ=='", "value='Mg=='", "] after", "end"}, output{Lines: []string{"Info before  after", "Info end"}, Outputs: []string{"A=2"}}},
		{"almost one", []string{"##octopus[setVariable", "not a message!", "end"}, output{Lines: []string{"Info ##octopus[setVariable", "Info not a message!", "Info end"}}},
		{"one that never ends", []string{"##octopus[setVariable name='QQ=='"}, output{Lines: []string{"Info ##octopus[setVariable name='QQ=='"}}},
		{
			"artifacts",
			[]string{message("createArtifact", "path", "/w/.tako/artifacts/x/file", "name", "a.txt"), message("createArtifact", "path", `C:\x\b.txt`), message("createArtifact")},
			output{Artifacts: []artifact{{Path: "/w/.tako/artifacts/x/file", Name: "a.txt"}, {Path: `C:\x\b.txt`, Name: "b.txt"}}},
		},
		{
			"progress, a result, a mask, and a verb of the future",
			[]string{message("progress", "percentage", "50", "message", "half of hunter22"), message("resultMessage", "message", "no hunter22"), message("mask", "value", "on the fly"), "!on the fly", message("juggle")},
			output{Lines: []string{"Verbose Progress: 50% half of ********", "Error ********"}, Message: "no ********", Warned: true, Stderr: true},
		},
		{"a long line in pieces, with a secret over the cut", []string{strings.Repeat("x", agent.MaxEntry-4) + "hunt", "er22 end"}, output{Lines: []string{"Info " + strings.Repeat("x", agent.MaxEntry-4), "Info ******** end"}}},
	} {
		if diff := cmp.Diff(c.want, b.whole(entries(c.lines...))); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// One stream that waits for the rest of a message does not keep the other from
// being seen for ever, nor from being committed.
func TestHeldStreamIsReleased(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.parser(0, nil)
	lines := []string{"!##octopus[setVariable name='"}
	for i := range 2 * maxHeld {
		lines = append(lines, fmt.Sprint("line ", i))
	}
	if _, err := p.feed(entries(lines...)); err != nil {
		t.Fatal(err)
	}
	out, cursor, _, err := p.take()
	if err != nil || cursor != int64(len(lines)) || len(out) != len(lines) {
		t.Errorf("%d lines up to entry %d of %d, %v", len(out), cursor, len(lines), err)
	}
}

func TestParserLimits(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var lines []string
	for range maxOutputs + 5 {
		lines = append(lines, message("setVariable", "name", "A", "value", "1"))
	}
	for range maxArtifacts + 5 {
		lines = append(lines, message("createArtifact", "path", "/x"))
	}
	lines = append(lines, "goes on", message("mask", "value", strings.Repeat("much ", variables.MaxMaskBytes/4)), "much more", "!much more")
	o := b.whole(entries(lines...))
	if len(o.Outputs) != maxOutputs || len(o.Artifacts) != maxArtifacts {
		t.Errorf("%d outputs, %d artifacts", len(o.Outputs), len(o.Artifacts))
	}
	want := []string{
		"Warning The script sets more than 10000 output variables; the others are not kept.", "Warning The script has more than 10000 artifacts; the others are not kept.",
		"Info goes on", "Warning The script has asked for more to be hidden than this server can hide; the rest of its output is not shown.",
	}
	if diff := cmp.Diff(want, o.Lines); diff != "" {
		t.Error(diff)
	}
}

// However the log comes in pieces, and wherever an owner dies and another goes on
// with what was committed, lines, outputs and the rest are the same.
func TestParserResumes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	pieces := []string{
		"plain", "has hunter22 in it", "", "wórds ünïcödé", "##octopus[", "##octopus[setVariable name='QQ=='", "value='aHVudGVyMjI='", "]", "Mg==' x='", "##octopus[stdout-warning]", "##octopus[stdout-default]",
		"##octopus[stderr-verbose]", "##octopus[stdout-ignore]", message("setVariable", "name", "B", "value", "t0psecret", "sensitive", "True"), "now t0psecret", "on the fly",
		message("mask", "value", "on the fly"), message("createArtifact", "path", "/x", "name", "y"), message("resultMessage", "message", "why"), message("progress", "percentage", "5"),
		strings.Repeat("z", agent.MaxEntry-5) + "hunte", "r22 rest", strings.Repeat("z", agent.MaxEntry-4) + "t0ps", "ecret rest",
	}
	rapid.Check(t, func(t *rapid.T) {
		var lines []string
		for range rapid.IntRange(0, 25).Draw(t, "entries") {
			lines = append(lines, rapid.SampledFrom([]string{"", "", "!", "?"}).Draw(t, "source")+rapid.SampledFrom(pieces).Draw(t, "text"))
		}
		log := entries(lines...)
		want := b.whole(log)
		var got output
		p := b.parser(0, nil)
		cursor, state := int64(0), json.RawMessage(nil)
		secrets := func() (all []string) {
			for _, o := range got.Outputs {
				if _, value, ok := strings.Cut(o, "=sealed "); ok {
					all = append(all, value)
				}
			}
			return all
		}
		for p.seq < int64(len(log)) {
			from := p.seq
			if rapid.IntRange(0, 5).Draw(t, "again") == 0 {
				from = max(0, from-2) // agents may repeat themselves
			}
			to := rapid.IntRange(int(p.seq)+1, len(log)).Draw(t, "to")
			facts, err := p.feed(log[from:to])
			if err != nil {
				t.Fatal(err)
			}
			taken, at, now, err := p.take()
			if err != nil {
				t.Fatal(err)
			}
			switch rapid.IntRange(0, 3).Draw(t, "fate") {
			case 0: // the owner dies before the commit
				p = b.parser(cursor, state, secrets()...)
				continue
			default:
				b.add(&got, taken, facts)
				cursor, state = at, now
				if strings.Contains(string(state), "hunter22") || strings.Contains(string(state), "t0psecret") {
					t.Fatalf("a secret is stored: %s", state)
				}
			case 1: // and here after it
				b.add(&got, taken, facts)
				cursor, state = at, now
				p = b.parser(cursor, state, secrets()...)
			}
		}
		b.finish(&got, p, nil)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		for _, l := range got.Lines {
			if strings.Contains(l, "hunter22") {
				t.Fatalf("a secret is shown: %.100s", l)
			}
		}
	})
}

func TestQuestion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		q    Question
		want []deploy.Choice
	}{
		{Question{Kind: deploy.AskManual}, []deploy.Choice{deploy.Proceed, deploy.Abort}},
		{Question{Kind: deploy.AskUnknown}, []deploy.Choice{deploy.MarkSucceeded, deploy.MarkFailed, deploy.RunAgain}},
		{Question{Kind: deploy.AskGuided}, []deploy.Choice{deploy.Fail, deploy.Retry, deploy.Ignore}},
		{Question{Kind: deploy.AskGuided, OnTarget: true}, []deploy.Choice{deploy.Fail, deploy.Retry, deploy.Ignore, deploy.Exclude}},
		{Question{Kind: deploy.AskGuided, OnTarget: true, Required: true}, []deploy.Choice{deploy.Fail, deploy.Retry}},
	} {
		if diff := cmp.Diff(c.want, c.q.Choices()); diff != "" {
			t.Errorf("%+v: %s", c.q, diff)
		}
		for _, choice := range c.q.Choices() {
			if !strings.Contains(fmt.Sprint(c.q.Kind.Choices()), string(choice)) {
				t.Errorf("the journal does not take %s for %s", choice, c.q.Kind)
			}
		}
	}
	if got := statusCode(octopus.ActivitySuccessWithWarning); got != "Succeeded" {
		t.Errorf("a step with warnings is %q for later steps", got)
	}
}
