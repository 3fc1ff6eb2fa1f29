package test

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
)

// calls are the system calls that change files and names, or make changes durable. Not every
// processor has all of them.
const calls = "openat,?open,?creat,write,pwrite64,writev,pwritev,ftruncate,fallocate,copy_file_range,sendfile,splice,fsync,fdatasync," +
	"?rename,renameat,renameat2,?link,linkat,?symlink,symlinkat,?unlink,unlinkat,?rmdir,?mkdir,mkdirat"

// tracing is what has a program's file operations, and those of all its children, written
// to a file: the arguments to which the program's command line is appended. Where nothing can
// be traced it is nil.
func tracing(t *testing.T, to string, more ...string) []string {
	t.Helper()
	args := slices.Concat([]string{"strace"}, more, []string{"-f", "--seccomp-bpf", "-y", "-s", "0", "-o", to, "-e", "trace=" + calls, "-e", "signal=none"})
	out, err := exec.CommandContext(t.Context(), args[0], append(slices.Clone(args[1:]), "true")...).CombinedOutput() //nolint:gosec // it is strace
	if err == nil {
		return args
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("strace: %v: %s", err, out)
	}
	return nil
}

// act is one system call that succeeded.
type act struct {
	call string
	// began and ended are lines of the trace: an act is before another if it has ended
	// before that one began.
	began, ended int
	// file is that of a descriptor, or of the one that was opened; names are the paths in
	// the order of the arguments, flags how it was opened.
	file, flags string
	names       []string
}

var (
	traceLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (\d+)(?:<([^>]*)>)?.*$`)
	traceBegun   = regexp.MustCompile(`^(\d+) +(\w+)\((.*?) *<unfinished \.\.\.>$`)
	traceResumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	traceFile    = regexp.MustCompile(`^\d+<([^>]*)>`)
	traceName    = regexp.MustCompile(`"((?:[^"\\]|\\.)+)"`)
	traceFlags   = regexp.MustCompile(`\bO_[A-Z_|]+`)
)

