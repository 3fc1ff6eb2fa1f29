package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/resource"
)

// linkMaker writes the Links of a kind's documents. A document is stored without
// them: they follow from its id, its space and a few members.
type linkMaker struct {
	names []string // sorted
	links []linkTemplate
	// members are those of a document that links need besides its id and its space.
	members map[string]bool
	own     linkTemplate
}

// linkTemplate is a link cut at what is filled in.
type linkTemplate []linkPart

type linkPart struct {
	literal string // when of is ""
	of      string // "space", "Id" or another top-level member
}

// newLinkMaker prepares the links of a kind: Self, and what it declares.
func newLinkMaker(k *resource.Kind, base string) *linkMaker {
	self := "/api/{space}/" + k.Name + "/{Id}"
	if k.Scope == resource.InSystem {
		self = "/api/" + k.Name + "/{Id}"
	}
	all := map[string]string{"Self": self}
	maps.Copy(all, k.Links)
	m := &linkMaker{own: cutLink(all["Self"], base), members: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t := cutLink(all[name], base)
		m.names, m.links = append(m.names, name), append(m.links, t)
		for _, p := range t {
			if p.of != "" && p.of != "space" && p.of != "Id" {
				m.members[p.of] = true
			}
		}
	}
	return m
}

// cutLink finds {space} and {Member}; what else stands in braces is for the
// client to fill in.
func cutLink(link, base string) linkTemplate {
	var t linkTemplate
	if strings.HasPrefix(link, "/") {
		link = base + link
	}
	rest := link
	for {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			break
		}
		end := strings.IndexByte(rest[open:], '}')
		if end < 0 {
			break
		}
		name := rest[open+1 : open+end]
		after := rest[open+end+1:]
		switch {
		case name == "space":
			// A document of the system has no space: its links go without the segment.
			after = strings.TrimPrefix(after, "/")
		case name == "" || name[0] < 'A' || name[0] > 'Z':
			t = append(t, linkPart{literal: rest[:open+end+1]})
			rest = after
			continue
		}
		t = append(t, linkPart{literal: rest[:open]}, linkPart{of: name})
		rest = after
	}
	return append(t, linkPart{literal: rest})
}

func (t linkTemplate) fill(doc *docstore.Doc, members map[string]json.RawMessage, b *bytes.Buffer) {
	for _, p := range t {
		switch p.of {
		case "":
			b.WriteString(p.literal)
		case "Id":
			b.WriteString(url.PathEscape(doc.ID))
		case "space":
			if doc.Space != "" {
				b.WriteString(url.PathEscape(string(doc.Space)))
				b.WriteByte('/')
			}
		default:
			b.WriteString(url.PathEscape(scalar(members[p.of])))
		}
	}
}

// scalar is the text of a member; "" for null, objects and arrays.
func scalar(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || raw[0] == 'n' {
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func (m *linkMaker) self(doc *docstore.Doc) string {
	var b bytes.Buffer
	m.own.fill(doc, nil, &b)
	return b.String()
}

// write appends the object of a document's links.
func (m *linkMaker) write(doc *docstore.Doc, members map[string]json.RawMessage, b *bytes.Buffer) {
	b.WriteByte('{')
	for i, name := range m.names {
		if i > 0 {
			b.WriteByte(',')
		}
		// Names and templates are our own and hold nothing that JSON escapes, and
		// what is filled in is percent-encoded.
		b.WriteByte('"')
		b.WriteString(name)
		b.WriteString(`":"`)
		m.links[i].fill(doc, members, b)
		b.WriteByte('"')
	}
	b.WriteByte('}')
}

// render is a stored document as the API serves it: secrets masked, links added.
// A body without secrets is not parsed: the links are put at its end.
func (s *Server) render(k *resource.Kind, links *linkMaker, doc *docstore.Doc) (json.RawMessage, error) {
	body, err := s.Store.Served(k, doc)
	if err != nil {
		return nil, err
	}
	members := make(map[string]json.RawMessage, len(links.members))
	if len(links.members) > 0 {
		err := eachMember(body, func(name, value []byte) {
			if links.members[string(name)] {
				members[string(name)] = value
			}
		})
		if err != nil {
			return nil, fmt.Errorf("read %s %s: %w", k.Noun, doc.ID, err)
		}
	}
	n := len(body)
	if n < 2 || body[0] != '{' || body[n-1] != '}' {
		return nil, fmt.Errorf("read %s %s: its body is no JSON object", k.Noun, doc.ID)
	}
	var b bytes.Buffer
	b.Grow(n + 64 + 96*len(links.names))
	b.Write(body[:n-1])
	if n > 2 {
		b.WriteByte(',')
	}
	b.WriteString(`"Links":`)
	links.write(doc, members, &b)
	b.WriteString("}\n")
	return b.Bytes(), nil
}

// checkLinks refuses declared links that are not plain text for JSON.
func checkLinks(k *resource.Kind) error {
	for name, link := range k.Links {
		for _, text := range []string{name, link} {
			quoted, err := json.Marshal(text)
			if err != nil || !bytes.Equal(bytes.ReplaceAll(quoted, []byte(`\u0026`), []byte("&")), []byte(`"`+text+`"`)) {
				return fmt.Errorf("kind %s: link %q has characters that need escaping", k.Name, text)
			}
		}
	}
	return nil
}
