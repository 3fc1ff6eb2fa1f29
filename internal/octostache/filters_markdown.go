package octostache

import (
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	extast "github.com/yuin/goldmark/extension/ast"
	gmparser "github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	"github.com/yuin/goldmark/renderer/html"
	gmtext "github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// maxMarkdown bounds what is turned into HTML at a time.
const maxMarkdown = 1 << 20

// markdown is CommonMark with tables, bare links and more kinds of emphasis. It
// is made when it is first needed.
type markdown struct {
	goldmark.Markdown
}

func markdownToHTML(f *filtering) (string, bool, error) {
	if !f.has || len(f.opts) > 0 || len(f.in) > maxMarkdown {
		return "", false, nil
	}
	md := &f.e.html
	if md.Markdown == nil {
		md.Markdown = goldmark.New(
			goldmark.WithExtensions(extension.Table, extension.Linkify, emphasis{}),
			goldmark.WithRendererOptions(html.WithUnsafe()), // whoever writes the variable writes the page
		)
	}
	var b strings.Builder
	err := md.Convert([]byte(strings.TrimFunc(f.in, isSpace)), &b)
	return b.String() + "\n", err == nil, nil
}

// emphasis adds ~~deleted~~, ~subscript~, ^superscript^, ++inserted++ and ==marked==.
type emphasis struct{}

func (emphasis) Extend(m goldmark.Markdown) {
	m.Parser().AddOptions(gmparser.WithInlineParsers(util.Prioritized(emphasis{}, 500)))
	m.Renderer().AddOptions(renderer.WithNodeRenderers(util.Prioritized(emphasis{}, 500)))
}

// tagOf returns the element for a delimiter and its length, "" if there is none.
func (emphasis) tagOf(c byte, n int) string {
	switch {
	case c == '~' && n == 1:
		return "sub"
	case c == '~' && n == 2:
		return "del"
	case c == '^' && n == 1:
		return "sup"
	case c == '+' && n == 2:
		return "ins"
	case c == '=' && n == 2:
		return "mark"
	}
	return ""
}

func (emphasis) Trigger() []byte { return []byte{'~', '^', '+', '='} }

func (x emphasis) Parse(_ ast.Node, block gmtext.Reader, pc gmparser.Context) ast.Node {
	before := block.PrecendingCharacter()
	line, segment := block.PeekLine()
	d := gmparser.ScanDelimiter(line, before, 1, delimiter{line[0]})
	if d == nil || d.OriginalLength > 2 || x.tagOf(d.Char, d.OriginalLength) == "" || before == rune(d.Char) {
		return nil
	}
	d.Segment = segment.WithStop(segment.Start + d.OriginalLength)
	block.Advance(d.OriginalLength)
	pc.PushDelimiter(d)
	return d
}

// delimiter pairs runs of one character.
type delimiter struct {
	char byte
}

func (d delimiter) IsDelimiter(b byte) bool { return b == d.char }

func (delimiter) CanOpenCloser(opener, closer *gmparser.Delimiter) bool {
	return opener.Char == closer.Char && opener.OriginalLength == closer.OriginalLength
}

func (d delimiter) OnMatch(consumes int) ast.Node {
	return &emphasised{tag: emphasis{}.tagOf(d.char, consumes)}
}

type emphasised struct {
	ast.BaseInline
	tag string
}

// Kind is the one of a strike-through, whose extension this one stands in for.
func (*emphasised) Kind() ast.NodeKind { return extast.KindStrikethrough }

func (n *emphasised) Dump(source []byte, level int) {
	ast.DumpHelper(n, source, level, map[string]string{"Tag": n.tag}, nil)
}

func (emphasis) RegisterFuncs(reg renderer.NodeRendererFuncRegisterer) {
	reg.Register(extast.KindStrikethrough, func(w util.BufWriter, _ []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
		n, ok := node.(*emphasised)
		if !ok || n.tag == "" {
			return ast.WalkContinue, nil
		}
		end := "/"
		if entering {
			end = ""
		}
		_, err := w.WriteString("<" + end + n.tag + ">")
		return ast.WalkContinue, err
	})
}
