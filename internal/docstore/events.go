package docstore

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/resource"
)

// difference is one line of what a change did, as the audit trail shows it.
type difference struct {
	Path string `json:"path"`
	Old  any    `json:"old"`
	New  any    `json:"new"`
}

// maxDetails bounds the stored difference of one event; a larger one names the
// members alone.
const maxDetails = 64 * 1024

// event adds the audit event of this change to its transaction.
func (c *change) event(category, did string, tree, old resource.Tree) {
	if c.k.Unaudited {
		return
	}
	name := c.display
	if name == "" {
		name = c.id
	}
	label := strings.ToUpper(c.k.Noun[:1]) + c.k.Noun[1:]
	e := db.Event{
		Category:     category,
		SpaceID:      string(c.space),
		Message:      label + " " + name + " " + did,
		Related:      []string{c.id},
		References:   []db.EventReference{{ID: c.id, Start: len(label) + 1, Length: len(name)}},
		DocumentType: c.k.ItemType,
	}
	dims := c.k.Dimensions
	for _, d := range []struct {
		path string
		to   *string
	}{{dims.Project, &e.ProjectID}, {dims.ProjectGroup, &e.ProjectGroupID}, {dims.Environment, &e.EnvironmentID}, {dims.Tenant, &e.TenantID}} {
		switch d.path {
		case "":
		case "Id":
			*d.to = c.id
		default:
			// A document in several environments is seen with any of them; the
			// event keeps the related ids, and the first for the narrow filter.
			values := resource.Values(tree, d.path)
			if len(values) > 0 {
				*d.to = values[0]
			}
			e.Related = append(e.Related, values...)
		}
	}
	if category == "Modified" {
		e.Details = c.details(tree, old)
	}
	c.tx.Event(e)
}

func (c *change) details(tree, old resource.Tree) json.RawMessage {
	diffs := c.s.changedMembers(c.k, tree, old)
	body, err := json.Marshal(diffs)
	if err == nil && len(body) > maxDetails {
		for i := range diffs {
			diffs[i].Old, diffs[i].New = "(too long)", "(too long)"
		}
		body, err = json.Marshal(diffs)
	}
	if err != nil {
		return nil
	}
	return body
}

func containsSecret(k *resource.Kind, member string) bool {
	for _, path := range k.Secrets {
		if first, _, _ := strings.Cut(path, "."); first == member {
			return true
		}
	}
	return false
}

func equalJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
