package rest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// spacesKind is the name of the kind whose documents are the spaces.
const spacesKind = "spaces"

// space is what the API must know of a space to find its way into it.
type space struct {
	ID         ident.SpaceID `json:"Id"`
	Name, Slug string
	IsDefault  bool
}

// spaceList is every space at one moment.
type spaceList struct {
	at    uint64           // the change counter it was read at
	byRef map[string]space // by folded id, slug and name
	all   []ident.SpaceID
	home  ident.SpaceID // the default space, "" when there is none
}

// names reports whether a segment of a path names a space. Anything that looks
// like an id of one does, so that what is gone is a 404 that says so.
func (l *spaceList) names(ref string) bool {
	if _, ok := l.byRef[ident.Fold(ref)]; ok {
		return true
	}
	const prefix = "spaces-"
	if len(ref) <= len(prefix) || !strings.EqualFold(ref[:len(prefix)], prefix) {
		return false
	}
	_, ok := ident.Seq(ref)
	return ok
}

func (l *spaceList) find(ref string) (space, bool) {
	s, ok := l.byRef[ident.Fold(ref)]
	return s, ok
}

// holding lists the spaces, and "" for the system, in which p holds a permission
// for anything.
func (l *spaceList) holding(p Principal, permission string) []ident.SpaceID {
	var held []ident.SpaceID
	if holds(p, permission, "") {
		held = append(held, "")
	}
	for _, id := range l.all {
		if holds(p, permission, id) {
			held = append(held, id)
		}
	}
	return held
}

// knows reports whether the caller may know of a space: who holds anything in
// it, and who may see all.
func (r *Request) knows(id ident.SpaceID) bool {
	return slices.Contains(r.Principal.Access().Spaces(), id) || holds(r.Principal, string(octopus.PermSpaceView), "")
}

// knownSpaces cuts a list of ids of spaces to those that the caller may know of;
// nil is all, before as after.
func (r *Request) knownSpaces(ids []string) []string {
	if holds(r.Principal, string(octopus.PermSpaceView), "") {
		return ids
	}
	known := []string{}
	for _, id := range r.Principal.Access().Spaces() {
		if ids == nil || slices.ContainsFunc(ids, func(one string) bool { return strings.EqualFold(one, string(id)) }) {
			known = append(known, string(id))
		}
	}
	return known
}

// spaceCache keeps the spaces in memory, for nearly every request needs them. It
// reads them again once a commit, of this process or another, has changed one.
type spaceCache struct {
	db    *db.DB
	store *docstore.Store

	current atomic.Pointer[spaceList]
	mu      sync.Mutex // held while reading
}

// list returns the spaces as they are now.
func (c *spaceCache) list(ctx context.Context) (*spaceList, error) {
	at, err := c.db.Changes(ctx, spacesKind)
	if err != nil {
		return nil, err
	}
	if l := c.current.Load(); l != nil && l.at == at {
		return l, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.current.Load(); l != nil && l.at == at {
		return l, nil // somebody read it while we waited
	}
	l := &spaceList{at: at, byRef: map[string]space{}}
	if err := c.db.Read(ctx, func(tx *db.Tx) error { return c.read(ctx, tx, l) }); err != nil {
		return nil, fmt.Errorf("read the spaces: %w", err)
	}
	c.current.Store(l)
	return l, nil
}

func (c *spaceCache) read(ctx context.Context, tx *db.Tx, l *spaceList) error {
	all, err := docstore.All[space](ctx, c.store, tx, spacesKind, docstore.Query{})
	if err != nil {
		return err
	}
	// Ids win over slugs, and slugs over names, as everywhere.
	for _, ref := range []func(space) string{
		func(s space) string { return s.Name },
		func(s space) string { return s.Slug },
		func(s space) string { return string(s.ID) },
	} {
		for _, s := range all {
			if key := ident.Fold(ref(s)); key != "" {
				l.byRef[key] = s
			}
		}
	}
	for _, s := range all {
		l.all = append(l.all, s.ID)
		if s.IsDefault {
			l.home = s.ID
		}
	}
	return nil
}
