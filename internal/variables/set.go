package variables

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Set has every value that a deployment may use, ready to be resolved for many
// contexts. It never changes and may be used from many goroutines at once.
//
// It is a stack of layers, so that adding the outputs of a step to a set of ten
// thousand values costs no more than the outputs. The layers' sizes shrink at
// least by half from one to the next, which keeps them few.
type Set struct {
	layers []*layer
}

// layer is an index over some of the values.
type layer struct {
	rows   []row    // by name, the preferred of equally specific values first
	ranked []ranked // what choosing needs of rows: they are large, and all are looked at
	groups []group
	index  map[string]int32 // group by folded name
	scopes []clauses        // the distinct scopes of rows
	// items numbers the entries of all scopes, so that matching compares numbers.
	items [dimensions]map[string]uint32
}

// row is a value and what its choice depends on.
type row struct {
	Variable
	ranked
}

// ranked is a row's scope, and whether it was passed.
type ranked struct {
	scope  int32
	passed bool
}

// group is the values of one name: rows[from:to].
type group struct {
	name     string // folded
	from, to int32
}

// clauses must all match; a scope's tenant tags make one clause per tag set.
type clauses []clause

// clause matches when one of its items is there.
type clause struct {
	dim   Dimension
	items []uint32 // sorted
}

// New compiles a set from values in any order. A value without a name is left
// out: nothing can ask for it.
func New(values ...Variable) *Set {
	return (&Set{}).With(values...)
}

// With returns a set that has these values too; s is unchanged.
func (s *Set) With(values ...Variable) *Set {
	rows := make([]Variable, 0, len(values))
	for _, v := range values {
		if strings.TrimSpace(v.Name) != "" {
			rows = append(rows, v)
		}
	}
	if len(rows) == 0 {
		return s
	}
	keep := len(s.layers)
	for keep > 0 && len(s.layers[keep-1].rows) <= 2*len(rows) {
		keep--
		for i := range s.layers[keep].rows {
			rows = append(rows, s.layers[keep].rows[i].Variable)
		}
	}
	layers := append(slices.Clone(s.layers[:keep]), compile(rows))
	return &Set{layers: layers}
}

// Len is the number of values.
func (s *Set) Len() int {
	n := 0
	for _, l := range s.layers {
		n += len(l.rows)
	}
	return n
}

// Named lists the values of one name, in any scope.
func (s *Set) Named(name string) []Variable {
	var out []Variable
	folded := ident.Fold(name)
	for _, l := range s.layers {
		if g, ok := l.index[folded]; ok {
			for i := l.groups[g].from; i < l.groups[g].to; i++ {
				out = append(out, l.rows[i].Variable)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Variable) int { return compare(&a, &b) })
	return out
}

func compile(values []Variable) *layer {
	type named struct {
		name string
		v    *Variable
	}
	order := make([]named, len(values))
	for i := range values {
		order[i] = named{ident.Fold(values[i].Name), &values[i]}
	}
	slices.SortStableFunc(order, func(a, b named) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return compare(a.v, b.v)
	})
	l := &layer{rows: make([]row, len(order)), ranked: make([]ranked, len(order)), index: make(map[string]int32, len(order))}
	known := map[string]int32{}
	for i, n := range order {
		l.ranked[i] = ranked{l.intern(&n.v.Scope, known), n.v.Source.Kind == KindPassed}
		l.rows[i] = row{*n.v, l.ranked[i]}
		if i == 0 || n.name != order[i-1].name {
			l.index[n.name] = int32(len(l.groups))
			l.groups = append(l.groups, group{name: n.name, from: int32(i)})
		}
		l.groups[len(l.groups)-1].to = int32(i) + 1
	}
	l.pack()
	return l
}

// pack moves all clauses together, and their items, in the order in which they
// are matched: reading them here and there takes longer than comparing them.
func (l *layer) pack() {
	clauseCount, itemCount := 0, 0
	for _, cs := range l.scopes {
		clauseCount += len(cs)
		for _, c := range cs {
			itemCount += len(c.items)
		}
	}
	all, items := make([]clause, 0, clauseCount), make([]uint32, 0, itemCount)
	for i, cs := range l.scopes {
		from := len(all)
		for _, c := range cs {
			at := len(items)
			items = append(items, c.items...)
			all = append(all, clause{c.dim, items[at:len(items):len(items)]})
		}
		l.scopes[i] = all[from:len(all):len(all)]
	}
}

