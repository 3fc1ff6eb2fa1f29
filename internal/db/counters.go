package db

import (
	"context"
	"fmt"
	"sync"
)

// blockSize is how many numbers of a counter a process takes at a time.
const blockSize = 32

// counters hands out ids. A block is taken inside the caller's transaction, so
// a rolled-back transaction leaves its block unused unless it was committed;
// numbers are only given from blocks that the same transaction took or that an
// earlier one committed.
type counters struct {
	mu     sync.Mutex
	blocks map[string]*block
}

type block struct{ next, end int64 }

func (c *counters) next(ctx context.Context, t *Tx, counter string) (int64, error) {
	c.mu.Lock()
	if b := c.blocks[counter]; b != nil && b.next < b.end {
		n := b.next
		b.next++
		c.mu.Unlock()
		return n, nil
	}
	c.mu.Unlock()
	if b := t.blocks[counter]; b != nil && b.next < b.end {
		n := b.next
		b.next++
		return n, nil
	}

	var end int64
	err := t.QueryRow(ctx, `INSERT INTO counter (kind, next) VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET next = counter.next + ? RETURNING next`,
		counter, blockSize+1, blockSize).Scan(&end)
	if err != nil {
		return 0, fmt.Errorf("take ids of %s: %w", counter, err)
	}
	b := &block{next: end - blockSize, end: end}
	n := b.next
	b.next++
	if t.blocks == nil {
		t.blocks = map[string]*block{}
	}
	t.blocks[counter] = b
	t.AfterCommit(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.blocks == nil {
			c.blocks = map[string]*block{}
		}
		if old := c.blocks[counter]; old == nil || old.next >= old.end {
			c.blocks[counter] = b
		}
	})
	return n, nil
}

// forget drops the blocks of a former life of the database.
func (c *counters) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks = nil
}
