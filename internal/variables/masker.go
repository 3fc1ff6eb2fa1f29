package variables

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// MaxMaskBytes bounds all masks of a [Masker] together.
const MaxMaskBytes = 8 << 20

// Masker takes secrets out of log text: what is covered by occurrences of
// secrets becomes [Redacted]. Where secrets overlap, or one contains another,
// the whole stretch becomes one; nothing of any occurrence is left.
//
// It reads each byte about once, whatever the number of secrets. It may be used
// from several goroutines at once.
type Masker struct {
	mu    sync.RWMutex
	known map[string]struct{}
	bytes int
	// tiers hold all masks; their sizes shrink at least by half from one to the
	// next, so that adding masks one by one stays cheap.
	tiers []*automaton
	// start has a bit for each hash of the first four bytes of a mask. Nearly
	// all text is passed over with it alone.
	start []uint64
}

// NewMasker makes a masker for secrets, as [Masker.Add].
func NewMasker(secrets ...string) (*Masker, error) {
	m := &Masker{known: map[string]struct{}{}, start: make([]uint64, 1<<startBits/64)}
	return m, m.Add(secrets...)
}

// Add masks these secrets too, in all text that is given from now on. A secret
// of several lines is masked line by line; what is shorter than [MinMask] is not
// masked. When all masks together exceed [MaxMaskBytes] nothing is added and the
// error says so: the text that follows must not be written then.
func (m *Masker) Add(secrets ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var fresh []string
	size := 0
	for _, secret := range secrets {
		for _, line := range maskable(secret) {
			if _, ok := m.known[line]; !ok {
				fresh = append(fresh, line)
			}
		}
	}
	slices.Sort(fresh)
	fresh = slices.Compact(fresh)
	for _, line := range fresh {
		size += len(line)
	}
	if m.bytes+size > MaxMaskBytes {
		return fmt.Errorf("mask secrets: they are %d bytes together; the limit is %d", m.bytes+size, MaxMaskBytes)
	}
	if len(fresh) == 0 {
		return nil
	}
	m.bytes += size
	for i, line := range fresh {
		// A copy: a mask must not keep a whole log in memory.
		line = strings.Clone(line)
		fresh[i] = line
		m.known[line] = struct{}{}
		h := startHash(line)
		m.start[h/64] |= 1 << (h % 64)
	}
	// Readers hold the old slice: it is replaced, not changed.
	keep := len(m.tiers)
	for keep > 0 && m.tiers[keep-1].bytes <= 2*size {
		keep--
		fresh = append(fresh, m.tiers[keep].masks...)
		size += m.tiers[keep].bytes
	}
	slices.Sort(fresh)
	m.tiers = append(slices.Clone(m.tiers[:keep]), newAutomaton(fresh))
	return nil
}

// Len is the number of texts that are masked.
func (m *Masker) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.known)
}

// Mask returns a whole text, usually a line, without its secrets.
func (m *Masker) Mask(text string) string {
	var c Carry
	return m.Next(&c, text, true)
}

// Carry is what must be known of a line that arrives in pieces to mask the next
// piece. Its zero value is the start of a line. It can be stored and read back
// with any encoding; since Held is raw text, it is as secret as the secrets are.
type Carry struct {
	// Held is the end of what was given and not yet returned: it may be the
	// beginning of a secret. It is shorter than the longest mask.
	Held string `json:"held,omitempty"`
	// Covered is how much of Held belongs to a secret that was already
	// returned as a mask.
	Covered int `json:"covered,omitempty"`
}

// Next masks the next piece of a line and returns what can be shown now. last
// tells that the line ends here; then everything is returned and the carry is
// the start of a line again.
func (m *Masker) Next(c *Carry, piece string, last bool) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	text := c.Held + piece
	covered := min(max(c.Covered, 0), len(c.Held))
	*c = Carry{}

	first := m.first(text, last)
	if first < 0 && covered == 0 {
		return text
	}
	hold := len(text)
	var spans []span
	if first >= 0 {
		for _, t := range m.tiers {
			var depth int
			spans, depth = t.scan(text, first, m.start, last, spans)
			if !last {
				hold = min(hold, len(text)-depth)
			}
		}
	}
	return show(c, text, covered, hold, merge(spans))
}

// span is a stretch text[from:to].
type span struct{ from, to int }

// merge sorts spans and joins those that overlap. Spans that only touch stay
// apart: they are two secrets.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return b.to - a.to
	})
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.from < out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
			continue
		}
		out = append(out, s)
	}
	return out
}

// show returns text[:hold] with the spans masked, without text[:covered], whose
// mask has been shown; and leaves the rest in c.
func show(c *Carry, text string, covered, hold int, spans []span) string {
	var b strings.Builder
	b.Grow(len(text))
	at := covered // everything before it is shown
	for _, s := range spans {
		if s.from >= hold {
			break // it will be found again when the text is complete
		}
		if s.from < at {
			// It continues what was shown as a mask.
			at = max(at, s.to)
			continue
		}
		b.WriteString(text[at:s.from])
		b.WriteString(Redacted)
		at = s.to
	}
	if at < hold {
		b.WriteString(text[at:hold])
		at = hold
	}
	// A copy: the piece may be a part of a large buffer.
	*c = Carry{Held: strings.Clone(text[hold:]), Covered: at - hold}
	return b.String()
}

