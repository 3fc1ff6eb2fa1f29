package releases

import (
	"context"
	"hash/maphash"
)

// turns let one caller at a time do something with the same thing, as far as this
// process can see to that. Different things may share a turn.
//
// Two transactions that each make a deployment of one release read what the other
// writes, so that PostgreSQL fails one of them; it is quicker not to begin both.
type turns struct {
	seed maphash.Seed
	each [64]chan struct{} // full while somebody has it
}

func newTurns() *turns {
	t := &turns{seed: maphash.MakeSeed()}
	for i := range t.each {
		t.each[i] = make(chan struct{}, 1)
	}
	return t
}

// take waits for the turn of id; done gives it back.
func (t *turns) take(ctx context.Context, id string) (done func(), err error) {
	turn := t.each[maphash.String(t.seed, id)%uint64(len(t.each))]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
