package db

import "container/list"

// stmtCache keeps a connection's prepared statements, the least used leave
// first. A connection has one user at a time, so it has no lock.
type stmtCache struct {
	max   int
	byTxt map[string]*list.Element
	order *list.List // front = used last; values are *stmtEntry
}

type stmtEntry struct {
	text string
	stmt liteStmt
}

func newStmtCache(size int) *stmtCache {
	return &stmtCache{max: size, byTxt: map[string]*list.Element{}, order: list.New()}
}

func (c *stmtCache) get(text string) liteStmt {
	el := c.byTxt[text]
	if el == nil {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*stmtEntry).stmt
}

func (c *stmtCache) put(text string, s liteStmt) error {
	c.byTxt[text] = c.order.PushFront(&stmtEntry{text: text, stmt: s})
	if c.order.Len() <= c.max {
		return nil
	}
	last := c.order.Back()
	old := last.Value.(*stmtEntry)
	c.order.Remove(last)
	delete(c.byTxt, old.text)
	return old.stmt.Close()
}

func (c *stmtCache) close() error {
	var first error
	for el := c.order.Front(); el != nil; el = el.Next() {
		if err := el.Value.(*stmtEntry).stmt.Close(); err != nil && first == nil {
			first = err
		}
	}
	c.order.Init()
	clear(c.byTxt)
	return first
}
