package orchestrator

import (
	"encoding/json"
	"fmt"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/secret"
)

// SecretPlaces are where the engine keeps sealed values: outputs in the journal,
// and what scripts asked to be masked.
func SecretPlaces() []secret.Place {
	return []secret.Place{{
		Table: "journal", Keys: []string{"task", "seq"}, Column: "fact",
		Refs: func(key []any, body string) ([]secret.Ref, error) {
			var f deploy.Fact
			if err := json.Unmarshal([]byte(body), &f); err != nil {
				return nil, err
			}
			if f.Output == nil || !f.Output.Sensitive {
				return nil, nil
			}
			return []secret.Ref{{Owner: fmt.Sprint(key[0]), Field: "output." + f.Output.Name, Envelope: f.Output.Value}}, nil
		},
	}, {
		Table: "unit_cursor", Keys: []string{"task", "unit"}, Column: "parser",
		Refs: func(key []any, body string) ([]secret.Ref, error) {
			var state parserState
			if err := json.Unmarshal([]byte(body), &state); err != nil {
				return nil, err
			}
			refs := make([]secret.Ref, len(state.Masks))
			for i, sealed := range state.Masks {
				refs[i] = secret.Ref{Owner: fmt.Sprint(key[0]), Field: "mask", Envelope: sealed}
			}
			return refs, nil
		},
	}}
}
