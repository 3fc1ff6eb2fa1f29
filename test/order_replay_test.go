package test

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// thing is a file, a link or a directory of a trace, whatever its name is.
type thing struct {
	kind    string // "file", "link", "dir"
	target  string
	written []int // lines in which its content began to change
	flushed []act
}

// whole reports whether the content of a file is there after a loss of power at a line.
func (f *thing) whole(at int) bool {
	for _, line := range f.written {
		if line > at {
			break
		}
		if !slices.ContainsFunc(f.flushed, func(a act) bool { return a.began > line && a.ended <= at }) {
			return false
		}
	}
	return true
}

// naming is a change of the names in a directory: name is given to what, or taken away when
// that is nil; a rename also takes a name away elsewhere, at the same instant.
type naming struct {
	line     int // in which it began
	lasts    int // line from which on it is durable
	dir      *thing
	name     string
	what     *thing
	left     *thing
	leftName string
}

// onDisk are the names in each directory of a disk.
type onDisk map[*thing]map[string]*thing

func (w onDisk) apply(n naming) {
	if n.left != nil && w[n.left][n.leftName] == n.what {
		delete(w[n.left], n.leftName)
	}
	if w[n.dir] == nil {
		w[n.dir] = map[string]*thing{}
	}
	if n.what == nil {
		delete(w[n.dir], n.name)
		return
	}
	w[n.dir][n.name] = n.what
}

// find follows a path below top, and no links.
func (w onDisk) find(top *thing, path string) *thing {
	at := top
	for _, name := range strings.Split(path, "/") {
		if name != "." && at != nil {
			at = w[at][name]
		}
	}
	return at
}

// replay is what happened to the names in a directory, from its beginning.
type replay struct {
	top     *thing
	changes []naming
	lines   []int // of what happened to them
}

// replayed reads it from a trace. Only links and what is in versions count.
func replayed(all []act, root string) *replay {
	r := &replay{top: &thing{kind: "dir"}}
	now := onDisk{}
	place := func(path string) (dir *thing, name string) {
		rel, err := filepath.Rel(root, path)
		if err != nil || !filepath.IsLocal(rel) || rel == "." {
			return nil, ""
		}
		if first, _, deep := strings.Cut(rel, "/"); deep && first != "versions" {
			return nil, ""
		}
		return now.find(r.top, filepath.Dir(rel)), filepath.Base(rel)
	}
	at := func(path string) *thing {
		if path == root {
			return r.top
		}
		if dir, name := place(path); dir != nil {
			return now[dir][name]
		}
		return nil
	}
	change := func(a act, n naming) {
		n.line, n.lasts = a.began, math.MaxInt
		r.changes = append(r.changes, n)
		now.apply(n)
	}
	for _, a := range all {
		name := a.makes()
		dir, base := place(name)
		switch {
		case name == "" || dir == nil:
		case a.call == "rename":
			if from, fromBase := place(a.names[0]); from != nil && now[from][fromBase] != nil {
				change(a, naming{dir: dir, name: base, what: now[from][fromBase], left: from, leftName: fromBase})
			}
		case a.call == "link":
			change(a, naming{dir: dir, name: base, what: at(a.names[0])})
		case a.call == "symlink":
			change(a, naming{dir: dir, name: base, what: &thing{kind: "link", target: a.names[0]}})
		case a.call == "mkdir":
			change(a, naming{dir: dir, name: base, what: &thing{kind: "dir"}})
		case now[dir][base] == nil:
			change(a, naming{dir: dir, name: base, what: &thing{kind: "file"}})
		}
		if gone := a.takes(); gone != "" && a.call != "rename" {
			if dir, base = place(gone); dir != nil {
				change(a, naming{dir: dir, name: base})
			}
		}
		f := at(a.file)
		if f != nil || dir != nil {
			r.lines = append(r.lines, a.began, a.ended)
		}
		if f == nil {
			continue
		}
		if a.writes() {
			f.written = append(f.written, a.began)
		}
		if a.call == "fsync" || a.call == "fdatasync" {
			f.flushed = append(f.flushed, a)
			for i := range r.changes {
				if c := &r.changes[i]; c.dir == f && c.line < a.began && c.lasts == math.MaxInt {
					c.lasts = a.ended
				}
			}
		}
	}
	slices.Sort(r.lines)
	r.lines = slices.Compact(r.lines)
	return r
}

// maxPending bounds how many changes that are not durable are tried in each combination.
const maxPending = 10

