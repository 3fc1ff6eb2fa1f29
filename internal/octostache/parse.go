package octostache

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
)

// maxNesting bounds blocks, branches and options inside each other. A tag that
// holds more cannot be read.
const maxNesting = 200

const tooDeep = "at most 200 tags inside each other"

func isSpace(r rune) bool { return unicode.IsSpace(r) }

// ParseError tells where a template stops making sense. It quotes nothing of
// the template, which may hold secrets.
type ParseError struct {
	Line, Column int    // of the character that does not fit, from 1, in characters
	Message      string // what was expected there
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("template line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Parse reads a template. The error is a [*ParseError].
func Parse(src string) (*Template, error) {
	if !strings.Contains(src, "#{") {
		return literal(src), nil
	}
	p := newParser(src)
	end := p.sequence(0, untilTag)
	if end < len(src) {
		return nil, p.failure(end)
	}
	return &Template{p.build(0, end)}, nil
}

// ParseFile reads a template out of a text that may hold #{ for other reasons:
// what cannot be read stays literal, up to the character that did not fit, and
// reading goes on there.
func ParseFile(src string) *Template {
	if !strings.Contains(src, "#{") {
		return literal(src)
	}
	p := newParser(src)
	var parts []part
	var pending strings.Builder
	flush := func() {
		if pending.Len() > 0 {
			parts = append(parts, &text{pending.String()})
			pending.Reset()
		}
	}
	for i := 0; i < len(src); {
		k, exact := p.tagIndex(i)
		switch {
		case !exact:
			end := p.start(k)
			pending.WriteString(p.unescape(i, end))
			i = end
		case p.tags[k].ok:
			flush()
			parts = append(parts, p.buildTag(k))
			i = p.tags[k].end
		default:
			pending.WriteString(src[i:p.tags[k].end])
			i = p.tags[k].end
		}
	}
	flush()
	return &Template{parts}
}

func literal(src string) *Template {
	if src == "" {
		return &Template{}
	}
	return &Template{[]part{&text{src}}}
}

// parser reads a template backwards: the tag at each #{ is read after all tags
// behind it, whose results it looks up. So nothing is read twice, however
// often an unclosed #{if makes the reader change its mind, and nesting needs no
// recursion until the tree is built.
type parser struct {
	src  string
	tags []tag // in order of position

	// Of the tag being read: where it went wrong, and how deep it nests.
	farthest int
	wanted   string
	depth    int
}

// tag is what is known about the #{ at a position.
type tag struct {
	pos int

	ok    bool
	end   int // behind the whole construct; if !ok, where reading stopped
	depth int

	// Of a failed tag, for the error message.
	errAt  int
	wanted string

	// The construct. A substitution or calculation is in leaf; a block has a
	// head, a body and perhaps further branches.
	leaf part
	head *blockHead

	// The tag's place as a plain substitution, also where it is read as
	// something else: an index [#{...}] only ever holds a substitution.
	subst      *substitution
	substEnd   int
	substDepth int
	substRead  bool

	// As the start of a branch of an if: #{elseif test}body.
	elseif *blockHead

	// The sequences of parts that start here, by what ends them.
	chain [3]sequence
}

type sequence struct {
	end, depth int
}

type blockHead struct {
	word      string // if, unless, each, elseif
	test      test
	name      string
	list      *symbol
	bodyStart int
	bodyEnd   int
	next      int // index of the tag with the next elseif branch, or -1
	elseStart int // body of the else branch, 0 if there is none
	elseEnd   int
	end       int // of an elseif: behind it and the elseif branches that follow
	depth     int // of an elseif
}

// What ends a sequence of parts, besides a tag that cannot be read.
const (
	untilTag    = iota
	untilElse   // #{else}
	untilElseIf // #{else} or #{elseif
)

func newParser(src string) *parser {
	p := &parser{src: src, tags: make([]tag, 0, strings.Count(src, "#{"))}
	for i := 0; i < len(src); {
		n := strings.IndexByte(src[i:], '#')
		if n < 0 {
			break
		}
		start := i + n
		for i = start; i < len(src) && src[i] == '#'; i++ {
		}
		// An even run of # escapes the brace.
		if i < len(src) && src[i] == '{' && (i-start)%2 == 1 {
			p.tags = append(p.tags, tag{pos: i - 1})
		}
	}
	for k := len(p.tags) - 1; k >= 0; k-- {
		p.readTag(k)
	}
	return p
}

// tagIndex returns the first tag at or behind i, and whether it is at i.
func (p *parser) tagIndex(i int) (k int, exact bool) {
	k = sort.Search(len(p.tags), func(k int) bool { return p.tags[k].pos >= i })
	return k, k < len(p.tags) && p.tags[k].pos == i
}

// start returns the position of tag k, the end of the text if there is none.
func (p *parser) start(k int) int {
	if k < len(p.tags) {
		return p.tags[k].pos
	}
	return len(p.src)
}

// sequence returns where a sequence of parts that starts at i ends.
func (p *parser) sequence(i, until int) int {
	k, _ := p.tagIndex(i)
	if k == len(p.tags) {
		return len(p.src)
	}
	s := p.tags[k].chain[until]
	p.depth = max(p.depth, s.depth+1)
	return s.end
}

// expect notes what the reader was looking for at i, if it never got farther.
func (p *parser) expect(i int, what string) {
	if i > p.farthest || p.wanted == "" {
		p.farthest, p.wanted = i, what
	}
}

// failure explains why the sequence of parts that should reach the end stops at i.
func (p *parser) failure(i int) error {
	k, _ := p.tagIndex(i)
	t := &p.tags[k]
	rest := p.src[t.pos:]
	if strings.HasPrefix(rest, "#{/") {
		return p.errorAt(t.pos, "this end tag closes nothing")
	}
	at, msg := t.errAt, "expected "+t.wanted
	if at >= len(p.src) {
		msg = "the text ends in the middle of a tag or block, " + msg
	}
	return p.errorAt(at, msg)
}

func (p *parser) errorAt(i int, msg string) error {
	before := p.src[:min(i, len(p.src))]
	line := before[strings.LastIndexByte(before, '\n')+1:]
	return &ParseError{
		Line:    strings.Count(before, "\n") + 1,
		Column:  len([]rune(line)) + 1,
		Message: msg,
	}
}

// readTag reads the tag with index k; all later ones have been read.
func (p *parser) readTag(k int) {
	t := &p.tags[k]
	p.farthest, p.wanted = 0, ""
	// Text may start with #, so that much is always skipped.
	stop := t.pos + 1
	for _, read := range [...]func(*tag) (int, bool){p.readCondition, p.readCalculation, p.readLoop, p.readSubstitution} {
		p.depth = 0
		end, ok := read(t)
		if ok && p.depth > maxNesting {
			p.farthest, p.wanted = t.pos, tooDeep
			break
		}
		if ok {
			t.ok, t.end, t.depth = true, end, p.depth
			break
		}
		stop = max(stop, end)
	}
	if !t.ok {
		t.end, t.errAt, t.wanted = stop, p.farthest, p.wanted
	}
	p.readElseIf(t)

	isElse := strings.HasPrefix(p.src[t.pos:], "#{else}")
	for until := range t.chain {
		if !t.ok || until != untilTag && isElse || until == untilElseIf && p.startsElseIf(t.pos) {
			t.chain[until] = sequence{end: t.pos}
			continue
		}
		next := sequence{end: len(p.src)}
		if n, _ := p.tagIndex(t.end); n < len(p.tags) {
			next = p.tags[n].chain[until]
		}
		t.chain[until] = sequence{next.end, max(t.depth, next.depth)}
	}
}

// open reads "#{", white space and a word, which must be followed by white space.
func (p *parser) open(i int, words ...string) (word string, end int, ok bool) {
	if strings.HasPrefix(p.src[i:], "#{/") {
		return "", i, false
	}
	at := skipSpace(p.src, i+2)
	stop := at
	for _, w := range words {
		n, ok := matchWord(p.src, at, w)
		stop = max(stop, at+n)
		if ok {
			end := skipSpace(p.src, at+n)
			return w, end, end > at+n
		}
	}
	return "", stop, false
}

func (p *parser) closeBrace(i int) (int, bool) {
	i = skipSpace(p.src, i)
	if i < len(p.src) && p.src[i] == '}' {
		return i + 1, true
	}
	p.expect(i, `"}"`)
	return i, false
}

func (p *parser) readCondition(t *tag) (int, bool) {
	word, i, ok := p.open(t.pos, "if", "unless")
	if !ok {
		return i, false
	}
	h := &blockHead{word: word, next: -1}
	if h.test, i, ok = p.test(i); !ok {
		return i, false
	}
	if i, ok = p.closeBrace(i); !ok {
		return i, false
	}
	h.bodyStart = i
	if word == "if" {
		h.bodyEnd = p.sequence(i, untilElseIf)
	} else {
		h.bodyEnd = p.sequence(i, untilElse)
	}
	end := h.bodyEnd
	if k, exact := p.tagIndex(end); word == "if" && exact && p.tags[k].elseif != nil {
		h.next = k
		end = p.tags[k].elseif.end
		p.depth = max(p.depth, p.tags[k].elseif.depth+1)
	}
	if _, ok := match(p.src, end, "#{else}"); ok {
		h.elseStart = end + len("#{else}")
		h.elseEnd = p.sequence(h.elseStart, untilTag)
		end = h.elseEnd
	}
	t.head = h
	return p.endTag(end, "#{/"+word+"}")
}

// readElseIf reads the tag as the start of an elseif branch.
func (p *parser) readElseIf(t *tag) {
	if !p.startsElseIf(t.pos) {
		return
	}
	p.depth = 0
	h := &blockHead{word: "elseif", next: -1}
	var i int
	var ok bool
	if h.test, i, ok = p.test(t.pos + len("#{elseif")); !ok {
		return
	}
	if i, ok = p.closeBrace(i); !ok {
		return
	}
	h.bodyStart, h.bodyEnd = i, p.sequence(i, untilElseIf)
	h.end = h.bodyEnd
	if k, exact := p.tagIndex(h.bodyEnd); exact && p.tags[k].elseif != nil {
		h.next = k
		h.end = p.tags[k].elseif.end
		p.depth = max(p.depth, p.tags[k].elseif.depth+1)
	}
	h.depth = p.depth
	t.elseif = h
}

func (p *parser) startsElseIf(i int) bool {
	const word = "#{elseif"
	return strings.HasPrefix(p.src[i:], word) && spaceAt(p.src, i+len(word)) > 0
}

func (p *parser) readCalculation(t *tag) (int, bool) {
	_, i, ok := p.open(t.pos, "calc")
	if !ok {
		return i, false
	}
	x, i, ok := p.sum(i, 0)
	if !ok {
		return i, false
	}
	if i, ok = p.closeBrace(i); ok {
		t.head, t.leaf = nil, &calculation{x}
	}
	return i, ok
}

func (p *parser) readLoop(t *tag) (int, bool) {
	word, i, ok := p.open(t.pos, "each")
	if !ok {
		return i, false
	}
	h := &blockHead{word: word, next: -1}
	if h.name, i, ok = p.name(i, true); !ok {
		return i, false
	}
	i = skipSpace(p.src, i)
	n, ok := matchWord(p.src, i, "in")
	if i += n; !ok {
		p.expect(i, `"in"`)
		return i, false
	}
	if h.list, i, ok = p.symbol(skipSpace(p.src, i)); !ok {
		return i, false
	}
	if i, ok = p.closeBrace(i); !ok {
		return i, false
	}
	h.bodyStart, h.bodyEnd = i, p.sequence(i, untilTag)
	t.head = h
	return p.endTag(h.bodyEnd, "#{/each}")
}

func (p *parser) endTag(i int, want string) (int, bool) {
	n, ok := match(p.src, i, want)
	if !ok {
		if k, exact := p.tagIndex(i); exact && !p.tags[k].ok && !strings.HasPrefix(p.src[i:], "#{/") {
			p.expect(p.tags[k].errAt, p.tags[k].wanted) // what really went wrong is inside the block
		}
		p.expect(i+n, want)
	}
	return i + n, ok
}

func (p *parser) readSubstitution(t *tag) (int, bool) {
	p.ensureSubstitution(t)
	if t.subst == nil {
		return t.substEnd, false
	}
	t.head, t.leaf = nil, t.subst
	return t.substEnd, true
}

// ensureSubstitution reads the tag as a substitution, if that was not done yet.
func (p *parser) ensureSubstitution(t *tag) {
	if !t.substRead {
		outer := p.depth
		p.depth = 0
		t.substRead = true
		t.subst, t.substEnd = p.substitution(t.pos)
		if t.substDepth, p.depth = p.depth, outer; t.substDepth > maxNesting {
			t.subst = nil
			p.expect(t.substEnd, tooDeep)
		}
	}
	p.depth = max(p.depth, t.substDepth)
}

func (p *parser) substitution(i int) (*substitution, int) {
	if strings.HasPrefix(p.src[i:], "#{/") {
		return nil, i
	}
	x, end, ok := p.expression(skipSpace(p.src, i+2))
	if ok {
		end, ok = p.closeBrace(end)
	}
	if !ok {
		return nil, end
	}
	return &substitution{x}, end
}

// substitutionAt looks up the tag at i, which lies behind the one being read, as a substitution.
func (p *parser) substitutionAt(i int) (*substitution, int, bool) {
	k, exact := p.tagIndex(i)
	if !exact {
		return nil, i, false
	}
	t := &p.tags[k]
	p.ensureSubstitution(t)
	p.depth = max(p.depth, t.substDepth+1)
	return t.subst, t.substEnd, t.subst != nil
}

// tagAt looks up the tag at i, which lies behind the one being read.
func (p *parser) tagAt(i int) (part, int, bool) {
	k, exact := p.tagIndex(i)
	if !exact {
		return nil, i, false
	}
	t := &p.tags[k]
	if !t.ok {
		p.expect(t.errAt, t.wanted)
		return nil, t.end, false
	}
	p.depth = max(p.depth, t.depth+1)
	return p.buildTag(k), t.end, true
}

// build makes the tree of the parts between two positions.
func (p *parser) build(i, end int) []part {
	var parts []part
	for i < end {
		k, exact := p.tagIndex(i)
		if exact {
			parts = append(parts, p.buildTag(k))
			i = p.tags[k].end
			continue
		}
		next := min(p.start(k), end)
		parts = append(parts, &text{p.unescape(i, next)})
		i = next
	}
	return slices.Clip(parts)
}

func (p *parser) buildTag(k int) part {
	t := &p.tags[k]
	h := t.head
	if h == nil {
		return t.leaf
	}
	body := p.build(h.bodyStart, h.bodyEnd)
	if h.word == "each" {
		return &loop{name: h.name, key: fold(h.name), list: h.list, body: body}
	}
	var last []part
	if h.elseStart > 0 {
		last = p.build(h.elseStart, h.elseEnd)
	}
	if h.word == "unless" {
		return &condition{test: h.test, unless: true, then: last, otherwise: body}
	}
	first := &condition{test: h.test, then: body}
	c := first
	for n := h.next; n >= 0; n = p.tags[n].elseif.next {
		b := p.tags[n].elseif
		inner := &condition{test: b.test, then: p.build(b.bodyStart, b.bodyEnd)}
		c.otherwise = []part{inner}
		c = inner
	}
	c.otherwise = last
	return first
}

// unescape returns the literal text between two positions. A run of # matters
// only directly before "{": an odd run ends in a tag, an even one escapes the
// brace, and where it is longer than it need be, one # of it is used up.
func (p *parser) unescape(i, end int) string {
	s := p.src[i:end]
	if !strings.Contains(s, "##") {
		return s
	}
	b := make([]byte, 0, len(s))
	for len(s) > 0 {
		n := strings.IndexByte(s, '#')
		if n < 0 {
			b = append(b, s...)
			break
		}
		b = append(b, s[:n]...)
		rest := strings.TrimLeft(s[n:], "#")
		run := len(s) - n - len(rest)
		// Behind the text comes a tag, unless its "{" is the last character of all.
		tag := rest == "" && end+2 < len(p.src)
		if brace := strings.HasPrefix(rest, "{"); brace || tag {
			run = max(run-1, 0)
		}
		b = append(b, strings.Repeat("#", run)...)
		s = rest
	}
	return string(b)
}
