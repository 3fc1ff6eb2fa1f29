package events

import (
	"context"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

// maxValues bounds the values of one list; both databases bound their parameters.
const maxValues = 2000

// clause gathers a condition and its parameters.
type clause struct {
	parts []string
	args  []any
}

// and adds a condition.
func (c *clause) and(sql string, args ...any) {
	c.parts = append(c.parts, sql)
	c.args = append(c.args, args...)
}

// in is "column IN (...)" with its parameters.
func in(column string, values []string) (string, []any) {
	if len(values) == 0 {
		return `1 = 0`, nil
	}
	values = values[:min(len(values), maxValues)]
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return column + ` IN (?` + strings.Repeat(`, ?`, len(values)-1) + `)`, args
}

// anyOf adds the condition that a column has any of the values, if there are some.
func (c *clause) anyOf(column string, values []string) {
	if len(values) > 0 {
		sql, args := in(column, values)
		c.and(sql, args...)
	}
}

// where is the condition of a query.
func (t *Trail) where(ctx context.Context, tx *db.Tx, q *Query) (string, []any, error) {
	var c clause
	t.places(&c, q.Places)
	if !q.From.IsZero() {
		c.and(`e.occurred >= ?`, db.Micros(q.From))
	}
	if !q.To.IsZero() {
		c.and(`e.occurred <= ?`, db.Micros(q.To))
	}
	if q.FromID > 0 {
		c.and(`e.id >= ?`, q.FromID)
	}
	if q.ToID > 0 {
		c.and(`e.id <= ?`, q.ToID)
	}
	if q.following() {
		settled, err := tx.SettledEvents(ctx)
		if err != nil {
			return "", nil, err
		}
		c.and(`e.id <= ?`, settled)
	}
	if q.IDs != nil {
		numbers := make([]any, 0, len(q.IDs))
		for _, id := range q.IDs[:min(len(q.IDs), maxValues)] {
			if n, ok := number(id); ok {
				numbers = append(numbers, n)
			}
		}
		if len(numbers) == 0 {
			c.and(`1 = 0`)
		} else {
			c.and(`e.id IN (?`+strings.Repeat(`, ?`, len(numbers)-1)+`)`, numbers...)
		}
	}
	for _, id := range t.canonical(q.Regarding) {
		c.and(`e.id IN (SELECT r.event_id FROM event_related r WHERE r.document_id = ?)`, id)
	}
	if len(q.RegardingAny) > 0 {
		sql, args := in(`r.document_id`, t.canonical(q.RegardingAny))
		c.and(`e.id IN (SELECT r.event_id FROM event_related r WHERE `+sql+`)`, args...)
	}
	for _, d := range []struct {
		dim    dimension
		values []string
	}{{project, q.Projects}, {projectGroup, q.ProjectGroups}, {environment, q.Environments}, {tenant, q.Tenants}} {
		if len(d.values) > 0 {
			sql, args := d.dim.has(t.canonical(d.values))
			c.and(sql, args...)
		}
	}
	c.anyOf(`e.user_id`, t.canonical(q.Users))
	t.named(&c, q)
	return strings.Join(c.parts, ` AND `), c.args, nil
}

// number reads the id of an event.
func number(id string) (int64, bool) {
	if len(id) <= len(Prefix) || !strings.EqualFold(id[:len(Prefix)+1], Prefix+"-") {
		return 0, false
	}
	return ident.Seq(id)
}

// canonical spells numbered ids as they are stored: they are compared without
// case. Others ("teams-everyone") are spelled in one way only.
func (t *Trail) canonical(ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id
		word, number, ok := strings.Cut(id, "-")
		if prefix := t.prefixes[strings.ToLower(word)]; ok && prefix != "" && number != "" && strings.Trim(number, "0123456789") == "" {
			out[i] = prefix + "-" + number
		}
	}
	return out
}

// places adds the condition that an event is where the reader may look, and that
// the ways in which it may cover the event.
func (t *Trail) places(c *clause, places []Place) {
	var open []string
	var alternatives []string
	var args []any
	for _, p := range places {
		if p.Grants == nil {
			open = append(open, string(p.Space))
			continue
		}
		if seen, more := visible(p.Grants); seen != "" {
			alternatives = append(alternatives, `(e.space_id = ? AND `+seen+`)`)
			args = append(append(args, string(p.Space)), more...)
		}
	}
	if len(open) > 0 {
		sql, more := in(`e.space_id`, open)
		alternatives = append(alternatives, sql)
		args = append(args, more...)
	}
	if len(alternatives) == 0 {
		c.and(`1 = 0`)
		return
	}
	c.and(`(`+strings.Join(alternatives, ` OR `)+`)`, args...)
}

