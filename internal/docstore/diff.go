package docstore

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/resource"
)

// difference is one line of what a change did, as the audit trail shows it. Path
// is a JSON pointer in which the elements of arrays go by their Id or Name; Old
// or New is null for what came or went.
type difference struct {
	Path string `json:"path"`
	Old  any    `json:"old"`
	New  any    `json:"new"`
}

// Bounds of the stored difference of one event.
const (
	maxDifferences = 200
	maxShown       = 2 * 1024  // bytes of one value, as JSON
	maxDetails     = 64 * 1024 // bytes of all
)

const (
	hiddenSecret = "***"
	tooLong      = "(too long)"
)

// differences lists what changed between two stored documents. Of a secret it
// says that it changed, and nothing else.
func differences(now, before resource.Tree) []difference {
	d := differ{}
	for _, m := range slices.Sorted(maps.Keys(merged(now, before))) {
		if !slices.Contains([]string{"LastModifiedOn", "LastModifiedBy", "Links", "Version"}, m) {
			d.compare("/"+segment(m), before[m], now[m])
		}
	}
	if d.more {
		d.found = append(d.found, difference{Path: "/", Old: tooLong, New: tooLong})
	}
	return d.found
}

// onlyMeasured reports whether nothing but what a kind's declaration says is measured
// differs between two documents.
func onlyMeasured(k *resource.Kind, now, before resource.Tree) bool {
	if len(k.Measured) == 0 {
		return false
	}
	for _, d := range differences(now, before) {
		within := func(path string) bool {
			at := "/" + strings.ReplaceAll(path, ".", "/")
			return d.Path == at || strings.HasPrefix(d.Path, at+"/")
		}
		if !slices.ContainsFunc(k.Measured, within) {
			return false
		}
	}
	return true
}

// details is the difference as an event keeps it.
func details(now, before resource.Tree) json.RawMessage {
	found := differences(now, before)
	body, err := json.Marshal(found)
	if err == nil && len(body) > maxDetails {
		for i := range found {
			found[i].Old, found[i].New = tooLong, tooLong
		}
		body, err = json.Marshal(found)
	}
	if err != nil || len(body) > maxDetails {
		return nil // only paths of thousands of bytes make it that long
	}
	return body
}

type differ struct {
	found []difference
	more  bool
}

func (d *differ) add(path string, old, now any) {
	if len(d.found) == maxDifferences {
		d.more = true
		return
	}
	d.found = append(d.found, difference{path, shown(old), shown(now)})
}

func (d *differ) compare(path string, old, now any) {
	if d.more || reflect.DeepEqual(old, now) {
		return
	}
	switch o := old.(type) {
	case resource.Tree:
		n, ok := now.(resource.Tree)
		if !ok || isSecret(o) || isSecret(n) {
			break
		}
		for _, m := range slices.Sorted(maps.Keys(merged(n, o))) {
			d.compare(path+"/"+segment(m), o[m], n[m])
		}
		return
	case []any:
		if n, ok := now.([]any); ok && objects(o) && objects(n) {
			d.compareLists(path, o, n)
			return
		}
	}
	d.add(path, old, now)
}

// compareLists compares arrays of objects by the names of these.
func (d *differ) compareLists(path string, old, now []any) {
	oldNames, newNames := elementNames(old), elementNames(now)
	before := map[string]any{}
	for i, name := range oldNames {
		before[name] = old[i]
	}
	stayed := map[string]bool{}
	for i, name := range newNames {
		o, ok := before[name]
		stayed[name] = ok
		d.compare(path+"/"+name, o, now[i])
	}
	gone := func(name string) bool { return !stayed[name] }
	for _, name := range oldNames {
		if gone(name) {
			d.add(path+"/"+name, before[name], nil)
		}
	}
	oldNames, newNames = slices.DeleteFunc(oldNames, gone), slices.DeleteFunc(newNames, gone)
	if !slices.Equal(oldNames, newNames) {
		d.add(path, oldNames, newNames) // the order is all that is left
	}
}

// objects reports whether an array is one of objects, which are compared by name.
func objects(list []any) bool {
	for _, e := range list {
		if _, ok := e.(resource.Tree); !ok {
			return false
		}
	}
	return true
}

func isSecret(t resource.Tree) bool {
	_, ok := secretOf(t)
	return ok
}

// shown is a value as an event may show it: without secrets, and not too long.
func shown(v any) any {
	v = withoutSecrets(v)
	if body, err := json.Marshal(v); err != nil || len(body) > maxShown {
		return tooLong
	}
	return v
}

func withoutSecrets(v any) any {
	switch v := v.(type) {
	case resource.Tree:
		if isSecret(v) {
			return hiddenSecret
		}
		out := make(resource.Tree, len(v))
		for key, value := range v {
			out[key] = withoutSecrets(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = withoutSecrets(v[i])
		}
		return out
	default:
		return v
	}
}

func merged(a, b resource.Tree) map[string]struct{} {
	all := map[string]struct{}{}
	for k := range a {
		all[k] = struct{}{}
	}
	for k := range b {
		all[k] = struct{}{}
	}
	return all
}
