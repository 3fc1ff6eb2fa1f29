package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// program is the path of a version's program. That of a container's image is not among the
// versions on the volume.
func (c *Coordinator) program(version string) string {
	if c.image && version == c.cfg.Version && c.cfg.Program != "" {
		return c.cfg.Program
	}
	return c.cfg.Store.Program(version)
}

// discard removes the program of a version that was fetched to try it, once a container runs
// with that version's image. What cannot be removed stays until `tako upgrade prune`.
func (c *Coordinator) discard(version string) {
	if c.cfg.Version != version {
		return // another image was started meanwhile, and nobody knows what for
	}
	alone, err := c.cfg.Store.Lock()
	if err == nil {
		if _, bad := os.Stat(c.cfg.Store.Program(version)); !errors.Is(bad, os.ErrNotExist) {
			err = errors.Join(alone.Discard(version), alone.Empty())
		}
		err = errors.Join(err, alone.Unlock())
	}
	if err != nil {
		fmt.Fprintf(c.cfg.Log, "the program of version %s, which the image has too, stays on the volume: %v\n", version, err)
	}
}

// passage is from which version to which a container has gone.
type passage struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// unseen is a change of a container's image that the journal does not tell, since whoever saw
// it could not write, as on a full disk: `current` names what has served last.
func (t *Txn) unseen(root string) (p passage, ok bool) {
	if !t.Plan.Image || t.State.Ended() {
		return p, false
	}
	link, err := os.Readlink(filepath.Join(root, "current"))
	if err != nil {
		return p, false
	}
	switch now := filepath.Base(link); {
	case now == t.Plan.To && !t.Taken:
		return passage{t.Plan.From, t.Plan.To}, true
	case now == t.Plan.From && t.Taken:
		return passage{t.Plan.To, t.Plan.From}, true
	}
	return p, false
}

// witness writes a change of the image that the journal does not tell, and reports whether
// there was one.
func (c *Coordinator) witness(ctx context.Context, t *Txn) (bool, error) {
	p, ok := t.unseen(c.cfg.Root)
	if !ok {
		return false, nil
	}
	// Not in the moment in which the first process of the container writes it.
	if r, err := supervisor.Ask(ctx, c.cfg.Root, supervisor.Order{Do: "status"}); err != nil || !serves(r, p.To) {
		return false, nil //nolint:nilerr // whoever is not asked tells nothing
	}
	if err := c.journal.Refresh(); err != nil {
		return false, err
	}
	now, err := Last(c.journal.Entries())
	if err != nil {
		return false, err
	}
	if now, ok := now.unseen(c.cfg.Root); !ok || now != p {
		return true, nil // it was just written
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return false, err
	}
	_, err = c.journal.Append(time.Now(), func(all []journal.Entry) (journal.Entry, error) {
		_, err := same(all, t)
		return journal.Entry{Txn: t.ID, Kind: supervisor.NoteSwitched, Data: raw}, err
	})
	return true, err
}