// readTrace reads what strace has written.
func readTrace(t *testing.T, path string) (all []act) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	type begun struct {
		line int
		text string
	}
	open := map[string]begun{} // by thread
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 0; lines.Scan(); n++ {
		text, at := lines.Text(), n
		if m := traceBegun.FindStringSubmatch(text); m != nil {
			open[m[1]] = begun{n, m[1] + " " + m[2] + "(" + m[3]}
			continue
		}
		if m := traceResumed.FindStringSubmatch(text); m != nil {
			text, at = open[m[1]].text+m[3], open[m[1]].line
			delete(open, m[1])
		}
		m := traceLine.FindStringSubmatch(text)
		if m == nil {
			continue // it failed, or is about a process
		}
		a := act{call: strings.TrimSuffix(strings.TrimSuffix(m[2], "2"), "at"), began: at, ended: n, file: m[5], flags: traceFlags.FindString(m[3])}
		if a.file == "" {
			if m := traceFile.FindStringSubmatch(m[3]); m != nil {
				a.file = m[1]
			}
		}
		for _, m := range traceName.FindAllStringSubmatch(m[3], -1) {
			name, err := strconv.Unquote(`"` + m[1] + `"`)
			if err != nil {
				name = m[1]
			}
			a.names = append(a.names, name)
		}
		switch a.call {
		case "sendfile", "splice", "copy_file_range":
			all := regexp.MustCompile(`\d+<([^>]*)>`).FindAllStringSubmatch(m[3], -1)
			if a.file = ""; len(all) == 2 {
				a.file = all[1][1]
				if a.call == "sendfile" {
					a.file = all[0][1]
				}
			}
		}
		all = append(all, a)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// writes reports whether an act changes the content of a file, or makes one.
func (a *act) writes() bool {
	switch a.call {
	case "write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "sendfile", "splice", "copy_file_range":
		return true
	case "open":
		return a.makes() != ""
	}
	return false
}

// makes is the name that an act gives to something, "" for none.
func (a *act) makes() string {
	switch {
	case a.call == "open" && strings.Contains(a.flags, "O_CREAT") && (strings.Contains(a.flags, "O_EXCL") || strings.Contains(a.flags, "O_TRUNC")):
		return a.file
	case slices.Contains([]string{"rename", "link", "symlink", "mkdir"}, a.call) && len(a.names) > 0:
		return a.names[len(a.names)-1]
	}
	return ""
}

// takes is the name that an act takes away, "" for none.
func (a *act) takes() string {
	if slices.Contains([]string{"rename", "unlink", "rmdir"}, a.call) && len(a.names) > 0 {
		return a.names[0]
	}
	return ""
}

func (a *act) syncs(path string) bool {
	return (a.call == "fsync" || a.call == "fdatasync") && a.file == path
}

// synced reports whether path is made durable by something that begins after one line and
// has ended before another.
func synced(all []act, path string, after, before int) bool {
	return slices.ContainsFunc(all, func(a act) bool { return a.syncs(path) && a.began > after && a.ended < before })
}

func inside(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// below are the acts on what is in a directory, and on itself.
func below(all []act, dir string) (some []act) {
	for _, a := range all {
		if inside(a.file, dir) || slices.ContainsFunc(a.names, func(name string) bool { return inside(name, dir) }) {
			some = append(some, a)
		}
	}
	return some
}

// order is what must hold of the acts below a directory, but for some parts of it.
type order struct {
	root string
	// not are parts that may be lost: what they have is made anew.
	not []string
	// at are directories where nothing else may happen to names before a rename is
	// durable.
	at []string
}

// broken finds what does not hold: what is renamed was made durable before, with all that
// is in it, and the directory is made durable after it.
func (o *order) broken(all []act) (problems []string) {
	all = below(all, o.root)
	for i, r := range all {
		if r.call != "rename" || len(r.names) != 2 || !inside(r.names[1], o.root) || slices.ContainsFunc(o.not, func(p string) bool { return inside(r.names[1], p) }) {
			continue
		}
		from, to := r.names[0], r.names[1]
		changed := map[string]int{} // files and directories, and the line of their last change
		for _, a := range all[:i] {
			if a.ended >= r.began {
				continue
			}
			if inside(a.file, from) && a.writes() {
				changed[a.file] = a.ended
			}
			if name := a.makes(); name != from && inside(name, from) {
				changed[filepath.Dir(name)] = a.ended
			}
			if name := a.takes(); name == from { // something else had the name before
				clear(changed)
			} else if inside(name, from) {
				delete(changed, name)
				changed[filepath.Dir(name)] = a.ended
			}
		}
		for path, line := range changed {
			if !synced(all, path, line, r.began) {
				problems = append(problems, fmt.Sprintf("%s was changed in line %d, and %s became %s in line %d without it being durable", path, line+1, from, to, r.began+1))
			}
		}
		dir := filepath.Dir(to)
		next := math.MaxInt
		if slices.Contains(o.at, dir) {
			for _, a := range all {
				if a.began > r.ended && a.began < next && (a.makes() != "" && filepath.Dir(a.makes()) == dir || a.takes() != "" && filepath.Dir(a.takes()) == dir) {
					next = a.began
				}
			}
		}
		if !synced(all, dir, r.ended, next) {
			problems = append(problems, fmt.Sprintf("%s became %s in line %d, and %s was not made durable after that before anything else happened there", from, to, r.began+1, dir))
		}
	}
	slices.Sort(problems)
	return problems
}

// appended finds where a journal is not durable when the next line of it is begun, or when
// something is renamed to one of the names that it is to know of before.
func appended(all []act, journal string, before ...string) (lines int, problems []string) {
	last := -1 // the last write that is not durable
	for _, a := range all {
		switch {
		case a.file == journal && a.writes() && a.call != "open":
			if a.call == "ftruncate" && last >= 0 {
				problems = append(problems, fmt.Sprintf("line %d of the trace: %s is begun anew, and what was written in line %d is not durable", a.began+1, journal, last+1))
			}
			if a.call != "ftruncate" {
				last = a.ended
			}
		case a.syncs(journal) && a.began > last && last >= 0:
			last = -1
			lines++
		case a.call == "rename" && slices.Contains(before, a.names[1]) && last >= 0:
			problems = append(problems, fmt.Sprintf("line %d of the trace: %s is renamed, and the line of the journal is not durable", a.began+1, a.names[0]))
		}
	}
	return lines, problems
}

// renamed counts how often something became a name.
func renamed(all []act, to string) (n int) {
	for _, a := range all {
		if a.call == "rename" && a.names[1] == to {
			n++
		}
	}
	return n
}

// TestOrderIsSeen: a wrong order in a trace is found, and a right one is none.
func TestOrderIsSeen(t *testing.T) {
	t.Parallel()
	const (
		create = `1 openat(AT_FDCWD</>, "/r/.a", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3</r/.a>`
		write  = `1 write(3</r/.a>, ""..., 5) = 5`
		flush  = `1 fsync(3</r/.a>) = 0`
		rename = `1 renameat(AT_FDCWD</>, "/r/.a", AT_FDCWD</>, "/r/a") = 0`
		dir    = `1 fsync(4</r>) = 0`
		other  = `1 unlinkat(AT_FDCWD</>, "/r/b", 0) = 0`
		mkdir  = `1 mkdirat(AT_FDCWD</>, "/r/.a", 0700) = 0`
		inside = `1 openat(AT_FDCWD</>, "/r/.a/x", O_WRONLY|O_CREAT|O_EXCL, 0600) = 3</r/.a/x>`
		data   = `1 copy_file_range(9</p>, NULL, 3</r/.a/x>, NULL, 5, 0) = 5`
		flushX = `1 fdatasync(3</r/.a/x>) = 0`
		flushA = `1 fsync(5</r/.a>) = 0`
		link   = `1 symlinkat("versions/2", AT_FDCWD</>, "/r/.a") = 0`
		failed = `1 fsync(3</r/.a>) = -1 EIO (Input/output error)`
		first  = `2 pwrite64(6</r/j>, ""..., 5, 0) = 5`
		flushJ = `2 fsync(6</r/j>) = 0`
		anew   = `2 ftruncate(6</r/j>, 5) = 0`
	)
	for name, c := range map[string]struct {
		trace []string
		wrong int
	}{
		"right":                         {[]string{create, write, flush, rename, dir, other}, 0},
		"a link":                        {[]string{link, rename, dir}, 0},
		"not flushed":                   {[]string{create, write, rename, dir}, 1},
		"the flush failed":              {[]string{create, write, failed, rename, dir}, 1},
		"flushed too early":             {[]string{create, flush, write, rename, dir}, 1},
		"flushed too late":              {[]string{create, write, rename, flush, dir}, 1},
		"the directory was not flushed": {[]string{create, write, flush, rename}, 1},
		"the directory before":          {[]string{create, write, flush, dir, rename}, 1},
		"the directory after others":    {[]string{create, write, flush, rename, other, dir}, 1},
		"neither":                       {[]string{create, write, rename}, 2},
		"while it was being flushed": {[]string{
			create, write, `1 fsync(3</r/.a> <unfinished ...>`, strings.Replace(rename, "1 ", "2 ", 1), `1 <... fsync resumed>) = 0`, dir,
		}, 1},
		"before it was renamed": {[]string{
			create, write, flush, `1 renameat(AT_FDCWD</>, "/r/.a", AT_FDCWD</>, "/r/a" <unfinished ...>`, strings.Replace(dir, "1 ", "2 ", 1), `1 <... renameat resumed>) = 0`,
		}, 1},
		"a directory":                         {[]string{mkdir, inside, data, flushX, flushA, rename, dir}, 0},
		"a file in it":                        {[]string{mkdir, inside, data, flushA, rename, dir}, 1},
		"the directory itself":                {[]string{mkdir, inside, data, flushX, rename, dir}, 1},
		"journal":                             {[]string{anew, first, flushJ, link, rename, dir, anew, first, flushJ}, 0},
		"journal not flushed before the link": {[]string{anew, first, link, rename, dir, flushJ}, 1},
		"journal not flushed before the next": {[]string{first, anew, first, flushJ}, 1},
	} {
		path := filepath.Join(t.TempDir(), "trace")
		if err := os.WriteFile(path, []byte(strings.Join(c.trace, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		all := readTrace(t, path)
		o := order{root: "/r", at: []string{"/r"}}
		_, problems := appended(all, "/r/j", "/r/a")
		if problems = append(problems, o.broken(all)...); len(problems) != c.wrong {
			t.Errorf("%s: %d are wrong, not %d: %q", name, len(problems), c.wrong, problems)
		}
	}
}

// ordered asserts that what a supervised server and all its children have done to the
// disk, from its first start, was durable in the right order, and what that order leaves
// when the power goes.
func ordered(t *testing.T, trace, root string, versions ...string) {
	t.Helper()
	all := below(readTrace(t, trace), root)
	at := func(name ...string) string { return filepath.Join(append([]string{root}, name...)...) }
	wanted := []string{at("current"), at("previous"), at("upgrade", "trust.json")}
	for _, v := range versions {
		wanted = append(wanted, at("versions", v))
	}
	for _, path := range wanted {
		if renamed(all, path) == 0 {
			t.Errorf("nothing was put in the place of %s", path)
		}
	}
	o := order{root: root, not: []string{at("data", "worker"), at("run")}, at: []string{root, at("versions")}}
	for _, problem := range o.broken(all) {
		t.Error(problem)
	}
	lines, problems := appended(all, at("upgrade", "journal.jsonl"), at("current"))
	if lines < 10 || len(problems) > 0 {
		t.Errorf("%d lines of the journal; %q", lines, problems)
	}
	r := replayed(all, root)
	tried, problems := r.crashes(r.runs)
	if len(r.changes) < 20 || tried < len(r.changes) || len(problems) > 0 {
		t.Errorf("%d changes of names, %d crashes: %q", len(r.changes), tried, problems)
	}
	t.Logf("%d acts, %d lines of the journal, %d changes of names, %d crashes", len(all), lines, len(r.changes), tried)
}

// restoredInOrder restores the last backup of a server that was stopped, and asserts in
// which order.
func restoredInOrder(t *testing.T, p *apptest.Process, data string) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "restore")
	args := append(tracing(t, trace), p.Executable(t), "backup", "restore", "latest", "--data", p.Data)
	if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil { //nolint:gosec // it is strace
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	all := below(readTrace(t, trace), data)
	path := filepath.Join(data, "tako.db")
	if n := renamed(all, path); n != 1 {
		t.Errorf("the database was put in place %d times", n)
	}
	o := order{root: data, at: []string{data}}
	for _, problem := range o.broken(all) {
		t.Error(problem)
	}
	// A log beside a database is applied to it: that of the former one is gone for good before.
	for _, r := range all {
		if r.call != "rename" || r.names[1] != path {
			continue
		}
		for _, gone := range all {
			if gone.takes() == path+"-wal" && gone.ended < r.began && !synced(all, data, gone.ended, r.began) {
				t.Errorf("the former log goes in line %d, and that is not durable when the database comes in line %d", gone.began+1, r.began+1)
			}
		}
	}
}