// crashes tries every instant at which the power may go, and with each what of the changes
// that were not durable is there afterwards, in any combination. legal says what is wrong.
func (r *replay) crashes(legal func(w onDisk, at int) string) (tried int, problems []string) {
	for _, at := range r.lines {
		var sure, maybe []naming
		for _, c := range r.changes {
			switch {
			case c.lasts <= at:
				sure = append(sure, c)
			case c.line <= at:
				maybe = append(maybe, c)
			}
		}
		maybe = maybe[max(0, len(maybe)-maxPending):]
		for set := range uint(1) << len(maybe) {
			w := onDisk{}
			happened := slices.Clone(sure)
			for i, c := range maybe {
				if set&(1<<i) != 0 {
					happened = append(happened, c)
				}
			}
			slices.SortStableFunc(happened, func(a, b naming) int { return a.line - b.line })
			for _, c := range happened {
				w.apply(c)
			}
			tried++
			if wrong := legal(w, at); wrong != "" && len(problems) < 5 {
				problems = append(problems, fmt.Sprintf("the power goes at line %d, and %d of %d changes that are not durable are there: %s", at+1, bits.OnesCount(set), len(maybe), wrong))
			}
		}
	}
	return tried, problems
}

// runs says why a root's supervisor could not start what it has to: `current` names a
// version whose program is whole, from when it did so for the first time, and `previous`
// names such a one if it is there.
func (r *replay) runs(w onDisk, at int) string {
	for _, name := range []string{"current", "previous"} {
		link := w[r.top][name]
		if link == nil {
			began := slices.ContainsFunc(r.changes, func(c naming) bool { return c.dir == r.top && c.name == name && c.lasts <= at })
			if name == "current" && began {
				return "there is no current version any more"
			}
			continue
		}
		if link.kind != "link" {
			return name + " is a " + link.kind
		}
		dir := w.find(r.top, link.target)
		if dir == nil {
			return name + " names " + link.target + ", which is not there: " + strings.Join(slices.Sorted(maps.Keys(w[w.find(r.top, "versions")])), " ")
		}
		if program := w[dir]["tako"]; program == nil || program.kind != "file" || !program.whole(at) {
			return name + " names " + link.target + ", which has no whole program"
		}
	}
	return ""
}

// TestReplayIsSeen: an order in which a loss of power could leave nothing that runs is found.
func TestReplayIsSeen(t *testing.T) {
	t.Parallel()
	made := func(call string, names ...string) act { return act{call: call, names: names} }
	opened := func(path string) act { return act{call: "open", file: path, flags: "O_CREAT|O_EXCL"} }
	on := func(call, path string) act { return act{call: call, file: path} }
	version := func(v string, durable bool) []act {
		dir := "/r/versions/" + v
		all := []act{made("mkdir", dir+".partial"), opened(dir + ".partial/tako"), on("write", dir+".partial/tako")}
		if durable {
			all = append(all, on("fsync", dir+".partial/tako"), on("fsync", dir+".partial"))
		}
		return append(all, made("rename", dir+".partial", dir), on("fsync", "/r/versions"))
	}
	link := func(target string) []act {
		return []act{made("symlink", target, "/r/.c"), made("rename", "/r/.c", "/r/current"), on("fsync", "/r")}
	}
	begin := slices.Concat([]act{made("mkdir", "/r/versions"), on("fsync", "/r")}, version("1", true), link("versions/1"))
	for name, c := range map[string]struct {
		then []act
		want string
	}{
		"right":                        {slices.Concat(version("2", true), link("versions/2")), ""},
		"the program is not flushed":   {slices.Concat(version("2", false), link("versions/2")), "no whole program"},
		"the version comes after":      {slices.Concat(link("versions/2"), version("2", true)), "which is not there"},
		"its name is not flushed":      {slices.Concat(version("2", true)[:6], link("versions/2")), "which is not there"},
		"the old one goes before":      {slices.Concat(version("2", true), []act{made("unlink", "/r/versions/1/tako")}, link("versions/2")), "no whole program"},
		"the link is removed, not put": {slices.Concat(version("2", true), []act{made("unlink", "/r/current")}, link("versions/2")), "no current version"},
	} {
		all := slices.Concat(begin, c.then)
		for i := range all {
			all[i].began, all[i].ended = 2*i, 2*i+1
		}
		r := replayed(all, "/r")
		tried, problems := r.crashes(r.runs)
		if tried < len(all) || (len(problems) > 0) != (c.want != "") || c.want != "" && !strings.Contains(problems[0], c.want) {
			t.Errorf("%s: of %d crashes there are problems %q, want %q", name, tried, problems, c.want)
		}
	}
}
