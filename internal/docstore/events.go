package docstore

import (
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/resource"
)

// Bounds of what an event relates to: a document may name thousands of others.
const (
	maxRelated   = 200
	maxRelatedID = 200 // bytes
)

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
		References:   []db.EventReference{{ID: c.id, Start: len(label) + 1, Length: len(utf16.Encode([]rune(name)))}},
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
			values := slices.DeleteFunc(resource.Values(tree, d.path), func(id string) bool { return len(id) > maxRelatedID })
			if len(values) > 0 {
				*d.to = values[0]
			}
			e.Related = append(e.Related, values...)
		}
	}
	e.Related = e.Related[:min(len(e.Related), maxRelated)]
	if category == "Modified" {
		e.Details = details(tree, old)
	}
	c.tx.Event(e)
}
