package orchestrator

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/servicemsg"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// Limits of one attempt: what a script asks for beyond them is passed over, with a
// warning in its log.
const (
	maxArtifacts = 10000
	maxOutputs   = 10000
	maxMasks     = 10000
	// maxHeld is how many lines may wait for a stream that has begun what looks
	// like a message, until it is taken for text.
	maxHeld = 1000
)

// parser turns the raw output of a script into log lines, output variables and
// artifacts. What it knows between two lines is stored with the cursor, so that
// another process reads on as if it had read from the beginning; and never
// while it holds raw text, which may be a secret.
type parser struct {
	a *attempt
	parserState
	stdout, stderr stream

	seq   int64 // of the last entry that was fed
	fresh delta // since the last safe point
	ready delta // up to the last safe point, not taken yet
	safe  int64
	known parserState // at the safe point
}

// parserState is stored with the cursor.
type parserState struct {
	// OutLevel and ErrLevel are the levels that the script has set; "" is the usual one.
	OutLevel octopus.LogCategory `json:"out,omitempty"`
	ErrLevel octopus.LogCategory `json:"err,omitempty"`
	// Ignored streams are not logged.
	HideOut bool `json:"hideOut,omitempty"`
	HideErr bool `json:"hideErr,omitempty"`
	// Warned tells that a warning or an error was written, Stderr that it was
	// one on the error output.
	Warned bool `json:"warned,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
	// Message is why the script says it failed.
	Message   string     `json:"message,omitempty"`
	Artifacts []artifact `json:"artifacts,omitempty"`
	// Masks are the values that the script asked to be hidden, sealed.
	Masks []string `json:"masks,omitempty"`
	// Outputs counts the output variables.
	Outputs int `json:"outputs,omitempty"`
	// Blind tells that something could not be hidden: nothing more is shown.
	Blind bool `json:"blind,omitempty"`
	// Warnings that were given once.
	Told []string `json:"told,omitempty"`
}

type artifact struct {
	Path string `json:"path"`
	Name string `json:"name"`
}

// stream is one of the script's two outputs.
type stream struct {
	scanner servicemsg.Scanner
	carry   variables.Carry
	last    agent.Entry
}

func (s *stream) holds() bool { return len(s.scanner.Held) > 0 || s.carry.Held != "" }

// delta is what was read of a stretch of output.
type delta struct {
	lines []tasks.Line
	facts []deploy.Fact
}

func newParser(a *attempt) *parser { return &parser{a: a} }

// load reads what an earlier owner stored.
func (p *parser) load(ctx context.Context) error {
	c, err := p.a.r.l.Cursor(ctx, p.a.id)
	if err != nil {
		return err
	}
	return p.restore(c.Seq, c.Parser)
}

// restore has the parser go on behind an entry. Its masks are known since the run
// was loaded.
func (p *parser) restore(cursor int64, state json.RawMessage) error {
	p.a.cursor, p.safe, p.seq = cursor, cursor, cursor
	if len(state) == 0 {
		return nil
	}
	if err := json.Unmarshal(state, &p.parserState); err != nil {
		return fmt.Errorf("read the parser's state of %s: %w", p.a.id, err)
	}
	p.known = p.parserState
	return nil
}

// loadMasks hides what the scripts of a task asked for before this owner came.
func (r *run) loadMasks(ctx context.Context) error {
	cursors, err := r.l.Cursors(ctx)
	if err != nil {
		return fmt.Errorf("read the cursors of %s: %w", r.l.ID, err)
	}
	for _, c := range cursors {
		var state parserState
		if err := json.Unmarshal(c.Parser, &state); err != nil {
			return fmt.Errorf("read the parser's state of %s: %w", c.Unit, err)
		}
		for _, sealed := range state.Masks {
			clear, err := r.o.cfg.Sealer.Open(ctx, r.l.ID, "mask", sealed)
			if err != nil {
				return fmt.Errorf("open a mask of %s: %w", c.Unit, err)
			}
			if err := r.vars.masker.Add(string(clear)); err != nil {
				return err
			}
		}
	}
	return nil
}

// feed reads entries of the log, in order. What it returns are the facts up to
// the last point at which nothing is held back.
func (p *parser) feed(entries []agent.Entry) ([]deploy.Fact, error) {
	for _, e := range entries {
		if e.Seq <= p.seq {
			continue // an agent may repeat what was asked for twice
		}
		if err := p.entry(e); err != nil {
			return nil, err
		}
		p.seq = e.Seq
		if len(p.fresh.lines) >= maxHeld {
			p.release()
		}
		if p.stdout.holds() || p.stderr.holds() {
			continue
		}
		p.ready.lines = append(p.ready.lines, p.fresh.lines...)
		p.ready.facts = append(p.ready.facts, p.fresh.facts...)
		p.fresh, p.safe, p.known = delta{}, e.Seq, p.parserState
	}
	facts := p.ready.facts
	p.ready.facts = nil
	return facts, nil
}

// release takes for text what may yet become a message, so that one stream does not
// keep the other from being seen.
func (p *parser) release() {
	for _, s := range []*stream{&p.stdout, &p.stderr} {
		for _, item := range s.scanner.Flush() {
			p.text(s, s.last, item, true)
		}
	}
}

// take returns the lines up to the safe point, its number, and the state there.
func (p *parser) take() (lines []tasks.Line, cursor int64, state json.RawMessage, err error) {
	if state, err = json.Marshal(p.known); err != nil {
		return nil, 0, nil, err
	}
	lines, p.ready.lines = p.ready.lines, nil
	return lines, p.safe, state, nil
}

// end takes what was held back for text: the output is over.
func (p *parser) end() []deploy.Fact {
	p.release()
	for _, s := range []*stream{&p.stdout, &p.stderr} {
		if s.carry.Held != "" {
			p.emit(s, s.last, p.a.r.vars.masker.Next(&s.carry, "", true))
		}
	}
	facts := p.fresh.facts
	p.ready.lines = append(p.ready.lines, p.fresh.lines...)
	p.fresh, p.safe, p.known = delta{}, p.seq, p.parserState
	return facts
}

func (p *parser) entry(e agent.Entry) error {
	if e.Source == agent.Debug {
		if p.Blind {
			return nil
		}
		p.fresh.lines = append(p.fresh.lines, p.line(e, octopus.LogVerbose, p.a.r.vars.masker.Mask(e.Text)))
		return nil
	}
	s := &p.stdout
	if e.Source == agent.Stderr {
		s = &p.stderr
	}
	s.last = e
	whole := len(e.Text) < agent.MaxEntry // else the line goes on in the next entry
	for _, item := range s.scanner.Feed(e.Text) {
		if item.Message == nil {
			p.text(s, e, item, whole)
			continue
		}
		if err := p.message(e, *item.Message); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) text(s *stream, e agent.Entry, item servicemsg.Item, whole bool) {
	p.emit(s, e, p.a.r.vars.masker.Next(&s.carry, item.Text, whole))
}

func (p *parser) emit(s *stream, e agent.Entry, masked string) {
	level, hidden := p.OutLevel, p.HideOut
	if level == "" {
		level = octopus.LogInfo
	}
	if s == &p.stderr {
		level, hidden = p.ErrLevel, p.HideErr
		if level == "" {
			level = octopus.LogError
		}
	}
	if hidden || p.Blind {
		return
	}
	switch level {
	case octopus.LogError, octopus.LogFatal:
		p.Warned = true
		p.Stderr = p.Stderr || s == &p.stderr
	case octopus.LogWarning, octopus.LogAlert:
		p.Warned = true
	default:
	}
	p.fresh.lines = append(p.fresh.lines, p.line(e, level, masked))
}

func (p *parser) line(e agent.Entry, level octopus.LogCategory, masked string) tasks.Line {
	return tasks.Line{Activity: deploy.UnitActivity(p.a.r.l.ID, p.a.unit), Category: level, At: e.Time, Text: masked}
}

// levels are the names by which a script sets the level of a stream.
func levels(name string) (octopus.LogCategory, bool) {
	switch name {
	case "default":
		return "", true
	case "verbose", "progress":
		return octopus.LogVerbose, true
	case "warning":
		return octopus.LogWarning, true
	case "error":
		return octopus.LogError, true
	case "highlight":
		return octopus.LogHighlight, true
	case "wait":
		return octopus.LogWait, true
	default:
		return "", false
	}
}

// message does what a service message asks for. Unknown ones are ignored.
func (p *parser) message(e agent.Entry, m servicemsg.Message) error {
	name := strings.ToLower(m.Name)
	switch {
	case strings.HasPrefix(name, "stdout-"):
		level, known := levels(strings.TrimPrefix(name, "stdout-"))
		p.HideOut = name == "stdout-ignore"
		if known {
			p.OutLevel = level
		}
	case strings.HasPrefix(name, "stderr-"):
		level, known := levels(strings.TrimPrefix(name, "stderr-"))
		p.HideErr = name == "stderr-ignore"
		if known {
			p.ErrLevel = level
		}
	case name == "setvariable":
		return p.output(e, m)
	case name == "createartifact":
		if len(p.Artifacts) >= maxArtifacts {
			p.warn(e, fmt.Sprintf("The script has more than %d artifacts; the others are not kept.", maxArtifacts))
			return nil
		}
		if path := m.Get("path"); path != "" {
			file := m.Get("name")
			if file == "" {
				file = path[strings.LastIndexAny(path, `/\`)+1:]
			}
			// The name is masked here already: it is stored with the cursor.
			p.Artifacts = append(slices.Clone(p.Artifacts), artifact{Path: path, Name: p.a.r.vars.mask(file)})
		}
	case name == "progress":
		text := m.Get("percentage") + "%"
		if what := m.Get("message"); what != "" {
			text += " " + what
		}
		p.fresh.lines = append(p.fresh.lines, p.line(e, octopus.LogVerbose, p.a.r.vars.masker.Mask("Progress: "+text)))
	case name == "resultmessage":
		p.Message = p.a.r.vars.masker.Mask(m.Get("message"))
	case name == "mask":
		return p.mask(e, m.Get("value"))
	}
	return nil
}

// warn adds a remark of our own to the log, once.
func (p *parser) warn(e agent.Entry, text string) {
	if slices.Contains(p.Told, text) {
		return
	}
	p.Told = append(slices.Clone(p.Told), text)
	p.Warned = true
	p.fresh.lines = append(p.fresh.lines, p.line(e, octopus.LogWarning, text))
}

// hide masks a value from now on. Where that is impossible the rest of the output
// must not be shown.
func (p *parser) hide(e agent.Entry, value string) (hidden bool) {
	if len(p.Masks) < maxMasks && p.a.r.vars.masker.Add(value) == nil {
		return true
	}
	p.warn(e, "The script has asked for more to be hidden than this server can hide; the rest of its output is not shown.")
	p.Blind = true
	return false
}

func (p *parser) mask(e agent.Entry, value string) error {
	if !p.hide(e, value) {
		return nil
	}
	sealed, err := p.a.r.o.cfg.Sealer.Seal(p.a.r.l.ID, "mask", []byte(value))
	if err != nil {
		return err
	}
	p.Masks = append(slices.Clone(p.Masks), sealed)
	return nil
}

// output notes an output variable. One that holds a secret is one, whatever the
// script says: the journal has no secrets in clear.
func (p *parser) output(e agent.Entry, m servicemsg.Message) error {
	out := deploy.Output{Name: m.Get("name"), Value: m.Get("value"), Sensitive: isTrue(m.Get("sensitive"))}
	if out.Name == "" {
		return nil
	}
	if p.Outputs++; p.Outputs > maxOutputs {
		p.warn(e, fmt.Sprintf("The script sets more than %d output variables; the others are not kept.", maxOutputs))
		return nil
	}
	if out.Sensitive && !p.hide(e, out.Value) {
		return nil
	}
	out.Sensitive = out.Sensitive || p.a.r.vars.masker.Mask(out.Value) != out.Value
	if out.Sensitive {
		sealed, err := p.a.r.o.cfg.Sealer.Seal(p.a.r.l.ID, "output."+out.Name, []byte(out.Value))
		if err != nil {
			return err
		}
		out.Value = sealed
	}
	f := p.a.fact(deploy.FactOutput)
	f.Output = &out
	p.fresh.facts = append(p.fresh.facts, f)
	return nil
}

// maskFor adds the secrets that a unit sees, as written and as evaluated.
func (v *values) maskFor(a *attempt) error { return v.masker.Add(v.secretsFor(a)...) }

// secretsFor are the secrets that a unit can see, as they are written and evaluated.
func (v *values) secretsFor(a *attempt) []string {
	v.mu.Lock()
	set := v.set
	v.mu.Unlock()
	resolved := set.Resolve(a.context())
	secrets := variables.Masks(resolved, func(text string) (string, bool) {
		r := a.vars.Evaluate(text)
		return r.Text, r.Err == nil
	})
	for _, key := range slices.Sorted(maps.Keys(a.action.Properties)) {
		if s := a.action.Properties[key].Sensitive; s != nil && s.NewValue != nil {
			secrets = append(secrets, *s.NewValue, a.vars.Evaluate(*s.NewValue).Text)
		}
	}
	return secrets
}