// intern returns the number of a scope. Real sets have few distinct scopes for
// all their values, so a context is matched against each only once.
func (l *layer) intern(s *octopus.Scope, known map[string]int32) int32 {
	var cs clauses
	var key []byte
	// The most specific first: a context has few of these, so most scopes are
	// out at the first clause.
	for d := dimensions; d > 0; {
		d--
		wanted := entries(s, d)
		if len(wanted) == 0 {
			continue
		}
		if d != DimTenantTag {
			cs = append(cs, clause{d, l.number(d, wanted)})
			continue
		}
		sets := map[string][]string{}
		for _, tag := range wanted {
			set := tagSet(ident.Fold(tag))
			sets[set] = append(sets[set], tag)
		}
		for _, name := range sortedKeys(sets) {
			cs = append(cs, clause{d, l.number(d, sets[name])})
		}
	}
	for _, c := range cs {
		key = append(key, byte(c.dim))
		key = binary.AppendUvarint(key, uint64(len(c.items)))
		for _, item := range c.items {
			key = binary.AppendUvarint(key, uint64(item))
		}
	}
	if n, ok := known[string(key)]; ok {
		return n
	}
	n := int32(len(l.scopes))
	l.scopes = append(l.scopes, cs)
	known[string(key)] = n
	return n
}