// visible is the condition that one of the grants covers an event; "" when there
// is none. A grant that is limited in a dimension does not cover what has none of
// it: who may see one project's events does not see those of no project.
func visible(grants []resource.Grant) (string, []any) {
	var alternatives []string
	var args []any
	for _, g := range grants {
		if g.Unrestricted() {
			return `1 = 1`, nil
		}
		var all []string
		for _, d := range []struct {
			dim    dimension
			values []string
		}{{project, g.Projects}, {projectGroup, g.ProjectGroups}, {environment, g.Environments}, {tenant, g.Tenants}} {
			if len(d.values) > 0 {
				sql, more := d.dim.has(d.values)
				all = append(all, sql)
				args = append(args, more...)
			}
		}
		alternatives = append(alternatives, strings.Join(all, ` AND `))
	}
	if len(alternatives) == 0 {
		return "", nil
	}
	return `((` + strings.Join(alternatives, `) OR (`) + `))`, args
}

// dimension is what an event can be limited by.
type dimension uint8

const (
	project dimension = iota
	projectGroup
	environment
	tenant
)

// has is the condition that an event is of one of these projects, and so on. A
// document that is in several environments is found by any of them: the event has
// the first in its column, and all among what it is about.
func (d dimension) has(ids []string) (string, []any) {
	switch d {
	case project:
		return in(`e.project_id`, ids)
	case projectGroup:
		groups, args := in(`e.project_group_id`, ids)
		folded := make([]string, len(ids))
		for i, id := range ids {
			folded[i] = ident.Fold(id)
		}
		values, more := in(`p.value`, folded)
		return `(` + groups + ` OR e.project_id IN (SELECT p.id FROM document_index p WHERE p.kind = 'projects' AND p.field = 'ProjectGroupId' AND ` + values + `))`, append(args, more...)
	case environment, tenant:
		column := `e.environment_id`
		if d == tenant {
			column = `e.tenant_id`
		}
		own, args := in(column, ids)
		related, more := in(`r.document_id`, ids)
		return `(` + own + ` OR e.id IN (SELECT r.event_id FROM event_related r WHERE ` + related + `))`, append(args, more...)
	}
	return `1 = 0`, nil
}

// named adds the conditions on what is named by ids of our own lists. An id that
// is not among them matches nothing: clients may know more than this server.
func (t *Trail) named(c *clause, q *Query) {
	if len(q.Categories)+len(q.Groups) > 0 {
		sql, args := in(`e.category`, categoriesOf(q.Categories, q.Groups))
		c.and(sql, args...)
	}
	if len(q.DocumentTypes) > 0 {
		var types []string
		for _, id := range q.DocumentTypes {
			types = append(types, t.itemTypes(id)...)
		}
		sql, args := in(`e.document_type`, types)
		c.and(sql, args...)
	}
	if len(q.Agents) > 0 {
		alternatives := []string{`1 = 0`}
		var args []any
		for _, agent := range Agents() {
			if slices.ContainsFunc(q.Agents, func(id string) bool { return strings.EqualFold(id, agent.ID) }) {
				alternatives = append(alternatives, `lower(e.user_agent) LIKE ?`)
				args = append(args, agent.like)
			}
		}
		c.and(`(`+strings.Join(alternatives, ` OR `)+`)`, args...)
	}
}

// CategoriesOf lists the categories that are named by their ids, and those of the named
// groups. Ids that are not known add nothing.
func CategoriesOf(categories, groups []string) []string { return categoriesOf(categories, groups) }

// categoriesOf lists categories and those of groups.
func categoriesOf(categories, groups []string) []string {
	var all []string
	for _, c := range Categories("") {
		if slices.ContainsFunc(categories, func(id string) bool { return strings.EqualFold(id, c.ID) }) {
			all = append(all, c.ID)
		}
	}
	for _, g := range Groups("") {
		if slices.ContainsFunc(groups, func(id string) bool { return strings.EqualFold(id, g.ID) }) {
			all = append(all, g.Categories...)
		}
	}
	return all
}
