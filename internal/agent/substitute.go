package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/structured"
)

// Limits of substitution in files.
const (
	maxSubstitute   = 32 << 20  // bytes of one file
	maxVariables    = 64 << 20  // bytes of the variables' file
	maxWalk         = 1_000_000 // files looked at
	maxAlternatives = 256       // patterns that the braces of one glob stand for
	maxShownTokens  = 20        // missing tokens named in one warning
)

// substitute replaces variables in the files of root that the globs match. It
// returns what a person should know. A file that nothing changes in is not
// written; one that changes keeps its encoding, byte order mark and mode.
func substitute(ctx context.Context, root *os.Root, sub Substitution) (warnings []string, err error) {
	if sub.Variables == "" || len(sub.Globs) == 0 {
		return nil, nil
	}
	eval, err := loadVariables(root, sub.Variables)
	if err != nil {
		return nil, err
	}
	globs := make([]glob, len(sub.Globs))
	for i, g := range sub.Globs {
		if globs[i], err = parseGlob(g); err != nil {
			return nil, err
		}
	}
	matched := make([]bool, len(globs))
	var files []string
	seen := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if seen++; seen > maxWalk {
			return fmt.Errorf("substitute variables: the workspace has more than %d files", maxWalk)
		}
		if !d.Type().IsRegular() || name == sub.Variables || name == bodyName {
			return ctx.Err()
		}
		hit := false
		for i, g := range globs {
			if g.match(name) {
				matched[i], hit = true, true
			}
		}
		if hit {
			files = append(files, name)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	for i, ok := range matched {
		if !ok {
			warnings = append(warnings, fmt.Sprintf("No files were found that match the substitution target pattern '%s'", sub.Globs[i]))
		}
	}
	for _, name := range files {
		if ctx.Err() != nil {
			return warnings, context.Cause(ctx)
		}
		w, err := substituteFile(root, name, "", eval)
		if err != nil {
			return warnings, fmt.Errorf("substitute variables in %s: %w", name, err)
		}
		if w != "" {
			warnings = append(warnings, w)
		}
	}
	return warnings, nil
}

// evaluator replaces the variables in a text. missing lists what it left as it is.
type evaluator func(text string) (out string, missing []string, err error)

func loadVariables(root *os.Root, name string) (evaluator, error) {
	b, err := readBounded(root, name, maxVariables)
	if err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	var raw map[string]*string
	if err := json.Unmarshal(b, &raw); err != nil {
		// The decoder's message may quote a value.
		return nil, fmt.Errorf("read variables: %s is no JSON object of strings", name)
	}
	return newEvaluator(raw, time.Now()), nil
}

func readBounded(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it is larger than %d MiB", limit>>20)
	}
	return b, err
}

// substituteFile replaces the variables in one file; encoding, if it is not "", is what
// the file is to have.
func substituteFile(root *os.Root, name, encoding string, eval evaluator) (warning string, err error) {
	b, err := readBounded(root, name, maxSubstitute)
	if err != nil {
		return "", err
	}
	var failed error
	out, missing := structured.Substitute(b, encoding, func(text string) (string, []string) {
		result, missing, err := eval(text)
		if err != nil {
			failed, result = err, text
		}
		return result, missing
	})
	if failed != nil {
		return "", failed
	}
	if len(missing) > 0 {
		shown := missing[:min(len(missing), maxShownTokens)]
		warning = fmt.Sprintf("The following tokens were unable to be evaluated in '%s': '%s'", name, strings.Join(shown, "', '"))
		if more := len(missing) - len(shown); more > 0 {
			warning += fmt.Sprintf(" and %d more", more)
		}
	}
	if bytes.Equal(out, b) {
		return warning, nil
	}
	return warning, replaceFile(root, name, out)
}

// replaceFile writes a file anew, whole or not at all, with the mode it had.
func replaceFile(root *os.Root, name string, b []byte) error {
	info, err := root.Stat(name)
	if err != nil {
		return err
	}
	tmp := path.Join(path.Dir(name), ".substitute-"+uuid.NewString())
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = root.Chmod(tmp, info.Mode().Perm())
	}
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	return nil
}

// glob is a pattern for paths: *, ? and [a-z] within a name, ** for any number of
// directories, {a,b} for either. A pattern that begins with / or ./ means the same
// without.
type glob [][]string // alternatives of segments

func parseGlob(pattern string) (glob, error) {
	alternatives, err := expandBraces(strings.ReplaceAll(pattern, `\`, "/"))
	if err != nil {
		return nil, err
	}
	var g glob
	for _, alt := range alternatives {
		alt = path.Clean(strings.TrimLeft(alt, "/"))
		segments := strings.Split(alt, "/")
		if slices.Contains(segments, "..") {
			return nil, fmt.Errorf("the pattern %q leaves the workspace", pattern)
		}
		for i, s := range segments {
			if _, err := path.Match(s, ""); err != nil {
				return nil, fmt.Errorf("the pattern %q cannot be read: %q: %w", pattern, s, err)
			}
			if i > 0 && s == "**" && segments[i-1] == "**" {
				segments[i-1] = ""
			}
		}
		g = append(g, slices.DeleteFunc(segments, func(s string) bool { return s == "" }))
	}
	return g, nil
}

// expandBraces returns the patterns that a pattern with {a,b} stands for.
func expandBraces(pattern string) ([]string, error) {
	todo, out := []string{pattern}, []string(nil)
	for len(todo) > 0 {
		p := todo[0]
		todo = todo[1:]
		end := strings.IndexByte(p, '}')
		start := strings.LastIndexByte(p[:max(end, 0)], '{')
		if end < 0 || start < 0 {
			out = append(out, p)
			continue
		}
		for alt := range strings.SplitSeq(p[start+1:end], ",") {
			todo = append(todo, p[:start]+alt+p[end+1:])
		}
		if len(todo)+len(out) > maxAlternatives {
			return nil, fmt.Errorf("the pattern %q has more than %d alternatives", pattern, maxAlternatives)
		}
	}
	return out, nil
}

func (g glob) match(name string) bool {
	segments := strings.Split(name, "/")
	return slices.ContainsFunc(g, func(pattern []string) bool { return matchSegments(pattern, segments) })
}

// matchSegments matches greedily and goes back to the last ** only: its time is at
// most the product of the lengths.
func matchSegments(pattern, name []string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == "**" {
			star, mark = p, n
			p++
			continue
		}
		if p < len(pattern) {
			if ok, err := path.Match(pattern[p], name[n]); err == nil && ok {
				p++
				n++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, n = star+1, mark
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}
