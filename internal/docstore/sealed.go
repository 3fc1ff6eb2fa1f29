package docstore

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/secret"
)

// SecretPlaces are where documents keep sealed values.
func (s *Store) SecretPlaces() []secret.Place {
	return []secret.Place{{
		Table: "documents", Keys: []string{"kind", "id"}, Column: "body",
		Refs: func(key []any, body string) ([]secret.Ref, error) {
			tree, err := resource.Parse([]byte(body))
			if err != nil {
				return nil, err
			}
			var refs []secret.Ref
			kind, id := fmt.Sprint(key[0]), fmt.Sprint(key[1])
			if k := s.kinds[kind]; k != nil {
				kind = k.Noun
			}
			err = eachSecret(tree, func(_, one resource.Tree, at string) error {
				if sealed := clearText(one); sealed != "" {
					refs = append(refs, secret.Ref{Owner: id, Field: at, Envelope: sealed, Kind: kind, OwnerName: resource.Text(tree, "Name"), At: inWords(tree, at)})
				}
				return nil
			})
			return refs, err
		},
		Clear: func(_ []any, body string, dead func(string) bool) (string, error) {
			tree, err := resource.Parse([]byte(body))
			if err != nil {
				return "", err
			}
			err = eachSecret(tree, func(obj, one resource.Tree, _ string) error {
				if dead(clearText(one)) {
					write(obj, one, nil)
				}
				return nil
			})
			if err != nil {
				return "", err
			}
			out, err := json.Marshal(tree)
			return string(out), err
		},
	}}
}

// inWords is the place of a secret as people know it: an element of an array is
// called by its name, where it has one.
func inWords(tree resource.Tree, at string) string {
	var words []string
	var node any = tree
	for _, seg := range strings.Split(strings.TrimPrefix(at, "/"), "/") {
		word := strings.ReplaceAll(strings.ReplaceAll(seg, "~1", "/"), "~0", "~")
		switch v := node.(type) {
		case resource.Tree:
			node = v[word]
		case []any:
			node = nil
			if i := slices.Index(elementNames(v), seg); i >= 0 {
				node = v[i]
			}
			if obj, ok := node.(resource.Tree); ok && resource.Text(obj, "Name") != "" {
				word = resource.Text(obj, "Name")
			}
		}
		words = append(words, word)
	}
	return strings.Join(words, "/")
}
