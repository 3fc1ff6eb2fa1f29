package secret

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
)

// Place is a column of a table in which envelopes stand within other text. Every
// package that seals values declares where it keeps them, so that a rotation and
// a check find all.
type Place struct {
	// Table, its key and the column; the names are the schema's own, never input.
	Table, Column string
	Keys          []string
	// Refs finds the envelopes in a row.
	Refs func(key []any, body string) ([]Ref, error)
	// Clear takes envelopes out of a row when nobody can open them any more; nil
	// where they are a record of what was, which stays as it is.
	Clear func(key []any, body string, dead func(envelope string) bool) (string, error)
}

// Ref is an envelope and what it is bound to.
type Ref struct {
	Table        string
	Owner, Field string
	Envelope     string
	// For people, each may be "": the kind and the name of the owner, and the field
	// in words of theirs.
	Kind, OwnerName, At string
}

// Under is the id of the data key that sealed an envelope, "" if it is none.
func Under(envelope string) string {
	rest, ok := strings.CutPrefix(envelope, prefix)
	id, _, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return ""
	}
	return id
}

// batch bounds the rows of a place that are read or written in one transaction,
// and so the memory and the time that other writers wait.
const batch = 50

type row struct {
	key  []any
	body string
}

// rows reads the next rows of a place that may have envelopes in them.
func (p *Place) rows(ctx context.Context, t *db.Tx, after []any) ([]row, error) {
	keys := strings.Join(p.Keys, ", ")
	where, args := `WHERE `+p.Column+` LIKE ?`, []any{db.Containing(prefix)}
	if after != nil {
		where += ` AND (` + keys + `) > (?` + strings.Repeat(`, ?`, len(p.Keys)-1) + `)`
		args = append(args, after...)
	}
	found, err := t.Query(ctx, `SELECT `+keys+`, `+p.Column+` FROM `+p.Table+` `+where+` ORDER BY `+keys+` LIMIT `+fmt.Sprint(batch), args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var out []row
	for found.Next() {
		r := row{key: make([]any, len(p.Keys))}
		into := make([]any, 0, len(p.Keys)+1)
		for i := range r.key {
			into = append(into, &r.key[i])
		}
		if err := found.Scan(append(into, &r.body)...); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, found.Err()
}

func (p *Place) refs(r row) ([]Ref, error) {
	refs, err := p.Refs(r.key, r.body)
	if err != nil {
		return nil, fmt.Errorf("read %s %v: %w", p.Table, r.key, err)
	}
	for i := range refs {
		refs[i].Table = p.Table
	}
	return refs, nil
}

// Walk calls fn for every envelope of the places, in transactions of a few rows.
func (b *Box) Walk(ctx context.Context, places []Place, fn func(Ref) error) error {
	return b.eachBatch(ctx, places, func(p *Place, rows []row) error {
		for _, r := range rows {
			refs, err := p.refs(r)
			if err != nil {
				return err
			}
			for _, ref := range refs {
				if err := fn(ref); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// eachBatch reads the places in pieces and hands them on outside of any transaction.
func (b *Box) eachBatch(ctx context.Context, places []Place, fn func(p *Place, rows []row) error) error {
	for i := range places {
		p := &places[i]
		for after := []any(nil); ; {
			var rows []row
			err := b.d.Read(ctx, func(t *db.Tx) (err error) {
				rows, err = p.rows(ctx, t, after)
				return err
			})
			if err != nil {
				return fmt.Errorf("look for secrets in %s: %w", p.Table, err)
			}
			if len(rows) == 0 {
				break
			}
			if err := fn(p, rows); err != nil {
				return err
			}
			after = rows[len(rows)-1].key
		}
	}
	return nil
}

// change rewrites rows of a place. A row that somebody else changed since it was
// read stays as it is: it is looked at again in the next pass.
func (b *Box) change(ctx context.Context, p *Place, old, changed []row) error {
	if len(changed) == 0 {
		return nil
	}
	where := strings.Join(p.Keys, ` = ? AND `) + ` = ? AND ` + p.Column + ` = ?`
	return b.d.Write(ctx, func(t *db.Tx) error {
		for i, r := range changed {
			args := append(append([]any{r.body}, r.key...), old[i].body)
			if _, err := t.Exec(ctx, `UPDATE `+p.Table+` SET `+p.Column+` = ? WHERE `+where, args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// reseal seals every value anew that is not under the newest data key, and counts
// them. Values that no key opens are left alone. Between batches it leaves the
// database to others for as long as it took it.
func (b *Box) reseal(ctx context.Context, places []Place, progress func(done int)) (done int, err error) {
	b.mu.RLock()
	newest := b.newest
	b.mu.RUnlock()
	err = b.eachBatch(ctx, places, func(p *Place, rows []row) error {
		started := time.Now()
		var old, anew []row
		n := 0
		for _, r := range rows {
			refs, err := p.refs(r)
			if err != nil {
				return err
			}
			var swaps []string
			for _, ref := range refs {
				if under := Under(ref.Envelope); under == "" || under == newest {
					continue
				}
				next, err := b.Reseal(ctx, ref.Owner, ref.Field, ref.Owner, ref.Field, ref.Envelope)
				if isDead(err) {
					continue
				}
				if err != nil {
					return err
				}
				swaps = append(swaps, ref.Envelope, next)
			}
			if len(swaps) == 0 {
				continue
			}
			n += len(swaps) / 2
			old = append(old, r)
			anew = append(anew, row{r.key, strings.NewReplacer(swaps...).Replace(r.body)})
		}
		if err := b.change(ctx, p, old, anew); err != nil {
			return fmt.Errorf("seal the secrets of %s anew: %w", p.Table, err)
		}
		if err := failpoint.Hit("rotate-batch"); err != nil {
			return err
		}
		if done += n; n > 0 && progress != nil {
			progress(done)
		}
		if n == 0 {
			return nil
		}
		return pause(ctx, min(time.Since(started), time.Second))
	})
	return done, err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
