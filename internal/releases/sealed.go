package releases

import (
	"encoding/json"
	"fmt"

	"github.com/takodeploy/tako/internal/secret"
)

// SecretPlaces are where deployments keep sealed values: answers to prompts, what
// another deployment handed over, and outputs of one that they go on from.
func SecretPlaces() []secret.Place {
	return []secret.Place{{
		Table: "manifest", Keys: []string{"id"}, Column: "body",
		Refs: func(key []any, body string) ([]secret.Ref, error) {
			var m manifest
			if err := json.Unmarshal([]byte(body), &m); err != nil {
				return nil, err
			}
			owner := fmt.Sprint(key[0])
			var refs []secret.Ref
			for by, answers := range map[string]map[string]string{"id": m.ByID, "name": m.ByName} {
				for name, sealed := range answers {
					refs = append(refs, secret.Ref{Owner: owner, Field: by + "." + name, Envelope: sealed})
				}
			}
			for _, v := range m.Passed {
				refs = append(refs, secret.Ref{Owner: owner, Field: "passed." + v.Name, Envelope: v.Sealed})
			}
			for i, o := range m.Carried {
				if o.Sensitive {
					refs = append(refs, secret.Ref{Owner: owner, Field: carriedField(i), Envelope: o.Value})
				}
			}
			return refs, nil
		},
	}}
}
