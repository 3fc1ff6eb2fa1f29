package structured

import (
	"path"
	"strings"
)

// TransformPair says which transform is applied to which file.
type TransformPair struct {
	Transform, Target string
}

// LocateTransforms finds what an expression for configuration transforms means
// in a package. files are the files of the package, relative to where it is
// extracted, and the files of absolute directories that the expression names;
// either kind of slash separates.
//
// "Release" stands for Web.Release.config => Web.config and the like, for every
// .config file. "A => B" applies A to B: B is a file name in any directory, or
// one in a directory beside which A is then looked for, or *.config for all; A is
// a file, may contain a star, and with a star at both ends the parts that the
// stars stand for must be the same. An absolute B is never a target; A may be
// absolute, and B is then any file of that name, or one at ./ from the root.
func LocateTransforms(expression string, files []string) []TransformPair {
	d, ok := readTransform(expression)
	if !ok {
		return nil
	}
	var pairs []TransformPair
	for _, target := range files {
		slashed := slashes(target)
		if isAbsolute(slashed) {
			continue
		}
		directory, patterns, ok := d.wanted(slashed)
		if !ok {
			continue
		}
		for _, f := range files {
			dir, base := path.Split(slashes(f))
			if fold(path.Clean("./"+dir)) != fold(path.Clean("./"+directory)) || isAbsolute(slashes(f)) != isAbsolute(directory) || fold(slashes(f)) == fold(slashed) {
				continue
			}
			for _, p := range patterns {
				if matchStar(fold(p), fold(base)) {
					pairs = append(pairs, TransformPair{f, target})
					break
				}
			}
		}
	}
	return pairs
}

func slashes(s string) string { return strings.ReplaceAll(s, `\`, "/") }

func isAbsolute(s string) bool {
	return strings.HasPrefix(s, "/") || len(s) > 1 && s[1] == ':'
}

// transformDefinition is an expression, taken apart.
type transformDefinition struct {
	suffix             string // of an expression without an arrow
	dir, name          string // of the transform
	targetDir, target  string
	absolute, fromRoot bool
}

func readTransform(expression string) (transformDefinition, bool) {
	left, right, advanced := strings.Cut(slashes(expression), "=>")
	left, right = strings.TrimSpace(left), strings.TrimSpace(right)
	if !advanced {
		return transformDefinition{suffix: left}, left != "" && !strings.Contains(left, "/")
	}
	d := transformDefinition{absolute: isAbsolute(left)}
	d.dir, d.name = path.Split(left)
	if right, d.fromRoot = strings.CutPrefix(right, "./"); isAbsolute(right) {
		return d, false
	}
	d.targetDir, d.target = path.Split(right)
	d.targetDir = strings.Trim(d.targetDir, "/")
	// Of stars in a target, only one before the extension has a meaning.
	return d, d.name != "" && d.target != "" && (!strings.Contains(d.target, "*") || strings.HasPrefix(d.target, "*.") && !strings.Contains(d.target[1:], "*"))
}

// wanted returns where the transform of a target lies and what it may be called;
// false if the file is no target.
func (d transformDefinition) wanted(target string) (directory string, patterns []string, ok bool) {
	dir, base := path.Split(target)
	dir = strings.Trim(dir, "/")
	if d.suffix != "" {
		if fold(path.Ext(base)) != ".CONFIG" {
			return "", nil, false
		}
		name := strings.TrimSuffix(base, path.Ext(base)) + "." + strings.TrimPrefix(d.suffix, ".")
		return dir, []string{name, name + ".config"}, true
	}
	stem, starred := strings.CutPrefix(d.target, "*")
	switch {
	case starred && !strings.HasSuffix(fold(base), fold(stem)):
		return "", nil, false
	case !starred && fold(base) != fold(d.target):
		return "", nil, false
	}
	beside := dir // the directory that the transform's is relative to
	switch {
	case d.fromRoot:
		if fold(dir) != fold(d.targetDir) {
			return "", nil, false
		}
		beside = ""
	case d.targetDir != "":
		if fold(dir) != fold(d.targetDir) && !strings.HasSuffix(fold(dir), "/"+fold(d.targetDir)) {
			return "", nil, false
		}
		beside = strings.TrimSuffix(dir[:len(dir)-len(d.targetDir)], "/")
	}
	directory = d.dir
	if !d.absolute {
		directory = path.Join(beside, d.dir)
	}
	name := d.name
	if suffix, both := strings.CutPrefix(name, "*"); both && starred {
		name = base[:len(base)-len(stem)] + suffix
	}
	patterns = []string{name}
	if !strings.HasSuffix(fold(name), ".CONFIG") {
		patterns = append(patterns, name+".config")
	}
	return directory, patterns, true
}

// matchStar matches a name with a pattern in which stars stand for any text.
func matchStar(pattern, name string) bool {
	head, rest, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == name
	}
	if !strings.HasPrefix(name, head) {
		return false
	}
	name = name[len(head):]
	for {
		part, more, found := strings.Cut(rest, "*")
		if !found {
			return strings.HasSuffix(name, part)
		}
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name, rest = name[i+len(part):], more
	}
}