const startBits = 16

// startHash maps four bytes to startBits bits.
func startHash(s string) uint32 {
	return load4(s) * 0x9E3779B1 >> (32 - startBits)
}

func load4(s string) uint32 {
	_ = s[3]
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// skip returns the first place at or after i where a mask may start, len(text)
// if there is none. The last three bytes of a piece that is not the last one
// may be the start of a mask whose fourth byte is still to come.
func skip(text string, i int, start []uint64, last bool) int {
	for ; i+4 <= len(text); i++ {
		h := startHash(text[i:])
		if start[h/64]&(1<<(h%64)) != 0 {
			return i
		}
	}
	if last {
		return len(text)
	}
	return min(i, len(text))
}

// first is where the first mask may start, -1 if nowhere.
func (m *Masker) first(text string, last bool) int {
	if len(m.tiers) == 0 {
		return -1
	}
	i := skip(text, 0, m.start, last)
	if i == len(text) {
		return -1
	}
	return i
}

// automaton finds all of its masks in one pass (Aho and Corasick). Its nodes
// are the prefixes of masks, numbered by breadth, so that a node's children are
// neighbours and sorted by their byte.
type automaton struct {
	masks []string // sorted
	bytes int
	label []byte   // the node's last byte
	child []uint32 // its first child; the last one is before child[node+1]
	fail  []uint32 // the longest other node that ends like this one
	// out is the length of the longest mask that ends here, 0 for none.
	out   []uint32
	depth []uint32
}

// newAutomaton takes sorted, distinct masks.
func newAutomaton(masks []string) *automaton {
	a := &automaton{masks: masks}
	for _, m := range masks {
		a.bytes += len(m)
	}
	// Each node is the range of masks that start with it.
	type pending struct{ from, to uint32 }
	queue := []pending{{0, uint32(len(masks))}}
	parent := []uint32{0}
	a.label, a.depth, a.out = []byte{0}, []uint32{0}, []uint32{0}
	for n := 0; n < len(queue); n++ {
		a.child = append(a.child, uint32(len(queue)))
		from, to, depth := queue[n].from, queue[n].to, a.depth[n]
		if from < to && uint32(len(masks[from])) == depth {
			a.out[n] = depth // sorted: the mask itself comes before longer ones
			from++
		}
		for from < to {
			b := masks[from][depth]
			end := from + 1
			for end < to && masks[end][depth] == b {
				end++
			}
			queue = append(queue, pending{from, end})
			parent = append(parent, uint32(n))
			a.label = append(a.label, b)
			a.depth = append(a.depth, depth+1)
			a.out = append(a.out, 0)
			from = end
		}
	}
	a.child = append(a.child, uint32(len(queue)))
	a.fail = make([]uint32, len(queue))
	for n := 1; n < len(queue); n++ {
		if parent[n] != 0 {
			a.fail[n] = a.step(a.fail[parent[n]], a.label[n])
		}
		// The node's own mask is longer than any that ends in it.
		if a.out[n] == 0 {
			a.out[n] = a.out[a.fail[n]]
		}
	}
	return a
}

// next returns the child of a node by a byte.
func (a *automaton) next(node uint32, b byte) (uint32, bool) {
	from, to := a.child[node], a.child[node+1]
	if i := bytes.IndexByte(a.label[from:to], b); i >= 0 {
		return from + uint32(i), true
	}
	return 0, false
}

// step follows a byte, falling back to shorter ends.
func (a *automaton) step(node uint32, b byte) uint32 {
	for {
		if n, ok := a.next(node, b); ok {
			return n
		}
		if node == 0 {
			return 0
		}
		node = a.fail[node]
	}
}

// scan adds the masks found in text from place i, and returns how many bytes of
// its end may be the beginning of a mask.
func (a *automaton) scan(text string, i int, start []uint64, last bool, found []span) ([]span, int) {
	node := uint32(0)
	for i < len(text) {
		if node == 0 {
			if i = skip(text, i, start, last); i == len(text) {
				break
			}
		}
		node = a.step(node, text[i])
		i++
		if n := int(a.out[node]); n > 0 {
			// Ends ascend, so a span swallows those it overlaps right away;
			// that keeps their number small.
			s := span{i - n, i}
			for len(found) > 0 && found[len(found)-1].to <= s.to && found[len(found)-1].to > s.from {
				s.from = min(s.from, found[len(found)-1].from)
				found = found[:len(found)-1]
			}
			found = append(found, s)
		}
		// A complete mask that no longer one begins with holds nothing back.
		for node != 0 && a.child[node] == a.child[node+1] {
			node = a.fail[node]
		}
	}
	return found, int(a.depth[node])
}
