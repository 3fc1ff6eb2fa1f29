package docstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/takodeploy/tako/internal/resource"
)

// A secret is stored in the object of its wire shape, with the ciphertext in
// place of NewValue. eachSecret calls fn for each such object of a document.
func eachSecret(k *resource.Kind, tree resource.Tree, fn func(secret resource.Tree, at string) error) error {
	var errs []error
	for _, path := range k.Secrets {
		resource.Walk(tree, path, func(obj resource.Tree, key, at string) {
			if secret, ok := obj[key].(resource.Tree); ok {
				if _, ok := secret["HasValue"]; ok {
					errs = append(errs, fn(secret, at))
				}
			}
		})
	}
	return errors.Join(errs...)
}

// seal encrypts new secrets, and carries over the old ones that were not given anew.
func (s *Store) seal(k *resource.Kind, id string, tree, old resource.Tree) error {
	if len(k.Secrets) == 0 {
		return nil
	}
	kept := map[string]any{}
	if old != nil {
		err := eachSecret(k, old, func(secret resource.Tree, at string) error {
			kept[at] = secret["NewValue"]
			return nil
		})
		if err != nil {
			return err
		}
	}
	return eachSecret(k, tree, func(secret resource.Tree, at string) error {
		clear, given := secret["NewValue"].(string)
		switch {
		case given && clear != "":
			sealed, err := s.sealer.Seal(id, at, []byte(clear))
			if err != nil {
				return fmt.Errorf("seal %s of %s: %w", at, id, err)
			}
			secret["NewValue"], secret["HasValue"] = sealed, true
		case secret["HasValue"] == true && kept[at] != nil:
			secret["NewValue"] = kept[at]
		default:
			secret["NewValue"], secret["HasValue"] = nil, false
		}
		return nil
	})
}

// mask takes the ciphertexts out of a document that is about to be served.
func mask(k *resource.Kind, tree resource.Tree) error {
	return eachSecret(k, tree, func(secret resource.Tree, _ string) error {
		secret["NewValue"] = nil
		return nil
	})
}

// unseal decrypts the secrets of a document.
func (s *Store) unseal(ctx context.Context, k *resource.Kind, id string, tree resource.Tree) error {
	return eachSecret(k, tree, func(secret resource.Tree, at string) error {
		sealed, ok := secret["NewValue"].(string)
		if !ok || sealed == "" {
			return nil
		}
		clear, err := s.sealer.Open(ctx, id, at, sealed)
		if err != nil {
			return fmt.Errorf("open %s of %s: %w", at, id, err)
		}
		secret["NewValue"] = string(clear)
		return nil
	})
}

// changedMembers lists the top-level members that differ, with secrets masked.
func (s *Store) changedMembers(k *resource.Kind, now, before resource.Tree) []difference {
	var diffs []difference
	ignore := []string{"LastModifiedOn", "LastModifiedBy", "Links", "Version"}
	members := slices.Sorted(maps.Keys(union(now, before)))
	for _, m := range members {
		if slices.Contains(ignore, m) || equalJSON(now[m], before[m]) {
			continue
		}
		d := difference{Path: "/" + m}
		if containsSecret(k, m) {
			d.Old, d.New = "***", "***"
		} else {
			d.Old, d.New = before[m], now[m]
		}
		diffs = append(diffs, d)
	}
	return diffs
}

func union(a, b resource.Tree) map[string]struct{} {
	all := map[string]struct{}{}
	for k := range a {
		all[k] = struct{}{}
	}
	for k := range b {
		all[k] = struct{}{}
	}
	return all
}
