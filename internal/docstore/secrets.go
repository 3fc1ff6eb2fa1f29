package docstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/resource"
)

// A secret is known by its shape, that of octopus.Sensitive, wherever in a
// document it stands: a client newer than the server, or a kind of account that
// the server has never heard of, has its secrets sealed like any other. It is
// stored in that shape, with the ciphertext in place of NewValue.

// sealedMark stands in every stored body that has a secret in it. Within a JSON
// text it could not stand: its quotes would be escaped.
const sealedMark = `"NewValue":"`

// hasSecrets reports whether a stored body has secrets.
func hasSecrets(body []byte) bool { return bytes.Contains(body, []byte(sealedMark)) }

// secretOf returns the members of a secret by their proper names, and false when
// obj is none: it has a NewValue, or a HasValue and nothing but a Hint beside it.
// Other members that it may have are none of the secret's.
func secretOf(obj resource.Tree) (secret resource.Tree, ok bool) {
	secret = resource.Tree{}
	others := false
	for key, value := range obj {
		switch {
		case strings.EqualFold(key, "NewValue"):
			switch value.(type) {
			case resource.Tree, []any:
				return nil, false
			}
			secret["NewValue"] = value
		case strings.EqualFold(key, "HasValue"):
			secret["HasValue"] = value
		case strings.EqualFold(key, "Hint"):
			secret["Hint"] = value
		default:
			others = true
		}
	}
	_, given := secret["NewValue"]
	_, flagged := secret["HasValue"].(bool)
	return secret, given || flagged && !others
}

// clearText is what a client wrote as the new value of a secret, "" for none.
func clearText(secret resource.Tree) string {
	switch v := secret["NewValue"].(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	default:
		return ""
	}
}

// eachSecret calls fn for every secret of a tree: the object itself, its members
// by their proper names, and its place. An element of an array is called by its
// Id or its Name where it has one, so that its secrets move with it.
func eachSecret(tree resource.Tree, fn func(obj, secret resource.Tree, at string) error) error {
	return walkSecrets(tree, "", fn)
}

func walkSecrets(node any, at string, fn func(obj, secret resource.Tree, at string) error) error {
	var errs []error
	switch v := node.(type) {
	case resource.Tree:
		if secret, ok := secretOf(v); ok {
			return fn(v, secret, at)
		}
		for key, value := range v {
			errs = append(errs, walkSecrets(value, at+"/"+segment(key), fn))
		}
	case []any:
		names := elementNames(v)
		for i, e := range v {
			errs = append(errs, walkSecrets(e, at+"/"+names[i], fn))
		}
	}
	return errors.Join(errs...)
}

// segment escapes a name for a path, as a JSON pointer does.
func segment(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// elementNames are the names of an array's elements within a path: the Id, else
// the Name, and the index where there is neither or another element has the same.
func elementNames(list []any) []string {
	names := make([]string, len(list))
	taken := map[string]bool{}
	for i, e := range list {
		names[i] = "~#" + strconv.Itoa(i) // which no escaped name is
		obj, ok := e.(resource.Tree)
		if !ok {
			continue
		}
		for _, member := range []string{"Id", "Name"} {
			if name := segment(resource.Text(obj, member)); name != "" && !taken[name] {
				names[i], taken[name] = name, true
				break
			}
		}
	}
	return names
}

// write puts a secret into its object, under the proper names of its members.
func write(obj, secret resource.Tree, value any) {
	for key := range obj {
		if strings.EqualFold(key, "NewValue") || strings.EqualFold(key, "HasValue") || strings.EqualFold(key, "Hint") {
			delete(obj, key)
		}
	}
	obj["HasValue"], obj["NewValue"], obj["Hint"] = value != nil, value, nil
	if hint, _ := secret["Hint"].(string); hint != "" {
		obj["Hint"] = hint
	}
}

// seal encrypts new secrets, and carries over the old ones that were not given anew.
func (s *Store) seal(id string, tree, old resource.Tree) error {
	kept := map[string]string{}
	err := eachSecret(old, func(_, secret resource.Tree, at string) error {
		kept[at] = clearText(secret)
		return nil
	})
	if err != nil {
		return err
	}
	return eachSecret(tree, func(obj, secret resource.Tree, at string) error {
		given := clearText(secret)
		switch {
		case given != "":
			sealed, err := s.sealer.Seal(id, at, []byte(given))
			if err != nil {
				return fmt.Errorf("seal %s of %s: %w", at, id, err)
			}
			write(obj, secret, sealed)
		case secret["HasValue"] == true && kept[at] != "":
			write(obj, secret, kept[at])
		default:
			write(obj, secret, nil)
		}
		return nil
	})
}

// mask takes the ciphertexts out of a document that is about to be served.
func mask(tree resource.Tree) error {
	return eachSecret(tree, func(obj, secret resource.Tree, _ string) error {
		has := secret["HasValue"] == true
		write(obj, secret, nil)
		obj["HasValue"] = has
		return nil
	})
}

// unseal decrypts the secrets of a document.
func (s *Store) unseal(ctx context.Context, id string, tree resource.Tree) error {
	return eachSecret(tree, func(obj, secret resource.Tree, at string) error {
		sealed := clearText(secret)
		if sealed == "" {
			return nil
		}
		clear, err := s.sealer.Open(ctx, id, at, sealed)
		if err != nil {
			return fmt.Errorf("open %s of %s: %w", at, id, err)
		}
		write(obj, secret, string(clear))
		return nil
	})
}

// Served returns a document's body with its secrets masked, as clients may see it.
func (s *Store) Served(k *resource.Kind, doc *Doc) ([]byte, error) {
	if !hasSecrets(doc.Body) {
		return doc.Body, nil
	}
	tree, err := s.Tree(k, doc)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", k.Noun, doc.ID, err)
	}
	return body, nil
}