// number maps entries to sorted numbers. An empty entry gets number 0, which no
// context has, so that a scope of nothing but empty entries matches nothing.
func (l *layer) number(d Dimension, wanted []string) []uint32 {
	if l.items[d] == nil {
		l.items[d] = map[string]uint32{}
	}
	out := make([]uint32, 0, len(wanted))
	for _, w := range wanted {
		w = ident.Fold(w)
		n := uint32(0)
		if w != "" {
			var ok bool
			if n, ok = l.items[d][w]; !ok {
				n = uint32(len(l.items[d])) + 1
				l.items[d][w] = n
			}
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// place is a context in a layer's numbers.
type place struct {
	items    [dimensions][]uint32
	stepRole []bool // by place in items[DimRole]
}

func (l *layer) place(ctx *Context) place {
	var p place
	for d := range dimensions {
		for _, have := range ctx.present(d) {
			if n, ok := l.items[d][ident.Fold(have)]; ok {
				p.items[d] = append(p.items[d], n)
			}
		}
	}
	if len(p.items[DimRole]) > 0 {
		p.stepRole = make([]bool, len(p.items[DimRole]))
		for _, role := range ctx.StepRoles {
			if n, ok := l.items[DimRole][ident.Fold(role)]; ok {
				for i, have := range p.items[DimRole] {
					p.stepRole[i] = p.stepRole[i] || have == n
				}
			}
		}
	}
	return p
}

func (cs clauses) rank(p *place) Rank {
	var rank Rank
	for _, c := range cs {
		hit, stepRole := false, false
		for i, have := range p.items[c.dim] {
			if !c.has(have) {
				continue
			}
			hit = true
			if c.dim != DimRole {
				break
			}
			if p.stepRole[i] {
				stepRole = true
				break
			}
		}
		if !hit {
			return NoMatch
		}
		rank |= c.dim.bit(stepRole)
	}
	return rank
}

func (c *clause) has(item uint32) bool {
	if len(c.items) > 8 {
		_, ok := slices.BinarySearch(c.items, item)
		return ok
	}
	return slices.Contains(c.items, item)
}

// Resolved is the choice of a value for each name in one context.
type Resolved struct {
	set  *Set
	ctx  Context
	wins [][]win // by layer and group
}

// win is the chosen row of a group, and its rank; the rank is NoMatch when none applies.
type win struct {
	row  int32
	rank Rank
}

// Resolve chooses the values for a context, whose slices must not change while
// the answer is in use. Its cost is one step per value and
// one per distinct scope; it copies no value.
func (s *Set) Resolve(ctx Context) Resolved {
	r := Resolved{set: s, ctx: ctx, wins: make([][]win, len(s.layers))}
	for i, l := range s.layers {
		r.wins[i] = l.resolve(&ctx)
	}
	return r
}

func (l *layer) resolve(ctx *Context) []win {
	p := l.place(ctx)
	ranks := make([]Rank, len(l.scopes))
	for i, cs := range l.scopes {
		ranks[i] = cs.rank(&p)
	}
	wins := make([]win, len(l.groups))
	for i, g := range l.groups {
		best := win{-1, NoMatch}
		for j := g.from; j < g.to; j++ {
			if rank := l.ranked[j].raise(ranks[l.ranked[j].scope]); rank > best.rank {
				best = win{j, rank}
			}
		}
		wins[i] = best
	}
	return wins
}

// raise puts a passed value above all others, where it applies.
func (r ranked) raise(rank Rank) Rank {
	if r.passed && rank >= 0 {
		rank |= rankPassed
	}
	return rank
}

// find returns the chosen row of a folded name over all layers.
func (r Resolved) find(folded string) (*row, Rank) {
	var best *row
	rank := NoMatch
	for i := range r.wins {
		l := r.set.layers[i]
		g, ok := l.index[folded]
		if !ok {
			continue
		}
		best, rank = better(best, rank, l, r.wins[i][g])
	}
	return best, rank
}

func better(best *row, rank Rank, l *layer, w win) (*row, Rank) {
	if w.rank < 0 || w.rank < rank {
		return best, rank
	}
	row := &l.rows[w.row]
	if best == nil || w.rank > rank || compare(&row.Variable, &best.Variable) < 0 {
		return row, w.rank
	}
	return best, rank
}

// Get returns the chosen value of a name; false when no value applies.
func (r Resolved) Get(name string) (Variable, bool) {
	best, _ := r.find(ident.Fold(name))
	if best == nil {
		return Variable{}, false
	}
	return best.Variable, true
}

// Value is the chosen value's text, "" when no value applies.
func (r Resolved) Value(name string) string {
	v, _ := r.Get(name)
	return v.Value
}

// All yields the chosen value of every name that has one, ordered by name.
func (r Resolved) All() iter.Seq[Variable] {
	return func(yield func(Variable) bool) {
		for row := range r.each {
			if !yield(row.Variable) {
				return
			}
		}
	}
}

// each merges the layers' groups, which are sorted by name.
func (r Resolved) each(yield func(*row, Rank) bool) {
	next := make([]int, len(r.wins))
	for {
		name, found := "", false
		for i, l := range r.layers() {
			if next[i] < len(l.groups) && (!found || l.groups[next[i]].name < name) {
				name, found = l.groups[next[i]].name, true
			}
		}
		if !found {
			return
		}
		var best *row
		rank := NoMatch
		for i, l := range r.layers() {
			if next[i] < len(l.groups) && l.groups[next[i]].name == name {
				best, rank = better(best, rank, l, r.wins[i][next[i]])
				next[i]++
			}
		}
		if best != nil && !yield(best, rank) {
			return
		}
	}
}

func (r Resolved) layers() []*layer {
	if r.set == nil {
		return nil
	}
	return r.set.layers
}

// Tie is a name for which the rules do not say which of several values to take.
type Tie struct {
	Name string
	// Chosen is the id of the value that was taken, Others those that might
	// as well have been.
	Chosen string
	Others []string
}

// Ties lists the names whose choice was arbitrary, ordered by name: equally
// specific values of the same kind of source that differ. The choice is stable:
// of library sets the first that the project includes, then the smallest id.
func (r Resolved) Ties() []Tie {
	places := make([]place, len(r.wins))
	for i, l := range r.layers() {
		places[i] = l.place(&r.ctx)
	}
	var ties []Tie
	for best, rank := range r.each {
		folded := ident.Fold(best.Name)
		var others []string
		for i, l := range r.layers() {
			g, ok := l.index[folded]
			if !ok || l.groups[g].to-l.groups[g].from == 1 && &l.rows[l.groups[g].from] == best {
				continue
			}
			for j := l.groups[g].from; j < l.groups[g].to; j++ {
				other := &l.rows[j]
				if other != best && clash(&best.Variable, &other.Variable) && other.raise(l.scopes[other.scope].rank(&places[i])) == rank {
					others = append(others, other.ID)
				}
			}
		}
		if len(others) > 0 {
			slices.Sort(others)
			ties = append(ties, Tie{Name: best.Name, Chosen: best.ID, Others: others})
		}
	}
	return ties
}
